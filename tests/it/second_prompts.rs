//! The prompts of the second text encoder, as diffusers reads them.

use std::sync::Arc;

use crate::common::pipelines::bundle;
use denoised::inference::{EngineKind, EngineOptions};
use denoised::job::{Job, JobLimits, ModelCard, parse};
use denoised::model::Model;

fn card(name: &str) -> Arc<ModelCard> {
    let options = EngineOptions { kind: EngineKind::Embedded, ..EngineOptions::default() };
    ModelCard::new(&Model::load(&bundle(name), &options).unwrap())
}

fn job(card: &Arc<ModelCard>, request: &str) -> Job {
    let limits = JobLimits { steps: 1000, count: 64, pixels: 1 << 22, memory: None };
    parse(request.as_bytes()).unwrap().check(std::slice::from_ref(card), limits, || 1).unwrap()
}

/// diffusers: `prompt_2 = prompt_2 or prompt`.
#[test]
fn an_empty_second_prompt_was_not_the_first_one() {
    for name in ["sdxl", "sd3", "flux"] {
        let request =
            r#"{"prompt": "fox", "prompt_2": "", "negative_prompt": "sea", "negative_prompt_2": ""}"#;
        let job = job(&card(name), request);
        let text = job.text.as_ref().unwrap();
        assert_eq!(text.prompt, ["fox", "fox"], "{name}");
        assert_eq!(text.negative.clone(), Some(["sea", "sea"].map(str::to_owned)), "{name}");
    }
    let other = job(&card("sdxl"), r#"{"prompt": "fox", "prompt_2": "sea"}"#);
    assert_eq!(other.text.unwrap().prompt, ["fox", "sea"]);
}

/// diffusers takes zeros if `negative_prompt` is None, whatever `negative_prompt_2` is.
#[test]
fn a_second_negative_prompt_alone_was_used_where_diffusers_takes_zeros() {
    let mut sdxl = card("sdxl");
    let request = r#"{"prompt": "fox", "negative_prompt_2": "sea", "guidance": 5}"#;
    let alone = job(&sdxl, request);
    assert_eq!(alone.text.as_ref().unwrap().negative, None);
    assert_eq!(
        alone.ignored,
        ["negative_prompt_2 has no effect on sdxl, which takes zeros where negative_prompt is missing \
             (force_zeros_for_empty_prompt)"]
    );
    let both = job(&sdxl, r#"{"prompt": "fox", "negative_prompt": "", "negative_prompt_2": "sea"}"#);
    assert_eq!(both.text.unwrap().negative.clone(), Some(["", "sea"].map(str::to_owned)));
    Arc::make_mut(&mut sdxl).latent.as_mut().unwrap().1.force_zeros_for_empty_prompt = false;
    let encoded = job(&sdxl, request);
    assert_eq!(
        (encoded.ignored.len(), encoded.text.unwrap().negative.clone()),
        (0, Some(["", "sea"].map(str::to_owned)))
    );
}
