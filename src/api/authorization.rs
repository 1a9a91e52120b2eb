//! Who of those that were identified may come in.
#![expect(
    unreachable_pub,
    reason = "KubeSchema copies each struct, its `pub` included, into a function"
)]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Users and groups that may come in, and those that may not (401.3). Deny wins.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!has(self.allow) || size(self.allow.users) > 0 || size(self.allow.groups) > 0")
        .message("authorization.allow names nobody, which refuses everyone: write users or groups, or remove allow")
)]
pub struct Authorization {
    /// Only these; left out, everyone who is not denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<People>,
    /// None of these, whatever is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deny: Option<People>,
}

/// Names of users and groups; `*` stands for any run of characters.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct People {
    /// As they are written (`alice`), with their domain (`CORP\alice`) or as user principal names (`alice@corp.example`);
    /// `?` alone stands for whoever is nobody in particular.
    #[serde(default)]
    #[schemars(
        length(max = 256),
        inner(length(min = 1, max = 256), regex(pattern = r"^[^\x00-\x1F\x7F]+$"))
    )]
    pub users: Vec<String>,
    /// Groups that the account, the token or the directory names.
    #[serde(default)]
    #[schemars(
        length(max = 256),
        inner(length(min = 1, max = 256), regex(pattern = r"^[^\x00-\x1F\x7F]+$"))
    )]
    pub groups: Vec<String>,
}
