//! Keys for TLS session tickets that replicas share: a ticket that one of them made, another takes.
//!
//! A ticket is sealed for the host and the client-certificate terms under which it was made, with a key that is derived
//! for them: under other ones it is worth nothing. In it stands when the client last proved in a full handshake that it
//! holds its certificate's key; from then on it is taken for eight hours and no longer, however often it is renewed.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use rustls::pki_types::UnixTime;

use crate::identity::Fingerprint;

/// How long a proof of possession counts.
const LIFETIME: u64 = 8 * 3600;
/// Clocks of replicas differ.
const SKEW: u64 = 60;
/// So many octets name a key.
const NAME: usize = 8;
/// The time of the proof, in seconds since 1970.
const TIME: usize = 8;
const HEAD: usize = NAME + TIME;
/// Of AES-GCM.
const NONCE: usize = 12;

/// The keys, the one that seals first.
pub struct TicketKeys(Vec<TicketKey>);

struct TicketKey {
    name: [u8; NAME],
    secret: Prk,
}

/// A ticket that was opened.
#[derive(Debug)]
pub struct Opened {
    /// What rustls put in.
    pub session: Vec<u8>,
    /// When the client proved last that it holds the key, in seconds since 1970.
    pub proved: u64,
}

/// Tells tickets apart.
pub type TicketId = [u8; NONCE];

impl TicketKeys {
    /// Fewer octets are no secret.
    pub const SHORTEST: usize = 32;

    /// From secrets, the one that seals first. None where one of them is shorter than 32 octets, or there is none.
    #[must_use]
    pub fn new(secrets: &[&[u8]]) -> Option<Self> {
        let keys: Option<Vec<TicketKey>> = secrets.iter().map(|key| TicketKey::new(key)).collect();
        keys.filter(|keys| !keys.is_empty()).map(Self)
    }

    /// How long a ticket may be taken, in seconds.
    #[must_use]
    pub fn lifetime() -> u32 {
        LIFETIME as u32
    }

    /// Seals a session.
    #[must_use]
    pub fn seal(&self, scope: &Fingerprint, proved: u64, session: &[u8]) -> Option<Vec<u8>> {
        let key = self.0.first()?;
        let head = [&key.name[..], &proved.to_be_bytes()].concat();
        let mut sealed = session.to_vec();
        let aad = Aad::from(&head[..]);
        let nonce = key.of(scope)?.seal_in_place_append_tag(aad, &mut sealed).ok()?;
        Some([&head[..], nonce.as_ref(), &sealed].concat())
    }

    /// Opens a ticket that is not too old.
    #[must_use]
    pub fn open(&self, scope: &Fingerprint, now: UnixTime, ticket: &[u8]) -> Option<Opened> {
        let (head, rest) = ticket.split_at_checked(HEAD)?;
        let (name, time) = head.split_first_chunk::<NAME>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE>()?;
        let proved = u64::from_be_bytes(*time.first_chunk::<TIME>()?);
        let now = now.as_secs();
        if proved > now + SKEW || now.saturating_sub(proved) > LIFETIME {
            return None;
        }
        let key = self.0.iter().find(|key| key.name == *name)?.of(scope)?;
        let (nonce, mut session) = (Nonce::assume_unique_for_key(*nonce), sealed.to_vec());
        let length = key.open_in_place(nonce, Aad::from(head), &mut session).ok()?.len();
        session.truncate(length);
        Some(Opened { session, proved })
    }

    /// What tells this ticket from all others.
    #[must_use]
    pub fn id(ticket: &[u8]) -> Option<TicketId> {
        ticket.get(HEAD..)?.first_chunk().copied()
    }
}

impl TicketKey {
    fn new(secret: &[u8]) -> Option<Self> {
        if secret.len() < TicketKeys::SHORTEST {
            return None;
        }
        let secret = Salt::new(HKDF_SHA256, b"certmap TLS tickets").extract(secret);
        let mut name = [0; NAME];
        secret.expand(&[b"name"], Length(NAME)).ok()?.fill(&mut name).ok()?;
        Some(Self { name, secret })
    }

    /// The key for a host and its terms.
    fn of(&self, scope: &Fingerprint) -> Option<RandomizedNonceKey> {
        let mut key = [0; 32];
        let info = [&b"key"[..], scope.as_bytes()];
        self.secret.expand(&info, Length(32)).ok()?.fill(&mut key).ok()?;
        RandomizedNonceKey::new(&AES_256_GCM, &key).ok()
    }
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TicketKeys").field(&self.0.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    fn keys(secrets: &[u8]) -> TicketKeys {
        let secrets: Vec<Vec<u8>> = secrets.iter().map(|octet| vec![*octet; 32]).collect();
        let secrets: Vec<&[u8]> = secrets.iter().map(|secret| &secret[..]).collect();
        TicketKeys::new(&secrets).unwrap()
    }

    fn scope(text: &str) -> Fingerprint {
        Fingerprint::of(text.as_bytes())
    }

    #[test]
    fn a_ticket_opens_under_the_same_scope_and_no_other() {
        let keys = keys(&[1]);
        let ticket = keys.seal(&scope("a"), NOW, b"session").unwrap();
        let opened = keys.open(&scope("a"), at(NOW), &ticket).unwrap();
        assert_eq!((&opened.session[..], opened.proved), (&b"session"[..], NOW));
        assert!(keys.open(&scope("b"), at(NOW), &ticket).is_none());
        assert_ne!(ticket, keys.seal(&scope("a"), NOW, b"session").unwrap());
    }

    #[test]
    fn another_replica_opens_it_before_and_after_the_keys_move_up() {
        let ticket = keys(&[1, 0, 2]).seal(&scope("a"), NOW, b"session").unwrap();
        for (others, expected) in
            [(&[1, 0, 2][..], true), (&[2, 1, 3], true), (&[0, 9, 1], true), (&[3, 2, 4], false)]
        {
            assert_eq!(keys(others).open(&scope("a"), at(NOW), &ticket).is_some(), expected);
        }
    }

    #[test]
    fn it_is_taken_for_eight_hours_from_the_proof() {
        let keys = keys(&[1]);
        let ticket = keys.seal(&scope("a"), NOW, b"session").unwrap();
        for (now, expected) in [
            (NOW + LIFETIME, true),
            (NOW + LIFETIME + 1, false),
            (NOW - SKEW, true),
            (NOW - SKEW - 1, false),
        ] {
            assert_eq!(keys.open(&scope("a"), at(now), &ticket).is_some(), expected, "{now}");
        }
    }

    #[test]
    fn a_ticket_with_any_bit_changed_is_none() {
        let keys = keys(&[1]);
        let ticket = keys.seal(&scope("a"), NOW, b"session").unwrap();
        for place in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[place] ^= 1;
            assert!(keys.open(&scope("a"), at(NOW), &changed).is_none(), "{place}");
            assert!(keys.open(&scope("a"), at(NOW), &ticket[..place]).is_none(), "{place}");
        }
    }

    #[test]
    fn short_secrets_are_none() {
        assert!(TicketKeys::new(&[&[1; 31]]).is_none());
        assert!(TicketKeys::new(&[]).is_none());
        assert!(TicketKeys::new(&[&[1; 32], &[2; 5]]).is_none());
    }
}
