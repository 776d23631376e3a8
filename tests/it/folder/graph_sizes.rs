//! Sizes in configurations that the graphs contradict.

use serde_json::json;

use super::{edit, folder, refusal};

/// The errors came from the engine at load, and from the first picture.
#[test]
fn numbers_that_the_graphs_contradict_were_found_late() {
    for (file, change, expected) in [
        (
            "unet/config.json",
            json!({"sample_size": 15}),
            "sample_size is 15, but the graph beside it only takes multiples of 2; use 14 or 16",
        ),
        (
            "unet/config.json",
            json!({"sample_size": [16, 17]}),
            "sample_size is [16, 17], but the graph beside it only takes multiples of 2; use 16 or 18",
        ),
        (
            "vae_decoder/config.json",
            json!({"block_out_channels": [8, 16, 16]}),
            "block_out_channels has 3 values, which mean pictures 4 times as large as a latent, but the graph of the \
             decoder enlarges latents 2 times; correct it, or export both again",
        ),
    ] {
        let (_directory, sd) = folder("sd");
        edit(&sd, file, |config| {
            for (key, value) in change.as_object().unwrap() {
                config[key] = value.clone();
            }
        });
        let error = refusal(&sd);
        assert!(error.contains(&format!("{file}: {expected}")), "{error}");
    }
    let (_directory, sd3) = folder("sd3");
    edit(&sd3, "transformer/config.json", |config| config["sample_size"] = json!(66));
    let error = refusal(&sd3);
    assert!(
        error
            .contains("transformer/config.json: sample_size is 66, but the graph beside it takes at most 64"),
        "{error}"
    );
}
