//! The search for the accounts that may be meant.

use super::entry::Entry;
use super::error::DirectoryError;
use super::groups::Groups;
use super::session::Session;
use crate::auth::{
    Asked, DirectoryAccount, DirectoryAnswer, DirectorySettings, LogonName, certificate_filter,
    escape_filter,
};

/// More accounts than this are not fetched: two are too many already.
const MOST_ACCOUNTS: i32 = 10;

const ACCOUNT: &[&str] = &[
    "sAMAccountName",
    "userPrincipalName",
    "objectSid",
    "altSecurityIdentities",
    "userAccountControl",
    "accountExpires",
    "lockoutTime",
    "pwdLastSet",
    "whenCreated",
    "memberOf",
    "primaryGroupID",
];
/// What follows from the domain's rules and the time. The controller works it out for each account, which takes as long
/// as all the rest: it is asked for where it can matter.
const COMPUTED: &str = "msDS-User-Account-Control-Computed";

/// Every account that may be meant, with its groups.
pub(super) async fn accounts(
    session: &Session,
    settings: &DirectorySettings,
    groups: &Groups,
    asked: &Asked,
) -> Result<DirectoryAnswer, DirectoryError> {
    let filter = match asked {
        Asked::Certificate(certificate) => certificate_filter(certificate, &settings.weak),
        Asked::Logon(name, _) => logon_filter(name),
    };
    let computed = settings.refuse_expired_password.then_some(COMPUTED);
    let attributes: Vec<&'static str> = ACCOUNT.iter().copied().chain(computed).collect();
    let found = session.find(&filter, &attributes, MOST_ACCOUNTS).await?;
    let mut accounts = Vec::new();
    for entry in &found.entries {
        let computed = match computed {
            Some(_) => entry.flags("msds-user-account-control-computed"),
            None => state(session, entry).await?,
        };
        let groups = groups.of(session, entry).await?;
        accounts.push(DirectoryAccount { computed, groups, ..account(session, entry) });
    }
    let more = found.more;
    Ok(DirectoryAnswer { accounts: accounts.into(), more, password_right: false })
}

fn account(session: &Session, entry: &Entry) -> DirectoryAccount {
    let domain = session.domain_of(&entry.dn);
    let mappings = entry.values("altsecurityidentities").iter();
    let mappings = mappings.filter_map(|value| std::str::from_utf8(value).ok());
    DirectoryAccount {
        dn: entry.dn.as_str().into(),
        name: entry.text("samaccountname").unwrap_or_default().into(),
        domain: domain.map(|domain| domain.netbios.clone()),
        dns_domain: domain.and_then(|domain| domain.dns.clone()),
        upn: entry.text("userprincipalname").map(Into::into),
        sid: entry.sid("objectsid").unwrap_or_default().into(),
        alt_security_identities: mappings.map(Into::into).collect(),
        control: entry.flags("useraccountcontrol"),
        expires: entry.filetime("accountexpires"),
        password_set: entry.filetime("pwdlastset"),
        created: entry.time("whencreated"),
        ..DirectoryAccount::default()
    }
}

/// An account that never was locked out is not now.
async fn state(session: &Session, entry: &Entry) -> Result<Option<u32>, DirectoryError> {
    if entry.number("lockouttime").unwrap_or(0) == 0 {
        return Ok(Some(0));
    }
    let read = session.read(&entry.dn, &[COMPUTED]).await?;
    Ok(read.and_then(|entry| entry.flags("msds-user-account-control-computed")))
}

fn logon_filter(name: &LogonName) -> String {
    let by_account = |name: &str| format!("(sAMAccountName={})", escape_filter(name));
    let named = match name {
        LogonName::Plain(name) | LogonName::InDomain(_, name) => by_account(name),
        LogonName::Principal(name, suffix) => {
            let principal = escape_filter(&format!("{name}@{suffix}"));
            format!("(|(userPrincipalName={principal}){})", by_account(name))
        }
    };
    format!("(&(objectClass=user){named})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logon_is_looked_for_by_its_name_escaped() {
        let filter = |text: &str| logon_filter(&LogonName::parse(text).unwrap());
        assert_eq!(
            filter("o'brien (x)"),
            r"(&(objectClass=user)(sAMAccountName=o\27brien\20\28x\29))"
        );
        assert_eq!(filter("CORP\\alice"), "(&(objectClass=user)(sAMAccountName=alice))");
        assert_eq!(
            filter("alice@corp.example"),
            "(&(objectClass=user)(|(userPrincipalName=alice@corp.example)(sAMAccountName=alice)))"
        );
    }
}
