//! The name that a user logs on with.

/// A name in one of Windows' three spellings. Nothing else is asked about: a directory takes other things for names too,
/// such as DNs and SIDs, and not all of them mean one account.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum LogonName {
    /// `alice`
    Plain(Box<str>),
    /// `CORP\alice`
    InDomain(Box<str>, Box<str>),
    /// `alice@corp.example`
    Principal(Box<str>, Box<str>),
}

/// What a sAMAccountName cannot hold.
const FORBIDDEN: &[char] =
    &['"', '/', '\\', '[', ']', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@'];
const LONGEST: usize = 256;

impl LogonName {
    /// Reads a name; in lower case, because directories do not tell cases apart.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.to_lowercase();
        let whole = |part: &str| {
            !part.is_empty()
                && part.trim() == part
                && !part.contains(|c: char| c.is_control() || FORBIDDEN.contains(&c))
        };
        if text.len() > LONGEST {
            return None;
        }
        if let Some((domain, name)) = text.split_once('\\') {
            return (whole(domain) && whole(name))
                .then(|| Self::InDomain(domain.into(), name.into()));
        }
        if let Some((name, suffix)) = text.rsplit_once('@') {
            return (whole(name) && whole(suffix))
                .then(|| Self::Principal(name.into(), suffix.into()));
        }
        whole(&text).then(|| Self::Plain(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_spellings_are_names() {
        assert_eq!(LogonName::parse("Alice"), Some(LogonName::Plain("alice".into())));
        assert_eq!(
            LogonName::parse("CORP\\Alice"),
            Some(LogonName::InDomain("corp".into(), "alice".into()))
        );
        assert_eq!(
            LogonName::parse("Alice@Corp.Example"),
            Some(LogonName::Principal("alice".into(), "corp.example".into()))
        );
    }

    #[test]
    fn what_a_directory_might_take_for_something_else_is_no_name() {
        for text in [
            "",
            " alice",
            "\\alice",
            "CORP\\",
            "a@",
            "@b",
            "CN=alice,DC=corp",
            "a*",
            "a)(b=*",
            "corp/alice",
            "a\0",
            "CORP\\a\\b",
            "a@b@c",
        ] {
            assert_eq!(LogonName::parse(text), None, "{text}");
        }
        assert_eq!(LogonName::parse(&"a".repeat(257)), None);
    }
}
