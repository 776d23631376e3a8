//! How the text encoders of a family are fed, and what a pipeline reads of their outputs.

use std::borrow::Cow;

use super::text_model::{self, TextModel};

/// One text encoder of a family.
#[derive(Debug, Clone)]
pub(crate) struct TextEncoderFacts {
    /// The language model, which has its kind of tokenizer.
    pub(crate) model: &'static TextModel,
    /// The classes of transformers that the encoder may have.
    pub(super) classes: &'static [&'static str],
    /// Whether a pipeline works without it.
    pub(super) is_optional: bool,
    /// The text around a prompt.
    pub(crate) template: Template,
    /// The number of tokens.
    pub(crate) length: TextLength,
    /// Whether padding is masked.
    pub(crate) masking: Masking,
    /// The layers whose rows are read.
    pub(crate) layer: LayerRule,
    /// Which rows the network is given, and where.
    pub(crate) rows: RowUse,
    /// The pooled embedding that is read.
    pub(crate) pooled: Option<Pooled>,
}

/// The text around a prompt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Template {
    /// The text before the prompt.
    pub(super) before: Prefix,
    /// The text after the prompt.
    pub(super) after: &'static str,
    /// Whether a negative prompt is put between them too.
    pub(super) has_negative: bool,
    /// Whether prompts are converted to lower case and stripped of blanks at both ends.
    pub(super) lowers_case: bool,
    /// Whether the pipeline turns thinking on, if it makes these texts by the chat template of the tokenizer.
    pub(super) chat_thinking: Option<bool>,
}

/// The text before a prompt.
#[derive(Debug, Clone, Copy)]
pub(super) enum Prefix {
    /// This text, which may be empty.
    Text(&'static str),
    /// An instruction in JSON, with the keys `strings` and `join`.
    Instruction(&'static str),
}

/// A prompt with the text around it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct FramedPrompt<'a> {
    /// The text before the prompt.
    pub(crate) before: Cow<'static, str>,
    /// The prompt.
    pub(crate) prompt: Cow<'a, str>,
    /// The text after the prompt.
    pub(crate) after: &'static str,
}

/// The number of tokens of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TextLength {
    /// The length of the tokenizer.
    Tokenizer,
    /// `max_sequence_length` of the job, or this number.
    Requested(usize),
}

/// When an encoder is given a mask that hides padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Masking {
    /// Never.
    Never,
    /// If `use_attention_mask` is set in its configuration.
    Configured,
    /// Always.
    Always,
}

/// The layers of a text encoder whose rows are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LayerRule {
    /// The last one, with the final norm.
    Last,
    /// The last but one, without the norm.
    BeforeLast,
    /// Those with these numbers, counted from 1, side by side and without the norm.
    Numbered(&'static [usize]),
}

/// Which rows of a text encoder the network is given, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowUse {
    /// None.
    Unused,
    /// All rows, each beside the row of the encoder before for the same token.
    Beside,
    /// All rows, after those of the encoders before.
    After,
    /// The rows without padding.
    Unpadded,
    /// The first row and the last ones, as many as tokens were asked for. The text before the prompt takes further tokens.
    FirstAndLast,
}

/// The pooled embedding of a text encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pooled {
    /// `text_embeds` of CLIPTextModelWithProjection.
    Projected,
    /// `pooler_output` of CLIPTextModel.
    NotProjected,
}

/// A prompt without any text around it.
pub(super) const PLAIN: Template = Template {
    before: Prefix::Text(""),
    after: "",
    has_negative: true,
    lowers_case: false,
    chat_thinking: None,
};

/// CLIP, whose rows are read from its last layer.
pub(super) const CLIP: TextEncoderFacts = TextEncoderFacts {
    model: &text_model::CLIP,
    classes: &["CLIPTextModel"],
    is_optional: false,
    template: PLAIN,
    length: TextLength::Tokenizer,
    masking: Masking::Never,
    layer: LayerRule::Last,
    rows: RowUse::Beside,
    pooled: None,
};

/// T5, whose rows are the only ones.
pub(super) const T5: TextEncoderFacts = TextEncoderFacts {
    model: &text_model::T5,
    classes: &["T5EncoderModel"],
    length: TextLength::Requested(512),
    ..CLIP
};

impl TextLength {
    /// The default of a length that jobs choose.
    pub(crate) fn default(self) -> Option<usize> {
        match self {
            Self::Tokenizer => None,
            Self::Requested(length) => Some(length),
        }
    }
}

impl TextEncoderFacts {
    /// Whether the pipeline reads its rows.
    pub(crate) fn has_rows(&self) -> bool {
        self.rows != RowUse::Unused
    }

    /// How many layers are put side by side.
    pub(crate) fn layers_beside(&self) -> usize {
        match self.layer {
            LayerRule::Last | LayerRule::BeforeLast => 1,
            LayerRule::Numbered(layers) => layers.len(),
        }
    }

    /// Whether a graph whose only output has rows gives the rows of the layers that are read.
    pub(crate) fn may_have_one_output(&self) -> bool {
        self.model.is_language_model
    }
}

impl Template {
    /// Puts a prompt between the texts of the template.
    pub(crate) fn frame(self, prompt: &str, is_negative: bool) -> FramedPrompt<'_> {
        let prompt = match self.lowers_case {
            true => Cow::Owned(stripped(&prompt.to_lowercase()).to_owned()),
            false => Cow::Borrowed(prompt),
        };
        if is_negative && !self.has_negative {
            return FramedPrompt { before: Cow::Borrowed(""), prompt, after: "" };
        }
        FramedPrompt { before: self.before.text(), prompt, after: self.after }
    }
}

impl Prefix {
    fn text(self) -> Cow<'static, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Instruction(json) => Cow::Owned(instruction(json).unwrap_or_default()),
        }
    }
}

/// The strings of an instruction, joined.
fn instruction(json: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Instruction {
        strings: Vec<String>,
        join: String,
    }
    let Instruction { strings, join } = serde_json::from_str(json).ok()?;
    Some(strings.join(&join))
}

/// `str.strip()` of Python, for which the separators of ASCII are blanks too.
fn stripped(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAT: Template = Template { before: Prefix::Text("<user>"), after: "</user>", ..PLAIN };

    #[test]
    fn a_prompt_is_framed_by_its_template() {
        let framed = CHAT.frame(" A Fox ", false);
        assert_eq!((&*framed.before, &*framed.prompt, framed.after), ("<user>", " A Fox ", "</user>"));
        let plain = Template { has_negative: false, lowers_case: true, ..CHAT };
        let negative = plain.frame("\u{1f} ÄB\n", true);
        assert_eq!((&*negative.before, &*negative.prompt, negative.after), ("", "äb", ""));
    }

    #[test]
    fn an_instruction_is_joined_as_its_file_says() {
        let json = r#"{"licence": "x", "join": "\n", "strings": ["a", "b: "]}"#;
        assert_eq!(Prefix::Instruction(json).text(), "a\nb: ");
        assert_eq!(instruction("[]"), None);
    }
}
