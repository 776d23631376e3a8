//! The job that the flags and the file of `--job` describe.

use anyhow::{Context, anyhow, ensure};
use serde_json::{Map, Value};

use super::SampleArguments;
use super::job_args::to_request;
use super::job_file::{JobFile, fields};
use crate::bundle::Bundle;
use crate::cli::class_argument::class_label;
use crate::image::Format;
use crate::job::{JobError, Request};

/// The fields without a flag.
const WITHOUT_FLAG: [&str; 4] = ["id", "model", "preview_every", "priority"];

/// The fields of a job and where each one was set.
#[derive(Debug)]
pub(super) struct RequestedJob {
    flags: Map<String, Value>,
    file: Option<JobFile>,
    /// The value of `--class`.
    class: Option<String>,
    pub(super) request: Request,
}

impl RequestedJob {
    /// Reads the flags, the file and the pictures. Flags override the file field by field.
    pub(super) fn read(arguments: &SampleArguments) -> anyhow::Result<Self> {
        let mut flags = fields(&Request {
            loras: arguments.loras.requests(),
            controls: arguments.controls.requests()?,
            guess_mode: arguments.controls.guess_mode(),
            ..to_request(&arguments.sampling, &arguments.prompts, &arguments.image)?
        })?;
        let class = arguments.sampling.class.clone();
        if class.is_some() {
            // The label is looked up in the model.
            flags.insert("class".to_owned(), Value::Null);
        }
        let file = arguments.job.as_deref().map(|path| JobFile::read(path, &flags)).transpose()?;
        let mut merged = file.as_ref().map(|file| file.fields.clone()).unwrap_or_default();
        for (field, value) in &flags {
            match (merged.get_mut(field), value) {
                (Some(Value::Object(conditions)), Value::Object(more)) => conditions.extend(more.clone()),
                _ => drop(merged.insert(field.clone(), value.clone())),
            }
        }
        let mut request: Request =
            serde_json::from_value(Value::Object(merged)).context("cannot read the flags as a job")?;
        // JSON names no paths.
        request.loras = arguments.loras.requests().or(request.loras);
        Ok(Self { flags, file, class, request })
    }

    /// Returns where a field was set, as in `--steps` or `job.json: steps`; the flag if it was not set.
    pub(super) fn origin(&self, field: &str) -> String {
        let name = name(field);
        match &self.file {
            Some(file) if self.is_from_file(field) => format!("{}: {field}", file.name),
            _ if WITHOUT_FLAG.contains(&name) => field.to_owned(),
            _ => match name {
                "loras" => "--lora".to_owned(),
                "controls" => "--control".to_owned(),
                name => format!("--{}", name.replace('_', "-")),
            },
        }
    }

    fn is_from_file(&self, field: &str) -> bool {
        let name = name(field);
        !self.flags.contains_key(name)
            && self.file.as_ref().is_some_and(|file| file.fields.contains_key(name))
    }

    /// Returns whether a flag or the file sets this field.
    pub(super) fn is_set(&self, field: &str) -> bool {
        self.flags.contains_key(field)
            || self.file.as_ref().is_some_and(|file| file.fields.contains_key(field))
    }

    /// Adds where the field of an error was set.
    pub(super) fn explain(&self, error: &JobError) -> anyhow::Error {
        let Some(field) = &error.field else { return anyhow!(error.message.clone()) };
        let message = error.message.strip_prefix(&format!("{field}: ")).unwrap_or(&error.message);
        match &self.file {
            // Most messages begin with the field.
            Some(file) if self.is_from_file(field) && message.starts_with(field.as_str()) => {
                anyhow!("{}: {message}", file.name)
            }
            _ => match (field.as_str(), self.is_set(field)) {
                ("width" | "height", false) => anyhow!("the model's default size: {message}"),
                ("format", false) => anyhow!("the ending of --output: {message}"),
                ("noise", true) if self.request.noise.as_ref().is_some_and(|name| name.ends_with(".npy")) => {
                    anyhow!(
                        "{}: {message}; a file is given by --init-noise or --step-noise",
                        self.origin(field)
                    )
                }
                _ => anyhow!("{}: {message}", self.origin(field)),
            },
        }
    }

    /// Sets the count that the noise of a file has, if there is none yet. Whether its shape fits, the model decides.
    pub(super) fn set_count(&mut self, flag: &str, images: usize) -> anyhow::Result<()> {
        ensure!(images > 0, "{flag} has noise for no image; write noise for at least one");
        self.request.count.get_or_insert(images as u64);
        Ok(())
    }

    /// Looks up the class of `--class`.
    pub(super) fn resolve_class(&mut self, bundle: &Bundle) -> anyhow::Result<()> {
        if let Some(class) = &self.class {
            self.request.class = Some(class_label(class, bundle)?);
        }
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

/// The name of a field in a path such as `conditions.mood`.
fn name(path: &str) -> &str {
    path.split(['.', '[']).next().unwrap_or(path)
}
