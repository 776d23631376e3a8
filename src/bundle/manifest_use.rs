//! The sections of denoised.toml that have no effect in a folder.

use super::{Bundle, PipelineKind, Role};
use diffusion_samplers::scheduler_settings::KeyStatus;

/// Why a section has no effect; `None` if it is used.
pub(super) fn unused_section(bundle: &Bundle, section: &str) -> Option<&'static str> {
    let is_scheduler_file = || bundle.scheduler.path.extension().is_some_and(|extension| extension == "json");
    match section {
        "scheduler" if is_scheduler_file() => {
            Some("scheduler_config.json is in the folder, and takes precedence")
        }
        "classes" if bundle.signature.as_ref().is_some_and(|signature| signature.class.is_none()) => {
            Some("the network takes no class")
        }
        "preview" if bundle.latent.is_none() => Some("a model of images has no latents"),
        "sample" if bundle.has_latents() => {
            Some("the autoencoder determines the kind and the range of an image")
        }
        _ => None,
    }
}

/// Why a key of a section that is used has no effect; `None` if it is used. Sections other than `[scheduler]` have no
/// unknown keys.
pub(super) fn unused_key(bundle: &Bundle, section: &str, key: &str) -> Option<String> {
    if (section, key) == ("default", "guidance") {
        return unused_guidance(bundle).map(str::to_owned);
    }
    if (section, key) == ("default", "max_sequence_length") && bundle.defaults.max_sequence_length.is_none() {
        return Some("no text encoder takes as many tokens as a job asks for".to_owned());
    }
    if section != "scheduler" || key == "class" || key.starts_with('_') {
        return None;
    }
    let report = bundle.scheduler.report().ok()?;
    let line = report.into_iter().find(|line| line.key == key)?;
    match line.status {
        KeyStatus::Unknown => Some(bundle.scheduler.unused_key(key)),
        KeyStatus::Ignored => Some(format!("{} has this key, but does not use it", bundle.scheduler.class)),
        KeyStatus::WithoutEffect(reason) => Some(reason.to_owned()),
        KeyStatus::Used | KeyStatus::Defaulted | KeyStatus::Implied => None,
    }
}

/// Why no job of the model has guidance.
fn unused_guidance(bundle: &Bundle) -> Option<&'static str> {
    let signature = bundle.signature.as_ref()?;
    let takes_scale = signature.has(Role::GuidanceEmbedding) || signature.has(Role::Guidance);
    match (&bundle.latent, PipelineKind::from_signature(signature)) {
        (Some(latent), Some(kind)) => (!takes_scale
            && (kind.facts().is_guidance_distilled || latent.is_distilled))
            .then_some("the network is distilled for one scale"),
        _ if signature.class.is_none() => Some("the network takes neither a class nor a prompt"),
        _ if bundle.manifest.classes.null.is_none() => {
            Some("guidance needs the label for no class, which [classes] null sets")
        }
        _ => None,
    }
}

/// Logs the sections and keys that have no effect.
pub(super) fn warn_of_unused(bundle: &Bundle, table: &toml::Table) {
    let path = bundle.directory.join("denoised.toml");
    for (section, value) in table {
        if let Some(reason) = unused_section(bundle, section) {
            log::warn!("{}: [{section}] has no effect: {reason}", path.display());
            continue;
        }
        for key in value.as_table().into_iter().flat_map(toml::Table::keys) {
            if let Some(reason) = unused_key(bundle, section, key) {
                match section == "scheduler" && bundle.scheduler.is_of_another_class(key) {
                    true => log::warn!("{}: {section}.{key}: {reason}", path.display()),
                    false => log::warn!("{}: {section}.{key} has no effect: {reason}", path.display()),
                }
            }
        }
    }
}
