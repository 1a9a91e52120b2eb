//! Accounts and who may log on, out of Secrets.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;

use super::dependency::Lookup;
use super::world::{ObjectKind, ObjectName};
use crate::api;
use crate::auth::{BasicUsers, Known, Principal, Secret, StoredPassword, parse_htpasswd};
use crate::policy::Account;

/// An account, and what is odd about it although it can be used.
type Made = (Arc<Account>, Option<String>);

/// The accounts of one policy: each is made once, however many mappings name it.
pub(super) struct Accounts<'a> {
    lookup: &'a Lookup<'a>,
    /// Whether the backend is sent the account's credentials.
    basic_credentials: bool,
    made: HashMap<(&'a str, &'a api::Account), Made>,
}

impl<'a> Accounts<'a> {
    pub(super) fn new(lookup: &'a Lookup<'a>, basic_credentials: bool) -> Self {
        Self { lookup, basic_credentials, made: HashMap::new() }
    }

    /// The account, and what is odd about it although it can be used.
    pub(super) fn get(
        &mut self,
        namespace: &'a str,
        account: &'a api::Account,
    ) -> (Arc<Account>, Option<String>) {
        if let Some(made) = self.made.get(&(namespace, account)) {
            return made.clone();
        }
        let made = match self.make(namespace, account) {
            Ok((usable, warning)) => (Arc::new(usable), warning),
            Err(problem) => (Arc::new(Account::Unusable { problem: problem.into() }), None),
        };
        self.made.insert((namespace, account), made.clone());
        made
    }

    fn make(
        &self,
        namespace: &str,
        account: &api::Account,
    ) -> Result<(Account, Option<String>), String> {
        let Some(secret_ref) = &account.secret_ref else {
            let user = account
                .user_name
                .as_deref()
                .ok_or("the account has neither userName nor secretRef")?;
            if self.basic_credentials {
                return Err(format!(
                    "forward.basicCredentials needs a password: give account {user} a secretRef"
                ));
            }
            let principal = principal(user, &account.groups);
            return Ok((Account::Usable { principal, password: None }, None));
        };
        let name = self.lookup.resolve(
            namespace,
            ObjectKind::Secret,
            &secret_ref.name,
            secret_ref.namespace.as_deref(),
        )?;
        let secret = self.lookup.secret(&name);
        let secret = secret.ok_or_else(|| {
            format!("Secret {name} does not exist: create it with username and password")
        })?;
        let password = key(secret, "password").filter(|password| !password.is_empty());
        let password = password.ok_or_else(|| missing(&name, secret, "password"))?;
        let (user, warning) = user_name(&name, secret, account.user_name.as_deref())?;
        if self.basic_credentials && user.contains(':') {
            return Err(format!(
                "user name {user} has a colon, which Basic credentials cannot carry (RFC 7617)"
            ));
        }
        Ok((
            Account::Usable {
                principal: principal(&user, &account.groups),
                password: Some(Secret::new(password.into())),
            },
            warning,
        ))
    }
}

fn principal(name: &str, groups: &[String]) -> Principal {
    if groups.is_empty() {
        return Principal::named(name);
    }
    let groups = groups.iter().map(|group| group.as_str().into()).collect();
    Principal::known(name, Known { groups, ..Known::default() })
}

/// The name written in the policy goes before the one in the Secret.
fn user_name(
    name: &ObjectName,
    secret: &core::Secret,
    written: Option<&str>,
) -> Result<(String, Option<String>), String> {
    let held =
        key(secret, "username").map(|bytes| std::str::from_utf8(bytes).map_err(|_| not_text(name)));
    let held = held.transpose()?.filter(|user| !user.is_empty());
    match (written, held) {
        (Some(written), Some(held)) if written != held => {
            let warning =
                format!("userName is {written}, Secret {name} says {held}: userName counts");
            Ok((written.to_owned(), Some(warning)))
        }
        (Some(written), _) => Ok((written.to_owned(), None)),
        (None, Some(held)) if held.chars().any(char::is_control) => Err(not_text(name)),
        (None, Some(held)) => Ok((held.to_owned(), None)),
        (None, None) => Err(missing(name, secret, "username")),
    }
}

/// The users of a Basic module, and what is wrong with its Secrets (index of the reference, sentence).
pub(super) fn basic_users(
    lookup: &Lookup<'_>,
    namespace: &str,
    basic: &api::Basic,
) -> (BasicUsers, Vec<(usize, String)>) {
    let (mut users, mut problems) = (BasicUsers::default(), Vec::new());
    for (index, reference) in basic.secret_refs.iter().enumerate() {
        let (to, elsewhere) = (&reference.name, reference.namespace.as_deref());
        let name = match lookup.resolve(namespace, ObjectKind::Secret, to, elsewhere) {
            Ok(name) => name,
            Err(problem) => {
                problems.push((index, problem));
                continue;
            }
        };
        let (entries, found) = credentials(lookup, &name);
        problems.extend(found.into_iter().map(|problem| (index, problem)));
        for (user, password) in entries {
            if users.add(&user, password).is_err() {
                problems.push((
                    index,
                    format!("user {user} of Secret {name} occurs before: the first counts"),
                ));
            }
        }
    }
    (users, problems)
}

type Entries = Vec<(Box<str>, StoredPassword)>;

fn credentials(lookup: &Lookup<'_>, name: &ObjectName) -> (Entries, Vec<String>) {
    let Some(secret) = lookup.secret(name) else {
        return (
            Vec::new(),
            vec![format!("Secret {name} does not exist: nobody can log on by it")],
        );
    };
    let is_account = secret.type_.as_deref() == Some("kubernetes.io/basic-auth");
    let file = key(secret, "auth").or_else(|| key(secret, "users")).filter(|_| !is_account);
    match file {
        Some(file) => htpasswd(name, file),
        None => match account_entry(name, secret) {
            Ok(entry) => (vec![entry], Vec::new()),
            Err(problem) => (Vec::new(), vec![problem]),
        },
    }
}

fn htpasswd(name: &ObjectName, file: &[u8]) -> (Entries, Vec<String>) {
    let Ok(text) = std::str::from_utf8(file) else {
        return (Vec::new(), vec![format!("Secret {name}: the htpasswd file is not text")]);
    };
    let (entries, errors) = parse_htpasswd(text);
    let entries = entries
        .into_iter()
        .map(|(user, hash)| (user, StoredPassword::Hashed(Arc::new(hash))))
        .collect();
    (entries, errors.iter().map(|error| format!("Secret {name}: {error}")).collect())
}

fn account_entry(
    name: &ObjectName,
    secret: &core::Secret,
) -> Result<(Box<str>, StoredPassword), String> {
    let (user, _) = user_name(name, secret, None)?;
    let password = key(secret, "password").filter(|password| !password.is_empty());
    let password = password.ok_or_else(|| missing(name, secret, "password"))?;
    Ok((user.into(), StoredPassword::Plain(Secret::new(password.into()))))
}

pub(super) fn key<'a>(secret: &'a core::Secret, key: &str) -> Option<&'a [u8]> {
    secret.data.as_ref()?.get(key).map(|bytes| bytes.0.as_slice())
}

pub(super) fn missing(name: &ObjectName, secret: &core::Secret, key: &str) -> String {
    let keys: Vec<&str> =
        secret.data.iter().flat_map(|data| data.keys()).map(String::as_str).collect();
    let keys = if keys.is_empty() { "none".to_owned() } else { keys.join(", ") };
    format!("Secret {name} has no key {key}, or it is empty (keys: {keys})")
}

fn not_text(name: &ObjectName) -> String {
    format!("Secret {name}: username is not plain text (does it end with a newline?)")
}
