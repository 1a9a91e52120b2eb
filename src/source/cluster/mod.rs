//! A cluster's watches: what the API server says, kept as one World.
//!
//! Everything that is not referred to is let go at once: of ConfigMaps and Secrets only those are held that an Ingress or
//! a policy names. Watches come back by themselves; while they are away, everything stays as it was.

mod fetch;
mod keeper;
mod kinds;
mod read;
mod watches;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use kube::Client;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::compile::{Finding, ObjectKind, ObjectName, ObjectRef, World};
use fetch::Fetch;
use keeper::{Change, Keeper};
use watches::{Watches, What, covers};

/// Events come in flocks: this long nothing more must come.
const QUIET: Duration = Duration::from_millis(3);
/// But not longer than this.
const LONGEST_QUIET: Duration = Duration::from_millis(50);
/// What was written into a status comes back, for thousands of objects at times, and nobody waits for it: this long nothing
/// more must come, and not longer than that.
const STATUS_QUIET: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(1));
/// This long a change waits for objects that it refers to and that are still being fetched.
const FETCH_PATIENCE: Duration = Duration::from_millis(500);

/// How often it is looked after watches that do not say anything.
const LOOK: Duration = Duration::from_secs(1);

/// What is looked at.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Namespaces; empty for all of them.
    pub namespaces: Vec<String>,
    /// Secrets that are held though nothing names them.
    pub secrets: Vec<ObjectName>,
}

/// Something happened.
#[derive(Debug)]
pub enum Update<'a> {
    /// Not everything is known yet; a sentence says what is waited for.
    Waiting(String),
    /// Everything is known, and something changed.
    Changed {
        /// Every object, in its last good state.
        world: &'a World,
        /// Objects that cannot be read.
        unreadable: Vec<Finding>,
        /// Nothing of it is compiled.
        status_only: bool,
    },
    /// Which kinds' watches fail, and why; nothing of what was known is lost.
    Failing(&'a BTreeMap<ObjectKind, String>),
}

/// Watches until it is dropped. Each message of `nudges` makes it tell what it knows once more.
pub async fn watch_cluster(
    client: Client,
    scope: Scope,
    mut nudges: mpsc::Receiver<()>,
    mut tell: impl FnMut(Update<'_>),
) {
    let mut watches = Watches::start(&client, &scope.namespaces, &scope.secrets);
    let mut keeper = Keeper::new(scope.secrets);
    let mut fetches: FuturesUnordered<Fetch> = FuturesUnordered::new();
    let (mut pending, mut failing) = (Pending::default(), BTreeMap::new());
    let mut look = tokio::time::interval_at(Instant::now() + LOOK, LOOK);
    // Objects asked for the first time: what is asked for again keeps no change waiting.
    let mut awaited = 0_usize;
    loop {
        tokio::select! {
            Some((kind, place, what)) = watches.next() => {
                pending.note(take(&mut keeper, kind, &place, what));
                watches.go_on(&client);
            }
            Some(fetched) = fetches.next(), if !fetches.is_empty() => {
                awaited -= usize::from(!fetched.again);
                match fetched.found {
                    Ok(object) => pending.note(keeper.fetched(&fetched.asked, object)),
                    Err(error) if keeper.is_asked(&fetched.asked) => {
                        tracing::warn!(object = %fetched.asked.reference, %error, "an object cannot be read, and is asked for again");
                        fetches.push(fetch::later(client.clone(), fetched.asked));
                    }
                    Err(_) => {}
                }
            }
            () = pending.due(awaited == 0), if pending.is_any() && watches.all_listed() => {
                keeper.classes_unknown(watches.is_done_without(ObjectKind::IngressClass));
                tell(Update::Changed {
                    world: keeper.world(),
                    unreadable: keeper.unreadable(),
                    status_only: !pending.world,
                });
                pending = Pending::default();
            }
            Some(()) = nudges.recv() => pending.note(Change::Status),
            _ = look.tick() => {
                watches.recover();
                if !watches.all_listed() {
                    tell(Update::Waiting(watches.missing()));
                }
            }
        }
        for asked in keeper.newly_wanted(|kind| watches.is_listed(kind)) {
            if covers(&scope.namespaces, &asked.reference.name.namespace) {
                fetches.push(fetch::now(client.clone(), asked));
                awaited += 1;
            }
        }
        let now = watches.failing();
        if now != failing {
            failing = now;
            tell(Update::Failing(&failing));
        }
    }
}

fn take(keeper: &mut Keeper, kind: ObjectKind, place: &str, what: What) -> Change {
    match what {
        What::Apply(object) => keeper.apply(kind, *object),
        What::Delete(name) => keeper.delete(&ObjectRef { kind, name }),
        What::Listed(names) => keeper.keep_only(kind, place, &names),
        What::Failed(_) => Change::Nothing,
    }
}

/// Changes that nobody was told of yet.
#[derive(Debug, Default)]
struct Pending {
    since: Option<Instant>,
    last: Option<Instant>,
    world: bool,
}

impl Pending {
    fn note(&mut self, change: Change) {
        if change == Change::Nothing {
            return;
        }
        let now = Instant::now();
        if change == Change::World && !self.world {
            // It does not wait with statuses.
            (self.world, self.since) = (true, None);
        }
        self.since.get_or_insert(now);
        self.last = Some(now);
    }

    fn is_any(&self) -> bool {
        self.since.is_some()
    }

    /// When it is time to tell.
    async fn due(&self, nothing_on_its_way: bool) {
        let (Some(since), Some(last)) = (self.since, self.last) else { return };
        let (quiet, longest) = if self.world { (QUIET, LONGEST_QUIET) } else { STATUS_QUIET };
        let quiet = (last + quiet).min(since + longest);
        sleep_until(if nothing_on_its_way { quiet } else { since + FETCH_PATIENCE }).await;
    }
}

/// Reads everything once: for commands that look at a cluster and go.
///
/// # Errors
/// A kind cannot be listed; a CRD that is not there counts as no objects where it is none of certmap's.
pub async fn read_cluster(
    client: &Client,
    scope: &Scope,
) -> Result<(World, BTreeMap<ObjectRef, Finding>), kube::Error> {
    let mut keeper = Keeper::new(scope.secrets.clone());
    for watched in kinds::ALL.iter().filter(|watched| !watched.referenced_only) {
        let is_class = watched.kind == ObjectKind::IngressClass;
        let by_name = is_class && !scope.namespaces.is_empty();
        match fetch::list(client, watched, &scope.namespaces).await {
            Ok(objects) => objects.into_iter().for_each(|object| {
                keeper.apply(watched.kind, object);
            }),
            Err(kube::Error::Api(status))
                if (watched.optional || by_name) && matches!(status.code, 403 | 404) =>
            {
                if is_class {
                    keeper.classes_unknown(true);
                }
            }
            Err(error) => return Err(error),
        }
    }
    for asked in keeper.newly_wanted(|_| true) {
        if covers(&scope.namespaces, &asked.reference.name.namespace) {
            let object = fetch::get(client, &asked.reference).await?;
            keeper.fetched(&asked, object);
        }
    }
    Ok(keeper.into_parts())
}
