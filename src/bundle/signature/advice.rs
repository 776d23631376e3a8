//! What to do about an input that has no known meaning.

use super::error::unsupported;
use super::{Role, SignatureError};
use crate::tensor::{Dim, ValueInfo};

/// What the other inputs of a graph are.
pub(super) struct KnownInputs<'a> {
    pub(super) roles: &'a [Role],
    pub(super) has_class: bool,
}

/// The error for an input that has no known meaning, with advice that fits its name, its type and its axes.
pub(super) fn unknown_input(input: &ValueInfo, known: &KnownInputs<'_>) -> SignatureError {
    if let Some(reason) = control_input(&input.name) {
        return unsupported(input, reason);
    }
    if let Some(meaning) = unserved_meaning(&input.name) {
        return unsupported(
            input,
            format!("it is {meaning}, which is not served; export the network without it"),
        );
    }
    let name = &input.name;
    let is_float = input.element.is_float();
    let is_class = input.shape.len() == 1 && input.element.is_integer();
    let advice = match suggested_role(input).filter(|role| !known.roles.contains(role)) {
        Some(role) => {
            format!(
                "If it takes {}, name it in denoised.toml: [graph] {} = {name:?}",
                role.meaning(),
                role.key()
            )
        }
        None if is_class && !known.has_class => {
            format!("If it takes a class label, name it in denoised.toml: [graph] class_labels = {name:?}")
        }
        None if is_float && input.shape.len() == 1 => {
            format!(
                "If it is one number per sample, name it in denoised.toml: [conditions.{name:?}] default = 0.0"
            )
        }
        None => "Nothing that a job has fits its type and its axes; export the network without it".to_owned(),
    };
    SignatureError::Unknown { input: input.to_string(), advice }
}

/// The role that the type and the axes of an input suggest, whatever its name.
fn suggested_role(input: &ValueInfo) -> Option<Role> {
    let is_float = input.element.is_float();
    match (input.shape.len(), input.shape.last()?) {
        (2, Dim::Fixed(6)) if is_float => Some(Role::TimeIds),
        (2 | 3, Dim::Fixed(3)) => Some(Role::ImageIds),
        (2, _) if is_float => Some(Role::Pooled),
        (3, _) if is_float => Some(Role::Text),
        _ => None,
    }
}

/// The key under `[graph]` in denoised.toml for an input that a pipeline fills, by its usual name or else by its type and
/// its axes. `None` for an input that no pipeline fills.
pub(crate) fn graph_key(input: &ValueInfo) -> Option<&'static str> {
    if control_input(&input.name).or(unserved_meaning(&input.name)).is_some() {
        return None;
    }
    let usual = Role::ALL.into_iter().find(|role| role.usual_names().contains(&input.name.as_str()));
    usual.or_else(|| suggested_role(input)).map(Role::key)
}

/// The meaning of an input that diffusers' networks have, and that no pipeline served here fills.
fn unserved_meaning(name: &str) -> Option<&'static str> {
    Some(match name {
        "attention_mask" | "encoder_hidden_states_mask" => {
            "a mask of the text's tokens, as Chroma, Qwen-Image and their kind take it"
        }
        "image_embeds" | "image_embeddings" | "ip_hidden_states" | "ip_adapter_image_embeds" => {
            "the embedding of an image (IP-Adapter, unCLIP)"
        }
        "resolution" | "aspect_ratio" => "PixArt's size input",
        "num_frames" | "added_time_ids" | "image_only_indicator" | "fps" => "an input of a video network",
        _ => return None,
    })
}

/// Why an input for pictures that steer the network, or for what is computed of them, is not served.
fn control_input(name: &str) -> Option<&'static str> {
    const FUSED: [&str; 5] =
        ["controlnet_conds", "controlnet_images", "controlnet_scales", "conditioning_scales", "images"];
    if FUSED.contains(&name) {
        return Some(
            "this U-Net holds its ControlNets inside; export the U-Net and each ControlNet apart, so that a job can choose",
        );
    }
    let starts = |starts: &[&str]| starts.iter().any(|start| name.starts_with(start));
    if starts(&["down_intrablock_"]) {
        return Some("it is an input for a T2I-Adapter, which is not served; export the network without it");
    }
    if starts(&["block_controlnet_", "controlnet_"]) {
        return Some(
            "it is an input for a ControlNet of Stable Diffusion 3 or Flux, which is not served; export the network \
             without it",
        );
    }
    starts(&["down_block_", "mid_block_", "input_control_"]).then_some(
        "it is an input for a ControlNet's residual, but the others are missing: those of all skip connections, with \
         numbers in their names, and the middle's. Export the network again, or without these inputs and run `denoised \
         init --live`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DataType;

    fn advice(name: &str, element: DataType, shape: &[Option<usize>], roles: &[Role]) -> String {
        let input = ValueInfo::with_axes(name, element, shape);
        unknown_input(&input, &KnownInputs { roles, has_class: false }).to_string()
    }

    #[test]
    fn advice_fits_the_axes_and_the_type() {
        let (float, integer) = (DataType::F32, DataType::I64);
        let text = &[Role::Text][..];
        for (name, element, shape, roles, expected) in [
            ("difficulty", float, &[None][..], &[][..], "[conditions.\"difficulty\"] default = 0.0"),
            ("y", integer, &[None], &[], "[graph] class_labels = \"y\""),
            ("context", float, &[None, None, Some(8)], &[], "[graph] text = \"context\""),
            ("context_2", float, &[None, None, Some(8)], text, "export the network without it"),
            ("vector", DataType::F16, &[None, Some(8)], text, "[graph] pooled = \"vector\""),
            ("sizes", float, &[None, Some(6)], text, "[graph] time_ids = \"sizes\""),
            ("hint", float, &[None, Some(3), None, None], text, "export the network without it"),
        ] {
            let found = advice(name, element, shape, roles);
            assert!(found.contains(expected), "{name}: {found}");
            assert_eq!(found.contains("conditions"), name == "difficulty", "{found}");
        }
    }

    #[test]
    fn a_draft_has_the_key_of_an_input() {
        let value = |name: &str, axes: &[Option<usize>]| ValueInfo::with_axes(name, DataType::F32, axes);
        let rows = [None, None, Some(8)];
        assert_eq!(graph_key(&value("context", &rows)), Some("text"));
        assert_eq!(graph_key(&value("guidance", &[None])), Some("guidance"));
        assert_eq!(graph_key(&value("strength", &[None])), None);
        assert_eq!(graph_key(&value("encoder_attention_mask", &rows[1..])), Some("text_mask"));
        assert_eq!(graph_key(&value("attention_mask", &rows[1..])), None);
    }

    #[test]
    fn inputs_for_control_are_named() {
        for (name, expected) in [
            ("controlnet_conds", "holds its ControlNets inside"),
            ("images", "holds its ControlNets inside"),
            ("down_block_additional_residuals_0", "the others are missing"),
            ("mid_block_additional_residual", "the others are missing"),
        ] {
            let found = advice(name, DataType::F32, &[None, Some(320), None, None], &[]);
            assert!(found.contains(expected), "{name}: {found}");
        }
    }

    #[test]
    fn known_inputs_of_other_pipelines_are_named() {
        for (name, expected) in [
            ("controlnet_block_samples", "Stable Diffusion 3 or Flux"),
            ("down_intrablock_additional_residuals_0", "a T2I-Adapter"),
            ("attention_mask", "a mask of the text's tokens"),
            ("image_embeds", "IP-Adapter"),
        ] {
            let found = advice(name, DataType::F32, &[None, Some(320), None, None], &[]);
            assert!(found.contains(expected) && found.contains("not served"), "{name}: {found}");
        }
    }
}
