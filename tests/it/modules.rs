//! The other authentication modules with real clients: tokens, keys over https, a service that is asked.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustls::version::TLS13;
use serde_json::json;

use super::support::clients::{Go, code, curl, user};
use super::support::key_server::{KeyServer, Shown};
use super::support::manifests::{config_map, policy, route_policy, service};
use super::support::pki::{Ca, leaf};
use super::support::server::wait;
use super::support::tls::{Client, Reply, request};
use super::support::tokens::{Issuer, key_set, thumbprint};
use super::support::verifier::Verifier;
use super::support::{NEGOTIATE, Site, run};

/// One-to-one for alice, then a token, then a password.
fn spec(site: &Site, jwks: &str) -> String {
    format!(
        "{}authentication:\n- bearer: {{issuer: \"https://id.test\", audiences: [app], realm: tokens, jwks: {jwks}}}\n- basic: {{secretRefs: [{{name: test}}], realm: passwords}}\n",
        site.alice_spec(NEGOTIATE)
    )
}

const HELD: &str = "{ref: {kind: ConfigMap, name: keys}}";

fn challenges(reply: &Reply) -> Vec<&str> {
    reply.head.lines().filter_map(|line| line.strip_prefix("www-authenticate: ")).collect()
}

#[test]
fn certificate_token_and_password_in_every_combination() {
    let site = Site::with_people(NEGOTIATE);
    let bob = site.zerossl.issue(leaf("Bob"));
    site.person("bob", &bob);
    let (issuer, rogue) = (Issuer::new("a"), Issuer::new("a"));
    site.write("keys.yaml", &config_map("keys", "jwks.json", &key_set(&[&issuer])));
    site.write("policy.yaml", &policy("app", "app", &spec(&site, HELD)));
    let server = site.start();
    let bound = json!({"cnf": {"x5t#S256": thumbprint(&bob.der)}});
    let bearer = |token: String| format!("Bearer {token}");
    let (good, bound) = (bearer(issuer.token(&json!({}))), bearer(issuer.token(&bound)));
    let (forged, late) = (rogue.token(&json!({})), issuer.token(&json!({"exp": 1_700_000_000})));
    let (forged, late) = (bearer(forged), bearer(late));
    let basic = |pair: &str| {
        use base64::Engine;
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
    };
    let (right, wrong) = (basic("test:battery-staple"), basic("test:x"));
    let offers = [
        ("", "401.2", "-"),
        (&good, "200", "carol"),
        (&forged, "401.1", "-"),
        (&late, "401.1", "-"),
        ("Bearer x", "401.1", "-"),
        (&right, "200", "test"),
        (&wrong, "401.1", "-"),
        ("Negotiate abc", "401.2", "-"),
    ];
    let mut table: Vec<(&str, &str, &str, &str)> = Vec::new();
    for (offer, code, user) in offers {
        table.push(("-", offer, code, user));
        table.push(("bob", offer, code, user));
        table.push(("alice", offer, "200", "azureuser"));
        table.push(("stranger", offer, "403.16", "-"));
    }
    table.push(("bob", &bound, "200", "carol"));
    table.push(("-", &bound, "401.1", "-"));
    table.push(("alice", &bound, "200", "azureuser"));
    table.push(("expired", &good, "403.17", "-"));
    for (who, offer, expected, expected_user) in table {
        let header = format!("Authorization: {offer}");
        let further: &[&str] = if offer.is_empty() { &[] } else { &["-H", &header] };
        for http in ["--http1.1", "--http2"] {
            let reply =
                curl(&site, server.https, who, "app.test", "/", &[&[http], further].concat());
            assert_eq!(reply.code(), expected, "{who} {offer} {http}: {reply:?}");
            let told = reply.told();
            assert_eq!(told["user"].as_str().unwrap_or("-"), expected_user, "{who} {offer}");
            assert!(!reply.body.contains("authorization"), "the token goes no further: {reply:?}");
            if expected.starts_with("401") {
                let error =
                    if offer.starts_with("Bearer") { ", error=\"invalid_token\"" } else { "" };
                let expected = [
                    format!("bearer realm=\"tokens\"{error}"),
                    "basic realm=\"passwords\", charset=\"utf-8\"".to_owned(),
                ];
                assert_eq!(challenges(&reply), expected, "{who} {offer}");
            }
        }
        for http in [&[][..], &["-http2"]] {
            let options = [http, &["-authorization", offer]].concat();
            let mut go = Go::start(&site, server.https, who, "app.test", &options);
            // Twice: the second comes on the same connection, where it is kept.
            for answer in [go.get("/"), go.get("/")] {
                assert_eq!(code(&answer), expected, "{who} {offer}: {answer}");
                assert_eq!(user(&answer), expected_user, "{who} {offer}: {answer}");
            }
        }
    }
    let log = server.logged(|line| line.contains("the token has expired"));
    let token = late.strip_prefix("Bearer ").unwrap();
    assert!(!log.contains(token) && log.contains("\"401.1\""), "{log}");
    let metrics = server.admin("/metrics").1;
    assert!(metrics.contains("mechanism=\"bearer\",code=\"admitted\""), "{metrics}");
}

#[test]
fn curl_has_options_of_its_own_for_tokens_and_passwords() {
    let site = Site::with_people(NEGOTIATE);
    let issuer = Issuer::new("a");
    site.write("keys.yaml", &config_map("keys", "jwks.json", &key_set(&[&issuer])));
    site.write("policy.yaml", &policy("app", "app", &spec(&site, HELD)));
    let server = site.start();
    let token = issuer.token(&json!({"sub": "CORP\\carol"}));
    for (options, user) in [
        (&["--oauth2-bearer", &*token][..], "CORP\\carol"),
        (&["--user", "test:battery-staple"], "test"),
        (&["--anyauth", "--user", "test:battery-staple"], "test"),
    ] {
        let reply = curl(&site, server.https, "-", "app.test", "/", options);
        assert_eq!(reply.told()["user"], user, "{options:?}: {reply:?}");
    }
}

#[test]
fn keys_in_an_object_are_exchanged_at_once_and_kept_while_they_cannot_be_read() {
    let site = Site::with_people(NEGOTIATE);
    let (old, new) = (Issuer::new("old"), Issuer::new("new"));
    let map = |text: &str| config_map("keys", "jwks.json", text);
    site.write("keys.yaml", &map(&key_set(&[&old])));
    site.write("policy.yaml", &policy("app", "app", &spec(&site, HELD)));
    let server = site.start();
    let by = |issuer: &Issuer| {
        let token = issuer.token(&json!({}));
        curl(&site, server.https, "-", "app.test", "/", &["--oauth2-bearer", &token]).code()
    };
    assert_eq!((by(&old), by(&new)), ("200".to_owned(), "401.1".to_owned()));
    server.edit("keys.yaml", &map(&key_set(&[&old, &new])));
    assert_eq!((by(&old), by(&new)), ("200".to_owned(), "200".to_owned()));
    server.edit("keys.yaml", &map(&key_set(&[&new])));
    assert_eq!((by(&old), by(&new)), ("401.1".to_owned(), "200".to_owned()));
    server.edit("keys.yaml", &map("{\"keys\": []}"));
    server.said(&["spec.authentication[0].bearer.jwks.ref", "the keys read before stay in force"]);
    assert_eq!((by(&old), by(&new)), ("401.1".to_owned(), "200".to_owned()));
    server.delete("keys.yaml");
    server.said(&["ConfigMap web/keys does not exist", "503.94"]);
    assert_eq!(by(&new), "503.94");
    // Who needs no token is not concerned.
    let reply = curl(&site, server.https, "alice", "app.test", "/", &[]);
    assert_eq!(reply.told()["user"], "azureuser");
}

/// A site whose policy gets its keys from there.
fn published(url: &str, ca: &Ca) -> Site {
    let site = Site::with_people(NEGOTIATE);
    site.write("id-ca.yaml", &config_map("id-ca", "ca.crt", &ca.pem()));
    let jwks = format!("{{url: \"{url}\", caCertificateRefs: [{{kind: ConfigMap, name: id-ca}}]}}");
    site.write("policy.yaml", &policy("app", "app", &spec(&site, &jwks)));
    site
}

#[test]
fn published_keys_are_fetched_apart_from_requests_and_outlive_their_server() {
    let (ca, issuer, new) = (Ca::new("Issuer"), Issuer::new("a"), Issuer::new("new"));
    let shown = Shown::keys("not found".to_owned());
    shown.lock().unwrap().status = 404;
    let keys = KeyServer::start(&ca, &shown, 0);
    let port = keys.address.port();
    let site = published(&keys.url(), &ca);
    let server = site.start();
    let by = |issuer: &Issuer| {
        let token = issuer.token(&json!({}));
        curl(&site, server.https, "-", "app.test", "/", &["--oauth2-bearer", &token]).code()
    };
    assert_eq!(by(&issuer), "503.94");
    server.said(&["an issuer's keys cannot be fetched", "404"]);
    *shown.lock().unwrap() = Shown::keys(key_set(&[&issuer])).lock().unwrap().clone();
    wait("the keys", || by(&issuer) == "200");
    assert_eq!(by(&new), "401.1", "a key that nobody publishes");
    let metrics = server.admin("/metrics").1;
    for outcome in ["ok", "failed"] {
        let counted = format!("certmap_key_fetches_total{{outcome=\"{outcome}\"}}");
        assert!(metrics.contains(&counted), "{metrics}");
    }
    let asked = keys.asked.load(Ordering::SeqCst);
    for _ in 0..20 {
        assert_eq!(by(&issuer), "200");
    }
    assert_eq!(keys.asked.load(Ordering::SeqCst), asked, "requests make nobody fetch");
    drop(keys);
    assert_eq!(by(&issuer), "200", "the last good ones stay");
    // An impostor at the same address, with a certificate of its own.
    let impostor = KeyServer::start(&Ca::new("Issuer"), &Shown::keys(key_set(&[&new])), port);
    assert_eq!((by(&issuer), by(&new)), ("200".to_owned(), "401.1".to_owned()));
    assert_eq!(impostor.asked.load(Ordering::SeqCst), 0);
}

#[test]
fn a_slow_or_babbling_key_server_holds_no_request_up() {
    let (ca, issuer) = (Ca::new("Issuer"), Issuer::new("a"));
    let slow = Shown::keys(key_set(&[&issuer]));
    slow.lock().unwrap().pause = Duration::from_secs(60);
    let huge = Shown::keys(format!("{}{}", key_set(&[&issuer]), " ".repeat(300 * 1024)));
    let redirect = Shown::keys(key_set(&[&issuer]));
    redirect.lock().unwrap().status = 302;
    for (shown, said) in [(slow, None), (huge, Some("256 KiB")), (redirect, Some("302"))] {
        let keys = KeyServer::start(&ca, &shown, 0);
        let site = published(&keys.url(), &ca);
        let server = site.start();
        wait("the first fetch", || keys.asked.load(Ordering::SeqCst) > 0);
        if let Some(said) = said {
            server.said(&["an issuer's keys cannot be fetched", said]);
        }
        let token = issuer.token(&json!({}));
        let started = Instant::now();
        let options = ["--oauth2-bearer", &token];
        let reply = curl(&site, server.https, "-", "app.test", "/", &options);
        assert_eq!((reply.code().as_str(), reply.status), ("503.94", 503));
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
        let reply =
            curl(&site, server.https, "-", "app.test", "/", &["--user", "test:battery-staple"]);
        assert_eq!(reply.told()["user"], "test", "others are not concerned");
    }
}

#[test]
fn validate_and_explain_say_what_is_wrong_with_modules() {
    let site = Site::with_people(NEGOTIATE);
    let spec = format!(
        "{}authentication:\n- bearer: {{issuer: i, audiences: [a], jwks: {{ref: {{kind: Secret, name: gone}}}}}}\n- external:\n    serviceRef: {{name: gone, namespace: auth, port: 80}}\n    requestHeaders: [X-Remote-User]\n- anonymous: {{}}\n",
        site.alice_spec(NEGOTIATE)
    );
    site.write("policy.yaml", &policy("app", "app", &spec));
    let validate = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_certmap"));
        run(command.arg("validate").arg(site.manifests()))
    };
    let (ok, text) = validate();
    assert!(!ok, "{text}");
    for part in [
        "error: CertMappingPolicy web/app: spec.authentication[0].bearer.jwks.ref: Secret web/gone does not exist: create it with the key jwks.json: tokens are answered 503.94 until then (KeysUnresolved)",
        "error: CertMappingPolicy web/app: spec.authentication[1].external.serviceRef: Service auth/gone may not be referred to from namespace web: create a ReferenceGrant",
        "warning: CertMappingPolicy web/app: spec.authentication[1].external.requestHeaders[0]: X-Remote-User says who is calling",
        "warning: CertMappingPolicy web/app: spec.authentication[2]: never reached",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains("AnonymousFallback"), "it is not reached: {text}");
    let before = spec.replace("- bearer", "- anonymous: {}\n- bearer");
    let before = before.strip_suffix("- anonymous: {}\n").unwrap();
    site.write("policy.yaml", &policy("app", "app", before));
    assert!(validate().1.contains("(AnonymousFallback)"));
    let mut explain = std::process::Command::new(env!("CARGO_BIN_EXE_certmap"));
    explain.args(["explain", "--no-cert", "--host", "app.test", "--manifests"]);
    site.write("policy.yaml", &policy("app", "app", &spec));
    let (_, text) = run(explain.arg(site.manifests()));
    assert!(text.contains("external service auth/gone:80 would be asked"), "{text}");
}

/// A site with a service that is asked; `further` goes into the module.
fn asking(verifier: &Verifier, further: &str) -> Site {
    let site = Site::with_people(NEGOTIATE);
    site.write("verify.yaml", &service("verify", &[verifier.port]));
    let spec = format!(
        "{}authentication:\n- basic: {{secretRefs: [{{name: test}}], realm: passwords}}\n- external:\n    serviceRef: {{name: verify, port: 80}}\n    path: /check\n    timeoutSeconds: 1\n    requestHeaders: [Cookie, X-Remote-User, X-Real-IP, Forwarded, X-Custom]\n    userHeader: X-Auth-User\n    groupsHeader: X-Auth-Groups\n{further}",
        site.alice_spec(NEGOTIATE)
    );
    site.write("policy.yaml", &policy("app", "app", &spec));
    site
}

#[test]
fn a_service_that_speaks_tls_is_not_asked_in_the_clear() {
    let verifier = Verifier::start();
    let site = asking(&verifier, "");
    let https = "{port: 80, appProtocol: https}";
    let verify = service("verify", &[verifier.port]);
    site.write("verify.yaml", &verify.replace("{port: 80}", https));
    let server = site.start();
    let ask = || curl(&site, server.https, "-", "app.test", "/", &["-H", "Cookie: session=alice"]);
    assert_eq!(ask().code(), "503.95");
    server.said(&["Service web/verify does not speak HTTP/1.1 without TLS"]);
    assert!(verifier.asked().is_empty());
    server.edit("verify.yaml", &verify);
    assert_eq!(ask().status, 200);
}

#[test]
fn a_service_is_asked_about_the_request_and_told_nothing_that_a_client_forged() {
    let verifier = Verifier::start();
    let site = asking(&verifier, "");
    let server = site.start();
    let fields = [
        "-H",
        "Cookie: session=alice",
        "-H",
        "X-Remote-User: root",
        "-H",
        "X-Auth-User: root",
        "-H",
        "X-Forwarded-For: 10.0.0.1",
        "-H",
        "X-Real-IP: 10.0.0.1",
        "-H",
        "Forwarded: for=10.0.0.1",
        "-H",
        "X-Forwarded-Method: TRACE",
        "-H",
        "X-Custom: 1",
        "-H",
        "X-Custom: 2",
        "--data",
        "a body that is not sent",
    ];
    let reply = curl(&site, server.https, "-", "app.test", "/a%20b?c=d", &fields);
    let told = reply.told();
    assert_eq!((told["user"].as_str(), told["bodyLength"].as_u64()), (Some("alice"), Some(23)));
    assert!(
        !reply.body.contains("x-auth-user"),
        "the backend may have learnt to believe it: {reply:?}"
    );
    let asked = verifier.asked();
    let [asked] = asked.as_slice() else { panic!("asked once: {asked:?}") };
    assert_eq!((asked.method.as_str(), asked.target.as_str(), asked.body), ("GET", "/check", 0));
    let mut names: Vec<&str> = asked.headers.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let expected = [
        "cookie",
        "host",
        "x-custom",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-method",
        "x-forwarded-proto",
        "x-forwarded-uri",
    ];
    assert_eq!(names, expected, "{asked:?}");
    assert_eq!(asked.header("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(asked.header("x-forwarded-method"), ["POST"]);
    assert_eq!(asked.header("x-forwarded-proto"), ["https"]);
    assert_eq!(asked.header("x-forwarded-host"), ["app.test"]);
    assert_eq!(asked.header("x-forwarded-uri"), ["/a%20b?c=d"]);
    assert_eq!(asked.header("x-custom"), ["1", "2"]);
    // What Connection lists goes no further.
    let fields = [
        "--http1.1",
        "-H",
        "Cookie: session=alice",
        "-H",
        "X-Custom: 1",
        "-H",
        "Connection: x-custom",
    ];
    let reply = curl(&site, server.https, "-", "app.test", "/", &fields);
    assert_eq!(reply.told()["user"], "alice");
    assert!(verifier.asked()[0].header("x-custom").is_empty());
    // Passwords are for the module before it; certificates go before all.
    let options = ["--user", "test:battery-staple"];
    let reply = curl(&site, server.https, "-", "app.test", "/", &options);
    assert_eq!(reply.told()["user"], "test");
    let reply = curl(&site, server.https, "-", "app.test", "/", &["--user", "test:x"]);
    assert_eq!(reply.code(), "401.1");
    let reply = curl(&site, server.https, "alice", "app.test", "/", &[]);
    assert_eq!(reply.told()["user"], "azureuser");
    let reply =
        curl(&site, server.https, "stranger", "app.test", "/", &["-H", "Cookie: session=alice"]);
    assert_eq!(reply.code(), "403.16");
    assert!(verifier.asked().is_empty());
    // A Go client, with a scheme that nobody lists.
    let mut go = Go::start(&site, server.https, "-", "app.test", &["-authorization", "Custom x"]);
    let answer = go.get("/");
    assert_eq!((answer["status"].as_u64(), answer["body"].as_str()), (Some(302), Some("log on")));
    assert!(verifier.asked()[0].header("authorization").is_empty());
}

#[test]
fn a_service_is_told_of_a_path_beyond_ascii_in_escapes() {
    let verifier = Verifier::start();
    let site = asking(&verifier, "");
    let server = site.start();
    let client = Client::new(&site.server_ca, None, &TLS13);
    for (target, told) in [
        ("/caf\u{e9}/%c3%a9?q=\u{20ac}", "/caf%C3%A9/%c3%a9?q=%E2%82%AC"),
        ("/caf%c3%a9", "/caf%c3%a9"),
    ] {
        let mut stream = client.connect(server.https, "app.test");
        let cookie = "Cookie: session=alice";
        let text = format!("GET {target} HTTP/1.1\r\nHost: app.test\r\n{cookie}\r\n\r\n");
        let reply = request(&mut stream, &text);
        assert_eq!((reply.code().as_str(), &reply.told()["user"]), ("200", &"alice".into()));
        let asked = verifier.asked();
        assert_eq!(asked[0].header("x-forwarded-uri"), [told]);
    }
}

#[test]
fn whatever_a_service_says_but_yes_admits_nobody() {
    let verifier = Verifier::start();
    let site = asking(&verifier, "");
    let server = site.start();
    let with = |session: &str| {
        let cookie = format!("Cookie: session={session}");
        curl(&site, server.https, "-", "app.test", "/", &["-H", &cookie])
    };
    let reply = with("none");
    assert_eq!((reply.status, reply.body.as_str()), (302, "log on"));
    for line in ["location: https://login.test/?to=app", "set-cookie: a=1", "set-cookie: b=2"] {
        assert!(reply.head.lines().any(|it| it == line), "{line}: {}", reply.head);
    }
    let reply = with("denied");
    assert_eq!((reply.status, reply.body.as_str()), (403, "no"));
    let reply = with("unknown");
    assert_eq!((reply.status, reply.body.as_str()), (401, "who?"));
    let expected = ["basic realm=\"passwords\", charset=\"utf-8\"", "sesame realm=\"x\""];
    assert_eq!(challenges(&reply), expected);
    let log = server.logged(|line| line.contains("external service web/verify:80 refuses"));
    assert!(log.contains("\"401.5\""), "{log}");
    assert_eq!(with("gone").code(), "401.5");
    for session in ["broken", "huge", "nameless", "two"] {
        assert_eq!(with(session).code(), "503.95", "{session}");
    }
    let started = Instant::now();
    assert_eq!(with("slow").code(), "503.95");
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    assert_eq!(with("alice").told()["user"], "alice");
    drop(verifier);
    assert_eq!(with("alice").code(), "503.95", "nobody is there");
    server.delete("verify.yaml");
    assert_eq!(with("alice").code(), "503.95");
    server.said(&["Service web/verify does not exist", "503.95"]);
}

#[test]
fn a_request_ends_in_time_while_somebody_is_asked_about_it() {
    let verifier = Verifier::start();
    let site = asking(&verifier, "");
    site.write("route.yaml", &route_policy("app", "app", "timeouts: {request: 300ms}"));
    let server = site.start();
    let started = Instant::now();
    let options = ["-H", "Cookie: session=slow"];
    let reply = curl(&site, server.https, "-", "app.test", "/", &options);
    // The service itself has a second.
    assert_eq!(
        (reply.code().as_str(), started.elapsed() < Duration::from_millis(900)),
        ("504", true)
    );
}

#[test]
fn a_refusal_may_be_kept_from_the_client_and_groups_are_judged() {
    let verifier = Verifier::start();
    let site = asking(
        &verifier,
        "    onRefusal: Refuse\nauthorization: {allow: {groups: [hr]}, deny: {groups: [guests]}}\n",
    );
    let server = site.start();
    let with = |session: &str| {
        let cookie = format!("Cookie: session={session}");
        curl(&site, server.https, "-", "app.test", "/", &["-H", &cookie])
    };
    for session in ["none", "denied", "unknown"] {
        let reply = with(session);
        assert_eq!((reply.code().as_str(), reply.status), ("401.5", 401), "{session}");
        assert!(!reply.head.contains("location") && !reply.head.contains("sesame"), "{session}");
        assert_eq!(challenges(&reply), ["basic realm=\"passwords\", charset=\"utf-8\""]);
    }
    assert_eq!(with("alice").told()["user"], "alice");
    let spec: String = std::fs::read_to_string(site.manifests().join("policy.yaml")).unwrap();
    server.edit("policy.yaml", &spec.replace("allow: {groups: [hr]}", "allow: {groups: [board]}"));
    assert_eq!(with("alice").code(), "401.3");
}

#[test]
fn a_token_that_ends_ends_a_long_response() {
    let site = Site::with_people(NEGOTIATE);
    let issuer = Issuer::new("a");
    site.write("keys.yaml", &config_map("keys", "jwks.json", &key_set(&[&issuer])));
    let spec = spec(&site, HELD);
    site.write("policy.yaml", &policy("app", "app", &spec));
    let server = site.start();
    let token = issuer.token(&json!({}));
    let options = ["--oauth2-bearer", &*token, "--no-buffer"];
    let whole = std::thread::scope(|scope| {
        let reply = scope.spawn(|| curl(&site, server.https, "-", "app.test", "/stream", &options));
        wait("the stream", || site.backend.requests.load(Ordering::SeqCst) > 0);
        // The key is withdrawn while it lasts.
        server.edit("keys.yaml", &config_map("keys", "jwks.json", &key_set(&[&Issuer::new("b")])));
        reply.join().unwrap().body
    });
    let chunks = whole.matches("chunk\n").count();
    assert!(chunks < 45, "it came to its end: {chunks}");
}

#[test]
fn a_long_response_goes_on_while_nobody_can_say_whether_it_may() {
    let verifier = Verifier::start();
    let site = asking(&verifier, "");
    let server = site.start();
    let options = ["-H", "Cookie: session=alice", "--no-buffer"];
    let ask = |path: &str| curl(&site, server.https, "-", "app.test", path, &options);
    let whole = std::thread::scope(|scope| {
        let reply = scope.spawn(|| ask("/stream"));
        wait("the stream", || site.backend.requests.load(Ordering::SeqCst) > 0);
        drop(verifier);
        let policy = std::fs::read_to_string(site.manifests().join("policy.yaml")).unwrap();
        server.edit("policy.yaml", &policy.replace("path: /check", "path: /other"));
        assert_eq!(ask("/").code(), "503.95", "who comes new is refused");
        reply.join().unwrap().body
    });
    assert_eq!(whole.matches("chunk\n").count(), 50);
}
