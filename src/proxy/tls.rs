//! The handshake: SNI picks the configuration, and what comes out of it are facts, not a verdict.

use std::io;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use futures_util::FutureExt;
use rustls::server::Acceptor;
use rustls::{CipherSuite, HandshakeKind, ProtocolVersion, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::chains::Chains;
use super::connection::TlsFacts;
use super::patience::Patient;
use super::sessions::Sessions;
use super::turn::Turn;
use crate::snapshot::{HostName, Snapshot};

/// The way to a client.
type Client = Patient<TcpStream>;

/// A handshake that failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    /// It took too long.
    #[error("the handshake took longer than {0:?}")]
    Timeout(Duration),
    /// The client hung up, or TLS failed.
    #[error("{0}")]
    Tls(#[from] io::Error),
}

/// Shakes hands under the newest snapshot.
pub(super) async fn accept(
    stream: Client,
    snapshot: &Snapshot,
    (sessions, chains): (&Sessions, &Chains),
    turn: &Arc<Turn>,
    limit: Duration,
) -> Result<(TlsStream<Client>, TlsFacts), HandshakeError> {
    let handshake = shake_hands(stream, snapshot, (sessions, chains), turn);
    tokio::time::timeout(limit, handshake)
        .await
        .map_err(|_| HandshakeError::Timeout(limit))?
        .map_err(Into::into)
}

async fn shake_hands(
    stream: Client,
    snapshot: &Snapshot,
    (sessions, chains): (&Sessions, &Chains),
    turn: &Arc<Turn>,
) -> io::Result<(TlsStream<Client>, TlsFacts)> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let sni = start.client_hello().server_name().and_then(HostName::parse);
    let terms = sni.as_ref().map(|sni| snapshot.terms(Some(sni))).unwrap_or_default();
    let tickets = snapshot.tls.ticket_keys.clone();
    let rules = sni.as_ref().and_then(|sni| snapshot.tls_rules(Some(sni)));
    let sessions = sessions.scoped(sni.as_ref(), &terms, rules, tickets);
    let mut config: ServerConfig = (**snapshot.tls.config(sni.as_ref())).clone();
    config.session_storage = sessions.clone();
    config.ticketer = sessions.clone();
    let (mut rest, mut sharer) = (start.into_stream(Arc::new(config)), turn.sharer());
    // Signatures are made and verified in there.
    let poll = |context: &mut Context<'_>| sharer.poll(context, |context| rest.poll_unpin(context));
    let stream = std::future::poll_fn(poll).await?;
    let (_, connection) = stream.get_ref();
    let chain = connection.peer_certificates().filter(|chain| !chain.is_empty());
    let suite = connection.negotiated_cipher_suite().map(|suite| suite.suite());
    let facts = TlsFacts {
        sni,
        asked: terms.asks,
        certificate: chain.map(|chain| chains.read(chain)),
        suite,
        cipher_bits: suite.map_or(0, cipher_bits),
        version: version(connection.protocol_version()),
        resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        sessions,
    };
    Ok((stream, facts))
}

fn cipher_bits(suite: CipherSuite) -> u16 {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => 128,
        CipherSuite::TLS13_AES_256_GCM_SHA384
        | CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => 256,
        // Not known here, so not vouched for.
        _ => 0,
    }
}

fn version(version: Option<ProtocolVersion>) -> &'static str {
    match version {
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
        _ => "unknown",
    }
}
