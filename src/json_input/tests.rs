use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Order {
    steps: Option<u64>,
    class: Option<i64>,
    priority: Option<i32>,
    guidance: Option<f64>,
    exact: Option<bool>,
    name: Option<String>,
    size: Option<[u64; 2]>,
    tags: Option<Vec<String>>,
    moods: Option<BTreeMap<String, f64>>,
    kind: Option<Kind>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Png,
    Npy,
}

fn read(text: &str) -> Result<Order, InputError> {
    Document::parse(text.as_bytes()).expect("a JSON text").read("the order")
}

/// Fails if a message holds a word of Rust or a position in serde_json's form.
fn assert_plain(message: &str) {
    for word in
        ["u64", "i32", "f64", "struct", "EOF", "ident", "at line", "floating", "a sequence", "Option", "map"]
    {
        assert!(!message.contains(word), "{message}");
    }
}

#[test]
fn whole_floats_are_integers_of_every_type() {
    let order = read(r#"{"steps": 3.0, "class": -1e1, "priority": -2.0, "size": [1e2, 0.0], "guidance": 2}"#);
    let expected = Order {
        steps: Some(3),
        class: Some(-10),
        priority: Some(-2),
        size: Some([100, 0]),
        guidance: Some(2.0),
        ..Order::default()
    };
    assert_eq!(order.unwrap(), expected);
    assert_eq!(read(r#"{"steps": 9007199254740991.0}"#).unwrap().steps, Some(MAX_EXACT_INTEGER));
    assert_eq!(read(r#"{"steps": 18446744073709551615}"#).unwrap().steps, Some(u64::MAX));
}

#[test]
fn a_wrong_type_is_reported_in_the_words_of_json() {
    for (text, field, message) in [
        (r#"{"steps": "ten"}"#, "steps", "steps is the string \"ten\", but must be an integer, 0 or more"),
        (r#"{"steps": 3.5}"#, "steps", "steps is 3.5, but must be an integer, 0 or more"),
        (r#"{"steps": -1}"#, "steps", "steps is -1, but must be an integer, 0 or more"),
        (r#"{"steps": true}"#, "steps", "steps is true, but must be an integer, 0 or more"),
        (
            r#"{"steps": 18446744073709552000}"#,
            "steps",
            "steps is 18446744073709552000, but must be an integer from 0 to 18446744073709551615",
        ),
        (
            r#"{"steps": 1e17}"#,
            "steps",
            "steps is 100000000000000000, but must be an integer from 0 to 18446744073709551615, written with all of \
             its digits",
        ),
        (
            r#"{"Kind": "png"}"#,
            "Kind",
            "unknown field `Kind`; did you mean `kind`? (the fields are: steps, class, priority, guidance, exact, \
             name, size, tags, moods, kind)",
        ),
        (r#"{"class": "3"}"#, "class", "class is the string \"3\", but must be an integer"),
        (
            r#"{"priority": 5000000000}"#,
            "priority",
            "priority is 5000000000, but must be an integer from -2147483648 to 2147483647",
        ),
        (r#"{"guidance": []}"#, "guidance", "guidance is an array, but must be a number"),
        (r#"{"exact": 1}"#, "exact", "exact is 1, but must be true or false"),
        (r#"{"name": {}}"#, "name", "name is an object, but must be a string"),
        (r#"{"size": [1]}"#, "size", "size is an array of length 1, but must be one of length 2"),
        (r#"{"size": 1}"#, "size", "size is 1, but must be an array of length 2"),
        (r#"{"size": [1, null]}"#, "size[1]", "size[1] is null, but must be an integer, 0 or more"),
        (r#"{"tags": "a"}"#, "tags", "tags is the string \"a\", but must be an array"),
        (r#"{"moods": 3}"#, "moods", "moods is 3, but must be an object"),
        (r#"{"moods": {"calm": "x"}}"#, "moods.calm", "moods.calm is the string \"x\", but must be a number"),
        (r#"{"kind": "gif"}"#, "kind", "kind is the string \"gif\", but must be one of: png, npy"),
        (r#"{"kind": 1}"#, "kind", "kind is 1, but must be a string"),
        (
            r#"{"stepz": 5}"#,
            "stepz",
            "unknown field `stepz`; did you mean `steps`? (the fields are: steps, class, priority, guidance, exact, \
             name, size, tags, moods, kind)",
        ),
        (r#"{"steps": 5, "steps": 6}"#, "steps", "steps occurs twice; remove one of them"),
        (r#"{"moods": {"a": 1, "a": 1}}"#, "moods.a", "moods.a occurs twice; remove one of them"),
    ] {
        let error = read(text).unwrap_err();
        assert_eq!((error.field.as_deref(), error.message.as_str()), (Some(field), message), "{text}");
        assert_plain(&error.message);
    }
    for (text, found) in [("[]", "an array"), ("3", "3"), ("null", "null"), ("\"x\"", "the string \"x\"")] {
        let error = read(text).unwrap_err();
        assert_eq!(error.field, None);
        assert_eq!(error.message, format!("the order is {found}, but must be an object"));
    }
}

/// 18446744073709551616 was repeated as 18446744073709552000.
#[test]
fn integers_beyond_64_bits_were_repeated_rounded() {
    let large = "18446744073709551617";
    for (text, message) in [
        (
            format!("{{\"steps\": {large}}}"),
            format!("steps is {large}, but must be an integer from 0 to 18446744073709551615"),
        ),
        (
            format!("{{\"size\": [1, -{large}]}}"),
            format!("size[1] is -{large}, but must be an integer from 0 to 18446744073709551615"),
        ),
        (
            format!("{{\"priority\": {large}}}"),
            format!("priority is {large}, but must be an integer from -2147483648 to 2147483647"),
        ),
        (format!("{{\"name\": {large}}}"), format!("name is {large}, but must be a string")),
        (
            format!("{{\"steps\": {}}}", "9".repeat(100)),
            format!("steps is {}…, but must be an integer from 0 to 18446744073709551615", "9".repeat(39)),
        ),
    ] {
        assert_eq!(read(&text).unwrap_err().message, message);
    }
    assert_eq!(
        read(&format!("{{\"guidance\": {large}}}")).unwrap().guidance,
        Some(18_446_744_073_709_551_616.0)
    );
    // An unusable id is repeated in the answer.
    let id = |text: &str| find_field(text.as_bytes(), "id").map(|id| id.to_text());
    assert_eq!(id(&format!("{{\"id\": [1, {large}], \"steps\": ?")), Some(format!("[1,{large}]")));
}

#[test]
fn a_text_that_is_not_json_is_reported_in_plain_words() {
    let deep = "[".repeat(200);
    for (text, message) in [
        ("", "it is empty; write a JSON object"),
        (" \n", "it is empty; write a JSON object"),
        ("{", "it ends before an object is closed by `}`"),
        ("[1", "it ends before an array is closed by `]`"),
        ("{\"id", "it ends before a string is closed by `\"`"),
        ("{\"id\":", "it ends where a value must follow"),
        ("draw me a three", "no JSON value begins with `draw` (character 1)"),
        ("{\"a\": NaN}", "no JSON value begins with `NaN` (character 7)"),
        ("{\"a\": -Infinity}", "`-Infinity` is not a JSON number (character 7)"),
        ("{\"a\": nul}", "no JSON value begins with `nul`; a word must be true, false or null (character 7)"),
        ("{\"a\": 'x'}", "no JSON value begins with `'x'` (character 7)"),
        ("{\"a\": 1e400}", "`1e400` is too large for a number (character 7)"),
        ("{\"a\": 01}", "`01` is not a JSON number (character 7)"),
        ("{\"a\": 1,}", "a comma must be followed by another value, not `}` (character 9)"),
        ("[1,\n 2 3]", "a comma or `]` must follow an element of an array, not `3` (line 2, character 4)"),
        ("{\"a\": 1 \"b\": 2}", "a comma or `}` must follow a member of an object, not `\"` (character 9)"),
        ("{a: 1}", "a key of an object must be a string in double quotes, not `a` (character 2)"),
        ("{\"a\" 1}", "a colon must follow a key, not `1` (character 6)"),
        ("{} {}", "nothing may follow the JSON value, but `{` does (character 4)"),
        (deep.as_str(), "its arrays and objects are nested more than 127 deep"),
    ] {
        assert_eq!(Document::parse(text.as_bytes()).unwrap_err(), message, "{text}");
        assert_plain(message);
    }
    assert_eq!(Document::parse(b"{\"a\xff\"}").unwrap_err(), "it is not UTF-8 text: byte 4 is 0xff");
    assert_eq!(Document::parse("\u{feff}{}".as_bytes()), Document::parse(b"{}"));
}

#[test]
fn every_error_of_a_damaged_text_is_plain() {
    let text = r#"{"a": [1.5e3, true, null, "\u00e9\n"], "é": {"x": "ü"}, "b": false}"#;
    for end in 0..text.len() {
        for damaged in [
            text.as_bytes()[..end].to_vec(),
            [&text.as_bytes()[..end], b"\x01", &text.as_bytes()[end..]].concat(),
        ] {
            if let Err(message) = Document::parse(&damaged) {
                assert_plain(&message);
            }
        }
    }
}

#[test]
fn a_field_is_found_in_a_text_that_is_not_json() {
    for (text, id) in [
        (r#"{"id": "a", "steps": NaN}"#, Some("a")),
        (r#"{"steps": , "id" : "b"}"#, Some("b")),
        (r#"{"id": 7"#, Some("7")),
        (r#"{"id": {"x": [1, "y"]}, "#, Some(r#"{"x":[1,"y"]}"#)),
        (r#"{"id": "a"#, None),
        ("id: a", None),
    ] {
        assert_eq!(find_field(text.as_bytes(), "id").map(|id| id.to_text()).as_deref(), id, "{text}");
    }
}

/// Compared with each other, these keys would take minutes.
#[test]
fn many_keys_are_read_in_time_that_grows_with_their_number() {
    let keys: Vec<_> = (0..300_000).map(|key| format!("\"{key}\":1")).collect();
    let start = std::time::Instant::now();
    let order = read(&format!("{{\"moods\": {{{}}}}}", keys.join(","))).unwrap();
    assert_eq!(order.moods.unwrap().len(), 300_000);
    let error = read(&format!("{{\"moods\": {{{},\"7\":1}}}}", keys.join(","))).unwrap_err();
    assert_eq!(error.message, "moods.7 occurs twice; remove one of them");
    assert!(start.elapsed() < std::time::Duration::from_secs(60), "{:?}", start.elapsed());
}

/// Compared with every field, this key would take minutes.
#[test]
fn a_long_unknown_key_is_compared_by_its_start_only() {
    let start = std::time::Instant::now();
    let error = read(&format!("{{\"{}\": 1}}", "steps".repeat(4 << 20))).unwrap_err();
    assert!(error.message.starts_with("unknown field `stepssteps"), "{:.100}", error.message);
    assert!(error.message.len() < 200, "{:.200}", error.message);
    assert!(start.elapsed() < std::time::Duration::from_secs(60), "{:?}", start.elapsed());
}

#[test]
fn only_the_first_places_of_a_damaged_text_are_searched_for_a_field() {
    let unreadable = "\"id\": ?, ".repeat(MAX_SEARCHED_PLACES - 1);
    let found = |text: &str| find_field(text.as_bytes(), "id").map(|id| id.to_text());
    assert_eq!(found(&format!("{{{unreadable}\"id\": \"a\"")).as_deref(), Some("a"));
    assert_eq!(found(&format!("{{{unreadable}\"id\": ?, \"id\": \"a\"")), None);
}

#[test]
fn a_long_string_is_shortened_in_a_message() {
    let error = read(&format!(r#"{{"steps": "{}"}}"#, "é".repeat(100))).unwrap_err();
    let shown = format!("{}…", "é".repeat(39));
    assert_eq!(error.message, format!("steps is the string {shown:?}, but must be an integer, 0 or more"));
}
