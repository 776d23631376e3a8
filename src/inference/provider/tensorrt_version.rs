//! What the versions of TensorRT make of its options.

use super::TensorRt;

/// The last version that runs networks on a DLA.
const LAST_WITH_DLA: (u32, u32) = (10, 7);
/// The first version that computes in the types of the graph only.
const STRONGLY_TYPED: u32 = 11;

/// Parses the first two numbers of a version. The second may be missing.
fn numbers(version: &str) -> Option<(u32, Option<u32>)> {
    let mut numbers = version.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next().and_then(Result::ok)))
}

impl TensorRt {
    /// Returns the options that this version ignores, each with the reason and what to do.
    pub(crate) fn ignored_by(&self, version: &str) -> Vec<String> {
        let Some((major, minor)) = numbers(version) else { return Vec::new() };
        let mut ignored = Vec::new();
        if major >= STRONGLY_TYPED {
            let reason = format!("has no effect: TensorRT {major} computes in the types of the graph");
            if self.fp16 {
                ignored.push(format!("fp16 {reason}; export the model in float16"));
            }
            if self.int8 {
                ignored.push(format!("int8 {reason}; export a quantised model (QuantizeLinear)"));
            }
        }
        if self.dla_core.is_some() && minor.is_some_and(|minor| (major, minor) > LAST_WITH_DLA) {
            ignored.push(format!(
                "dla_core has no effect: TensorRT {version} has no DLA, 10.7 was the last version with it; remove the key"
            ));
        }
        ignored
    }

    /// Returns the types in which this version computes, given those of the graph's weights.
    pub(crate) fn precision(&self, version: &str, weights: &str) -> String {
        let is_ignored = numbers(version).is_some_and(|(major, _)| major >= STRONGLY_TYPED);
        let options: Vec<_> = [("float16", "fp16", self.fp16), ("int8", "int8", self.int8)]
            .into_iter()
            .filter(|o| o.2)
            .collect();
        let join = |of: fn(&(&'static str, &'static str, bool)) -> &'static str| {
            options.iter().map(of).collect::<Vec<_>>().join(" and ")
        };
        match (options.is_empty(), is_ignored) {
            (true, _) => format!("{weights}, as exported"),
            (false, true) => format!("{weights}, as exported: TensorRT {version} ignores {}", join(|o| o.1)),
            (false, false) => format!("{} where it is faster, else {weights} as exported", join(|o| o.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Bounded;

    #[test]
    fn tensorrt_11_ignored_fp16_and_int8_without_a_word() {
        let options = TensorRt { fp16: true, int8: true, ..TensorRt::default() };
        assert_eq!(
            options.ignored_by("11.1.0"),
            [
                "fp16 has no effect: TensorRT 11 computes in the types of the graph; export the model in float16",
                "int8 has no effect: TensorRT 11 computes in the types of the graph; export a quantised model \
                 (QuantizeLinear)"
            ]
        );
        assert_eq!(options.ignored_by("11").len(), 2);
        assert_eq!(TensorRt::default().ignored_by("11.1.0"), [""; 0]);
        for version in ["10.16.2", "8.5.2", "", "unknown"] {
            assert_eq!(options.ignored_by(version), [""; 0], "{version}");
        }
        assert_eq!(
            options.precision("11.1.0", "float32"),
            "float32, as exported: TensorRT 11.1.0 ignores fp16 and int8"
        );
        assert_eq!(
            options.precision("10.3.0", "float32"),
            "float16 and int8 where it is faster, else float32 as exported"
        );
        assert_eq!(TensorRt::default().precision("11.1.0", "float16"), "float16, as exported");
    }

    #[test]
    fn the_dla_ended_with_tensorrt_10_7() {
        let options = TensorRt { dla_core: Some(Bounded(0)), ..TensorRt::default() };
        for version in ["8.5.2", "10.3.0", "10.7.0", "10"] {
            assert_eq!(options.ignored_by(version), [""; 0], "{version}");
        }
        for version in ["10.8.0", "10.13.3", "11.0.0"] {
            let ignored = options.ignored_by(version);
            assert_eq!(ignored.len(), 1, "{version}");
            assert!(
                ignored[0].starts_with(&format!("dla_core has no effect: TensorRT {version} ")),
                "{ignored:?}"
            );
        }
    }
}
