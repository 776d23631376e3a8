//! Tokens beside the vocabulary, such as the words of textual inversion, found in a prompt as transformers' own tokenizers
//! find them: in the text as it is given, before it is cleaned.

use std::collections::HashMap;
use std::ops::Range;

use tokenizers::AddedToken;

/// The tokens with their ids.
#[derive(Default)]
pub(super) struct AddedTokens(HashMap<String, (u32, AddedToken)>);

/// A part of a prompt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A token, at these bytes.
    Token(u32, Range<usize>),
    /// Text between tokens.
    Text(Range<usize>),
}

impl AddedTokens {
    pub(super) fn insert(&mut self, id: u32, token: AddedToken) {
        self.0.insert(token.content.clone(), (id, token));
    }

    pub(super) fn id(&self, content: &str) -> Option<u32> {
        self.0.get(content).map(|(id, _)| *id)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The text of the token with this id.
    pub(super) fn content(&self, id: u32) -> Option<&str> {
        self.0.values().find(|(own, _)| *own == id).map(|(_, token)| token.content.as_str())
    }

    pub(super) fn largest_id(&self) -> Option<u32> {
        self.0.values().map(|(id, _)| *id).max()
    }

    /// Splits a prompt at the tokens. Where several begin, the longest counts.
    pub(super) fn split(&self, prompt: &str) -> Vec<Piece> {
        let mut parts = self.boundaries(prompt);
        for i in 0..parts.len() {
            let Some((_, token)) = self.0.get(&prompt[parts[i].clone()]) else { continue };
            let (left, right) = (i.checked_sub(1), (i + 1 < parts.len()).then_some(i + 1));
            let text = |at: Option<usize>| at.map_or("", |at| &prompt[parts[at].clone()]);
            let (before, after) = (text(left), text(right));
            let trimmed_end = before.trim_end().len();
            let trimmed_start = after.len() - after.trim_start().len();
            let joins_left = token.single_word && !before.is_empty() && !before.ends_with(' ');
            let joins_right = token.single_word && !after.is_empty() && !after.starts_with(' ');
            if let (true, Some(right)) = (token.rstrip, right) {
                parts[right].start += trimmed_start;
            }
            if let (true, Some(left)) = (token.lstrip, left) {
                parts[left].end = parts[left].start + trimmed_end;
            }
            match (left, right) {
                (Some(left), _) if joins_left => {
                    parts[left].end = parts[i].end;
                    parts[i].start = parts[i].end;
                }
                (_, Some(right)) if joins_right => {
                    parts[right].start = parts[i].start;
                    parts[i].end = parts[i].start;
                }
                _ => {}
            }
        }
        parts.retain(|part| !part.is_empty());
        parts
            .into_iter()
            .map(|part| match self.id(&prompt[part.clone()]) {
                Some(id) => Piece::Token(id, part),
                None => Piece::Text(part),
            })
            .collect()
    }

    fn boundaries(&self, prompt: &str) -> Vec<Range<usize>> {
        let (mut parts, mut text_start, mut at) = (Vec::new(), 0, 0);
        while let Some(next) = prompt[at..].chars().next() {
            let here = &prompt[at..];
            let found = self.0.keys().filter(|token| here.starts_with(token.as_str())).map(String::len).max();
            match found {
                // An empty token is nowhere in a prompt.
                Some(len) if len > 0 => {
                    parts.extend((text_start < at).then_some(text_start..at));
                    parts.push(at..at + len);
                    at += len;
                    text_start = at;
                }
                _ => at += next.len_utf8(),
            }
        }
        parts.extend((text_start < at).then_some(text_start..at));
        parts
    }
}

/// Replaces each token that has further vectors, `<x>` with `<x>_1`, `<x>_2` …, by all of them, as diffusers does for
/// textual inversion. `contains` is whether the prompt has a token, `is_token` whether there is one of this name.
pub(super) fn expand_vectors<'a>(
    prompt: &str,
    names: impl Iterator<Item = &'a str>,
    is_token: impl Fn(&str) -> bool,
    contains: impl Fn(&str) -> bool,
) -> Option<String> {
    let further = |name: &str, i: usize| Some(format!("{name}_{i}")).filter(|name| is_token(name));
    let names = names.filter(|name| !name.is_empty());
    let mut names: Vec<&str> = names.filter(|name| further(name, 1).is_some() && contains(name)).collect();
    names.sort_unstable();
    let mut expanded = (!names.is_empty()).then(|| prompt.to_owned())?;
    for name in names {
        let vectors = (1..).map_while(|i| further(name, i));
        let all: Vec<String> = std::iter::once(name.to_owned()).chain(vectors).collect();
        expanded = expanded.replace(name, &all.join(" "));
    }
    Some(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_takes_the_blanks_that_its_flags_name() {
        let mut tokens = AddedTokens::default();
        for (id, content, lstrip, rstrip, single_word) in
            [(1, "<l>", true, false, false), (2, "<r>", false, true, false), (3, "<w>", false, false, true)]
        {
            let token = AddedToken {
                content: content.to_owned(),
                lstrip,
                rstrip,
                single_word,
                ..AddedToken::default()
            };
            tokens.insert(id, token);
        }
        assert_eq!(tokens.split("a <l> b"), [Piece::Text(0..1), Piece::Token(1, 2..5), Piece::Text(5..7)]);
        assert_eq!(tokens.split("a <r> b"), [Piece::Text(0..2), Piece::Token(2, 2..5), Piece::Text(6..7)]);
        assert_eq!(tokens.split("a <w> b"), [Piece::Text(0..2), Piece::Token(3, 2..5), Piece::Text(5..7)]);
        assert_eq!(tokens.split("a<w> b"), [Piece::Text(0..4), Piece::Text(4..6)]);
        assert_eq!(tokens.split("<w>b"), [Piece::Text(0..4)]);
    }
}
