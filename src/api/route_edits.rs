//! `RoutePolicy`: what is changed on the way.
#![expect(
    unreachable_pub,
    reason = "KubeSchema copies each struct, its `pub` included, into a function"
)]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reference::DURATION;

/// What the backend gets for host and path.
#[derive(KubeSchema, Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.host) || has(self.path)")
        .message("rewrite: write host, path or both")
)]
pub struct Rewrite {
    /// The Host that the backend gets in place of the client's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 259),
        regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?$")
    )]
    pub host: Option<String>,
    /// What becomes of the path; the query stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathRewrite>,
}

/// What becomes of a path.
#[derive(KubeSchema, Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.replacePrefix) != has(self.replaceFull)")
        .message("rewrite.path: write exactly one of replacePrefix and replaceFull"),
    validation = Rule::new("!has(self.replacePrefix) || !(self.replacePrefix.contains('//') || self.replacePrefix.contains('/.'))")
        .message("rewrite.path.replacePrefix holds // or a segment that begins with a dot: write a plain path, for example /v1"),
    validation = Rule::new("!has(self.replaceFull) || !(self.replaceFull.contains('//') || self.replaceFull.contains('/.'))")
        .message("rewrite.path.replaceFull holds // or a segment that begins with a dot: write a plain path, for example /health")
)]
pub struct PathRewrite {
    /// In place of the part that the Ingress's path matched; / removes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^/[A-Za-z0-9._~!$&'()*+,=:@/-]*$"))]
    pub replace_prefix: Option<String>,
    /// In place of the whole path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^/[A-Za-z0-9._~!$&'()*+,=:@/-]*$"))]
    pub replace_full: Option<String>,
}

/// Names of headers, and beginnings of names, in small letters.
#[derive(Clone, Copy, Debug)]
pub struct HeaderNames {
    /// Whole names.
    pub names: &'static [&'static str],
    /// Beginnings of names.
    pub families: &'static [&'static str],
}

/// What frames a request or leads it: a route does not change it.
pub const TAKEN_IN_REQUESTS: HeaderNames = HeaderNames {
    names: &[
        "authorization",
        "connection",
        "content-length",
        "expect",
        "forwarded",
        "host",
        "http2-settings",
        "keep-alive",
        "te",
        "traceparent",
        "tracestate",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
        "x-real-ip",
        "x-request-id",
    ],
    families: &["proxy-", "sec-websocket-", "x-forwarded-"],
};

/// What frames a response: a route does not change it.
pub const TAKEN_IN_RESPONSES: HeaderNames = HeaderNames {
    names: &[
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "date",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-request-id",
    ],
    families: &["proxy-", "sec-websocket-"],
};

/// What says who is calling wherever certmap runs; policies add to it.
const IDENTIFYING: HeaderNames = HeaderNames {
    names: &["client-cert", "client-cert-chain", "x-arr-clientcert"],
    families: &["ssl-client-", "x-certmap-"],
};

const IN_NO_REQUEST: &[HeaderNames] = &[TAKEN_IN_REQUESTS, IDENTIFYING];
const IN_NO_RESPONSE: &[HeaderNames] = &[TAKEN_IN_RESPONSES];

fn of_fields(taken: &[HeaderNames]) -> String {
    format!("self.all(field, {})", free("field.name", taken))
}

fn of_names(taken: &[HeaderNames]) -> String {
    format!("self.all(name, {})", free("name", taken))
}

/// Of a name, whether it is none of these.
fn free(name: &str, taken: &[HeaderNames]) -> String {
    let names = taken.iter().flat_map(|it| it.names).map(|name| format!("'{name}'"));
    let names = names.collect::<Vec<_>>().join(",");
    let families = taken.iter().flat_map(|it| it.families);
    let families = families.map(|it| format!(" && !{name}.lowerAscii().startsWith('{it}')"));
    format!("!({name}.lowerAscii() in [{names}]){}", families.collect::<String>())
}

const IN_REQUESTS: &str = "a header that says who is calling, frames the request or leads it cannot be changed: leave it out; rewrite.host changes Host, and CertMappingPolicy's forward says who is calling";
const IN_RESPONSES: &str = "a header that frames the response cannot be changed: leave it out; compression encodes responses";

/// What becomes of a request's fields: removed, then set, then added.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestHeaders {
    /// Names that are removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        inner(length(min = 1, max = 64), regex(pattern = "^[A-Za-z][A-Za-z0-9-]*$"))
    )]
    #[x_kube(validation = Rule::new(of_names(IN_NO_REQUEST)).message(IN_REQUESTS))]
    pub remove: Vec<String>,
    /// Fields that are set, whatever was there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(of_fields(IN_NO_REQUEST)).message(IN_REQUESTS))]
    pub set: Vec<HeaderField>,
    /// Fields that are added to what was there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(of_fields(IN_NO_REQUEST)).message(IN_REQUESTS))]
    pub add: Vec<HeaderField>,
}

/// What becomes of a response's fields: removed, then set, then added.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResponseHeaders {
    /// Names that are removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        inner(length(min = 1, max = 64), regex(pattern = "^[A-Za-z][A-Za-z0-9-]*$"))
    )]
    #[x_kube(validation = Rule::new(of_names(IN_NO_RESPONSE)).message(IN_RESPONSES))]
    pub remove: Vec<String>,
    /// Fields that are set, whatever was there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(of_fields(IN_NO_RESPONSE)).message(IN_RESPONSES))]
    pub set: Vec<HeaderField>,
    /// Fields that are added to what was there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(of_fields(IN_NO_RESPONSE)).message(IN_RESPONSES))]
    pub add: Vec<HeaderField>,
}

/// A header field.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderField {
    /// Its name.
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z][A-Za-z0-9-]*$"))]
    pub name: String,
    /// Its value: printable ASCII.
    #[schemars(length(max = 4096), regex(pattern = "^([!-~]([ -~]*[!-~])?)?$"))]
    pub value: String,
}

/// Which origins may ask, and for what.
#[derive(KubeSchema, Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!self.allowCredentials || !('*' in self.allowOrigins)")
        .message("cors: allowCredentials does not go with the origin *: name the origins")
)]
pub struct Cors {
    /// Origins that may: `https://app.example`, `https://*.app.example` (one label), or `*` for all.
    #[schemars(
        length(min = 1, max = 64),
        inner(
            length(max = 264),
            regex(
                pattern = r"^(\*|https?://(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?)$"
            )
        )
    )]
    pub allow_origins: Vec<String>,
    /// Methods that a preflight may ask for.
    #[serde(default = "simple_methods")]
    #[schemars(
        length(min = 1, max = 16),
        inner(length(min = 1, max = 24), regex(pattern = "^[A-Z]+$")),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub allow_methods: Vec<String>,
    /// Header fields that a preflight may ask for; left out, whatever it asks for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 64), regex(pattern = "^[A-Za-z][A-Za-z0-9-]*$"))
    )]
    pub allow_headers: Vec<String>,
    /// Header fields of responses that scripts may read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 64), regex(pattern = "^[A-Za-z][A-Za-z0-9-]*$"))
    )]
    pub expose_headers: Vec<String>,
    /// Whether requests may carry cookies and client certificates.
    #[serde(default)]
    pub allow_credentials: bool,
    /// How long a preflight's answer may be kept.
    #[serde(default = "five_seconds")]
    #[schemars(length(max = 24), regex(pattern = DURATION))]
    pub max_age: String,
}

/// Which responses are compressed, and how.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Compression {
    /// Of those that the client accepts the first is used. An empty list: none, whatever the default policy says.
    #[serde(default = "all_codings")]
    #[schemars(length(max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub codings: Vec<Coding>,
    /// Media types that are compressed; text/* stands for a family.
    #[serde(default = "texts")]
    #[schemars(
        length(min = 1, max = 64),
        inner(length(max = 128), regex(pattern = r"^[a-z0-9.+-]+/(\*|[a-z0-9.+-]+)$"))
    )]
    pub types: Vec<String>,
    /// Bodies with fewer octets are left alone.
    #[serde(default = "a_kilobyte")]
    #[schemars(with = "i32", range(min = 0, max = 1_048_576))]
    pub least: u32,
}

/// A content coding.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Coding {
    /// Brotli.
    Br,
    /// Gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// A page in place of certmap's own.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ErrorPage {
    /// For which answers: "404", with IIS's sub-status "403.7", or all of a hundred "5xx". The most specific page counts.
    #[schemars(
        length(min = 1, max = 32),
        inner(length(max = 7), regex(pattern = r"^[45](xx|[0-9]{2}(\.[1-9][0-9]{0,2})?)$"))
    )]
    pub codes: Vec<String>,
    /// Whether the backend's own answers are replaced too.
    #[serde(default)]
    pub of_backend: bool,
    /// Where the page is.
    pub config_map_ref: PageRef,
    /// What it is.
    #[serde(default = "html")]
    #[schemars(
        length(min = 3, max = 128),
        regex(pattern = "^[a-z0-9.+-]+/[a-z0-9.+-]+(; ?[!-~]+)*$")
    )]
    pub content_type: String,
}

/// A key of a ConfigMap of the policy's namespace.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PageRef {
    /// The ConfigMap's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn simple_methods() -> Vec<String> {
    ["GET", "HEAD", "POST"].map(str::to_owned).into()
}

fn five_seconds() -> String {
    "5s".to_owned()
}

fn all_codings() -> Vec<Coding> {
    vec![Coding::Br, Coding::Zstd, Coding::Gzip]
}

fn texts() -> Vec<String> {
    let types = [
        "text/*",
        "application/javascript",
        "application/json",
        "application/manifest+json",
        "application/problem+json",
        "application/xml",
        "image/svg+xml",
    ];
    types.map(str::to_owned).into()
}

fn a_kilobyte() -> u32 {
    1024
}

fn html() -> String {
    "text/html; charset=utf-8".to_owned()
}
