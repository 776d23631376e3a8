//! Values of `[engine]` that are a number, or a word that leaves the number to the daemon.

use serde::de::{Deserialize, Deserializer, Error, Visitor};

use super::{Bounded, ByteSize};

/// The memory of all sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MemoryLimit {
    /// A share of what is free at the start.
    #[default]
    Auto,
    /// No limit.
    Unlimited,
    /// This many bytes.
    Bytes(ByteSize),
}

impl<'de> Deserialize<'de> for MemoryLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Limit;
        impl Visitor<'_> for Limit {
            type Value = MemoryLimit;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("\"auto\", \"none\", a size such as \"4 GiB\" or a number of bytes")
            }
            fn visit_i64<E: Error>(self, n: i64) -> Result<MemoryLimit, E> {
                match u64::try_from(n) {
                    Ok(n) if n > 0 => Ok(MemoryLimit::Bytes(ByteSize(n))),
                    _ => Err(E::custom(format!(
                        "{n} is no limit; set a size such as \"4 GiB\", \"auto\", or \"none\" for no limit"
                    ))),
                }
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<MemoryLimit, E> {
                match text {
                    "auto" => Ok(MemoryLimit::Auto),
                    "none" => Ok(MemoryLimit::Unlimited),
                    size => size.parse().map(MemoryLimit::Bytes).map_err(|reason: String| {
                        E::custom(format!(
                            "{reason}; \"auto\" takes a share of the free memory, \"none\" sets no limit"
                        ))
                    }),
                }
            }
        }
        deserializer.deserialize_any(Limit)
    }
}

/// The largest number of samples in one evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchLimit {
    /// As many as are worth it, by the measured throughput.
    Auto,
    /// This many.
    Fixed(Bounded<1, 1024>),
}

impl<'de> Deserialize<'de> for BatchLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Limit;
        impl Visitor<'_> for Limit {
            type Value = BatchLimit;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("\"auto\" or a number from 1 to 1024")
            }
            fn visit_i64<E: Error>(self, n: i64) -> Result<BatchLimit, E> {
                match u64::try_from(n) {
                    Ok(n) if (1..=1024).contains(&n) => Ok(BatchLimit::Fixed(Bounded(n))),
                    _ => Err(E::custom(format!("{n} must lie between 1 and 1024"))),
                }
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<BatchLimit, E> {
                match text {
                    "auto" => Ok(BatchLimit::Auto),
                    other => {
                        Err(E::custom(format!("{other:?} is neither \"auto\" nor a number from 1 to 1024")))
                    }
                }
            }
        }
        deserializer.deserialize_any(Limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EngineConfig;

    fn engine(text: &str) -> Result<EngineConfig, String> {
        toml::from_str(text).map_err(|error: toml::de::Error| error.message().to_owned())
    }

    #[test]
    fn memory_is_a_size_or_a_word() {
        let memory = |text: &str| engine(text).map(|engine| engine.memory);
        assert_eq!(memory(""), Ok(MemoryLimit::Auto));
        assert_eq!(memory("memory = \"auto\""), Ok(MemoryLimit::Auto));
        assert_eq!(memory("memory = \"none\""), Ok(MemoryLimit::Unlimited));
        assert_eq!(memory("memory = \"4 GiB\""), Ok(MemoryLimit::Bytes(ByteSize(4 << 30))));
        assert_eq!(memory("memory = 4096"), Ok(MemoryLimit::Bytes(ByteSize(4096))));
        assert_eq!(
            memory("memory = \"much\"").unwrap_err(),
            "\"much\" is not a size; write one such as \"512 MiB\"; \"auto\" takes a share of the free memory, \
             \"none\" sets no limit"
        );
        assert_eq!(
            memory("memory = 0").unwrap_err(),
            "0 is no limit; set a size such as \"4 GiB\", \"auto\", or \"none\" for no limit"
        );
    }

    #[test]
    fn a_batch_is_a_number_or_auto() {
        let batch = |text: &str| engine(text).map(|engine| engine.batch);
        assert_eq!(batch(""), Ok(BatchLimit::Fixed(Bounded(8))));
        assert_eq!(batch("batch = \"auto\""), Ok(BatchLimit::Auto));
        assert_eq!(batch("batch = 4"), Ok(BatchLimit::Fixed(Bounded(4))));
        assert_eq!(batch("batch = 0").unwrap_err(), "0 must lie between 1 and 1024");
        // "invalid value: string".
        assert_eq!(
            batch("batch = \"big\"").unwrap_err(),
            "\"big\" is neither \"auto\" nor a number from 1 to 1024"
        );
    }
}
