//! What is prepared of each graph for the provider that runs the network.

use super::{ONNX_RUNTIME, row, section};
use crate::inference::{EngineOptions, Preparation, describe_preparation};
use crate::model::Model;
use crate::units::counted;

/// Lists the graphs with the size of their entries in the engine cache. Nothing for the embedded engine, which prepares
/// none.
pub(super) fn list(model: &Model, options: &EngineOptions) -> std::io::Result<()> {
    let backend = model.predictor.backend();
    let provider = options.providers.iter().find(|provider| provider.to_string() == backend.provider);
    let Some(provider) = provider.filter(|_| backend.engine == ONNX_RUNTIME) else {
        return Ok(());
    };
    section("Preparation")?;
    for (name, files) in model.bundle.graphs() {
        match describe_preparation(files, *provider, &backend.version, options.rewrite) {
            Ok(preparation) => row(&name, describe(&preparation))?,
            Err(reason) => row(&name, format_args!("opened as it is, because {reason}"))?,
        }
    }
    Ok(())
}

fn describe(preparation: &Preparation) -> String {
    let Preparation { entry_len, fused_attention, other_attention } = *preparation;
    let weights = match entry_len {
        0 => "with the weights of the export".to_owned(),
        len => format!("{:.1} MiB in the engine cache", len as f64 / f64::from(1 << 20)),
    };
    let blocks = counted(fused_attention as u64, "attention block");
    format!("prepared, {weights}; {blocks} rewritten, {other_attention} left")
}
