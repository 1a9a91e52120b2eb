//! TLS sessions, kept apart by what they were made under.
//!
//! A resumed handshake shows no certificate: the chain comes out of the session. It is judged anew for each request, so
//! a session proves nothing but possession of the key, once. Even so, a session only comes back for the host and the
//! client-certificate terms that it was made under.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::server::{ServerSessionMemoryCache, StoresServerSessions};

use crate::identity::Fingerprint;
use crate::snapshot::{ClientCertificateTerms, HostName};

/// Sessions in all.
const MOST_SESSIONS: usize = 8192;
/// A session holds the client's chain; a longer one is not kept, and its client shakes hands in full.
const LONGEST_SESSION: usize = 8 * 1024;

/// The sessions of all connections.
#[derive(Clone, Debug)]
pub(super) struct Sessions(Arc<ServerSessionMemoryCache>);

impl Sessions {
    pub(super) fn new() -> Self {
        Self(ServerSessionMemoryCache::new(MOST_SESSIONS))
    }

    /// The part of them that one connection may see.
    pub(super) fn scoped(
        &self,
        host: Option<&HostName>,
        terms: &ClientCertificateTerms,
    ) -> Arc<ScopedSessions> {
        let trust = terms.trust.map_or([0; 32], |trust| *trust.as_bytes());
        let host = host.map_or("", HostName::as_str).as_bytes();
        let scope = Fingerprint::of(&[&[u8::from(terms.asks)][..], &trust, host].concat());
        Arc::new(ScopedSessions { all: self.0.clone(), scope, made: Mutex::default() })
    }
}

/// The sessions of one host and its terms, for one connection.
pub(super) struct ScopedSessions {
    all: Arc<ServerSessionMemoryCache>,
    scope: Fingerprint,
    /// What this connection put in.
    made: Mutex<Vec<Vec<u8>>>,
}

impl ScopedSessions {
    /// Forgets what this connection put in: a client that is to choose another certificate must not resume.
    pub(super) fn forget(&self) {
        let made = std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner));
        for key in made {
            drop(self.all.take(&key));
        }
    }

    fn key(&self, key: &[u8]) -> Vec<u8> {
        [&self.scope.as_bytes()[..], key].concat()
    }
}

impl StoresServerSessions for ScopedSessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        if value.len() > LONGEST_SESSION {
            return false;
        }
        let key = self.key(&key);
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(key.clone());
        self.all.put(key, value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let key = self.key(key);
        // Used here means refused here, if it comes to that.
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(key.clone());
        self.all.get(&key)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.all.take(&self.key(key))
    }

    fn can_cache(&self) -> bool {
        true
    }
}

impl fmt::Debug for ScopedSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedSessions").field("scope", &self.scope).finish_non_exhaustive()
    }
}
