//! Messages of ONNX Runtime, without what only its developers need.

/// The message in an error text, without error codes, positions in the source and the path of the graph.
pub(super) fn message(text: &str) -> String {
    let text = text.rsplit("[ONNXRuntimeError] : ").next().unwrap_or(text);
    let text = text.split_once(" : ").map_or(text, |(code, rest)| match code.parse::<u32>() {
        Ok(_) => rest.split_once(" : ").map_or(rest, |(_, rest)| rest),
        Err(_) => text,
    });
    let after_path = text.strip_prefix("Load model from ").and_then(|rest| rest.split_once(" failed:"));
    let text = after_path.map_or(text, |(_, rest)| rest);
    let text = without_positions(text);
    newer_than_the_library(&text).unwrap_or_else(|| text.trim().to_owned())
}

/// The versions in a message about a graph that is newer than the library.
fn newer_than_the_library(text: &str) -> Option<String> {
    let word_after = |before: &str| {
        let rest = text.split(before).nth(1)?;
        rest.split([' ', ',', '\n']).next().map(|word| word.trim_end_matches('.').to_owned())
    };
    let opset = || {
        let (own, max) = (word_after("Opset ")?, word_after(" is till opset ")?);
        let domain = word_after("official support for domain ")?;
        Some(format!("opset {own} of {domain} is newer than opset {max}, the newest that this library reads"))
    };
    let format = || {
        let (own, max) = (word_after("model IR version: ")?, word_after("max supported IR version: ")?);
        Some(format!("IR version {own} is newer than IR version {max}, the newest that this library reads"))
    };
    opset().or_else(format)
}

/// Removes each position in the source: a file with a line, and the name or the signature of a function.
fn without_positions(text: &str) -> String {
    let text = without_signatures(text);
    let is_position = |word: &str| {
        let line = word.split_once(".cc:").or_else(|| word.split_once(".h:")).map(|(_, line)| line);
        line.is_some_and(|line| !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let mut words = text.split(' ');
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        if is_position(word) {
            words.next();
        } else {
            kept.push(word);
        }
    }
    kept.join(" ")
}

/// Removes each path of a source file with a line and the signature of a function.
fn without_signatures(text: &str) -> String {
    let Some(start) = text.find("/onnxruntime_src/") else { return text.to_owned() };
    let (before, position) = text.split_at(start);
    let rest = position.find('(').and_then(|open| {
        let mut depth = 0_usize;
        let close = position[open..].char_indices().find(|(index, c)| {
            match c {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            // The parameters of a call operator follow its name.
            depth == 0 && !position[open + index + 1..].starts_with('(')
        });
        close.map(|(index, _)| position[open + index + 1..].trim_start_matches(" const").trim_start())
    });
    rest.map_or_else(|| text.to_owned(), |rest| format!("{before}{}", without_signatures(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_message_is_left() {
        for (text, expected) in [
            ("x.cc:1 f() [ONNXRuntimeError] : 1 : FAIL : no libcublas", "no libcublas"),
            (
                "Load model from /m/model.onnx failed:/onnxruntime_src/onnxruntime/core/graph/model.cc:181 \
                 onnxruntime::Model::Model(onnx::ModelProto&&, const PathString&) Type Error: 99\n",
                "Type Error: 99",
            ),
            (
                "Non-zero status code returned while running Add node. Name:'' Status Message: \
                 /onnxruntime_src/onnxruntime/core/x.h:540 void f::operator()(int, (anonymous)) const axis was false. 3 by 4",
                "Non-zero status code returned while running Add node. Name:'' Status Message: axis was false. 3 by 4",
            ),
            ("Protobuf parsing failed.", "Protobuf parsing failed."),
            (
                "ONNX Runtime only *guarantees* support for models stamped with official released onnx opset versions. \
                 Opset 27 is under development. Current official support for domain ai.onnx is till opset 25.\n",
                "opset 27 of ai.onnx is newer than opset 25, the newest that this library reads",
            ),
            (
                "Unsupported model IR version: 14, max supported IR version: 13\n",
                "IR version 14 is newer than IR version 13, the newest that this library reads",
            ),
            (
                "Status Message: concat.cc:154 PrepareForCompute Axis 3 of 15 and 16",
                "Status Message: Axis 3 of 15 and 16",
            ),
        ] {
            assert_eq!(message(text), expected);
        }
    }
}
