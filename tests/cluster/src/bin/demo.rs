//! `cargo demo`: gwmon's main job, from nothing to a plot, on a real cluster that it brings up itself.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anstream::{eprintln, println};
use anstyle::{AnsiColor, Style};
use anyhow::{Context, Result, bail};
use gwmon_cluster::{ControlPlane, Kubectl, Node, program, run, scenario, wait_for};
use serde_json::Value;
use similar::TextDiff;

const USAGE: &str = "\
Shows what gwmon does, on a real cluster made for the occasion.

Usage: cargo demo [-- --keep]

  --keep   leave the cluster running and say how to look around in it";

fn main() -> ExitCode {
    let keep = match std::env::args().skip(1).collect::<Vec<_>>().iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--keep"] => true,
        ["--help" | "-h"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match demo(keep) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{red}error:{red:#} {error:#}", red = AnsiColor::Red.on_default().bold());
            ExitCode::FAILURE
        }
    }
}

/// What is said between the outputs: the time since the start and a sentence.
struct Narrator(Instant);

impl Narrator {
    fn step(&self, text: &str) {
        let (dim, bold) = (Style::new().dimmed(), AnsiColor::Cyan.on_default().bold());
        println!("\n{dim}{:5.1} s{dim:#}  {bold}{text}{bold:#}", self.0.elapsed().as_secs_f64());
    }
}

fn command(text: &str) {
    let bold = Style::new().bold();
    println!("         {bold}$ {text}{bold:#}");
}

fn demo(keep: bool) -> Result<()> {
    let gwmon = build_gwmon()?;
    gwmon_cluster::build()?;
    if let Some(why) = Node::obstacle() {
        println!("A node with pods {why}, which this user is not; showing what a control plane alone can show.");
        return without_node(&gwmon, keep);
    }
    let tell = Narrator(Instant::now());
    tell.step("A real Kubernetes of one node: etcd, API server, kubelet, containerd");
    let node = Node::start(keep)?;
    let kubectl = node.kubectl();
    tell.step("The real Prometheus Operator, and a Prometheus that takes monitors labelled release=prometheus");
    node.install_monitoring()?;
    tell.step("gwmon, from deploy/");
    command("kubectl apply -f deploy/install.yaml");
    scenario::install_gwmon(&node, &gwmon)?;
    tell.step("A gateway: an Envoy that knows nothing of metrics, with some traffic");
    scenario::deploy_gateway(&kubectl)?;
    let traffic = scenario::Traffic::start(&node)?;
    let before = scenario::pod(&kubectl)?;

    tell.step("The one thing a user does");
    command("kubectl -n edge annotate deployment edge gwmon.io/inject=true");
    scenario::annotate(&kubectl)?;
    let after = scenario::pod(&kubectl)?;
    tell.step("The roll-out started by itself. The pod before and after:");
    diff(&before, &after)?;
    tell.step("What gwmon made for it:");
    show_objects(&kubectl)?;
    tell.step("Why this label:");
    println!("{}", why(&gwmon, &kubectl)?);

    tell.step("The target in Prometheus:");
    let target = scenario::target_up(&kubectl)?;
    let text = |pointer: &str| target.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    println!(
        "{green}{}{green:#}  {}",
        text("/health"),
        text("/scrapeUrl"),
        green = AnsiColor::Green.on_default().bold()
    );
    tell.step(&format!("{} =", scenario::QUERY));
    println!(
        "{green}{:.2}{green:#} requests/s",
        scenario::rate(&kubectl)?,
        green = AnsiColor::Green.on_default().bold()
    );
    tell.step("Requests a second, by response class, as Envoy counts them:");
    plot(&kubectl)?;
    tell.step("Done.");
    if keep {
        // It ends with the node, which goes on.
        std::mem::forget(traffic);
        look_around(&node)?;
    }
    Ok(())
}

/// The release binary, built where it is not.
fn build_gwmon() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--release", "--package", "gwmon", "--bin", "gwmon"]).current_dir(scenario::repository());
    run(build)?;
    // Beside our own: target/debug/demo, target/release/gwmon.
    let own = std::env::current_exe()?;
    let target = own.ancestors().nth(2).context("this program does not run from cargo's target folder")?;
    Ok(target.join("release/gwmon"))
}

/// What differs between two pods, of what a person would have written: not what the API server adds by itself.
fn diff(before: &Value, after: &Value) -> Result<()> {
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

fn show_objects(kubectl: &Kubectl) -> Result<()> {
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
fn why(gwmon: &std::path::Path, kubectl: &Kubectl) -> Result<String> {
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
fn plot(kubectl: &Kubectl) -> Result<()> {
    const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    const SECONDS: u64 = 40;
    let query = r#"sum by (envoy_response_code_class) (rate(envoy_cluster_upstream_rq_xx{namespace="edge"}[10s]))"#;
    // A few seconds of history make a plot; a fresh gateway has none yet.
    std::thread::sleep(Duration::from_secs(15));
    let end = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    for (class, colour) in [("2", AnsiColor::Green), ("5", AnsiColor::Red)] {
        let data = kubectl.range(query, end - SECONDS, end)?;
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

fn look_around(node: &Node) -> Result<()> {
    let kubectl = node.kubectl();
    let ip = kubectl.get("-n monitoring pod prometheus-k8s-0")?["status"]["podIP"]
        .as_str()
        .context("no address")?
        .to_owned();
    let port = node.forward(&ip, 9090)?;
    println!("\nThe cluster goes on running:");
    println!("  export KUBECONFIG={}", kubectl.kubeconfig().display());
    println!("  {} -n edge get pods,services,servicemonitors", program("kubectl").display());
    println!("  Prometheus: http://127.0.0.1:{port}/graph?g0.expr={}", "envoy_cluster_upstream_rq_total");
    println!("To end it:\n  {}", node.take_down());
    Ok(())
}

/// What is left without root: a real control plane, whose pods are played, and the preview of everything.
fn without_node(_gwmon: &std::path::Path, _keep: bool) -> Result<()> {
    let _control_plane = ControlPlane::start(true)?;
    bail!("not written yet")
}
