//! The images of a request: in the request itself, or on the topic of a retained message.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD as BASE64};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{JobError, Request, shortened_id};
use crate::json_input::shortened;
use crate::topic_name::topic_fault;

/// An image file that a request carries or refers to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "an image is a string, a PNG, JPEG, WebP or .npy file in base64, or {\"topic\": \"…\"}, the topic of a retained message with such a file"
)]
pub enum Attachment {
    /// A PNG, JPEG, WebP or .npy file, in base64.
    Base64(String),
    /// The payload of a retained message.
    Retained(RetainedTopic),
}

/// The topic of a retained message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>")]
pub struct RetainedTopic {
    /// The topic.
    pub topic: String,
}

/// An object only: serde also reads a struct from an array.
impl TryFrom<BTreeMap<String, String>> for RetainedTopic {
    type Error = String;

    fn try_from(mut fields: BTreeMap<String, String>) -> Result<Self, String> {
        match (fields.remove("topic"), fields.is_empty()) {
            (Some(topic), true) => Ok(Self { topic }),
            _ => Err("expected an object with topic alone".to_owned()),
        }
    }
}

impl Attachment {
    /// Encodes a file's bytes.
    pub fn from_bytes(file: &[u8]) -> Self {
        Self::Base64(BASE64.encode(file))
    }

    /// Whether it refers to a topic.
    pub(crate) fn is_topic(&self) -> bool {
        matches!(self, Self::Retained(_))
    }

    /// Returns the file's bytes; `field` is the request's field for the error.
    pub(super) fn to_bytes(&self, field: &str) -> Result<Vec<u8>, JobError> {
        match self {
            Self::Base64(text) => {
                decode_base64(text).map_err(|fault| JobError::out_of_range(field, format!("{field} {fault}")))
            }
            Self::Retained(RetainedTopic { topic }) => {
                let message = format!("{field}: the retained message on {topic} was not fetched");
                Err(JobError::out_of_range(field, message))
            }
        }
    }
}

/// Base64 with or without padding.
const WITHOUT_PADDING: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Decodes base64, also with line breaks, in the alphabet for URLs, or in a data URI. An error is a predicate.
fn decode_base64(text: &str) -> Result<Vec<u8>, String> {
    let text = text.trim_ascii();
    let data = match text.get(..5) {
        Some(scheme) if scheme.eq_ignore_ascii_case("data:") => match text.split_once(";base64,") {
            Some((_, data)) => data,
            None => return Err("is a data URI that is not in base64; send the file in base64".to_owned()),
        },
        _ => text,
    };
    let standard = |c: char| match c {
        '-' => '+',
        '_' => '/',
        other => other,
    };
    let compact: String = data.chars().filter(|c| !c.is_ascii_whitespace()).map(standard).collect();
    WITHOUT_PADDING.decode(&compact).map_err(|_| {
        let shown = shortened(text, MAX_SHOWN);
        if is_address(text) {
            return format!(
                "is {shown:?}, an address, and addresses are not fetched; download the file, and send it in base64 or \
                 as a retained message: {{\"topic\": \"…\"}}"
            );
        }
        if is_location(text) {
            return format!(
                "is {shown:?}, the name of a file and not its contents; send the file in base64, or write {{\"file\": \
                 {shown:?}}} in a job for `denoised sample --job`"
            );
        }
        let is_foreign = |c: &char| !(c.is_ascii_alphanumeric() || "+/=".contains(*c));
        match compact.chars().find(is_foreign) {
            Some(c) => format!("is not base64: it has the character {c:?}; send a file in base64"),
            None => "is not complete base64; send the whole file".to_owned(),
        }
    })
}

/// Whether a text is the address of a file, such as `https://example.org/fox.png`, also without its scheme.
pub(crate) fn is_address(text: &str) -> bool {
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    };
    text.trim_start().split_once("://").is_some_and(|(scheme, _)| is_scheme(scheme))
        || ["//", "www."].iter().any(|start| text.starts_with(start))
}

/// Whether a text is a path.
fn is_location(text: &str) -> bool {
    let ending = text.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
    let is_picture = ending.is_some_and(|ending| PICTURE_ENDINGS.contains(&ending.as_str()));
    is_picture || ["./", "../", "~/"].iter().any(|start| text.starts_with(start))
}

/// The endings of the names of pictures and arrays.
const PICTURE_ENDINGS: [&str; 9] = ["png", "jpg", "jpeg", "webp", "npy", "bmp", "gif", "tif", "tiff"];
/// The most characters of a text in an error.
const MAX_SHOWN: usize = 60;

impl Request {
    pub(super) fn attachments(&mut self) -> impl Iterator<Item = (String, &mut Attachment)> {
        let all = [("image", &mut self.image), ("mask", &mut self.mask)];
        let all =
            all.into_iter().filter_map(|(field, attachment)| Some((field.to_owned(), attachment.as_mut()?)));
        let controls = self.controls.iter_mut().flatten().enumerate();
        all.chain(controls.map(|(index, control)| (format!("controls[{index}].image"), &mut control.image)))
    }

    /// Replaces references to topics by the payloads that were fetched from them. That of a stream's topic stays.
    ///
    /// Returns the topics that have yet to be fetched. A payload over `max_bytes` is an error.
    pub fn attach(
        &mut self,
        fetched: &BTreeMap<String, Result<Bytes, String>>,
        max_bytes: u64,
    ) -> Result<Vec<String>, JobError> {
        let mut missing = Vec::new();
        let streamed = self.stream.as_ref().map(|stream| stream.topic.clone());
        for (field, attachment) in self.attachments() {
            let Attachment::Retained(RetainedTopic { topic }) = attachment else { continue };
            if Some(&*topic) == streamed.as_ref() {
                continue;
            }
            let wrong = |why: String| JobError::out_of_range(&field, format!("{field}: {topic}: {why}"));
            match fetched.get(topic) {
                None if let Some(fault) = topic_fault(topic) => {
                    let shown = shortened_id(topic);
                    let message = format!("{field}: {shown:?} is not a topic that can be fetched: {fault}");
                    return Err(JobError::out_of_range(&field, message));
                }
                None if missing.contains(topic) => {}
                None => missing.push(topic.clone()),
                Some(Err(reason)) => return Err(wrong(reason.clone())),
                Some(Ok(bytes)) if bytes.len() as u64 > max_bytes => {
                    let size = bytes.len();
                    let message = format!("{size} bytes; at most {max_bytes} are taken (limits.payload)");
                    return Err(wrong(message));
                }
                Some(Ok(bytes)) if bytes.is_empty() => {
                    return Err(wrong(
                        "the message is empty; publish a PNG, JPEG, WebP or .npy file".to_owned(),
                    ));
                }
                Some(Ok(bytes)) => *attachment = Attachment::from_bytes(bytes),
            }
        }
        Ok(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pictures_of_controls_are_fetched_too() {
        let json = r#"{"controls": [{"image": "QQ"}, {"image": {"topic": "camera/front"}}]}"#;
        let mut request: Request = serde_json::from_str(json).unwrap();
        let mut fetched = BTreeMap::new();
        assert_eq!(request.attach(&fetched, 10).unwrap(), ["camera/front"]);
        fetched.insert("camera/front".to_owned(), Ok(Bytes::from_static(b"picture")));
        assert!(request.attach(&fetched, 10).unwrap().is_empty());
        assert_eq!(request.controls.as_ref().unwrap()[1].image, Attachment::from_bytes(b"picture"));
        fetched.insert("camera/front".to_owned(), Ok(Bytes::from_static(b"too many bytes")));
        let mut request: Request = serde_json::from_str(json).unwrap();
        let error = request.attach(&fetched, 10).unwrap_err();
        assert_eq!(error.field.as_deref(), Some("controls[1].image"));
        assert!(error.message.starts_with("controls[1].image: camera/front: 14 bytes"), "{}", error.message);
    }

    #[test]
    fn base64_of_other_programs_was_refused() {
        let bytes = [0xfb, 0xff, 0xfe, 0x00, 0x41];
        let text = BASE64.encode(bytes);
        assert_eq!(text, "+//+AEE=");
        for other in [
            "+//+AEE=",
            "+//+AEE",
            "-__-AEE=",
            "+//+\r\nAEE=\n",
            "data:image/png;base64,+//+AEE=",
            "DATA:image/png;charset=x;base64,+//+AEE=",
        ] {
            assert_eq!(decode_base64(other).as_deref(), Ok(&bytes[..]), "{other}");
        }
    }

    #[test]
    fn a_path_in_place_of_a_picture_was_reported_as_an_invalid_byte() {
        let fault = |text: &str| decode_base64(text).unwrap_err();
        let advice = "the name of a file and not its contents; send the file in base64, or write";
        for path in ["photos/fox.png", "/tmp/x.JPG", "~/fox", "./x"] {
            assert!(
                fault(path).starts_with(&format!("is {path:?}, {advice} {{\"file\": {path:?}}}")),
                "{path}"
            );
        }
        assert_eq!(
            fault("data:image/png,abc"),
            "is a data URI that is not in base64; send the file in base64"
        );
        assert_eq!(fault("ab!d"), "is not base64: it has the character '!'; send a file in base64");
        assert_eq!(fault("abcde"), "is not complete base64; send the whole file");
    }

    #[test]
    fn an_address_was_taken_for_the_name_of_a_file() {
        for address in [
            "https://example.org/fox.png",
            "HTTP://example.org/a",
            "file:///srv/fox.png",
            "s3://pictures/fox.png",
        ] {
            let expected = format!(
                "is {address:?}, an address, and addresses are not fetched; download the file, and send it in base64 \
                 or as a retained message: {{\"topic\": \"…\"}}"
            );
            assert_eq!(decode_base64(address), Err(expected));
        }
        assert!(is_address("www.example.org/fox.png") && is_address("//example.org/fox.png"));
        for other in ["photos/fox.png", "a b://c", "://x", "c:/fox.png"] {
            assert!(!is_address(other), "{other}");
        }
    }
}
