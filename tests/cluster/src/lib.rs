//! A real Kubernetes with real monitoring, from source, for gwmon's tests and its demo.
//!
//! Two levels: [`ControlPlane`] (etcd, API server, controller manager on loopback; no root) and [`Node`] (a whole
//! node with kubelet and containerd in namespaces of its own; root). Each lives as long as the value, and no
//! longer than the process that holds it, however that one ends.

mod kubectl;
pub mod local;
mod prometheus;
pub mod scenario;

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

pub use kubectl::{Kubectl, Said, wait_for};
pub use prometheus::{Prometheus, escape};

/// Set to make tests that cannot run here fail instead of being ignored.
pub const REQUIRE_ALL: &str = "GWMON_TEST_ALL";

/// The folder of this crate: scripts, modules, manifests.
#[must_use]
pub fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where everything that was built lies.
#[must_use]
pub fn cache() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("GWMON_CLUSTER_CACHE").unwrap_or_else(|| {
        let home = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
        home.unwrap_or_else(std::env::temp_dir).join("gwmon-cluster")
    })
}

/// One of the programs that were built, of the versions that are asked for; where it was not, the one of that name on the path.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let folders = older().into_iter().chain([cache().join("bin")]);
    folders.map(|folder| folder.join(name)).find(|file| file.exists()).unwrap_or_else(|| name.into())
}

/// The folders of versions other than the newest that are asked for: `GWMON_TEST_KUBERNETES=1.30`, `GWMON_TEST_OPERATOR=0.78`.
fn older() -> Vec<PathBuf> {
    let asked = [("kubernetes", "GWMON_TEST_KUBERNETES"), ("operator", "GWMON_TEST_OPERATOR")];
    let set = asked.into_iter().filter_map(|(name, variable)| {
        let version = std::env::var(variable).ok().filter(|version| !version.is_empty())?;
        Some(cache().join("older").join(format!("{name}-{version}")))
    });
    set.collect()
}

/// The folder of the Prometheus Operator's CRDs.
#[must_use]
pub fn operators_crds() -> PathBuf {
    let folders = older().into_iter().map(|folder| folder.join("crd"));
    folders.chain([cache().join("upstream/crd")]).find(|folder| folder.exists()).unwrap_or_default()
}

/// Builds what is not built yet, with progress on standard error; seconds when everything is.
///
/// # Errors
/// A missing tool, or a build that fails; both have been told on standard error.
pub fn build() -> Result<()> {
    static BUILT: Mutex<bool> = Mutex::new(false);
    let mut built = BUILT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !*built {
        run(Command::new(folder().join("build.sh")))?;
        *built = true;
    }
    Ok(())
}

/// Makes sure that there are a kubectl and the Prometheus Operator's CRDs: with [`GIVEN`], the kubectl on the path.
///
/// # Errors
/// As for [`build`].
pub fn prepare() -> Result<()> {
    if given().is_some() { run(Command::new(folder().join("crds.sh"))) } else { build() }
}

fn given() -> Option<OsString> {
    std::env::var_os(GIVEN).filter(|file| !file.is_empty())
}

/// Builds the real gateways and what they need; minutes the first time.
///
/// # Errors
/// As for [`build`].
pub fn build_gateways() -> Result<()> {
    run(Command::new(folder().join("gateways.sh")))
}

/// Builds Helm; a minute the first time.
///
/// # Errors
/// As for [`build`].
pub fn build_helm() -> Result<()> {
    run(Command::new(folder().join("helm.sh")))
}

/// Builds a program around Argo CD's engine; minutes the first time.
///
/// # Errors
/// As for [`build`].
pub fn build_gitops() -> Result<()> {
    run(Command::new(folder().join("gitops.sh")))
}

/// Builds cert-manager and libfaketime; minutes the first time.
///
/// # Errors
/// As for [`build`].
pub fn build_certificates() -> Result<()> {
    run(Command::new(folder().join("certificates.sh")))
}

/// Runs a command to its end.
///
/// # Errors
/// Where it does not start or does not succeed.
pub fn run(mut command: Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}

/// Runs a command whose output counts only where it fails.
fn quietly(mut command: Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// A running cluster of one level: the script that takes it down when its standard input ends.
struct Running {
    supervisor: Option<Child>,
    folder: PathBuf,
}

impl Running {
    fn start(level: &str, environment: &[(&str, &str)], keep: bool) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        build()?;
        let name = format!("{level}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let place = cache().join("run").join(name);
        if keep {
            let mut up = Command::new(folder().join(level).join("up.sh"));
            up.arg(&place).envs(environment.iter().copied());
            run(up)?;
            return Ok(Self { supervisor: None, folder: place });
        }
        let mut supervisor = Command::new(folder().join("run.sh"))
            .args([level.as_ref(), place.as_os_str()])
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C is for us; the supervisor sees its input end.
            .process_group(0)
            .spawn()
            .context("cannot start the cluster")?;
        let mut line = String::new();
        BufReader::new(supervisor.stdout.take().context("no output")?).read_line(&mut line)?;
        if line.trim() != "ready" {
            let _ = supervisor.wait();
            bail!("the {level} cluster did not come up; see above and {}", cache().join("log").display());
        }
        Ok(Self { supervisor: Some(supervisor), folder: place })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut supervisor) = self.supervisor.take() {
            drop(supervisor.stdin.take());
            let _ = supervisor.wait();
        }
    }
}

/// etcd, API server and controller manager on loopback. Needs no root; ready in seconds.
pub struct ControlPlane(Running);

impl ControlPlane {
    /// Brings one up. With `kwok` it also has a scheduler and a node that plays pods.
    ///
    /// # Errors
    /// Where something cannot be built or does not come up.
    pub fn start(kwok: bool) -> Result<Self> {
        Running::start("control-plane", if kwok { &[("KWOK", "1")] } else { &[] }, false).map(Self)
    }

    /// The same, with more flags for the API server.
    ///
    /// # Errors
    /// Where something cannot be built or does not come up.
    pub fn start_with(api_server_flags: &str) -> Result<Self> {
        Running::start("control-plane", &[("API_SERVER_FLAGS", api_server_flags)], false).map(Self)
    }

    /// The administrator's kubectl.
    #[must_use]
    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(self.0.folder.join("kubeconfig"))
    }

    /// The file of a log: `audit`, which has each request of gwmon's service account, or a process' by its name.
    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        self.0.folder.join("log").join(name).with_extension("log")
    }

    /// Kills the API server and starts it again.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn restart_api_server(&self) -> Result<()> {
        self.strike(&["restart", "apiserver"])
    }

    /// Deletes everything that the cluster has stored, and restarts what does not live with that.
    ///
    /// # Errors
    /// Where etcd does not answer.
    pub fn empty_etcd(&self) -> Result<()> {
        self.strike(&["empty"])?;
        self.strike(&["restart", "apiserver"])?;
        self.strike(&["restart", "kcm"])
    }

    fn strike(&self, how: &[&str]) -> Result<()> {
        let mut strike = Command::new(folder().join("control-plane/strike.sh"));
        strike.arg(&self.0.folder).args(how);
        run(strike)
    }
}

/// Set to a kubeconfig whose current context is a cluster that tests may empty: those that need no more than an API server and a
/// controller manager use it, one after the other, and build none.
pub const GIVEN: &str = "KUBECONFIG_TEST";

/// A cluster that was there, for one test at a time.
pub struct GivenCluster {
    kubeconfig: PathBuf,
    /// A test's turn ends with its process, at the latest.
    _turn: File,
}

impl GivenCluster {
    /// The cluster of [`GIVEN`], if that is set, emptied of what earlier tests left.
    ///
    /// # Errors
    /// Where it does not answer, or has no namespace `gwmon-test`, which says that it may be emptied.
    pub fn find() -> Result<Option<Self>> {
        let Some(file) = given() else { return Ok(None) };
        prepare()?;
        let turn = File::create(cache().join("given.lock"))?;
        turn.lock()?;
        // kubectl keeps its cache beside it.
        let place = cache().join("run").join(format!("given-{}", std::process::id()));
        std::fs::create_dir_all(&place)?;
        let kubeconfig = place.join("kubeconfig");
        std::fs::copy(&file, &kubeconfig).with_context(|| format!("{GIVEN} {}", file.display()))?;
        let given = Self { kubeconfig, _turn: turn };
        given.empty()?;
        Ok(Some(given))
    }

    /// The administrator's kubectl.
    #[must_use]
    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(self.kubeconfig.clone())
    }

    fn empty(&self) -> Result<()> {
        const KEPT: [&str; 6] =
            ["default", "gwmon-test", "kube-node-lease", "kube-public", "kube-system", "local-path-storage"];
        let kubectl = self.kubectl();
        let names = |kind: &str| -> Result<Vec<String>> {
            let list = kubectl.get(kind)?;
            let name = |object: &serde_json::Value| Some(object["metadata"]["name"].as_str()?.to_owned());
            Ok(list["items"].as_array().into_iter().flatten().filter_map(name).collect())
        };
        let namespaces = names("namespaces")?;
        if !namespaces.iter().any(|name| name == "gwmon-test") {
            bail!(
                "the tests empty the cluster of {GIVEN}; if they may, say so there: kubectl create namespace gwmon-test"
            );
        }
        let manifests = scenario::repository().join("deploy/install.yaml");
        let left = namespaces.into_iter().filter(|name| !KEPT.contains(&name.as_str())).map(|name| ("namespace", name));
        let crds = names("crd")?.into_iter().filter(|name| name.ends_with(".monitoring.coreos.com"));
        for (kind, name) in left.chain(crds.map(|name| ("crd", name))) {
            kubectl.run(&format!("delete {kind} {name} --ignore-not-found"))?;
        }
        kubectl.run(&format!("delete --ignore-not-found -f {}", manifests.display())).map(drop)
    }
}

/// A one-node Kubernetes with kubelet and containerd.
pub struct Node(Running);

impl Node {
    /// Why no node can run on this machine, if so.
    #[must_use]
    pub fn obstacle() -> Option<&'static str> {
        // The owner of our own /proc entry is who we are; namespaces, mounts and cgroups are root's.
        let root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
        (!root).then_some("needs root")
    }

    /// Brings one up. With `keep` it stays when this process ends; [`Self::take_down`] tells how to end it.
    ///
    /// # Errors
    /// Where something cannot be built or does not come up.
    pub fn start(keep: bool) -> Result<Self> {
        Running::start("node", &[], keep).map(Self)
    }

    /// The administrator's kubectl.
    #[must_use]
    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(self.0.folder.join("kubeconfig"))
    }

    /// The command that takes down a node that was kept.
    #[must_use]
    pub fn take_down(&self) -> String {
        format!("{} {}", folder().join("node/down.sh").display(), self.0.folder.display())
    }

    /// A command that runs inside the node's namespaces.
    #[must_use]
    pub fn inside(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(folder().join("node/in.sh"));
        command.arg(&self.0.folder).arg(program).stdin(Stdio::null());
        command
    }

    /// Makes a binary an image of the node's.
    ///
    /// # Errors
    /// Where the image cannot be written or imported.
    pub fn load_image(&self, reference: &str, binary: &Path) -> Result<()> {
        let archive = self.0.folder.join("image.tar");
        write_image(&archive, reference, binary)?;
        self.import(&archive)
    }

    /// Makes the images of an archive the node's.
    ///
    /// # Errors
    /// Where the archive cannot be imported.
    pub fn import(&self, archive: &Path) -> Result<()> {
        let snapshotter = std::fs::read_to_string(self.0.folder.join("snapshotter"))?;
        let mut import = self.inside("ctr");
        import.args(["-n", "k8s.io", "images", "import", "--snapshotter", snapshotter.trim()]).arg(archive);
        quietly(import)
    }

    /// Starts the cluster's DNS, which ends with the node.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start_dns(&self) -> Result<()> {
        let log = std::fs::File::create(self.0.folder.join("log/dns.log"))?;
        let mut dns = self.inside(folder().join("node/dns.py"));
        dns.stdout(log.try_clone()?).stderr(log).process_group(0).spawn()?;
        Ok(())
    }

    /// The real prometheus-operator and a Prometheus that takes monitors labelled `release=prometheus`.
    ///
    /// # Errors
    /// Where they do not become ready.
    pub fn install_monitoring(&self) -> Result<()> {
        let mut install = Command::new(folder().join("monitoring/install.sh"));
        install.env("KUBECONFIG", self.kubectl().kubeconfig());
        run(install)
    }

    /// Makes an address inside reachable on this host's loopback while the node lives.
    ///
    /// # Errors
    /// Where no port can be had.
    pub fn forward(&self, host: &str, port: u16) -> Result<u16> {
        let pid = std::fs::read_to_string(self.0.folder.join("init.pid"))?;
        let mut forwarder = Command::new("python3")
            .arg(folder().join("forward.py"))
            .args([pid.trim(), host, &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let mut line = String::new();
        BufReader::new(forwarder.stdout.take().context("no output")?).read_line(&mut line)?;
        line.trim().parse().context("the forwarder gave no port")
    }
}

/// Writes a container image with one program as a docker-archive, which `ctr`, `docker load` and `kind` read.
///
/// # Errors
/// Where the binary cannot be read or the archive not written.
pub fn write_image(archive: &Path, reference: &str, binary: &Path) -> Result<()> {
    let mut images = Command::new("python3");
    images.arg(folder().join("images.py")).arg(archive).args(["binary", reference]).arg(binary);
    run(images)
}

/// The same for a static binary of any architecture, as images name it.
///
/// # Errors
/// Where the binary cannot be read or the archive not written.
pub fn write_static_image(archive: &Path, reference: &str, binary: &Path, arch: &str) -> Result<()> {
    let mut images = Command::new("python3");
    images.arg(folder().join("images.py")).arg(archive).args(["binary", reference]).arg(binary).arg(arch);
    run(images)
}
