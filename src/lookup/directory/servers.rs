//! The servers of one directory: tried in order, left alone for a while after they failed, each connection shared.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ClientConfig;
use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use tokio::time::Instant;

use super::connection::{Connection, INVALID_CREDENTIALS, tls};
use super::error::DirectoryError;
use super::fetch::accounts;
use super::groups::Groups;
use super::session::Session;
use crate::auth::{Asked, Directory, DirectoryAnswer, DirectorySettings, Secret};
use crate::identity::Fingerprint;
use crate::lookup::names::NameLookup;

/// So that one long answer does not stand before all others.
const CONNECTIONS: usize = 4;
/// After this a connection is made anew, beginning with the first server again.
const OLD: Duration = Duration::from_secs(300);
/// A server that failed is not asked for this long.
const REST: Duration = Duration::from_secs(5);
/// Operations error, busy, unavailable: what a server says of itself (RFC 4511, appendix A).
const UNABLE: &[u32] = &[1, 51, 52];
/// Questions under way; more wait, as long as one question may take.
const MOST_AT_ONCE: usize = 128;
const MOST_LOGONS_AT_ONCE: usize = 16;

/// One directory.
pub(super) struct Servers {
    directory: Arc<Directory>,
    names: Arc<NameLookup>,
    tls: Result<Arc<ClientConfig>, Box<str>>,
    slots: [AsyncMutex<Option<Arc<Session>>>; CONNECTIONS],
    next: AtomicUsize,
    /// By server: until when it rests, and why.
    rests: Mutex<Vec<Option<(Instant, DirectoryError)>>>,
    groups: Groups,
    places: Semaphore,
    logons: Semaphore,
}

/// What an attempt to log on showed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verified {
    Right,
    /// Until it is changed.
    Wrong,
    /// For a reason that may pass: locked, out of hours, to be changed first.
    NotNow,
}

impl Servers {
    pub(super) fn new(directory: Arc<Directory>, names: Arc<NameLookup>) -> Self {
        let tls = tls(directory.settings()).map_err(Into::into);
        let rests = Mutex::new(vec![None; directory.settings().urls.len()]);
        let groups = Groups::new(directory.settings().keeping.found);
        Self {
            directory,
            names,
            tls,
            slots: Default::default(),
            next: AtomicUsize::new(0),
            rests,
            groups,
            places: Semaphore::new(MOST_AT_ONCE),
            logons: Semaphore::new(MOST_LOGONS_AT_ONCE),
        }
    }

    pub(super) fn settings(&self) -> &DirectorySettings {
        self.directory.settings()
    }

    pub(super) fn digest(&self) -> Fingerprint {
        self.directory.digest()
    }

    /// Finds accounts. A server that fails is left, and the next one asked.
    pub(super) async fn accounts(&self, asked: &Asked) -> Result<DirectoryAnswer, DirectoryError> {
        let place = tokio::time::timeout(self.settings().timeout, self.places.acquire()).await;
        let _place = place.ok().and_then(Result::ok).ok_or(DirectoryError::Overloaded)?;
        let mut tries = 0;
        loop {
            let slot = self.next.fetch_add(1, Ordering::Relaxed);
            let session = self.session(slot).await?;
            let error = match accounts(&session, self.settings(), &self.groups, asked).await {
                Ok(answer) => return Ok(answer),
                // The server works and does not like the question: that is no reason to leave it to nobody else.
                Err(error @ DirectoryError::Refused(_, code, _)) if !UNABLE.contains(&code) => {
                    return Err(error);
                }
                Err(error) => error,
            };
            self.leave(slot, &session).await;
            // A connection that broke off was perhaps only old; a server that is silent is not asked again at once.
            if !matches!(error, DirectoryError::Broken(..)) {
                self.rest(session.server, &error);
            }
            tries += 1;
            if tries > self.settings().urls.len() {
                return Err(error);
            }
        }
    }

    /// Binds as somebody, on a connection of its own.
    pub(super) async fn verify(
        &self,
        dn: &str,
        password: &Secret<String>,
    ) -> Result<Verified, DirectoryError> {
        // An empty password would be no bind at all, and succeed (RFC 4513, 5.1.2).
        if password.expose().is_empty() || dn.is_empty() {
            return Ok(Verified::Wrong);
        }
        let place = tokio::time::timeout(self.settings().timeout, self.logons.acquire()).await;
        let _place = place.ok().and_then(Result::ok).ok_or(DirectoryError::Overloaded)?;
        let mut tries = 0;
        loop {
            let (server, connection) = self.connect().await?;
            let error = match connection.try_bind(dn, password.expose()).await {
                Ok((0, _)) => return Ok(Verified::Right),
                // Microsoft's word for a wrong password, as against one that is right but of no use now.
                Ok((INVALID_CREDENTIALS, text)) if text.contains("data 52e") => {
                    return Ok(Verified::Wrong);
                }
                Ok((INVALID_CREDENTIALS, _)) => return Ok(Verified::NotNow),
                Ok((code, text)) => {
                    DirectoryError::Refused(connection.url().into(), code, text.into())
                }
                Err(error) => error,
            };
            self.rest(server, &error);
            tries += 1;
            if tries > self.settings().urls.len() {
                return Err(error);
            }
        }
    }

    /// The connection of a slot; made by one, while the others of this slot wait.
    async fn session(&self, slot: usize) -> Result<Arc<Session>, DirectoryError> {
        let Some(slot) = self.slots.get(slot % CONNECTIONS) else {
            return Err(DirectoryError::Overloaded);
        };
        let mut slot = slot.lock().await;
        if let Some(session) = slot.as_ref()
            && !session.is_closed()
            && session.opened.elapsed() < OLD
        {
            return Ok(session.clone());
        }
        *slot = None;
        let session = Arc::new(self.open().await?);
        *slot = Some(session.clone());
        Ok(session)
    }

    async fn open(&self) -> Result<Session, DirectoryError> {
        loop {
            let (server, connection) = self.connect().await?;
            match self.start(server, connection).await {
                Ok(session) => return Ok(session),
                Err(error) => self.rest(server, &error),
            }
        }
    }

    /// At a global catalog's port with a second connection, to the port of the server's domain.
    async fn start(
        &self,
        server: usize,
        connection: Connection,
    ) -> Result<Session, DirectoryError> {
        let settings = self.settings();
        let url = settings.urls.get(server).filter(|url| url.is_global_catalog());
        let Some(url) = url else {
            return Session::start(connection, None, server, settings).await;
        };
        let tls = self.tls.clone().map_err(DirectoryError::Settings)?;
        let domain = Connection::open(settings, &url.of_domain(), tls, &self.names).await?;
        Session::start(domain, Some(connection), server, settings).await
    }

    /// To the first server that is not at rest and can be connected to.
    async fn connect(&self) -> Result<(usize, Connection), DirectoryError> {
        let tls = self.tls.clone().map_err(DirectoryError::Settings)?;
        let mut last = DirectoryError::Settings("the directory has no servers".into());
        for (server, url) in self.settings().urls.iter().enumerate() {
            if let Some(why) = self.resting(server) {
                last = DirectoryError::Resting(why.to_string().into());
                continue;
            }
            match Connection::open(self.settings(), url, tls.clone(), &self.names).await {
                Ok(connection) => return Ok((server, connection)),
                Err(error) => {
                    self.rest(server, &error);
                    last = error;
                }
            }
        }
        Err(last)
    }

    async fn leave(&self, slot: usize, session: &Arc<Session>) {
        let Some(slot) = self.slots.get(slot % CONNECTIONS) else { return };
        let mut slot = slot.lock().await;
        if slot.as_ref().is_some_and(|current| Arc::ptr_eq(current, session)) {
            *slot = None;
        }
    }

    fn rest(&self, server: usize, error: &DirectoryError) {
        let mut rests = self.rests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rest) = rests.get_mut(server) {
            tracing::warn!(%error, "a directory server is left alone for {} s", REST.as_secs());
            *rest = Some((Instant::now() + REST, error.clone()));
        }
    }

    fn resting(&self, server: usize) -> Option<DirectoryError> {
        let rests = self.rests.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, why) = rests.get(server)?.as_ref()?;
        (*until > Instant::now()).then(|| why.clone())
    }
}
