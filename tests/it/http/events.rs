//! The images of a job as events, and the page that shows them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::Served;
use crate::common::bundles::model;
use crate::common::pipelines;

fn file(event: &Value) -> Vec<u8> {
    BASE64.decode(event["b64_json"].as_str().unwrap()).unwrap()
}

#[test]
fn previews_and_images_arrive_as_events() {
    let served = Served::with_models(&[&pipelines::bundle("sd")], "");
    let request = |more: Value| {
        let mut request = json!({"prompt": "a fox", "seed": 3, "steps": 4, "size": "32x32", "exact": true});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request
    };
    let expected = served.http.generate(&request(json!({"n": 2})));
    let events =
        served.http.generate(&request(json!({"n": 2, "stream": true, "partial_images": 2}))).events();
    let images: Vec<_> = events.iter().filter(|(name, _)| name == "image_generation.completed").collect();
    assert_eq!(images.len(), 2);
    for (index, (_, image)) in images.iter().enumerate() {
        assert_eq!(image["denoised"]["index"], index);
        assert!(file(image) == expected.image(index));
        assert_eq!((&image["size"], &image["output_format"]), (&json!("32x32"), &json!("png")));
    }
    // A client that is slow misses previews, and a picture comes after all of its own.
    let previews: Vec<_> = events.iter().filter(|(name, _)| name.ends_with("partial_image")).collect();
    for (number, (_, preview)) in previews.iter().enumerate() {
        assert_eq!(preview["partial_image_index"], number);
        assert!(file(preview).starts_with(b"\x89PNG"));
    }
    assert!((1..=4).contains(&previews.len()), "{}", previews.len());
    // No previews were asked for.
    let events = served.http.generate(&request(json!({"stream": true}))).events();
    assert_eq!(
        events.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["image_generation.completed"]
    );
}

#[test]
fn an_edit_has_events_of_its_own_and_an_error_is_the_last_event() {
    let served = Served::with_models(&[&pipelines::bundle("sd")], "");
    let picture = std::fs::read(pipelines::bundle("init.png")).unwrap();
    let texts =
        [("prompt", "a fox"), ("seed", "5"), ("steps", "4"), ("strength", "0.75"), ("stream", "true")];
    let events = served.http.edit(&texts, &[("image", &picture)]).events();
    assert_eq!(events[0].0, "image_edit.completed");
    assert!(file(&events[0].1) == served.http.edit(&texts[..4], &[("image", &picture)]).image(0));

    let events = served.http.generate(&json!({"prompt": "a", "stream": true, "steps": 0})).events();
    let [(name, event)] = &events[..] else { panic!("{events:?}") };
    assert_eq!(
        (name.as_str(), &event["error"]["param"], &event["error"]["code"]),
        ("error", &json!("steps"), &json!("out_of_range"))
    );
    // What is wrong before the job begins has a status.
    assert_eq!(served.http.generate(&json!({"prompt": "a", "stream": true, "n": 11})).error().0, 400);
}

#[test]
fn the_page_is_shown_without_the_token_and_loads_nothing_from_elsewhere() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "0123456789abcdef").unwrap();
    let more = format!("token_file = {token:?}\n[engine]\nkind = \"embedded\"\n");
    let mut served = Served::start_with_http(&[&model("digits")], &more);
    for (path, content_type, text) in [
        ("/", "text/html", "<title>denoised</title>"),
        ("/page.css", "text/css", "prefers-color-scheme: dark"),
        ("/page.js", "text/javascript", "\"use strict\""),
    ] {
        let response = served.http.get(path);
        assert_eq!(response.status, 200, "{path}");
        assert!(response.headers.contains(&format!("content-type: {content_type}; charset=utf-8")), "{path}");
        assert!(response.headers.contains("content-security-policy: default-src 'none'"), "{path}");
        assert!(response.text().contains(text), "{path}");
        assert!(!response.text().contains("http://") && !response.text().contains("https://"), "{path}");
    }
    assert_eq!(served.http.get("/state").status, 401);
    served.http.token = Some("0123456789abcdef".to_owned());
    let state = served.http.get("/state").json();
    assert_eq!(
        (&state["phase"], &state["node"], &state["models"][0]["name"]),
        (&json!("ready"), &json!("test"), &json!("digits"))
    );
}

#[test]
fn a_model_is_described_by_what_requests_can_say() {
    let served = Served::with_models(&[&pipelines::bundle("sd"), &model("digits")], "");
    let models = served.http.get("/v1/models").json();
    let [sd, digits] = [0, 1].map(|index| models["data"][index]["denoised"].clone());
    assert_eq!(
        (&sd["takes_prompt"], &sd["classes"], &sd["takes_guidance"]),
        (&json!(true), &json!([]), &json!(true))
    );
    assert_eq!(digits["takes_prompt"], false);
    assert_eq!(digits["classes"].as_array().unwrap().len(), 10);
    assert_eq!(served.http.get("/v1/models/digits").json()["denoised"], digits);
}
