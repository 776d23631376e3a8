//! An exact model: the closed-form prediction for x_0 ~ N(mean, deviation² I).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use denoised::bundle::{
    Bundle, LiveInputs, SampleLayout, Signature, TimeConvention, TimeInput, TimestepShape,
};
use denoised::inference::{Backend, EvaluationError, SessionPool};
use denoised::model::{Batch, Model, Predictor};
use denoised::tensor::{DataType, GraphIo};
use diffusion_samplers::noise_schedule::{NoiseSchedule, ScheduleDefaults};
use diffusion_samplers::prediction_type::PredictionType;

#[path = "../../crates/diffusion-samplers/tests/common/gaussian.rs"]
mod gaussian;

pub use gaussian::Gaussian;

/// The sizes of the batches that were evaluated.
pub type Batches = Arc<Mutex<Vec<usize>>>;

/// The Gaussian as the network of a class-conditional model. It adds `k / 100` to the prediction for class k, so that
/// classes and guidance have an effect.
pub struct Exact {
    gaussian: Gaussian,
    signature: Signature,
    backend: Backend,
    batches: Batches,
    /// The number of the first evaluation that returns NaN, counted from 1.
    nan_from: Option<usize>,
}

impl Exact {
    /// Returns a model for samples of this shape, and the batch sizes that it records.
    pub fn model(shape: &[usize], largest_batch: usize, time: TimestepShape) -> (Model, Batches) {
        Self::with_nan_from(shape, largest_batch, time, None)
    }

    /// Returns such a model whose predictions are NaN from evaluation `nan_from` on, counted from 1.
    pub fn with_nan_from(
        shape: &[usize],
        largest_batch: usize,
        time: TimestepShape,
        nan_from: Option<usize>,
    ) -> (Model, Batches) {
        let mut bundle = Bundle::open(&super::golden("gaussian")).unwrap();
        bundle.manifest.classes.names = (0..10).map(|k| k.to_string()).collect();
        bundle.manifest.classes.null = Some(10);
        let schedule =
            NoiseSchedule::from_settings(&mut bundle.scheduler.settings(), ScheduleDefaults::DDPM).unwrap();
        let batches = Arc::new(Mutex::new(Vec::with_capacity(100_000)));
        let input = |name: &str| name.to_owned();
        let exact = Self {
            gaussian: Gaussian::new(&schedule, PredictionType::Epsilon, false),
            signature: Signature {
                graph: GraphIo::default(),
                sample: input("sample"),
                sample_element: DataType::F32,
                sample_shape: shape.to_vec(),
                fixed_batch: None,
                largest_batch,
                time: TimeInput {
                    name: input("timestep"),
                    element: DataType::F32,
                    shape: time,
                    convention: TimeConvention::Step,
                },
                class: Some((input("class_labels"), DataType::I64)),
                conditions: Vec::new(),
                tensors: Vec::new(),
                live: LiveInputs::default(),
                dynamic_size: false,
                extra_channels: 0,
                layout: SampleLayout::default(),
                named_kind: None,
                negates_output: false,
                output: input("out_sample"),
            },
            backend: Backend::new("exact", "1".to_owned(), "cpu".to_owned()),
            batches: Arc::clone(&batches),
            nan_from,
        };
        let model = Model {
            bundle,
            predictor: Box::new(exact),
            first_evaluation: Some(Duration::from_millis(1)),
            outputs_per_value: 1,
            session_sizes: Vec::new(),
            latent: None,
            lora_directories: Vec::new(),
            sessions: SessionPool::default(),
        };
        (model, batches)
    }
}

impl Predictor for Exact {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn backend(&self) -> &Backend {
        &self.backend
    }

    fn evaluate(&mut self, batch: &Batch, output: &mut Vec<f32>) -> Result<(), EvaluationError> {
        let mut batches = self.batches.lock().unwrap();
        batches.push(batch.size());
        assert!(batch.size() <= self.signature.largest_batch);
        if self.signature.time.shape != TimestepShape::PerSample {
            assert!(batch.times.iter().all(|&t| t == batch.times[0]), "{:?}", batch.times);
        }
        output.clear();
        output.resize(batch.samples.len(), 0.0);
        let len = self.signature.sample_len();
        let parts = batch.samples.chunks(len).zip(output.chunks_mut(len));
        for ((x, out), (&t, &class)) in parts.zip(batch.times.iter().zip(&batch.classes)) {
            self.gaussian.evaluate(x, t, out);
            for out in out {
                *out += class as f32 / 100.0;
            }
        }
        if self.nan_from.is_some_and(|at| batches.len() >= at) {
            output[0] = f32::NAN;
        }
        Ok(())
    }
}

/// The exact network with a delay before each evaluation.
pub struct Delayed {
    network: Box<dyn Predictor>,
    delay: Duration,
}

impl Delayed {
    /// Returns a model that waits for `delay` before each evaluation.
    pub fn model(shape: &[usize], largest_batch: usize, delay: Duration) -> Model {
        let (mut model, _) = Exact::model(shape, largest_batch, TimestepShape::PerSample);
        model.first_evaluation = Some(delay);
        Model { predictor: Box::new(Self { network: model.predictor, delay }), ..model }
    }
}

impl Predictor for Delayed {
    fn signature(&self) -> &Signature {
        self.network.signature()
    }

    fn backend(&self) -> &Backend {
        self.network.backend()
    }

    fn evaluate(&mut self, batch: &Batch, output: &mut Vec<f32>) -> Result<(), EvaluationError> {
        std::thread::sleep(self.delay);
        self.network.evaluate(batch, output)
    }
}
