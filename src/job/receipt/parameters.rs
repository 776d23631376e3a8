//! A receipt as the text `parameters` of AUTOMATIC1111's web UI, which many programs read from pictures.
//!
//! The prompt, then `Negative prompt: …`, then one line of settings, each a name and a value that is quoted if it contains
//! a separator.

use std::fmt::Write;

use super::ImageReceipt;

/// The digits of a hash that the web UI shows.
const SHORT_HASH: usize = 10;

/// Writes the parameters of a picture of this width and height.
pub(super) fn parameters(receipt: &ImageReceipt, size: Option<[usize; 2]>) -> String {
    let mut text = String::new();
    if let Some(prompts) = &receipt.prompts {
        text.push_str(&prompts.prompt);
        for lora in &receipt.loras {
            let _ = write!(text, " <lora:{}:{}>", lora.name, lora.weight);
        }
        text.push('\n');
        if let Some(negative) = prompts.negative_prompt.as_deref().filter(|text| !text.is_empty()) {
            let _ = writeln!(text, "Negative prompt: {negative}");
        }
    }
    let _ = write!(
        text,
        "Steps: {}, Sampler: {}, CFG scale: {}, Seed: {}",
        receipt.steps, receipt.sampler, receipt.guidance, receipt.seed
    );
    let mut setting = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            let _ = write!(text, ", {name}: {}", quoted(value));
        }
    };
    setting("Size", size.map(|[width, height]| format!("{width}x{height}")));
    setting("Model hash", receipt.model_sha256.get(..SHORT_HASH).map(str::to_owned));
    setting("Model", Some(receipt.model.clone()));
    setting("Class", receipt.class.map(|class| class.to_string()));
    setting("Denoising strength", receipt.strength.map(|strength| strength.to_string()));
    let skipped = receipt.prompts.as_ref().and_then(|prompts| prompts.clip_skip);
    // The web UI counts the layer that is used, from the last one.
    setting("Clip skip", skipped.map(|skipped| (skipped + 1).to_string()));
    setting("Eta", receipt.eta.map(|eta| eta.to_string()));
    setting("Batch size", receipt.count.map(|count| count.to_string()));
    setting("Version", Some(format!("denoised {}", receipt.version)));
    // PNG ends a text at a zero.
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

/// The value as the web UI writes it: as a JSON string if it contains a separator.
fn quoted(value: String) -> String {
    if value.contains([',', ':', '\n']) { serde_json::Value::from(value).to_string() } else { value }
}
