//! A sampler by name: a family's name or a preset's, with an optional suffix for the sigma schedule.

use std::sync::Arc;

use super::steps::edm;
use super::{
    FAMILIES, Family, Options, Preset, PresetValue, Sampler, SamplerError, Strength, TimeConditioning,
};
use crate::scheduler_settings::{Settings, SettingsError, Value};
use crate::sigma_schedule::SigmaSchedule;

/// A sampler as a job or a configuration names it, before its settings are read.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplerSpec {
    /// The name, as receipts record it.
    pub name: String,
    family: &'static Family,
    preset: &'static [(&'static str, PresetValue)],
    /// The key and the suffix of the sigma schedule.
    sigma_schedule: Option<(&'static str, &'static str)>,
}

impl PartialEq for Family {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl PartialEq for PresetValue {
    fn eq(&self, other: &Self) -> bool {
        Value::from(*self) == Value::from(*other)
    }
}

impl From<PresetValue> for Value {
    fn from(value: PresetValue) -> Self {
        match value {
            PresetValue::Text(text) => Self::Text(text.to_owned()),
            PresetValue::Number(number) => Self::Number(number),
        }
    }
}

impl SamplerSpec {
    /// Returns whether the sampler has its own inpainting, with the known region of [`Options::known`].
    pub fn inpaints(&self) -> bool {
        self.family.inpaints
    }

    /// The η that diffusers' pipelines pass to its scheduler, where that is not the scheduler's own default.
    pub fn pipeline_eta(&self) -> Option<f64> {
        (self.family.class == "TCDScheduler").then_some(0.0)
    }

    /// The `_class_name` of the scheduler configurations that it reads.
    pub fn class(&self) -> &'static str {
        self.family.class
    }

    /// The conditioning that its network receives.
    pub fn time(&self) -> TimeConditioning {
        self.family.time
    }

    /// Checks that a network which was made for a class of scheduler configurations has the right conditioning.
    pub fn check_class(&self, class: &str, settings: &mut Settings) -> Result<(), SamplerError> {
        let conditioning = |family: &Family, settings: &mut Settings| match family.time {
            TimeConditioning::LogSigma | TimeConditioning::Consistency if !edm::preconditions(settings)? => {
                Ok(TimeConditioning::Sigma)
            }
            time => Ok::<_, SettingsError>(time),
        };
        let found = conditioning(self.family, settings)?;
        let expected = conditioning(by_class(class)?.family, settings)?;
        if found == expected {
            return Ok(());
        }
        Err(SamplerError::Time { name: self.name.clone(), found, class: class.to_owned(), expected })
    }

    /// Reads the settings and plans the steps. The name's preset and suffix override the settings.
    pub fn build(
        &self,
        settings: &mut Settings,
        options: &Options,
    ) -> Result<Arc<dyn Sampler>, SamplerError> {
        for (key, value) in self.preset {
            settings.set_implied(key, (*value).into());
        }
        if let Some((key, _)) = self.sigma_schedule {
            for (_, other, _) in SigmaSchedule::KEYS {
                settings.set_implied(other, Value::Flag(other == key));
            }
        }
        let sampler = (self.family.build)(settings, options).map_err(|error| match error {
            // The family reports its own name; the job has the preset's.
            SamplerError::Steps { steps, max, .. } => {
                SamplerError::Steps { steps, max, name: self.name.clone() }
            }
            other => other,
        })?;
        if let Some((_, suffix)) = self.sigma_schedule.filter(|(key, _)| !settings.was_read(key)) {
            return Err(SamplerError::Suffix { name: self.family.name, suffix });
        }
        if options.strength != Strength::Full && sampler.start().is_none() {
            return Err(SamplerError::NoImageStart { name: self.name.clone() });
        }
        if !sampler.is_finite() {
            return Err(SamplerError::NotFinite { name: self.name.clone(), steps: options.steps });
        }
        Ok(sampler)
    }
}

/// The sampler with this name.
pub fn by_name(name: &str) -> Result<SamplerSpec, SamplerError> {
    let schedules = SigmaSchedule::KEYS.into_iter().map(|(_, key, suffix)| Some((key, suffix)));
    for sigma_schedule in std::iter::once(None).chain(schedules) {
        let stem = match sigma_schedule {
            None => Some(name),
            Some((_, suffix)) => name.strip_suffix(suffix).and_then(|stem| stem.strip_suffix('_')),
        };
        if let Some((family, preset)) = stem.and_then(find) {
            return Ok(SamplerSpec { name: name.to_owned(), family, preset, sigma_schedule });
        }
    }
    Err(SamplerError::Unknown { name: name.to_owned(), known: names() })
}

/// The family of a name without suffix, and the keys that the name sets.
fn find(stem: &str) -> Option<(&'static Family, &'static [(&'static str, PresetValue)])> {
    FAMILIES.iter().find_map(|family| {
        let preset = family.presets.iter().find(|preset| preset.name == stem);
        let keys = (family.name == stem).then_some(&[][..]);
        keys.or(preset.map(|Preset { keys, .. }| *keys)).map(|keys| (family, keys))
    })
}

/// The sampler of a `_class_name` in scheduler_config.json.
pub fn by_class(class: &str) -> Result<SamplerSpec, SamplerError> {
    // The parallel classes have the same steps, and methods for whole batches of time steps.
    let serial = match class {
        "DDIMParallelScheduler" => "DDIMScheduler",
        "DDPMParallelScheduler" => "DDPMScheduler",
        _ => class,
    };
    let family = FAMILIES.iter().find(|family| family.class == serial).ok_or_else(|| {
        let known = FAMILIES.iter().map(|family| family.class).collect();
        SamplerError::UnknownClass { class: class.to_owned(), known }
    })?;
    Ok(SamplerSpec { name: family.name.to_owned(), family, preset: &[], sigma_schedule: None })
}

/// The names of all samplers, without suffixes.
pub fn names() -> Vec<&'static str> {
    let names = |family: &'static Family| {
        std::iter::once(family.name).chain(family.presets.iter().map(|preset| preset.name))
    };
    FAMILIES.iter().flat_map(names).collect()
}

/// The suffixes that select a sigma schedule, as in `euler_karras`.
pub fn suffixes() -> Vec<&'static str> {
    SigmaSchedule::KEYS.iter().map(|(_, _, suffix)| *suffix).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_classes_are_unique() {
        let mut all = names();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), names().len());
        for name in names() {
            assert_eq!(by_name(name).unwrap().name, name);
        }
        let mut classes: Vec<_> = FAMILIES.iter().map(|family| family.class).collect();
        classes.sort_unstable();
        classes.dedup();
        assert_eq!(classes.len(), FAMILIES.len());
    }

    #[test]
    fn the_parallel_classes_are_served_as_their_serial_ones() {
        for class in ["DDIM", "DDPM"] {
            let [serial, parallel] =
                ["", "Parallel"].map(|kind| by_class(&format!("{class}{kind}Scheduler")));
            assert_eq!(serial.unwrap(), parallel.unwrap());
        }
    }

    #[test]
    fn a_suffix_overrides_the_configuration_and_is_refused_if_it_has_no_effect() {
        let options = Options::new(4);
        let mut settings = Settings::default();
        settings.set_implied("use_beta_sigmas", Value::Flag(true));
        assert!(by_name("dpmpp_2m_karras").unwrap().build(&mut settings, &options).is_ok());
        let error = by_name("ddim_karras").unwrap().build(&mut Settings::default(), &options).err().unwrap();
        assert_eq!(error.to_string(), "ddim does not support karras noise levels; remove _karras");
    }
}
