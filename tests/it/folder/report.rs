//! What `inspect` says of the files and keys of a folder.

use super::{edit, folder, inspect};
use std::path::Path;

use crate::common::bundles::{copy_bundle, model};
use crate::common::{golden, read_json};
use crate::live::live;
use serde_json::json;

#[test]
fn inspect_accounts_for_every_file_and_every_key() {
    let (_directory, full) = folder("sd");
    let add = |file: &str, text: &str| {
        let path = full.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    add("vae/diffusion_pytorch_model.safetensors", "");
    add("safety_checker/model.onnx", "");
    add("safety_checker/config.json", "{}");
    add("safety_checker/extra.json", "{}");
    add("feature_extractor/preprocessor_config.json", "{}");
    add("movq/config.json", "{}");
    add("README.md", "");
    add("notes.xyz", "");
    add("unet/diffusion_pytorch_model.safetensors.index.json", "{}");
    add(".git/objects/4d/7a", "");
    add(".cache/huggingface/download/model.onnx.metadata", "");
    add("tokenizer/tokenizer.json", "{}");
    add("denoised.toml", "[scheduler]\nclass = \"DDPMScheduler\"\n[default]\nsteps = 4\n");
    edit(&full, "unet/config.json", |config| config["surprise"] = json!(1));
    edit(&full, "model_index.json", |index| {
        index["prior"] = json!(["diffusers", "PriorTransformer"]);
        index["mystery"] = json!(3);
    });
    let report = inspect(&full, &[]);
    for expected in [
        "  not used             README.md: documentation\n",
        "  not used             notes.xyz: unknown\n",
        "  not used             unet/diffusion_pytorch_model.safetensors.index.json: it lists the parts of weights of \
         another framework\n",
        "  not used             .git/objects/4d/7a: it belongs to the tool that fetched the folder\n",
        "  not used             .cache/huggingface/download/model.onnx.metadata: it belongs to the tool that fetched \
         the folder\n",
        "  not used             movq/config.json: no supported pipeline has a component of this name\n",
        "  not used             3 files in safety_checker: the safety checker is not run\n",
        "  not used             feature_extractor/preprocessor_config.json: it belongs to the safety checker\n",
        "  not used             vae/diffusion_pytorch_model.safetensors: weights of another framework",
        "  not used             tokenizer/tokenizer.json: the class of the tokenizer reads vocab.json and merges.txt\n",
        "    unknown            surprise\n",
        "    unknown            mystery\n",
        "    not used           prior: no supported pipeline has this component\n",
        "    not used           scheduler.class: scheduler_config.json is in the folder, and takes precedence\n",
    ] {
        assert!(report.contains(expected), "{expected}: {report}");
    }
    let all = inspect(&full, &["--all"]);
    let mut files = Vec::new();
    let mut pending = vec![full.clone()];
    while let Some(path) = pending.pop() {
        match std::fs::read_dir(&path) {
            Ok(entries) => pending.extend(entries.map(|entry| entry.unwrap().path())),
            Err(_) => files.push(path.strip_prefix(&full).unwrap().display().to_string()),
        }
    }
    let section = all.split_once("\nFiles\n").unwrap().1.split_once("\n\n").unwrap().0;
    for file in &files {
        let lines = section
            .lines()
            .filter(|line| line.split_whitespace().any(|word| word.trim_end_matches(':') == file));
        assert_eq!(lines.count(), 1, "{file}: {section}");
    }
    assert!(section.contains(&format!("of {} files", files.len())), "{section}");
    let keys = all.split_once("\nKeys\n").unwrap().1.split_once("\n\n").unwrap().0;
    for key in ["down_block_types", "hidden_size", "latent_channels"] {
        assert!(keys.lines().any(|line| line.split_whitespace().eq(["used", key])), "{key}: {keys}");
    }
    for key in read_json(&full.join("unet/config.json")).as_object().unwrap().keys() {
        assert!(keys.lines().any(|line| line.split_whitespace().last() == Some(key)), "{key}: {keys}");
    }
}

#[test]
fn suffixes_are_listed_only_where_a_sampler_has_them() {
    assert!(!inspect(&model("digits-ncsn"), &[]).contains("with a suffix"));
    assert!(inspect(&golden("gaussian"), &[]).contains("karras, exponential, polyexponential, beta"));
    let report = inspect(&model("digits"), &["--all"]);
    // Samplers that one reason excludes share a line.
    let (_, excluded) = report.split_once(" samplers that can't serve this bundle\n").unwrap();
    let reasons: std::collections::BTreeSet<_> =
        excluded.lines().map(|line| line.split_once(": ").unwrap().1).collect();
    assert_eq!(reasons.len(), excluded.lines().count(), "{excluded}");
}

/// The keys of the text encoder were used, those of its tokenizer were not.
#[test]
fn keys_of_a_component_that_is_null_were_called_used() {
    let (_directory, without) = folder("sd3");
    edit(&without, "model_index.json", |index| {
        (index["text_encoder_3"], index["vae_encoder"]) = (json!([null, null]), json!([null, null]));
    });
    let tokens = json!({"eos_token": "</s>"}).to_string();
    std::fs::write(without.join("tokenizer_3/special_tokens_map.json"), tokens).unwrap();
    let report = inspect(&without, &["--all"]);
    let keys = report.split_once("\nKeys\n").unwrap().1.split_once("\n\n").unwrap().0;
    for (file, reason) in [
        ("text_encoder_3/config.json", "model_index.json has no such component"),
        ("tokenizer_3/special_tokens_map.json", "no text encoder is served that reads it"),
        ("vae_encoder/config.json", "model_index.json sets the component to null"),
    ] {
        let section = keys.split_once(&format!("  {file} ")).unwrap_or_else(|| panic!("{keys}")).1;
        let lines: Vec<_> = section.lines().skip(1).take_while(|line| line.starts_with("    ")).collect();
        assert!(!lines.is_empty(), "{file}: {keys}");
        for line in lines {
            let is_unused = line.trim_start().starts_with("not used ") && line.ends_with(reason);
            assert!(is_unused, "{file}: {line}");
        }
    }
}

#[test]
fn loras_that_jobs_can_name_were_reported_as_not_used() {
    let file = live("loras/a_peft_r4.safetensors");
    let report = |bundle: &Path| {
        let (_directory, copy) = copy_bundle(bundle, "model");
        for folder in ["loras", "loras/old"] {
            std::fs::create_dir_all(copy.join(folder)).unwrap();
            std::fs::copy(&file, copy.join(folder).join("style.safetensors")).unwrap();
        }
        inspect(&copy, &[])
    };
    let adapted = report(&live("sd_live"));
    assert!(!adapted.contains(" loras/style.safetensors"), "{adapted}");
    assert!(
        adapted.contains("loras/old/style.safetensors: LoRAs are looked for in the folder itself\n"),
        "{adapted}"
    );
    let plain = report(&golden("latent/bundles/sd"));
    let reason = "the graphs have no inputs for LoRAs; `denoised init --live` adds them";
    assert!(plain.contains(&format!("loras/style.safetensors: {reason}\n")), "{plain}");
}
