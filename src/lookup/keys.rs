//! The keys of issuers, fetched and kept fresh apart from requests: a request never waits for them.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::https::{FetchError, fetch};
use super::names::NameLookup;
use crate::auth::{KeySet, KeySetError, KeySource, KeysQuestion, TokenKeys};
use crate::policy::Module;
use crate::snapshot::{Snapshot, SnapshotStore};

/// How long what takes.
#[derive(Clone, Copy, Debug)]
struct Pauses {
    /// Until the next fetch, where an answer says nothing of how long it is good.
    usual: Duration,
    /// At least, whatever it says.
    shortest: Duration,
    /// At most.
    longest: Duration,
    /// Tokens that name an unknown key make nobody fetch more often than this.
    least: Duration,
    /// After a failure; twice as long after the next.
    first_retry: Duration,
    /// At most.
    last_retry: Duration,
    /// Keys that were fetched longer ago are not used any more.
    oldest: Duration,
}

const PAUSES: Pauses = Pauses {
    usual: Duration::from_secs(300),
    shortest: Duration::from_secs(60),
    longest: Duration::from_secs(3600),
    least: Duration::from_secs(30),
    first_retry: Duration::from_secs(2),
    last_retry: Duration::from_secs(60),
    oldest: Duration::from_secs(12 * 3600),
};

/// Fetches of key sets, counted: "ok" or "failed".
pub type CountFetch = Arc<dyn Fn(&'static str) + Send + Sync>;

/// Why there are no keys to answer with.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KeysUnavailable {
    /// They could not be fetched yet.
    #[error("the issuer's keys could not be fetched yet")]
    NeverFetched,
    /// They have not been fetched for long.
    #[error("the issuer's keys were fetched too long ago")]
    TooOld,
    /// The token's key is new, and is being looked for.
    #[error(
        "the token names a key that is not known yet: the issuer's keys are being fetched anew"
    )]
    Fetching,
}

/// The keys of every issuer that a policy in force names by URL.
pub struct KeyLookup {
    issuers: Mutex<HashMap<Arc<KeySource>, Kept>>,
    names: Arc<NameLookup>,
    count: CountFetch,
    pauses: Pauses,
}

/// One of them; who refreshes it ends with this.
struct Kept {
    issuer: Arc<Issuer>,
    _refresher: AbortOnDropHandle<()>,
}

struct Issuer {
    source: Arc<KeySource>,
    state: Mutex<State>,
    /// Somebody wants to know sooner.
    wanted: Notify,
    /// Whether that is not answered yet.
    pending: AtomicBool,
    pauses: Pauses,
}

/// A key set, and how long it says it is good.
type Fetched = (KeySet, Option<Duration>);

#[derive(Default)]
struct State {
    keys: Option<(Arc<KeySet>, Instant)>,
    tried: Option<Instant>,
}

#[derive(Debug, thiserror::Error)]
enum RefreshError {
    #[error("{0}")]
    Fetch(#[from] FetchError),
    #[error("{0}")]
    Keys(#[from] KeySetError),
}

impl KeyLookup {
    /// Knows no issuer yet.
    #[must_use]
    pub fn new(names: Arc<NameLookup>, count: CountFetch) -> Self {
        Self { issuers: Mutex::default(), names, count, pauses: PAUSES }
    }

    /// Keeps to the policies in force, as long as there are any to come.
    pub async fn follow(self: Arc<Self>, store: Arc<SnapshotStore>) {
        let mut generation = store.subscribe();
        loop {
            generation.mark_unchanged();
            self.keep(&sources(&store.load()));
            if generation.changed().await.is_err() {
                return;
            }
        }
    }

    /// Keys, from memory.
    ///
    /// # Errors
    /// There are none that may be used.
    pub fn answer(&self, question: &KeysQuestion) -> Result<Arc<KeySet>, KeysUnavailable> {
        let issuer = lock(&self.issuers).get(&question.source).map(|kept| kept.issuer.clone());
        let issuer = issuer.ok_or(KeysUnavailable::NeverFetched)?;
        issuer.keys(question.key_id.as_deref(), Instant::now())
    }

    /// Starts with those that are new, and stops with those that are gone.
    fn keep(&self, sources: &HashSet<Arc<KeySource>>) {
        let mut issuers = lock(&self.issuers);
        issuers.retain(|source, _| sources.contains(source));
        for source in sources {
            if !issuers.contains_key(source) {
                issuers.insert(source.clone(), self.start(source.clone()));
            }
        }
    }

    fn start(&self, source: Arc<KeySource>) -> Kept {
        let issuer = Arc::new(Issuer::new(source, self.pauses));
        let (refreshed, names, count) = (issuer.clone(), self.names.clone(), self.count.clone());
        let refresher = tokio::spawn(async move {
            let mut failures = 0;
            loop {
                let pause = refreshed.refresh(&names, &count, &mut failures).await;
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = refreshed.wanted.notified() => {}
                }
            }
        });
        Kept { issuer, _refresher: AbortOnDropHandle::new(refresher) }
    }
}

impl std::fmt::Debug for KeyLookup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyLookup").finish_non_exhaustive()
    }
}

impl Issuer {
    fn new(source: Arc<KeySource>, pauses: Pauses) -> Self {
        let (wanted, pending) = (Notify::new(), AtomicBool::new(false));
        Self { source, state: Mutex::default(), wanted, pending, pauses }
    }

    fn keys(&self, wanted: Option<&str>, now: Instant) -> Result<Arc<KeySet>, KeysUnavailable> {
        let (keys, tried) = {
            let state = lock(&self.state);
            let (keys, fetched) = state.keys.clone().ok_or(KeysUnavailable::NeverFetched)?;
            if now.saturating_duration_since(fetched) > self.pauses.oldest {
                return Err(KeysUnavailable::TooOld);
            }
            (keys, state.tried)
        };
        if keys.may_hold(wanted) {
            return Ok(keys);
        }
        let may_ask =
            tried.is_none_or(|tried| now.saturating_duration_since(tried) >= self.pauses.least);
        if may_ask && !self.pending.swap(true, Ordering::AcqRel) {
            self.wanted.notify_one();
        }
        if self.pending.load(Ordering::Acquire) {
            return Err(KeysUnavailable::Fetching);
        }
        Ok(keys)
    }

    /// Fetches once; says when to do it again.
    async fn refresh(
        &self,
        names: &NameLookup,
        count: &CountFetch,
        failures: &mut u32,
    ) -> Duration {
        let result = self.fetch(names).await;
        let pause = self.note(result, failures);
        count(if *failures == 0 { "ok" } else { "failed" });
        self.pending.store(false, Ordering::Release);
        pause
    }

    fn note(&self, result: Result<Fetched, RefreshError>, failures: &mut u32) -> Duration {
        let now = Instant::now();
        let mut state = lock(&self.state);
        state.tried = Some(now);
        match result {
            Ok((keys, age)) => {
                state.keys = Some((Arc::new(keys), now));
                *failures = 0;
                age.unwrap_or(self.pauses.usual).clamp(self.pauses.shortest, self.pauses.longest)
            }
            Err(error) => {
                let url = self.source.url();
                tracing::warn!(%url, %error, "an issuer's keys cannot be fetched: those fetched before stay in use");
                let pause = self.pauses.first_retry.saturating_mul(1 << (*failures).min(8));
                *failures = failures.saturating_add(1);
                pause.min(self.pauses.last_retry)
            }
        }
    }

    async fn fetch(&self, names: &NameLookup) -> Result<Fetched, RefreshError> {
        let document = fetch(&self.source, names).await?;
        Ok((KeySet::parse(&document.body)?, document.max_age))
    }
}

fn sources(snapshot: &Snapshot) -> HashSet<Arc<KeySource>> {
    let modules = snapshot.policies.iter().flat_map(|policy| &policy.modules);
    let fetched = modules.filter_map(|module| match module {
        Module::Bearer { bearer, .. } => match &bearer.keys {
            TokenKeys::Published(source) => Some(source.clone()),
            TokenKeys::Held(_) | TokenKeys::Missing(_) => None,
        },
        _ => None,
    });
    fetched.collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
