//! What one exchange may take: the time until the answer's end, the time in which neither body moves, the request's length.
//! Both bodies share it, so that one that moves keeps the other alive.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Frame;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::snapshot::RouteSettings;

/// How long a client may take to take what would tell it that its exchange was cut.
const GRACE: Duration = Duration::from_secs(1);

/// Why an exchange was cut short.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(in crate::proxy) enum Cut {
    /// Neither body moved.
    #[error("nothing moved for too long")]
    Idle,
    /// Not at its end in time.
    #[error("the request took too long")]
    Late,
    /// The client's body.
    #[error("the request's body is too long")]
    Long,
}

/// The bounds of one exchange.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct Bounds(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    begun: Instant,
    request: Option<Duration>,
    idle: Option<Duration>,
    longest: Option<u64>,
    /// Milliseconds after the beginning.
    moved: AtomicU64,
    cut: OnceLock<Cut>,
}

impl Bounds {
    /// From now; none where the route has none.
    pub(in crate::proxy) fn of(settings: &RouteSettings) -> Option<Self> {
        let (request, idle) = (settings.timeouts.request, settings.timeouts.idle);
        let longest = settings.limits.request_body;
        let any = request.is_some() || idle.is_some() || longest.is_some();
        any.then(|| {
            let (moved, cut) = (AtomicU64::new(0), OnceLock::new());
            let begun = Instant::now();
            Self(Arc::new(Shared { begun, request, idle, longest, moved, cut }))
        })
    }

    /// Why a body was cut, if one was.
    pub(in crate::proxy) fn cut(&self) -> Option<Cut> {
        self.0.cut.get().copied()
    }

    /// For the request's body.
    pub(in crate::proxy) fn sending(&self) -> Bound {
        self.bound(self.0.longest, None)
    }

    /// For the response's body, whose head is there. A client that does not read is not told anything either, and its body is not even asked for
    /// more: then `stuck` begins, and is given up should the body move after all.
    pub(in crate::proxy) fn receiving<F>(&self, stuck: impl Fn() -> F + Send + 'static) -> Bound
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.moves();
        let there = self.next().map(|_| {
            let (bounds, gone) = (self.clone(), CancellationToken::new());
            let there = gone.clone().drop_guard();
            tokio::spawn(async move {
                tokio::select! {
                    () = bounds.attend(stuck) => {}
                    () = gone.cancelled() => {}
                }
            });
            there
        });
        self.bound(None, there)
    }

    fn bound(&self, left: Option<u64>, there: Option<DropGuard>) -> Bound {
        Bound { bounds: self.clone(), left, timer: None, is_asked: false, _there: there }
    }

    async fn attend<F: Future<Output = ()>>(&self, stuck: impl Fn() -> F) {
        loop {
            self.over().await;
            tokio::select! {
                () = stuck() => return,
                () = self.goes_on() => {}
            }
        }
    }

    /// When the client has had its time.
    fn given_up(&self) -> Option<Instant> {
        self.next().and_then(|(end, _)| end.checked_add(GRACE))
    }

    /// Comes when the exchange should have been cut a while ago.
    async fn over(&self) {
        while let Some(end) = self.given_up() {
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
        std::future::pending().await
    }

    /// Comes when it should be cut no longer.
    async fn goes_on(&self) {
        while self.given_up().is_some_and(|end| end <= Instant::now()) {
            sleep(GRACE).await;
        }
    }

    fn end(&self) -> Option<Instant> {
        self.0.begun.checked_add(self.0.request?)
    }

    fn moves(&self) {
        let since = self.0.begun.elapsed().as_millis();
        self.0.moved.store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// When what is to be cut next, unless something moves.
    fn next(&self) -> Option<(Instant, Cut)> {
        let moved = Duration::from_millis(self.0.moved.load(Ordering::Relaxed));
        let idle = self.0.idle.and_then(|idle| self.0.begun.checked_add(moved)?.checked_add(idle));
        let late = self.end().map(|end| (end, Cut::Late));
        let idle = idle.map(|end| (end, Cut::Idle));
        late.into_iter().chain(idle).min_by_key(|(end, _)| *end)
    }

    fn cuts(&self, cut: Cut) -> Cut {
        *self.0.cut.get_or_init(|| cut)
    }
}

/// Comes when a request, should it have bounds, has taken too long.
pub(in crate::proxy) async fn late(bounds: Option<&Bounds>) {
    match bounds.and_then(Bounds::end) {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// One body's share in the bounds.
#[derive(Debug)]
pub(in crate::proxy) struct Bound {
    bounds: Bounds,
    left: Option<u64>,
    /// Only once the body had nothing to give.
    timer: Option<Pin<Box<Sleep>>>,
    /// What came before somebody asked for more was not the body's time: a decision, a way to the backend, an answer's head.
    is_asked: bool,
    /// As long as the body is.
    _there: Option<DropGuard>,
}

type Polled<E> = Poll<Option<Result<Frame<Bytes>, E>>>;

impl Bound {
    /// What a body gave, or that it is cut.
    pub(in crate::proxy) fn pass<E: From<Cut>>(
        &mut self,
        polled: Polled<E>,
        context: &mut Context<'_>,
    ) -> Polled<E> {
        if !std::mem::replace(&mut self.is_asked, true) {
            self.bounds.moves();
        }
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.bounds.moves();
                let cut = self.counted(&frame).or_else(|| self.late());
                Poll::Ready(Some(cut.map_or(Ok(frame), |cut| Err(self.bounds.cuts(cut).into()))))
            }
            Poll::Pending => self.wait(context).map(|cut| Some(Err(self.bounds.cuts(cut).into()))),
            ended => ended,
        }
    }

    fn counted(&mut self, frame: &Frame<Bytes>) -> Option<Cut> {
        let (left, data) = (self.left.as_mut()?, frame.data_ref()?);
        match left.checked_sub(data.len() as u64) {
            Some(rest) => {
                *left = rest;
                None
            }
            None => Some(Cut::Long),
        }
    }

    fn late(&self) -> Option<Cut> {
        self.bounds.end().filter(|end| *end <= Instant::now()).map(|_| Cut::Late)
    }

    fn wait(&mut self, context: &mut Context<'_>) -> Poll<Cut> {
        loop {
            let Some((end, cut)) = self.bounds.next() else { return Poll::Pending };
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
            if timer.deadline() < end {
                timer.as_mut().reset(end);
            }
            if timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            // The other body may have moved while this one slept.
            if self.bounds.next().is_none_or(|(end, _)| end <= Instant::now()) {
                return Poll::Ready(cut);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn settings(request: Option<u64>, idle: Option<u64>, longest: Option<u64>) -> RouteSettings {
        let mut settings = RouteSettings::default();
        settings.timeouts.request = request.map(Duration::from_millis);
        settings.timeouts.idle = idle.map(Duration::from_millis);
        settings.limits.request_body = longest;
        settings
    }

    fn bounds(request: Option<u64>, idle: Option<u64>, longest: Option<u64>) -> Bounds {
        Bounds::of(&settings(request, idle, longest)).unwrap()
    }

    async fn gives(bound: &mut Bound, data: &'static [u8]) -> Result<(), Cut> {
        let frame = || Poll::Ready(Some(Ok::<_, Cut>(Frame::data(Bytes::from_static(data)))));
        poll_fn(|context| bound.pass(frame(), context)).await.unwrap().map(drop)
    }

    async fn waits(bound: &mut Bound) -> Cut {
        poll_fn(|context| bound.pass::<Cut>(Poll::Pending, context)).await.unwrap().unwrap_err()
    }

    #[test]
    fn a_route_without_bounds_has_none() {
        assert!(Bounds::of(&RouteSettings::default()).is_none());
    }

    #[tokio::test]
    async fn a_body_is_cut_where_it_grows_too_long() {
        let bounds = bounds(None, None, Some(5));
        let mut bound = bounds.sending();
        assert_eq!(gives(&mut bound, b"123").await, Ok(()));
        assert_eq!(gives(&mut bound, b"45").await, Ok(()));
        assert_eq!(bounds.cut(), None);
        assert_eq!(gives(&mut bound, b"6").await, Err(Cut::Long));
        assert_eq!(bounds.cut(), Some(Cut::Long));
        assert_eq!(
            gives(&mut bounds.receiving(|| std::future::ready(())), b"1234567").await,
            Ok(())
        );
    }

    #[tokio::test]
    async fn what_does_not_move_is_cut_and_what_takes_too_long() {
        let silent = bounds(Some(60_000), Some(20), None);
        assert_eq!(waits(&mut silent.sending()).await, Cut::Idle);
        let late = bounds(Some(20), Some(60_000), None);
        assert_eq!(waits(&mut late.receiving(|| std::future::ready(()))).await, Cut::Late);
        super::late(Some(&late)).await;
        assert_eq!(
            gives(&mut late.receiving(|| std::future::ready(())), b"x").await,
            Err(Cut::Late)
        );
    }

    #[tokio::test]
    async fn what_comes_before_a_body_is_not_its_time() {
        let bounds = bounds(None, Some(200), None);
        let mut sending = bounds.sending();
        for _ in 0..2 {
            sleep(Duration::from_millis(300)).await;
            let started = Instant::now();
            let mut receiving = bounds.receiving(std::future::pending);
            let body = if bounds.cut().is_none() { &mut sending } else { &mut receiving };
            assert_eq!(waits(body).await, Cut::Idle);
            assert!(started.elapsed() >= Duration::from_millis(150), "{:?}", started.elapsed());
        }
    }

    #[tokio::test]
    async fn who_does_not_take_the_end_is_stuck_and_who_is_gone_is_not() {
        let bounds = bounds(None, Some(20), None);
        let told = CancellationToken::new();
        let stuck = |told: CancellationToken| {
            move || {
                told.cancel();
                std::future::ready(())
            }
        };
        let kept = bounds.receiving(stuck(told.clone()));
        let untold = CancellationToken::new();
        drop(bounds.receiving(stuck(untold.clone())));
        told.cancelled().await;
        assert!(!untold.is_cancelled());
        drop(kept);
    }

    #[tokio::test]
    async fn who_goes_on_is_stuck_no_longer_and_may_be_again() {
        let bounds = bounds(None, Some(20), None);
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let mut kept = bounds.receiving(move || {
            let there = tell.clone();
            async move {
                there.send(()).unwrap();
                std::future::pending().await
            }
        });
        assert!(told.recv().await.is_some());
        for _ in 0..150 {
            sleep(Duration::from_millis(10)).await;
            gives(&mut kept, b"x").await.unwrap();
        }
        assert!(told.try_recv().is_err());
        assert!(told.recv().await.is_some());
    }

    #[tokio::test]
    async fn one_body_that_moves_keeps_the_other_alive() {
        let bounds = bounds(None, Some(200), None);
        let (mut sending, mut receiving) =
            (bounds.sending(), bounds.receiving(|| std::future::ready(())));
        let started = Instant::now();
        let moving = async {
            for _ in 0..10 {
                sleep(Duration::from_millis(50)).await;
                gives(&mut receiving, b"x").await.unwrap();
            }
        };
        let (cut, ()) = tokio::join!(waits(&mut sending), moving);
        assert_eq!(cut, Cut::Idle);
        assert!(started.elapsed() >= Duration::from_millis(700), "{:?}", started.elapsed());
    }
}
