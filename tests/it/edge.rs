//! The listeners: how much a client may take, and whom in front of us we believe.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use rustls::version::{TLS12, TLS13};
use serde_json::Value;

use super::support::clients::{curl, curl_http};
use super::support::frames::{DATA, END_HEADERS, END_STREAM, Event, H2, HEADERS, frame, head};
use super::support::manifests::route_policy;
use super::support::server::{Server, wait};
use super::support::tls::{Client, Reply, get, reply, request};
use super::support::{REQUIRE, Site, run};

fn start(site: &Site, options: &[&str]) -> Server {
    Server::start_with(&site.manifests(), &site.path("access.log"), "json", options)
}

fn connect(server: SocketAddr, first: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(first).unwrap();
    stream
}

/// Whether the other side ends the connection without an octet.
fn is_closed(stream: &mut TcpStream) -> bool {
    let mut octet = [0];
    match stream.read(&mut octet) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

fn header(reply: &Reply, name: &str) -> String {
    let told = reply.told();
    let headers = told["headers"].as_array().unwrap_or_else(|| panic!("{reply:?}"));
    let values = headers.iter().filter(|field| field[0] == name);
    values.map(|field| field[1].as_str().unwrap()).collect::<Vec<_>>().join(" | ")
}

fn metric(server: &Server, line: &str) {
    wait(line, || server.admin("/metrics").1.lines().any(|it| it == line));
}

fn version_2(command: u8, source: impl Into<IpAddr>) -> Vec<u8> {
    let tlv = [0x04, 0x00, 0x02, 0xAA, 0xBB];
    // TCP over IPv4 or IPv6, and both addresses.
    let (family, addresses) = match source.into() {
        IpAddr::V4(source) => (0x11, [source.octets(), [10, 0, 0, 1]].concat()),
        IpAddr::V6(source) => (0x21, [source.octets(), Ipv6Addr::LOCALHOST.octets()].concat()),
    };
    let ports = [50_000_u16.to_be_bytes(), 443_u16.to_be_bytes()].concat();
    let rest = [&addresses[..], &ports, &tlv].concat();
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[0x20 | command, family][..], &length, &rest].concat()
}

/// PROXY of a connection of no known family; what follows is nobody's address.
fn unspecified(rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[0x21, 0x00][..], &length, rest].concat()
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

#[test]
fn a_load_balancer_says_whose_connection_it_passes_on() {
    let site = Site::with_alice(REQUIRE);
    let server = start(&site, &["--proxy-protocol-from", "127.0.0.0/8,::1"]);
    let reply = curl_http(server.http, "open.test", "/curl", &["--haproxy-protocol"]);
    assert_eq!(header(&reply, "x-forwarded-for"), "127.0.0.1");
    let reply = curl(&site, server.https, "alice", "app.test", "/", &["--haproxy-protocol"]);
    assert_eq!(reply.told()["user"], "azureuser");
    for (prefix, expected) in [
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 50000 443\r\n".to_vec(), "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::7 ::1 50000 443\r\n".to_vec(), "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (version_2(1, [192, 0, 2, 8]), "192.0.2.8"),
        (version_2(0, [192, 0, 2, 9]), "127.0.0.1"),
        (version_2(1, v6("2001:db8::8")), "2001:db8::8"),
        (version_2(1, v6("::ffff:192.0.2.6")), "192.0.2.6"),
        (version_2(0, v6("2001:db8::9")), "127.0.0.1"),
        (unspecified(&[]), "127.0.0.1"),
        (unspecified(&[192, 0, 2, 5, 10, 0, 0, 1, 0xC3, 0x50, 0x01, 0xBB]), "127.0.0.1"),
    ] {
        let plain = get(&mut connect(server.http, &prefix), "open.test", "/");
        assert_eq!(header(&plain, "x-forwarded-for"), expected);
        for version in [&TLS12, &TLS13] {
            let mut client = Client::new(&site.server_ca, Some(&site.alice), version);
            (client.prefix, client.fragment) = (prefix.clone(), true);
            let (reply, _) = client.get(server.https, "app.test", "app.test", "/seen");
            assert_eq!(header(&reply, "x-forwarded-for"), expected);
        }
        server.logged(|line| {
            let record: Value = serde_json::from_str(line).unwrap();
            record["path"] == "/seen" && record["client_ip"] == expected
        });
    }
}

#[test]
fn a_load_balancer_that_says_nothing_is_not_served() {
    let site = Site::with_alice(REQUIRE);
    let server =
        start(&site, &["--proxy-protocol-from", "127.0.0.1", "--handshake-timeout", "0.5"]);
    let plain = b"GET / HTTP/1.1\r\nHost: open.test\r\n\r\n";
    for first in [&plain[..], b"\x16\x03\x01\x02\x00\x01", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 x\r\n"] {
        assert!(is_closed(&mut connect(server.http, first)), "{first:?}");
        assert!(is_closed(&mut connect(server.https, first)), "{first:?}");
    }
    assert!(is_closed(&mut connect(server.http, b"PROXY TCP4 1.2.3.4 ")), "it never ends");
    metric(&server, "certmap_connections_refused_total{reason=\"proxy_header\"} 7");
    server.logged(|line| line.contains("does not begin with a header"));
    server.logged(|line| line.contains("no header within 500ms"));
    let ok = curl_http(server.http, "open.test", "/", &["--haproxy-protocol"]);
    assert_eq!(ok.status, 200);
}

#[test]
fn nobody_else_can_say_so() {
    let site = Site::with_alice(REQUIRE);
    let server = start(&site, &["--proxy-protocol-from", "10.0.0.0/8"]);
    // At once: it may be refused before what comes later.
    let both =
        b"PROXY TCP4 192.0.2.7 10.0.0.1 50000 443\r\nGET / HTTP/1.1\r\nHost: open.test\r\n\r\n";
    assert_eq!(reply(&mut connect(server.http, both)).unwrap().status, 400);
    let mut stream = connect(server.https, &version_2(1, [192, 0, 2, 7]));
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    assert!(answer.len() < 16 && !answer.is_empty(), "a TLS alert: {answer:?}");
    let plain = curl_http(server.http, "open.test", "/", &[]);
    assert_eq!(header(&plain, "x-forwarded-for"), "127.0.0.1");
}

#[test]
fn a_trusted_proxy_is_believed_up_to_the_first_that_is_none() {
    let site = Site::with_alice(REQUIRE);
    let trusted = ["--trusted-proxies", "127.0.0.1,10.0.0.0/8", "--forwarded"];
    let server = start(&site, &[&trusted[..], &["--trusted-forwarded-host"]].concat());
    let told = [
        "-H",
        "X-Forwarded-For: 6.6.6.6, 203.0.113.9, 10.0.0.2",
        "-H",
        "X-Forwarded-Proto: https",
        "-H",
        "X-Forwarded-Host: shop.test:8443",
        "-H",
        "X-Request-ID: theirs-1",
    ];
    for options in [&told[..], &[&told[..], &["--http2-prior-knowledge"]].concat()] {
        let reply = curl_http(server.http, "open.test", "/hops", options);
        for (name, expected) in [
            ("x-forwarded-for", "203.0.113.9, 10.0.0.2, 127.0.0.1"),
            ("x-real-ip", "203.0.113.9"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "shop.test:8443"),
            ("x-forwarded-port", "8443"),
            ("host", "open.test"),
            ("x-request-id", "theirs-1"),
            (
                "forwarded",
                "for=203.0.113.9;proto=https;host=\"shop.test:8443\", for=10.0.0.2, for=127.0.0.1",
            ),
        ] {
            assert_eq!(header(&reply, name), expected, "{name}");
        }
        assert!(reply.head.contains("x-request-id: theirs-1"), "{}", reply.head);
    }
    let line = server.logged(|line| line.contains("/hops"));
    let record: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&record["client_ip"], &record["request_id"]),
        (&"203.0.113.9".into(), &"theirs-1".into())
    );
    let named = ["-H", "Forwarded: for=203.0.113.9;proto=https"];
    let reply = curl_http(server.http, "open.test", "/", &named);
    assert_eq!(header(&reply, "x-forwarded-for"), "203.0.113.9, 127.0.0.1");
    // Without the option the host is what it was asked for by.
    let reply = curl_http(start(&site, &trusted).http, "open.test", "/hops", &told);
    for (name, expected) in [
        ("x-forwarded-for", "203.0.113.9, 10.0.0.2, 127.0.0.1"),
        ("x-forwarded-host", "open.test"),
        ("x-forwarded-port", "443"),
    ] {
        assert_eq!(header(&reply, name), expected, "{name}");
    }
    // That the client spoke https to somebody else is no https of ours.
    let refused = curl_http(server.http, "app.test", "/", &["-H", "X-Forwarded-Proto: https"]);
    assert_eq!(refused.code(), "403.4");
    let script = ["-H", "X-Request-ID: <script>"];
    let reply = curl_http(server.http, "app.test", "/", &script);
    assert!(!reply.body.contains("script") && !reply.head.contains("script"), "{reply:?}");
}

#[test]
fn anybody_else_is_not() {
    let site = Site::with_alice(REQUIRE);
    let server = start(&site, &["--trusted-proxies", "10.0.0.0/8", "--forwarded"]);
    let told = [
        "-H",
        "X-Forwarded-For: 10.0.0.2",
        "-H",
        "X-Forwarded-Proto: https",
        "-H",
        "X-Request-ID: theirs-1",
        "-H",
        "Forwarded: for=10.0.0.2",
    ];
    let reply = curl_http(server.http, "open.test", "/", &told);
    assert_eq!(header(&reply, "x-forwarded-for"), "127.0.0.1");
    assert_eq!(header(&reply, "x-forwarded-proto"), "http");
    assert_eq!(header(&reply, "forwarded"), "for=127.0.0.1;proto=http;host=\"open.test\"");
    assert_ne!(header(&reply, "x-request-id"), "theirs-1");
}

#[test]
fn the_source_of_a_proxy_header_may_be_a_trusted_proxy() {
    let site = Site::with_alice(REQUIRE);
    let options = ["--proxy-protocol-from", "127.0.0.1", "--trusted-proxies", "192.0.2.7"];
    let server = start(&site, &options);
    for (source, expected) in [("192.0.2.7", "203.0.113.9, 192.0.2.7"), ("192.0.2.8", "192.0.2.8")]
    {
        let first = format!("PROXY TCP4 {source} 10.0.0.1 50000 443\r\n");
        let mut stream = connect(server.http, first.as_bytes());
        let text = "GET / HTTP/1.1\r\nHost: open.test\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n";
        assert_eq!(header(&request(&mut stream, text), "x-forwarded-for"), expected);
    }
}

#[test]
fn one_client_takes_its_connections_and_leaves_the_others_theirs() {
    let site = Site::with_alice(REQUIRE);
    let options = ["--proxy-protocol-from", "127.0.0.1", "--max-connections-per-client", "3"];
    let server = start(&site, &options);
    let of = |source: &str| {
        let first = format!("PROXY TCP6 {source} ::1 50000 443\r\n");
        connect(server.http, first.as_bytes())
    };
    let mut held: Vec<TcpStream> = (1..=3).map(|at| of(&format!("2001:db8::{at}"))).collect();
    for stream in &mut held {
        assert_eq!(get(stream, "open.test", "/").status, 200);
    }
    assert!(is_closed(&mut of("2001:db8::4")), "of the same /64");
    metric(&server, "certmap_connections_refused_total{reason=\"client\"} 1");
    assert_eq!(get(&mut of("2001:db8:0:1::4"), "open.test", "/").status, 200);
    drop(held.pop());
    wait("a place", || {
        let mut stream = of("2001:db8::4");
        let text = b"GET / HTTP/1.1\r\nHost: open.test\r\n\r\n";
        stream.write_all(text).is_ok() && reply(&mut stream).is_ok_and(|reply| reply.status == 200)
    });
}

#[test]
fn a_trusted_proxy_brings_as_many_connections_as_it_likes() {
    let site = Site::with_alice(REQUIRE);
    let options = ["--proxy-protocol-from", "127.0.0.1", "--max-connections-per-client", "1"];
    let trusted = ["--trusted-proxies", "2001:db8::/64,192.0.2.7"];
    let server = start(&site, &[&options[..], &trusted].concat());
    for (source, many) in [("2001:db8::7", true), ("192.0.2.7", true), ("192.0.2.8", false)] {
        let source: IpAddr = source.parse().unwrap();
        let of = || connect(server.http, &version_2(1, source));
        let mut first = of();
        assert_eq!(get(&mut first, "open.test", "/").status, 200, "{source}");
        for mut stream in [of(), of()] {
            if many {
                assert_eq!(get(&mut stream, "open.test", "/").status, 200, "{source}");
            } else {
                assert!(is_closed(&mut stream), "{source}");
            }
        }
    }
    metric(&server, "certmap_connections_refused_total{reason=\"client\"} 2");
}

#[test]
fn addresses_of_one_network_of_ipv6_are_one_client_to_a_rate_limit() {
    let site = Site::with_alice(REQUIRE);
    let limit = "rateLimits: [{per: ClientAddress, requests: 2, period: 1h}]";
    site.write("route.yaml", &route_policy("open", "open", limit));
    let server = start(&site, &["--proxy-protocol-from", "127.0.0.1"]);
    for (source, expected) in [
        ("2001:db8::1", 200),
        ("2001:db8::ffff:2", 200),
        ("2001:db8::3", 429),
        ("2001:db8:0:1::1", 200),
        ("192.0.2.1", 200),
        ("192.0.2.2", 200),
        // An IPv4 client by its other name.
        ("::ffff:192.0.2.1", 200),
        ("192.0.2.1", 429),
        ("192.0.2.2", 200),
    ] {
        let mut stream = connect(server.http, &version_2(1, source.parse::<IpAddr>().unwrap()));
        assert_eq!(get(&mut stream, "open.test", "/").status, expected, "{source}");
    }
}

#[test]
fn connections_beyond_the_limit_are_closed_at_once() {
    let site = Site::with_alice(REQUIRE);
    let server = start(&site, &["--max-connections", "4"]);
    let mut held: Vec<TcpStream> = (0..4).map(|_| connect(server.http, b"")).collect();
    for stream in &mut held {
        assert_eq!(get(stream, "open.test", "/").status, 200);
    }
    assert!(is_closed(&mut connect(server.http, b"")));
    assert!(is_closed(&mut connect(server.https, b"")));
    metric(&server, "certmap_connections_refused_total{reason=\"total\"} 2");
    drop(held);
    wait("a place", || curl_http(server.http, "open.test", "/", &[]).status == 200);
}

#[test]
fn a_websocket_keeps_its_place() {
    let site = Site::with_alice(REQUIRE);
    let server = start(&site, &["--max-connections", "2"]);
    let text =
        "GET /ws HTTP/1.1\r\nHost: open.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut held: Vec<TcpStream> = (0..2).map(|_| connect(server.http, b"")).collect();
    for stream in &mut held {
        assert_eq!(request(stream, text).status, 101);
        stream.write_all(b"x").unwrap();
        stream.read_exact(&mut [0]).unwrap();
    }
    assert!(is_closed(&mut connect(server.http, text.as_bytes())));
    metric(&server, "certmap_connections_open 2");
    drop(held.pop());
    wait("a place", || curl_http(server.http, "open.test", "/", &[]).status == 200);
}

#[test]
fn a_websocket_over_http2_is_no_idle_connection() {
    let site = Site::with_alice(REQUIRE);
    let server = start(&site, &["--idle-timeout", "0.3"]);
    let mut client = H2::plain(server.http, &[]).unwrap();
    let further = [(&b":protocol"[..], &b"websocket"[..]), (b"sec-websocket-version", b"13")];
    let connect = head("CONNECT", "open.test", "/ws", &further);
    client.send(&frame(HEADERS, END_HEADERS, 1, &connect)).unwrap();
    assert_eq!(client.outcome(1), Some(200));
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(100));
        client.send(&frame(DATA, 0, 1, b"x")).unwrap();
        loop {
            match client.next().unwrap() {
                Event::Data { stream: 1, length: 1, end: false } => break,
                Event::Other => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn a_connection_ends_well_after_so_many_requests() {
    let site = Site::with_alice(REQUIRE);
    let server = start(&site, &["--max-requests-per-connection", "2"]);
    let mut stream = connect(server.http, b"");
    let heads = [(); 2].map(|()| get(&mut stream, "open.test", "/").head);
    assert_eq!(heads.map(|head| head.contains("connection: close")), [false, true]);
    assert!(is_closed(&mut stream));
    for version in ["--http1.1", "--http2"] {
        let mut command = Command::new("curl");
        command.args(["-sS", version, "-w", "%{http_code}/%{num_connects} ", "--cacert"]);
        command.arg(site.path("server-ca.crt"));
        command.args(["--connect-to", &format!("::127.0.0.1:{}", server.https.port())]);
        for _ in 0..5 {
            command.args(["-o", "/dev/null", "https://open.test/"]);
        }
        assert_eq!(run(&mut command).1, "200/1 200/0 200/1 200/0 200/1 ", "{version}");
    }
}

#[test]
fn a_head_that_is_too_long_is_refused_over_both_versions() {
    let site = Site::with_alice(REQUIRE);
    let server = start(&site, &["--max-head-size", "16384", "--max-head-fields", "20"]);
    let fields: Vec<String> = (0..21).map(|at| format!("X-Field-{at}: 1")).collect();
    let many: Vec<&str> = fields.iter().flat_map(|field| ["-H", field.as_str()]).collect();
    let long = format!("X-Long: {}", "x".repeat(17_000));
    for version in ["--http1.1", "--http2"] {
        let with = |further: &[&str]| {
            curl(&site, server.https, "-", "open.test", "/", &[further, &[version]].concat()).status
        };
        assert_eq!(with(&[]), 200);
        assert_eq!(with(&many), 431, "{version}");
        assert_eq!(with(&["-H", &long]), 431, "{version}");
    }
}

#[test]
fn who_does_not_begin_is_not_waited_for() {
    let site = Site::with_alice(REQUIRE);
    let options = ["--handshake-timeout", "0.3", "--head-timeout", "0.3", "--idle-timeout", "0.3"];
    let server = start(&site, &options);
    for first in [&b""[..], b"\x16\x03\x01\x02"] {
        assert!(is_closed(&mut connect(server.https, first)));
    }
    assert!(is_closed(&mut connect(server.http, b"")));
    let mut slow = connect(server.http, b"GET / HTTP/1.1\r\nHost: open.test\r\nX-Slow: ");
    let mut answer = Vec::new();
    slow.read_to_end(&mut answer).unwrap();
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    // Over HTTP/2, and without ever answering to a GOAWAY.
    let mut mute = connect(server.http, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    mute.read_to_end(&mut answer).unwrap();
}

#[test]
fn who_goes_on_over_http_2_after_being_told_to_go_is_cut_off() {
    let site = Site::with_alice(REQUIRE);
    let options = ["--max-requests-per-connection", "3", "--http2-max-streams", "5"];
    let server = start(&site, &options);
    let mut connection = H2::plain(server.http, &[]).unwrap();
    // Whoever acknowledges no ping is not told which request is the last.
    connection.polite = false;
    let mut is_answered = |stream: u32| {
        let octets = head("GET", "open.test", "/", &[]);
        let request = frame(HEADERS, END_HEADERS | END_STREAM, stream, &octets);
        connection.send(&request).is_ok() && connection.outcome(stream) == Some(200)
    };
    let answered = (0..100).take_while(|number| is_answered(2 * number + 1)).count();
    assert!((3..=3 + 8 * 5).contains(&answered), "{answered}");
}
