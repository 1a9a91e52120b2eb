//! What routes demand of the handshakes of their hosts (`spec.tls` of RoutePolicy): nobody is served over less, whatever
//! connection the request comes on.

use std::io::{ErrorKind, Read, Write};
use std::process::Command;
use std::sync::Arc;

use rustls::version::{TLS12, TLS13};
use serde_json::Value;

use super::support::clients::{curl, s_client};
use super::support::frames::{END_HEADERS, END_STREAM, Event, H2, HEADERS, frame, head};
use super::support::manifests::{ingress, route_policy};
use super::support::server::Server;
use super::support::tls::{Client, Promiscuous, Stream, get};
use super::support::{NEGOTIATE, REQUIRE, Site, run};

const NEWER: &str = "tls: {minVersion: \"1.3\"}";
const NOTHING: &str = "httpsRedirect: false";

/// app.test is carried by a policy that says this; open.test by none. Neither asks for certificates.
fn demanding(spec: &str) -> Site {
    let site = Site::new();
    site.write("route.yaml", &route_policy("route", "app", spec));
    site
}

fn shake_hands(site: &Site, server: &Server, host: &str, options: &[&str]) -> String {
    s_client(site, server.https, "alice", host, options)
}

#[test]
fn each_host_has_handshakes_of_its_own() {
    let one = "tls: {minVersion: \"1.2\", cipherSuites: [TLS_AES_256_GCM_SHA384, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]}";
    let (aes_128, ecdsa_256) = ("TLS_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384");
    for (spec, options, expected) in [
        (NEWER, &["-tls1_2"][..], "protocol version"),
        (NEWER, &["-tls1_3"], "200 OK"),
        (one, &["-tls1_3"], "Cipher is TLS_AES_256_GCM_SHA384"),
        (one, &["-tls1_2"], "Cipher is ECDHE-ECDSA-AES128-GCM-SHA256"),
        (one, &["-tls1_3", "-ciphersuites", aes_128], "handshake failure"),
        (one, &["-tls1_2", "-cipher", ecdsa_256], "handshake failure"),
    ] {
        let site = demanding(spec);
        let server = site.start();
        let said = shake_hands(&site, &server, "app.test", options);
        assert!(said.contains(expected), "{spec} {options:?}: {said}");
        let other = shake_hands(&site, &server, "open.test", options);
        assert!(other.contains("200 OK"), "another host's affair: {other}");
    }
    // A host that asks for certificates as well.
    let site = Site::with_alice(REQUIRE);
    site.write("route.yaml", &route_policy("route", "app", NEWER));
    let server = site.start();
    assert!(shake_hands(&site, &server, "app.test", &["-tls1_2"]).contains("protocol version"));
    let told = curl(&site, server.https, "alice", "app.test", "/", &[]).told();
    assert_eq!(told["user"], "azureuser");
}

#[test]
fn the_strictest_of_a_hosts_policies_counts_for_all_of_its_paths_and_the_program_is_the_floor() {
    let site = demanding("tls: {minVersion: \"1.2\"}");
    site.write("below.yaml", &ingress("below", "app.test", "/below", "echo"));
    site.write("below-route.yaml", &route_policy("below", "below", NEWER));
    let server = site.start();
    assert!(shake_hands(&site, &server, "app.test", &["-tls1_2"]).contains("protocol version"));
    let snapshot: Value = serde_json::from_str(&server.admin("/snapshot").1).unwrap();
    let host = &snapshot["hosts"].as_array().unwrap()[0];
    assert_eq!(
        (host["host"].as_str(), &host["tls"]["minVersion"]),
        (Some("app.test"), &"1.3".into())
    );
    assert_eq!(host["tls"]["cipherSuites"].as_array().unwrap().len(), 3);
    // An Ingress whose paths are all taken carries nothing there, and its policy says nothing.
    server.edit("below.yaml", &ingress("below", "app.test", "/", "echo"));
    assert!(shake_hands(&site, &server, "app.test", &["-tls1_2"]).contains("200 OK"));
    let options = ["--tls-min-version", "1.3"];
    let strict = Server::start_with(&site.manifests(), &site.path("strict.log"), "json", &options);
    assert!(shake_hands(&site, &strict, "app.test", &["-tls1_2"]).contains("protocol version"));
}

fn connect(site: &Site, server: &Server, sni: &str) -> Stream {
    Client::new(&site.server_ca, None, &TLS12).connect(server.https, sni)
}

#[test]
fn no_request_gets_round_a_hosts_minimum_on_another_hosts_connection() {
    let site = demanding(NEWER);
    // A tls entry without hosts is what clients get who name none.
    let nameless = ingress("default", "default.test", "/", "echo");
    site.write("default.yaml", &nameless.replace("hosts: [\"default.test\"], ", ""));
    let server = site.start();
    let mut stream = connect(&site, &server, "open.test");
    assert_eq!(get(&mut stream, "open.test", "/").code(), "200");
    for (host, path) in [
        ("app.test", "/"),
        ("APP.test.", "/"),
        ("app.test:443", "/x"),
        ("app.test", "/.well-known/certmap/jwks.json"),
    ] {
        assert_eq!(get(&mut stream, host, path).code(), "421", "{host}{path}");
    }
    assert_eq!(get(&mut stream, "open.test", "/").code(), "200", "its own host is served on");
    let nameless = Client::new(&site.server_ca, None, &TLS12).without_sni();
    assert_eq!(nameless.get(server.https, "localhost", "app.test", "/").0.code(), "421");
    assert_eq!(nameless.get(server.https, "localhost", "open.test", "/").0.code(), "200");
    // Over HTTP/2, as a browser does it whose certificate is for both.
    let client = Client::new(&site.server_ca, None, &TLS12).with_alpn("h2");
    let mut h2 = H2::over(client.connect(server.https, "open.test"), &[]).unwrap();
    for (stream, host, expected) in
        [(1, "open.test", 200), (3, "app.test", 421), (5, "open.test", 200)]
    {
        let get = head("GET", host, "/", &[]);
        h2.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &get)).unwrap();
        assert_eq!(h2.outcome(stream), Some(expected), "{host}");
    }
    // A connection that is good enough may carry both.
    let newer = Client::new(&site.server_ca, None, &TLS13);
    assert_eq!(newer.get(server.https, "open.test", "app.test", "/").0.code(), "200");
    server.logged(|line| line.contains("\"421\"") && line.contains("TLS version or cipher suite"));
}

#[test]
fn a_demand_counts_on_open_connections_too() {
    let site = demanding(NOTHING);
    let server = site.start();
    let mut stream = connect(&site, &server, "app.test");
    assert_eq!(get(&mut stream, "app.test", "/").code(), "200");
    let mut tunnel = connect(&site, &server, "app.test");
    tunnel.write_all(b"GET /ws HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n").unwrap();
    let mut begun = [0; 12];
    tunnel.read_exact(&mut begun).unwrap();
    assert_eq!(&begun, b"HTTP/1.1 101");
    server.edit("route.yaml", &route_policy("route", "app", NEWER));
    let refused = get(&mut stream, "app.test", "/");
    assert_eq!(refused.code(), "421");
    assert!(refused.head.contains("connection: close"), "{}", refused.head);
    assert!(refused.body.contains("newer version of TLS"), "{}", refused.body);
    // The WebSocket ends with what allowed it.
    let mut rest = Vec::new();
    let ended = tunnel.read_to_end(&mut rest);
    assert!(!ended.is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "it goes on");
    assert!(shake_hands(&site, &server, "app.test", &["-tls1_2"]).contains("protocol version"));
    server.edit("route.yaml", &route_policy("route", "app", NOTHING));
    assert!(shake_hands(&site, &server, "app.test", &["-tls1_2"]).contains("200 OK"));
}

#[test]
fn no_session_comes_back_under_a_stricter_policy() {
    let weak = "tls: {cipherSuites: [TLS_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384]}";
    let strong = "tls: {cipherSuites: [TLS_AES_256_GCM_SHA384]}";
    let tickets = "apiVersion: v1\nkind: Secret\nmetadata: {name: tickets, namespace: web}\nstringData: {current.key: \"11111111111111111111111111111111\"}\n";
    for options in [&[][..], &["--ticket-key-secret", "web/tickets"]] {
        let site = Site::with_alice(NEGOTIATE);
        site.write("tickets.yaml", tickets);
        site.write("route.yaml", &route_policy("route", "app", weak));
        let server =
            Server::start_with(&site.manifests(), &site.path("access.log"), "json", options);
        let of = |version| {
            let sessions = Arc::new(Promiscuous::default());
            Client::new(&site.server_ca, Some(&site.alice), version).with_sessions(&sessions)
        };
        let (older, newer) = (of(&TLS12), of(&TLS13));
        let get = |client: &Client| {
            let (reply, resumed) = client.get(server.https, "app.test", "app.test", "/");
            (reply.code(), resumed)
        };
        for client in [&older, &newer] {
            assert_eq!(get(client), ("200".to_owned(), false), "{options:?}");
            assert_eq!(get(client), ("200".to_owned(), true), "{options:?}");
        }
        server.edit("route.yaml", &route_policy("route", "app", strong));
        assert_eq!(get(&newer), ("200".to_owned(), false), "{options:?}");
        assert_eq!(get(&newer), ("200".to_owned(), true), "{options:?}");
        let mut failed = older.connect(server.https, "app.test");
        assert!(failed.write_all(b"GET / HTTP/1.1\r\n\r\n").is_err(), "{options:?}");
    }
}

#[test]
fn a_demand_that_makes_no_sense_shuts_its_routes_and_says_why() {
    for (tls, field, remedy) in [
        (
            "{cipherSuites: [TLS_AES_128_GCM_SHA256, TLS_RSA_WITH_RC4_128_MD5]}",
            "spec.tls.cipherSuites[1]",
            "write some of TLS_AES_256_GCM_SHA384",
        ),
        (
            "{minVersion: \"1.3\", cipherSuites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]}",
            "spec.tls.cipherSuites",
            "add TLS_AES_256_GCM_SHA384",
        ),
        // Nor may its host be left with the older version alone.
        (
            "{cipherSuites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]}",
            "spec.tls.cipherSuites",
            "add TLS_AES_256_GCM_SHA384",
        ),
    ] {
        let site = demanding(&format!("tls: {tls}"));
        let server = site.start();
        server.said(&["route.yaml:", "RoutePolicy web/route", field, remedy, "503.96"]);
        assert_eq!(curl(&site, server.https, "-", "app.test", "/", &[]).code(), "503.96");
        assert_eq!(curl(&site, server.https, "-", "open.test", "/", &[]).code(), "200");
        let mut validate = Command::new(env!("CARGO_BIN_EXE_certmap"));
        let (ok, said) = run(validate.arg("validate").arg(site.manifests()));
        assert!(!ok && said.contains("(Invalid)") && said.contains("route.yaml:6: "), "{said}");
    }
    let site = demanding("tls: {minVersion: 1.3}");
    let server = site.start();
    server.said(&["route.yaml", "spec.tls.minVersion", "\"1.3\""]);
    assert_eq!(curl(&site, server.https, "-", "app.test", "/", &[]).code(), "503.96");
}

#[test]
fn a_younger_ingress_whose_demand_nobody_could_meet_shuts_itself_and_not_the_older_one() {
    let site = demanding("tls: {cipherSuites: [TLS_AES_256_GCM_SHA384]}");
    let younger = ingress("zz", "app.test", "/below", "echo");
    site.write("below.yaml", &younger);
    let other = "tls: {cipherSuites: [TLS_AES_128_GCM_SHA256]}";
    site.write("below-route.yaml", &route_policy("below", "zz", other));
    let server = site.start();
    server.said(&[
        "below-route.yaml:6: ",
        "RoutePolicy web/below",
        "spec.tls",
        "TLS_AES_256_GCM_SHA384",
        "Invalid",
    ]);
    let get = |path| curl(&site, server.https, "-", "app.test", path, &[]).code();
    assert_eq!((get("/").as_str(), get("/below/x").as_str()), ("200", "503.96"));
    server.edit("below-route.yaml", &route_policy("below", "zz", "tls: {cipherSuites: []}"));
    assert_eq!((get("/").as_str(), get("/below/x").as_str()), ("200", "200"));
}

#[test]
fn what_a_host_demands_is_explained() {
    let site = demanding(NEWER);
    let explain = |further: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_certmap"));
        command.args(["explain", "--no-cert", "--host", "app.test", "--manifests"]);
        run(command.arg(site.manifests()).args(further)).1
    };
    let text = explain(&[]);
    assert!(text.contains("handshake   TLS 1.3 or later, with TLS_AES_256_GCM_SHA384, "), "{text}");
    let json: Value = serde_json::from_str(&explain(&["-o", "json"])).unwrap();
    assert_eq!(json["tls"]["minVersion"], "1.3");
    assert!(!explain(&["--http"]).contains("handshake"));
}

#[test]
fn http_2_requests_that_were_refused_for_it_leave_the_others_alone() {
    let site = demanding(NOTHING);
    let server = site.start();
    let client = Client::new(&site.server_ca, None, &TLS12).with_alpn("h2");
    let mut h2 = H2::over(client.connect(server.https, "app.test"), &[]).unwrap();
    let send = |h2: &mut H2<Stream>, stream, path| {
        let get = head("GET", "app.test", path, &[]);
        h2.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &get)).unwrap();
    };
    send(&mut h2, 1, "/");
    assert_eq!(h2.outcome(1), Some(200));
    server.edit("route.yaml", &route_policy("route", "app", NEWER));
    send(&mut h2, 3, "/");
    assert_eq!(h2.outcome(3), Some(421));
    // And it is told to go.
    let told = std::iter::from_fn(|| h2.next().ok())
        .any(|event| matches!(event, Event::GoAway { code: 0, .. }));
    assert!(told);
}
