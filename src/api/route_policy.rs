//! `RoutePolicy` itself: targets, how long, how much, how often. What is changed on the way is in `route_edits`, the way to
//! the backends in `route_backend`.
#![expect(
    unreachable_pub,
    reason = "KubeSchema copies each struct, its `pub` included, into a function"
)]
#![expect(clippy::duplicated_attributes, reason = "each printer column names its type")]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::policy::TargetRef;
use super::reference::{DURATION, QUANTITY};
use super::route_backend::{BackendTls, LoadBalancing, Retry};
use super::route_edits::{Compression, Cors, ErrorPage, RequestHeaders, ResponseHeaders, Rewrite};
use super::status::RoutePolicyStatus;

/// How requests are carried on the Ingresses that the policy targets. What is left out is as the default policy
/// (--default-route-policy) says, or else as the program does it.
#[derive(CustomResource, KubeSchema, Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[kube(
    group = "certmap.dev",
    version = "v1alpha1",
    kind = "RoutePolicy",
    plural = "routepolicies",
    namespaced,
    status = "RoutePolicyStatus",
    derive = "PartialEq",
    shortname = "cmrp",
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
pub struct RoutePolicySpec {
    /// Whose requests these are, in the policy's namespace. Of several policies with one target the oldest counts. May be
    /// left out by a policy that only serves as the default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// How long what may take. Each that is left out is as the default policy says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
    /// How much a request may be. Each that is left out is as the default policy says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// When a request is sent again. Left out: only where no endpoint could be connected to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// How endpoints are chosen. Each that is left out is as the default policy says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancing: Option<LoadBalancing>,
    /// What clients' TLS handshakes must come to, at every host at which this policy carries a route: a handshake knows
    /// the host and no path, so that there the strictest of the policies that carry a route counts for all paths, other
    /// Ingresses' and namespaces' too. Requests over plain http are not held against it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTls>,
    /// TLS to the backends, as BackendTLSPolicy has it.
    #[serde(rename = "backendTLS", default, skip_serializing_if = "Option::is_none")]
    pub backend_tls: Option<BackendTls>,
    /// How often; all of them must agree, or the request is answered 429. An empty list: without limit, whatever the
    /// default policy says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    pub rate_limits: Option<Vec<RateLimit>>,
    /// Answer a request over http with a redirect (308) to https.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub https_redirect: Option<bool>,
    /// What the backend gets for host and path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<Rewrite>,
    /// What becomes of the request's header fields, after what identifies was removed and before it is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_headers: Option<RequestHeaders>,
    /// What becomes of the response's header fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_headers: Option<ResponseHeaders>,
    /// Cross-origin requests (Fetch standard). Left out, they are the backend's affair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
    /// Compress responses. Left out, they are passed on as they come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// Pages in place of certmap's own. An empty list: certmap's own, whatever the default policy says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub error_pages: Option<Vec<ErrorPage>>,
}

/// How long what may take, as Kubernetes writes durations: 500ms, 60s, 1h30m.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Timeouts {
    /// From the request's head to the end of the response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 24), regex(pattern = DURATION))]
    pub request: Option<String>,
    /// Until an endpoint accepts a connection (504).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 24), regex(pattern = DURATION))]
    pub connect: Option<String>,
    /// Until the response's head, counted from the last octet of the request that moved (504).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 24), regex(pattern = DURATION))]
    pub response: Option<String>,
    /// While neither body moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 24), regex(pattern = DURATION))]
    pub idle: Option<String>,
}

/// How much a request may be.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// The body, in octets as Kubernetes writes quantities: "512Ki", "10Mi" (413).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20), regex(pattern = QUANTITY))]
    pub request_body: Option<String>,
    /// The target, path and query together, in octets (414).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>", range(min = 1, max = 65_536))]
    pub target: Option<u32>,
}

/// What clients' handshakes must come to; never less than the program's options say. What no handshake of the newest
/// version could meet together with those and with older Ingresses of the host shuts this policy's routes there (503.96),
/// and no others.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientTls {
    /// The oldest version of TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_version: Option<TlsVersion>,
    /// The cipher suites that clients and these hosts may agree on, by the names of IANA's registry: at least one of
    /// TLS 1.3; without any of TLS 1.2 nobody speaks that. An empty list: all, whatever the default policy says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 16),
        inner(length(max = 64), regex(pattern = "^TLS_[A-Z0-9_]+$")),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub cipher_suites: Option<Vec<String>>,
}

/// The oldest version of TLS that clients may speak to these hosts. 1.3 shuts out whoever speaks 1.2 alone.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum TlsVersion {
    /// RFC 5246.
    #[serde(rename = "1.2")]
    Tls12,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    Tls13,
}

/// So many requests in so long, of each client or account.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimit {
    /// Who is counted.
    pub per: RateKey,
    /// So many requests.
    #[schemars(with = "i32", range(min = 1, max = 1_000_000))]
    pub requests: u32,
    /// In so long.
    #[serde(default = "a_second")]
    #[schemars(length(max = 24), regex(pattern = DURATION))]
    pub period: String,
    /// So many at once; left out, as many as requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>", range(min = 1, max = 1_000_000))]
    pub burst: Option<u32>,
}

/// Who is counted.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum RateKey {
    /// The client's address; of IPv6, its /64.
    ClientAddress,
    /// The mapped account; who has none is counted by address.
    Account,
}

fn a_second() -> String {
    "1s".to_owned()
}
