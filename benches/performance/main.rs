//! Measures all performance targets, and writes them to docs/performance-results.md.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

#[path = "../../tests/common/mod.rs"]
mod common;

mod clock;
mod engines;
mod jobs;
mod service;
mod start;
mod steps;
mod table;
mod timed_process;

/// The text above this line of the page is written by hand.
const LINE: &str = "<!-- All that follows is written by `just bench`. -->\n";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == engines::BARE) {
        return engines::run_bare_session(&arguments[1..]);
    }
    type Rows = fn() -> Vec<table::Row>;
    let sections: [(&str, Rows); 4] = [
        ("Jobs", jobs::rows),
        ("Start-up and idle", start::rows),
        ("The service", service::rows),
        ("Steps", steps::rows),
    ];
    // Cargo adds options, such as `--bench`.
    let selected: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    if let Some(unknown) =
        selected.iter().find(|name| !sections.iter().any(|(title, _)| title.eq_ignore_ascii_case(name)))
    {
        let titles = sections.map(|(title, _)| format!("{title:?}")).join(", ");
        eprintln!("there is no section {unknown:?}; use one of: {titles}");
        std::process::exit(2);
    }
    let mut tables = format!("\nMeasured on {} by `just bench`.\n", machine());
    for (title, rows) in sections {
        if !selected.is_empty() && !selected.iter().any(|name| title.eq_ignore_ascii_case(name)) {
            continue;
        }
        let section = table::section(title, &rows());
        println!("{section}");
        tables.push_str(&section);
    }
    if !selected.is_empty() {
        return println!("docs/performance-results.md is unchanged, because not all sections were measured");
    }
    let page = common::repository().join("docs/performance-results.md");
    let text = std::fs::read_to_string(&page).unwrap();
    let by_hand = text.split(LINE).next().unwrap();
    std::fs::write(&page, format!("{by_hand}{LINE}{tables}")).unwrap();
    println!("written to {}", page.display());
}

/// Describes the CPU of this machine.
fn machine() -> String {
    let cpu_info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = cpu_info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("an unknown CPU");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{} with {cores} cores, Linux on {}",
        name.trim_start_matches(['\t', ' ', ':']),
        std::env::consts::ARCH
    )
}
