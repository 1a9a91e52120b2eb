//! How long a client may take nothing of what is written to it.
//!
//! A write that is blocked is the client's doing: what is there to be read, it does not read. A connection on which nothing
//! is written, because there is nothing to say, is silent and no more than that.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// The patience with one connection.
#[derive(Debug)]
pub(super) struct Patience {
    limit: Duration,
    begun: Instant,
    /// When a write was blocked last, or went on after it had been: milliseconds after the beginning.
    blocked: AtomicU64,
    is_over: AtomicBool,
}

impl Patience {
    pub(super) fn new(limit: Duration) -> Arc<Self> {
        let (blocked, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
        Arc::new(Self { limit, begun: Instant::now(), blocked, is_over })
    }

    /// The patience with what goes its own way, as a tunnel does on a connection of many requests.
    pub(super) fn apart(&self) -> Arc<Self> {
        Self::new(self.limit)
    }

    /// Whether the connection was given up.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Comes when nothing was taken since then for too long. A connection whose writes are blocked now and then is taken
    /// from as fast as its way is: whoever waits for a turn on it has not been forgotten by the client.
    pub(super) fn poll_end(
        &self,
        since: Instant,
        timer: &mut Timer,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        let blocked = Duration::from_millis(self.blocked.load(Ordering::Relaxed));
        let since = self.begun.checked_add(blocked).map_or(since, |blocked| blocked.max(since));
        timer.poll(since.checked_add(self.limit), context)
    }

    fn note(&self) {
        let since = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.blocked.store(since, Ordering::Relaxed);
    }
}

/// A timer that is made when it is needed first and then left to itself: what it is for mostly does not come.
#[derive(Debug, Default)]
pub(super) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    fn poll(&mut self, end: Option<Instant>, context: &mut Context<'_>) -> Poll<()> {
        let Some(end) = end else { return Poll::Pending };
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(end)));
        loop {
            if timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            if end <= Instant::now() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(end);
        }
    }
}

/// A stream on which a write fails of which nothing is taken for too long.
#[derive(Debug)]
pub(super) struct Patient<S> {
    stream: S,
    patience: Arc<Patience>,
    /// Since when a write is blocked.
    since: Option<Instant>,
    timer: Timer,
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S, patience: Arc<Patience>) -> Self {
        Self { stream, patience, since: None, timer: Timer::default() }
    }

    fn judge<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            if self.since.take().is_some() {
                self.patience.note();
            }
            return written;
        }
        let since = *self.since.get_or_insert_with(|| {
            self.patience.note();
            Instant::now()
        });
        self.timer.poll(since.checked_add(self.patience.limit), context).map(|()| {
            self.patience.is_over.store(true, Ordering::Relaxed);
            Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read"))
        })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, octets);
        self.judge(written, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A tunnel over HTTP/2 is blocked here.
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.judge(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.judge(shut, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.judge(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LIMIT: Duration = Duration::from_millis(400);

    #[tokio::test]
    async fn a_write_that_nobody_reads_fails_in_time() {
        let (client, _kept) = tokio::io::duplex(8);
        let patience = Patience::new(LIMIT);
        let mut stream = Patient::new(client, patience.clone());
        let started = Instant::now();
        let error = stream.write_all(&[0; 9]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(patience.is_over() && started.elapsed() >= LIMIT);
    }

    #[tokio::test]
    async fn who_reads_little_but_reads_is_waited_for() {
        let (client, mut server) = tokio::io::duplex(8);
        let mut stream = Patient::new(client, Patience::new(LIMIT));
        let reading = async {
            for _ in 0..20 {
                tokio::time::sleep(LIMIT / 8).await;
                server.read_exact(&mut [0; 1]).await.unwrap();
            }
            server
        };
        let (written, _server) = tokio::join!(stream.write_all(&[0; 28]), reading);
        written.unwrap();
    }

    #[tokio::test]
    async fn silence_is_no_blocked_write() {
        let (client, mut server) = tokio::io::duplex(8);
        let mut stream = Patient::new(client, Patience::new(LIMIT));
        for _ in 0..3 {
            stream.write_all(&[0; 8]).await.unwrap();
            tokio::time::sleep(LIMIT * 2).await;
            server.read_exact(&mut [0; 8]).await.unwrap();
        }
    }
}
