//! What a directory is asked, as data, and what came back.

use std::sync::Arc;

use super::account::DirectoryAccount;
use super::name::LogonName;
use super::settings::Directory;
use crate::auth::Secret;
use crate::identity::PeerCertificate;

/// A question to one directory.
#[derive(Clone, Debug)]
pub struct DirectoryQuestion {
    /// Which, and how.
    pub directory: Arc<Directory>,
    /// What.
    pub asked: Asked,
}

/// What is asked.
#[derive(Clone, Debug)]
pub enum Asked {
    /// Whose is this certificate? It has verified: nothing of another one ever gets here.
    Certificate(Arc<PeerCertificate>),
    /// Who has this name, and is this the password?
    Logon(LogonName, Secret<String>),
}

impl PartialEq for DirectoryQuestion {
    fn eq(&self, other: &Self) -> bool {
        self.directory.digest() == other.directory.digest()
            && match (&self.asked, &other.asked) {
                (Asked::Certificate(a), Asked::Certificate(b)) => a.fingerprint == b.fingerprint,
                (Asked::Logon(a, secret), Asked::Logon(b, other)) => a == b && secret == other,
                _ => false,
            }
    }
}

impl Eq for DirectoryQuestion {}

/// What the directory holds.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DirectoryAnswer {
    /// The accounts that were found.
    pub accounts: Arc<[DirectoryAccount]>,
    /// Whether there are more than were fetched.
    pub more: bool,
    /// Whether the password is the one account's; only where one was asked about.
    pub password_right: bool,
}
