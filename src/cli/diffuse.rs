//! `denoised diffuse`: the forward process as people draw it, and for points its whole figure.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow, ensure};
use image::DynamicImage;

use super::Failure;
use crate::bundle::SampleKind;
use crate::image::{self as pictures, ImageError, Pixels};
use crate::inference::EngineKind;
use crate::job::{Job, JobLimits, ModelCard, Request};
use crate::model::{Batch, Model};
use diffusion_samplers::forward_process::q_sample;
use diffusion_samplers::noise_schedule::{NoiseLevel, NoiseSchedule, ScheduleDefaults, ZeroSnr};
use diffusion_samplers::prediction_type::PredictionType;
use diffusion_samplers::rng::Generator;
use diffusion_samplers::sampler::{self, InitialState, Options, TimeConditioning};
use std::task::Poll;

/// What `diffuse` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The bundle's directory
    model: PathBuf,
    /// The figure, as .png
    #[arg(long)]
    output: PathBuf,
    /// What is noised, as .png or .npy [default: a sample of the model]
    #[arg(long)]
    image: Option<PathBuf>,
    /// The time steps, separated by commas [default: seven of them; three for points]
    #[arg(long, value_delimiter = ',')]
    at: Vec<usize>,
    /// The seed of the sample and the noise
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The class of the sample
    #[arg(long)]
    class: Option<i64>,
    /// The engine
    #[arg(long, value_parser = super::engine_kind())]
    engine: Option<EngineKind>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let engine = super::engine(&arguments.model, arguments.engine)?;
    let model = Model::load(&arguments.model, &engine)?;
    let mut figure = Figure::of(model, arguments).map_err(Failure::usage)?;
    let sheet = match figure.model.bundle.manifest.sample.kind {
        SampleKind::Image => {
            let x0 = figure.sample(arguments)?;
            pictures::rows(&[figure.forward(&x0)?], 4)
        }
        SampleKind::Points => {
            let (x0, reverse) = figure.reverse()?;
            let x0 = if arguments.image.is_some() { figure.sample(arguments)? } else { x0 };
            let states = figure.states(&x0);
            let drift = figure.drift(&states)?;
            pictures::rows(&[figure.forward(&x0)?, reverse, drift], 1)
        }
    };
    let bytes = pictures::png(&sheet?)?;
    std::fs::write(&arguments.output, bytes).with_context(|| arguments.output.display().to_string())?;
    let times: Vec<_> = figure.times.iter().map(ToString::to_string).collect();
    eprintln!("t = {} -> {}", times.join(", "), arguments.output.display());
    Ok(())
}

/// What the bundle's network predicts.
fn scheduler_kind(model: &Model) -> PredictionType {
    let name = model.bundle.scheduler.settings().text("prediction_type", PredictionType::Epsilon.name());
    name.ok().and_then(|name| PredictionType::from_name(&name)).unwrap_or(PredictionType::Epsilon)
}

struct Figure {
    model: Model,
    schedule: NoiseSchedule,
    times: Vec<usize>,
    seed: u64,
    /// What the bundle draws by its own default.
    job: Job,
    class: i64,
    kind: PredictionType,
}

impl Figure {
    fn of(model: Model, arguments: &Arguments) -> anyhow::Result<Self> {
        let scheduler = &model.bundle.scheduler;
        let time = sampler::by_class(&scheduler.class)?.time();
        ensure!(
            time == TimeConditioning::Step,
            "{}: {} has no noise schedule",
            model.bundle.name,
            scheduler.class
        );
        let defaults = ScheduleDefaults::DDPM.zero_snr(ZeroSnr::Exact);
        let schedule = NoiseSchedule::from_settings(&mut scheduler.settings(), defaults)?;
        let last = schedule.len() - 1;
        let shares: &[f64] = match model.bundle.manifest.sample.kind {
            SampleKind::Image => &[0.0, 0.05, 0.15, 0.3, 0.5, 0.75, 1.0],
            SampleKind::Points => &[0.0, 0.15, 1.0],
        };
        let times = if arguments.at.is_empty() {
            shares.iter().map(|share| (share * last as f64) as usize).collect()
        } else {
            arguments.at.clone()
        };
        if let Some(t) = times.iter().find(|t| **t > last) {
            return Err(anyhow!("--at: time step {t} is beyond the schedule's last, {last}"));
        }
        pictures::check(
            pictures::Format::Png,
            model.bundle.manifest.sample.kind,
            &model.predictor.signature().sample_shape,
        )?;
        // A class and a default sampler that a job could have.
        let request = Request { class: arguments.class, ..Request::default() };
        let limits = JobLimits { steps: 100_000, count: 1, pixels: u64::MAX, memory: None };
        let job = request
            .check(&[ModelCard::of(&model)], limits, || arguments.seed)
            .map_err(|error| anyhow!(error.message))?;
        let class = job.class.or(model.bundle.manifest.classes.null).unwrap_or(0);
        let kind = scheduler_kind(&model);
        Ok(Self { model, schedule, times, seed: arguments.seed, job, class, kind })
    }

    fn level(&self, t: usize) -> NoiseLevel {
        NoiseLevel::from_alpha_bar(self.schedule.alphas_cumprod()[t])
    }

    fn picture(&self, sample: &[f32]) -> Result<DynamicImage, ImageError> {
        let shape = &self.model.predictor.signature().sample_shape;
        pictures::picture(sample, shape, &self.model.bundle.manifest)
    }

    /// x_0: the file's, or one that the bundle draws by its own default.
    fn sample(&mut self, arguments: &Arguments) -> anyhow::Result<Vec<f32>> {
        if let Some(path) = &arguments.image {
            let shape = &self.model.predictor.signature().sample_shape;
            let sample = &self.model.bundle.manifest.sample;
            let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
            let pixels = Pixels { shape, kind: sample.kind, range: sample.range, most: u64::MAX };
            return pictures::decode(&bytes, pixels).with_context(|| path.display().to_string());
        }
        self.walk(Arc::clone(&self.job.sampler), |_, _| {})
    }

    /// q(x_t | x_0) at every time step, with one draw of noise for all.
    fn states(&self, x0: &[f32]) -> Vec<Vec<f32>> {
        let mut noise = vec![0.0; x0.len()];
        Generator::Torch.seeded(self.seed).fill(&mut noise);
        let at = |t: &usize| {
            let mut x = vec![0.0; x0.len()];
            q_sample(self.level(*t), x0, &noise, &mut x);
            x
        };
        self.times.iter().map(at).collect()
    }

    fn forward(&self, x0: &[f32]) -> Result<Vec<DynamicImage>, ImageError> {
        self.states(x0).iter().map(|x| self.picture(x)).collect()
    }

    /// The reverse process of every time step (Sohl-Dickstein et al. 2015): its end, and where it
    /// was at the chosen ones.
    fn reverse(&mut self) -> anyhow::Result<(Vec<f32>, Vec<DynamicImage>)> {
        let choice = sampler::by_name("sohl_dickstein")?;
        let steps = Options::of_steps(self.schedule.len());
        let sampler = choice.build(&mut self.model.bundle.scheduler.settings(), &steps)?;
        let mut seen: Vec<(usize, Vec<f32>)> = Vec::new();
        let times = self.times.clone();
        let x0 = self.walk(sampler, |t, x| {
            if times.contains(&(t as usize)) {
                seen.push((t as usize, x.to_vec()));
            }
        })?;
        let states = self.times.iter().filter_map(|t| seen.iter().find(|(at, _)| at == t));
        let row: Result<_, _> = states.map(|(_, x)| self.picture(x)).collect();
        Ok((x0, row?))
    }

    /// f_μ(x_t, t) − x_t, the drift of one reverse step, at every time step.
    fn drift(&mut self, states: &[Vec<f32>]) -> anyhow::Result<Vec<DynamicImage>> {
        let range = self.model.bundle.manifest.sample.range;
        let mut row = Vec::new();
        for (t, x) in self.times.clone().into_iter().zip(states) {
            let (beta, level) = (self.schedule.betas()[t], self.level(t));
            let output = self.evaluate(x, t as f64)?;
            let mut epsilon = vec![0.0; x.len()];
            self.kind.convert(PredictionType::Epsilon, level).apply(x, &output[..x.len()], &mut epsilon);
            let root = (1.0 - beta).sqrt();
            // The posterior's mean with x_0 as the network sees it (Ho et al. 2020, eq. 11).
            let (a, b) = (1.0 / root - 1.0, beta / (root * level.sigma));
            let drift: Vec<f32> = x.iter().zip(&epsilon).map(|(x, e)| a as f32 * x - b as f32 * e).collect();
            // So many points would cover each other.
            let thin =
                |values: &[f32]| values.chunks_exact(2).step_by(3).flatten().copied().collect::<Vec<_>>();
            row.push(pictures::arrows(&thin(x), &thin(&drift), range).into());
        }
        Ok(row)
    }

    fn evaluate(&mut self, x: &[f32], t: f64) -> anyhow::Result<Vec<f32>> {
        let (mut batch, mut output) = (Batch::default(), Vec::new());
        let copies = self.model.predictor.signature().smallest_batch();
        for _ in 0..copies {
            batch.push(|samples| samples.extend_from_slice(x), t, self.class, &self.model.bundle.manifest);
        }
        self.model.predictor.evaluate(&batch, &mut output)?;
        output.truncate(output.len() / copies);
        Ok(output)
    }

    fn walk(
        &mut self,
        sampler: Arc<dyn sampler::Sampler>,
        mut see: impl FnMut(f64, &[f32]),
    ) -> anyhow::Result<Vec<f32>> {
        let len = self.model.predictor.signature().sample_len();
        let mut noise = Generator::Torch.seeded(self.seed);
        let mut initial = vec![0.0; len];
        noise.fill(&mut initial);
        let mut walk = sampler::start(sampler, InitialState::from_noise(initial), noise);
        loop {
            match walk.poll() {
                Poll::Ready(sample) => return Ok(sample),
                Poll::Pending => {
                    let (t, mut x) = (walk.time(), Vec::new());
                    walk.append_input(&mut x);
                    see(t, &x);
                    let output = self.evaluate(&x, t)?;
                    walk.answer(output.into());
                }
            }
        }
    }
}
