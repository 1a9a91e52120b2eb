//! Long requests end when what admitted them no longer would.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Body;
use rustls::pki_types::UnixTime;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::authorize::Case;
use crate::auth::Principal;
use crate::lookup::Lookups;
use crate::policy::{Mechanism, Permit};
use crate::snapshot::SnapshotStore;

/// Certificates expire without anybody's doing: looked at this often.
const INTERVAL: Duration = Duration::from_secs(10);
/// A body of at most this size is soon through.
const SHORT: u64 = 1024 * 1024;

/// Whether a body may take so long that it has to be watched.
pub(super) fn is_long(body: &impl Body) -> bool {
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
pub(super) struct Standing {
    user: Option<Arc<str>>,
    mechanism: Mechanism,
}

impl Standing {
    pub(super) fn of(permit: &Permit) -> Self {
        let user = permit.principal().map(Principal::shared_name);
        Self { user, mechanism: permit.mechanism() }
    }
}

/// A watch over one permit; it stops when the last of its copies is dropped.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    /// Fires when the permit no longer holds.
    pub(super) ends: CancellationToken,
    _done: Arc<DropGuard>,
}

impl Watch {
    /// Asks again with every snapshot after the one of the decision, and every few seconds.
    pub(super) fn start(
        case: Arc<Case>,
        standing: Standing,
        decided_on: u64,
        store: Arc<SnapshotStore>,
        lookups: Arc<Lookups>,
    ) -> Self {
        let (ends, done) = (CancellationToken::new(), CancellationToken::new());
        let watch = Self { ends: ends.clone(), _done: Arc::new(done.clone().drop_guard()) };
        let mut generation = store.subscribe();
        tokio::spawn(async move {
            let lost = async {
                let mut is_newest = *generation.borrow_and_update() == decided_on;
                loop {
                    if std::mem::replace(&mut is_newest, true) {
                        next(&mut generation).await;
                    }
                    let (admission, _) =
                        case.authorize(&store.load(), &lookups, UnixTime::now()).await;
                    if !admission.is_ok_and(|admission| Standing::of(&admission.permit) == standing)
                    {
                        return;
                    }
                }
            };
            tokio::select! {
                () = lost => ends.cancel(),
                () = done.cancelled() => {}
            }
        });
        watch
    }
}

async fn next(generation: &mut watch::Receiver<u64>) {
    tokio::select! {
        // The store outlives every connection; should it not, the interval is left.
        changed = generation.changed() => if changed.is_err() { tokio::time::sleep(INTERVAL).await },
        () = tokio::time::sleep(INTERVAL) => {}
    }
}
