//! The external module: another service is asked.
#![expect(
    unreachable_pub,
    reason = "KubeSchema copies each struct, its `pub` included, into a function"
)]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::forward::{FREE_FAMILY, FREE_NAME};

/// A service that is asked about each request (forward-auth): 2xx admits.
#[derive(KubeSchema, Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!has(self.groupsHeader) || has(self.userHeader)")
        .message("external: groups are somebody's: write userHeader too")
)]
pub struct External {
    /// The Service that is asked, over http.
    pub service_ref: ServiceRef,
    /// The path that is asked for.
    #[serde(default = "default_path")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^/[!-\x22$-~]*$"))]
    pub path: String,
    /// How long it may take to answer.
    #[serde(default = "default_timeout")]
    #[schemars(with = "i32", range(min = 1, max = 60))]
    pub timeout_seconds: u16,
    /// Header fields of the request that it is sent, besides X-Forwarded-Method, -Proto, -Host, -Uri and -For. Cookie and
    /// Authorization only if they are listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        inner(length(min = 1, max = 64), regex(pattern = "^[A-Za-z][A-Za-z0-9-]*$")),
        extend("x-kubernetes-list-type" = "set")
    )]
    #[x_kube(
        validation = Rule::new("self.all(h, !(h.lowerAscii() in ['connection','content-encoding','content-length','content-type','expect','host','http2-settings','keep-alive','proxy-authenticate','proxy-authorization','proxy-connection','te','trailer','transfer-encoding','upgrade']) && !h.lowerAscii().startsWith('x-forwarded-'))")
            .message("requestHeaders: headers of the connection and of the body are never sent, and X-Forwarded- is certmap's own: remove them")
    )]
    pub request_headers: Vec<String>,
    /// The header of its answer that names the user; an answer without it admits nobody. Left out, who is admitted has
    /// no name. What a client sends under it is removed, on every route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z][A-Za-z0-9-]*$"))]
    #[x_kube(
        validation = Rule::new(FREE_NAME).message("userHeader cannot be a header of HTTP itself or one that certmap fills: write for example X-Auth-User"),
        validation = Rule::new(FREE_FAMILY).message("userHeader cannot be a header of HTTP itself or one that certmap fills: write for example X-Auth-User")
    )]
    pub user_header: Option<String>,
    /// The header of its answer that lists the user's groups, with commas between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z][A-Za-z0-9-]*$"))]
    #[x_kube(
        validation = Rule::new(FREE_NAME).message("groupsHeader cannot be a header of HTTP itself or one that certmap fills: write for example X-Auth-Groups"),
        validation = Rule::new(FREE_FAMILY).message("groupsHeader cannot be a header of HTTP itself or one that certmap fills: write for example X-Auth-Groups")
    )]
    pub groups_header: Option<String>,
    /// What the client gets where it does not admit.
    #[serde(default)]
    pub on_refusal: OnRefusal,
}

/// A port of a Service.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceRef {
    /// The Service's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The Service's namespace, if it is not the policy's: then a ReferenceGrant there must allow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// The number of the Service's port.
    #[schemars(with = "i32", range(min = 1, max = 65535))]
    pub port: u16,
}

/// What becomes of a refusal by an external service.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum OnRefusal {
    /// 401, 403 and redirects are passed back: status, Location, WWW-Authenticate, Set-Cookie and a short body.
    #[default]
    PassBack,
    /// It is answered by a page of certmap's (401.5).
    Refuse,
}

fn default_path() -> String {
    "/".to_owned()
}

fn default_timeout() -> u16 {
    5
}
