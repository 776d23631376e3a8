//! Whether CUDA captures evaluations as CUDA graphs.

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};
use serde::ser::{Serialize, Serializer};

/// Whether evaluations are captured as CUDA graphs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CudaGraphMode {
    /// Each shape is captured, where the graph allows it. Batches are padded to powers of two.
    #[default]
    Auto,
    /// One shape is captured: every batch is padded to the largest, and the size of samples is the model's default.
    OneShape,
    /// Nothing is captured.
    Off,
}

impl<'de> Deserialize<'de> for CudaGraphMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Mode;
        impl Visitor<'_> for Mode {
            type Value = CudaGraphMode;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("\"auto\", true or false")
            }
            fn visit_bool<E: Error>(self, captures: bool) -> Result<CudaGraphMode, E> {
                Ok(if captures { CudaGraphMode::OneShape } else { CudaGraphMode::Off })
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<CudaGraphMode, E> {
                match text {
                    "auto" => Ok(CudaGraphMode::Auto),
                    other => Err(E::invalid_value(Unexpected::Str(other), &self)),
                }
            }
        }
        deserializer.deserialize_any(Mode)
    }
}

impl Serialize for CudaGraphMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::OneShape => serializer.serialize_bool(true),
            Self::Off => serializer.serialize_bool(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Cuda;
    use super::*;

    #[test]
    fn a_mode_is_auto_or_a_boolean() {
        let mode = |text: &str| {
            toml::from_str::<Cuda>(text)
                .map(|cuda| cuda.cuda_graph)
                .map_err(|error: toml::de::Error| error.message().to_owned())
        };
        assert_eq!(mode(""), Ok(CudaGraphMode::Auto));
        for (text, expected) in [
            ("\"auto\"", CudaGraphMode::Auto),
            ("true", CudaGraphMode::OneShape),
            ("false", CudaGraphMode::Off),
        ] {
            assert_eq!(mode(&format!("cuda_graph = {text}")), Ok(expected));
            assert_eq!(serde_json::to_string(&expected).unwrap(), text);
        }
        assert_eq!(
            mode("cuda_graph = \"on\"").unwrap_err(),
            "invalid value: string \"on\", expected \"auto\", true or false"
        );
    }
}
