//! Jobs over HTTP, beside those over MQTT.

mod events;
mod hostile;
mod metrics;
mod settings;

use std::io::Cursor;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use image::{GrayAlphaImage, GrayImage, ImageFormat, Luma, LumaA};
use serde_json::{Value, json};

use crate::common::broker::{Broker, publish};
use crate::common::bundles::model;
use crate::common::commands::{denoised, free_port, succeeds};
use crate::common::daemon::{Daemon, configuration};
use crate::common::golden;
use crate::common::http::{HttpServer, receive};
use crate::common::pipelines;
use crate::common::subscriber::Subscriber;

/// A broker, a daemon with HTTP that serves digits and the Gaussian model, and a subscriber to all of its topics.
struct Served {
    broker: Broker,
    subscriber: Subscriber,
    daemon: Daemon,
    http: HttpServer,
}

impl Served {
    /// Starts the daemon with further lines of configuration, and waits until it is ready.
    fn start(more: &str) -> Self {
        Self::with_models(&[&model("digits"), &golden("gaussian")], more)
    }

    fn with_models(models: &[&std::path::Path], more: &str) -> Self {
        Self::start_with_http(models, &format!("[engine]\nkind = \"embedded\"\n{more}"))
    }

    /// Starts the daemon with further lines of the table `[http]` and of the configuration.
    fn start_with_http(models: &[&std::path::Path], more: &str) -> Self {
        let broker = Broker::start();
        let mut subscriber = Subscriber::start(&broker, "denoised/test/#");
        let http = HttpServer::new(free_port());
        let more = format!("[http]\nlisten = \"127.0.0.1:{}\"\n{more}", http.port);
        let daemon = Daemon::start(&configuration(&broker, "test", models, &more));
        subscriber.wait_for_phase("ready");
        http.wait_until_ready();
        Self { broker, subscriber, daemon, http }
    }

    fn request(&self, job: &Value) {
        publish(&self.broker, "denoised/test/request", &job.to_string(), &[]);
    }

    /// Requests an image over MQTT, and returns it.
    fn image_over_mqtt(&mut self, job: &Value) -> Vec<u8> {
        self.request(job);
        let id = job["id"].as_str().unwrap();
        self.subscriber.next(|message| message.topic.ends_with("/image") && message.user["id"] == id).payload
    }
}

fn png(write: impl Fn(&mut Cursor<Vec<u8>>)) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    write(&mut file);
    file.into_inner()
}

#[test]
fn an_image_over_http_is_that_of_mqtt_and_of_the_command_line() {
    let mut served = Served::start("");
    let response = served.http.generate(&json!({
        "prompt": "", "model": "digits", "class": 3, "seed": 7, "steps": 6, "sampler": "ddim", "exact": true
    }));
    let image = response.image(0);
    let body = response.json();
    assert!(body["created"].as_u64().is_some() && body["output_format"] == "png", "{body}");
    assert!(response.headers.contains("content-type: application/json"), "{}", response.headers);
    // The job is one like any other: its image and its result are published.
    let id = body["denoised"]["id"].as_str().unwrap().to_owned();
    let published = served.subscriber.on("denoised/test/image");
    assert_eq!((&published.user["id"], &published.payload), (&id, &image));
    let result = served.subscriber.on(&format!("denoised/test/result/{id}")).json();
    assert_eq!(result["images"][0]["receipt"], body["data"][0]["denoised"]);
    assert_eq!(result["elapsed_ms"], body["denoised"]["elapsed_ms"]);

    let job = json!({"id": "mqtt", "class": 3, "seed": 7, "steps": 6, "sampler": "ddim", "exact": true});
    assert!(served.image_over_mqtt(&job) == image);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("three.png");
    let mut command = denoised();
    command.arg("sample").arg(model("digits")).args(["--class", "3", "--seed", "7", "--steps", "6"]);
    succeeds(command.args(["--sampler", "ddim", "--engine", "embedded", "--exact", "--output"]).arg(&path));
    assert!(std::fs::read(&path).unwrap() == image);
}

#[test]
fn a_prompt_a_size_a_format_and_a_number_are_those_of_the_job() {
    let mut served = Served::with_models(&[&pipelines::bundle("sd")], "");
    let response = served.http.generate(&json!({
        "prompt": pipelines::PROMPT, "n": 2, "size": "40x32", "output_format": "jpeg", "output_compression": 50,
        "seed": 3, "steps": 2, "quality": "high"
    }));
    let body = response.json();
    assert_eq!((body["data"].as_array().unwrap().len(), &body["output_format"]), (2, &json!("jpeg")));
    for index in 0..2 {
        let decoded = image::load_from_memory_with_format(&response.image(index), ImageFormat::Jpeg).unwrap();
        assert_eq!((decoded.width(), decoded.height()), (40, 32));
        assert_eq!(body["data"][index]["denoised"]["seed"], 3 + index);
        assert_eq!(body["data"][index]["denoised"]["prompt"], pipelines::PROMPT);
    }
    let job = json!({"id": "same", "prompt": pipelines::PROMPT, "width": 40, "height": 32, "format": "jpeg",
                     "quality": 50, "seed": 3, "steps": 2, "count": 2});
    served.request(&job);
    for _ in 0..2 {
        let image = served.subscriber.next(|m| m.topic.ends_with("/image") && m.user["id"] == "same");
        assert!(image.payload == response.image(image.user["index"].parse().unwrap()));
    }
}

#[test]
fn an_edit_is_a_job_with_the_picture_and_with_a_mask_from_its_transparency() {
    let mut served = Served::start("");
    let picture = png(|file| {
        GrayImage::from_fn(28, 28, |x, _| Luma([if x < 14 { 255 } else { 0 }]))
            .write_to(file, ImageFormat::Png)
            .unwrap();
    });
    let mask_of = |x: u32| if x < 7 { 255 } else { 0 };
    let mask = png(|file| {
        GrayImage::from_fn(28, 28, |x, _| Luma([mask_of(x)])).write_to(file, ImageFormat::Png).unwrap();
    });
    let transparent = png(|file| {
        let picture = GrayAlphaImage::from_fn(28, 28, |x, _| LumaA([9, 255 - mask_of(x)]));
        picture.write_to(file, ImageFormat::Png).unwrap();
    });
    let texts = [("prompt", ""), ("seed", "5"), ("steps", "4"), ("class", "1"), ("strength", "0.75")];
    let job = json!({"seed": 5, "steps": 4, "class": 1, "strength": 0.75, "image": BASE64.encode(&picture)});
    let with = |id: &str, field: &str, value: Value| {
        let mut job = job.clone();
        job["id"] = id.into();
        job[field] = value;
        job
    };
    let response = served.http.edit(&texts, &[("image", &picture)]);
    assert!(response.image(0) == served.image_over_mqtt(&with("edit", "count", 1.into())));
    let inpainting = with("mask", "mask", BASE64.encode(&mask).into());
    let expected = served.image_over_mqtt(&inpainting);
    for file in [&mask, &transparent] {
        let response = served.http.edit(&texts, &[("image[]", &picture), ("mask", file)]);
        assert!(response.image(0) == expected);
        // A saved response is drawn again from the files that were sent, of which the job got another mask.
        let directory = tempfile::tempdir().unwrap();
        let names = ["response.json", "picture.png", "mask.png"].map(|name| directory.path().join(name));
        for (name, bytes) in names.iter().zip([&response.body, &picture, file]) {
            std::fs::write(name, bytes).unwrap();
        }
        let mut command = denoised();
        command.arg("replay").arg(&names[0]).arg("--model").arg(model("digits"));
        command.arg("--image").arg(&names[1]).arg("--mask").arg(&names[2]);
        let printed = String::from_utf8(succeeds(&mut command).stdout).unwrap();
        assert!(printed.ends_with("response.json: image 0: the same bytes\n"), "{printed}");
    }
    let wide = png(|file| GrayImage::new(30, 28).write_to(file, ImageFormat::Png).unwrap());
    let (status, _, field, message) = served.http.edit(&texts, &[("image", &wide)]).error();
    assert_eq!((status, field.as_str()), (400, "image"));
    assert!(message.starts_with("the picture has 30×28 pixels, which the images have too"), "{message}");
    let (status, _, field, message) = served.http.edit(&texts, &[]).error();
    assert_eq!((status, field.as_str()), (400, "image"), "{message}");
    let response = served.http.post("/v1/images/edits", &json!({"prompt": "a"}));
    assert!(response.error().3.contains("the request is not a form; send multipart/form-data"));
}

#[test]
fn the_loaded_models_are_listed() {
    let served = Served::start("");
    let list = served.http.get("/v1/models").json();
    let names: Vec<_> = list["data"].as_array().unwrap().iter().map(|model| model["id"].clone()).collect();
    assert_eq!((&list["object"], names), (&json!("list"), vec![json!("digits"), json!("gaussian")]));
    let one = served.http.get("/v1/models/gaussian").json();
    assert_eq!(
        (&one["id"], &one["object"], &one["owned_by"]),
        (&json!("gaussian"), &json!("model"), &json!("denoised"))
    );
    let (status, code, field, _) = served.http.get("/v1/models/dall-e-3").error();
    assert_eq!((status, code.as_str(), field.as_str()), (404, "model_not_found", "model"));
}

#[test]
fn an_error_has_a_status_and_names_the_field() {
    let mut served = Served::start("[limits]\npayload = \"4 KiB\"\n");
    let repeated = br#"{"prompt": "", "seed": 1, "seed": 2}"#;
    let error =
        receive(served.http.send("POST", "/v1/images/generations", "application/json", repeated)).error();
    assert_eq!(
        (error.0, error.2.as_str(), error.3.as_str()),
        (400, "seed", "seed occurs twice; remove one of them")
    );
    for (body, status, code, field, message) in [
        (json!({"model": "dall-e-3", "prompt": ""}), 404, "model_not_found", "model", "dall-e-3"),
        (json!({"prompt": "a fox"}), 400, "out_of_range", "prompt", "digits"),
        (json!({"steps": "ten"}), 400, "bad_request", "steps", "steps is the string \"ten\""),
        (json!({"steps": 0}), 400, "out_of_range", "steps", "steps"),
        (json!({"n": 11}), 400, "out_of_range", "n", "n is 11, but must be a whole number from 1 to 10"),
        (json!({"size": "64x64"}), 400, "out_of_range", "size", "28"),
        (json!({"sampler": "best"}), 400, "unknown_sampler", "sampler", "best"),
        (json!({"colour": "red"}), 400, "bad_request", "colour", "colour"),
        (json!({"response_format": "url"}), 400, "out_of_range", "response_format", "use b64_json"),
        (json!({"stream": "yes"}), 400, "bad_request", "stream", "but must be true or false"),
        (
            json!({"model": "x".repeat(5000)}),
            413,
            "out_of_range",
            "",
            "more than 4096 bytes (limits.payload)",
        ),
        (json!([]), 400, "bad_request", "", "the request is an array, but must be an object"),
    ] {
        let error = served.http.generate(&body).error();
        assert_eq!((error.0, error.1.as_str(), error.2.as_str()), (status, code, field), "{error:?}");
        assert!(error.3.contains(message), "{error:?}");
    }
    // A file grows by a third in the job's JSON.
    let file = vec![0; 3500];
    let error = served.http.edit(&[], &[("image", &file)]).error();
    assert!(error.0 == 413 && error.3.contains("with its pictures in base64"), "{error:?}");
    let response =
        receive(served.http.send("POST", "/v1/images/generations", "application/json", b"{\"n\": }"));
    assert!(response.error().3.starts_with("the request is not valid JSON: "), "{:?}", response.error());
    for (method, path, status) in [
        ("GET", "/v1/chat/completions", 404),
        ("GET", "/v1/images/generations", 405),
        ("DELETE", "/metrics", 405),
        ("POST", "/healthz", 405),
    ] {
        let response = receive(served.http.send(method, path, "text/plain", b""));
        assert_eq!(response.status, status, "{method} {path}");
        assert!(response.error().3.contains("docs/http.md"));
    }
    // What the daemon itself rejects is an error over MQTT too.
    served.subscriber.next(|message| {
        message.topic.starts_with("denoised/test/error/http-") && message.json()["field"] == "sampler"
    });
}

#[test]
fn a_full_queue_and_a_cancellation_reach_the_client() {
    let mut served = Served::start("[limits]\nqueue = 1\n");
    let long = json!({"model": "gaussian", "prompt": "", "steps": 1000, "sampler": "ddpm", "n": 10});
    let waiting =
        served.http.send("POST", "/v1/images/generations", "application/json", long.to_string().as_bytes());
    let progress = served.subscriber.next(|message| message.topic.contains("/progress/http-"));
    let id = progress.topic.rsplit('/').next().unwrap().to_owned();
    let full = served.http.generate(&json!({"prompt": ""}));
    assert_eq!((full.error().0, full.error().1.as_str()), (429, "queue_full"));
    assert!(full.headers.contains("retry-after: 5"), "{}", full.headers);
    publish(&served.broker, "denoised/test/cancel", &json!({"id": id}).to_string(), &[]);
    let error = receive(waiting).error();
    assert_eq!((error.0, error.1.as_str()), (410, "cancelled"), "{error:?}");
}

/// An error about another request with the same id over MQTT must not reach the client of the job.
#[test]
fn a_request_over_mqtt_with_the_id_of_a_job_does_not_end_its_client() {
    let mut served = Served::start("");
    let long = json!({"model": "gaussian", "prompt": "", "steps": 600, "sampler": "ddpm", "n": 4});
    let waiting =
        served.http.send("POST", "/v1/images/generations", "application/json", long.to_string().as_bytes());
    let progress = served.subscriber.next(|message| message.topic.contains("/progress/http-"));
    let id = progress.topic.rsplit('/').next().unwrap().to_owned();
    served.request(&json!({"id": id, "seed": 5}));
    let error = served.subscriber.on(&format!("denoised/test/error/{id}")).json();
    assert_eq!(error["code"], "conflict");
    assert_eq!(receive(waiting).json()["data"].as_array().unwrap().len(), 4);
}

#[test]
fn a_job_goes_on_when_its_client_disconnects() {
    let mut served = Served::start("");
    let job = json!({"model": "gaussian", "prompt": "", "steps": 600, "sampler": "ddpm", "n": 4});
    let waiting =
        served.http.send("POST", "/v1/images/generations", "application/json", job.to_string().as_bytes());
    let progress = served.subscriber.next(|message| message.topic.contains("/progress/http-"));
    drop(waiting);
    let id = progress.topic.rsplit('/').next().unwrap().to_owned();
    let result = served.subscriber.on(&format!("denoised/test/result/{id}")).json();
    assert_eq!(result["images"].as_array().unwrap().len(), 4);
}
