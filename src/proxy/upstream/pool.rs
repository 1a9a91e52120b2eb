//! Connections that are kept: for HTTP/1.1 a list of those at rest, for HTTP/2 those that requests share.
//!
//! A connection is driven by a task on the runtime that opened it. No lock is held while anything is waited for.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use foldhash::HashMap;
use hyper::client::conn::{http1, http2};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::super::body::RequestBody;
use super::super::deadline::Deadline;
use super::super::turn::Turn;
use crate::identity::Fingerprint;

/// Connections at rest for each address; further ones are closed.
const MOST_AT_REST: usize = 512;
/// Streams on one connection, whatever the backend allows.
const MOST_STREAMS: usize = 100;

/// Streams before the backend has said how many it wants: what is sent beyond that is refused.
pub(super) const FIRST_STREAMS: usize = 1;

/// Which versions of HTTP a backend is offered.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Offer {
    Http1,
    Http2,
    /// Over TLS: whichever it prefers.
    Either,
}

/// Connections are for one address, one set of TLS settings, and one offer.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Key {
    pub(super) address: SocketAddr,
    pub(super) tls: Option<Fingerprint>,
    pub(super) offer: Offer,
}

/// A connection that a request can be sent on.
pub(super) enum Line {
    One(One),
    Shared(http2::SendRequest<RequestBody>, Stream),
}

/// An HTTP/1.1 connection.
pub(super) struct One {
    pub(super) sender: http1::SendRequest<RequestBody>,
    pub(super) way_back: Arc<WayBack>,
}

impl One {
    /// The answer's head is there: as soon as its body is through, the connection is anybody's again.
    pub(super) fn give_back(self) {
        let Self { sender, way_back } = self;
        *way_back.sender() = Some(sender);
        // Should it have come to rest just before, its task has nothing more to do.
        if let Some(sender) = way_back.sender().take_if(|sender| sender.is_ready()) {
            way_back.clone().rest(sender);
        }
    }
}

/// Where an HTTP/1.1 connection goes when its request is done.
pub(super) struct WayBack {
    shelf: Weak<Shelf>,
    /// Until when the answer to its request has to begin.
    deadline: Mutex<Deadline>,
    sender: Mutex<Option<http1::SendRequest<RequestBody>>>,
}

impl WayBack {
    pub(super) fn to(shelf: &Arc<Shelf>) -> Arc<Self> {
        let (shelf, deadline) = (Arc::downgrade(shelf), Mutex::default());
        Arc::new(Self { shelf, deadline, sender: Mutex::default() })
    }

    /// Comes at the end, unless the answer does before.
    pub(super) fn poll_end(&self, end: Instant, context: &mut Context<'_>) -> Poll<()> {
        self.deadline.lock().unwrap_or_else(PoisonError::into_inner).poll(end, context)
    }

    /// Called by the connection's task whenever something moved on it.
    pub(super) fn look(self: &Arc<Self>, context: &mut Context<'_>) {
        let mut waiting = self.sender();
        let Some(sender) = waiting.as_mut() else { return };
        match sender.poll_ready(context) {
            Poll::Ready(Ok(())) => {
                let sender = waiting.take();
                drop(waiting);
                sender.into_iter().for_each(|sender| self.clone().rest(sender));
            }
            Poll::Ready(Err(_)) => *waiting = None,
            Poll::Pending => {}
        }
    }

    fn rest(self: Arc<Self>, sender: http1::SendRequest<RequestBody>) {
        if let Some(shelf) = self.shelf.upgrade() {
            let mut resting = shelf.resting();
            if resting.len() < MOST_AT_REST {
                resting.push((One { sender, way_back: self }, Instant::now()));
            }
        }
    }

    fn sender(&self) -> MutexGuard<'_, Option<http1::SendRequest<RequestBody>>> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An HTTP/2 connection that requests share.
pub(super) struct Trunk {
    sender: http2::SendRequest<RequestBody>,
    streams: AtomicUsize,
    /// What the backend allows, as far as it has said so.
    limit: AtomicUsize,
    /// It takes no more, whatever is still on its way on it.
    ended: AtomicBool,
    /// Since somebody last looked.
    used: AtomicBool,
}

/// One request's part of an HTTP/2 connection.
pub(super) struct Stream(Arc<Trunk>);

impl Stream {
    /// The connection takes no more.
    pub(super) fn ends_its_trunk(&self) {
        self.0.end();
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Trunk {
    /// A connection, and its first stream.
    pub(super) fn begin(sender: http2::SendRequest<RequestBody>) -> (Arc<Self>, Line) {
        let trunk = Arc::new(Self {
            sender: sender.clone(),
            streams: AtomicUsize::new(1),
            limit: AtomicUsize::new(FIRST_STREAMS),
            ended: AtomicBool::new(false),
            used: AtomicBool::new(true),
        });
        (trunk.clone(), Line::Shared(sender, Stream(trunk)))
    }

    /// What the backend allows, as it has said.
    pub(super) fn limited_to(&self, streams: usize) {
        self.limit.store(streams, Ordering::Relaxed);
    }

    /// It takes no more.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        // Long before hyper knows that it is closed, it may take nothing more (RFC 9113, 6.8).
        self.ended.load(Ordering::Relaxed) || self.sender.is_closed()
    }

    /// A stream, if there is room for one.
    fn stream(self: &Arc<Self>) -> Option<Line> {
        let limit = self.limit.load(Ordering::Relaxed).min(MOST_STREAMS);
        let more = |streams| (streams < limit).then_some(streams + 1);
        let (set, fetch) = (Ordering::AcqRel, Ordering::Relaxed);
        self.streams.fetch_update(set, fetch, more).ok()?;
        self.used.store(true, Ordering::Relaxed);
        Some(Line::Shared(self.sender.clone(), Stream(self.clone())))
    }
}

/// The connections for one key.
pub(super) struct Shelf {
    resting: Mutex<Vec<(One, Instant)>>,
    trunks: Mutex<Vec<Arc<Trunk>>>,
    /// Where requests will share a connection, one of them opens it, and the others wait until it is known for how many.
    pub(super) opening: Arc<Semaphore>,
    /// Over TLS: whether HTTP/2 was agreed on, the last time.
    pub(super) agreed: AtomicBool,
    pub(super) connector: OnceLock<TlsConnector>,
    /// In which connections that have ended are closed.
    pub(super) closing: Arc<Turn>,
}

impl Shelf {
    fn new(offer: Offer, closing: Arc<Turn>) -> Self {
        Self {
            closing,
            resting: Mutex::default(),
            trunks: Mutex::default(),
            opening: Arc::new(Semaphore::new(1)),
            agreed: AtomicBool::new(offer != Offer::Http1),
            connector: OnceLock::new(),
        }
    }

    /// A kept connection, the one that was used last.
    pub(super) fn take(&self) -> Option<Line> {
        if self.agreed.load(Ordering::Relaxed)
            && let Some(line) = self.share()
        {
            return Some(line);
        }
        let mut resting = self.resting();
        while let Some((one, _)) = resting.pop() {
            if one.sender.is_ready() {
                return Some(Line::One(one));
            }
        }
        None
    }

    /// A stream on a connection that is there.
    pub(super) fn share(&self) -> Option<Line> {
        let mut trunks = self.trunks();
        trunks.retain(|trunk| !trunk.is_over());
        trunks.iter().find_map(Trunk::stream)
    }

    pub(super) fn add(&self, trunk: Arc<Trunk>) {
        self.trunks().push(trunk);
    }

    /// Lets go of what has been at rest for this long, and of HTTP/2 connections that were not used since the last time.
    fn sweep(&self, idle: Duration, now: Instant) {
        let is_old = |it: &mut (One, Instant)| {
            it.0.sender.is_closed() || now.saturating_duration_since(it.1) >= idle
        };
        let is_unused = |trunk: &mut Arc<Trunk>| {
            let used = trunk.used.swap(false, Ordering::Relaxed);
            let busy = used || trunk.streams.load(Ordering::Acquire) > 0;
            trunk.is_over() || !busy
        };
        // To let go of a connection wakes its task: not while others want the lists.
        let resting: Vec<_> = self.resting().extract_if(.., is_old).collect();
        let trunks: Vec<_> = self.trunks().extract_if(.., is_unused).collect();
        drop((resting, trunks));
    }

    fn is_empty(&self) -> bool {
        self.resting().is_empty() && self.trunks().is_empty()
    }

    fn resting(&self) -> MutexGuard<'_, Vec<(One, Instant)>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trunks(&self) -> MutexGuard<'_, Vec<Arc<Trunk>>> {
        self.trunks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All kept connections.
pub(super) struct Pool {
    /// By where they lead, which no client chooses: a hash that none can foresee would cost each request more.
    shelves: Mutex<HashMap<Key, Arc<Shelf>>>,
    idle: Duration,
    is_swept: AtomicBool,
    closing: Arc<Turn>,
}

impl Pool {
    pub(super) fn new(idle: Duration) -> Self {
        let closing = Turn::of_closing();
        Self { shelves: Mutex::default(), idle, is_swept: AtomicBool::new(false), closing }
    }

    pub(super) fn shelf(self: &Arc<Self>, key: Key) -> Arc<Shelf> {
        let mut shelves = self.shelves();
        if let Some(shelf) = shelves.get(&key) {
            return shelf.clone();
        }
        let shelf = Arc::new(Shelf::new(key.offer, self.closing.clone()));
        shelves.insert(key, shelf.clone());
        drop(shelves);
        if !self.is_swept.swap(true, Ordering::AcqRel) {
            tokio::spawn(keep_swept(Arc::downgrade(self), self.idle));
        }
        shelf
    }

    fn sweep(&self, now: Instant) {
        // Every request asks for a shelf: they are not locked while each is looked through.
        let all: Vec<Arc<Shelf>> = self.shelves().values().cloned().collect();
        all.into_iter().for_each(|shelf| shelf.sweep(self.idle, now));
        let is_done = |_: &Key, shelf: &mut Arc<Shelf>| {
            // Whoever holds it is about to use it, or is a connection that will come back to it.
            shelf.is_empty() && Arc::strong_count(shelf) == 1 && Arc::weak_count(shelf) == 0
        };
        let done: Vec<_> = self.shelves().extract_if(is_done).collect();
        drop(done);
    }

    fn shelves(&self) -> MutexGuard<'_, HashMap<Key, Arc<Shelf>>> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

async fn keep_swept(pool: Weak<Pool>, idle: Duration) {
    // A connection is kept for half as long again, at most.
    let mut look = tokio::time::interval((idle / 2).max(Duration::from_millis(1)));
    loop {
        let now = look.tick().await;
        match pool.upgrade() {
            Some(pool) => pool.sweep(now),
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Wake, Waker};

    use hyper_util::rt::TokioIo;

    use super::*;

    /// Is told when a connection is let go, and notes whether others had to wait.
    struct Bystander {
        pool: Arc<Pool>,
        waited: Mutex<Vec<bool>>,
    }

    impl Wake for Bystander {
        fn wake(self: Arc<Self>) {
            let shelves = self.pool.shelves.try_lock();
            let is_free =
                shelves.is_ok_and(|it| it.values().all(|it| it.resting.try_lock().is_ok()));
            self.waited.lock().unwrap().push(!is_free);
        }
    }

    #[tokio::test]
    async fn nobody_waits_for_connections_that_are_let_go() {
        let idle = Duration::from_secs(60);
        let pool = Arc::new(Pool::new(idle));
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        let shelf = pool.shelf(Key { address, tls: None, offer: Offer::Http1 });
        let (ours, _theirs) = tokio::io::duplex(64);
        let (sender, connection) = http1::handshake(TokioIo::new(ours)).await.unwrap();
        let bystander = Arc::new(Bystander { pool: pool.clone(), waited: Mutex::default() });
        let waker = Waker::from(bystander.clone());
        let mut connection = pin!(connection);
        assert!(connection.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        WayBack::to(&shelf).rest(sender);
        drop(shelf);
        pool.sweep(Instant::now());
        assert!(bystander.waited.lock().unwrap().is_empty(), "it is not old yet");
        pool.sweep(Instant::now() + idle);
        let waited = bystander.waited.lock().unwrap().clone();
        assert!(!waited.is_empty() && !waited.contains(&true), "{waited:?}");
        assert!(pool.shelves().is_empty());
    }
}
