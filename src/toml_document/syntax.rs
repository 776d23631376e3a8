//! Says what is wrong with a text that is not valid TOML: where, and what to do.

use crate::file_kind::unexpected_text;

/// Why a text is not TOML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyntaxFault {
    /// The line, from 1.
    pub(crate) line: usize,
    /// The number of the character in the line, from 1.
    pub(crate) column: usize,
    /// What is wrong, and what to do.
    pub(crate) message: String,
}

impl std::fmt::Display for SyntaxFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)
    }
}

const COMMENT: &str = "a comment begins with `#`; write # before it";
const ADVICE: &str = "correct it: each line is `key = value` or a header such as [section]";

/// Words for true, false and nothing in other languages, and what to write.
const WORDS: [(&[&str], &str); 3] = [
    (&["True", "TRUE", "yes", "Yes", "on", "On"], "write true"),
    (&["False", "FALSE", "no", "No", "off", "Off"], "write false"),
    (&["None", "null", "nil", "undefined"], "remove the key: TOML has no value for nothing"),
];

/// The parser's messages that need no look at the text, and what they mean.
const FAULTS: [(&str, &str); 12] = [
    ("invalid basic string", "a string is not closed; write `\"` at its end"),
    ("invalid literal string", "a string is not closed; write `'` at its end"),
    ("invalid multi-line basic string", "a string is not closed; write `\"\"\"` at its end"),
    ("invalid multi-line literal string", "a string is not closed; write `'''` at its end"),
    ("missing comma between array elements", ARRAY),
    ("unclosed array,", ARRAY),
    ("unclosed inline table", "a table in braces is not closed; write `}` at its end"),
    (
        "missing assignment between key-value pairs",
        "a key and its value are separated by `=`; write it between them",
    ),
    ("invalid mantissa", POINT),
    ("invalid fraction", POINT),
    ("unexpected leading zero", "a number must not begin with 0; remove the zero"),
    ("extra `=`", "a single `=` separates a key and its value; remove the other one"),
];
const ARRAY: &str = "the values of an array are separated by commas, and `]` ends it; write what is missing";
const POINT: &str = "a number needs digits before and after its point; write them, as in 0.5";

/// Returns what is wrong with a text that the parser refuses with an error.
pub(crate) fn syntax_fault(text: &str, error: &toml::de::Error) -> SyntaxFault {
    let span = error.span().unwrap_or_default();
    let start = text.floor_char_boundary(span.start.min(text.len()));
    let line_start = text[..start].rfind('\n').map_or(0, |end| end + 1);
    let place = Place {
        text,
        line: text[line_start..].lines().next().unwrap_or_default(),
        offset: start - line_start,
        token: text.get(span).unwrap_or_default().trim(),
    };
    SyntaxFault {
        line: text[..line_start].matches('\n').count() + 1,
        column: text[line_start..start].chars().count() + 1,
        message: place.message(error.message()),
    }
}

/// The place of a fault.
struct Place<'a> {
    text: &'a str,
    /// The line of the fault.
    line: &'a str,
    /// The fault's byte in the line.
    offset: usize,
    /// What the parser marks, which may be empty.
    token: &'a str,
}

impl Place<'_> {
    /// Returns what the parser's message means here, with what to do.
    fn message(&self, parser: &str) -> String {
        let first = self.text.trim_start_matches('\u{feff}').trim_start();
        if let Some(other) = unexpected_text(self.text) {
            return other.to_owned();
        }
        if first.starts_with('{') {
            return "this is JSON, and must be TOML; write lines `key = value` below headers such as [section]"
                .to_owned();
        }
        if let Some((_, meaning)) = FAULTS.iter().find(|(start, _)| parser.starts_with(start)) {
            return (*meaning).to_owned();
        }
        if parser.starts_with("missing escaped value") || parser.contains("unicode") {
            return self.backslash();
        }
        match parser.split(',').next().unwrap_or_default() {
            "duplicate key" => self.repeated(),
            "unclosed table" | "unclosed array table" => self.header(),
            "key with no value" => self.key_without_value(),
            "unexpected key or value" => self.after_value(),
            "string values must be quoted" | "invalid boolean" | "invalid float" => self.value(),
            "unquoted keys cannot be empty" => {
                "a name is missing; write the key before `=`, or the section between the brackets".to_owned()
            }
            _ => format!("{parser}; {ADVICE}"),
        }
    }

    /// A key or a header that occurs twice.
    fn repeated(&self) -> String {
        let header = without_comment(self.line);
        let is_header = |line: &&str| without_comment(line) == header;
        if header.starts_with('[') && self.text.lines().filter(is_header).count() > 1 {
            return format!("the table {header} occurs twice; put all its keys below one header");
        }
        match self.token {
            "" => format!("a key occurs twice; {ADVICE}"),
            key => format!("the key {key} occurs twice; remove one of them"),
        }
    }

    /// A header of a section that is not closed.
    fn header(&self) -> String {
        let line = without_comment(self.line);
        let name = line.trim_matches(['[', ']']).trim();
        let [open, close] = if line.starts_with("[[") { ["[[", "]]"] } else { ["[", "]"] };
        if line.contains(']') && name.contains(char::is_whitespace) {
            return format!(
                "the name of a section has no spaces outside of quotes; write {open}\"{name}\"{close}"
            );
        }
        format!("a header of a section ends with `{close}`; write {open}{name}{close}")
    }

    /// A line without `=` after its first word.
    fn key_without_value(&self) -> String {
        let line = self.line.trim();
        if [";", "//", "--", "/*"].iter().any(|start| line.starts_with(start)) {
            return COMMENT.to_owned();
        }
        let is_key =
            |key: &str| !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || "_-.\"' ".contains(c));
        if let Some((key, _)) = line.split_once(':').filter(|(key, _)| is_key(key.trim())) {
            let key = key.trim();
            return format!("a key and its value are separated by `=`, not by `:`; write {key} = …");
        }
        match line.split_once(char::is_whitespace) {
            Some((key, rest)) if !rest.contains('=') => {
                format!("a key and its value are separated by `=`; write {key} = …")
            }
            Some(_) => {
                "a key has no spaces outside of quotes; remove them, or put it in double quotes".to_owned()
            }
            None => format!("a line must not have a single word; {ADVICE}"),
        }
    }

    /// Something that follows a value in its line.
    fn after_value(&self) -> String {
        let (before, after) = self.line.split_at(self.offset.min(self.line.len()));
        let after = after.trim_start();
        let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).count();
        if let Some(fraction) = after.strip_prefix(',').filter(|rest| digits(rest) > 0)
            && before.ends_with(|c: char| c.is_ascii_digit())
        {
            let whole = before.rsplit(['=', ' ', '\t']).next().unwrap_or_default();
            let fraction = &fraction[..digits(fraction)];
            return format!(
                "`{whole},{fraction}` is not a number; write a decimal point, {whole}.{fraction}"
            );
        }
        if after.starts_with("//") {
            return COMMENT.to_owned();
        }
        match without_comment(after) {
            "," => "a line does not end with a comma; remove it".to_owned(),
            ";" => "a line does not end with a semicolon; remove it".to_owned(),
            _ if without_comment(self.line).starts_with('[') => {
                "nothing may follow a header in its line; write it on the next one".to_owned()
            }
            _ => "nothing may follow a value in its line; begin a new line, or put the whole value in quotes"
                .to_owned(),
        }
    }

    /// A value that TOML does not have.
    fn value(&self) -> String {
        let token = without_comment(self.token);
        if token.is_empty() {
            return "a value must follow `=`; write one, or remove the key".to_owned();
        }
        if let Some((_, advice)) = WORDS.iter().find(|(words, _)| words.contains(&token)) {
            return format!("`{token}` is not a TOML value; {advice}");
        }
        if token.contains(" //") {
            return COMMENT.to_owned();
        }
        if let Some(inner) = token.strip_prefix(['“', '”', '„', '«', '‘', '’']) {
            let inner = inner.trim_end_matches(['“', '”', '»', '‘', '’']);
            return format!("`{token}` has typographic quotes; write straight ones, \"{inner}\"");
        }
        let quote = if token.contains(['\\', '"']) { '\'' } else { '"' };
        format!("a string must be in quotes; write {quote}{token}{quote}")
    }

    /// A backslash in double quotes.
    fn backslash(&self) -> String {
        let before = &self.line[..self.offset.min(self.line.len())];
        let inner = before.rfind('"').map(|quote| &self.line[quote + 1..]);
        let inner = inner.and_then(|rest| Some(&rest[..rest.find('"')?])).unwrap_or_default();
        let single = match inner {
            "" => "use single quotes".to_owned(),
            inner => format!("write '{inner}' in single quotes"),
        };
        format!("in double quotes, a backslash begins an escape sequence; {single}, or each backslash twice")
    }
}

/// The text before a comment, without the spaces around it.
fn without_comment(text: &str) -> &str {
    text.split('#').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        syntax_fault(text, &text.parse::<toml::Table>().unwrap_err()).to_string()
    }

    /// Each had the message of the parser, such as "unexpected key or value, expected newline, `#`".
    #[test]
    fn an_ordinary_mistake_in_toml_had_the_message_of_the_parser() {
        for (text, expected) in [
            (
                "[default]\nguidance = 7,5\n",
                "line 2, column 13: `7,5` is not a number; write a decimal point, 7.5",
            ),
            ("a = -7,25 # x", "line 1, column 7: `-7,25` is not a number; write a decimal point, -7.25"),
            ("a = euler # x\n", "line 1, column 5: a string must be in quotes; write \"euler\""),
            ("a = [cuda, \"cpu\"]\n", "line 1, column 6: a string must be in quotes; write \"cuda\""),
            ("a = mqtt://h:1883\n", "line 1, column 5: a string must be in quotes; write \"mqtt://h:1883\""),
            ("a = C:\\models\n", "line 1, column 5: a string must be in quotes; write 'C:\\models'"),
            (
                "[mqtt]\nport: 20\n",
                "line 2, column 7: a key and its value are separated by `=`, not by `:`; write port = …",
            ),
            ("steps 20\n", "line 1, column 7: a key and its value are separated by `=`; write steps = …"),
            (
                "[default # x\nsteps = 2",
                "line 1, column 9: a header of a section ends with `]`; write [default]",
            ),
            (
                "[a b]\nc = 1",
                "line 1, column 3: the name of a section has no spaces outside of quotes; write [\"a b\"]",
            ),
            (
                "a = \"C:\\models\\sd\"\n",
                "line 1, column 9: in double quotes, a backslash begins an escape sequence; write 'C:\\models\\sd' in \
                 single quotes, or each backslash twice",
            ),
            (
                "a = \"C:\\users\"\n",
                "line 1, column 10: in double quotes, a backslash begins an escape sequence; write 'C:\\users' in single \
                 quotes, or each backslash twice",
            ),
            ("a = True\n", "line 1, column 5: `True` is not a TOML value; write true"),
            ("a = off\n", "line 1, column 5: `off` is not a TOML value; write false"),
            (
                "a = None\n",
                "line 1, column 5: `None` is not a TOML value; remove the key: TOML has no value for nothing",
            ),
            ("a = 1\na = 2\n", "line 2, column 1: the key a occurs twice; remove one of them"),
            (
                "[a.b]\nx = 1\n[a.b] # again\n",
                "line 3, column 4: the table [a.b] occurs twice; put all its keys below one header",
            ),
            ("[a]\nx = 1\n[a.x]\n", "line 3, column 4: the key x occurs twice; remove one of them"),
            (
                "{\"a\": 1}\n",
                "line 1, column 1: this is JSON, and must be TOML; write lines `key = value` below headers such as \
                 [section]",
            ),
            ("a = \"x\n", "line 1, column 7: a string is not closed; write `\"` at its end"),
            ("a = “x”\n", "line 1, column 5: `“x”` has typographic quotes; write straight ones, \"x\""),
            ("a =\nb = 2\n", "line 1, column 4: a value must follow `=`; write one, or remove the key"),
            ("a = 1 // x\n", "line 1, column 5: a comment begins with `#`; write # before it"),
            ("; x\na = 1\n", "line 1, column 3: a comment begins with `#`; write # before it"),
            ("a = \"x\",\n", "line 1, column 8: a line does not end with a comma; remove it"),
            (
                "a = 1 b = 2\n",
                "line 1, column 9: nothing may follow a value in its line; begin a new line, or put the whole value in \
                 quotes",
            ),
            ("<html>\n", "line 1, column 7: this is a web page, not the file; download the file itself"),
        ] {
            assert_eq!(fault(text), expected, "{text:?}");
        }
    }
}
