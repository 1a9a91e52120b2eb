//! IIS's `iisClientCertificateMappingAuthentication`: one-to-one and many-to-one mappings.
#![expect(
    unreachable_pub,
    reason = "KubeSchema copies each struct, its `pub` included, into a function"
)]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reference::{ObjectKind, yes};

/// `oneToOneMappings`: one certificate, one account.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OneToOne {
    /// Whether these mappings are used at all.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// The mappings; a certificate may stand in one of them only.
    #[serde(default)]
    #[schemars(
        length(max = 100_000),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub mappings: Vec<OneToOneMapping>,
}

/// One certificate and the account that it stands for.
#[derive(KubeSchema, Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("[has(self.certificate), has(self.certificateRef), has(self.sha256)].exists_one(x, x)")
        .message("a one-to-one mapping names one certificate in one form: write exactly one of certificate, certificateRef, sha256")
)]
pub struct OneToOneMapping {
    /// Unique within the policy.
    #[schemars(length(min = 1, max = 128), regex(pattern = NAME))]
    pub name: String,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// A disabled mapping is passed over.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// The whole certificate: base64 of its DER on one line (what IIS's configuration holds), or PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65_536))]
    pub certificate: Option<String>,
    /// A Secret or ConfigMap that holds exactly one certificate (of a TLS Secret: its leaf).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_ref: Option<CertificateRef>,
    /// The SHA-256 fingerprint of the DER, in hex, with or without colons.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 95), regex(pattern = r"^([0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}$"))]
    pub sha256: Option<String>,
    /// Who the certificate's holder is.
    pub account: Account,
}

/// A Secret or ConfigMap that holds one certificate.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertificateRef {
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
    #[serde(default = "default_certificate_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// `manyToOneMappings`: every certificate that fits, one account.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ManyToOne {
    /// Whether these mappings are used at all.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// In order: the first whose rules all match decides.
    #[serde(default)]
    #[schemars(
        length(max = 10_000),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub mappings: Vec<ManyToOneMapping>,
}

/// Rules and the account that a certificate gets which fits all of them.
#[derive(KubeSchema, Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("size(self.rules) > 0")
        .message("a many-to-one mapping needs at least one rule: write for example {certificateField: Issuer, certificateSubField: O, matchCriteria: \"Contoso\"}")
        .field_path(".rules"),
    validation = Rule::new("self.permissionMode == 'Deny' || has(self.account)")
        .message("a many-to-one mapping that allows needs an account: write account.userName or account.secretRef, or permissionMode: Deny")
)]
pub struct ManyToOneMapping {
    /// Unique within the policy.
    #[schemars(length(min = 1, max = 128), regex(pattern = NAME))]
    pub name: String,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// A disabled mapping is passed over.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Whether a certificate that fits is let in or refused (403.12).
    #[serde(default)]
    pub permission_mode: PermissionMode,
    /// All of them must match.
    #[schemars(length(max = 32))]
    pub rules: Vec<MatchRule>,
    /// Who the certificate's holder is; ignored under Deny.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Account>,
}

/// `permissionMode`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum PermissionMode {
    /// Let in, as the account.
    #[default]
    Allow,
    /// Refuse (403.12).
    Deny,
}

/// One comparison with one attribute of a name in the certificate.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MatchRule {
    /// Whose name is compared.
    pub certificate_field: CertificateField,
    /// The attribute: CN, OU, O, L, S (also ST, SP), C, DC, E (also Email), UID, serialNumber, T, GN, SN, I, STREET or a
    /// dotted OID.
    #[schemars(length(min = 1, max = 128), regex(pattern = SUB_FIELD))]
    pub certificate_sub_field: String,
    /// What the whole value must be: `*` stands for any run of characters, `?` for one, everything else for itself.
    #[schemars(length(min = 1, max = 1024))]
    pub match_criteria: String,
    /// Whether upper and lower case differ.
    #[serde(default = "yes")]
    pub compare_case_sensitive: bool,
}

/// `certificateField`.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
pub enum CertificateField {
    /// The holder's name.
    Subject,
    /// The name of the CA that issued the certificate.
    Issuer,
}

/// A named account.
#[derive(KubeSchema, Clone, Debug, Deserialize, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.userName) || has(self.secretRef)")
        .message("an account needs a name: write userName, or secretRef with a Secret that has the key username, or both")
)]
pub struct Account {
    /// The account's name; left out, the Secret's username is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = NAME))]
    pub user_name: Option<String>,
    /// A kubernetes.io/basic-auth Secret with the account's username and password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// Groups that the account is in, for `authorization` and the backend.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256), regex(pattern = NAME)))]
    pub groups: Vec<String>,
}

/// A Secret.
#[derive(Clone, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The object's namespace, if it is not the policy's: then a ReferenceGrant there must allow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// Printable text: names are written into logs and headers.
pub(super) const NAME: &str = r"^[^\x00-\x1F\x7F]+$";

const SUB_FIELD: &str = r"^([Cc][Nn]|[Oo][Uu]|[Oo]|[Ll]|[Ss]|[Ss][Tt]|[Ss][Pp]|[Cc]|[Dd][Cc]|[Ee]|[Ee]mail|emailAddress|[Uu][Ii][Dd]|[Ss]erial[Nn]umber|SERIALNUMBER|[Tt]|[Gg][Nn]|[Ss][Nn]|[Ii]|STREET|[Ss]treet|[0-2](\.(0|[1-9][0-9]*))+)$";

fn default_certificate_key() -> String {
    "tls.crt".to_owned()
}
