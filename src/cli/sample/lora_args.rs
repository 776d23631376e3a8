//! The flags of `sample` for LoRAs.

use std::path::{Path, PathBuf};

use crate::cli::flag_values::number;
use crate::job::LoraRequest;

/// Flags for LoRAs.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "LoRA")]
pub(super) struct LoraArguments {
    /// A LoRA and its weight: a .safetensors file, or a name from the model's folder loras; once for each LoRA
    /// [default weight: 1]
    #[arg(long, value_name = "FILE[=WEIGHT]", value_parser = lora)]
    lora: Vec<LoraArgument>,
}

/// A LoRA with the directory of its file, if it is given by a path.
#[derive(Debug, Clone, PartialEq)]
struct LoraArgument {
    name: String,
    directory: Option<PathBuf>,
    weight: Option<f64>,
}

fn lora(text: &str) -> Result<LoraArgument, String> {
    let (file, weight) = match text.rsplit_once('=') {
        Some((file, weight)) => (file, Some(number(weight).map_err(|error| format!("{error} after ="))?)),
        None => (text, None),
    };
    let path = Path::new(file);
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.ok_or_else(|| "expected a file, such as style.safetensors=0.8".to_owned())?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = parent.or_else(|| path.is_file().then_some(Path::new("."))).map(Path::to_owned);
    Ok(LoraArgument { name, directory, weight })
}

impl LoraArguments {
    /// The directories of the files that are given by a path.
    pub(super) fn directories(&self) -> impl Iterator<Item = PathBuf> {
        self.lora.iter().filter_map(|lora| lora.directory.clone())
    }

    /// The LoRAs of the job, if there are any.
    pub(super) fn requests(&self) -> Option<Vec<LoraRequest>> {
        let request = |lora: &LoraArgument| LoraRequest { name: lora.name.clone(), weight: lora.weight };
        (!self.lora.is_empty()).then(|| self.lora.iter().map(request).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lora_is_a_name_or_a_path_with_a_weight() {
        let argument = |name: &str, directory: Option<&str>, weight| LoraArgument {
            name: name.to_owned(),
            directory: directory.map(PathBuf::from),
            weight,
        };
        assert_eq!(lora("style"), Ok(argument("style", None, None)));
        assert_eq!(lora("style=-0.5"), Ok(argument("style", None, Some(-0.5))));
        assert_eq!(lora("a/b.safetensors=2"), Ok(argument("b.safetensors", Some("a"), Some(2.0))));
        assert_eq!(lora("style=x").unwrap_err(), "expected a number after =");
        assert!(lora("=1").is_err());
    }
}
