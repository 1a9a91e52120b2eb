//! Password hashes, off the event loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_lc_rs::rand;
use moka::sync::Cache;
use tokio::sync::Semaphore;

use crate::auth::PasswordQuestion;
use crate::identity::Fingerprint;

/// Right answers are remembered this long. The stored hash is part of the key: a changed one is asked about anew.
const KEPT: Duration = Duration::from_secs(60);
const MOST_KEPT: u64 = 10_000;
/// More questions than this do not wait: whoever guesses at this rate is not to hold up the rest.
const MOST_WAITING: usize = 256;

/// Answers password questions.
#[derive(Debug)]
pub struct PasswordLookup {
    right: Cache<Fingerprint, ()>,
    /// Of this process, so that the keys are worth nothing outside it.
    salt: [u8; 32],
    cores: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// Too many questions at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("too many passwords are being checked")]
pub struct Overloaded;

impl PasswordLookup {
    /// Hashes on as many cores as given.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new(cores: usize) -> Result<Self, aws_lc_rs::error::Unspecified> {
        let mut salt = [0; 32];
        rand::fill(&mut salt)?;
        let right = Cache::builder().max_capacity(MOST_KEPT).time_to_live(KEPT).build();
        Ok(Self {
            right,
            salt,
            cores: Arc::new(Semaphore::new(cores.max(1))),
            waiting: AtomicUsize::new(0),
        })
    }

    /// Whether the password is the hash's.
    ///
    /// # Errors
    /// Too many others ask; the caller refuses.
    pub async fn answer(&self, question: &PasswordQuestion) -> Result<bool, Overloaded> {
        let key = self.key(question);
        if self.right.contains_key(&key) {
            return Ok(true);
        }
        let _place = Place::take(&self.waiting)?;
        let core = self.cores.clone().acquire_owned().await.map_err(|_| Overloaded)?;
        let (hash, password) = (question.hash.clone(), question.password.clone());
        let hashed = tokio::task::spawn_blocking(move || {
            let _core = core;
            hash.verify(password.expose())
        });
        let right = hashed.await.map_err(|_| Overloaded)?;
        if right {
            self.right.insert(key, ());
        }
        Ok(right)
    }

    fn key(&self, question: &PasswordQuestion) -> Fingerprint {
        let hash = Fingerprint::of(question.hash.expose().as_bytes());
        Fingerprint::of(&[&self.salt[..], hash.as_bytes(), question.password.expose()].concat())
    }
}

/// One of the places to wait in; given back however the wait ends.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize) -> Result<Self, Overloaded> {
        let place = Self(waiting);
        if waiting.fetch_add(1, Ordering::Relaxed) < MOST_WAITING {
            Ok(place)
        } else {
            Err(Overloaded)
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{PasswordHash, Secret};

    fn question(password: &str) -> PasswordQuestion {
        let hash = "$2b$04$abcdefghijklmnopqrstuuyeG8laUfZvsCmc.AE6qIDYSPGM2efmK";
        let hash = Arc::new(PasswordHash::parse(hash).unwrap());
        PasswordQuestion { hash, password: Secret::new(password.as_bytes().into()) }
    }

    #[tokio::test]
    async fn right_answers_are_remembered_and_wrong_ones_asked_again() {
        let lookup = PasswordLookup::new(1).unwrap();
        for _ in 0..2 {
            assert_eq!(lookup.answer(&question("Hello world!")).await, Ok(true));
            assert_eq!(lookup.answer(&question("x")).await, Ok(false));
        }
        lookup.right.run_pending_tasks();
        assert_eq!(lookup.right.entry_count(), 1);
    }

    #[tokio::test]
    async fn too_many_questions_are_refused_and_not_queued() {
        let lookup = PasswordLookup::new(1).unwrap();
        lookup.waiting.store(MOST_WAITING, Ordering::Relaxed);
        assert_eq!(lookup.answer(&question("x")).await, Err(Overloaded));
        lookup.waiting.store(0, Ordering::Relaxed);
        assert_eq!(lookup.answer(&question("x")).await, Ok(false));
        assert_eq!(lookup.waiting.load(Ordering::Relaxed), 0);
    }
}
