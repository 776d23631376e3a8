//! The LoRAs of a job.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{JobError, ModelCard, Request};
use crate::model::LoraChoice;

/// A LoRA in a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraRequest {
    /// The file's name without `.safetensors`. It lies in the model's folder `loras` or in a directory of
    /// `loras.paths`.
    pub name: String,
    /// What the LoRA is multiplied by, −100 to 100. Default: 1.
    pub weight: Option<f64>,
    /// The file, which `sample` takes from anywhere. A message cannot name it.
    #[serde(skip)]
    pub path: Option<PathBuf>,
}

/// The most LoRAs of a job.
pub(crate) const MAX_LORAS: usize = 16;

/// The most letters of a name.
const MAX_NAME: usize = 200;

/// The ending of the files.
pub(crate) const ENDING: &str = "safetensors";

impl Request {
    /// Finds the files of the LoRAs.
    pub(super) fn check_loras(&self, model: &ModelCard) -> Result<Vec<LoraChoice>, JobError> {
        let loras = self.loras.as_deref().unwrap_or_default();
        if loras.len() > MAX_LORAS {
            let message = format!("loras has {} entries, but a job has at most {MAX_LORAS}", loras.len());
            return Err(JobError::out_of_range("loras", message));
        }
        if !loras.is_empty() && !model.takes_loras {
            return Err(JobError::out_of_range("loras", without_inputs(model)));
        }
        loras.iter().enumerate().map(|(index, lora)| lora.check(index, &model.lora_directories)).collect()
    }
}

/// Why a job on this model has no LoRAs.
fn without_inputs(model: &ModelCard) -> String {
    let name = model.name();
    if model.latent.as_ref().is_none_or(|(kind, _)| !kind.has_unet()) {
        return format!("{name} takes no LoRAs, as only Stable Diffusion 1, 2 and XL do; remove loras");
    }
    let folder = model.bundle.directory().display();
    format!(
        "the graphs of {name} have no inputs for LoRAs; give them some with `denoised init --live {folder}`, or remove \
         loras"
    )
}

impl LoraRequest {
    fn check(&self, index: usize, directories: &[PathBuf]) -> Result<LoraChoice, JobError> {
        let weight = self.weight.unwrap_or(1.0);
        if !(-100.0..=100.0).contains(&weight) {
            let field = format!("loras[{index}].weight");
            let message = format!("{field} is {weight}, but must lie between -100 and 100");
            return Err(JobError::out_of_range(&field, message));
        }
        if let Some(path) = &self.path {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            return Ok(LoraChoice { name, path: path.clone(), weight });
        }
        let name = self.name.strip_suffix(&format!(".{ENDING}")).unwrap_or(&self.name);
        let is_plain = !name.is_empty()
            && name.chars().count() <= MAX_NAME
            && !name.starts_with('.')
            && !name.contains(|c: char| c == '/' || c == '\\' || c.is_control());
        let found = directories.iter().map(|directory| file(directory, name)).find(|path| path.is_file());
        match found.filter(|_| is_plain) {
            Some(path) => Ok(LoraChoice { name: name.to_owned(), path, weight }),
            None => {
                let field = format!("loras[{index}].name");
                let message = format!("{field} is {:?}, but {}", self.name, known(directories));
                Err(JobError::out_of_range(&field, message))
            }
        }
    }
}

fn file(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.{ENDING}"))
}

/// The names that a job can choose, as a sentence.
fn known(directories: &[PathBuf]) -> String {
    let entries =
        directories.iter().flat_map(std::fs::read_dir).flatten().flatten().map(|entry| entry.path());
    let is_lora = |path: &PathBuf| path.extension().is_some_and(|extension| extension == ENDING);
    let name = |path: PathBuf| Some(path.file_stem()?.to_string_lossy().into_owned());
    let mut names: Vec<_> = entries.filter(is_lora).filter_map(name).collect();
    names.sort();
    names.dedup();
    let places: Vec<_> = directories.iter().map(|directory| directory.display().to_string()).collect();
    match names.as_slice() {
        [] => format!("there is no LoRA; put .{ENDING} files into {}", places.join(" or ")),
        [first @ .., last] if first.len() < 20 => {
            let first = first.iter().map(|name| format!("{name}, ")).collect::<String>();
            format!("the LoRAs are: {first}{last}")
        }
        names => format!("it is none of the {} LoRAs in {}", names.len(), places.join(" and ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, weight: Option<f64>, directory: &Path) -> Result<LoraChoice, String> {
        let lora = LoraRequest { name: name.to_owned(), weight, path: None };
        lora.check(1, &[directory.to_owned()]).map_err(|error| error.message)
    }

    #[test]
    fn a_lora_is_found_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("style.safetensors"), "").unwrap();
        std::fs::write(folder.path().join("notes.txt"), "").unwrap();
        for name in ["style", "style.safetensors"] {
            let found = check(name, None, folder.path()).unwrap();
            assert_eq!((found.name.as_str(), found.weight), ("style", 1.0));
        }
        for name in ["../style", "", ".", "notes", "styl\n"] {
            let error = check(name, None, folder.path()).unwrap_err();
            assert_eq!(error, format!("loras[1].name is {name:?}, but the LoRAs are: style"));
        }
    }

    #[test]
    fn a_weight_out_of_range_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for weight in [f64::NAN, 101.0] {
            let error = check("style", Some(weight), folder.path()).unwrap_err();
            assert!(error.starts_with("loras[1].weight is "), "{error}");
        }
        let error = check("style", None, folder.path()).unwrap_err();
        assert!(error.contains("put .safetensors files into"), "{error}");
    }
}
