//! Every file of a bundle and every key of its configurations, with how each is used.

mod files;
mod idle;
mod network_keys;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value as Json};

use super::autoencoder_config::configuration_file;
use super::autoencoder_halves::{differing_keys, is_used};
use super::config_keys::{ConfigKind, Known, configurations, read_keys};
use super::json_file::read_text;
use super::manifest_use::{unused_key, unused_section};
use super::model_index::{Component, ModelIndex, is_runtime_class, is_unknown_class};
use super::{Bundle, BundleError, PipelineKind, TEXT_ENCODERS, chat_template};
use files::{list, unused_reason, used_files};
use idle::{chat_template_reason, idle_reason};

/// How the files and keys of a bundle are used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The files by their paths relative to the bundle.
    pub files: BTreeMap<String, FileUse>,
    /// For each configuration its keys.
    pub keys: BTreeMap<String, BTreeMap<String, KeyUse>>,
}

/// How a file is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileUse {
    /// The program reads it.
    Used,
    /// The program does not read it, for this reason.
    NotUsed(String),
}

/// How a key is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyUse {
    /// The program reads it.
    Used,
    /// It has no effect on what is computed around the graphs.
    WithoutEffect,
    /// The program knows it, but does not use it here, for this reason.
    NotUsed(String),
    /// The program does not know it.
    Unknown,
}

impl Inventory {
    pub(super) fn read(bundle: &Bundle) -> Result<Self, BundleError> {
        let directory = bundle.directory.as_path();
        let mut inventory = Self::default();
        let used = used_files(bundle)?;
        for path in list(directory) {
            let status = match used.contains(&path) {
                true => FileUse::Used,
                false => FileUse::NotUsed(unused_reason(bundle, &path)),
            };
            inventory.files.insert(relative(directory, &path), status);
        }
        let kind = bundle.signature.as_ref().and_then(PipelineKind::from_signature);
        inventory.add_model_index(bundle, kind);
        inventory.add_configurations(bundle, kind)?;
        inventory.add_controlnets(bundle)?;
        inventory.add_manifest(bundle)?;
        Ok(inventory)
    }

    fn add_model_index(&mut self, bundle: &Bundle, kind: Option<PipelineKind>) {
        let index = &bundle.index;
        let has_controlnet = !bundle.controlnets.is_empty();
        let zeroes = kind.is_some_and(|kind| kind.facts().may_zero_unconditional);
        let status = |key: &str, value: &Json| match (key, index.component(key)) {
            (_, Some(Component::Absent)) => KeyUse::WithoutEffect,
            ("_class_name" | "_name_or_path" | "is_distilled", _) => KeyUse::Used,
            ("force_zeros_for_empty_prompt", _) if zeroes => KeyUse::Used,
            ("force_zeros_for_empty_prompt", _) => KeyUse::NotUsed("only SDXL's pipelines use it".to_owned()),
            ("requires_safety_checker" | "requires_aesthetics_score" | "is_cosxl_edit", _) => {
                KeyUse::WithoutEffect
            }
            (key, _) if key.starts_with('_') => KeyUse::WithoutEffect,
            ("safety_checker", _) => KeyUse::NotUsed("the safety checker is not run".to_owned()),
            ("feature_extractor", _) => KeyUse::NotUsed("it belongs to the safety checker".to_owned()),
            ("image_encoder", _) => KeyUse::NotUsed("image prompts are not supported".to_owned()),
            ("controlnet", Some(Component::Class { .. })) if has_controlnet => KeyUse::Used,
            (key, Some(Component::Class { .. })) if is_component(key) => {
                idle_reason(bundle, key).map_or(KeyUse::Used, |reason| KeyUse::NotUsed(reason.to_owned()))
            }
            (_, Some(Component::Class { .. })) => {
                KeyUse::NotUsed("no supported pipeline has this component".to_owned())
            }
            _ if value.is_null() => KeyUse::WithoutEffect,
            _ => KeyUse::Unknown,
        };
        self.add("model_index.json", index.entries(), status);
    }

    fn add_configurations(
        &mut self,
        bundle: &Bundle,
        pipeline: Option<PipelineKind>,
    ) -> Result<(), BundleError> {
        let directory = bundle.directory.as_path();
        let differing = differing_keys(directory, pipeline)?;
        let applied = configuration_file(directory);
        for (file, kind) in configurations(directory, &bundle.graph) {
            let path = directory.join(&file);
            let keys = read_keys(&path)?;
            let is_other = kind == ConfigKind::Autoencoder && Some(&path) != applied.as_ref();
            let component = file.split('/').next().unwrap_or_default();
            // The configuration of the whole autoencoder counts only without those of its halves.
            let is_unused = is_other && component == "vae";
            let reason = files::unused_autoencoder(directory);
            // The encoder's configuration counts where the decoder has none.
            let idle = idle_reason(bundle, component).filter(|_| Some(&path) != applied.as_ref());
            let by_kind = |key: &str| match (kind.known(key), kind) {
                _ if let Some(reason) = idle => KeyUse::NotUsed(reason.to_owned()),
                _ if is_unused => KeyUse::NotUsed(reason.to_owned()),
                (_, ConfigKind::Tokenizer) if key == chat_template::KEY && !keys[key].is_null() => {
                    KeyUse::NotUsed(chat_template_reason(bundle, component))
                }
                (Known::Unknown, _) => KeyUse::Unknown,
                (Known::WithoutEffect, _) => KeyUse::WithoutEffect,
                (Known::Used, _) if is_other && differing.iter().any(|other| other == key) => {
                    KeyUse::NotUsed("vae_decoder has another value, which is used".to_owned())
                }
                (Known::Used, ConfigKind::Autoencoder) => autoencoder_key(key, &keys, pipeline),
                (Known::Used, ConfigKind::TextEncoder)
                    if key == "use_attention_mask" && !takes_mask(bundle, component, &keys) =>
                {
                    KeyUse::NotUsed("its graph has no input for a mask".to_owned())
                }
                (Known::Used, ConfigKind::Network) if is_of_latents(key) && pipeline.is_none() => {
                    KeyUse::WithoutEffect
                }
                (Known::Used, ConfigKind::Network) => {
                    network_keys::unused(bundle, key, &keys).map_or(KeyUse::Used, KeyUse::NotUsed)
                }
                (Known::Used, _) => KeyUse::Used,
            };
            self.add(&file, &keys, |key, value| {
                other_class(&bundle.index, component, key, value)
                    .map_or_else(|| by_kind(key), KeyUse::NotUsed)
            });
        }
        for (_, tokenizer) in TEXT_ENCODERS {
            let file = format!("{tokenizer}/special_tokens_map.json");
            let keys = read_keys(&directory.join(&file))?;
            let config = read_keys(&directory.join(tokenizer).join("tokenizer_config.json"))?;
            let idle = idle_reason(bundle, tokenizer);
            self.add(&file, &keys, |key, value| match idle {
                Some(reason) => KeyUse::NotUsed(reason.to_owned()),
                None => special_token_key(&config, key, value),
            });
        }
        Ok(())
    }

    fn add_controlnets(&mut self, bundle: &Bundle) -> Result<(), BundleError> {
        for controlnet in &bundle.controlnets {
            let path = controlnet.graph.with_file_name("config.json");
            let status = |key: &str, _: &Json| match ConfigKind::ControlNet.known(key) {
                Known::Used => KeyUse::Used,
                Known::WithoutEffect => KeyUse::WithoutEffect,
                Known::Unknown => KeyUse::Unknown,
            };
            self.add(&relative(&bundle.directory, &path), &read_keys(&path)?, status);
        }
        Ok(())
    }

    /// The keys of denoised.toml, whose unknown ones are errors.
    fn add_manifest(&mut self, bundle: &Bundle) -> Result<(), BundleError> {
        let text = read_text(&bundle.directory.join("denoised.toml"))?.unwrap_or_default();
        let table: toml::Table = toml::from_str(&text).unwrap_or_default();
        let mut keys = BTreeMap::new();
        for (section, value) in table {
            let unused = unused_section(bundle, &section);
            let status = |key: Option<&str>| {
                let unused = unused.map(str::to_owned);
                unused.or_else(|| unused_key(bundle, &section, key?)).map_or(KeyUse::Used, KeyUse::NotUsed)
            };
            match value.as_table() {
                Some(table) => {
                    keys.extend(table.keys().map(|key| (format!("{section}.{key}"), status(Some(key)))));
                }
                None => {
                    keys.insert(section.clone(), status(None));
                }
            }
        }
        if !keys.is_empty() {
            self.keys.insert("denoised.toml".to_owned(), keys);
        }
        Ok(())
    }

    fn add(&mut self, file: &str, keys: &Map<String, Json>, status: impl Fn(&str, &Json) -> KeyUse) {
        if !keys.is_empty() {
            let keys = keys.iter().map(|(key, value)| (key.clone(), status(key, value)));
            self.keys.insert(file.to_owned(), keys.collect());
        }
    }
}

/// That model_index.json names another class for a component than its configuration.
fn other_class(index: &ModelIndex, component: &str, key: &str, value: &Json) -> Option<String> {
    if !["_class_name", "tokenizer_class"].contains(&key) {
        return None;
    }
    let component = if component.starts_with("vae") { "vae" } else { component };
    if let (None, "_class_name", Some(class)) = (index.class_of(component), key, value.as_str())
        && is_unknown_class(component, class)
    {
        return Some(format!("no class {class} is known for {component}; its graph is run as it is"));
    }
    let (named, own) = (index.class_of(component).filter(|named| !is_runtime_class(named))?, value.as_str()?);
    // The fast class of a tokenizer writes the name of the other one.
    (named.trim_end_matches("Fast") != own.trim_end_matches("Fast"))
        .then(|| format!("model_index.json names {named}, which counts"))
}

/// Whether a text encoder masks padding, if its configuration asks for that.
fn takes_mask(bundle: &Bundle, component: &str, keys: &Map<String, Json>) -> bool {
    let asks = keys.get("use_attention_mask") == Some(&Json::Bool(true));
    let encoders = bundle.latent.iter().flat_map(|latent| &latent.text_encoders);
    let mut own = encoders.filter(|(graph, _)| *graph == bundle.directory.join(component).join("model.onnx"));
    !asks
        || own.all(|(graph, _)| {
            let files = bundle.files(graph);
            files.is_ok_and(|files| files.header.io.inputs.iter().any(|input| input.name.contains("mask")))
        })
}

/// Whether a component of this name is one that is run.
pub(super) fn is_component(name: &str) -> bool {
    let is_text = TEXT_ENCODERS.iter().any(|(encoder, tokenizer)| name == *encoder || name == *tokenizer);
    is_text || ["unet", "transformer", "vae", "vae_decoder", "vae_encoder", "scheduler"].contains(&name)
}

/// Whether a network's key counts only in a pipeline with a prompt.
fn is_of_latents(key: &str) -> bool {
    [
        "down_block_types",
        "block_out_channels",
        "patch_size",
        "pos_embed_max_size",
        "joint_attention_dim",
        "_diffusers_version",
        "_class_name",
        "timestep_scale",
        "guidance_embeds_scale",
    ]
    .contains(&key)
}

/// How a key of special_tokens_map.json is used beside a tokenizer_config.json, whose `added_tokens_decoder` takes
/// precedence.
fn special_token_key(config: &Map<String, Json>, key: &str, value: &Json) -> KeyUse {
    let same = || config.get(key).is_some_and(|own| content(own) == content(value));
    match ConfigKind::Tokenizer.known(key) {
        Known::Used if config.contains_key("added_tokens_decoder") && !same() => {
            KeyUse::NotUsed("tokenizer_config.json takes precedence, and has another token".to_owned())
        }
        Known::Used => KeyUse::Used,
        Known::WithoutEffect => KeyUse::WithoutEffect,
        Known::Unknown => KeyUse::Unknown,
    }
}

/// The token of an entry, which may be a string or an object.
fn content(token: &Json) -> &Json {
    token.get("content").unwrap_or(token)
}

/// How a key of the autoencoder's configuration is used by a pipeline of this kind.
fn autoencoder_key(key: &str, keys: &Map<String, Json>, kind: Option<PipelineKind>) -> KeyUse {
    let is_null = |key: &str| keys.get(key).is_none_or(Json::is_null);
    match key {
        key if is_null(key) => KeyUse::WithoutEffect,
        "shift_factor" if !is_used(key, kind) => {
            KeyUse::NotUsed("only the pipelines of SD3, Flux and Z-Image use it".to_owned())
        }
        "latents_mean" | "latents_std" if !is_used(key, kind) => {
            KeyUse::NotUsed("only SDXL's pipelines use it".to_owned())
        }
        "latents_mean" | "latents_std" if is_null("latents_mean") || is_null("latents_std") => {
            KeyUse::NotUsed("pipelines use latents_mean and latents_std only together".to_owned())
        }
        _ => KeyUse::Used,
    }
}

fn relative(directory: &Path, path: &Path) -> String {
    path.strip_prefix(directory).unwrap_or(path).to_string_lossy().into_owned()
}
