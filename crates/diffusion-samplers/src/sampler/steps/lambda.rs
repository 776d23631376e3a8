//! Time steps and noise levels of diffusers' λ-space classes: DPM-Solver, DEIS, UniPC, SA-Solver.
//!
//! They solve in λ = log(α/σ), half the logarithm of the signal-to-noise ratio. The state is the network's input.

use crate::noise_schedule::{NoiseLevel, NoiseSchedule, ScheduleDefaults, ZeroSnr, linspace, round};
use crate::prediction_type::PredictionType::{self, Epsilon, Flow, Sample, VPrediction};
use crate::sampler::SamplerError;
use crate::sampler::node::Node;
use crate::sampler::options::{Options, prediction_type};
use crate::scheduler_settings::{Settings, SettingsError};
use crate::sigma_schedule::{self, SigmaSchedule, SigmaTable};
use crate::timestep_spacing::TimestepSpacing;

/// The differences between the classes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LambdaClass {
    pub(crate) name: &'static str,
    pub(crate) zero_snr: ZeroSnr,
    pub(crate) sigma_schedules: &'static [SigmaSchedule],
    /// Whether the class has `timestep_spacing` and `steps_offset`; without them the spacing is `linspace`.
    pub(crate) spacing_keys: bool,
    /// Whether the class has `lambda_min_clipped`.
    pub(crate) clips_lambda: bool,
    /// Whether the time steps of Karras' noise levels stay fractional on a cosine schedule.
    pub(crate) fractional_on_cosine: bool,
    /// Whether the class has `sigma_min` and `sigma_max`.
    pub(crate) sigma_range_keys: bool,
    pub(crate) final_sigma: FinalSigma,
}

/// The final noise level, at which the network is not evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FinalSigma {
    /// 0 or the smallest level of the noise schedule, as `final_sigmas_type` says.
    Configured,
    /// 0 or as `LastEvaluated`, as `final_sigmas_type` says.
    ConfiguredOrLastEvaluated,
    /// The smallest level of the noise schedule; with another sigma schedule, the level of the last evaluation.
    LastEvaluated,
}

/// The noise levels of a run, the largest first.
#[derive(Debug)]
pub(crate) struct LambdaSteps {
    /// The points of evaluation.
    pub(crate) nodes: Vec<Node>,
    /// The levels at these points, then the final level.
    pub(crate) levels: Vec<NoiseLevel>,
}

/// The keys that these classes share.
pub(crate) struct LambdaSettings {
    pub(crate) schedule: NoiseSchedule,
    pub(crate) table: SigmaTable,
    pub(crate) kind: PredictionType,
    pub(crate) sigma_schedule: SigmaSchedule,
    pub(crate) cosine: bool,
    pub(crate) flow_shift: f64,
    /// The range of a sigma schedule.
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// The number of time steps that `lambda_min_clipped` excludes.
    pub(crate) clipped: usize,
}

impl LambdaClass {
    /// Declares the keys of the class that a sigma schedule, or its absence, switches off.
    fn switch_off_unused(&self, settings: &mut Settings, sigma_schedule: SigmaSchedule) {
        let reason = "the sigma schedule determines the time steps";
        match sigma_schedule {
            SigmaSchedule::Timesteps if self.sigma_range_keys => {
                let reason = "no sigma schedule is set, such as use_karras_sigmas";
                settings.switch_off(&["sigma_min", "sigma_max"], reason);
            }
            SigmaSchedule::Timesteps => {}
            _ => {
                if self.clips_lambda {
                    settings.switch_off(&["lambda_min_clipped"], reason);
                }
                if self.spacing_keys {
                    settings.switch_off(&["timestep_spacing", "steps_offset"], reason);
                }
            }
        }
    }
}

impl LambdaSettings {
    pub(crate) fn from_settings(
        settings: &mut Settings,
        class: &LambdaClass,
        sigma_schedule: SigmaSchedule,
    ) -> Result<Self, SamplerError> {
        let schedule =
            NoiseSchedule::from_settings(settings, ScheduleDefaults::DDPM.with_zero_snr(class.zero_snr))?;
        let cosine = settings.text("beta_schedule", "linear")? == "squaredcos_cap_v2";
        let kind = prediction_type(settings, &[Epsilon, Sample, VPrediction, Flow])?;
        let flow_shift = settings.number_if(sigma_schedule == SigmaSchedule::Flow, "flow_shift", 1.0)?;
        if settings.flag("use_dynamic_shifting", false)? {
            let reason = "this sampler does not know the image's size; set flow_shift";
            return Err(SettingsError::refused("use_dynamic_shifting", true, reason).into());
        }
        settings.choice("time_shift_type", "exponential", &["exponential", "linear"])?;
        settings.switch_off(&["time_shift_type"], "use_dynamic_shifting is false");
        if sigma_schedule != SigmaSchedule::Flow {
            settings.switch_off(&["flow_shift"], "use_flow_sigmas is false");
        }
        if cosine && class.fractional_on_cosine && is_rounded(sigma_schedule) {
            // It also decides that time steps stay fractional.
            settings.switch_on("beta_schedule");
        }
        if kind == Flow && sigma_schedule != SigmaSchedule::Flow {
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
            let reason = "it excludes every time step of the schedule; lower it";
            return Err(SettingsError::refused("lambda_min_clipped", clip, reason).into());
        }
        let (min, max) = match class.sigma_range_keys {
            true => (settings.optional_number("sigma_min")?, settings.optional_number("sigma_max")?),
            false => (None, None),
        };
        class.switch_off_unused(settings, sigma_schedule);
        let table = SigmaTable::new(&schedule);
        let (min, max) = (min.unwrap_or(table.min()), max.unwrap_or(table.max()));
        Ok(Self { table, schedule, kind, sigma_schedule, cosine, flow_shift, min, max, clipped })
    }

    /// The level of a σ on the straight path or of a variance-preserving process.
    pub(crate) fn level(&self, sigma: f64) -> NoiseLevel {
        match self.sigma_schedule {
            SigmaSchedule::Flow => NoiseLevel { alpha: 1.0 - sigma, sigma },
            _ => {
                // In f32, because at low signal x − σ·ε̂ amplifies the rounding of σ.
                let sigma = sigma as f32;
                let alpha = 1.0 / (sigma * sigma + 1.0).sqrt();
                NoiseLevel { alpha: f64::from(alpha), sigma: f64::from(sigma * alpha) }
            }
        }
    }

    /// `n` noise levels of the sigma schedule and their time steps; `None` for the levels of the noise schedule.
    pub(crate) fn scheduled_sigmas(
        &self,
        n: usize,
        fractional_on_cosine: bool,
    ) -> Option<(Vec<f64>, Vec<f64>)> {
        let (max, min) = (self.max, self.min);
        let sigmas = match self.sigma_schedule {
            SigmaSchedule::Timesteps | SigmaSchedule::Polyexponential => return None,
            SigmaSchedule::Karras => sigma_schedule::karras(max, min, 7.0, n),
            SigmaSchedule::Exponential => sigma_schedule::exponential(max, min, n),
            SigmaSchedule::Beta => sigma_schedule::beta(max, min, n),
            SigmaSchedule::Lu => linspace(round(max.ln()), round(min.ln()), n).map(f64::exp).collect(),
            SigmaSchedule::Flow => return Some(self.flow_sigmas(n)),
        };
        let whole = is_rounded(self.sigma_schedule) && !(fractional_on_cosine && self.cosine);
        let times = sigmas.iter().map(|sigma| self.table.sigma_to_t(*sigma));
        let times = times.map(|t| if whole { t.round_ties_even() } else { t }).collect();
        Some((sigmas, times))
    }

    fn flow_sigmas(&self, n: usize) -> (Vec<f64>, Vec<f64>) {
        let train = self.schedule.num_train_timesteps() as f64;
        let mut sigmas: Vec<f64> = linspace(1.0, 1.0 / train, n + 1)
            .map(|alpha| sigma_schedule::shift_sigma(1.0 - alpha, self.flow_shift))
            .skip(1)
            .collect();
        sigmas.reverse();
        let times = sigmas.iter().map(|sigma| sigma * train).collect();
        (sigmas, times)
    }

    /// The run with these σ, of which the last is the final one, and these time steps.
    pub(crate) fn steps(&self, sigmas: &[f64], times: &[f64]) -> LambdaSteps {
        let levels: Vec<NoiseLevel> = sigmas.iter().map(|sigma| self.level(round(*sigma))).collect();
        let node = |(t, level): (&f64, &NoiseLevel)| Node::new(t.trunc(), *level, self.kind);
        let nodes = times.iter().zip(&levels).map(node).collect();
        LambdaSteps { nodes, levels }
    }
}

/// Whether the time steps of a sigma schedule are rounded to whole ones, except by the classes of
/// [`LambdaClass::fractional_on_cosine`].
fn is_rounded(sigma_schedule: SigmaSchedule) -> bool {
    matches!(sigma_schedule, SigmaSchedule::Karras | SigmaSchedule::Lu)
}

impl LambdaSteps {
    /// Reads the keys that these classes share.
    pub(crate) fn from_settings(
        settings: &mut Settings,
        options: &Options,
        class: &LambdaClass,
    ) -> Result<Self, SamplerError> {
        let sigma_schedule = SigmaSchedule::from_settings(settings, class.sigma_schedules)?;
        let keys = LambdaSettings::from_settings(settings, class, sigma_schedule)?;
        let (spacing, offset) = if class.spacing_keys {
            TimestepSpacing::from_settings(settings, "linspace")?
        } else {
            (TimestepSpacing::Linspace, 0)
        };
        let n = options.steps_up_to(keys.schedule.num_train_timesteps(), class.name)?;
        let zero = match class.final_sigma {
            FinalSigma::LastEvaluated => false,
            _ => settings.choice("final_sigmas_type", "zero", &["zero", "sigma_min"])? == "zero",
        };
        let (mut sigmas, times, from_noise_schedule) =
            match keys.scheduled_sigmas(n, class.fractional_on_cosine) {
                Some((sigmas, times)) => (sigmas, times, false),
                None => {
                    let times = spacing.dpm_solver_timesteps(
                        keys.schedule.num_train_timesteps(),
                        keys.clipped,
                        n,
                        offset,
                    )?;
                    (times.iter().map(|t| keys.table.sigma_at(*t)).collect(), times, true)
                }
            };
        let last = sigmas[sigmas.len() - 1];
        sigmas.push(match class.final_sigma {
            _ if zero => 0.0,
            FinalSigma::ConfiguredOrLastEvaluated | FinalSigma::LastEvaluated if !from_noise_schedule => last,
            _ => keys.table.min(),
        });
        Ok(keys.steps(&options.without_skipped(sigmas), &options.without_skipped(times)))
    }

    /// Every step: its index, its node, its level and the next level.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (usize, Node, NoiseLevel, NoiseLevel)> + '_ {
        let pairs = self.nodes.iter().zip(self.levels.windows(2)).enumerate();
        pairs.map(|(i, (node, pair))| (i, *node, pair[0], pair[1]))
    }
}
