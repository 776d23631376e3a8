//! Bounds of x̂_0: clipping and dynamic thresholding.

use crate::scheduler_settings::{Settings, SettingsError};

/// How x̂_0 is bounded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Thresholding {
    /// No thresholding.
    None,
    /// Clipping to ±range (diffusers' `clip_sample`).
    Clip(f32),
    /// Clipping to ±s, then division by s, where s is a quantile of |x̂_0| limited to 1..=`max`
    /// (Saharia et al. 2022, section 2.3; diffusers' `thresholding`).
    Dynamic {
        /// The quantile, 0 to 1.
        quantile: f64,
        /// The upper limit of s.
        max: f32,
    },
}

impl Thresholding {
    /// Reads `clip_sample`, with this default, and `clip_sample_range`.
    pub(crate) fn clip_from_settings(settings: &mut Settings, clip: bool) -> Result<Self, SettingsError> {
        let clip = settings.flag("clip_sample", clip)?;
        let range = positive_if(clip, settings, "clip_sample_range")?;
        if !clip {
            settings.switch_off(&["clip_sample_range"], "clip_sample is false");
        }
        Ok(if clip { Self::Clip(range) } else { Self::None })
    }

    /// Reads `thresholding`, `dynamic_thresholding_ratio` and `sample_max_value`.
    pub(crate) fn dynamic_from_settings(settings: &mut Settings) -> Result<Self, SettingsError> {
        let thresholding = settings.flag("thresholding", false)?;
        let quantile = settings.number_if(thresholding, "dynamic_thresholding_ratio", 0.995)?;
        let max = positive_if(thresholding, settings, "sample_max_value")?;
        if !thresholding {
            let keys = ["dynamic_thresholding_ratio", "sample_max_value"];
            settings.switch_off(&keys, "thresholding is false");
            return Ok(Self::None);
        }
        if !(0.0..=1.0).contains(&quantile) {
            let reason = "it must be between 0 and 1";
            return Err(SettingsError::refused("dynamic_thresholding_ratio", quantile, reason));
        }
        Ok(Self::Dynamic { quantile, max })
    }

    /// Reads the keys of both kinds; `thresholding` takes precedence over `clip_sample`.
    pub(crate) fn from_settings(settings: &mut Settings, clip: bool) -> Result<Self, SettingsError> {
        let clipping = Self::clip_from_settings(settings, clip)?;
        let dynamic = Self::dynamic_from_settings(settings)?;
        if dynamic == Self::None {
            return Ok(clipping);
        }
        settings.switch_off(&["clip_sample", "clip_sample_range"], "thresholding is true");
        Ok(dynamic)
    }
}

/// Reads a bound, which is 1 by default and must be positive in f32. One that is not used may be any number, or `null`.
fn positive_if(is_used: bool, settings: &mut Settings, key: &str) -> Result<f32, SettingsError> {
    let value = settings.number_if(is_used, key, 1.0)?;
    if value as f32 > 0.0 || !is_used {
        return Ok(value as f32);
    }
    Err(SettingsError::refused(key, value, "it must be more than 0"))
}

/// The quantile, interpolated linearly between neighbours. Reorders the values.
pub(crate) fn quantile_of(values: &mut [f32], quantile: f64) -> f32 {
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
    fn a_range_that_is_not_positive_is_refused() {
        let value = crate::scheduler_settings::Value::Number(0.0);
        let mut settings = Settings::new([("clip_sample_range".to_owned(), value)].into());
        let error = Thresholding::clip_from_settings(&mut settings, true).unwrap_err();
        assert_eq!(error.to_string(), "clip_sample_range = 0 is refused: it must be more than 0");
    }
}
