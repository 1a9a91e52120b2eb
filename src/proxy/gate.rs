//! A body that is not read before somebody wants it: a client that says `Expect: 100-continue` sends none before.

use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

const OPEN: u8 = 0;
const HELD: u8 = 1;
const UNWANTED: u8 = 2;

/// Whether a body may be read.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: AtomicU8,
    waker: AtomicWaker,
}

/// It was answered without, or with a part of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unwanted;

impl Gate {
    /// From now on it is not read.
    pub(super) fn hold(&self) {
        self.state.store(HELD, Ordering::Release);
    }

    pub(super) fn is_held(&self) -> bool {
        self.state.load(Ordering::Acquire) == HELD
    }

    /// It may be read.
    pub(super) fn open(&self) {
        self.turn(OPEN);
    }

    /// If it still is not read, it never will be.
    pub(super) fn shut(&self) {
        self.turn(UNWANTED);
    }

    /// It was read, and is not read any more.
    pub(super) fn close(&self) {
        self.state.store(UNWANTED, Ordering::Release);
        self.waker.wake();
    }

    fn turn(&self, to: u8) {
        let (set, fetch) = (Ordering::AcqRel, Ordering::Acquire);
        if self.state.compare_exchange(HELD, to, set, fetch).is_ok() {
            self.waker.wake();
        }
    }

    pub(super) fn poll(&self, context: &Context<'_>) -> Poll<Result<(), Unwanted>> {
        if self.is_held() {
            self.waker.register(context.waker());
        }
        match self.state.load(Ordering::Acquire) {
            OPEN => Poll::Ready(Ok(())),
            HELD => Poll::Pending,
            _ => Poll::Ready(Err(Unwanted)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn what_is_held_opens_once_and_what_is_shut_stays_shut() {
        let (gate, context) = (Gate::default(), Context::from_waker(Waker::noop()));
        assert!(matches!(gate.poll(&context), Poll::Ready(Ok(()))));
        gate.hold();
        assert!(gate.poll(&context).is_pending());
        gate.open();
        gate.shut();
        assert!(matches!(gate.poll(&context), Poll::Ready(Ok(()))));
        gate.close();
        assert!(matches!(gate.poll(&context), Poll::Ready(Err(Unwanted))));
        gate.hold();
        gate.shut();
        gate.open();
        assert!(matches!(gate.poll(&context), Poll::Ready(Err(Unwanted))));
    }
}
