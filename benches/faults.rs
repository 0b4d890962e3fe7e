//! What an injected gateway suffers that one without does not: for each fault of docs/design/never-worse-off.md that can be
//! made on a node, failed requests and the time of the roll-out, without injection and with. Needs root.
//! `cargo bench --bench faults [-- W1 W6 ...]`
//!
//! Goals: no more failed requests with than without; a roll-out that succeeds without succeeds with, at most 60 s later.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark ends where it fails")]

#[path = "../tests/support/faults.rs"]
mod faults;

use std::time::Duration;

use faults::{Fixture, Measured};

fn main() {
    if faults::play_role() {
        return;
    }
    let asked: Vec<String> = std::env::args().skip(1).filter(|word| word.starts_with('W')).collect();
    let fixture = Fixture::new("").unwrap();
    println!("| fault | requests failed: without, with | p99 | roll-out | first new pod ready | exporters | |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for fault in faults::FAULTS {
        let number = fault.name.split(' ').next().unwrap_or_default();
        if !asked.is_empty() && !asked.iter().any(|one| one == number) {
            continue;
        }
        let [without, with] = [false, true].map(|is_injected| fixture.measure(fault, is_injected));
        let (without, with) = match (without, with) {
            (Ok(without), Ok(with)) => (without, with),
            (Err(error), _) | (_, Err(error)) => {
                println!("| {} | not measured: {error:#} |", fault.name);
                continue;
            }
        };
        let requests = |measured: &Measured| format!("{} of {}", measured.failed, measured.sent);
        let seconds = |took: Option<Duration>| {
            took.map_or_else(|| "never".to_owned(), |took| format!("{:.0} s", took.as_secs_f64()))
        };
        println!(
            "| {} | {}, {} | {:.1} ms, {:.1} ms | {}, {} | {}, {} | {} of 2 | {} |",
            fault.name,
            requests(&without),
            requests(&with),
            without.p99.as_secs_f64() * 1000.,
            with.p99.as_secs_f64() * 1000.,
            seconds(without.rollout),
            seconds(with.rollout),
            seconds(without.ready),
            seconds(with.ready),
            with.exporters,
            with.told.map_or_else(String::new, |_| "after the command of the Event".to_owned()),
        );
    }
}
