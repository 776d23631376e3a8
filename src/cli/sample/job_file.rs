//! The file of `--job`: a job as a request has it, with pictures as base64 or as `{"file": "…"}`.

use std::path::Path;

use anyhow::{Context, anyhow, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value};

use crate::cli::picture_file;
use crate::cli::run_job::LIMITS;
use crate::job::{Request, read_request};
use crate::json_input::{Document, Json};

/// The fields of a request that hold a picture.
const PICTURES: [&str; 2] = ["image", "mask"];

/// What a request of the daemon may have in place of a picture, and a file of `--job`.
const TOPIC_FORM: &str = "{\"topic\": \"…\"}, the topic of a retained message with such a file";
const FILE_FORM: &str = "{\"file\": \"…\"}, the path of such a file";

/// A job that was read from a file.
#[derive(Debug, Clone)]
pub(super) struct JobFile {
    /// The file's name, for errors.
    pub(super) name: String,
    /// The fields that it sets.
    pub(super) fields: Map<String, Value>,
}

impl JobFile {
    /// Reads a file, or standard input for `-`. Pictures that `flags` replace are not read.
    pub(super) fn read(path: &Path, flags: &Map<String, Value>) -> anyhow::Result<Self> {
        let is_stdin = path == Path::new("-");
        let name = if is_stdin { "standard input".to_owned() } else { path.display().to_string() };
        let text = match is_stdin {
            true => picture_file::read_from(std::io::stdin(), &name),
            false => picture_file::read(path),
        };
        let text = text.context("--job")?;
        let directory = if is_stdin { Path::new("") } else { path.parent().unwrap_or(Path::new("")) };
        let fields = parse_fields(&text, directory, flags).map_err(|fault| anyhow!("{name}: {fault:#}"))?;
        Ok(Self { name, fields })
    }
}

/// Parses a job whose pictures may be in files relative to a directory.
fn parse_fields(
    text: &[u8],
    directory: &Path,
    flags: &Map<String, Value>,
) -> anyhow::Result<Map<String, Value>> {
    let mut document =
        Document::parse(text).map_err(|message| anyhow!("the job is not valid JSON: {message}"))?;
    for field in PICTURES {
        let Some(picture) = document.field_mut(field) else { continue };
        let Some(members) = members_with_file(picture) else { continue };
        let replacement = match flags.contains_key(field) {
            true => Json::Null,
            false => Json::String(read_picture(members, directory).context(field)?),
        };
        *picture = replacement;
    }
    if let Some(controls) = document.field_mut("controls").filter(|_| !flags.contains_key("controls")) {
        for (index, picture) in control_pictures(controls).enumerate() {
            let Some(members) = members_with_file(picture) else { continue };
            let field = || format!("controls[{index}].image");
            *picture = Json::String(read_picture(members, directory).with_context(field)?);
        }
    }
    if flags.contains_key("controls")
        && let Some(controls) = document.field_mut("controls")
    {
        *controls = Json::Null;
    }
    let request = read_request(&document, "the job", Some(LIMITS))
        .map_err(|error| anyhow!(error.message.replace(TOPIC_FORM, FILE_FORM)))?;
    if request.stream.is_some() {
        bail!(
            "stream: only the daemon draws from a stream; publish the job to its request topic, or give one picture as image"
        );
    }
    let fields = fields(&request)?;
    let is_topic =
        |field: &str| fields.get(field).is_some_and(Value::is_object) && !flags.contains_key(field);
    let topic_of_control = request.controls.iter().flatten().position(|control| control.image.is_topic());
    let topic_of_control = topic_of_control.map(|index| format!("controls[{index}].image"));
    let topic = PICTURES.into_iter().find(|field| is_topic(field)).map(str::to_owned);
    if let Some(field) = topic.or(topic_of_control) {
        bail!(
            "{field}: only the daemon fetches a topic; use {{\"file\": \"…\"}} with the path of the picture"
        );
    }
    Ok(fields)
}

/// The pictures of the controls of a job.
fn control_pictures(controls: &mut Json) -> impl Iterator<Item = &mut Json> {
    let controls = match controls {
        Json::Array(controls) => controls.as_mut_slice(),
        _ => &mut [],
    };
    controls.iter_mut().filter_map(|control| match control {
        Json::Object(members) => {
            members.iter_mut().find(|(key, _)| key == "image").map(|(_, picture)| picture)
        }
        _ => None,
    })
}

/// The members of a picture that is an object with a `file`.
fn members_with_file(picture: &Json) -> Option<&[(String, Json)]> {
    match picture {
        Json::Object(members) if members.iter().any(|(key, _)| key == "file") => Some(members),
        _ => None,
    }
}

/// Reads the picture of `{"file": "…"}`, and returns it in base64.
fn read_picture(members: &[(String, Json)], directory: &Path) -> anyhow::Result<String> {
    let [(_, Json::String(file))] = members else {
        bail!("expected a picture in base64 or {{\"file\": \"…\"}}, the path of one");
    };
    ensure!(!file.is_empty(), "\"file\" is empty; name a PNG, JPEG, WebP or .npy file");
    picture_file::check_address(Path::new(file))?;
    let path = directory.join(file);
    // The folder of the job may be the working directory, which the error must name.
    let path = if path.exists() { path } else { std::path::absolute(&path)? };
    Ok(BASE64.encode(picture_file::read(&path)?))
}

/// The fields that a request sets.
pub(super) fn fields(request: &Request) -> anyhow::Result<Map<String, Value>> {
    match serde_json::to_value(request)? {
        Value::Object(fields) => Ok(fields.into_iter().filter(|(_, value)| !value.is_null()).collect()),
        _ => Ok(Map::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, directory: &Path, flags: &[&str]) -> Result<Map<String, Value>, String> {
        let flags = flags.iter().map(|field| ((*field).to_owned(), Value::from(1))).collect();
        parse_fields(text.as_bytes(), directory, &flags).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn pictures_are_read_beside_the_job_unless_a_flag_replaces_them() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("fox.png"), "fox").unwrap();
        let job = r#"{"seed": 18446744073709551615, "image": {"file": "fox.png"}, "mask": "Zm94", "strength": 0.1}"#;
        let fields = parsed(job, directory.path(), &[]).unwrap();
        assert_eq!((&fields["image"], &fields["mask"]), (&Value::from("Zm94"), &Value::from("Zm94")));
        assert_eq!((&fields["seed"], &fields["strength"]), (&Value::from(u64::MAX), &Value::from(0.1)));
        assert_eq!(fields.len(), 4);
        let missing = r#"{"image": {"file": "cat.png"}}"#;
        let path = directory.path().join("cat.png");
        assert_eq!(
            parsed(missing, directory.path(), &[]).unwrap_err(),
            format!("image: cannot read {}: No such file or directory (os error 2)", path.display())
        );
        assert!(parsed(missing, directory.path(), &["image"]).unwrap().is_empty());
    }

    #[test]
    fn a_wrong_job_is_an_error_that_names_the_field() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/sample");
        for (text, expected) in [
            (r#"{"steps": "ten"}"#, "steps"),
            ("{\n\"steps\": 5,\n}", "line 3"),
            ("[]", "an object"),
            (
                r#"{"seed": 1, "seed": 2, "image": {"file": "job_file.rs"}}"#,
                "seed occurs twice; remove one of them",
            ),
            (
                r#"{"image": {"file": "job_file.rs"}, "seed": 1, "seed": 2}"#,
                "seed occurs twice; remove one of them",
            ),
            (
                r#"{"image": {"file": "job_file.rs"}, "image": {"file": "job_file.rs"}}"#,
                "image occurs twice; remove one of them",
            ),
            ("{", "the job is not valid JSON: it ends before an object is closed by `}`"),
            (
                r#"{"image": {"file": 3}}"#,
                "image: expected a picture in base64 or {\"file\": \"…\"}, the path of one",
            ),
            (r#"{"mask": {"topic": "a/b"}}"#, "mask: only the daemon fetches a topic; use {\"file\": \"…\"}"),
            (
                r#"{"stream": {"topic": "a/b"}}"#,
                "stream: only the daemon draws from a stream; publish the job",
            ),
            (r#"{"image": 3}"#, "or {\"file\": \"…\"}, the path of such a file"),
            (r#"{"mask": ["a"]}"#, "or {\"file\": \"…\"}, the path of such a file"),
            ("\u{feff}{\"steps\": {}}", "steps"),
            (r#"{"prompt": {"file": "a.txt"}}"#, "prompt"),
        ] {
            let error = parsed(text, &directory, &[]).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
