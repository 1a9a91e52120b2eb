//! What control and data plane share: one [`Snapshot`], immutable once made, behind one pointer.
//!
//! Routing and the names of hosts and paths are pure. TLS configurations stand here because which one a handshake gets
//! and which route a request gets must be answered by the same table.

mod backend;
mod backend_names;
mod dump;
mod host;
mod identity_headers;
mod key_set;
mod path;
mod route;
mod settings;
mod store;
mod terms;
mod ticket_keys;
mod tls;
mod tls_rules;

pub use backend::{Backend, BackendState, Endpoint, EndpointState, Protocol, Target};
pub use backend_names::{BackendName, BackendNames};
pub use host::{HostName, HostPattern, HostTable};
pub use identity_headers::IdentityHeaders;
pub use path::{AmbiguousPath, canonical, unambiguous};
pub use route::{PathPattern, Route, Routes, VirtualHost};
pub use settings::{
    BackendTls, Balance, Coding, Compression, CookieAffinity, Cors, DemandedBy, Ejection,
    ErrorPage, HeaderEdits, PathRewrite, RateKey, RateLimit, Retry, Rewrite, RouteLimits,
    RouteSettings, RouteTimeouts, StatusRange,
};
pub use store::{Snapshot, SnapshotStore};
pub use terms::ClientCertificateTerms;
pub use ticket_keys::{Opened, TicketId, TicketKeys};
pub use tls::{HostCertificates, ServerCertificate, ServerCertificates, Stapled, Tls};
pub use tls_rules::{RouteTls, TlsRules, TlsVersion, cipher_suite};
