//! The evaluating thread: handles commands and steps the pipelines.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use super::WorkerCommand;
use super::events::{EventSender, ModelEvent};
use super::load::{LoadFault, ModelLoad, build_replacement, load_beside, load_pipelines};
use super::loaded_model::LoadedModel;
use crate::inference::{EngineOptions, OnStage, SessionPool};
use crate::job::ModelCard;
use crate::model::Model;
use crate::pipeline::{Pipeline, Wake};
use crate::platform::ThermalThrottle;

const THERMAL_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a thermally paused worker sleeps between checks for commands.
const PAUSED_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The thread's state once the models are loaded.
pub(super) struct Evaluator {
    models: Vec<LoadedModel>,
    sessions: SessionPool,
    wake: Wake,
    /// The options of the models that are being loaded, by the numbers of their loads.
    loads: Vec<(u64, EngineOptions)>,
    commands: mpsc::Receiver<WorkerCommand>,
    own_commands: mpsc::WeakSender<WorkerCommand>,
    events: EventSender,
    throttle: ThermalThrottle,
    last_thermal_check: Option<Instant>,
}

impl Evaluator {
    /// Loads the models, then runs jobs until the command queue or the event queue is closed.
    pub(super) fn run(
        models: &[(PathBuf, EngineOptions)],
        commands: mpsc::Receiver<WorkerCommand>,
        own_commands: &mpsc::WeakSender<WorkerCommand>,
        mut events: EventSender,
        throttle: ThermalThrottle,
    ) {
        let wake_sender = own_commands.clone();
        let wake: Wake = Arc::new(move || {
            // A full command queue wakes the worker as well.
            let _ = wake_sender.upgrade().map(|commands| commands.try_send(WorkerCommand::Wake));
        });
        let stage_events = events.clone();
        let on_stage: OnStage =
            Arc::new(move |stage| stage_events.clone().send_model_event(ModelEvent::Loading(stage)));
        let sessions = SessionPool::with_budget(models.first().and_then(|(_, engine)| engine.memory));
        let pipelines = match load_pipelines(models, &sessions, &wake, &on_stage) {
            Ok(pipelines) => pipelines,
            Err(reason) => return events.send_model_event(ModelEvent::Failed(reason)),
        };
        let cards = pipelines.iter().map(|pipeline| Arc::clone(pipeline.card())).collect();
        events.send_model_event(ModelEvent::Ready(cards));
        for ((_, engine), pipeline) in models.iter().zip(&pipelines) {
            build_replacement(pipeline.model(), engine, own_commands.clone());
        }
        let mut evaluator = Self {
            models: pipelines.into_iter().map(LoadedModel::new).collect(),
            sessions,
            wake,
            loads: Vec::new(),
            commands,
            own_commands: own_commands.clone(),
            events,
            throttle,
            last_thermal_check: None,
        };
        while evaluator.events.is_connected() && evaluator.handle_commands() {
            evaluator.events.heartbeat().beat();
            evaluator.check_temperature();
            evaluator.step();
        }
    }

    /// Handles all queued commands, and waits for one if there is no other work. Returns `false` if the queue
    /// is closed. A model is replaced as soon as none of its jobs is running, and a retired one leaves after its last job.
    fn handle_commands(&mut self) -> bool {
        loop {
            self.update_models();
            let command = match self.commands.try_recv() {
                Ok(command) => command,
                Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) if self.pipelines().any(Pipeline::has_work) => return true,
                Err(TryRecvError::Empty) if self.pipelines().any(Pipeline::has_blocked_jobs) => {
                    // The jobs wait for the board to cool down.
                    self.events.heartbeat().while_idle(|| std::thread::sleep(PAUSED_POLL_INTERVAL));
                    return true;
                }
                Err(TryRecvError::Empty) if self.warm_up_further() => continue,
                Err(TryRecvError::Empty) => match self.wait_for_command() {
                    Some(command) => command,
                    None => return false,
                },
            };
            self.handle_command(command);
        }
    }

    /// Does one warm-up evaluation if there are no jobs. Returns `false` if it did none.
    fn warm_up_further(&mut self) -> bool {
        let is_idle = self.pipelines().all(Pipeline::is_idle);
        let has_warmed_up = is_idle && self.models.iter_mut().any(|model| model.pipeline.warm_up_further());
        self.events.heartbeat().beat();
        has_warmed_up
    }

    /// Waits for a command. With jobs in the pipelines it waits for the codec thread, which the watchdog must
    /// see as work: a codec that takes too long is as serious as an evaluation that does.
    fn wait_for_command(&mut self) -> Option<WorkerCommand> {
        let is_idle = self.pipelines().all(Pipeline::is_idle);
        let (heartbeat, commands) = (self.events.heartbeat(), &mut self.commands);
        if is_idle { heartbeat.while_idle(|| commands.blocking_recv()) } else { commands.blocking_recv() }
    }

    fn handle_command(&mut self, command: WorkerCommand) {
        match command {
            WorkerCommand::Wake => {}
            WorkerCommand::Run(job) => {
                if let Some(model) = self.model_mut(&job.model) {
                    model.pipeline.accept(job);
                }
            }
            WorkerCommand::Load(load) => self.load(*load),
            WorkerCommand::LoadStage { number, stage } => {
                self.events.send_model_event(ModelEvent::LoadStage { number, stage });
            }
            WorkerCommand::AddModel { number, outcome } => self.add_model(number, outcome),
            WorkerCommand::Retire(card) => {
                if let Some(model) = self.model_mut(&card) {
                    model.retire();
                }
            }
            WorkerCommand::Close(card) => {
                if let Some(model) = self.model_mut(&card) {
                    model.close_if_idle();
                }
            }
            WorkerCommand::ReplaceModel(replacement) => {
                let mut models = self.models.iter_mut();
                let is_replaced =
                    |model: &&mut LoadedModel| model.pipeline.model().bundle.is_copy_of(&replacement.bundle);
                if let Some(model) = models.find(is_replaced) {
                    model.pipeline.set_replacement(*replacement);
                }
            }
            WorkerCommand::Abort(reason) => self.events.send_model_event(ModelEvent::Failed(reason)),
            WorkerCommand::Cancel(id) => {
                let events = &mut self.events;
                // A job that has just finished is in no pipeline.
                let _ = self.models.iter_mut().any(|model| {
                    model.pipeline.cancel(&id, &mut |job, event| events.send_job_event(job, event))
                });
            }
        }
    }

    /// Starts to load a model while the others serve.
    fn load(&mut self, load: ModelLoad) {
        let (number, options, own_commands) = (load.number, load.options.clone(), self.own_commands.clone());
        let on_stage: OnStage = Arc::new(move |stage| {
            // A full command queue drops the stage, which only the state shows.
            let stage = WorkerCommand::LoadStage { number, stage };
            let _ = own_commands.upgrade().map(|commands| commands.try_send(stage));
        });
        match load_beside(load, self.sessions.clone(), on_stage, self.own_commands.clone()) {
            Ok(()) => self.loads.push((number, options)),
            Err(fault) => {
                self.events.send_model_event(ModelEvent::Loaded { number, outcome: Err(fault) });
            }
        }
    }

    /// Adds a model that was loaded while the others served.
    fn add_model(&mut self, number: u64, outcome: Result<Box<Model>, LoadFault>) {
        let options = self.loads.extract_if(.., |(known, _)| *known == number).next();
        let outcome = outcome.map(|model| {
            let pipeline = Pipeline::from_warm_model(*model, Arc::clone(&self.wake));
            if let Some((_, options)) = &options {
                build_replacement(pipeline.model(), options, self.own_commands.clone());
            }
            let card = Arc::clone(pipeline.card());
            self.models.push(LoadedModel::new(pipeline));
            card
        });
        self.events.send_model_event(ModelEvent::Loaded { number, outcome });
    }

    fn pipelines(&self) -> impl Iterator<Item = &Pipeline> {
        self.models.iter().map(|model| &model.pipeline)
    }

    fn model_mut(&mut self, card: &ModelCard) -> Option<&mut LoadedModel> {
        self.models.iter_mut().find(|model| model.is(card))
    }

    /// Installs replacements, drops retired models without jobs, and reports which models are in memory.
    fn update_models(&mut self) {
        for model in self.models.extract_if(.., |model| model.has_left()) {
            let card = Arc::clone(model.pipeline.card());
            // Its memory is free before that is reported.
            drop(model);
            log::info!("model {} has left memory", card.bundle.name);
            self.events.send_model_event(ModelEvent::Unloaded(card));
        }
        for model in &mut self.models {
            model.swap_if_idle(&mut self.events);
            model.report_open(&mut self.events);
        }
    }

    fn check_temperature(&mut self) {
        if self.last_thermal_check.is_none_or(|last| last.elapsed() >= THERMAL_CHECK_INTERVAL) {
            self.last_thermal_check = Some(Instant::now());
            let should_pause = self.throttle.should_pause();
            self.models.iter_mut().for_each(|model| model.pipeline.set_paused(should_pause));
        }
    }

    /// Steps each pipeline that has work.
    fn step(&mut self) {
        self.models.iter_mut().for_each(|model| model.step(&mut self.events));
    }
}
