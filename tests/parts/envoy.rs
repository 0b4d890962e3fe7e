//! The real Envoy and the real statsd_exporter, started with just the arguments that gwmon writes into a pod.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use gwmon_cluster::local::{LocalEnvoy, LocalGateway, free_ports, get};
use gwmon_cluster::scenario::envoy_configuration;
use gwmon_cluster::{program, wait_for};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A pod of the newest Envoy with these annotations, injected.
fn injected(annotations: &[(&str, String)]) -> Value {
    let container =
        json!({"name": "envoy", "image": "envoyproxy/envoy:v1.40.0", "args": ["-c", "/etc/envoy/envoy.yaml"]});
    crate::pods::injected(&container, annotations)
}

/// The names of the metric families in an exposition.
fn families(exposition: &str) -> BTreeSet<&str> {
    exposition.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect()
}

#[test]
fn an_injected_envoy_counts_its_requests_in_the_exporter() {
    gwmon_cluster::build().unwrap();
    let folder = TempDir::new().unwrap();
    let [statsd, metrics, http, upstreams] = free_ports().unwrap();
    let pod = injected(&[("statsd-port", statsd.to_string()), ("metrics-port", metrics.to_string())]);
    let configuration = envoy_configuration(http, upstreams).unwrap();
    let envoy = LocalEnvoy { program: "envoy", configuration: &configuration, ready: (http, "/a") };
    let gateway = LocalGateway::start(&pod, &envoy, folder.path()).unwrap();
    for _ in 0..20 {
        assert!(get(http, "/a").unwrap().starts_with("HTTP/1.1 200"));
        assert!(get(http, "/b").unwrap().starts_with("HTTP/1.1 503"));
    }
    // Envoy's own names, labels and units: milliseconds in Envoy's own buckets, as classic histograms. One request
    // more waited for Envoy to start.
    let expected = [
        "envoy_cluster_upstream_rq_total{envoy_cluster_name=\"a\"} 21",
        "envoy_cluster_upstream_rq_total{envoy_cluster_name=\"b\"} 20",
        "envoy_cluster_upstream_rq_xx{envoy_cluster_name=\"b\",envoy_response_code_class=\"5\"} 20",
        "envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"a\",le=\"0.5\"}",
        "envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"a\",le=\"3.6e+06\"} 21",
        "envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix=\"ingress\"} 41",
    ];
    // Envoy flushes every five seconds.
    let exposition = wait_for("all requests in the exporter", Duration::from_secs(20), || {
        let exposition = gateway.metrics()?;
        let missing = expected.iter().find(|line| !exposition.contains(**line));
        missing.map_or(Ok(()), |line| Err(anyhow::anyhow!("{line} is missing in\n{exposition}")))?;
        Ok(Some(exposition))
    })
    .unwrap();
    assert!(exposition.contains("statsd_exporter_events_unmapped_total 0"));
    assert!(families(&exposition).iter().filter(|name| name.starts_with("envoy_")).count() > 50);
}

/// The sidecar's own command, with the real exporter: whatever becomes of that, the container runs on, and with it the pod
/// is ready.
#[test]
fn an_exporter_that_ends_does_not_end_its_container() {
    gwmon_cluster::build().unwrap();
    let folder = TempDir::new().unwrap();
    let [statsd, metrics] = free_ports().unwrap();
    let pod = injected(&[("statsd-port", statsd.to_string()), ("metrics-port", metrics.to_string())]);
    let sidecar = &pod["spec"]["initContainers"][0];
    let mapping = folder.path().join("mapping.yaml");
    std::fs::write(&mapping, pod["metadata"]["annotations"]["gwmon.io/mapping"].as_str().unwrap()).unwrap();
    let words = |list: &str| -> Vec<String> {
        let words = sidecar[list].as_array().unwrap().iter().map(|word| word.as_str().unwrap());
        words.map(|word| word.replace("/etc/gwmon/mapping.yaml", &mapping.to_string_lossy())).collect()
    };
    let (command, args) = (words("command"), words("args"));
    assert_eq!((command[0].as_str(), command[1].as_str()), ("/bin/sh", "-c"));
    let memory_limit = sidecar["env"][0]["value"].as_str().unwrap();
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    let mut container = Command::new(program("busybox"))
        .arg("sh")
        .args(&command[1..])
        .args(&args)
        .env("PATH", program(""))
        .env("GOMEMLIMIT", memory_limit)
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let id = container.id();
    let exporter = || {
        wait_for("the exporter", Duration::from_secs(20), || {
            get(metrics, "/-/ready")?;
            let children = format!("/proc/{id}/task/{id}/children");
            Ok(std::fs::read_to_string(children)?.split_whitespace().next().map(str::to_owned))
        })
        .unwrap()
    };
    let first = exporter();

    // Ended from outside.
    assert!(Command::new("kill").arg("-KILL").arg(&first).status().unwrap().success());
    wait_for("it to be gone", Duration::from_secs(5), || Ok(get(metrics, "/-/ready").is_err().then_some(()))).unwrap();
    let second = exporter();
    assert_ne!(first, second);

    // More series than fit: it ends by itself before the container's limit is reached.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (mut peak, mut sent) = (0, 0);
    while get(metrics, "/-/ready").is_ok() {
        assert!(sent < 100_000, "{sent} clusters did not end it, at {peak} KiB");
        for cluster in sent..sent + 50 {
            let tags = format!("|#envoy.cluster_name:cluster_{cluster}");
            let counters: Vec<_> = (0..9).map(|i| format!("envoy.cluster.counter_{i}:1|c{tags}")).collect();
            let datagram = format!("{}\nenvoy.cluster.upstream_rq_time:7|ms{tags}", counters.join("\n"));
            socket.send_to(datagram.as_bytes(), ("127.0.0.1", statsd)).unwrap();
        }
        sent += 50;
        std::thread::sleep(Duration::from_millis(10));
        let status = std::fs::read_to_string(format!("/proc/{second}/status")).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        peak = peak.max(resident.and_then(|kib| kib.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0_u64));
    }
    assert!(sent > 3_000, "three times the largest gateway of the benchmarks fits, not {sent} clusters");
    assert!(peak < 192 << 10, "{peak} KiB is more than the container may take");
    assert_ne!(exporter(), second);
    assert!(container.try_wait().unwrap().is_none(), "the container has never ended");

    // The kubelet ends it at once.
    let last = exporter();
    assert!(Command::new("kill").arg(id.to_string()).status().unwrap().success());
    wait_for("the container to end", Duration::from_secs(2), || container.try_wait().map_err(Into::into)).unwrap();
    wait_for("the exporter to end", Duration::from_secs(2), || {
        Ok((!std::path::Path::new(&format!("/proc/{last}")).exists()).then_some(()))
    })
    .unwrap();
    let said = std::fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(said.contains("ended with code 137; starting it again"), "{said}");
}

/// The pod templates of the golden cases that are injected.
fn golden() -> Vec<(String, Value)> {
    let template = |(name, object): (String, Value)| (name, object["spec"]["template"].clone());
    let is_injected = |template: &Value| template["metadata"]["annotations"]["gwmon.io/status"].is_string();
    crate::pods::golden().into_iter().map(template).filter(|(_, template)| is_injected(template)).collect()
}

#[test]
fn every_mapping_is_what_the_exporter_accepts() {
    gwmon_cluster::build().unwrap();
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("mapping.yaml");
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let mut check = Command::new(program("statsd_exporter"));
        check
            .arg("--check-config")
            .arg(format!("--statsd.mapping-config={}", file.display()))
            .output()
            .unwrap()
            .status
            .success()
    };
    let mapping =
        |template: &Value| template["metadata"]["annotations"]["gwmon.io/mapping"].as_str().map(str::to_owned);
    let bakins = injected(&[("profile", "bakins".to_owned())]);
    let mappings: BTreeSet<_> =
        golden().iter().map(|(_, template)| template).chain([&bakins]).filter_map(mapping).collect();
    assert_eq!(mappings.len(), 3, "for dog_statsd, for plain statsd and for the profile bakins");
    for mapping in &mappings {
        assert!(check(mapping), "{mapping}");
        assert!(!check(&mapping.replace("observer_type: histogram", "observer_type: nonsense")), "the check can fail");
    }
}

/// The statsd server that a gateway sent to goes on receiving, labels and all.
#[test]
fn what_the_exporter_relays_arrives_as_it_was_sent() {
    gwmon_cluster::build().unwrap();
    let (_, template) = golden().into_iter().find(|(name, _)| name.ends_with("\"relayed\"")).unwrap();
    let folder = TempDir::new().unwrap();
    let mapping = folder.path().join("mapping.yaml");
    std::fs::write(&mapping, template["metadata"]["annotations"]["gwmon.io/mapping"].as_str().unwrap()).unwrap();
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let [statsd, metrics] = free_ports().unwrap();
    let args = template["spec"]["initContainers"][0]["args"].as_array().unwrap();
    let here = |arg: &Value| {
        let arg = arg.as_str().unwrap().replace("/etc/gwmon/mapping.yaml", &mapping.to_string_lossy());
        let arg = arg.replace("10.96.0.25:8125", &server.local_addr().unwrap().to_string());
        arg.replace("127.0.0.1:8125", &format!("127.0.0.1:{statsd}")).replace(":9102", &format!("127.0.0.1:{metrics}"))
    };
    let mut exporter = Command::new(program("statsd_exporter")).args(args.iter().map(here)).spawn().unwrap();
    let ready = wait_for("the exporter", Duration::from_secs(10), || get(metrics, "/-/ready").map(Some));
    let sent = b"envoy.cluster.upstream_rq_total:6|c|#envoy.cluster_name:a\nenvoy.server.live:1|g";
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(sent, ("127.0.0.1", statsd)).unwrap();
    let mut received = [0; 1500];
    let length = server.recv(&mut received);
    exporter.kill().unwrap();
    exporter.wait().unwrap();
    ready.unwrap();
    assert_eq!(&received[..length.unwrap()], [&sent[..], b"\n"].concat());
}

/// Never a gateway that cannot start because of gwmon: the command line of every injected Envoy, whether it runs itself
/// or a wrapper starts it, with what the pod finds in its files.
#[test]
fn the_real_envoy_starts_with_every_command_line_of_the_cases() {
    gwmon_cluster::build().unwrap();
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("envoy.json");
    let own = envoy_configuration(1, 2).unwrap();
    std::fs::write(&config, json!(serde_saphyr::from_str::<Value>(&own).unwrap()).to_string()).unwrap();
    let mut validated = Vec::new();
    for (name, template) in golden() {
        let annotations = &template["metadata"]["annotations"];
        let status: Value = serde_json::from_str(annotations["gwmon.io/status"].as_str().unwrap()).unwrap();
        let containers = template["spec"]["containers"].as_array().unwrap();
        let container = containers.iter().find(|container| container["name"] == status["container"]);
        let Some(container) = container.filter(|_| status["mode"] == "statsd") else { continue };
        let words = |list: &str| container[list].as_array().into_iter().flatten().filter_map(Value::as_str);
        let line: Vec<_> = words("command").chain(words("args")).collect();
        let sink = line.iter().any(|word| word.contains("stats_sinks"));
        let file = annotations["gwmon.io/envoy-bootstrap"].as_str();
        // Told otherwise, by environment, or in a language that this Envoy has forgotten.
        if (!sink && file.is_none()) || name.contains("old-api") {
            continue;
        }
        let mut validate = Command::new(program("envoy"));
        validate.args(["--mode", "validate"]);
        if let Some(file) = file {
            // What the wrapper passes, before what the pod says.
            validate.args(["--config-yaml", &own]);
            std::fs::write(folder.path().join("bootstrap.json"), file).unwrap();
        }
        let mut after_config = false;
        for word in line.iter().filter(|word| !word.ends_with("envoy")) {
            let is_config = std::mem::replace(&mut after_config, matches!(*word, "-c" | "--config-path"));
            let word = match word.split_once(' ') {
                _ if *word == "/etc/gwmon/bootstrap.json" => folder.path().join("bootstrap.json").display().to_string(),
                _ if is_config => config.display().to_string(),
                Some((flag @ ("-c" | "--config-path"), _)) => format!("{flag} {}", config.display()),
                _ => (*word).to_owned(),
            };
            // As Kubernetes puts the environment in.
            validate.arg(word.replace("$(", "").replace(')', ""));
        }
        let output = validate.output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        validated.push(name);
    }
    assert!(validated.len() >= 10, "{validated:?}");
}

#[test]
fn the_real_envoy_accepts_every_overlay_over_a_configuration_with_a_sink_of_its_own() {
    gwmon_cluster::build().unwrap();
    let folder = TempDir::new().unwrap();
    let own = "stats_flush_interval: 2s\nstats_sinks:\n- name: own\n  typed_config: {\"@type\": type.googleapis.com/envoy.config.metrics.v3.StatsdSink, address: {socket_address: {address: 127.0.0.1, port_value: 1}}}\n";
    let config = folder.path().join("envoy.yaml");
    std::fs::write(&config, own.to_owned() + &envoy_configuration(1, 2).unwrap()).unwrap();
    for version in ["1.14", "1.16", "1.40"] {
        let pod = injected(&[("envoy-version", version.to_owned())]);
        let arguments: Vec<_> =
            pod["spec"]["containers"][0]["args"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        let mut validate = Command::new(program("envoy"));
        validate.args(["--mode", "validate"]);
        for argument in arguments {
            validate.arg(argument.replace("/etc/envoy/envoy.yaml", &config.to_string_lossy()));
        }
        let output = validate.output().unwrap();
        assert!(output.status.success(), "{version}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
