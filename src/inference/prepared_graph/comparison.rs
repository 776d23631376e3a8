//! Compares the outputs of the exported and of the prepared graph on one small input.

use crate::inference::error::EvaluationError;
use crate::inference::graph_source::Warmup;
use crate::inference::provider::InputShapes;
use crate::inference::session::{Input, Session, Values};
use crate::tensor::{DataType, Dim, GraphIo};

/// The largest root mean square of the differences, relative to that of the exported graph's output.
///
/// Exports in float16 round every intermediate value to 11 bits, the prepared graph does not: SD 1.5's UNet differs by
/// 1e-3, deeper networks by several times that. A wrong weight type, a wrong scale or a missing mask differ by 0.1 or more.
const TOLERANCE: f64 = 0.02;

/// The length of the axes of an image in the comparison. Networks halve images up to three times.
const SIDE: usize = 8;

/// The inputs to compare with, the smallest first: dynamic axes of images are as small as most networks allow. The last
/// are those of the warm-up, which every graph takes.
pub(super) fn input_shapes(declared: &GraphIo, warmup: &Warmup) -> Vec<InputShapes> {
    let Some(usual) = warmup.shapes.last() else { return Vec::new() };
    let smaller = InputShapes(
        usual.0.iter().map(|(name, shape)| (name.clone(), shrunk(declared, name, shape))).collect(),
    );
    if smaller == *usual { vec![smaller] } else { vec![smaller, usual.clone()] }
}

fn shrunk(declared: &GraphIo, name: &str, shape: &[usize]) -> Vec<usize> {
    let mut shape = shape.to_vec();
    let Some(input) = declared.inputs.iter().find(|input| input.name == name) else { return shape };
    if let ([_, _, height, width], [_, _, Dim::Dynamic, Dim::Dynamic]) = (&mut shape[..], &input.shape[..]) {
        *height = (*height).min(SIDE);
        *width = (*width).min(SIDE);
    }
    shape
}

/// Evaluates a graph on fixed values. No value is 0, so that every weight has an effect.
pub(super) fn evaluate(
    session: &mut dyn Session,
    declared: &GraphIo,
    shapes: &InputShapes,
    output: &str,
) -> Result<Vec<f32>, EvaluationError> {
    let values: Vec<Vec<f32>> = shapes
        .0
        .iter()
        .map(|(name, shape)| values(is_integer(declared, name), shape.iter().product()))
        .collect();
    let inputs = shapes.0.iter().zip(&values);
    let inputs: Vec<_> =
        inputs.map(|((name, shape), values)| Input::new(name, shape.clone(), Values::F32(values))).collect();
    let mut result = Vec::new();
    session.run(&inputs, output, &mut result)?;
    Ok(result)
}

fn is_integer(declared: &GraphIo, name: &str) -> bool {
    let input = declared.inputs.iter().find(|input| input.name == name);
    input.is_some_and(|input| matches!(input.element, DataType::I64 | DataType::I32))
}

/// Indices are 1 and 0, which every table of two rows has; other values are spread over ±1.
fn values(integers: bool, len: usize) -> Vec<f32> {
    if integers {
        return (0..len).map(|i| ((i + 1) % 2) as f32).collect();
    }
    let mut random = fastrand::Rng::with_seed(1);
    (0..len).map(|_| (0.1 + 0.9 * random.f32()).copysign(random.f32() - 0.5)).collect()
}

/// Returns how an output differs from that of the exported graph. `None` if it is the same within the tolerance.
///
/// Values that are not finite in the exported graph are not compared: float16 overflows where float32 does not.
pub(super) fn difference(exported: &[f32], prepared: &[f32]) -> Option<String> {
    if exported.len() != prepared.len() {
        return Some(format!("it has {} values instead of {}", prepared.len(), exported.len()));
    }
    let pairs = || exported.iter().zip(prepared).filter(|(exported, _)| exported.is_finite());
    let sum = |square: fn((&f32, &f32)) -> f64| pairs().map(square).sum::<f64>();
    let norm = sum(|(exported, _)| f64::from(*exported).powi(2)).sqrt();
    let error = sum(|(exported, prepared)| (f64::from(*exported) - f64::from(*prepared)).powi(2)).sqrt();
    // Not finite if a value of the prepared graph is not.
    let is_equal = error <= TOLERANCE * norm;
    (!is_equal).then(|| {
        format!(
            "it differs by {:.1e} of its size, more than {TOLERANCE}",
            error / norm.max(f64::MIN_POSITIVE)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::ValueInfo;

    #[test]
    fn images_shrink_where_their_axes_are_dynamic() {
        let input = |name: &str, shape: &[Dim]| ValueInfo {
            name: name.to_owned(),
            element: DataType::F32,
            shape: shape.to_vec(),
        };
        let dynamic = [Dim::Dynamic, Dim::Fixed(4), Dim::Dynamic, Dim::Dynamic];
        let fixed = [Dim::Dynamic, Dim::Fixed(4), Dim::Fixed(64), Dim::Fixed(64)];
        let declared =
            |shape| GraphIo { inputs: vec![input("sample", shape), input("t", &[])], outputs: Vec::new() };
        let usual = InputShapes(vec![("sample".to_owned(), vec![1, 4, 64, 96]), ("t".to_owned(), vec![])]);
        let warmup = Warmup { shapes: vec![usual.clone()], ..Warmup::default() };
        let smaller = InputShapes(vec![("sample".to_owned(), vec![1, 4, 8, 8]), ("t".to_owned(), vec![])]);
        assert_eq!(input_shapes(&declared(&dynamic), &warmup), [smaller, usual.clone()]);
        assert_eq!(input_shapes(&declared(&fixed), &warmup), [usual]);
        assert_eq!(input_shapes(&declared(&fixed), &Warmup::default()), []);
    }

    #[test]
    fn rounding_is_no_difference_and_errors_are() {
        let exported = values(false, 1000);
        assert!(exported.iter().all(|value| (0.1..=1.0).contains(&value.abs())));
        assert!(exported.iter().any(|value| *value < 0.0) && exported.iter().any(|value| *value > 0.0));
        let rounded: Vec<f32> = exported.iter().map(|value| half::f16::from_f32(*value).to_f32()).collect();
        assert_eq!(difference(&exported, &rounded), None);
        assert!(difference(&exported, &rounded[1..]).is_some());
        let scaled: Vec<f32> = exported.iter().map(|value| value * 1.1).collect();
        assert!(difference(&exported, &scaled).unwrap().contains("1.0e-1"));
        let mut broken = exported.clone();
        broken[7] = f32::NAN;
        assert!(difference(&exported, &broken).is_some());
        assert_eq!(difference(&broken, &exported), None);
    }
}
