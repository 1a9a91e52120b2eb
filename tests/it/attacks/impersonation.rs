//! What others fell for: each must end in a refusal, and nothing of it reach the backend.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::version::{TLS12, TLS13};

use crate::support::clients::{curl, curl_http, s_client};
use crate::support::frames::{self, END_HEADERS, END_STREAM, H2, HEADERS, UNINDEXED, frame};
use crate::support::manifests::{config_map, ingress, ingress_with, policy};
use crate::support::pki::{Ca, Identity, leaf, named};
use crate::support::server::Server;
use crate::support::tls::{Client, Promiscuous, get, reply, request};
use crate::support::{NEGOTIATE, REQUIRE, Site};

/// app.test maps alice under ZeroSSL; other.test trusts another CA; open.test asks nothing.
fn two_policies() -> Site {
    let site = Site::with_alice(REQUIRE);
    site.write("other-ca.yaml", &config_map("other-ca", "ca.crt", &site.other.pem()));
    site.write("other.yaml", &ingress("other", "other.test", "/", "echo"));
    let spec = "sslFlags: [Ssl, SslNegotiateCert, SslRequireCert]\ntrust: {caCertificateRefs: [{kind: ConfigMap, name: other-ca}]}\nadmitAnyVerified: {userFrom: SubjectCN}\nforward: {userHeader: X-Remote-User}\n";
    site.write("other-policy.yaml", &policy("other", "other", spec));
    site
}

#[test]
fn a_session_of_one_host_is_worth_nothing_at_another() {
    for version in [&TLS12, &TLS13] {
        let site = two_policies();
        let server = site.start();
        for (from, to) in [
            ("open.test", "app.test"),
            ("other.test", "app.test"),
            ("app.test", "other.test"),
            ("app.test", "open.test"),
        ] {
            let sessions = Arc::new(Promiscuous::default());
            let client =
                Client::new(&site.server_ca, Some(&site.alice), version).with_sessions(&sessions);
            let (first, _) = client.get(server.https, from, from, "/");
            let without = Client::new(&site.server_ca, None, version).with_sessions(&sessions);
            let (second, resumed) = without.get(server.https, to, to, "/");
            assert!(!resumed, "{from} → {to}: resumed");
            let expected = if to == "open.test" { "200" } else { "403.7" };
            assert_eq!(second.code(), expected, "{from} ({}) → {to}", first.code());
        }
    }
}

#[test]
fn a_session_of_an_older_policy_is_judged_by_the_newer() {
    for version in [&TLS12, &TLS13] {
        let site = two_policies();
        let server = site.start();
        let sessions = Arc::new(Promiscuous::default());
        let client =
            Client::new(&site.server_ca, Some(&site.alice), version).with_sessions(&sessions);
        assert_eq!(client.get(server.https, "app.test", "app.test", "/").0.code(), "200");
        let (again, resumed) = client.get(server.https, "app.test", "app.test", "/");
        assert_eq!(
            (again.told()["user"].as_str(), resumed),
            (Some("azureuser"), true),
            "resumption itself works"
        );
        // The mapping goes: the session stays good, the request does not.
        let spec = site
            .alice_spec(REQUIRE)
            .replace("name: alice-laptop", "enabled: false\n    name: alice-laptop");
        server.edit("policy.yaml", &policy("app", "app", &spec));
        assert_eq!(client.get(server.https, "app.test", "app.test", "/").0.code(), "401.2");
        // The CA goes: not even the session does.
        server.edit("trust.yaml", &config_map("corporate-ca", "ca.crt", &site.other.pem()));
        let (after, resumed) = client.get(server.https, "app.test", "app.test", "/");
        assert_eq!((after.code().as_str(), resumed), ("403.16", false));
    }
}

#[test]
fn a_connection_for_one_host_carries_no_request_for_another_with_other_terms() {
    let site = two_policies();
    let server = site.start();
    let client = Client::new(&site.server_ca, Some(&site.alice), &TLS13);
    for (sni, host) in [
        ("open.test", "app.test"),
        ("other.test", "app.test"),
        ("app.test", "other.test"),
        ("app.test", "open.test"),
    ] {
        let mut stream = client.connect(server.https, sni);
        assert_eq!(get(&mut stream, host, "/").code(), "421", "{sni} → {host}");
        let absolute =
            request(&mut stream, &format!("GET https://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(absolute.code(), "421", "{sni} → {host} in absolute form");
        let two =
            request(&mut stream, &format!("GET https://{host}/ HTTP/1.1\r\nHost: {sni}\r\n\r\n"));
        assert_eq!(two.code(), "400", "{sni} and {host} at once");
    }
    for (sni, host) in [("open.test", "app.test"), ("app.test", "open.test")] {
        let authority = ["--http2", "-H", &format!("Host: {host}")];
        assert_eq!(
            curl(&site, server.https, "alice", sni, "/", &authority).code(),
            "421",
            "{sni} → {host} over HTTP/2"
        );
    }
    let client = client.with_alpn("h2");
    let mut h2 = H2::over(client.connect(server.https, "app.test"), UNINDEXED).unwrap();
    for (stream, host, expected) in
        [(1, "app.test", 200), (3, "other.test", 421), (5, "app.test", 200), (7, "open.test", 421)]
    {
        let get = frames::get(host, "/");
        h2.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &get)).unwrap();
        assert_eq!(h2.outcome(stream), Some(expected), "{host} on stream {stream}");
    }
    let client = Client::new(&site.server_ca, Some(&site.alice), &TLS13);
    let two = request(
        &mut client.connect(server.https, "app.test"),
        "GET / HTTP/1.1\r\nHost: app.test\r\nHost: open.test\r\n\r\n",
    );
    assert_eq!(two.code(), "400");
}

#[test]
fn without_sni_a_host_that_asks_is_not_served() {
    let site = two_policies();
    // A tls entry without hosts is what clients get who name none.
    site.write(
        "default.yaml",
        &ingress("default", "default.test", "/", "echo").replace("hosts: [\"default.test\"], ", ""),
    );
    let server = site.start();
    for version in [&TLS12, &TLS13] {
        let client = Client::new(&site.server_ca, Some(&site.alice), version).without_sni();
        assert_eq!(client.get(server.https, "localhost", "app.test", "/").0.code(), "421");
        assert_eq!(client.get(server.https, "localhost", "open.test", "/").0.code(), "200");
    }
}

#[test]
fn names_are_one_whatever_their_case_and_dot() {
    let site = two_policies();
    let server = site.start();
    let client = Client::new(&site.server_ca, Some(&site.alice), &TLS13);
    for (sni, host) in
        [("APP.test", "app.TEST"), ("app.test", "app.test."), ("app.test", "App.Test:443")]
    {
        let (reply, _) = client.get(server.https, sni, host, "/");
        assert_eq!(reply.told()["user"], "azureuser", "{sni} {host}: {reply:?}");
        let (reply, _) =
            Client::new(&site.server_ca, None, &TLS13).get(server.https, sni, host, "/");
        assert_eq!(reply.code(), "403.7", "{sni} {host}");
    }
}

/// Over both versions of HTTP: who asks without a certificate, and alice.
fn statuses(site: &Site, server: &Server, sni: Option<&str>, host: &str) -> [u16; 4] {
    let client = |identity: Option<&Identity>| {
        let client = Client::new(&site.server_ca, identity, &TLS13);
        if sni.is_some() { client } else { client.without_sni() }
    };
    let name = sni.unwrap_or("localhost");
    let first = |identity| client(identity).get(server.https, name, host, "/").0.status;
    let second = |identity| {
        let stream = client(identity).with_alpn("h2").connect(server.https, name);
        let mut h2 = H2::over(stream, &[]).unwrap();
        let get = frames::get(host, "/");
        h2.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &get)).unwrap();
        h2.outcome(1).unwrap_or(0)
    };
    [first(None), first(Some(&site.alice)), second(None), second(Some(&site.alice))]
}

#[test]
fn a_wildcard_asks_by_every_name_below_it_however_it_is_written() {
    let site = Site::with_alice(REQUIRE);
    site.write("wild.yaml", &ingress("wild", "*.app.test", "/", "echo"));
    site.write("wild-policy.yaml", &policy("wild", "wild", &site.alice_spec(REQUIRE)));
    site.write("shop.yaml", &ingress("shop", "shop.app.test", "/", "echo"));
    site.write(
        "default.yaml",
        &ingress("default", "default.test", "/", "echo").replace("hosts: [\"default.test\"], ", ""),
    );
    let server = site.start();
    let asked = [403, 200, 403, 200];
    for (sni, host, expected) in [
        (Some("app.test"), "app.test", asked),
        (Some("x.app.test"), "x.app.test", asked),
        (Some("X.aPp.TeSt"), "X.aPp.TeSt", asked),
        (Some("X.APP.TEST"), "x.app.test.", asked),
        (Some("x.app.test"), "Y.App.Test", asked),
        // A name of its own, of which nothing is asked; and from there to the wildcard's.
        (Some("Shop.App.Test"), "shop.app.test", [200; 4]),
        (Some("SHOP.app.test"), "x.app.test", [421; 4]),
        (Some("open.test"), "X.APP.test", [421; 4]),
        (None, "x.app.test", [421; 4]),
        (None, "X.APP.TEST", [421; 4]),
    ] {
        assert_eq!(statuses(&site, &server, sni, host), expected, "{sni:?} {host}");
    }
    // As it is typed, and with a dot at the end.
    for name in ["X.aPp.TeSt", "x.app.test.", "app.test.", "APP.test."] {
        for version in ["-tls1_2", "-tls1_3"] {
            let said = |who| s_client(&site, server.https, who, name, &[version]);
            let (nobody, alice) = (said("-"), said("alice"));
            assert!(nobody.contains("HTTP/1.1 403"), "{name} {version}: {nobody}");
            assert!(alice.contains("HTTP/1.1 200"), "{name} {version}: {alice}");
        }
    }
}

#[test]
fn a_client_hello_in_pieces_is_the_same_client_hello() {
    let site = two_policies();
    let server = site.start();
    for version in [&TLS12, &TLS13] {
        for (identity, expected) in [(Some(&site.alice), "200"), (None, "403.7")] {
            let mut client = Client::new(&site.server_ca, identity, version);
            client.fragment = true;
            assert_eq!(client.get(server.https, "app.test", "app.test", "/").0.code(), expected);
        }
    }
}

#[test]
fn nobody_can_say_who_they_are_but_the_certificate() {
    let site = Site::with_alice(NEGOTIATE);
    let spec = format!("{}authentication: [{{anonymous: {{}}}}]\n", site.alice_spec(NEGOTIATE))
        .replace("X-Remote-User", "X-Employee");
    site.write("policy.yaml", &policy("app", "app", &spec));
    let server = site.start();
    let forged = [
        "X-Employee: admin",
        "x-employee: admin",
        "X_Employee: admin",
        "X-Remote-User: admin",
        "X-REMOTE_USER: admin",
        "Client-Cert: :AA==:",
        "Client-Cert-Chain: :AA==:",
        "X-Forwarded-Client-Cert: Hash=1",
        "ssl-client-verify: SUCCESS",
        "ssl-client-subject-dn: CN=admin",
        "X-ARR-ClientCert: AA==",
        "X-Forwarded-User: admin",
        "X-Forwarded-For: 10.9.8.7",
        "X-Real-IP: 10.9.8.7",
        "Forwarded: for=10.9.8.7",
        "X-Original-URL: /admin",
        "X-Forwarded-Proto: gopher",
        "Connection: X-Remote-User, X-Employee",
        "X-Forwarded-Host: evil.test",
    ];
    let options: Vec<&str> = forged.iter().flat_map(|header| ["-H", header]).collect();
    let both = [&options[..], &["--http2"]].concat();
    let replies = [
        curl(&site, server.https, "-", "app.test", "/", &options),
        curl(&site, server.https, "-", "app.test", "/", &both),
        curl(&site, server.https, "-", "open.test", "/", &options),
        curl(&site, server.https, "alice", "open.test", "/", &both),
        curl_http(server.http, "open.test", "/", &options),
    ];
    for reply in replies {
        assert_eq!(reply.status, 200, "{reply:?}");
        let told = reply.told()["headers"].to_string();
        for trace in ["admin", "10.9.8.7", "gopher", "evil", "AA==", "SUCCESS", "Hash=1"] {
            assert!(!told.contains(trace), "{trace}: {told}");
        }
    }
    let alice = curl(&site, server.https, "alice", "app.test", "/", &options);
    let told = alice.told()["headers"].to_string();
    assert!(told.contains("[\"x-employee\",\"azureuser\"]") && !told.contains("admin"), "{told}");
}

#[test]
fn trailers_cannot_say_it_either() {
    let site = Site::with_alice(REQUIRE);
    let server = site.start();
    let mut stream = TcpStream::connect(server.http).unwrap();
    let text = "POST / HTTP/1.1\r\nHost: open.test\r\nTransfer-Encoding: chunked\r\nTrailer: X-Remote-User, X-Fine\r\nTE: trailers\r\n\r\n2\r\nhi\r\n0\r\nX-Remote-User: admin\r\nx_remote_user: admin\r\nAuthorization: Basic AA\r\nX-Fine: yes\r\n\r\n";
    let reply = request(&mut stream, text);
    assert_eq!(reply.status, 200, "{reply:?}");
    let told = reply.told();
    assert_eq!((told["bodyLength"].as_u64(), told["user"].is_null()), (Some(2), true), "{told}");
    let trailers = told["trailers"].to_string();
    assert!(!trailers.contains("remote") && !trailers.contains("authorization"), "{trailers}");
}

#[test]
fn authorization_reaches_the_backend_only_where_the_policy_passes_it() {
    let site = Site::with_alice(REQUIRE);
    let server = site.start();
    let authorization = |reply: &crate::support::tls::Reply| {
        let told = reply.told();
        let headers = told["headers"].as_array().unwrap();
        headers
            .iter()
            .find(|header| header[0] == "authorization")
            .map(|header| header[1].as_str().unwrap().to_owned())
    };
    let offered = ["-H", "Authorization: Bearer abc"];
    assert_eq!(authorization(&curl(&site, server.https, "alice", "app.test", "/", &offered)), None);
    assert_eq!(
        authorization(&curl(&site, server.https, "-", "open.test", "/", &offered)).as_deref(),
        Some("Bearer abc")
    );
    let spec =
        site.alice_spec(REQUIRE).replace("forward: {", "forward: {passAuthorization: true, ");
    server.edit("policy.yaml", &policy("app", "app", &spec));
    assert_eq!(
        authorization(&curl(&site, server.https, "alice", "app.test", "/", &offered)).as_deref(),
        Some("Bearer abc")
    );
    let spec = site.alice_spec(REQUIRE).replace("forward: {", "forward: {basicCredentials: true, ");
    server.edit("policy.yaml", &policy("app", "app", &spec));
    let expected = "Basic YXp1cmV1c2VyOmNvcnJlY3QtaG9yc2U=";
    assert_eq!(
        authorization(&curl(&site, server.https, "alice", "app.test", "/", &offered)).as_deref(),
        Some(expected)
    );
}

#[test]
fn odd_names_are_nobody_else() {
    let site = Site::new();
    let spec = format!(
        "sslFlags: {REQUIRE}\ntrust: {{caCertificateRefs: [{{kind: ConfigMap, name: corporate-ca}}]}}\nmanyToOne:\n  mappings:\n  - name: admin\n    rules: [{{certificateField: Subject, certificateSubField: CN, matchCriteria: admin}}]\n    account: {{userName: admin}}\nforward: {{userHeader: X-Remote-User}}\n"
    );
    site.write("policy.yaml", &policy("app", "app", &spec));
    let server = site.start();
    for (name, expected) in [
        ("x,CN=admin", "401.2"),
        ("admin\0", "401.2"),
        ("admin\n", "401.2"),
        (" admin", "401.2"),
        ("\"admin\"", "401.2"),
        ("admin", "200"),
    ] {
        let identity = site.zerossl.issue(leaf(name));
        let (reply, _) = Client::new(&site.server_ca, Some(&identity), &TLS13).get(
            server.https,
            "app.test",
            "app.test",
            "/",
        );
        assert_eq!(reply.code(), expected, "{name:?}");
    }
    let issuer_name = named(&[
        (rcgen::DnType::OrganizationName, "ZeroSSL".into()),
        (rcgen::DnType::CommonName, "admin".into()),
    ]);
    let right_name_wrong_key = Identity::self_signed(issuer_name);
    let strangers = [
        right_name_wrong_key,
        Ca::new("ZeroSSL").issue(leaf("admin")),
        site.other
            .issue(leaf("admin"))
            .with(&[site.zerossl.der(), site.zerossl.issue(leaf("admin")).der]),
    ];
    for identity in strangers {
        let (reply, _) = Client::new(&site.server_ca, Some(&identity), &TLS13).get(
            server.https,
            "app.test",
            "app.test",
            "/",
        );
        assert_eq!(reply.code(), "403.16");
    }
}

#[test]
fn a_ca_that_cannot_be_read_lets_nobody_in() {
    for broken in
        ["not a certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", ""]
    {
        let site = Site::with_alice(REQUIRE);
        site.write("trust.yaml", &config_map("corporate-ca", "ca.crt", broken));
        let server = site.start();
        assert_eq!(
            curl(&site, server.https, "alice", "app.test", "/", &[]).code(),
            "403.16",
            "{broken:?}"
        );
        assert_eq!(
            curl(&site, server.https, "-", "app.test", "/", &[]).code(),
            "403.7",
            "{broken:?}"
        );
        server.said(&["CertMappingPolicy web/app", "NoTrust"]);
        // It heals by itself.
        server.edit("trust.yaml", &config_map("corporate-ca", "ca.crt", &site.zerossl.pem()));
        assert_eq!(curl(&site, server.https, "alice", "app.test", "/", &[]).code(), "200");
        // What is broken later stays what it was; what is deleted is gone.
        server.edit("trust.yaml", &config_map("corporate-ca", "ca.crt", broken));
        assert_eq!(
            curl(&site, server.https, "alice", "app.test", "/", &[]).code(),
            "200",
            "last good, {broken:?}"
        );
        server.delete("trust.yaml");
        assert_eq!(
            curl(&site, server.https, "alice", "app.test", "/", &[]).code(),
            "403.16",
            "deleted"
        );
    }
}

#[test]
fn two_readers_cannot_read_a_path_differently() {
    let site = Site::with_alice(REQUIRE);
    site.write(
        "ingress.yaml",
        &ingress_with("app", "app.test", &[("/", "Prefix", "echo"), ("/admin", "Prefix", "echo")]),
    );
    site.write("public.yaml", &ingress("public", "app.test", "/public", "echo"));
    let server = site.start();
    let client = Client::new(&site.server_ca, None, &TLS13);
    for path in [
        "/public/../admin",
        "/public/./x",
        "//admin",
        "/public//x",
        "/public/%2e%2e/admin",
        "/public%2f..%2fadmin",
        "/public;/x",
        "/public%5c..",
        "/public\\..",
        "/public/%00",
        "/public/%",
        "/public/%ff",
    ] {
        let (reply, _) = client.get(server.https, "app.test", "app.test", path);
        assert_eq!(reply.code(), "400", "{path}");
    }
    assert_eq!(site.backend.requests.load(std::sync::atomic::Ordering::SeqCst), 0);
    assert_eq!(
        client.get(server.https, "app.test", "app.test", "/p%75blic/x").0.code(),
        "200",
        "unreserved characters are decoded"
    );
    assert_eq!(client.get(server.https, "app.test", "app.test", "/%61dmin").0.code(), "403.7");
    let (odd, _) = client.get(server.https, "open.test", "open.test", "/a//b/%2e%2e/%2f");
    assert_eq!(odd.told()["target"], "/a//b/%2e%2e/%2f", "without a policy it passes as it came");
}

#[test]
fn a_request_in_two_lengths_is_no_request() {
    let site = Site::with_alice(REQUIRE);
    let server = site.start();
    for text in [
        "POST / HTTP/1.1\r\nHost: open.test\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: open.test\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: open.test\r\nX: a\r\n b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : open.test\r\n\r\n",
        "GET /\0 HTTP/1.1\r\nHost: open.test\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(server.http).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        let status = reply(&mut stream).map_or(0, |reply| reply.status);
        assert!(status == 400 || status == 0, "{text:?}: {status}");
    }
    server.logged(|line| {
        line.contains("the request cannot be read") && line.contains("\"status\":400")
    });
    // Both, where one is allowed to win: chunked does, and nothing is left over to be read as another request.
    let mut stream = TcpStream::connect(server.http).unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: open.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: open.test\r\n\r\n").unwrap();
    let mut text = String::new();
    drop(stream.read_to_string(&mut text));
    assert!(!text.contains("smuggled"), "{text}");
}

#[test]
fn a_garbled_handshake_is_a_record_and_not_an_end() {
    let site = Site::with_alice(REQUIRE);
    let server = site.start();
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 0xFF, 0xFF, 1], &[0x80; 64]] {
        let mut stream = TcpStream::connect(server.https).unwrap();
        stream.write_all(garbage).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        drop(stream.read_to_end(&mut Vec::new()));
    }
    server.logged(|line| line.contains("handshakeFailed") && line.contains("127.0.0.1"));
    assert_eq!(curl(&site, server.https, "alice", "app.test", "/", &[]).code(), "200");
}
