//! Which output of a denoiser's graph holds the prediction.

use super::error::list;
use super::{SampleLayout, SignatureError};
use crate::tensor::{Dim, GraphIo, ValueInfo};

/// The names that exporters give the prediction.
const OUTPUT_NAMES: [&str; 7] =
    ["out_sample", "out_hidden_states", "noise_pred", "sample", "prediction", "pred", "output"];

/// Finds the prediction for samples of the shape `own`: by the name in denoised.toml, else by the usual names, else by its
/// axes.
pub(super) fn prediction<'a>(
    graph: &'a GraphIo,
    named: Option<&str>,
    own: &[usize],
) -> Result<&'a ValueInfo, SignatureError> {
    let outputs = &graph.outputs;
    let fits = |output: &&ValueInfo| is_prediction(output, own);
    let found = match named {
        Some(name) => {
            let named = outputs.iter().find(|output| output.name == name);
            let missing = || SignatureError::NoOutput { name: name.to_owned(), outputs: list(outputs) };
            Some(named.ok_or_else(missing)?).filter(fits)
        }
        None => {
            let usual =
                OUTPUT_NAMES.iter().filter_map(|name| outputs.iter().find(|output| output.name == *name));
            usual.clone().find(fits).or_else(|| outputs.iter().find(fits))
        }
    };
    found.ok_or_else(|| SignatureError::NoSuitableOutput {
        expected: expected(own),
        outputs: list(outputs),
        advice: "Export the network again, or name the output in denoised.toml: [graph] output = \"NAME\"",
    })
}

/// Whether an output may have one or two values for each value of a sample. An output without declared axes may.
fn is_prediction(output: &ValueInfo, own: &[usize]) -> bool {
    if output.element.is_integer() {
        return false;
    }
    if output.shape.is_empty() {
        return true;
    }
    let channels = channels_axis(own);
    let fits = |(axis, (declared, length)): (usize, (&Dim, &usize))| match declared.length() {
        Some(fixed) if axis == channels => fixed == *length || fixed == 2 * length,
        // Other lengths depend on the job, or are checked at the first evaluation.
        _ => true,
    };
    let (_, axes) = SampleLayout::split(&output.shape, Some(own[channels]).filter(|_| own.len() == 3));
    axes.len() == own.len() + 1 && axes[1..].iter().zip(own).enumerate().all(fits)
}

/// How many values a prediction has per value of the samples, if the output declares its channels.
pub(super) fn outputs_per_value(output: &ValueInfo, own: &[usize]) -> Option<usize> {
    let channels = channels_axis(own);
    let declared = output.shape.get(channels + 1)?.length()?;
    Some(if declared == own[channels] { 1 } else { 2 })
}

/// The axis of a sample that holds its channels: the last one of packed latents.
fn channels_axis(own: &[usize]) -> usize {
    if own.len() == 2 { 1 } else { 0 }
}

fn expected(own: &[usize]) -> String {
    let channels = channels_axis(own);
    let axis = |(i, n): (usize, &usize)| {
        if i == channels { format!("{n} or {}", 2 * n) } else { "?".to_owned() }
    };
    let axes: Vec<_> = own.iter().enumerate().map(axis).collect();
    format!("a prediction with the axes [?, {}]", axes.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DataType;

    fn output(name: &str, shape: &[Option<usize>]) -> ValueInfo {
        ValueInfo::with_axes(name, DataType::F32, shape)
    }

    fn found(outputs: Vec<ValueInfo>, named: Option<&str>, own: &[usize]) -> Result<String, String> {
        let graph = GraphIo { inputs: Vec::new(), outputs };
        prediction(&graph, named, own).map(|o| o.name.clone()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_prediction_is_found_by_name_and_else_by_its_axes() {
        let image = [None, Some(4), None, None];
        let states = output("mid_states", &[None, None, Some(320)]);
        let both = || vec![states.clone(), output("y", &image)];
        assert_eq!(found(both(), None, &[4, 8, 8]).unwrap(), "y");
        let two = vec![output("attention", &image), output("out_sample", &image)];
        assert_eq!(found(two, None, &[4, 8, 8]).unwrap(), "out_sample");
        assert_eq!(found(vec![output("y", &[])], None, &[4, 8, 8]).unwrap(), "y");
        let learned = vec![output("y", &[None, Some(8), None, None])];
        assert_eq!(found(learned, None, &[4, 8, 8]).unwrap(), "y");
        let packed = vec![output("a", &[None, None, Some(16)]), output("b", &[None, None, Some(64)])];
        assert_eq!(found(packed, None, &[256, 64]).unwrap(), "b");
    }

    #[test]
    fn declared_channels_are_those_of_the_samples_or_twice_as_many() {
        let declared = |shape: &[Option<usize>], own: &[usize]| outputs_per_value(&output("y", shape), own);
        assert_eq!(declared(&[None, Some(4), None, None], &[4, 8, 8]), Some(1));
        assert_eq!(declared(&[None, Some(8), None, None], &[4, 8, 8]), Some(2));
        assert_eq!(declared(&[None, None, Some(64)], &[256, 64]), Some(1));
        assert_eq!(declared(&[None, None, Some(8), Some(8)], &[4, 8, 8]), None);
        assert_eq!(declared(&[], &[4, 8, 8]), None);
    }

    #[test]
    fn an_output_that_is_no_prediction_is_refused() {
        let wrong = || vec![output("y", &[None, Some(3), None, None])];
        for named in [None, Some("y")] {
            let error = found(wrong(), named, &[4, 8, 8]).unwrap_err();
            assert!(
                error.contains("[?, 4 or 8, ?, ?]") && error.contains("y float32[?, 3, ?, ?]"),
                "{error}"
            );
        }
        let error = found(wrong(), Some("z"), &[4, 8, 8]).unwrap_err();
        assert!(error.contains("\"z\"") && error.contains("its outputs are: y"), "{error}");
    }
}
