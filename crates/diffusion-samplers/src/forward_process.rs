//! The forward process q(x_t | x₀) in closed form, and its posterior q(x_s | x_t, x₀).

use super::noise_schedule::NoiseLevel;

/// Samples q(x_t | x₀) = N(√ᾱ_t · x₀, (1 − ᾱ_t) I): writes α · `x0` + σ · `noise` to `x_t` (Ho et al. 2020, eq. 4).
///
/// `noise` is standard normal. All three slices have the same length.
///
/// ```
/// use diffusion_samplers::forward_process::q_sample;
/// use diffusion_samplers::noise_schedule::NoiseLevel;
///
/// let mut x_t = [0.0];
/// q_sample(NoiseLevel::from_alpha_bar(0.36), &[1.0], &[2.0], &mut x_t);
/// assert_eq!(x_t, [0.6 + 0.8 * 2.0]);
/// ```
pub fn q_sample(level: NoiseLevel, x0: &[f32], noise: &[f32], x_t: &mut [f32]) {
    let (alpha, sigma) = (level.alpha as f32, level.sigma as f32);
    for ((x, x0), z) in x_t.iter_mut().zip(x0).zip(noise) {
        *x = alpha * x0 + sigma * z;
    }
}

/// The posterior q(x_s | x_t, x₀) for s < t: a Gaussian with the mean `x0` · x₀ + `x_t` · x_t
/// (Ho et al. 2020, eqs. 6 and 7, for any s < t instead of t − 1).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Posterior {
    /// The coefficient of x₀ in the mean: √ᾱ_s · β_ts / (1 − ᾱ_t).
    pub x0: f64,
    /// The coefficient of x_t in the mean: √α_ts · (1 − ᾱ_s) / (1 − ᾱ_t).
    pub x_t: f64,
    /// The variance β̃ = β_ts · (1 − ᾱ_s) / (1 − ᾱ_t), which is exact if x₀ is known (`fixed_small` of diffusers).
    pub variance: f64,
    /// β_ts = 1 − ᾱ_t/ᾱ_s, the variance if x₀ ~ N(0, I) (`fixed_large` of diffusers).
    pub beta: f64,
}

impl Posterior {
    /// The posterior of the state at ᾱ_s given the one at ᾱ_t, where 0 ≤ ᾱ_t < ᾱ_s ≤ 1.
    pub fn new(alpha_bar_t: f64, alpha_bar_s: f64) -> Self {
        let alpha = alpha_bar_t / alpha_bar_s;
        let beta = 1.0 - alpha;
        let (noise_t, noise_s) = (1.0 - alpha_bar_t, 1.0 - alpha_bar_s);
        Self {
            x0: alpha_bar_s.sqrt() * beta / noise_t,
            x_t: alpha.sqrt() * noise_s / noise_t,
            variance: noise_s / noise_t * beta,
            beta,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise_schedule::NoiseSchedule;
    use proptest::prelude::*;

    proptest! {
        /// q(x_t | x₀) is the composition of the single steps x_t = √α_t x_{t−1} + √β_t z.
        #[test]
        fn the_closed_form_is_the_composition_of_single_steps(
            betas in prop::collection::vec(1e-4..0.5_f64, 1..60),
            x0 in -3.0..3.0_f64,
        ) {
            let schedule = NoiseSchedule::from_betas(betas).unwrap();
            let (mut mean, mut variance) = (x0, 0.0);
            for (beta, alpha_bar) in schedule.betas().iter().zip(schedule.alphas_cumprod()) {
                mean *= (1.0 - beta).sqrt();
                variance = (1.0 - beta) * variance + beta;
                let level = NoiseLevel::from_alpha_bar(*alpha_bar);
                prop_assert!((mean - level.alpha * x0).abs() < 1e-6);
                prop_assert!((variance - level.sigma * level.sigma).abs() < 1e-6);
            }
        }

        /// Bayes' rule on a fine grid: q(x_s | x_t, x₀) ∝ q(x_t | x_s) q(x_s | x₀).
        #[test]
        fn the_posterior_follows_from_bayes_rule(
            alpha_bar_s in 0.05..0.99_f64,
            alpha in 0.3..0.99_f64,
            x0 in -2.0..2.0_f64,
            x_t in -2.0..2.0_f64,
        ) {
            let density = |x: f64, mean: f64, variance: f64| (-(x - mean).powi(2) / (2.0 * variance)).exp();
            let (mut mass, mut first, mut second) = (0.0, 0.0, 0.0);
            for i in -40_000..=40_000 {
                let x_s = f64::from(i) * 5e-4;
                let p = density(x_t, alpha.sqrt() * x_s, 1.0 - alpha)
                    * density(x_s, alpha_bar_s.sqrt() * x0, 1.0 - alpha_bar_s);
                mass += p;
                first += p * x_s;
                second += p * x_s * x_s;
            }
            let mean = first / mass;
            let variance = second / mass - mean * mean;
            let posterior = Posterior::new(alpha * alpha_bar_s, alpha_bar_s);
            prop_assert!((posterior.x0 * x0 + posterior.x_t * x_t - mean).abs() < 1e-6);
            prop_assert!((posterior.variance - variance).abs() < 1e-6);
            prop_assert!((posterior.beta - (1.0 - alpha)).abs() < 1e-12);
        }

        #[test]
        fn q_sample_has_the_requested_level(alpha_bar in 0.0..=1.0_f64, x0 in -1.0..1.0_f32, z in -3.0..3.0_f32) {
            let mut x = [0.0];
            q_sample(NoiseLevel::from_alpha_bar(alpha_bar), &[x0], &[z], &mut x);
            let expected = alpha_bar.sqrt() * f64::from(x0) + (1.0 - alpha_bar).sqrt() * f64::from(z);
            prop_assert!((f64::from(x[0]) - expected).abs() < 1e-6);
        }
    }
}
