//! How far x̂_0 may go: clipping and dynamic thresholding.

use super::estimate::{Estimate, with};
use crate::prediction_type::AffinePrediction;
use crate::scheduler_settings::{Settings, SettingsError};
use crate::simd::update;

/// How far x̂_0 may go.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bound {
    /// Anywhere.
    None,
    /// Into ±range.
    Clip(f32),
    /// Into ±s and divided by s, where s is a quantile of |x̂_0| between 1 and `most`
    /// (Saharia et al. 2022, section 2.3).
    Dynamic {
        /// Which quantile, 0 to 1.
        quantile: f64,
        /// The most that s may be.
        most: f32,
    },
}

impl Bound {
    /// By the keys `clip_sample`, with this default, and `clip_sample_range`.
    pub(crate) fn clipping(settings: &mut Settings, clip: bool) -> Result<Self, SettingsError> {
        let clip = settings.flag("clip_sample", clip)?;
        let range = positive(settings, "clip_sample_range")?;
        Ok(if clip { Self::Clip(range) } else { Self::None })
    }

    /// By the key `thresholding` and those that belong to it.
    pub(crate) fn thresholding(settings: &mut Settings) -> Result<Self, SettingsError> {
        let thresholding = settings.flag("thresholding", false)?;
        let quantile = settings.number("dynamic_thresholding_ratio", 0.995)?;
        let most = positive(settings, "sample_max_value")?;
        if !thresholding {
            return Ok(Self::None);
        }
        if !(0.0..=1.0).contains(&quantile) {
            let reason = "it must lie between 0 and 1";
            return Err(SettingsError::refused("dynamic_thresholding_ratio", quantile, reason));
        }
        Ok(Self::Dynamic { quantile, most })
    }

    /// By both; `thresholding` takes precedence.
    pub(crate) fn either(settings: &mut Settings, clip: bool) -> Result<Self, SettingsError> {
        let clipping = Self::clipping(settings, clip)?;
        let thresholding = Self::thresholding(settings)?;
        Ok(if thresholding == Self::None { clipping } else { thresholding })
    }

    /// x̂_0 within the bound, as a function of the state and of the network's answer; `magnitudes` is a buffer
    /// for what a quantile is taken of.
    pub(crate) fn applied(
        self,
        x0: AffinePrediction,
        x: &[f32],
        answer: &[f32],
        magnitudes: &mut Vec<f32>,
    ) -> Estimate {
        match self {
            Self::None => Estimate::of(x0),
            Self::Clip(range) => Estimate::within(x0, range, 1.0),
            Self::Dynamic { quantile, most } => {
                magnitudes.resize(x.len(), 0.0);
                with!(Estimate::of(x0), m => {
                    update(magnitudes, [x, answer], move |_, [x, answer]| m(x, answer).abs());
                });
                let s = quantile_of(magnitudes, quantile).max(1.0).min(most);
                Estimate::within(x0, s, s)
            }
        }
    }
}

/// A key whose default is 1 and which bounds a range, so that it must be more than 0.
fn positive(settings: &mut Settings, key: &str) -> Result<f32, SettingsError> {
    let value = settings.number(key, 1.0)?;
    if value as f32 > 0.0 {
        return Ok(value as f32);
    }
    Err(SettingsError::refused(key, value, "it must be more than 0"))
}

/// The quantile by linear interpolation between neighbours; reorders the values.
fn quantile_of(values: &mut [f32], quantile: f64) -> f32 {
    let rank = quantile * (values.len() - 1) as f64;
    let (_, below, above) = values.select_nth_unstable_by(rank as usize, f32::total_cmp);
    let next = above.iter().copied().fold(f32::INFINITY, f32::min);
    if next.is_finite() { *below + (next - *below) * rank.fract() as f32 } else { *below }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate_between_neighbours() {
        assert_eq!(quantile_of(&mut [4.0, 1.0, 3.0, 2.0], 0.5), 2.5);
        assert_eq!(quantile_of(&mut [4.0, 1.0, 3.0, 2.0], 1.0), 4.0);
        assert_eq!(quantile_of(&mut [7.0], 0.3), 7.0);
    }

    #[test]
    fn dynamic_thresholding_scales_what_it_bounds() {
        let bound = Bound::Dynamic { quantile: 0.5, most: 10.0 };
        let bounded = |answer: [f32; 3]| {
            let mut x0 = [0.0; 3];
            let estimate =
                bound.applied(AffinePrediction::new(0.0, 1.0), &[0.0; 3], &answer, &mut Vec::new());
            estimate.write(&[0.0; 3], &answer, &mut x0);
            x0
        };
        assert_eq!(bounded([-4.0, 2.0, 1.0]), [-1.0, 1.0, 0.5]);
        // Below 1 the quantile is taken as 1, which is plain clipping.
        assert_eq!(bounded([-3.0, 0.5, 0.25]), [-1.0, 0.5, 0.25]);
    }

    #[test]
    fn a_range_that_is_none_is_refused() {
        let value = crate::scheduler_settings::Value::Number(0.0);
        let mut settings = Settings::new([("clip_sample_range".to_owned(), value)].into());
        let error = Bound::clipping(&mut settings, true).unwrap_err();
        assert_eq!(error.to_string(), "clip_sample_range = 0 is refused: it must be more than 0");
    }
}
