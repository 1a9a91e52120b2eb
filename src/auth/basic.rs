//! The Basic module: whose user name and password are right.

use std::collections::HashMap;
use std::sync::Arc;

use super::credentials::BasicCredentials;
use super::password::PasswordHash;
use super::question::{Answer, Answers, PasswordQuestion, Question};
use super::secret::Secret;
use crate::identity::Fingerprint;

/// The users of one Basic module.
#[derive(Clone, Debug, Default)]
pub struct BasicUsers {
    users: HashMap<Box<str>, StoredPassword>,
    /// The users' names in order: one of them is hashed against in an unknown user's stead.
    decoys: Vec<Box<str>>,
    /// What the choice of a decoy depends on, so that nobody outside can foretell it.
    salt: Vec<u8>,
}

/// What a password is compared with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum StoredPassword {
    /// An account Secret's password.
    Plain(Secret<Box<[u8]>>),
    /// An htpasswd entry.
    Hashed(Arc<PasswordHash>),
}

/// Whether these credentials are right.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum BasicOutcome {
    /// They are.
    Right,
    /// They are not: no such user, or another password.
    Wrong,
    /// It takes a hash to know.
    Ask(PasswordQuestion),
}

impl BasicUsers {
    /// Adds a user.
    ///
    /// # Errors
    /// The name is taken, and the one who has it keeps it.
    pub fn add(&mut self, user: &str, password: StoredPassword) -> Result<(), StoredPassword> {
        if self.users.contains_key(user) {
            return Err(password);
        }
        match &password {
            StoredPassword::Plain(plain) => self.salt.extend_from_slice(plain.expose()),
            StoredPassword::Hashed(hash) => self.salt.extend_from_slice(hash.expose().as_bytes()),
        }
        self.users.insert(user.into(), password);
        let place = self.decoys.partition_point(|other| **other < *user);
        self.decoys.insert(place, user.into());
        Ok(())
    }

    /// Whether there is a user of this name.
    #[must_use]
    pub fn knows(&self, user: &str) -> bool {
        self.users.contains_key(user)
    }

    /// The number of users.
    #[must_use]
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether nobody can log on.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Judges credentials. A user who does not exist costs what some user who does would cost, always the same one, so
    /// that neither one answer's time nor many tell which names exist.
    #[must_use]
    pub fn check(&self, offered: &BasicCredentials, answers: &Answers) -> BasicOutcome {
        let known = self.users.get(&offered.user);
        match known.or_else(|| self.decoy(&offered.user)) {
            None => BasicOutcome::Wrong,
            Some(StoredPassword::Plain(password)) => {
                Self::outcome(*password == offered.password && known.is_some())
            }
            Some(StoredPassword::Hashed(hash)) => {
                let question =
                    PasswordQuestion { hash: hash.clone(), password: offered.password.clone() };
                match answers.to(&Question::Password(question.clone())) {
                    Some(Answer::Password(right)) => Self::outcome(*right && known.is_some()),
                    Some(_) | None => BasicOutcome::Ask(question),
                }
            }
        }
    }

    fn outcome(right: bool) -> BasicOutcome {
        if right { BasicOutcome::Right } else { BasicOutcome::Wrong }
    }

    fn decoy(&self, user: &str) -> Option<&StoredPassword> {
        let digest = Fingerprint::of(&[&self.salt, user.as_bytes()].concat());
        let (first, _) = digest.as_bytes().split_first_chunk::<8>()?;
        let index =
            usize::try_from(u64::from_be_bytes(*first)).ok()?.checked_rem(self.decoys.len())?;
        self.decoys.get(index).and_then(|name| self.users.get(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: &str = "$2b$04$abcdefghijklmnopqrstuuyeG8laUfZvsCmc.AE6qIDYSPGM2efmK";

    fn credentials(user: &str, password: &str) -> BasicCredentials {
        BasicCredentials { user: user.into(), password: Secret::new(password.as_bytes().into()) }
    }

    fn users() -> BasicUsers {
        let mut users = BasicUsers::default();
        let hash = Arc::new(PasswordHash::parse(HELLO).unwrap());
        users.add("bob", StoredPassword::Hashed(hash)).unwrap();
        users
    }

    fn answered(users: &BasicUsers, offered: &BasicCredentials) -> BasicOutcome {
        let mut answers = Answers::default();
        match users.check(offered, &answers) {
            BasicOutcome::Ask(question) => {
                let right = question.hash.verify(question.password.expose());
                answers.add(Question::Password(question), Answer::Password(right));
                users.check(offered, &answers)
            }
            outcome => outcome,
        }
    }

    #[test]
    fn a_hash_is_asked_for_and_its_answer_decides() {
        assert_eq!(answered(&users(), &credentials("bob", "Hello world!")), BasicOutcome::Right);
        assert_eq!(answered(&users(), &credentials("bob", "hello")), BasicOutcome::Wrong);
    }

    #[test]
    fn an_unknown_user_costs_a_hash_and_is_wrong_even_with_anothers_password() {
        let (users, eve) = (users(), credentials("eve", "Hello world!"));
        assert!(matches!(users.check(&eve, &Answers::default()), BasicOutcome::Ask(_)));
        assert_eq!(answered(&users, &eve), BasicOutcome::Wrong);
    }

    #[test]
    fn an_answer_counts_only_for_its_own_password() {
        let (users, right, wrong) =
            (users(), credentials("bob", "Hello world!"), credentials("bob", "x"));
        let BasicOutcome::Ask(question) = users.check(&right, &Answers::default()) else {
            panic!("no question")
        };
        let mut answers = Answers::default();
        answers.add(Question::Password(question), Answer::Password(true));
        assert_eq!(users.check(&right, &answers), BasicOutcome::Right);
        assert!(matches!(users.check(&wrong, &answers), BasicOutcome::Ask(_)));
    }

    #[test]
    fn plain_passwords_are_compared_at_once() {
        let mut users = BasicUsers::default();
        let password = StoredPassword::Plain(Secret::new((*b"s3cret").into()));
        users.add("test", password.clone()).unwrap();
        assert_eq!(
            users.check(&credentials("test", "s3cret"), &Answers::default()),
            BasicOutcome::Right
        );
        assert_eq!(
            users.check(&credentials("test", "s3cret2"), &Answers::default()),
            BasicOutcome::Wrong
        );
        assert_eq!(
            users.check(&credentials("tess", "s3cret"), &Answers::default()),
            BasicOutcome::Wrong
        );
        assert_eq!(users.add("test", password.clone()), Err(password));
    }

    #[test]
    fn without_users_nobody_is_right() {
        assert_eq!(
            BasicUsers::default().check(&credentials("", ""), &Answers::default()),
            BasicOutcome::Wrong
        );
    }
}
