//! A new connection to an address: TCP, perhaps TLS, and a task that drives HTTP on it.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_util::io::InspectReader;

use super::super::deadline::Deadline;
use super::error::UpstreamError;
use super::pool::{FIRST_STREAMS, Key, Line, Offer, One, Shelf, Trunk, WayBack};
use super::preface::Preface;
use crate::snapshot::BackendTls;

/// What a backend may send on one stream before the client has read it.
const STREAM_WINDOW: u32 = 128 * 1024;
/// And on all streams of a connection: clients that do not read must not be able to hold up the others.
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// The largest head of an answer, and over HTTP/1.1 as much as is read at once.
const LONGEST_HEAD: u32 = 64 * 1024;
/// Whoever speaks HTTP/2 says at once how many requests it takes. If it does not, others open connections of their own.
const PREFACE_WITHIN: Duration = Duration::from_secs(1);

/// Whose turn it is to open a connection that others may share.
type Opening = Option<OwnedSemaphorePermit>;

/// A connection, and whether it was opened for this request.
pub(super) struct Opened {
    pub(super) line: Line,
    pub(super) is_new: bool,
}

/// Opens a connection, or waits for one that others are opening and that can be shared, where it may be.
pub(super) async fn open(
    shelf: &Arc<Shelf>,
    key: Key,
    tls: Option<&BackendTls>,
    limit: Duration,
    may_share: bool,
) -> Result<Opened, UpstreamError> {
    let opened = async {
        let turn = if may_share && shelf.agreed.load(Ordering::Relaxed) {
            let turn = shelf.opening.clone().acquire_owned().await.ok();
            if let Some(line) = shelf.share() {
                return Ok(Opened { line, is_new: false });
            }
            // It speaks HTTP/1.1, as turned out meanwhile: then there is nothing to wait for.
            turn.filter(|_| shelf.agreed.load(Ordering::Relaxed))
        } else {
            None
        };
        connect(shelf, key, tls, turn).await.map(|line| Opened { line, is_new: true })
    };
    let opened = tokio::time::timeout(limit, opened).await;
    opened.unwrap_or(Err(UpstreamError::ConnectTimeout(key.address)))
}

async fn connect(
    shelf: &Arc<Shelf>,
    key: Key,
    tls: Option<&BackendTls>,
    turn: Opening,
) -> Result<Line, UpstreamError> {
    let address = key.address;
    let broken = |error: std::io::Error| UpstreamError::Connect(address, error.to_string());
    let stream = TcpStream::connect(address).await.map_err(broken)?;
    prepare(&stream);
    let Some(tls) = tls else {
        let turn = (key.offer == Offer::Http2).then_some(turn);
        return converse(shelf, stream, turn, address).await;
    };
    let connector = shelf.connector.get_or_init(|| connector(&tls.config, key.offer));
    let stream = connector.connect(tls.name.clone(), stream).await;
    let stream = stream.map_err(|error| UpstreamError::Tls(address, error.to_string()))?;
    let agreed = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    if key.offer == Offer::Http2 && !agreed {
        let problem = "it does not speak HTTP/2".to_owned();
        return Err(UpstreamError::Tls(address, problem));
    }
    shelf.agreed.store(agreed, Ordering::Relaxed);
    converse(shelf, stream, agreed.then_some(turn), address).await
}

/// A peer that is gone without a word is noticed by TCP: servers of gRPC end connections on which HTTP/2 pings come often.
fn prepare(stream: &TcpStream) {
    let seconds = Duration::from_secs;
    let alive = TcpKeepalive::new().with_time(seconds(30)).with_interval(seconds(10));
    let alive = SockRef::from(stream).set_tcp_keepalive(&alive);
    if let Err(error) = stream.set_nodelay(true).and(alive) {
        tracing::debug!(%error, "an option of a connection cannot be set");
    }
}

fn connector(config: &Arc<ClientConfig>, offer: Offer) -> TlsConnector {
    let mut config = ClientConfig::clone(config);
    let names: &[&[u8]] = match offer {
        Offer::Http1 => &[b"http/1.1"],
        Offer::Http2 => &[b"h2"],
        Offer::Either => &[b"h2", b"http/1.1"],
    };
    config.alpn_protocols = names.iter().map(|name| name.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

async fn converse<S>(
    shelf: &Arc<Shelf>,
    stream: S,
    http2: Option<Opening>,
    address: SocketAddr,
) -> Result<Line, UpstreamError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let line = match http2 {
        Some(turn) => shared(shelf, stream, turn).await,
        None => alone(shelf, stream).await,
    };
    line.map_err(|error| UpstreamError::Connect(address, error.to_string()))
}

async fn alone<S>(shelf: &Arc<Shelf>, stream: S) -> Result<Line, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder.max_buf_size(LONGEST_HEAD as usize);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    let way_back = WayBack::to(shelf);
    let (back, closing) = (way_back.clone(), shelf.closing.clone());
    tokio::spawn(async move {
        let mut connection = connection.with_upgrades();
        let ended = poll_fn(|context| {
            let ended = Pin::new(&mut connection).poll(context);
            if ended.is_pending() {
                back.look(context);
            }
            ended
        });
        if let Err(error) = ended.await {
            tracing::debug!(%error, "a connection to a backend broke");
        }
        closing.take(|| drop(connection)).await;
    });
    Ok(Line::One(One { sender, way_back }))
}

async fn shared<S>(shelf: &Arc<Shelf>, stream: S, mut turn: Opening) -> Result<Line, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_max_send_streams(FIRST_STREAMS)
        .max_header_list_size(LONGEST_HEAD);
    let (mut preface, mut told) = Preface::new();
    let stream = InspectReader::new(stream, move |octets: &[u8]| preface.read(octets));
    let (sender, mut connection) = builder.handshake(TokioIo::new(stream)).await?;
    let (trunk, first) = Trunk::begin(sender);
    let (driven, closing) = (Arc::downgrade(&trunk), shelf.closing.clone());
    tokio::spawn(async move {
        let (mut patience, latest) = (Deadline::default(), Instant::now() + PREFACE_WITHIN);
        let mut is_limited = false;
        let ended = poll_fn(|context| {
            let ended = Pin::new(&mut connection).poll(context);
            // What was read of it has been heeded by now.
            is_limited = is_limited || Pin::new(&mut told).poll(context).is_ready();
            match driven.upgrade() {
                Some(trunk) if ended.is_ready() => trunk.end(),
                Some(trunk) if is_limited => {
                    trunk.limited_to(connection.current_max_send_streams());
                }
                _ => {}
            }
            let is_settled = is_limited || ended.is_ready();
            if turn.is_some() && (is_settled || patience.poll(latest, context).is_ready()) {
                turn = None;
            }
            ended
        });
        if let Err(error) = ended.await {
            tracing::debug!(%error, "a connection to a backend broke");
        }
        closing.take(|| drop(connection)).await;
    });
    shelf.add(trunk);
    Ok(first)
}
