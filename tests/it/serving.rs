//! What an ingress carries: routes, backends, bodies, upgrades, and how it says no.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustls::version::TLS13;
use serde_json::Value;

use super::support::backend::Backend;
use super::support::clients::{Go, curl, curl_http};
use super::support::frames::{
    self, DATA, END_HEADERS, END_STREAM, Event, H2, HEADERS, frame, head,
};
use super::support::manifests::{ingress, ingress_with, policy, service};
use super::support::server::Server;
use super::support::tls::{Client, get, reply, request};
use super::support::{REQUIRE, Site};

#[test]
fn the_longest_path_of_the_most_exact_host_wins() {
    let site = Site::new();
    let paths = [
        ("/", "Prefix"),
        ("/foo", "Prefix"),
        ("/foo", "Exact"),
        ("/foo/bar/", "ImplementationSpecific"),
    ];
    let backends: Vec<Backend> = paths.iter().map(|_| Backend::start()).collect();
    let names: Vec<String> = (0..paths.len()).map(|index| format!("p{index}")).collect();
    for (name, backend) in names.iter().zip(&backends) {
        site.write(&format!("{name}.yaml"), &backend.manifest(name));
    }
    let rules: Vec<(&str, &str, &str)> = paths
        .iter()
        .zip(&names)
        .map(|((path, kind), name)| (*path, *kind, name.as_str()))
        .collect();
    site.write("ingress.yaml", &ingress_with("app", "app.test", &rules));
    site.write("wild.yaml", &ingress("wild", "*.app.test", "/", "p1"));
    site.write("any.yaml", "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: any, namespace: web}\nspec: {ingressClassName: certmap, defaultBackend: {service: {name: p3, port: {number: 80}}}}\n");
    let server = site.start();
    for (host, path, expected) in [
        ("app.test", "/", Some(0)),
        ("app.test", "/foo", Some(2)),
        ("app.test", "/foo/", Some(1)),
        ("app.test", "/foo/x?y=1", Some(1)),
        ("app.test", "/foobar", Some(0)),
        ("app.test", "/foo/bar", Some(3)),
        ("app.test", "/foo/bar/baz", Some(3)),
        ("x.app.test", "/foo", Some(1)),
        ("x.y.app.test", "/foo", Some(3)),
        ("elsewhere.test", "/", Some(3)),
    ] {
        let told = curl_http(server.http, host, path, &[]).told();
        assert_eq!(
            told["port"].as_u64(),
            expected.map(|index: usize| backends[index].port.into()),
            "{host}{path}"
        );
        assert_eq!(told["target"], path);
    }
    server.delete("any.yaml");
    assert_eq!(curl_http(server.http, "elsewhere.test", "/", &[]).code(), "404");
}

#[test]
fn each_path_has_the_policy_of_its_own_ingress() {
    let site = Site::with_alice(REQUIRE);
    site.write("public.yaml", &ingress("public", "app.test", "/public", "echo"));
    let server = site.start();
    assert_eq!(curl(&site, server.https, "-", "app.test", "/", &[]).code(), "403.7");
    assert_eq!(curl(&site, server.https, "-", "app.test", "/public/x", &[]).status, 200);
    assert_eq!(curl(&site, server.https, "-", "app.test", "/publication", &[]).code(), "403.7");
}

#[test]
fn endpoints_take_turns_over_kept_connections() {
    let site = Site::new();
    let more = [Backend::start(), Backend::start()];
    site.write("backend.yaml", &service("echo", &[more[0].port, more[1].port]));
    let server = site.start();
    let mut stream = TcpStream::connect(server.http).unwrap();
    for _ in 0..10 {
        assert_eq!(get(&mut stream, "open.test", "/").status, 200);
    }
    for backend in &more {
        assert_eq!(backend.requests.load(Ordering::SeqCst), 5);
        assert_eq!(backend.connections.load(Ordering::SeqCst), 1, "the connection is kept");
    }
}

#[test]
fn what_is_wrong_with_a_backend_can_be_told_apart() {
    let site = Site::new();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let rude = TcpListener::bind("127.0.0.1:0").unwrap();
    let rude_port = rude.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in rude.incoming().flatten() {
            drop(stream);
        }
    });
    for (name, ports) in [
        ("none", &[][..]),
        ("closed", &[closed]),
        ("rude", &[rude_port]),
        ("half", &[closed, site.backend.port]),
    ] {
        site.write(&format!("{name}.yaml"), &service(name, ports));
        site.write(
            &format!("{name}-ingress.yaml"),
            &ingress(name, &format!("{name}.test"), "/", name),
        );
    }
    site.write("gone-ingress.yaml", &ingress("gone", "gone.test", "/", "gone"));
    let server = site.start();
    for (host, expected) in
        [("none.test", "503"), ("gone.test", "503"), ("closed.test", "502"), ("rude.test", "502")]
    {
        assert_eq!(curl_http(server.http, host, "/", &[]).code(), expected, "{host}");
    }
    server.said(&["gone-ingress.yaml:", "Service web/gone does not exist"]);
    for _ in 0..4 {
        // A connection that cannot be made is tried elsewhere, body and all.
        let posted = curl_http(server.http, "half.test", "/", &["-d", "hello"]);
        assert_eq!(
            (posted.status, posted.told()["bodyLength"].as_u64()),
            (200, Some(5)),
            "{posted:?}"
        );
    }
}

#[test]
fn a_backend_that_says_nothing_is_not_waited_for_forever() {
    let site = Site::new();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    site.write("silent.yaml", &service("silent", &[silent.local_addr().unwrap().port()]));
    site.write("silent-ingress.yaml", &ingress("silent", "silent.test", "/", "silent"));
    let options = ["--response-timeout", "0.3"];
    let server = Server::start_with(&site.manifests(), &site.path("access.log"), "json", &options);
    assert_eq!(curl_http(server.http, "silent.test", "/", &[]).code(), "504");
    assert_eq!(curl_http(server.http, "open.test", "/", &[]).status, 200);
    server.logged(|line| {
        line.contains("does not answer in time") && line.contains("\"code\":\"504\"")
    });
}

#[test]
fn a_connection_without_requests_is_not_kept_forever() {
    let site = Site::with_alice(REQUIRE);
    let options = ["--idle-timeout", "0.3"];
    let server = Server::start_with(&site.manifests(), &site.path("access.log"), "json", &options);
    let client = Client::new(&site.server_ca, Some(&site.alice), &TLS13);
    let mut used = TcpStream::connect(server.http).unwrap();
    assert_eq!(
        get(&mut used, "open.test", "/slow").status,
        200,
        "a request that lasts longer is no rest"
    );
    let mut shaken = client.connect(server.https, "app.test");
    drop(shaken.flush());
    let mut silent = TcpStream::connect(server.http).unwrap();
    for stream in [&mut used as &mut dyn Read, &mut silent, &mut shaken] {
        let started = Instant::now();
        drop(stream.read(&mut [0]));
        assert!(started.elapsed() < Duration::from_secs(3), "it is kept");
    }
}

#[test]
fn bodies_stream_both_ways() {
    let site = Site::new();
    let server = site.start();
    let mut stream = TcpStream::connect(server.http).unwrap();
    let started = Instant::now();
    stream.write_all(b"GET /stream HTTP/1.1\r\nHost: open.test\r\n\r\n").unwrap();
    let (mut text, mut buffer) = (String::new(), [0; 256]);
    while !text.contains("chunk") {
        let read = stream.read(&mut buffer).unwrap();
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    assert!(started.elapsed() < Duration::from_secs(2), "the first chunk waits for the last");
    let body = site.path("body");
    std::fs::write(&body, vec![b'x'; 20 << 20]).unwrap();
    for http in ["--http1.1", "--http2"] {
        let upload = format!("@{}", body.display());
        let told =
            curl(&site, server.https, "-", "open.test", "/", &[http, "--data-binary", &upload])
                .told();
        assert_eq!(told["bodyLength"].as_u64(), Some(20 << 20));
    }
}

#[test]
fn websockets_go_through_and_end_with_their_permit() {
    let site = Site::with_alice(REQUIRE);
    let server = site.start();
    let client = Client::new(&site.server_ca, Some(&site.alice), &TLS13);
    let mut stream = client.connect(server.https, "app.test");
    let upgrade = "GET /ws HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    let switched = request(&mut stream, upgrade);
    assert_eq!(switched.status, 101, "{switched:?}");
    let mut echo = |text: &[u8]| {
        stream.write_all(text).unwrap();
        stream.flush().unwrap();
        let mut back = vec![0; text.len()];
        stream.read_exact(&mut back).map(|()| assert_eq!(back, text))
    };
    echo(b"hello").unwrap();
    // Without a certificate there is no upgrade either.
    let none = Client::new(&site.server_ca, None, &TLS13);
    assert_eq!(request(&mut none.connect(server.https, "app.test"), upgrade).code(), "403.7");
    // Over HTTP/2 (RFC 8441).
    let further = [(&b":protocol"[..], &b"websocket"[..]), (b"sec-websocket-version", b"13")];
    let connect = frame(HEADERS, END_HEADERS, 1, &head("CONNECT", "app.test", "/ws", &further));
    let h2 = |client: Client| {
        let stream = client.with_alpn("h2").connect(server.https, "app.test");
        let mut h2 = H2::over(stream, &[]).unwrap();
        h2.send(&connect).unwrap();
        let status = h2.outcome(1);
        (h2, status)
    };
    assert_eq!(h2(none).1, Some(403));
    let (mut h2, status) = h2(client);
    assert_eq!(status, Some(200));
    h2.send(&frame(DATA, 0, 1, b"hello")).unwrap();
    let back = h2.settled().0;
    assert!(back.iter().all(|event| !matches!(event, Event::Reset { .. })), "{back:?}");
    server.edit(
        "policy.yaml",
        &policy(
            "app",
            "app",
            &site
                .alice_spec(REQUIRE)
                .replace("- name: alice-laptop", "- name: alice-laptop\n    enabled: false"),
        ),
    );
    super::support::server::wait("the end of the tunnel", || {
        let mut octet = [0];
        stream.write_all(b"x").is_err()
            || stream.flush().is_err()
            || stream.read(&mut octet).is_ok_and(|read| read == 0)
    });
    super::support::server::wait("the end of the tunnel over HTTP/2", || {
        let (events, goes_on) = h2.settled();
        assert!(goes_on, "the connection goes on");
        // An end would say that this was the whole.
        let whole = |event: &Event| matches!(event, Event::Data { stream: 1, end: true, .. });
        assert!(!events.iter().any(whole), "{events:?}");
        events.iter().any(|event| matches!(event, Event::Reset { stream: 1, .. }))
    });
    // What is refused now is the account, and not this connection.
    h2.send(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &frames::get("app.test", "/"))).unwrap();
    assert_eq!(h2.outcome(3), Some(401));
}

#[test]
fn http_is_refused_or_sent_to_https() {
    let site = Site::with_alice(REQUIRE);
    let server = site.start();
    assert_eq!(curl_http(server.http, "app.test", "/", &[]).code(), "403.4");
    let spec = site.alice_spec(REQUIRE) + "httpsRedirect: true\n";
    server.edit("policy.yaml", &policy("app", "app", &spec));
    let redirected = curl_http(server.http, "app.test", "/a?b=c", &[]);
    assert_eq!(redirected.status, 308);
    assert!(redirected.head.contains("location: https://app.test/a?b=c"), "{}", redirected.head);
    let mut stream = TcpStream::connect(server.http).unwrap();
    let own_port = get(&mut stream, &format!("app.test:{}", server.http.port()), "/");
    assert!(
        own_port.head.contains(&format!("location: https://app.test:{}/", server.https.port())),
        "{}",
        own_port.head
    );
}

#[test]
fn a_refusal_is_a_page_or_problem_details() {
    let site = Site::with_alice(REQUIRE);
    let server = site.start();
    let page = curl(&site, server.https, "-", "app.test", "/", &["-H", "Accept: text/html"]);
    assert!(
        page.head.contains("content-type: text/html")
            && page.body.contains("403.7 Client certificate required")
    );
    let problem =
        curl(&site, server.https, "-", "app.test", "/", &["-H", "Accept: application/json"]);
    assert!(problem.head.contains("content-type: application/problem+json"), "{}", problem.head);
    let fields: Value = serde_json::from_str(&problem.body).unwrap();
    assert_eq!((&fields["status"], &fields["code"]), (&403.into(), &"403.7".into()));
    for field in ["type", "title", "detail", "requestId"] {
        assert!(fields[field].is_string(), "{field}");
    }
    let id = fields["requestId"].as_str().unwrap();
    assert!(problem.head.contains(&format!("x-request-id: {id}")));
    let line: Value = serde_json::from_str(&server.logged(|line| line.contains(id))).unwrap();
    assert_eq!((&line["code"], &line["policy"]), (&"403.7".into(), &"web/app".into()));
    assert_eq!(line["trace"][0], "connection: refused: no certificate was sent");
}

#[test]
fn the_end_waits_for_what_is_open() {
    let site = Site::with_alice(REQUIRE);
    let mut server = site.start();
    let mut open = TcpStream::connect(server.http).unwrap();
    open.write_all(b"GET /slow HTTP/1.1\r\nHost: open.test\r\n\r\n").unwrap();
    super::support::server::wait("the request", || {
        site.backend.requests.load(Ordering::SeqCst) == 1
    });
    server.terminate();
    let answer = reply(&mut open).unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("connection: close"), "{}", answer.head);
    assert_eq!(server.exit_code(), Some(0));
    assert!(TcpStream::connect(server.http).is_err());
    server.logged(|line| line.contains("/slow") && line.contains("\"status\":200"));
}

#[test]
fn told_to_stop_it_serves_on_until_everybody_knows() {
    let site = Site::with_alice(REQUIRE);
    let mut server = Server::start_with(
        &site.manifests(),
        &site.path("access.log"),
        "json",
        &["--drain-delay", "2"],
    );
    // Built, and connected, before the end begins.
    let mut h2 = Go::start(&site, server.https, "alice", "app.test", &["-http2"]);
    assert_eq!(h2.get("/")["status"], 200);
    let mut kept = TcpStream::connect(server.http).unwrap();
    let before = get(&mut kept, "open.test", "/");
    assert!(before.status == 200 && !before.head.contains("connection: close"), "{before:?}");
    server.terminate();
    super::support::server::wait("the end of readiness", || server.admin("/readyz").0 == 503);
    assert_eq!(server.admin("/healthz").0, 200, "it is well, and is not to be killed");
    for mut stream in [kept, TcpStream::connect(server.http).unwrap()] {
        let answer = get(&mut stream, "open.test", "/");
        assert!(answer.status == 200 && answer.head.contains("connection: close"), "{answer:?}");
    }
    // Over HTTP/2: served, and told to go away (GOAWAY), so that the next request opens another connection.
    let answers = [h2.get("/"), h2.get("/")];
    assert!(answers.iter().all(|answer| answer["status"] == 200), "{answers:?}");
    assert!(answers.iter().any(|answer| answer["reused"] == false), "{answers:?}");
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn health_metrics_and_the_snapshot_tell_no_secret() {
    let site = Site::with_alice(REQUIRE);
    let server = site.start();
    assert_eq!(server.admin("/healthz").0, 200);
    assert_eq!(server.admin("/readyz").0, 200);
    assert_eq!(server.admin("/other").0, 404);
    curl(&site, server.https, "alice", "app.test", "/", &[]);
    curl(&site, server.https, "-", "app.test", "/", &[]);
    let metrics = server.admin("/metrics").1;
    for line in [
        "certmap_decisions_total{policy=\"web/app\",mechanism=\"oneToOne\",code=\"admitted\"} 1",
        "certmap_decisions_total{policy=\"web/app\",mechanism=\"none\",code=\"403.7\"} 1",
        "certmap_handshakes_total{outcome=\"ok\",version=\"TLSv1.3\",resumed=\"false\"} 2",
        "certmap_snapshot_generation 1",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    let snapshot = server.admin("/snapshot").1;
    assert!(
        snapshot.contains("web/app") && snapshot.contains("\"asksForCertificate\": true"),
        "{snapshot}"
    );
    for text in [metrics, snapshot] {
        for secret in ["azureuser", "correct-horse", "battery-staple", "Alice", "PRIVATE"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
    let mut stream = TcpStream::connect(server.admin).unwrap();
    assert_eq!(get(&mut stream, "evil.test", "/snapshot").status, 421, "DNS rebinding");
}

#[test]
fn a_log_line_cannot_be_forged() {
    let site = Site::with_alice(REQUIRE);
    let log = site.path("access.log");
    let server = Server::start(&site.manifests(), &log, "w3c");
    let agent = "x 200 0 0 1\u{2028}2026-11-23 10:00:00 forged";
    curl(
        &site,
        server.https,
        "alice",
        "app.test",
        "/a%20b?q=%0d%0a2026",
        &["-A", agent, "-e", "-"],
    );
    let line = server.logged(|line| line.contains("forged"));
    let text = std::fs::read_to_string(&log).unwrap();
    let fields = text.lines().find_map(|line| line.strip_prefix("#Fields: ")).unwrap();
    assert_eq!(line.split(' ').count(), fields.split(' ').count(), "{line}");
    assert!(
        line.contains(
            " azureuser 127.0.0.1 x+200+0+0+1%E2%80%A82026-11-23+10:00:00+forged %2D 200 0 0 "
        ),
        "{line}"
    );
}

#[test]
fn policies_can_be_demanded_of_every_ingress() {
    let site = Site::with_alice(REQUIRE);
    let server = Server::start_with(
        &site.manifests(),
        &site.path("access.log"),
        "json",
        &["--policy-required"],
    );
    assert_eq!(curl(&site, server.https, "alice", "app.test", "/", &[]).status, 200);
    assert_eq!(curl(&site, server.https, "-", "open.test", "/", &[]).code(), "503.90");
    // A class may have a policy for all Ingresses that have none of their own.
    let class = "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: certmap}\nspec:\n  controller: certmap.dev/ingress-controller\n  parameters: {apiGroup: certmap.dev, kind: CertMappingPolicy, scope: Namespace, namespace: web, name: default}\n";
    let default = "apiVersion: certmap.dev/v1alpha1\nkind: CertMappingPolicy\nmetadata: {name: default, namespace: web}\nspec: {sslFlags: [Ssl], authentication: [{anonymous: {}}]}\n";
    server.edit("class.yaml", &format!("{class}---\n{default}"));
    assert_eq!(curl(&site, server.https, "-", "open.test", "/", &[]).status, 200);
    assert_eq!(curl_http(server.http, "open.test", "/", &[]).code(), "403.4");
    assert_eq!(
        curl(&site, server.https, "-", "app.test", "/", &[]).code(),
        "403.7",
        "its own policy replaces the default whole"
    );
}
