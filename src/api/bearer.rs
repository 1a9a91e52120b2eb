//! The Bearer module: JSON Web Tokens.
#![expect(
    unreachable_pub,
    reason = "KubeSchema copies each struct, its `pub` included, into a function"
)]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reference::{CaCertificateRef, ObjectKind};

/// JSON Web Tokens (RFC 6750, RFC 7519).
#[derive(KubeSchema, Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bearer {
    /// What a token's iss must be, to the letter.
    #[schemars(length(min = 1, max = 1024))]
    pub issuer: String,
    /// A token's aud must name one of these.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 1024)))]
    pub audiences: Vec<String>,
    /// The algorithms by which a token may be signed.
    #[serde(default = "default_algorithms")]
    #[schemars(length(min = 1, max = 9), extend("x-kubernetes-list-type" = "set"))]
    pub algorithms: Vec<TokenAlgorithm>,
    /// The issuer's public keys.
    pub jwks: KeySetSource,
    /// By how many seconds the issuer's clock may be off.
    #[serde(default = "default_clock_skew")]
    #[schemars(with = "i32", range(min = 0, max = 300))]
    pub clock_skew_seconds: u16,
    /// The claim that names the user.
    #[serde(default = "default_user_claim")]
    #[schemars(length(min = 1, max = 256))]
    pub user_claim: String,
    /// The claim that lists the user's groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub groups_claim: Option<String>,
    /// Whether a token must be bound to the certificate on its connection (RFC 8705). One that is bound is good with that
    /// certificate alone, whatever stands here.
    #[serde(default)]
    pub certificate_bound: CertificateBound,
    /// The realm of the challenge; left out, the policy's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r#"^[\x20-\x21\x23-\x5B\x5D-\x7E]+$"#))]
    pub realm: Option<String>,
}

/// A way to sign a token; never by a shared secret, never not at all.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum TokenAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RS384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RS512,
    /// RSASSA-PSS with SHA-256.
    PS256,
    /// RSASSA-PSS with SHA-384.
    PS384,
    /// RSASSA-PSS with SHA-512.
    PS512,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// ECDSA on P-384 with SHA-384.
    ES384,
    /// Ed25519.
    EdDSA,
}

/// Whether tokens must be bound to a certificate.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum CertificateBound {
    /// A token that is bound is good with its certificate alone; one that is not is good for whoever holds it.
    #[default]
    IfPresent,
    /// A token that is not bound is refused.
    Required,
}

/// Where the keys are.
#[derive(KubeSchema, Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.url) != has(self.ref)")
        .message("jwks: write exactly one of url (with caCertificateRefs) and ref"),
    validation = Rule::new("has(self.url) == has(self.caCertificateRefs)")
        .message("jwks: url and caCertificateRefs go together: name the CAs of the server at url; the system's roots are never used")
)]
pub struct KeySetSource {
    /// Where the issuer publishes them, over https.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 2048),
        regex(
            pattern = r"^https://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[!-\x22$-~]*)?$"
        )
    )]
    pub url: Option<String>,
    /// The CAs that the server at url must be vouched for by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    pub ca_certificate_refs: Option<Vec<CaCertificateRef>>,
    /// A ConfigMap or Secret that holds them.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<KeySetRef>,
}

/// A ConfigMap or Secret with a JSON Web Key set.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeySetRef {
    /// ConfigMap or Secret.
    pub kind: ObjectKind,
    /// The object's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The object's namespace, if it is not the policy's: then a ReferenceGrant there must allow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// The key within it.
    #[serde(default = "default_key_set_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn default_algorithms() -> Vec<TokenAlgorithm> {
    vec![TokenAlgorithm::RS256, TokenAlgorithm::ES256]
}

fn default_clock_skew() -> u16 {
    60
}

fn default_user_claim() -> String {
    "sub".to_owned()
}

fn default_key_set_key() -> String {
    "jwks.json".to_owned()
}
