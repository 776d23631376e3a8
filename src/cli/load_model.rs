//! Loads a model and shows on stderr that it takes a while.

use std::path::Path;
use std::time::Duration;

use indicatif::ProgressBar;

use crate::inference::{EngineOptions, LoadStage, SessionPool};
use crate::model::{Model, ModelError};

/// Loads a model. A terminal shows what happens meanwhile; elsewhere only the building of an engine is reported.
pub(super) fn load_model(directory: &Path, options: &EngineOptions) -> Result<Model, ModelError> {
    let name = directory.display();
    // Hidden where stderr is not a terminal.
    let spinner = ProgressBar::new_spinner();
    spinner.enable_steady_tick(Duration::from_millis(200));
    let model =
        Model::load_into(&SessionPool::with_budget(options.memory), directory, options, &mut |stage| {
            match stage {
                LoadStage::Warming => spinner.set_message(format!("loading {name}")),
                LoadStage::BuildingEngine => {
                    let message = format!("building the engine of {name}, which may take minutes");
                    if spinner.is_hidden() {
                        eprintln!("{message}");
                    }
                    spinner.set_message(message);
                }
            }
        });
    spinner.finish_and_clear();
    model
}
