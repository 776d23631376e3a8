//! The names of tensors in the files that people have.

/// The graph that a layer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component {
    /// The denoising network.
    Network,
    /// The first text encoder.
    TextEncoder,
    /// The second text encoder.
    TextEncoder2,
}

impl std::fmt::Display for Component {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Network => "the network",
            Self::TextEncoder => "the text encoder",
            Self::TextEncoder2 => "the second text encoder",
        })
    }
}

/// The part of a layer's adaptation that a tensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// A of a LoRA, [rank, inputs, …].
    Down,
    /// B of a LoRA, [outputs, rank, …].
    Up,
    /// α, a single value.
    Alpha,
    /// `hada_w1_a`, `hada_w1_b`, `hada_w2_a`, `hada_w2_b` of a LoHa.
    Hada(u8),
    /// `lokr_w1`, `lokr_w1_a`, `lokr_w1_b` and the same of w2.
    Kron(u8),
}

/// What a tensor's name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) component: Component,
    /// The layer's name with `_` for `.`.
    pub(super) module: String,
    pub(super) part: Part,
}

/// Names of tensors that belong to other methods, with what to do.
const UNSERVED: [(&str, &str, &str); 10] = [
    ("dora_scale", "DoRA", MERGE),
    ("lora_magnitude_vector", "DoRA", MERGE),
    ("lora_mid.weight", "a Tucker decomposition", MERGE),
    ("hada_t1", "a Tucker decomposition", MERGE),
    ("hada_t2", "a Tucker decomposition", MERGE),
    ("lokr_t2", "a Tucker decomposition", MERGE),
    (".diff", "a file of full differences", MERGE),
    (".diff_b", "a file of full differences", MERGE),
    ("on_input", "IA³", MERGE),
    ("emb_params", "a textual inversion", "Use words in the prompt, or a LoRA"),
];
const MERGE: &str = "Merge it into the model before the export";

/// The method that a tensor belongs to, if it is not served, and what to do.
pub(super) fn unserved_kind(name: &str) -> Option<(&'static str, &'static str)> {
    UNSERVED.iter().find(|(ending, ..)| name.ends_with(ending)).map(|&(_, kind, hint)| (kind, hint))
}

/// The endings of names, each after the layer's name. Older diffusers write the layer as `to_q_lora`.
const ENDINGS: [(&str, Part); 23] = [
    (".lora_down.weight", Part::Down),
    (".lora_up.weight", Part::Up),
    (".lora_A.weight", Part::Down),
    (".lora_B.weight", Part::Up),
    (".lora_A.default.weight", Part::Down),
    (".lora_B.default.weight", Part::Up),
    (".lora.down.weight", Part::Down),
    (".lora.up.weight", Part::Up),
    (".lora_linear_layer.down.weight", Part::Down),
    (".lora_linear_layer.up.weight", Part::Up),
    ("_lora.down.weight", Part::Down),
    ("_lora.up.weight", Part::Up),
    (".alpha", Part::Alpha),
    (".hada_w1_a", Part::Hada(0)),
    (".hada_w1_b", Part::Hada(1)),
    (".hada_w2_a", Part::Hada(2)),
    (".hada_w2_b", Part::Hada(3)),
    (".lokr_w1", Part::Kron(0)),
    (".lokr_w1_a", Part::Kron(1)),
    (".lokr_w1_b", Part::Kron(2)),
    (".lokr_w2", Part::Kron(3)),
    (".lokr_w2_a", Part::Kron(4)),
    (".lokr_w2_b", Part::Kron(5)),
];

/// Beginnings of names with the component, the longer ones first. Kohya's scripts write `lora_unet_` and the module with `_`, diffusers and PEFT
/// the component's name and a dot.
const BEGINNINGS: [(&str, Component); 9] = [
    ("lora_unet_", Component::Network),
    ("lora_te1_", Component::TextEncoder),
    ("lora_te2_", Component::TextEncoder2),
    ("lora_te_", Component::TextEncoder),
    ("unet.", Component::Network),
    ("text_encoder_2.", Component::TextEncoder2),
    ("text_encoder.", Component::TextEncoder),
    ("base_model.model.unet.", Component::Network),
    ("base_model.model.", Component::Network),
];

impl Key {
    /// Reads a tensor's name. Returns `None` if it is not that of a LoRA, LoHa or LoKr.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let mut endings = ENDINGS.iter();
        let (layer, part) = endings.find_map(|(ending, part)| Some((name.strip_suffix(ending)?, *part)))?;
        let mut beginnings = BEGINNINGS.iter();
        let found = beginnings.find_map(|(start, component)| Some((layer.strip_prefix(start)?, *component)));
        // Files of older versions of diffusers name no component.
        let (module, component) = found.unwrap_or((layer, Component::Network));
        Some(Self { component, module: flat(module), part })
    }
}

/// A layer's name in one form: `_` for `.`, without what only some writers add.
pub(super) fn flat(module: &str) -> String {
    let name = module.replace(".processor.", ".").replace('.', "_");
    let name = name.strip_prefix("text_model_").unwrap_or(&name);
    // Attention's output is the first layer of a list; older files name the list.
    match name.strip_suffix("_to_out") {
        Some(_) => format!("{name}_0"),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(name: &str) -> (Component, String, Part) {
        let key = Key::parse(name).unwrap();
        (key.component, key.module, key.part)
    }

    #[test]
    fn all_writers_name_one_layer() {
        let to_q = "down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q";
        for (name, part) in [
            (
                "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight",
                Part::Down,
            ),
            ("lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q.alpha", Part::Alpha),
            ("unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight", Part::Down),
            ("unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.lora.up.weight", Part::Up),
            (
                "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight",
                Part::Down,
            ),
            ("down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.up.weight", Part::Up),
        ] {
            assert_eq!(parsed(name), (Component::Network, to_q.to_owned(), part), "{name}");
        }
        let older = "mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_out_lora.up.weight";
        let newer = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0.lora_B.weight";
        assert_eq!(parsed(older), parsed(newer));
    }

    #[test]
    fn text_encoders_are_told_apart() {
        let q = "encoder_layers_0_self_attn_q_proj";
        for (name, component) in [
            ("lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight", Component::TextEncoder),
            ("lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight", Component::TextEncoder),
            ("lora_te2_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight", Component::TextEncoder2),
            (
                "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_B.weight",
                Component::TextEncoder,
            ),
            (
                "text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.up.weight",
                Component::TextEncoder2,
            ),
        ] {
            assert_eq!(parsed(name), (component, q.to_owned(), Part::Up), "{name}");
        }
    }

    #[test]
    fn other_methods_are_named() {
        assert_eq!(unserved_kind("lora_unet_mid.dora_scale").unwrap().0, "DoRA");
        assert_eq!(unserved_kind("lora_unet_conv_in.diff_b").unwrap().0, "a file of full differences");
        assert_eq!(unserved_kind("emb_params").unwrap().0, "a textual inversion");
        assert_eq!(unserved_kind("lora_unet_mid.lora_up.weight"), None);
        assert_eq!(Key::parse("emb_params"), None);
    }
}
