//! The pipeline classes of diffusers that are served, and what the others need.

use super::PipelineKind;

/// What the class of a pipeline says about its network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PipelineClass {
    /// A class that loads the class that the files name, so that it says nothing.
    Generic,
    /// A pipeline without text, whose samples are images.
    Unconditional,
    /// A pipeline with a prompt whose network is of one of these families.
    TextToImage(Vec<PipelineKind>),
}

/// The pipelines without text that are served.
const UNCONDITIONAL: [&str; 7] = [
    "DDPMPipeline",
    "DDIMPipeline",
    "PNDMPipeline",
    "KarrasVePipeline",
    "ScoreSdeVePipeline",
    "RePaintPipeline",
    "ConsistencyModelPipeline",
];

/// The classes that load the class that the files name.
const GENERIC: [&str; 8] = [
    "DiffusionPipeline",
    "AutoPipelineForText2Image",
    "AutoPipelineForImage2Image",
    "AutoPipelineForInpainting",
    "PipelineForText2Image",
    "PipelineForImage2Image",
    "PipelineForInpainting",
    "Pipeline",
];

/// The prefixes that runtimes put before the names of the classes of diffusers and transformers.
pub(super) const RUNTIMES: [&str; 6] = ["Onnx", "ORT", "OV", "Flax", "TF", "Neuron"];

/// What pipelines whose class has this in its name do that is not served. The first match counts.
const NOT_SERVED: [(&str, &str); 34] = [
    ("ControlNet", "it steers the network by a ControlNet of another kind"),
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
const OTHER_FAMILIES: [&str; 34] = [
    "PixArtAlpha",
    "Kandinsky",
    "Kolors",
    "HunyuanDiT",
    "HunyuanImage",
    "Lumina",
    "AuraFlow",
    "Chroma",
    "CogView",
    "Flux2",
    "ZImageOmni",
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
    /// The class of this name, without the prefix of a runtime.
    fn served(name: &str) -> Option<Self> {
        let kinds: Vec<_> =
            PipelineKind::ALL.into_iter().filter(|kind| kind.facts().classes.contains(&name)).collect();
        match name {
            _ if !kinds.is_empty() => Some(Self::TextToImage(kinds)),
            name if UNCONDITIONAL.contains(&name) => Some(Self::Unconditional),
            name if GENERIC.contains(&name) => Some(Self::Generic),
            _ => None,
        }
    }

    /// The class of this name. The error is why it is not served.
    pub(super) fn from_name(name: &str) -> Result<Self, String> {
        let plain = RUNTIMES.iter().find_map(|runtime| name.strip_prefix(runtime)).unwrap_or(name);
        if let Some(class) = [plain, name].into_iter().find_map(Self::served) {
            return Ok(class);
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
    let is_main =
        |name: &&str| !["Onnx", "Legacy", "Img2Img", "Inpaint"].iter().any(|part| name.contains(part));
    let mut names: Vec<&str> = Vec::new();
    for name in PipelineKind::ALL.iter().flat_map(|kind| kind.facts().classes).chain(&UNCONDITIONAL).copied()
    {
        if is_main(&name) && !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_s_prefix_does_not_change_the_class() {
        for name in
            ["StableDiffusionPipeline", "OnnxStableDiffusionPipeline", "ORTStableDiffusionImg2ImgPipeline"]
        {
            let kinds = vec![PipelineKind::LatentConsistency, PipelineKind::StableDiffusion];
            assert_eq!(PipelineClass::from_name(name), Ok(PipelineClass::TextToImage(kinds)), "{name}");
        }
        let xl = PipelineClass::TextToImage(vec![PipelineKind::StableDiffusionXl]);
        assert_eq!(PipelineClass::from_name("ORTStableDiffusionXLPipeline"), Ok(xl));
        assert_eq!(PipelineClass::from_name("ORTDiffusionPipeline"), Ok(PipelineClass::Generic));
        assert_eq!(PipelineClass::from_name("DDPMPipeline"), Ok(PipelineClass::Unconditional));
    }

    #[test]
    fn a_class_that_is_not_served_is_refused_with_the_reason() {
        for (name, reason) in [
            ("PixArtAlphaPipeline", "PixArtAlpha models are not supported"),
            ("SanaPAGPipeline", "changes the attention"),
            ("FluxControlNetPipeline", "a ControlNet of another kind"),
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
