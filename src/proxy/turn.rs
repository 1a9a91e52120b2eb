//! How long some may keep a worker busy before whoever else is ready has a turn.
//!
//! A worker polls what is ready in a row, and looks at its sockets again after that: who has a hundred things ready at once
//! keeps all others waiting for a hundred things. So those that belong together share a turn. Who does not fit waits in a
//! line, of which the first alone is polled again, once the worker has looked who else has something to say.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::Instant;

/// What a worker's connections that have ended may take in a row to be closed. What was on its way on them and is not read
/// any more may be megabytes, which the kernel gives back then.
const CLOSING: Duration = Duration::from_micros(50);
/// Connections that wait to be closed have their room and their descriptors: no more of them than are closed soon.
const CROWD: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// What may be written in a row of a worker's long answers.
pub(super) const LONG_ANSWERS: Duration = Duration::from_micros(100);

/// Has the task polled again behind the worker's next look at its sockets.
pub(super) fn put_off(context: &mut Context<'_>) {
    // It is never done at once.
    let _later = pin!(yield_now()).poll(context);
}

/// A turn of those that share it, on one worker, and the turns that follow it.
#[derive(Debug)]
pub(super) struct Turn {
    longest: Duration,
    /// Of those who wait: with each of these crowds the turn is as long again.
    crowd: Option<NonZeroUsize>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    spent: Duration,
    polls: u64,
    /// Of the poll that is under way.
    since: Option<Instant>,
    /// Whether the next begins after a look at the sockets.
    is_over: bool,
    line: VecDeque<(u64, Waker)>,
    /// Who stood in the line, in all.
    tickets: u64,
}

/// One of those that share it. Dropped, it leaves the line.
#[derive(Debug)]
pub(super) struct Sharer {
    turn: Arc<Turn>,
    ticket: Option<u64>,
}

impl Turn {
    pub(super) fn new(longest: Duration) -> Arc<Self> {
        Arc::new(Self { longest, crowd: None, state: Mutex::default() })
    }

    /// Of what takes up room while it waits: the more there are, the more have their turn.
    pub(super) fn of_closing() -> Arc<Self> {
        Arc::new(Self { longest: CLOSING, crowd: Some(CROWD), state: Mutex::default() })
    }

    fn is_left(&self, state: &State) -> bool {
        let crowds = self.crowd.map_or(0, |crowd| state.line.len() / crowd);
        let times = u32::try_from(crowds).unwrap_or(u32::MAX).saturating_add(1);
        state.spent <= self.longest.saturating_mul(times)
    }

    pub(super) fn sharer(self: &Arc<Self>) -> Sharer {
        Sharer { turn: self.clone(), ticket: None }
    }

    /// Does this once there is time left for it.
    pub(super) async fn take(self: &Arc<Self>, work: impl FnOnce()) {
        let (mut sharer, mut work) = (self.sharer(), Some(work));
        let mut go = || {
            if let Some(work) = work.take() {
                work();
            }
            Poll::Ready(())
        };
        std::future::poll_fn(|context| sharer.poll(context, |_| go())).await;
    }

    /// The number of the poll that is under way, and for how long it has been.
    pub(super) fn under_way(&self) -> (u64, Duration) {
        let state = self.state();
        (state.polls, state.since.map_or(Duration::ZERO, |since| since.elapsed()))
    }

    fn spend<T>(&self, poll: impl FnOnce() -> Poll<T>) -> Poll<T> {
        let started = Instant::now();
        let mut state = self.state();
        (state.polls, state.since) = (state.polls.wrapping_add(1), Some(started));
        drop(state);
        let polled = poll();
        let took = started.elapsed();
        let mut state = self.state();
        state.spent = state.spent.saturating_add(took);
        state.since = None;
        polled
    }

    /// Has the first of the line polled again: now if there is time left, and when the next turn begins otherwise.
    fn call(self: &Arc<Self>) {
        let mut state = self.state();
        let Some((_, first)) = state.line.front() else { return };
        if self.is_left(&state) {
            let first = first.clone();
            drop(state);
            return first.wake();
        }
        let is_called = std::mem::replace(&mut state.is_over, true);
        drop(state);
        if !is_called {
            put_off(&mut Context::from_waker(&self.clone().into()));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_first(&self, ticket: u64) -> bool {
        self.line.front().is_some_and(|(first, _)| *first == ticket)
    }
}

/// The worker has looked at its sockets: the next turn begins. Nobody can be put off in here, for tokio has its list of those
/// in its hands.
impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        let mut state = self.state();
        (state.is_over, state.spent) = (false, Duration::ZERO);
        let first = state.line.front().map(|(_, first)| first.clone());
        drop(state);
        first.into_iter().for_each(Waker::wake);
    }
}

impl Sharer {
    /// Polls if there is time left, and has it wait where there is none. What was begun is not interrupted.
    pub(super) fn poll<T>(
        &mut self,
        context: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        if !self.may_go(context) {
            return Poll::Pending;
        }
        let polled = self.turn.spend(|| poll(context));
        self.turn.call();
        polled
    }

    /// Whether it stands in the line. It must be polled again, or dropped.
    pub(super) fn waits(&self) -> bool {
        self.ticket.is_some()
    }

    fn may_go(&mut self, context: &Context<'_>) -> bool {
        let mut state = self.turn.state();
        if let Some(ticket) = self.ticket {
            // It may be polled for a reason of its own.
            let may_go = state.is_first(ticket) && !state.is_over;
            if may_go {
                state.line.pop_front();
                self.ticket = None;
            } else if let Ok(place) = state.line.binary_search_by_key(&ticket, |(it, _)| *it)
                && let Some((_, waker)) = state.line.get_mut(place)
            {
                // It may belong to another task by now, as what was upgraded does.
                waker.clone_from(context.waker());
            }
            return may_go;
        }
        if state.line.is_empty() && self.turn.is_left(&state) {
            return true;
        }
        state.tickets = state.tickets.wrapping_add(1);
        let ticket = state.tickets;
        state.line.push_back((ticket, context.waker().clone()));
        self.ticket = Some(ticket);
        let is_first = state.is_first(ticket);
        drop(state);
        if is_first {
            self.turn.call();
        }
        false
    }
}

impl Drop for Sharer {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = self.turn.state();
        let was_first = state.is_first(ticket);
        state.line.retain(|(other, _)| *other != ticket);
        drop(state);
        if was_first {
            self.turn.call();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt;

    use super::*;

    const LONG: Duration = Duration::from_micros(100);

    fn is_awaited(turn: &Turn) -> bool {
        !turn.state().line.is_empty()
    }

    fn busy() {
        let started = Instant::now();
        while started.elapsed() < LONG {
            std::hint::spin_loop();
        }
    }

    /// Has some each keep the worker busy once, and says how many did so between two turns of somebody else.
    async fn most_in_a_row(some: usize, longest: Duration) -> usize {
        most_of(some, Turn::new(longest)).await
    }

    async fn most_of(some: usize, turn: Arc<Turn>) -> usize {
        let done = Arc::new(AtomicUsize::new(0));
        for _ in 0..some {
            let (turn, done) = (turn.clone(), done.clone());
            tokio::spawn(async move {
                let work = || {
                    busy();
                    done.fetch_add(1, Ordering::Relaxed);
                };
                turn.take(work).await;
            });
        }
        let (mut most, mut before) = (0, 0);
        while before < some {
            yield_now().await;
            let now = done.load(Ordering::Relaxed);
            most = most.max(now - before);
            before = now;
        }
        most
    }

    #[tokio::test]
    async fn somebody_else_has_a_turn_between() {
        let most = most_in_a_row(50, LONG * 7 / 2).await;
        assert!((1..=4).contains(&most), "{most}");
        assert_eq!(most_in_a_row(20, Duration::ZERO).await, 1);
        assert_eq!(most_in_a_row(20, Duration::from_secs(60)).await, 20);
    }

    #[tokio::test]
    async fn the_longer_the_line_the_longer_the_turn_where_waiting_takes_up_room() {
        let crowd = NonZeroUsize::new(10);
        let turn = |crowd| Arc::new(Turn { longest: LONG, crowd, state: Mutex::default() });
        assert!(most_of(100, turn(None)).await <= 4);
        assert!(most_of(100, turn(crowd)).await >= 8);
    }

    #[tokio::test]
    async fn who_leaves_the_line_keeps_nobody_waiting() {
        let turn = Turn::new(Duration::ZERO);
        let ask = || turn.take(busy);
        ask().await;
        assert!(!is_awaited(&turn));
        {
            let (mut first, mut second, mut third) =
                (Box::pin(ask()), Box::pin(ask()), Box::pin(ask()));
            assert!((&mut first).now_or_never().is_none());
            assert!((&mut second).now_or_never().is_none());
            assert!((&mut third).now_or_never().is_none() && is_awaited(&turn));
            drop(first);
            drop(second);
            tokio::time::timeout(Duration::from_secs(5), third).await.expect("it is its turn");
        }
        assert!(!is_awaited(&turn));
    }

    #[tokio::test]
    async fn who_goes_to_another_task_is_woken_there() {
        let turn = Turn::new(Duration::ZERO);
        turn.take(busy).await;
        let mut moved = Box::pin({
            let turn = turn.clone();
            async move { turn.take(busy).await }
        });
        assert!((&mut moved).now_or_never().is_none());
        let done = tokio::spawn(moved);
        tokio::time::timeout(Duration::from_secs(5), done).await.expect("it is its turn").unwrap();
    }

    #[tokio::test]
    async fn nobody_goes_before_those_who_wait() {
        let (turn, order) = (Turn::new(Duration::ZERO), Mutex::new(Vec::new()));
        let ask = |who: usize| {
            let order = &order;
            turn.take(move || {
                busy();
                order.lock().unwrap().push(who);
            })
        };
        tokio::join!(ask(0), ask(1), ask(2), ask(3));
        assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3]);
    }
}
