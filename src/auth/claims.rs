//! Who somebody else says is calling: an issuer of tokens, an external service.

use super::principal::{Known, Principal};

/// A user and groups.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Claims {
    /// The user's name.
    pub user: Box<str>,
    /// The groups, as they are written.
    pub groups: Vec<Box<str>>,
}

impl From<Claims> for Principal {
    fn from(claims: Claims) -> Self {
        if claims.groups.is_empty() {
            return Self::named(claims.user);
        }
        let groups = claims.groups.into_iter().map(Into::into).collect();
        Self::known(claims.user, Known { groups, ..Known::default() })
    }
}
