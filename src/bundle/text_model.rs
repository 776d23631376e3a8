//! The language models that serve as text encoders: how their files are recognised, and how their tokenizers are read.

/// A language model. Another one needs another table.
#[derive(Debug)]
pub(crate) struct TextModel {
    /// The name in messages.
    pub(crate) title: &'static str,
    /// The start of the class names of its tokenizers.
    pub(super) tokenizer_class: &'static str,
    /// The classes of its tokenizers.
    pub(super) tokenizer_classes: &'static [&'static str],
    /// The starts of `model_type` in its configuration.
    pub(super) model_types: &'static [&'static str],
    /// The special tokens that its tokenizer's class has without any file.
    pub(crate) special_tokens: &'static [(&'static str, &'static str)],
    /// The attributes of special tokens that may not be null.
    pub(crate) needed_tokens: &'static [&'static str],
    /// What is read of a vocab.json with a merges.txt.
    pub(crate) vocabulary: VocabularyForm,
    /// Whether its tokenizer's class puts the begin and end tokens around a text as `add_bos_token` and `add_eos_token`
    /// say, whatever tokenizer.json has.
    pub(crate) adds_tokens_by_config: bool,
    /// Whether it generates text, and its encoder is one of its layers.
    pub(crate) is_language_model: bool,
    /// The keys of its configuration that say nothing beside its graph, separated by blanks.
    pub(super) config_keys: &'static str,
}

/// The form of the vocabulary in a vocab.json with a merges.txt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VocabularyForm {
    /// CLIP's byte-pair encoding of words.
    Clip,
    /// A byte-level encoding of the pieces that this pattern finds in normalized text (NFC).
    ByteLevel(&'static str),
    /// Its tokenizer writes no such files.
    None,
}

/// CLIP (Radford et al. 2021).
pub(crate) const CLIP: TextModel = TextModel {
    title: "CLIP",
    tokenizer_class: "CLIP",
    tokenizer_classes: &["CLIPTokenizer", "CLIPTokenizerFast"],
    model_types: &["clip"],
    special_tokens: &[
        ("bos_token", "<|startoftext|>"),
        ("eos_token", "<|endoftext|>"),
        ("unk_token", "<|endoftext|>"),
        ("pad_token", "<|endoftext|>"),
    ],
    needed_tokens: &["bos_token", "eos_token", "pad_token"],
    vocabulary: VocabularyForm::Clip,
    adds_tokens_by_config: false,
    is_language_model: false,
    config_keys: "",
};

/// T5 (Raffel et al. 2020).
pub(crate) const T5: TextModel = TextModel {
    title: "T5",
    tokenizer_class: "T5",
    tokenizer_classes: &["T5Tokenizer", "T5TokenizerFast"],
    model_types: &["t5", "mt5", "umt5"],
    special_tokens: &[("eos_token", "</s>"), ("unk_token", "<unk>"), ("pad_token", "<pad>")],
    vocabulary: VocabularyForm::None,
    ..CLIP
};

/// Gemma 2 (Gemma Team 2024).
pub(crate) const GEMMA: TextModel = TextModel {
    title: "Gemma",
    tokenizer_class: "Gemma",
    tokenizer_classes: &["GemmaTokenizer", "GemmaTokenizerFast"],
    model_types: &["gemma"],
    special_tokens: &[
        ("bos_token", "<bos>"),
        ("eos_token", "<eos>"),
        ("unk_token", "<unk>"),
        ("pad_token", "<pad>"),
    ],
    needed_tokens: &["bos_token", "pad_token"],
    vocabulary: VocabularyForm::None,
    adds_tokens_by_config: true,
    is_language_model: true,
    config_keys: "\
        attention_bias attn_logit_softcapping cache_implementation final_logit_softcapping head_dim hidden_activation \
        layer_types num_key_value_heads query_pre_attn_scalar rms_norm_eps rope_parameters rope_theta sliding_window \
        sliding_window_size use_bidirectional_attention",
};

/// Qwen 2 and 3 (Qwen Team 2025).
pub(crate) const QWEN: TextModel = TextModel {
    title: "Qwen",
    tokenizer_class: "Qwen",
    tokenizer_classes: &["Qwen2Tokenizer", "Qwen2TokenizerFast"],
    model_types: &["qwen"],
    special_tokens: &[("eos_token", "<|im_end|>"), ("pad_token", "<|endoftext|>")],
    needed_tokens: &["pad_token"],
    vocabulary: VocabularyForm::ByteLevel(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    adds_tokens_by_config: false,
    is_language_model: true,
    config_keys: "\
        attention_bias head_dim layer_types max_window_layers num_key_value_heads rms_norm_eps rope_parameters \
        rope_scaling rope_theta sliding_window use_sliding_window",
};

/// All models.
pub(super) const ALL: [&TextModel; 4] = [&CLIP, &T5, &GEMMA, &QWEN];

impl TextModel {
    /// The model whose tokenizer has this class. Generic classes are those of no model.
    pub(crate) fn of_tokenizer(class: &str) -> Option<&'static Self> {
        ALL.into_iter().find(|model| class.starts_with(model.tokenizer_class))
    }

    /// The model of a tokenizer's class, or else the one that the pipeline has in its place.
    pub(crate) fn of_class_or(class: Option<&str>, expected: &'static Self) -> &'static Self {
        class.and_then(Self::of_tokenizer).unwrap_or(expected)
    }

    /// Whether a tokenizer of this class reads a text as the library tokenizers does: all do, except CLIP's slow class.
    pub(crate) fn is_fast(&self, class: Option<&str>) -> bool {
        !self.is_clip() || class.is_some_and(|class| class.ends_with("Fast"))
    }

    /// The class of its tokenizer that writes a tokenizer.json.
    pub(crate) fn fast_class(&self) -> &'static str {
        self.tokenizer_classes.last().copied().unwrap_or_default()
    }

    /// Whether this is CLIP, whose tokenizer cleans prompts.
    pub(crate) fn is_clip(&self) -> bool {
        self.vocabulary == VocabularyForm::Clip
    }
}

impl PartialEq for TextModel {
    fn eq(&self, other: &Self) -> bool {
        self.title == other.title
    }
}
