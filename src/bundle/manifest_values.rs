//! Values of denoised.toml that no model can have.

use std::collections::BTreeSet;

use super::{Classes, Condition, Manifest};

/// The largest size of the values that are drawn as black and white. The difference of two such values is far below an
/// overflow.
const MAX_RANGE: f32 = 1e30;

/// The first invalid value, as its key and the fault. `table` has the values as they are written.
pub(super) fn fault(manifest: &Manifest, table: &toml::Table) -> Option<(String, String)> {
    let steps = (manifest.default.steps == Some(0))
        .then(|| ("default.steps".to_owned(), "must be at least 1".to_owned()));
    let mut conditions = manifest.conditions.iter();
    let condition = || conditions.find_map(|(name, condition)| condition_fault(name, condition));
    let range = range_fault(manifest, table).map(|fault| ("sample.range".to_owned(), fault));
    range.or(steps).or_else(|| classes_fault(&manifest.classes)).or_else(condition)
}

fn range_fault(manifest: &Manifest, table: &toml::Table) -> Option<String> {
    let [low, high] = manifest.sample.range;
    let written = || {
        let range = table.get("sample").and_then(|sample| sample.get("range")?.as_array());
        let values = range.map(|range| range.iter().map(written_number).collect());
        let values: Vec<_> = values.unwrap_or_else(|| vec![low.to_string(), high.to_string()]);
        format!("[{}]", values.join(", "))
    };
    if [low, high].iter().any(|value| !(-MAX_RANGE..=MAX_RANGE).contains(value)) {
        let limit = format!("-{MAX_RANGE:e} and {MAX_RANGE:e}");
        return Some(format!("is {}; both values must be numbers between {limit}", written()));
    }
    (low >= high).then(|| format!("is {}; the first value must be smaller than the second", written()))
}

/// A number in short form, also a very large one.
fn written_number(number: &toml::Value) -> String {
    number.as_float().map_or_else(|| number.to_string(), |number| format!("{number:?}"))
}

fn condition_fault(name: &str, condition: &Condition) -> Option<(String, String)> {
    let Condition { default, min, max, .. } = *condition;
    let fault = |key: &str, fault: String| Some((format!("conditions.{name}.{key}"), fault));
    if min.is_nan() || max.is_nan() || min > max {
        return fault(
            "min",
            format!("is {min}, and max is {max}; it must be a number that is not more than max"),
        );
    }
    if !(default as f32).is_finite() {
        return fault(
            "default",
            format!("is {default}; the network takes 32-bit numbers, so use a smaller one"),
        );
    }
    if !(min..=max).contains(&default) {
        return fault("default", format!("is {default}, outside {min}..{max}"));
    }
    None
}

/// The label for no class has no name: it is no class that a job may choose.
fn classes_fault(classes: &Classes) -> Option<(String, String)> {
    let names = &classes.names;
    let null = classes.null.and_then(|null| usize::try_from(null).ok());
    if let (None, Some(label)) = (null, classes.null) {
        let fault = format!(
            "is {label}; a label is at least 0, so set the one that means no class, or remove the key"
        );
        return Some(("classes.null".to_owned(), fault));
    }
    if let Some((null, name)) = null.and_then(|null| Some((null, names.get(null)?)))
        && !name.is_empty()
    {
        let remedy = if null + 1 == names.len() { "remove this name" } else { "write \"\" as its name" };
        let fault = format!(
            "is {null}, the label of no class, which classes.names calls {name:?}; {remedy}, or correct the label"
        );
        return Some(("classes.null".to_owned(), fault));
    }
    let mut seen = BTreeSet::new();
    names.iter().enumerate().filter(|(label, _)| Some(*label) != null).find_map(|(label, name)| {
        let fault = match name.as_str() {
            "" => format!("has no name for the label {label}; only the label of classes.null may have none"),
            name if seen.insert(name) => return None,
            name => {
                let first = names.iter().position(|other| other == name).unwrap_or_default();
                format!("has {name:?} for the labels {first} and {label}; give each class a name of its own")
            }
        };
        Some(("classes.names".to_owned(), fault))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Manifest::parse(text).unwrap_err()
    }

    /// Pictures were all NaN, or all of one colour.
    #[test]
    fn a_range_without_end_was_valid() {
        for (range, expected) in [
            ("[-inf, inf]", "is [-inf, inf]; both values must be numbers between -1e30 and 1e30"),
            ("[0.0, 1e300]", "is [0.0, 1e300]; both values must be numbers between -1e30 and 1e30"),
            ("[nan, 1.0]", "is [NaN, 1.0]; both values must be numbers between -1e30 and 1e30"),
            (
                "[1.0, 1.00000000001]",
                "is [1.0, 1.00000000001]; the first value must be smaller than the second",
            ),
            ("[1.0, 0.0]", "is [1.0, 0.0]; the first value must be smaller than the second"),
        ] {
            let error = refused(&format!("[sample]\nrange = {range}"));
            assert_eq!(error, format!("sample.range {expected}"));
        }
        assert!(Manifest::parse("[sample]\nrange = [0, 65535]").is_ok());
    }

    /// The default was blamed for the range, and one that is infinite in 32 bits was fed to the network.
    #[test]
    fn a_condition_without_an_end_was_valid() {
        for (keys, expected) in [
            ("default = 0.0\nmin = 1.0\nmax = -1.0", "min is 1, and max is -1; it must be"),
            ("default = 0.0\nmax = nan", "min is -inf, and max is NaN; it must be"),
            ("default = inf", "default is inf; the network takes 32-bit numbers"),
            (
                "default = 1e39",
                "default is 1000000000000000000000000000000000000000; the network takes 32-bit",
            ),
            ("default = 2.0\nmax = 1.0", "default is 2, outside -inf..1"),
        ] {
            let error = refused(&format!("[conditions.mood]\n{keys}"));
            assert!(error.starts_with(&format!("conditions.mood.{expected}")), "{error}");
        }
    }

    /// A second class of a name could not be chosen by it, and that of no class could be chosen.
    #[test]
    fn names_of_classes_that_say_nothing_were_valid() {
        for (keys, expected) in [
            (
                "names = [\"cat\", \"dog\", \"none\"]\nnull = 2",
                "classes.null is 2, the label of no class, which classes.names calls \"none\"; remove this name, or \
                 correct the label",
            ),
            (
                "names = [\"none\", \"cat\"]\nnull = 0",
                "classes.null is 0, the label of no class, which classes.names calls \"none\"; write \"\" as its name, \
                 or correct the label",
            ),
            (
                "names = [\"cat\", \"dog\", \"cat\"]",
                "classes.names has \"cat\" for the labels 0 and 2; give each class a name of its own",
            ),
            (
                "names = [\"cat\", \"\"]",
                "classes.names has no name for the label 1; only the label of classes.null may have none",
            ),
            (
                "null = -1",
                "classes.null is -1; a label is at least 0, so set the one that means no class, or remove the key",
            ),
        ] {
            assert_eq!(refused(&format!("[classes]\n{keys}")), expected);
        }
        for keys in ["names = [\"\", \"cat\"]\nnull = 0", "names = [\"cat\", \"\"]\nnull = 1", "null = 3"] {
            assert!(Manifest::parse(&format!("[classes]\n{keys}")).is_ok(), "{keys}");
        }
    }
}
