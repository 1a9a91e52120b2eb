//! Wiring: a source feeds the compiler, the compiler the store, the store the wire. Nothing is decided here.

mod cluster;
mod control;
mod listeners;
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
pub use listeners::Sockets;
pub use lookups::ask;

use crate::api::{CLASS_NAME, CONTROLLER_NAME, IDENTITY_ISSUER};
use crate::compile::{ObjectName, Options, World};
use crate::proxy::{ListenerSettings, Parts, Proxy, Timeouts};
use crate::snapshot::{SnapshotStore, TlsRules};
use crate::source::{Directory, DirectoryWatch, Locator, Problem, Scan};
use crate::telemetry::{
    AccessLog, Admin, Collector, Destination, Format, Metrics, Shown, Spans, serve,
};
use control::{Control, describe};
use lookups::lookups;

/// What `certmap run` is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the objects come from.
    pub source: Source,
    /// Plain HTTP.
    pub http: Vec<SocketAddr>,
    /// TLS.
    pub https: Vec<SocketAddr>,
    /// How these are listened on.
    pub sockets: Sockets,
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
    /// Where spans go.
    pub collector: Option<Collector>,
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
    /// The Secret with keys for session tickets.
    pub ticket_keys: Option<ObjectName>,
    /// What every handshake goes by.
    pub tls: TlsRules,
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
            ticket_keys: None,
            tls: TlsRules::default(),
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
    pub http: Vec<SocketAddr>,
    /// Where TLS is.
    pub https: Vec<SocketAddr>,
    /// Where health is.
    pub admin: SocketAddr,
    proxy: Proxy,
    state: Arc<Admin>,
    log: AccessLog,
    spans: Option<Spans>,
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
        if let Some(spans) = &self.spans {
            spans.flush(Duration::from_secs(2)).await;
        }
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
    settings.rules.tls.check().context("no handshake could succeed: --tls-cipher-suites names none of a version that --tls-min-version allows")?;
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
    let http = settings.sockets.listen(&settings.http, "--http")?;
    let https = settings.sockets.listen(&settings.https, "--https")?;
    let addresses = (addresses(&http)?, addresses(&https)?);
    let lookups = Arc::new(lookups(&metrics)?);
    tokio::spawn(lookups.keys.clone().follow(store.clone()));
    let shown = store.clone();
    let (timeouts, mut listener) = (settings.timeouts, settings.listener);
    let spans = settings
        .collector
        .map(|collector| Spans::start(collector, metrics.spans("sent"), metrics.spans("dropped")));
    if let Some(trace) = &mut listener.trace {
        trace.spans.clone_from(&spans);
    }
    let parts = Parts {
        store,
        lookups,
        metrics,
        log: log.clone(),
        timeouts,
        settings: listener,
        workers: settings.workers,
    };
    let proxy = start_proxy(http, https, parts)?;
    let published = shown.clone();
    state.serves(Shown {
        snapshot: Box::new(move || format!("{:#}", shown.load().dump())),
        keys: Box::new(move || format!("{:#}", published.load().key_set())),
    });
    let (http, https) = addresses;
    let drain = settings.drain;
    Ok(Running { http, https, admin, proxy, state, log, spans, control, drain, stop })
}

fn addresses(listeners: &[TcpListener]) -> std::io::Result<Vec<SocketAddr>> {
    listeners.iter().map(TcpListener::local_addr).collect()
}

fn start_proxy(
    http: Vec<TcpListener>,
    https: Vec<TcpListener>,
    parts: Parts,
) -> anyhow::Result<Proxy> {
    let (mut http, mut https) = (http.into_iter(), https.into_iter());
    let first = http.next().zip(https.next()).context("no address to listen on")?;
    let proxy = Proxy::start(first.0, first.1, parts)?;
    http.try_for_each(|listener| proxy.listen(listener, false))?;
    https.try_for_each(|listener| proxy.listen(listener, true))?;
    Ok(proxy)
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
    let locator = Locator::new(directory);
    let place = |finding: &crate::compile::Finding| {
        let place = locator.locate(&finding.object, &finding.field);
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
        ticket_keys: rules.ticket_keys,
        tls: rules.tls,
        fallback_certificate: Arc::new(Arc::new(certified).into()),
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
