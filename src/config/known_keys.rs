//! The keys of the configuration, and those that somebody may have meant by a name that is none.

use super::Config;
use crate::toml_document::keys_of_section;

/// Words that users write for a key with another name.
const SYNONYMS: [(&str, &str); 6] = [
    ("name", "node"),
    ("port", "mqtt.url"),
    ("host", "mqtt.url"),
    ("broker", "mqtt.url"),
    ("server", "mqtt.url"),
    ("address", "mqtt.url"),
];

/// What a name may mean that is no key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meant {
    /// Probably this key.
    Key(Vec<String>),
    /// One of these keys, all those of a section.
    Section(Vec<Vec<String>>),
    /// Nothing in the configuration.
    Nothing,
}

/// Returns all keys of the configuration with their sections.
pub(super) fn known_keys() -> Vec<Vec<String>> {
    let (mut sections, mut keys) = (vec![Vec::new()], Vec::new());
    while let Some(section) = sections.pop() {
        match keys_of_section::<Config>(&section) {
            Some(names) => {
                sections.extend(names.into_iter().map(|name| [section.clone(), vec![name]].concat()));
            }
            None => keys.push(section),
        }
    }
    keys
}

/// Returns what a name may mean; `None` if it is a key or a section.
pub(super) fn meant_by(name: &[String]) -> Option<Meant> {
    let known = known_keys();
    let is_model_override = name.len() > 2 && name[..2] == ["models", "engine"];
    if is_model_override || known.iter().any(|key| key.starts_with(name)) {
        return None;
    }
    let text = name.join("_");
    let is_meant = |(word, key): &&(&str, &str)| {
        // With or without the section.
        let section = key.split_once('.').map_or("", |(section, _)| section);
        *word == text || text.strip_prefix(section).and_then(|rest| rest.strip_prefix('_')) == Some(*word)
    };
    if let Some((_, key)) = SYNONYMS.iter().find(is_meant) {
        return Some(Meant::Key(key.split('.').map(str::to_owned).collect()));
    }
    let sections = known.iter().filter(|key| key.len() > 1).map(|key| &key[0]);
    let is_near = |section: &&String| strsim::damerau_levenshtein(section, &text) == 1;
    if let ([_], Some(section)) = (name, sections.clone().find(is_near)) {
        return Some(Meant::Key(vec![section.clone()]));
    }
    let nearest = known.iter().min_by_key(|key| distance(key, &text));
    if let Some(key) = nearest.filter(|key| distance(key, &text) <= max_distance(&text)) {
        return Some(Meant::Key(key.clone()));
    }
    let section: Vec<_> = known
        .into_iter()
        .filter(|key| key.len() > 1 && text.strip_prefix(&key[0]).is_some_and(|rest| rest.starts_with('_')))
        .collect();
    Some(if section.is_empty() { Meant::Nothing } else { Meant::Section(section) })
}

/// How many letters may differ between a key and a name that means it. Short words are similar by chance.
fn max_distance(text: &str) -> usize {
    if text.len() <= 4 { 1 } else { 2 }
}

/// How many letters differ between a name and a key, with or without its section.
fn distance(key: &[String], text: &str) -> usize {
    let (full, last) = (key.join("_"), key.last().map_or("", String::as_str));
    // A key with something appended, and the beginning of a key, are nearer than similar letters.
    let is_extended = text.strip_prefix(&full).is_some_and(|rest| rest.starts_with('_'));
    let is_begun = text.len() >= 4 && last.starts_with(text);
    if is_extended || is_begun {
        return 1;
    }
    strsim::damerau_levenshtein(&full, text).min(strsim::damerau_levenshtein(last, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_key_is_known() {
        let known = known_keys();
        let joined: Vec<_> = known.iter().map(|key| key.join(".")).collect();
        for key in ["node", "mqtt.url", "models.paths", "models.engine", "engine.tensorrt.fp16", "board.root"]
        {
            assert!(joined.iter().any(|known| known == key), "{key} is not in {joined:?}");
        }
    }

    #[test]
    fn a_name_means_a_key_only_if_it_is_near() {
        let meant = |name: &str| {
            let keys: Vec<_> = name.split('.').map(str::to_owned).collect();
            match meant_by(&keys) {
                None => "known".to_owned(),
                Some(Meant::Key(key)) => key.join("."),
                Some(Meant::Section(keys)) => format!("[{}]", keys[0][0]),
                Some(Meant::Nothing) => String::new(),
            }
        };
        for (name, key) in [
            ("mqtt", "known"),
            ("models.engine.digits.batch", "known"),
            ("ndoe", "node"),
            ("model", "models"),
            ("engines", "engine"),
            ("mqt", "mqtt"),
            ("node.name", "node"),
            ("name", "node"),
            ("user", "mqtt.username"),
            ("password", "mqtt.password_file"),
            ("mqtt_url", "mqtt.url"),
            ("mqtt_host", "mqtt.url"),
            ("mqtt.port", "mqtt.url"),
            ("level", "log.level"),
            ("spool_dir", "[spool]"),
            ("mqtt.speed", "[mqtt]"),
            ("data_dir", ""),
        ] {
            assert_eq!(meant(name), key, "{name}");
        }
        for word in ["home", "version", "pid", "mainpid", "instance", "config", "env", "dir", "data"] {
            assert_eq!(meant(word), "", "{word}");
        }
    }
}
