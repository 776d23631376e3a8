//! The figures as a table for a reader.

use std::fmt::Write;

use super::figures::{
    EvaluationFigures, EvaluationOutcome, JobFigures, LoadFigures, MemoryFigures, Readings,
};
use super::report::{BoardReport, Report};

/// Formats a report.
pub(super) fn table(report: &Report) -> String {
    let mut table = Table::default();
    let Report { board, model, backend, load, evaluations, job, memory, .. } = report;
    machine(&mut table, board);
    for (library, version) in &report.libraries {
        table.row(library, version);
    }
    table.section("Model");
    table.row("name", &model.name);
    table.row("sha256", &model.sha256);
    table.row("engine", format!("{} {}, provider {}", backend.engine, backend.version, backend.provider));
    table.row("precision", &model.precision);
    for share in &backend.provider_shares {
        table.row("provider share", share);
    }
    if backend.cuda_graph {
        table.row("CUDA graphs", "evaluations are captured and replayed");
    }
    for rejected in &backend.rejected_providers {
        table.row("rejected provider", format!("{}: {}", rejected.provider, rejected.reason));
    }
    load_rows(&mut table, load);
    table.section("Evaluation");
    for evaluation in evaluations {
        evaluation_row(&mut table, evaluation);
    }
    job_rows(&mut table, job);
    memory_rows(&mut table, memory);
    readings(&mut table, &job.readings, job.energy_per_picture_j);
    table.text
}

/// Lines of a label and a value, in sections.
#[derive(Debug, Default)]
struct Table {
    text: String,
}

impl Table {
    fn section(&mut self, title: &str) {
        let gap = if self.text.is_empty() { "" } else { "\n" };
        let _ = writeln!(self.text, "{gap}{title}");
    }

    fn row(&mut self, label: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.text, "  {label:<20} {value}");
    }

    fn optional(&mut self, label: &str, value: Option<impl std::fmt::Display>) {
        if let Some(value) = value {
            self.row(label, value);
        }
    }
}

fn machine(table: &mut Table, board: &BoardReport) {
    table.section("Machine");
    table.row("name", &board.name);
    table.row("cores", board.cores);
    table.optional("memory", board.memory_mib.map(|mib| format!("{mib:.0} MiB")));
    table.optional("JetPack", board.jetpack.as_ref());
    table.optional("Linux for Tegra", board.l4t.as_ref());
    table.optional("power mode", board.power_mode.as_ref());
}

fn load_rows(table: &mut Table, load: &LoadFigures) {
    let cache = if load.is_cache_empty { " with an empty engine cache" } else { "" };
    table.section("Load, until the first job can run");
    table.row("first", format!("{:.0} ms{cache}", load.first_ms));
    table.row("again", format!("{:.0} ms", load.later_ms));
}

fn evaluation_row(table: &mut Table, figures: &EvaluationFigures) {
    let EvaluationFigures { width_px, height_px, batch, outcome } = figures;
    let size = if *width_px == 0 { String::new() } else { format!("{width_px}×{height_px}, ") };
    let value = match outcome {
        EvaluationOutcome::Measured { first_ms, median_ms, min_ms, .. } => {
            format!("{median_ms:.2} ms (least {min_ms:.2} ms, first {first_ms:.2} ms)")
        }
        EvaluationOutcome::Failed { error } => format!("failed: {error}"),
    };
    table.row(&format!("{size}batch {batch}"), value);
}

fn job_rows(table: &mut Table, job: &JobFigures) {
    let parts = &job.parts;
    table.section(&format!(
        "Job of one picture: {}, {} steps, guidance {}",
        job.sampler, job.steps, job.guidance
    ));
    table.row("pictures per second", job.pictures_per_s);
    table.row("whole job", format!("{:.1} ms (first {:.1} ms)", job.median_ms, job.first_ms));
    table.row("evaluations", format!("{:.1} ms ({})", parts.evaluations_ms, parts.evaluations));
    table.row("decoding", format!("{:.1} ms", parts.decoding_ms));
    table.row(
        "rest",
        format!(
            "{:.1} ms ({} %), of that {:.1} ms for the PNG",
            parts.rest_ms, parts.rest_percent, parts.png_ms
        ),
    );
}

fn memory_rows(table: &mut Table, memory: &MemoryFigures) {
    let mib = |value: Option<f64>| value.map(|value| format!("{value:.0} MiB"));
    table.section("Memory");
    table.optional("peak resident", mib(memory.resident_peak_mib));
    table.optional("peak of the GPU", mib(memory.gpu_peak_mib));
    table.optional("GPU before", mib(memory.gpu_before_mib));
    table.optional("available before", mib(memory.available_before_mib));
    table.optional("least available", mib(memory.available_min_mib));
}

/// The sensors during the job.
fn readings(table: &mut Table, readings: &Readings, energy: Option<f64>) {
    table.section("Sensors during the job");
    table.optional("power", readings.power_w.map(|watts| format!("{watts:.2} W")));
    table.optional("measured by", readings.power_source.as_ref());
    table.optional("energy per picture", energy.map(|joules| format!("{joules:.2} J")));
    for (zone, celsius) in &readings.temperatures_c {
        table.row(zone, format!("{celsius:.0} °C"));
    }
    if readings.power_w.is_none() && readings.temperatures_c.is_empty() {
        table.row("none", "this machine has no sensor that can be read");
    }
}
