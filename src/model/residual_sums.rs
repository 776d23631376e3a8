//! The residuals of all ControlNets for a batch, added up for the inputs of the U-Net.

use super::Batch;
use super::control_net::{ControlNetSession, ControlledRow};
use crate::bundle::Signature;
use crate::inference::EvaluationError;
use crate::tensor::Tensor;

/// One tensor [batch, channels, height, width] for each residual, in buffers that are reused. Rows without control are zeros.
#[derive(Debug, Default)]
pub(super) struct ResidualSums {
    sums: Vec<Tensor>,
    /// Whether any row is controlled.
    is_active: bool,
    outputs: Vec<Vec<f32>>,
}

impl ResidualSums {
    /// The sums; none if no row is controlled.
    pub(super) fn tensors(&self) -> &[Tensor] {
        if self.is_active { &self.sums } else { &[] }
    }

    /// Evaluates each net for the rows whose controls count, and adds up what it returns.
    pub(super) fn evaluate(
        &mut self,
        nets: &mut [ControlNetSession],
        batch: &Batch,
        signature: &Signature,
    ) -> Result<(), EvaluationError> {
        self.is_active = false;
        let count = signature.live.residuals.len();
        for (index, net) in nets.iter_mut().enumerate() {
            let controls = batch.controls.iter().enumerate();
            let rows = controls.filter_map(|(row, sample)| Some((row, sample.as_ref()?)));
            let active = rows
                .flat_map(|(row, sample)| sample.active(index).map(move |control| (row, sample, control)));
            let mut active: Vec<_> = active.collect();
            if !net.mixes_time_steps() {
                active.sort_by(|(one, ..), (other, ..)| batch.times[*one].total_cmp(&batch.times[*other]));
            }
            let shape = &signature.sample_shape;
            let own_shape = batch.shape.get(1..).map_or(shape.clone(), |sides| [&shape[..1], sides].concat());
            let largest = net.largest_batch(&own_shape, active.len());
            let mut rest = &active[..];
            while let Some((first, ..)) = rest.first() {
                let time = batch.times[*first];
                let fits = |(row, ..): &&(usize, _, _)| net.mixes_time_steps() || batch.times[*row] == time;
                let len = rest.iter().take(largest).take_while(fits).count();
                let (chunk, others) = rest.split_at(len);
                rest = others;
                let rows: Vec<_> =
                    chunk.iter().map(|(row, _, control)| ControlledRow { row: *row, control }).collect();
                let shapes = net.evaluate(&rows, batch, signature, &mut self.outputs)?;
                if !std::mem::replace(&mut self.is_active, true) {
                    self.clear(count);
                }
                for (i, (shape, output)) in shapes.iter().zip(&self.outputs).enumerate() {
                    let len = shape[1..].iter().product::<usize>();
                    for ((row, sample, control), residual) in chunk.iter().zip(output.chunks(len)) {
                        let factor = sample.factor(control, net.net.pools, i, count);
                        let one = Residual { values: residual, shape: &shape[1..], pools: net.net.pools };
                        add(&mut self.sums[i], batch.size(), *row, one, factor);
                    }
                }
            }
        }
        Ok(())
    }

    fn clear(&mut self, count: usize) {
        self.sums.resize_with(count, Tensor::default);
        for sum in &mut self.sums {
            sum.shape.clear();
            sum.data.clear();
        }
    }
}

/// A residual of one row, [channels, height, width].
#[derive(Debug, Clone, Copy)]
struct Residual<'a> {
    values: &'a [f32],
    shape: &'a [usize],
    /// Whether its mean over height and width counts.
    pools: bool,
}

/// Adds a residual of a row, multiplied by a factor. A mean counts in each place.
fn add(sum: &mut Tensor, rows: usize, row: usize, residual: Residual<'_>, factor: f32) {
    let Residual { values, shape, pools } = residual;
    let (channels, plane) = (shape[0], shape[1] * shape[2]);
    let sides = if pools { [1, 1] } else { [shape[1], shape[2]] };
    if sum.shape.is_empty() {
        sum.shape = vec![rows, channels, sides[0], sides[1]];
        sum.data.resize(rows * channels * sides[0] * sides[1], 0.0);
    }
    let own_plane = sum.shape[2] * sum.shape[3];
    if own_plane == 1 && sides[0] * sides[1] > 1 {
        let len = sides[0] * sides[1];
        sum.data = sum.data.iter().flat_map(|x| std::iter::repeat_n(*x, len)).collect();
        sum.shape[2..].copy_from_slice(&sides);
    }
    let own_plane = sum.shape[2] * sum.shape[3];
    let own = &mut sum.data[row * channels * own_plane..][..channels * own_plane];
    for (own, values) in own.chunks_mut(own_plane).zip(values.chunks(plane)) {
        if pools || plane == 1 {
            let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / plane as f64;
            own.iter_mut().for_each(|x| *x += factor * mean as f32);
        } else {
            own.iter_mut().zip(values).for_each(|(x, value)| *x += factor * value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn residual<'a>(values: &'a [f32], shape: &'a [usize], pools: bool) -> Residual<'a> {
        Residual { values, shape, pools }
    }

    #[test]
    fn rows_without_control_are_zeros() {
        let mut sum = Tensor::default();
        add(&mut sum, 2, 1, residual(&[1.0, 2.0, 3.0, 4.0], &[2, 1, 2], false), 0.5);
        add(&mut sum, 2, 1, residual(&[1.0; 4], &[2, 1, 2], false), 1.0);
        assert_eq!(sum, Tensor::new([2, 2, 1, 2], vec![0.0, 0.0, 0.0, 0.0, 1.5, 2.0, 2.5, 3.0]));
    }

    #[test]
    fn means_are_added_in_each_place() {
        let mut sum = Tensor::default();
        add(&mut sum, 1, 0, residual(&[1.0, 3.0, 5.0, 7.0], &[2, 1, 2], true), 1.0);
        assert_eq!(sum, Tensor::new([1, 2, 1, 1], vec![2.0, 6.0]));
        add(&mut sum, 1, 0, residual(&[1.0, 2.0, 3.0, 4.0], &[2, 1, 2], false), 1.0);
        assert_eq!(sum, Tensor::new([1, 2, 1, 2], vec![3.0, 4.0, 9.0, 10.0]));
        add(&mut sum, 1, 0, residual(&[10.0, 20.0], &[2, 1, 1], true), 1.0);
        assert_eq!(sum.data, [13.0, 14.0, 29.0, 30.0]);
    }
}
