//! Plans the steps of PNDM.

use super::{PndmNode, PndmStep, Transfer, adams_bashforth};
use crate::noise_schedule::NoiseLevel;
use crate::prediction_type::PredictionType;
use crate::scheduler_settings::SettingsError;

/// Plans the steps of a noise schedule.
pub(super) struct Planner<'a> {
    pub(super) bars: &'a [f64],
    /// ᾱ after the last step.
    pub(super) final_bar: f64,
    pub(super) kind: PredictionType,
    /// The number of time steps in a step.
    pub(super) width: i64,
    pub(super) offset: usize,
    /// The number of steps that were asked for.
    pub(super) steps: usize,
}

impl Planner<'_> {
    /// Three Runge–Kutta steps, then PLMS.
    pub(super) fn with_runge_kutta(&self, times: &[i64]) -> Result<Vec<PndmStep>, SettingsError> {
        let half = self.width / 2;
        let runge_kutta = times[..4].windows(2).map(|pair| {
            let (t, s) = (pair[0], pair[1]);
            Ok(PndmStep::RungeKutta {
                t: self.node(t)?,
                to_before_middle: self.transfer(t, t - half)?,
                middle: self.node(s + half)?,
                to_middle: self.transfer(t, s + half)?,
                s: self.node(s)?,
                to_s: self.transfer(t, s)?,
            })
        });
        // Each Runge–Kutta step leaves one evaluation for the multistep formula.
        let multistep = times[3..].iter().zip(4..).map(|(t, known)| self.multistep(*t, known));
        runge_kutta.chain(multistep).collect()
    }

    /// The first step twice, then PLMS. With skipped steps these are the first two entries that remain of the
    /// reference's list of time steps, which has the second time step twice.
    pub(super) fn without_runge_kutta(
        &self,
        times: &[i64],
        skipped: usize,
    ) -> Result<Vec<PndmStep>, SettingsError> {
        let listed = times[..1].iter().chain(times.get(1)).chain(&times[1..]).copied();
        let listed: Vec<i64> = listed.skip(skipped).collect();
        let [t, s, ref rest @ ..] = listed[..] else {
            return listed.into_iter().map(|t| self.multistep(t, 1)).collect();
        };
        let start = PndmStep::Trapezoid {
            t: self.node(t)?,
            first: self.transfer(t, t - self.width)?,
            s: self.node(s)?,
            second: self.transfer(s + self.width, s)?,
        };
        let multistep = rest.iter().zip(2..).map(|(t, known)| self.multistep(*t, known));
        std::iter::once(Ok(start)).chain(multistep).collect()
    }

    /// A PLMS step from t by this number of evaluations.
    fn multistep(&self, t: i64, known: usize) -> Result<PndmStep, SettingsError> {
        let transfer = self.transfer(t, t - self.width)?;
        Ok(PndmStep::Multistep { t: self.node(t)?, weights: adams_bashforth(known), transfer })
    }

    fn node(&self, t: i64) -> Result<PndmNode, SettingsError> {
        Ok(PndmNode { t: t as f64, level: self.level(t)? })
    }

    fn transfer(&self, t: i64, s: i64) -> Result<Transfer, SettingsError> {
        Ok(Transfer::new(self.level(t)?, self.level(s)?, self.kind))
    }

    /// The noise level at a time step; before time step 0 it is the final one.
    fn level(&self, t: i64) -> Result<NoiseLevel, SettingsError> {
        let Ok(index) = usize::try_from(t) else { return Ok(NoiseLevel::from_alpha_bar(self.final_bar)) };
        self.bars
            .get(index)
            .copied()
            .map(NoiseLevel::from_alpha_bar)
            .ok_or_else(|| SettingsError::steps_offset(self.offset, self.steps, index, self.bars.len()))
    }
}
