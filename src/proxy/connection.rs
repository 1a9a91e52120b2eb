//! What a connection is, from its handshake to its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::HeaderValue;
use rustls::CipherSuite;
use tokio_util::sync::CancellationToken;

use super::patience::Patience;
use super::places::{Place, Share};
use super::sessions::ScopedSessions;
use crate::policy::ClientCertificate;
use crate::snapshot::{ClientCertificateTerms, HostName};
use crate::telemetry::OpenConnection;

/// Requests that a client may take back soon after it sent them; from then on only as many as it lets come to their end.
/// Taking back costs the client a frame, and the server a request to a backend (CVE-2023-44487).
const MOST_TAKEN_BACK: usize = 200;
/// How often is looked whether anything moves yet on a connection of which a client takes nothing.
const LOOK: Duration = Duration::from_secs(1);

/// One client's connection.
#[derive(Debug)]
pub(super) struct Connection {
    /// The client, or the proxy that brings it.
    pub(super) client: SocketAddr,
    /// Its address as text, which most requests want.
    pub(super) shown: Option<HeaderValue>,
    /// The address it reached.
    pub(super) local: SocketAddr,
    /// What the handshake agreed on; none over http.
    pub(super) tls: Option<TlsFacts>,
    /// Set once no further request is wanted on it.
    pub(super) closing: CancellationToken,
    /// Whether its client was told so over HTTP/1.1, with an answer: then it ends with what belongs to that request.
    pub(super) told: AtomicBool,
    /// Set once it is to end at once, whatever is open on it.
    pub(super) cut: CancellationToken,
    /// How long its client may take nothing.
    pub(super) patience: Arc<Patience>,
    /// Requests that are not yet at their end, and requests in all.
    pub(super) requests: Requests,
    /// What it takes up.
    pub(super) _seat: Seat,
}

/// What a connection takes up until the last of it is gone: the tunnel that it became, if it did.
#[derive(Debug)]
pub(super) struct Seat {
    _place: Place,
    _share: Share,
    _open: OpenConnection,
}

impl Seat {
    pub(super) fn new(place: Place, share: Share, open: OpenConnection) -> Self {
        Self { _place: place, _share: share, _open: open }
    }
}

/// What a connection is busy with.
#[derive(Debug, Default)]
pub(super) struct Requests {
    open: AtomicUsize,
    begun: AtomicUsize,
    taken_back: AtomicUsize,
    /// Of those that are open, the ones whose client takes nothing of the answer.
    stuck: AtomicUsize,
}

impl Requests {
    /// Requests in all.
    pub(super) fn begun(&self) -> usize {
        self.begun.load(Ordering::Acquire)
    }

    /// Requests in all, or none where one is still open: the same number twice means that nothing happened between.
    pub(super) fn at_rest(&self) -> Option<usize> {
        (self.open.load(Ordering::Acquire) == 0).then(|| self.begun.load(Ordering::Acquire))
    }
}

/// One request of a connection, until it is at its end.
#[derive(Debug)]
pub(super) struct OpenRequest(Arc<Connection>);

impl OpenRequest {
    pub(super) fn begin(connection: Arc<Connection>) -> Self {
        connection.requests.begun.fetch_add(1, Ordering::AcqRel);
        connection.requests.open.fetch_add(1, Ordering::AcqRel);
        Self(connection)
    }

    /// What a request became that was answered and goes on all the same: open, but no further one.
    pub(super) fn continued(connection: Arc<Connection>) -> Self {
        connection.requests.open.fetch_add(1, Ordering::AcqRel);
        Self(connection)
    }

    /// Whether the connection was given up because its client does not read.
    pub(super) fn is_unread(&self) -> bool {
        self.0.patience.is_over()
    }

    /// The client did not wait for its end, nor for long.
    pub(super) fn taken_back(&self) {
        let requests = &self.0.requests;
        let taken_back = requests.taken_back.fetch_add(1, Ordering::AcqRel) + 1;
        if taken_back > MOST_TAKEN_BACK && taken_back > requests.begun.load(Ordering::Acquire) / 2 {
            self.0.cut.cancel();
        }
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.requests.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// An open request whose client takes nothing of its answer.
struct Stuck<'a>(&'a Requests);

impl<'a> Stuck<'a> {
    fn of(requests: &'a Requests) -> Self {
        requests.stuck.fetch_add(1, Ordering::AcqRel);
        Self(requests)
    }

    fn is_alone(&self) -> bool {
        let open = self.0.open.load(Ordering::Acquire);
        open <= self.0.stuck.load(Ordering::Acquire)
    }
}

impl Drop for Stuck<'_> {
    fn drop(&mut self) {
        self.0.stuck.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What a handshake agreed on.
#[derive(Debug)]
pub(super) struct TlsFacts {
    /// The host that SNI named.
    pub(super) sni: Option<HostName>,
    /// Whether a certificate was asked for.
    pub(super) asked: bool,
    /// What the client answered.
    pub(super) certificate: Option<Arc<ClientCertificate>>,
    /// The cipher suite, which has its version in it.
    pub(super) suite: Option<CipherSuite>,
    /// The strength of the cipher.
    pub(super) cipher_bits: u16,
    /// Such as "TLSv1.3".
    pub(super) version: &'static str,
    /// Whether it resumed an earlier session.
    pub(super) resumed: bool,
    /// Of this connection.
    pub(super) sessions: Arc<ScopedSessions>,
}

impl Connection {
    pub(super) fn certificate(&self) -> Option<&ClientCertificate> {
        self.tls.as_ref()?.certificate.as_deref()
    }

    /// Whether a request for a host whose terms are `wanted` may come over this connection; `now` says what terms a name of
    /// SNI stands for now.
    pub(super) fn carries(
        &self,
        host: &HostName,
        wanted: &ClientCertificateTerms,
        now: impl FnOnce(&HostName) -> Arc<ClientCertificateTerms>,
    ) -> bool {
        let Some(tls) = &self.tls else { return true };
        if wanted.asks && (!tls.asked || tls.sni.is_none()) {
            return false;
        }
        tls.sni.as_ref().is_none_or(|sni| sni == host || wanted.same(&now(sni)))
    }

    /// One request's client takes nothing of its answer. The connection is cut, but not under requests that still move:
    /// those of an HTTP/2 connection may be many people's.
    pub(super) async fn stuck(self: Arc<Self>) {
        let stuck = Stuck::of(&self.requests);
        while !stuck.is_alone() {
            tokio::time::sleep(LOOK).await;
        }
        self.cut.cancel();
    }

    /// No further requests: the client is to come again with another certificate, or with one at all.
    pub(super) fn end(&self) {
        if let Some(tls) = &self.tls {
            tls.sessions.forget();
        }
        self.closing.cancel();
    }
}
