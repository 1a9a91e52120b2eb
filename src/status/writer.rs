//! Writes what is to be written, and tries again what fails. The newest state of each object counts; nothing is queued twice.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{Api, Patch as ApiPatch, PatchParams, PostParams};
use kube::{Client, Error};
use serde_json::{Value, json};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};

use super::FIELD_MANAGER;
use super::report::Patch;
use crate::api::{CertMappingPolicy, RoutePolicy};
use crate::compile::{ObjectKind, ObjectName};

/// At the same time. The status of a policy with a thousand mappings costs the API server a second, and others wait for it too.
const AT_ONCE: usize = 2;
/// What changes again within this time is written once.
const ROUND: Duration = Duration::from_millis(250);
/// What was written comes back through the watch within this time; until then it is not written again.
const ECHO: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_secs(2);
/// So often an Event is tried.
const TRIES: usize = 5;
/// More Events than this wait for nobody.
const MOST_EVENTS: usize = 2048;

/// The version of certmap's own kinds.
const OURS: &str = "certmap.dev/v1alpha1";

/// What there is to write.
pub type Work = Arc<Vec<Patch>>;

/// Counts what was written.
pub type Written = Box<dyn Fn(&'static str, bool) + Send + Sync>;

/// Where the work is put in.
#[derive(Debug)]
pub struct Outbox {
    patches: watch::Sender<Work>,
    events: mpsc::Sender<Event>,
}

impl Outbox {
    /// Everything that differs now, in place of what was put in before.
    pub fn patches(&self, patches: Vec<Patch>) {
        self.patches.send_replace(Arc::new(patches));
    }

    /// One more Event; where too many wait it is dropped.
    pub fn event(&self, event: Event) {
        if let Err(TrySendError::Full(event)) = self.events.try_send(event) {
            tracing::debug!(note = event.note, "too many events: this one is dropped");
        }
    }
}

/// An outbox, and the loop that empties it. `again` is called when something has to be worked out anew.
pub fn outbox(
    client: Client,
    written: Written,
    again: impl Fn() + Send + Sync + 'static,
) -> (Outbox, impl Future<Output = ()> + Send) {
    let (patches, work) = watch::channel(Work::default());
    let (events, news) = mpsc::channel(MOST_EVENTS);
    let written = Arc::new(written);
    let events_loop = tell(client.clone(), news, written.clone());
    let patches_loop = write(client, work, written, again);
    let both = async {
        tokio::join!(patches_loop, events_loop);
    };
    (Outbox { patches, events }, both)
}

async fn write(
    client: Client,
    mut work: watch::Receiver<Work>,
    written: Arc<Written>,
    again: impl Fn(),
) {
    let mut sent: HashMap<(ObjectKind, ObjectName), (Patch, Instant)> = HashMap::new();
    while work.changed().await.is_ok() {
        let patches = work.borrow_and_update().clone();
        sent.retain(|_, (_, at)| at.elapsed() < ECHO);
        let key = |patch: &Patch| (patch.target().0, patch.target().1.clone());
        let is_sent =
            |patch: &&Patch| sent.get(&key(patch)).is_some_and(|(it, _)| is_same(it, patch));
        let due: Vec<Patch> = patches.iter().filter(|patch| !is_sent(patch)).cloned().collect();
        let (client, newer) = (&client, work.clone());
        let writes = futures_util::stream::iter(due).take_while(|_| {
            // What is newer knows better.
            std::future::ready(!newer.has_changed().unwrap_or(true))
        });
        let written = &written;
        let writes = writes.map(|patch| async move {
            let outcome = apply(client, &patch).await;
            written(word(patch.target().0), outcome.is_ok());
            (outcome, patch)
        });
        let outcomes: Vec<(Result<(), String>, Patch)> =
            writes.buffer_unordered(AT_ONCE).collect().await;
        let (mut failed, wrote) = (false, !outcomes.is_empty());
        for (outcome, patch) in outcomes {
            match outcome {
                Ok(()) => {
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "how long an echo takes is measured here"
                    )]
                    let now = Instant::now();
                    sent.insert(key(&patch), (patch, now));
                }
                Err(error) => {
                    let (kind, name) = patch.target();
                    tracing::warn!(%kind, %name, error, "a status cannot be written, and is tried again");
                    failed = true;
                }
            }
        }
        if failed {
            tokio::time::sleep(RETRY).await;
            again();
        } else if wrote {
            tokio::time::sleep(ROUND).await;
        }
    }
}

fn word(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Ingress => "Ingress",
        ObjectKind::RoutePolicy => "RoutePolicy",
        _ => "CertMappingPolicy",
    }
}

/// Whether they say the same, whatever version they are written onto.
fn is_same(a: &Patch, b: &Patch) -> bool {
    match (a, b) {
        (Patch::Policy { status: a, .. }, Patch::Policy { status: b, .. }) => a == b,
        (Patch::RoutePolicy { status: a, .. }, Patch::RoutePolicy { status: b, .. }) => a == b,
        (a, b) => a == b,
    }
}

async fn apply(client: &Client, patch: &Patch) -> Result<(), String> {
    let written = async {
        let params = PatchParams::apply(FIELD_MANAGER).force();
        match patch {
            Patch::Policy { name, status, version } => {
                let (kind, status) = ("CertMappingPolicy", json!(status));
                let body = body(OURS, name, version.as_deref(), kind, &status);
                let api: Api<CertMappingPolicy> = Api::namespaced(client.clone(), &name.namespace);
                api.patch_status(&name.name, &params, &ApiPatch::Apply(body)).await.map(drop)
            }
            Patch::RoutePolicy { name, status, version } => {
                let (kind, status) = ("RoutePolicy", json!(status));
                let body = body(OURS, name, version.as_deref(), kind, &status);
                let api: Api<RoutePolicy> = Api::namespaced(client.clone(), &name.namespace);
                api.patch_status(&name.name, &params, &ApiPatch::Apply(body)).await.map(drop)
            }
            Patch::Ingress { name, status } => {
                let body = body(
                    "networking.k8s.io/v1",
                    name,
                    None,
                    "Ingress",
                    &json!({"loadBalancer": status}),
                );
                let api: Api<Ingress> = Api::namespaced(client.clone(), &name.namespace);
                api.patch_status(&name.name, &params, &ApiPatch::Apply(body)).await.map(drop)
            }
        }
    };
    match tokio::time::timeout(LIMIT, written).await {
        // It is gone: there is nothing to write onto.
        Ok(Err(Error::Api(status))) if status.code == 404 => Ok(()),
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(_) => Err("no answer".to_owned()),
    }
}

fn body(
    api_version: &str,
    name: &ObjectName,
    version: Option<&str>,
    kind: &str,
    status: &Value,
) -> Value {
    let mut metadata = json!({"name": name.name, "namespace": name.namespace});
    if let (Some(version), Some(metadata)) = (version, metadata.as_object_mut()) {
        metadata.insert("resourceVersion".to_owned(), version.into());
    }
    json!({"apiVersion": api_version, "kind": kind, "metadata": metadata, "status": status})
}

async fn tell(client: Client, mut news: mpsc::Receiver<Event>, written: Arc<Written>) {
    while let Some(event) = news.recv().await {
        for left in (0..TRIES).rev() {
            let outcome = create(&client, &event).await;
            written("Event", outcome.is_ok());
            let Err(error) = outcome else { break };
            tracing::warn!(error, note = event.note, "an event cannot be written");
            if left > 0 {
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn create(client: &Client, event: &Event) -> Result<(), String> {
    let namespace = event.metadata.namespace.clone().unwrap_or_default();
    let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
    match tokio::time::timeout(LIMIT, api.create(&PostParams::default(), event)).await {
        // It was said before, by this replica or another; or its namespace is gone or going.
        Ok(Err(Error::Api(status))) if matches!(status.code, 404 | 409) => Ok(()),
        Ok(Err(Error::Api(status)))
            if status.code == 403 && status.message.contains("terminated") =>
        {
            Ok(())
        }
        Ok(outcome) => outcome.map(drop).map_err(|error| error.to_string()),
        Err(_) => Err("no answer".to_owned()),
    }
}
