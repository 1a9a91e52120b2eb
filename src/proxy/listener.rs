//! Connections: accepted, shaken hands with, served, and brought to an end without losing a request.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use jiff::Timestamp;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::yield_now;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::chains::Chains;
use super::connection::{Connection, Requests, Seat, TlsFacts};
use super::conversation::{Begun, Conversation, Octets};
use super::door;
use super::forwarded::shown;
use super::http::Line;
use super::patience::{Patience, Patient};
use super::places::{Place, Places};
use super::proxy_protocol::{self, ProxyHeaderError};
use super::request_ids::RequestIds;
use super::sessions::Sessions;
use super::settings::ListenerSettings;
use super::tls::{HandshakeError, accept};
use super::traffic::RateLimits;
use super::turn::{LONG_ANSWERS, Turn};
use super::upstream::{Timeouts, Upstream};
use super::worker::Worker;
use crate::lookup::{Lookups, NameLookup};
use crate::snapshot::SnapshotStore;
use crate::telemetry::{AccessLog, AccessRecord, Event, Metrics};

/// So long the first request of a connection may be on its way, once all are told to go.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// Connections accepted in a row; then whoever else is ready goes first.
const MOST_ACCEPTED: u8 = 2;

/// Octets of an answer that the kernel takes beyond what is on its way. It would take megabytes, and say only after a third
/// of them that there is room again: who reads slowly would look like one who does not read.
const MOST_UNSENT: u32 = 128 * 1024;

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
    /// Threads that serve.
    pub workers: NonZeroUsize,
    /// How connections are accepted and served.
    pub settings: ListenerSettings,
}

/// The data plane, serving.
#[derive(Debug)]
pub struct Proxy {
    /// Open connections and what belongs to them.
    connections: TaskTracker,
    /// Listeners, and what they take in.
    listeners: TaskTracker,
    workers: Vec<(Worker, Arc<Server>)>,
    /// Every connection is to end with its next request.
    leaving: CancellationToken,
    /// No further connections.
    shut: CancellationToken,
    /// No further requests.
    drain: CancellationToken,
    /// Nothing at all any more.
    stop: CancellationToken,
    /// The threads end with it.
    _ended: DropGuard,
}

#[derive(Debug)]
struct Server {
    line: Arc<Line>,
    sessions: Sessions,
    chains: Chains,
    /// Of the handshakes of a worker: each costs as much as many requests.
    handshakes: Arc<Turn>,
    /// In which connections that have ended are closed.
    closing: Arc<Turn>,
    /// Of the answers that are long.
    long: Arc<Turn>,
    places: Arc<Places>,
    connections: TaskTracker,
    drain: CancellationToken,
    stop: CancellationToken,
}

impl Proxy {
    /// Starts to serve on both listeners.
    ///
    /// # Errors
    /// A listener has no address, or the system no random numbers or no threads.
    pub fn start(http: TcpListener, https: TcpListener, parts: Parts) -> io::Result<Self> {
        let (connections, leaving) = (TaskTracker::new(), CancellationToken::new());
        let (drain, stop) = (CancellationToken::new(), CancellationToken::new());
        let ended = CancellationToken::new();
        let settings = parts.settings;
        let exempt = settings.hops.ranges.clone();
        let places = Places::new(&settings.limits, exempt);
        let (places, names) = (Arc::new(places), Arc::new(NameLookup::new()));
        let (rate_limits, sessions) = (Arc::new(RateLimits::new()), Sessions::new());
        let chains = Chains::new();
        let request_ids = Arc::new(RequestIds::new().map_err(io::Error::other)?);
        let https_port = https.local_addr()?.port();
        let server = || {
            let line = Line {
                store: parts.store.clone(),
                lookups: parts.lookups.clone(),
                // Kept connections are driven by the thread that opened them.
                upstream: Upstream::new(parts.timeouts, names.clone()),
                metrics: parts.metrics.clone(),
                log: parts.log.clone(),
                rate_limits: rate_limits.clone(),
                https_port,
                tunnels: connections.clone(),
                leaving: leaving.clone(),
                stop: stop.clone(),
                request_ids: request_ids.clone(),
                settings: settings.clone(),
            };
            Arc::new(Server {
                line: Arc::new(line),
                sessions: sessions.clone(),
                chains: chains.clone(),
                handshakes: Turn::new(Duration::ZERO),
                closing: Turn::of_closing(),
                long: Turn::new(LONG_ANSWERS),
                places: places.clone(),
                connections: connections.clone(),
                drain: drain.clone(),
                stop: stop.clone(),
            })
        };
        let mut workers = Vec::new();
        for number in 0..parts.workers.get() {
            workers.push((Worker::start(number, ended.clone())?, server()));
        }
        let (listeners, shut) = (TaskTracker::new(), CancellationToken::new());
        let _ended = ended.drop_guard();
        let proxy = Self { connections, listeners, workers, leaving, shut, drain, stop, _ended };
        proxy.listen(http, false)?;
        proxy.listen(https, true)?;
        Ok(proxy)
    }

    /// Serves on one more listener.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn listen(&self, listener: TcpListener, tls: bool) -> io::Result<()> {
        prepare(&listener);
        let socket = listener.into_std()?;
        for (worker, server) in &self.workers {
            let listening = listen(server.clone(), worker.share(&socket)?, tls, self.shut.clone());
            self.listeners.spawn_on(listening, worker.handle());
        }
        Ok(())
    }

    /// Serves on, old connections and new, but each for one more request only: clients are to go elsewhere, and lose nothing.
    pub fn leave(&self) {
        self.leaving.cancel();
    }

    /// Accepts what has begun and nothing more, lets open requests come to their end, and after this long ends the rest.
    pub async fn drain(&self, limit: Duration) {
        self.leaving.cancel();
        self.shut.cancel();
        self.listeners.close();
        drop(tokio::time::timeout(limit, self.listeners.wait()).await);
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

async fn listen(server: Arc<Server>, listener: TcpListener, tls: bool, shut: CancellationToken) {
    let mut accepted: u8 = 0;
    let mut accept = async || {
        // A crowd at the door does not keep those waiting who are in.
        accepted = (accepted + 1) % MOST_ACCEPTED;
        if accepted == 0 {
            yield_now().await;
        }
        match listener.accept().await {
            Ok((stream, peer)) => admit(&server, stream, peer, tls),
            Err(error) => {
                // Out of descriptors, most likely: some will be given back.
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    };
    while shut.run_until_cancelled(accept()).await.is_some() {}
    if let Err(error) = door::shut(&listener) {
        tracing::debug!(%error, "connections that begin now are lost");
    }
    let rest = async {
        loop {
            accept().await;
        }
    };
    drop(tokio::time::timeout(door::AJAR, rest).await);
    while let Some(Ok((stream, peer))) = listener.accept().now_or_never() {
        admit(&server, stream, peer, tls);
    }
}

/// Serves a connection if there is a place for it; otherwise closes it at once, so that its client can go elsewhere.
fn admit(server: &Arc<Server>, stream: TcpStream, peer: SocketAddr, tls: bool) {
    let Some(place) = server.places.take() else {
        return server.line.metrics.connection_refused("total");
    };
    server.connections.spawn(serve(server.clone(), stream, peer, tls, place));
}

async fn serve(
    server: Arc<Server>,
    mut stream: TcpStream,
    peer: SocketAddr,
    tls: bool,
    place: Place,
) {
    let line = &server.line;
    let open = line.metrics.connection();
    let Ok(local) = stream.local_addr() else { return };
    let started = Timestamp::now();
    let client = match client(&mut stream, peer, &line.settings).await {
        Ok(client) => client,
        Err(error) => {
            line.metrics.connection_refused("proxy_header");
            return failed(line, (peer, local), started, error.to_string());
        }
    };
    let Some(share) = server.places.share(client.ip()) else {
        return line.metrics.connection_refused("client");
    };
    let patience = Patience::new(line.settings.limits.send);
    let stream = Patient::new(stream, patience.clone());
    let connection = Connection {
        client,
        shown: shown(client.ip()),
        local,
        tls: None,
        closing: server.drain.child_token(),
        told: AtomicBool::new(false),
        cut: CancellationToken::new(),
        patience,
        requests: Requests::default(),
        _seat: Seat::new(place, share, open),
    };
    if !tls {
        let octets = Octets::Left(Box::new(stream));
        return converse(&server, octets, Arc::new(connection)).await;
    }
    // What a handshake needs is gone when it is over, and connections are many.
    let shaken = Box::pin(shake_hands(&server, stream, &connection, started)).await;
    if let Some((stream, facts)) = shaken {
        let connection = Connection { tls: Some(facts), ..connection };
        converse(&server, Octets::Right(stream), Arc::new(connection)).await;
    }
}

/// What is set here the kernel passes on to each connection that it accepts. A peer that is gone without a word would keep its
/// place for as long as an answer has nothing to say.
fn prepare(listener: &TcpListener) {
    let seconds = Duration::from_secs;
    let alive =
        TcpKeepalive::new().with_time(seconds(60)).with_interval(seconds(15)).with_retries(4);
    let socket = SockRef::from(listener);
    let set = socket
        .set_tcp_nodelay(true)
        .and_then(|()| socket.set_tcp_keepalive(&alive))
        .and_then(|()| socket.set_tcp_notsent_lowat(MOST_UNSENT));
    if let Err(error) = set {
        tracing::warn!(%error, "an option of a listener cannot be set");
    }
}

/// Who is at the other end, or behind the load balancer that is.
async fn client(
    stream: &mut TcpStream,
    peer: SocketAddr,
    settings: &ListenerSettings,
) -> Result<SocketAddr, ProxyHeaderError> {
    if !settings.proxy_protocol_from.contains(peer.ip()) {
        return Ok(peer);
    }
    // It has room for a header, which every connection would keep.
    let told = Box::pin(proxy_protocol::client(stream, settings.limits.handshake)).await?;
    Ok(told.unwrap_or(peer))
}

/// What a client and the newest snapshot agree on; failing that it is on record why.
async fn shake_hands(
    server: &Server,
    stream: Patient<TcpStream>,
    connection: &Connection,
    started: Timestamp,
) -> Option<(Box<TlsStream<Patient<TcpStream>>>, TlsFacts)> {
    let line = &server.line;
    let snapshot = line.store.load();
    let limit = line.settings.limits.handshake;
    let caches = (&server.sessions, &server.chains);
    let shaken = accept(stream, &snapshot, caches, &server.handshakes, limit).await;
    match shaken {
        Ok((stream, facts)) => {
            line.metrics.handshake("ok", facts.version, facts.resumed);
            Some((Box::new(stream), facts))
        }
        Err(error) => {
            let outcome = match error {
                HandshakeError::Timeout(_) => "timeout",
                HandshakeError::Tls(_) => "failed",
            };
            line.metrics.handshake(outcome, "unknown", false);
            let ends = (connection.client, connection.local);
            failed(line, ends, started, format!("handshake: {error}"));
            None
        }
    }
}

/// The record of a connection that did not come to a request.
fn failed(
    line: &Line,
    (client, local): (SocketAddr, SocketAddr),
    started: Timestamp,
    reason: String,
) {
    let mut record = AccessRecord::new(Event::Handshake, started, client, local);
    record.reason = Some(reason);
    record.duration = Timestamp::now().duration_since(started).unsigned_abs();
    line.log.log(&record);
}

async fn converse(server: &Arc<Server>, octets: Octets, connection: Arc<Connection>) {
    // Woken apart from the conversation, it costs a request nothing.
    let mut attendants = FuturesUnordered::new();
    attendants.push(attend(server.clone(), connection.clone(), false));
    let begun = tokio::select! {
        biased;
        begun = Begun::of(octets) => begun,
        // There is nothing to be lost on it.
        _told = attendants.next() => return,
    };
    let begun = match begun {
        Ok(begun) => begun,
        Err(error) => return broken(&server.line, &connection, &error),
    };
    let (line, long) = (server.line.clone(), server.long.sharer());
    let mut conversation = Conversation::new(begun, line, connection.clone(), long);
    loop {
        tokio::select! {
            biased;
            ended = &mut conversation => {
                if let Err(error) = ended {
                    broken(&server.line, &connection, &error);
                }
                break;
            }
            told = attendants.next() => match told {
                Some(Told::Close) => {
                    // hyper ends it with the request; told to, it would not wait for what the client is still sending.
                    if !connection.told.load(Ordering::Acquire) {
                        conversation.graceful_shutdown();
                    }
                    attendants.push(attend(server.clone(), connection.clone(), true));
                }
                Some(Told::Stop) | None => break,
            }
        }
    }
    server.closing.take(|| drop(conversation)).await;
}

/// What becomes of a connection, whatever is said on it.
enum Told {
    /// No further requests.
    Close,
    /// Nothing more.
    Stop,
}

async fn attend(server: Arc<Server>, connection: Arc<Connection>, closing: bool) -> Told {
    let mut rest = None;
    let mut look = tokio::time::interval(server.line.settings.limits.idle);
    loop {
        tokio::select! {
            () = told_to_close(&connection), if !closing => return Told::Close,
            () = server.stop.cancelled() => return Told::Stop,
            _ = look.tick() => {
                // Nothing since the last look, not even a beginning: the place is another client's.
                let now = connection.requests.at_rest();
                if now.is_some() && now == rest {
                    connection.closing.cancel();
                    // It may have been told, and does not go.
                    return if closing { Told::Stop } else { Told::Close };
                }
                rest = now;
            }
            () = connection.cut.cancelled() => {
                tracing::debug!(client = %connection.client, "a connection is cut");
                return Told::Stop;
            }
        }
    }
}

/// A connection that was accepted has a request coming, most likely, and is not closed on it.
async fn told_to_close(connection: &Connection) {
    connection.closing.cancelled().await;
    if connection.requests.begun() == 0 {
        Box::pin(tokio::time::sleep(FIRST_REQUEST)).await;
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
    record.reason = Some(format!("the request cannot be read: {error}"));
    line.metrics.request(record.status, "HTTP/1.1", Duration::ZERO);
    line.log.log(&record);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_has_the_options_of_its_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        prepare(&listener);
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (_client, accepted) = (client.unwrap(), accepted.unwrap().0);
        let socket = SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(60));
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), MOST_UNSENT);
    }
}
