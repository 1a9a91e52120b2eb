//! The text of an htpasswd file: `user:hash` on each line.

use super::password::{PasswordHash, PasswordHashError};

/// One line's user and hash.
pub type HtpasswdEntry = (Box<str>, PasswordHash);

/// A line that cannot be used. Others stay in force.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HtpasswdError {
    /// No colon, or nothing before it.
    #[error("line {line} is not user:hash")]
    NotAnEntry {
        /// Counted from 1.
        line: usize,
    },
    /// The hash cannot be used.
    #[error("line {line}, user {user}: {error}")]
    Hash {
        /// Counted from 1.
        line: usize,
        /// The user it stands for.
        user: String,
        /// What is wrong.
        error: PasswordHashError,
    },
}

/// Reads every line; empty lines and comments (`#`) are passed over.
#[must_use]
pub fn parse_htpasswd(text: &str) -> (Vec<HtpasswdEntry>, Vec<HtpasswdError>) {
    let (mut entries, mut errors) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        let line_text = line.trim();
        if line_text.is_empty() || line_text.starts_with('#') {
            continue;
        }
        match parse_line(line_text, index + 1) {
            Ok(entry) => entries.push(entry),
            Err(error) => errors.push(error),
        }
    }
    (entries, errors)
}

fn parse_line(text: &str, line: usize) -> Result<HtpasswdEntry, HtpasswdError> {
    let (user, hash) = text
        .split_once(':')
        .filter(|(user, _)| !user.is_empty())
        .ok_or(HtpasswdError::NotAnEntry { line })?;
    match PasswordHash::parse(hash) {
        Ok(hash) => Ok((user.into(), hash)),
        Err(error) => Err(HtpasswdError::Hash { line, user: user.to_owned(), error }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_line_does_not_take_the_others_with_it() {
        let text =
            "# staff\nbob:$apr1$abcdefgh$Unf1zc.jsgCbBQDCL104q.\n\nalice\r\ncarol:plain\n:x\n";
        let (entries, errors) = parse_htpasswd(text);
        assert_eq!(entries.iter().map(|(user, _)| &**user).collect::<Vec<_>>(), ["bob"]);
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0], "line 4 is not user:hash");
        assert!(lines[1].starts_with("line 5, user carol: not a bcrypt"), "{}", lines[1]);
        assert!(!lines.concat().contains("plain"));
    }
}
