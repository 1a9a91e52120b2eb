//! Why a directory gives no answer.

use crate::lookup::names::NameError;

/// Why there is no answer. Never a password.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DirectoryError {
    /// The settings cannot be used.
    #[error("{0}")]
    Settings(Box<str>),
    /// The server's name leads nowhere.
    #[error(transparent)]
    Name(#[from] NameError),
    /// It cannot be connected to, or its certificate is not right.
    #[error("{0} cannot be connected to: {1}")]
    Connect(Box<str>, Box<str>),
    /// It does not let us search.
    #[error("{0} does not accept the bind account: {1}")]
    Bind(Box<str>, Box<str>),
    /// It says nothing in time.
    #[error("{0} does not answer in time")]
    TimedOut(Box<str>),
    /// The connection broke off.
    #[error("{0} broke off: {1}")]
    Broken(Box<str>, Box<str>),
    /// It answers with an error.
    #[error("{0} answers with error {1}: {2}")]
    Refused(Box<str>, u32, Box<str>),
    /// Every server failed a moment ago.
    #[error("no server is asked for a moment, because of: {0}")]
    Resting(Box<str>),
    /// Too many questions wait.
    #[error("too many questions wait for the directory")]
    Overloaded,
}
