//! The denoising network of a bundle, evaluated on batches.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Batch, ModelError, network_memory};
use crate::bundle::{Bundle, Manifest, Signature, TimestepShape};
use crate::inference::{
    Backend, EngineOptions, EvaluationError, GraphSource, Input, InputShapes, LoadStage, LoadedSession,
    MeasuredGraph, PooledSession, Provider, Session, SessionMemory, SessionPool, ShapeProfile, TensorRt,
    Values, Warmup, load, widens_float16,
};
use crate::tensor::GraphIo;

/// A network that can be evaluated.
pub trait Predictor: Send {
    /// How the network is fed and read.
    fn signature(&self) -> &Signature;

    /// The engine and provider that run the network.
    fn backend(&self) -> &Backend;

    /// Evaluates a batch whose length the signature allows. Replaces the contents of `output` by the predictions, one
    /// sample after the other.
    fn evaluate(&mut self, batch: &Batch, output: &mut Vec<f32>) -> Result<(), EvaluationError>;

    /// What is known of the network's memory.
    fn memory(&self) -> Option<&Arc<SessionMemory>> {
        None
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

/// The network of a bundle, in a session of the pool.
pub(super) struct Denoiser {
    session: PooledSession,
    signature: Signature,
    backend: Backend,
}

impl Denoiser {
    /// Opens the network. The pool opens it again whenever it was evicted.
    pub(super) fn open(
        bundle: &Bundle,
        options: &EngineOptions,
        pool: &SessionPool,
        on_stage: &mut dyn FnMut(LoadStage),
    ) -> Result<Self, ModelError> {
        let files = bundle.files(&bundle.graph)?;
        let bytes = files.peak_memory(widens_float16(options)?);
        pool.evict_for(bytes);
        network_memory::check_machine(&bundle.name, bytes, options)?;
        let (loaded, growth) =
            pool.measure_opening(&*options.host, || load_session(bundle, options, on_stage));
        let (LoadedSession { session, backend }, signature) = loaded?;
        let digests = bundle.digests()?;
        let graph = MeasuredGraph {
            sha256: digests.of(&bundle.graph),
            weights: files.peak_memory(backend.provider == Provider::Cpu.to_string()),
            values_per_token: network_memory::values_per_token(&signature),
        };
        let memory = SessionMemory::new(graph, &backend, options);
        if let Some(growth) = growth {
            growth.record(&memory);
        }
        let reopen = {
            let (bundle, options) = (bundle.clone(), options.clone());
            move || Ok(load_session(&bundle, &options, &mut |_| {})?.0.session)
        };
        let session = pool.insert(bundle.name.clone(), memory, Some(session), Box::new(reopen));
        Ok(Self { session, signature, backend })
    }
}

impl Predictor for Denoiser {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn backend(&self) -> &Backend {
        &self.backend
    }

    fn evaluate(&mut self, batch: &Batch, output: &mut Vec<f32>) -> Result<(), EvaluationError> {
        let usual_shape = self.signature.input_shape();
        let shape = if batch.shape.is_empty() { &usual_shape } else { &batch.shape };
        let size = network_memory::evaluation_size(shape, batch.size());
        self.session.evaluate(size, |session| evaluate(session, &self.signature, batch, output))?
    }

    fn memory(&self) -> Option<&Arc<SessionMemory>> {
        Some(self.session.memory())
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

/// Loads the network, and returns its signature by the engine's own description of the graph.
///
/// The shapes of the warm-up must be known before the engine opens the graph, so that they come from the ONNX file.
fn load_session(
    bundle: &Bundle,
    options: &EngineOptions,
    on_stage: &mut dyn FnMut(LoadStage),
) -> Result<(LoadedSession, Signature), ModelError> {
    let resolve = |graph: &GraphIo| resolve(bundle, graph, options.batch);
    let signature = signature(bundle, options)?;
    let (files, digests) = (bundle.files(&bundle.graph)?, bundle.digests()?);
    let source = GraphSource {
        name: bundle.name.clone(),
        files: &files,
        sha256: digests.of(&bundle.graph),
        profile: Some(shape_profile(&signature, &options.provider.tensorrt)),
        warmup: warmup(&signature, &bundle.manifest),
    };
    let loaded = load(&source, options, on_stage)?;
    // An engine may describe outputs without their axes, by which the output was found.
    let output = signature.output;
    let signature = Signature { output, ..resolve(loaded.session.graph())? };
    Ok((loaded, signature))
}

/// The batch sizes for which an engine is built.
fn shape_profile(signature: &Signature, options: &TensorRt) -> ShapeProfile {
    let (min, max) = (signature.smallest_batch(), signature.largest_batch);
    let batch =
        |configured: Option<u64>, default: usize| configured.map_or(default, |n| n as usize).clamp(min, max);
    let shapes = |batch: usize| InputShapes(signature.input_shapes(batch));
    ShapeProfile {
        min: shapes(batch(options.min_batch.map(|n| n.0), min)),
        opt: shapes(batch(options.opt_batch.map(|n| n.0), max)),
        max: shapes(max),
    }
}

/// Evaluations of zeros, one for each common batch size. The smallest size is evaluated twice, because the profile
/// counts the last evaluation, and the first one of a shape includes one-time work.
fn warmup(signature: &Signature, manifest: &Manifest) -> Warmup {
    let (min, max) = (signature.smallest_batch(), signature.largest_batch);
    let shapes =
        warmup_batches(min, max).chain([min]).map(|batch| InputShapes(signature.input_shapes(batch)));
    let conditions = signature.conditions.iter().zip(manifest.conditions.values());
    let constants: BTreeMap<_, _> =
        conditions.map(|((input, _), condition)| (input.clone(), condition.default as f32)).collect();
    Warmup { shapes: shapes.collect(), constants, output: signature.output.clone() }
}

/// How many of the smallest batch sizes are warmed up, besides the largest.
const WARMUP_SIZES: usize = 8;

/// The largest batch size, then the smallest ones in descending order.
fn warmup_batches(min: usize, max: usize) -> impl Iterator<Item = usize> {
    (min..=max).rev().filter(move |&size| size == max || size < min + WARMUP_SIZES)
}

fn evaluate(
    session: &mut dyn Session,
    signature: &Signature,
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
    let scaled: Vec<f64>;
    let times = if signature.time.timestep_scale == 1.0 {
        times
    } else {
        scaled = times.iter().map(|t| t / signature.time.timestep_scale).collect();
        &scaled
    };
    let mut inputs = vec![
        Input::new(&signature.sample, per_sample(input_shape), Values::F32(&batch.samples)),
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
        result => result.map(|_| ()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::{Role, TensorInput, TimeInput};
    use crate::tensor::{DataType, Dim};
    use crate::units::Bounded;

    #[test]
    fn the_warm_up_has_a_bounded_number_of_batch_sizes() {
        let sizes = |min, max| warmup_batches(min, max).collect::<Vec<_>>();
        assert_eq!(sizes(1, 3), [3, 2, 1]);
        assert_eq!(sizes(1, 1024), [1024, 8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(sizes(5, 5), [5]);
    }

    #[test]
    fn a_shape_profile_has_every_input() {
        let tensor = |name: &str, role, shape: &[Dim]| TensorInput {
            name: name.to_owned(),
            role,
            shape: shape.to_vec(),
            is_shared: role == Role::TextIds,
        };
        let signature = Signature {
            sample: "sample".to_owned(),
            sample_shape: vec![4, 8, 8],
            graph: GraphIo::default(),
            sample_element: DataType::F32,
            fixed_batch: None,
            largest_batch: 4,
            time: TimeInput {
                name: "timestep".to_owned(),
                element: DataType::I64,
                shape: TimestepShape::PerSample,
                timestep_scale: 1.0,
            },
            class: None,
            conditions: vec![("strength".to_owned(), DataType::F32)],
            tensors: vec![
                tensor("encoder_hidden_states", Role::Text, &[Dim::Dynamic, Dim::Fixed(32)]),
                tensor("txt_ids", Role::TextIds, &[Dim::Dynamic, Dim::Fixed(3)]),
            ],
            dynamic_size: true,
            extra_channels: 5,
            output: "out_sample".to_owned(),
        };
        let options = TensorRt { min_batch: Some(Bounded(2)), ..TensorRt::default() };
        let ShapeProfile { min, opt, max } = shape_profile(&signature, &options);
        let written = |batch: usize| {
            format!(
                "sample:{batch}x9x8x8,timestep:{batch},strength:{batch},encoder_hidden_states:{batch}x77x32,\
                 txt_ids:77x3"
            )
        };
        assert_eq!([min, opt, max].map(|shapes| shapes.to_string()), [2, 4, 4].map(written));
    }
}
