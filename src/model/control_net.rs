//! The session of a ControlNet, evaluated on some rows of a batch.

use std::time::Instant;

use super::component_session::{ComponentGraph, Network, pooled_session};
use super::control::Control;
use super::{Batch, example_inputs, network_memory};
use crate::bundle::{Bundle, BundleError, ControlNet, PipelineKind, Signature, TimestepShape};
use crate::inference::{
    EngineOptions, EvaluationError, Input, OnStage, PooledSession, ProvenBackend, SessionPool, Values,
};

/// A ControlNet with its session.
pub(super) struct ControlNetSession {
    pub(super) net: ControlNet,
    session: PooledSession,
    /// The name and the usual shape of each input.
    usual_inputs: Vec<(String, Vec<usize>)>,
    buffers: Buffers,
}

/// The inputs of an evaluation, in buffers that are reused.
#[derive(Debug, Default)]
struct Buffers {
    samples: Vec<f32>,
    times: Vec<f64>,
    pictures: Vec<f32>,
    tensors: Vec<Vec<f32>>,
    scales: Vec<f32>,
}

/// A row of a batch, and a picture that steers it.
#[derive(Debug, Clone, Copy)]
pub(super) struct ControlledRow<'a> {
    pub(super) row: usize,
    pub(super) control: &'a Control,
}

impl ControlNetSession {
    /// Adds the session to the pool.
    pub(super) fn new(
        bundle: &Bundle,
        net: &ControlNet,
        signature: &Signature,
        options: &EngineOptions,
        pool: &SessionPool,
        network: &Network,
        on_stage: &OnStage,
    ) -> Result<Self, BundleError> {
        let factor = bundle.latent.as_ref().map_or(8, |latent| latent.vae.factor);
        let positions = PipelineKind::from_signature(signature).map(|kind| kind.facts().positions_per_token);
        let example = example_inputs::of_control_net(&net.io, signature, factor);
        let usual_inputs = example.shapes.0.clone();
        let graph = ComponentGraph {
            role: net.name.clone(),
            path: &net.graph,
            example,
            values_per_token: positions.map(|positions| (signature.sample_shape[0] * positions) as u64),
            captures: false,
            proven: ProvenBackend::default(),
        };
        let session = pooled_session(bundle, graph, options, pool, network, on_stage)?;
        Ok(Self { net: net.clone(), session, usual_inputs, buffers: Buffers::default() })
    }

    /// The most rows of one evaluation, for samples of this shape without extra channels.
    pub(super) fn largest_batch(&self, sample: &[usize], rows: usize) -> usize {
        if let Some(fixed) = self.net.io.fixed_batch {
            return fixed;
        }
        self.session.memory().largest_batch(sample.iter().product::<usize>() as u64, 1, rows.max(1))
    }

    /// Whether rows at different time steps share an evaluation.
    pub(super) fn mixes_time_steps(&self) -> bool {
        self.net.io.time_shape == TimestepShape::PerSample
    }

    /// Opens the session, and evaluates it with zeros if `evaluates`; then closes it.
    pub(super) fn prepare(&self, evaluates: bool) -> Result<(), EvaluationError> {
        self.session.with_session(|_| ()).map_err(|error| self.named(error))?;
        if evaluates {
            let inputs = &self.usual_inputs;
            let zeros: Vec<_> = inputs.iter().map(|(_, shape)| vec![0.0; shape.iter().product()]).collect();
            let inputs: Vec<_> = inputs
                .iter()
                .zip(&zeros)
                .map(|((name, shape), zeros)| Input::new(name, shape.clone(), Values::F32(zeros)))
                .collect();
            let names = [self.net.io.residuals[0].as_str()];
            let run =
                self.session.with_session(|session| session.run_all(&inputs, &names, &mut [Vec::new()]));
            run.and_then(|result| result).map_err(|error| self.named(error))?;
        }
        self.session.close();
        Ok(())
    }

    /// Evaluates the net for rows of a batch, no more than its largest. Replaces the contents of `outputs` by the residuals
    /// of all rows, and returns their shapes.
    pub(super) fn evaluate(
        &mut self,
        rows: &[ControlledRow<'_>],
        batch: &Batch,
        signature: &Signature,
        outputs: &mut Vec<Vec<f32>>,
    ) -> Result<Vec<Vec<usize>>, EvaluationError> {
        let started = Instant::now();
        let usual_shape = signature.input_shape();
        let shape = if batch.shape.is_empty() { &usual_shape } else { &batch.shape };
        let own = signature.own_len(shape);
        let sample = [&[shape[0] - signature.extra_channels], &shape[1..]].concat();
        // What is missing of a fixed batch is a copy of the first row.
        let padding = self.net.io.fixed_batch.map_or(0, |fixed| fixed.saturating_sub(rows.len()));
        let fed: Vec<_> = rows.iter().chain(std::iter::repeat_n(&rows[0], padding)).copied().collect();
        self.buffers.gather(&self.net, &fed, batch, own);
        outputs.resize_with(self.net.io.residuals.len(), Vec::new);
        let Self { net, session, buffers, .. } = &*self;
        let inputs = buffers.inputs(net, fed.len(), &sample, &fed[0].control.picture.shape, batch);
        let names: Vec<_> = net.io.residuals.iter().map(String::as_str).collect();
        let size = network_memory::evaluation_size(&sample, fed.len());
        let evaluated = session.evaluate(size, |session| session.run_all(&inputs, &names, outputs));
        let shapes = evaluated.map_err(|error| self.named(error))?;
        for ((shape, name), input) in shapes.iter().zip(&names).zip(&signature.live.residuals) {
            let channels = input.channels().or(shape.get(1).copied()).unwrap_or(1);
            let fits = matches!(shape[..], [batch, own, _, _] if batch == fed.len() && own == channels);
            if !fits {
                let expected = format!("[{}, {channels}, …, …]", fed.len());
                let output = format!("{name} of the ControlNet {}", self.net.name);
                return Err(EvaluationError::OutputShape { output, expected, found: shape.clone() });
            }
        }
        log::debug!(
            "evaluated {} with a batch of {} in {} ms",
            self.net.name,
            fed.len(),
            started.elapsed().as_millis()
        );
        Ok(shapes)
    }

    /// Adds the net's name to an engine's error. Errors of opening name the file.
    fn named(&self, error: EvaluationError) -> EvaluationError {
        match error {
            EvaluationError::Engine { engine, reason } => EvaluationError::Engine {
                engine,
                reason: format!("the ControlNet {}: {reason}", self.net.name),
            },
            error => error,
        }
    }
}

impl Buffers {
    /// Copies the inputs of the rows.
    fn gather(&mut self, net: &ControlNet, rows: &[ControlledRow<'_>], batch: &Batch, own: usize) {
        let each = batch.samples.len() / batch.size();
        self.samples.clear();
        self.times.clear();
        self.pictures.clear();
        self.tensors.resize_with(net.io.tensors.len(), Vec::new);
        self.tensors.iter_mut().for_each(Vec::clear);
        for ControlledRow { row, control } in rows {
            // The first channels are the sample's own; a mask and the masked image come after them.
            self.samples.extend_from_slice(&batch.samples[row * each..][..own]);
            self.times.push(batch.times[*row]);
            self.pictures.extend_from_slice(&control.picture.data);
            for (values, (_, index)) in self.tensors.iter_mut().zip(&net.io.tensors) {
                let tensor = &batch.tensors[*index];
                let len: usize = tensor.shape.iter().product();
                values.extend_from_slice(&tensor.data[row * len..][..len]);
            }
        }
        // All scaling is done after the evaluation.
        self.scales.clear();
        self.scales.resize(net.io.scale_shape(rows.len()).iter().product(), 1.0);
    }

    fn inputs<'a>(
        &'a self,
        net: &'a ControlNet,
        rows: usize,
        sample: &[usize],
        picture: &[usize],
        batch: &Batch,
    ) -> Vec<Input<'a>> {
        let per_row = |shape: &[usize]| [&[rows], shape].concat();
        let (times, time_shape) = match net.io.time_shape {
            TimestepShape::PerSample => (&self.times[..], vec![rows]),
            TimestepShape::Single => (&self.times[..1], vec![1]),
            TimestepShape::Scalar => (&self.times[..1], Vec::new()),
        };
        let mut inputs = vec![
            Input::new(&net.io.sample, per_row(sample), Values::F32(&self.samples)),
            Input::new(&net.io.time, time_shape, Values::F64(times)),
            Input::new(&net.io.picture, per_row(picture), Values::F32(&self.pictures)),
        ];
        if let Some((name, _)) = &net.io.scale {
            inputs.push(Input::new(name, net.io.scale_shape(rows), Values::F32(&self.scales)));
        }
        for ((name, index), values) in net.io.tensors.iter().zip(&self.tensors) {
            inputs.push(Input::new(name, per_row(&batch.tensors[*index].shape), Values::F32(values)));
        }
        inputs
    }
}
