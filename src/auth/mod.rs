//! How a credential is checked, without waiting for anyone.
//!
//! Pure: what takes long (a password hash) is not done here but named, as a question that `lookup` answers; what is
//! unknown here is refused. Passwords stand in [`Secret`] and are never printed.

mod apr1;
mod basic;
mod credentials;
mod htpasswd;
mod password;
mod principal;
mod question;
mod secret;
mod signing_key;

pub use basic::{BasicOutcome, BasicUsers, StoredPassword};
pub use credentials::{BasicCredentials, Credentials};
pub use htpasswd::{HtpasswdEntry, HtpasswdError, parse_htpasswd};
pub use password::{PasswordHash, PasswordHashError};
pub use principal::{Known, Principal};
pub use question::{Answer, Answers, PasswordQuestion, Question};
pub use secret::Secret;
pub use signing_key::{PublicKey, SigningError, SigningKey, SigningKeyError};
