//! The types of a graph's weights.

use std::collections::BTreeMap;
use std::path::Path;

use super::BundleError;
use crate::onnx::Topology;
use crate::tensor::ElementType;

/// A type with a smaller share of the weights, in percent, is not named.
const MIN_PERCENT: u64 = 5;

/// Returns the types of the weights, such as `float16`, the most frequent first.
pub(crate) fn weight_types(graph: &Path) -> Result<String, BundleError> {
    let mut counts = BTreeMap::<ElementType, u64>::new();
    let graph = Topology::read(graph)?;
    for weight in graph.weights.values().filter(|weight| weight.element.is_of_weights()) {
        let lengths = weight.shape.iter().map(|length| u64::try_from(*length).unwrap_or(0));
        *counts.entry(weight.element).or_default() += lengths.fold(1, u64::saturating_mul);
    }
    let all: u64 = counts.values().sum();
    let mut counts: Vec<_> =
        counts.into_iter().filter(|(_, count)| count * 100 >= all * MIN_PERCENT).collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let names: Vec<_> = counts.iter().map(|(kind, _)| kind.to_string()).collect();
    Ok(if names.is_empty() { "no weights".to_owned() } else { names.join(" and ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str) -> String {
        weight_types(&Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
    }

    #[test]
    fn the_types_of_weights_are_read_and_not_those_of_shapes() {
        assert_eq!(of("models/digits/unet/model.onnx"), "float32");
        assert_eq!(of("tests/golden/gaussian/unet/model.onnx"), "float64");
        assert!(weight_types(Path::new("/nonexistent.onnx")).is_err());
    }
}
