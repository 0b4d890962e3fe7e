//! What the demo puts on the terminal.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anstream::println;
use anstyle::{AnsiColor, Style};
use anyhow::{Result, bail};
use gwmon_cluster::{Kubectl, Prometheus, wait_for};
use serde_json::Value;
use similar::TextDiff;

/// What differs between two pods, of what a person would have written: not what the API server adds by itself.
pub(crate) fn diff(before: &Value, after: &Value) -> Result<()> {
    let shown = |pod: &Value| {
        let mut labels = pod["metadata"]["labels"].clone();
        if let Some(labels) = labels.as_object_mut() {
            labels.remove("pod-template-hash");
        }
        let mut spec = serde_json::json!({});
        for field in ["initContainers", "containers", "volumes"] {
            spec[field] = pod["spec"][field].clone();
        }
        let yaml = yaml(
            &serde_json::json!({"metadata": {"annotations": pod["metadata"]["annotations"], "labels": labels}, "spec": spec}),
        )?;
        // The token volume's name is random.
        anyhow::Ok(
            yaml.lines()
                .filter(|line| !line.contains("kube-api-access"))
                .fold(String::new(), |all, line| all + line + "\n"),
        )
    };
    let (old, new) = (shown(before)?, shown(after)?);
    for line in TextDiff::from_lines(&old, &new).unified_diff().context_radius(2).to_string().lines() {
        let style = match line.as_bytes().first() {
            Some(b'+') => AnsiColor::Green.on_default(),
            Some(b'-') => AnsiColor::Red.on_default(),
            Some(b'@') => AnsiColor::Cyan.on_default(),
            _ => Style::new(),
        };
        let cut = line.char_indices().nth(160).map_or(line.len(), |(cut, _)| cut);
        println!("{style}{}{}{style:#}", &line[..cut], if cut < line.len() { "…" } else { "" });
    }
    Ok(())
}

fn yaml(value: &Value) -> Result<String> {
    Ok(serde_saphyr::to_string(value)?)
}

/// The Service and the ServiceMonitor, cut to what matters.
pub(crate) fn objects(kubectl: &Kubectl) -> Result<()> {
    for kind in ["service", "servicemonitor"] {
        let object = wait_for("the objects", Duration::from_secs(30), || {
            kubectl.get(&format!("-n edge {kind} edge-gwmon")).map(Some)
        })?;
        let mut shown = serde_json::json!({
            "kind": object["kind"],
            "metadata": {"name": object["metadata"]["name"], "namespace": object["metadata"]["namespace"], "labels": object["metadata"]["labels"]},
            "spec": {
                "selector": object["spec"]["selector"],
                "ports": object["spec"]["ports"],
                "endpoints": object["spec"]["endpoints"],
            },
        });
        if let Some(spec) = shown["spec"].as_object_mut() {
            spec.retain(|_, value| !value.is_null());
        }
        println!("{}", yaml(&shown)?);
    }
    Ok(())
}

/// gwmon's own words, from a preview against the live cluster.
pub(crate) fn why(gwmon: &Path, kubectl: &Kubectl) -> Result<String> {
    let manifest = gwmon_cluster::cache().join("run").join(format!("edge-{}.json", std::process::id()));
    std::fs::write(
        &manifest,
        serde_json::json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "edge", "namespace": "edge", "annotations": {"gwmon.io/inject": "true"}},
            "spec": {"template": {"spec": {"containers": [{"name": "envoy", "image": "envoyproxy/envoy:v1.40.0"}]}}},
        })
        .to_string(),
    )?;
    let output = Command::new(gwmon)
        .args(["preview", "--cluster", "-o", "patch", "-f"])
        .arg(&manifest)
        .env("KUBECONFIG", kubectl.kubeconfig())
        .output()?;
    let _ = std::fs::remove_file(&manifest);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    match said.lines().last().and_then(|line| line.split_once(": ")) {
        Some((_, why)) if output.status.success() => Ok(why.to_owned()),
        _ => bail!("gwmon preview: {said}"),
    }
}

/// Requests per second over the last seconds, a column a second.
pub(crate) fn plot(prometheus: &Prometheus) -> Result<()> {
    const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    const SECONDS: u64 = 40;
    let query = r#"sum by (envoy_response_code_class) (rate(envoy_cluster_upstream_rq_xx{namespace="edge"}[10s]))"#;
    // A few seconds of history make a plot; a fresh gateway has none yet.
    std::thread::sleep(Duration::from_secs(15));
    let end = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    for (class, colour) in [("2", AnsiColor::Green), ("5", AnsiColor::Red)] {
        let data = prometheus.range(query, end - SECONDS, end)?;
        let series =
            data["result"].as_array().into_iter().flatten().find(|s| s["metric"]["envoy_response_code_class"] == class);
        let values: Vec<f64> = series
            .and_then(|series| series["values"].as_array())
            .into_iter()
            .flatten()
            .filter_map(|sample| sample[1].as_str()?.parse().ok())
            .collect();
        let most = values.iter().copied().fold(0., f64::max);
        let bar: String = values
            .iter()
            .map(|value| {
                let eighths = (1..=8).rev().find(|eighth| *value >= most * f64::from(*eighth) / 8.).unwrap_or(0);
                BLOCKS[usize::try_from(eighths).unwrap_or_default()]
            })
            .collect();
        let style = colour.on_default();
        println!("{class}xx {style}{bar:>width$}{style:#} at most {most:.1}/s", width = usize::try_from(SECONDS)?);
    }
    Ok(())
}

/// A target that is up.
pub(crate) fn target(target: &Value) {
    let text = |pointer: &str| target.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    println!(
        "{green}{}{green:#}  {}",
        text("/health"),
        text("/scrapeUrl"),
        green = AnsiColor::Green.on_default().bold()
    );
}

/// The answer of the query.
pub(crate) fn rate(rate: f64) {
    println!("{green}{rate:.2}{green:#} requests/s", green = AnsiColor::Green.on_default().bold());
}
