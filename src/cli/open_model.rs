//! Opens a model and shows on stderr that its network takes a while to open.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use indicatif::ProgressBar;

use crate::inference::{EngineOptions, LoadStage, SessionPool};
use crate::model::{Model, ModelError};

/// Shows on a terminal that a model is being opened. Dropping it clears the line.
pub(super) struct LoadDisplay(ProgressBar);

impl Drop for LoadDisplay {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Opens a model, whose first evaluation opens its network. A terminal shows what happens meanwhile; elsewhere only the
/// building of an engine is reported.
pub(super) fn open_model(
    directory: &Path,
    options: &EngineOptions,
) -> Result<(Model, LoadDisplay), ModelError> {
    let name = directory.display().to_string();
    // Hidden where stderr is not a terminal.
    let display = LoadDisplay(ProgressBar::new_spinner());
    display.0.enable_steady_tick(Duration::from_millis(200));
    let spinner = display.0.clone();
    let on_stage = Arc::new(move |stage| match stage {
        LoadStage::Warming => spinner.set_message(format!("loading {name}")),
        LoadStage::Preparing => spinner.set_message(format!("preparing the graph of {name}, once")),
        LoadStage::BuildingEngine => {
            let message = format!("building the engine of {name}, which may take minutes");
            if spinner.is_hidden() {
                eprintln!("{message}");
            }
            spinner.set_message(message);
        }
    });
    let model = Model::open(&SessionPool::with_budget(options.memory), directory, options, on_stage)?;
    Ok((model, display))
}
