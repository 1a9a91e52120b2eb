//! IIS's "other authentication modules": what is tried where no certificate decided.
#![expect(
    unreachable_pub,
    reason = "KubeSchema copies each struct, its `pub` included, into a function"
)]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bearer::Bearer;
use super::external::External;
use super::mapping::NAME;

/// One module; exactly one field is set.
#[derive(KubeSchema, Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!has(self.negotiate)")
        .message("negotiate is reserved and not built yet: write basic, bearer, external or anonymous"),
    validation = Rule::new("[has(self.basic), has(self.anonymous), has(self.bearer), has(self.negotiate), has(self.external)].exists_one(x, x)")
        .message("an entry of authentication is exactly one module: write basic, bearer, external or anonymous, each as an entry of its own")
)]
pub struct AuthenticationModule {
    /// User name and password (RFC 7617).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic: Option<Basic>,
    /// Nobody in particular: admits whoever offered nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anonymous: Option<Anonymous>,
    /// JSON Web Tokens (RFC 6750).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer: Option<Bearer>,
    /// Reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negotiate: Option<Reserved>,
    /// A service that is asked about each request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
}

/// The Basic scheme.
#[derive(KubeSchema, Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("self.directory || (has(self.secretRefs) && size(self.secretRefs) > 0)")
        .message("basic needs secretRefs, or directory: true")
)]
pub struct Basic {
    /// Account Secrets (username, password) or htpasswd Secrets (key auth or users; bcrypt, SHA-crypt, APR1).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub secret_refs: Vec<CredentialsRef>,
    /// Whoever the Secrets do not name may log on with name and password of the directory in activeDirectory.
    #[serde(default)]
    pub directory: bool,
    /// The realm of the challenge; left out, the policy's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r#"^[\x20-\x21\x23-\x5B\x5D-\x7E]+$"#))]
    pub realm: Option<String>,
}

/// A Secret that says who may log on.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CredentialsRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The object's namespace, if it is not the policy's: then a ReferenceGrant there must allow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// The anonymous module.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Anonymous {
    /// Under what name; left out, the backend is told no user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = NAME))]
    pub user_name: Option<String>,
}

/// A field whose meaning is not built yet. It exists so that writing it is refused, not silently dropped.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct Reserved {}
