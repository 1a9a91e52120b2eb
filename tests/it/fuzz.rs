//! Fuzz targets as plain tests: over each parser that reads what strangers write, and over a running server from the
//! socket to the decision. In CI each runs for a moment and always over the same inputs, as far as it gets; at length:
//!
//! ```sh
//! FUZZ_SECONDS=600 FUZZ_SEED=$RANDOM cargo test --test it fuzz -- --nocapture --test-threads 2
//! ```
//!
//! What fails is printed with its seed, and comes again with the same.

#![expect(clippy::print_stdout, reason = "what is found must be found again")]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::str::FromStr;
use std::time::{Duration, Instant};

use certmap::auth::{Credentials, KeySet, Token, escape_filter, parse_htpasswd};
use certmap::identity::{Fingerprint, PeerCertificate, Validity, read_certificates};
use certmap::policy::{ChainResult, Pattern, TrustBundle};
use certmap::snapshot::{HostName, HostPattern, PathPattern, canonical, unambiguous};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::version::TLS13;

use crate::support::frames::{self, END_HEADERS, END_STREAM, H2, HEADERS, block, frame};
use crate::support::pki::{Ca, leaf, named};
use crate::support::recorder::Recorder;
use crate::support::server::{Server, wait};
use crate::support::tls::{Client, client_hello};
use crate::support::{REQUIRE, Site};

/// SplitMix64: every seed is as good as the next.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit.max(1)).unwrap()).unwrap()
    }

    fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }
}

/// What parsers stumble over.
const ODDITIES: &[&[u8]] = &[
    b"\0",
    b"\r",
    b"\n",
    b"\r\n",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"\"",
    b"\\",
    b"/",
    b"..",
    b"//",
    b"%",
    b"%2f",
    b"%2e%2e",
    b"%00",
    b"%ff",
    b"\x7F",
    b"\x80",
    b"\xFF",
    b"\xC0\xAF",
    b"\xE2\x80\xAE",
    b"*",
    b"?",
    b"#",
    b"@",
    b"[",
    b"]",
    b"=",
    b"0",
    b"-1",
    b"+",
    b"18446744073709551616",
    b"\x30\x80",
    b"\x30\x84\xFF\xFF\xFF\xFF",
    b"AAAA",
    b"\xEF\xBB\xBF",
    b"$2y$",
    b"$apr1$",
    b"$6$rounds=999999999$",
];

/// One of the seeds, changed in a few places.
fn mutated(random: &mut Random, seeds: &[&[u8]]) -> Vec<u8> {
    let mut octets = random.of(seeds).to_vec();
    for _ in 0..random.below(5) {
        let at = random.below(octets.len() + 1);
        let end = (at + random.below(16)).min(octets.len());
        match random.below(7) {
            0 if at < octets.len() => octets[at] ^= 1 << random.below(8),
            1 if at < octets.len() => octets[at] = u8::try_from(random.below(256)).unwrap(),
            2 => drop(octets.drain(at..end)),
            3 => drop(octets.splice(at..at, octets[at..end].to_vec())),
            4 => octets.truncate(at),
            5 => {
                let other = random.of(seeds);
                let from = random.below(other.len() + 1);
                octets.extend_from_slice(&other[from..]);
            }
            _ => drop(octets.splice(at..at, random.of(ODDITIES).to_vec())),
        }
    }
    octets
}

fn setting<T: FromStr>(name: &str, otherwise: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Feeds a target until the time is over. What it fails on can be fed to it again: the number is the seed.
fn fuzz(seeds: &[&[u8]], mut target: impl FnMut(&[u8])) {
    let time = Duration::from_secs_f64(setting("FUZZ_SECONDS", 1.5));
    let first: u64 = setting("FUZZ_SEED", 1);
    let (started, mut runs) = (Instant::now(), 0);
    while started.elapsed() < time {
        let seed = first + runs;
        let input = mutated(&mut Random(seed), seeds);
        if let Err(failure) = catch_unwind(AssertUnwindSafe(|| target(&input))) {
            println!("FUZZ_SEED={seed}: {:?}", String::from_utf8_lossy(&input));
            println!("{}", input.iter().map(|octet| format!("{octet:02x}")).collect::<String>());
            resume_unwind(failure);
        }
        runs += 1;
    }
    println!("{runs} inputs from FUZZ_SEED={first} on");
}

/// Text, as far as it is any.
fn texts(seeds: &[&str], mut target: impl FnMut(&str)) {
    let seeds: Vec<&[u8]> = seeds.iter().map(|seed| seed.as_bytes()).collect();
    fuzz(&seeds, |input| target(&String::from_utf8_lossy(input)));
}

#[test]
fn hosts() {
    let seeds = [
        "app.example.com",
        "APP.Example.com.:8443",
        "[::1]:443",
        "*.example.com",
        "192.0.2.1",
        "xn--bcher-kva.example",
    ];
    texts(&seeds, |text| {
        if let Some(host) = HostName::parse(text) {
            assert_eq!(
                HostName::parse(host.as_str()).as_ref(),
                Some(&host),
                "a name's name is itself"
            );
            assert!(!host.as_str().contains(|c: char| c.is_ascii_uppercase()
                || c.is_control()
                || " /\\@,;".contains(c)));
        }
        drop(HostPattern::parse(text));
    });
}

#[test]
fn paths() {
    let seeds =
        ["/", "/a/b/c", "/%61dmin/%7euser", "/a%2fb/../c;d=e", "//a/./b", "/é/%c3%a9", "/a%00b\\c"];
    texts(&seeds, |text| {
        let once = canonical(text).into_owned();
        assert!(once.is_ascii());
        if let Ok(path) = unambiguous(text) {
            assert_eq!(path, once, "both read the same");
            assert_eq!(unambiguous(&path).unwrap(), path);
            let odd = ["//", "\\", ";", "%2F", "%00", "/../", "/./"];
            assert!(odd.iter().all(|odd| !path.contains(odd)), "{path}");
        }
        drop((PathPattern::new(text, true), PathPattern::new(text, false)));
    });
}

#[test]
fn credentials_and_tokens() {
    let seeds = [
        "Basic YWxpY2U6c2VjcmV0",
        "basic YTpi",
        "Basic",
        "Bearer abc",
        "Negotiate YII=",
        "Bearer eyJhbGciOiJFUzI1NiIsImtpZCI6IngifQ.eyJzdWIiOiJhIiwiaXNzIjoiaHR0cHM6Ly9pIn0.AAAA",
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJyb290In0.",
    ];
    let seeds: Vec<&[u8]> = seeds.iter().map(|seed| seed.as_bytes()).collect();
    fuzz(&seeds, |input| {
        let shown = format!("{:?}", Credentials::parse(input));
        assert!(!shown.starts_with("Basic(") || shown.contains("<redacted>"), "{shown}");
        drop(Token::parse(input).map(|token| token.key_id().map(str::to_owned)));
    });
}

#[test]
fn key_sets_and_password_files() {
    let seeds = [
        r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"a","x":"AAAA","y":"AAAA","use":"sig"}]}"#,
        r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"},{"kty":"oct","k":"AA"}]}"#,
        "alice:$2y$05$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234\n",
        "bob:$apr1$salt$0123456789abcdefghijkl\ncarol:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n# comment\n\n",
        "dave:$6$rounds=5000$salt$hash\n:\nx\n",
    ];
    texts(&seeds, |text| {
        drop(KeySet::parse(text.as_bytes()));
        let (entries, errors) = parse_htpasswd(text);
        assert!(entries.len() + errors.len() <= text.lines().count() + 1);
    });
}

#[test]
fn patterns() {
    let seeds = ["*", "a*b?c", "CN=*,O=Contoso", "ſtraße*", "**??**", "O=\\*"];
    texts(&seeds, |text| {
        for case_sensitive in [true, false] {
            let pattern = Pattern::new(text, case_sensitive);
            assert_eq!(pattern.as_str(), text);
            assert!(pattern.matches(text), "a pattern matches its own text: {text:?}");
        }
        // Many runs over a long value take no longer than their product.
        let _bounded = Pattern::new(&text.repeat(20), true).matches(&"ab".repeat(500));
    });
}

#[test]
fn filters_of_directories() {
    // RFC 4515, 3: whatever the value, it stays one value.
    texts(&["alice", "*)(uid=*", "a\\2ab", "x)(|(cn=*", "é\0", "((("], |text| {
        let escaped = escape_filter(text);
        assert!(!escaped.contains(['*', '(', ')', '\0']), "{escaped}");
        let octets: Vec<u8> = text.bytes().collect();
        assert_eq!(unescaped(&escaped), octets);
    });
}

fn unescaped(filter: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = filter.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first == b'\\' {
            out.push(u8::from_str_radix(std::str::from_utf8(&after[..2]).unwrap(), 16).unwrap());
            rest = &after[2..];
        } else {
            out.push(*first);
        }
    }
    out
}

/// People whose names are as odd as certificates let them be.
fn odd_people(ca: &Ca) -> Vec<crate::support::pki::Identity> {
    use rcgen::{DnType, DnValue, SanType};
    let mut people = Vec::new();
    for name in [
        "Alice",
        "x,CN=admin",
        "\"quoted\\\"",
        "a;b=c",
        "é ü 漢字",
        "  spaces  ",
        "a\nb",
        "#hash",
        "\u{202e}evil",
        ":b64:",
    ] {
        let mut params = named(&[
            (DnType::CommonName, name.into()),
            (DnType::OrganizationName, DnValue::Utf8String(name.repeat(5))),
        ]);
        params.subject_alt_names.push(SanType::URI("spiffe://a/b;c=\"d\",e".try_into().unwrap()));
        params.subject_alt_names.push(SanType::DnsName("a,b;c\"d".try_into().unwrap()));
        params.subject_alt_names.push(SanType::Rfc822Name("a;b=\"c\"@d".try_into().unwrap()));
        people.push(ca.issue(params));
    }
    people
}

#[test]
fn certificates() {
    let ca = Ca::new("ZeroSSL");
    let people = odd_people(&ca);
    let ders: Vec<Vec<u8>> =
        people.iter().map(|person| person.der.clone()).chain([ca.der()]).collect();
    let seeds: Vec<&[u8]> = ders.iter().map(Vec::as_slice).collect();
    let trust = TrustBundle::new(&[CertificateDer::from(ca.der())], 4).unwrap();
    fuzz(&seeds, |input| {
        let der = CertificateDer::from(input.to_vec());
        let _validity = Validity::of(&der);
        drop(TrustBundle::new(std::slice::from_ref(&der), 4));
        drop(read_certificates(input));
        let Ok(peer) = PeerCertificate::parse(&[der, CertificateDer::from(ca.der())]) else {
            return;
        };
        // A name is printed in one line, or not at all.
        drop((format!("{peer:?}"), peer.subject.root_first_escaped(), peer.san.sids().count()));
        assert!(!peer.subject.to_string().contains(['\n', '\r', '\0']), "{}", peer.subject);
        let verdict = trust.judge(&peer, UnixTime::now());
        if matches!(verdict.result, ChainResult::Verified(_)) {
            assert!(ders.iter().any(|der| der == input), "what was changed verifies");
        }
    });
}

#[test]
fn certificates_as_text() {
    let ca = Ca::new("ZeroSSL");
    let (pem, other) = (ca.pem(), ca.issue(leaf("Alice")).pem());
    let both = format!("{pem}\n# comment\n{other}");
    let base64 = ca.issue(leaf("Alice")).base64();
    texts(
        &[&pem, &both, &base64, "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"],
        |text| {
            drop(read_certificates(text.as_bytes()));
            drop(Fingerprint::parse(text));
        },
    );
}

/// A server with every encoding of a certificate turned on, and who watches what arrives behind it.
fn site() -> (Site, Recorder, Server) {
    let (site, recorder) = (Site::with_alice(REQUIRE), Recorder::start());
    site.write("backend.yaml", &recorder.manifest("echo"));
    let spec = "sslFlags: [Ssl, SslNegotiateCert]\ntrust: {caCertificateRefs: [{kind: ConfigMap, name: corporate-ca}]}\nadmitAnyVerified: {userFrom: SubjectCN}\nauthentication: [{anonymous: {}}]\nforward: {userHeader: X-Remote-User, clientCertificate: [rfc9440, xfcc, nginx, arr, traefik]}\n";
    site.write("policy.yaml", &crate::support::manifests::policy("app", "app", spec));
    let server = site.start();
    (site, recorder, server)
}

/// After everything: it serves, it said nothing of a panic, and what arrived was fit to be read.
fn is_well(recorder: &Recorder, server: &Server) {
    let mut stream = TcpStream::connect(server.http).unwrap();
    stream.write_all(b"GET /end HTTP/1.1\r\nHost: open.test\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    recorder.is_unambiguous();
    let lines = server.lines();
    assert!(!lines.iter().any(|line| line.contains("panicked")), "{lines:#?}");
    for received in recorder.received() {
        assert!(received.all("x-remote-user").iter().all(|user| *user != "root"), "{received:?}");
    }
    drop(stream);
    wait("connections to end", || server.metric("certmap_connections_open") < 2.0);
}

/// Sends octets, hangs up on one side, and reads until the server hangs up on the other.
fn sent(mut stream: impl Read + Write, octets: &[u8], shutdown: impl FnOnce(&mut dyn Write)) {
    drop(stream.write_all(octets).and_then(|()| stream.flush()));
    shutdown(&mut stream);
    if let Err(error) = stream.read_to_end(&mut Vec::new()) {
        assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "neither an answer nor an end");
    }
}

fn plain(server: &Server, octets: &[u8]) {
    let mut stream = TcpStream::connect(server.http).unwrap();
    drop(stream.write_all(octets));
    // A client that hangs up on its side does not wait for an answer: whole requests get a moment.
    stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    let _first = stream.read(&mut [0; 1]);
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    drop(stream.shutdown(Shutdown::Write));
    sent(stream, &[], |_| {});
}

const REQUESTS: &[&[u8]] = &[
    b"GET /a/b?c=d HTTP/1.1\r\nHost: open.test\r\nX-Remote-User: root\r\n\r\n",
    b"GET http://open.test/a HTTP/1.1\r\nHost: open.test\r\nAccept: text/html, application/json;q=0.9, */*;q=0.1\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: open.test\r\nContent-Length: 5\r\nX-Remote-User: root\r\n\r\nhelloGET /b HTTP/1.1\r\nHost: open.test\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: open.test\r\nTransfer-Encoding: chunked\r\nTrailer: X-A\r\n\r\n5;a=b\r\nhello\r\n0\r\nX-A: b\r\nX-Remote-User: root\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: app.test\r\nAuthorization: Basic YTpi\r\nCookie: a=b; c=\"d\"\r\nCookie: e\r\n\r\n",
    b"GET /ws HTTP/1.1\r\nHost: open.test\r\nConnection: Upgrade, X-A\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-A: b\r\n\r\n\x81\x02hi",
    b"OPTIONS * HTTP/1.1\r\nHost: open.test\r\nExpect: 100-continue\r\nTE: trailers\r\nForwarded: for=1.2.3.4\r\n\r\n",
    b"HEAD /.well-known/x HTTP/1.0\r\nHost: open.test\r\nConnection: keep-alive\r\nRange: bytes=0-1\r\n\r\n",
];

#[test]
fn requests_from_the_socket_to_the_decision() {
    let (_site, recorder, server) = site();
    fuzz(REQUESTS, |input| plain(&server, input));
    is_well(&recorder, &server);
}

#[test]
fn frames_from_the_socket_to_the_decision() {
    let (_site, recorder, server) = site();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let head = |method: &str, path: &str| {
        frames::head(
            method,
            "open.test",
            path,
            &[(b"x-remote-user", b"root"), (b"content-length", b"5")],
        )
    };
    let get = frame(HEADERS, END_HEADERS | END_STREAM, 1, &frames::get("open.test", "/a?b"));
    let post =
        [frame(HEADERS, END_HEADERS, 1, &head("POST", "/c")), frame(0, 1, 1, b"hello")].concat();
    let trailers = [
        frame(HEADERS, END_HEADERS, 1, &head("POST", "/d")),
        frame(0, 0, 1, b"hello"),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[(b"x-a", b"b")])),
    ]
    .concat();
    let upkeep = [
        frame(6, 0, 0, &[1; 8]),
        frame(8, 0, 0, &[0, 0, 1, 0]),
        frame(2, 0, 3, &[0, 0, 0, 0, 1]),
        frame(3, 0, 1, &[0, 0, 0, 8]),
    ]
    .concat();
    let pieces = [&get, &post, &trailers, &upkeep].map(|piece| [&preface[..], piece].concat());
    let whole: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
    fuzz(&whole, |input| plain(&server, input));
    is_well(&recorder, &server);
}

#[test]
fn fields_of_frames_from_the_socket_to_the_decision() {
    let (_site, recorder, server) = site();
    // The frames are right and the fields are not: deeper than where the frames' own mistakes end.
    let values: &[&[u8]] = &[
        b"/a/b",
        b"open.test",
        b"GET",
        b"http",
        b"trailers",
        b"a=b; c=d",
        b"bytes=0-1",
        b"Basic YTpi",
        b"5",
        b"x, y",
    ];
    let names: &[&[u8]] = &[
        b":path",
        b":method",
        b":authority",
        b":scheme",
        b"host",
        b"te",
        b"cookie",
        b"content-length",
        b"authorization",
        b"accept",
        b"x-remote-user",
        b"forwarded",
        b"expect",
        b"x",
    ];
    let mut random = Random(7);
    fuzz(values, |input| {
        let mut fields: Vec<(&[u8], &[u8])> = vec![
            (b":method", b"GET"),
            (b":scheme", b"http"),
            (b":authority", b"open.test"),
            (b":path", b"/f"),
        ];
        let name = random.of(names);
        match fields.iter_mut().find(|(known, _)| *known == name) {
            Some(field) => field.1 = input,
            None => fields.push((name, input)),
        }
        let mut connection = H2::plain(server.http, &[]).unwrap();
        connection.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields))).unwrap();
        let _outcome = connection.outcome(1);
    });
    is_well(&recorder, &server);
}

#[test]
fn client_hellos() {
    let (_site, recorder, server) = site();
    let hellos =
        [client_hello("app.test"), client_hello("open.test"), client_hello("unknown.test")];
    let seeds: Vec<&[u8]> = hellos.iter().map(Vec::as_slice).collect();
    fuzz(&seeds, |input| {
        let mut stream = TcpStream::connect(server.https).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        drop(stream.write_all(input));
        drop(stream.shutdown(Shutdown::Write));
        sent(stream, &[], |_| {});
    });
    is_well(&recorder, &server);
}

#[test]
fn proxy_headers() {
    let (site, recorder) = (Site::with_alice(REQUIRE), Recorder::start());
    site.write("backend.yaml", &recorder.manifest("echo"));
    let options = ["--proxy-protocol-from", "127.0.0.0/8"];
    let server = Server::start_with(&site.manifests(), &site.path("access.log"), "json", &options);
    let request = b"GET /p HTTP/1.1\r\nHost: open.test\r\nX-Forwarded-For: 10.9.8.7\r\nConnection: close\r\n\r\n";
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    let first: &[&[u8]] = &[
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 443\r\n",
        b"PROXY TCP6 2001:db8::1 2001:db8::2 65535 443\r\n",
        b"PROXY UNKNOWN\r\n",
        b"\x21\x11\0\x0C\xC0\0\x02\x01\xC0\0\x02\x02\0\x01\x01\xBB",
        b"\x21\x11\0\x10\xC0\0\x02\x01\xC0\0\x02\x02\0\x01\x01\xBB\x04\0\x01x",
        b"\x20\0\0\0",
    ];
    let whole: Vec<Vec<u8>> = first
        .iter()
        .map(|header| {
            let signature = if header.starts_with(b"PROXY") { &[][..] } else { &signature[..] };
            [signature, header, request].concat()
        })
        .collect();
    let seeds: Vec<&[u8]> = whole.iter().map(Vec::as_slice).collect();
    for seed in &seeds {
        let mut stream = TcpStream::connect(server.http).unwrap();
        stream.write_all(seed).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{seed:?}: {answer}");
    }
    fuzz(&seeds, |input| plain(&server, input));
    recorder.is_unambiguous();
    for received in recorder.received() {
        let [address] = received.all("x-forwarded-for")[..] else { panic!("{received:?}") };
        assert!(address.parse::<std::net::IpAddr>().is_ok(), "{received:?}");
        assert_ne!(address, "10.9.8.7", "{received:?}");
    }
    assert!(!server.lines().iter().any(|line| line.contains("panicked")));
    wait("connections to end", || server.metric("certmap_connections_open") == 0.0);
}

#[test]
fn whatever_a_certificate_says_is_told_in_fields_of_one_line() {
    let (site, recorder, server) = site();
    let people = odd_people(&site.zerossl);
    for person in &people {
        let client = Client::new(&site.server_ca, Some(person), &TLS13);
        let (reply, _) = client.get(server.https, "app.test", "app.test", "/told");
        // Told, or refused because it cannot be told.
        assert!(matches!(reply.status, 200 | 502 | 403), "{reply:?}");
    }
    assert!(recorder.of("/told").len() >= 3, "{:?}", recorder.received());
    for received in recorder.of("/told") {
        assert_eq!(received.all("client-cert").len(), 1, "{received:?}");
        assert!(received.all("x-forwarded-client-cert").len() <= 1, "{received:?}");
    }
    is_well(&recorder, &server);
}
