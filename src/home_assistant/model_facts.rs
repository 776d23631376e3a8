//! What Home Assistant's entities need to know about a model.

use std::collections::BTreeSet;

use crate::job::ModelCard;

/// The option for no class, where the model can do without.
pub(super) const NO_CLASS: &str = "no class";
/// The longest option, in characters. A state of Home Assistant has at most 255.
const MAX_OPTION_LEN: usize = 200;

/// The settings that a model understands, and their defaults.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ModelFacts {
    pub(super) name: String,
    pub(super) takes_prompt: bool,
    pub(super) takes_negative_prompt: bool,
    pub(super) takes_guidance: bool,
    /// The default number of steps.
    pub(super) steps: u64,
    /// The default guidance scale.
    pub(super) guidance: f64,
    /// `None` without classes.
    pub(super) classes: Option<ClassFacts>,
}

/// The classes of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClassFacts {
    /// How many there are; at least 1.
    pub(super) count: u64,
    /// The option of each class, all of them different; empty if the classes have no names.
    pub(super) options: Vec<String>,
    /// Whether a job may have no class.
    pub(super) is_optional: bool,
}

impl ModelFacts {
    pub(super) fn new(card: &ModelCard) -> Self {
        let bundle = &card.bundle;
        let takes_prompt = card.latent.is_some();
        let classes = (bundle.classes() > 0 && card.signature.class.is_some()).then(|| {
            ClassFacts::new(bundle.classes(), &bundle.manifest.classes.names, bundle.manifest.classes.null)
        });
        let guides_classes = classes.as_ref().is_some_and(|classes| classes.is_optional);
        Self {
            name: bundle.name.clone(),
            takes_prompt,
            takes_negative_prompt: takes_prompt
                && card.facts().has_negative_prompt
                && !card.has_embedded_guidance(),
            takes_guidance: if takes_prompt { card.takes_guidance() } else { guides_classes },
            steps: bundle.defaults.steps.value as u64,
            guidance: bundle.defaults.guidance.value,
            classes,
        }
    }
}

impl ClassFacts {
    pub(super) fn new(count: usize, names: &[String], null: Option<i64>) -> Self {
        let options = if names.is_empty() { Vec::new() } else { options(count, names) };
        Self { count: count as u64, options, is_optional: null.is_some() }
    }

    /// Returns the class with this option; the inner value is `None` for no class.
    pub(super) fn class_of(&self, option: &str) -> Option<Option<i64>> {
        if self.is_optional && option == NO_CLASS {
            return Some(None);
        }
        let index = self.options.iter().position(|known| known == option)?;
        i64::try_from(index).ok().map(Some)
    }

    /// Returns the option of a class.
    pub(super) fn option_of(&self, class: Option<i64>) -> Option<&str> {
        if self.options.is_empty() {
            return None;
        }
        let Some(class) = class else { return self.is_optional.then_some(NO_CLASS) };
        self.options.get(usize::try_from(class).ok()?).map(String::as_str)
    }

    /// Returns all options.
    pub(super) fn all_options(&self) -> impl Iterator<Item = &str> {
        self.is_optional.then_some(NO_CLASS).into_iter().chain(self.options.iter().map(String::as_str))
    }
}

/// Returns a different option for each class. Home Assistant strips white space, and takes `none` for an unknown state.
fn options(count: usize, names: &[String]) -> Vec<String> {
    let mut taken = BTreeSet::from([NO_CLASS.to_owned(), String::new()]);
    let mut option = |index: usize| {
        let name: String =
            names.get(index).map_or("", |name| name.trim()).chars().take(MAX_OPTION_LEN).collect();
        let mut option = name.trim_end().to_owned();
        while taken.contains(&option) || option.eq_ignore_ascii_case("none") {
            option = format!("{option} ({index})").trim().to_owned();
        }
        taken.insert(option.clone());
        option
    };
    (0..count).map(&mut option).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn every_class_has_an_option_of_its_own_that_home_assistant_accepts() {
        let long = "x".repeat(300);
        let facts = ClassFacts::new(
            7,
            &names(&["crane", " crane ", "None", "", "no class", &long, "maillot"]),
            Some(7),
        );
        assert_eq!(facts.options[..5], ["crane", "crane (1)", "None (2)", "(3)", "no class (4)"]);
        assert_eq!((facts.options[5].len(), facts.options[6].as_str()), (200, "maillot"));
        for (class, option) in facts.options.iter().enumerate() {
            let class = Some(class as i64);
            assert_eq!(
                (facts.class_of(option), facts.option_of(class)),
                (Some(class), Some(option.as_str()))
            );
        }
        assert_eq!((facts.class_of(NO_CLASS), facts.option_of(None)), (Some(None), Some(NO_CLASS)));
        assert_eq!((facts.class_of("dog"), facts.option_of(Some(7))), (None, None));
        assert_eq!(facts.all_options().count(), 8);
    }

    #[test]
    fn an_option_that_looks_like_a_numbered_one_is_numbered_too() {
        let facts = ClassFacts::new(3, &names(&["a (2)", "a", "a"]), None);
        assert_eq!(facts.options, ["a (2)", "a", "a (2) (2)"]);
    }

    #[test]
    fn classes_without_names_have_no_options_and_a_required_one_no_option_for_none() {
        let facts = ClassFacts::new(1000, &[], Some(1000));
        assert_eq!((facts.option_of(Some(3)), facts.options.len()), (None, 0));
        let facts = ClassFacts::new(2, &names(&["cat", "dog"]), None);
        assert_eq!((facts.class_of(NO_CLASS), facts.option_of(None)), (None, None));
        assert_eq!(facts.all_options().collect::<Vec<_>>(), ["cat", "dog"]);
    }
}
