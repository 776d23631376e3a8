//! Checks of a TOML document that deserialization does not make, or reports without the key.

mod syntax;

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

pub(crate) use syntax::{SyntaxFault, syntax_fault};

/// A key that no section has.
const UNKNOWN: &str = "?";

/// A value at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The keys that lead to the value, without indices of arrays.
    pub(crate) keys: Vec<String>,
    pub(crate) message: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.keys.join("."), self.message)
    }
}

/// Returns a fault for each whole number of more than 64 bits. The document must be valid otherwise.
pub(crate) fn huge_integers(text: &str) -> Vec<Fault> {
    fn search(value: &DeValue<'_>, keys: &[String], faults: &mut Vec<Fault>) {
        match value {
            DeValue::Integer(number) if i64::from_str_radix(number.as_str(), number.radix()).is_err() => {
                let message = format!("the number {number} is too large; whole numbers have at most 64 bits");
                faults.push(Fault { keys: keys.to_vec(), message });
            }
            DeValue::Array(values) => values.iter().for_each(|value| search(value.get_ref(), keys, faults)),
            DeValue::Table(table) => search_table(table, keys, faults),
            _ => {}
        }
    }
    fn search_table(table: &DeTable<'_>, keys: &[String], faults: &mut Vec<Fault>) {
        for (key, value) in table {
            search(value.get_ref(), &[keys, &[key.get_ref().to_string()]].concat(), faults);
        }
    }
    let mut faults = Vec::new();
    if let Ok(document) = DeTable::parse(text) {
        search_table(document.get_ref(), &[], &mut faults);
    }
    faults
}

/// Returns the first array that stands where `T` has a section. serde would assign its values to the section's keys by
/// their order.
pub(crate) fn array_for_section<T: DeserializeOwned>(table: &Table) -> Option<Fault> {
    fn search<T: DeserializeOwned>(table: &Table, section: &[String]) -> Option<Fault> {
        table.iter().find_map(|(key, value)| {
            let keys = [section, std::slice::from_ref(key)].concat();
            match value {
                Value::Table(inner) => search::<T>(inner, &keys),
                Value::Array(values) if keys_of_section::<T>(&keys).is_some() => {
                    let name = keys.join(".");
                    let advice = match values.first() {
                        Some(Value::Table(_)) => format!("write [{name}] instead of [[{name}]]"),
                        _ => format!("write [{name}], and its keys below"),
                    };
                    Some(Fault { keys, message: format!("must be a table, and is an array; {advice}") })
                }
                _ => None,
            }
        })
    }
    search::<T>(table, &[])
}

/// Returns the names of a section's keys; `None` if `T` has no such section. A section must refuse unknown keys.
pub(crate) fn keys_of_section<T: DeserializeOwned>(section: &[String]) -> Option<Vec<String>> {
    let unknown = nest(&[section, &[UNKNOWN.to_owned()]].concat(), Value::Integer(1));
    // The error for an unknown key of a section lists the section's keys.
    let error = T::deserialize(unknown).err()?;
    let expected = error.message().strip_prefix("unknown field `?`")?;
    Some(expected.split('`').skip(1).step_by(2).map(str::to_owned).collect())
}

/// Returns a table with one value, below these keys.
pub(crate) fn nest(keys: &[String], value: Value) -> Table {
    let (first, rest) = match keys {
        [] => return Table::new(),
        [first, rest @ ..] => (first, rest),
    };
    let inner = if rest.is_empty() { value } else { Value::Table(nest(rest, value)) };
    Table::from_iter([(first.clone(), inner)])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Document {
        list: Vec<i64>,
        section: Option<Section>,
        named: BTreeMap<String, Section>,
    }

    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Section {
        a: i64,
        b: i64,
    }

    fn fault(text: &str) -> Option<String> {
        array_for_section::<Document>(&text.parse().unwrap()).map(|fault| fault.to_string())
    }

    #[test]
    fn an_array_was_taken_for_a_table_by_position() {
        let message = |name: &str, advice: &str| {
            Some(format!("{name}: must be a table, and is an array; write [{name}]{advice}"))
        };
        assert_eq!(fault("section = [1, 2]"), message("section", ", and its keys below"));
        assert_eq!(fault("section = []"), message("section", ", and its keys below"));
        assert_eq!(fault("[[section]]\na = 1"), message("section", " instead of [[section]]"));
        assert_eq!(fault("[named]\nx = [1, 2]"), message("named.x", ", and its keys below"));
        assert_eq!(fault("list = [1, 2]\n[section]\na = 1\n[named.x]\na = 1"), None);
    }

    #[test]
    fn a_number_of_more_than_64_bits_is_reported_with_its_key() {
        let faults = huge_integers(
            "a = 99999999999999999999\n[b]\nc = [1, 0x1_0000_0000_0000_0000]\nd = -9223372036854775808\n",
        );
        let texts: Vec<_> = faults.iter().map(Fault::to_string).collect();
        assert_eq!(
            texts,
            [
                "a: the number 99999999999999999999 is too large; whole numbers have at most 64 bits",
                "b.c: the number 0x10000000000000000 is too large; whole numbers have at most 64 bits",
            ]
        );
    }
}
