//! Arguments about clients' connections.

use std::time::Duration;

use clap::Args;

use super::seconds;
use crate::proxy::{AddressRange, Http2Limits, Limits, ListenerSettings, TrustedHops};

/// How connections are accepted and served.
#[derive(Args, Clone, Debug)]
pub(super) struct ListenerArguments {
    /// Connections at a time, http and https together; more are closed at once
    #[arg(long, value_name = "NUMBER", default_value_t = 16_384, value_parser = positive)]
    max_connections: usize,
    /// Connections at a time of one client's address (IPv6: of its /64); 0 for no limit
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    max_connections_per_client: usize,
    /// Requests after which a connection ends (Connection: close, GOAWAY); 0 for no limit
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    max_requests_per_connection: usize,
    /// How long a TLS handshake may take, and before it a PROXY header
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = seconds)]
    handshake_timeout: f64,
    /// How long the head of a request may take (over HTTP/1.1 counted from the end of the request before)
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
    head_timeout: f64,
    /// How long a client's connection is kept without a request (up to twice as long)
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
    idle_timeout: f64,
    /// How long a client may take nothing of an answer that is there for it
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
    send_timeout: f64,
    /// Octets of a request's head (431)
    #[arg(long, value_name = "OCTETS", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(8192..=1_048_576))]
    max_head_size: u32,
    /// Fields of a request's head (431)
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = positive)]
    max_head_fields: usize,
    /// Requests at a time on one HTTP/2 connection
    #[arg(long, value_name = "NUMBER", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    http2_max_streams: u32,
    /// Octets of one request's body that may be on their way over HTTP/2, and as many of all of a connection
    #[arg(long, value_name = "OCTETS", default_value_t = 1_048_576, value_parser = clap::value_parser!(u32).range(65_535..=16_777_216))]
    http2_window: u32,
    /// Streams that a client opened and reset before they were looked at; with more the connection ends
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = positive)]
    http2_max_pending_resets: usize,
    /// Streams that had to be reset because of what the client did; with more the connection ends
    #[arg(long, value_name = "NUMBER", default_value_t = 256, value_parser = positive)]
    http2_max_error_resets: usize,
    /// After how long without an octet an HTTP/2 client is asked whether it is there
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0, value_parser = seconds)]
    http2_ping_interval: f64,
    /// How long it may take to answer that
    #[arg(long, value_name = "SECONDS", default_value_t = 20.0, value_parser = seconds)]
    http2_ping_timeout: f64,
    /// Addresses (10.0.0.0/8,…) whose connections begin with a PROXY protocol header, version 1 or 2, and must
    #[arg(long, value_name = "RANGES", value_delimiter = ',')]
    proxy_protocol_from: Vec<AddressRange>,
    /// Addresses of proxies in front whose X-Forwarded-For, X-Forwarded-Proto and X-Request-ID are believed
    #[arg(long, value_name = "RANGES", value_delimiter = ',')]
    trusted_proxies: Vec<AddressRange>,
    /// Believe X-Forwarded-Host and X-Forwarded-Port of trusted proxies too: each must overwrite both, or remove them
    #[arg(long)]
    trusted_forwarded_host: bool,
    /// Write Forwarded (RFC 7239) too, and believe a trusted proxy's where it sends no X-Forwarded-For
    #[arg(long)]
    forwarded: bool,
}

impl ListenerArguments {
    pub(super) fn settings(&self) -> ListenerSettings {
        ListenerSettings {
            limits: self.limits(),
            proxy_protocol_from: self.proxy_protocol_from.iter().copied().collect(),
            hops: TrustedHops {
                ranges: self.trusted_proxies.iter().copied().collect(),
                host: self.trusted_forwarded_host,
                forwarded: self.forwarded,
            },
            trace: None,
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            connections: self.max_connections,
            connections_per_client: self.max_connections_per_client,
            requests_per_connection: self.max_requests_per_connection,
            handshake: Duration::from_secs_f64(self.handshake_timeout),
            head: Duration::from_secs_f64(self.head_timeout),
            idle: Duration::from_secs_f64(self.idle_timeout),
            send: Duration::from_secs_f64(self.send_timeout),
            head_octets: self.max_head_size,
            head_fields: self.max_head_fields,
            http2: self.http2(),
        }
    }

    fn http2(&self) -> Http2Limits {
        Http2Limits {
            streams: self.http2_max_streams,
            pending_resets: self.http2_max_pending_resets,
            error_resets: self.http2_max_error_resets,
            stream_window: self.http2_window,
            connection_window: self.http2_window,
            ping: Duration::from_secs_f64(self.http2_ping_interval),
            ping_answer: Duration::from_secs_f64(self.http2_ping_timeout),
            ..Http2Limits::default()
        }
    }
}

fn positive(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "write a whole number, from 1".to_owned())
}
