//! What is drawn again: the receipts in a picture, in a file or in a result, with the pictures that they belong to.

use std::path::Path;

use anyhow::{Context, anyhow, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::cli::picture_file;
use crate::cli::run_job::LIMITS;
use crate::image::{EmbeddedText, Format, decode_rgb};
use crate::job::WrittenReceipt;
use crate::json_input::Document;

/// A receipt with what is known of its picture.
#[derive(Debug)]
pub(super) struct Original {
    /// The picture's or the file's name, for messages.
    pub(super) name: String,
    pub(super) receipt: WrittenReceipt,
    pub(super) picture: OriginalPicture,
}

/// What the new picture is compared with.
#[derive(Debug)]
pub(super) enum OriginalPicture {
    /// The file, and the texts in it.
    File { bytes: Vec<u8>, format: Format, text: EmbeddedText },
    /// The SHA-256 of the file, in hexadecimal.
    Digest { sha256: String, format: Format },
    /// Nothing.
    Unknown,
}

impl Original {
    /// The format of the picture, if it is known.
    pub(super) fn format(&self) -> Option<Format> {
        match self.picture {
            OriginalPicture::File { format, .. } | OriginalPicture::Digest { format, .. } => Some(format),
            OriginalPicture::Unknown => None,
        }
    }
}

/// Where receipts are, for errors.
const PLACES: &str = "a receipt is in each picture of denoised, unless [receipt] embed is false or another program \
                      has changed the picture, in each result (result/<id>), and in each response over HTTP";

/// Reads the receipts of a file, at least one.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<Original>> {
    let bytes = picture_file::read(path)?;
    let name = path.display().to_string();
    let text = bytes.trim_ascii_start();
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text).trim_ascii_start();
    let originals = match text.first() {
        Some(b'{' | b'[') => from_json(text, &name),
        _ => from_picture(bytes, &name).map(|original| vec![original]),
    };
    originals.with_context(|| name.clone())
}

fn from_picture(bytes: Vec<u8>, name: &str) -> anyhow::Result<Original> {
    let format = format_of(&bytes)
        .with_context(|| format!("the file is neither PNG, JPEG, WebP nor JSON; {PLACES}"))?;
    let Some(text) = EmbeddedText::read(&bytes) else {
        decode_rgb(&bytes, None, LIMITS.pixels)
            .map_err(|fault| anyhow!("the picture is damaged: {fault}"))?;
        bail!("the picture has no receipt; {PLACES}")
    };
    let receipt = WrittenReceipt::parse(text.receipt.as_bytes()).map_err(|fault| anyhow!(fault))?;
    Ok(Original { name: name.to_owned(), receipt, picture: OriginalPicture::File { bytes, format, text } })
}

/// Reads a receipt, or a result or a response over HTTP with several.
fn from_json(text: &[u8], name: &str) -> anyhow::Result<Vec<Original>> {
    let document = Document::parse(text).map_err(|fault| anyhow!("the file is not valid JSON: {fault}"))?;
    let object: Map<String, Value> =
        document.read("the file").map_err(|error| anyhow!("{}; {PLACES}", error.message))?;
    if let Some(Value::Array(images)) = object.get("data") {
        ensure!(!images.is_empty(), "the response has no images");
        return images.iter().enumerate().map(|(index, image)| from_response(index, image, name)).collect();
    }
    let Some(Value::Array(images)) = object.get("images") else {
        let receipt = WrittenReceipt::from_object(object).map_err(|fault| anyhow!("{fault}; {PLACES}"))?;
        return Ok(vec![Original { name: name.to_owned(), receipt, picture: OriginalPicture::Unknown }]);
    };
    ensure!(!images.is_empty(), "the result has no images");
    images.iter().enumerate().map(|(index, image)| from_result(index, image, name)).collect()
}

/// Reads an image of a response over HTTP, which has the picture and its receipt.
fn from_response(index: usize, image: &Value, name: &str) -> anyhow::Result<Original> {
    let field = format!("data[{index}]");
    let name = format!("{name}: image {index}");
    let Some(Value::Object(receipt)) = image.get("denoised") else {
        bail!("{field}.denoised is missing; {PLACES}")
    };
    let receipt = WrittenReceipt::from_object(receipt.clone())
        .map_err(|fault| anyhow!("{field}.denoised: {fault}; {PLACES}"))?;
    let text = image.get("b64_json").and_then(Value::as_str).unwrap_or_default();
    let bytes = BASE64.decode(text).map_err(|fault| anyhow!("{field}.b64_json is no base64: {fault}"))?;
    if EmbeddedText::read(&bytes).is_some() {
        return from_picture(bytes, &name).with_context(|| format!("{field}.b64_json"));
    }
    let format = format_of(&bytes).with_context(|| format!("{field}.b64_json is no picture"))?;
    let sha256 = format!("{:x}", Sha256::digest(&bytes));
    Ok(Original { name, receipt, picture: OriginalPicture::Digest { sha256, format } })
}

/// The format of a picture that can have a receipt.
fn format_of(bytes: &[u8]) -> Option<Format> {
    match ::image::guess_format(bytes).ok()? {
        ::image::ImageFormat::Png => Some(Format::Png),
        ::image::ImageFormat::Jpeg => Some(Format::Jpeg),
        ::image::ImageFormat::WebP => Some(Format::Webp),
        _ => None,
    }
}

/// Reads an image of a result.
fn from_result(index: usize, image: &Value, name: &str) -> anyhow::Result<Original> {
    let field = format!("images[{index}]");
    let Some(Value::Object(receipt)) = image.get("receipt") else {
        bail!("{field}.receipt is missing; {PLACES}")
    };
    let receipt = WrittenReceipt::from_object(receipt.clone())
        .map_err(|fault| anyhow!("{field}.receipt: {fault}; {PLACES}"))?;
    let text = |key: &str| image.get(key).and_then(Value::as_str);
    let format = text("content_type")
        .and_then(|content_type| Format::ALL.into_iter().find(|own| own.content_type() == content_type));
    let picture = match (text("sha256"), format) {
        (Some(sha256), Some(format)) => OriginalPicture::Digest { sha256: sha256.to_owned(), format },
        _ => OriginalPicture::Unknown,
    };
    Ok(Original { name: format!("{name}: image {index}"), receipt, picture })
}
