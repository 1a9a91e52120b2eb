//! `RoutePolicy`: the way to the backends.
#![expect(
    unreachable_pub,
    reason = "KubeSchema copies each struct, its `pub` included, into a function"
)]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::forward::KeySecretRef;
use super::reference::{CaCertificateRef, DURATION, LONG_DURATION};

/// When a request is sent again.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retry {
    /// How often at most, the first time not counted; 0 for never.
    #[serde(default = "twice")]
    #[schemars(with = "i32", range(min = 0, max = 10))]
    pub attempts: u8,
    /// Status codes of the backend after which a request is sent again that is idempotent (GET, HEAD, OPTIONS, TRACE, PUT,
    /// DELETE) and has no body.
    #[serde(default = "of_gateways")]
    #[schemars(
        length(min = 1, max = 16),
        with = "Vec<i32>",
        inner(range(min = 400, max = 599)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub codes: Vec<u16>,
    /// Of a hundred requests to the Service's port, on all routes with retry, so many may be retries.
    #[serde(default = "a_fifth")]
    #[schemars(with = "i32", range(min = 1, max = 100))]
    pub budget_percent: u8,
}

/// How endpoints are chosen.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoadBalancing {
    /// A new endpoint gets its whole share only after this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 24), regex(pattern = DURATION))]
    pub slow_start: Option<String>,
    /// Endpoints that fail rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejection: Option<Ejection>,
    /// A client comes back to its endpoint, by a signed cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie_affinity: Option<CookieAffinity>,
}

/// When an endpoint rests.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ejection {
    /// After so many failures in a row: no connection, no answer, 502, 503 or 504.
    #[serde(default = "five")]
    #[schemars(with = "i32", range(min = 1, max = 1000))]
    pub failures: u32,
    /// For so long; twice as long the next time, up to ten times.
    #[serde(default = "half_a_minute")]
    #[schemars(length(max = 24), regex(pattern = DURATION))]
    pub rest: String,
    /// Never more than this share of the endpoints.
    #[serde(default = "half")]
    #[schemars(with = "i32", range(min = 1, max = 100))]
    pub most_percent: u8,
}

/// A cookie that names an endpoint.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CookieAffinity {
    /// The cookie's name.
    #[serde(default = "affinity_cookie")]
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z0-9_-]+$"))]
    pub name: String,
    /// Its Max-Age, a second or more; left out, it ends with the browser's session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 24), regex(pattern = LONG_DURATION))]
    pub max_age: Option<String>,
    /// The Secret of the policy's namespace whose key `key` signs it: at least 32 octets that nobody can guess.
    pub key_secret_ref: KeySecretRef,
}

/// TLS to the backends.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendTls {
    /// ConfigMaps and Secrets with the CAs that may vouch for the backends, in PEM. Never the system's roots.
    #[schemars(length(min = 1, max = 16))]
    pub ca_certificate_refs: Vec<CaCertificateRef>,
    /// The name that is sent as SNI; without subjectAltNames it is the name that the backends' certificates must be for.
    #[schemars(
        length(min = 1, max = 253),
        regex(
            pattern = r"^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$"
        )
    )]
    pub hostname: String,
    /// The names of which the backends' certificates must have one at least, in place of hostname.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 5))]
    pub subject_alt_names: Option<Vec<BackendSubjectAltName>>,
    /// The TLS Secret of the policy's namespace whose certificate is shown to the backends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_ref: Option<KeySecretRef>,
}

/// A name in a backend's certificate.
#[derive(KubeSchema, Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("self.type == 'Hostname' ? has(self.hostname) && !has(self.uri) : has(self.uri) && !has(self.hostname)")
        .message("a name in subjectAltNames is of one type: write hostname, and no uri, where type is Hostname; uri, and no hostname, where it is URI")
)]
pub struct BackendSubjectAltName {
    /// Hostname or URI.
    #[serde(rename = "type")]
    pub kind: SubjectAltNameType,
    /// A dNSName. A wildcard in the certificate stands for one label, as in other certificates of servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(
            pattern = r"^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$"
        )
    )]
    pub hostname: Option<String>,
    /// A uniformResourceIdentifier, such as the SPIFFE ID spiffe://corp.example/ns/web/sa/app; compared octet by octet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[A-Za-z][A-Za-z0-9+.-]*://[A-Za-z0-9._~:/?#@!$&'()*+,;=%\[\]-]+$")
    )]
    pub uri: Option<String>,
}

/// The types of names that a backend can be known by.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum SubjectAltNameType {
    /// A DNS name.
    Hostname,
    /// A URI.
    #[serde(rename = "URI")]
    Uri,
}

fn twice() -> u8 {
    2
}

fn of_gateways() -> Vec<u16> {
    vec![502, 503, 504]
}

fn a_fifth() -> u8 {
    20
}

fn five() -> u32 {
    5
}

fn half_a_minute() -> String {
    "30s".to_owned()
}

fn half() -> u8 {
    50
}

fn affinity_cookie() -> String {
    "certmap-affinity".to_owned()
}
