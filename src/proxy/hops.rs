//! Where a request came from, as far as proxies in front of us are believed.
//!
//! They are believed where the connection's own end is one of them, and then from there outwards: the client is the first
//! address that is none of theirs. What stands behind it a client may have written itself, and nobody is told of it.
//! Over what a connection came that policies ask about (`Ssl`, a certificate, its cipher) is never believed: that is
//! this connection's own.

use std::net::{IpAddr, SocketAddr};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::settings::TrustedHops;

pub(super) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(super) const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(super) const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// More hops than this are not looked at.
const MOST_HOPS: usize = 32;
const LONGEST_REQUEST_ID: usize = 128;

/// Where a request came from.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// The client. Its port is 0 where a proxy does not tell it.
    pub(super) client: SocketAddr,
    /// The proxies behind it, the nearest to us at the end; empty where the client came by itself.
    pub(super) via: Vec<IpAddr>,
    /// Whether the client spoke https, to us or to a proxy.
    pub(super) https: bool,
    /// The host that a proxy was asked for, where it says so.
    pub(super) host: Option<HeaderValue>,
    /// The port that a proxy was asked at, where it says so.
    pub(super) port: Option<u16>,
    /// What a proxy calls the request.
    pub(super) request_id: Option<HeaderValue>,
    /// Whether a proxy that is believed brought it.
    pub(super) believed: bool,
}

impl Origin {
    /// From the connection and, where its end is believed, from what stands in the head.
    pub(super) fn of(
        peer: SocketAddr,
        https: bool,
        headers: &HeaderMap,
        hops: &TrustedHops,
    ) -> Self {
        let own = Self {
            client: peer,
            via: Vec::new(),
            https,
            host: None,
            port: None,
            request_id: None,
            believed: false,
        };
        if !hops.ranges.contains(peer.ip()) {
            return own;
        }
        let told = if headers.contains_key(FORWARDED_FOR) || !hops.forwarded {
            by_x_forwarded(headers, hops)
        } else {
            by_forwarded(peer, headers, hops)
        };
        let (client, via) = outwards(peer, &told.chain, hops);
        let request_id = single(headers, &REQUEST_ID).filter(|id| is_identifier(id.as_bytes()));
        Self {
            client,
            via,
            https: told.https.unwrap_or(https),
            host: told.host,
            port: told.port,
            request_id: request_id.cloned(),
            believed: true,
        }
    }
}

/// What proxies wrote.
#[derive(Default)]
struct Told {
    /// Where each had it from, the nearest to us at the end; none where that cannot be read.
    chain: Vec<Option<SocketAddr>>,
    https: Option<bool>,
    host: Option<HeaderValue>,
    port: Option<u16>,
}

/// From the connection's end outwards, as long as it is a proxy that we believe and that says something readable.
fn outwards(
    peer: SocketAddr,
    chain: &[Option<SocketAddr>],
    hops: &TrustedHops,
) -> (SocketAddr, Vec<IpAddr>) {
    let (mut client, mut via) = (peer, Vec::new());
    for address in chain.iter().rev().take(MOST_HOPS) {
        let Some(address) = address else { break };
        if !hops.ranges.contains(client.ip()) {
            break;
        }
        via.push(client.ip());
        client = *address;
    }
    via.reverse();
    (client, via)
}

/// Most proxies write the list and the scheme on every request; host and port many pass on as a client wrote them.
fn by_x_forwarded(headers: &HeaderMap, hops: &TrustedHops) -> Told {
    let told = |name| single(headers, name).filter(|_| hops.host);
    let lists = headers.get_all(FORWARDED_FOR).iter();
    let chain = lists.flat_map(|list| list.as_bytes().split(|octet| *octet == b','));
    Told {
        chain: chain.map(|item| address(item.trim_ascii())).collect(),
        https: single(headers, &FORWARDED_PROTO).and_then(|proto| scheme(proto.as_bytes())),
        host: told(&FORWARDED_HOST).filter(|host| is_authority(host)).cloned(),
        port: told(&FORWARDED_PORT)
            .and_then(|port| port.to_str().ok()?.parse().ok())
            .filter(|port| *port != 0),
    }
}

/// RFC 7239: one element for each proxy. How the client came stands in the one that names the client.
fn by_forwarded(peer: SocketAddr, headers: &HeaderMap, hops: &TrustedHops) -> Told {
    let lists = headers.get_all(header::FORWARDED).iter().map(HeaderValue::as_bytes);
    let elements: Vec<&[u8]> = lists.flat_map(|list| split(list, b',')).collect();
    let sender = |element: &&[u8]| parameter(element, b"for").and_then(|it| node(&it));
    let chain: Vec<Option<SocketAddr>> = elements.iter().map(sender).collect();
    let (_, via) = outwards(peer, &chain, hops);
    let clients = elements.iter().rev().take(via.len()).next_back().copied().unwrap_or_default();
    let host = parameter(clients, b"host").and_then(|host| HeaderValue::from_bytes(&host).ok());
    Told {
        chain,
        https: parameter(clients, b"proto").and_then(|proto| scheme(&proto)),
        host: host.filter(is_authority),
        port: None,
    }
}

/// The pieces between separators that stand in no quoted string.
fn split(text: &[u8], separator: u8) -> Vec<&[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(|octet| {
        let separates = *octet == separator && !quoted;
        match octet {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
        separates
    })
    .collect()
}

/// A parameter's value, if the element has it once.
fn parameter(element: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let mut values = split(element, b';').into_iter().filter_map(|pair| {
        let equals = pair.iter().position(|octet| *octet == b'=')?;
        let (key, value) = pair.split_at(equals);
        key.trim_ascii().eq_ignore_ascii_case(name).then(|| value.get(1..).unwrap_or_default())
    });
    let value = values.next().filter(|_| values.next().is_none())?.trim_ascii();
    let inner = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    let plain = inner.unwrap_or(value);
    // No address, scheme or host needs escapes.
    (!plain.contains(&b'\\') && !plain.contains(&b'"')).then(|| plain.to_vec())
}

/// A node of Forwarded, whose port may be hidden (RFC 7239, 6.3): then it is not told.
fn node(text: &[u8]) -> Option<SocketAddr> {
    let hidden = |octet: &u8| octet.is_ascii_alphanumeric() || b"._-".contains(octet);
    let colon = text.iter().rposition(|octet| *octet == b':').unwrap_or(text.len());
    match text.split_at(colon) {
        (name, [b':', b'_', port @ ..]) if !port.is_empty() && port.iter().all(hidden) => {
            let is_name = name.ends_with(b"]") || !name.contains(&b':');
            address(name).filter(|_| is_name)
        }
        _ => address(text),
    }
}

/// An address with or without port: `192.0.2.7`, `192.0.2.7:80`, `2001:db8::7`, `[2001:db8::7]:80`.
fn address(text: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let alone = || bare.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, 0));
    let found = text.parse::<SocketAddr>().ok().or_else(alone)?;
    Some(SocketAddr::new(found.ip().to_canonical(), found.port()))
}

fn scheme(text: &[u8]) -> Option<bool> {
    let is = |name: &[u8]| text.eq_ignore_ascii_case(name);
    if is(b"https") { Some(true) } else { is(b"http").then_some(false) }
}

fn is_authority(host: &HeaderValue) -> bool {
    let part = |octet: &u8| octet.is_ascii_alphanumeric() || b"-._:[]".contains(octet);
    !host.is_empty() && host.len() <= 261 && host.as_bytes().iter().all(part)
}

/// Nothing that could end a field, a line of a log or a tag of a page.
fn is_identifier(id: &[u8]) -> bool {
    let part = |octet: &u8| octet.is_ascii_alphanumeric() || b"-._:+/=@".contains(octet);
    !id.is_empty() && id.len() <= LONGEST_REQUEST_ID && id.iter().all(part)
}

fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hops(forwarded: bool) -> TrustedHops {
        let ranges = ["10.0.0.0/8", "2001:db8:10::/48"].iter().map(|range| range.parse().unwrap());
        TrustedHops { ranges: ranges.collect(), host: true, forwarded }
    }

    fn origin(peer: &str, fields: &[(&'static str, &str)], hops: &TrustedHops) -> Origin {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        Origin::of(SocketAddr::new(peer.parse().unwrap(), 999), false, &headers, hops)
    }

    fn way(origin: &Origin) -> String {
        let via = origin.via.iter().map(ToString::to_string);
        std::iter::once(origin.client.ip().to_string()).chain(via).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_client_is_the_last_address_that_is_no_trusted_hop() {
        for (peer, told, expected) in [
            ("192.0.2.1", "203.0.113.9", "192.0.2.1"),
            ("10.0.0.1", "203.0.113.9", "203.0.113.9 10.0.0.1"),
            ("10.0.0.1", "6.6.6.6, 203.0.113.9", "203.0.113.9 10.0.0.1"),
            ("10.0.0.1", "6.6.6.6, 203.0.113.9, 10.0.0.2", "203.0.113.9 10.0.0.2 10.0.0.1"),
            ("10.0.0.1", "10.0.0.3,10.0.0.2", "10.0.0.3 10.0.0.2 10.0.0.1"),
            ("10.0.0.1", "203.0.113.9, unknown", "10.0.0.1"),
            ("10.0.0.1", "203.0.113.9, unknown, 10.0.0.2", "10.0.0.2 10.0.0.1"),
            ("10.0.0.1", "203.0.113.9:1234", "203.0.113.9 10.0.0.1"),
            ("10.0.0.1", "[2001:db8::1]:1234, 10.0.0.2", "2001:db8::1 10.0.0.2 10.0.0.1"),
            ("10.0.0.1", "::ffff:203.0.113.9", "203.0.113.9 10.0.0.1"),
            ("2001:db8:10::1", "203.0.113.9", "203.0.113.9 2001:db8:10::1"),
            ("10.0.0.1", "", "10.0.0.1"),
        ] {
            let origin = origin(peer, &[("x-forwarded-for", told)], &hops(false));
            assert_eq!(way(&origin), expected, "{peer} {told}");
        }
    }

    #[test]
    fn several_fields_are_one_list() {
        let fields = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "203.0.113.9")];
        assert_eq!(way(&origin("10.0.0.1", &fields, &hops(false))), "203.0.113.9 10.0.0.1");
    }

    #[test]
    fn from_anybody_else_nothing_is_believed() {
        let fields = [
            ("x-forwarded-for", "10.9.8.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil.test"),
            ("x-forwarded-port", "1"),
            ("x-request-id", "theirs"),
            ("forwarded", "for=10.9.8.7"),
        ];
        let origin = origin("192.0.2.1", &fields, &hops(true));
        assert_eq!((way(&origin).as_str(), origin.https), ("192.0.2.1", false));
        assert!(origin.host.is_none() && origin.port.is_none() && origin.request_id.is_none());
        assert!(!origin.believed);
    }

    #[test]
    fn what_a_hop_says_once_and_readably_is_believed() {
        let said =
            |name: &'static str, value: &str| origin("10.0.0.1", &[(name, value)], &hops(false));
        assert!(said("x-forwarded-proto", "HTTPS").https);
        assert!(!said("x-forwarded-proto", "https,http").https);
        assert_eq!(said("x-forwarded-host", "a.test:81").host.unwrap(), "a.test:81");
        assert!(said("x-forwarded-host", "a.test, b.test").host.is_none());
        assert!(said("x-forwarded-host", "a.test\"><script>").host.is_none());
        assert_eq!(said("x-forwarded-port", "8443").port, Some(8443));
        assert_eq!(said("x-forwarded-port", "0").port, None);
        assert_eq!(said("x-request-id", "a-1.b_2").request_id.unwrap(), "a-1.b_2");
        for id in ["", "a b", "<b>", "a,b", &"x".repeat(129)] {
            assert!(said("x-request-id", id).request_id.is_none(), "{id}");
        }
        let twice = [("x-request-id", "a"), ("x-request-id", "b")];
        assert!(origin("10.0.0.1", &twice, &hops(false)).request_id.is_none());
    }

    #[test]
    fn host_and_port_are_believed_only_of_proxies_that_write_them() {
        let fields = [
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil.test"),
            ("x-forwarded-port", "1"),
        ];
        let origin = origin("10.0.0.1", &fields, &TrustedHops { host: false, ..hops(true) });
        assert!(origin.host.is_none() && origin.port.is_none());
        assert_eq!((way(&origin).as_str(), origin.https), ("203.0.113.9 10.0.0.1", true));
    }

    #[test]
    fn forwarded_is_read_where_it_is_on_and_nothing_older_is_there() {
        let of =
            |forwarded: &str, on: bool| origin("10.0.0.1", &[("forwarded", forwarded)], &hops(on));
        let told = "for=6.6.6.6, for=\"[2001:db8::7]:50000\";Proto=https;HOST=\"a.test\", For=10.0.0.2;proto=http;host=b.test";
        let believed = of(told, true);
        assert_eq!(way(&believed), "2001:db8::7 10.0.0.2 10.0.0.1");
        assert!(believed.https && believed.host.unwrap() == "a.test");
        assert_eq!(way(&of(told, false)), "10.0.0.1");
        for unreadable in
            ["for=_hidden", "for=unknown", "for=1.2.3.4;for=1.2.3.5", "for=\"1.2.3.4", "=", ";,;"]
        {
            assert_eq!(way(&of(unreadable, true)), "10.0.0.1", "{unreadable}");
        }
        for (node, client) in [
            ("\"203.0.113.9:_obf\"", "203.0.113.9"),
            ("\"203.0.113.9:_a.B-3_\"", "203.0.113.9"),
            ("\"[2001:db8::7]:_x\"", "2001:db8::7"),
        ] {
            let origin = of(&format!("for={node}"), true);
            assert_eq!(way(&origin), format!("{client} 10.0.0.1"), "{node}");
            assert_eq!(origin.client.port(), 0, "{node}");
        }
        for port in ["_", "_a b", "_a:1", "obf", "80:_x", "_a]"] {
            for node in ["203.0.113.9", "[2001:db8::7]"] {
                let told = format!("for=\"{node}:{port}\"");
                assert_eq!(way(&of(&told, true)), "10.0.0.1", "{told}");
            }
        }
        assert_eq!(way(&of("for=\"2001:db8::7:_x\"", true)), "10.0.0.1");
        let hidden = "for=\"1.2.3.4, for=6.6.6.6\", for=203.0.113.9";
        assert_eq!(way(&of(hidden, true)), "203.0.113.9 10.0.0.1");
        let both = [("forwarded", "for=6.6.6.6"), ("x-forwarded-for", "203.0.113.9")];
        assert_eq!(way(&origin("10.0.0.1", &both, &hops(true))), "203.0.113.9 10.0.0.1");
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "[ -~]{0,80}", name in prop::sample::select(vec!["forwarded", "x-forwarded-for", "x-forwarded-port"])) {
            let origin = origin("10.0.0.1", &[(name, &text)], &hops(true));
            prop_assert!(origin.via.len() <= MOST_HOPS);
        }
    }
}
