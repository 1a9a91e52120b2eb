//! Request smuggling over HTTP/1.1: no two readers may find different requests in the same octets. The backend reads as
//! narrowly as the standard lets it, and keeps what it read; what certmap lets through must be one request, and the
//! caller's own.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustls::version::TLS13;

use crate::support::recorder::Recorder;
use crate::support::tls::Client;
use crate::support::{REQUIRE, Site};

use super::fate::Fate::{self, Either, Once, Refused};

/// In place of these, the request's own path, its host, and what must never be a request.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: <host>\r\n\r\n";

/// Heads and bodies after `POST <path> HTTP/1.1`, `Host` and a forged identity.
const FRAMING: &[(&str, Fate)] = &[
    // CL.TE, TE.CL: chunked goes before a length, and the connection ends with it (RFC 9112, 6.1).
    ("Content-Length: 60\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n<smuggled>", Once),
    ("Transfer-Encoding: chunked\r\nContent-Length: 60\r\n\r\n0\r\n\r\n<smuggled>", Once),
    (
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n<smuggled>",
        Once,
    ),
    // TE.TE: more or other codings than one chunked.
    (
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n<smuggled>",
        Refused,
    ),
    (
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n<smuggled>",
        Refused,
    ),
    (
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n<smuggled>",
        Refused,
    ),
    ("Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n<smuggled>", Refused),
    ("Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n<smuggled>", Refused),
    ("Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n<smuggled>", Refused),
    ("Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n<smuggled>", Refused),
    ("Transfer-Encoding: , chunked\r\n\r\n0\r\n\r\n<smuggled>", Refused),
    ("Transfer-Encoding: xchunked\r\nContent-Length: 5\r\n\r\nhello", Refused),
    ("Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n<smuggled>", Refused),
    ("Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n<smuggled>", Refused),
    ("Transfer-Encoding: \u{b}chunked\r\n\r\n0\r\n\r\n<smuggled>", Refused),
    ("Transfer-Encoding: chunked\0\r\n\r\n0\r\n\r\n<smuggled>", Refused),
    ("Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n<smuggled>", Refused),
    (" Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n<smuggled>", Refused),
    ("Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n<smuggled>", Refused),
    ("X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n<smuggled>", Refused),
    ("Transfer-Encoding: cHuNkEd\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Once),
    ("Transfer-Encoding:\tchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Once),
    // Two readers may differ on whether these frame anything: then it must be certmap's own framing that arrives.
    ("Transfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello", Once),
    ("Content_Length: 60\r\nContent-Length: 5\r\n\r\nhello", Once),
    ("Connection: close, Content-Length\r\nContent-Length: 5\r\n\r\nhello", Once),
    (
        "Connection: close, Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Once,
    ),
    ("Connection: Host\r\nContent-Length: 5\r\n\r\nhello", Once),
    // Lengths that are none, or more than one.
    ("Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", Once),
    ("Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", Refused),
    ("Content-Length: 5, 5\r\n\r\nhello", Refused),
    ("Content-Length: 5 5\r\n\r\nhello", Refused),
    ("Content-Length: +5\r\n\r\nhello", Refused),
    ("Content-Length: -5\r\n\r\nhello", Refused),
    ("Content-Length: 05\r\n\r\nhello", Refused),
    ("Content-Length: 0x5\r\n\r\nhello", Refused),
    ("Content-Length: 5.0\r\n\r\nhello", Refused),
    ("Content-Length: five\r\n\r\nhello", Refused),
    ("Content-Length:\r\n\r\nhello", Refused),
    ("Content-Length: 18446744073709551621\r\n\r\nhello", Refused),
    ("Content-Length : 5\r\n\r\nhello", Refused),
    ("Content-Length\0: 5\r\n\r\nhello", Refused),
    ("Content-Length: 5\u{c}\r\n\r\nhello", Refused),
    ("Content-Length:  5 \r\n\r\nhello", Once),
    // Chunks.
    ("Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0;c\r\n\r\n", Once),
    ("Transfer-Encoding: chunked\r\n\r\n5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n", Once),
    ("Transfer-Encoding: chunked\r\n\r\n5;a=\"\r\nhello\r\n0\r\n\r\n", Either),
    ("Transfer-Encoding: chunked\r\n\r\n5;a\nhello\r\n0\r\n\r\n", Refused),
    ("Transfer-Encoding: chunked\r\n\r\n5;a\rb\r\nhello\r\n0\r\n\r\n", Refused),
    ("Transfer-Encoding: chunked\r\n\r\n5;<long>\r\nhello\r\n0\r\n\r\n", Refused),
    ("Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", Refused),
    ("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n", Refused),
    ("Transfer-Encoding: chunked\r\n\r\n5\r\nhello0\r\n\r\n", Refused),
    ("Transfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n", Refused),
    ("Transfer-Encoding: chunked\r\n\r\n5 5\r\nhello\r\n0\r\n\r\n", Refused),
    ("Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", Refused),
    ("Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n", Refused),
    ("Transfer-Encoding: chunked\r\n\r\n-1\r\nhello\r\n0\r\n\r\n", Refused),
    ("Transfer-Encoding: chunked\r\n\r\n 5\r\nhello\r\n0\r\n\r\n", Refused),
    ("Transfer-Encoding: chunked\r\n\r\n;a\r\nhello\r\n0\r\n\r\n", Refused),
    ("Transfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n", Refused),
    ("Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n", Refused),
    ("Transfer-Encoding: chunked\r\n\r\n0000000000000000000005\r\nhello\r\n0\r\n\r\n", Once),
    // Trailers.
    (
        "Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 60\r\nX-Remote-User: root\r\nHost: x\r\n\r\n",
        Once,
    ),
    ("Transfer-Encoding: chunked\r\n\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n", Either),
    ("Transfer-Encoding: chunked\r\n\r\n0\r\nX y: 1\r\n\r\n", Refused),
    ("Transfer-Encoding: chunked\r\n\r\n0\r\nX: a\rb\r\n\r\n", Refused),
    ("Transfer-Encoding: chunked\r\n\r\n0\r\nX: <long>\r\n\r\n", Refused),
    // Fields.
    ("X: a\r\n b\r\n\r\n", Refused),
    ("X: a\r\n\tb\r\n\r\n", Refused),
    ("X: a\rb\r\n\r\n", Refused),
    ("X: a\0b\r\n\r\n", Refused),
    ("X: a\u{7f}b\r\n\r\n", Refused),
    ("X: a\u{1}b\r\n\r\n", Refused),
    ("X\0: a\r\n\r\n", Refused),
    ("X : a\r\n\r\n", Refused),
    ("X\t: a\r\n\r\n", Refused),
    ("X Y: a\r\n\r\n", Refused),
    ("X(Y): a\r\n\r\n", Refused),
    ("X\u{e9}: a\r\n\r\n", Refused),
    (": a\r\n\r\n", Refused),
    ("no colon\r\n\r\n", Refused),
    ("X: a\n\n", Either),
    ("X: a\nContent-Length: 5\r\n\r\nhello", Either),
    ("X: \u{e9}\r\nContent-Length: 5\r\n\r\nhello", Once),
    // Upgrades with a body, or to what is not carried.
    ("Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nhello", Once),
    (
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nContent-Length: 0\r\n\r\n",
        Once,
    ),
    ("Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", Once),
    ("Expect: 200-ok\r\nContent-Length: 5\r\n\r\nhello", Either),
];

/// Whole requests.
const LINES: &[(&str, Fate)] = &[
    ("GET <path> HTTP/1.1\r\nHost: <host>\r\nHost: <host>\r\n\r\n", Refused),
    ("GET <path> HTTP/1.1\r\nHost: <host>\r\nHost: other.test\r\n\r\n", Refused),
    ("GET <path> HTTP/1.1\r\nHost: <host>, other.test\r\n\r\n", Refused),
    ("GET <path> HTTP/1.1\r\nHost: <host> other.test\r\n\r\n", Refused),
    ("GET <path> HTTP/1.1\r\nHost: <host>/x\r\n\r\n", Refused),
    ("GET <path> HTTP/1.1\r\nHost: <host>#x\r\n\r\n", Refused),
    ("GET <path> HTTP/1.1\r\nHost: root@<host>\r\n\r\n", Refused),
    ("GET <path> HTTP/1.1\r\nHost: <host>:x\r\n\r\n", Refused),
    ("GET <path> HTTP/1.1\r\nHost:\r\n\r\n", Refused),
    ("GET <path> HTTP/1.1\r\n\r\n", Refused),
    ("GET http://<host><path> HTTP/1.1\r\nHost: other.test\r\n\r\n", Refused),
    ("GET http://other.test<path> HTTP/1.1\r\nHost: <host>\r\n\r\n", Refused),
    ("GET http://<host><path> HTTP/1.1\r\nHost: <host>\r\n\r\n", Once),
    ("GET http://root@<host><path> HTTP/1.1\r\nHost: <host>\r\n\r\n", Refused),
    ("GET http://<host>@other.test<path> HTTP/1.1\r\nHost: <host>\r\n\r\n", Refused),
    ("GET http://<path> HTTP/1.1\r\nHost: <host>\r\n\r\n", Refused),
    ("CONNECT <host>:80 HTTP/1.1\r\nHost: <host>:80\r\n\r\n", Refused),
    ("CONNECT <path> HTTP/1.1\r\nHost: <host>\r\n\r\n", Refused),
    ("GET <host> HTTP/1.1\r\nHost: <host>\r\n\r\n", Refused),
    ("TRACE <path> HTTP/1.1\r\nHost: <host>\r\n\r\n", Refused),
    ("OPTIONS * HTTP/1.1\r\nHost: <host>\r\n\r\n", Refused),
    ("GET ?x HTTP/1.1\r\nHost: <host>\r\n\r\n", Refused),
    ("GET <path> x HTTP/1.1\r\nHost: <host>\r\n\r\n", Refused),
    ("GET  <path> HTTP/1.1\r\nHost: <host>\r\n\r\n", Refused),
    ("GET\t<path>\tHTTP/1.1\r\nHost: <host>\r\n\r\n", Refused),
    ("GET <path>\rHTTP/1.1\r\nHost: <host>\r\n\r\n", Refused),
    ("GET <path>\0 HTTP/1.1\r\nHost: <host>\r\n\r\n", Refused),
    ("G(T <path> HTTP/1.1\r\nHost: <host>\r\n\r\n", Refused),
    ("GET <path> HTTP/1.1 \r\nHost: <host>\r\n\r\n", Refused),
    ("GET <path> HTTP/1.2\r\nHost: <host>\r\n\r\n", Refused),
    ("GET <path> HTTP/2.0\r\nHost: <host>\r\n\r\n", Refused),
    ("GET <path> HTTP/01.1\r\nHost: <host>\r\n\r\n", Refused),
    ("GET <path> http/1.1\r\nHost: <host>\r\n\r\n", Refused),
    ("GET <path>\r\n\r\n", Refused),
    ("GET <path>\r\nHost: <host>\r\n\r\n", Refused),
    ("GET <path>#<smuggled-path> HTTP/1.1\r\nHost: <host>\r\n\r\n", Either),
    ("GET <path> HTTP/1.1\rHost: <host>\r\r", Refused),
    ("GET <path> HTTP/1.1\nHost: <host>\n\n", Either),
    ("\r\nGET <path> HTTP/1.1\r\nHost: <host>\r\n\r\n", Either),
    ("\r\n\r\n\r\n \r\nGET <path> HTTP/1.1\r\nHost: <host>\r\n\r\n", Refused),
    ("GET <path> HTTP/1.1\r\n Host: <host>\r\n\r\n", Refused),
    (
        "POST <path> HTTP/1.0\r\nHost: <host>\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n<smuggled>",
        Refused,
    ),
    (
        "POST <path> HTTP/1.0\r\nHost: <host>\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
        Once,
    ),
];

/// What the client has to say, and what comes back; both stay open until the end, so that nothing is lost by hanging up.
fn attempt(mut stream: impl Read + Write, text: &str) -> (impl Read + Write, String) {
    // Latin-1: a character is an octet.
    let octets: Vec<u8> = text.chars().map(|c| u8::try_from(c).unwrap()).collect();
    let mut answer = Vec::new();
    // A refusal may come, and the connection end, before all is written.
    drop(stream.write_all(&octets).and_then(|()| stream.flush()));
    let mut some = [0; 512];
    while !answer.windows(4).any(|four| four == b"\r\n\r\n") {
        match stream.read(&mut some) {
            Ok(read @ 1..) => answer.extend_from_slice(&some[..read]),
            _ => break,
        }
        if answer.starts_with(b"HTTP/1.1 100 Continue\r\n\r\n") {
            answer.drain(..25);
        }
    }
    (stream, String::from_utf8_lossy(&answer).into_owned())
}

fn corpus(host: &str) -> Vec<(String, String, Fate)> {
    let framed = FRAMING.iter().map(|(rest, fate)| {
        (format!("POST <path> HTTP/1.1\r\nHost: <host>\r\nX-Remote-User: root\r\n{rest}"), *fate)
    });
    let lines = LINES.iter().map(|(text, fate)| {
        (text.replacen("\r\n\r\n", "\r\nX-Remote-User: root\r\n\r\n", 1), *fate)
    });
    let long = "x".repeat(80_000);
    let each = framed.chain(lines).zip(0..).map(|((text, fate), number)| {
        let path = format!("/s{number}-");
        let text = text
            .replace("<path>", &path)
            .replace("<smuggled>", SMUGGLED)
            .replace("<smuggled-path>", "/../smuggled")
            .replace("<long>", &long)
            .replace("<host>", host);
        (path, text, fate)
    });
    each.collect()
}

/// Every attempt on a connection of its own, and what the backend has seen when all are through.
fn all<S: Read + Write>(recorder: &Recorder, host: &str, user: &[&str], connect: impl Fn() -> S) {
    let corpus = corpus(host);
    let (mut open, mut wrong) = (Vec::new(), Vec::new());
    for (path, text, fate) in &corpus {
        let (stream, answer) = attempt(connect(), text);
        open.push(stream);
        let status = answer.split(' ').nth(1).unwrap_or("none");
        let refused =
            matches!(status, "none" | "400" | "404" | "414" | "421" | "431" | "501" | "505");
        let expected = match fate {
            Refused => refused,
            Once => status == "200",
            Either => refused || status == "200",
        };
        let came = recorder.of(path).len();
        if !expected || came != usize::from(status == "200") {
            wrong.push(format!("{fate:?}, but {status} and {came} at the backend: {text:.300?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    recorder.is_unambiguous();
    for received in recorder.received() {
        assert!(!received.target().contains("smuggled"), "{received:?}");
        assert_eq!(received.all("x-remote-user"), user, "{received:?}");
        assert_eq!(received.all("host"), [host], "{received:?}");
    }
    drop(open);
}

fn site() -> (Site, Recorder) {
    let (site, recorder) = (Site::with_alice(REQUIRE), Recorder::start());
    site.write("backend.yaml", &recorder.manifest("echo"));
    (site, recorder)
}

#[test]
fn no_two_readers_find_different_requests_in_what_arrives() {
    let (site, recorder) = site();
    let server = site.start();
    all(&recorder, "open.test", &[], || {
        let stream = TcpStream::connect(server.http).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    });
}

#[test]
fn nothing_rides_on_another_requests_certificate() {
    let (site, recorder) = site();
    let server = site.start();
    let client = Client::new(&site.server_ca, Some(&site.alice), &TLS13);
    all(&recorder, "app.test", &["azureuser"], || {
        let stream = client.connect(server.https, "app.test");
        stream.sock.patience(Duration::from_secs(20));
        stream
    });
}

#[test]
fn both_a_length_and_chunks_end_the_connection() {
    let (site, recorder) = site();
    let server = site.start();
    let mut stream = TcpStream::connect(server.http).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let both = "POST /both HTTP/1.1\r\nHost: open.test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let next = "GET /next HTTP/1.1\r\nHost: open.test\r\n\r\n";
    stream.write_all(format!("{both}{next}").as_bytes()).unwrap();
    let mut answers = String::new();
    drop(stream.read_to_string(&mut answers));
    assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
    assert_eq!((recorder.of("/both").len(), recorder.of("/next").len()), (1, 0));
}

#[test]
fn what_follows_an_upgrade_is_the_tunnels_or_judged_like_any_other_request() {
    let (site, recorder) = site();
    let server = site.start();
    let client = Client::new(&site.server_ca, Some(&site.alice), &TLS13);
    let next =
        "GET /next HTTP/1.1\r\nHost: open.test\r\nConnection: close\r\nX-Remote-User: root\r\n\r\n";
    let upgrade = |protocol: &str| {
        format!(
            "GET /up HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n{next}"
        )
    };
    // Refused by the backend's side: the next request is for another host, and gets its own verdict.
    let mut stream = client.connect(server.https, "app.test");
    stream.write_all(upgrade("h2c").as_bytes()).unwrap();
    let mut answers = String::new();
    stream.sock.patience(Duration::from_secs(20));
    drop(stream.read_to_string(&mut answers));
    assert!(answers.starts_with("HTTP/1.1 200 ") && answers.contains("HTTP/1.1 421 "), "{answers}");
    // Agreed to: what follows is the tunnel's, whatever it looks like, and no connection that anybody else gets.
    let mut stream = client.connect(server.https, "app.test");
    stream.write_all(upgrade("websocket").as_bytes()).unwrap();
    let mut octets = [0; 12];
    stream.read_exact(&mut octets).unwrap();
    assert_eq!(&octets, b"HTTP/1.1 101");
    drop(stream);
    crate::support::server::wait("the tunnel's end", || recorder.of("/up").len() == 2);
    let seen: Vec<_> = recorder.received();
    assert_eq!(String::from_utf8_lossy(&seen[1].body), next);
    assert!(recorder.of("/next").is_empty(), "{seen:?}");
    recorder.is_unambiguous();
}
