//! What a request offers in its Authorization field (RFC 9110, 11.6.2).

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::secret::Secret;

/// Longer passwords are wrong without being hashed: SHA-crypt's cost grows with the square of their length.
const LONGEST_PASSWORD: usize = 512;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The credentials of one request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Credentials {
    /// RFC 7617.
    Basic(BasicCredentials),
    /// The Basic scheme, but not what RFC 7617 says follows it.
    MalformedBasic,
    /// RFC 6750; what the token is worth is yet to be seen.
    Bearer(Secret<Box<[u8]>>),
    /// A scheme that certmap has no module for.
    OtherScheme,
}

/// A user name and a password.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BasicCredentials {
    /// Without a colon, by the grammar.
    pub user: Box<str>,
    /// Any octets.
    pub password: Secret<Box<[u8]>>,
}

impl Credentials {
    /// Reads the value of one Authorization field.
    #[must_use]
    pub fn parse(value: &[u8]) -> Self {
        let value = value.trim_ascii();
        let scheme_end = value.iter().position(|&b| b == b' ').unwrap_or(value.len());
        let (scheme, parameter) = value.split_at(scheme_end);
        if scheme.eq_ignore_ascii_case(b"bearer") {
            return Self::Bearer(Secret::new(parameter.trim_ascii().into()));
        }
        if !scheme.eq_ignore_ascii_case(b"basic") {
            return Self::OtherScheme;
        }
        basic(parameter.trim_ascii()).map_or(Self::MalformedBasic, Self::Basic)
    }
}

fn basic(parameter: &[u8]) -> Option<BasicCredentials> {
    let pair = BASE64.decode(parameter).ok()?;
    let colon = pair.iter().position(|&b| b == b':')?;
    let (user, password) = pair.split_at(colon);
    let user = std::str::from_utf8(user).ok().filter(|user| !user.chars().any(char::is_control))?;
    let password = password.get(1..).filter(|password| password.len() <= LONGEST_PASSWORD)?;
    Some(BasicCredentials { user: user.into(), password: Secret::new(password.into()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pair: &str) -> Credentials {
        Credentials::parse(format!("Basic {}", BASE64.encode(pair)).as_bytes())
    }

    #[test]
    fn basic_is_split_at_the_first_colon() {
        let expected =
            BasicCredentials { user: "bob".into(), password: Secret::new((*b"a:b").into()) };
        assert_eq!(parse("bob:a:b"), Credentials::Basic(expected.clone()));
        assert_eq!(Credentials::parse(b"bAsIc   Ym9iOmE6Yg"), Credentials::Basic(expected));
    }

    #[test]
    fn what_is_not_user_and_password_is_malformed() {
        for pair in ["bob", "b\nob:x", &format!("bob:{}", "x".repeat(513))] {
            assert_eq!(parse(pair), Credentials::MalformedBasic, "{pair}");
        }
        assert_eq!(Credentials::parse(b"Basic"), Credentials::MalformedBasic);
        assert_eq!(Credentials::parse(b"Basic !!!"), Credentials::MalformedBasic);
    }

    #[test]
    fn a_bearer_token_is_what_follows_the_scheme() {
        let token = |text: &[u8]| Credentials::Bearer(Secret::new(text.into()));
        assert_eq!(Credentials::parse(b"bEARER  a.b.c "), token(b"a.b.c"));
        assert_eq!(Credentials::parse(b"Bearer"), token(b""));
    }

    #[test]
    fn other_schemes_are_not_looked_into() {
        assert_eq!(Credentials::parse(b"Negotiate abc"), Credentials::OtherScheme);
        assert_eq!(Credentials::parse(b""), Credentials::OtherScheme);
    }
}
