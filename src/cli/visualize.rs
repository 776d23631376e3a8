//! `denoised visualize`: draws the forward process at several time steps, and for points also the reverse process and
//! its drift.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, ensure};
use diffusion_samplers::forward_process::q_sample;
use diffusion_samplers::noise_schedule::{NoiseLevel, NoiseSchedule, ScheduleDefaults, ZeroSnr};
use diffusion_samplers::prediction_type::PredictionType;
use diffusion_samplers::rng::Generator;
use diffusion_samplers::sampler::{self, InitialState, Options, Sampler, TimeConditioning};
use image::DynamicImage;

use super::CommandError;
use super::class_argument::class_label;
use super::engine_argument::EngineArguments;
use super::flag_values::whole_number;
use super::open_model::open_model;
use super::output::{check_file, known_endings, save};
use super::picture_file;
use super::progress::ProgressDisplay;
use crate::bundle::SampleKind;
use crate::image::{self as pictures, Content, DecodeTarget, Format, ImageError};
use crate::job::{Job, JobLimits, ModelCard, Request};
use crate::model::{Batch, Model};

/// The arguments of `visualize`.
#[derive(Debug, clap::Args)]
pub(super) struct VisualizeArguments {
    /// The model's directory
    model: PathBuf,
    /// The picture, as .png, .jpg or .webp
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// The sample at t = 0: PNG, JPEG, WebP or .npy [default: a sample of the model]
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// The time steps, separated by commas [default: seven time steps; three for points]
    #[arg(long, value_name = "T,T,…", value_parser = time_steps, allow_negative_numbers = true)]
    at: Option<TimeSteps>,
    /// The seed of the sample and of the noise
    #[arg(long, value_name = "SEED", default_value_t = 0, value_parser = whole_number, allow_negative_numbers = true)]
    seed: u64,
    /// The class of the sample: its number from 0, or its name in denoised.toml [default: none]
    #[arg(long, value_name = "CLASS", allow_negative_numbers = true)]
    class: Option<String>,
    #[command(flatten)]
    engine: EngineArguments,
}

/// The value of `--at`. A type of its own: clap takes a list for several values of the flag.
#[derive(Debug, Clone)]
struct TimeSteps(Vec<usize>);

fn time_steps(text: &str) -> Result<TimeSteps, String> {
    let steps: Result<_, _> = text.split(',').map(|step| step.trim().parse()).collect();
    steps
        .map(TimeSteps)
        .map_err(|_| "expected whole numbers with commas between them, such as 0,250,999".to_owned())
}

/// No limits, because the job is one image on this machine.
const LIMITS: JobLimits = JobLimits { steps: 100_000, count: 1, pixels: u64::MAX, memory: None };

pub(super) fn run(arguments: &VisualizeArguments) -> Result<(), CommandError> {
    let engine = arguments.engine.options(&arguments.model)?;
    let format = check_output(&arguments.output).map_err(CommandError::usage)?;
    let (mut model, display) = open_model(&arguments.model, &engine)?;
    model.predictor.open()?;
    drop(display);
    let mut figure = Figure::new(model, arguments).map_err(CommandError::usage)?;
    let input_image = arguments.image.as_ref().map(|path| figure.read(path)).transpose();
    let input_image = input_image.map_err(CommandError::usage)?;
    let sheet = match figure.model.bundle.manifest.sample.kind {
        SampleKind::Image => {
            let x0 = input_image.map_or_else(|| figure.generate(), Ok)?;
            pictures::rows(&[figure.pictures(&figure.forward(&x0))?], 4)
        }
        SampleKind::Points => {
            let (x0, reverse) = figure.reverse()?;
            let forward = figure.forward(&input_image.unwrap_or(x0));
            let drift = figure.drift(&forward)?;
            pictures::rows(&[figure.pictures(&forward)?, figure.pictures(&reverse)?, drift], 1)
        }
    };
    save(&arguments.output, &pictures::encode_image(format, &sheet?, None)?)?;
    let times: Vec<_> = figure.times.iter().map(ToString::to_string).collect();
    eprintln!("t = {} -> {}", times.join(", "), arguments.output.display());
    Ok(())
}

/// Returns the format of the picture. Fails if it could not be written.
fn check_output(path: &Path) -> anyhow::Result<Format> {
    let format = path.extension().and_then(|ending| Format::from_name(&ending.to_string_lossy()));
    let format = format.filter(|format| *format != Format::Npy).with_context(|| {
        let endings = known_endings(&[Format::Png, Format::Jpeg, Format::Webp]);
        format!("--output: {} has no ending of a picture; {endings}", path.display())
    })?;
    check_file("--output", path)?;
    Ok(format)
}

struct Figure {
    model: Model,
    schedule: NoiseSchedule,
    prediction: PredictionType,
    /// The time steps of the columns.
    times: Vec<usize>,
    /// The bundle's default job.
    job: Job,
    /// The class label that the model receives.
    class: i64,
}

impl Figure {
    /// Checks the arguments against the model.
    fn new(model: Model, arguments: &VisualizeArguments) -> anyhow::Result<Self> {
        let (bundle, scheduler) = (&model.bundle, &model.bundle.scheduler);
        ensure!(
            model.latent.is_none(),
            "{} works on the latents of pictures; visualize draws models of pixels and of points",
            bundle.name
        );
        let time = sampler::by_class(&scheduler.class)?.time();
        ensure!(
            time == TimeConditioning::Step,
            "{}: {} has no noise schedule; use a model with one",
            bundle.name,
            scheduler.class
        );
        let mut settings = scheduler.settings();
        let defaults = ScheduleDefaults::DDPM.with_zero_snr(ZeroSnr::Exact);
        let schedule = NoiseSchedule::from_settings(&mut settings, defaults)?;
        let prediction = settings.text("prediction_type", PredictionType::Epsilon.name())?;
        let prediction = PredictionType::from_name(&prediction).unwrap_or(PredictionType::Epsilon);

        let last = schedule.num_train_timesteps() - 1;
        let fractions: &[f64] = match bundle.manifest.sample.kind {
            SampleKind::Image => &[0.0, 0.05, 0.15, 0.3, 0.5, 0.75, 1.0],
            SampleKind::Points => &[0.0, 0.15, 1.0],
        };
        let mut times = arguments.at.as_ref().map_or_else(Vec::new, |TimeSteps(steps)| steps.clone());
        if times.is_empty() {
            times.extend(fractions.iter().map(|fraction| (fraction * last as f64) as usize));
        }
        if let Some(t) = times.iter().find(|t| **t > last) {
            return Err(anyhow!("--at: time step {t} is beyond the schedule's last, {last}"));
        }
        let shape = &model.predictor.signature().sample_shape;
        pictures::check_format(Format::Png, bundle.manifest.sample.kind, shape)?;

        let mut class = arguments.class.as_deref().map(|class| class_label(class, bundle)).transpose()?;
        if arguments.image.is_some() && bundle.manifest.sample.kind == SampleKind::Image {
            if class.is_some() {
                eprintln!("--class has no effect with --image, because no picture is drawn");
            }
            // A network that needs a class is not evaluated either.
            class = model.predictor.signature().class.as_ref().map(|_| 0);
        }
        let request = Request { class, seed: Some(arguments.seed), ..Request::default() };
        let job = request.check(&[ModelCard::new(&model)], LIMITS, || arguments.seed);
        // Every other field has the value of the model.
        let job = job.map_err(|error| match error.field.as_deref() {
            Some(flag @ "class") => anyhow!("--{flag}: {}", error.message),
            _ => anyhow!("{}: {}", bundle.name, error.message),
        })?;
        let class = job.class.or(bundle.manifest.classes.null).unwrap_or(0);
        Ok(Self { schedule, prediction, times, job, class, model })
    }

    fn level(&self, t: usize) -> NoiseLevel {
        NoiseLevel::from_alpha_bar(self.schedule.alphas_cumprod()[t])
    }

    fn pictures(&self, states: &[Vec<f32>]) -> Result<Vec<DynamicImage>, ImageError> {
        let shape = &self.model.predictor.signature().sample_shape;
        states.iter().map(|x| pictures::to_image(x, shape, &self.model.bundle.manifest.sample)).collect()
    }

    /// Reads a sample from a file.
    fn read(&self, path: &Path) -> anyhow::Result<Vec<f32>> {
        let sample = &self.model.bundle.manifest.sample;
        let shape = &self.model.predictor.signature().sample_shape;
        let pixels = DecodeTarget {
            content: Content::Image,
            shape,
            kind: sample.kind,
            range: sample.range,
            max_pixels: u64::MAX,
        };
        let fault = || format!("--image: {}", path.display());
        let bytes = picture_file::read(path).with_context(|| "--image".to_owned())?;
        pictures::decode(&bytes, pixels).with_context(fault)
    }

    /// Generates a sample with the bundle's default sampler.
    fn generate(&mut self) -> anyhow::Result<Vec<f32>> {
        self.sample(Arc::clone(&self.job.sampler), |_, _| {})
    }

    /// q(x_t | x₀) at each time step, with the same noise.
    fn forward(&self, x0: &[f32]) -> Vec<Vec<f32>> {
        let mut noise = vec![0.0; x0.len()];
        Generator::Torch.seeded(self.job.seed).fill(&mut noise);
        let noised = |t: &usize| {
            let mut x = vec![0.0; x0.len()];
            q_sample(self.level(*t), x0, &noise, &mut x);
            x
        };
        self.times.iter().map(noised).collect()
    }

    /// The reverse process through every time step of training (Sohl-Dickstein et al. 2015). Returns the sample and the
    /// state at each of the columns' time steps.
    fn reverse(&mut self) -> anyhow::Result<(Vec<f32>, Vec<Vec<f32>>)> {
        let options = Options::new(self.schedule.num_train_timesteps());
        let mut settings = self.model.bundle.scheduler.settings();
        let sampler = sampler::by_name("sohl_dickstein")?.build(&mut settings, &options)?;
        let times = self.times.clone();
        let mut states = vec![Vec::new(); times.len()];
        let x0 = self.sample(sampler, |t, x| {
            for (state, _) in states.iter_mut().zip(&times).filter(|(_, column)| **column == t as usize) {
                *state = x.to_vec();
            }
        })?;
        Ok((x0, states))
    }

    /// The drift of one reverse step, μ(x_t, t) − x_t, at each time step. μ is the posterior mean for the predicted x₀
    /// (Ho et al. 2020, eq. 11).
    fn drift(&mut self, states: &[Vec<f32>]) -> anyhow::Result<Vec<DynamicImage>> {
        let range = self.model.bundle.manifest.sample.range;
        let mut row = Vec::new();
        for (t, x) in self.times.clone().into_iter().zip(states) {
            let (beta, level) = (self.schedule.betas()[t], self.level(t));
            let output = self.evaluate(x, t as f64)?;
            let mut epsilon = vec![0.0; x.len()];
            let to_epsilon = self.prediction.convert(PredictionType::Epsilon, level);
            to_epsilon.apply(x, &output[..x.len()], &mut epsilon);
            let root = (1.0 - beta).sqrt();
            let (a, b) = ((1.0 / root - 1.0) as f32, (beta / (root * level.sigma)) as f32);
            let drift: Vec<f32> = x.iter().zip(&epsilon).map(|(x, e)| a * x - b * e).collect();
            // Draws a third of the arrows, because all of them would overlap.
            let third =
                |values: &[f32]| values.chunks_exact(2).step_by(3).flatten().copied().collect::<Vec<_>>();
            row.push(pictures::arrows(&third(x), &third(&drift), range).into());
        }
        Ok(row)
    }

    /// Runs a sampler from the seed's noise. `on_input` receives the time step and the input of each evaluation.
    fn sample(
        &mut self,
        sampler: Arc<dyn Sampler>,
        mut on_input: impl FnMut(f64, &[f32]),
    ) -> anyhow::Result<Vec<f32>> {
        let mut noise = Generator::Torch.seeded(self.job.seed);
        let mut initial = vec![0.0; self.model.predictor.signature().sample_len()];
        noise.fill(&mut initial);
        let mut progress = ProgressDisplay::new(&self.model.bundle.name);
        let (mut done, evaluations) = (0, sampler.evaluations());
        let trajectory = sampler::start(sampler, InitialState::from_noise(initial), noise);
        let sample = trajectory.try_run_to_end(|x, t| {
            on_input(t, x);
            done += 1;
            progress.count(done, evaluations);
            self.evaluate(x, t)
        });
        progress.end();
        sample
    }

    /// Evaluates the model, with copies of the state if its batch size is fixed.
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
}
