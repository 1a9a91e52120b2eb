//! How a credential is checked, without waiting for anyone.
//!
//! Pure: what takes long (a password hash) is not done here but named, as a question that `lookup` answers; what is
//! unknown here is refused. Passwords stand in [`Secret`] and are never printed.

mod apr1;
mod basic;
mod credentials;
mod htpasswd;
mod password;
mod secret;

pub use basic::{Answers, BasicOutcome, BasicUsers, PasswordQuestion, StoredPassword};
pub use credentials::{BasicCredentials, Credentials};
pub use htpasswd::{HtpasswdEntry, HtpasswdError, parse_htpasswd};
pub use password::{PasswordHash, PasswordHashError};
pub use secret::Secret;
