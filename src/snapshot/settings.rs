//! What a RoutePolicy says of a route, compiled: how long, how much, how often, and what is changed on the way. Data only:
//! `proxy` acts on it.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::tls_rules::RouteTls;
use crate::identity::Fingerprint;

/// Everything a RoutePolicy says of a route. Its default is a route that has none.
#[derive(Clone, Debug, Default)]
pub struct RouteSettings {
    /// namespace/name of the RoutePolicy; empty where there is none.
    pub name: Arc<str>,
    /// How long what may take; what is not said is the controller's.
    pub timeouts: RouteTimeouts,
    /// How much a request may be.
    pub limits: RouteLimits,
    /// When a request is sent again; without it, only where no endpoint could be connected to.
    pub retry: Option<Retry>,
    /// What the handshakes of its host must come to.
    pub tls: RouteTls,
    /// Who says so.
    pub tls_by: DemandedBy,
    /// How endpoints are chosen.
    pub balance: Balance,
    /// TLS to the backends; where it is missing, a backend that speaks TLS is not reached.
    pub backend_tls: Option<Arc<BackendTls>>,
    /// How often.
    pub rate_limits: Box<[RateLimit]>,
    /// http is answered with a redirect (308) to https.
    pub https_redirect: bool,
    /// What the backend gets for host and path.
    pub rewrite: Rewrite,
    /// Fields of the request, after identity headers were stripped and before they are set.
    pub request_headers: HeaderEdits,
    /// Fields of the response.
    pub response_headers: HeaderEdits,
    /// Cross-origin requests (Fetch standard); none: the backend's affair.
    pub cors: Option<Cors>,
    /// Responses are compressed.
    pub compression: Option<Compression>,
    /// Pages instead of ours, the most specific first.
    pub error_pages: Box<[ErrorPage]>,
}

/// namespace/name of the RoutePolicy that makes each demand: the route's own, or the default; empty where there is none.
#[derive(Clone, Debug, Default)]
pub struct DemandedBy {
    /// Of the oldest version.
    pub oldest: Arc<str>,
    /// Of the cipher suites.
    pub suites: Arc<str>,
    /// The default policy, where it may make one.
    pub default: Arc<str>,
}

/// How long what may take.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RouteTimeouts {
    /// From the request's head to the end of the response.
    pub request: Option<Duration>,
    /// Until an endpoint accepts a connection.
    pub connect: Option<Duration>,
    /// Until the response's head, counted from the last octet of the request that moved.
    pub response: Option<Duration>,
    /// Neither body moves.
    pub idle: Option<Duration>,
}

/// How much a request may be.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RouteLimits {
    /// Octets of the request's body (413).
    pub request_body: Option<u64>,
    /// Octets of the target (414).
    pub target: Option<usize>,
}

/// When a request is sent again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Retry {
    /// How often at most, the first time not counted.
    pub attempts: u8,
    /// Status codes after which an idempotent request (RFC 9110, 9.2.2) without a body is sent again.
    pub codes: Box<[u16]>,
    /// Of a hundred requests of the route, so many may be retries.
    pub budget_percent: u8,
}

/// How endpoints are chosen.
#[derive(Clone, Debug, Default)]
pub struct Balance {
    /// A new endpoint gets its whole share only after this.
    pub slow_start: Duration,
    /// Failing endpoints rest.
    pub ejection: Option<Ejection>,
    /// A client comes back to its endpoint by a signed cookie.
    pub affinity: Option<CookieAffinity>,
}

/// When an endpoint rests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ejection {
    /// After so many failures in a row (no connection, no answer, 5xx that a gateway makes: 502, 503, 504).
    pub failures: u32,
    /// For so long; twice as long the next time, up to ten times.
    pub rest: Duration,
    /// Never more than this share of the endpoints.
    pub most_percent: u8,
}

/// A cookie that names an endpoint.
#[derive(Clone, Debug)]
pub struct CookieAffinity {
    /// The cookie's name.
    pub name: Box<str>,
    /// Max-Age; a session cookie without it.
    pub max_age: Option<Duration>,
    /// Signs it (HMAC-SHA256): of the route's policy and every replica the same.
    pub key: [u8; 32],
}

/// TLS to backends (the fields of BackendTLSPolicy).
#[derive(Debug)]
pub struct BackendTls {
    /// CA, client certificate, the names that the backend's may have in place of `name`; ALPN apart.
    pub config: Arc<ClientConfig>,
    /// SNI, and the name that the backend's certificate must be for where no others are.
    pub name: ServerName<'static>,
    /// Of everything in it: connections made under another are not used.
    pub digest: Fingerprint,
}

/// How often.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct RateLimit {
    /// Who is counted.
    pub per: RateKey,
    /// So many requests.
    pub requests: u32,
    /// In so long.
    pub period: Duration,
    /// So many at once at most.
    pub burst: u32,
}

/// Who is counted.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum RateKey {
    /// The client's address (IPv6: its /64).
    ClientAddress,
    /// The mapped account; who has none is counted by address.
    Account,
}

/// What the backend gets for host and path.
#[derive(Clone, Debug, Default)]
pub struct Rewrite {
    /// Instead of the client's Host.
    pub host: Option<HeaderValue>,
    /// Instead of the path.
    pub path: Option<PathRewrite>,
}

/// What becomes of the path. The query stays.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PathRewrite {
    /// The whole path is this.
    Full(Box<str>),
    /// The part that the route's prefix matched is this.
    Prefix(Box<str>),
}

/// What becomes of fields, in this order. Names that identify, frame or route are not among them.
#[derive(Clone, Debug, Default)]
pub struct HeaderEdits {
    /// Removed.
    pub remove: Box<[HeaderName]>,
    /// Set, whatever was there.
    pub set: Box<[(HeaderName, HeaderValue)]>,
    /// Added.
    pub add: Box<[(HeaderName, HeaderValue)]>,
}

/// Cross-origin requests.
#[derive(Clone, Debug)]
pub struct Cors {
    /// Origins that may; `*` stands for one label of a host where it is its first, and alone for all.
    pub allow_origins: Box<[Box<str>]>,
    /// What a preflight is answered.
    pub allow_methods: Box<[Method]>,
    /// What a preflight is answered; empty: what was asked for.
    pub allow_headers: Box<[HeaderName]>,
    /// What scripts may read.
    pub expose_headers: Box<[HeaderName]>,
    /// Cookies and client certificates.
    pub allow_credentials: bool,
    /// How long a preflight's answer may be kept.
    pub max_age: Duration,
}

/// Which responses are compressed, and how.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Compression {
    /// Those the client accepts, the first goes first.
    pub codings: Box<[Coding]>,
    /// Media types, without parameters; `text/*` for a family.
    pub types: Box<[Box<str>]>,
    /// Shorter bodies are left alone.
    pub least: u64,
}

/// A content coding (RFC 9110, 8.4.1).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Coding {
    /// `br`.
    Brotli,
    /// `gzip`.
    Gzip,
    /// `zstd`.
    Zstd,
}

/// A page instead of ours.
#[derive(Clone, Debug)]
pub struct ErrorPage {
    /// The status, or all of a class (`4` for 4xx).
    pub status: StatusRange,
    /// IIS's sub-status; none: whatever it is.
    pub substatus: Option<u16>,
    /// Whether the backend's own answers of that status are replaced too.
    pub of_backend: bool,
    /// `text/html; charset=utf-8` and the like.
    pub content_type: HeaderValue,
    /// The page.
    pub body: bytes::Bytes,
}

/// One status or a class of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StatusRange {
    /// This one.
    One(u16),
    /// Its hundreds.
    Class(u16),
}
