//! Wiring: a source feeds the compiler, the compiler the store, the store the wire. Nothing is decided here.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::compile::{Finding, Options, Reuse, Severity, World, compile};
use crate::lookup::PasswordLookup;
use crate::proxy::{Parts, Proxy, Timeouts};
use crate::snapshot::{Snapshot, SnapshotStore};
use crate::source::{Directory, DirectoryWatch, Problem, Scan};
use crate::telemetry::{AccessLog, Admin, Destination, Format, Metrics, serve};

/// How long requests may take to end once the program is told to.
const DRAIN: Duration = Duration::from_secs(30);

/// What `certmap run` is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the objects come from.
    pub manifests: PathBuf,
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
    /// Whether every Ingress needs a policy.
    pub policy_required: bool,
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
    watch: DirectoryWatch,
    stop: CancellationToken,
}

impl Running {
    /// Lets open requests end, and then everything.
    pub async fn stop(self) {
        self.state.ready.store(false, Ordering::Release);
        drop(self.watch);
        self.proxy.drain(DRAIN).await;
        self.stop.cancel();
        let flushed = tokio::task::spawn_blocking(move || self.log.flush(Duration::from_secs(5)));
        drop(flushed.await);
    }
}

/// Reads, compiles, and serves.
///
/// # Errors
/// The directory cannot be read, or an address not be listened on.
pub async fn start(settings: Settings) -> anyhow::Result<Running> {
    let metrics = Arc::new(Metrics::default());
    let log = AccessLog::start(
        settings.access_log,
        settings.access_log_format,
        metrics.dropped_records(),
    )
    .context("the access log cannot be opened")?;
    let mut directory = Directory::new(&settings.manifests);
    let scan = directory
        .rescan()
        .with_context(|| format!("{} cannot be read", settings.manifests.display()))?;
    let options = options(true, settings.policy_required)?;
    let mut control = Control {
        options,
        reuse: Reuse::default(),
        said: HashSet::new(),
        metrics: metrics.clone(),
    };
    let (snapshot, summary) = control.compile(&directory, &scan)?;
    let store = Arc::new(SnapshotStore::new(snapshot));
    control.in_force(&summary);
    let (http, https) = (listen(settings.http).await?, listen(settings.https).await?);
    let admin_listener = listen(settings.admin).await?;
    let addresses = (http.local_addr()?, https.local_addr()?, admin_listener.local_addr()?);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let passwords =
        Arc::new(PasswordLookup::new(cores).context("the system has no random numbers")?);
    let parts = Parts {
        store: store.clone(),
        passwords,
        metrics: metrics.clone(),
        log: log.clone(),
        timeouts: settings.timeouts,
    };
    let proxy = Proxy::start(http, https, parts)?;
    let shown = store.clone();
    let state = Arc::new(Admin {
        ready: AtomicBool::new(true),
        metrics,
        snapshot: Box::new(move || shown.load().dump()),
    });
    let stop = CancellationToken::new();
    tokio::spawn(serve(admin_listener, state.clone(), stop.clone()));
    let watch = DirectoryWatch::start(directory, move |directory, scan| {
        match control.compile(directory, &scan) {
            Ok((snapshot, summary)) => {
                store.swap(snapshot);
                control.in_force(&summary);
            }
            Err(error) => tracing::error!(%error, "the last snapshot stays in force"),
        }
    })?;
    let (http, https, admin) = addresses;
    Ok(Running { http, https, admin, proxy, state, log, watch, stop })
}

/// Compiler options with a fallback certificate made on the spot.
///
/// # Errors
/// No key can be generated.
pub fn options(directory: bool, policy_required: bool) -> anyhow::Result<Options> {
    let made = rcgen::generate_simple_self_signed(["certmap.invalid".to_owned()])
        .context("no fallback certificate")?;
    let key =
        PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
    let certified =
        CertifiedKey::from_der(vec![made.cert.der().clone()], key, &aws_lc_rs::default_provider())?;
    Ok(Options { directory, policy_required, fallback_certificate: Arc::new(certified) })
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("{address} cannot be listened on"))
}

/// What there is to say of a snapshot.
struct Summary {
    generation: u64,
    errors: usize,
    warnings: usize,
    policies: HashSet<String>,
}

/// What stays from one compilation to the next.
struct Control {
    options: Options,
    reuse: Reuse,
    /// What was said already is not said again.
    said: HashSet<String>,
    metrics: Arc<Metrics>,
}

impl Control {
    fn compile(
        &mut self,
        directory: &Directory,
        scan: &Scan,
    ) -> anyhow::Result<(Snapshot, Summary)> {
        let compiled = compile(&scan.world, &self.reuse, &self.options)?;
        self.reuse = compiled.reuse;
        self.say(directory, &scan.problems, &compiled.findings);
        let count = |severity| {
            compiled.findings.iter().filter(|finding| finding.severity == severity).count()
        };
        let summary = Summary {
            generation: compiled.snapshot.generation,
            errors: scan.problems.len() + count(Severity::Error),
            warnings: count(Severity::Warning),
            policies: scan.world.policies.keys().map(ToString::to_string).collect(),
        };
        Ok((compiled.snapshot, summary))
    }

    /// To be called once the snapshot is where requests find it.
    fn in_force(&self, Summary { generation, errors, warnings, policies }: &Summary) {
        let now = UnixTime::now().as_secs() as f64;
        self.metrics.snapshot(*generation, now, *errors, *warnings);
        self.metrics.keep_policies(|name| policies.contains(name));
        tracing::info!(generation, errors, warnings, "a new snapshot is in force");
    }

    fn say(&mut self, directory: &Directory, problems: &[Problem], findings: &[Finding]) {
        let mut now = HashSet::new();
        for problem in problems {
            let key = problem.to_string();
            if !self.said.contains(&key) {
                tracing::error!("{problem}");
            }
            now.insert(key);
        }
        for finding in findings {
            let key = format!("{finding:?}");
            if !self.said.contains(&key) {
                let text = describe(directory, finding);
                match finding.severity {
                    Severity::Error => tracing::error!("{text}"),
                    Severity::Warning => tracing::warn!("{text}"),
                }
            }
            now.insert(key);
        }
        self.said = now;
    }
}

fn describe(directory: &Directory, finding: &Finding) -> String {
    let Finding { object, field, reason, message, .. } = finding;
    let place =
        directory.locate(object, field).map(|(file, line)| format!("{}:{line}: ", file.display()));
    let field = if field.is_empty() { String::new() } else { format!("{field}: ") };
    format!("{}{object}: {field}{message} ({reason})", place.unwrap_or_default())
}

/// The objects of several directories and files together, and what is wrong with each.
///
/// # Errors
/// One of them cannot be read.
pub fn read_all(paths: &[PathBuf]) -> anyhow::Result<(Vec<Directory>, World, Vec<Problem>)> {
    let (mut directories, mut world, mut problems) = (Vec::new(), World::default(), Vec::new());
    for path in paths {
        let mut directory = Directory::new(path);
        let scan =
            directory.rescan().with_context(|| format!("{} cannot be read", path.display()))?;
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
