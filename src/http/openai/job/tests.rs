use serde_json::json;

use super::*;

fn map(request: &Value) -> Result<ImageJob, ApiError> {
    let models = [ModelSummary {
        name: "sd".to_owned(),
        takes_prompt: true,
        classes: Vec::new(),
        takes_guidance: true,
        steps: 50,
        guidance: 7.5,
    }];
    let context = JobContext { id: "http-1", models: &models, max_count: 64 };
    to_job(fields_of_json(request.to_string().as_bytes())?, context)
}

/// The job without its id.
fn job(request: &Value) -> Value {
    let mut job: Value = serde_json::from_slice(&map(request).unwrap().payload).unwrap();
    assert_eq!(job.as_object_mut().unwrap().remove("id"), Some("http-1".into()));
    job
}

#[test]
fn openais_fields_become_those_of_a_job() {
    for (request, expected) in [
        (json!({"prompt": "a fox"}), json!({"prompt": "a fox"})),
        (
            json!({"prompt": "a fox", "model": "sd", "n": 3, "size": "512x768", "output_format": "jpeg",
                   "output_compression": 80}),
            json!({"prompt": "a fox", "model": "sd", "count": 3, "width": 512, "height": 768, "format": "jpeg",
                   "quality": 80}),
        ),
        (json!({"prompt": "", "model": "digits", "class": 7}), json!({"model": "digits", "class": 7})),
        (json!({"prompt": "", "model": "sd"}), json!({"prompt": "", "model": "sd"})),
        (json!({"prompt": "a", "n": 1, "output_format": "png", "size": "auto"}), json!({"prompt": "a"})),
        (
            json!({"prompt": "a", "n": 2.0, "output_compression": 0}),
            json!({"prompt": "a", "count": 2, "quality": 1}),
        ),
        (
            json!({"prompt": "a", "quality": "hd", "style": "vivid", "background": "opaque", "moderation": "low",
                   "user": "me", "response_format": "b64_json", "stream": false, "partial_images": 0}),
            json!({"prompt": "a"}),
        ),
        (json!({"prompt": "a", "n": null, "stream": null, "seed": null}), json!({"prompt": "a"})),
        (
            json!({"prompt": "a", "seed": 7, "steps": 4, "guidance": 1.5, "conditions": {"mood": 1}}),
            json!({"prompt": "a", "seed": 7, "steps": 4, "guidance": 1.5, "conditions": {"mood": 1}}),
        ),
    ] {
        assert_eq!(job(&request), expected, "{request}");
    }
}

#[test]
fn the_response_needs_the_number_and_the_format() {
    let image_job = map(&json!({"prompt": "a", "n": 4, "output_format": "webp"})).unwrap();
    assert_eq!((image_job.count, image_job.format), (4, "webp"));
    let image_job = map(&json!({"prompt": "a"})).unwrap();
    assert_eq!((image_job.count, image_job.format, image_job.is_streamed), (1, "png", false));
}

#[test]
fn previews_are_spread_over_the_steps_and_come_as_events() {
    for (request, preview_every) in [
        (json!({"stream": true}), Value::Null),
        (json!({"partial_images": 2}), Value::Null),
        (json!({"stream": true, "partial_images": 0}), Value::Null),
        (json!({"stream": true, "partial_images": 1}), json!(25)),
        (json!({"stream": true, "partial_images": 3, "steps": 4}), json!(1)),
        (json!({"stream": true, "partial_images": 3, "steps": 0}), json!(1)),
        (json!({"stream": true, "partial_images": 3, "preview_every": 7}), json!(7)),
    ] {
        let image_job = map(&request).unwrap();
        assert_eq!(image_job.is_streamed, request["stream"] == true, "{request}");
        let max = request["partial_images"].as_u64().filter(|max| *max > 0).map(|max| max as usize);
        assert_eq!(image_job.max_previews, max, "{request}");
        assert_eq!(job(&request)["preview_every"], preview_every, "{request}");
    }
}

#[test]
fn an_error_names_the_field_and_what_it_may_be() {
    for (request, field, message) in [
        (json!({"n": 11}), "n", "n is 11, but must be a whole number from 1 to 10"),
        (json!({"n": "two"}), "n", "n is the string \"two\", but must be a whole number from 1 to 10"),
        (json!({"n": 1.5}), "n", "n is 1.5, but must be a whole number from 1 to 10"),
        (
            json!({"size": "512"}),
            "size",
            "size is the string \"512\", but must be auto, or WIDTHxHEIGHT such as \"512x512\"",
        ),
        (json!({"size": "+5x5"}), "size", "size is the string \"+5x5\", but must be auto"),
        (json!({"size": 512}), "size", "size is 512, but must be auto"),
        (
            json!({"response_format": "url"}),
            "response_format",
            "images are not stored for download; use b64_json",
        ),
        (json!({"output_format": "gif"}), "output_format", "but must be png, jpeg or webp"),
        (json!({"output_compression": 101}), "output_compression", "output_compression is 101, but must be"),
        (json!({"stream": {"topic": "a"}}), "stream", "only taken over MQTT"),
        (
            json!({"partial_images": 4}),
            "partial_images",
            "partial_images is 4, but must be a whole number from 0 to 3",
        ),
        (
            json!({"quality": "best"}),
            "quality",
            "but must be one of auto, low, medium, high, xhigh, max, hd, standard",
        ),
        (json!({"quality": 80}), "quality", "is named output_compression here"),
        (json!({"background": "transparent"}), "background", "the images have no transparency"),
        (json!({"user": 3}), "user", "user is 3, but must be a string"),
        (json!({"id": "a"}), "id", "id is chosen by the daemon; remove it"),
        (json!({"count": 2}), "count", "count is named n here; use n"),
        (json!({"width": 2}), "width", "width is part of size here"),
        (json!({"format": "npy"}), "format", "format is named output_format here"),
    ] {
        let error = map(&request).unwrap_err();
        assert_eq!((error.status.as_u16(), error.param.as_deref()), (400, Some(field)), "{request}");
        assert!(error.message.contains(message), "{} for {request}", error.message);
    }
}

/// All of them were `out_of_range`.
#[test]
fn a_value_of_another_type_was_called_out_of_range() {
    for (request, code) in [
        (json!({"n": "two"}), "bad_request"),
        (json!({"n": 11}), "out_of_range"),
        (json!({"size": 512}), "bad_request"),
        (json!({"size": "512"}), "out_of_range"),
        (json!({"stream": "yes"}), "bad_request"),
        (json!({"user": 3}), "bad_request"),
        (json!({"quality": 80}), "bad_request"),
        (json!({"quality": "best"}), "out_of_range"),
        (json!({"colour": 1}), "bad_request"),
        (json!({"output_compression": "80"}), "bad_request"),
    ] {
        assert_eq!(map(&request).unwrap_err().code, code, "{request}");
    }
}

#[test]
fn a_daemon_that_makes_fewer_images_says_so() {
    let context = JobContext { id: "a", models: &[], max_count: 4 };
    let error = to_job(fields_of_json(br#"{"n": 5}"#).unwrap(), context).unwrap_err();
    assert_eq!(error.message, "n is 5, but must be a whole number from 1 to 4 (limits.count)");
}

#[test]
fn text_that_is_no_object_is_refused_in_the_words_of_json() {
    for (body, message) in [
        ("{", "the request is not valid JSON: it ends before an object is closed by `}`"),
        ("3", "the request is 3, but must be an object"),
        ("[]", "the request is an array, but must be an object"),
        // The last of the values counted.
        (r#"{"seed": 1, "seed": 2}"#, "seed occurs twice; remove one of them"),
    ] {
        assert_eq!(fields_of_json(body.as_bytes()).unwrap_err().message, message);
    }
}

proptest::proptest! {
    /// No request panics, and every one that is mapped is a job with the daemon's id.
    #[test]
    fn every_request_is_a_job_or_an_error(
        text in ".{0,20}",
        number in proptest::num::f64::ANY,
        field in proptest::sample::select(vec![
            "n", "size", "output_format", "output_compression", "quality", "user", "stream", "partial_images",
            "response_format", "id", "prompt", "model", "other",
        ]),
        is_text: bool,
    ) {
        let value = if is_text { json!(text) } else { json!(number) };
        if let Ok(image_job) = map(&json!({field: value})) {
            let job: Value = serde_json::from_slice(&image_job.payload).unwrap();
            proptest::prop_assert_eq!(&job["id"], "http-1");
            proptest::prop_assert!((1..=10).contains(&image_job.count));
        }
    }
}
