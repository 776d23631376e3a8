use super::*;

fn header(domain: &str, name: &str, types: &[i32]) -> Header {
    Header {
        opsets: vec![(String::new(), 17)],
        operators: [Operator { domain: domain.to_owned(), name: name.to_owned() }].into(),
        element_types: types.iter().map(|&kind| ElementType(kind)).collect(),
        ..Header::default()
    }
}

#[test]
fn advice_of_onnx_runtime_fits_its_message() {
    for (domain, operator, types, reason, expected) in [
        (
            "",
            "Relu",
            &[1][..],
            "opset 27 of ai.onnx is newer than opset 25, the newest that this library reads",
            "Use a newer ONNX Runtime than 1.24.1, or export the model at opset 25 or lower",
        ),
        (
            "",
            "Relu",
            &[1],
            "IR version 14 is newer than IR version 13, the newest that this library reads",
            "Use a newer ONNX Runtime than 1.24.1, or save the model again with ir_version 13",
        ),
        (
            "",
            "Relu",
            &[1],
            "External data path: \"x\" escapes model directory: \"/m\"",
            "copy the folder without links",
        ),
        ("", "Relu", &[1], "Protobuf parsing failed.", "The file is damaged"),
        (
            "",
            "Swish",
            &[1],
            "Error No Op registered for Swish with domain_version of 17",
            "has no operator Swish in opset 17: use a newer ONNX Runtime",
        ),
        (
            "com.microsoft",
            "Frobnicate",
            &[1],
            "Fatal error: com.microsoft:Frobnicate(-1) is not a registered function/op",
            "has no operator com.microsoft:Frobnicate, which another program",
        ),
        (
            "com.microsoft",
            "GroupNorm",
            &[1],
            "Could not find an implementation for GroupNorm(1) node with name ''",
            "com.microsoft:GroupNorm is made for a GPU",
        ),
        (
            "trt.plugins",
            "Q",
            &[1],
            "Fatal error: trt.plugins:Q(-1) is not a registered function/op",
            "a plugin of TensorRT",
        ),
        (
            "com.microsoft",
            "EPContext",
            &[1],
            "Could not find an implementation for EPContext(1) node with name ''",
            "compiled for one device",
        ),
        (
            "",
            "Add",
            &[1, 16],
            "Could not find an implementation for Add(14) node with name ''",
            "computes with bfloat16, which few engines do: export the model in float16 or float32",
        ),
        (
            "",
            "Relu",
            &[17],
            "Type Error: Type 'tensor(float8e4m3fn)' of input parameter (c) of operator (Relu) in node () is invalid.",
            "computes with float8e4m3fn",
        ),
        (
            "",
            "MatMul",
            &[1],
            "Node () Op (MatMul) [ShapeInferenceError] Incompatible dimensions",
            "contradict each other",
        ),
        ("", "Relu", &[1], "std::bad_alloc", "Memory is short"),
        ("", "Relu", &[1], "something else", "If another version of ONNX Runtime loads this graph"),
    ] {
        let advice = onnx_runtime("1.24.1", &header(domain, operator, types), reason).text;
        assert!(advice.contains(expected), "{reason}: {advice}");
    }
}

#[test]
fn advice_of_the_embedded_engine_fits_its_message() {
    for (domain, types, reason, expected) in [
        (
            "",
            &[1][..],
            "operator error: GroupNormalization operator not supported or not enabled",
            "The embedded engine has no operator GroupNormalization: install ONNX Runtime",
        ),
        (
            "",
            &[1, 16],
            "graph error: initializer has unsupported data type BFLOAT16",
            "computes with bfloat16",
        ),
        ("", &[1], "parse error: unexpected end", "The file is damaged"),
        (
            "",
            &[1],
            "Resize operator uses opset version 10 but only version 11 and later",
            "export it at opset 17",
        ),
        ("", &[1], "error in attribute \"mode\": unsupported value", "does not serve all of ONNX"),
        ("trt.plugins", &[1], "trt.plugins/Q operator not supported or not enabled", "a plugin of TensorRT"),
        (
            "com.microsoft",
            &[1],
            "com.microsoft/Q operator not supported or not enabled",
            "The embedded engine has no operator com.microsoft:Q: install ONNX Runtime",
        ),
    ] {
        let advice = embedded(&header(domain, "Q", types), reason);
        assert!(advice.contains(expected), "{reason}: {advice}");
    }
}

#[test]
fn an_evaluation_gets_advice_only_if_its_message_shows_the_cause() {
    for (reason, expected) in [
        ("operator \"Concat\" failed: incompatible input shapes: dim 2", Some(SHAPES)),
        ("Failed to allocate memory for requested buffer of size 8", Some(MEMORY)),
        ("CUDA failure 100", None),
    ] {
        assert_eq!(evaluation(reason).as_deref(), expected, "{reason}");
    }
    assert_eq!(with_advice("a failed.\n", Some("Do b".to_owned())), "a failed. Do b");
}

/// ONNX Runtime was recommended, which lacks such an operator too.
#[test]
fn another_engine_was_recommended_for_an_operator_that_no_engine_has() {
    for domain in ["my.company", "org.pytorch.aten", "mmdeploy"] {
        let reason = format!("{domain}/Q operator not supported or not enabled");
        let expected = format!(
            "No engine here has the operator {domain}:Q, which another program or a library of custom operators brings: \
             export the model without it"
        );
        assert_eq!(embedded(&header(domain, "Q", &[1]), &reason), expected);
    }
}
