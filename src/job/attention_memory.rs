//! Refuses pictures whose attention cannot fit in the machine's memory, before an engine fails to allocate it.
//!
//! The estimate is the smallest that an engine without fused attention needs: one matrix of float32 values, a row and a column
//! for each token of the network's largest attention, for one head and one sample. Engines that split attention, as those of
//! TensorRT, need less; all others need several times as much.

use std::sync::OnceLock;

use super::JobError;
use crate::bundle::PipelineKind;

/// The machine's memory in bytes, if it is known.
pub(super) fn machine_memory() -> Option<u64> {
    static MEMORY: OnceLock<Option<u64>> = OnceLock::new();
    *MEMORY.get_or_init(|| total_of(&std::fs::read_to_string("/proc/meminfo").ok()?))
}

/// `MemTotal` of /proc/meminfo in bytes.
fn total_of(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Checks the height and width in pixels of a picture with `factor` pixels for each position of the latent. The sides are
/// multiples of `multiple`.
pub(super) fn check(
    kind: PipelineKind,
    (height, width): (usize, usize),
    (factor, multiple): (usize, usize),
    memory: u64,
) -> Result<(), JobError> {
    let per_token = (factor * factor * kind.facts().positions_per_token) as u128;
    let tokens = (height as u128 * width as u128) / per_token;
    let bytes = tokens.saturating_mul(tokens).saturating_mul(4);
    if bytes <= u128::from(memory) {
        return Ok(());
    }
    let max_pixels = u128::from((memory / 4).isqrt()) * per_token;
    let (field, longer, other, shorter) =
        if width > height { ("width", width, "height", height) } else { ("height", height, "width", width) };
    let largest = max_pixels / shorter.max(1) as u128 / multiple as u128 * multiple as u128;
    let advice = match largest {
        0 => format!("reduce {other} too"),
        largest => format!("use {largest} or less with this {other}"),
    };
    let gibibytes = |bytes: u128| bytes as f64 / (1_u64 << 30) as f64;
    let message = format!(
        "{field} is {longer}, but with {other} {shorter} the attention of the network alone needs {:.0} GiB, and this \
         machine has {:.1} GiB; {advice}",
        gibibytes(bytes),
        gibibytes(memory.into())
    );
    Err(JobError::out_of_range(field, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use PipelineKind::{Flux, StableDiffusion, StableDiffusionXl};

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_picture_whose_attention_exceeds_the_memory_is_refused_with_the_largest_side() {
        let error = check(StableDiffusion, (40_000, 512), (8, 8), 16 * GIB).unwrap_err();
        assert_eq!(error.field.as_deref(), Some("height"));
        assert_eq!(
            error.message,
            "height is 40000, but with width 512 the attention of the network alone needs 381 GiB, and this machine has \
             16.0 GiB; use 8192 or less with this width"
        );
        assert!(check(StableDiffusion, (8192, 512), (8, 8), 16 * GIB).is_ok());
        assert!(check(StableDiffusion, (8200, 512), (8, 8), 16 * GIB).is_err());
        let wide = check(StableDiffusion, (512, 40_000), (8, 8), 16 * GIB).unwrap_err();
        assert_eq!(wide.field.as_deref(), Some("width"));
        let huge = check(StableDiffusion, (usize::MAX, usize::MAX), (8, 8), 16 * GIB).unwrap_err();
        assert!(huge.message.ends_with("reduce width too"), "{huge}");
    }

    #[test]
    fn networks_with_fewer_tokens_take_larger_pictures() {
        for kind in [StableDiffusionXl, Flux] {
            assert!(check(kind, (4096, 4096), (8, 16), 17 * GIB).is_ok());
            assert!(check(kind, (4112, 4112), (8, 16), 16 * GIB).is_err());
        }
        assert!(check(StableDiffusion, (4096, 4096), (8, 8), 17 * GIB).is_err());
    }

    #[test]
    fn the_memory_is_that_of_meminfo() {
        assert_eq!(total_of("MemTotal:       16 kB\nMemFree: 1 kB\n"), Some(16 * 1024));
        assert_eq!(total_of("nothing"), None);
    }
}
