//! The watches themselves: which have listed, which fail, and why.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use backon::ExponentialBuilder;
use futures_util::stream::{BoxStream, SelectAll};
use futures_util::{StreamExt, stream};
use kube::Client;
use kube::api::{Api, DynamicObject};
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::ResetTimerBackoff;
use kube::runtime::watcher::{self, Event, ExponentialBackoff, watcher};

use super::kinds::{ALL, Watched};
use super::{fetch, read};
use crate::compile::{ObjectKind, ObjectName};

/// Between attempts, at first and at most; each is drawn by lot within, so that replicas do not come all at once.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// A watch that was well for so long begins with the first of them again.
const RESET_AFTER: Duration = Duration::from_secs(20);
const PAGE: u32 = 200;

/// A watch that failed tries again within the backoff and the client's connect timeout: with no further failure for so
/// long it is well, even if nothing happens that it could tell.
const WELL_AFTER: Duration = Duration::from_secs(11);

/// What a watch said.
pub(super) enum What {
    Apply(Box<DynamicObject>),
    Delete(ObjectName),
    /// A list is whole: in the watch's scope there are these and no others.
    Listed(HashSet<ObjectName>),
    /// It failed, and tries again.
    Failed(Failure),
}

#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) sentence: String,
    /// The kind does not exist, or is nothing for us to see.
    denied: bool,
}

#[derive(Debug)]
struct State {
    watched: &'static Watched,
    /// A namespace; empty for all.
    scope: String,
    /// Of the namespace this object alone.
    only: Option<ObjectName>,
    optional: bool,
    started: bool,
    listed: bool,
    failing: Option<(Failure, Instant)>,
}

impl State {
    /// Whether everything was listed, or need not be.
    fn is_done(&self) -> bool {
        let denied = self.failing.as_ref().is_some_and(|(failure, _)| failure.denied);
        self.listed || (self.optional && denied)
    }
}

/// All watches as one.
pub(super) struct Watches {
    streams: SelectAll<BoxStream<'static, (usize, What)>>,
    states: Vec<State>,
}

impl Watches {
    /// Starts those on which the others depend. `secrets` are watched each by its name where its namespace is none of those
    /// that are watched, and done without where that is not granted.
    pub(super) fn start(client: &Client, namespaces: &[String], secrets: &[ObjectName]) -> Self {
        let mut states = Vec::new();
        for watched in ALL {
            // A class is known by its name where no more than some namespaces may be read.
            let by_name = watched.kind == ObjectKind::IngressClass && !namespaces.is_empty();
            states.extend(fetch::scopes(watched, namespaces).into_iter().map(|scope| State {
                watched,
                scope,
                only: None,
                optional: watched.optional || by_name,
                started: false,
                listed: false,
                failing: None,
            }));
        }
        let apart = secrets.iter().filter(|secret| !covers(namespaces, &secret.namespace));
        let of_secrets = Watched::of(ObjectKind::Secret);
        states.extend(of_secrets.into_iter().flat_map(|watched| {
            apart.clone().map(move |secret| State {
                watched,
                scope: secret.namespace.clone(),
                only: Some(secret.clone()),
                optional: true,
                started: false,
                listed: false,
                failing: None,
            })
        }));
        let mut watches = Self { streams: SelectAll::new(), states };
        watches.begin(client, |watched| !watched.referenced_only);
        watches
    }

    /// Starts the rest as soon as it is known what is referred to.
    pub(super) fn go_on(&mut self, client: &Client) {
        let waits = self.states.iter().any(|state| !state.started);
        if waits && self.states.iter().all(|state| !state.started || state.is_done()) {
            self.begin(client, |watched| watched.referenced_only);
        }
    }

    fn begin(&mut self, client: &Client, which: impl Fn(&Watched) -> bool) {
        let states = self.states.iter_mut().enumerate();
        for (index, state) in states.filter(|(_, state)| which(state.watched)) {
            state.started = true;
            let api = fetch::api(client, state.watched, &state.scope);
            self.streams.push(one(index, state.watched, state.only.as_ref(), api));
        }
    }

    /// What any of them says next, of which kind, and in which scope.
    pub(super) async fn next(&mut self) -> Option<(ObjectKind, String, What)> {
        let (index, what) = self.streams.next().await?;
        let state = self.states.get_mut(index)?;
        #[expect(clippy::disallowed_methods, reason = "how long a watch is away is measured here")]
        let now = Instant::now();
        match &what {
            What::Failed(failure) => state.failing = Some((failure.clone(), now)),
            What::Listed(_) => (state.listed, state.failing) = (true, None),
            What::Apply(_) | What::Delete(_) => state.failing = None,
        }
        let kind = state.watched.kind;
        Some(match (&state.only, what) {
            // There may be others in its namespace.
            (Some(only), What::Listed(names)) if names.is_empty() => {
                (kind, String::new(), What::Delete(only.clone()))
            }
            (Some(only), what) => (kind, only.to_string(), what),
            (None, what) => (kind, state.scope.clone(), what),
        })
    }

    /// Forgets failures that are long past.
    pub(super) fn recover(&mut self) {
        for state in &mut self.states {
            state.failing.take_if(|(_, since)| since.elapsed() > WELL_AFTER);
        }
    }

    /// What is wrong with each kind.
    pub(super) fn failing(&self) -> BTreeMap<ObjectKind, String> {
        let failing = self.states.iter().filter_map(|state| {
            let (failure, _) = state.failing.as_ref()?;
            // Done without. What was listed once is in force, and goes stale.
            let is_done_without = state.optional && failure.denied && !state.listed;
            (!is_done_without).then(|| (state.watched.kind, failure.sentence.clone()))
        });
        failing.collect()
    }

    /// Whether there is nothing more to wait for.
    pub(super) fn all_listed(&self) -> bool {
        self.states.iter().all(|state| state.started && state.is_done())
    }

    pub(super) fn is_listed(&self, kind: ObjectKind) -> bool {
        let mut states = self.states.iter().filter(|state| state.watched.kind == kind);
        states.all(|state| state.started && state.is_done())
    }

    /// Whether a kind was never listed, and is done without.
    pub(super) fn is_done_without(&self, kind: ObjectKind) -> bool {
        let mut states = self.states.iter().filter(|state| state.watched.kind == kind);
        states.all(|state| !state.listed && state.is_done())
    }

    /// What is waited for.
    pub(super) fn missing(&self) -> String {
        let missing = self.states.iter().filter(|state| !state.is_done()).map(|state| {
            let failing = state.failing.as_ref();
            failing.map_or_else(|| state.watched.plural(), |(failure, _)| failure.sentence.clone())
        });
        let mut missing: Vec<String> = missing.collect();
        missing.dedup();
        missing.join("; ")
    }
}

/// Whether a namespace is among these; without any, all are.
pub(super) fn covers(namespaces: &[String], namespace: &str) -> bool {
    namespaces.is_empty() || namespaces.iter().any(|it| it == namespace)
}

fn one(
    index: usize,
    watched: &'static Watched,
    only: Option<&ObjectName>,
    api: Api<DynamicObject>,
) -> BoxStream<'static, (usize, What)> {
    let config = watcher::Config::default().page_size(PAGE);
    let config = match (only, watched.fields) {
        (Some(only), _) => config.fields(&format!("metadata.name={}", only.name)),
        (None, Some(fields)) => config.fields(fields),
        (None, None) => config,
    };
    let backoff = ExponentialBuilder::default()
        .with_min_delay(BACKOFF.0)
        .with_max_delay(BACKOFF.1)
        .with_jitter()
        .without_max_times();
    let events = watcher(api, config)
        .backoff(ResetTimerBackoff::new(ExponentialBackoff::from(backoff), RESET_AFTER));
    let whats = events.scan(HashSet::new(), move |listed, event| {
        let what = what(watched, listed, event).map(|what| (index, what));
        std::future::ready(Some(stream::iter(what)))
    });
    whats.flatten().boxed()
}

fn what(
    watched: &Watched,
    listed: &mut HashSet<ObjectName>,
    event: watcher::Result<Event<DynamicObject>>,
) -> Option<What> {
    match event {
        Ok(Event::Apply(object)) => Some(What::Apply(Box::new(object))),
        Ok(Event::Delete(object)) => Some(What::Delete(read::name(&object))),
        Ok(Event::Init) => {
            listed.clear();
            None
        }
        Ok(Event::InitApply(object)) => {
            listed.insert(read::name(&object));
            Some(What::Apply(Box::new(object)))
        }
        Ok(Event::InitDone) => Some(What::Listed(std::mem::take(listed))),
        // A watch that grew too old is begun again by itself.
        Err(watcher::Error::WatchError(status)) if status.code == 410 => None,
        Err(error) => Some(What::Failed(failure(watched, &error))),
    }
}

fn failure(watched: &Watched, error: &watcher::Error) -> Failure {
    let plural = watched.plural();
    let cause = match error {
        watcher::Error::InitialListFailed(cause)
        | watcher::Error::WatchStartFailed(cause)
        | watcher::Error::WatchFailed(cause) => cause,
        watcher::Error::WatchError(_) | watcher::Error::NoResourceVersion => {
            return Failure { sentence: format!("{plural}: {error}"), denied: false };
        }
    };
    let (sentence, denied) = match cause {
        kube::Error::Api(status) if status.code == 403 => {
            (format!("{plural} may not be listed and watched: grant it ({})", status.message), true)
        }
        kube::Error::Api(status) if status.code == 404 && watched.kind.is_policy() => (
            format!(
                "{} is not installed: install the chart certmap-crds of this release, or write certmap crds | kubectl apply -f -",
                watched.kind
            ),
            true,
        ),
        kube::Error::Api(status) if status.code == 404 => {
            (format!("{plural} are not installed"), true)
        }
        cause => (format!("{plural}: the API server cannot be asked: {}", deepest(cause)), false),
    };
    Failure { sentence, denied }
}

fn deepest(error: &dyn std::error::Error) -> String {
    let mut causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.by_ref().last().map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(optional: bool, denied: bool, listed: bool) -> bool {
        let watched = Watched::of(ObjectKind::ReferenceGrant).unwrap();
        let sentence = "referencegrants may not be listed and watched: grant it".to_owned();
        let state = State {
            watched,
            scope: String::new(),
            only: None,
            optional,
            started: true,
            listed,
            #[expect(clippy::disallowed_methods, reason = "it failed now")]
            failing: Some((Failure { sentence, denied }, Instant::now())),
        };
        let watches = Watches { streams: SelectAll::new(), states: vec![state] };
        watches.failing().contains_key(&ObjectKind::ReferenceGrant)
    }

    #[test]
    fn only_of_what_is_done_without_nothing_is_said() {
        for listed in [false, true] {
            for denied in [false, true] {
                assert!(failing(false, denied, listed), "{denied} {listed}");
            }
            assert!(failing(true, false, listed), "{listed}");
        }
        assert!(!failing(true, true, false));
        assert!(failing(true, true, true), "it was listed, and its right is gone");
    }
}
