//! The evaluating thread: loads the models and turns their pipelines.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::{Command, Heartbeat, News, Raw, What, WorkerEvent};
use crate::inference::{EngineOptions, Policy, SessionPool, Stage};
use crate::job::{Job, ModelCard};
use crate::model::Model;
use crate::pipeline::{Event, Pipeline, Wake};
use crate::platform::ThermalThrottle;

const PACE_EVERY: Duration = Duration::from_secs(1);
/// How often the governor looks at the board's heat.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a paused worker waits before it looks for commands again.
const PAUSE: Duration = Duration::from_millis(100);

/// The way out of this thread.
pub(super) struct Out {
    to: blocking::SyncSender<Raw>,
    pulse: Heartbeat,
    listened_to: bool,
}

impl Out {
    pub(super) fn new(to: blocking::SyncSender<Raw>, pulse: Heartbeat) -> Self {
        Self { to, pulse, listened_to: true }
    }

    /// Pass something on. While the broker is away and the spool full, this may take long.
    fn send(&mut self, raw: Raw) {
        self.listened_to &= match self.to.try_send(raw) {
            Ok(()) => true,
            Err(blocking::TrySendError::Full(raw)) => self.pulse.rest(|| self.to.send(raw).is_ok()),
            Err(blocking::TrySendError::Disconnected(_)) => false,
        };
    }

    fn tell(&mut self, tidings: WorkerEvent) {
        self.send(Raw::WorkerEvent(tidings));
    }

    /// Pass an event on; progress that finds no room is dropped.
    fn pass(&mut self, event: Event<'_>) {
        let news = |job: &Job, what| {
            let id = job.id.clone();
            Raw::WorkerEvent(WorkerEvent::Job(News { id, what }))
        };
        match event {
            Event::Progress { job, step, of, eta_ms } => {
                let sent = self.to.try_send(news(job, What::Progress { step, of, eta_ms }));
                self.listened_to &= !matches!(sent, Err(blocking::TrySendError::Disconnected(_)));
            }
            Event::Preview { job, index, x0, shape } => {
                let (x0, shape) = (x0.to_vec(), shape.to_vec());
                self.send(Raw::Preview { job: job.clone(), index, x0, shape });
            }
            Event::Image { job, receipt, sample, .. } => {
                self.send(Raw::Image { job: job.clone(), receipt, sample });
            }
            Event::Finished { job, elapsed_ms } => self.send(news(job, What::Finished { elapsed_ms })),
            Event::Failed { job, error } => self.send(news(job, What::Failed(error))),
        }
    }
}

/// The thread's state, once the models are loaded.
pub(super) struct Evaluator {
    pipelines: Vec<Pipeline>,
    /// When each one's pace was told last.
    told: Vec<Option<Instant>>,
    commands: mpsc::Receiver<Command>,
    out: Out,
    governor: ThermalThrottle,
    looked: Option<Instant>,
}

impl Evaluator {
    /// Load the models, then draw what is ordered until no order can come or nobody listens.
    pub(super) fn run(
        models: &[(PathBuf, EngineOptions)],
        commands: mpsc::Receiver<Command>,
        builders: &mpsc::WeakSender<Command>,
        mut out: Out,
        governor: ThermalThrottle,
    ) {
        let awake = builders.clone();
        let wake: Wake = Arc::new(move || {
            // A worker with more to do than there is room for needs no waking.
            let _ = awake.upgrade().map(|commands| commands.try_send(Command::Look));
        });
        let pipelines = match load(models, &wake, &mut |stage| out.tell(WorkerEvent::Stage(stage))) {
            Ok(pipelines) => pipelines,
            Err(reason) => return out.tell(WorkerEvent::Unable(reason)),
        };
        out.tell(WorkerEvent::Ready(pipelines.iter().map(|p| ModelCard::of(p.model())).collect()));
        let told = vec![None; pipelines.len()];
        let mut evaluator = Self { pipelines, told, commands, out, governor, looked: None };
        let later = models.iter().filter(|(_, engine)| engine.interim().is_some());
        later.for_each(|(path, engine)| build(path, engine, builders.clone()));
        while evaluator.out.listened_to && evaluator.obey_all() {
            evaluator.out.pulse.beat();
            evaluator.look_at_the_heat();
            evaluator.turn();
        }
    }

    /// Obey what was ordered, all of which counts in the next evaluation; wait for an order where
    /// there is nothing else to do. False if none will come any more. A successor takes over as soon as an
    /// evaluation or an order leaves its model without a job under way.
    fn obey_all(&mut self) -> bool {
        loop {
            self.change_over();
            let command = match self.commands.try_recv() {
                Ok(command) => command,
                Err(mpsc::error::TryRecvError::Disconnected) => return false,
                Err(mpsc::error::TryRecvError::Empty) if self.pipelines.iter().any(Pipeline::has_work) => {
                    return true;
                }
                // Jobs are there, and must wait until the board is cooler.
                Err(mpsc::error::TryRecvError::Empty) if self.pipelines.iter().any(Pipeline::is_held) => {
                    self.out.pulse.rest(|| std::thread::sleep(PAUSE));
                    return true;
                }
                Err(mpsc::error::TryRecvError::Empty) => match self.wait() {
                    Some(command) => command,
                    None => return false,
                },
            };
            self.obey(command);
        }
    }

    /// Wait for an order, or for what is encoded and decoded beside the networks; that one takes too long
    /// is as serious as an evaluation that does.
    fn wait(&mut self) -> Option<Command> {
        let (pulse, commands) = (&self.out.pulse, &mut self.commands);
        match self.pipelines.iter().all(Pipeline::is_idle) {
            true => pulse.rest(|| commands.blocking_recv()),
            false => commands.blocking_recv(),
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Look => {}
            Command::Draw(job) => {
                let name = &job.model.bundle.name;
                let pipeline = self.pipelines.iter_mut().find(|p| &p.model().bundle.name == name);
                if let Some(pipeline) = pipeline {
                    pipeline.accept(*job);
                }
            }
            Command::Succeed(model) => {
                let name = &model.bundle.name;
                let pipeline = self.pipelines.iter_mut().find(|p| &p.model().bundle.name == name);
                if let Some(pipeline) = pipeline {
                    pipeline.succeed(*model);
                }
            }
            Command::GiveUp(reason) => self.out.tell(WorkerEvent::Unable(reason)),
            Command::Cancel(id) => {
                let out = &mut self.out;
                let _ = self.pipelines.iter_mut().any(|p| p.cancel(&id, &mut |event| out.pass(event)));
            }
        }
    }

    /// Let successors take over where no job is under way.
    fn change_over(&mut self) {
        for pipeline in &mut self.pipelines {
            if pipeline.change_over() {
                let card = ModelCard::of(pipeline.model());
                log::info!("model {} is served by {} from now on", card.bundle.name, card.origin.provider);
                self.out.tell(WorkerEvent::Changed(Box::new(card)));
            }
        }
    }

    fn look_at_the_heat(&mut self) {
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
            self.looked = Some(Instant::now());
            let pauses = self.governor.pauses();
            self.pipelines.iter_mut().for_each(|pipeline| pipeline.hold(pauses));
        }
    }

    /// One evaluation of every model that has something to do.
    fn turn(&mut self) {
        let out = &mut self.out;
        for (pipeline, told) in self.pipelines.iter_mut().zip(&mut self.told) {
            if !pipeline.has_work() {
                continue;
            }
            pipeline.turn(&mut |event| out.pass(event));
            if let Some(ms_per_nfe) = pipeline.ms_per_evaluation()
                && told.is_none_or(|told| told.elapsed() >= PACE_EVERY)
            {
                *told = Some(Instant::now());
                let model = pipeline.model().bundle.name.clone();
                out.tell(WorkerEvent::Pace { model, ms_per_nfe });
            }
        }
    }
}

/// Load a model on its own providers, on a thread of its own, and hand it over.
fn build(path: &Path, engine: &EngineOptions, commands: mpsc::WeakSender<Command>) {
    let (path, engine) = (path.to_owned(), engine.clone());
    let spawned = std::thread::Builder::new().name("build".to_owned()).spawn(move || {
        let meanwhile = engine.interim_provider.map(|provider| provider.to_string()).unwrap_or_default();
        let command = match Model::load(&path, &engine) {
            Ok(model) if model.predictor.backend().provider == meanwhile => return,
            Ok(model) => Command::Succeed(Box::new(model)),
            Err(error) if engine.policy == Policy::Required => Command::GiveUp(error.to_string()),
            Err(error) => return log::warn!("{meanwhile} goes on to serve: {error}"),
        };
        if let Some(commands) = commands.upgrade() {
            // A worker that has ended needs neither.
            let _ = commands.blocking_send(command);
        }
    });
    if let Err(error) = spawned {
        log::error!("no engine can be built: {error}");
    }
}

fn load(
    models: &[(PathBuf, EngineOptions)],
    wake: &Wake,
    on: &mut dyn FnMut(Stage),
) -> Result<Vec<Pipeline>, String> {
    let shelf = SessionPool::with_budget(models.first().and_then(|(_, engine)| engine.memory));
    let mut pipelines: Vec<Pipeline> = Vec::new();
    for (path, engine) in models {
        log::info!("loading {}", path.display());
        let engine = engine.interim().unwrap_or_else(|| engine.clone());
        let model = Model::load_into(&shelf, path, &engine, on).map_err(|error| error.to_string())?;
        let name = &model.bundle.name;
        if pipelines.iter().any(|other| &other.model().bundle.name == name) {
            return Err(format!("models.paths: two models are called {name}; rename a directory"));
        }
        pipelines.push(Pipeline::waking(model, Arc::clone(wake)));
    }
    if pipelines.is_empty() {
        return Err("models.paths is empty; name at least one bundle".to_owned());
    }
    Ok(pipelines)
}
