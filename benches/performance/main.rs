//! Everything that was to be reached in speed, measured in one run and written to docs/performance.md.
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

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == engines::BARE) {
        return engines::be_bare(&arguments[1..]);
    }
    println!("{}", table::section("The service", &service::rows()));
    println!("{}", table::section("Jobs", &jobs::rows()));
    println!("{}", table::section("Starting", &start::rows()));
    println!("{}", table::section("Steps", &steps::rows()));
}
