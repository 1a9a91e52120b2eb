//! Whatever the engine or the wire asks the outside for: whether a password belongs to a hash, where a name leads.
//!
//! Answers go back to `policy::decide`, which alone decides what they mean.

mod names;
mod passwords;

pub use names::{NameError, NameLookup};
pub use passwords::{Overloaded, PasswordLookup};

use crate::auth::{Answer, Question};

/// Everything that questions are answered by.
#[derive(Debug)]
pub struct Lookups {
    /// Password hashes.
    pub passwords: PasswordLookup,
}

/// Why a question has no answer; the request is refused (503).
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unanswered {
    /// Too many passwords at once.
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
}

impl Lookups {
    /// Finds out.
    ///
    /// # Errors
    /// It cannot be found out now.
    pub async fn answer(&self, question: &Question) -> Result<Answer, Unanswered> {
        match question {
            Question::Password(question) => {
                Ok(Answer::Password(self.passwords.answer(question).await?))
            }
        }
    }
}
