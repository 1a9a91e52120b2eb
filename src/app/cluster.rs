//! The control plane in a cluster: one thread that watches, compiles, and says what became of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::IngressLoadBalancerIngress;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::control::{Control, Outcome, describe};
use crate::compile::{Finding, ObjectKind, ObjectName, Options, World};
use crate::snapshot::SnapshotStore;
use crate::source::{Scope, Update, watch_cluster};
use crate::status::{
    Author, Election, KeyKind, Leadership, Outbox, Publish, SIGNING_KEYS, Said, TICKET_KEYS,
    WantedKeys, Written, addresses, events, keep_keys, outbox, patches, wanted_keys,
    wanted_ticket_keys,
};
use crate::telemetry::{Admin, Metrics};

/// How often it is looked where this installation can be reached.
const ADDRESSES: Duration = Duration::from_secs(5);
/// The days to an expiry change without any event.
const HOURLY: Duration = Duration::from_secs(3600);
const CONNECT: Duration = Duration::from_secs(4);

/// Which cluster, what of it, and what to say back.
#[derive(Clone, Debug, Default)]
pub struct ClusterSettings {
    /// How to get there.
    pub access: Access,
    /// What is looked at.
    pub scope: Scope,
    /// Whether anything is written back.
    pub write_status: bool,
    /// Where this installation can be reached.
    pub publish: Publish,
    /// After how long the signing keys that certmap makes itself move up; without it, it makes none.
    pub signing_keys: Option<Duration>,
    /// The Secret with the keys of session tickets, and after how long they move up; without it they are kept by hand.
    pub ticket_keys: Option<(ObjectName, Duration)>,
    /// Namespace and name of the lease that says which replica writes.
    pub lease: (String, String),
    /// This replica's name.
    pub identity: String,
}

/// How a cluster is reached.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// A kubeconfig file; without one what kubectl would use, or in a pod its service account.
    pub kubeconfig: Option<PathBuf>,
    /// One of its contexts.
    pub context: Option<String>,
}

/// A client for a cluster.
///
/// # Errors
/// There is no usable configuration.
pub async fn connect(access: &Access) -> anyhow::Result<Client> {
    let options = KubeConfigOptions { context: access.context.clone(), ..Default::default() };
    let mut config = match &access.kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)
                .with_context(|| format!("{} cannot be read", path.display()))?;
            Config::from_custom_kubeconfig(file, &options).await?
        }
        None if access.context.is_some() => Config::from_kubeconfig(&options).await?,
        None => Config::infer()
            .await
            .context("no cluster: give --kubeconfig, or --manifests for a directory")?,
    };
    config.connect_timeout = Some(CONNECT);
    Client::try_from(config).context("no client for the cluster")
}

/// The thread, and the store once there is something to serve.
pub(super) struct Started {
    pub(super) thread: JoinHandle<()>,
    pub(super) first: oneshot::Receiver<anyhow::Result<Arc<SnapshotStore>>>,
}

/// Starts the thread.
///
/// # Errors
/// The system has no more threads.
pub(super) fn start(
    settings: ClusterSettings,
    control: Control,
    admin: Arc<Admin>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> anyhow::Result<Started> {
    let (tell, first) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let body = move || {
        runtime.block_on(run(settings, control, admin, metrics, stop, tell));
        // What still waits for the API server is not waited for.
        runtime.shutdown_background();
    };
    let thread = std::thread::Builder::new().name("control".to_owned()).spawn(body)?;
    Ok(Started { thread, first })
}

async fn run(
    settings: ClusterSettings,
    control: Control,
    admin: Arc<Admin>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    tell: oneshot::Sender<anyhow::Result<Arc<SnapshotStore>>>,
) {
    let client = match connect(&settings.access).await {
        Ok(client) => client,
        Err(error) => {
            // Whoever waits has gone only when the program ends.
            drop(tell.send(Err(error)));
            return;
        }
    };
    metrics.watches(|_| false);
    let (nudge, nudges) = mpsc::channel(1);
    let again = move || {
        // One that waits already does for both.
        let _told = nudge.try_send(());
    };
    let options = &control.options;
    let writing = settings
        .write_status
        .then(|| Writing::start(&client, &settings, options, &metrics, Arc::new(again)));
    let (writer, election) = writing.unzip();
    let mut plane = Plane {
        control,
        admin,
        metrics,
        writer,
        store: None,
        first: Some(tell),
        outcome: Outcome::default(),
    };
    tokio::select! {
        () = watch_cluster(client, settings.scope, nudges, |update| plane.take(update)) => {}
        () = stop.cancelled() => {}
    }
    if let Some((running, election)) = election {
        running.cancel();
        if let Ok(election) = election.await {
            Election::resign(election).await;
        }
    }
}

/// What an update changes.
struct Plane {
    control: Control,
    admin: Arc<Admin>,
    metrics: Arc<Metrics>,
    writer: Option<Writing>,
    store: Option<Arc<SnapshotStore>>,
    first: Option<oneshot::Sender<anyhow::Result<Arc<SnapshotStore>>>>,
    outcome: Outcome,
}

impl Plane {
    fn take(&mut self, update: Update<'_>) {
        match update {
            Update::Waiting(what) => self.wait(&what),
            Update::Failing(failing) => self.fail(failing),
            Update::Changed { world, unreadable, status_only } => {
                if !status_only || self.store.is_none() {
                    self.compile(world, unreadable);
                }
                if let Some(writer) = &mut self.writer {
                    writer.work(world, &self.outcome);
                }
            }
        }
    }

    fn wait(&self, what: &str) {
        if self.admin.waits_for(what) {
            tracing::info!("nothing is served yet: {what}");
        }
    }

    fn fail(&self, failing: &BTreeMap<ObjectKind, String>) {
        for problem in failing.values() {
            tracing::warn!("{problem}; what was known stays in force");
        }
        self.metrics.watches(|kind| failing.keys().any(|it| it.to_string() == kind));
    }

    fn compile(&mut self, world: &World, unreadable: Vec<Finding>) {
        let outcome = self.control.put_in_force(world, unreadable, &[], &mut self.store, describe);
        match outcome {
            Ok(outcome) => self.outcome = outcome,
            Err(error) => return tracing::error!(%error, "the last snapshot stays in force"),
        }
        if let (Some(first), Some(store)) = (self.first.take(), &self.store) {
            drop(first.send(Ok(store.clone())));
        }
    }
}

type Addresses = Arc<Mutex<Option<Vec<IngressLoadBalancerIngress>>>>;
/// The election, to be stopped and then resigned from.
type Running = (CancellationToken, tokio::task::JoinHandle<Election>);

/// What is said back, by the replica that leads.
struct Writing {
    outbox: Outbox,
    leadership: Leadership,
    said: Said,
    addresses: Addresses,
    /// Told which signing keys there should be.
    keys: Option<watch::Sender<WantedKeys>>,
    /// The same of ticket keys.
    tickets: Option<(ObjectName, watch::Sender<WantedKeys>)>,
    controller: String,
    default_route_policy: Option<ObjectName>,
    identity: String,
}

impl Writing {
    fn start(
        client: &Client,
        settings: &ClusterSettings,
        options: &Options,
        metrics: &Arc<Metrics>,
        again: Arc<dyn Fn() + Send + Sync>,
    ) -> (Self, Running) {
        let (namespace, name) = &settings.lease;
        let (mut election, leadership) =
            Election::new(client.clone(), namespace, name, &settings.identity);
        let stop = CancellationToken::new();
        let running = {
            let stop = stop.clone();
            tokio::spawn(async move {
                stop.run_until_cancelled(election.run()).await;
                election
            })
        };
        let (leads, counted) = (leadership.clone(), metrics.clone());
        let nudge = again.clone();
        tokio::spawn(async move {
            let mut leads = leads;
            while leads.changed().await.is_ok() {
                counted.leads(*leads.borrow_and_update());
                nudge();
            }
        });
        let nudge = again.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(HOURLY).await;
                nudge();
            }
        });
        let known = Addresses::default();
        if settings.publish.is_any() {
            let looking =
                look(client.clone(), settings.publish.clone(), known.clone(), again.clone());
            tokio::spawn(looking);
        }
        let kept = |kind: &'static KeyKind, period| {
            let (keys, wanted) = watch::channel(WantedKeys::default());
            let (leads, written) = (leadership.clone(), count(metrics));
            tokio::spawn(keep_keys(kind, client.clone(), wanted, leads, period, written));
            keys
        };
        let keys = settings.signing_keys.map(|period| kept(&SIGNING_KEYS, period));
        let tickets = settings.ticket_keys.clone();
        let tickets = tickets.map(|(name, period)| (name, kept(&TICKET_KEYS, period)));
        let written = count(metrics);
        let (outbox, writing) = outbox(client.clone(), written, move || again());
        tokio::spawn(writing);
        let identity = settings.identity.clone();
        let said = Said::default();
        let addresses = known;
        let controller = options.controller_name.clone();
        let default_route_policy = options.default_route_policy.clone();
        let writing = Self {
            outbox,
            leadership,
            said,
            addresses,
            keys,
            tickets,
            controller,
            default_route_policy,
            identity,
        };
        (writing, (stop, running))
    }

    fn work(&mut self, world: &World, outcome: &Outcome) {
        if let Some(keys) = &self.keys {
            tell(keys, wanted_keys(world));
        }
        if let Some((name, keys)) = &self.tickets {
            tell(keys, wanted_ticket_keys(world, name));
        }
        if !*self.leadership.borrow() {
            return;
        }
        let now = Timestamp::now();
        let default_route_policy = self.default_route_policy.as_ref();
        let author = Author { controller_name: &self.controller, now, default_route_policy };
        let addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Outcome { findings, summaries, ours } = outcome;
        let patches = patches(world, findings, summaries, ours, addresses.as_deref(), &author);
        self.outbox.patches(patches);
        let names = (&*self.controller, &*self.identity);
        for event in events(world, findings, &mut self.said, names, now) {
            self.outbox.event(event);
        }
    }
}

fn tell(keys: &watch::Sender<WantedKeys>, now: WantedKeys) {
    keys.send_if_modified(|then| {
        let differs = *then != now;
        *then = now;
        differs
    });
}

fn count(metrics: &Arc<Metrics>) -> Written {
    let metrics = metrics.clone();
    Box::new(move |kind, ok| metrics.written(kind, ok))
}

async fn look(
    client: Client,
    publish: Publish,
    known: Addresses,
    again: Arc<dyn Fn() + Send + Sync>,
) {
    loop {
        match addresses(&client, &publish).await {
            Ok(now) => {
                let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                if known.as_ref() != Some(&now) {
                    *known = Some(now);
                    again();
                }
            }
            Err(error) => tracing::warn!(%error, "the addresses to publish cannot be read"),
        }
        tokio::time::sleep(ADDRESSES).await;
    }
}
