//! `denoised init --live`: gives a pipeline's graphs the inputs for ControlNets and LoRAs.

use std::io::Write as _;
use std::path::Path;

use anyhow::anyhow;

use crate::cli::CommandError;
use crate::cli::stdout::Stdout;
use crate::onnx::{LiveGraphError, LoraLayers, PLAIN, make_live, make_plain};

/// The layers that get inputs for LoRAs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Lora {
    /// None
    None,
    /// The linear layers of the transformer blocks and of the text encoders: what most files change
    Transformer,
    /// The convolutions and the layers for the time step as well: for LoCon and LCM-LoRA
    All,
}

/// The network, and the text encoders. Only the network takes residuals.
const GRAPHS: [(&str, bool); 3] =
    [("unet/model.onnx", true), ("text_encoder/model.onnx", false), ("text_encoder_2/model.onnx", false)];

pub(super) fn run(folder: &Path, lora: Lora) -> Result<(), CommandError> {
    let is_there = |graph: &Path| graph.is_file() || graph.with_file_name(PLAIN).is_file();
    let [network, text_encoders @ ..] = GRAPHS.map(|(name, _)| (name, is_there(&folder.join(name))));
    let missing = match (network, text_encoders.iter().any(|(_, is_there)| *is_there)) {
        ((name, false), _) => Some(name),
        (_, false) => Some(text_encoders[0].0),
        _ => None,
    };
    if let Some(name) = missing {
        return Err(CommandError::usage(anyhow!(
            "{} has no {name}; live inputs are for the folder of a Stable Diffusion 1, 2 or XL pipeline",
            folder.display()
        )));
    }
    let layers = match lora {
        Lora::None => LoraLayers::None,
        Lora::Transformer => LoraLayers::Transformer,
        Lora::All => LoraLayers::All,
    };
    let mut changed = 0;
    for (name, is_network) in GRAPHS {
        let graph = folder.join(name);
        if !is_there(&graph) {
            continue;
        }
        // A text encoder takes nothing but LoRAs.
        if !is_network && layers == LoraLayers::None {
            if make_plain(&graph)? {
                writeln!(Stdout, "{name}: the plain export again")?;
            }
            continue;
        }
        match make_live(&graph, is_network, layers) {
            Ok(count) => {
                changed += 1;
                let residuals = match count.residuals {
                    0 => String::new(),
                    n => format!("{n} inputs for a ControlNet's residuals, "),
                };
                writeln!(Stdout, "{name}: {residuals}inputs for LoRAs at {} layers", count.layers)?;
            }
            Err(LiveGraphError::ExportedLive(_)) => {
                writeln!(Stdout, "{name}: unchanged, because it has live inputs from its exporter")?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    if changed > 0 {
        eprintln!("each export is kept as {PLAIN} beside its graph, which uses the weights in it");
    }
    Ok(())
}
