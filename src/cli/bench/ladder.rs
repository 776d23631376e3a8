//! The batch sizes and picture sizes that are evaluated.

use anyhow::ensure;

use crate::bundle::Signature;

/// The batch sizes that are evaluated by default.
const DEFAULT_BATCHES: [usize; 3] = [1, 2, 4];

/// The size of a picture in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ImageSize {
    pub(super) width: u64,
    pub(super) height: u64,
}

/// Parses a size such as `512` or `768x512`.
pub(super) fn image_size(text: &str) -> Result<ImageSize, String> {
    let (width, height) = text.split_once('x').unwrap_or((text, text));
    let side = |text: &str| text.trim().parse().ok().filter(|side| *side > 0);
    let size = side(width).and_then(|width| Some(ImageSize { width, height: side(height)? }));
    size.ok_or_else(|| "expected a size in pixels, such as 512 or 768x512".to_owned())
}

/// Returns the requested batch sizes, or the default ones that the network takes.
pub(super) fn batches(requested: &[u64], signature: &Signature) -> anyhow::Result<Vec<usize>> {
    let (min, max) = (signature.smallest_batch(), signature.largest_batch);
    if requested.is_empty() {
        let taken: Vec<_> = DEFAULT_BATCHES.into_iter().filter(|size| (min..=max).contains(size)).collect();
        return Ok(if taken.is_empty() { vec![min] } else { taken });
    }
    for size in requested {
        let is_taken = usize::try_from(*size).is_ok_and(|size| (min..=max).contains(&size));
        ensure!(
            is_taken,
            "--batch: {size} is not a batch size that this model takes; use {}, or change [engine] batch",
            if min == max { min.to_string() } else { format!("{min} to {max}") }
        );
    }
    Ok(requested.iter().map(|size| *size as usize).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_one_side_or_two() {
        assert_eq!(image_size("512"), Ok(ImageSize { width: 512, height: 512 }));
        assert_eq!(image_size("768x512"), Ok(ImageSize { width: 768, height: 512 }));
        for text in ["", "0", "512x", "x", "512x0", "512,512", "-1", "1x2x3"] {
            let error = image_size(text).unwrap_err();
            assert_eq!(error, "expected a size in pixels, such as 512 or 768x512", "{text}");
        }
    }
}
