//! What of Envoy's statsd reaches the exporter, and what the exporter takes for it: one Envoy on loopback under load,
//! as gwmon tells it today (counters and gauges batched) and as it tells an Envoy before 1.16 (each in a datagram of its
//! own). Histograms come one by one either way. Then the same on a node whose `net.core.rmem_max` is the kernel's default,
//! and the memory that many series take. `cargo bench --bench loss`
//!
//! Goals: nothing lost up to 5,000 requests a second, within the shipped CPU limit; 10,000 series in half the shipped
//! memory limit.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark ends where it fails")]

#[path = "../tests/support/pods.rs"]
mod pods;

use std::fs;
use std::time::{Duration, Instant};

use gwmon_cluster::local::{LocalEnvoy, LocalGateway, datagrams_lost, free_ports, get};
use gwmon_cluster::scenario::envoy_configuration;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const RATES: [u32; 3] = [1_000, 5_000, 20_000];
const CONNECTIONS: u32 = 64;
const SPAN: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() {
    gwmon_cluster::build().unwrap();
    println!("net.core.rmem_max {}", fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap().trim());
    println!(
        "                         asked    sent   lost: counters  histograms  by the kernel   exporter: CPU   memory"
    );
    for (name, version, buffer) in [
        ("batched", "1.40", None),
        ("one by one", "1.15", None),
        ("batched, 208 KiB", "1.40", Some(DEFAULT_BUFFER)),
        ("one by one, 208 KiB", "1.15", Some(DEFAULT_BUFFER)),
    ] {
        for rate in RATES {
            measure(name, version, buffer, rate).await;
        }
    }
    many_series().await;
}

/// The kernel's own `net.core.rmem_max`: asking for more than that gives no more.
const DEFAULT_BUFFER: &str = "212992";

/// Envoy's lines for a thousand clusters, in the exporter alone; then for as many as it takes until it runs into its data
/// limit and starts again.
async fn many_series() {
    let folder = TempDir::new().unwrap();
    let [statsd, metrics, http, upstreams] = free_ports().unwrap();
    let gateway =
        start(&folder, [statsd, metrics], "1.40", None, &envoy_configuration(http, upstreams).unwrap(), (http, "/a"));
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let first = gateway.exporter().unwrap();
    let (mut series, mut memory) = (0, 0.);
    for cluster in 0..100_000 {
        let tags = format!("|#envoy.cluster_name:cluster_{cluster}");
        let counters: Vec<_> = (0..9).map(|i| format!("envoy.cluster.counter_{i}:1|c{tags}")).collect();
        let datagram = format!("{}\nenvoy.cluster.upstream_rq_time:7|ms{tags}", counters.join("\n"));
        socket.send_to(datagram.as_bytes(), ("127.0.0.1", statsd)).unwrap();
        if cluster % 500 != 499 {
            if cluster % 50 == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            continue;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let Ok(shown) = gateway.metrics() else { break };
        if gateway.exporter().ok() != Some(first) {
            break;
        }
        series = shown.lines().filter(|line| line.starts_with("envoy_cluster_")).count();
        memory = resident_mib(first);
        if cluster + 1 == 1_000 {
            println!("memory with 1,000 clusters, {series} series, scraped: {memory:.0} MiB");
        }
    }
    println!("most before it starts again, scraped every 500 clusters: {series} series in {memory:.0} MiB");
}

/// An injected Envoy and its exporter; on a node with another limit for the exporter's buffer, if that is said.
fn start(
    folder: &TempDir,
    [statsd, metrics]: [u16; 2],
    version: &str,
    buffer: Option<&str>,
    configuration: &str,
    ready: (u16, &str),
) -> LocalGateway {
    let annotations = [
        ("statsd-port", statsd.to_string()),
        ("metrics-port", metrics.to_string()),
        ("envoy-version", version.to_owned()),
    ];
    let container = json!({"name": "envoy", "image": "envoyproxy/envoy", "args": ["-c", "/etc/envoy/envoy.yaml"]});
    let mut pod = pods::injected(&container, &annotations);
    let args = pod["spec"]["initContainers"][0]["args"].as_array_mut().unwrap();
    let asked = args.iter_mut().find(|arg| arg.as_str().unwrap().starts_with("--statsd.read-buffer=")).unwrap();
    if let Some(buffer) = buffer {
        *asked = json!(format!("--statsd.read-buffer={buffer}"));
    }
    let envoy = LocalEnvoy { program: "envoy", configuration, ready };
    LocalGateway::start(&pod, &envoy, folder.path()).unwrap()
}

/// What was counted: by Envoy, and by the exporter as a counter and as a histogram.
struct Counts {
    envoy: f64,
    counter: f64,
    histogram: f64,
}

async fn measure(name: &str, version: &str, buffer: Option<&str>, rate: u32) {
    let folder = TempDir::new().unwrap();
    let [statsd, metrics, http, upstreams, admin] = free_ports().unwrap();
    let configuration = envoy_configuration(http, upstreams).unwrap();
    let own =
        format!("admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {admin}}}}}}}\n{configuration}");
    let gateway = start(&folder, [statsd, metrics], version, buffer, &own, (http, "/a"));
    let counts = || {
        let (ours, theirs) = (gateway.metrics().unwrap(), get(admin, "/stats/prometheus").unwrap());
        let value = |text: &str, of: &str| -> f64 {
            let line = text
                .lines()
                .find(|line| line.starts_with(&format!("envoy_cluster_upstream_{of}{{envoy_cluster_name=\"a\"}}")));
            line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
        };
        let (counter, histogram) = (value(&ours, "rq_total"), value(&ours, "rq_time_count"));
        Counts { envoy: value(&theirs, "rq_total"), counter, histogram }
    };
    // Envoy flushes every five seconds.
    let settle = Duration::from_secs(7);
    tokio::time::sleep(settle).await;
    let (before, kernel, cpu, started) =
        (counts(), datagrams_lost().unwrap(), cpu_seconds(gateway.exporter().unwrap()), Instant::now());
    let senders: Vec<_> = (0..CONNECTIONS).map(|i| tokio::spawn(send(http, i, rate))).collect();
    for sender in senders {
        sender.await.unwrap();
    }
    let took = started.elapsed().as_secs_f64();
    let cpu = (cpu_seconds(gateway.exporter().unwrap()) - cpu) / took;
    tokio::time::sleep(settle).await;
    let after = counts();
    let sent = after.envoy - before.envoy;
    let lost = |before: f64, after: f64| 100. * (1. - (after - before) / sent);
    println!(
        "{name:<20} {rate:>9} {:>7.0}         {:>6.2} %    {:>6.2} %  {:>13}   {:>10.0} m  {:>4.0} MiB",
        sent / took,
        lost(before.counter, after.counter),
        lost(before.histogram, after.histogram),
        datagrams_lost().unwrap() - kernel,
        1000. * cpu,
        resident_mib(gateway.exporter().unwrap()),
    );
}

/// One connection's part of the rate: at fixed times, late ones at once.
async fn send(port: u16, number: u32, rate: u32) {
    let between = Duration::from_secs(1) * CONNECTIONS / rate;
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut answer = vec![0; 4096];
    let start = tokio::time::Instant::now() + between * number / CONNECTIONS;
    for i in 0.. {
        let due = between * i;
        if due >= SPAN || start.elapsed() >= SPAN {
            return;
        }
        tokio::time::sleep_until(start + due).await;
        stream.write_all(b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        // Head only: the answer has no body.
        let mut read = 0;
        while !answer[..read].ends_with(b"\r\n\r\n") {
            read += stream.read(&mut answer[read..]).await.unwrap();
        }
    }
}

/// Processor time of a process, in the kernel's hundredths.
fn cpu_seconds(process: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    fields[11..=12].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.
}

fn resident_mib(process: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.
}
