//! Deserializes a [`Json`] value. Errors describe it in the words of JSON.

use std::collections::HashSet;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, Error, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    Visitor,
};
use serde::forward_to_deserialize_any;

use super::MAX_EXACT_INTEGER;
use super::synonyms::field_meant_by;
use super::unknown_field::unknown_field;
use super::value::Json;
use crate::serde_message::{DocumentFormat, plain_type};

/// What is wrong with a value.
#[derive(Debug)]
pub(super) enum Fault {
    /// The value, and what it must be.
    Expected {
        /// The value: `3`.
        found: String,
        /// What it must be: `a string`.
        expected: String,
    },
    /// A predicate of the value's field: `occurs twice; remove one of them`.
    Predicate(String),
    /// A sentence about the value.
    Sentence(String),
    /// A sentence that names the field itself.
    Whole(String),
}

impl Fault {
    /// The message about the value with this name.
    pub(super) fn to_message(&self, subject: &str) -> String {
        match self {
            Self::Expected { found, expected } => format!("{subject} is {found}, but must be {expected}"),
            Self::Predicate(predicate) => format!("{subject} {predicate}"),
            Self::Sentence(sentence) => format!("{subject}: {sentence}"),
            Self::Whole(message) => message.clone(),
        }
    }

    fn must_be(found: impl fmt::Display, expected: impl fmt::Display) -> Self {
        Self::Expected { found: found.to_string(), expected: expected.to_string() }
    }

    /// The fault with the value as it is written, of which the visitor got a rounded one.
    fn with_digits(self, digits: &Json) -> Self {
        match self {
            Self::Expected { expected, .. } => Self::must_be(digits, expected),
            other => other,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_message("the value"))
    }
}

impl std::error::Error for Fault {}

impl Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Sentence(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::must_be(describe(found), plain_type(&expected.to_string(), DocumentFormat::Json))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::Predicate(format!("has the length {length}, but must be {expected}"))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::must_be(describe(Unexpected::Str(variant)), format!("one of: {}", expected.join(", ")))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::Whole(unknown_field(field, expected, field_meant_by))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::Sentence(format!("the field `{field}` is missing"))
    }

    fn duplicate_field(_field: &'static str) -> Self {
        Self::Predicate("occurs twice; remove one of them".to_owned())
    }
}

fn describe(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Unit | Unexpected::Option => Json::Null.to_string(),
        Unexpected::Bool(value) => Json::Bool(value).to_string(),
        Unexpected::Unsigned(value) => Json::Integer(value.into()).to_string(),
        Unexpected::Signed(value) => Json::Integer(value.into()).to_string(),
        Unexpected::Float(value) => Json::Float(value).to_string(),
        Unexpected::Str(text) => Json::String(text.to_owned()).to_string(),
        Unexpected::Seq => "an array".to_owned(),
        Unexpected::Map => "an object".to_owned(),
        other => other.to_string(),
    }
}

/// The nearest float of an integer.
fn rounded(digits: &str) -> f64 {
    // The parser has read the same digits as a float.
    digits.parse().unwrap_or(f64::NAN)
}

/// Deserializes a value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a Json);

impl Reader<'_> {
    fn must_be(self, expected: impl fmt::Display) -> Fault {
        Fault::must_be(self.0, expected)
    }

    /// Returns an integer of a type with these bounds.
    fn integer(self, min: i128, max: i128) -> Result<i128, Fault> {
        let whole = match *self.0 {
            Json::Integer(n) => Some(n),
            Json::Float(x) if x.fract() == 0.0 && x.abs() <= MAX_EXACT_INTEGER as f64 => Some(x as i128),
            _ => None,
        };
        if let Some(n) = whole.filter(|n| (min..=max).contains(n)) {
            return Ok(n);
        }
        let range = format!("an integer from {min} to {max}");
        let is_too_large = whole.is_some_and(|n| n > max);
        Err(self.must_be(match self.0 {
            Json::Float(x) if whole.is_none() && x.fract() == 0.0 => {
                let is_inexact = (min as f64..max as f64).contains(x);
                format!("{range}{}", if is_inexact { ", written with all of its digits" } else { "" })
            }
            Json::LargeInteger(_) => range,
            _ if is_too_large || max < i64::MAX.into() => range,
            _ if min == 0 => "an integer, 0 or more".to_owned(),
            _ => "an integer".to_owned(),
        }))
    }
}

macro_rules! deserialize_integer {
    ($($method:ident $visit:ident $type:ident,)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            // The bounds are those of the type, so the cast is exact.
            visitor.$visit(self.integer($type::MIN.into(), $type::MAX.into())? as $type)
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Json::Null => visitor.visit_unit(),
            Json::Bool(value) => visitor.visit_bool(*value),
            Json::Integer(value) => match u64::try_from(*value) {
                Ok(value) => visitor.visit_u64(value),
                // A negative number that was parsed as an i64.
                Err(_) => visitor.visit_i64(*value as i64),
            },
            Json::LargeInteger(digits) => {
                visitor.visit_f64(rounded(digits)).map_err(|fault: Fault| fault.with_digits(self.0))
            }
            Json::Float(value) => visitor.visit_f64(*value),
            Json::String(text) => visitor.visit_borrowed_str(text),
            Json::Array(array) => visitor.visit_seq(Elements(array.iter())),
            Json::Object(object) => visitor.visit_map(Members { object, next: 0, seen: HashSet::new() }),
        }
    }

    deserialize_integer! {
        deserialize_i8 visit_i8 i8,
        deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64,
        deserialize_u8 visit_u8 u8,
        deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64,
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Json::Integer(value) => visitor.visit_f64(*value as f64),
            Json::LargeInteger(_) => self.deserialize_any(visitor),
            Json::Float(value) => visitor.visit_f64(*value),
            _ => Err(self.must_be("a number")),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Json::Bool(value) => visitor.visit_bool(*value),
            _ => Err(self.must_be("true or false")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Json::String(text) => visitor.visit_borrowed_str(text),
            _ => Err(self.must_be("a string")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Json::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Json::Array(_) => self.deserialize_any(visitor),
            _ => Err(self.must_be("an array")),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Json::Array(array) if array.len() == length => self.deserialize_any(visitor),
            Json::Array(array) => Err(Fault::must_be(
                format!("an array of length {}", array.len()),
                format!("one of length {length}"),
            )),
            _ => Err(self.must_be(format!("an array of length {length}"))),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Json::Object(_) => self.deserialize_any(visitor),
            _ => Err(self.must_be("an object")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.0 {
            Json::String(text) => visitor.visit_enum(StrDeserializer::new(text)),
            _ => Err(self.must_be("a string")),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        char bytes byte_buf unit unit_struct tuple_struct identifier
    }
}

struct Elements<'a>(std::slice::Iter<'a, Json>);

impl<'de> SeqAccess<'de> for Elements<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        self.0.next().map(|element| seed.deserialize(Reader(element))).transpose()
    }
}

struct Members<'a> {
    object: &'a [(String, Json)],
    next: usize,
    /// The keys so far. A request can have more of them than can be compared with each other.
    seen: HashSet<&'a str>,
}

impl<'de> MapAccess<'de> for Members<'de> {
    type Error = Fault;

    /// A key that occurs twice is an error, because JSON leaves open which of the values counts.
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some((key, _)) = self.object.get(self.next) else { return Ok(None) };
        let value = seed.deserialize(IntoDeserializer::<Fault>::into_deserializer(key.as_str()))?;
        if !self.seen.insert(key) {
            return Err(Fault::duplicate_field(""));
        }
        Ok(Some(value))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let value = self.object.get(self.next).map_or(&Json::Null, |(_, value)| value);
        self.next += 1;
        seed.deserialize(Reader(value))
    }
}
