//! Where a directory is, how it is asked, and what of its answers counts.

use std::time::Duration;

use rustls::pki_types::CertificateDer;

use super::keys::Form;
use crate::auth::Secret;
use crate::identity::Fingerprint;

/// Settings with the digest of all of them: whatever is remembered is remembered under it, so that a changed policy
/// begins anew.
#[derive(Debug)]
pub struct Directory {
    settings: DirectorySettings,
    digest: Fingerprint,
}

/// Everything that a policy says of its directory.
#[derive(Debug)]
pub struct DirectorySettings {
    /// Tried in order.
    pub urls: Vec<DirectoryUrl>,
    /// Who may have issued the servers' certificates.
    pub cas: Vec<CertificateDer<'static>>,
    /// The name that the servers' certificates must have, where it is not the URL's.
    pub server_name: Option<Box<str>>,
    /// As whom to search.
    pub bind: DirectoryBind,
    /// Below which entry to search; else the naming context that the server names.
    pub base_dn: Option<Box<str>>,
    /// For connecting and for each question, at each server.
    pub timeout: Duration,
    /// How long answers are remembered.
    pub keeping: Keeping,
    /// The weak forms that count.
    pub weak: Vec<Form>,
    /// Whether an account whose password has expired is refused.
    pub refuse_expired_password: bool,
}

/// How long answers are remembered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Keeping {
    /// Accounts that were found.
    pub found: Duration,
    /// That there is none.
    pub not_found: Duration,
    /// Beyond either, while no server answers.
    pub stale: Duration,
}

/// One server. The connection is always encrypted.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct DirectoryUrl {
    /// TLS from the first octet; otherwise StartTLS before anything else is said.
    pub ldaps: bool,
    /// A name or an address, an IPv6 one without brackets.
    pub host: Box<str>,
    /// Where no other is named, 636 or 389.
    pub port: u16,
}

/// As whom to search.
#[derive(Clone, Debug)]
pub enum DirectoryBind {
    /// By name (a DN, `CORP\user`, or a user principal name) and password.
    Simple {
        /// The name.
        name: Box<str>,
        /// Never empty.
        password: Secret<String>,
    },
    /// By the certificate of the TLS connection (SASL EXTERNAL).
    External {
        /// Leaf first.
        chain: Vec<CertificateDer<'static>>,
        /// PKCS#8, PKCS#1 or SEC1, in DER or PEM.
        key: Secret<Box<[u8]>>,
    },
}

impl Directory {
    /// Digests the settings.
    #[must_use]
    pub fn new(settings: DirectorySettings) -> Self {
        let digest = settings.digest();
        Self { settings, digest }
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &DirectorySettings {
        &self.settings
    }

    /// Of all settings, secrets included.
    #[must_use]
    pub fn digest(&self) -> Fingerprint {
        self.digest
    }
}

impl DirectorySettings {
    fn digest(&self) -> Fingerprint {
        let mut parts: Vec<Vec<u8>> = vec![
            format!("{:?}", self.urls).into(),
            format!("{:?} {:?} {:?}", self.server_name, self.base_dn, self.timeout).into(),
            format!("{:?} {:?} {}", self.keeping, self.weak, self.refuse_expired_password).into(),
        ];
        parts.extend(self.cas.iter().map(|ca| ca.to_vec()));
        match &self.bind {
            DirectoryBind::Simple { name, password } => {
                parts.extend([
                    b"simple".into(),
                    name.as_bytes().into(),
                    password.expose().as_bytes().into(),
                ]);
            }
            DirectoryBind::External { chain, key } => {
                parts.extend([b"external".into(), key.expose().to_vec()]);
                parts.extend(chain.iter().map(|der| der.to_vec()));
            }
        }
        let digests = parts.iter().map(|part| *Fingerprint::of(part).as_bytes());
        Fingerprint::of(&digests.collect::<Vec<_>>().concat())
    }
}

impl DirectoryUrl {
    /// Reads `ldaps://host[:port]` or `ldap://host[:port]`, with a `/` after it or not.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let ldaps = match scheme.to_ascii_lowercase().as_str() {
            "ldaps" => true,
            "ldap" => false,
            _ => return None,
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match authority.strip_prefix('[') {
            Some(v6) => {
                let (host, after) = v6.split_once(']')?;
                host.parse::<std::net::Ipv6Addr>().ok()?;
                (host, if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':' | '_');
        let port = match port {
            Some(port) => port.parse().ok().filter(|port| *port != 0)?,
            None if ldaps => 636,
            None => 389,
        };
        (!host.is_empty() && host.chars().all(known)).then(|| Self {
            ldaps,
            host: host.into(),
            port,
        })
    }

    /// Whether it is a global catalog's port: the whole forest, seen from its root.
    #[must_use]
    pub fn is_global_catalog(&self) -> bool {
        matches!(self.port, 3268 | 3269)
    }

    /// The usual port of the same server, where it answers for its domain.
    #[must_use]
    pub fn of_domain(&self) -> Self {
        Self { port: if self.ldaps { 636 } else { 389 }, ..self.clone() }
    }
}

impl std::fmt::Display for DirectoryUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.ldaps { "ldaps" } else { "ldap" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_with_their_usual_ports() {
        for (text, written) in [
            ("ldaps://dc1.corp.example", "ldaps://dc1.corp.example:636"),
            ("LDAP://dc1.corp.example/", "ldap://dc1.corp.example:389"),
            ("ldaps://10.0.0.1:3269", "ldaps://10.0.0.1:3269"),
            ("ldaps://[2001:db8::1]", "ldaps://[2001:db8::1]:636"),
            ("ldap://[2001:db8::1]:3268", "ldap://[2001:db8::1]:3268"),
        ] {
            assert_eq!(DirectoryUrl::parse(text).unwrap().to_string(), written);
        }
        assert!(DirectoryUrl::parse("ldaps://dc:3269").unwrap().is_global_catalog());
        assert!(!DirectoryUrl::parse("ldaps://dc").unwrap().is_global_catalog());
        let domain = |text: &str| DirectoryUrl::parse(text).unwrap().of_domain().to_string();
        assert_eq!(domain("ldaps://dc:3269"), "ldaps://dc:636");
        assert_eq!(domain("ldap://dc:3268"), "ldap://dc:389");
    }

    #[test]
    fn other_text_is_no_url() {
        for text in [
            "",
            "dc1",
            "http://dc1",
            "ldaps://",
            "ldaps://:636",
            "ldaps://dc1:0",
            "ldaps://dc1:x",
            "ldaps://dc1/dc=x",
            "ldaps://u@dc1",
            "ldaps://[::1",
            "ldaps://[x]",
            "ldapi://x",
            "ldaps://a b",
        ] {
            assert_eq!(DirectoryUrl::parse(text), None, "{text}");
        }
    }
}
