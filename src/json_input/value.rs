//! A JSON value that keeps what `serde_json::Value` loses: repeated keys and their order.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::MAX_EXACT_INTEGER;

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    /// An integer of at most 64 bits, written without fraction and exponent.
    Integer(i128),
    /// An integer of more than 64 bits, as it is written.
    LargeInteger(String),
    /// Any other number.
    Float(f64),
    String(String),
    Array(Vec<Json>),
    /// The members in their order. A key can occur twice.
    Object(Vec<(String, Json)>),
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Integer(value.into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Integer(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Json, E> {
        Ok(Json::String(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Json, E> {
        Ok(Json::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Json, A::Error> {
        let mut array = Vec::new();
        while let Some(element) = elements.next_element()? {
            array.push(element);
        }
        Ok(Json::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut object = Vec::new();
        while let Some(member) = members.next_entry()? {
            object.push(member);
        }
        Ok(Json::Object(object))
    }
}

/// The longest string in an error message, in characters.
pub(super) const MAX_SHOWN: usize = 40;

impl fmt::Display for Json {
    /// The value as an error message describes it: `3`, `the string "ten"`, `an object`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::LargeInteger(digits) => f.write_str(&shortened(digits, MAX_SHOWN)),
            Self::Float(value) if value.abs() >= 1e21 => write!(f, "{value:e}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::String(text) => write!(f, "the string {:?}", shortened(text, MAX_SHOWN)),
            Self::Array(_) => f.write_str("an array"),
            Self::Object(_) => f.write_str("an object"),
        }
    }
}

impl Json {
    /// Whether it is a whole number that no field which counts something can have: a negative one, or one that is not
    /// exact in most JSON clients.
    pub(crate) fn is_no_count(&self) -> bool {
        let is_count = |number: f64| (0.0..=MAX_EXACT_INTEGER as f64).contains(&number);
        match self {
            Self::Integer(number) => !is_count(*number as f64),
            Self::LargeInteger(_) => true,
            Self::Float(number) => number.fract() == 0.0 && !is_count(*number),
            _ => false,
        }
    }

    /// The value as JSON text; a string as it is, without quotes.
    pub(crate) fn to_text(&self) -> String {
        match self {
            Self::String(text) | Self::LargeInteger(text) => text.clone(),
            Self::Array(array) => format!("[{}]", join(array.iter().map(Self::to_json))),
            Self::Object(object) => {
                let member = |(key, value): &(String, Self)| format!("{key:?}:{}", value.to_json());
                format!("{{{}}}", join(object.iter().map(member)))
            }
            other => other.to_string(),
        }
    }

    fn to_json(&self) -> String {
        match self {
            Self::String(text) => format!("{text:?}"),
            other => other.to_text(),
        }
    }
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(",")
}

/// Returns the text, or its beginning and an ellipsis if it has more than `max` characters.
pub(crate) fn shortened(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        None => text.to_owned(),
        Some(_) => text.chars().take(max.saturating_sub(1)).chain(['…']).collect(),
    }
}
