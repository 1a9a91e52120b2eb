//! `spec.authorization`: who of those who are somebody may come in (IIS's URL authorization; its refusal is 401.3).

use super::pattern::Pattern;
use crate::auth::Principal;

/// Stands for whoever is nobody in particular, as in IIS.
const ANONYMOUS: &str = "?";

/// Who may and who may not; whoever is denied stays so, whatever is allowed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Authorization {
    allow: Option<People>,
    deny: People,
}

/// Names of users and of groups.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct People {
    users: Box<[Pattern]>,
    groups: Box<[Pattern]>,
    anonymous: bool,
}

impl People {
    /// A name may hold `*`. Where case matters, `a` is not `A`.
    #[must_use]
    pub fn new(users: &[String], groups: &[String], case_sensitive: bool) -> Self {
        let patterns = |names: &[String]| {
            let named = names.iter().filter(|name| *name != ANONYMOUS);
            named.map(|name| Pattern::new(name, case_sensitive)).collect()
        };
        let anonymous = users.iter().any(|name| name == ANONYMOUS);
        Self { users: patterns(users), groups: patterns(groups), anonymous }
    }

    /// What of the principal is listed here, for the log.
    fn find(&self, principal: &Principal, bare: bool) -> Option<String> {
        let in_domain =
            principal.domain().map(|domain| format!("{domain}\\{}", principal.account()));
        let forms = [
            Some(principal.name()),
            in_domain.as_deref(),
            principal.upn(),
            bare.then(|| principal.account()),
        ];
        let user = self
            .users
            .iter()
            .find(|pattern| forms.iter().flatten().any(|form| pattern.matches(form)))
            .map(|pattern| format!("user {}", pattern.as_str()));
        user.or_else(|| {
            let without = |group: &str| group.split_once('\\').map(|(_, name)| name.to_owned());
            let is_of = |pattern: &&Pattern| {
                principal.all_groups().any(|group| {
                    let alone = bare.then(|| without(group)).flatten();
                    pattern.matches(group) || alone.is_some_and(|it| pattern.matches(&it))
                })
            };
            self.groups.iter().find(is_of).map(|pattern| format!("group {}", pattern.as_str()))
        })
    }

    fn holds_everybody(&self) -> bool {
        self.users.iter().any(|pattern| pattern.as_str() == "*")
    }
}

impl Authorization {
    /// Without `allow` everybody is let in who is not denied.
    #[must_use]
    pub fn new(allow: Option<People>, deny: People) -> Self {
        Self { allow, deny }
    }

    /// Whether there is nothing to check.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Judges; what let somebody in, or why not.
    ///
    /// # Errors
    /// Listed under deny, or not under allow.
    pub fn check(&self, principal: Option<&Principal>) -> Result<String, String> {
        let denied = match principal {
            // Under deny a name without a domain is that account of every domain.
            Some(principal) => self.deny.find(principal, true),
            None => {
                (self.deny.anonymous || self.deny.holds_everybody()).then(|| "user ?".to_owned())
            }
        };
        if let Some(entry) = denied {
            return Err(format!("authorization.deny lists {entry}"));
        }
        let Some(allow) = &self.allow else {
            return Ok("authorization.deny does not list it".to_owned());
        };
        let allowed = match principal {
            Some(principal) => allow.find(principal, false),
            None => allow.anonymous.then(|| "user ?".to_owned()),
        };
        match allowed {
            Some(entry) => Ok(format!("authorization.allow lists {entry}")),
            None => Err("authorization.allow lists neither the user nor a group of its".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Known;

    fn people(users: &[&str], groups: &[&str], case_sensitive: bool) -> People {
        let owned =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        People::new(&owned(users), &owned(groups), case_sensitive)
    }

    fn allow(users: &[&str], groups: &[&str]) -> Authorization {
        Authorization::new(Some(people(users, groups, true)), People::default())
    }

    fn deny(users: &[&str], groups: &[&str]) -> Authorization {
        Authorization::new(None, people(users, groups, false))
    }

    fn alice() -> Principal {
        let known = Known {
            domain: Some("CORP".into()),
            upn: Some("alice@corp.example".into()),
            groups: ["HR-Staff".into(), "Everyone".into()].into(),
            ..Known::default()
        };
        Principal::known("alice", known)
    }

    #[test]
    fn deny_wins_and_catches_more_than_allow() {
        let both =
            Authorization::new(Some(people(&["alice"], &[], true)), people(&[], &["hr-*"], false));
        assert_eq!(
            both.check(Some(&alice())),
            Err("authorization.deny lists group hr-*".to_owned())
        );
        assert!(deny(&["ALICE"], &[]).check(Some(&alice())).is_err(), "case does not save anybody");
        assert!(deny(&["alice"], &[]).check(Some(&Principal::named("EVIL\\alice"))).is_err());
        assert!(allow(&["ALICE"], &[]).check(Some(&alice())).is_err());
        assert!(allow(&["alice"], &[]).check(Some(&Principal::named("EVIL\\alice"))).is_err());
    }

    #[test]
    fn a_group_of_a_domain_is_denied_by_its_bare_name_and_allowed_by_its_whole_one() {
        let groups = ["CORP\\Staff".into()].into();
        let alice = Principal::known("CORP\\alice", Known { groups, ..Known::default() });
        assert!(deny(&[], &["staff"]).check(Some(&alice)).is_err());
        assert!(deny(&[], &["CORP\\Staff"]).check(Some(&alice)).is_err());
        assert!(deny(&[], &["EVIL\\Staff"]).check(Some(&alice)).is_ok());
        assert!(allow(&[], &["Staff"]).check(Some(&alice)).is_err());
        assert!(allow(&[], &["CORP\\Staff"]).check(Some(&alice)).is_ok());
    }

    #[test]
    fn every_form_of_a_name_and_every_group_counts() {
        for (users, groups) in [
            (&["alice"][..], &[][..]),
            (&["CORP\\alice"], &[]),
            (&["CORP\\*"], &[]),
            (&["alice@corp.example"], &[]),
            (&["*@corp.example"], &[]),
            (&[], &["HR-Staff"]),
            (&["bob"], &["Every*"]),
            (&["*"], &[]),
        ] {
            assert!(allow(users, groups).check(Some(&alice())).is_ok(), "{users:?} {groups:?}");
        }
        for (users, groups) in [
            (&[][..], &[][..]),
            (&["CORP\\bob"], &[]),
            (&["EVIL\\alice"], &[]),
            (&["lice"], &["HR"]),
            (&[], &["alice"]),
            (&["HR-Staff"], &[]),
            (&["?"], &[]),
        ] {
            assert!(allow(users, groups).check(Some(&alice())).is_err(), "{users:?} {groups:?}");
        }
    }

    #[test]
    fn nobody_in_particular_is_a_question_mark() {
        assert!(Authorization::default().check(None).is_ok());
        assert!(allow(&["*"], &["*"]).check(None).is_err(), "everybody is somebody");
        assert!(allow(&["?"], &[]).check(None).is_ok());
        assert!(deny(&["?"], &[]).check(None).is_err());
        assert!(deny(&["*"], &[]).check(None).is_err());
        assert!(deny(&["alice"], &["*"]).check(None).is_ok());
        assert!(deny(&["?"], &[]).check(Some(&Principal::named("x"))).is_ok());
    }
}
