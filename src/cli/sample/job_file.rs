//! The file of `--job`: a job as a request has it, with pictures as base64 or as `{"file": "…"}`.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use serde_json::{Map, Value};

use crate::cli::picture_file;
use crate::job::{Attachment, Request, parse};

/// The fields of a request that hold a picture.
const PICTURES: [&str; 2] = ["image", "mask"];

/// What a request of the daemon may have in place of a picture, and a file of `--job`.
const TOPIC_FORM: &str = "{\"topic\": \"…\"}, the topic of a retained message with such a file";
const FILE_FORM: &str = "{\"file\": \"…\"}, the path of such a file";

/// Some editors begin a file with it.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

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
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let mut has_files = false;
    // For text that is not an object, the parser of requests says what is wrong.
    let mut job = serde_json::from_slice::<Map<String, Value>>(text).unwrap_or_default();
    for field in PICTURES {
        let Some(picture) = job.get_mut(field).filter(|picture| picture.get("file").is_some()) else {
            continue;
        };
        has_files = true;
        if flags.contains_key(field) {
            job.remove(field);
        } else {
            let bytes = read_picture(picture, directory).context(field)?;
            *picture = serde_json::to_value(Attachment::from_bytes(&bytes))?;
        }
    }
    let request = match parse(text) {
        // With the pictures in it, the job lacks the file's repeated keys, lines and columns.
        Err((_, error))
            if has_files && error.field.as_deref().is_some_and(|field| PICTURES.contains(&field)) =>
        {
            parse(&serde_json::to_vec(&job)?)
                .map_err(|(_, error)| error.message.split(" at line ").next().unwrap_or_default().to_owned())
        }
        parsed => parsed.map_err(|(_, error)| error.message),
    };
    let request = request.map_err(|message| anyhow!(message.replace(TOPIC_FORM, FILE_FORM)))?;
    let fields = fields(&request)?;
    let is_topic =
        |field: &str| fields.get(field).is_some_and(Value::is_object) && !flags.contains_key(field);
    if let Some(field) = PICTURES.into_iter().find(|field| is_topic(field)) {
        bail!(
            "{field}: only the daemon fetches a topic; use {{\"file\": \"…\"}} with the path of the picture"
        );
    }
    Ok(fields)
}

/// Reads the picture of `{"file": "…"}`.
fn read_picture(value: &Value, directory: &Path) -> anyhow::Result<Vec<u8>> {
    let file =
        value.as_object().filter(|object| object.len() == 1).and_then(|object| object["file"].as_str());
    let path: PathBuf = file
        .map(|file| directory.join(file))
        .ok_or_else(|| anyhow!("expected a picture in base64 or {{\"file\": \"…\"}}, the path of one"))?;
    picture_file::read(&path)
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
            (r#"{"seed": 1, "seed": 2, "image": {"file": "job_file.rs"}}"#, "seed"),
            (
                r#"{"image": {"file": 3}}"#,
                "image: expected a picture in base64 or {\"file\": \"…\"}, the path of one",
            ),
            (r#"{"mask": {"topic": "a/b"}}"#, "mask: only the daemon fetches a topic; use {\"file\": \"…\"}"),
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
