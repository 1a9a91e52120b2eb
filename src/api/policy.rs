//! `CertMappingPolicy` itself: targets, TLS demands and trust.
#![expect(
    unreachable_pub,
    reason = "KubeSchema copies each struct, its `pub` included, into a function"
)]
#![expect(clippy::duplicated_attributes, reason = "each printer column names its type")]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::active_directory::ActiveDirectory;
use super::authentication::{AuthenticationModule, Reserved};
use super::authorization::Authorization;
use super::forward::Forward;
use super::mapping::{ManyToOne, OneToOne};
use super::reference::{CaCertificateRef, yes};
use super::status::CertMappingPolicyStatus;

/// How client certificates become accounts on the Ingresses that the policy targets.
#[derive(CustomResource, KubeSchema, Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[kube(
    group = "certmap.dev",
    version = "v1alpha1",
    kind = "CertMappingPolicy",
    plural = "certmappingpolicies",
    namespaced,
    status = "CertMappingPolicyStatus",
    derive = "PartialEq",
    shortname = "cmp",
    category = "certmap",
    category = "gateway-api",
    label("gateway.networking.k8s.io/policy", "Direct"),
    printcolumn(name = "Target", type_ = "string", json_path = ".spec.targetRefs[*].name"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.ancestors[*].conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(
        name = "Programmed",
        type_ = "string",
        json_path = ".status.ancestors[*].conditions[?(@.type==\"Programmed\")].status"
    ),
    printcolumn(name = "Mappings", type_ = "integer", json_path = ".status.mappings"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        priority = 1,
        json_path = ".status.ancestors[*].conditions[?(@.type==\"Accepted\")].reason"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        priority = 1,
        json_path = ".status.ancestors[*].conditions[?(@.type==\"Accepted\")].message"
    )
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!('None' in self.sslFlags) || size(self.sslFlags) == 1")
        .message("sslFlags: None stands alone: remove it, or remove the other flags")
        .field_path(".sslFlags"),
    validation = Rule::new("!('SslRequireCert' in self.sslFlags) || 'SslNegotiateCert' in self.sslFlags")
        .message("sslFlags: SslRequireCert works only with SslNegotiateCert: write [Ssl, SslNegotiateCert, SslRequireCert]")
        .field_path(".sslFlags"),
    validation = Rule::new("!('SslMapCert' in self.sslFlags) || 'SslNegotiateCert' in self.sslFlags")
        .message("sslFlags: SslMapCert works only with SslNegotiateCert: write [Ssl, SslNegotiateCert, SslMapCert]")
        .field_path(".sslFlags"),
    validation = Rule::new("!('SslNegotiateCert' in self.sslFlags) || has(self.trust)")
        .message("sslFlags: SslNegotiateCert needs trust: write trust.caCertificateRefs with the CAs that may issue client certificates")
        .field_path(".sslFlags"),
    validation = Rule::new("!self.httpsRedirect || 'Ssl' in self.sslFlags")
        .message("httpsRedirect works only with Ssl: add Ssl to sslFlags, or remove httpsRedirect"),
    validation = Rule::new("!has(self.authentication) || 'SslNegotiateCert' in self.sslFlags || !self.authentication.exists(m, has(m.bearer) && m.bearer.certificateBound == 'Required')")
        .message("authentication: certificateBound: Required works only with SslNegotiateCert: add it to sslFlags, or write IfPresent"),
    validation = Rule::new("has(self.activeDirectory) || !has(self.authentication) || !self.authentication.exists(m, has(m.basic) && m.basic.directory)")
        .message("basic.directory needs activeDirectory: write it, with enabled: false if it is not to map certificates")
)]
pub struct CertMappingPolicySpec {
    /// What the policy protects, in its own namespace. May be left out by a policy that only serves as an
    /// IngressClass's default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// What is demanded of the connection, in IIS's words. Empty means None.
    #[serde(default)]
    #[schemars(length(max = 6), extend("x-kubernetes-list-type" = "set"))]
    pub ssl_flags: Vec<SslFlag>,
    /// With Ssl: answer a request over http with a redirect (308) to https instead of 403.4.
    #[serde(default)]
    pub https_redirect: bool,
    /// Who may issue client certificates. Never the system's roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<Trust>,
    /// One certificate, one account. Looked up before manyToOne.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_to_one: Option<OneToOne>,
    /// Every certificate that fits all rules of a mapping, one account; the first mapping that fits decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub many_to_one: Option<ManyToOne>,
    /// The directory says whose certificate it is. Asked where no mapping decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_directory: Option<ActiveDirectory>,
    /// Lets in every certificate that verifies and that no mapping decided, under a name from the certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admit_any_verified: Option<AdmitAnyVerified>,
    /// The other authentication modules, tried in order where no certificate decided. Empty means none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(
        validation = Rule::new("self.filter(m, has(m.basic)).size() <= 1")
            .message("authentication: basic may be listed once: put all secretRefs under one basic"),
        validation = Rule::new("self.filter(m, has(m.bearer)).size() <= 1")
            .message("authentication: bearer may be listed once: remove the others"),
        validation = Rule::new("self.filter(m, has(m.external)).size() <= 1")
            .message("authentication: external may be listed once: remove the others"),
        validation = Rule::new("self.filter(m, has(m.anonymous)).size() <= 1")
            .message("authentication: anonymous may be listed once: remove the others")
    )]
    pub authentication: Vec<AuthenticationModule>,
    /// Who of those that were identified may come in (401.3); left out, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<Authorization>,
    /// How the backend learns who is calling.
    #[serde(default)]
    pub forward: Forward,
}

/// An object that a policy is attached to (GEP-713).
#[derive(KubeSchema, Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("self.group == 'networking.k8s.io' && self.kind == 'Ingress'")
        .message("targetRefs: only Ingress can be targeted: write {group: networking.k8s.io, kind: Ingress, name: …}")
)]
pub struct TargetRef {
    /// The target's API group.
    #[schemars(length(max = 253))]
    pub group: String,
    /// The target's kind.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// The target's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// IIS's `access@sslFlags`.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
pub enum SslFlag {
    /// Nothing is demanded.
    None,
    /// https is demanded (403.4).
    Ssl,
    /// A client certificate is asked for.
    SslNegotiateCert,
    /// A client certificate is demanded (403.7).
    SslRequireCert,
    /// The certificate must map to an account (403.12).
    SslMapCert,
    /// At least 128 bits of encryption (403.5).
    Ssl128,
}

/// Who may issue client certificates.
#[derive(KubeSchema, Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!has(self.revocation)")
        .message("trust.revocation is reserved and not built yet: remove it; until then remove a mapping, or map it to Deny, to refuse a revoked certificate")
)]
pub struct Trust {
    /// ConfigMaps and Secrets with CA certificates in PEM; each may hold many.
    #[schemars(length(min = 1, max = 16))]
    pub ca_certificate_refs: Vec<CaCertificateRef>,
    /// How many intermediate certificates may stand between a client's certificate and its CA.
    #[serde(default = "default_max_depth")]
    #[schemars(with = "i32", range(min = 0, max = 6))]
    pub max_depth: u8,
    /// Send the CAs' names in the CertificateRequest: what makes a browser offer the right certificates.
    #[serde(default = "yes")]
    pub advertise_issuers: bool,
    /// Reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<Reserved>,
}

/// Admission of every certificate that verifies.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdmitAnyVerified {
    /// Where the user's name is taken from. A name that is missing or occurs twice is refused.
    pub user_from: UserFrom,
}

/// A name in a certificate.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum UserFrom {
    /// The whole subject, as RFC 4514 writes it.
    SubjectDN,
    /// The subject's common name.
    SubjectCN,
    /// The rfc822Name of the subject alternative name.
    SanEmail,
    /// The user principal name (otherName) of the subject alternative name.
    SanUpn,
}

fn default_max_depth() -> u8 {
    3
}
