//! Which heights and widths of pictures the graphs of a pipeline take.

use super::{JobError, ModelCard};
use crate::bundle::LatentComponents;
use crate::units::nearest_multiples;

/// The heights and widths that a pipeline takes. Index 0 is the height.
pub(super) struct TakenSizes<'a> {
    model: &'a str,
    sides: [Side; 2],
}

struct Side {
    /// The length without a request's own.
    default: usize,
    /// Each length must be a multiple of this.
    multiple: usize,
    /// The largest length.
    largest: usize,
    /// The only length, and the graph that takes no other.
    fixed: Option<(usize, &'static str)>,
}

impl<'a> TakenSizes<'a> {
    pub(super) fn new(model: &'a ModelCard, components: &LatentComponents, has_image: bool) -> Self {
        let (facts, factor) = (model.facts(), components.vae.factor);
        let is_flexible = model.signature.dynamic_size || facts.packing.is_some();
        let own_multiple = model.size_limits.map_or(1, |limits| limits.latent_multiple);
        let largest = model.size_limits.and_then(|limits| limits.largest_latent);
        let largest = largest.map_or(usize::MAX, |latents| latents.saturating_mul(factor));
        let side = |axis: usize| {
            let own = model.signature.sample_shape.get(axis + 1).copied();
            let of_patches =
                facts.packing.and_then(|side| square_side(model.signature.fixed_patches()?, side));
            let default = of_patches.or(facts.latent_size).or(own).unwrap_or(0) * factor;
            let decoder = model.size_limits.and_then(|limits| limits.decoded_latent[axis]);
            let encoder = model.size_limits.and_then(|limits| limits.encoded_picture[axis]);
            let network = Some((default, "network")).filter(|_| !is_flexible);
            let decoder = decoder.map(|length| (length * factor, "vae_decoder"));
            let encoder = encoder.filter(|_| has_image).map(|length| (length, "vae_encoder"));
            let fixed = network.or(decoder).or(encoder);
            let multiple = factor * least_common_multiple(facts.latent_multiple, own_multiple);
            Side { default: fixed.map_or(default, |(length, _)| length), multiple, largest, fixed }
        };
        Self { model: model.name(), sides: [side(0), side(1)] }
    }

    /// The number of which each height must be a multiple.
    pub(super) fn multiple(&self) -> usize {
        self.sides[0].multiple.max(1)
    }

    /// The length of a side in pixels, as a request gives it or else the default.
    pub(super) fn check(&self, field: &str, given: Option<u64>, axis: usize) -> Result<usize, JobError> {
        let Side { default, multiple, largest, fixed } = self.sides[axis];
        let length = given.map_or(default, |n| usize::try_from(n).unwrap_or(usize::MAX));
        match fixed {
            Some((fixed, graph)) if length != fixed => {
                let message = format!(
                    "{field} is {length}, but the graph of the {graph} of {} only takes {fixed}; use {fixed}",
                    self.model
                );
                Err(JobError::out_of_range(field, message))
            }
            Some(_) => Ok(length),
            None if length > largest => {
                let message =
                    format!("{field} is {length}, but {} takes at most {largest}; use {largest}", self.model);
                Err(JobError::out_of_range(field, message))
            }
            None => check_multiple(field, length, multiple).map(|()| length),
        }
    }
}

fn check_multiple(field: &str, length: usize, step: usize) -> Result<(), JobError> {
    if length > 0 && length.is_multiple_of(step) {
        return Ok(());
    }
    let nearest = nearest_multiples(length, step);
    let message = format!("{field} is {length}, but this model needs a multiple of {step}; use {nearest}");
    Err(JobError::out_of_range(field, message))
}

/// The side of a square latent that is cut into this number of patches, which have the side `patch`.
fn square_side(patches: usize, patch: usize) -> Option<usize> {
    let side = patches.isqrt();
    (side * side == patches).then_some(patch * side)
}

fn least_common_multiple(a: usize, b: usize) -> usize {
    let (mut divisor, mut rest) = (a, b);
    while rest != 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    a / divisor.max(1) * b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_of_the_wrong_size_is_reported_with_the_nearest_ones() {
        assert!(check_multiple("width", 504, 8).is_ok());
        for (length, hint) in [(500, "use 496 or 504"), (3, "use 8"), (0, "use 8")] {
            let error = check_multiple("width", length, 8).unwrap_err();
            assert!(error.message.ends_with(hint), "{error}");
        }
        let error = check_multiple("width", 500, 64).unwrap_err();
        assert_eq!(error.message, "width is 500, but this model needs a multiple of 64; use 448 or 512");
        assert!(check_multiple("width", usize::MAX, 8).is_err());
    }

    #[test]
    fn a_fixed_number_of_patches_has_a_square_side() {
        assert_eq!([64, 60].map(|patches| square_side(patches, 2)), [Some(16), None]);
        assert_eq!(square_side(64, 1), Some(8));
    }

    #[test]
    fn a_multiple_serves_the_pipeline_and_the_network() {
        for (a, b, expected) in [(1, 1, 1), (2, 8, 8), (2, 3, 6), (4, 6, 12)] {
            assert_eq!(least_common_multiple(a, b), expected);
        }
    }
}
