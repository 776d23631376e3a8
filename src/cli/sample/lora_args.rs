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

/// A LoRA by its name, or by the path of its file.
#[derive(Debug, Clone, PartialEq)]
struct LoraArgument {
    name: String,
    path: Option<PathBuf>,
    weight: Option<f64>,
}

fn lora(text: &str) -> Result<LoraArgument, String> {
    let (file, weight) = match text.rsplit_once('=') {
        Some((file, weight)) => (file, Some(number(weight).map_err(|error| format!("{error} after ="))?)),
        None => (text, None),
    };
    if file.is_empty() {
        return Err("expected a file, such as style.safetensors=0.8".to_owned());
    }
    let path = Path::new(file);
    let is_path = path.components().count() > 1 || path.is_file();
    if is_path && !path.is_file() {
        return Err(format!("there is no file {file}"));
    }
    Ok(LoraArgument { name: file.to_owned(), path: is_path.then(|| path.to_owned()), weight })
}

impl LoraArguments {
    /// The LoRAs of the job, if there are any.
    pub(super) fn requests(&self) -> Option<Vec<LoraRequest>> {
        let request = |LoraArgument { name, path, weight }: &LoraArgument| LoraRequest {
            name: name.clone(),
            weight: *weight,
            path: path.clone(),
        };
        (!self.lora.is_empty()).then(|| self.lora.iter().map(request).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lora_is_a_name_or_a_path_with_a_weight() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.safetensors");
        std::fs::write(&path, "").unwrap();
        let argument = |name: &str, path: Option<&Path>, weight| LoraArgument {
            name: name.to_owned(),
            path: path.map(Path::to_owned),
            weight,
        };
        assert_eq!(lora("style"), Ok(argument("style", None, None)));
        assert_eq!(lora("style=-0.5"), Ok(argument("style", None, Some(-0.5))));
        let text = path.display().to_string();
        assert_eq!(lora(&format!("{text}=2")), Ok(argument(&text, Some(&path), Some(2.0))));
        assert_eq!(lora("style=x").unwrap_err(), "expected a number after =");
        assert_eq!(lora("nodir/style.safetensors").unwrap_err(), "there is no file nodir/style.safetensors");
        assert!(lora("=1").is_err());
    }
}
