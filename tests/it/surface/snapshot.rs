//! Compares text with stored snapshots. Values that differ between machines or runs are replaced.

use std::process::Command;

use serde::Serialize;

use crate::common::commands::succeeds;
use crate::common::repository;

/// Patterns and their replacements.
const FILTERS: [(&str, &str); 5] = [
    (r"\binstance=[0-9a-f]{16}", "instance=[process]"),
    (r"\brten \d+(\.\d+)*", "rten [version]"),
    (r#""(version|engine_version)": "\d+(\.\d+)*""#, r#""$1": "[version]""#),
    (r#""(elapsed_ms|elapsed_s|eta_ms|ms_per_nfe)": [\d.]+"#, r#""$1": "[time]""#),
    (r"(?m)^(  batching +)(the same bytes alone|differs by up to \S+ between alone).*", "$1[measured here]"),
];

/// Compares a text with the snapshot of this name.
pub(crate) fn check(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(repository().join("tests/it/surface/snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for (pattern, replacement) in FILTERS {
        settings.add_filter(pattern, replacement);
    }
    let text = text.replace(&repository().display().to_string(), "[repository]");
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// Compares a value, as JSON, with the snapshot of this name.
pub(crate) fn check_json(name: &str, value: &impl Serialize) {
    check(name, &serde_json::to_string_pretty(value).unwrap());
}

/// Returns the standard output of a command, which must succeed.
pub(crate) fn stdout(command: &mut Command) -> String {
    String::from_utf8(succeeds(command).stdout).unwrap()
}
