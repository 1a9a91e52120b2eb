//! The snapshot, and the one pointer through which everybody reads the newest.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderName;
use tokio::sync::watch;

use super::backend::Backend;
use super::host::{HostName, HostTable};
use super::identity_headers::IdentityHeaders;
use super::key_set::key_set;
use super::route::VirtualHost;
use super::terms::ClientCertificateTerms;
use super::tls::Tls;
use super::tls_rules::TlsRules;
use crate::policy::Policy;

/// One state of everything, whole.
#[derive(Debug)]
pub struct Snapshot {
    /// Counted up by each swap.
    pub generation: u64,
    /// Routes by host.
    pub hosts: HostTable<Arc<VirtualHost>>,
    /// Handshakes by SNI.
    pub tls: Tls,
    /// What is removed from every request.
    pub identity_headers: IdentityHeaders,
    /// Every policy in force.
    pub policies: Vec<Arc<Policy>>,
    /// What stands behind the Services that policies ask, by namespace/name:port.
    pub externals: HashMap<Box<str>, Arc<Backend>>,
    /// What of a request some of them are sent.
    pub passed_on: Box<[HeaderName]>,
}

impl Snapshot {
    /// What a host's handshakes ask now.
    #[must_use]
    pub fn terms(&self, host: Option<&HostName>) -> Arc<ClientCertificateTerms> {
        self.hosts.resolve(host).map(|host| host.terms.clone()).unwrap_or_default()
    }

    /// What its handshakes must come to now, where that is more than the program demands of all.
    #[must_use]
    pub fn tls_rules(&self, host: Option<&HostName>) -> Option<&TlsRules> {
        self.hosts.resolve(host)?.rules.as_deref()
    }

    /// The public keys of every policy in force, as a JWK set.
    #[must_use]
    pub fn key_set(&self) -> serde_json::Value {
        let policies = self.policies.iter().map(|policy| &**policy);
        key_set(policies).unwrap_or_else(|| serde_json::json!({"keys": []}))
    }
}

/// Holds the newest snapshot.
#[derive(Debug)]
pub struct SnapshotStore {
    current: ArcSwap<Snapshot>,
    generation: watch::Sender<u64>,
}

impl SnapshotStore {
    /// Starts with a snapshot.
    #[must_use]
    pub fn new(first: Snapshot) -> Self {
        let (generation, _) = watch::channel(first.generation);
        Self { current: ArcSwap::from_pointee(first), generation }
    }

    /// The newest.
    #[must_use]
    pub fn load(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Puts a newer one in its place.
    pub fn swap(&self, next: Snapshot) {
        let generation = next.generation;
        self.current.store(Arc::new(next));
        self.generation.send_replace(generation);
    }

    /// Rings whenever there is a newer one.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }
}
