//! The requests of an HTTP/2 connection, each a task of its own, until its client takes nothing more of its answer.
//!
//! A body that was asked for more, gave something and is not asked again has a client that lets nothing more be sent on its
//! stream. Such a request is given up, which resets its stream; the connection and the others on it go on. Over HTTP/1.1
//! the write itself is blocked (`patience`).

use std::cell::{Cell, OnceCell};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use hyper::rt::Executor;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::patience::{Patience, Timer};
use super::turn::Turn;

/// A body gives no more than this at once, as much as a frame holds: who takes as much in time is waited for.
const PIECE: usize = 16 * 1024;

/// A connection and its requests are worked at for so long in a row. That is enough for ten usual ones, whose answers then
/// go out together; a hundred that each need a connection to a backend would take milliseconds.
const TURN: Duration = Duration::from_micros(200);

tokio::task_local! {
    /// Of this task.
    static STREAM: Stream;
}

#[derive(Debug, Default)]
struct Stream {
    /// Who is to do something next.
    next: Cell<Move>,
    /// Resets the stream, where it became a tunnel.
    tunnel: OnceCell<CancellationToken>,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Move {
    /// Nothing was heard of the body.
    #[default]
    Unknown,
    /// The body has nothing to give yet.
    Backend,
    /// It gave something.
    Client,
    /// The client let it lie.
    GivenUp,
}

/// A body has something to give; what of it is to be given later.
pub(super) fn gives(data: &mut Bytes) -> Option<Bytes> {
    STREAM.try_with(|stream| stream.next.set(Move::Client)).ok()?;
    (data.len() > PIECE).then(|| data.split_off(PIECE))
}

/// A body has nothing to give, or nothing more.
pub(super) fn waits() {
    // Over HTTP/1.1 nobody asks.
    let _attended = STREAM.try_with(|stream| stream.next.set(Move::Backend));
}

/// Whether the client of this stream let its answer lie.
pub(super) fn is_given_up() -> bool {
    STREAM.try_with(|stream| stream.next.get()) == Ok(Move::GivenUp)
}

/// For what a request becomes that goes on after its answer: cancelled, it resets the stream. Over HTTP/1.1 it does
/// nothing, for there the connection ends.
pub(super) fn tunnel() -> CancellationToken {
    let token = STREAM.try_with(|stream| stream.tunnel.get_or_init(CancellationToken::new).clone());
    token.unwrap_or_default()
}

/// Runs the requests of one connection.
#[derive(Clone, Debug)]
pub(super) struct Streams(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    patience: Arc<Patience>,
    turn: Arc<Turn>,
    /// Whether the connection has ended.
    is_over: AtomicBool,
}

impl Streams {
    pub(super) fn new(patience: Arc<Patience>) -> Self {
        Self(Arc::new(Shared { patience, turn: Turn::new(TURN), is_over: AtomicBool::new(false) }))
    }

    /// The turn that they share with their connection.
    pub(super) fn turn(&self) -> &Arc<Turn> {
        &self.0.turn
    }

    /// The connection has ended: nothing is begun for requests that cannot be answered any more.
    pub(super) fn end(&self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.0.is_over.load(Ordering::Relaxed)
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, task: F) {
        // What a request begins itself is the way back of its tunnel.
        match STREAM.try_with(|stream| stream.tunnel.get().cloned()) {
            Ok(Some(reset)) => {
                tokio::spawn(until_reset(reset, task));
            }
            Ok(None) | Err(_) => {
                tokio::spawn(STREAM.scope(Stream::default(), attended(task, self.clone())));
            }
        }
    }
}

/// The way back of a tunnel. What broke off has no end of its own to give: a client would take it for the whole.
async fn until_reset(reset: CancellationToken, way: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        () = reset.cancelled() => {}
        () = way => {}
    }
}

/// A request until its end, or until nobody takes what it has to say.
async fn attended(request: impl Future<Output = ()>, streams: Streams) {
    fn next<T>(look: impl FnOnce(&Cell<Move>) -> T) -> T {
        STREAM.with(|stream| look(&stream.next))
    }
    let mut request = pin!(Some(request));
    let (mut since, mut timer, mut sharer) = (None, Timer::default(), streams.turn().sharer());
    std::future::poll_fn(|context| {
        next(|next| next.set(Move::Unknown));
        let polled = sharer.poll(context, |context| {
            let going_on = request.as_mut().as_pin_mut().filter(|_| !streams.is_over());
            let polled = going_on.map_or(Poll::Ready(()), |request| request.poll(context));
            if polled.is_ready() {
                // What it leaves behind takes its time as well.
                request.set(None);
            }
            polled
        });
        if polled.is_ready() || sharer.waits() {
            return polled;
        }
        match next(Cell::get) {
            Move::Client => since = Some(Instant::now()),
            Move::Backend => since = None,
            Move::Unknown | Move::GivenUp => {}
        }
        let Some(since) = since else { return Poll::Pending };
        let end = streams.0.patience.poll_end(since, &mut timer, context);
        if end.is_ready() {
            next(|next| next.set(Move::GivenUp));
        }
        end
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(500);

    /// What a request does that is asked after these pauses, in milliseconds, and gives something or not.
    async fn request(asked: &[(u64, bool)]) {
        for (pause, gives) in asked {
            tokio::time::sleep(Duration::from_millis(*pause)).await;
            if *gives { drop(super::gives(&mut Bytes::from_static(b"x"))) } else { waits() }
        }
        std::future::pending().await
    }

    async fn lasts(asked: &[(u64, bool)]) -> Option<Duration> {
        let started = Instant::now();
        let attended = STREAM
            .scope(Stream::default(), attended(request(asked), Streams::new(Patience::new(LIMIT))));
        let ended = tokio::time::timeout(LIMIT * 4, attended).await;
        ended.is_ok().then(|| started.elapsed())
    }

    #[tokio::test]
    async fn a_request_is_given_up_when_what_it_gave_is_left_lying() {
        let (at_once, later) =
            tokio::join!(lasts(&[(0, true)]), lasts(&[(0, true), (200, true), (200, true)]),);
        assert!(at_once.is_some_and(|time| time >= LIMIT), "{at_once:?}");
        assert!(later.is_some_and(|time| time >= LIMIT + Duration::from_millis(400)), "{later:?}");
    }

    #[tokio::test]
    async fn one_that_has_nothing_to_give_is_not() {
        let (silent, waiting) = tokio::join!(lasts(&[]), lasts(&[(0, true), (100, false)]));
        assert_eq!((silent, waiting), (None, None));
    }

    #[tokio::test]
    async fn nothing_more_is_done_for_a_connection_that_has_ended() {
        let streams = Streams::new(Patience::new(LIMIT));
        streams.end();
        let request = async { panic!("it is begun") };
        STREAM.scope(Stream::default(), attended(request, streams)).await;
    }

    #[tokio::test]
    async fn what_is_reset_does_not_come_to_its_end_at_the_same_moment() {
        let (reset, over) = (CancellationToken::new(), tokio::sync::Notify::new());
        let ended = Cell::new(false);
        let way = async {
            over.notified().await;
            ended.set(true);
        };
        let mut way = pin!(until_reset(reset.clone(), way));
        assert!(futures_util::poll!(&mut way).is_pending());
        reset.cancel();
        over.notify_one();
        way.await;
        assert!(!ended.get());
    }

    #[tokio::test]
    async fn pieces_are_cut_where_somebody_attends() {
        let mut long = Bytes::from(vec![0; PIECE + 1]);
        assert_eq!(gives(&mut long), None);
        let cut = async {
            let mut long = long.clone();
            (gives(&mut long).map(|rest| rest.len()), long.len())
        };
        assert_eq!(STREAM.scope(Stream::default(), cut).await, (Some(1), PIECE));
    }
}
