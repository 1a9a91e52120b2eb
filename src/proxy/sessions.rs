//! TLS sessions, kept apart by what they were made under.
//!
//! A resumed handshake shows no certificate: the chain comes out of the session. It is judged anew for each request, so
//! a session proves nothing but possession of the key, once. Even so, a session only comes back for the host and the
//! client-certificate terms that it was made under, and only while the same versions and suites are demanded there.
//!
//! Sessions are kept in memory; or, where replicas share keys, given to the clients as tickets. A ticket cannot be taken
//! back everywhere: what is forgotten here another replica may still take. It is then judged, and refused, as here.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use rustls::pki_types::UnixTime;
use rustls::server::{ProducesTickets, ServerSessionMemoryCache, StoresServerSessions};

use crate::identity::Fingerprint;
use crate::snapshot::{ClientCertificateTerms, HostName, TicketId, TicketKeys, TlsRules};

/// Sessions in all.
const MOST_SESSIONS: usize = 8192;
/// A session holds the client's chain; a longer one is not kept, and its client shakes hands in full.
const LONGEST_SESSION: usize = 8 * 1024;
/// Tickets that are no longer taken here.
const MOST_FORGOTTEN: u64 = 65_536;

/// The sessions of all connections.
#[derive(Clone, Debug)]
pub(super) struct Sessions {
    kept: Arc<ServerSessionMemoryCache>,
    forgotten: Cache<TicketId, ()>,
}

impl Sessions {
    pub(super) fn new() -> Self {
        let lifetime = Duration::from_secs(TicketKeys::lifetime().into());
        // Where there is no room the oldest goes. By how often each was asked for, none would ever get in.
        let forgotten = Cache::builder()
            .eviction_policy(EvictionPolicy::lru())
            .max_capacity(MOST_FORGOTTEN)
            .time_to_live(lifetime);
        Self { kept: ServerSessionMemoryCache::new(MOST_SESSIONS), forgotten: forgotten.build() }
    }

    /// The part of them that one connection may see.
    pub(super) fn scoped(
        &self,
        host: Option<&HostName>,
        terms: &ClientCertificateTerms,
        rules: Option<&TlsRules>,
        tickets: Option<Arc<TicketKeys>>,
    ) -> Arc<ScopedSessions> {
        let trust = terms.trust.map_or([0; 32], |trust| *trust.as_bytes());
        let host = host.map_or("", HostName::as_str).as_bytes();
        let rules = rules.map(TlsRules::numbers).unwrap_or_default();
        // Each list is as long as its first octet says, so that nothing can be read in two ways.
        let mut scope = vec![u8::from(terms.asks), u8::try_from(rules.len()).unwrap_or(u8::MAX)];
        scope.extend(rules.iter().flat_map(|number| number.to_be_bytes()));
        let scope = Fingerprint::of(&[&scope[..], &trust, host].concat());
        Arc::new(ScopedSessions {
            all: self.clone(),
            scope,
            made: Mutex::default(),
            tickets,
            proved: AtomicU64::new(u64::MAX),
        })
    }
}

/// The sessions of one host and its terms, for one connection.
pub(super) struct ScopedSessions {
    all: Sessions,
    scope: Fingerprint,
    /// What this connection put in, or came with.
    made: Mutex<Vec<Made>>,
    tickets: Option<Arc<TicketKeys>>,
    /// When the client proved that it holds its key, where it came with a ticket (seconds since 1970).
    proved: AtomicU64,
}

enum Made {
    Session(Vec<u8>),
    Ticket(TicketId),
}

impl ScopedSessions {
    /// Forgets what this connection put in: a client that is to choose another certificate must not resume.
    pub(super) fn forget(&self) {
        let made = std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner));
        for made in made {
            match made {
                Made::Session(key) => drop(self.all.kept.take(&key)),
                Made::Ticket(id) => self.all.forgotten.insert(id, ()),
            }
        }
    }

    fn note(&self, made: Made) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(made);
    }

    fn key(&self, key: &[u8]) -> Vec<u8> {
        [&self.scope.as_bytes()[..], key].concat()
    }
}

/// Where there are tickets nothing is kept here: a session of TLS 1.2 that comes back by its number does not say when the
/// client proved that it holds its key, and the ticket that it is given then would count from today.
impl StoresServerSessions for ScopedSessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        if !self.can_cache() || value.len() > LONGEST_SESSION {
            return false;
        }
        let key = self.key(&key);
        self.note(Made::Session(key.clone()));
        // rustls has put it together octet by octet, in up to twice the room.
        self.all.kept.put(key, value.as_slice().to_vec())
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        if !self.can_cache() {
            return None;
        }
        let key = self.key(key);
        // Used here means refused here, if it comes to that.
        self.note(Made::Session(key.clone()));
        self.all.kept.get(&key)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.all.kept.take(&self.key(key)).filter(|_| self.can_cache())
    }

    fn can_cache(&self) -> bool {
        self.tickets.is_none()
    }
}

impl ProducesTickets for ScopedSessions {
    fn enabled(&self) -> bool {
        self.tickets.is_some()
    }

    fn lifetime(&self) -> u32 {
        TicketKeys::lifetime()
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        if session.len() > LONGEST_SESSION {
            return None;
        }
        // A ticket for a ticket proves no more than the first one did.
        let proved = self.proved.load(Ordering::Relaxed).min(UnixTime::now().as_secs());
        let ticket = self.tickets.as_ref()?.seal(&self.scope, proved, session)?;
        self.note(Made::Ticket(TicketKeys::id(&ticket)?));
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let id = TicketKeys::id(ticket).filter(|id| !self.all.forgotten.contains_key(id))?;
        let opened = self.tickets.as_ref()?.open(&self.scope, UnixTime::now(), ticket)?;
        self.proved.fetch_min(opened.proved, Ordering::Relaxed);
        self.note(Made::Ticket(id));
        Some(opened.session)
    }
}

impl fmt::Debug for ScopedSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedSessions").field("scope", &self.scope).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> TicketId {
        let mut id = TicketId::default();
        id[..8].copy_from_slice(&number.to_be_bytes());
        id
    }

    #[test]
    fn the_ticket_that_was_forgotten_last_is_not_the_one_there_is_no_room_for() {
        let sessions = Sessions::new();
        for number in 0..MOST_FORGOTTEN + 1000 {
            sessions.forgotten.insert(id(number), ());
            // Asked for again and again, as whoever was refused does.
            assert!(sessions.forgotten.get(&id(0)).is_some() || number > 1000);
        }
        sessions.forgotten.run_pending_tasks();
        assert!(sessions.forgotten.entry_count() <= MOST_FORGOTTEN);
        for number in MOST_FORGOTTEN..MOST_FORGOTTEN + 1000 {
            assert!(sessions.forgotten.contains_key(&id(number)), "{number}");
        }
    }
}
