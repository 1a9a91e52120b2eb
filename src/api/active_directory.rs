//! `spec.activeDirectory`: the third mechanism, in which the directory says whose certificate it is.
#![expect(
    unreachable_pub,
    reason = "KubeSchema copies each struct, its `pub` included, into a function"
)]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::mapping::SecretRef;
use super::reference::{CaCertificateRef, yes};

/// A directory, and how certificates are looked up in it.
#[derive(KubeSchema, Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ActiveDirectory {
    /// Whether certificates are mapped by the directory. `basic` with `directory: true` uses it all the same.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Domain controllers, tried in order: `ldaps://host:port`, or `ldap://host:port`, which always does StartTLS; the
    /// port may be left out. The global catalog's ports (3269, 3268) search the whole forest.
    #[schemars(
        length(min = 1, max = 8),
        inner(
            length(min = 8, max = 300),
            regex(pattern = r"^ldaps?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?/?$")
        )
    )]
    pub urls: Vec<String>,
    /// Who issued the controllers' certificates. Never the system's roots.
    #[schemars(length(min = 1, max = 16))]
    pub ca_certificate_refs: Vec<CaCertificateRef>,
    /// The name that the controllers' certificates must have; left out, the host of the URL. Needed where that is an
    /// IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[A-Za-z0-9._-]+$"))]
    pub server_name: Option<String>,
    /// As whom the directory is searched.
    pub bind: DirectoryBind,
    /// The entry below which accounts are looked for; left out, the naming context that the controller names.
    #[serde(default, rename = "baseDN", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub base_dn: Option<String>,
    /// Weak forms that count too, although another certificate could match them; and then only for accounts that are not
    /// younger than the certificate. Empty means none: only what binds strongly (KB5014754).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "set"))]
    pub weak_mappings: Vec<WeakMapping>,
    /// Which groups the backend is told of (authorization sees all): `CORP\Staff` or `Staff`, `*` for any run of characters. Empty means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 256)))]
    pub groups: Vec<String>,
    /// Refuse an account whose password has expired (401.1), as a logon by password would be.
    #[serde(default)]
    pub refuse_expired_password: bool,
    /// How long a controller may take to be connected to, and to answer.
    #[serde(default = "default_timeout")]
    #[schemars(with = "i32", range(min = 1, max = 60))]
    pub timeout_seconds: u32,
    /// How long answers are remembered.
    #[serde(default)]
    pub cache: DirectoryCache,
}

/// As whom a directory is searched; exactly one.
#[derive(KubeSchema, Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.secretRef) != has(self.certificateRef)")
        .message("activeDirectory.bind: write exactly one of secretRef (username and password) and certificateRef (a TLS Secret)")
)]
pub struct DirectoryBind {
    /// A basic-auth Secret: `username` is a DN, CORP\user or a user principal name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// A TLS Secret whose certificate is shown (SASL EXTERNAL).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_ref: Option<SecretRef>,
}

/// A form that names what another certificate could say as well.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum WeakMapping {
    /// `X509:<I>…<S>…`
    IssuerSubject,
    /// `X509:<S>…`
    Subject,
    /// `X509:<RFC822>…`
    Rfc822,
    /// The UPN in the certificate is the account's.
    Upn,
}

/// How long answers are remembered.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DirectoryCache {
    /// Accounts that were found: as long, a change in the directory may stay unseen.
    #[serde(default = "default_ttl")]
    #[schemars(with = "i32", range(min = 1, max = 3600))]
    pub ttl_seconds: u32,
    /// That a certificate or a name is nobody's.
    #[serde(default = "default_negative_ttl")]
    #[schemars(with = "i32", range(min = 1, max = 3600))]
    pub negative_ttl_seconds: u32,
    /// Beyond that, while no controller answers; 0 for not at all.
    #[serde(default)]
    #[schemars(with = "i32", range(min = 0, max = 86400))]
    pub stale_seconds: u32,
}

impl Default for DirectoryCache {
    fn default() -> Self {
        Self {
            ttl_seconds: default_ttl(),
            negative_ttl_seconds: default_negative_ttl(),
            stale_seconds: 0,
        }
    }
}

fn default_timeout() -> u32 {
    5
}

fn default_ttl() -> u32 {
    60
}

fn default_negative_ttl() -> u32 {
    10
}
