//! Which files of a bundle are read, and why the others are not.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::{KeyUse, chat_template_reason, idle_reason, is_component, special_token_key};
use crate::bundle::autoencoder_config::configuration_file;
use crate::bundle::autoencoder_halves::differing_keys;
use crate::bundle::chat_template;
use crate::bundle::config_keys::read_keys;
use crate::bundle::text_model::{CLIP, TextModel};
use crate::bundle::tokenizer_source::TokenizerSource;
use crate::bundle::{Bundle, BundleError, PipelineKind};

/// The files that are read for a bundle.
pub(super) fn used_files(bundle: &Bundle) -> Result<Vec<PathBuf>, BundleError> {
    let directory = bundle.directory.as_path();
    let mut used = vec![
        directory.join("model_index.json"),
        directory.join("denoised.toml"),
        bundle.scheduler.path.clone(),
    ];
    let mut graphs = vec![bundle.graph.clone()];
    if let Some(latent) = &bundle.latent {
        graphs.extend(latent.text_encoders.iter().map(|(graph, _)| graph.clone()));
        graphs.extend(latent.decoder.iter().chain(&latent.encoder).cloned());
        used.extend(configuration_file(directory));
        let kind = bundle.signature.as_ref().and_then(PipelineKind::from_signature);
        if latent.encoder.is_some() && differing_keys(directory, kind)?.is_empty() {
            used.push(directory.join("vae_encoder/config.json"));
        }
        used.push(directory.join("transformer/config.json"));
        let kind = bundle.signature.as_ref().and_then(PipelineKind::from_signature);
        let facts = kind.map(|kind| latent.text_encoder_facts(kind)).unwrap_or_default();
        let models = facts.into_iter().map(|(_, facts)| facts.model).chain(std::iter::repeat(&CLIP));
        for (((_, tokenizer), class), model) in
            latent.text_encoders.iter().zip(&latent.tokenizer_classes).zip(models)
        {
            let files = tokenizer_files(tokenizer, model, class.as_deref())?;
            used.extend(files.into_iter().map(|file| tokenizer.join(file)));
        }
    }
    if takes_loras(bundle) {
        used.extend(list(&directory.join(LORAS)).into_iter().filter(|path| is_lora(path)));
    }
    graphs.extend(bundle.controlnets.iter().map(|controlnet| controlnet.graph.clone()));
    let is_autoencoder = |graph: &Path| {
        bundle
            .latent
            .iter()
            .any(|latent| [&latent.decoder, &latent.encoder].into_iter().flatten().any(|vae| vae == graph))
    };
    for graph in graphs {
        if !is_autoencoder(&graph) {
            used.push(graph.with_file_name("config.json"));
        }
        used.extend(bundle.files(&graph)?.paths().map(Path::to_owned));
    }
    Ok(used)
}

/// The folder of LoRAs, which jobs name.
const LORAS: &str = "loras";

fn takes_loras(bundle: &Bundle) -> bool {
    bundle.signature.as_ref().is_some_and(|signature| !signature.live.layers.is_empty())
}

/// Whether a path in the folder of LoRAs is that of a LoRA: subfolders are not searched.
fn is_lora(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "safetensors")
        && path.parent().is_some_and(|folder| folder.ends_with(LORAS))
        && path.is_file()
}

/// The files of a tokenizer's directory that are read.
fn tokenizer_files(
    directory: &Path,
    model: &'static TextModel,
    class: Option<&str>,
) -> Result<Vec<&'static str>, BundleError> {
    let config = read_keys(&directory.join("tokenizer_config.json"))?;
    let own = config.get("tokenizer_class").and_then(Json::as_str);
    let mut files = vec!["tokenizer_config.json"];
    let class = class.or(own);
    files.extend(match TokenizerSource::find(directory, TextModel::of_class_or(class, model), class) {
        TokenizerSource::TokenizerJson => &["tokenizer.json"][..],
        TokenizerSource::Vocabulary { .. } => &["vocab.json", "merges.txt"],
        TokenizerSource::SentencePiece => &[],
    });
    let special = read_keys(&directory.join("special_tokens_map.json"))?;
    let added = read_keys(&directory.join("added_tokens.json"))?;
    match config.get("added_tokens_decoder") {
        None => files.extend(["special_tokens_map.json", "added_tokens.json", "tokenizer.json"]),
        // A file that repeats what tokenizer_config.json has is not lost.
        Some(tokens) => {
            let is_used =
                |(key, value): (&String, &Json)| special_token_key(&config, key, value) == KeyUse::Used;
            let is_known = |(token, id): (&String, &Json)| {
                tokens.get(id.to_string()).and_then(|known| known.get("content")?.as_str()) == Some(token)
            };
            files.extend(special.iter().all(is_used).then_some("special_tokens_map.json"));
            files.extend(added.iter().all(is_known).then_some("added_tokens.json"));
        }
    }
    Ok(files)
}

/// Why a file is not used.
pub(super) fn unused_reason(bundle: &Bundle, path: &Path) -> String {
    let directory = bundle.directory.as_path();
    let relative = path.strip_prefix(directory).unwrap_or(path);
    let folder = relative.iter().next().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let extension =
        path.extension().map(|extension| extension.to_string_lossy().into_owned()).unwrap_or_default();
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    match (folder.as_str(), name.as_str(), extension.as_str()) {
        _ if !path.exists() => "it is a link to a file that does not exist",
        _ if path.is_dir() => "the folder cannot be read",
        _ if relative.iter().any(|part| part.as_encoded_bytes().starts_with(b".")) => {
            "it belongs to the tool that fetched the folder"
        }
        ("safety_checker", ..) => "the safety checker is not run",
        ("feature_extractor", ..) => "it belongs to the safety checker",
        ("image_encoder", ..) => "image prompts are not supported",
        (folder, ..) if folder.starts_with("controlnet") => {
            "no ControlNet for this network is read from it: that is a model.onnx with the input controlnet_cond"
        }
        (LORAS, _, "safetensors") if takes_loras(bundle) => "LoRAs are looked for in the folder itself",
        (LORAS, _, "safetensors") => "the graphs have no inputs for LoRAs; `denoised init --live` adds them",
        (.., "safetensors" | "bin" | "pt" | "pth" | "ckpt" | "msgpack" | "h5" | "gguf") => {
            "weights of another framework; the ONNX graphs have their own"
        }
        (_, name, "json") if name.ends_with(".index.json") => {
            "it lists the parts of weights of another framework"
        }
        (.., "md" | "png" | "jpg" | "jpeg" | "webp" | "gif" | "pdf" | "html") => "documentation",
        (_, name, "txt" | "") if !name.contains("merges") => "documentation",
        (.., "xml" | "engine" | "plan" | "trt" | "tflite" | "mlmodel") => "a model of another runtime",
        (.., "py") => "code in a model's folder is never run",
        _ if let Some(reason) = idle_reason(bundle, &folder) => reason,
        (folder, chat_template::FILE, _) if folder.starts_with("tokenizer") => {
            return chat_template_reason(bundle, folder);
        }
        ("vae", ..) if extension == "onnx" => unused_autoencoder(directory),
        (.., "onnx") => "no component is read from this graph",
        (.., extension) if extension.starts_with("onnx_data") || ["data", "pb"].contains(&extension) => {
            "no graph that is used names it"
        }
        (_, "vocab.json" | "merges.txt", _) => "the vocabulary is read from tokenizer.json",
        (_, "tokenizer.json", _) => "the class of the tokenizer reads vocab.json and merges.txt",
        (_, "special_tokens_map.json" | "added_tokens.json", _) => {
            "tokenizer_config.json has other tokens, which are used"
        }
        (_, "spiece.model" | "sentencepiece.bpe.model" | "tokenizer.model", _) => {
            "the vocabulary is read from tokenizer.json"
        }
        ("vae_encoder", "config.json", _) => "vae_decoder/config.json has other values, which are used",
        ("vae", ..) => unused_autoencoder(directory),
        (folder, name, _) if folder != name && !is_component(folder) => {
            "no supported pipeline has a component of this name"
        }
        _ => "unknown",
    }
    .to_owned()
}

/// Why the folder of the whole autoencoder is not used.
pub(super) fn unused_autoencoder(directory: &Path) -> &'static str {
    if directory.join("vae_decoder").is_dir() {
        "vae_decoder and vae_encoder are used"
    } else {
        "the decoder's graph is read from vae_decoder"
    }
}

/// The files in a directory and below it. A directory that cannot be read is listed as a file.
pub(super) fn list(directory: &Path) -> Vec<PathBuf> {
    let (mut files, mut visited) = (Vec::new(), BTreeSet::new());
    let mut pending = vec![directory.to_owned()];
    while let Some(path) = pending.pop() {
        // A link may lead to a directory above.
        let is_new = path.canonicalize().is_ok_and(|path| visited.insert(path));
        match std::fs::read_dir(&path) {
            Ok(entries) if is_new => pending.extend(entries.filter_map(|entry| Some(entry.ok()?.path()))),
            Ok(_) => {}
            Err(_) => files.push(path),
        }
    }
    files
}
