//! x̂_0 and ε̂ from a network's output, clipped or thresholded as the configuration says.

use crate::diffusion::prediction::PredictionType;
use crate::diffusion::schedule::Level;
use crate::diffusion::settings::{Settings, SettingsError};

/// How far x̂_0 may go.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bound {
    None,
    /// Into ±range.
    Clip(f32),
    /// Into ±s and divided by s, where s is a quantile of |x̂_0| between 1 and `most`
    /// (Saharia et al. 2022, section 2.3).
    Dynamic {
        quantile: f64,
        most: f32,
    },
}

/// How an output becomes an estimate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Estimator {
    prediction: PredictionType,
    bound: Bound,
}

impl Estimator {
    /// With the keys `clip_sample`, `clip_sample_range`.
    pub(super) fn clipping(
        settings: &mut Settings,
        prediction: PredictionType,
        clip: bool,
    ) -> Result<Self, SettingsError> {
        let clip = settings.flag("clip_sample", clip)?;
        let range = positive(settings, "clip_sample_range")?;
        let bound = if clip { Bound::Clip(range) } else { Bound::None };
        Ok(Self { prediction, bound })
    }

    /// The same, with `thresholding` and its keys, which take precedence.
    pub(super) fn thresholding(
        settings: &mut Settings,
        prediction: PredictionType,
        clip: bool,
    ) -> Result<Self, SettingsError> {
        let clipping = Self::clipping(settings, prediction, clip)?;
        let thresholding = settings.flag("thresholding", false)?;
        let quantile = settings.number("dynamic_thresholding_ratio", 0.995)?;
        let most = positive(settings, "sample_max_value")?;
        if !thresholding {
            return Ok(clipping);
        }
        if !(0.0..=1.0).contains(&quantile) {
            return Err(SettingsError::refused(
                "dynamic_thresholding_ratio",
                quantile,
                "it must lie between 0 and 1",
            ));
        }
        let bound = Bound::Dynamic { quantile, most };
        Ok(Self { prediction, bound })
    }

    /// The buffers for one walk over samples of `len` values.
    pub(super) fn start(self, len: usize) -> Estimate {
        Estimate { rule: self, x0: vec![0.0; len], epsilon: vec![0.0; len], magnitudes: vec![0.0; len] }
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

/// One walk's estimates, in buffers that are used again at every step.
#[derive(Debug)]
pub(super) struct Estimate {
    rule: Estimator,
    /// x̂_0 of the last update.
    pub(super) x0: Vec<f32>,
    /// ε̂ of the last update; it belongs to x̂_0 before that was bounded.
    pub(super) epsilon: Vec<f32>,
    magnitudes: Vec<f32>,
}

impl Estimate {
    /// Compute x̂_0 from the state and the network's output at `level`.
    pub(super) fn update_x0(&mut self, level: Level, x: &[f32], output: &[f32]) {
        self.rule.prediction.convert(PredictionType::Sample, level).apply(x, output, &mut self.x0);
        self.bound();
    }

    /// Compute x̂_0 and ε̂.
    pub(super) fn update(&mut self, level: Level, x: &[f32], output: &[f32]) {
        self.rule.prediction.convert(PredictionType::Epsilon, level).apply(x, output, &mut self.epsilon);
        self.update_x0(level, x, output);
    }

    fn bound(&mut self) {
        match self.rule.bound {
            Bound::None => {}
            Bound::Clip(range) => {
                for x in &mut self.x0 {
                    *x = x.clamp(-range, range);
                }
            }
            Bound::Dynamic { quantile, most } => {
                for (magnitude, x) in self.magnitudes.iter_mut().zip(&self.x0) {
                    *magnitude = x.abs();
                }
                let s = quantile_of(&mut self.magnitudes, quantile).max(1.0).min(most);
                for x in &mut self.x0 {
                    *x = x.clamp(-s, s) / s;
                }
            }
        }
    }
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
    fn quantiles_interpolate() {
        let mut values = [3.0, 1.0, 2.0, 0.0];
        assert_eq!(quantile_of(&mut values, 0.0), 0.0);
        assert_eq!(quantile_of(&mut values, 0.5), 1.5);
        assert_eq!(quantile_of(&mut values, 1.0), 3.0);
        assert!((quantile_of(&mut values, 0.9) - 2.7).abs() < 1e-6);
    }

    #[test]
    fn dynamic_thresholding_pulls_all_values_in() {
        let rule = Estimator {
            prediction: PredictionType::Sample,
            bound: Bound::Dynamic { quantile: 0.5, most: 10.0 },
        };
        let mut estimate = rule.start(3);
        let level = Level::from_alpha_bar(0.5);
        estimate.update(level, &[0.0; 3], &[-4.0, 2.0, 1.0]);
        assert_eq!(estimate.x0, [-1.0, 1.0, 0.5]);
        // Below 1 the quantile is taken as 1, which is plain clipping.
        estimate.update(level, &[0.0; 3], &[-3.0, 0.5, 0.25]);
        assert_eq!(estimate.x0, [-1.0, 0.5, 0.25]);
    }
}
