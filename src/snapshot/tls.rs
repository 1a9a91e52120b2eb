//! The server's side of TLS: certificates by SNI, configurations by the terms of the host that SNI names.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::host::{HostName, HostTable};

/// The server certificates of a snapshot.
#[derive(Clone, Debug)]
pub struct ServerCertificates {
    /// By the hosts of the Ingresses' `tls` entries.
    pub by_host: HostTable<Arc<CertifiedKey>>,
    /// Where none fits: better a warning in the browser than no handshake.
    pub fallback: Arc<CertifiedKey>,
}

impl ServerCertificates {
    /// Whether the very same certificates are shown for the same hosts.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.fallback, &other.fallback)
            && self.by_host.is_same(&other.by_host, Arc::ptr_eq)
    }
}

impl ResolvesServerCert for ServerCertificates {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = client_hello.server_name().and_then(HostName::parse);
        Some(self.by_host.resolve(host.as_ref()).unwrap_or(&self.fallback).clone())
    }
}

/// Everything that a handshake needs.
#[derive(Clone, Debug)]
pub struct Tls {
    /// For the hosts whose clients are asked nothing, and for clients that name no host.
    pub plain: Arc<ServerConfig>,
    /// For each virtual host that asks.
    pub asking: HostTable<Option<Arc<ServerConfig>>>,
}

impl Tls {
    /// The configuration for a handshake. Without SNI nothing is asked: which host it is for is not known.
    #[must_use]
    pub fn config(&self, host: Option<&HostName>) -> &Arc<ServerConfig> {
        let asking = host.and_then(|host| self.asking.resolve(Some(host)));
        asking.and_then(Option::as_ref).unwrap_or(&self.plain)
    }
}
