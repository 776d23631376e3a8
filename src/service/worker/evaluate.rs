//! The evaluating thread: handles commands and steps the pipelines.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use super::WorkerCommand;
use super::events::{EventSender, ModelEvent};
use super::load::{build_replacement, load_pipelines};
use crate::inference::{EngineOptions, OnStage};
use crate::pipeline::{Pipeline, Wake};
use crate::platform::ThermalThrottle;

/// The shortest time between two latency events of a model.
const LATENCY_INTERVAL: Duration = Duration::from_secs(1);
const THERMAL_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a thermally paused worker sleeps between checks for commands.
const PAUSED_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The thread's state once the models are loaded.
pub(super) struct Evaluator {
    pipelines: Vec<Pipeline>,
    /// For each pipeline, the time of its latest latency event.
    latency_sent: Vec<Option<Instant>>,
    commands: mpsc::Receiver<WorkerCommand>,
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
        let pipelines = match load_pipelines(models, &wake, &on_stage) {
            Ok(pipelines) => pipelines,
            Err(reason) => return events.send_model_event(ModelEvent::Failed(reason)),
        };
        let cards = pipelines.iter().map(|pipeline| Arc::clone(pipeline.card())).collect();
        events.send_model_event(ModelEvent::Ready(cards));
        let latency_sent = vec![None; pipelines.len()];
        let mut evaluator =
            Self { pipelines, latency_sent, commands, events, throttle, last_thermal_check: None };
        for ((_, engine), pipeline) in models.iter().zip(&evaluator.pipelines) {
            if engine.interim().is_some() {
                build_replacement(pipeline.model(), engine, own_commands.clone());
            }
        }
        while evaluator.events.is_connected() && evaluator.handle_commands() {
            evaluator.events.heartbeat().beat();
            evaluator.check_temperature();
            evaluator.step();
        }
    }

    /// Handles all queued commands, and waits for one if there is no other work. Returns `false` if the queue
    /// is closed. A model is replaced as soon as none of its jobs is running.
    fn handle_commands(&mut self) -> bool {
        loop {
            self.swap_models();
            let command = match self.commands.try_recv() {
                Ok(command) => command,
                Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) if self.pipelines.iter().any(Pipeline::has_work) => return true,
                Err(TryRecvError::Empty) if self.pipelines.iter().any(Pipeline::has_blocked_jobs) => {
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
        let is_idle = self.pipelines.iter().all(Pipeline::is_idle);
        let has_warmed_up = is_idle && self.pipelines.iter_mut().any(Pipeline::warm_up_further);
        self.events.heartbeat().beat();
        has_warmed_up
    }

    /// Waits for a command. With jobs in the pipelines it waits for the codec thread, which the watchdog must
    /// see as work: a codec that takes too long is as serious as an evaluation that does.
    fn wait_for_command(&mut self) -> Option<WorkerCommand> {
        let (heartbeat, commands) = (self.events.heartbeat(), &mut self.commands);
        if self.pipelines.iter().all(Pipeline::is_idle) {
            heartbeat.while_idle(|| commands.blocking_recv())
        } else {
            commands.blocking_recv()
        }
    }

    fn handle_command(&mut self, command: WorkerCommand) {
        match command {
            WorkerCommand::Wake => {}
            WorkerCommand::Run(job) => {
                if let Some(pipeline) = self.pipeline_mut(&job.model.bundle.name) {
                    pipeline.accept(job);
                }
            }
            WorkerCommand::ReplaceModel(model) => {
                if let Some(pipeline) = self.pipeline_mut(&model.bundle.name) {
                    pipeline.set_replacement(*model);
                }
            }
            WorkerCommand::Abort(reason) => self.events.send_model_event(ModelEvent::Failed(reason)),
            WorkerCommand::Cancel(id) => {
                let events = &mut self.events;
                // A job that has just finished is in no pipeline.
                let _ = self.pipelines.iter_mut().any(|pipeline| {
                    pipeline.cancel(&id, &mut |job, event| events.send_job_event(job, event))
                });
            }
        }
    }

    fn pipeline_mut(&mut self, model: &str) -> Option<&mut Pipeline> {
        self.pipelines.iter_mut().find(|pipeline| pipeline.model().bundle.name == model)
    }

    fn swap_models(&mut self) {
        for pipeline in &mut self.pipelines {
            if pipeline.swap_model_if_idle() {
                let card = Arc::clone(pipeline.card());
                log::info!("model {} is now served by {}", card.bundle.name, card.backend.provider);
                self.events.send_model_event(ModelEvent::Replaced(card));
            }
        }
    }

    fn check_temperature(&mut self) {
        if self.last_thermal_check.is_none_or(|last| last.elapsed() >= THERMAL_CHECK_INTERVAL) {
            self.last_thermal_check = Some(Instant::now());
            let should_pause = self.throttle.should_pause();
            self.pipelines.iter_mut().for_each(|pipeline| pipeline.set_paused(should_pause));
        }
    }

    /// Steps each pipeline that has work.
    fn step(&mut self) {
        let events = &mut self.events;
        for (pipeline, latency_sent) in self.pipelines.iter_mut().zip(&mut self.latency_sent) {
            if !pipeline.has_work() {
                continue;
            }
            pipeline.step(&mut |job, event| events.send_job_event(job, event));
            if let Some(ms_per_nfe) = pipeline.ms_per_evaluation()
                && latency_sent.is_none_or(|sent| sent.elapsed() >= LATENCY_INTERVAL)
            {
                *latency_sent = Some(Instant::now());
                let model = pipeline.model().bundle.name.clone();
                events.send_model_event(ModelEvent::Latency { model, ms_per_nfe });
            }
        }
    }
}
