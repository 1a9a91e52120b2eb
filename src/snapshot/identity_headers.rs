//! The names by which backends are told who is calling. Whatever a client sends under them is removed, on every route.

use std::borrow::Cow;
use std::collections::HashSet;

use http::HeaderName;

/// What certmap and its peers tell identities by, whether a policy uses it here or not.
const NAMES: &[&str] = &[
    "auth-user",
    "client-cert",
    "client-cert-chain",
    "client-dn",
    "client-ip",
    "client-verify",
    "logon-user",
    "remote-email",
    "remote-group",
    "remote-groups",
    "remote-name",
    "remote-user",
    "ssl-client",
    "true-client-ip",
    "x-amzn-oidc-identity",
    "x-arr-clientcert",
    "x-arr-ssl",
    "x-client-dn",
    "x-client-ip",
    "x-client-verify",
    "x-email",
    "x-groups",
    "x-iis-windowsauthtoken",
    "x-logon-user",
    "x-proxy-user",
    "x-role",
    "x-roles",
    "x-ssl",
    "x-user",
    "x-user-id",
    "x-userid",
    "x-username",
];

/// Families: every name that begins so.
const PREFIXES: &[&str] = &[
    "cf-access-authenticated-user-",
    "ms-aspnetcore-",
    "ssl-client-",
    "tailscale-user-",
    "x-amzn-mtls-",
    "x-auth-request-",
    "x-authenticated-",
    "x-authentik-",
    "x-certmap-",
    "x-client-cert",
    "x-consumer-",
    "x-credential-",
    "x-forwarded-access-token",
    "x-forwarded-client-cert",
    "x-forwarded-email",
    "x-forwarded-groups",
    "x-forwarded-preferred-username",
    "x-forwarded-ssl-client",
    "x-forwarded-tls-client-cert",
    "x-forwarded-user",
    "x-goog-authenticated-user-",
    "x-ms-client-principal",
    "x-pomerium-claim-",
    "x-remote-",
    "x-ssl-",
    "x-tls-client",
    "x-vouch-",
    "x-webauth-",
];

/// Names compared as the least careful backend would: in lower case, with whatever is no letter or digit counting as a
/// hyphen. CGI takes an underscore for one, and PHP a dot for either.
#[derive(Clone, Debug)]
pub struct IdentityHeaders {
    names: HashSet<Box<str>>,
    /// The first two characters of every name and family: most headers have others, and need no further look.
    beginnings: Beginnings,
}

impl IdentityHeaders {
    /// The built-in list and the names that policies configure.
    pub fn new<'a>(configured: impl IntoIterator<Item = &'a str>) -> Self {
        let configured = configured.into_iter().map(|name| fold(&name.to_ascii_lowercase()).into());
        let names: HashSet<Box<str>> =
            NAMES.iter().map(|name| (*name).into()).chain(configured).collect();
        let all = names.iter().map(|name| &**name).chain(PREFIXES.iter().copied());
        Self { beginnings: all.collect(), names }
    }

    /// Whether a header of this name could tell the backend who is calling.
    #[must_use]
    pub fn contains(&self, name: &HeaderName) -> bool {
        if !self.beginnings.have(name.as_str()) {
            return false;
        }
        let name = Self::folded(name);
        self.names.contains(&*name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    }

    /// A name as it is compared here.
    #[must_use]
    pub fn folded(name: &HeaderName) -> Cow<'_, str> {
        fold(name.as_str())
    }
}

/// Pairs of characters that some name begins with.
#[derive(Clone, Debug)]
struct Beginnings(Box<[bool]>);

impl Beginnings {
    /// Kinds of characters: letters, digits, and what counts as a hyphen, or as missing.
    const KINDS: usize = 37;

    fn pair(name: &str) -> usize {
        let kind = |octet: Option<&u8>| match octet {
            Some(letter @ b'a'..=b'z') => usize::from(letter - b'a'),
            Some(digit @ b'0'..=b'9') => 26 + usize::from(digit - b'0'),
            _ => Self::KINDS - 1,
        };
        let octets = name.as_bytes();
        kind(octets.first()) * Self::KINDS + kind(octets.get(1))
    }

    fn have(&self, name: &str) -> bool {
        self.0.get(Self::pair(name)).copied().unwrap_or(true)
    }
}

impl<'a> FromIterator<&'a str> for Beginnings {
    fn from_iter<I: IntoIterator<Item = &'a str>>(names: I) -> Self {
        let mut pairs = vec![false; Self::KINDS * Self::KINDS];
        for name in names {
            if let Some(pair) = pairs.get_mut(Self::pair(name)) {
                *pair = true;
            }
        }
        Self(pairs.into())
    }
}

fn fold(lower_case: &str) -> Cow<'_, str> {
    let separates = |c: char| !c.is_ascii_alphanumeric();
    if lower_case.contains(|c| separates(c) && c != '-') {
        Cow::Owned(lower_case.replace(separates, "-"))
    } else {
        Cow::Borrowed(lower_case)
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
            "X.Remote.User",
            "x~remote_user",
        ] {
            assert!(headers.contains(&HeaderName::from_bytes(name.as_bytes()).unwrap()), "{name}");
        }
        for name in [
            "accept",
            "authorization",
            "content-type",
            "cookie",
            "origin",
            "sec-websocket-key",
            "user-agent",
            "x-csrf-token",
            "x-http-method-override",
            "x-requested-with",
            "x-user-agent",
        ] {
            assert!(!headers.contains(&HeaderName::from_static(name)), "{name}");
        }
    }
}
