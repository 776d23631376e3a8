//! A batch of samples with their time steps and conditions.

use std::sync::Arc;

use super::control::SampleControls;
use super::live_feed::Adaptation;
use crate::bundle::{Manifest, Role, Signature, TensorInput};
use crate::tensor::Tensor;

/// Samples with their time steps and conditions, in buffers that are reused.
#[derive(Debug, Default)]
pub struct Batch {
    /// The shape of each sample as the network takes it. If it is empty, samples have the signature's shape.
    pub shape: Vec<usize>,
    /// The samples, one after the other.
    pub samples: Vec<f32>,
    /// The time step of each sample.
    pub times: Vec<f64>,
    /// The class label of each sample; 0 if the network takes none.
    pub classes: Vec<i64>,
    /// For each condition of the manifest, the value of each sample.
    pub conditions: Vec<Vec<f32>>,
    /// For each of the signature's tensors, the shape for one sample and the values of all samples.
    pub tensors: Vec<Tensor>,
    /// The LoRAs of each sample.
    pub adaptations: Vec<Option<Arc<Adaptation>>>,
    /// The pictures that steer each sample.
    pub controls: Vec<Option<SampleControls>>,
}

impl Batch {
    /// A batch of zeros in the usual shapes, whose texts have no padding, with the default values of the conditions.
    pub(super) fn zeros(signature: &Signature, manifest: &Manifest, samples: usize) -> Self {
        let shape = signature.input_shape();
        let len = shape.iter().product();
        let tensor = |input: &TensorInput| {
            let mut tensor = Tensor::zeros(input.usual_shape(&signature.sample_shape));
            if input.role == Role::TextMask {
                tensor.data.fill(1.0);
            }
            tensor
        };
        let tensors: Vec<Tensor> = signature.tensors.iter().map(tensor).collect();
        let mut batch = Self { shape, ..Self::default() };
        for _ in 0..samples {
            batch.push(|x| x.extend(std::iter::repeat_n(0.0, len)), 0.0, 0, manifest);
            batch.set_tensors(&signature.tensors, &tensors);
        }
        batch
    }

    /// The number of samples.
    pub fn size(&self) -> usize {
        self.times.len()
    }

    /// Removes all samples. The buffers keep their capacity.
    pub fn clear(&mut self) {
        self.samples.clear();
        self.times.clear();
        self.classes.clear();
        self.adaptations.clear();
        self.controls.clear();
        for condition in &mut self.conditions {
            condition.clear();
        }
        for tensor in &mut self.tensors {
            tensor.data.clear();
        }
    }

    /// Adds the sample that `write` appends, with the default values of the conditions.
    pub fn push(&mut self, write: impl FnOnce(&mut Vec<f32>), time: f64, class: i64, manifest: &Manifest) {
        write(&mut self.samples);
        self.times.push(time);
        self.classes.push(class);
        self.adaptations.push(None);
        self.controls.push(None);
        self.conditions.resize_with(manifest.conditions.len(), Vec::new);
        for (values, condition) in self.conditions.iter_mut().zip(manifest.conditions.values()) {
            values.push(condition.default as f32);
        }
    }

    /// Sets the LoRAs of the last sample.
    pub fn set_adaptation(&mut self, adaptation: Option<&Arc<Adaptation>>) {
        if let Some(last) = self.adaptations.last_mut() {
            *last = adaptation.cloned();
        }
    }

    /// Sets the pictures that steer the last sample.
    pub fn set_controls(&mut self, controls: Option<SampleControls>) {
        if let Some(last) = self.controls.last_mut() {
            *last = controls;
        }
    }

    /// Sets the conditions of the last sample.
    pub fn set_conditions(&mut self, values: &[f32]) {
        for (all, value) in self.conditions.iter_mut().zip(values) {
            if let Some(last) = all.last_mut() {
                *last = *value;
            }
        }
    }

    /// Adds the tensors of the last sample, in the signature's order. Tensors that all samples share are set by the first
    /// sample.
    pub fn set_tensors(&mut self, inputs: &[TensorInput], values: &[Tensor]) {
        self.tensors.resize_with(values.len(), Tensor::default);
        for ((all, tensor), input) in self.tensors.iter_mut().zip(values).zip(inputs) {
            if all.data.is_empty() || !input.is_shared {
                all.shape.clone_from(&tensor.shape);
                all.data.extend_from_slice(&tensor.data);
            }
        }
    }

    /// Adds a copy of the first sample, without its pictures: its output does not count.
    pub(crate) fn repeat_first(&mut self, inputs: &[TensorInput]) {
        let len = self.samples.len() / self.size().max(1);
        self.samples.extend_from_within(..len);
        self.times.push(self.times[0]);
        self.classes.push(self.classes[0]);
        self.adaptations.push(self.adaptations[0].clone());
        self.controls.push(None);
        for condition in &mut self.conditions {
            condition.push(condition[0]);
        }
        for (tensor, _) in self.tensors.iter_mut().zip(inputs).filter(|(_, input)| !input.is_shared) {
            let len: usize = tensor.shape.iter().product();
            tensor.data.extend_from_within(..len);
        }
    }
}
