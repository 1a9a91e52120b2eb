//! What a RoutePolicy does to requests and answers, seen by real clients.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustls::version::{TLS12, TLS13};

use super::support::clients::{curl, curl_http};
use super::support::frames::{END_HEADERS, END_STREAM, Event, H2, HEADERS, frame, get, head};
use super::support::manifests::{config_map, ingress, ingress_with, route_policy, service};
use super::support::origin::{Origin, answer};
use super::support::server::{Server, wait};
use super::support::tls::{Client, Reply, reply};
use super::support::{REQUIRE, Site, run};

/// A RoutePolicy for the Ingress named so.
pub(super) fn carried(ingress: &str, spec: &str) -> String {
    route_policy(ingress, ingress, spec)
}

/// open.test under this RoutePolicy, and app.test with a policy of both kinds.
pub(super) fn site(spec: &str) -> (Site, Server) {
    let site = Site::with_people(REQUIRE);
    site.write("route.yaml", &carried("open", spec));
    site.write("app-route.yaml", &carried("app", spec));
    let server = site.start();
    (site, server)
}

/// open.test with what this origin answers.
pub(super) fn site_of(origin: &Origin, spec: &str) -> (Site, Server) {
    let site = Site::new();
    site.write("origin.yaml", &origin.manifest("origin"));
    site.write("open.yaml", &ingress("open", "open.test", "/", "origin"));
    site.write("route.yaml", &carried("open", spec));
    let server = site.start();
    (site, server)
}

pub(super) fn open(site: &Site, server: &Server, path: &str, further: &[&str]) -> Reply {
    curl(site, server.https, "-", "open.test", path, further)
}

/// A field of the head, which stands there in lower case.
pub(super) fn field(reply: &Reply, name: &str) -> Option<String> {
    let mut lines = reply.head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(it, _)| *it == name).map(|(_, value)| value.trim().to_owned())
}

/// A header that the backend got.
fn told(reply: &Reply, name: &str) -> Vec<String> {
    let told = reply.told();
    let fields = told["headers"].as_array().into_iter().flatten();
    let values = fields.filter(|field| field[0] == name).filter_map(|field| field[1].as_str());
    values.map(str::to_owned).collect()
}

#[test]
fn long_targets_and_bodies_are_refused_by_their_codes() {
    let (site, server) = site("limits: {target: 64, requestBody: 1Ki}");
    std::fs::write(site.path("small"), [b'x'; 1024]).unwrap();
    std::fs::write(site.path("large"), [b'x'; 1025]).unwrap();
    let upload = |name: &str| format!("@{}", site.path(name).display());
    let (small, large) = (upload("small"), upload("large"));
    let fitting = format!("/{}?{}", "a".repeat(32), "b".repeat(30));
    let long = format!("{fitting}b");
    for http in ["--http1.1", "--http2"] {
        assert_eq!(open(&site, &server, &long, &[http]).code(), "414");
        assert_eq!(open(&site, &server, &fitting, &[http]).status, 200);
        let sent = |file: &str, further: &[&str]| {
            let options = [&["--data-binary", file, http], further].concat();
            open(&site, &server, "/", &options)
        };
        assert_eq!(sent(&small, &[]).told()["bodyLength"], 1024);
        assert_eq!(sent(&large, &[]).code(), "413", "by its length");
        let chunked = ["-H", "Transfer-Encoding: chunked"];
        assert_eq!(sent(&small, &chunked).told()["bodyLength"], 1024);
        assert_eq!(sent(&large, &chunked).code(), "413", "as it comes");
        // The target is judged before anybody asks who is calling, the body after.
        assert_eq!(curl(&site, server.https, "-", "app.test", &long, &[http]).code(), "414");
        let body = ["--data-binary", &large, http];
        assert_eq!(curl(&site, server.https, "-", "app.test", "/", &body).code(), "403.7");
        assert_eq!(curl(&site, server.https, "alice", "app.test", "/", &body).code(), "413");
    }
    let line = server.logged(|line| line.contains("\"413\""));
    assert!(line.contains("longer than the route admits"), "{line}");
}

/// What is answered to a long body by the time that all of it is sent.
fn posted(mut stream: impl Read + Write, host: &str) -> u16 {
    let length = 8 << 20;
    write!(stream, "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n").unwrap();
    stream.flush().unwrap();
    for _ in 0..length >> 16 {
        stream.write_all(&[b'x'; 1 << 16]).unwrap();
    }
    reply(&mut stream).unwrap().status
}

#[test]
fn a_client_that_is_still_sending_gets_to_read_why_it_is_refused() {
    let (site, server) = site("limits: {requestBody: 64Ki}");
    std::fs::write(site.path("large"), vec![b'x'; 2 << 20]).unwrap();
    let large = format!("@{}", site.path("large").display());
    for http in ["--http1.1", "--http2"] {
        for further in [&["-H", "Transfer-Encoding: chunked"][..], &["-H", "Expect:"], &[]] {
            let options = [&["--data-binary", &large, http], further].concat();
            assert_eq!(open(&site, &server, "/", &options).code(), "413", "{options:?}");
            let who = curl(&site, server.https, "-", "app.test", "/", &options);
            assert_eq!(who.code(), "403.7", "{options:?}");
        }
    }
    // One that reads nothing before it has sent everything.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (name, ports) in [("empty", &[][..]), ("closed", &[nobody])] {
        server.edit(&format!("{name}.yaml"), &service(name, ports));
        let host = format!("{name}.test");
        server.edit(&format!("{name}-ingress.yaml"), &ingress(name, &host, "/", name));
    }
    for (host, status) in [
        ("open.test", 413),
        ("nowhere.test", 404),
        ("no name", 400),
        ("empty.test", 503),
        ("closed.test", 502),
    ] {
        assert_eq!(posted(TcpStream::connect(server.http).unwrap(), host), status, "{host}");
    }
    // A refusal that ends the connection as well.
    for version in [&TLS12, &TLS13] {
        let client = Client::new(&site.server_ca, None, version);
        assert_eq!(posted(client.connect(server.https, "app.test"), "app.test"), 403);
    }
}

const CORS: &str = "cors: {allowOrigins: ['https://*.corp.example'], allowMethods: [GET, PUT], exposeHeaders: [X-Total], allowCredentials: true, maxAge: 10m}";
const ORIGIN: [&str; 2] = ["-H", "Origin: https://a.corp.example"];
const PREFLIGHT: [&str; 6] = [
    "-X",
    "OPTIONS",
    "-H",
    "Access-Control-Request-Method: PUT",
    "-H",
    "Access-Control-Request-Headers: x-token",
];

#[test]
fn a_preflight_is_answered_without_a_certificate_and_leads_to_nobody() {
    let fields = "responseHeaders: {set: [{name: Strict-Transport-Security, value: max-age=1}]}";
    let (site, server) = site(&format!("{CORS}\n{fields}"));
    let app =
        |who: &str, further: &[&str]| curl(&site, server.https, who, "app.test", "/", further);
    for http in ["--http1.1", "--http2"] {
        let reply = app("-", &[&ORIGIN[..], &PREFLIGHT, &[http]].concat());
        assert_eq!((reply.status, reply.body.as_str()), (204, ""), "{reply:?}");
        for (name, value) in [
            ("access-control-allow-origin", "https://a.corp.example"),
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-methods", "get, put"),
            ("access-control-allow-headers", "x-token"),
            ("access-control-max-age", "600"),
            ("strict-transport-security", "max-age=1"),
        ] {
            assert_eq!(field(&reply, name).as_deref(), Some(value), "{name}");
        }
        let evil = ["-H", "Origin: https://evil.example", http];
        let reply = app("-", &[&evil[..], &PREFLIGHT].concat());
        assert_eq!(reply.status, 204);
        assert!(!reply.head.contains("access-control-allow"), "{}", reply.head);
    }
    // The same connection serves nothing else without a certificate.
    assert_eq!(app("-", &[&["-X", "OPTIONS"][..], &ORIGIN].concat()).code(), "403.7");
    assert_eq!(app("-", &PREFLIGHT).code(), "403.7", "without an origin it is none");
    assert_eq!(site.backend.requests.load(Ordering::SeqCst), 0);
    let refused = app("-", &ORIGIN);
    assert_eq!(refused.code(), "403.7");
    let allowed = field(&refused, "access-control-allow-origin");
    assert_eq!(allowed.as_deref(), Some("https://a.corp.example"), "scripts may read why");
    let reply = app("alice", &ORIGIN);
    assert_eq!((reply.status, &reply.told()["user"]), (200, &"azureuser".into()));
    assert_eq!(field(&reply, "access-control-expose-headers").as_deref(), Some("x-total"));
    assert_eq!(field(&reply, "vary").as_deref(), Some("origin"));
    server.delete("app-route.yaml");
    let reply = app("-", &[&ORIGIN[..], &PREFLIGHT].concat());
    assert_eq!(reply.code(), "403.7", "without cors nobody answers a preflight for the backend");
}

#[test]
fn http_is_redirected_where_the_route_says_so() {
    let (site, server) = site("httpsRedirect: true");
    let reply = curl_http(server.http, "open.test", "/a?b=c", &[]);
    assert_eq!(reply.code(), "308");
    assert_eq!(field(&reply, "location").as_deref(), Some("https://open.test/a?b=c"));
    assert_eq!(open(&site, &server, "/a?b=c", &[]).told()["target"], "/a?b=c");
    // Who names our port finds the other one, however the host is written.
    let host = format!("open.test:{}", server.http.port());
    let elsewhere = format!("https://open.test:{}/a?b=c", server.https.port());
    for http in ["--http1.1", "--http2-prior-knowledge"] {
        let reply = curl_http(server.http, &host, "/a?b=c", &[http]);
        assert_eq!(field(&reply, "location").as_ref(), Some(&elsewhere), "{http}");
    }
    server.edit("route.yaml", &carried("open", "httpsRedirect: false"));
    assert_eq!(curl_http(server.http, "open.test", "/", &[]).status, 200);
}

#[test]
fn an_address_that_asks_too_often_has_to_wait_and_an_account_wherever_it_is() {
    let (site, server) = site("rateLimits: [{per: ClientAddress, requests: 3, period: 1h}]");
    let get = || open(&site, &server, "/", &["--http2"]);
    for _ in 0..3 {
        assert_eq!(get().status, 200);
    }
    let reply = get();
    assert_eq!(reply.code(), "429");
    let wait: u64 = field(&reply, "retry-after").unwrap().parse().unwrap();
    assert!((1100..=1200).contains(&wait), "{wait}");
    let problem = open(&site, &server, "/", &["-H", "Accept: application/json"]);
    assert_eq!(problem.told()["code"], "429");
    server.logged(|line| line.contains("\"429\"") && line.contains("rate limit"));
    // Another policy counts for itself, and before anybody asks who is calling.
    for code in ["403.7", "403.7", "403.7", "429"] {
        assert_eq!(curl(&site, server.https, "-", "app.test", "/", &[]).code(), code);
    }
    let limit = "rateLimits: [{per: Account, requests: 2, period: 1h}]";
    server.edit("app-route.yaml", &carried("app", limit));
    let app = |who: &str| curl(&site, server.https, who, "app.test", "/", &[]).code();
    assert_eq!([app("alice"), app("alice"), app("alice")], ["200", "200", "429"]);
    assert_eq!([app("-"), app("-"), app("-")], ["403.7"; 3], "who is refused uses nothing up");
    // A change elsewhere in the policy gives nobody a new start.
    server.edit("app-route.yaml", &carried("app", &format!("{limit}\nhttpsRedirect: true")));
    assert_eq!(app("alice"), "429");
}

#[test]
fn host_path_and_fields_are_what_the_route_makes_of_them() {
    let spec = "rewrite: {host: app.internal, path: {replacePrefix: /v1}}\nrequestHeaders: {set: [{name: X-Env, value: prod}], add: [{name: X-Tag, value: b}], remove: [X-Debug]}\nresponseHeaders: {set: [{name: Strict-Transport-Security, value: max-age=1}], remove: [X-Powered-By]}";
    let (site, server) = site(spec);
    let ingress = ingress_with("open", "open.test", &[("/shop", "Prefix", "echo")]);
    server.edit("open.yaml", &ingress);
    for http in ["--http1.1", "--http2"] {
        let fields = ["-H", "X-Env: theirs", "-H", "X-Tag: a", "-H", "X-Debug: 1", http];
        let hop = ["-H", "Connection: X-Env, X-Tag"];
        let further = if http == "--http1.1" { &hop[..] } else { &[] };
        let reply = open(&site, &server, "/shop/c%61rt?q=/shop", &[&fields, further].concat());
        assert_eq!(reply.told()["target"], "/v1/cart?q=/shop");
        assert_eq!(told(&reply, "host"), ["app.internal"]);
        assert_eq!(told(&reply, "x-forwarded-host"), ["open.test"]);
        assert_eq!(told(&reply, "x-env"), ["prod"]);
        let tags: &[&str] = if further.is_empty() { &["a", "b"] } else { &["b"] };
        assert_eq!(told(&reply, "x-tag"), tags);
        assert!(told(&reply, "x-debug").is_empty());
        assert_eq!(field(&reply, "strict-transport-security").as_deref(), Some("max-age=1"));
    }
    assert_eq!(open(&site, &server, "/shop", &[]).told()["target"], "/v1");
    // A path with two readings could become another one behind the new prefix.
    for path in ["/shop/../admin", "/shop/..%2fadmin", "/shop/%2e%2e/admin", "/shop//x"] {
        assert_eq!(open(&site, &server, path, &["--path-as-is"]).code(), "400", "{path}");
    }
    // Who is calling is told all the same, and our own pages have the response's fields.
    let reply = curl(&site, server.https, "alice", "app.test", "/x", &[]);
    let told = reply.told();
    assert_eq!((&told["user"], &told["target"]), (&"azureuser".into(), &"/v1/x".into()));
    let refused = curl(&site, server.https, "-", "app.test", "/x", &[]);
    assert_eq!(refused.code(), "403.7");
    assert!(refused.head.contains("strict-transport-security: max-age=1"), "{}", refused.head);
}

const COMPRESS: &str = "compression: {codings: [br, zstd, gzip], types: [text/*], least: 100}";

#[test]
fn answers_are_compressed_for_clients_that_accept_it() {
    let text: String = (0..20_000).map(|n| format!("{n} ")).collect();
    let plain = "Content-Type: text/plain\r\nETag: \"x\"\r\n";
    let origin = Origin::start(&[
        ("/text", answer("200 OK", plain, text.as_bytes())),
        ("/short", answer("200 OK", plain, b"short")),
        ("/image", answer("200 OK", "Content-Type: image/png\r\n", text.as_bytes())),
        (
            "/done",
            answer(
                "200 OK",
                "Content-Type: text/plain\r\nContent-Encoding: x\r\n",
                text.as_bytes(),
            ),
        ),
        (
            "/part",
            answer(
                "206 Partial Content",
                "Content-Type: text/plain\r\nContent-Range: bytes 0-9/10\r\n",
                text.as_bytes(),
            ),
        ),
    ]);
    let (site, server) = site_of(&origin, COMPRESS);
    for http in ["--http1.1", "--http2"] {
        for coding in ["br", "zstd", "gzip"] {
            let accept = format!("Accept-Encoding: {coding}");
            let reply = open(&site, &server, "/text", &["--compressed", "-H", &accept, http]);
            assert_eq!(field(&reply, "content-encoding").as_deref(), Some(coding), "{reply:?}");
            assert_eq!(field(&reply, "etag").as_deref(), Some("w/\"x\""));
            assert_eq!(field(&reply, "vary").as_deref(), Some("accept-encoding"));
            assert!(!reply.head.contains("content-length"), "{}", reply.head);
            assert!(reply.body == text, "{coding} {http}: {} octets", reply.body.len());
        }
        let reply = open(&site, &server, "/text", &[http]);
        assert!(!reply.head.contains("content-encoding") && reply.body == text);
        assert_eq!(field(&reply, "vary").as_deref(), Some("accept-encoding"));
        let reply =
            open(&site, &server, "/text", &["-H", "Accept-Encoding: br;q=0, gzip;q=0", http]);
        assert!(!reply.head.contains("content-encoding"), "{}", reply.head);
        let unchanged = ["-H", "Accept-Encoding: br", "-H", "Cache-Control: no-transform", http];
        let reply = open(&site, &server, "/text", &unchanged);
        assert!(!reply.head.contains("content-encoding") && reply.body == text);
    }
    for path in ["/short", "/image", "/part"] {
        let reply = open(&site, &server, path, &["-H", "Accept-Encoding: br"]);
        assert!(!reply.head.contains("content-encoding"), "{path}: {}", reply.head);
    }
    let reply = open(&site, &server, "/done", &["-H", "Accept-Encoding: br"]);
    assert_eq!(field(&reply, "content-encoding").as_deref(), Some("x"));
    server.edit("route.yaml", &carried("open", "httpsRedirect: false"));
    let reply = open(&site, &server, "/text", &["-H", "Accept-Encoding: br"]);
    assert!(!reply.head.contains("content-encoding"), "off unless it is wanted");
}

#[test]
fn head_and_not_modified_say_what_would_be_said_of_the_compressed_answer() {
    let of_text = "Content-Type: text/plain\r\nETag: \"x\"\r\nAccept-Ranges: bytes\r\n";
    let alone = |status: &str, fields: &str| {
        vec![format!("HTTP/1.1 {status}\r\n{fields}\r\n").into_bytes()]
    };
    let long = format!("{of_text}Content-Length: 1000\r\n");
    let origin = Origin::start(&[
        ("/long", alone("200 OK", &long)),
        ("/unknown", alone("200 OK", of_text)),
        ("/short", alone("200 OK", &format!("{of_text}Content-Length: 99\r\n"))),
        ("/empty", alone("200 OK", &format!("{of_text}Content-Length: 0\r\n"))),
        ("/image", alone("200 OK", &long.replace("text/plain", "image/png"))),
        ("/same", alone("304 Not Modified", "ETag: \"x\"\r\nContent-Length: 1000\r\n")),
        ("/same-text", alone("304 Not Modified", &format!("{of_text}Content-Length: 0\r\n"))),
        ("/same-image", alone("304 Not Modified", &long.replace("text/plain", "image/png"))),
    ]);
    let (site, server) = site_of(&origin, COMPRESS);
    let of = |reply: &Reply| {
        ["vary", "content-encoding", "etag", "content-length", "accept-ranges"]
            .map(|name| field(reply, name).unwrap_or_default())
    };
    for http in ["--http1.1", "--http2"] {
        let asked = |path: &str, further: &[&str]| {
            let reply = open(&site, &server, path, &[&[http], further].concat());
            assert_eq!(reply.body, "", "{path}");
            of(&reply)
        };
        let gzip = ["--head", "-H", "Accept-Encoding: gzip"];
        for path in ["/long", "/unknown"] {
            let compressed = ["accept-encoding", "gzip", "w/\"x\"", "", ""];
            assert_eq!(asked(path, &gzip), compressed, "{path} {http}");
        }
        let plain = ["accept-encoding", "", "\"x\"", "1000", "bytes"];
        assert_eq!(asked("/long", &["--head"]), plain, "{http}");
        let no_transform = [&gzip[..], &["-H", "Cache-Control: max-age=0, No-Transform"]].concat();
        assert_eq!(asked("/long", &no_transform), plain, "{http}");
        for (path, length) in [("/short", "99"), ("/empty", "0"), ("/image", "1000")] {
            let left = ["", "", "\"x\"", length, "bytes"];
            assert_eq!(asked(path, &gzip), left, "{path} {http}");
        }
        for path in ["/same", "/same-text"] {
            let compressed = ["accept-encoding", "", "w/\"x\"", "", ""];
            assert_eq!(asked(path, &gzip[1..]), compressed, "{path} {http}");
            let plain = asked(path, &[]);
            assert_eq!([&*plain[0], &*plain[2]], ["accept-encoding", "\"x\""], "{path} {http}");
        }
        let image = asked("/same-image", &gzip[1..]);
        assert_eq!([&*image[0], &*image[2]], ["", "\"x\""], "{http}");
    }
}

#[test]
fn what_a_backend_has_sent_is_not_held_back() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: KIND\r\nTransfer-Encoding: chunked\r\n\r\n";
    let events = |kind: &str| {
        let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
        let first = format!("{}{}", head.replace("KIND", kind), chunk("data: first\n\n"));
        vec![first.into_bytes(), format!("{}0\r\n\r\n", chunk("data: last\n\n")).into_bytes()]
    };
    let origin = Origin::start(&[
        ("/events", events("text/event-stream")),
        ("/lines", events("text/plain")),
    ]);
    let (_site, server) = site_of(&origin, COMPRESS);
    for (path, compressed) in [("/events", false), ("/lines", true)] {
        let mut stream = TcpStream::connect(server.http).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: open.test\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n").unwrap();
        let (mut got, mut buffer) = (Vec::new(), [0; 1024]);
        // The second event is sent only once the first one is here, whole.
        let here = |got: &[u8]| match compressed {
            false => String::from_utf8_lossy(got).contains("data: first\n\n"),
            // Of gzip: its head, and a block that was flushed.
            true => got.windows(4).any(|it| it == [0, 0, 0xFF, 0xFF]),
        };
        while !here(&got) {
            let read = stream.read(&mut buffer).expect("the first event is held back");
            assert!(read > 0, "{path}: {}", String::from_utf8_lossy(&got));
            got.extend_from_slice(&buffer[..read]);
        }
        let head = String::from_utf8_lossy(&got).to_lowercase();
        assert_eq!(head.contains("content-encoding: gzip"), compressed, "{path}");
        origin.go_on.send(()).unwrap();
        stream.read_to_end(&mut got).unwrap();
        assert!(got.ends_with(b"0\r\n\r\n"), "{path}");
    }
}

#[test]
fn pages_of_the_route_take_the_place_of_ours_and_where_it_says_so_of_the_backends() {
    let origin = Origin::start(&[
        ("/gone", answer("404 Not Found", "Content-Type: text/plain\r\nX-Why: 1\r\n", b"theirs")),
        ("/ill", answer("500 Internal Server Error", "Content-Type: text/plain\r\n", b"theirs")),
    ]);
    let site = Site::with_alice(REQUIRE);
    site.write("origin.yaml", &origin.manifest("origin"));
    site.write(
        "ingress.yaml",
        &ingress_with("app", "app.test", &[("/", "Prefix", "origin"), ("/none", "Prefix", "none")]),
    );
    site.write("pages.yaml", &config_map("pages", "denied.html", "<p>Bring a card.</p>"));
    site.write("more.yaml", &config_map("more", "any.html", "<p>Lost?</p>"));
    let spec = "errorPages:\n- {codes: ['403.7'], configMapRef: {name: pages, key: denied.html}}\n- {codes: ['404', '503'], ofBackend: true, configMapRef: {name: more, key: any.html}, contentType: text/html}";
    site.write("route.yaml", &carried("app", spec));
    let server = site.start();
    let get = |who: &str, path: &str, further: &[&str]| {
        curl(&site, server.https, who, "app.test", path, further)
    };
    let reply = get("-", "/", &[]);
    assert_eq!((reply.status, reply.body.trim()), (403, "<p>Bring a card.</p>"));
    assert!(reply.head.contains("connection: close") || reply.head.starts_with("http/2"));
    assert_eq!(field(&reply, "content-type").as_deref(), Some("text/html; charset=utf-8"));
    assert_eq!(field(&reply, "cache-control").as_deref(), Some("no-store"));
    server.logged(|line| line.contains("\"403.7\""));
    let reply = get("-", "/", &["-H", "Accept: application/json"]);
    assert_eq!(reply.told()["code"], "403.7", "programs get what programs can read");
    let reply = get("alice", "/gone", &[]);
    assert_eq!((reply.status, reply.body.trim()), (404, "<p>Lost?</p>"));
    assert_eq!(field(&reply, "x-why").as_deref(), Some("1"), "the other fields stay");
    let reply = get("alice", "/none", &[]);
    assert_eq!((reply.status, reply.body.trim()), (503, "<p>Lost?</p>"), "and of ours");
    assert_eq!(get("alice", "/ill", &[]).body, "theirs");
    server.edit("more.yaml", &config_map("more", "any.html", "<p>Found.</p>"));
    assert_eq!(get("alice", "/gone", &[]).body.trim(), "<p>Found.</p>", "a page is rotated live");
}

#[test]
fn a_page_of_the_route_in_an_answer_to_head_has_a_length_and_no_body() {
    let gone = "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\n";
    let origin = Origin::start(&[
        ("/gone", vec![gone.as_bytes().to_vec()]),
        ("/there", answer("404 Not Found", "Content-Type: text/plain\r\n", b"theirs")),
    ]);
    let (site, server) = site_of(&origin, "");
    server.edit("page.yaml", &config_map("pages", "any.html", "<p>Nothing here.</p>"));
    let spec = "limits: {target: 8}\nerrorPages: [{codes: [4xx], ofBackend: true, configMapRef: {name: pages, key: any.html}}]";
    server.edit("route.yaml", &carried("open", spec));
    for http in ["--http1.1", "--http2"] {
        let whole = open(&site, &server, "/there", &[http]);
        assert_eq!(whole.body.trim(), "<p>Nothing here.</p>");
        let length = whole.body.len().to_string();
        for (path, status) in [("/gone", 404), ("/too-long", 414)] {
            let reply = open(&site, &server, path, &[http, "--head"]);
            assert_eq!((reply.status, reply.body.as_str()), (status, ""), "{path} {http}");
            assert_eq!(field(&reply, "content-length").as_ref(), Some(&length), "{path} {http}");
            let kind = field(&reply, "content-type");
            assert_eq!(kind.as_deref(), Some("text/html; charset=utf-8"), "{path} {http}");
        }
    }
    let mut client = TcpStream::connect(server.http).unwrap();
    client
        .write_all(b"HEAD /gone HTTP/1.1\r\nHost: open.test\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 404 ") && text.ends_with("\r\n\r\n"), "{text}");
}

#[test]
fn our_answers_to_head_have_a_length_and_no_body() {
    let (site, server) = site("httpsRedirect: true");
    let mut client = H2::plain(server.http, &[]).unwrap();
    for (stream, host) in [(1, "nowhere.test"), (3, "open.test"), (5, "app.test")] {
        let request = head("HEAD", host, "/", &[]);
        client.send(&frame(HEADERS, END_STREAM | END_HEADERS, stream, &request)).unwrap();
        loop {
            match client.next().unwrap() {
                Event::Head { stream: of, end, .. } if of == stream => {
                    break assert!(end, "{host}");
                }
                Event::Other => {}
                other => panic!("{other:?}"),
            }
        }
    }
    for http in ["--http1.1", "--http2"] {
        let page = open(&site, &server, "/", &[http, "-I"]);
        assert_eq!(page.status, 200);
        let refused = curl(&site, server.https, "-", "app.test", "/", &[http, "-I"]);
        let whole = curl(&site, server.https, "-", "app.test", "/", &[http]);
        assert_eq!((refused.status, refused.body.as_str()), (403, ""));
        let length = field(&refused, "content-length").unwrap();
        assert_eq!(length, whole.body.len().to_string(), "{http}");
    }
}

#[test]
fn a_request_ends_in_time() {
    let (site, server) = site("timeouts: {request: 400ms}");
    for http in ["--http1.1", "--http2"] {
        let started = Instant::now();
        let reply = open(&site, &server, "/slow", &[http]);
        assert_eq!(reply.code(), "504", "before its answer begins");
        assert!(started.elapsed() >= Duration::from_millis(400));
        // 5 seconds of chunks: they begin and are cut.
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "20", http, "--cacert"]).arg(site.path("server-ca.crt"));
        command.args(["--connect-to", &format!("::127.0.0.1:{}", server.https.port())]);
        let started = Instant::now();
        let (whole, text) = run(command.arg("https://open.test/stream"));
        assert!(!whole && text.contains("chunk"), "{text}");
        assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    }
    assert_eq!(open(&site, &server, "/", &[]).status, 200);
    server.logged(|line| line.contains("the request took too long") && line.contains("\"504\""));
}

#[test]
fn a_client_that_does_not_read_loses_its_connection() {
    let origin =
        Origin::start(&[("/", answer("200 OK", "Content-Type: x/y\r\n", &vec![b'x'; 64 << 20]))]);
    let (_site, server) = site_of(&origin, "timeouts: {idle: 200ms}");
    let mut stream = TcpStream::connect(server.http).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: open.test\r\n\r\n").unwrap();
    let open = || {
        let (_, text) = server.admin("/metrics");
        let line = text.lines().find(|line| line.starts_with("certmap_connections_open "));
        line.and_then(|line| line.split(' ').nth(1)?.parse::<u64>().ok())
    };
    wait("the connection to begin", || open() == Some(1));
    wait("the connection to end", || open() == Some(0));
    let mut got = Vec::new();
    drop(stream.read_to_end(&mut got));
    assert!(got.len() < 64 << 20);
}

#[test]
fn others_on_the_connection_do_not_pay_for_a_client_that_does_not_read() {
    let (_site, server) = site("timeouts: {idle: 300ms}");
    // SETTINGS_INITIAL_WINDOW_SIZE: of the one nothing more is taken, of the other all there is.
    let mut client = H2::plain(server.http, &[(4, 1000)]).unwrap();
    for (stream, path) in [(1, "/big"), (3, "/stream")] {
        let request = frame(HEADERS, END_STREAM | END_HEADERS, stream, &get("open.test", path));
        client.send(&request).unwrap();
    }
    loop {
        match client.next().expect("the connection is cut under a request that moves") {
            Event::Data { stream: 3, end: true, .. } => break,
            Event::Reset { stream: 3, code } => panic!("reset: {code}"),
            _ => {}
        }
    }
    // From then on nothing moves.
    while client.next().is_ok() {}
}

#[test]
fn answers_with_trailers_are_not_requests_that_were_taken_back() {
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n";
    let answer = [&head[..], b"1\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n"].concat();
    let origin = Origin::start(&[("/", vec![answer])]);
    let (_site, server) = site_of(&origin, "timeouts: {request: 60s}");
    let mut client = H2::plain(server.http, &[]).unwrap();
    for request in 0..250 {
        let stream = 2 * request + 1;
        let head = get("open.test", "/");
        client.send(&frame(HEADERS, END_STREAM | END_HEADERS, stream, &head)).unwrap();
        assert_eq!(client.outcome(stream), Some(200), "{request}");
    }
}

#[test]
fn answers_that_a_backend_breaks_off_are_not_requests_that_were_taken_back() {
    // A chunk's length that is none, after one that is.
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n".to_vec();
    let origin = Origin::start(&[("/", vec![head, b"none\r\n".to_vec()])]);
    let (_site, server) = site_of(&origin, "timeouts: {request: 60s}");
    let mut client = H2::plain(server.http, &[]).unwrap();
    for request in 0..250 {
        let stream = 2 * request + 1;
        let head = get("open.test", "/");
        client.send(&frame(HEADERS, END_STREAM | END_HEADERS, stream, &head)).unwrap();
        assert_eq!(client.outcome(stream), Some(200), "{request}");
        origin.go_on.send(()).unwrap();
        assert_eq!(client.outcome(stream), None, "it is reset");
    }
    client.send(&frame(HEADERS, END_STREAM | END_HEADERS, 501, &get("open.test", "/"))).unwrap();
    assert_eq!(client.outcome(501), Some(200), "the connection goes on");
}

#[test]
fn a_websocket_may_be_silent_for_as_long_as_the_route_says() {
    let (_site, server) = site("timeouts: {idle: 300ms}");
    let mut stream = TcpStream::connect(server.http).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"GET /ws HTTP/1.1\r\nHost: open.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nping").unwrap();
    let (mut got, started) = (String::new(), Instant::now());
    stream.read_to_string(&mut got).unwrap();
    assert!(got.starts_with("HTTP/1.1 101 ") && got.ends_with("ping"), "{got}");
    assert!(started.elapsed() >= Duration::from_millis(300));
}

#[test]
fn a_body_that_does_not_move_is_given_up() {
    let (_site, server) = site("timeouts: {idle: 300ms}");
    let mut stream = TcpStream::connect(server.http).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head = "POST / HTTP/1.1\r\nHost: open.test\r\nContent-Length: 10\r\n\r\nhalf";
    stream.write_all(head.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
    // Answers that pause for longer are cut, others not.
    let reply = curl_http(server.http, "open.test", "/stream", &[]);
    assert_eq!(reply.body.matches("chunk").count(), 50);
}

#[test]
fn an_answer_whose_head_comes_late_has_its_time_all_the_same() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_vec();
    let early = b"HTTP/1.1 103 Early Hints\r\n\r\n".to_vec();
    let origin = Origin::start(&[("/", vec![early, head, b"whole".to_vec()])]);
    let (site, server) = site_of(&origin, "timeouts: {idle: 1s}");
    for http in ["--http1.1", "--http2-prior-knowledge"] {
        let reply = std::thread::scope(|scope| {
            let reply = scope.spawn(|| curl_http(server.http, "open.test", "/", &[http]));
            for pause in [1300, 300] {
                std::thread::sleep(Duration::from_millis(pause));
                origin.go_on.send(()).unwrap();
            }
            reply.join().unwrap()
        });
        assert_eq!((reply.status, reply.body.as_str()), (200, "whole"), "{http}");
    }
    drop(site);
}

/// app.test, compressing whatever it answers.
fn programs() -> (Site, Server) {
    site(
        "compression: {codings: [br, gzip], types: ['application/json'], least: 1}\nresponseHeaders: {set: [{name: Content-Type, value: application/json}]}",
    )
}

/// Each line that a program printed.
fn lines(command: &mut Command) -> Vec<serde_json::Value> {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{err}{out}");
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn clients(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

#[test]
fn javas_client_gets_them_with_a_certificate_over_both_protocols() {
    let (site, server) = programs();
    let p12 = site.path("alice.p12");
    let mut openssl = Command::new("openssl");
    openssl.args(["pkcs12", "-export", "-passout", "pass:x", "-name", "alice", "-in"]);
    openssl.arg(site.path("alice.crt")).arg("-inkey").arg(site.path("alice.key"));
    let (ok, text) = run(openssl.arg("-out").arg(&p12));
    assert!(ok, "{text}");
    std::fs::write(site.path("hosts"), "127.0.0.1 app.test\n").unwrap();
    let base = format!("https://app.test:{}", server.https.port());
    for version in ["HTTP_2", "HTTP_1_1"] {
        let java = |p12: &std::path::Path| {
            let mut java = Command::new("java");
            java.args(["-Xshare:auto", "-XX:TieredStopAtLevel=1"]);
            java.arg(format!("-Djdk.net.hosts.file={}", site.path("hosts").display()));
            java.arg(clients("Client.java")).args([&base, version]);
            lines(java.arg(site.path("server-ca.crt")).arg(p12))
        };
        let answers = java(&p12);
        assert_eq!(answers.len(), 22);
        for answer in &answers {
            assert_eq!((&answer["version"], &answer["status"]), (&version.into(), &200.into()));
            assert_eq!(answer["body"]["user"], "azureuser", "{answer}");
        }
        assert_eq!(answers[20]["body"]["bodyLength"], 1 << 20);
        assert_eq!(answers[21]["coding"], "gzip");
        let refused = java("-".as_ref());
        assert_eq!((refused.len(), &refused[0]["body"]), (1, &"403.7".into()), "{refused:?}");
    }
}

#[test]
fn nodes_fetch_gets_them_with_a_certificate_and_so_does_its_http2() {
    let (site, server) = programs();
    let node = |who: &str| {
        let file = |kind: &str| match who {
            "-" => "-".into(),
            _ => site.path(&format!("{who}.{kind}")),
        };
        let mut node = Command::new("node");
        node.arg(clients("client.mjs")).args(["app.test", &server.https.port().to_string()]);
        lines(node.arg(site.path("server-ca.crt")).arg(file("crt")).arg(file("key")))
    };
    let answers = node("alice");
    for (client, count) in [("fetch", 22), ("http2", 21)] {
        let of: Vec<_> = answers.iter().filter(|answer| answer["client"] == client).collect();
        assert_eq!(of.len(), count, "{answers:?}");
        assert!(of.iter().all(|answer| answer["body"]["user"] == "azureuser"), "{of:?}");
        assert_eq!(of[20]["body"]["bodyLength"], 1 << 20);
    }
    assert_eq!(answers[21]["coding"], "br", "and fetch has undone it: {}", answers[21]);
    let refused = node("-");
    assert_eq!(refused.len(), 2);
    assert!(refused.iter().all(|answer| answer["body"] == "403.7"), "{refused:?}");
}
