//! The HTTP of one connection: in the version that its handshake agreed on, or in the one that its client begins with.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::connection::Connection;
use super::deadline::HeadTimer;
use super::fair::Fair;
use super::http::Line;
use super::patience::Patient;
use super::settings::Limits;
use super::streams::Streams;
use super::turn::Sharer;
use super::visit::Recorded;

/// So many fields hyper reads without being told; telling it so costs memory for each request.
const HTTP1_FIELDS: usize = 100;

/// What HTTP/2 begins with (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client's octets, in clear or from TLS. Both are in a place of their own: a TLS session is a kilobyte, which would move
/// from room to room as often as the conversation does.
pub(super) type Octets = Either<Box<Patient<TcpStream>>, Box<TlsStream<Patient<TcpStream>>>>;

/// The way to a client that has said something.
#[derive(Debug)]
pub(super) struct Begun {
    /// What was read already.
    first: Bytes,
    octets: Octets,
    http2: bool,
}

impl Begun {
    /// Waits until the client says something, and in which version. Where the handshake has agreed on one, it is that one.
    ///
    /// # Errors
    /// The client cannot be read from.
    pub(super) async fn of(mut octets: Octets) -> io::Result<Self> {
        let agreed = match &octets {
            Either::Left(_) => None,
            Either::Right(tls) => tls.get_ref().1.alpn_protocol().map(|it| it == b"h2"),
        };
        let mut first = BytesMut::with_capacity(PREFACE.len());
        loop {
            let has_ended = octets.read_buf(&mut first).await? == 0;
            let may_be_http2 = PREFACE.starts_with(&first);
            let http2 = match agreed {
                None if may_be_http2 && first.len() < PREFACE.len() && !has_ended => continue,
                None => may_be_http2 && first.len() == PREFACE.len(),
                Some(http2) => http2,
            };
            return Ok(Self { first: first.freeze(), octets, http2 });
        }
    }
}

/// What becomes of the requests on a connection.
#[derive(Clone, Debug)]
pub(super) struct Requests {
    line: Arc<Line>,
    connection: Arc<Connection>,
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<Recorded>;
    type Error = Infallible;
    // hyper would make room for one beside each connection, at rest as well, and move it there.
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        // Room first: what is made there is not copied there, and it is some kilobytes, most of them empty yet.
        let room = Box::new_uninit();
        let (line, connection) = (self.line.clone(), self.connection.clone());
        let answer = Box::write(room, line.handle(connection, Box::new(request)));
        Box::into_pin(answer)
    }
}

/// As hyper reads and writes it.
type Way = TokioIo<Fair<Octets>>;

/// A conversation. It takes as much room as its version needs, and not as much as the other.
pub(super) enum Conversation {
    Http1(Pin<Box<http1::UpgradeableConnection<Way, Requests>>>),
    Http2(Http2),
}

/// Its connection shares a turn with its requests.
pub(super) struct Http2 {
    connection: Pin<Box<http2::Connection<Way, Requests, Streams>>>,
    sharer: Sharer,
    streams: Streams,
    /// Whether its client is still to be told that no further requests are wanted.
    is_leaving: bool,
}

impl Conversation {
    /// Its long answers share a turn with others.
    pub(super) fn new(
        begun: Begun,
        line: Arc<Line>,
        connection: Arc<Connection>,
        long: Sharer,
    ) -> Self {
        let (limits, Begun { first, octets, http2: is_http2 }) = (&line.settings.limits, begun);
        let octets = Fair::new(octets, first, long);
        if is_http2 {
            let streams = Streams::new(connection.patience.clone());
            let turn = streams.turn().clone();
            let octets = TokioIo::new(octets.within(turn.clone()));
            let builder = http2(limits, streams.clone());
            let requests = Requests { line, connection };
            let connection = Box::pin(builder.serve_connection(octets, requests));
            let sharer = turn.sharer();
            return Self::Http2(Http2 { connection, sharer, streams, is_leaving: false });
        }
        let builder = http1(limits);
        let requests = Requests { line, connection };
        let conversation = builder.serve_connection(TokioIo::new(octets), requests);
        Self::Http1(Box::pin(conversation.with_upgrades()))
    }

    /// No further requests.
    pub(super) fn graceful_shutdown(&mut self) {
        match self {
            Self::Http1(conversation) => conversation.as_mut().graceful_shutdown(),
            Self::Http2(conversation) => conversation.is_leaving = true,
        }
    }
}

impl Future for Conversation {
    type Output = Result<(), hyper::Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Http1(conversation) => conversation.as_mut().poll(context),
            Self::Http2(conversation) => conversation.poll(context),
        }
    }
}

impl Http2 {
    /// Behind those whose answers it has to write: they go out together, and before the client is told to go (some take
    /// what comes after that for lost).
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        let (connection, is_leaving) = (&mut self.connection, &mut self.is_leaving);
        let ended = self.sharer.poll(context, |context| {
            let ended = connection.as_mut().poll(context);
            if ended.is_ready() || !std::mem::take(is_leaving) {
                return ended;
            }
            connection.as_mut().graceful_shutdown();
            connection.as_mut().poll(context)
        });
        if ended.is_ready() {
            self.streams.end();
        }
        ended
    }
}

fn http1(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(HeadTimer::default())
        .header_read_timeout(limits.head)
        .max_buf_size(limits.head_octets as usize);
    if limits.head_fields > HTTP1_FIELDS {
        builder.max_headers(limits.head_fields);
    }
    builder
}

fn http2(limits: &Limits, streams: Streams) -> http2::Builder<Streams> {
    let http2 = &limits.http2;
    let mut builder = http2::Builder::new(streams);
    builder
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(http2.streams)
        .max_header_list_size(limits.head_octets)
        .max_pending_accept_reset_streams(http2.pending_resets)
        .max_local_error_reset_streams(http2.error_resets)
        .initial_stream_window_size(http2.stream_window)
        .initial_connection_window_size(http2.connection_window)
        .max_send_buf_size(http2.send_buffer)
        .keep_alive_interval(Some(http2.ping))
        .keep_alive_timeout(http2.ping_answer);
    builder
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::super::patience::Patience;
    use super::*;

    #[tokio::test]
    async fn a_client_that_begins_as_http_2_does_is_taken_at_its_word_and_nothing_is_lost() {
        let (half, rest) = PREFACE.split_at(10);
        let cases: [(&[&[u8]], bool); 6] = [
            (&[PREFACE, b"more"], true),
            (&[half, rest], true),
            (&[b"GET / HTTP/1.1\r\n\r\n"], false),
            (&[b"PRI * ", b"HTTP/1.1\r\n\r\n"], false),
            (&[half], false),
            (&[], false),
        ];
        for (pieces, http2) in cases {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let client = async {
                let mut client = TcpStream::connect(address).await.unwrap();
                for piece in pieces {
                    client.write_all(piece).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            let server = async {
                let (stream, _) = listener.accept().await.unwrap();
                let stream = Patient::new(stream, Patience::new(Duration::from_secs(5)));
                let begun = Begun::of(Octets::Left(Box::new(stream))).await.unwrap();
                let (mut way, mut all) = (begun.octets, begun.first.to_vec());
                way.read_to_end(&mut all).await.unwrap();
                (begun.http2, all)
            };
            let ((), heard) = tokio::join!(client, server);
            assert_eq!(heard, (http2, pieces.concat()));
        }
    }
}
