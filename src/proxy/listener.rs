//! Connections: accepted, shaken hands with, served, and brought to an end without losing a request.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{Connection, Requests};
use super::http::{Line, RequestIds};
use super::sessions::Sessions;
use super::tls::{HandshakeError, accept};
use super::traffic::RateLimits;
use super::upstream::{Timeouts, Upstream};
use crate::lookup::Lookups;
use crate::snapshot::SnapshotStore;
use crate::telemetry::{AccessLog, AccessRecord, Event, Metrics};

/// Connections in all; more wait in the kernel's queue.
const MOST_CONNECTIONS: usize = 16_384;
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// For a request's head, and between requests.
const HEAD_LIMIT: Duration = Duration::from_secs(60);
const MOST_STREAMS: u32 = 128;
const LONGEST_HEAD: u32 = 64 * 1024;

/// What the data plane is made of.
#[derive(Debug)]
pub struct Parts {
    /// The newest snapshot.
    pub store: Arc<SnapshotStore>,
    /// Passwords, off the event loop.
    pub lookups: Arc<Lookups>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Records.
    pub log: AccessLog,
    /// How long backends may take.
    pub timeouts: Timeouts,
}

/// The data plane, serving.
#[derive(Debug)]
pub struct Proxy {
    /// Open connections and what belongs to them.
    connections: TaskTracker,
    /// Every connection is to end with its next request.
    leaving: CancellationToken,
    /// No further connections and requests.
    drain: CancellationToken,
    /// Nothing at all any more.
    stop: CancellationToken,
}

struct Server {
    line: Arc<Line>,
    sessions: Sessions,
    places: Arc<Semaphore>,
    connections: TaskTracker,
    idle: Duration,
    drain: CancellationToken,
    stop: CancellationToken,
}

impl Proxy {
    /// Starts to serve on both listeners.
    ///
    /// # Errors
    /// A listener has no address, or the system no random numbers.
    pub fn start(http: TcpListener, https: TcpListener, parts: Parts) -> io::Result<Self> {
        let proxy = Self {
            connections: TaskTracker::new(),
            leaving: CancellationToken::new(),
            drain: CancellationToken::new(),
            stop: CancellationToken::new(),
        };
        let line = Line {
            store: parts.store,
            lookups: parts.lookups,
            upstream: Upstream::new(parts.timeouts),
            metrics: parts.metrics,
            log: parts.log,
            rate_limits: RateLimits::new(),
            https_port: https.local_addr()?.port(),
            tunnels: proxy.connections.clone(),
            leaving: proxy.leaving.clone(),
            stop: proxy.stop.clone(),
            request_ids: RequestIds::new().map_err(io::Error::other)?,
        };
        let server = Arc::new(Server {
            line: Arc::new(line),
            sessions: Sessions::new(),
            places: Arc::new(Semaphore::new(MOST_CONNECTIONS)),
            connections: proxy.connections.clone(),
            idle: parts.timeouts.client,
            drain: proxy.drain.clone(),
            stop: proxy.stop.clone(),
        });
        tokio::spawn(listen(server.clone(), http, false));
        tokio::spawn(listen(server, https, true));
        Ok(proxy)
    }

    /// Serves on, old connections and new, but each for one more request only: clients are to go elsewhere, and lose nothing.
    pub fn leave(&self) {
        self.leaving.cancel();
    }

    /// Accepts nothing more, lets open requests come to their end, and after this long ends the rest.
    pub async fn drain(&self, limit: Duration) {
        self.drain.cancel();
        self.connections.close();
        if tokio::time::timeout(limit, self.connections.wait()).await.is_err() {
            tracing::warn!(
                open = self.connections.len(),
                "connections did not end in time and are cut"
            );
            self.stop.cancel();
            drop(tokio::time::timeout(Duration::from_secs(1), self.connections.wait()).await);
        }
    }
}

async fn listen(server: Arc<Server>, listener: TcpListener, tls: bool) {
    loop {
        let Ok(place) = server.places.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = server.drain.cancelled() => return,
        };
        match accepted {
            Ok((stream, client)) => {
                let connection = serve(server.clone(), stream, client, tls, place);
                server.connections.spawn(connection);
            }
            Err(error) => {
                // Out of descriptors, most likely: some will be given back.
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(
    server: Arc<Server>,
    stream: TcpStream,
    client: SocketAddr,
    tls: bool,
    place: OwnedSemaphorePermit,
) {
    let _open = server.line.metrics.connection();
    let Ok(local) = stream.local_addr() else { return };
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let connection = Connection {
        client,
        local,
        tls: None,
        closing: server.drain.child_token(),
        requests: Requests::default(),
    };
    if !tls {
        return converse(&server, stream, connection).await;
    }
    let started = Timestamp::now();
    let snapshot = server.line.store.load();
    let shaken = accept(stream, &snapshot, &server.sessions, HANDSHAKE_LIMIT).await;
    drop(snapshot);
    match shaken {
        Ok((stream, facts)) => {
            server.line.metrics.handshake("ok", facts.version, facts.resumed);
            converse(&server, stream, Connection { tls: Some(facts), ..connection }).await;
        }
        Err(error) => failed(&server.line, &connection, started, &error),
    }
    drop(place);
}

fn failed(line: &Line, connection: &Connection, started: Timestamp, error: &HandshakeError) {
    let outcome = match error {
        HandshakeError::Timeout(_) => "timeout",
        HandshakeError::Tls(_) => "failed",
    };
    line.metrics.handshake(outcome, "unknown", false);
    let mut record =
        AccessRecord::new(Event::Handshake, started, connection.client, connection.local);
    record.reason = Some(format!("handshake: {error}"));
    record.duration = Timestamp::now().duration_since(started).unsigned_abs();
    line.log.log(&record);
}

async fn converse<S>(server: &Arc<Server>, stream: S, connection: Connection)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = Arc::new(connection);
    let service = service_fn({
        let (line, connection) = (server.line.clone(), connection.clone());
        move |request| line.clone().handle(connection.clone(), request)
    });
    let builder = builder();
    let conversation = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(conversation);
    let mut closing = false;
    let mut rest = None;
    let mut look = tokio::time::interval(server.idle);
    loop {
        tokio::select! {
            ended = conversation.as_mut() => {
                if let Err(error) = ended {
                    broken(&server.line, &connection, &*error);
                }
                return;
            }
            () = connection.closing.cancelled(), if !closing => {
                closing = true;
                conversation.as_mut().graceful_shutdown();
            }
            _ = look.tick() => {
                // Nothing since the last look, not even a beginning: the place is another client's.
                let now = connection.requests.at_rest();
                if now.is_some() && now == rest {
                    connection.closing.cancel();
                }
                rest = now;
            }
            () = server.stop.cancelled() => return,
        }
    }
}

/// A request whose head cannot be read got a 400 from hyper and has come by nobody yet.
fn broken(line: &Line, connection: &Connection, error: &(dyn Error + 'static)) {
    tracing::debug!(client = %connection.client, %error, "a connection broke");
    let Some(error) = error.downcast_ref::<hyper::Error>().filter(|error| error.is_parse()) else {
        return;
    };
    let mut record =
        AccessRecord::new(Event::Request, Timestamp::now(), connection.client, connection.local);
    record.tls = connection.tls.as_ref().map(|tls| tls.version);
    record.status = if error.is_parse_too_large() { 431 } else { 400 };
    record.code = record.status.to_string();
    record.reason = Some(format!("the request cannot be read: {error}"));
    line.metrics.request(record.status, "HTTP/1.1", Duration::ZERO);
    line.log.log(&record);
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(LONGEST_HEAD as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MOST_STREAMS)
        .max_header_list_size(LONGEST_HEAD)
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}
