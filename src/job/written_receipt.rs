//! Receipts as they are kept, in pictures, files and results, and the jobs that draw them again.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::receipt::ImageReceipt;
use super::{Attachment, JobError, Request, read_request};
use crate::json_input::{Document, shortened};

/// The fields by which a receipt is recognised.
const REQUIRED: [&str; 5] = ["model", "model_sha256", "scheduler", "sampler", "seed"];
/// The fields that a request has under the same name. `null` leaves one out.
const REQUEST_FIELDS: [&str; 24] = [
    "sampler",
    "steps",
    "seed",
    "count",
    "class",
    "guidance",
    "eta",
    "guidance_rescale",
    "cfg_normalization",
    "cfg_truncation",
    "prompt",
    "negative_prompt",
    "prompt_2",
    "negative_prompt_2",
    "clip_skip",
    "max_sequence_length",
    "original_size",
    "crop",
    "target_size",
    "strength",
    "conditions",
    "noise",
    "exact",
    "guess_mode",
];
/// The fields that the same image may have in other words, or that are about its file.
const NOT_COMPARED: [&str; 7] =
    ["id", "index", "seed_text", "ignored", "quality", "provider_shares", "rejected_providers"];
/// The longest value of a difference, in characters.
const MAX_SHOWN: usize = 80;

/// A receipt as it was kept. It may be of another version, or changed by hand.
#[derive(Debug, Clone, PartialEq)]
pub struct WrittenReceipt(Map<String, Value>);

/// The files that a job was drawn with, by the SHA-256 that a receipt has of them.
#[derive(Debug, Clone, Default)]
pub struct SourceFiles {
    /// The init image, the mask and the pictures of controls.
    pub pictures: BTreeMap<String, Attachment>,
    /// LoRAs. Others are found by their names.
    pub loras: BTreeMap<String, PathBuf>,
}

/// What a file was in the job of a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceRole {
    /// The init image.
    Image,
    /// The inpainting mask.
    Mask,
    /// The picture of a control.
    Control,
    /// A LoRA.
    Lora,
}

impl WrittenReceipt {
    /// Parses a receipt in JSON. An error is a sentence.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let document =
            Document::parse(text).map_err(|fault| format!("the receipt is not valid JSON: {fault}"))?;
        Self::from_object(document.read("the receipt").map_err(|error| error.message)?)
    }

    /// Takes the members of a JSON object. An error is a sentence.
    pub fn from_object(object: Map<String, Value>) -> Result<Self, String> {
        match REQUIRED.iter().find(|field| object.get(**field).is_none_or(Value::is_null)) {
            None => Ok(Self(object)),
            Some(field) => Err(format!("it is no receipt of denoised: it has no {field}")),
        }
    }

    /// The value of a field that is a string.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.0.get(field)?.as_str()
    }

    /// The value of a field that is a number, 0 or more.
    pub fn number(&self, field: &str) -> Option<u64> {
        self.0.get(field)?.as_u64()
    }

    /// The configuration of the scheduler.
    pub fn scheduler(&self) -> &Value {
        self.0.get("scheduler").unwrap_or(&Value::Null)
    }

    /// The SHA-256 of the files that had this role.
    pub fn digests(&self, role: SourceRole) -> Vec<&str> {
        let own = |field| self.text(field).into_iter().collect();
        match role {
            SourceRole::Image => own("image_sha256"),
            SourceRole::Mask => own("mask_sha256"),
            SourceRole::Control => self.entries("controls").filter_map(digest).collect(),
            SourceRole::Lora => self.entries("loras").filter_map(digest).collect(),
        }
    }

    fn entries(&self, field: &str) -> impl Iterator<Item = &Value> {
        self.0.get(field).and_then(Value::as_array).into_iter().flatten()
    }

    /// The request that draws the image again. Its model and its format are left to the caller.
    ///
    /// A picture that is not in `files` is an error that names the field with its digest.
    pub fn to_request(&self, files: &SourceFiles) -> Result<Request, JobError> {
        let own = |field: &str| self.0.get(field).filter(|value| !value.is_null());
        let mut object: Map<String, Value> = REQUEST_FIELDS
            .iter()
            .filter_map(|field| Some(((*field).to_owned(), own(field)?.clone())))
            .collect();
        if let Some(seed) = own("seed_text") {
            object.insert("seed".to_owned(), seed.clone());
        }
        if let Some(size) = own("size") {
            let [width, height] = [0, 1].map(|side| size.get(side).cloned().unwrap_or_default());
            object.extend([("width".to_owned(), width), ("height".to_owned(), height)]);
        }
        for field in ["image", "mask"] {
            if let Some(sha256) = own(&format!("{field}_sha256")) {
                object.insert(field.to_owned(), picture(files, &format!("{field}_sha256"), sha256)?);
            }
        }
        for field in ["controls", "loras"] {
            let entries = self.entries(field).enumerate().map(|(index, entry)| {
                let mut entry = entry.as_object().cloned().unwrap_or_default();
                let sha256 = entry.remove("sha256").unwrap_or_default();
                if field == "controls" {
                    let path = format!("controls[{index}].sha256");
                    entry.insert("image".to_owned(), picture(files, &path, &sha256)?);
                }
                Ok(Value::Object(entry))
            });
            let entries = entries.collect::<Result<Vec<_>, JobError>>()?;
            if !entries.is_empty() {
                object.insert(field.to_owned(), entries.into());
            }
        }
        let wrong = |message: String| JobError::out_of_range("receipt", message);
        let document = Document::parse(Value::Object(object).to_string().as_bytes()).map_err(wrong)?;
        let mut request = read_request(&document, "the receipt", None)?;
        for (lora, sha256) in request.loras.iter_mut().flatten().zip(self.entries("loras").map(digest)) {
            lora.path = sha256.and_then(|sha256| files.loras.get(sha256)).cloned();
        }
        Ok(request)
    }

    /// What is different in the receipt of the same job here: a line for each value.
    pub fn differences(&self, here: &ImageReceipt) -> Vec<String> {
        // As text, in which 32-bit numbers are as short as in the other receipt.
        let here = serde_json::to_string(here).and_then(|text| serde_json::from_str(&text));
        let mut lines = Vec::new();
        compare("", &Value::Object(self.0.clone()), &here.unwrap_or_default(), &mut lines);
        lines
    }
}

fn digest(entry: &Value) -> Option<&str> {
    entry.get("sha256")?.as_str()
}

/// The picture with this digest, as a field of a request.
fn picture(files: &SourceFiles, field: &str, sha256: &Value) -> Result<Value, JobError> {
    let found = sha256.as_str().and_then(|sha256| files.pictures.get(sha256));
    let missing = || {
        let shown = shortened(&sha256.to_string(), MAX_SHOWN);
        JobError::out_of_range(field, format!("{field} is {shown}, but no file with this SHA-256 was given"))
    };
    found.map(|picture| json!(picture)).ok_or_else(missing)
}

/// Adds a line for each value that differs.
fn compare(path: &str, receipt: &Value, here: &Value, lines: &mut Vec<String>) {
    let member = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match (receipt, here) {
        (Value::Object(receipt), Value::Object(here)) => {
            let more = here.keys().filter(|name| !receipt.contains_key(*name));
            let names = receipt.keys().chain(more);
            for name in names.filter(|name| !(path.is_empty() && NOT_COMPARED.contains(&name.as_str()))) {
                let [one, other] = [receipt, here].map(|object| object.get(name).unwrap_or(&Value::Null));
                compare(&member(name), one, other, lines);
            }
        }
        (Value::Array(receipt), Value::Array(here)) if receipt.len() == here.len() => {
            for (index, (receipt, here)) in receipt.iter().zip(here).enumerate() {
                compare(&format!("{path}[{index}]"), receipt, here, lines);
            }
        }
        (Value::Number(receipt), Value::Number(here)) if receipt.as_f64() == here.as_f64() => {}
        _ if is_absent(receipt) && is_absent(here) || receipt == here => {}
        _ => {
            let shown = |value: &Value| match value {
                value if is_absent(value) => "nothing".to_owned(),
                Value::String(text) => shortened(text, MAX_SHOWN),
                other => shortened(&other.to_string(), MAX_SHOWN),
            };
            let line = format!("{path}: {} in the receipt, {} here", shown(receipt), shown(here));
            lines.push(line.replace(char::is_control, "\u{fffd}"));
        }
    }
}

/// Whether a value is one that a receipt may leave out.
fn is_absent(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(more: Value) -> WrittenReceipt {
        let mut object = json!({"version": "0.1.0", "id": "a", "index": 2, "model": "sd", "model_sha256": "ab",
            "scheduler": {"_class_name": "DDIMScheduler"}, "sampler": "ddim", "seed": 9, "steps": 3, "class": null,
            "guidance": 1.0, "conditions": {}, "exact": false, "noise": "torch"});
        object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        WrittenReceipt::parse(object.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn each_field_of_a_request_is_in_receipts_or_does_not_change_the_image() {
        let request = serde_json::to_value(Request::default()).unwrap();
        let mut known: Vec<_> = REQUEST_FIELDS.to_vec();
        // From other fields of the receipt.
        known.extend(["width", "height", "image", "mask", "loras", "controls", "model", "quality"]);
        known.extend(["id", "format", "preview_every", "deadline_ms", "priority", "stream"]);
        known.sort_unstable();
        let mut fields: Vec<_> = request.as_object().unwrap().keys().map(String::as_str).collect();
        fields.sort_unstable();
        assert_eq!(known, fields);
    }

    #[test]
    fn a_receipt_becomes_the_request_that_draws_it() {
        let files = SourceFiles {
            pictures: [("aa", "QQ"), ("bb", "Qg")]
                .map(|(sha256, text)| (sha256.to_owned(), Attachment::Base64(text.to_owned())))
                .into(),
            loras: BTreeMap::from([("cc".to_owned(), PathBuf::from("style.safetensors"))]),
        };
        let receipt = receipt(
            json!({"seed": 18_446_744_073_709_552_000.0, "seed_text": "18446744073709551615",
            "prompt": "a fox", "size": [48, 32], "image_sha256": "aa", "strength": 0.5,
            "loras": [{"name": "style", "weight": 0.5, "sha256": "cc"}, {"name": "other", "weight": 1.0, "sha256": "dd"}],
            "controls": [{"net": "canny", "scale": 0.5, "start": 0.0, "end": 1.0, "resize": true, "sha256": "bb"}]}),
        );
        let request = receipt.to_request(&files).unwrap();
        let fields: Map<String, Value> =
            serde_json::from_value::<Map<_, _>>(serde_json::to_value(&request).unwrap())
                .unwrap()
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .collect();
        let expected = json!({"sampler": "ddim", "seed": u64::MAX, "steps": 3, "guidance": 1.0, "conditions": {},
            "exact": false, "noise": "torch", "prompt": "a fox", "width": 48, "height": 32, "image": "QQ",
            "strength": 0.5, "loras": [{"name": "style", "weight": 0.5}, {"name": "other", "weight": 1.0}],
            "controls": [{"net": "canny", "image": "Qg", "scale": 0.5, "start": 0.0, "end": 1.0, "preprocess": null,
                "resize": true}]});
        assert_eq!(Value::Object(fields), expected);
        let paths = request.loras.unwrap().into_iter().map(|lora| lora.path);
        assert_eq!(paths.collect::<Vec<_>>(), [Some(PathBuf::from("style.safetensors")), None]);
        assert_eq!(receipt.digests(SourceRole::Control), ["bb"]);
        assert_eq!(receipt.digests(SourceRole::Mask), Vec::<&str>::new());
    }

    #[test]
    fn a_receipt_that_is_damaged_is_an_error_that_names_the_field() {
        for (text, expected) in [
            ("{", "the receipt is not valid JSON: it ends before"),
            ("[]", "the receipt is an array, but must be"),
            (r#"{"id": "a", "model": "sd"}"#, "it is no receipt of denoised: it has no model_sha256"),
            // A seed was drawn.
            (
                r#"{"model": "sd", "model_sha256": "", "scheduler": {}, "sampler": "ddim", "seed": null}"#,
                "it is no receipt of denoised: it has no seed",
            ),
        ] {
            let error = WrittenReceipt::parse(text.as_bytes()).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
        for (more, field) in [
            (json!({"steps": "ten"}), "steps"),
            (json!({"seed": -1}), "seed"),
            (json!({"size": [1e30]}), "width"),
            (json!({"size": {"a": 1}}), ""),
            (json!({"image_sha256": 3}), "image_sha256"),
            (json!({"controls": [7]}), "controls[0].sha256"),
            (json!({"loras": [{"name": "x", "size": 1}]}), "loras[0].size"),
            (json!({"count": {}}), "count"),
        ] {
            let result = receipt(more.clone()).to_request(&SourceFiles::default());
            let found = result.err().and_then(|error| error.field).unwrap_or_default();
            assert_eq!(found, field, "{more}");
        }
    }

    #[test]
    fn values_differ_by_their_paths_and_not_by_how_they_are_written() {
        let mut lines = Vec::new();
        let receipt = json!({"id": "a", "version": "0.1.0", "guidance": 3, "eta": null, "loras": [], "cut": ["x\n"],
            "scheduler": {"beta_end": 0.02, "clip": false}, "later": 1});
        let here =
            json!({"version": "0.2.0", "guidance": 3.0, "cut": ["y"], "scheduler": {"beta_end": 0.03}});
        compare("", &receipt, &here, &mut lines);
        assert_eq!(
            lines,
            [
                "cut[0]: x\u{fffd} in the receipt, y here",
                "later: 1 in the receipt, nothing here",
                "scheduler.beta_end: 0.02 in the receipt, 0.03 here",
                "version: 0.1.0 in the receipt, 0.2.0 here",
            ]
        );
    }
}
