//! Wiring: a source feeds the compiler, the compiler the store, the store the wire. Nothing is decided here.

mod cluster;
mod control;
mod lookups;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use cluster::{Access, ClusterSettings, connect};
pub use lookups::ask;

use crate::api::{CLASS_NAME, CONTROLLER_NAME, IDENTITY_ISSUER};
use crate::compile::{ObjectName, Options, World};
use crate::proxy::{ListenerSettings, Parts, Proxy, Timeouts};
use crate::snapshot::SnapshotStore;
use crate::source::{Directory, DirectoryWatch, Problem, Scan};
use crate::telemetry::{AccessLog, Admin, Destination, Format, Metrics, Shown, serve};
use control::{Control, describe};
use lookups::lookups;

/// What `certmap run` is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the objects come from.
    pub source: Source,
    /// Plain HTTP.
    pub http: SocketAddr,
    /// TLS.
    pub https: SocketAddr,
    /// Health, metrics, snapshot.
    pub admin: SocketAddr,
    /// Where access records go.
    pub access_log: Destination,
    /// How they are written.
    pub access_log_format: Format,
    /// How long backends may take.
    pub timeouts: Timeouts,
    /// How connections are accepted and served.
    pub listener: ListenerSettings,
    /// Threads that serve.
    pub workers: NonZeroUsize,
    /// How the end goes.
    pub drain: Drain,
    /// What objects do not say.
    pub rules: Rules,
}

/// Where objects come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A directory of manifests.
    Directory(PathBuf),
    /// A cluster.
    Cluster(Box<ClusterSettings>),
}

/// What is told to the compiler.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Every Ingress needs a policy.
    pub policy_required: bool,
    /// Services of type ExternalName may be backends.
    pub external_names: bool,
    /// The zone that this replica stands in.
    pub zone: Option<String>,
    /// `spec.controller` of the IngressClasses that are ours.
    pub controller_name: String,
    /// The class that is ours by its name.
    pub class_name: String,
    /// The route policy that says what others leave out.
    pub default_route_policy: Option<ObjectName>,
    /// In whose name identities are signed.
    pub identity_issuer: String,
    /// The TLS Secret whose certificate is shown where there is none.
    pub default_certificate: Option<ObjectName>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            policy_required: false,
            external_names: false,
            zone: None,
            controller_name: CONTROLLER_NAME.to_owned(),
            class_name: CLASS_NAME.to_owned(),
            default_route_policy: None,
            identity_issuer: IDENTITY_ISSUER.to_owned(),
            default_certificate: None,
        }
    }
}

/// How the end goes.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    /// This long new connections are still served, while whoever sends them learns that it is over.
    pub delay: Duration,
    /// This long open requests may take after that.
    pub timeout: Duration,
}

/// The program, serving.
#[derive(Debug)]
pub struct Running {
    /// Where plain HTTP is served.
    pub http: SocketAddr,
    /// Where TLS is.
    pub https: SocketAddr,
    /// Where health is.
    pub admin: SocketAddr,
    proxy: Proxy,
    state: Arc<Admin>,
    log: AccessLog,
    control: ControlPlane,
    drain: Drain,
    /// Of the admin port.
    stop: CancellationToken,
}

/// What makes snapshots.
#[derive(Debug)]
enum ControlPlane {
    Directory(DirectoryWatch),
    Cluster { thread: JoinHandle<()>, stop: CancellationToken },
}

impl ControlPlane {
    fn stop(self) {
        match self {
            Self::Directory(watch) => drop(watch),
            Self::Cluster { thread, stop } => {
                stop.cancel();
                drop(thread.join());
            }
        }
    }
}

impl Running {
    /// Says that it ends, serves on for a while, lets open requests end, and then everything.
    pub async fn stop(self) {
        self.state.drains();
        self.proxy.leave();
        tokio::time::sleep(self.drain.delay).await;
        self.proxy.drain(self.drain.timeout).await;
        self.stop.cancel();
        let ended = tokio::task::spawn_blocking(move || {
            self.control.stop();
            self.log.flush(Duration::from_secs(5));
        });
        drop(ended.await);
    }
}

/// Reads, compiles, and serves; returns once it does.
///
/// # Errors
/// The directory cannot be read, there is no cluster, or an address cannot be listened on.
pub async fn start(settings: Settings) -> anyhow::Result<Running> {
    let metrics = Arc::new(Metrics::default());
    let log = AccessLog::start(
        settings.access_log,
        settings.access_log_format,
        metrics.dropped_records(),
    )
    .context("the access log cannot be opened")?;
    let admin_listener = listen(settings.admin, "--admin").await?;
    let admin = admin_listener.local_addr()?;
    let state = Arc::new(Admin::new(metrics.clone()));
    let stop = CancellationToken::new();
    tokio::spawn(serve(admin_listener, state.clone(), stop.clone()));
    let (store, control) = match settings.source {
        Source::Directory(path) => directory(&path, settings.rules, &metrics)?,
        Source::Cluster(cluster) => {
            from_cluster(*cluster, settings.rules, &metrics, state.clone()).await?
        }
    };
    let http = listen(settings.http, "--http").await?;
    let https = listen(settings.https, "--https").await?;
    let addresses = (http.local_addr()?, https.local_addr()?);
    let lookups = Arc::new(lookups(&metrics)?);
    tokio::spawn(lookups.keys.clone().follow(store.clone()));
    let shown = store.clone();
    let (timeouts, listener) = (settings.timeouts, settings.listener);
    let parts = Parts {
        store,
        lookups,
        metrics,
        log: log.clone(),
        timeouts,
        settings: listener,
        workers: settings.workers,
    };
    let proxy = Proxy::start(http, https, parts)?;
    let published = shown.clone();
    state.serves(Shown {
        snapshot: Box::new(move || format!("{:#}", shown.load().dump())),
        keys: Box::new(move || format!("{:#}", published.load().key_set())),
    });
    let (http, https) = addresses;
    Ok(Running { http, https, admin, proxy, state, log, control, drain: settings.drain, stop })
}

fn directory(
    path: &Path,
    rules: Rules,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<(Arc<SnapshotStore>, ControlPlane)> {
    let mut directory = Directory::new(path);
    let scan = directory.rescan().with_context(|| unreadable(path))?;
    let mut control = Control::new(options(true, rules)?, metrics.clone());
    let mut store = None;
    from_scan(&mut control, &directory, &scan, &mut store)?;
    let first = store.clone().context("nothing is compiled")?;
    let watch = DirectoryWatch::start(directory, move |directory, scan| {
        if let Err(error) = from_scan(&mut control, directory, &scan, &mut store) {
            tracing::error!(%error, "the last snapshot stays in force");
        }
    })?;
    Ok((first, ControlPlane::Directory(watch)))
}

fn from_scan(
    control: &mut Control,
    directory: &Directory,
    scan: &Scan,
    store: &mut Option<Arc<SnapshotStore>>,
) -> anyhow::Result<()> {
    let problems: Vec<String> = scan.problems.iter().map(ToString::to_string).collect();
    let place = |finding: &crate::compile::Finding| {
        let place = directory.locate(&finding.object, &finding.field);
        let place = place.map(|(file, line)| format!("{}:{line}: ", file.display()));
        format!("{}{}", place.unwrap_or_default(), describe(finding))
    };
    control.put_in_force(&scan.world, Vec::new(), &problems, store, place).map(drop)
}

async fn from_cluster(
    cluster: ClusterSettings,
    rules: Rules,
    metrics: &Arc<Metrics>,
    state: Arc<Admin>,
) -> anyhow::Result<(Arc<SnapshotStore>, ControlPlane)> {
    let control = Control::new(options(false, rules)?, metrics.clone());
    let stop = CancellationToken::new();
    let cluster::Started { thread, first } =
        cluster::start(cluster, control, state, metrics.clone(), stop.clone())?;
    let store = first.await.context("the control plane ended")??;
    Ok((store, ControlPlane::Cluster { thread, stop }))
}

/// Compiler options with a fallback certificate made on the spot.
///
/// # Errors
/// No key can be generated.
pub fn options(directory: bool, rules: Rules) -> anyhow::Result<Options> {
    let made = rcgen::generate_simple_self_signed(["certmap.invalid".to_owned()])
        .context("no fallback certificate")?;
    let key =
        PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
    let certified =
        CertifiedKey::from_der(vec![made.cert.der().clone()], key, &aws_lc_rs::default_provider())?;
    Ok(Options {
        directory,
        controller_name: rules.controller_name,
        class_name: rules.class_name,
        policy_required: rules.policy_required,
        external_names: rules.external_names,
        zone: rules.zone,
        identity_issuer: rules.identity_issuer,
        default_route_policy: rules.default_route_policy,
        default_certificate: rules.default_certificate,
        fallback_certificate: Arc::new(certified),
    })
}

fn unreadable(manifests: &Path) -> String {
    format!("{} cannot be read: give a directory (or a file) of manifests", manifests.display())
}

async fn listen(address: SocketAddr, option: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("{address} cannot be listened on: free it, or give {option} another address")
    })
}

/// The objects of several directories and files together, and what is wrong with each.
///
/// # Errors
/// One of them cannot be read.
pub fn read_all(paths: &[PathBuf]) -> anyhow::Result<(Vec<Directory>, World, Vec<Problem>)> {
    let (mut directories, mut world, mut problems) = (Vec::new(), World::default(), Vec::new());
    for path in paths {
        let mut directory = Directory::new(path);
        let scan = directory.rescan().with_context(|| unreadable(path))?;
        let named = |file: PathBuf| {
            if file.as_os_str().is_empty() { path.clone() } else { path.join(file) }
        };
        problems.extend(
            scan.problems
                .into_iter()
                .map(|problem| Problem { file: named(problem.file.clone()), ..problem }),
        );
        world.merge(scan.world);
        directories.push(directory);
    }
    Ok((directories, world, problems))
}
