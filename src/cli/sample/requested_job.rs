//! The job that the flags and the file of `--job` describe.

use anyhow::{Context, anyhow};
use serde_json::{Map, Value};

use super::SampleArguments;
use super::job_args::to_request;
use super::job_file::{JobFile, fields};
use crate::bundle::Manifest;
use crate::image::Format;
use crate::job::{JobError, Request};

/// The fields without a flag.
const WITHOUT_FLAG: [&str; 4] = ["id", "model", "preview_every", "priority"];

/// The fields of a job and where each one was set.
#[derive(Debug)]
pub(super) struct RequestedJob {
    flags: Map<String, Value>,
    file: Option<JobFile>,
    /// The value of `--class` if it is a name.
    class_name: Option<String>,
    pub(super) request: Request,
}

impl RequestedJob {
    /// Reads the flags, the file and the pictures. Flags override the file field by field.
    pub(super) fn read(arguments: &SampleArguments) -> anyhow::Result<Self> {
        let mut flags = fields(&to_request(&arguments.sampling, &arguments.prompts, &arguments.image)?)?;
        let class_name = arguments.sampling.class_name().map(str::to_owned);
        let file = arguments.job.as_deref().map(|path| JobFile::read(path, &flags)).transpose()?;
        let mut merged = file.as_ref().map(|file| file.fields.clone()).unwrap_or_default();
        for (field, value) in &flags {
            match (merged.get_mut(field), value) {
                (Some(Value::Object(conditions)), Value::Object(more)) => conditions.extend(more.clone()),
                _ => drop(merged.insert(field.clone(), value.clone())),
            }
        }
        if class_name.is_some() {
            flags.insert("class".to_owned(), Value::Null);
            merged.remove("class");
        }
        let request =
            serde_json::from_value(Value::Object(merged)).context("cannot read the flags as a job")?;
        Ok(Self { flags, file, class_name, request })
    }

    /// Returns where a field was set, as in `--steps` or `job.json: steps`; the flag if it was not set.
    pub(super) fn origin(&self, field: &str) -> String {
        let name = field.split(['.', '[']).next().unwrap_or(field);
        match &self.file {
            Some(file) if file.fields.contains_key(name) && !self.flags.contains_key(name) => {
                format!("{}: {field}", file.name)
            }
            _ if WITHOUT_FLAG.contains(&name) => field.to_owned(),
            _ if name == "conditions" => "--condition".to_owned(),
            _ => format!("--{}", name.replace('_', "-")),
        }
    }

    /// Returns whether a flag or the file sets this field.
    pub(super) fn is_set(&self, field: &str) -> bool {
        self.flags.contains_key(field)
            || self.file.as_ref().is_some_and(|file| file.fields.contains_key(field))
    }

    /// Adds where the field of an error was set.
    pub(super) fn explain(&self, error: &JobError) -> anyhow::Error {
        match &error.field {
            Some(field) => anyhow!("{}: {}", self.origin(field), error.message),
            None => anyhow!(error.message.clone()),
        }
    }

    /// Sets the count that the noise of a file has. A different one is an error.
    pub(super) fn set_count(&mut self, flag: &str, images: usize) -> anyhow::Result<()> {
        match self.request.count {
            _ if images == 0 => Err(anyhow!("{flag} has noise for no image; write noise for at least one")),
            Some(count) if count != images as u64 => {
                let origin = self.origin("count");
                Err(anyhow!(
                    "{flag} has noise for {images} images, but {origin} is {count}; use the same number, or leave out \
                     count"
                ))
            }
            _ => {
                self.request.count = Some(images as u64);
                Ok(())
            }
        }
    }

    /// Looks up a class that is given by its name.
    pub(super) fn resolve_class(&mut self, model: &str, manifest: &Manifest) -> anyhow::Result<()> {
        let Some(name) = &self.class_name else { return Ok(()) };
        let names = &manifest.classes.names;
        let label = names.iter().position(|known| known == name).ok_or_else(|| match names.as_slice() {
            [] => anyhow!(
                "--class: {model} has no names of classes; use the number of a class instead of {name:?}"
            ),
            names => anyhow!("--class: {model} has no class {name:?}; its classes are: {}", names.join(", ")),
        })?;
        self.request.class = Some(label as i64);
        Ok(())
    }

    /// Replaces the fields that arguments of the command decide, and returns a line about each one that is ignored.
    ///
    /// `format` is that of the output's ending.
    pub(super) fn apply_command(
        &mut self,
        model: &str,
        format: Option<Format>,
    ) -> anyhow::Result<Vec<String>> {
        let mut ignored = Vec::new();
        if let Some(other) = self.request.model.take().filter(|other| other != model) {
            ignored.push(format!("{} is {other}, but the job runs on {model}", self.origin("model")));
        }
        if let Some(format) = format {
            let contradicting = self.request.format.replace(format).filter(|other| *other != format);
            if let Some(other) = contradicting {
                let origin = self.origin("format");
                let (other, format) = (other.name(), format.name());
                if self.flags.contains_key("format") {
                    return Err(anyhow!("{origin} is {other}, but the ending of --output selects {format}"));
                }
                ignored.push(format!("{origin} is {other}, but the ending of --output selects {format}"));
            }
        }
        for (field, is_set, reason) in [
            ("preview_every", self.request.preview_every.is_some(), "nothing receives previews"),
            ("priority", self.request.priority.is_some(), "there is no other job"),
        ] {
            if is_set {
                ignored.push(format!("{} has no effect in `sample`: {reason}", self.origin(field)));
            }
        }
        self.request.preview_every = None;
        Ok(ignored)
    }
}
