//! Stored password hashes: bcrypt, SHA-crypt, APR1.

use std::fmt;
use std::str::FromStr;

use sha_crypt::{PasswordHashRef, PasswordVerifier, ShaCrypt};

use super::apr1::apr1;
use super::secret::Secret;

/// Above this a single guess would keep a core busy for seconds.
const HIGHEST_BCRYPT_COST: u32 = 16;
/// Likewise for SHA-crypt.
const MOST_ROUNDS: u32 = 2_000_000;

/// A hash that a password can be checked against.
#[derive(Clone, Eq, PartialEq)]
pub struct PasswordHash {
    scheme: Scheme,
    text: Secret<String>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Scheme {
    Bcrypt,
    ShaCrypt,
    Apr1,
}

/// A hash that cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PasswordHashError {
    /// A scheme that is not supported, or a password that is not hashed at all.
    #[error(
        "not a bcrypt ($2y$), SHA-crypt ($5$, $6$) or APR1 ($apr1$) hash: make one with htpasswd -B or openssl passwd -6"
    )]
    UnknownScheme,
    /// The scheme is known, the rest is broken.
    #[error("the hash is cut off or malformed")]
    Malformed,
    /// A guess would take too long.
    #[error(
        "the cost is too high: at most {HIGHEST_BCRYPT_COST} for bcrypt, {MOST_ROUNDS} rounds for SHA-crypt"
    )]
    TooCostly,
}

impl PasswordHash {
    /// Reads a hash in the form that htpasswd files hold.
    ///
    /// # Errors
    /// It could never be matched, or matching it would take too long.
    pub fn parse(text: &str) -> Result<Self, PasswordHashError> {
        let scheme = match text.split('$').nth(1) {
            Some("2a" | "2b" | "2y") => check_bcrypt(text)?,
            Some("5" | "6") => check_sha_crypt(text)?,
            Some("apr1") => check_apr1(text)?,
            _ => return Err(PasswordHashError::UnknownScheme),
        };
        Ok(Self { scheme, text: Secret::new(text.into()) })
    }

    /// Whether this is the password. Takes from a millisecond to seconds of CPU: not for the event loop.
    #[must_use]
    pub fn verify(&self, password: &[u8]) -> bool {
        let text = self.text.expose();
        match self.scheme {
            Scheme::Bcrypt => bcrypt::verify(password, text).unwrap_or(false),
            Scheme::ShaCrypt => PasswordHashRef::new(text)
                .is_ok_and(|hash| ShaCrypt::default().verify_password(password, hash).is_ok()),
            Scheme::Apr1 => apr1_salt(text).is_some_and(|salt| {
                let computed = format!("$apr1${salt}${}", apr1(password, salt.as_bytes()));
                Secret::new(computed) == self.text
            }),
        }
    }

    /// The stored text, as a key for caches; never to be printed.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.text.expose()
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}(<redacted>)", self.scheme)
    }
}

fn check_bcrypt(text: &str) -> Result<Scheme, PasswordHashError> {
    let parts = bcrypt::HashParts::from_str(text).map_err(|_| PasswordHashError::Malformed)?;
    if parts.get_cost() > HIGHEST_BCRYPT_COST {
        Err(PasswordHashError::TooCostly)
    } else {
        Ok(Scheme::Bcrypt)
    }
}

fn check_sha_crypt(text: &str) -> Result<Scheme, PasswordHashError> {
    let mut fields = text.split('$').skip(2).peekable();
    if let Some(rounds) = fields.peek().and_then(|field| field.strip_prefix("rounds=")) {
        let rounds: u32 = rounds.parse().map_err(|_| PasswordHashError::Malformed)?;
        if rounds > MOST_ROUNDS {
            return Err(PasswordHashError::TooCostly);
        }
        fields.next();
    }
    let digits = if text.starts_with("$5") { 43 } else { 86 };
    let (salt, hash) = (fields.next(), fields.next());
    let whole =
        salt.is_some() && hash.is_some_and(|hash| hash.len() == digits) && fields.next().is_none();
    let readable = PasswordHashRef::new(text).is_ok();
    if whole && readable { Ok(Scheme::ShaCrypt) } else { Err(PasswordHashError::Malformed) }
}

fn check_apr1(text: &str) -> Result<Scheme, PasswordHashError> {
    let hash = text.split('$').nth(3);
    let whole = apr1_salt(text).is_some() && hash.is_some_and(|hash| hash.len() == 22);
    if whole { Ok(Scheme::Apr1) } else { Err(PasswordHashError::Malformed) }
}

fn apr1_salt(text: &str) -> Option<&str> {
    text.split('$').nth(2).filter(|salt| (1..=8).contains(&salt.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `openssl passwd` and with libxcrypt.
    const HELLO: [&str; 5] = [
        "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
        "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5",
        "$apr1$abcdefgh$Unf1zc.jsgCbBQDCL104q.",
        "$2b$04$abcdefghijklmnopqrstuuyeG8laUfZvsCmc.AE6qIDYSPGM2efmK",
        "$2y$04$abcdefghijklmnopqrstuuyeG8laUfZvsCmc.AE6qIDYSPGM2efmK",
    ];

    #[test]
    fn hashes_of_other_programs_are_verified() {
        for text in HELLO {
            let hash = PasswordHash::parse(text).unwrap();
            assert!(hash.verify(b"Hello world!"), "{text}");
            assert!(!hash.verify(b"Hello world"), "{text}");
            assert!(!hash.verify(b""), "{text}");
        }
        let rounds = "$6$rounds=20000$abc$vBKAfLOK2E/4qCv/KdEJnTl05dMuDHz2xYVM1QNMYfm53qyNlJjvuLvOIqDjRekQAUq2JTmV4q5S3MPZk2ZM4/";
        assert!(PasswordHash::parse(rounds).unwrap().verify(b"x"));
    }

    #[test]
    fn what_could_never_match_is_refused() {
        for text in ["", "secret", "{SHA}qvTGHdzF6KLavt4PO0gs2a6pQ00=", "$1$abc$def", "$7$x$y"] {
            assert_eq!(PasswordHash::parse(text), Err(PasswordHashError::UnknownScheme), "{text}");
        }
        for text in HELLO {
            let (cut, _) = text.split_at(text.len() - 3);
            assert_eq!(PasswordHash::parse(cut), Err(PasswordHashError::Malformed), "{cut}");
        }
    }

    #[test]
    fn a_hash_that_would_block_a_core_is_refused() {
        let bcrypt = HELLO[3].replace("$04$", "$31$");
        assert_eq!(PasswordHash::parse(&bcrypt), Err(PasswordHashError::TooCostly));
        let sha = HELLO[0].replace("$6$", "$6$rounds=999999999$");
        assert_eq!(PasswordHash::parse(&sha), Err(PasswordHashError::TooCostly));
    }

    #[test]
    fn is_not_printed() {
        assert_eq!(format!("{:?}", PasswordHash::parse(HELLO[0]).unwrap()), "ShaCrypt(<redacted>)");
    }
}
