//! The names by which backends are told who is calling. Whatever a client sends under them is removed, on every route.

use std::collections::HashSet;

use http::HeaderName;

/// What certmap and its peers tell identities by, whether a policy uses it here or not.
const NAMES: &[&str] = &[
    "client-cert",
    "client-cert-chain",
    "client-verify",
    "client-dn",
    "client-ip",
    "remote-user",
    "remote-groups",
    "remote-email",
    "remote-name",
    "ssl-client",
    "true-client-ip",
    "x-arr-clientcert",
    "x-arr-ssl",
    "x-authenticated-user",
    "x-authenticated-userid",
    "x-authenticated-groups",
    "x-client-dn",
    "x-client-ip",
    "x-client-verify",
    "x-credential-username",
    "x-email",
    "x-groups",
    "x-remote-group",
    "x-remote-groups",
    "x-remote-user",
    "x-role",
    "x-roles",
    "x-user",
    "x-user-id",
    "x-username",
    "x-userid",
    "x-webauth-user",
];

/// Families: every name that begins so.
const PREFIXES: &[&str] = &[
    "ssl-client-",
    "x-auth-request-",
    "x-certmap-",
    "x-client-cert",
    "x-forwarded-access-token",
    "x-forwarded-client-cert",
    "x-forwarded-email",
    "x-forwarded-groups",
    "x-forwarded-preferred-username",
    "x-forwarded-ssl-client",
    "x-forwarded-tls-client-cert",
    "x-forwarded-user",
    "x-ms-client-principal",
    "x-remote-extra-",
    "x-ssl-client",
    "x-ssl-cert",
    "x-tls-client",
    "x-webauth-",
];

/// Names compared in lower case, with an underscore counting as a hyphen: CGI-like backends cannot tell the two apart.
#[derive(Clone, Debug)]
pub struct IdentityHeaders(HashSet<Box<str>>);

impl IdentityHeaders {
    /// The built-in list and the names that policies configure.
    pub fn new<'a>(configured: impl IntoIterator<Item = &'a str>) -> Self {
        let configured =
            configured.into_iter().map(|name| name.to_ascii_lowercase().replace('_', "-"));
        let names = NAMES.iter().map(|name| (*name).to_owned());
        Self(names.chain(configured).map(String::into_boxed_str).collect())
    }

    /// Whether a header of this name could tell the backend who is calling.
    #[must_use]
    pub fn contains(&self, name: &HeaderName) -> bool {
        let name = name.as_str();
        if name.contains('_') { self.lists(&name.replace('_', "-")) } else { self.lists(name) }
    }

    fn lists(&self, name: &str) -> bool {
        self.0.contains(name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_every_spelling() {
        let headers = IdentityHeaders::new(["X-Employee_Id"]);
        for name in [
            "X-Remote-User",
            "x_remote_user",
            "X-Employee-Id",
            "x_employee-id",
            "ssl_client_cert",
            "X-SSL-Client-S-DN",
        ] {
            assert!(headers.contains(&HeaderName::from_bytes(name.as_bytes()).unwrap()), "{name}");
        }
        for name in ["accept", "x-requested-with", "x-user-agent", "cookie"] {
            assert!(!headers.contains(&HeaderName::from_static(name)), "{name}");
        }
    }
}
