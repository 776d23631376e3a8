//! Tables of measured values and their targets.

use std::fmt::Write;

/// One measured value.
#[derive(Debug, Clone)]
pub struct Row {
    pub metric: String,
    /// The largest value that meets the target. Values for comparison have none.
    pub target: Option<f64>,
    pub measured: f64,
    pub unit: &'static str,
    /// Details of the measurement.
    pub remark: String,
}

impl Row {
    pub fn new(metric: impl Into<String>, measured: f64, unit: &'static str) -> Self {
        Self { metric: metric.into(), target: None, measured, unit, remark: String::new() }
    }

    /// Sets the target.
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

/// Formats a section of the report as Markdown.
pub fn section(title: &str, rows: &[Row]) -> String {
    let mut text =
        format!("\n## {title}\n\n| metric | target | measured | result | notes |\n|---|---|---|---|---|\n");
    for row in rows {
        let unit = |value: f64| format!("{} {}", number(value), row.unit).trim_end().to_owned();
        let target = row.target.map_or_else(|| "–".to_owned(), unit);
        let measured = unit(row.measured);
        let _ =
            writeln!(text, "| {} | {target} | {measured} | {} | {} |", row.metric, row.verdict(), row.remark);
    }
    text
}
