//! Logging to stderr.

use std::io::Write;

/// Logs to stderr: with colours on a terminal, with syslog priorities under journald. `RUST_LOG` overrides the level.
pub(super) fn start_log(level: log::LevelFilter) {
    let mut builder = env_logger::Builder::new();
    builder
        .filter_level(level)
        // The MQTT client reports the library's errors itself, with their context.
        .filter_module("rumqttc", log::LevelFilter::Off)
        .filter_module("rumqttd", log::LevelFilter::Off)
        .filter_module("ort", log::LevelFilter::Warn)
        .parse_default_env();
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.format(|out, record| {
            let priority = match record.level() {
                log::Level::Error => 3,
                log::Level::Warn => 4,
                log::Level::Info => 6,
                log::Level::Debug | log::Level::Trace => 7,
            };
            writeln!(out, "<{priority}>{}", record.args())
        });
    } else {
        builder.format_target(false);
    }
    builder.init();
}
