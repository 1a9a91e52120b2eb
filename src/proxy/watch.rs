//! Long requests end when what admitted them no longer would.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::Body;
use rustls::pki_types::UnixTime;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

use super::authorize::Case;
use crate::auth::Principal;
use crate::lookup::Lookups;
use crate::policy::{Mechanism, Permit};
use crate::snapshot::SnapshotStore;

/// Certificates expire without anybody's doing: looked at this often.
const INTERVAL: Duration = Duration::from_secs(10);
/// A body of at most this size is soon through, or it is asked about before more of it passes.
const SHORT: u64 = 1024 * 1024;
/// So long a permit outlives the last answer, where nobody can say whether it still holds: a directory that starts anew, or
/// guesses at passwords, end nothing that was begun.
const UNANSWERED: Duration = Duration::from_secs(60);

/// Whether a body takes so long that it is watched from the beginning.
fn is_long(body: &impl Body) -> bool {
    !body.is_end_stream() && body.size_hint().upper().is_none_or(|octets| octets > SHORT)
}

/// Comes when a watch, if there is one, sees the permit end.
pub(super) async fn ended(watch: Option<&Watch>) {
    match watch {
        Some(watch) => watch.ends.cancelled().await,
        None => std::future::pending().await,
    }
}

/// Who was admitted, as far as it must stay true.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Standing {
    user: Option<Arc<str>>,
    mechanism: Mechanism,
}

impl Standing {
    fn of(permit: &Permit) -> Self {
        let user = permit.principal().map(Principal::shared_name);
        Self { user, mechanism: permit.mechanism() }
    }
}

/// A permit as it was given, and by what it is asked about again.
#[derive(Debug)]
pub(super) struct Permitted {
    case: Arc<Case>,
    standing: Standing,
    /// The generation of its snapshot.
    decided_on: u64,
    at: Instant,
    store: Arc<SnapshotStore>,
    lookups: Arc<Lookups>,
}

impl Permitted {
    /// Now.
    pub(super) fn new(
        case: Arc<Case>,
        permit: &Permit,
        decided_on: u64,
        store: Arc<SnapshotStore>,
        lookups: Arc<Lookups>,
    ) -> Arc<Self> {
        let (standing, at) = (Standing::of(permit), Instant::now());
        Arc::new(Self { case, standing, decided_on, at, store, lookups })
    }

    /// For as long as what was begun may take: asks again with every snapshot after the one of the decision, and every few
    /// seconds.
    pub(super) fn watch(self: &Arc<Self>) -> Watch {
        self.watched(self.at + INTERVAL)
    }

    /// The same, of a body that is long.
    pub(super) fn watch_over(self: &Arc<Self>, body: &impl Body) -> Option<Watch> {
        is_long(body).then(|| self.watch())
    }

    /// What a body asks before it gives anything.
    pub(super) fn vigil(self: &Arc<Self>, body: &impl Body, watch: Option<Watch>) -> Option<Vigil> {
        (!body.is_end_stream()).then(|| {
            watch.map_or_else(|| Vigil::Later(self.clone()), |watch| Vigil::now(watch, None))
        })
    }

    fn watched(self: &Arc<Self>, due: Instant) -> Watch {
        let (ends, asked, done) =
            (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let _done = Arc::new(done.clone().drop_guard());
        let watch = Watch { ends: ends.clone(), asked: asked.clone(), _done };
        let permitted = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = permitted.lost(due, &asked) => ends.cancel(),
                () = done.cancelled() => {}
            }
        });
        watch
    }

    /// Comes when it holds no longer.
    async fn lost(&self, mut due: Instant, asked: &CancellationToken) {
        let (mut generation, mut held) = (self.store.subscribe(), self.at);
        let mut is_newest = *generation.borrow_and_update() == self.decided_on;
        loop {
            if std::mem::replace(&mut is_newest, true) {
                next(&mut generation, due).await;
            }
            let snapshot = self.store.load();
            let (admission, _) =
                self.case.authorize(&snapshot, &self.lookups, UnixTime::now()).await;
            match admission {
                Ok(admission) if Standing::of(&admission.permit) == self.standing => {
                    held = Instant::now();
                }
                Err(rejection) if rejection.is_unanswered && held.elapsed() < UNANSWERED => {}
                _ => return,
            }
            asked.cancel();
            due = Instant::now() + INTERVAL;
        }
    }
}

/// A watch over one permit; it stops when the last of its copies is dropped.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    /// Fires when the permit no longer holds.
    pub(super) ends: CancellationToken,
    /// Fires once it was asked about.
    asked: CancellationToken,
    _done: Arc<DropGuard>,
}

type Comes = Pin<Box<WaitForCancellationFutureOwned>>;

/// Whether a body may go on.
pub(super) enum Vigil {
    /// It is short: who has it take long all the same is asked about before anything more of it passes.
    Later(Arc<Permitted>),
    Now {
        ends: Comes,
        /// Until then nothing passes.
        asked: Option<Comes>,
        _watch: Watch,
    },
}

impl Vigil {
    fn now(watch: Watch, asked: Option<Comes>) -> Self {
        let ends = Box::pin(watch.ends.clone().cancelled_owned());
        Self::Now { ends, asked, _watch: watch }
    }

    /// Whether its permit has ended.
    pub(super) fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        if let Self::Later(permitted) = self {
            if permitted.at.elapsed() < INTERVAL {
                return Poll::Ready(false);
            }
            let watch = permitted.watched(permitted.at);
            let first = Box::pin(watch.asked.clone().cancelled_owned());
            *self = Self::now(watch, Some(first));
        }
        let Self::Now { ends, asked, .. } = self else { return Poll::Ready(false) };
        if ends.as_mut().poll(context).is_ready() {
            return Poll::Ready(true);
        }
        if let Some(first) = asked {
            ready!(first.as_mut().poll(context));
            *asked = None;
        }
        Poll::Ready(false)
    }
}

async fn next(generation: &mut watch::Receiver<u64>, due: Instant) {
    tokio::select! {
        // The store outlives every connection; should it not, the interval is left.
        changed = generation.changed() => if changed.is_err() { tokio::time::sleep_until(due).await },
        () = tokio::time::sleep_until(due) => {}
    }
}
