//! When a backend has said how many requests it takes at a time: its first frame is SETTINGS (RFC 9113, 3.4).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

/// A frame's head (RFC 9113, 4.1), and what of it is the length.
const HEAD: usize = 9;
const LENGTH: usize = 3;

/// A connection to a backend that speaks HTTP/2.
pub(super) struct Prefaced<S> {
    stream: S,
    seen: usize,
    length: usize,
    tell: Option<oneshot::Sender<()>>,
}

impl<S> Prefaced<S> {
    /// What it resolves to says that the preface was read, and an error that it never will be.
    pub(super) fn new(stream: S) -> (Self, oneshot::Receiver<()>) {
        let (tell, told) = oneshot::channel();
        (Self { stream, seen: 0, length: 0, tell: Some(tell) }, told)
    }

    fn look(&mut self, octets: &[u8]) {
        for octet in octets.iter().take(LENGTH.saturating_sub(self.seen)) {
            self.length = self.length << 8 | usize::from(*octet);
        }
        self.seen = self.seen.saturating_add(octets.len());
    }

    fn is_there(&self) -> bool {
        self.seen >= HEAD && self.seen - HEAD >= self.length
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefaced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        // Whoever reads on has done as it was told by what it has read.
        if self.is_there()
            && let Some(tell) = self.tell.take()
        {
            // Nobody may be left to hear it.
            let _alone = tell.send(()).is_err();
        }
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if self.tell.is_some() {
            self.look(buffer.filled().get(before..).unwrap_or_default());
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefaced<S> {
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
        octets: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, octets)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn it_is_there_once_the_whole_frame_was_taken_however_it_comes() {
        let settings = [&[0, 0, 6, 4, 0, 0, 0, 0, 0][..], &[0, 3, 0, 0, 0, 1]].concat();
        for piece in [1, 2, 4, 9, 14, 15] {
            let (ours, mut theirs) = tokio::io::duplex(64);
            let (mut stream, mut told) = Prefaced::new(ours);
            for octets in settings.chunks(piece) {
                theirs.write_all(octets).await.unwrap();
                stream.read_exact(&mut vec![0; octets.len()]).await.unwrap();
                assert!(told.try_recv().is_err(), "{piece}");
            }
            theirs.write_all(b"x").await.unwrap();
            stream.read_u8().await.unwrap();
            assert_eq!(told.try_recv(), Ok(()), "{piece}");
        }
    }

    #[tokio::test]
    async fn one_that_ends_before_is_not_waited_for() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let (mut stream, told) = Prefaced::new(ours);
        theirs.write_all(&[0; 8]).await.unwrap();
        stream.read_exact(&mut [0; 8]).await.unwrap();
        drop(stream);
        assert!(told.await.is_err());
    }
}
