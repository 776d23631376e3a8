//! The exact model of Gaussian data as the network of a bundle.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use denoised::model::{
    Backend, Batch, Bundle, DataType, EvaluationError, GraphIo, Model, Predictor, Signature, TimeInput,
    TimestepShape,
};
use diffusion_samplers::noise_schedule::{NoiseSchedule, ScheduleDefaults};
use diffusion_samplers::prediction_type::PredictionType;

#[path = "../../crates/diffusion-samplers/tests/common/gaussian.rs"]
mod gaussian;

use gaussian::Gaussian;

/// The size of every batch that was evaluated.
pub type Batches = Arc<Mutex<Vec<usize>>>;

/// The Gaussian as the network of a class-conditional model: class k has the mean `k / 10`
/// added to its prediction, so that classes and guidance matter.
pub struct Exact {
    net: Gaussian,
    signature: Signature,
    origin: Backend,
    batches: Batches,
    /// Give NaN from this evaluation on, counted from 1.
    breaks_at: Option<usize>,
}

impl Exact {
    /// A model of samples of this shape, whose graph takes one time step for each sample or, at
    /// a fixed batch size, one for all.
    pub fn model(shape: &[usize], largest_batch: usize, time: TimestepShape) -> (Model, Batches) {
        Self::breaking(shape, largest_batch, time, None)
    }

    /// The same, giving NaN from an evaluation on.
    pub fn breaking(
        shape: &[usize],
        largest_batch: usize,
        time: TimestepShape,
        breaks_at: Option<usize>,
    ) -> (Model, Batches) {
        let mut bundle = Bundle::open(&super::golden("gaussian")).unwrap();
        bundle.manifest.classes.names = (0..10).map(|k| k.to_string()).collect();
        bundle.manifest.classes.null = Some(10);
        let schedule =
            NoiseSchedule::from_settings(&mut bundle.scheduler.settings(), ScheduleDefaults::DDPM).unwrap();
        let batches = Arc::new(Mutex::new(Vec::with_capacity(100_000)));
        let input = |name: &str| name.to_owned();
        let exact = Self {
            net: Gaussian::new(&schedule, PredictionType::Epsilon, false),
            signature: Signature {
                graph: GraphIo::default(),
                sample: input("sample"),
                sample_element: DataType::F32,
                sample_shape: shape.to_vec(),
                fixed_batch: None,
                largest_batch,
                time: TimeInput { name: input("timestep"), element: DataType::F32, shape: time, over: 1.0 },
                class: Some((input("class_labels"), DataType::I64)),
                conditions: Vec::new(),
                tensors: Vec::new(),
                free_size: false,
                beside: 0,
                output: input("out_sample"),
            },
            origin: Backend::new("exact", "1".to_owned(), "cpu".to_owned()),
            batches: Arc::clone(&batches),
            breaks_at,
        };
        let model = Model {
            bundle,
            predictor: Box::new(exact),
            first_evaluation: Duration::from_millis(1),
            outputs_per_value: 1,
            parts: Vec::new(),
            latent: None,
        };
        (model, batches)
    }
}

impl Predictor for Exact {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn origin(&self) -> &Backend {
        &self.origin
    }

    fn evaluate(&mut self, batch: &Batch, output: &mut Vec<f32>) -> Result<(), EvaluationError> {
        let mut batches = self.batches.lock().unwrap();
        batches.push(batch.len());
        assert!(batch.len() <= self.signature.largest_batch);
        if self.signature.time.shape != TimestepShape::PerSample {
            assert!(batch.times.iter().all(|&t| t == batch.times[0]), "{:?}", batch.times);
        }
        output.clear();
        output.resize(batch.samples.len(), 0.0);
        let len = self.signature.sample_len();
        let parts = batch.samples.chunks(len).zip(output.chunks_mut(len));
        for ((x, out), (&t, &class)) in parts.zip(batch.times.iter().zip(&batch.classes)) {
            self.net.evaluate(x, t, out);
            for out in out {
                *out += class as f32 / 100.0;
            }
        }
        if self.breaks_at.is_some_and(|at| batches.len() >= at) {
            output[0] = f32::NAN;
        }
        Ok(())
    }
}

/// A network that takes its time.
pub struct Sleeping {
    network: Box<dyn Predictor>,
    nap: Duration,
}

impl Sleeping {
    /// The exact network, each evaluation of which takes so long.
    pub fn model(shape: &[usize], largest_batch: usize, nap: Duration) -> Model {
        let (mut model, _) = Exact::model(shape, largest_batch, TimestepShape::PerSample);
        model.first_evaluation = nap;
        Model { predictor: Box::new(Self { network: model.predictor, nap }), ..model }
    }
}

impl Predictor for Sleeping {
    fn signature(&self) -> &Signature {
        self.network.signature()
    }

    fn origin(&self) -> &Backend {
        self.network.origin()
    }

    fn evaluate(&mut self, batch: &Batch, output: &mut Vec<f32>) -> Result<(), EvaluationError> {
        std::thread::sleep(self.nap);
        self.network.evaluate(batch, output)
    }
}
