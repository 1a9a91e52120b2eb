//! What the listeners are told, once at the start: how much a client may take, and whom in front of us we believe.

use std::time::Duration;

use super::ranges::AddressRanges;
use crate::telemetry::Spans;

/// How connections are accepted and served.
#[derive(Clone, Debug, Default)]
pub struct ListenerSettings {
    /// How much, and how long.
    pub limits: Limits,
    /// Who begins each connection with a PROXY header.
    pub proxy_protocol_from: AddressRanges,
    /// Who says truly where a request came from.
    pub hops: TrustedHops,
    /// How requests are traced; where they are not, what clients say of traces is passed on as it is.
    pub trace: Option<TraceSettings>,
}

/// How requests are traced.
#[derive(Clone, Debug)]
pub struct TraceSettings {
    /// Whose traces go on here.
    pub believed: Believed,
    /// Which share of the traces that begin here is kept.
    pub ratio: f64,
    /// Where spans go.
    pub spans: Option<Spans>,
}

/// Whose traces go on here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Believed {
    /// Those of trusted proxies.
    Trusted,
    /// Everybody's.
    Everyone,
}

/// Proxies in front of us.
#[derive(Clone, Debug, Default)]
pub struct TrustedHops {
    /// Their addresses.
    pub ranges: AddressRanges,
    /// Whether they overwrite `X-Forwarded-Host` and `X-Forwarded-Port`, so that these are no client's.
    pub host: bool,
    /// Whether `Forwarded` (RFC 7239) is written, and read where there is no `X-Forwarded-For`.
    pub forwarded: bool,
}

/// What connections may take. Where a number says so, 0 is no limit.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections of one client's address (of IPv6, of its /64); 0 for no limit.
    pub connections_per_client: usize,
    /// Requests of one connection, which then ends well; 0 for no limit.
    pub requests_per_connection: usize,
    /// For a PROXY header, and again for the handshake.
    pub handshake: Duration,
    /// For a request's head; over HTTP/1.1 also from the one before.
    pub head: Duration,
    /// Between two requests, or before the first; up to twice as long.
    pub idle: Duration,
    /// While a client takes nothing of what is written to it.
    pub send: Duration,
    /// Octets of a request's head.
    pub head_octets: u32,
    /// Fields of a request's head.
    pub head_fields: usize,
    /// HTTP/2 only.
    pub http2: Http2Limits,
}

/// What an HTTP/2 connection may take.
#[derive(Clone, Debug)]
pub struct Http2Limits {
    /// Requests at a time.
    pub streams: u32,
    /// Streams that a client opened and reset before they were looked at.
    pub pending_resets: usize,
    /// Streams that were reset because of what the client did on them.
    pub error_resets: usize,
    /// Octets of one request's body that may be on their way to us.
    pub stream_window: u32,
    /// The same of all requests of the connection.
    pub connection_window: u32,
    /// Octets of one response that wait for the client to read them.
    pub send_buffer: usize,
    /// How often a silent client is asked whether it is there.
    pub ping: Duration,
    /// How long it may take to say so.
    pub ping_answer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16_384,
            connections_per_client: 0,
            requests_per_connection: 0,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(60),
            idle: Duration::from_secs(60),
            send: Duration::from_secs(60),
            head_octets: 64 * 1024,
            head_fields: 100,
            http2: Http2Limits::default(),
        }
    }
}

impl Default for Http2Limits {
    fn default() -> Self {
        Self {
            streams: 128,
            pending_resets: 20,
            error_resets: 256,
            stream_window: 1024 * 1024,
            connection_window: 1024 * 1024,
            send_buffer: 256 * 1024,
            ping: Duration::from_secs(30),
            ping_answer: Duration::from_secs(20),
        }
    }
}
