//! What people call samplers: a family's name or a preset's, with a suffix for its noise levels.

use std::sync::Arc;

use super::FAMILIES;
use super::family::{
    Family, Options, Preset, PresetValue, Sampler, SamplerError, Strength, TimeConditioning,
};
use super::steps::edm;
use crate::scheduler_settings::{Settings, SettingsError, Value};
use crate::sigma_schedule::SigmaSchedule;

/// A sampler that was named, by a person or by a configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplerSpec {
    /// The name as it stands in receipts.
    pub name: String,
    family: &'static Family,
    implied: &'static [(&'static str, PresetValue)],
    spread: Option<(&'static str, &'static str)>,
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
    fn from(implied: PresetValue) -> Self {
        match implied {
            PresetValue::Text(text) => Self::Text(text.to_owned()),
            PresetValue::Number(number) => Self::Number(number),
        }
    }
}

impl SamplerSpec {
    /// Whether it takes the known region of an inpainting job by itself ([`Options::known`]).
    pub fn inpaints(&self) -> bool {
        self.family.inpaints
    }

    /// What its network is told in place of a time.
    pub fn time(&self) -> TimeConditioning {
        self.family.time
    }

    /// Whether it can drive a network made for a class of scheduler configurations.
    pub fn check_class(&self, class: &str, settings: &mut Settings) -> Result<(), SamplerError> {
        let of = |family: &Family, settings: &mut Settings| match family.time {
            TimeConditioning::LogSigma | TimeConditioning::Consistency if !edm::preconditions(settings)? => {
                Ok(TimeConditioning::Sigma)
            }
            time => Ok::<_, SettingsError>(time),
        };
        let (told, expected) = (of(self.family, settings)?, of(by_class(class)?.family, settings)?);
        if told == expected {
            return Ok(());
        }
        Err(SamplerError::Time { name: self.name.clone(), told, class: class.to_owned(), expected })
    }

    /// Read the settings into a sampler with its plan; what the name implies counts over them.
    pub fn build(
        &self,
        settings: &mut Settings,
        options: &Options,
    ) -> Result<Arc<dyn Sampler>, SamplerError> {
        for (key, implied) in self.implied {
            settings.name(key, (*implied).into());
        }
        if let Some((key, _)) = self.spread {
            for (_, other, _) in SigmaSchedule::KEYS {
                settings.name(other, Value::Flag(other == key));
            }
        }
        let sampler = (self.family.build)(settings, options).map_err(|error| match error {
            // By the name that was asked for.
            SamplerError::Steps { steps, most, .. } => {
                SamplerError::Steps { steps, most, name: self.name.clone() }
            }
            other => other,
        })?;
        if let Some((_, suffix)) = self.spread.filter(|(key, _)| !settings.was_asked(key)) {
            return Err(SamplerError::Suffix { name: self.family.name, suffix });
        }
        if options.strength != Strength::Full && sampler.start().is_none() {
            return Err(SamplerError::Whole { name: self.name.clone() });
        }
        if !sampler.is_finite() {
            return Err(SamplerError::NotFinite { name: self.name.clone(), steps: options.steps });
        }
        Ok(sampler)
    }
}

/// The sampler that people call so.
pub fn by_name(name: &str) -> Result<SamplerSpec, SamplerError> {
    let spreads = SigmaSchedule::KEYS.into_iter().map(|(_, key, suffix)| Some((key, suffix)));
    for spread in std::iter::once(None).chain(spreads) {
        let stem = match spread {
            None => Some(name),
            Some((_, suffix)) => name.strip_suffix(suffix).and_then(|stem| stem.strip_suffix('_')),
        };
        if let Some((family, implied)) = stem.and_then(find) {
            return Ok(SamplerSpec { name: name.to_owned(), family, implied, spread });
        }
    }
    Err(SamplerError::Unknown { name: name.to_owned(), known: names() })
}

fn find(stem: &str) -> Option<(&'static Family, &'static [(&'static str, PresetValue)])> {
    FAMILIES.iter().find_map(|family| {
        let preset = family.presets.iter().find(|preset| preset.name == stem);
        let own = (family.name == stem).then_some(&[][..]);
        own.or(preset.map(|Preset { keys, .. }| *keys)).map(|implied| (family, implied))
    })
}

/// The family of a class in scheduler_config.json.
pub fn by_class(class: &str) -> Result<SamplerSpec, SamplerError> {
    let family = FAMILIES.iter().find(|family| family.class == class).ok_or_else(|| {
        let known = FAMILIES.iter().map(|family| family.class).collect();
        SamplerError::UnknownClass { class: class.to_owned(), known }
    })?;
    Ok(SamplerSpec { name: family.name.to_owned(), family, implied: &[], spread: None })
}

/// The names that people type, suffixes aside.
pub fn names() -> Vec<&'static str> {
    let of = |family: &'static Family| {
        std::iter::once(family.name).chain(family.presets.iter().map(|preset| preset.name))
    };
    FAMILIES.iter().flat_map(of).collect()
}

/// The suffixes for other noise levels, as `euler_karras` has one.
pub fn suffixes() -> Vec<&'static str> {
    SigmaSchedule::KEYS.iter().map(|(_, _, suffix)| *suffix).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_classes_are_told_apart() {
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
    fn a_suffix_counts_over_the_configuration_and_is_refused_where_it_means_nothing() {
        let options = Options::of_steps(4);
        let mut settings = Settings::default();
        settings.name("use_beta_sigmas", Value::Flag(true));
        assert!(by_name("dpmpp_2m_karras").unwrap().build(&mut settings, &options).is_ok());
        let error = by_name("ddim_karras").unwrap().build(&mut Settings::default(), &options).err().unwrap();
        assert_eq!(error.to_string(), "ddim has no karras noise levels");
    }
}
