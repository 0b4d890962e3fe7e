//! What somebody who reaches gwmon's ports may do to it, each for a few seconds and over loopback only, while a good client goes
//! on asking. For the tests, and for `cargo bench --bench hostile`.

use std::fmt::Write as _;
use std::fs;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

use crate::support::{Gwmon, Https, TlsClient, pod_review};

/// The memory limit of the shipped Deployment, in bytes.
const MEMORY_LIMIT: u64 = 128 << 20;
/// Under any attack the process takes no more than this, in MiB.
const MOST_MEMORY: f64 = 96.;
/// Nor does it write more than this to its log, in bytes.
const MOST_LOG: u64 = 1 << 20;

/// The ports that are attacked.
#[derive(Clone)]
pub(crate) struct Target {
    webhook: u16,
    admin: u16,
    tls: TlsClient,
}

/// One attack.
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    /// How gwmon is started.
    setting: Setting,
    run: fn(Target) -> BoxFuture<'static, ()>,
}

/// How gwmon is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setting {
    /// As in the shipped Deployment.
    Shipped,
    /// With so few file descriptors that connections are what there is least of.
    FewFiles,
    /// Nobody reads its log.
    UnreadLog,
}

macro_rules! attack {
    ($name:literal, $run:expr) => {
        attack!($name, Setting::Shipped, $run)
    };
    ($name:literal, $setting:expr, $run:expr) => {
        Attack { name: $name, setting: $setting, run: |target| Box::pin($run(target)) }
    };
}

/// Every attack.
pub(crate) const ATTACKS: &[Attack] = &[
    attack!("none", |_| std::future::pending()),
    attack!("2,000 idle TCP connections", |t: Target| hold(2000, move || idle(t.clone(), b""))),
    attack!("1,000 with half a TLS hello", |t: Target| hold(1000, move || idle(
        t.clone(),
        b"\x16\x03\x01\x02\x00\x01"
    ))),
    attack!("1,000 idle TLS connections", |t: Target| hold(1000, move || say(t.clone(), b"", None))),
    attack!("1,000 with one byte of a request", |t: Target| hold(1000, move || say(t.clone(), b"P", None))),
    attack!("1,000 with half a head", |t: Target| hold(1000, move || say(t.clone(), HALF_HEAD, None))),
    attack!("1,000 heads, one byte a second", |t: Target| hold(1000, move || say(t.clone(), HALF_HEAD, Some(b'x')))),
    attack!("1,000 bodies, one byte a second", |t: Target| hold(1000, move || say(t.clone(), SLOW_BODY, Some(b' ')))),
    attack!("1,000 idle after a request", |t: Target| hold(1000, move || idle_after_a_request(t.clone()))),
    attack!("TLS handshakes, 32 at a time", |t: Target| hold(32, move || hang_up(t.clone()))),
    attack!("plain HTTP on the TLS port", |t: Target| hold(32, move || idle(
        t.clone(),
        b"POST /mutate/pods HTTP/1.1\r\n\r\n"
    ))),
    attack!("HTTP/2", |t: Target| hold(64, move || say(
        t.clone(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        None
    ))),
    attack!("what is no HTTP", |t: Target| hold(32, move || nonsense(t.clone()))),
    attack!("requests of which no answer is read", |t: Target| hold(200, move || never_read(t.clone()))),
    attack!("64 clients with valid reviews", |t: Target| ask(64, t, || pod_review().to_string())),
    attack!("64 clients with bad reviews", |t: Target| ask(64, t, || "{\"request\": 7}".to_owned())),
    attack!("16 bodies of 4 MiB that stop one byte short", |t: Target| hold(16, move || stall(t.clone(), 4 << 20))),
    attack!("200 bodies of 4 MiB that stop one byte short", |t: Target| hold(200, move || stall(t.clone(), 4 << 20))),
    attack!("200 bodies of 30 KiB that stop one byte short", |t: Target| hold(200, move || stall(t.clone(), 30 << 10))),
    attack!("bodies of 20 MiB", |t: Target| ask(4, t, || " ".repeat(20 << 20))),
    attack!("4 MiB in a namespace", |t: Target| ask(4, t, || with("/request/namespace", long(4 << 20)))),
    attack!("4 MiB where a list should be", |t: Target| ask(4, t, || with(
        "/request/object/spec/containers",
        long(4 << 20)
    ))),
    attack!("gateways, 100,000 of them", |t: Target| ask(8, t, || containers(100_000))),
    attack!("gateways, as many as are read", |t: Target| ask(32, t, || containers(100))),
    attack!("ports, 100,000 of them", |t: Target| ask(8, t, || part("ports", r#"{"containerPort":9102}"#, 100_000))),
    attack!("arguments, a million empty ones", |t: Target| ask(8, t, || part("args", "\"\"", 1_000_000))),
    attack!("variables, 100,000 of them", |t: Target| ask(8, t, || part("env", r#"{"name":"A"}"#, 100_000))),
    attack!("labels, 100,000 of them", |t: Target| ask(8, t, || labels(100_000))),
    attack!("owners, 50,000 of them", |t: Target| ask(8, t, || owners(50_000))),
    attack!("a configuration of 250 KiB", |t: Target| ask(8, t, || configuration(250 << 10))),
    attack!("a configuration of 10 KiB", |t: Target| ask(32, t, || configuration(10 << 10))),
    attack!("4 MiB of managed fields of a workload", |t: Target| ask_of(WORKLOADS, 4, t, managed_fields)),
    attack!("2,000 idle on the admin port", |t: Target| hold(2000, move || idle_admin(t.clone(), b""))),
    attack!("1,000 half heads on the admin port", |t: Target| hold(1000, move || idle_admin(
        t.clone(),
        b"GET /metrics HTTP/1.1\r\n"
    ))),
    attack!("/metrics, 64 clients", |t: Target| hold(64, move || metrics(t.clone()))),
    attack!("2,000 idle, few files", Setting::FewFiles, |t: Target| hold(2000, move || idle(t.clone(), b""))),
    attack!("2,000 idle on the admin port, few files", Setting::FewFiles, |t: Target| hold(2000, move || idle_admin(
        t.clone(),
        b""
    ))),
    attack!("bad reviews, log not read", Setting::UnreadLog, |t: Target| ask(64, t, || "{\"request\": 7}".to_owned())),
];

const HALF_HEAD: &[u8] = b"POST /mutate/pods HTTP/1.1\r\nhost: x\r\nx-a: ";
const SLOW_BODY: &[u8] =
    b"POST /mutate/pods HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{";

/// So many at a time, each begun again when it ends: a few at once, many after a second.
async fn hold<F: Future<Output = std::io::Result<()>> + Send + 'static>(
    many: usize,
    one: impl Fn() -> F + Clone + Send + 'static,
) {
    let mut tasks = JoinSet::new();
    for number in 0..many {
        let one = one.clone();
        tasks.spawn(async move {
            loop {
                let _ = one().await;
                let pause = if many < 100 { 20 } else { 1000 };
                tokio::time::sleep(Duration::from_millis(pause + number as u64 % 60)).await;
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

/// Asks about pods again and again, over connections that are kept.
async fn ask(clients: usize, target: Target, body: impl FnOnce() -> String) {
    ask_of("/mutate/pods", clients, target, body).await;
}

const WORKLOADS: &str = "/mutate/workloads";

async fn ask_of(path: &'static str, clients: usize, target: Target, body: impl FnOnce() -> String) {
    let body = Arc::new(body());
    hold(clients, move || {
        let (target, body) = (target.clone(), Arc::clone(&body));
        async move {
            let mut client = Https(target.connect().await?);
            loop {
                client.post(path, body.as_bytes()).await?;
            }
        }
    })
    .await;
}

impl Target {
    /// As somebody else than the good client: pods have other addresses than the API server and the kubelets.
    async fn reach(port: u16) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(([127, 0, 0, 2], 0).into())?;
        socket.connect(([127, 0, 0, 1], port).into()).await
    }

    async fn connect(&self) -> std::io::Result<TlsStream<TcpStream>> {
        self.tls.over(Self::reach(self.webhook).await?, "localhost").await
    }
}

async fn until_closed(stream: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<()> {
    let mut unread = [0; 1024];
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}

async fn idle(target: Target, said: &'static [u8]) -> std::io::Result<()> {
    let mut stream = Target::reach(target.webhook).await?;
    stream.write_all(said).await?;
    until_closed(&mut stream).await
}

async fn idle_admin(target: Target, said: &'static [u8]) -> std::io::Result<()> {
    let mut stream = Target::reach(target.admin).await?;
    stream.write_all(said).await?;
    until_closed(&mut stream).await
}

async fn metrics(target: Target) -> std::io::Result<()> {
    let mut stream = Target::reach(target.admin).await?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
    until_closed(&mut stream).await
}

/// Says something over TLS, and then one byte a second, or nothing.
async fn say(target: Target, said: &'static [u8], drip: Option<u8>) -> std::io::Result<()> {
    let mut stream = target.connect().await?;
    stream.write_all(said).await?;
    let Some(byte) = drip else { return until_closed(&mut stream).await };
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        stream.write_all(&[byte]).await?;
    }
}

async fn hang_up(target: Target) -> std::io::Result<()> {
    for _ in 0..50 {
        drop(target.connect().await?);
    }
    Ok(())
}

async fn idle_after_a_request(target: Target) -> std::io::Result<()> {
    let mut client = Https(target.connect().await?);
    client.post("/mutate/pods", b"{}").await?;
    until_closed(&mut client.0).await
}

async fn stall(target: Target, length: usize) -> std::io::Result<()> {
    let mut stream = target.connect().await?;
    let head = format!(
        "POST /mutate/pods HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&vec![b' '; length - 1]).await?;
    until_closed(&mut stream).await
}

async fn never_read(target: Target) -> std::io::Result<()> {
    let body = pod_review().to_string();
    let request = format!(
        "POST /mutate/pods HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = target.connect().await?;
    loop {
        stream.write_all(request.as_bytes()).await?;
    }
}

async fn nonsense(target: Target) -> std::io::Result<()> {
    for said in [
        &b"\0\0\0\0\r\n\r\n"[..],
        b"POST /mutate/pods HTTP/9.9\r\n\r\n",
        b"POST /mutate/pods HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n{}",
        b"POST /mutate/pods HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-type: application/json\r\n\r\nffffffffffffffff\r\n",
        b"GET / HTTP/1.1\r\nhost\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n",
    ] {
        let mut stream = target.connect().await?;
        stream.write_all(said).await?;
        let mut answer = [0; 256];
        let _ = tokio::time::timeout(Duration::from_millis(50), stream.read(&mut answer)).await;
    }
    Ok(())
}

fn long(length: usize) -> Value {
    json!("x".repeat(length - 2048))
}

fn with(place: &str, value: Value) -> String {
    let mut review = pod_review();
    *review.pointer_mut(place).unwrap_or_else(|| panic!("{place}")) = value;
    review.to_string()
}

/// The review with a text in the place of a value.
fn with_text(place: &str, text: &str) -> String {
    with(place, json!("HERE")).replace("\"HERE\"", text)
}

fn entries(entry: &str, count: usize) -> String {
    format!("[{}]", vec![entry; count].join(","))
}

fn containers(count: usize) -> String {
    with_text("/request/object/spec/containers", &entries(r#"{"name":"x","image":"envoyproxy/envoy:v1"}"#, count))
}

/// One list of the gateway's container.
fn part(list: &str, entry: &str, count: usize) -> String {
    let container =
        format!(r#"[{{"name":"x","image":"emissaryingress/emissary:3.9.1","{list}":{}}}]"#, entries(entry, count));
    with_text("/request/object/spec/containers", &container)
}

fn labels(count: usize) -> String {
    let mut labels = String::new();
    for number in 0..count {
        let _ = write!(labels, "\"l{number}\":\"x\",");
    }
    with_text("/request/object/metadata/labels", &format!("{{{labels}\"z\":\"\"}}"))
}

fn owners(count: usize) -> String {
    with_text("/request/object/metadata/ownerReferences", &entries(r#"{"kind":"ReplicaSet","name":"x"}"#, count))
}

/// A Deployment whose template has a copy that the workload lacks, so that gwmon looks whose it is.
fn managed_fields() -> String {
    let mut review = pod_review();
    let template = json!({
        "metadata": {"annotations": {"gwmon.io/copied": r#"{"gwmon.io/inject":"true"}"#, "gwmon.io/inject": "true"}},
        "spec": review["request"]["object"]["spec"],
    });
    let metadata = json!({"name": "edge", "managedFields": [{"manager": "m", "fieldsV1": "HERE"}]});
    review["request"]["kind"] = json!({"group": "apps", "version": "v1", "kind": "Deployment"});
    review["request"]["object"] =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {"template": template}});
    let fields = entries(r#"{"a":0}"#, 450_000);
    let names = fields.replace(['[', ']'], "");
    let deep = format!(r#"{{"f:spec":{{"f:template":{{"f:metadata":{{"f:annotations":{{"x":[{names}]}}}}}}}}}}"#);
    review.to_string().replace("\"HERE\"", &deep)
}

/// An Envoy with its whole configuration on the command line.
fn configuration(length: usize) -> String {
    let yaml = format!("a: [{}]\n", vec!["1"; length / 2].join(","));
    with("/request/object/spec/containers/0/args", json!(["--config-yaml", yaml]))
}

/// What became of gwmon and its good client under one attack.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Of the good client's requests over one connection, in milliseconds, sorted.
    pub(crate) kept: Vec<f64>,
    /// The same over a new connection each.
    pub(crate) fresh: Vec<f64>,
    /// The same of probes of the admin port.
    probes: Vec<f64>,
    /// What went wrong.
    failures: Vec<String>,
    /// The most memory that the process took, in MiB.
    peak: f64,
    /// Open files at the most.
    files: usize,
    /// Log, in bytes.
    log: u64,
    /// How long after the attack there were as few files open as before; `None` if not within half a minute.
    rest: Option<Duration>,
}

/// The 99th of a hundred.
pub(crate) fn p99(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() * 99 / 100).or_else(|| sorted.last()).copied().unwrap_or(f64::NAN)
}

/// What [`Outcome::row`] shows.
pub(crate) const HEADING: &str = "\
| attack | kept p50 / p99 / max ms | new p50 / p99 / max ms | probe p99 ms | failed | peak MiB | files | log KiB | at rest after |
|---|---|---|---|---|---|---|---|---|";

impl Outcome {
    /// A row of a table.
    pub(crate) fn row(&self, name: &str) -> String {
        let times = |sorted: &[f64]| {
            let median = sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN);
            format!("{median:.1} / {:.0} / {:.0}", p99(sorted), sorted.last().copied().unwrap_or(f64::NAN))
        };
        format!(
            "| {name} | {} | {} | {:.0} | {}/{} | {:.0} | {} | {} | {} |",
            times(&self.kept),
            times(&self.fresh),
            p99(&self.probes),
            self.failures.len(),
            self.kept.len() + self.fresh.len() + self.probes.len() + self.failures.len(),
            self.peak,
            self.files,
            self.log >> 10,
            self.rest.map_or_else(|| "never".to_owned(), |rest| format!("{:.1} s", rest.as_secs_f64())),
        )
    }

    /// What is not as it shall be under any attack.
    pub(crate) fn broken_promises(&self) -> impl Iterator<Item = String> {
        let failed = (!self.failures.is_empty()).then(|| format!("failed: {}", self.failures.join("; ")));
        let peak = (self.peak.is_nan() || self.peak > MOST_MEMORY).then(|| format!("{:.0} MiB of memory", self.peak));
        let log = (self.log > MOST_LOG).then(|| format!("{} KiB of log", self.log >> 10));
        let rest = self.rest.is_none().then(|| "more files open than before after 30 s".to_owned());
        let silent = self.kept.is_empty().then(|| "the good client has no answer at all".to_owned());
        [failed, peak, log, rest, silent].into_iter().flatten()
    }
}

impl Attack {
    /// Attacks a gwmon of its own for so long, under the limits of the shipped Deployment where they can be set.
    pub(crate) fn run(&self, length: Duration) -> Outcome {
        let limits = Limits::new();
        let starter: &[&str] = if self.setting == Setting::FewFiles { &["prlimit", "--nofile=256"] } else { &[] };
        let mut gwmon = Gwmon::start_through(starter, |command, folder| {
            command.args(["--standalone", "--log-format", "json", "--ca-out"]).arg(folder.join("ca.crt"));
            // What the runtime makes of a limit of one core.
            command.env("TOKIO_WORKER_THREADS", "1");
            if self.setting == Setting::UnreadLog {
                command.stderr(std::process::Stdio::piped());
            }
            command
        });
        limits.put(gwmon.id());
        gwmon.wait_ready();
        let at_rest = gwmon.open_files();
        let target = Target {
            webhook: gwmon.webhook,
            admin: gwmon.admin,
            tls: TlsClient::new(&fs::read(gwmon.authority()).unwrap()),
        };
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let attack = (self.run)(target.clone());
        let (most_files, end) = (Arc::new(AtomicU64::new(0)), Instant::now() + length);
        let (kept, fresh, probes) = std::thread::scope(|scope| {
            scope.spawn(move || {
                let _ = runtime().block_on(async { tokio::time::timeout_at(end.into(), attack).await });
            });
            let files = Arc::clone(&most_files);
            let process = gwmon.id();
            scope.spawn(move || {
                while Instant::now() < end {
                    files.fetch_max(open_files(process) as u64, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
            let good = scope.spawn(move || {
                runtime().block_on(async {
                    tokio::join!(good_client(&target, end, true), good_client(&target, end, false), probe(&target, end))
                })
            });
            good.join().unwrap()
        });
        let ended = Instant::now();
        let peak = gwmon.peak_mib();
        let rest = std::iter::from_fn(|| {
            std::thread::sleep(Duration::from_millis(100));
            (ended.elapsed() < Duration::from_secs(30)).then(|| gwmon.open_files())
        })
        .any(|files| files <= at_rest + 4)
        .then(|| ended.elapsed());
        let mut failures = [kept.1, fresh.1, probes.1].concat();
        if gwmon.has_ended() {
            failures.push("the process has ended".to_owned());
        }
        let sorted = |mut all: Vec<f64>| {
            all.sort_by(f64::total_cmp);
            all
        };
        Outcome {
            kept: sorted(kept.0),
            fresh: sorted(fresh.0),
            probes: sorted(probes.0),
            failures,
            peak,
            files: usize::try_from(most_files.load(Ordering::Relaxed)).unwrap_or(usize::MAX),
            log: gwmon.log_bytes(),
            rest,
        }
    }
}

/// Times in milliseconds, and failures.
type Times = (Vec<f64>, Vec<String>);

/// As the API server gives up.
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks as an API server does, over a connection that is kept, or over a new one each time. A kept one that is found closed is
/// opened again, as any HTTP client does.
async fn good_client(target: &Target, end: Instant, keeps: bool) -> Times {
    let (mut times, mut failures) = (vec![], vec![]);
    let review = pod_review().to_string();
    let mut kept: Option<Https> = None;
    let pace = Duration::from_millis(if keeps { 20 } else { 100 });
    while Instant::now() < end {
        let began = Instant::now();
        let asked = async {
            let mut client = match kept.take() {
                Some(client) => client,
                None => Https(target.tls.connect(target.webhook).await?),
            };
            if client.is_closed().await {
                client = Https(target.tls.connect(target.webhook).await?);
            }
            let (status, body) = client.post("/mutate/pods", review.as_bytes()).await?;
            let is_patched = String::from_utf8_lossy(&body).contains("JSONPatch");
            std::io::Result::Ok((client, status == 200 && is_patched))
        };
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok((client, true))) => {
                times.push(began.elapsed().as_secs_f64() * 1e3);
                kept = keeps.then_some(client);
            }
            Ok(Ok((_, false))) => failures.push("an answer without a patch".to_owned()),
            Ok(Err(error)) => failures.push(format!("after {} ms: {error}", began.elapsed().as_millis())),
            Err(_) => failures.push("no answer in 3 s".to_owned()),
        }
        tokio::time::sleep(pace).await;
    }
    (times, failures)
}

/// Probes as the kubelet does: over a new connection each time, with a second's patience.
async fn probe(target: &Target, end: Instant) -> Times {
    let (mut times, mut failures) = (vec![], vec![]);
    while Instant::now() < end {
        let began = Instant::now();
        let asked = async {
            let mut stream = TcpStream::connect(("127.0.0.1", target.admin)).await?;
            stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        match tokio::time::timeout(Duration::from_secs(1), asked).await {
            Ok(Ok(answer)) if answer.starts_with("HTTP/1.1 200") => times.push(began.elapsed().as_secs_f64() * 1e3),
            other => failures.push(format!("a probe: {other:?}")),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    (times, failures)
}

/// Open files of a process.
fn open_files(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count)
}

impl Gwmon {
    fn open_files(&self) -> usize {
        open_files(self.id())
    }

    /// The most memory that the process has taken.
    fn peak_mib(&self) -> f64 {
        self.status_kib("VmHWM:") / 1024.
    }
}

/// The limits of the shipped Deployment, by cgroups, where those can be written.
struct Limits(Vec<PathBuf>);

impl Limits {
    fn new() -> Self {
        let name = format!("gwmon-hostile-{}", std::process::id());
        let groups = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", MEMORY_LIMIT.to_string()),
            ("/sys/fs/cgroup/cpu", "cpu.cfs_quota_us", "100000".to_owned()),
            ("/sys/fs/cgroup", "memory.max", MEMORY_LIMIT.to_string()),
        ];
        let made = groups.into_iter().filter_map(|(root, file, limit)| {
            let group = PathBuf::from(root).join(&name);
            fs::create_dir(&group).ok()?;
            if fs::write(group.join(file), limit).is_ok() {
                return Some(group);
            }
            let _ = fs::remove_dir(&group);
            None
        });
        Self(made.collect())
    }

    fn put(&self, process: u32) {
        for group in &self.0 {
            let _ = fs::write(group.join("cgroup.procs"), process.to_string());
        }
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        for group in &self.0 {
            // The process in it may take a moment to end.
            for _ in 0..50 {
                if fs::remove_dir(group).is_ok() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}
