//! Whatever the engine or the wire asks the outside for: whether a password belongs to a hash, which keys an issuer
//! publishes, what an external service says, where a name leads.
//!
//! Answers go back to `policy::decide`, which alone decides what they mean.

mod directory;
mod external;
mod https;
mod keys;
mod names;
mod passwords;

use std::sync::Arc;

pub use directory::{DirectoryCounts, DirectoryError, DirectoryLookup};
pub use external::{ExternalLookup, ExternalUnavailable};
pub use keys::{CountFetch, KeyLookup, KeysUnavailable};
pub use names::{NameError, NameLookup};
pub use passwords::{Overloaded, PasswordLookup};

use crate::auth::{Answer, Question};
use crate::snapshot::Snapshot;

/// Everything that questions are answered by.
#[derive(Debug)]
pub struct Lookups {
    /// Password hashes.
    pub passwords: PasswordLookup,
    /// Directories.
    pub directories: DirectoryLookup,
    /// Keys of issuers of tokens.
    pub keys: Arc<KeyLookup>,
    /// External services.
    pub external: ExternalLookup,
}

/// Why a question has no answer; the request is refused (503).
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// Too many passwords at once.
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
    /// The directory does not say.
    #[error("directory: {0}")]
    Directory(#[from] DirectoryError),
    /// There are no keys.
    #[error(transparent)]
    Keys(#[from] KeysUnavailable),
    /// There is no answer of an external service.
    #[error(transparent)]
    External(#[from] ExternalUnavailable),
}

impl Lookups {
    /// Finds out.
    ///
    /// # Errors
    /// It cannot be found out now.
    pub async fn answer(
        &self,
        question: &Question,
        snapshot: &Snapshot,
    ) -> Result<Answer, Unanswered> {
        match question {
            Question::Password(question) => {
                Ok(Answer::Password(self.passwords.answer(question).await?))
            }
            Question::Directory(question) => {
                Ok(Answer::Directory(self.directories.answer(question).await?))
            }
            Question::Keys(question) => Ok(Answer::Keys(self.keys.answer(question)?)),
            Question::External(question) => {
                Ok(Answer::External(self.external.answer(question, snapshot).await?))
            }
        }
    }
}
