//! Noise levels as diffusers' λ-space classes lay them out: DPM-Solver, DEIS, UniPC, SA-Solver.
//!
//! They solve in λ = log(α/σ), half the logarithm of the signal-to-noise ratio, on a state that is
//! the network's own input.

use crate::noise_schedule::{NoiseLevel, NoiseSchedule, ScheduleDefaults, ZeroSnr, linspace, round};
use crate::prediction_type::PredictionType::{self, Epsilon, Flow, Sample, VPrediction};
use crate::sampler::family::{Options, SamplerError, prediction_type};
use crate::sampler::node::Node;
use crate::scheduler_settings::{Settings, SettingsError};
use crate::sigma_schedule::{self, SigmaSchedule, SigmaTable};
use crate::timestep_spacing::TimestepSpacing;

/// What distinguishes the classes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Class {
    pub(crate) name: &'static str,
    pub(crate) zero_snr: ZeroSnr,
    pub(crate) spreads: &'static [SigmaSchedule],
    /// Without it time steps are spaced as `linspace`.
    pub(crate) spacing_keys: bool,
    /// Whether `lambda_min_clipped` is a key.
    pub(crate) clips_lambda: bool,
    /// Whether Karras' levels keep fractional time steps on a cosine schedule.
    pub(crate) fractional_on_cosine: bool,
    /// Whether `sigma_min` and `sigma_max` are keys.
    pub(crate) end_keys: bool,
    pub(crate) end: End,
}

/// The last noise level, at which no evaluation is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// By `final_sigmas_type`: 0, or the schedule's least.
    Configured,
    /// By `final_sigmas_type`: 0, or the last one visited where the levels are not the schedule's.
    ConfiguredOrVisited,
    /// The schedule's least, or the last one visited where the levels are not the schedule's.
    Visited,
}

/// The levels to visit, the largest first.
#[derive(Debug)]
pub(crate) struct LambdaSteps {
    /// The places of evaluation.
    pub(crate) points: Vec<Node>,
    /// The levels at those places, then that of the end.
    pub(crate) levels: Vec<NoiseLevel>,
}

/// What is read first of all.
pub(crate) struct Base {
    pub(crate) schedule: NoiseSchedule,
    pub(crate) table: SigmaTable,
    pub(crate) kind: PredictionType,
    pub(crate) spread: SigmaSchedule,
    pub(crate) cosine: bool,
    pub(crate) flow_shift: f64,
    /// The ends between which levels are spread.
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// How many of the schedule's time steps lie below `lambda_min_clipped`.
    pub(crate) clipped: usize,
}

impl Base {
    /// Read the keys that come before the levels.
    pub(crate) fn read(
        settings: &mut Settings,
        class: &Class,
        spread: SigmaSchedule,
    ) -> Result<Self, SamplerError> {
        let schedule =
            NoiseSchedule::from_settings(settings, ScheduleDefaults::DDPM.with_zero_snr(class.zero_snr))?;
        let cosine = settings.text("beta_schedule", "linear")? == "squaredcos_cap_v2";
        let kind = prediction_type(settings, &[Epsilon, Sample, VPrediction, Flow])?;
        let flow_shift = settings.number("flow_shift", 1.0)?;
        if settings.flag("use_dynamic_shifting", false)? {
            let reason = "the shift follows the image's size only in pipelines that tell it; set flow_shift";
            return Err(SettingsError::refused("use_dynamic_shifting", true, reason).into());
        }
        settings.choice("time_shift_type", "exponential", &["exponential", "linear"])?;
        if kind == Flow && spread != SigmaSchedule::Flow {
            let reason = "it needs use_flow_sigmas";
            return Err(SettingsError::refused("prediction_type", kind.name(), reason).into());
        }
        let clip = if class.clips_lambda {
            settings.number("lambda_min_clipped", f64::NEG_INFINITY)?
        } else {
            f64::NEG_INFINITY
        };
        let lambdas = schedule.alphas_cumprod().iter().map(|bar| NoiseLevel::from_alpha_bar(*bar).lambda());
        let clipped = lambdas.filter(|lambda| *lambda < clip).count();
        if clipped >= schedule.num_train_timesteps() {
            let reason = "no time step of the schedule is left";
            return Err(SettingsError::refused("lambda_min_clipped", clip, reason).into());
        }
        let (min, max) = match class.end_keys {
            true => (settings.optional_number("sigma_min")?, settings.optional_number("sigma_max")?),
            false => (None, None),
        };
        let table = SigmaTable::new(&schedule);
        let (min, max) = (min.unwrap_or(table.min()), max.unwrap_or(table.max()));
        Ok(Self { table, schedule, kind, spread, cosine, flow_shift, min, max, clipped })
    }

    /// The level of a σ: on the straight path or of a variance-preserving process.
    pub(crate) fn level(&self, sigma: f64) -> NoiseLevel {
        match self.spread {
            SigmaSchedule::Flow => NoiseLevel { alpha: 1.0 - sigma, sigma },
            _ => {
                // In f32: where little signal is left, x − σ·ε̂ magnifies the rounding of σ.
                let sigma = sigma as f32;
                let alpha = 1.0 / (sigma * sigma + 1.0).sqrt();
                NoiseLevel { alpha: f64::from(alpha), sigma: f64::from(sigma * alpha) }
            }
        }
    }

    /// `n` levels and their time steps where the spread is not the schedule's own.
    pub(crate) fn spread_levels(&self, n: usize, fractional_on_cosine: bool) -> Option<(Vec<f64>, Vec<f64>)> {
        let (max, min) = (self.max, self.min);
        let levels = match self.spread {
            SigmaSchedule::Timesteps | SigmaSchedule::Polyexponential => return None,
            SigmaSchedule::Karras => sigma_schedule::karras(max, min, 7.0, n),
            SigmaSchedule::Exponential => sigma_schedule::exponential(max, min, n),
            SigmaSchedule::Beta => sigma_schedule::beta(max, min, n),
            SigmaSchedule::Lu => linspace(round(max.ln()), round(min.ln()), n).map(f64::exp).collect(),
            SigmaSchedule::Flow => return Some(self.flow_levels(n)),
        };
        let whole = matches!(self.spread, SigmaSchedule::Karras | SigmaSchedule::Lu)
            && !(fractional_on_cosine && self.cosine);
        let times = levels.iter().map(|sigma| self.table.sigma_to_t(*sigma));
        let times = times.map(|t| if whole { t.round_ties_even() } else { t }).collect();
        Some((levels, times))
    }

    fn flow_levels(&self, n: usize) -> (Vec<f64>, Vec<f64>) {
        let train = self.schedule.num_train_timesteps() as f64;
        let mut levels: Vec<f64> = linspace(1.0, 1.0 / train, n + 1)
            .map(|alpha| sigma_schedule::shift_sigma(1.0 - alpha, self.flow_shift))
            .skip(1)
            .collect();
        levels.reverse();
        let times = levels.iter().map(|sigma| sigma * train).collect();
        (levels, times)
    }

    /// The places and levels of these σ, the last one being the end's.
    pub(crate) fn grid(&self, sigmas: &[f64], times: &[f64]) -> LambdaSteps {
        let levels: Vec<NoiseLevel> = sigmas.iter().map(|sigma| self.level(round(*sigma))).collect();
        let points =
            times.iter().zip(&levels).map(|(t, level)| Node::plain(t.trunc(), *level, self.kind)).collect();
        LambdaSteps { points, levels }
    }
}

impl LambdaSteps {
    /// Read the keys that these classes share.
    pub(crate) fn read(
        settings: &mut Settings,
        options: &Options,
        class: &Class,
    ) -> Result<Self, SamplerError> {
        let spread = SigmaSchedule::from_settings(settings, class.spreads)?;
        let base = Base::read(settings, class, spread)?;
        let (spacing, offset) = if class.spacing_keys {
            TimestepSpacing::from_settings(settings, "linspace")?
        } else {
            (TimestepSpacing::Linspace, 0)
        };
        let n = options.steps_up_to(base.schedule.num_train_timesteps(), class.name)?;
        let zero = match class.end {
            End::Visited => false,
            _ => settings.choice("final_sigmas_type", "zero", &["zero", "sigma_min"])? == "zero",
        };
        let (mut sigmas, times, own) = match base.spread_levels(n, class.fractional_on_cosine) {
            Some((levels, times)) => (levels, times, false),
            None => {
                let times = spacing.dpm_solver_timesteps(
                    base.schedule.num_train_timesteps(),
                    base.clipped,
                    n,
                    offset,
                )?;
                (times.iter().map(|t| base.table.sigma_at(*t)).collect(), times, true)
            }
        };
        let last = sigmas[sigmas.len() - 1];
        sigmas.push(match class.end {
            _ if zero => 0.0,
            End::Configured => base.table.min(),
            End::ConfiguredOrVisited | End::Visited => {
                if own {
                    base.table.min()
                } else {
                    last
                }
            }
        });
        Ok(base.grid(&options.rest(sigmas), &options.rest(times)))
    }

    /// Every step: its index, where it stands, its level, and the level to which it goes.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (usize, Node, NoiseLevel, NoiseLevel)> + '_ {
        let pairs = self.points.iter().zip(self.levels.windows(2)).enumerate();
        pairs.map(|(i, (point, pair))| (i, *point, pair[0], pair[1]))
    }
}
