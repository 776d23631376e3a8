//! Keys that have no effect, which `check-config` reports.

use super::{refused, warned};
use crate::common::bundles::model;

#[test]
fn keys_without_effect_were_not_reported() {
    let models = format!("[models]\npaths = [{:?}]\n", model("digits").display().to_string());
    let cases = [
        ("[models.engine.nope]\nbatch = 1", "models.engine.nope has no effect: models.paths has only digits"),
        (
            "[engine]\nproviders = [\"cpu\", \"cuda\"]",
            "engine.providers: cuda after cpu is never used; move cpu to the end",
        ),
        (
            "[engine]\nproviders = [\"cuda\", \"cpu\"]\ninterim_provider = \"cpu\"",
            "engine.interim_provider has no effect, because the first provider builds no engine",
        ),
        (
            "[engine]\nproviders = [\"cpu\"]\n[engine.cuda]\ntf32 = true",
            "engine.cuda has no effect, because engine.providers has no cuda",
        ),
        (
            "[engine]\nproviders = [\"cpu\"]\nbuild_memory = \"2 GiB\"",
            "engine.build_memory has no effect, because no provider builds an engine",
        ),
        (
            "[engine]\nkind = \"embedded\"\nrewrite = false\nbuild_memory = \"2 GiB\"",
            "engine.rewrite has no effect with kind = \"embedded\"\ndenoised: warning: engine.build_memory has no effect \
             with kind = \"embedded\"",
        ),
        // The list of the model has no tensorrt, and that of the engine has it.
        (
            "[engine]\nproviders = [\"tensorrt\", \"cpu\"]\n[engine.tensorrt]\nfp16 = true\n\
             [models.engine.digits]\nproviders = [\"cpu\"]",
            "engine.tensorrt has no effect, because models.engine.digits.providers has no tensorrt",
        ),
        (
            "[mqtt]\nca_file = \"/ca.pem\"",
            "mqtt.ca_file has no effect, because mqtt.url is not mqtts://\ndenoised: warning: mqtt.ca_file: there is no \
             file /ca.pem on this machine",
        ),
        ("[engine]\nlibrary = \"/lib.so\"", "engine.library: there is no file /lib.so on this machine"),
        (
            "[limits]\npayload = \"32 MiB\"",
            "limits.payload is more than mqtt.max_packet, so that the largest requests never arrive",
        ),
        (
            "[engine.tensorrt]\ndla_core = 0",
            "engine.tensorrt.dla_core has no effect without fp16 or int8, the only types that a DLA has",
        ),
    ];
    for (text, expected) in cases {
        let stderr = warned(&format!("{models}{text}\n"));
        assert_eq!(stderr, format!("denoised: warning: {expected}\n"), "{text}");
    }
    assert_eq!(warned(&models), "");
    assert_eq!(
        warned("[models]\npaths = [\"/nope\"]"),
        "denoised: warning: models.paths: there is no directory /nope on this machine\n"
    );
    assert_eq!(
        warned(&format!("{models}loras = [\"/nope\", \"/etc/passwd\"]\n")),
        "denoised: warning: models.loras: /nope is not a directory; name one that has .safetensors files\n\
         denoised: warning: models.loras: /etc/passwd is not a directory; name one that has .safetensors files\n"
    );
}

/// A link may have another name than its directory.
#[test]
fn overrides_by_the_name_of_a_link_were_reported_as_without_effect() {
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("sd");
    std::os::unix::fs::symlink(model("digits"), &link).unwrap();
    let models = format!("[models]\npaths = [{:?}]\n", link.display().to_string());
    let section = "models.engine.sd";
    for name in ["sd", "digits"] {
        assert_eq!(warned(&format!("{models}[models.engine.{name}]\nbatch = 1\n")), "");
    }
    for (text, expected) in [
        (
            "[models.engine.sd]\nbatch = 1\n[models.engine.digits]\nbatch = 2\n",
            "models.engine.digits has no effect: models.engine.sd applies to the same model",
        ),
        (
            "[models.engine.nope]\nbatch = 1\n",
            "models.engine.nope has no effect: models.paths has only digits",
        ),
        (
            "[models.engine.sd]\nproviders = [\"cpu\", \"cuda\"]\n",
            &format!("{section}.providers: cuda after cpu is never used; move cpu to the end"),
        ),
        (
            "[models.engine.sd.tensorrt]\ndla_core = 0\n",
            &format!(
                "{section}.tensorrt.dla_core has no effect without fp16 or int8, the only types that a DLA has"
            ),
        ),
    ] {
        let stderr = warned(&format!("{models}{text}"));
        assert_eq!(stderr, format!("denoised: warning: {expected}\n"), "{text}");
    }
    assert_eq!(
        refused(&format!("{models}[models.engine.sd]\nbatch = 4\ntensorrt = {{ opt_batch = 5 }}\n")),
        format!("denoised: c.toml:5: {section}.tensorrt.opt_batch: 5 is more than the batch, 4\n")
    );
}

/// Only `policy` was reported, and not that of a model.
#[test]
fn options_of_onnx_runtime_for_the_embedded_engine_were_silent() {
    let models = format!("[models]\npaths = [{:?}]\n", model("digits").display().to_string());
    let embedded = |text: &str| warned(&format!("{models}[engine]\nkind = \"embedded\"\n{text}\n"));
    for (text, key) in [
        ("[engine.cuda]\ntf32 = true", "engine.cuda"),
        ("[engine.tensorrt]\nfp16 = true", "engine.tensorrt"),
        ("[engine.openvino]\nprecision = \"FP16\"", "engine.openvino"),
        ("policy = \"required\"", "engine.policy"),
        ("providers = [\"cuda\", \"cpu\"]", "engine.providers"),
        ("interim_provider = \"cpu\"", "engine.interim_provider"),
        ("[models.engine.digits]\npolicy = \"required\"", "models.engine.digits.policy"),
        ("[models.engine.digits]\nproviders = [\"cuda\"]", "models.engine.digits.providers"),
        ("[models.engine.digits.tensorrt]\ndla_core = 0", "models.engine.digits.tensorrt"),
        ("[models.engine.digits.cuda]\ntf32 = true", "models.engine.digits.cuda"),
    ] {
        let expected = format!("denoised: warning: {key} has no effect with kind = \"embedded\"\n");
        assert_eq!(embedded(text), expected, "{text}");
    }
    assert_eq!(embedded("providers = [\"cpu\"]\nbatch = 2\n[models.engine.digits]\nbatch = 1"), "");
}

/// Such a section was checked only against `[engine] providers`.
#[test]
fn a_section_of_a_model_without_its_provider_was_silent() {
    let models = format!("[models]\npaths = [{:?}]\n", model("digits").display().to_string());
    for (text, expected) in [
        (
            "[models.engine.digits]\nproviders = [\"cpu\"]\ntensorrt = { fp16 = true }",
            "models.engine.digits.tensorrt has no effect, because models.engine.digits.providers has no tensorrt",
        ),
        (
            "[engine]\nproviders = [\"cuda\", \"cpu\"]\n[models.engine.digits]\nopenvino = { device = \"CPU\" }",
            "models.engine.digits.openvino has no effect, because engine.providers has no openvino",
        ),
        (
            "[engine.cuda]\ntf32 = true\n[models.engine.digits]\ncuda = { tf32 = false }",
            "engine.cuda has no effect, because models.engine.digits.cuda replaces it",
        ),
    ] {
        assert_eq!(
            warned(&format!("{models}{text}\n")),
            format!("denoised: warning: {expected}\n"),
            "{text}"
        );
    }
}
