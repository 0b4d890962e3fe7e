//! What several tests need: the real binary as a process, and a review to send to it.
#![allow(dead_code, reason = "every test program takes its part of this")]

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use gwmon_cluster::{local, wait_for};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A running `gwmon serve`; it ends with the value.
pub(crate) struct Gwmon {
    child: Child,
    folder: TempDir,
    pub(crate) webhook: u16,
    pub(crate) admin: u16,
}

impl Gwmon {
    /// `gwmon serve --standalone`, ready.
    pub(crate) fn standalone() -> Self {
        let gwmon =
            Self::start(|command, folder| command.arg("--standalone").arg("--ca-out").arg(folder.join("ca.crt")));
        gwmon.wait_ready();
        gwmon
    }

    /// `gwmon serve` with some arguments, on free ports.
    pub(crate) fn start(arguments: impl for<'c> FnOnce(&'c mut Command, &Path) -> &'c mut Command) -> Self {
        let folder = TempDir::new().unwrap();
        let [webhook, admin] = local::free_ports().unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port)).to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_gwmon"));
        command.args(["serve", "--bind", &at(webhook), "--admin-bind", &at(admin)]).stdin(Stdio::null()).stderr(log);
        let child = arguments(&mut command, folder.path()).spawn().unwrap();
        Self { child, folder, webhook, admin }
    }

    pub(crate) fn wait_ready(&self) {
        wait_for("gwmon to be ready", Duration::from_secs(20), || {
            Ok(local::get(self.admin, "/readyz")?.starts_with("HTTP/1.1 200").then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", self.log()));
    }

    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// The sum of the samples whose line begins so.
    pub(crate) fn metric(&self, prefix: &str) -> f64 {
        let metrics = local::get(self.admin, "/metrics").unwrap();
        metrics
            .lines()
            .filter(|line| line.starts_with(prefix))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Resident memory of the process.
    pub(crate) fn resident_kib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// A TLS connection to the webhook, by a client that trusts only what `--ca-out` wrote.
    pub(crate) async fn connect(&self, name: &str) -> std::io::Result<Https> {
        let authority = std::fs::read(self.authority())?;
        Https::connect(self.webhook, name, &authority).await
    }
}

impl Drop for Gwmon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A keep-alive HTTPS/1.1 connection.
pub(crate) struct Https(TlsStream<TcpStream>);

impl Https {
    pub(crate) async fn connect(port: u16, name: &str, authority: &[u8]) -> std::io::Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority).unwrap()).unwrap();
        let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.map(Self)
    }

    /// Status and body of one POST.
    pub(crate) async fn post(&mut self, path: &str, body: &[u8]) -> std::io::Result<(u16, Vec<u8>)> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: gwmon\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.0.write_all(&[head.as_bytes(), body].concat()).await?;
        let mut answer = Vec::new();
        let head_end = loop {
            if let Some(at) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if self.0.read_buf(&mut answer).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        };
        let head = String::from_utf8_lossy(&answer[..head_end]).to_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length: usize =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
        while answer.len() < head_end + length {
            self.0.read_buf(&mut answer).await?;
        }
        Ok((status, answer.split_off(head_end)))
    }
}

/// The review that the README sends.
pub(crate) fn pod_review() -> serde_json::Value {
    serde_json::from_str(include_str!("../cases/review.json")).unwrap()
}
