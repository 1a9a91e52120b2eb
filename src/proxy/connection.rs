//! What a connection is, from its handshake to its end.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::sessions::ScopedSessions;
use crate::policy::ClientCertificate;
use crate::snapshot::{ClientCertificateTerms, HostName};

/// One client's connection.
#[derive(Debug)]
pub(super) struct Connection {
    /// The client.
    pub(super) client: SocketAddr,
    /// The address it reached.
    pub(super) local: SocketAddr,
    /// What the handshake agreed on; none over http.
    pub(super) tls: Option<TlsFacts>,
    /// Set once no further request is wanted on it.
    pub(super) closing: CancellationToken,
}

/// What a handshake agreed on.
#[derive(Debug)]
pub(super) struct TlsFacts {
    /// The host that SNI named.
    pub(super) sni: Option<HostName>,
    /// Whether a certificate was asked for.
    pub(super) asked: bool,
    /// What the client answered.
    pub(super) certificate: Option<ClientCertificate>,
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
        self.tls.as_ref()?.certificate.as_ref()
    }

    /// Whether a request for a host whose terms are `wanted` may come over this connection; `handshake` are the terms
    /// that SNI stands for now.
    pub(super) fn carries(
        &self,
        host: &HostName,
        wanted: &ClientCertificateTerms,
        handshake: &ClientCertificateTerms,
    ) -> bool {
        let Some(tls) = &self.tls else { return true };
        if wanted.asks && (!tls.asked || tls.sni.is_none()) {
            return false;
        }
        tls.sni.as_ref().is_none_or(|sni| sni == host || wanted.same(handshake))
    }

    /// No further requests: the client is to come again with another certificate, or with one at all.
    pub(super) fn end(&self) {
        if let Some(tls) = &self.tls {
            tls.sessions.forget();
        }
        self.closing.cancel();
    }
}
