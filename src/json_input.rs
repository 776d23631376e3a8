//! Reads JSON that users write, and reports what is wrong with it in the words of JSON.
//!
//! serde's own messages name Rust's types, and its positions are lines and columns of a text that most requesters send
//! as one line. A document is therefore parsed into a [`Json`] value first, which is then deserialized by a reader
//! whose errors name the field. A number such as `3.0` or `1e2` is an integer where an integer is expected.

mod file_fault;
mod large_integers;
mod reader;
mod synonyms;
mod syntax;
mod type_fault;
mod unknown_field;
mod value;

use serde::de::DeserializeOwned;

pub(crate) use file_fault::file_fault;
pub(crate) use synonyms::field_meant_by;
pub(crate) use type_fault::type_fault;
pub(crate) use unknown_field::unknown_field;
pub(crate) use value::{Json, shortened};

/// The largest integer `n` for which every integer up to `n` is exact in the numbers of JavaScript and of most other
/// JSON clients, which are 64-bit floats.
pub(crate) const MAX_EXACT_INTEGER: u64 = (1 << 53) - 1;

/// How many places are searched for the value of a field in a text that is not valid JSON. Each of them may read the
/// rest of the text.
const MAX_SEARCHED_PLACES: usize = 16;

/// A valid JSON document.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Document(Json);

/// Why a document does not hold the expected value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InputError {
    /// The field at fault, such as `conditions.mood`; `None` if the document as a whole is.
    pub(crate) field: Option<String>,
    /// What is wrong, including the name of the field.
    pub(crate) message: String,
}

impl Document {
    /// Parses a JSON text in UTF-8, with or without a byte order mark.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        syntax::parse(bytes).map(Self)
    }

    /// Deserializes the document. `subject` is its name in an error message, such as "the request".
    pub(crate) fn read<T: DeserializeOwned>(&self, subject: &str) -> Result<T, InputError> {
        serde_path_to_error::deserialize(reader::Reader(&self.0)).map_err(|error| {
            let path = error.path().to_string();
            let field = (path != ".").then_some(path);
            let message = error.inner().to_message(field.as_deref().unwrap_or(subject));
            // A key may hold line breaks, which must not reach a log.
            let message = message.replace(char::is_control, "\u{fffd}");
            InputError { field, message }
        })
    }

    /// Returns the value of a field of the outermost object, to be replaced.
    pub(crate) fn field_mut(&mut self, name: &str) -> Option<&mut Json> {
        match &mut self.0 {
            Json::Object(fields) => fields.iter_mut().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// Returns the value of a field of the outermost object.
    pub(crate) fn field(&self, name: &str) -> Option<&Json> {
        member(&self.0, name)
    }

    /// Returns the value at the path of an error, such as `stream.every_ms`.
    pub(crate) fn at(&self, path: &str) -> Option<&Json> {
        path.split('.').try_fold(&self.0, member)
    }
}

fn member<'a>(value: &'a Json, name: &str) -> Option<&'a Json> {
    match value {
        Json::Object(fields) => fields.iter().find(|(key, _)| key == name).map(|(_, value)| value),
        _ => None,
    }
}

/// Returns the first value that follows `"name":` in a text that need not be valid JSON.
pub(crate) fn find_field(bytes: &[u8], name: &str) -> Option<Json> {
    let text = String::from_utf8_lossy(bytes);
    let key = format!("\"{name}\"");
    text.match_indices(&key).take(MAX_SEARCHED_PLACES).find_map(|(start, _)| {
        let value = text[start + key.len()..].trim_start().strip_prefix(':')?;
        let mut found = serde_json::Deserializer::from_str(value).into_iter::<Json>().next()?.ok()?;
        large_integers::restore_digits(&mut found, value);
        Some(found)
    })
}

#[cfg(test)]
mod tests;
