//! A connection that has always more to say lets others have their turn.
//!
//! HTTP/2 is read frame by frame until the socket is empty. A flood of frames that each need little (SETTINGS, PING,
//! PRIORITY, unknown ones) keeps it from ever being empty, and one connection a whole worker for as long as tokio's own
//! budget lasts, which is a megabyte: a hundred thousand frames.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::yield_now;

/// Reads in a row, each of some KiB; then whoever else is ready goes first.
const MOST_READS: u8 = 2;

/// A stream that begins with what was read of it already, and yields after some reads without a pause, and is read again only once the worker has looked who else has
/// something to say: woken at once, two connections that are always ready would take all the turns until then.
#[derive(Debug)]
pub(super) struct Fair<S> {
    stream: S,
    first: Bytes,
    reads: u8,
}

impl<S> Fair<S> {
    pub(super) fn new(stream: S, first: Bytes) -> Self {
        Self { stream, first, reads: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Fair<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let length = self.first.len().min(buffer.remaining());
            buffer.put_slice(&self.first.split_to(length));
            if self.first.is_empty() {
                // It would keep its room.
                self.first = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        if self.reads >= MOST_READS {
            self.reads = 0;
            // It wakes behind the next look at the sockets, and is never done at once.
            let _later = pin!(yield_now()).poll(context);
            return Poll::Pending;
        }
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.reads = if read.is_ready() { self.reads + 1 } else { 0 };
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Fair<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn whoever_is_ready_goes_first_after_some_reads() {
        let (mut reads, mut turns) = (0, 0);
        let endless = async {
            let mut stream = Fair::new(tokio::io::repeat(1), Bytes::new());
            while reads < 10 * u32::from(MOST_READS) {
                stream.read_exact(&mut [0]).await.unwrap();
                reads += 1;
            }
        };
        tokio::pin!(endless);
        std::future::poll_fn(|context| {
            turns += 1;
            endless.as_mut().poll(context)
        })
        .await;
        assert_eq!(turns, 10);
    }
}
