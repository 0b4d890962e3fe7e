//! How the time of a decision grows with each list in a pod, up to what gwmon reads and far beyond: the exponent of the growth,
//! 1 where twice as much takes twice as long. `cargo bench --bench growth` fails where one is above 1.1.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark ends where it fails")]

use std::fmt::Write as _;
use std::time::Instant;

use gwmon::config::Config;
use gwmon::injection;

/// Far beyond what gwmon reads.
const BEYOND: [usize; 3] = [1_000, 10_000, 100_000];
const MOST: f64 = 1.1;
/// What a pod without any list takes is not growth, in microseconds.
const NOTHING: f64 = 20.;

/// A list in a pod: its name, how many entries gwmon reads, the text around its entries, and one of them.
type List = (&'static str, usize, [&'static str; 2], fn(usize) -> String);

const LISTS: [List; 9] = [
    ("containers", 100, [r#"{"metadata":M,"spec":{"containers":["#, "]}}"], |i| {
        format!(r#"{{"name":"c{i}","image":"envoyproxy/envoy:v1.34.0"}}"#)
    }),
    ("init containers", 100, [r#"{"metadata":M,"spec":{"initContainers":["#, "],CONTAINERS}}"], |i| {
        format!(r#"{{"name":"c{i}","image":"x"}}"#)
    }),
    (
        "ports",
        4096,
        [r#"{"metadata":M,"spec":{"containers":[{"name":"e","image":"envoyproxy/envoy:v1.34.0","ports":["#, "]}]}}"],
        |i| format!(r#"{{"containerPort":{}}}"#, 1 + i % 65_535),
    ),
    (
        "variables",
        4096,
        [
            r#"{"metadata":M,"spec":{"containers":[{"name":"a","image":"emissaryingress/emissary:3.9.1","env":["#,
            "]}]}}",
        ],
        |i| format!(r#"{{"name":"V{i}","value":"x"}}"#),
    ),
    (
        "arguments",
        1024,
        [
            r#"{"metadata":M,"spec":{"containers":[{"name":"e","image":"envoyproxy/envoy:v1.34.0","args":["-c","/e","#,
            "]}]}}",
        ],
        |i| format!("\"--a{i}\""),
    ),
    ("volumes", 1024, [r#"{"metadata":M,"spec":{"volumes":["#, "],CONTAINERS}}"], |i| format!(r#"{{"name":"v{i}"}}"#)),
    (
        "annotations",
        1024,
        [r#"{"metadata":{OWNERS,"annotations":{"gwmon.io/inject":"true","#, r#"}},"spec":{CONTAINERS}}"#],
        |i| format!("\"a{i}\":\"x\""),
    ),
    (
        "labels",
        1024,
        [r#"{"metadata":{OWNERS,"annotations":{"gwmon.io/inject":"true"},"labels":{"#, r#"}},"spec":{CONTAINERS}}"#],
        |i| format!("\"a{i}\":\"x\""),
    ),
    (
        "owners",
        1024,
        [r#"{"metadata":{"annotations":{"gwmon.io/inject":"true"},"ownerReferences":["#, r#"]},"spec":{CONTAINERS}}"#],
        |i| format!(r#"{{"kind":"ReplicaSet","name":"e{i}"}}"#),
    ),
];

const OWNERS: &str = r#""ownerReferences":[{"kind":"StatefulSet","name":"edge","controller":true}]"#;
const CONTAINERS: &str = r#""containers":[{"name":"e","image":"envoyproxy/envoy:v1.34.0","args":["-c","/e"]}]"#;

fn pod((_, _, [before, after], entry): &List, count: usize) -> String {
    let whole = |part: &str| {
        let metadata = format!(r#"{{{OWNERS},"annotations":{{"gwmon.io/inject":"true"}}}}"#);
        part.replace(":M,", &format!(":{metadata},")).replace("OWNERS", OWNERS).replace("CONTAINERS", CONTAINERS)
    };
    let mut text = whole(before);
    for index in 0..count {
        let _ = write!(text, "{}{}", if index == 0 { "" } else { "," }, entry(index));
    }
    text + &whole(after)
}

/// The quickest of several, in microseconds.
fn time(text: &str) -> f64 {
    let config = Config::default();
    let once = || {
        let began = Instant::now();
        let _ = std::hint::black_box(injection::decide(&config, &[], std::hint::black_box(text)));
        began.elapsed().as_secs_f64() * 1e6
    };
    (0..30).map(|_| once()).fold(f64::INFINITY, f64::min)
}

fn exponent(from: (usize, f64), to: (usize, f64)) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts of entries")]
    let ratio = to.0 as f64 / from.0 as f64;
    (to.1.max(NOTHING) / from.1.max(NOTHING)).ln() / ratio.ln()
}

fn main() {
    println!("| list | read | a tenth of that | all of that | exponent | 1,000 | 10,000 | 100,000 | exponent |");
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut worst = 0_f64;
    for list in &LISTS {
        let (name, most, ..) = list;
        let at = |count: usize| (count, time(&pod(list, count)));
        // Arguments: two more are there.
        let within = [at(most / 10), at(most - 2)];
        let beyond = BEYOND.map(at);
        let exponents = [exponent(within[0], within[1]), exponent(beyond[0], beyond[2])];
        println!(
            "| {name} | {most} | {:.0} µs | {:.0} µs | {:.2} | {:.0} µs | {:.0} µs | {:.0} µs | {:.2} |",
            within[0].1, within[1].1, exponents[0], beyond[0].1, beyond[1].1, beyond[2].1, exponents[1]
        );
        worst = exponents.into_iter().fold(worst, f64::max);
    }
    if worst > MOST {
        println!("an exponent is above {MOST}: {worst:.2}");
        std::process::exit(1);
    }
}
