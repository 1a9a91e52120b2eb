//! What a directory's answer means: one account that can be used, none, or a refusal.

use super::account::DirectoryAccount;
use super::keys::{Attribute, Form, Key, Strength, claimed_sids, keys};
use super::name::LogonName;
use super::question::DirectoryAnswer;
use super::settings::DirectorySettings;
use crate::identity::PeerCertificate;

/// What the answer means.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DirectoryVerdict<'a> {
    /// One account, and it can be used.
    Found(Found<'a>),
    /// Nobody's.
    NotFound,
    /// Somebody's, and it is refused all the same.
    Refused(DirectoryRefusal),
}

/// An account that can be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Found<'a> {
    /// The account.
    pub account: &'a DirectoryAccount,
    /// The strongest form that led to it; none for a logon.
    pub form: Option<Form>,
}

/// Why an account is refused. In the log, never on a page.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DirectoryRefusal {
    /// Whose it is cannot be said.
    #[error("{0} and another account match: one certificate or name must lead to one account")]
    Ambiguous(Box<str>),
    /// The certificate was made for another account.
    #[error("the certificate's SID {claimed} is not that of {account}")]
    OtherSid {
        /// What the certificate says.
        claimed: Box<str>,
        /// What the form led to.
        account: Box<str>,
    },
    /// A weak form, and the account could have been made to fit the certificate.
    #[error("the certificate is older than account {account}, to which only {form} leads")]
    Older {
        /// What the form led to.
        account: Box<str>,
        /// The form.
        form: Form,
    },
    /// The account is in no state to be used.
    #[error("account {account}: {problem}")]
    Unusable {
        /// The account.
        account: Box<str>,
        /// Why not.
        problem: &'static str,
    },
    /// The password is not the account's, or there is no such account.
    #[error("the user name or password is wrong")]
    WrongPassword,
}

/// Whose certificate it is; `now` in seconds since 1970.
#[must_use]
pub fn judge_certificate<'a>(
    settings: &DirectorySettings,
    certificate: &PeerCertificate,
    answer: &'a DirectoryAnswer,
    now: i64,
) -> DirectoryVerdict<'a> {
    let keys = keys(certificate, &settings.weak);
    let matching = answer.accounts.iter().filter_map(|it| Some((it, strongest(it, &keys)?)));
    let mut matching = matching.collect::<Vec<_>>().into_iter();
    let Some((account, form)) = matching.next() else { return DirectoryVerdict::NotFound };
    let refused = if matching.next().is_some() || answer.more {
        Some(DirectoryRefusal::Ambiguous(account.label()))
    } else {
        misfit(certificate, account, form).or_else(|| unusable(settings, account, now))
    };
    let found = Found { account, form: Some(form) };
    refused.map_or(DirectoryVerdict::Found(found), DirectoryVerdict::Refused)
}

/// Whether name and password are one account's.
#[must_use]
pub fn judge_logon<'a>(
    settings: &DirectorySettings,
    name: &LogonName,
    answer: &'a DirectoryAnswer,
    now: i64,
) -> DirectoryVerdict<'a> {
    let account = match name.account(answer) {
        Ok(Some(account)) => account,
        Ok(None) => return DirectoryVerdict::Refused(DirectoryRefusal::WrongPassword),
        Err(refusal) => return DirectoryVerdict::Refused(refusal),
    };
    let wrong = (!answer.password_right).then_some(DirectoryRefusal::WrongPassword);
    let refused = unusable(settings, account, now).or(wrong);
    let found = Found { account, form: None };
    refused.map_or(DirectoryVerdict::Found(found), DirectoryVerdict::Refused)
}

impl LogonName {
    /// The one account that has the name.
    ///
    /// # Errors
    /// Several have it.
    pub fn account<'a>(
        &self,
        answer: &'a DirectoryAnswer,
    ) -> Result<Option<&'a DirectoryAccount>, DirectoryRefusal> {
        let mut named = answer.accounts.iter().filter(|account| self.is_of(account));
        let first = named.next();
        match first {
            Some(account) if named.next().is_some() || answer.more => {
                Err(DirectoryRefusal::Ambiguous(account.label()))
            }
            first => Ok(first),
        }
    }

    fn is_of(&self, account: &DirectoryAccount) -> bool {
        let same = |a: &str, b: &str| a.to_lowercase() == b.to_lowercase();
        let in_domain = |name: &str| account.domain.as_deref().is_some_and(|it| same(it, name));
        match self {
            Self::Plain(name) => same(&account.name, name),
            Self::InDomain(domain, name) => same(&account.name, name) && in_domain(domain),
            Self::Principal(name, suffix) => {
                let explicit = format!("{name}@{suffix}");
                let dns = account.dns_domain.as_deref().is_some_and(|it| same(it, suffix));
                account.upn.as_deref().is_some_and(|upn| same(upn, &explicit))
                    || same(&account.name, name) && (dns || in_domain(suffix))
            }
        }
    }
}

impl DirectoryAccount {
    fn label(&self) -> Box<str> {
        match &self.domain {
            Some(domain) => format!("{domain}\\{}", self.name).into(),
            None => self.name.clone(),
        }
    }
}

/// What the directory returned is compared again: it may have folded more than case, or returned what was not asked for.
fn strongest(account: &DirectoryAccount, keys: &[Key]) -> Option<Form> {
    let same = |a: &str, b: &str| a.to_lowercase() == b.to_lowercase();
    let has = |key: &&Key| match key.attribute {
        Attribute::ObjectSid => *account.sid == *key.value,
        Attribute::UserPrincipalName => {
            account.upn.as_deref().is_some_and(|upn| same(upn, &key.value))
        }
        Attribute::AltSecurityIdentities => {
            account.alt_security_identities.iter().any(|value| same(value, &key.value))
        }
    };
    keys.iter().filter(has).map(|key| key.form).min()
}

fn misfit(
    certificate: &PeerCertificate,
    account: &DirectoryAccount,
    form: Form,
) -> Option<DirectoryRefusal> {
    let other = claimed_sids(certificate).into_iter().find(|sid| **sid != *account.sid);
    if let Some(claimed) = other {
        let claimed = claimed.into();
        return Some(DirectoryRefusal::OtherSid { claimed, account: account.label() });
    }
    let old_enough =
        account.created.is_some_and(|created| created <= certificate.validity.not_before);
    (form.strength() == Strength::Weak && !old_enough)
        .then(|| DirectoryRefusal::Older { account: account.label(), form })
}

fn unusable(
    settings: &DirectorySettings,
    account: &DirectoryAccount,
    now: i64,
) -> Option<DirectoryRefusal> {
    let problem = if account.name.is_empty() || account.sid.is_empty() {
        Some("the directory does not say its name or SID")
    } else if account.name.chars().any(char::is_control) {
        Some("its name is not plain text")
    } else {
        account.problem(now, settings.refuse_expired_password)
    };
    problem.map(|problem| DirectoryRefusal::Unusable { account: account.label(), problem })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::account::Filetime;
    use super::super::keys::certificate_filter;
    use super::super::settings::{DirectoryBind, Keeping};
    use super::*;
    use crate::auth::Secret;
    use crate::identity::{AccountFacts, DistinguishedName, Fingerprint, SubjectAltName, Validity};

    const NOW: i64 = 1_790_000_000;
    const ISSUED: i64 = NOW - 1000;
    const SID: &str = "S-1-5-21-1-2-3-1104";

    fn settings(weak: &[Form]) -> DirectorySettings {
        DirectorySettings {
            urls: Vec::new(),
            cas: Vec::new(),
            server_name: None,
            bind: DirectoryBind::Simple { name: "x".into(), password: Secret::new("y".into()) },
            base_dn: None,
            timeout: Duration::ZERO,
            keeping: Keeping {
                found: Duration::ZERO,
                not_found: Duration::ZERO,
                stale: Duration::ZERO,
            },
            weak: weak.to_vec(),
            refuse_expired_password: true,
        }
    }

    /// Of `DC=com,DC=corp,CN=CA`, for `C=US,CN=Doe\, John (HR)*`.
    fn certificate() -> PeerCertificate {
        let name = |parts: &[(&str, &str)]| DistinguishedName::for_test(parts);
        PeerCertificate {
            chain: [].into(),
            fingerprint: Fingerprint::of(b"certificate"),
            serial: "2B0000000011AC0000000012".into(),
            subject: name(&[("C", "US"), ("CN", "Doe, John (HR)*")]),
            subject_text: "CN=Doe\\, John (HR)*,C=US".into(),
            issuer: name(&[("DC", "com"), ("DC", "corp"), ("CN", "CA")]),
            san: SubjectAltName {
                emails: vec!["john@corp.example".into()],
                upns: vec!["John@corp.example".into()],
                ..SubjectAltName::default()
            },
            validity: Validity { not_before: ISSUED, not_after: NOW + 1000 },
            written: Default::default(),
            account: AccountFacts {
                sid: None,
                subject_key_id: Some([0xDD, 0xDE].into()),
                public_key_sha1: [[0x50, 0xBF].into(), [0x60].into()],
                serial: [0x2B, 0, 0, 0, 0, 0x11, 0xAC, 0, 0, 0, 0, 0x12].into(),
            },
        }
    }

    fn account(name: &str, mapping: &[&str]) -> DirectoryAccount {
        DirectoryAccount {
            dn: format!("CN={name},DC=corp,DC=example").into(),
            name: name.into(),
            domain: Some("CORP".into()),
            dns_domain: Some("corp.example".into()),
            upn: Some(format!("{name}@corp.example").into()),
            sid: SID.into(),
            alt_security_identities: mapping.iter().map(|it| (*it).into()).collect(),
            control: Some(0x200),
            computed: Some(0),
            expires: Some(Filetime(0)),
            created: Some(ISSUED),
            ..DirectoryAccount::default()
        }
    }

    fn answer(accounts: &[DirectoryAccount]) -> DirectoryAnswer {
        DirectoryAnswer { accounts: accounts.into(), ..DirectoryAnswer::default() }
    }

    fn sid_uri(sid: &str) -> Box<str> {
        format!("tag:microsoft.com,2022-09-14:sid:{sid}").into()
    }

    const ALL: [Form; 4] = [Form::IssuerSubject, Form::Subject, Form::Rfc822, Form::Upn];
    const BY_SERIAL: &str = "X509:<I>DC=com,DC=corp,CN=CA<SR>1200000000AC11000000002B";

    /// The form, or why not.
    fn verdict(
        weak: &[Form],
        certificate: &PeerCertificate,
        accounts: &[DirectoryAccount],
    ) -> Result<Option<Form>, String> {
        match judge_certificate(&settings(weak), certificate, &answer(accounts), NOW) {
            DirectoryVerdict::Found(found) => Ok(found.form),
            DirectoryVerdict::NotFound => Ok(None),
            DirectoryVerdict::Refused(refusal) => Err(refusal.to_string()),
        }
    }

    #[test]
    fn every_string_that_windows_writes_leads_to_its_account() {
        for (mapping, form) in [
            (BY_SERIAL, Form::IssuerSerial),
            ("x509:<i>dc=COM,dc=corp,cn=ca<sr>1200000000ac11000000002b", Form::IssuerSerial),
            ("X509:<SKI>ddde", Form::SubjectKeyId),
            ("X509:<SHA1-PUKEY>50BF", Form::PublicKey),
            ("X509:<SHA1-PUKEY>60", Form::PublicKey),
            ("X509:<I>DC=com,DC=corp,CN=CA<S>C=US,CN=\"Doe, John (HR)*\"", Form::IssuerSubject),
            ("X509:<I>DC=com,DC=corp,CN=CA<S>C=US,CN=Doe\\, John (HR)*", Form::IssuerSubject),
            ("X509:<S>C=US,CN=\"Doe, John (HR)*\"", Form::Subject),
            ("X509:<RFC822>john@corp.example", Form::Rfc822),
        ] {
            let accounts = [account("jdoe", &[mapping])];
            assert_eq!(verdict(&ALL, &certificate(), &accounts), Ok(Some(form)), "{mapping}");
        }
        assert_eq!(verdict(&ALL, &certificate(), &[account("john", &[])]), Ok(Some(Form::Upn)));
    }

    #[test]
    fn strings_in_another_order_lead_nowhere() {
        for mapping in [
            "X509:<I>CN=CA,DC=corp,DC=com<SR>1200000000AC11000000002B",
            "X509:<I>DC=com,DC=corp,CN=CA<SR>2B0000000011AC0000000012",
            "X509:<I>DC=com,DC=corp,CN=CA<S>C=US<SR>1200000000AC11000000002B",
            "X509:<SR>1200000000AC11000000002B",
            "X509:<SKI>",
            "X509:<S>",
            "*",
        ] {
            let accounts = [account("jdoe", &[mapping])];
            assert_eq!(verdict(&ALL, &certificate(), &accounts), Ok(None), "{mapping}");
        }
    }

    #[test]
    fn a_zero_before_the_serial_number_may_be_written_or_not() {
        let mut certificate = certificate();
        certificate.account.serial = [0, 0xAC, 1].into();
        for serial in ["01ac", "01AC00"] {
            let mapping = format!("X509:<I>DC=com,DC=corp,CN=CA<SR>{serial}");
            let accounts = [account("jdoe", &[&mapping])];
            assert_eq!(verdict(&[], &certificate, &accounts), Ok(Some(Form::IssuerSerial)));
        }
    }

    #[test]
    fn weak_forms_count_only_where_they_are_listed() {
        let by_subject = account("jdoe", &["X509:<S>C=US,CN=\"Doe, John (HR)*\""]);
        assert_eq!(
            verdict(&[], &certificate(), &[by_subject.clone(), account("john", &[])]),
            Ok(None)
        );
        let one = verdict(&[Form::Subject], &certificate(), &[by_subject, account("john", &[])]);
        assert_eq!(one, Ok(Some(Form::Subject)));
    }

    #[test]
    fn weak_forms_count_only_for_accounts_that_are_older_than_the_certificate() {
        for created in [Some(ISSUED + 1), None] {
            let made_to_fit = DirectoryAccount { created, ..account("john", &[]) };
            let refused = verdict(&ALL, &certificate(), &[made_to_fit]).unwrap_err();
            assert_eq!(
                refused,
                "the certificate is older than account CORP\\john, to which only Upn (weak) leads"
            );
        }
        let strong = DirectoryAccount { created: None, ..account("john", &[BY_SERIAL]) };
        assert_eq!(verdict(&ALL, &certificate(), &[strong]), Ok(Some(Form::IssuerSerial)));
    }

    #[test]
    fn two_accounts_are_refused_however_strongly_one_of_them_matches() {
        let ours = account("jdoe", &[BY_SERIAL]);
        let other = DirectoryAccount { sid: "S-1-5-21-1-2-3-1".into(), ..account("john", &[]) };
        let refused = verdict(&ALL, &certificate(), &[ours.clone(), other.clone()]).unwrap_err();
        assert!(refused.starts_with("CORP\\jdoe and another account match"), "{refused}");
        // The UPN counts for nothing where it is not listed.
        let alone = verdict(&[], &certificate(), &[ours.clone(), other]);
        assert_eq!(alone, Ok(Some(Form::IssuerSerial)));
        let more = DirectoryAnswer { more: true, ..answer(&[ours]) };
        assert!(matches!(
            judge_certificate(&settings(&[]), &certificate(), &more, NOW),
            DirectoryVerdict::Refused(DirectoryRefusal::Ambiguous(_))
        ));
    }

    #[test]
    fn a_sid_in_the_certificate_leads_to_its_account_and_to_no_other() {
        let mut with_extension = certificate();
        with_extension.account.sid = Some(SID.into());
        let mut with_uri = certificate();
        with_uri.san.uris = vec![sid_uri(SID)];
        for certificate in [&with_extension, &with_uri] {
            assert_eq!(verdict(&[], certificate, &[account("jdoe", &[])]), Ok(Some(Form::Sid)));
            let other = DirectoryAccount {
                sid: "S-1-5-21-1-2-3-9".into(),
                ..account("john", &[BY_SERIAL])
            };
            let refused = verdict(&ALL, certificate, &[other]).unwrap_err();
            assert_eq!(refused, format!("the certificate's SID {SID} is not that of CORP\\john"));
        }
        let by_issuer = format!("X509:<I>DC=com,DC=corp,CN=CA<SID>{SID}");
        let filter = certificate_filter(&with_extension, &[]);
        assert!(filter.contains(&format!("(objectSid={SID})")), "{filter}");
        assert_eq!(verdict(&[], &certificate(), &[account("jdoe", &[&by_issuer])]), Ok(None));
        let ours = account("jdoe", &[&by_issuer]);
        assert_eq!(verdict(&[], &with_extension, std::slice::from_ref(&ours)), Ok(Some(Form::Sid)));
        let other =
            DirectoryAccount { sid: "S-1-5-21-1-2-3-9".into(), ..account("eve", &[&by_issuer]) };
        let alone = verdict(&[], &with_extension, std::slice::from_ref(&other)).unwrap_err();
        assert!(alone.ends_with("is not that of CORP\\eve"), "{alone}");
        let both = verdict(&[], &with_extension, &[ours, other]).unwrap_err();
        assert!(both.contains("and another account match"), "{both}");
    }

    #[test]
    fn a_sid_that_cannot_be_read_and_two_sids_are_nobodys() {
        let mut unreadable = certificate();
        unreadable.account.sid = Some(AccountFacts::UNREADABLE.into());
        let mut two = certificate();
        two.account.sid = Some(SID.into());
        two.san.uris = vec![sid_uri("S-1-5-21-1-2-3-9")];
        for certificate in [unreadable, two] {
            let refused = verdict(&[], &certificate, &[account("jdoe", &[BY_SERIAL])]).unwrap_err();
            assert!(refused.starts_with("the certificate's SID "), "{refused}");
        }
    }

    #[test]
    fn an_account_that_cannot_be_used_is_refused_with_its_reason() {
        let disabled = DirectoryAccount { control: Some(0x202), ..account("jdoe", &[BY_SERIAL]) };
        let refused = verdict(&[], &certificate(), &[disabled]).unwrap_err();
        assert_eq!(refused, "account CORP\\jdoe: the account is disabled");
        let nameless = DirectoryAccount { name: "".into(), ..account("jdoe", &[BY_SERIAL]) };
        assert!(verdict(&[], &certificate(), &[nameless]).is_err());
    }

    #[test]
    fn the_filter_holds_every_key_escaped_and_no_weak_one_unasked() {
        let filter = certificate_filter(&certificate(), &[Form::Subject]);
        let expected =
            r"(altSecurityIdentities=X509:\3cS\3eC=US,CN=\22Doe,\20John\20\28HR\29\2a\22)";
        assert!(filter.contains(expected), "{filter}");
        assert!(filter.contains("SR\\3e1200000000ac11000000002b)"), "{filter}");
        assert!(!filter.contains("userPrincipalName") && !filter.contains("RFC822"), "{filter}");
        assert!(
            filter.starts_with("(&(objectClass=user)(|(") && filter.ends_with(")))"),
            "{filter}"
        );
    }

    #[test]
    fn a_certificate_with_names_without_end_is_known_by_none_of_them() {
        let mut many = certificate();
        many.san.upns = (0..9).map(|it| format!("{it}@corp.example").into()).collect();
        assert!(!certificate_filter(&many, &ALL).contains("userPrincipalName"));
        many.san.upns.truncate(8);
        assert_eq!(certificate_filter(&many, &ALL).matches("userPrincipalName").count(), 8);
    }

    #[test]
    fn a_logon_is_one_accounts_by_its_name() {
        let (alice, bob) = (account("alice", &[]), account("bob", &[]));
        for (text, found) in [
            ("alice", true),
            ("corp\\ALICE", true),
            ("alice@corp.example", true),
            ("alice@corp", true),
            ("other\\alice", false),
            ("alice@other.example", false),
            ("carol", false),
        ] {
            let name = LogonName::parse(text).unwrap();
            let mut answer = answer(&[alice.clone(), bob.clone()]);
            assert_eq!(name.account(&answer).unwrap().is_some(), found, "{text}");
            let judged = judge_logon(&settings(&[]), &name, &answer, NOW);
            assert!(matches!(judged, DirectoryVerdict::Refused(DirectoryRefusal::WrongPassword)));
            answer.password_right = true;
            let judged = judge_logon(&settings(&[]), &name, &answer, NOW);
            assert_eq!(matches!(judged, DirectoryVerdict::Found(_)), found, "{text}");
        }
    }

    #[test]
    fn a_name_that_two_accounts_have_is_nobodys() {
        let carol =
            DirectoryAccount { upn: Some("alice@corp.example".into()), ..account("carol", &[]) };
        let mut answer = answer(&[account("alice", &[]), carol]);
        answer.password_right = true;
        let name = LogonName::parse("alice@corp.example").unwrap();
        let judged = judge_logon(&settings(&[]), &name, &answer, NOW);
        assert!(matches!(judged, DirectoryVerdict::Refused(DirectoryRefusal::Ambiguous(_))));
    }

    #[test]
    fn a_disabled_account_does_not_log_on_with_the_right_password() {
        let disabled = DirectoryAccount { control: Some(0x202), ..account("alice", &[]) };
        let mut answer = answer(&[disabled]);
        answer.password_right = true;
        let name = LogonName::parse("alice").unwrap();
        let judged = judge_logon(&settings(&[]), &name, &answer, NOW);
        assert!(matches!(
            judged,
            DirectoryVerdict::Refused(DirectoryRefusal::Unusable {
                problem: "the account is disabled",
                ..
            })
        ));
    }
}
