//! An account as a directory holds it, and whether it can be used.

use std::sync::Arc;

/// One account. What the directory did not say is none.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DirectoryAccount {
    /// Its entry.
    pub dn: Box<str>,
    /// sAMAccountName.
    pub name: Box<str>,
    /// The NetBIOS name of its domain.
    pub domain: Option<Arc<str>>,
    /// The DNS name of its domain.
    pub dns_domain: Option<Arc<str>>,
    /// userPrincipalName.
    pub upn: Option<Box<str>>,
    /// objectSid.
    pub sid: Box<str>,
    /// altSecurityIdentities.
    pub alt_security_identities: Vec<Box<str>>,
    /// userAccountControl.
    pub control: Option<u32>,
    /// msDS-User-Account-Control-Computed: what follows from policies and the time.
    pub computed: Option<u32>,
    /// accountExpires.
    pub expires: Option<Filetime>,
    /// pwdLastSet.
    pub password_set: Option<Filetime>,
    /// whenCreated, in seconds since 1970.
    pub created: Option<i64>,
    /// The groups it is in, directly or through others.
    pub groups: Arc<[DirectoryGroup]>,
}

/// A group that an account is in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DirectoryGroup {
    /// objectSid; the DN, where that is all that is known.
    pub sid: Arc<str>,
    /// `CORP\Staff`; none where the directory does not hold the group.
    pub name: Option<Arc<str>>,
}

/// Tenths of microseconds since 1601; 0 and the largest value are no time.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Filetime(pub i64);

impl Filetime {
    /// 1970, in seconds since 1601.
    const UNIX_EPOCH: i64 = 11_644_473_600;

    /// Whether it is set and lies at or before a time in seconds since 1970.
    #[must_use]
    pub fn has_come(self, now: i64) -> bool {
        let is_never = self.0 == 0 || self.0 == i64::MAX;
        !is_never && self.0 / 10_000_000 - Self::UNIX_EPOCH <= now
    }
}

const DISABLED: u32 = 0x2;
const LOCKED: u32 = 0x10;
const NORMAL: u32 = 0x200 | 0x1000;
const PASSWORD_EXPIRED: u32 = 0x80_0000;

impl DirectoryAccount {
    /// Why it cannot be used, if it cannot; `now` in seconds since 1970.
    #[must_use]
    pub fn problem(&self, now: i64, refuse_expired_password: bool) -> Option<&'static str> {
        let (Some(control), Some(computed), Some(expires)) =
            (self.control, self.computed, self.expires)
        else {
            return Some(
                "the directory does not say whether the account is locked or expired (a global catalog does not hold it, or the bind account may not read it)",
            );
        };
        if control & DISABLED != 0 {
            return Some("the account is disabled");
        }
        if control & NORMAL == 0 {
            return Some("the account is not a user's or a computer's");
        }
        if expires.has_come(now) {
            return Some("the account has expired");
        }
        if computed & LOCKED != 0 {
            return Some("the account is locked out");
        }
        if refuse_expired_password && computed & PASSWORD_EXPIRED != 0 {
            return Some("the account's password has expired");
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_790_000_000;

    fn filetime(unix: i64) -> Filetime {
        Filetime((unix + Filetime::UNIX_EPOCH) * 10_000_000)
    }

    fn account() -> DirectoryAccount {
        DirectoryAccount {
            control: Some(0x200),
            computed: Some(0),
            expires: Some(Filetime(i64::MAX)),
            ..DirectoryAccount::default()
        }
    }

    fn problem(change: impl Fn(&mut DirectoryAccount)) -> Option<&'static str> {
        let mut account = account();
        change(&mut account);
        account.problem(NOW, true)
    }

    #[test]
    fn an_ordinary_account_can_be_used() {
        assert_eq!(problem(|_| ()), None);
        assert_eq!(problem(|it| it.expires = Some(Filetime(0))), None);
        assert_eq!(problem(|it| it.expires = Some(filetime(NOW + 1))), None);
    }

    #[test]
    fn each_state_that_forbids_use_has_its_own_reason() {
        assert_eq!(problem(|it| it.control = Some(0x202)), Some("the account is disabled"));
        assert_eq!(problem(|it| it.expires = Some(filetime(NOW))), Some("the account has expired"));
        assert_eq!(problem(|it| it.computed = Some(0x10)), Some("the account is locked out"));
        assert_eq!(
            problem(|it| it.computed = Some(0x80_0000)),
            Some("the account's password has expired")
        );
        assert_eq!(
            problem(|it| it.control = Some(0x800)),
            Some("the account is not a user's or a computer's")
        );
    }

    #[test]
    fn an_expired_password_matters_only_where_it_is_asked_for() {
        let account = DirectoryAccount { computed: Some(0x80_0000), ..account() };
        assert_eq!(account.problem(NOW, false), None);
    }

    #[test]
    fn what_the_directory_does_not_say_counts_against_the_account() {
        for change in [
            (|it| it.control = None) as fn(&mut DirectoryAccount),
            |it| it.computed = None,
            |it| it.expires = None,
        ] {
            assert!(problem(change).unwrap().starts_with("the directory does not say"));
        }
    }
}
