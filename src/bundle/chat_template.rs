//! The chat template of a tokenizer, by which some pipelines of diffusers make the text around a prompt.
//!
//! Prompts get the built-in text of the family. The template of a folder is only compared with it: transformers evaluates it
//! as Jinja, with trimmed blocks and the methods of Python's strings.

use std::path::{Path, PathBuf};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, Value};
use serde_json::{Map, Value as Json, json};

use super::config_keys::read_keys;
use super::json_file::read_text;
use super::text_encoding::{FramedPrompt, Template};
use super::{BundleError, LatentComponents, PipelineKind};

/// The file, which takes precedence over the key.
pub(super) const FILE: &str = "chat_template.jinja";
/// The key of tokenizer_config.json.
pub(super) const KEY: &str = "chat_template";

/// The prompt that is compared.
const PROMPT: &str = "a red fox";
/// How many instructions a template may take, which ends loops.
const MAX_INSTRUCTIONS: u64 = 100_000;
/// How many characters of a text are repeated in an error.
const MAX_REPEATED: usize = 200;

/// The template of a tokenizer.
struct ChatTemplate {
    path: PathBuf,
    /// What has the template, in an error.
    subject: &'static str,
    source: String,
}

/// Checks the chat templates of a pipeline of this kind.
pub(super) fn check_all(latent: &LatentComponents, kind: PipelineKind) -> Result<(), BundleError> {
    let facts = latent.text_encoder_facts(kind).into_iter().map(|(_, facts)| facts);
    let mut encoders = latent.text_encoders.iter().zip(facts);
    encoders.try_for_each(|((_, tokenizer), facts)| check(tokenizer, kind.title(), facts.template))
}

/// Checks that the chat template in a tokenizer's folder gives the text of the family with this title. A folder without a
/// template passes. One that cannot be evaluated is logged.
fn check(tokenizer: &Path, title: &str, template: Template) -> Result<(), BundleError> {
    let Some(thinking) = template.chat_thinking else { return Ok(()) };
    let config = read_keys(&tokenizer.join("tokenizer_config.json"))?;
    let Some(ChatTemplate { path, subject, source }) = ChatTemplate::find(tokenizer, &config)? else {
        return Ok(());
    };
    let FramedPrompt { before, prompt, after } = template.frame(PROMPT, false);
    let expected = [&*before, &*prompt, after].concat();
    match render(&source, &config, thinking) {
        Ok(found) if found == expected => Ok(()),
        Ok(found) => {
            let found: String = found.chars().take(MAX_REPEATED).collect();
            let fault = format!(
                "{subject} makes {found:?} of the prompt {PROMPT:?}, but {title} is served with the built-in text \
                 {expected:?} only; restore the template of the published model"
            );
            Err(BundleError::Content { path, fault })
        }
        Err(error) => {
            log::warn!(
                "{}: {subject} cannot be evaluated ({error}); prompts get the built-in text of {title}",
                path.display()
            );
            Ok(())
        }
    }
}

/// Whether a pipeline makes this text by the chat template of its tokenizer.
pub(super) fn is_compared(template: Template) -> bool {
    template.chat_thinking.is_some()
}

impl ChatTemplate {
    /// The template that transformers takes: of several with names the one that is called default.
    fn find(tokenizer: &Path, config: &Map<String, Json>) -> Result<Option<Self>, BundleError> {
        let path = tokenizer.join(FILE);
        if let Some(source) = read_text(&path)? {
            return Ok(Some(Self { path, subject: "the template", source }));
        }
        let source = match config.get(KEY) {
            Some(Json::Array(named)) => {
                let default = named.iter().find(|entry| entry["name"] == "default");
                default.and_then(|entry| entry["template"].as_str())
            }
            Some(other) => other.as_str(),
            None => None,
        };
        let path = tokenizer.join("tokenizer_config.json");
        Ok(source.map(|source| Self { path, subject: KEY, source: source.to_owned() }))
    }
}

/// The text that a template makes of one message of a user.
fn render(source: &str, config: &Map<String, Json>, thinking: bool) -> Result<String, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_fuel(Some(MAX_INSTRUCTIONS));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |message: String| {
        Err::<Value, _>(Error::new(ErrorKind::InvalidOperation, message))
    });
    let mut variables = Map::new();
    for (key, token) in config.iter().filter(|(key, _)| key.ends_with("_token")) {
        let content = token.get("content").unwrap_or(token);
        variables.extend(content.as_str().map(|content| (key.clone(), content.into())));
    }
    for (key, value) in [
        ("messages", json!([{"role": "user", "content": PROMPT}])),
        ("tools", Json::Null),
        ("documents", Json::Null),
        ("add_generation_prompt", Json::Bool(true)),
        ("enable_thinking", Json::Bool(thinking)),
    ] {
        variables.insert(key.to_owned(), value);
    }
    environment.render_str(source, Serde(variables))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A template with what those of Qwen3 use: blocks on lines of their own, a namespace, a reversed list, and methods of
    /// strings.
    const LONG: &str = r#"{%- if tools %}
    {{- tools | tojson }}
{%- endif %}
{%- set found = namespace(last=messages|length - 1, seeks=true) %}
{%- for message in messages[::-1] %}
    {%- set place = (messages|length - 1) - loop.index0 %}
    {%- if found.seeks and message.role == "user" and not message.content.startswith('<tool_response>') %}
        {%- set found.last = place %}
        {%- set found.seeks = false %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set text = message.content.split('</think>')[-1].lstrip('\n') %}
    {%- else %}
        {{- raise_exception('no text') }}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\n' + text + '<|im_end|>' + '\n' }}
{%- endfor %}
{%- if add_generation_prompt and found.last == 0 %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}
"#;

    fn checked(kind: PipelineKind, file: Option<&str>, key: &Json) -> Result<(), String> {
        let directory = tempfile::tempdir().unwrap();
        let config = json!({"chat_template": key, "eos_token": {"content": "<|im_end|>"}});
        std::fs::write(directory.path().join("tokenizer_config.json"), config.to_string()).unwrap();
        if let Some(text) = file {
            std::fs::write(directory.path().join(FILE), text).unwrap();
        }
        let facts = kind.facts();
        check(directory.path(), facts.title, facts.text_encoders[0].template).map_err(|error| {
            let text = error.to_string();
            text.replace(&format!("{}/", directory.path().display()), "")
        })
    }

    #[test]
    fn a_template_of_another_text_is_refused_by_its_file_and_key() {
        let changed = LONG.replace("'<|im_start|>' + message.role", "'<|im_start|>my ' + message.role");
        for (kind, title, end) in [
            (PipelineKind::ZImage, "Z-Image", ""),
            (PipelineKind::Flux2Klein, "FLUX.2 klein", "<think>\\n\\n</think>\\n\\n"),
        ] {
            assert_eq!(checked(kind, None, &LONG.into()), Ok(()));
            assert_eq!(checked(kind, Some(LONG), &changed.as_str().into()), Ok(()));
            let frame = |role: &str| {
                format!("\"<|im_start|>{role}\\na red fox<|im_end|>\\n<|im_start|>assistant\\n{end}\"")
            };
            let fault = format!(
                "makes {} of the prompt \"a red fox\", but {title} is served with the built-in text {} only; restore the \
                 template of the published model",
                frame("my user"),
                frame("user")
            );
            let error = checked(kind, None, &changed.as_str().into()).unwrap_err();
            assert_eq!(error, format!("tokenizer_config.json: chat_template {fault}"));
            let error = checked(kind, Some(&changed), &LONG.into()).unwrap_err();
            assert_eq!(error, format!("chat_template.jinja: the template {fault}"));
            let named =
                json!([{"name": "tools", "template": LONG}, {"name": "default", "template": changed}]);
            assert!(checked(kind, None, &named).is_err());
        }
    }

    #[test]
    fn templates_that_are_missing_or_cannot_be_evaluated_or_that_no_pipeline_uses_pass() {
        let z_image = PipelineKind::ZImage;
        assert_eq!(checked(z_image, None, &Json::Null), Ok(()));
        assert_eq!(checked(PipelineKind::Sana, Some("x"), &"y".into()), Ok(()));
        for broken in ["{% for", "{{ unknown() }}", "{{ raise_exception('no') }}"] {
            assert_eq!(checked(z_image, Some(broken), &Json::Null), Ok(()), "{broken}");
        }
        let endless = "{% for i in range(9999) %}{% for j in range(9999) %}{{ j }}{% endfor %}{% endfor %}";
        assert!(render(endless, &Map::new(), true).is_err());
    }

    #[test]
    fn a_template_knows_the_special_tokens() {
        let config = json!({"eos_token": {"content": "<end>"}, "pad_token": "<pad>"});
        let text = render("{{ eos_token }}{{ pad_token }}", config.as_object().unwrap(), true);
        assert_eq!(text.unwrap(), "<end><pad>");
    }
}
