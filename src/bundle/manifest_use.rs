//! The sections of denoised.toml that have no effect in a folder.

use super::Bundle;

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

/// Logs the sections that have no effect.
pub(super) fn warn_of_unused_sections(bundle: &Bundle, table: &toml::Table) {
    for section in table.keys() {
        if let Some(reason) = unused_section(bundle, section) {
            let path = bundle.directory.join("denoised.toml");
            log::warn!("{}: [{section}] has no effect: {reason}", path.display());
        }
    }
}
