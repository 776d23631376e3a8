//! The pipeline classes of diffusers that are served, and what the others need.

use super::PipelineKind;

/// What the class of a pipeline says about its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PipelineClass {
    /// A class that loads the class that the files name, so that it says nothing.
    Generic,
    /// A pipeline without text, whose samples are images.
    Unconditional,
    /// A pipeline with a prompt whose network is of one of these kinds.
    TextToImage(&'static [PipelineKind]),
}

const STABLE_DIFFUSION: PipelineClass =
    PipelineClass::TextToImage(&[PipelineKind::StableDiffusion, PipelineKind::LatentConsistency]);
const LATENT_CONSISTENCY: PipelineClass = PipelineClass::TextToImage(&[PipelineKind::LatentConsistency]);
const STABLE_DIFFUSION_XL: PipelineClass = PipelineClass::TextToImage(&[PipelineKind::StableDiffusionXl]);
const STABLE_DIFFUSION_3: PipelineClass = PipelineClass::TextToImage(&[PipelineKind::StableDiffusion3]);
const FLUX: PipelineClass = PipelineClass::TextToImage(&[PipelineKind::Flux]);

/// The classes that are served, without the prefix of a runtime.
const SERVED: [(&str, PipelineClass); 31] = [
    ("StableDiffusionPipeline", STABLE_DIFFUSION),
    ("StableDiffusionOnnxPipeline", STABLE_DIFFUSION),
    ("StableDiffusionImg2ImgPipeline", STABLE_DIFFUSION),
    ("StableDiffusionInpaintPipeline", STABLE_DIFFUSION),
    ("StableDiffusionInpaintPipelineLegacy", STABLE_DIFFUSION),
    ("LatentConsistencyModelPipeline", LATENT_CONSISTENCY),
    ("LatentConsistencyModelImg2ImgPipeline", LATENT_CONSISTENCY),
    ("StableDiffusionXLPipeline", STABLE_DIFFUSION_XL),
    ("StableDiffusionXLImg2ImgPipeline", STABLE_DIFFUSION_XL),
    ("StableDiffusionXLInpaintPipeline", STABLE_DIFFUSION_XL),
    ("StableDiffusion3Pipeline", STABLE_DIFFUSION_3),
    ("StableDiffusion3Img2ImgPipeline", STABLE_DIFFUSION_3),
    ("StableDiffusion3InpaintPipeline", STABLE_DIFFUSION_3),
    ("FluxPipeline", FLUX),
    ("FluxImg2ImgPipeline", FLUX),
    ("FluxInpaintPipeline", FLUX),
    ("DDPMPipeline", PipelineClass::Unconditional),
    ("DDIMPipeline", PipelineClass::Unconditional),
    ("PNDMPipeline", PipelineClass::Unconditional),
    ("KarrasVePipeline", PipelineClass::Unconditional),
    ("ScoreSdeVePipeline", PipelineClass::Unconditional),
    ("RePaintPipeline", PipelineClass::Unconditional),
    ("ConsistencyModelPipeline", PipelineClass::Unconditional),
    ("DiffusionPipeline", PipelineClass::Generic),
    ("AutoPipelineForText2Image", PipelineClass::Generic),
    ("AutoPipelineForImage2Image", PipelineClass::Generic),
    ("AutoPipelineForInpainting", PipelineClass::Generic),
    ("PipelineForText2Image", PipelineClass::Generic),
    ("PipelineForImage2Image", PipelineClass::Generic),
    ("PipelineForInpainting", PipelineClass::Generic),
    ("Pipeline", PipelineClass::Generic),
];

/// The prefixes that runtimes put before the names of the classes of diffusers and transformers.
pub(super) const RUNTIMES: [&str; 6] = ["Onnx", "ORT", "OV", "Flax", "TF", "Neuron"];

/// What pipelines whose class has this in its name do that is not served. The first match counts.
const NOT_SERVED: [(&str, &str); 34] = [
    ("ControlNet", "it steers the network by a ControlNet"),
    ("Adapter", "it steers the network by an adapter"),
    ("InstructPix2Pix", "it edits a picture by an instruction"),
    ("Kontext", "it edits a picture by an instruction"),
    ("Edit", "it edits a picture by an instruction"),
    ("Pix2PixZero", "it edits a picture by an instruction"),
    ("Depth2Img", "its network takes a depth map"),
    ("Upscal", "it enlarges a picture"),
    ("Upsampl", "it enlarges a picture"),
    ("SuperResolution", "it enlarges a picture"),
    ("Refiner", "it refines a picture of another pipeline"),
    ("FluxFill", "its network takes a masked picture"),
    ("FluxControl", "its network takes a picture that steers it"),
    ("Redux", "it turns pictures into prompts"),
    ("ImageVariation", "its network takes the embedding of a picture"),
    ("UnCLIP", "its network takes the embedding of a picture"),
    ("Prior", "it makes embeddings for another pipeline"),
    ("PaintByExample", "its network takes the embedding of a picture"),
    ("PAG", "its guidance changes the attention inside the network"),
    ("SAG", "its guidance changes the attention inside the network"),
    ("AttendAndExcite", "its guidance changes the attention inside the network"),
    ("GLIGEN", "its network takes boxes"),
    ("Panorama", "it evaluates the network on several views"),
    ("LDM3D", "it makes depth maps"),
    ("Marigold", "it estimates depth or normals"),
    ("AnimateDiff", "it makes videos"),
    ("Video", "it makes videos"),
    ("Audio", "it makes audio"),
    ("DanceDiffusion", "it makes audio"),
    ("KDiffusion", "it takes its sampler from another library"),
    ("Safe", "its guidance takes a further prompt"),
    ("Semantic", "its guidance takes further prompts"),
    ("LDM", "it has another autoencoder"),
    ("DiT", "its network has another architecture"),
];

/// Families of models whose network, text encoder or autoencoder is none that is served.
const OTHER_FAMILIES: [&str; 35] = [
    "PixArt",
    "Sana",
    "Kandinsky",
    "Kolors",
    "HunyuanDiT",
    "HunyuanImage",
    "Lumina",
    "AuraFlow",
    "Chroma",
    "CogView",
    "Flux2",
    "ZImage",
    "QwenImage",
    "HiDream",
    "OmniGen",
    "Bria",
    "StableCascade",
    "Wuerstchen",
    "Amused",
    "UniDiffuser",
    "AltDiffusion",
    "VersatileDiffusion",
    "VQDiffusion",
    "BlipDiffusion",
    "Latte",
    "Wan",
    "LTX",
    "Mochi",
    "Cosmos",
    "Allegro",
    "Ovis",
    "PRX",
    "VisualCloze",
    "ShapE",
    "IF",
];

impl PipelineClass {
    /// The class of this name. The error is why it is not served.
    pub(super) fn from_name(name: &str) -> Result<Self, String> {
        let plain = RUNTIMES.iter().find_map(|runtime| name.strip_prefix(runtime)).unwrap_or(name);
        if let Some((_, class)) = SERVED.iter().find(|(served, _)| *served == plain || *served == name) {
            return Ok(*class);
        }
        let reason = match (NOT_SERVED.iter().find(|(part, _)| plain.contains(part)), other_family(plain)) {
            (Some((_, reason)), _) => (*reason).to_owned(),
            (None, Some(family)) => format!("{family} models are not supported"),
            (None, None) => "no pipeline of this name is known; if the folder is one of a supported class, name that class"
                .to_owned(),
        };
        Err(reason)
    }
}

/// The family of models that is not served and to which a class of this name belongs.
pub(super) fn other_family(class: &str) -> Option<&'static str> {
    OTHER_FAMILIES.iter().find(|family| class.starts_with(**family)).copied()
}

/// The classes that are served, for messages.
pub(super) fn served_names() -> String {
    let names = SERVED.iter().filter(|(name, class)| {
        *class != PipelineClass::Generic
            && !["Onnx", "Legacy", "Img2Img", "Inpaint"].iter().any(|part| name.contains(part))
    });
    names.map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_s_prefix_does_not_change_the_class() {
        for name in
            ["StableDiffusionPipeline", "OnnxStableDiffusionPipeline", "ORTStableDiffusionImg2ImgPipeline"]
        {
            assert_eq!(PipelineClass::from_name(name), Ok(STABLE_DIFFUSION), "{name}");
        }
        assert_eq!(PipelineClass::from_name("ORTStableDiffusionXLPipeline"), Ok(STABLE_DIFFUSION_XL));
        assert_eq!(PipelineClass::from_name("ORTDiffusionPipeline"), Ok(PipelineClass::Generic));
        assert_eq!(PipelineClass::from_name("DDPMPipeline"), Ok(PipelineClass::Unconditional));
    }

    #[test]
    fn a_class_that_is_not_served_is_refused_with_the_reason() {
        for (name, reason) in [
            ("PixArtSigmaPipeline", "PixArt models are not supported"),
            ("SanaPipeline", "Sana models"),
            ("StableDiffusionControlNetPipeline", "a ControlNet"),
            ("StableDiffusionXLInstructPix2PixPipeline", "edits a picture"),
            ("StableDiffusionUpscalePipeline", "enlarges"),
            ("OnnxStableDiffusionUpscalePipeline", "enlarges"),
            ("StableDiffusionDepth2ImgPipeline", "depth map"),
            ("KandinskyV22Pipeline", "Kandinsky models"),
            ("Flux2Pipeline", "Flux2 models"),
            ("FluxControlPipeline", "picture that steers it"),
            ("StableVideoDiffusionPipeline", "videos"),
            ("MyOwnPipeline", "no pipeline of this name is known"),
        ] {
            let error = PipelineClass::from_name(name).unwrap_err();
            assert!(error.contains(reason), "{name}: {error}");
        }
    }
}
