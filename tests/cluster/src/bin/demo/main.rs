//! `cargo demo`: gwmon's main job, from nothing to a plot, on a real cluster that it brings up itself.

mod dashboards;
mod loopback;
mod show;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anstream::{eprintln, println};
use anstyle::{AnsiColor, Style};
use anyhow::{Context, Result};
use dashboards::Dashboards;
use gwmon_cluster::{Kubectl, Node, Prometheus, program, scenario};
use serde_json::Value;

const USAGE: &str = "\
Shows what gwmon does, on a real cluster made for the occasion.

Usage: cargo demo [-- --keep [--dashboards] | --loopback]

  --keep       leave the cluster running and say how to look around in it
  --dashboards with --keep: also serve the Grafana dashboards on loopback, drawn by Grafana's published components; needs Node 20
               or newer with npm
  --loopback   without a node, as for users other than root";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let mut mode = Mode::Node { keep: false, dashboards: false };
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => {}
        ["--keep"] => mode = Mode::Node { keep: true, dashboards: false },
        ["--keep", "--dashboards"] | ["--dashboards", "--keep"] => mode = Mode::Node { keep: true, dashboards: true },
        ["--loopback"] => mode = Mode::Loopback,
        ["--help" | "-h"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    }
    match demo(mode) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{red}error:{red:#} {error:#}", red = AnsiColor::Red.on_default().bold());
            ExitCode::FAILURE
        }
    }
}

/// How much of a cluster there is to be.
enum Mode {
    Node { keep: bool, dashboards: bool },
    Loopback,
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

fn demo(mode: Mode) -> Result<()> {
    // What is missing is better told now than after minutes.
    let dashboards = matches!(mode, Mode::Node { dashboards: true, .. }).then(Dashboards::build).transpose()?;
    let gwmon = scenario::build_gwmon("release")?;
    gwmon_cluster::build()?;
    let tell = Narrator(Instant::now());
    match (mode, Node::obstacle()) {
        (Mode::Node { keep, .. }, None) => return on_a_node(&gwmon, keep, dashboards, &tell),
        (Mode::Node { .. }, Some(why)) => println!("\nA node that runs pods {why}, which this user is not."),
        (Mode::Loopback, _) => {}
    }
    println!("\nkwok plays the pods, and what would run in them, the real Envoy and the real statsd_exporter,");
    println!("runs on loopback. Nothing is kept afterwards.");
    loopback::demo(&gwmon, &tell)
}

fn on_a_node(gwmon: &Path, keep: bool, dashboards: Option<Dashboards>, tell: &Narrator) -> Result<()> {
    tell.step("A real Kubernetes of one node: etcd, API server, kubelet, containerd");
    let node = Node::start(keep)?;
    let kubectl = node.kubectl();
    tell.step("The real Prometheus Operator, and a Prometheus that takes monitors labelled release=prometheus");
    node.install_monitoring()?;
    tell.step("gwmon, from deploy/");
    command("kubectl apply -f deploy/install.yaml");
    scenario::install_gwmon(&node, gwmon)?;
    tell.step("A gateway: an Envoy that knows nothing of metrics, with some traffic");
    scenario::deploy_gateway(&kubectl)?;
    let traffic = scenario::Traffic::start(&node, "app=edge")?;
    let before = scenario::pod(&kubectl)?;

    tell.step("The one thing a user does");
    command("kubectl -n edge annotate deployment edge gwmon.io/inject=true");
    scenario::annotate(&kubectl)?;
    let after = scenario::pod(&kubectl)?;
    show_outcome(tell, gwmon, &kubectl, &before, &after)?;

    let prometheus = Prometheus::of(&kubectl);
    tell.step("The target in Prometheus:");
    show::target(&scenario::target_up(&prometheus, scenario::POOL)?);
    tell.step(&format!("{} =", scenario::QUERY));
    show::rate(scenario::rate(&prometheus)?);
    tell.step("Requests a second, by response class, as Envoy counts them:");
    show::plot(&prometheus)?;
    tell.step("Done.");
    if keep {
        // It ends with the node, which goes on.
        std::mem::forget(traffic);
        look_around(&node, dashboards)?;
    }
    Ok(())
}

/// What one annotation has brought about.
fn show_outcome(tell: &Narrator, gwmon: &Path, kubectl: &Kubectl, before: &Value, after: &Value) -> Result<()> {
    tell.step("The roll-out started by itself. The pod before and after:");
    show::diff(before, after)?;
    tell.step("What gwmon made for it:");
    show::objects(kubectl)?;
    tell.step("Why this label:");
    println!("{}", show::why(gwmon, kubectl)?);
    Ok(())
}

fn look_around(node: &Node, dashboards: Option<Dashboards>) -> Result<()> {
    let kubectl = node.kubectl();
    let ip = kubectl.get("-n monitoring pod prometheus-k8s-0")?["status"]["podIP"]
        .as_str()
        .context("no address")?
        .to_owned();
    let port = node.forward(&ip, 9090)?;
    println!("\nThe cluster goes on running:");
    println!("  export KUBECONFIG={}", kubectl.kubeconfig().display());
    println!("  {} -n edge get pods,services,servicemonitors", program("kubectl").display());
    println!("  Prometheus: http://127.0.0.1:{port}/query?g0.expr=envoy_cluster_upstream_rq_total");
    if let Some(dashboards) = dashboards {
        println!("  Dashboards: {}", dashboards.serve(port)?);
    }
    println!("To end it:\n  {}", node.take_down());
    Ok(())
}
