//! gwmon under attack: the good client and the probes are answered, memory and log stay bounded, and afterwards all is as
//! before. How fast it answers meanwhile, tells `cargo bench --bench hostile`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

#[path = "support/attacks.rs"]
mod attacks;
mod support;

use std::time::Duration;

#[test]
fn no_attack_costs_a_good_client_its_answer() {
    println!("{}", attacks::HEADING);
    let mut broken = vec![];
    for attack in attacks::ATTACKS {
        let outcome = attack.run(Duration::from_millis(1500));
        println!("{}", outcome.row(attack.name));
        broken.extend(outcome.broken_promises().map(|promise| format!("{}: {promise}", attack.name)));
    }
    assert!(broken.is_empty(), "{broken:#?}");
}
