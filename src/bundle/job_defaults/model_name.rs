//! The words of a model's name.

/// Words of names that distilled models have. Other models may have them too.
pub(super) const DISTILLATION_WORDS: [&str; 7] =
    ["turbo", "lightning", "hyper", "lcm", "tcd", "schnell", "distilled"];

/// Names of folders that say nothing about the model in them.
const GENERIC: [&str; 6] = ["unet", "transformer", "onnx", "model", "models", "snapshots"];

/// A model's name and its words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ModelName {
    /// The last part of a path, or of a name such as `stabilityai/sd-turbo`.
    pub(super) text: String,
    words: Vec<String>,
}

impl ModelName {
    /// Reads a path or a name. `None` if no part of it is a name.
    pub(super) fn new(path: &str) -> Option<Self> {
        let parts = path.split(['/', '\\']).rev();
        let is_revision = |part: &str| part.len() == 40 && part.chars().all(|c| c.is_ascii_hexdigit());
        let text = parts
            .filter(|part| !part.is_empty() && !is_revision(part))
            .find(|part| !GENERIC.contains(&part.to_lowercase().as_str()))?;
        Some(Self { text: text.to_owned(), words: words(text) })
    }

    /// Whether these words, which blanks separate, are in the name one after the other.
    pub(super) fn has(&self, phrase: &str) -> bool {
        let phrase: Vec<_> = phrase.split(' ').collect();
        self.words.windows(phrase.len()).any(|words| words == phrase)
    }

    /// The number before the word "step" or "steps".
    pub(super) fn steps(&self) -> Option<usize> {
        let pairs = self.words.windows(2).filter(|pair| ["step", "steps"].contains(&pair[1].as_str()));
        pairs.filter_map(|pair| pair[0].parse().ok()).find(|steps| *steps > 0)
    }
}

/// Splits at signs, between letters and digits, where capitals begin a word, and SDXL: `HyperSDXL-8steps` is hyper, sd, xl, 8,
/// steps.
fn words(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut words = vec![String::new()];
    for (i, c) in chars.iter().enumerate() {
        let (before, after) = (i.checked_sub(1).map(|i| chars[i]), chars.get(i + 1));
        let begins = before.is_some_and(|before| {
            before.is_alphabetic() != c.is_alphabetic()
                || (c.is_uppercase()
                    && (before.is_lowercase() || after.is_some_and(|after| after.is_lowercase())))
        });
        if begins || !c.is_alphanumeric() {
            words.push(String::new());
        }
        if let (true, Some(word)) = (c.is_alphanumeric(), words.last_mut()) {
            word.extend(c.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    let parts = |word: String| match word.as_str() {
        "sdxl" => vec!["sd".to_owned(), "xl".to_owned()],
        _ => vec![word],
    };
    words.into_iter().flat_map(parts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_into_words() {
        for (name, expected) in [
            ("Hyper-SDXL-8steps-CFG-lora", "hyper sd xl 8 steps cfg lora"),
            ("HyperSDXL", "hyper sd xl"),
            ("SDXLTurbo", "sd xl turbo"),
            ("sd3.5-large-turbo", "sd 3 5 large turbo"),
            ("DreamShaperXL_v2_turbo", "dream shaper xl v 2 turbo"),
            ("hyperrealism", "hyperrealism"),
            ("turbo-cats", "turbo cats"),
        ] {
            assert_eq!(ModelName::new(name).unwrap().words.join(" "), expected);
        }
    }

    #[test]
    fn the_name_of_a_path_is_its_last_part_that_is_one() {
        let revision = "0123456789abcdef0123456789abcdef01234567";
        let snapshot = format!("/cache/models--stabilityai--sd-turbo/snapshots/{revision}/unet/");
        for (path, expected) in [
            ("stabilityai/sdxl-turbo", Some("sdxl-turbo")),
            (&snapshot, Some("models--stabilityai--sd-turbo")),
            ("/", None),
            ("", None),
        ] {
            assert_eq!(ModelName::new(path).map(|name| name.text).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn the_number_of_steps_stands_before_its_word() {
        for (name, expected) in [
            ("sdxl_lightning_4step_unet", Some(4)),
            ("Hyper-SD15-8steps-lora", Some(8)),
            ("sdxl-lightning-2-step", Some(2)),
            ("step-by-step-4", None),
            ("model-0step", None),
            ("sd15", None),
        ] {
            assert_eq!(ModelName::new(name).unwrap().steps(), expected, "{name}");
        }
    }
}
