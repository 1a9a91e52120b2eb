//! A connection that has always more to say lets others have their turn.
//!
//! HTTP/2 is read frame by frame until the socket is empty. A flood of frames that each need little (SETTINGS, PING,
//! PRIORITY, unknown ones) keeps it from ever being empty, and one connection a whole worker for as long as tokio's own
//! budget lasts, which is a megabyte: a hundred thousand frames.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::turn::{Sharer, Turn, put_off};

/// Octets that HTTP/1.1 reads in a row.
const MOST_READ: usize = 16 * 1024;
/// Octets that HTTP/2 reads before it is looked how long that took: some hundred small frames.
const LITTLE: usize = 4 * 1024;
/// For so long HTTP/2 reads on in one poll: further frames are further work, and what was begun comes first.
const READING: Duration = Duration::from_micros(60);
/// Octets that are written before all long answers of a worker share a turn.
const MOST_WRITTEN: usize = 16 * 1024;

/// A stream that begins with what was read of it already, and yields after much was read without a pause, or written. It
/// goes on only once the worker has looked who else has something to say: woken at once, two connections that are always
/// ready would take all the turns until then.
#[derive(Debug)]
pub(super) struct Fair<S> {
    stream: S,
    first: Bytes,
    read: usize,
    written: usize,
    /// Of the long answers of a worker.
    long: Sharer,
    /// In which it is read from.
    turn: Option<Arc<Turn>>,
    /// Its poll in which it was read from last.
    poll: u64,
}

impl<S> Fair<S> {
    pub(super) fn new(stream: S, first: Bytes, long: Sharer) -> Self {
        Self { stream, first, read: 0, written: 0, long, turn: None, poll: 0 }
    }

    /// Of a connection that shares a turn with its requests.
    pub(super) fn within(self, turn: Arc<Turn>) -> Self {
        Self { turn: Some(turn), ..self }
    }

    /// By time where there is a turn: an octet may be the hundredth part of a frame, or a tenth of one. Nothing more is
    /// read in that poll, however often it is asked for.
    fn has_read_enough(&mut self) -> bool {
        if let Some(turn) = &self.turn {
            let (poll, time) = turn.under_way();
            if self.poll != poll {
                (self.poll, self.read) = (poll, 0);
            }
            return self.read >= LITTLE && time > READING;
        }
        let is_enough = self.read >= MOST_READ;
        if is_enough {
            self.read = 0;
        }
        is_enough
    }

    /// Writes, in the turn of the long answers where it is one.
    fn write(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>>
    where
        S: Unpin,
    {
        let stream = Pin::new(&mut self.stream);
        let is_long = self.written >= MOST_WRITTEN;
        let written = if is_long {
            self.long.poll(context, |context| write(stream, context))
        } else {
            write(stream, context)
        };
        if let Poll::Ready(Ok(octets)) = &written {
            self.written = if is_long { *octets } else { self.written.saturating_add(*octets) };
        }
        written
    }
}

impl<S: AsyncRead + Unpin> Fair<S> {
    /// What was read already, and over HTTP/1.1 what follows it and is there: hyper doubles its room for a connection, for
    /// good, where the beginning of a head comes alone.
    fn read_first(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = self.first.len().min(buffer.remaining());
        buffer.put_slice(&self.first.split_to(length));
        if self.first.is_empty() {
            // It would keep its room.
            self.first = Bytes::new();
        }
        if self.turn.is_some() || buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Pending => Poll::Ready(Ok(())),
            read => read,
        }
    }

    /// Reads little at first, and then as much again as was read in this poll: what was read must be dealt with before it is
    /// known how long that takes.
    fn read_little(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let most = self.read.max(LITTLE).min(buffer.remaining());
        let mut little = ReadBuf::new(buffer.initialize_unfilled_to(most));
        let read = Pin::new(&mut self.stream).poll_read(context, &mut little);
        let octets = little.filled().len();
        buffer.advance(octets);
        read
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Fair<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            return self.read_first(context, buffer);
        }
        if self.has_read_enough() {
            put_off(context);
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let read = match self.turn {
            Some(_) => self.read_little(context, buffer),
            None => Pin::new(&mut self.stream).poll_read(context, buffer),
        };
        let octets = buffer.filled().len().saturating_sub(before);
        self.read = if read.is_ready() { self.read.saturating_add(octets) } else { 0 };
        if read.is_ready() && self.turn.is_none() {
            // What is written from now on belongs to another answer.
            self.written = 0;
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Fair<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(context, |stream, context| stream.poll_write(context, octets))
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
        self.write(context, |stream, context| stream.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// How often somebody else has a turn while this goes on.
    async fn turns(work: impl Future<Output = ()>) -> usize {
        tokio::pin!(work);
        let mut turns = 0;
        std::future::poll_fn(|context| {
            turns += 1;
            work.as_mut().poll(context)
        })
        .await;
        turns
    }

    #[tokio::test]
    async fn whoever_is_ready_goes_first_after_some_octets() {
        let mut stream = Fair::new(tokio::io::repeat(1), Bytes::new(), Turn::new(LONG).sharer());
        let mut room = vec![0; MOST_READ];
        let reading = async {
            for _ in 0..10 {
                stream.read_exact(&mut room).await.unwrap();
            }
        };
        assert_eq!(turns(reading).await, 10);
    }

    #[tokio::test]
    async fn what_was_read_already_comes_with_what_follows_it_and_alone_where_nothing_does() {
        let (mut client, mut server) = tokio::io::duplex(1024);
        let mut read = async || {
            let first = Bytes::from_static(b"GET /");
            let mut stream = Fair::new(&mut server, first, Turn::new(LONG).sharer());
            let mut room = vec![0; 1024];
            let length = stream.read(&mut room).await.unwrap();
            room.truncate(length);
            room
        };
        assert_eq!(read().await, b"GET /");
        client.write_all(b" HTTP/1.1").await.unwrap();
        assert_eq!(read().await, b"GET / HTTP/1.1");
    }

    #[tokio::test]
    async fn long_answers_share_a_turn_and_short_ones_do_not() {
        let long = Turn::new(Duration::ZERO);
        let room = vec![0; MOST_WRITTEN];
        let writing = async |times: usize| {
            let mut stream = Fair::new(tokio::io::sink(), Bytes::new(), long.sharer());
            for _ in 0..times {
                stream.write_all(&room).await.unwrap();
            }
        };
        assert_eq!(turns(writing(1)).await, 1);
        assert!(turns(writing(10)).await >= 9);
        assert_eq!(turns(writing(1)).await, 1, "whoever comes with little goes at once");
    }

    #[tokio::test]
    async fn in_a_turn_it_is_read_for_no_longer_than_that() {
        let read = async |turn: &Arc<Turn>, pause: Duration| {
            let stream = Fair::new(tokio::io::repeat(1), Bytes::new(), Turn::new(LONG).sharer());
            let mut stream = stream.within(turn.clone());
            let (mut reads, mut sharer) = (Vec::new(), turn.sharer());
            std::future::poll_fn(|context| {
                sharer.poll(context, |context| {
                    let mut room = [0; MOST_READ];
                    let mut buffer = ReadBuf::new(&mut room);
                    while Pin::new(&mut stream).poll_read(context, &mut buffer).is_ready() {
                        reads.push(buffer.filled().len());
                        buffer.clear();
                        std::thread::sleep(pause);
                    }
                    assert!(Pin::new(&mut stream).poll_read(context, &mut buffer).is_pending());
                    Poll::Ready(())
                })
            })
            .await;
            reads
        };
        assert_eq!(read(&Turn::new(LONG), READING * 2).await, [LITTLE]);
        // Unless the system has something else to do just then.
        let mut grows = false;
        for _ in 0..100 {
            let reads = read(&Turn::new(LONG), Duration::ZERO).await;
            grows |= reads.starts_with(&[LITTLE, LITTLE, LITTLE * 2]);
        }
        assert!(grows);
    }
}
