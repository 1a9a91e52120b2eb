//! What a decision needs from outside, as data: asked by the engine, answered by `lookup`, judged by the engine.

use std::sync::Arc;

use super::directory::{DirectoryAnswer, DirectoryQuestion};
use super::external::{ExternalAnswer, ExternalQuestion};
use super::keys::{KeySet, KeysQuestion};
use super::password::PasswordHash;
use super::secret::Secret;

/// What has to be found out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Question {
    /// Whether a password is a hash's.
    Password(PasswordQuestion),
    /// What a directory holds.
    Directory(DirectoryQuestion),
    /// Which keys an issuer of tokens publishes.
    Keys(KeysQuestion),
    /// What an external service says of the request.
    External(ExternalQuestion),
}

/// What was found out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// Whether it is.
    Password(bool),
    /// That it holds this.
    Directory(DirectoryAnswer),
    /// These, or older ones.
    Keys(Arc<KeySet>),
    /// Whether it admits.
    External(ExternalAnswer),
}

/// Is this the password of that hash?
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PasswordQuestion {
    /// The hash.
    pub hash: Arc<PasswordHash>,
    /// The password offered.
    pub password: Secret<Box<[u8]>>,
}

/// The questions of one request that were answered.
#[derive(Clone, Debug, Default)]
pub struct Answers(Vec<(Question, Answer)>);

impl Answers {
    /// Adds an answer.
    pub fn add(&mut self, question: Question, answer: Answer) {
        self.0.push((question, answer));
    }

    /// The answer to a question; none where it was not asked yet.
    #[must_use]
    pub fn to(&self, question: &Question) -> Option<&Answer> {
        self.0.iter().find(|(asked, _)| asked == question).map(|(_, answer)| answer)
    }
}
