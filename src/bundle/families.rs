//! The families of text-to-image pipelines, one file for each.

mod flux;
mod flux2_klein;
mod latent_consistency;
mod pixart_sigma;
mod sana;
mod sana_sprint;
mod stable_diffusion;
mod stable_diffusion_3;
mod stable_diffusion_xl;
mod z_image;

use super::PipelineFacts;

/// A family of text-to-image pipelines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PipelineKind {
    /// Stable Diffusion 1 and 2.
    StableDiffusion,
    /// A latent consistency model (Luo et al. 2023) distilled from Stable Diffusion.
    LatentConsistency,
    /// SDXL.
    StableDiffusionXl,
    /// Stable Diffusion 3.
    StableDiffusion3,
    /// Flux.
    Flux,
    /// SANA (Xie et al. 2024).
    Sana,
    /// SANA-Sprint (Chen et al. 2025).
    SanaSprint,
    /// Z-Image and Z-Image-Turbo (Z-Image Team 2025).
    ZImage,
    /// PixArt-Sigma (Chen et al. 2024).
    PixArtSigma,
    /// FLUX.2 klein (Black Forest Labs 2026).
    Flux2Klein,
}

impl PipelineKind {
    /// All families. Of those that inputs show, and of those that share a class of networks, one with more required inputs
    /// comes first.
    pub(super) const ALL: [Self; 10] = [
        Self::Flux,
        Self::StableDiffusionXl,
        Self::StableDiffusion3,
        Self::LatentConsistency,
        Self::StableDiffusion,
        Self::SanaSprint,
        Self::Sana,
        Self::ZImage,
        Self::PixArtSigma,
        Self::Flux2Klein,
    ];

    /// Whether the network is the U-Net of Stable Diffusion 1, 2 or XL, which ControlNets and LoRAs exist for.
    pub(crate) fn has_unet(self) -> bool {
        matches!(self, Self::StableDiffusion | Self::LatentConsistency | Self::StableDiffusionXl)
    }

    /// The facts of this family.
    pub fn facts(self) -> &'static PipelineFacts {
        match self {
            Self::StableDiffusion => &stable_diffusion::FACTS,
            Self::LatentConsistency => &latent_consistency::FACTS,
            Self::StableDiffusionXl => &stable_diffusion_xl::FACTS,
            Self::StableDiffusion3 => &stable_diffusion_3::FACTS,
            Self::Flux => &flux::FACTS,
            Self::Sana => &sana::FACTS,
            Self::SanaSprint => &sana_sprint::FACTS,
            Self::ZImage => &z_image::FACTS,
            Self::PixArtSigma => &pixart_sigma::FACTS,
            Self::Flux2Klein => &flux2_klein::FACTS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_whose_inputs_show_it_comes_before_those_that_need_fewer() {
        let found = PipelineKind::ALL.map(PipelineKind::facts);
        let found: Vec<_> = found.iter().filter(|facts| facts.is_found_by_inputs).collect();
        for (i, facts) in found.iter().enumerate() {
            let hidden = found[i + 1..]
                .iter()
                .find(|later| facts.required_inputs.iter().all(|role| later.required_inputs.contains(role)));
            assert!(hidden.is_none(), "{} hides {:?}", facts.title, hidden.map(|hidden| hidden.title));
        }
    }

    #[test]
    fn a_family_comes_before_those_of_its_network_s_class_that_need_fewer_inputs() {
        let found = PipelineKind::ALL.map(PipelineKind::facts);
        let named: Vec<_> = found.iter().filter(|facts| !facts.is_found_by_inputs).collect();
        for (i, facts) in named.iter().enumerate() {
            let shares_class = |later: &PipelineFacts| {
                later.network_classes.iter().any(|class| facts.network_classes.contains(class))
            };
            for later in named[i + 1..].iter().filter(|later| shares_class(later)) {
                let hides = facts.required_inputs.iter().all(|role| later.required_inputs.contains(role));
                assert!(!hides, "{} hides {}", facts.title, later.title);
            }
        }
    }

    #[test]
    fn every_family_has_a_class_a_text_encoder_and_rows() {
        for facts in PipelineKind::ALL.map(PipelineKind::facts) {
            assert!(!facts.classes.is_empty() && !facts.network_classes.is_empty(), "{}", facts.title);
            assert!(facts.text_encoders.iter().any(|encoder| encoder.has_rows()), "{}", facts.title);
        }
    }
}
