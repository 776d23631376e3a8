//! Add noise to a sample, and print the posterior: `cargo run --example forward_process`.
//!
//! Prints the signal-to-noise ratio at several time steps of two noise schedules, the statistics of q(x_t | x₀), and the
//! coefficients of the posterior q(x_{t−1} | x_t, x₀).

use diffusion_samplers::forward_process::{Posterior, q_sample};
use diffusion_samplers::noise_schedule::{BetaSchedule, NoiseLevel, NoiseSchedule};
use diffusion_samplers::rng::Generator;

fn main() -> anyhow::Result<()> {
    let schedules = [
        ("linear (Ho et al. 2020)", NoiseSchedule::new(&BetaSchedule::Linear, 1e-4, 0.02, 1000)?),
        (
            "cosine (Nichol & Dhariwal 2021)",
            NoiseSchedule::new(&BetaSchedule::SquaredCosCapV2, 0.0, 0.0, 1000)?,
        ),
    ];
    let x0 = vec![1.0; 10_000];
    let mut noise = vec![0.0; x0.len()];
    Generator::Torch.seeded(0).fill(&mut noise);

    for (name, schedule) in &schedules {
        println!("{name}");
        println!(
            "   t    alpha    sigma   SNR (dB)   mean x_t   dev x_t   posterior mean = a·x0 + b·x_t, variance"
        );
        for t in [1, 10, 100, 250, 500, 750, 999] {
            let alpha_bars = schedule.alphas_cumprod();
            let level = NoiseLevel::from_alpha_bar(alpha_bars[t]);
            let mut x_t = vec![0.0; x0.len()];
            q_sample(level, &x0, &noise, &mut x_t);
            let mean = x_t.iter().sum::<f32>() / x_t.len() as f32;
            let variance = x_t.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / x_t.len() as f32;
            let posterior = Posterior::new(alpha_bars[t], alpha_bars[t - 1]);
            println!(
                "{t:>4} {:>8.4} {:>8.4} {:>10.2} {mean:>10.4} {:>9.4}   a = {:.5}, b = {:.5}, {:.2e}",
                level.alpha,
                level.sigma,
                20.0 * (level.alpha / level.sigma).log10(),
                variance.sqrt(),
                posterior.x0,
                posterior.x_t,
                posterior.variance,
            );
        }
        println!();
    }
    Ok(())
}
