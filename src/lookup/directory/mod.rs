//! Questions to directories over LDAP: remembered, asked once at a time each, over a few connections that many share.
//!
//! Nothing is judged here. An answer is what the servers hold, or an error, in which case nobody is admitted; answers
//! from before count for a stated time while no server says anything. All of it is remembered under the digest of the
//! settings, so that a changed policy begins with nothing.

mod connection;
mod entry;
mod error;
mod fetch;
mod groups;
mod servers;
mod session;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::rand;
use moka::Expiry;
use moka::future::Cache;
use prometheus_client::metrics::counter::Counter;

pub use self::error::DirectoryError;
use self::servers::{Servers, Verified};
use super::names::NameLookup;
use crate::auth::{Asked, Directory, DirectoryAnswer, DirectoryQuestion, LogonName, Secret};
use crate::identity::Fingerprint;

/// More answers than this are not remembered.
const MOST_KEPT: u64 = 50_000;
/// More directories than this, or longer without a question, and connections are closed.
const MOST_DIRECTORIES: u64 = 256;
const IDLE: Duration = Duration::from_secs(600);
/// A password that is wrong stays wrong until the account's is changed; this long at most is that remembered.
const WRONG: Duration = Duration::from_secs(3600);

/// Answers directory questions.
pub struct DirectoryLookup {
    answers: Cache<Fingerprint, Kept<Arc<DirectoryAnswer>>>,
    /// The same, kept longer: what counts while no server answers.
    earlier: Cache<Fingerprint, Kept<Arc<DirectoryAnswer>>>,
    /// Whether a password is an account's.
    passwords: Cache<Fingerprint, Kept<bool>>,
    servers: Cache<Fingerprint, Arc<Servers>>,
    names: Arc<NameLookup>,
    counts: DirectoryCounts,
    /// Of this process, so that the keys of passwords are worth nothing outside it.
    salt: [u8; 32],
}

/// How questions were answered.
#[derive(Clone, Debug, Default)]
pub struct DirectoryCounts {
    /// By a server.
    pub asked: Counter,
    /// From memory.
    pub remembered: Counter,
    /// From memory, longer than usual, because no server answers.
    pub stale: Counter,
    /// Not at all.
    pub failed: Counter,
}

/// A value that knows how long it is kept.
#[derive(Clone, Debug)]
struct Kept<T> {
    value: T,
    lasts: Duration,
}

struct OwnTime;

impl<T> Expiry<Fingerprint, Kept<T>> for OwnTime {
    fn expire_after_create(&self, _: &Fingerprint, kept: &Kept<T>, _: Instant) -> Option<Duration> {
        Some(kept.lasts)
    }

    fn expire_after_update(
        &self,
        _: &Fingerprint,
        kept: &Kept<T>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(kept.lasts)
    }
}

fn keeper<T: Clone + Send + Sync + 'static>() -> Cache<Fingerprint, Kept<T>> {
    Cache::builder().max_capacity(MOST_KEPT).expire_after(OwnTime).build()
}

impl DirectoryLookup {
    /// Connects when it is first asked.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new(
        names: Arc<NameLookup>,
        counts: DirectoryCounts,
    ) -> Result<Self, aws_lc_rs::error::Unspecified> {
        let mut salt = [0; 32];
        rand::fill(&mut salt)?;
        let servers = Cache::builder().max_capacity(MOST_DIRECTORIES).time_to_idle(IDLE).build();
        let (answers, earlier, passwords) = (keeper(), keeper(), keeper());
        Ok(Self { answers, earlier, passwords, servers, names, counts, salt })
    }

    /// What the directory holds.
    ///
    /// # Errors
    /// No server says, and nothing is remembered; the caller refuses.
    pub async fn answer(
        &self,
        question: &DirectoryQuestion,
    ) -> Result<DirectoryAnswer, DirectoryError> {
        let servers = self.servers(&question.directory).await;
        let found = self.accounts(&servers, question).await?;
        let password_right = match &question.asked {
            Asked::Certificate(_) => false,
            Asked::Logon(name, password) => self.password(&servers, name, password, &found).await?,
        };
        Ok(DirectoryAnswer { password_right, ..(*found).clone() })
    }

    async fn servers(&self, directory: &Arc<Directory>) -> Arc<Servers> {
        let new = async { Arc::new(Servers::new(directory.clone(), self.names.clone())) };
        self.servers.get_with(directory.digest(), new).await
    }

    /// Remembered, or asked for; by one at a time for all who want the same.
    async fn accounts(
        &self,
        servers: &Arc<Servers>,
        question: &DirectoryQuestion,
    ) -> Result<Arc<DirectoryAnswer>, DirectoryError> {
        let key = key(question);
        if let Some(kept) = self.answers.get(&key).await {
            self.counts.remembered.inc();
            return Ok(kept.value);
        }
        let fetched = self.answers.try_get_with(key, self.fetch(key, servers, question)).await;
        let error = match fetched {
            Ok(kept) => return Ok(kept.value),
            Err(error) => error,
        };
        if let Some(kept) = self.earlier.get(&key).await {
            self.counts.stale.inc();
            return Ok(kept.value);
        }
        self.counts.failed.inc();
        Err((*error).clone())
    }

    async fn fetch(
        &self,
        key: Fingerprint,
        servers: &Arc<Servers>,
        question: &DirectoryQuestion,
    ) -> Result<Kept<Arc<DirectoryAnswer>>, DirectoryError> {
        let (asked, of) = (question.clone(), servers.clone());
        let answer = apart(async move { of.accounts(&asked.asked).await }).await?;
        self.counts.asked.inc();
        let keeping = question.directory.settings().keeping;
        let lasts = if answer.accounts.is_empty() { keeping.not_found } else { keeping.found };
        let value = Arc::new(answer);
        if !keeping.stale.is_zero() {
            let kept = Kept { value: value.clone(), lasts: lasts.saturating_add(keeping.stale) };
            self.earlier.insert(key, kept).await;
        }
        Ok(Kept { value, lasts })
    }

    /// Each password is tried once for as long as the account's is not changed: a client that repeats a wrong one locks
    /// nobody out. An account that cannot be used is not tried at all.
    async fn password(
        &self,
        servers: &Arc<Servers>,
        name: &LogonName,
        password: &Secret<String>,
        found: &DirectoryAnswer,
    ) -> Result<bool, DirectoryError> {
        let Ok(Some(account)) = name.account(found) else { return Ok(false) };
        let keeping = servers.settings().keeping;
        let identity = format!("{}\0{:?}", account.dn, account.password_set);
        let parts = [&identity.into_bytes(), password.expose().as_bytes()];
        let digests = parts.map(|part| *Fingerprint::of(part).as_bytes()).concat();
        let key = [&self.salt[..], servers.digest().as_bytes(), &digests].concat();
        let (of, dn, secret) = (servers.clone(), account.dn.clone(), password.clone());
        let known_change = account.password_set.is_some();
        let attempt = async {
            let verified = apart(async move { of.verify(&dn, &secret).await }).await?;
            let (value, lasts) = match verified {
                Verified::Right => (true, keeping.found),
                Verified::Wrong if known_change => (false, WRONG),
                Verified::Wrong | Verified::NotNow => (false, keeping.not_found),
            };
            Ok::<_, DirectoryError>(Kept { value, lasts })
        };
        let tried = self.passwords.try_get_with(Fingerprint::of(&key), attempt).await;
        tried.map(|kept| kept.value).map_err(|error| {
            self.counts.failed.inc();
            (*error).clone()
        })
    }
}

impl fmt::Debug for DirectoryLookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectoryLookup").field("counts", &self.counts).finish_non_exhaustive()
    }
}

/// On a task of its own: it goes on when the client who wanted it has gone, for the others who wait, and what a server
/// that breaks the protocol brings down is that task.
async fn apart<T: Send + 'static>(
    work: impl Future<Output = Result<T, DirectoryError>> + Send + 'static,
) -> Result<T, DirectoryError> {
    let ended = tokio::spawn(work).await;
    ended.map_err(|_| DirectoryError::Broken("the directory".into(), "bad answer".into()))?
}

/// What an answer is remembered under.
fn key(question: &DirectoryQuestion) -> Fingerprint {
    let digest = question.directory.digest();
    let asked = match &question.asked {
        Asked::Certificate(certificate) => certificate.fingerprint,
        Asked::Logon(name, _) => Fingerprint::of(format!("{name:?}").as_bytes()),
    };
    Fingerprint::of(&[&digest.as_bytes()[..], asked.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{DirectoryBind, DirectorySettings, DirectoryUrl, Keeping};

    fn question(port: u16, name: &str) -> DirectoryQuestion {
        let url = DirectoryUrl::parse(&format!("ldaps://127.0.0.1:{port}")).unwrap();
        let settings = DirectorySettings {
            urls: vec![url],
            cas: Vec::new(),
            server_name: None,
            bind: DirectoryBind::Simple { name: "x".into(), password: Secret::new("y".into()) },
            base_dn: None,
            timeout: Duration::from_millis(200),
            keeping: Keeping { found: IDLE, not_found: IDLE, stale: IDLE },
            weak: Vec::new(),
            refuse_expired_password: false,
        };
        let name = LogonName::parse(name).unwrap();
        let asked = Asked::Logon(name, Secret::new("secret-password".into()));
        DirectoryQuestion { directory: Arc::new(Directory::new(settings)), asked }
    }

    fn lookup() -> DirectoryLookup {
        DirectoryLookup::new(Arc::default(), DirectoryCounts::default()).unwrap()
    }

    /// A port that nobody listens on.
    async fn closed() -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    }

    #[tokio::test]
    async fn a_server_that_failed_is_left_alone_and_nothing_is_remembered_of_it() {
        let (lookup, port) = (lookup(), closed().await);
        let first = lookup.answer(&question(port, "alice")).await;
        assert!(matches!(first, Err(DirectoryError::Connect(..))), "{first:?}");
        let second = lookup.answer(&question(port, "alice")).await;
        assert!(matches!(second, Err(DirectoryError::Resting(_))), "{second:?}");
        assert_eq!((lookup.counts.failed.get(), lookup.counts.asked.get()), (2, 0));
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_is_waited_for_once() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = silent.local_addr().unwrap().port();
        let lookup = Arc::new(lookup());
        let ask = |name: &str| {
            let (lookup, question) = (lookup.clone(), question(port, name));
            async move { lookup.answer(&question).await }
        };
        let (first, second) = tokio::join!(ask("alice"), ask("alice"));
        assert!(matches!(first, Err(DirectoryError::TimedOut(_))), "{first:?}");
        assert_eq!(first, second);
        let third = ask("bob").await.unwrap_err();
        assert!(matches!(third, DirectoryError::Resting(_)), "{third:?}");
        assert!(!third.to_string().contains("secret-password"));
    }

    #[test]
    fn other_settings_are_another_directory() {
        let (a, b) = (question(1, "alice"), question(2, "alice"));
        assert_ne!(key(&a), key(&b));
        assert_ne!(key(&a), key(&question(1, "bob")));
        assert_eq!(key(&a), key(&question(1, "Alice")));
    }
}
