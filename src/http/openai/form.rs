//! A request for edits in the parts of a form becomes the fields of a request in JSON.

use std::io::Cursor;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use image::metadata::Orientation;
use image::{ImageDecoder, ImageReader};
use serde_json::{Map, Value};

use crate::http::error::ApiError;
use crate::image::mask_of_transparency;
use crate::json_input::Document;

/// The fields whose values are text even if they look like a number.
const TEXT_FIELDS: [&str; 17] = [
    "prompt",
    "negative_prompt",
    "prompt_2",
    "negative_prompt_2",
    "model",
    "sampler",
    "noise",
    "size",
    "quality",
    "style",
    "background",
    "complexity",
    "moderation",
    "input_fidelity",
    "response_format",
    "safety_identifier",
    "user",
];

/// One part of a form.
#[derive(Debug, Clone)]
pub(in crate::http) struct FormPart {
    /// The field's name.
    pub(in crate::http) name: String,
    /// Whether the part is a file.
    pub(in crate::http) is_file: bool,
    /// The value, or the file.
    pub(in crate::http) bytes: Bytes,
}

/// What a form asks for.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::http) struct Form {
    /// The fields, as a request in JSON has them.
    pub(in crate::http) fields: Map<String, Value>,
    /// The width and the height of the picture, if they are the images' because the form has no size.
    pub(in crate::http) picture_size: Option<[u32; 2]>,
}

/// Reads the parts of a form. Pictures of more than `max_pixels` are refused.
pub(in crate::http) fn fields_of_form(parts: Vec<FormPart>, max_pixels: u64) -> Result<Form, ApiError> {
    let (mut fields, mut image, mut mask) = (Map::new(), None, None);
    for FormPart { name, is_file, bytes } in parts {
        let picture = match name.as_str() {
            "image" | "image[]" => &mut image,
            "mask" => &mut mask,
            _ if is_file => {
                let message = format!("{name} is a file, but only image and mask can be files");
                return Err(ApiError::of_type(&name, message));
            }
            _ => {
                let value = field_value(&name, &bytes)?;
                if fields.contains_key(&name) {
                    return Err(ApiError::of_type(&name, format!("{name} is there twice; send it once")));
                }
                fields.insert(name, value);
                continue;
            }
        };
        let name = name.trim_end_matches("[]");
        if !is_file {
            return Err(ApiError::of_type(name, format!("{name} is a text, but must be a file")));
        }
        if picture.replace(bytes).is_some() {
            return Err(ApiError::of_type(
                name,
                format!("{name} is there twice; a job starts from one picture"),
            ));
        }
    }
    let Some(image) = image else {
        return Err(ApiError::of_type("image", "image is missing; send a PNG, JPEG or WebP file"));
    };
    let is_auto = fields.get("size").is_none_or(|size| size == "auto");
    let picture_size = size_of(&image).filter(|_| is_auto);
    if let Some([width, height]) = picture_size {
        fields.insert("size".to_owned(), format!("{width}x{height}").into());
    }
    fields.insert("image".to_owned(), BASE64.encode(&image).into());
    if let Some(mask) = mask {
        let of_alpha = mask_of_transparency(&mask, max_pixels)
            .map_err(|fault| ApiError::of_type("mask", format!("mask: {fault}")))?;
        let mask = of_alpha.map_or(mask, Bytes::from);
        fields.insert("mask".to_owned(), BASE64.encode(&mask).into());
    }
    Ok(Form { fields, picture_size })
}

fn field_value(name: &str, bytes: &[u8]) -> Result<Value, ApiError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| ApiError::of_type(name, format!("{name} is not text in UTF-8")))?;
    let as_text = || Value::String(text.to_owned());
    if TEXT_FIELDS.contains(&name) {
        return Ok(as_text());
    }
    match serde_json::from_str(text) {
        Ok(value) => Ok(value),
        Err(_) if !text.trim_start().starts_with(['[', '{']) => Ok(as_text()),
        Err(error) => {
            let fault = Document::parse(bytes).err().unwrap_or_else(|| error.to_string());
            Err(ApiError::of_type(name, format!("{name} is not valid JSON: {fault}")))
        }
    }
}

/// The width and the height of a picture as it is shown. `None` if it is no picture, which the job's validation reports.
fn size_of(file: &[u8]) -> Option<[u32; 2]> {
    let reader = ImageReader::new(Cursor::new(file)).with_guessed_format().ok()?;
    let mut decoder = reader.into_decoder().ok()?;
    let (width, height) = decoder.dimensions();
    let is_turned = matches!(
        decoder.orientation(),
        Ok(Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH)
    );
    Some(if is_turned { [height, width] } else { [width, height] })
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, ImageFormat};

    use super::*;

    fn png() -> Bytes {
        let mut file = Cursor::new(Vec::new());
        GrayImage::new(3, 2).write_to(&mut file, ImageFormat::Png).unwrap();
        file.into_inner().into()
    }

    fn part(name: &str, is_file: bool, bytes: impl Into<Bytes>) -> FormPart {
        FormPart { name: name.to_owned(), is_file, bytes: bytes.into() }
    }

    fn text(name: &str, value: &'static str) -> FormPart {
        part(name, false, value)
    }

    #[test]
    fn values_of_a_form_are_text_or_json_and_pictures_are_base64() {
        let parts = vec![
            part("image", true, png()),
            text("prompt", "7"),
            text("n", "2"),
            text("strength", "0.5"),
            text("exact", "true"),
            text("loras", r#"[{"name": "style"}]"#),
            text("size", "auto"),
            text("other", "a b"),
        ];
        let form = fields_of_form(parts, 100).unwrap();
        let expected = serde_json::json!({
            "image": BASE64.encode(png()), "prompt": "7", "n": 2, "strength": 0.5, "exact": true,
            "loras": [{"name": "style"}], "size": "3x2", "other": "a b"
        });
        assert_eq!(Value::Object(form.fields), expected);
        assert_eq!(form.picture_size, Some([3, 2]));
        let form = fields_of_form(vec![part("image[]", true, png()), text("size", "8x8")], 100).unwrap();
        assert_eq!((&form.fields["size"], form.picture_size), (&"8x8".into(), None));
    }

    #[test]
    fn a_form_with_wrong_parts_is_refused_by_name() {
        for (parts, field, message) in [
            (vec![text("prompt", "a")], "image", "image is missing"),
            (vec![text("image", "a")], "image", "image is a text, but must be a file"),
            (vec![part("image[]", true, png()), part("image", true, png())], "image", "image is there twice"),
            (vec![part("picture", true, png())], "picture", "only image and mask can be files"),
            (vec![text("n", "1"), text("n", "2")], "n", "n is there twice; send it once"),
            (vec![part("n", false, &b"\xff"[..])], "n", "n is not text in UTF-8"),
            (vec![text("loras", r#"[{"name": "a""#)], "loras", "loras is not valid JSON: it ends before"),
            (vec![part("image", true, png()), part("mask", true, "x")], "mask", "mask: "),
        ] {
            let error = fields_of_form(parts, 100).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(field));
            assert!(error.message.contains(message), "{}", error.message);
        }
    }
}
