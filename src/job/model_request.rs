//! The messages that load and unload models.

use std::path::PathBuf;

use serde::Deserialize;

use super::request::parse_as;
use super::{ErrorCode, JobError, id_error, is_id, shortened_id};

/// A valid request to load a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelLoadRequest {
    /// Its id in the answer.
    pub id: Option<String>,
    /// The directory of the model.
    pub path: PathBuf,
    /// The digest of its graphs as receipts and the state have it, in lower case.
    pub sha256: Option<String>,
}

/// A valid request to unload a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelUnloadRequest {
    /// Its id in the answer.
    pub id: Option<String>,
    /// The model.
    pub target: ModelTarget,
}

/// A model that a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelTarget {
    /// By its name.
    Name(String),
    /// By its directory.
    Path(PathBuf),
}

impl ModelTarget {
    /// The field that names it.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Name(_) => "model",
            Self::Path(_) => "path",
        }
    }

    /// The model as the request names it.
    pub fn text(&self) -> String {
        match self {
            Self::Name(name) => shortened_id(name),
            Self::Path(path) => path.display().to_string(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LoadMessage {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    sha256: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UnloadMessage {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    path: Option<String>,
}

/// The longest path, in bytes; Linux has the same limit.
const MAX_PATH_BYTES: usize = 4096;

/// An error with the id as the sender wrote it.
type Invalid = (Option<String>, JobError);

/// Parses a request to load a model.
pub fn parse_model_load(payload: &[u8]) -> Result<ModelLoadRequest, Invalid> {
    let LoadMessage { id, path, sha256 } = parse_as(payload, "the request to load a model")?;
    let invalid = |error| (id.as_deref().map(shortened_id), error);
    check_id(id.as_deref()).map_err(invalid)?;
    let missing =
        || missing("path", "the field `path` is missing; it names the directory of the model to load");
    let path = path.ok_or_else(missing).and_then(absolute).map_err(invalid)?;
    let sha256 = sha256.map(digest).transpose().map_err(invalid)?;
    Ok(ModelLoadRequest { path, sha256, id })
}

/// Parses a request to unload a model.
pub fn parse_model_unload(payload: &[u8]) -> Result<ModelUnloadRequest, Invalid> {
    let UnloadMessage { id, model, path } = parse_as(payload, "the request to unload a model")?;
    let invalid = |error| (id.as_deref().map(shortened_id), error);
    check_id(id.as_deref()).map_err(invalid)?;
    let target = match (model, path) {
        (Some(name), None) => Ok(ModelTarget::Name(name)),
        (None, Some(path)) => absolute(path).map(ModelTarget::Path),
        (Some(_), Some(_)) => Err(JobError::of_field(
            ErrorCode::BadRequest,
            "path",
            "`model` and `path` both name the model to unload; remove one of them",
        )),
        (None, None) => Err(missing(
            "model",
            "the field `model` is missing; it names the model to unload, as `path` does",
        )),
    };
    Ok(ModelUnloadRequest { target: target.map_err(invalid)?, id })
}

fn check_id(id: Option<&str>) -> Result<(), JobError> {
    id.filter(|id| !is_id(id)).map_or(Ok(()), |id| Err(id_error(id)))
}

fn missing(field: &str, message: &str) -> JobError {
    JobError::of_field(ErrorCode::BadRequest, field, message)
}

fn absolute(path: String) -> Result<PathBuf, JobError> {
    let shown = shortened_id(&path);
    let is_valid = path.starts_with('/') && path.len() <= MAX_PATH_BYTES && !path.contains(char::is_control);
    match is_valid {
        true => Ok(PathBuf::from(path)),
        false => Err(JobError::out_of_range(
            "path",
            format!("path is {shown:?}, but must be an absolute path such as /var/lib/models/sd"),
        )),
    }
}

fn digest(text: String) -> Result<String, JobError> {
    match text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => Ok(text.to_ascii_lowercase()),
        false => Err(JobError::out_of_range(
            "sha256",
            format!(
                "sha256 is {:?}, but must be 64 hexadecimal digits, as `model_sha256` in receipts",
                shortened_id(&text)
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_to_load_names_a_directory_and_may_name_a_digest() {
        let digest = "0123456789abcdef".repeat(4);
        let text = format!(r#"{{"id": "a", "path": "/m/sd", "sha256": "{}"}}"#, digest.to_uppercase());
        let expected =
            ModelLoadRequest { id: Some("a".to_owned()), path: PathBuf::from("/m/sd"), sha256: Some(digest) };
        assert_eq!(parse_model_load(text.as_bytes()), Ok(expected));
        for (text, field, message) in [
            ("[]", None, "the request to load a model is an array, but must be an object"),
            ("{}", Some("path"), "the field `path` is missing; it names the directory of the model to load"),
            (
                r#"{"path": "sd"}"#,
                Some("path"),
                "path is \"sd\", but must be an absolute path such as /var/lib/models/sd",
            ),
            (
                r#"{"path": "/m", "sha256": "12"}"#,
                Some("sha256"),
                "sha256 is \"12\", but must be 64 hexadecimal digits, as `model_sha256` in receipts",
            ),
            (
                r#"{"path": "/m", "name": 1}"#,
                Some("name"),
                "unknown field `name`; did you mean `id`? (the fields are: id, path, sha256)",
            ),
        ] {
            let (_, error) = parse_model_load(text.as_bytes()).unwrap_err();
            assert_eq!((error.field.as_deref(), error.message.as_str()), (field, message));
        }
        let (id, error) = parse_model_load(br#"{"id": "a/b", "path": "/m"}"#).unwrap_err();
        assert_eq!((id.as_deref(), error.field.as_deref()), (Some("a/b"), Some("id")));
    }

    #[test]
    fn a_request_to_unload_names_a_model_or_its_directory() {
        let target = |text: &str| parse_model_unload(text.as_bytes()).map(|request| request.target);
        assert_eq!(target(r#"{"model": "sd"}"#), Ok(ModelTarget::Name("sd".to_owned())));
        assert_eq!(target(r#"{"path": "/m/sd"}"#), Ok(ModelTarget::Path(PathBuf::from("/m/sd"))));
        for (text, message) in [
            ("{}", "the field `model` is missing; it names the model to unload, as `path` does"),
            (
                r#"{"model": "a", "path": "/a"}"#,
                "`model` and `path` both name the model to unload; remove one of them",
            ),
        ] {
            assert_eq!(target(text).unwrap_err().1.message, message);
        }
    }
}
