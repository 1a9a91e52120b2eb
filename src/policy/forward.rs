//! What of a permit the backend is told.

use std::borrow::Cow;

use super::signed_identity::SignedIdentity;
use crate::api::{CertificateFormat, UserFormat};
use crate::auth::Principal;

/// What no name of an account or a domain may hold, as in Windows.
const NOT_IN_NAMES: &[char] =
    &['"', '/', '\\', '[', ']', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@'];

/// `spec.forward`, compiled.
#[derive(Debug)]
pub struct ForwardSettings {
    /// The header for the user's name, in lower case.
    pub user_header: Option<Box<str>>,
    /// How the user's name is written.
    pub user_format: UserFormat,
    /// The domain of names that are written without one, by both of its names.
    pub domain: DomainNames,
    /// The header for the groups, in lower case.
    pub groups_header: Option<Box<str>>,
    /// What stands between two groups.
    pub groups_separator: char,
    /// Whether Authorization is filled with the account's credentials.
    pub basic_credentials: bool,
    /// Whether the client's own Authorization is left in the request.
    pub pass_authorization: bool,
    /// The forms in which the verified certificate is passed on.
    pub client_certificate: Vec<CertificateFormat>,
    /// The token that says who is calling.
    pub signed_identity: Option<SignedIdentity>,
}

impl Default for ForwardSettings {
    fn default() -> Self {
        Self {
            user_header: None,
            user_format: UserFormat::AsWritten,
            domain: DomainNames::default(),
            groups_header: None,
            groups_separator: ',',
            basic_credentials: false,
            pass_authorization: false,
            client_certificate: Vec::new(),
            signed_identity: None,
        }
    }
}

/// One domain by both of its names.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DomainNames {
    /// Such as CORP.
    pub netbios: Option<Box<str>>,
    /// Such as corp.example.
    pub dns: Option<Box<str>>,
}

impl ForwardSettings {
    /// A name as it is to be written; `None` where its bearer has none of that form. Nothing is guessed: a domain is
    /// another's name only where `domain` says so.
    #[must_use]
    pub fn written<'p>(&self, principal: &'p Principal) -> Option<Cow<'p, str>> {
        match self.user_format {
            UserFormat::AsWritten => Some(Cow::Borrowed(principal.name())),
            UserFormat::AccountName => Some(Cow::Borrowed(account(principal)?)),
            UserFormat::DownLevelLogonName => {
                let domain = principal.domain().or_else(|| self.netbios(principal))?;
                (is_name(domain)).then_some(())?;
                Some(Cow::Owned(format!("{domain}\\{}", account(principal)?)))
            }
            UserFormat::UserPrincipalName => match principal.upn() {
                Some(upn) => Some(Cow::Borrowed(upn)),
                None => {
                    Some(Cow::Owned(format!("{}@{}", account(principal)?, self.dns(principal)?)))
                }
            },
        }
    }

    /// Of a principal that has no domain, or one by its other name.
    fn netbios(&self, principal: &Principal) -> Option<&str> {
        let suffix = principal.upn().and_then(|upn| upn.rsplit_once('@')).map(|(_, suffix)| suffix);
        let is_it = suffix.is_none_or(|suffix| is_same(self.domain.dns.as_deref(), suffix));
        self.domain.netbios.as_deref().filter(|_| is_it)
    }

    /// Of a principal that has no user principal name.
    fn dns(&self, principal: &Principal) -> Option<&str> {
        let is_it = principal.domain().is_none_or(|it| is_same(self.domain.netbios.as_deref(), it));
        self.domain.dns.as_deref().filter(|_| is_it)
    }
}

fn is_same(ours: Option<&str>, theirs: &str) -> bool {
    ours.is_some_and(|ours| ours.eq_ignore_ascii_case(theirs))
}

/// The name within the domain: something that only looks like a domain's (a distinguished name with a backslash) has none.
fn account(principal: &Principal) -> Option<&str> {
    Some(principal.account()).filter(|account| is_name(account))
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.contains(NOT_IN_NAMES) && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Known;

    fn written(format: UserFormat, domain: (&str, &str), principal: &Principal) -> Option<String> {
        let name = |name: &str| Some(name).filter(|name| !name.is_empty()).map(Into::into);
        let domain = DomainNames { netbios: name(domain.0), dns: name(domain.1) };
        let settings = ForwardSettings { user_format: format, domain, ..Default::default() };
        settings.written(principal).map(Cow::into_owned)
    }

    #[test]
    fn a_name_is_written_in_the_form_that_is_asked_for_or_not_at_all() {
        let (none, corp) = (("", ""), ("CORP", "corp.example"));
        let (logon, upn, account) = (
            UserFormat::DownLevelLogonName,
            UserFormat::UserPrincipalName,
            UserFormat::AccountName,
        );
        for (name, format, domain, expected) in [
            ("alice", UserFormat::AsWritten, corp, Some("alice")),
            ("CORP\\alice", UserFormat::AsWritten, corp, Some("CORP\\alice")),
            ("alice", account, none, Some("alice")),
            ("CORP\\alice", account, none, Some("alice")),
            ("alice@corp.example", account, none, Some("alice")),
            ("CORP\\alice", logon, none, Some("CORP\\alice")),
            ("alice", logon, none, None),
            ("alice", logon, corp, Some("CORP\\alice")),
            ("alice@corp.example", logon, none, None),
            ("alice@Corp.Example", logon, corp, Some("CORP\\alice")),
            ("alice@other.example", logon, corp, None),
            ("OTHER\\alice", logon, corp, Some("OTHER\\alice")),
            ("alice@corp.example", upn, none, Some("alice@corp.example")),
            ("alice", upn, none, None),
            ("alice", upn, corp, Some("alice@corp.example")),
            ("corp\\alice", upn, corp, Some("alice@corp.example")),
            ("OTHER\\alice", upn, corp, None),
            ("CORP\\alice", upn, ("", "corp.example"), None),
            ("O=Contoso\\, Ltd", account, corp, None),
            ("O=Contoso\\, Ltd", logon, corp, None),
            ("a\\b\\c", logon, corp, None),
            ("CORP\\", account, corp, None),
        ] {
            let found = written(format, domain, &Principal::named(name));
            assert_eq!(found.as_deref(), expected, "{name} as {format:?} in {domain:?}");
        }
    }

    #[test]
    fn what_a_directory_says_goes_before_what_the_name_looks_like() {
        let known = Known {
            domain: Some("CORP".into()),
            account: Some("adoe".into()),
            upn: Some("alice.doe@corp.example".into()),
            ..Known::default()
        };
        let alice = Principal::known("alice@old.example", known);
        for (format, expected) in [
            (UserFormat::AsWritten, "alice@old.example"),
            (UserFormat::DownLevelLogonName, "CORP\\adoe"),
            (UserFormat::UserPrincipalName, "alice.doe@corp.example"),
            (UserFormat::AccountName, "adoe"),
        ] {
            assert_eq!(written(format, ("X", "x.example"), &alice).as_deref(), Some(expected));
        }
    }
}
