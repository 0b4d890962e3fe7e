//! The attacks of `tests/support/attacks.rs`, ten seconds each, under the limits of the shipped Deployment: how long a good client
//! waits meanwhile, how much memory gwmon takes and how much it logs. `cargo bench --bench hostile [-- WORDS...]` runs those whose
//! name has one of the words, and fails where a promise is broken.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark ends where it fails")]

#[path = "../tests/support/attacks.rs"]
mod attacks;
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Duration;

/// The 99th of a hundred answers to the good client takes no longer than this, in milliseconds.
const PROMISE: f64 = 100.;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word));
    println!("{}", attacks::HEADING);
    let mut broken = vec![];
    for attack in attacks::ATTACKS.iter().filter(|attack| wanted(attack.name)) {
        let outcome = attack.run(Duration::from_secs(10));
        println!("{}", outcome.row(attack.name));
        broken.extend(outcome.broken_promises().map(|promise| format!("{}: {promise}", attack.name)));
        let slowest = attacks::p99(&outcome.kept).max(attacks::p99(&outcome.fresh));
        if slowest > PROMISE {
            broken.push(format!("{}: the good client waited {slowest:.0} ms", attack.name));
        }
    }
    if !broken.is_empty() {
        println!("\nbroken promises:\n{}", broken.join("\n"));
        std::process::exit(1);
    }
}
