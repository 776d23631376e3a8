//! Checks what a captured CUDA graph computes.

use crate::inference::session::{Input, Values};

/// The largest difference of a value, as a share of the largest value. Kernels that add in any order stay far below it; a
/// graph that reads memory that it no longer owns does not.
const TOLERANCE: f32 = 1e-2;

/// Other values for inputs: zeros, or ones in place of zeros. A graph is captured with them, so that a replay shows whether
/// it has kept a value of an input.
pub(crate) struct OtherValues {
    zeros: Vec<f32>,
    ones: Vec<f32>,
    /// Integers are indices, of which only 0 is known to exist.
    indices: Vec<i64>,
}

impl OtherValues {
    pub(crate) fn new(inputs: &[Input<'_>]) -> Self {
        let max = inputs.iter().map(|input| input.values.len()).max().unwrap_or(0);
        Self { zeros: vec![0.0; max], ones: vec![1.0; max], indices: vec![0; max] }
    }

    /// The inputs that [`Self::new`] had, with other values.
    pub(crate) fn of<'a>(&'a self, inputs: &[Input<'a>]) -> Vec<Input<'a>> {
        let other = |input: &Input<'a>| {
            let len = input.values.len();
            let is_zero = match input.values {
                Values::F32(values) => values.iter().all(|x| *x == 0.0),
                Values::F64(values) => values.iter().all(|x| *x == 0.0),
                Values::I64(_) => return Values::I64(&self.indices[..len]),
            };
            Values::F32(if is_zero { &self.ones[..len] } else { &self.zeros[..len] })
        };
        inputs.iter().map(|input| Input::new(input.name, input.shape.clone(), other(input))).collect()
    }
}

/// Returns by how much a replay differs from an evaluation of the same inputs, if that is too much. Both have one vector
/// for each output.
pub(crate) fn difference(evaluated: &[Vec<f32>], replayed: &[Vec<f32>]) -> Option<f32> {
    let max = evaluated.iter().flatten().map(|x| x.abs()).filter(|x| x.is_finite()).fold(0.0, f32::max);
    let mut worst = 0.0_f32;
    for (evaluated, replayed) in evaluated.iter().zip(replayed) {
        if evaluated.len() != replayed.len() {
            return Some(f32::INFINITY);
        }
        for (a, b) in evaluated.iter().zip(replayed) {
            if a == b || (a.is_nan() && b.is_nan()) {
                continue;
            }
            let distance = (a - b).abs();
            worst = worst.max(if distance.is_nan() { f32::INFINITY } else { distance });
        }
    }
    (worst > TOLERANCE * max).then_some(worst)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_values_differ_but_for_indices() {
        let inputs = [
            Input::new("sample", [2, 2], Values::F32(&[0.0, 1.0, 2.0, 3.0])),
            Input::new("timestep", [2], Values::F64(&[0.0, 0.0])),
            Input::new("class", [1], Values::I64(&[7])),
        ];
        let other = OtherValues::new(&inputs);
        let other = other.of(&inputs);
        assert!(other.iter().zip(&inputs).all(|(a, b)| a.name == b.name && a.shape == b.shape));
        assert!(matches!(other[0].values, Values::F32([0.0, 0.0, 0.0, 0.0])));
        assert!(matches!(other[1].values, Values::F32([1.0, 1.0])));
        assert!(matches!(other[2].values, Values::I64([0])));
    }

    #[test]
    fn only_a_large_difference_counts() {
        let evaluated = [vec![1.0, -4.0, f32::NAN], vec![f32::INFINITY]];
        assert_eq!(difference(&evaluated, &evaluated.clone()), None);
        let replayed = |x, nan| [vec![1.0, x, nan], vec![f32::INFINITY]];
        assert_eq!(difference(&evaluated, &replayed(-4.03, f32::NAN)), None);
        assert_eq!(difference(&evaluated, &replayed(-4.5, f32::NAN)), Some(0.5));
        assert_eq!(difference(&evaluated, &replayed(-4.0, 1.0)), Some(f32::INFINITY));
        assert_eq!(difference(&[vec![0.0]], &[vec![1e-6]]), Some(1e-6));
        assert_eq!(difference(&[vec![0.0]], &[vec![]]), Some(f32::INFINITY));
    }
}
