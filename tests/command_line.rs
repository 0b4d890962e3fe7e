//! gwmon in a person's hands: what they mistype, what they may not do, what does not answer, and how it plays with kubectl and
//! shells. On a real API server.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Installed, gwmon, injected};
use tempfile::TempDir;

static INSTALLED: LazyLock<Installed> = LazyLock::new(|| {
    let installed = Installed::own(true);
    installed.kubectl.apply(&injected("edge", "edge", 1).to_string()).unwrap();
    installed
});

/// The commands that look at gateways.
const LOOKING: [&[&str]; 3] = [&["doctor"], &["status", "-A"], &["explain", "edge"]];

fn run(arguments: &[&str]) -> (i32, String) {
    gwmon(INSTALLED.kubectl.kubeconfig(), arguments)
}

/// A kubeconfig for this address.
fn kubeconfig(folder: &TempDir, server: &str) -> std::path::PathBuf {
    let file = folder.path().join("kubeconfig");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "clusters": [{"name": "x", "cluster": {"server": server}}],
        "users": [{"name": "x", "user": {}}],
    });
    std::fs::write(&file, config.to_string()).unwrap();
    file
}

#[test]
fn without_a_cluster_it_says_so_and_exits_with_2() {
    let folder = TempDir::new().unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let file = kubeconfig(&folder, &format!("http://{closed}"));
    for arguments in LOOKING {
        let (code, said) = gwmon(&file, arguments);
        assert!(code == 2 && said.starts_with("error: ") && said.lines().count() == 1, "{arguments:?}: {said}");
    }
    for (content, words) in [("{", "cannot use the kubeconfig"), ("", "cannot use the kubeconfig")] {
        std::fs::write(&file, content).unwrap();
        for arguments in LOOKING {
            let (code, said) = gwmon(&file, arguments);
            assert!(code == 2 && said.contains(words), "{arguments:?} {content:?}: {said}");
        }
    }
    let (code, said) = run(&["status", "--context", "nowhere"]);
    assert!(code == 2 && said.contains("nowhere"), "{said}");
    let (code, said) = run(&["doctor", "--kubeconfig", "/nowhere"]);
    assert!(code == 2 && said.contains("/nowhere"), "{said}");
}

/// An API server that answers every request with these bytes, or not at all.
fn server(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while connection.read(&mut buffer).is_ok_and(|read| read > 0) {
                    if !answer.is_empty() && connection.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    format!("http://{address}")
}

#[test]
fn who_does_not_answer_is_not_waited_for_forever() {
    let folder = TempDir::new().unwrap();
    let file = kubeconfig(&folder, &server(""));
    for arguments in LOOKING {
        let started = Instant::now();
        let (code, said) = gwmon(&file, &[arguments, &["--request-timeout", "1s"]].concat());
        assert!(code == 2 && said.starts_with("error: "), "{arguments:?}: {said}");
        assert!(started.elapsed() < Duration::from_secs(20), "{arguments:?} took {:?}", started.elapsed());
    }
    let busy = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Type: application/json\r\nContent-Length: 88\r\n\r\n{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"status\":\"Failure\",\"message\":\"too busy\",\"code\":429 }";
    let file = kubeconfig(&folder, &server(busy));
    let (code, said) = gwmon(&file, &["status", "-A", "--request-timeout", "3s"]);
    assert!(code == 2 && said.starts_with("error: "), "{said}");
    let (code, said) = run(&["status", "--request-timeout", "soon"]);
    assert!(code == 2 && said.contains("--request-timeout"), "{said}");
}

#[test]
fn a_workload_that_is_not_there_is_told_with_the_nearest() {
    let (code, said) = run(&["explain", "deploy/egde", "-n", "edge"]);
    assert!(code == 2 && said.contains("did you mean deployment.apps/edge?"), "{said}");
    let (code, said) = run(&["explain", "sts/edge", "-n", "edge"]);
    assert!(code == 2 && said.contains("no StatefulSet edge in namespace edge"), "{said}");
    let (code, said) = run(&["explain", "deploy/", "-n", "edge"]);
    assert!(code == 2 && said.contains("write KIND/NAME"), "{said}");
    let (code, said) = run(&["repair", "egde", "-n", "edge"]);
    assert!(code == 2 && said.contains("is no gateway"), "{said}");
    let (code, said) = run(&["status", "-n", "nowhere"]);
    assert!(code == 0 && said.contains("No monitored gateways in namespace nowhere"), "{said}");
    let (code, said) = run(&["doctor", "-l", "a b c"]);
    assert!(code == 2 && said.contains("cannot list deployments"), "{said}");
}

#[test]
fn who_may_do_nothing_is_told_which_right_is_lacking() {
    for arguments in [&["doctor"][..], &["status", "-A"]] {
        let (code, said) = run(&[arguments, &["--as", "nobody"]].concat());
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("cannot list resource \"pods\""), "{said}");
    }
    let (code, said) = run(&["explain", "edge", "-n", "edge", "--as", "nobody"]);
    assert!(code == 2 && said.contains("cannot list resource \"deployments\""), "{said}");
    let (code, said) = run(&["repair", "-A", "--as", "nobody"]);
    assert!(code == 2 && said.contains("cannot list resource"), "{said}");
}

#[test]
fn a_cluster_without_the_operators_kinds_is_told() {
    let installed = Installed::own(false);
    for kind in ["servicemonitors", "prometheuses", "prometheusagents"] {
        installed.kubectl.run(&format!("delete crd {kind}.monitoring.coreos.com")).unwrap();
    }
    installed.kubectl.apply(&injected("edge", "edge", 1).to_string()).unwrap();
    let pods = || {
        installed
            .kubectl
            .get("-n edge pods -l gwmon.io/monitored-by")
            .map(|pods| pods["items"].as_array().map(Vec::len))
    };
    gwmon_cluster::wait_for("the pod", Duration::from_secs(20), || Ok((pods()? == Some(1)).then_some(()))).unwrap();
    let (code, said) = gwmon(installed.kubectl.kubeconfig(), &["doctor", "-o", "json"]);
    let report: Value = serde_json::from_str(&said).unwrap();
    let reasons: Vec<_> =
        report["checks"].as_array().unwrap().iter().filter_map(|check| check["reason"].as_str()).collect();
    assert!(code == 1 && reasons.contains(&"ServiceMonitorCRDMissing"), "{reasons:?}");
}

#[test]
fn requests_are_shown_and_output_is_plain_where_it_is_no_terminal() {
    let (code, said) = run(&["status", "-A", "-v"]);
    assert!(code == 0 && said.contains("GET /version 200 OK in "), "{said}");
    for arguments in LOOKING {
        let (_, said) = run(&[arguments, &["-n", "edge"]]
            .concat()
            .iter()
            .filter(|word| **word != "-A")
            .copied()
            .collect::<Vec<_>>());
        assert!(!said.contains('\u{1b}'), "{arguments:?}: {said:?}");
    }
    // A reader that goes away, as `head` does.
    let mut child = Command::new(env!("CARGO_BIN_EXE_gwmon"))
        .args(["doctor", "--all"])
        .env("KUBECONFIG", INSTALLED.kubectl.kubeconfig())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().code().is_some_and(|code| code < 2) && !said.contains("panicked"), "{said}");
}

/// A folder with gwmon under these names, first on the path.
fn bin(names: &[&str]) -> (TempDir, String) {
    let folder = TempDir::new().unwrap();
    for name in names {
        symlink(env!("CARGO_BIN_EXE_gwmon"), folder.path().join(name)).unwrap();
    }
    let kubectl = gwmon_cluster::program("kubectl");
    let rest = kubectl.parent().unwrap_or_else(|| Path::new("/")).display().to_string();
    let path = format!("{}:{rest}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    (folder, path)
}

fn shell(path: &str, command: &str) -> String {
    let mut bash = Command::new("bash");
    bash.args(["-c", command]).env("PATH", path).env("KUBECONFIG", INSTALLED.kubectl.kubeconfig());
    let output = bash.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    assert!(output.status.success(), "{command}: {said}");
    said
}

#[test]
fn it_is_a_plugin_of_kubectls() {
    let (_folder, path) = bin(&["kubectl-gwmon", "kubectl_complete-gwmon"]);
    assert!(shell(&path, "kubectl plugin list").contains("kubectl-gwmon"));
    assert!(shell(&path, "kubectl gwmon status --help").contains("Usage: kubectl gwmon status"));
    assert!(shell(&path, "kubectl gwmon status -n edge").contains("deployment.apps/edge"));
    let completed = shell(&path, "kubectl __complete gwmon expl");
    assert!(completed.lines().any(|line| line.starts_with("explain")), "{completed}");
    let completed = shell(&path, "kubectl __complete gwmon status -n ed");
    assert!(completed.lines().any(|line| line == "edge"), "{completed}");
}

#[test]
fn shells_complete_its_words() {
    let (_folder, path) = bin(&["gwmon"]);
    let registered = shell(&path, "source <(gwmon completion bash); complete -p gwmon");
    assert!(registered.contains("gwmon"), "{registered}");
    for (shell_name, index, words, expected) in [
        ("bash", 1, "gwmon doc", "doctor"),
        ("bash", 4, "gwmon explain -n edge deployment/e", "deployment/edge"),
        ("bash", 3, "gwmon status -n edg", "edge"),
    ] {
        // As the script of that shell asks.
        let ask = format!(
            "_CLAP_COMPLETE_INDEX={index} _CLAP_IFS=$'\\n' _CLAP_COMPLETE_COMP_TYPE=9 _CLAP_COMPLETE_SPACE=true GWMON_COMPLETE={shell_name} gwmon -- {words}"
        );
        let said = shell(&path, &ask);
        assert!(said.contains(expected), "{words}: {said}");
    }
    for name in ["zsh", "fish"] {
        assert!(shell(&path, &format!("gwmon completion {name}")).contains("GWMON_COMPLETE"), "{name}");
    }
    let folder = TempDir::new().unwrap();
    shell(&path, &format!("gwmon man --dir {}", folder.path().display()));
    let page = std::fs::read_to_string(folder.path().join("gwmon-doctor.1")).unwrap();
    assert!(page.contains(".TH gwmon-doctor 1") && page.contains("Examples:"), "{page}");
}

/// D12, on a Kubernetes that has it: `GWMON_TEST_KUBERNETES=1.30`.
#[test]
fn a_port_that_this_kubernetes_does_not_find_by_its_name_is_told() {
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "edge-gwmon", "namespace": "edge",
            "labels": {"app.kubernetes.io/managed-by": "gwmon", "gwmon.io/metrics-for": "edge-gwmon", "gwmon.io/workload-namespace": "edge"},
        },
        "spec": {
            "clusterIP": "None",
            "selector": {"gwmon.io/monitored-by": "edge-gwmon"},
            "ports": [{"name": "gwmon-metrics", "port": 9102, "targetPort": "gwmon-metrics"}],
        },
    });
    INSTALLED.kubectl.apply(&service.to_string()).unwrap();
    let version = INSTALLED.kubectl.run("version -o json").unwrap().out;
    let version: Value = serde_json::from_str(&version).unwrap();
    let minor = version["serverVersion"]["minor"].as_str().unwrap().trim_end_matches('+').parse::<u32>().unwrap();
    let found = |said: &str| said.contains("ObjectChanged") && said.contains("does not find in a native sidecar");
    let (_, said) = run(&["explain", "deploy/edge", "-n", "edge"]);
    assert_eq!(found(&said), minor < 32, "Kubernetes 1.{minor}: {said}");
}

/// Each line of the examples in `--help`, by a shell, in a folder with the files that they name and with a cluster.
#[test]
fn the_examples_of_the_help_work() {
    let (_plugins, path) = bin(&["gwmon", "kubectl-gwmon"]);
    let folder = TempDir::new().unwrap();
    std::fs::create_dir(folder.path().join("manifests")).unwrap();
    let gateway = serde_saphyr::to_string(&injected("edge", "edge", 1)).unwrap();
    // As its author wrote it: without what the webhook has added.
    let uninjected =
        serde_saphyr::to_string(&support::fixture::gateway("edge", &json!({"gwmon.io/inject": "true"}))).unwrap();
    let kustomization = "resources: [edge.yaml]\nnamePrefix: new-\n".to_owned();
    let files = [("edge.yaml", &uninjected), ("manifests/edge.yaml", &gateway), ("kustomization.yaml", &kustomization)];
    for (file, text) in files {
        std::fs::write(folder.path().join(file), text).unwrap();
    }
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::copy(INSTALLED.kubectl.kubeconfig(), &kubeconfig).unwrap();
    shell(
        &path,
        &format!("kubectl --kubeconfig {} config set-context --current --namespace=edge", kubeconfig.display()),
    );
    INSTALLED.kubectl.run("create namespace shop").unwrap();
    let mut proxy = injected("shop", "proxy", 1);
    proxy["kind"] = json!("StatefulSet");
    INSTALLED.kubectl.apply(&proxy.to_string()).unwrap();
    let mut tried = 0;
    for command in
        ["explain", "doctor", "status", "repair", "preview", "inject", "uninject", "dashboards", "rules", "completion"]
    {
        let (code, help) = run(&[command, "--help"]);
        let examples = help.split_once("Examples:\n").map(|(_, examples)| examples).unwrap_or_default();
        assert!(code == 0 && !examples.is_empty(), "{command}: {help}");
        if command != "completion" {
            assert!(help.contains("Exit code: 0"), "{command}: {help}");
        }
        for example in examples.lines().take_while(|line| line.starts_with("  ")).map(str::trim) {
            let is_had = |program: &str| Command::new("which").arg(program).output().unwrap().status.success();
            if example.contains("fish")
                || ["zsh", "jq"].iter().any(|program| example.contains(program) && !is_had(program))
            {
                continue;
            }
            let mut shell = Command::new("bash");
            shell.args(["-o", "pipefail", "-c", example]).current_dir(folder.path());
            shell.env("PATH", &path).env("KUBECONFIG", &kubeconfig);
            let output = shell.output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            // Without a Prometheus, a gateway's metrics go nowhere: explain and doctor may say so.
            assert!(output.status.code().unwrap() < 2 && !said.contains("Usage:"), "{example}: {said}");
            tried += 1;
        }
    }
    assert!(tried > 12, "{tried}");
}

/// As `kubectl` does: a big file is read, and who stops listening or types Ctrl-C gets no complaint.
#[test]
fn long_input_closed_pipes_and_interrupts_are_taken_calmly() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("many.yaml");
    let gateway =
        serde_saphyr::to_string(&support::fixture::gateway("edge", &json!({"gwmon.io/inject": "true"}))).unwrap();
    let line = format!("    {}\n", "a line of a big file ".repeat(50));
    let big =
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: big}}\ndata:\n  big: |\n{}", line.repeat(50_000));
    assert!(big.len() > 50 * 1024 * 1024);
    std::fs::write(&file, format!("{big}---\n{gateway}")).unwrap();
    let name = file.to_str().unwrap();
    for arguments in [&["preview", "-o", "names", "-f", name][..], &["uninject", "-f", name]] {
        let (code, said) = run(arguments);
        assert!(code == 0 && !said.is_empty(), "{arguments:?}: {code}");
    }
    // One document of that size, which is no object.
    std::fs::write(&file, "a".repeat(50 * 1024 * 1024)).unwrap();
    let (code, said) = run(&["preview", "-f", name]);
    assert!(code > 0 && said.len() < 2_000, "{code} {}", said.len());

    std::fs::write(&file, format!("{gateway}---\n").repeat(1_000)).unwrap();
    for arguments in [&["preview", "-o", "yaml", "-f", name][..], &["inject", "-f", name], &["status", "-A", "--watch"]]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gwmon"));
        command.args(arguments).env("KUBECONFIG", INSTALLED.kubectl.kubeconfig());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let said = std::thread::spawn(move || {
            let mut said = String::new();
            stderr.read_to_string(&mut said).map(|_| said)
        });
        let mut out = child.stdout.take().unwrap();
        let _ = out.read(&mut [0; 16]).unwrap();
        if arguments[0] != "status" {
            drop(out);
            let status = child.wait().unwrap();
            let said = said.join().unwrap().unwrap();
            assert!(status.code() < Some(2) && !said.contains("panicked"), "{arguments:?} {status}: {said}");
            continue;
        }
        std::thread::sleep(Duration::from_millis(300));
        assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
        let status = child.wait().unwrap();
        assert!(!said.join().unwrap().unwrap().contains("panicked"), "{arguments:?} {status}");
    }
}
