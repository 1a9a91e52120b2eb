//! How a credential is checked, without waiting for anyone.
//!
//! Pure: what takes long (a password hash, a directory) is not done here but named, as a question that `lookup` answers;
//! what is unknown here is refused. Passwords stand in [`Secret`] and are never printed.

mod apr1;
mod basic;
mod bearer;
mod claims;
mod credentials;
mod directory;
mod external;
mod htpasswd;
mod keys;
mod name;
mod password;
mod principal;
mod question;
mod secret;
mod signing_key;
mod unique;

pub use basic::{BasicOutcome, BasicUsers, StoredPassword};
pub use bearer::{Bearer, BearerOutcome, BearerSettings, Token, TokenError, TokenKeys};
pub use claims::Claims;
pub use credentials::{BasicCredentials, Credentials};
pub use directory::{
    Asked, Directory, DirectoryAccount, DirectoryAnswer, DirectoryBind, DirectoryGroup,
    DirectoryQuestion, DirectoryRefusal, DirectorySettings, DirectoryUrl, DirectoryVerdict,
    Filetime, Form, Found, Keeping, LogonName, Strength, certificate_filter, escape_filter,
    judge_certificate, judge_logon,
};
pub use external::{
    AnswerError, ExternalAnswer, ExternalQuestion, ExternalService, PassedBack, RequestHead,
};
pub use htpasswd::{HtpasswdEntry, HtpasswdError, parse_htpasswd};
pub use keys::{KeySet, KeySetError, KeySource, KeysQuestion};
pub use password::{PasswordHash, PasswordHashError};
pub use principal::{Known, Principal};
pub use question::{Answer, Answers, PasswordQuestion, Question};
pub use secret::Secret;
pub use signing_key::{PublicKey, SigningError, SigningKey, SigningKeyError};
