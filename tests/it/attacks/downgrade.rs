//! HTTP/2 in, HTTP/1.1 out: what is one field or one path in frames must not become a line of its own in text.

use std::io::{Read, Write};

use rustls::version::TLS13;

use crate::support::frames::{
    self, DATA, END_HEADERS, END_STREAM, Field, H2, HEADERS, block, frame,
};
use crate::support::recorder::Recorder;
use crate::support::tls::Client;
use crate::support::{REQUIRE, Site};

use super::fate::Fate::{self, Either, Once, Refused};

/// Fields after those that every request has; the body, if there is one, in frames of its own.
type Attempt<'a> = (&'a [Field<'a>], Option<&'a [&'a [u8]]>, Fate);

const HELLO: Option<&[&[u8]]> = Some(&[b"hello"]);
const TWO: Option<&[&[u8]]> = Some(&[b"hel", b"lo"]);

const FIELDS: &[Attempt<'_>] = &[
    (&[], None, Once),
    (&[(b"x", b"a\r\nX-Remote-User: root")], None, Refused),
    (&[(b"x", b"a\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: app.test\r\n\r\n")], None, Refused),
    (&[(b"x", b"a\nb: c")], None, Refused),
    (&[(b"x", b"a\rb")], None, Refused),
    (&[(b"x", b"a\0b")], None, Refused),
    (&[(b"x", b"a\x7Fb")], None, Refused),
    (&[(b"x", b" a ")], None, Either),
    (&[(b"x", b"\xE9")], None, Once),
    (&[(b"x: y\r\nz", b"a")], None, Refused),
    (&[(b"x: y", b"a")], None, Refused),
    (&[(b"x:", b"a")], None, Refused),
    (&[(b"x y", b"a")], None, Refused),
    (&[(b" x", b"a")], None, Refused),
    (&[(b"x ", b"a")], None, Refused),
    (&[(b"x\0", b"a")], None, Refused),
    (&[(b"x\n", b"a")], None, Refused),
    (&[(b"x\xE9", b"a")], None, Refused),
    (&[(b"", b"a")], None, Refused),
    (&[(b"X-Upper", b"a")], None, Refused),
    (&[(b"X-Remote-User", b"root")], None, Refused),
    (&[(b"x_remote_user", b"root")], None, Once),
    // Fields of the connection (RFC 9113, 8.2.2).
    (&[(b"connection", b"close")], None, Refused),
    (&[(b"connection", b"x-remote-user")], None, Refused),
    (&[(b"proxy-connection", b"keep-alive")], None, Refused),
    (&[(b"keep-alive", b"timeout=5")], None, Refused),
    (&[(b"upgrade", b"websocket")], None, Refused),
    (
        &[(b"transfer-encoding", b"chunked")],
        Some(&[b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n"]),
        Refused,
    ),
    (
        &[(b"transfer_encoding", b"chunked")],
        Some(&[b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n"]),
        Once,
    ),
    (&[(b"te", b"gzip")], None, Refused),
    (&[(b"te", b"trailers")], None, Once),
    // Lengths.
    (&[(b"content-length", b"5")], HELLO, Once),
    (&[(b"content-length", b"5")], TWO, Once),
    (&[], TWO, Once),
    (&[(b"content-length", b"3")], HELLO, Refused),
    (&[(b"content-length", b"3")], TWO, Refused),
    (&[(b"content-length", b"0")], HELLO, Refused),
    (&[(b"content-length", b"6")], HELLO, Refused),
    (&[(b"content-length", b"5")], None, Refused),
    (&[(b"content-length", b"5"), (b"content-length", b"6")], HELLO, Refused),
    (&[(b"content-length", b"5"), (b"content-length", b"5")], HELLO, Refused),
    (&[(b"content-length", b"+5")], HELLO, Refused),
    (&[(b"content-length", b"05")], HELLO, Refused),
    (&[(b"content-length", b"5, 5")], HELLO, Refused),
    (&[(b"content-length", b"five")], HELLO, Refused),
    (&[(b"content-length", b"")], HELLO, Refused),
    (&[(b"content_length", b"60"), (b"content-length", b"5")], HELLO, Once),
    // Hosts.
    (&[(b"host", b"<host>")], None, Once),
    (&[(b"host", b"other.test")], None, Refused),
    (&[(b"host", b"<host>"), (b"host", b"<host>")], None, Refused),
    (&[(b"host", b"a b")], None, Refused),
    // Cookies are one field in HTTP/1.1 (RFC 9113, 8.2.3).
    (&[(b"cookie", b"a=1"), (b"cookie", b"b=2")], None, Once),
    // Pseudo-fields that come late, are unknown, or are a response's.
    (&[(b":path", b"/smuggled")], None, Refused),
    (&[(b":authority", b"other.test")], None, Refused),
    (&[(b"x", b"a"), (b":path", b"/smuggled")], None, Refused),
    (&[(b":status", b"200")], None, Refused),
    (&[(b":x", b"a")], None, Refused),
    (&[(b":protocol", b"websocket")], None, Refused),
];

/// Method, scheme, authority and path, each of which may be missing.
type Pseudo<'a> = [Option<&'a [u8]>; 4];

const G: Option<&[u8]> = Some(b"GET");
const S: Option<&[u8]> = Some(b"https");
const A: Option<&[u8]> = Some(b"<host>");
const P: Option<&[u8]> = Some(b"<path>");

const PSEUDO: &[(Pseudo<'_>, Fate)] = &[
    ([None, S, A, P], Refused),
    ([G, None, A, P], Refused),
    ([G, S, None, P], Refused),
    ([G, S, A, None], Refused),
    ([Some(b""), S, A, P], Refused),
    ([Some(b"G T"), S, A, P], Refused),
    ([Some(b"GET /smuggled HTTP/1.1\r\nX: y"), S, A, P], Refused),
    ([Some(b"GET\t"), S, A, P], Refused),
    ([G, Some(b"http://x"), A, P], Refused),
    ([G, Some(b""), A, P], Either),
    ([G, S, Some(b""), P], Refused),
    ([G, S, Some(b"other.test\r\nHost: <host>"), P], Refused),
    ([G, S, Some(b"root@<host>"), P], Refused),
    ([G, S, Some(b"<host>/smuggled"), P], Refused),
    ([G, S, Some(b"<host> x"), P], Refused),
    ([G, S, Some(b"<host>:x"), P], Refused),
    ([G, S, A, Some(b"")], Refused),
    ([G, S, A, Some(b"smuggled")], Refused),
    ([G, S, A, Some(b"*")], Refused),
    ([Some(b"OPTIONS"), S, A, Some(b"*")], Refused),
    ([G, S, A, Some(b"http://<host><path>")], Refused),
    ([G, S, A, Some(b"https://other.test<path>")], Refused),
    ([G, S, A, Some(b"<path> HTTP/1.1\r\nX-Remote-User: root\r\nX:")], Refused),
    ([G, S, A, Some(b"<path> x")], Refused),
    ([G, S, A, Some(b"<path>\tx")], Refused),
    ([G, S, A, Some(b"<path>\0")], Refused),
    ([G, S, A, Some(b"<path>\n")], Refused),
    ([G, S, A, Some(b"<path>?a b")], Refused),
    ([G, S, A, Some(b"<path>#/../smuggled")], Either),
    ([G, S, A, Some(b"<path>?a#/../smuggled")], Either),
    ([Some(b"CONNECT"), None, A, None], Refused),
    ([Some(b"CONNECT"), S, A, P], Refused),
    ([Some(b"TRACE"), S, A, P], Refused),
    ([Some(b"PRI"), S, A, Some(b"*")], Refused),
];

struct Request {
    path: String,
    octets: Vec<u8>,
    fate: Fate,
}

fn fill(octets: &[u8], host: &str, path: &str) -> Vec<u8> {
    // Latin-1 there and back, so that nothing is lost.
    let text: String = octets.iter().map(|octet| char::from(*octet)).collect();
    let text = text.replace("<host>", host).replace("<path>", path);
    text.chars().map(|c| u8::try_from(c).unwrap()).collect()
}

fn corpus(host: &str) -> Vec<Request> {
    let usual = [G, S, A, P];
    let with_fields = FIELDS.iter().map(|(fields, body, fate)| (usual, *fields, *body, *fate));
    let with_pseudo = PSEUDO.iter().map(|(pseudo, fate)| (*pseudo, &[][..], None, *fate));
    let each = with_fields.chain(with_pseudo).zip(0..);
    each.map(|((pseudo, further, body, fate), number)| {
        let path = format!("/d{number}-");
        let names: [&[u8]; 4] = [b":method", b":scheme", b":authority", b":path"];
        let pseudo = names.iter().zip(pseudo).filter_map(|(name, value)| Some((*name, value?)));
        let fields: Vec<(&[u8], &[u8])> = pseudo.chain(further.iter().copied()).collect();
        let filled: Vec<(&[u8], Vec<u8>)> =
            fields.iter().map(|(name, value)| (*name, fill(value, host, &path))).collect();
        let mut fields: Vec<Field<'_>> =
            filled.iter().map(|(name, value)| (*name, &value[..])).collect();
        fields.push((b"x-remote-user", b"root"));
        let end = if body.is_some() { 0 } else { END_STREAM };
        let mut octets = frame(HEADERS, END_HEADERS | end, 1, &block(&fields));
        let body = body.unwrap_or_default();
        for (part, number) in body.iter().zip(1..) {
            let end = if number == body.len() { END_STREAM } else { 0 };
            octets.extend(frame(DATA, end, 1, part));
        }
        Request { path, octets, fate }
    })
    .collect()
}

/// Every attempt on a connection of its own, and what the backend has seen when all are through.
fn all<S: Read + Write>(
    recorder: &Recorder,
    host: &str,
    user: &[&str],
    connect: impl Fn() -> H2<S>,
) {
    let (mut open, mut wrong) = (Vec::new(), Vec::new());
    for Request { path, octets, fate } in corpus(host) {
        let mut connection = connect();
        drop(connection.send(&octets));
        let outcome = connection.outcome(1);
        open.push(connection);
        let refused = matches!(outcome, None | Some(400 | 404 | 405 | 421 | 501));
        let expected = match fate {
            Refused => refused,
            Once => outcome == Some(200),
            Either => refused || outcome == Some(200),
        };
        let came = recorder.of(&path).len();
        if !expected || came != usize::from(outcome == Some(200)) {
            let text = String::from_utf8_lossy(&octets).into_owned();
            wrong.push(format!("{fate:?}, but {outcome:?} and {came} at the backend: {text:?}"));
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
fn no_frame_becomes_a_line_of_its_own() {
    let (site, recorder) = site();
    let server = site.start();
    all(&recorder, "open.test", &[], || H2::plain(server.http, &[]).unwrap());
}

#[test]
fn no_frame_rides_on_another_requests_certificate() {
    let (site, recorder) = site();
    let server = site.start();
    let client = Client::new(&site.server_ca, Some(&site.alice), &TLS13).with_alpn("h2");
    all(&recorder, "app.test", &["azureuser"], || {
        let stream = client.connect(server.https, "app.test");
        stream.sock.patience(std::time::Duration::from_secs(20));
        H2::over(stream, &[]).unwrap()
    });
}

#[test]
fn trailers_neither_frame_nor_identify() {
    let (site, recorder) = site();
    let server = site.start();
    let sent = |trailers: &[Field<'_>], end: u8| {
        let mut connection = H2::plain(server.http, &[]).unwrap();
        let octets = [
            frame(HEADERS, END_HEADERS, 1, &frames::head("POST", "open.test", "/t", &[])),
            frame(DATA, 0, 1, b"hello"),
            frame(HEADERS, END_HEADERS | end, 1, &block(trailers)),
        ];
        connection.send(&octets.concat()).unwrap();
        connection.outcome(1)
    };
    let plain: &[Field<'_>] =
        &[(b"x-fine", b"1"), (b"x-remote-user", b"root"), (b"content-length", b"9")];
    assert_eq!(sent(plain, END_STREAM), Some(200));
    // Left out, if not refused.
    sent(&[(b":path", b"/smuggled")], END_STREAM);
    for trailers in [
        &[(&b"x"[..], &b"a\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n"[..])][..],
        &[(b"X-Upper", b"1")],
        &[(b"transfer-encoding", b"chunked")],
    ] {
        assert_ne!(sent(trailers, END_STREAM), Some(200), "{trailers:?}");
    }
    assert_ne!(sent(&[(b"x", b"a")], 0), Some(200), "trailers that do not end the stream");
    recorder.is_unambiguous();
    assert!(recorder.received().iter().all(|received| received.target() == "/t"));
}
