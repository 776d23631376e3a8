//! model_index.json: the classes of a pipeline and of its components.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json};

use super::json_file::read_or_default;
use super::pipeline_class::{PipelineClass, RUNTIMES, other_family, served_names};
use super::{BundleError, LatentComponents, PipelineKind, Role, text_model};
use crate::tensor::GraphIo;

/// The contents of model_index.json. Without the file it is empty.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct ModelIndex {
    path: PathBuf,
    entries: Map<String, Json>,
}

/// A component's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Component<'a> {
    /// `[null, null]`: the pipeline has no such component.
    Absent,
    /// The library and the class.
    Class { library: &'a str, class: &'a str },
}

/// The classes of networks without text.
const UNETS: [&str; 2] = ["UNet2DModel", "UNet1DModel"];

/// The classes of tokenizers that serve any model.
const GENERIC_TOKENIZERS: [&str; 2] = ["PreTrainedTokenizerFast", "TokenizersBackend"];

/// The classes of diffusers and transformers that a component of this name may have; `None` if it is not used.
fn served_classes(component: &str) -> Option<Vec<&'static str>> {
    let base = component.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('_');
    let families = || PipelineKind::ALL.into_iter().map(PipelineKind::facts);
    let networks = |is_unet: bool| {
        let classes = families().flat_map(|facts| facts.network_classes);
        classes.filter(move |class| class.starts_with("UNet") == is_unet).copied()
    };
    let mut classes: Vec<&str> = match base {
        "unet" => networks(true).chain(UNETS).collect(),
        "transformer" => networks(false).collect(),
        base if base.starts_with("vae") => {
            families().flat_map(|facts| facts.autoencoder_classes).copied().collect()
        }
        "text_encoder" => {
            let encoders = families().flat_map(|facts| facts.text_encoders);
            encoders.flat_map(|encoder| encoder.classes).copied().collect()
        }
        "tokenizer" => {
            let own = text_model::ALL.into_iter().flat_map(|model| model.tokenizer_classes);
            own.copied().chain(GENERIC_TOKENIZERS).collect()
        }
        _ => return None,
    };
    let mut seen = BTreeSet::new();
    classes.retain(|class| seen.insert(*class));
    Some(classes)
}

/// Whether a class is one of a runtime, which says nothing about the graph.
pub(super) fn is_runtime_class(class: &str) -> bool {
    RUNTIMES.iter().any(|runtime| class.starts_with(runtime))
}

/// Whether a component may have classes, and this is none of them.
pub(super) fn is_unknown_class(component: &str, class: &str) -> bool {
    served_classes(component).is_some_and(|served| !served.contains(&class)) && !is_runtime_class(class)
}

/// Whether a class has the name of one of diffusers' networks. Networks of others are often called UNet.
fn is_of_diffusers(class: &str) -> bool {
    ["Autoencoder", "ControlNet"].iter().any(|start| class.starts_with(start))
        || ["Transformer2DModel", "Transformer3DModel"].iter().any(|end| class.ends_with(end))
        || OTHER_NETWORKS.contains(&class)
}

const OTHER_NETWORKS: [&str; 6] = [
    "UNet3DConditionModel",
    "UNetMotionModel",
    "UNetSpatioTemporalConditionModel",
    "UVit2DModel",
    "VQModel",
    "ConsistencyDecoderVAE",
];

/// Why a component cannot have a class; `None` if it can, or if the class is none of diffusers or transformers.
pub(super) fn refused_class(component: &str, library: &str, class: &str) -> Option<String> {
    let served = served_classes(component)?;
    let is_judged = ["diffusers", "transformers"].contains(&library)
        || other_family(class).is_some()
        || is_of_diffusers(class);
    (is_judged && !is_runtime_class(class) && !served.contains(&class)).then(|| {
        format!("the class {class} is not supported for {component}; supported are {}", served.join(", "))
    })
}

/// Whether a key has the name of a component.
fn is_named_component(name: &str) -> bool {
    name == "scheduler" || served_classes(name).is_some()
}

/// Whether a value is null, or a library and a class that may be null.
fn is_component_entry(entry: &Json) -> bool {
    let is_name = |value: &Json| value.is_null() || value.is_string();
    match entry {
        Json::Array(pair) => pair.len() == 2 && pair.iter().all(is_name),
        other => other.is_null(),
    }
}

impl ModelIndex {
    /// Reads the file in a bundle's directory, and checks the classes that it names.
    pub(super) fn read(directory: &Path) -> Result<Self, BundleError> {
        let path = directory.join("model_index.json");
        let entries = read_or_default(&path)?;
        let index = Self { path, entries };
        index.check()?;
        Ok(index)
    }

    /// `_class_name`, without the module of a pipeline that is not part of diffusers.
    pub(super) fn class(&self) -> Option<&str> {
        match self.entries.get("_class_name")? {
            Json::Array(names) => names.last()?.as_str(),
            name => name.as_str(),
        }
    }

    /// The entry of a component. `None` if there is none.
    pub(super) fn component(&self, name: &str) -> Option<Component<'_>> {
        match self.entries.get(name)? {
            Json::Array(entry) => match (entry.first()?.as_str(), entry.get(1)?.as_str()) {
                (library, Some(class)) => {
                    Some(Component::Class { library: library.unwrap_or_default(), class })
                }
                (_, None) => Some(Component::Absent),
            },
            Json::Null => Some(Component::Absent),
            _ => None,
        }
    }

    /// The class of a component.
    pub(super) fn class_of(&self, name: &str) -> Option<&str> {
        match self.component(name)? {
            Component::Class { class, .. } => Some(class),
            Component::Absent => None,
        }
    }

    /// A key that is true or false. `null` is false, as Python's `None` is.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, BundleError> {
        match self.entries.get(key) {
            None => Ok(None),
            Some(Json::Null) => Ok(Some(false)),
            Some(Json::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(self.fault(format!("{key} is {other}, but must be true or false"))),
        }
    }

    /// The error for a fault in the file.
    pub(super) fn fault(&self, fault: String) -> BundleError {
        BundleError::Content { path: self.path.clone(), fault }
    }

    /// The values that the pipeline's class draws as black and white, if they are not −1 and 1.
    pub(super) fn sample_range(&self) -> Option<[f32; 2]> {
        (self.class() == Some("ScoreSdeVePipeline")).then_some([0.0, 1.0])
    }

    fn pipeline(&self) -> Result<PipelineClass, BundleError> {
        let Some(class) = self.class() else { return Ok(PipelineClass::Generic) };
        PipelineClass::from_name(class).map_err(|reason| {
            self.fault(format!(
                "_class_name is {class:?}, which is not supported: {reason}. Supported are {} with their image-to-image \
                 and inpainting variants",
                served_names()
            ))
        })
    }

    fn check(&self) -> Result<(), BundleError> {
        if let (Some(value), None) = (self.entries.get("_class_name"), self.class()) {
            return Err(self.fault(format!("_class_name is {value}, but must be the name of a class")));
        }
        self.pipeline()?;
        if self.flag("requires_aesthetics_score")? == Some(true) {
            let reason = "requires_aesthetics_score is true, as in SDXL's refiner, which is not supported";
            return Err(self.fault(reason.to_owned()));
        }
        if self.flag("is_cosxl_edit")? == Some(true) {
            let reason = "is_cosxl_edit is true: a pipeline that edits pictures is not supported";
            return Err(self.fault(reason.to_owned()));
        }
        for (name, entry) in &self.entries {
            if is_named_component(name) && !is_component_entry(entry) {
                let fault = format!(
                    "{name} is {entry}, but must be a library and a class such as [\"diffusers\", \"AutoencoderKL\"], or null"
                );
                return Err(self.fault(fault));
            }
            if let Some(Component::Class { library, class }) = self.component(name)
                && let Some(fault) = refused_class(name, library, class)
            {
                return Err(self.fault(format!("{name}: {fault}")));
            }
        }
        Ok(())
    }

    /// The family that the pipeline's class names, or else that of the network: one that the inputs of its graph do not show.
    pub(super) fn named_kind(&self, network_class: Option<&str>, io: &GraphIo) -> Option<PipelineKind> {
        let kinds = match self.pipeline() {
            Ok(PipelineClass::TextToImage(kinds)) => kinds,
            _ => {
                let has_class = |kind: &PipelineKind| {
                    network_class.is_some_and(|class| kind.facts().network_classes.contains(&class))
                };
                PipelineKind::ALL.into_iter().filter(has_class).collect()
            }
        };
        let has_input =
            |role: &Role| io.inputs.iter().any(|input| role.usual_names().contains(&input.name.as_str()));
        let named = |kind: &&PipelineKind| !kind.facts().is_found_by_inputs;
        let fits = |kind: &&PipelineKind| kind.facts().required_inputs.iter().all(has_input);
        kinds.iter().filter(named).find(fits).or_else(|| kinds.iter().find(named)).copied()
    }

    /// Checks that the class is one for a network of this kind, which has this input for the mask of a text. `None` is a
    /// network that takes no text, or one of no known family.
    pub(super) fn check_kind(
        &self,
        kind: Option<PipelineKind>,
        text_mask: Option<&str>,
    ) -> Result<(), BundleError> {
        let fits = match (self.pipeline()?, kind) {
            (PipelineClass::Generic, _) => true,
            (PipelineClass::Unconditional, kind) => kind.is_none(),
            (PipelineClass::TextToImage(kinds), kind) => kind.is_some_and(|kind| kinds.contains(&kind)),
        };
        if fits {
            return Ok(());
        }
        let class = self.class().unwrap_or_default();
        if let (None, Some(mask)) = (kind, text_mask) {
            return Err(self.fault(format!(
                "_class_name is {class:?}, but the network takes {mask}, a mask of the text's tokens, which pipelines of \
                 this class do not have; export the network without it, or correct _class_name"
            )));
        }
        let network = kind.map_or("a network that takes no text", PipelineKind::title);
        Err(self.fault(format!(
            "_class_name is {class:?}, but by its inputs the network is {network}; export the folder again, or correct \
             _class_name"
        )))
    }

    /// Checks that no component that the pipeline needs is null.
    pub(super) fn check_components(
        &self,
        latent: Option<&LatentComponents>,
        network: &Path,
    ) -> Result<(), BundleError> {
        let folder = |file: &Path| file.file_name().map(|name| name.to_string_lossy().into_owned());
        let network = network.parent().and_then(folder);
        let tokenizers = latent.iter().flat_map(|latent| &latent.text_encoders);
        let tokenizers = tokenizers.filter_map(|(_, tokenizer)| folder(tokenizer));
        let vae = latent.map(|_| "vae".to_owned());
        let decoder = latent.and_then(|latent| latent.decoder.as_ref()).map(|_| "vae_decoder".to_owned());
        let scheduler = Some("scheduler".to_owned());
        let mut needed = network.into_iter().chain(scheduler).chain(vae).chain(decoder).chain(tokenizers);
        match needed.find(|name| self.component(name) == Some(Component::Absent)) {
            Some(name) => Err(self.fault(format!(
                "{name} is null, but the pipeline needs it; name its library and its class, or export the whole pipeline \
                 again"
            ))),
            None => Ok(()),
        }
    }

    /// All keys.
    pub(super) fn entries(&self) -> &Map<String, Json> {
        &self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), String> {
        let index =
            ModelIndex { path: "model_index.json".into(), entries: serde_json::from_str(text).unwrap() };
        index.check().map_err(|error| error.to_string())
    }

    #[test]
    fn components_of_other_classes_are_refused_by_their_names() {
        for (entry, expected) in [
            (r#""vae": ["diffusers", "AutoencoderKL"]"#, None),
            (r#""vae_decoder": ["diffusers", "OnnxRuntimeModel"]"#, None),
            (r#""unet": ["my_module", "MyNetwork"]"#, None),
            (r#""text_encoder": ["transformers", "TFCLIPTextModel"]"#, None),
            (r#""unet": ["diffusers", "NeuronModelForUnet"]"#, None),
            (r#""image_encoder": ["transformers", "CLIPVisionModelWithProjection"]"#, None),
            (r#""tokenizer_2": ["transformers", "T5TokenizerFast"]"#, None),
            (r#""text_encoder_2": [null, null]"#, None),
            (r#""vae": ["diffusers", "AutoencoderDC"]"#, None),
            (
                r#""vae": ["diffusers", "AutoencoderKLWan"]"#,
                Some("vae: the class AutoencoderKLWan is not supported"),
            ),
            (
                r#""unet": ["diffusers", "UNet3DConditionModel"]"#,
                Some("unet: the class UNet3DConditionModel"),
            ),
            (r#""transformer": ["diffusers", "PixArtTransformer2DModel"]"#, None),
            (
                r#""transformer": ["diffusers", "LTXVideoTransformer3DModel"]"#,
                Some("LTXVideoTransformer3DModel"),
            ),
            (r#""text_encoder": ["transformers", "Gemma2Model"]"#, None),
            (
                r#""text_encoder": ["transformers", "LlamaForCausalLM"]"#,
                Some("text_encoder: the class LlamaForCausalLM"),
            ),
            (r#""tokenizer": ["transformers", "BertTokenizer"]"#, Some("tokenizer: the class BertTokenizer")),
            (r#""requires_aesthetics_score": true"#, Some("SDXL's refiner")),
            (r#""_class_name": 3"#, Some("_class_name is 3, but must be the name of a class")),
            (r#""unet": true"#, Some("unet is true, but must be a library and a class")),
            (r#""scheduler": 3.7"#, Some("scheduler is 3.7, but must be")),
            (r#""vae": ["diffusers"]"#, Some("vae is [\"diffusers\"], but must be")),
            (r#""vae": null"#, None),
            (r#""requires_aesthetics_score": 1"#, Some("must be true or false")),
        ] {
            let found = check(&format!("{{{entry}}}"));
            match expected {
                None => assert_eq!(found, Ok(()), "{entry}"),
                Some(expected) => {
                    assert!(found.clone().unwrap_err().contains(expected), "{entry}: {found:?}")
                }
            }
        }
    }

    #[test]
    fn a_class_must_fit_the_network() {
        let index = |class: &str| ModelIndex {
            path: "model_index.json".into(),
            entries: serde_json::from_str(&format!(r#"{{"_class_name": {class}}}"#)).unwrap(),
        };
        let xl = index("\"StableDiffusionXLPipeline\"");
        assert!(xl.check_kind(Some(PipelineKind::StableDiffusionXl), None).is_ok());
        let error = xl.check_kind(Some(PipelineKind::StableDiffusion), None).unwrap_err().to_string();
        assert!(error.contains("by its inputs the network is Stable Diffusion;"), "{error}");
        assert!(xl.check_kind(None, None).is_err());
        let error = xl.check_kind(None, Some("mask")).unwrap_err().to_string();
        assert!(error.contains("the network takes mask, a mask of the text's tokens"), "{error}");
        assert!(index("\"DDPMPipeline\"").check_kind(None, None).is_ok());
        assert!(
            index("\"StableDiffusionPipeline\"")
                .check_kind(Some(PipelineKind::LatentConsistency), None)
                .is_ok()
        );
        assert_eq!(index(r#"["module", "FluxPipeline"]"#).class(), Some("FluxPipeline"));
    }
}
