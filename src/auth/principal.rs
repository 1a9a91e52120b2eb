//! Who somebody is: a name as it is written, and what more is known of its bearer.

use std::sync::Arc;

/// Somebody in particular.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Principal {
    name: Arc<str>,
    known: Option<Arc<Known>>,
}

/// What a policy, a token or a directory says beyond the name.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Known {
    /// The NetBIOS name of the domain.
    pub domain: Option<Box<str>>,
    /// The name within the domain.
    pub account: Option<Box<str>>,
    /// The user principal name.
    pub upn: Option<Box<str>>,
    /// The security identifier as text, `S-1-5-…`.
    pub sid: Option<Box<str>>,
    /// What backends are told of, in order.
    pub groups: Box<[Arc<str>]>,
    /// More groups, of which they are not told.
    pub further_groups: Box<[Arc<str>]>,
}

impl Principal {
    /// Somebody of whom nothing but the name is known.
    #[must_use]
    pub fn named(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), known: None }
    }

    /// Somebody of whom more is known.
    #[must_use]
    pub fn known(name: impl Into<Arc<str>>, known: Known) -> Self {
        Self { name: name.into(), known: Some(Arc::new(known)) }
    }

    /// The name as it is written: `alice`, `CORP\alice` or `alice@corp.example`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same, for whoever keeps it.
    #[must_use]
    pub fn shared_name(&self) -> Arc<str> {
        self.name.clone()
    }

    /// The domain's NetBIOS name: what stands before a backslash, where nobody said.
    #[must_use]
    pub fn domain(&self) -> Option<&str> {
        let said = self.known.as_ref().and_then(|known| known.domain.as_deref());
        said.or_else(|| self.name.split_once('\\').map(|(domain, _)| domain))
    }

    /// The name within the domain.
    #[must_use]
    pub fn account(&self) -> &str {
        if let Some(account) = self.known.as_ref().and_then(|known| known.account.as_deref()) {
            return account;
        }
        match (self.name.split_once('\\'), self.name.split_once('@')) {
            (Some((_, account)), _) | (None, Some((account, _))) => account,
            (None, None) => &self.name,
        }
    }

    /// The user principal name: a name with an @, where nobody said.
    #[must_use]
    pub fn upn(&self) -> Option<&str> {
        let said = self.known.as_ref().and_then(|known| known.upn.as_deref());
        let written =
            || (self.name.contains('@') && !self.name.contains('\\')).then(|| &*self.name);
        said.or_else(written)
    }

    /// The security identifier, where a directory said it.
    #[must_use]
    pub fn sid(&self) -> Option<&str> {
        self.known.as_ref().and_then(|known| known.sid.as_deref())
    }

    /// The groups that backends are told of, in order.
    #[must_use]
    pub fn groups(&self) -> &[Arc<str>] {
        self.known.as_ref().map(|known| &*known.groups).unwrap_or_default()
    }

    /// Those, and the ones that backends are not told of.
    pub fn all_groups(&self) -> impl Iterator<Item = &str> {
        let known = self.known.iter();
        known.flat_map(|known| known.groups.iter().chain(&known.further_groups)).map(|it| &**it)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_name_is_taken_apart_at_its_backslash_or_at_sign() {
        let parts = |name: &str| {
            let it = Principal::named(name);
            (it.domain().map(str::to_owned), it.account().to_owned(), it.upn().map(str::to_owned))
        };
        let owned = |text: &str| Some(text.to_owned());
        assert_eq!(parts("alice"), (None, "alice".to_owned(), None));
        assert_eq!(parts("CORP\\alice"), (owned("CORP"), "alice".to_owned(), None));
        assert_eq!(
            parts("alice@corp.example"),
            (None, "alice".to_owned(), owned("alice@corp.example"))
        );
        assert_eq!(parts("CORP\\a@b"), (owned("CORP"), "a@b".to_owned(), None));
    }

    #[test]
    fn what_is_said_goes_before_what_is_read_off_the_name() {
        let known = Known {
            domain: Some("CORP".into()),
            account: Some("alice".into()),
            upn: Some("alice.doe@corp.example".into()),
            ..Known::default()
        };
        let it = Principal::known("adoe@old.example", known);
        assert_eq!(
            (it.domain(), it.account(), it.upn()),
            (Some("CORP"), "alice", Some("alice.doe@corp.example"))
        );
    }
}
