//! One certificate, one account: found by digest, whatever their number.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use foldhash::HashMap;

use super::account::Account;
use crate::identity::Fingerprint;

/// The one-to-one mappings of a policy.
#[derive(Clone, Debug, Default)]
pub struct OneToOneMappings {
    mappings: Vec<OneToOneMapping>,
    by_fingerprint: HashMap<Fingerprint, Found>,
}

/// One mapping.
#[derive(Clone, Debug)]
pub struct OneToOneMapping {
    /// Its name in the policy.
    pub name: Box<str>,
    /// The policy object that it stands in.
    pub policy: Arc<str>,
    /// Whom the certificate stands for.
    pub account: Arc<Account>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Found {
    Mapping(u32),
    /// Two mappings, two accounts: neither counts.
    Ambiguous(u32),
}

/// What a look for a certificate found.
#[derive(Clone, Copy, Debug)]
pub enum OneToOneMatch<'a> {
    /// Its mapping.
    Mapping(&'a OneToOneMapping),
    /// Several mappings with different accounts; the first of them.
    Ambiguous(&'a OneToOneMapping),
}

impl OneToOneMappings {
    /// Adds a mapping.
    ///
    /// # Errors
    /// The certificate is mapped already: the name of the mapping that has it. Where the accounts differ, both are
    /// refused from now on.
    pub fn add(
        &mut self,
        certificate: Fingerprint,
        mapping: OneToOneMapping,
    ) -> Result<(), Box<str>> {
        let Ok(index) = u32::try_from(self.mappings.len()) else {
            return Err("(too many mappings)".into());
        };
        match self.by_fingerprint.entry(certificate) {
            Entry::Vacant(vacant) => {
                vacant.insert(Found::Mapping(index));
                self.mappings.push(mapping);
                Ok(())
            }
            Entry::Occupied(mut occupied) => {
                let (Found::Mapping(first) | Found::Ambiguous(first)) = *occupied.get();
                let first_mapping = self.mappings.get(first as usize);
                if first_mapping.is_none_or(|other| other.account != mapping.account) {
                    occupied.insert(Found::Ambiguous(first));
                }
                Err(first_mapping.map_or_else(Box::default, |other| other.name.clone()))
            }
        }
    }

    /// The mapping of a certificate.
    #[must_use]
    pub fn find(&self, certificate: &Fingerprint) -> Option<OneToOneMatch<'_>> {
        match *self.by_fingerprint.get(certificate)? {
            Found::Mapping(index) => self.mappings.get(index as usize).map(OneToOneMatch::Mapping),
            Found::Ambiguous(index) => {
                self.mappings.get(index as usize).map(OneToOneMatch::Ambiguous)
            }
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.mappings.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mappings.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Principal;

    fn mapping(name: &str, user: &str) -> OneToOneMapping {
        let account = Account::Usable { principal: Principal::named(user), password: None };
        OneToOneMapping { name: name.into(), policy: "web/p".into(), account: account.into() }
    }

    #[test]
    fn a_certificate_with_two_accounts_has_none() {
        let (mut mappings, digest) = (OneToOneMappings::default(), Fingerprint::of(b"x"));
        assert_eq!(mappings.add(digest, mapping("a", "alice")), Ok(()));
        assert_eq!(mappings.add(digest, mapping("b", "alice")), Err("a".into()));
        assert!(matches!(mappings.find(&digest), Some(OneToOneMatch::Mapping(_))));
        assert_eq!(mappings.add(digest, mapping("c", "bob")), Err("a".into()));
        assert!(matches!(mappings.find(&digest), Some(OneToOneMatch::Ambiguous(_))));
        assert!(mappings.find(&Fingerprint::of(b"y")).is_none());
    }
}
