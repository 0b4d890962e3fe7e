//! An injected pod's Envoy and exporter as plain processes on loopback: the real programs, with just the
//! arguments that the pod would start them with. For where no node can run.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{program, wait_for};

const SIDECAR: &str = "gwmon-statsd-exporter";

/// An Envoy and its exporter; they end with the value.
pub struct LocalGateway {
    processes: Vec<Child>,
    metrics: u16,
}

/// The Envoy of a pod.
pub struct LocalEnvoy<'a> {
    /// Which of the programs that were built: `envoy`, `envoy-middle`, `envoy-oldest`.
    pub program: &'a str,
    /// What stands in the file that the pod's arguments name, `/etc/envoy/envoy.yaml`.
    pub configuration: &'a str,
    /// A port and a path that answer as soon as it is ready.
    pub ready: (u16, &'a str),
}

impl LocalGateway {
    /// Starts what the injected pod says. Its ports must be free here: see [`free_ports`].
    ///
    /// # Errors
    /// Where the pod is not injected, or a program does not start.
    pub fn start(pod: &Value, envoy: &LocalEnvoy, folder: &Path) -> Result<Self> {
        let sidecar = &pod["spec"]["initContainers"][0];
        if sidecar["name"] != SIDECAR {
            bail!("the pod has no {SIDECAR}");
        }
        let mapping = folder.join("mapping.yaml");
        fs::write(&mapping, pod["metadata"]["annotations"]["gwmon.io/mapping"].as_str().context("no mapping")?)?;
        let config = folder.join("envoy.yaml");
        fs::write(&config, envoy.configuration)?;
        let arguments = |container: &Value, from: &str, to: &Path| -> Vec<String> {
            let arguments = container["args"].as_array().into_iter().flatten().filter_map(Value::as_str);
            arguments.map(|argument| argument.replace(from, &to.to_string_lossy())).collect()
        };
        let metrics = sidecar["ports"][0]["containerPort"]
            .as_u64()
            .and_then(|port| u16::try_from(port).ok())
            .context("no metrics port")?;
        let mut gateway = Self { processes: vec![], metrics };
        // The container's own command, with the shell of the image that the cluster runs.
        let command = sidecar["command"].as_array().context("no command")?;
        let mut words: Vec<String> =
            command.iter().skip(1).filter_map(|word| word.as_str().map(str::to_owned)).collect();
        words.insert(0, "sh".to_owned());
        words.extend(arguments(sidecar, "/etc/gwmon/mapping.yaml", &mapping));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let env = sidecar["env"].as_array().into_iter().flatten();
        gateway.run("busybox", &words, env.map(|set| (text(&set["name"]), text(&set["value"]))), folder)?;
        wait_for("the exporter", Duration::from_secs(10), || get(metrics, "/-/ready").map(Some))?;
        let mut line = arguments(&pod["spec"]["containers"][0], "/etc/envoy/envoy.yaml", &config);
        // Two Envoys on one machine would share a hot-restart segment; two threads are what a small pod has.
        line.extend(["--disable-hot-restart", "--concurrency", "2"].map(str::to_owned));
        gateway.run(envoy.program, &line, [], folder)?;
        let (port, path) = envoy.ready;
        wait_for("Envoy", Duration::from_secs(20), || Ok(get(port, path)?.starts_with("HTTP/1.1 200").then_some(())))?;
        Ok(gateway)
    }

    fn run(
        &mut self,
        name: &str,
        arguments: &[String],
        env: impl IntoIterator<Item = (String, String)>,
        folder: &Path,
    ) -> Result<()> {
        let log = fs::File::create(folder.join(format!("{name}.log")))?;
        let child = Command::new(program(name))
            .args(arguments)
            .env("PATH", program(""))
            .envs(env)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn();
        self.processes.push(child.with_context(|| format!("cannot start {name}"))?);
        Ok(())
    }

    /// The exporter's process, which its container's shell has started.
    ///
    /// # Errors
    /// Where none runs at this moment.
    pub fn exporter(&self) -> Result<u32> {
        let shell = self.processes[0].id();
        let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"))?;
        children.split_whitespace().next().context("no exporter")?.parse().context("no process")
    }

    /// The exporter's `/metrics`.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn metrics(&self) -> Result<String> {
        get(self.metrics, "/metrics")
    }
}

impl Drop for LocalGateway {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // As the kubelet would: the shell ends the exporter, which would outlive it otherwise.
            let _ = Command::new("kill").arg(process.id().to_string()).status();
            let _ = process.wait();
        }
    }
}

/// Ports that are free on loopback for TCP and UDP now.
///
/// # Errors
/// Where there are none left.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut held = Vec::new();
    while held.len() < N {
        let tcp = TcpListener::bind("127.0.0.1:0")?;
        let port = tcp.local_addr()?.port();
        if let Ok(udp) = UdpSocket::bind(("127.0.0.1", port)) {
            held.push((port, tcp, udp));
        }
    }
    let mut ports = held.iter().map(|(port, ..)| *port);
    Ok(std::array::from_fn(|_| ports.next().unwrap_or_default()))
}

/// How many datagrams the kernel has thrown away because nobody read them in time.
///
/// # Errors
/// Where the kernel does not say.
pub fn datagrams_lost() -> Result<u64> {
    let counters = fs::read_to_string("/proc/net/snmp")?;
    let mut udp = counters.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = udp.next().zip(udp.next()).context("no UDP counters")?;
    let lost = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == "RcvbufErrors");
    Ok(lost.context("no RcvbufErrors")?.1.parse()?)
}

/// A request to loopback: the whole answer, head and body.
///
/// # Errors
/// Where nobody answers.
pub fn get(port: u16, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.to_lowercase().contains("transfer-encoding: chunked") => {
            format!("{head}\r\n\r\n{}", joined(body))
        }
        _ => answer,
    })
}

/// The content of a body that comes in chunks: each a hexadecimal length, a line end, that much, a line end.
fn joined(mut chunks: &str) -> String {
    let mut content = String::new();
    while let Some((length, rest)) = chunks.split_once("\r\n") {
        let Some((chunk, rest)) =
            usize::from_str_radix(length, 16).ok().and_then(|length| rest.split_at_checked(length))
        else {
            break;
        };
        content.push_str(chunk);
        chunks = rest.trim_start_matches("\r\n");
    }
    content
}
