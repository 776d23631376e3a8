//! The denoising network of a bundle, evaluated on batches.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::component_session::Network;
use super::control_net::ControlNetSession;
use super::live_feed::LiveFeed;
use super::residual_sums::ResidualSums;
use super::shape_profile::shape_profile;
use super::{Batch, ModelError, example_inputs, network_memory};
use crate::bundle::{Bundle, BundleError, Signature, TimeConvention, TimestepShape};
use crate::inference::{
    Backend, CaptureStatus, EngineOptions, EvaluationError, GraphDigest, GraphSource, Input, MeasuredGraph,
    OnStage, PooledSession, ProvenBackend, Session, SessionMemory, SessionPool, Values, load, padded_batch,
    planned_backend,
};
use crate::tensor::GraphIo;

/// A network that can be evaluated.
pub trait Predictor: Send {
    /// How the network is fed and read. Opening a network may fix the lengths of axes.
    fn signature(&self) -> &Signature;

    /// The engine and provider that run the network. Before the first evaluation, the provider that is tried first.
    fn backend(&self) -> &Backend;

    /// Evaluates a batch whose length the signature allows. Replaces the contents of `output` by the predictions, one
    /// sample after the other.
    fn evaluate(&mut self, batch: &Batch, output: &mut Vec<f32>) -> Result<(), EvaluationError>;

    /// Opens the network without evaluating it, if it is not open.
    fn open(&mut self) -> Result<(), EvaluationError> {
        Ok(())
    }

    /// Puts into the engine cache what the ControlNets need there. With `evaluates`, each is evaluated.
    fn prepare_control_nets(&mut self, _evaluates: bool) -> Result<(), EvaluationError> {
        Ok(())
    }

    /// Whether the network is in memory.
    fn is_open(&self) -> bool {
        true
    }

    /// What is known of the network's memory.
    fn memory(&self) -> Option<&Arc<SessionMemory>> {
        None
    }

    /// Whether the second evaluation of a shape is captured as a CUDA graph, which later ones replay.
    fn captures_shapes(&self) -> bool {
        false
    }

    /// The size of the batch in which this number of samples of a shape is evaluated. What is missing is padding.
    fn padded_batch(&self, samples: usize, _sample: &[usize]) -> usize {
        samples.max(self.signature().smallest_batch())
    }

    /// The largest batch of samples in this shape.
    fn largest_batch(&self, sample: &[usize]) -> usize {
        let signature = self.signature();
        match self.memory() {
            Some(memory) => network_memory::largest_batch(signature, memory, sample),
            None => signature.largest_batch,
        }
    }
}

/// The network of a bundle, in a session of the pool, which is opened for the first evaluation and whenever it was evicted.
pub(super) struct Denoiser {
    session: PooledSession,
    bundle: Bundle,
    signature: Signature,
    live: LiveFeed,
    control_nets: Vec<ControlNetSession>,
    residuals: ResidualSums,
    planned: Backend,
    proven: ProvenBackend,
    capture: CaptureStatus,
    created: Instant,
    /// Whether the signature is that of the engine's own description of the graph.
    is_described: bool,
    /// Whether the first evaluation has selected the provider.
    is_proven: bool,
}

impl Denoiser {
    /// Adds the network to the pool.
    pub(super) fn new(
        bundle: &Bundle,
        options: &EngineOptions,
        pool: &SessionPool,
        on_stage: OnStage,
    ) -> Result<Self, ModelError> {
        let signature = signature(bundle, options)?;
        let files = bundle.files(&bundle.graph)?;
        let planned = planned_backend(options)?;
        let proven = ProvenBackend::default();
        let graph = MeasuredGraph {
            files: Arc::clone(&files),
            values_per_token: network_memory::values_per_token(&signature),
            proven: ProvenBackend::clone(&proven),
        };
        let memory = SessionMemory::new(graph, &planned, options);
        network_memory::check_machine(&bundle.name, memory.weights(), pool.held(), options)?;
        let capture = CaptureStatus::default();
        let source = GraphSource {
            name: bundle.name.clone(),
            files,
            digest: digest(bundle, &bundle.graph, &options.cache),
            profile: Some(shape_profile(bundle, &signature, options)?),
            capture: Some(capture.clone()),
            example: example_inputs::of_denoiser(&signature),
        };
        let open = {
            let (options, proven) = (options.clone(), ProvenBackend::clone(&proven));
            move || load(&source, &options, &proven, &on_stage)
        };
        let session = pool.insert(bundle.name.clone(), memory, Box::new(open));
        Ok(Self {
            session,
            bundle: bundle.clone(),
            live: LiveFeed::idle(&signature.live),
            control_nets: Vec::new(),
            residuals: ResidualSums::default(),
            signature,
            planned,
            proven,
            capture,
            created: Instant::now(),
            is_described: false,
            is_proven: false,
        })
    }

    /// Adds the bundle's ControlNets to the pool, which opens each when it is first used.
    pub(super) fn add_control_nets(
        &mut self,
        options: &EngineOptions,
        pool: &SessionPool,
        on_stage: &OnStage,
    ) -> Result<(), BundleError> {
        let network = self.for_components();
        let open = |net| {
            ControlNetSession::new(&self.bundle, net, &self.signature, options, pool, &network, on_stage)
        };
        self.control_nets = self.bundle.controlnets.iter().map(open).collect::<Result<_, _>>()?;
        Ok(())
    }

    /// What the backends of the graphs beside the network depend on.
    pub(super) fn for_components(&self) -> Network {
        Network { planned: self.planned.clone(), proven: ProvenBackend::clone(&self.proven) }
    }

    /// Takes the signature from the engine's own description of the graph, which may have axes fixed.
    fn describe(&mut self) -> Result<(), EvaluationError> {
        let graph = self.session.with_session(|session| session.graph().clone())?;
        let largest_batch = self.signature.largest_batch;
        let described = resolve(&self.bundle, &graph, largest_batch);
        let described = described.map_err(|error| EvaluationError::Engine {
            engine: self.planned.engine,
            reason: error.to_string(),
        })?;
        // An engine may describe outputs without their axes, by which the output was found.
        let output = std::mem::take(&mut self.signature.output);
        self.signature = Signature { output, ..described };
        self.is_described = true;
        Ok(())
    }

    /// The backend, which the first evaluation sets.
    pub(super) fn proven_backend(&self) -> &ProvenBackend {
        &self.proven
    }

    fn log_backend(&self) {
        let (name, backend) = (&self.bundle.name, self.backend());
        log::info!(
            "model {name} runs on {} {} with {}, after {} ms",
            backend.engine,
            backend.version,
            backend.provider,
            self.created.elapsed().as_millis()
        );
        for share in &backend.provider_shares {
            log::info!("model {name}: {share}");
        }
        if backend.cuda_graph {
            log::info!("model {name}: evaluations are captured as CUDA graphs");
        }
    }
}

/// Returns the digest of a graph of the bundle, which is made when it is first needed.
pub(super) fn digest(bundle: &Bundle, graph: &Path, cache: &Path) -> GraphDigest {
    let (bundle, graph, cache) = (bundle.clone(), graph.to_owned(), cache.to_owned());
    Arc::new(move || Ok(bundle.digest(&graph, &cache)?))
}

impl Predictor for Denoiser {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn backend(&self) -> &Backend {
        self.proven.get().unwrap_or(&self.planned)
    }

    fn evaluate(&mut self, batch: &Batch, output: &mut Vec<f32>) -> Result<(), EvaluationError> {
        let started = Instant::now();
        let usual_shape = self.signature.input_shape();
        let shape = if batch.shape.is_empty() { &usual_shape } else { &batch.shape };
        let size = network_memory::evaluation_size(shape, batch.size());
        self.live.set_adaptations(&batch.adaptations);
        self.residuals.evaluate(&mut self.control_nets, batch, &self.signature)?;
        let live: Vec<_> = self.live.inputs(self.residuals.tensors()).collect();
        self.session.evaluate(size, |session| evaluate(session, &self.signature, live, batch, output))?;
        log::debug!(
            "evaluated {} with a batch of {} in {} ms",
            self.bundle.name,
            batch.size(),
            started.elapsed().as_millis()
        );
        if !self.is_proven {
            self.is_proven = true;
            self.log_backend();
            // The first evaluation may have selected another provider.
            self.describe()?;
        }
        Ok(())
    }

    fn prepare_control_nets(&mut self, evaluates: bool) -> Result<(), EvaluationError> {
        self.control_nets.iter().try_for_each(|net| net.prepare(evaluates))
    }

    fn open(&mut self) -> Result<(), EvaluationError> {
        if self.is_described { Ok(()) } else { self.describe() }
    }

    fn is_open(&self) -> bool {
        self.session.is_open()
    }

    fn memory(&self) -> Option<&Arc<SessionMemory>> {
        Some(self.session.memory())
    }

    fn captures_shapes(&self) -> bool {
        self.capture.is_capturing()
    }

    fn padded_batch(&self, samples: usize, sample: &[usize]) -> usize {
        let samples = samples.max(self.signature.smallest_batch());
        if self.captures_shapes() { padded_batch(samples, self.largest_batch(sample)) } else { samples }
    }
}

/// The signature of a bundle's network by its ONNX file.
pub(super) fn signature(bundle: &Bundle, options: &EngineOptions) -> Result<Signature, ModelError> {
    resolve(bundle, &bundle.files(&bundle.graph)?.header.io, options.batch)
}

fn resolve(bundle: &Bundle, graph: &GraphIo, largest_batch: usize) -> Result<Signature, ModelError> {
    Signature::resolve(graph, &bundle.manifest, bundle.network, largest_batch)
        .map_err(|error| ModelError::Signature { graph: bundle.graph.clone(), error })
}

fn evaluate(
    session: &mut dyn Session,
    signature: &Signature,
    live: Vec<Input<'_>>,
    batch: &Batch,
    output: &mut Vec<f32>,
) -> Result<(), EvaluationError> {
    let n = batch.size();
    let usual_shape = signature.input_shape();
    let input_shape = if batch.shape.is_empty() { &usual_shape } else { &batch.shape };
    let per_sample = |axes: &[usize]| [&[n], axes].concat();
    let (times, time_shape): (_, &[usize]) = match signature.time.shape {
        TimestepShape::PerSample => (&batch.times[..], &[n]),
        TimestepShape::Single => (&batch.times[..1], &[1]),
        TimestepShape::Scalar => (&batch.times[..1], &[]),
    };
    let converted: Vec<f64>;
    let times = if signature.time.convention == TimeConvention::Step {
        times
    } else {
        converted = times.iter().map(|t| signature.time.convention.convert(*t)).collect();
        &converted
    };
    let mut inputs = vec![
        Input::new(&signature.sample, signature.layout.axes(n, input_shape), Values::F32(&batch.samples)),
        Input::new(&signature.time.name, time_shape, Values::F64(times)),
    ];
    if let Some((name, _)) = &signature.class {
        inputs.push(Input::new(name, [n], Values::I64(&batch.classes)));
    }
    for ((name, _), values) in signature.conditions.iter().zip(&batch.conditions) {
        inputs.push(Input::new(name, [n], Values::F32(values)));
    }
    for (input, tensor) in signature.tensors.iter().zip(&batch.tensors) {
        let shape = if input.is_shared { tensor.shape.clone() } else { per_sample(&tensor.shape) };
        inputs.push(Input::new(&input.name, shape, Values::F32(&tensor.data)));
    }
    inputs.extend(live);
    let result = session.run(&inputs, &signature.output, output);
    match result {
        Err(EvaluationError::Engine { engine, reason }) if *input_shape != usual_shape => {
            let usual = sides(&usual_shape);
            let reason = format!(
                "samples of {} fail in the network, whose own are {usual}: {reason}",
                sides(input_shape)
            );
            Err(EvaluationError::Engine { engine, reason })
        }
        result => {
            result?;
            if signature.negates_output {
                output.iter_mut().for_each(|x| *x = -*x);
            }
            Ok(())
        }
    }
}

/// The size of a sample in words.
fn sides(shape: &[usize]) -> String {
    match shape {
        [_, height, width] => format!("{width}×{height} latents"),
        [patches, _] => format!("{patches} patches"),
        other => format!("the shape {other:?}"),
    }
}
