//! The wire: listeners, handshakes, requests, backends.
//!
//! A connection: `listener` accepts → `tls` shakes hands under the newest snapshot → `connection` holds
//! the facts. A request: `http` is the straight line: `authorize` routes, judges and decides → `headers` strips, then
//! sets → `upstream` forwards, which takes the permit by value → `visit` writes one access record. Every way out that is
//! not the backend's answer is a `rejection` with a stable code. Nothing here decides who anyone is.

mod accept;
mod authorize;
mod body;
mod certificate_headers;
mod chains;
mod connection;
mod conversation;
mod deadline;
mod door;
mod extended_connect;
mod fair;
mod forwarded;
mod framing;
mod gate;
mod grpc;
mod headers;
mod hop_by_hop;
mod hops;
mod http;
mod linger;
mod listener;
mod patience;
mod places;
mod proxy_protocol;
mod ranges;
mod rejection;
mod request_ids;
mod sessions;
mod settings;
mod streams;
mod tls;
mod told;
mod trace;
mod traefik;
mod traffic;
mod turn;
mod upgrade;
mod upstream;
mod visit;
mod watch;
mod worker;

pub use listener::{Parts, Proxy};
pub use ranges::{AddressRange, AddressRanges, RangeError};
pub use settings::{Believed, Http2Limits, Limits, ListenerSettings, TraceSettings, TrustedHops};
pub use upstream::Timeouts;
