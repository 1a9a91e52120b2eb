//! How the backend is told where a request came from: nothing that a client writes about it is let through.

use std::fmt::Write;
use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use rustls::pki_types::UnixTime;

use super::hops::{
    FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PORT, FORWARDED_PROTO, Origin, REQUEST_ID,
};
use super::trace::Trace;
use crate::snapshot::IdentityHeaders;

const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// What other proxies say of a request, and frameworks believe.
const NAMES: &[&str] = &[
    "cf-connecting-ip",
    "fastly-client-ip",
    "forwarded",
    "front-end-https",
    // A CGI program would take it for the environment's HTTP_PROXY.
    "proxy",
    "proxy-client-ip",
    "wl-proxy-client-ip",
    "x-cluster-client-ip",
    "x-envoy-external-address",
    "x-forwarded",
    "x-real-ip",
    "x-request-id",
    "x-rewrite-url",
    "x-scheme",
    "x-url-scheme",
];

/// Families: every name that begins so.
const PREFIXES: &[&str] = &["x-forwarded-", "x-original-"];

/// Where a request came from, and as what.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    pub(super) origin: Origin,
    /// The client's address as text.
    pub(super) client: Option<HeaderValue>,
    /// As the client wrote it.
    pub(super) host: HeaderValue,
    /// What the backend gets for Host, where the route says so.
    pub(super) host_sent: Option<HeaderValue>,
    /// In page, log and header; perhaps a trusted proxy's.
    pub(super) request_id: HeaderValue,
    /// Ours, and no other request's.
    pub(super) unique: HeaderValue,
    pub(super) at: UnixTime,
    /// Whether `Forwarded` is written as well.
    pub(super) forwarded: bool,
    /// Where requests are traced.
    pub(super) trace: Option<Trace>,
}

impl Arrival {
    fn host(&self) -> &HeaderValue {
        self.origin.host.as_ref().unwrap_or(&self.host)
    }

    fn scheme(&self) -> &'static str {
        if self.origin.https { "https" } else { "http" }
    }

    /// The port that the client asked for. Ours says nothing: a Service maps it.
    fn port(&self) -> u16 {
        let host = self.host().to_str().unwrap_or_default();
        let written = host.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        let usual = if self.origin.https { 443 } else { 80 };
        self.origin.port.or(written).unwrap_or(usual)
    }

    /// The client, and the proxies behind it.
    fn way(&self) -> impl Iterator<Item = IpAddr> {
        let client = std::iter::once(self.origin.client.ip());
        client.chain(self.origin.via.iter().copied()).map(|address| address.to_canonical())
    }

    /// RFC 7239, 4.
    fn forwarded(&self) -> String {
        let mut text = String::new();
        for (at, address) in self.way().enumerate() {
            let separator = if at == 0 { "" } else { ", " };
            // Writing to a String cannot fail.
            let _written = match address {
                IpAddr::V4(address) => write!(text, "{separator}for={address}"),
                IpAddr::V6(address) => write!(text, "{separator}for=\"[{address}]\""),
            };
            if at == 0 {
                let _written = write!(text, ";proto={}", self.scheme());
                let host = self.host().to_str().ok().filter(|host| !host.contains(['"', '\\']));
                text.extend(host.iter().flat_map(|host| [";host=\"", host, "\""]));
            }
        }
        text
    }
}

/// Whether a field of this name says where a request came from.
pub(super) fn is_forwarded(name: &HeaderName) -> bool {
    // Every name here begins with one of these: most others need no further look.
    if !name.as_str().starts_with(['c', 'f', 'p', 'w', 'x']) {
        return false;
    }
    let name = IdentityHeaders::folded(name);
    NAMES.contains(&&*name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// So many fields a request gets: room for them is made at once.
const USUAL: usize = 12;

/// Says it anew.
pub(super) fn set(headers: &mut HeaderMap, arrival: &Arrival) {
    headers.reserve(USUAL);
    let mut set = |name: HeaderName, value: Option<HeaderValue>| {
        if let Some(value) = value {
            headers.insert(name, value);
        }
    };
    let text = |text: String| HeaderValue::try_from(text).ok();
    let (mut way, client) = (arrival.way().skip(1), arrival.client.clone());
    let listed = way.next().map(|proxy| {
        let client = arrival.origin.client.ip().to_canonical();
        way.fold(format!("{client}, {proxy}"), |listed, proxy| format!("{listed}, {proxy}"))
    });
    set(FORWARDED_FOR, listed.map_or_else(|| client.clone(), text));
    set(REAL_IP, client);
    set(FORWARDED_PROTO, Some(HeaderValue::from_static(arrival.scheme())));
    set(
        FORWARDED_PORT,
        Some(match arrival.port() {
            80 => HeaderValue::from_static("80"),
            443 => HeaderValue::from_static("443"),
            port => HeaderValue::from(port),
        }),
    );
    if arrival.forwarded {
        set(header::FORWARDED, text(arrival.forwarded()));
    }
    headers.insert(FORWARDED_HOST, arrival.host().clone());
    headers.insert(header::HOST, arrival.host_sent.as_ref().unwrap_or(&arrival.host).clone());
    headers.insert(REQUEST_ID, arrival.request_id.clone());
    if let Some(trace) = &arrival.trace {
        trace.set(headers);
    }
}

/// An address as text. Every request has one, and most of a connection the same.
pub(super) fn shown(address: IpAddr) -> Option<HeaderValue> {
    HeaderValue::try_from(address.to_canonical().to_string()).ok()
}

#[cfg(test)]
mod tests {
    use super::super::settings::TrustedHops;
    use super::*;

    fn arrival(https: bool, host: &'static str) -> Arrival {
        let client = "[::ffff:192.0.2.7]:50000".parse().unwrap();
        Arrival {
            origin: Origin::of(client, https, &HeaderMap::new(), &TrustedHops::default()),
            client: shown(client.ip()),
            host: HeaderValue::from_static(host),
            host_sent: None,
            request_id: HeaderValue::from_static("id"),
            unique: HeaderValue::from_static("id"),
            at: UnixTime::since_unix_epoch(std::time::Duration::ZERO),
            forwarded: false,
            trace: None,
        }
    }

    #[test]
    fn no_name_is_passed_over_for_its_beginning() {
        for name in NAMES {
            assert!(is_forwarded(&HeaderName::from_static(name)), "{name}");
        }
        for prefix in PREFIXES {
            assert!(is_forwarded(
                &HeaderName::from_bytes(format!("{prefix}x").as_bytes()).unwrap()
            ));
        }
    }

    #[test]
    fn the_way_is_written_in_both_forms() {
        let mut arrival = arrival(true, "a.example");
        arrival.forwarded = true;
        arrival.origin.client = "[2001:db8::7]:0".parse().unwrap();
        arrival.client = shown(arrival.origin.client.ip());
        arrival.origin.via = vec!["10.0.0.2".parse().unwrap(), "::1".parse().unwrap()];
        arrival.origin.host = Some(HeaderValue::from_static("b.example:8443"));
        let mut headers = HeaderMap::new();
        set(&mut headers, &arrival);
        assert_eq!(headers["x-forwarded-for"], "2001:db8::7, 10.0.0.2, ::1");
        assert_eq!(headers["x-real-ip"], "2001:db8::7");
        assert_eq!(
            (&headers["x-forwarded-port"], &headers["host"]),
            (&HeaderValue::from_static("8443"), &HeaderValue::from_static("a.example"))
        );
        assert_eq!(
            headers["forwarded"],
            "for=\"[2001:db8::7]\";proto=https;host=\"b.example:8443\", for=10.0.0.2, for=\"[::1]\""
        );
    }

    #[test]
    fn the_port_is_the_one_the_client_asked_for() {
        for (https, host, port) in [
            (true, "a.example", 443),
            (false, "a.example", 80),
            (true, "a.example:8443", 8443),
            (true, "[2001:db8::1]", 443),
            (false, "[2001:db8::1]:81", 81),
            (true, "a.example:", 443),
            (true, "a.example:99999", 443),
        ] {
            assert_eq!(arrival(https, host).port(), port, "{host}");
        }
    }

    #[test]
    fn what_a_client_says_is_overwritten() {
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", HeaderValue::from_static("10.0.0.1"));
        headers.append("x-forwarded-for", HeaderValue::from_static("10.0.0.2"));
        headers.append("x-request-id", HeaderValue::from_static("theirs"));
        set(&mut headers, &arrival(true, "a.example"));
        let all = |name| headers.get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(all("x-forwarded-for"), ["192.0.2.7"]);
        assert_eq!(all("x-real-ip"), ["192.0.2.7"]);
        assert_eq!(all("x-forwarded-proto"), ["https"]);
        assert_eq!(all("x-forwarded-host"), ["a.example"]);
        assert_eq!(all("x-request-id"), ["id"]);
        assert_eq!(all("host"), ["a.example"]);
        assert!(all("forwarded").is_empty());
    }

    #[test]
    fn a_rewritten_host_is_the_backends_alone() {
        let mut headers = HeaderMap::new();
        let host_sent = Some(HeaderValue::from_static("app.internal"));
        set(&mut headers, &Arrival { host_sent, ..arrival(true, "a.example") });
        assert_eq!(headers["host"], "app.internal");
        assert_eq!(headers["x-forwarded-host"], "a.example");
    }

    #[test]
    fn every_spelling_of_what_others_forward_is_known() {
        for name in [
            "forwarded",
            "x_forwarded_for",
            "x-forwarded-prefix",
            "x.original.url",
            "x_real-ip",
            "proxy",
        ] {
            assert!(is_forwarded(&HeaderName::from_static(name)), "{name}");
        }
        for name in ["accept", "host", "origin", "referer", "via"] {
            assert!(!is_forwarded(&HeaderName::from_static(name)), "{name}");
        }
    }

    #[test]
    fn addresses_are_written_as_everywhere() {
        for octet in 0..=255 {
            for address in [[octet, 0, 10, 255], [1, octet, 99, 100]] {
                let address = IpAddr::from(address);
                assert_eq!(shown(address).unwrap(), address.to_string());
            }
        }
        assert_eq!(shown("2001:db8::1".parse().unwrap()).unwrap(), "2001:db8::1");
    }
}
