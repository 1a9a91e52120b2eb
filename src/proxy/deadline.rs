//! Deadlines that every request has, and hardly any comes to.
//!
//! To set a timer and take it back costs more than to look at a clock. One that was set stays where it is when what it was
//! for came in time: the next end is mostly later, and then it is moved only should it ever fire.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// The timer for one end after the other.
#[derive(Debug, Default)]
pub(super) struct Deadline(Option<Pin<Box<Sleep>>>);

impl Deadline {
    /// Comes at the end.
    pub(super) fn poll(&mut self, end: Instant, context: &mut Context<'_>) -> Poll<()> {
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(end)));
        if timer.deadline() > end {
            timer.as_mut().reset(end);
        }
        loop {
            ready!(timer.as_mut().poll(context));
            if end <= Instant::now() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(end);
        }
    }
}

/// The timer by which hyper ends an HTTP/1.1 connection whose next head does not come. hyper asks for a new one with each
/// head.
#[derive(Debug, Default)]
pub(super) struct HeadTimer(Arc<Mutex<Deadline>>);

#[derive(Debug)]
struct Head {
    end: Instant,
    timer: Arc<Mutex<Deadline>>,
}

impl hyper::rt::Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, end: std::time::Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Head { end: end.into(), timer: self.0.clone() })
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }
}

impl Future for Head {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut timer = self.timer.lock().unwrap_or_else(PoisonError::into_inner);
        timer.poll(self.end, context)
    }
}

impl hyper::rt::Sleep for Head {}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use hyper::rt::Timer;

    use super::*;

    /// How long it takes to come, in milliseconds.
    async fn comes(deadline: &mut Deadline, after: u64) -> u128 {
        let begun = Instant::now();
        let end = begun + Duration::from_millis(after);
        poll_fn(|context| deadline.poll(end, context)).await;
        begun.elapsed().as_millis()
    }

    #[tokio::test]
    async fn it_comes_in_time_whatever_it_was_set_to_before() {
        let mut deadline = Deadline::default();
        let mut far = Instant::now() + Duration::from_secs(60);
        for set in [far, Instant::now() + Duration::from_millis(20)] {
            far = set;
            poll_fn(|context| Poll::Ready(deadline.poll(far, context).is_pending())).await;
            let took = comes(&mut deadline, 200).await;
            assert!((200..1000).contains(&took), "{took}");
        }
        let took = comes(&mut deadline, 100).await;
        assert!((100..1000).contains(&took), "{took}");
    }

    #[tokio::test]
    async fn each_head_has_its_time() {
        let timer = HeadTimer::default();
        for _ in 0..3 {
            let mut dropped = timer.sleep(Duration::from_millis(100));
            let mut is_pending =
                |context: &mut Context<'_>| dropped.as_mut().poll(context).is_pending();
            assert!(poll_fn(|context| Poll::Ready(is_pending(context))).await);
            drop(dropped);
            let begun = Instant::now();
            timer.sleep(Duration::from_millis(150)).await;
            let took = begun.elapsed().as_millis();
            assert!((150..1000).contains(&took), "{took}");
        }
    }
}
