//! What was measured beside what was to be reached.

use std::fmt::Write;

/// One target with its figure.
#[derive(Debug, Clone)]
pub struct Row {
    pub what: String,
    /// The most that may be; none: a figure to compare with.
    pub target: Option<f64>,
    pub measured: f64,
    pub unit: &'static str,
    /// Where the figure comes from, or why it missed.
    pub remark: String,
}

impl Row {
    pub fn new(what: impl Into<String>, measured: f64, unit: &'static str) -> Self {
        Self { what: what.into(), target: None, measured, unit, remark: String::new() }
    }

    /// At most so much.
    pub fn at_most(self, target: f64) -> Self {
        Self { target: Some(target), ..self }
    }

    pub fn remark(self, remark: impl Into<String>) -> Self {
        Self { remark: remark.into(), ..self }
    }

    fn verdict(&self) -> &'static str {
        match self.target {
            None => "–",
            Some(target) if self.measured <= target => "met",
            Some(_) => "missed",
        }
    }
}

fn number(value: f64) -> String {
    match value.abs() {
        n if n >= 100.0 => format!("{value:.0}"),
        n if n >= 10.0 => format!("{value:.1}"),
        n if n >= 0.1 => format!("{value:.3}"),
        _ => format!("{value:.4}"),
    }
}

/// A section of the report, as Markdown.
pub fn section(title: &str, rows: &[Row]) -> String {
    let mut text =
        format!("\n## {title}\n\n| metric | target | measured | result | notes |\n|---|---|---|---|---|\n");
    for row in rows {
        let unit = |value: f64| format!("{} {}", number(value), row.unit).trim_end().to_owned();
        let target = row.target.map_or_else(|| "–".to_owned(), unit);
        let measured = unit(row.measured);
        let _ =
            writeln!(text, "| {} | {target} | {measured} | {} | {} |", row.what, row.verdict(), row.remark);
    }
    text
}
