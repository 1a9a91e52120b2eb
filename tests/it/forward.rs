//! What backends are told, and whether they can believe it.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{DnType, DnValue};
use rustls::version::TLS13;
use serde_json::Value;

use super::support::clients::{curl, curl_http};
use super::support::frames::{END_HEADERS, H2, HEADERS, frame, head};
use super::support::manifests::{policy, route_policy, service};
use super::support::pki::named;
use super::support::tls::{Client, Reply, request};
use super::support::{REQUIRE, Site, run};

/// app.test with alice as `account`, and this `forward`.
fn site(account: &str, forward: &str) -> Site {
    let site = Site::new();
    site.write("policy.yaml", &spec(&site, account, forward));
    site
}

fn spec(site: &Site, account: &str, forward: &str) -> String {
    let spec = format!(
        "sslFlags: {REQUIRE}\ntrust: {{caCertificateRefs: [{{kind: ConfigMap, name: corporate-ca}}]}}\noneToOne:\n  mappings:\n  - name: alice-laptop\n    certificate: {}\n    account: {account}\nforward: {forward}\n",
        site.alice.base64()
    );
    policy("app", "app", &spec)
}

/// A header that the backend got; none where it got none or several.
fn told(reply: &Reply, name: &str) -> Option<String> {
    let told = reply.told();
    let fields = told["headers"].as_array().into_iter().flatten();
    let mut values = fields.filter(|field| field[0] == name).filter_map(|field| field[1].as_str());
    let value = values.next().map(str::to_owned);
    value.filter(|_| values.next().is_none())
}

/// `certmap signing-key`.
fn signing_key() -> String {
    let mut certmap = Command::new(env!("CARGO_BIN_EXE_certmap"));
    let (ok, manifest) = run(certmap.args(["signing-key", "signing", "-n", "web"]));
    assert!(ok, "{manifest}");
    manifest
}

/// Its keys in PEM: the one that signs, and the one to come.
fn keys(manifest: &str) -> (String, String) {
    let of = |name: &str| {
        let (_, after) = manifest.split_once(&format!("  {name}: |\n")).unwrap();
        let end = "-----END PRIVATE KEY-----\n";
        after.split_once(end).unwrap().0.to_owned() + end
    };
    (of("current.key"), of("next.key"))
}

fn secret(keys: &[(&str, &str)]) -> String {
    let keys: String = keys.iter().map(|(name, pem)| format!("  {name}: |\n{pem}")).collect();
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: signing, namespace: web}}\nstringData:\n{keys}"
    )
}

/// What another library makes of a token.
fn verified(site: &Site, keys: &str, audience: &str, token: &str) -> Value {
    static VERIFIER: OnceLock<std::path::PathBuf> = OnceLock::new();
    let program = VERIFIER.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/verify");
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-verify");
        let (ok, text) = run(Command::new("go")
            .args(["build", "-o"])
            .arg(&program)
            .arg(".")
            .current_dir(source));
        assert!(ok, "go cannot build the verifier: {text}");
        program
    });
    std::fs::write(site.path("keys.json"), keys).unwrap();
    let mut command = Command::new(program);
    command
        .args(["-issuer", "certmap", "-audience", audience])
        .arg("-keys")
        .arg(site.path("keys.json"));
    command.arg("-certificate").arg(site.path("alice.crt"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{token}").unwrap();
    let output = child.wait_with_output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

const SIGNED: &str =
    "{userHeader: X-Remote-User, signedIdentity: {keySecretRef: {name: signing}, publish: true}}";
const KEYS: &str = "/.well-known/certmap/jwks.json";

#[test]
fn another_library_verifies_a_signed_identity_by_the_keys_that_are_served() {
    let site = site("{userName: azureuser, groups: [HR, Jürgens]}", SIGNED);
    site.write("signing.yaml", &signing_key());
    let server = site.start();
    let forged = ["-H", "X-Certmap-Identity: e30.e30.", "-H", "X_Certmap_Identity: e30.e30."];
    let reply = curl(&site, server.https, "alice", "app.test", "/", &forged);
    let token = told(&reply, "x-certmap-identity").unwrap();
    // Everybody may have the public keys: no certificate is needed.
    let served = curl(&site, server.https, "-", "app.test", KEYS, &[]);
    assert_eq!(served.status, 200, "{served:?}");
    assert!(served.head.contains("content-type: application/jwk-set+json"), "{}", served.head);
    assert!(!served.body.contains("\"d\""), "{}", served.body);
    for keys in [&served.body, &server.admin("/jwks.json").1] {
        let answer = verified(&site, keys, "web/echo", &token);
        let claims = &answer["claims"];
        assert_eq!(claims["sub"], "azureuser", "{answer}");
        assert_eq!(claims["groups"], serde_json::json!(["HR", "Jürgens"]));
        assert_eq!(
            (&claims["mechanism"], &claims["policy"]),
            (&"oneToOne".into(), &"web/app".into())
        );
        let lasts = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
        assert_eq!(lasts, 60);
        assert_eq!(claims["jti"].as_str(), told(&reply, "x-request-id").as_deref());
    }
    assert!(verified(&site, &served.body, "web/other", &token)["error"].is_string());
    let (signed, _) = token.rsplit_once('.').unwrap();
    let (head, _) = signed.split_once('.').unwrap();
    let other = curl(&site, server.https, "alice", "app.test", "/", &[]);
    let other = told(&other, "x-certmap-identity").unwrap();
    assert_ne!(other, token, "each request has its own");
    let (_, signature) = other.rsplit_once('.').unwrap();
    for bad in
        [format!("{signed}.{signature}"), format!("{head}.e30.{signature}"), format!("{signed}.")]
    {
        assert!(verified(&site, &served.body, "web/echo", &bad)["error"].is_string(), "{bad}");
    }
    server.logged(|line| line.contains(KEYS) && line.contains("\"status\":200"));
}

#[test]
fn keys_move_up_and_every_token_stays_good() {
    let site = site("{userName: azureuser}", SIGNED);
    let ((first, second), (third, _)) = (keys(&signing_key()), keys(&signing_key()));
    site.write("signing.yaml", &secret(&[("current.key", &first), ("next.key", &second)]));
    let server = site.start();
    let look = || {
        let reply = curl(&site, server.https, "alice", "app.test", "/", &[]);
        let served = curl(&site, server.https, "-", "app.test", KEYS, &[]).body;
        (told(&reply, "x-certmap-identity").unwrap(), served)
    };
    let (old, before) = look();
    server.edit(
        "signing.yaml",
        &secret(&[("previous.key", &first), ("current.key", &second), ("next.key", &third)]),
    );
    let (new, after) = look();
    let kid = |keys: &str, token: &str| verified(&site, keys, "web/echo", token)["kid"].clone();
    // Whoever looked before knows the new key, and whoever looks now the old one.
    for keys in [&before, &after] {
        assert!(kid(keys, &old).is_string() && kid(keys, &new).is_string());
        assert_ne!(kid(keys, &old), kid(keys, &new));
    }
    server.edit("signing.yaml", &secret(&[("current.key", &third)]));
    let (_, last) = look();
    assert!(verified(&site, &last, "web/echo", &old)["error"].is_string(), "its key is gone");
}

#[test]
fn without_a_key_nothing_reaches_the_backend() {
    let site = site("{userName: azureuser}", SIGNED);
    let server = site.start();
    server.said(&["policy.yaml:", "Secret web/signing does not exist", "503.92"]);
    let reply = curl(&site, server.https, "alice", "app.test", "/", &[]);
    assert_eq!(reply.code(), "503.92", "{reply:?}");
    assert_eq!(curl(&site, server.https, "-", "app.test", "/", &[]).code(), "403.7");
    server.edit("signing.yaml", &secret(&[("current.key", "    -----BEGIN PRIVATE KEY-----\n")]));
    server.said(&["Secret web/signing, key current.key: it is no private key in PEM"]);
    assert_eq!(curl(&site, server.https, "alice", "app.test", "/", &[]).code(), "503.92");
    assert_eq!(site.backend.requests.load(Ordering::SeqCst), 0);
    server.edit("signing.yaml", &signing_key());
    assert_eq!(curl(&site, server.https, "alice", "app.test", "/", &[]).status, 200);
    server.delete("signing.yaml");
    assert_eq!(curl(&site, server.https, "alice", "app.test", "/", &[]).code(), "503.92");
}

#[test]
fn keys_are_served_where_a_policy_publishes_them_over_https_and_nowhere_else() {
    let site = site("{userName: azureuser}", SIGNED);
    site.write("signing.yaml", &signing_key());
    let server = site.start();
    for path in [KEYS, "/.well-known/certmap/%6Awks.json"] {
        assert_eq!(curl(&site, server.https, "-", "app.test", path, &[]).status, 200, "{path}");
    }
    assert!(curl(&site, server.https, "-", "app.test", KEYS, &["-I"]).body.is_empty());
    assert_eq!(curl(&site, server.https, "-", "app.test", KEYS, &["-d", "x"]).code(), "403.7");
    assert_eq!(curl_http(server.http, "app.test", KEYS, &[]).code(), "403.4");
    // To a CONNECT for a WebSocket they would say that there is one.
    let tls = Client::new(&site.server_ca, None, &TLS13).with_alpn("h2");
    let mut h2 = H2::over(tls.connect(server.https, "app.test"), &[]).unwrap();
    let connect = head("CONNECT", "app.test", KEYS, &[(b":protocol", b"websocket")]);
    h2.send(&frame(HEADERS, END_HEADERS, 1, &connect)).unwrap();
    assert_eq!(h2.outcome(1), Some(403));
    let mut explain = Command::new(env!("CARGO_BIN_EXE_certmap"));
    explain.args(["explain", "--host", "app.test", "--no-cert", "--path", KEYS, "--manifests"]);
    let (_, text) = run(explain.arg(site.manifests()));
    assert!(text.contains("answer      200") && text.contains("public keys"), "{text}");
    // A host without a policy: the path is the backend's.
    assert_eq!(curl(&site, server.https, "-", "open.test", KEYS, &[]).told()["target"], KEYS);
    let forward = "{signedIdentity: {keySecretRef: {name: signing}}}";
    server.edit("policy.yaml", &spec(&site, "{userName: azureuser}", forward));
    assert_eq!(curl(&site, server.https, "-", "app.test", KEYS, &[]).code(), "403.7");
    assert!(server.admin("/jwks.json").1.contains("\"kty\": \"EC\""), "all the same");
}

/// A backend that answers the first request of each connection with 503 and breaks off at the second; counts requests.
fn breaking() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, requests) = (listener.local_addr().unwrap().port(), Arc::<AtomicUsize>::default());
    let count = requests.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let count = count.clone();
            std::thread::spawn(move || {
                let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
                for answer in ["HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", ""] {
                    if lines.find(|line| line.is_empty()).is_none() {
                        return;
                    }
                    count.fetch_add(1, Ordering::SeqCst);
                    drop((&stream).write_all(answer.as_bytes()));
                }
            });
        }
    });
    (port, requests)
}

#[test]
fn a_token_is_sent_once() {
    let (port, requests) = breaking();
    let site = site("{userName: azureuser}", SIGNED);
    site.write("signing.yaml", &signing_key());
    site.write("backend.yaml", &service("echo", &[port]));
    let server = site.start();
    let get = || curl(&site, server.https, "alice", "app.test", "/", &[]).status;
    let sent = || {
        let before = requests.load(Ordering::SeqCst);
        let status = get();
        (status, requests.load(Ordering::SeqCst) - before)
    };
    assert_eq!(sent(), (503, 1));
    let retry = "retry: {attempts: 2, codes: [502, 503]}";
    for route in ["timeouts: {connect: 5s}", retry] {
        server.edit("route.yaml", &route_policy("route", "app", route));
        // On new connections, and on kept ones that break.
        for _ in 0..4 {
            assert_eq!(sent().1, 1, "{route}");
        }
    }
    let unsigned = "{userHeader: X-Remote-User}";
    server.edit("policy.yaml", &spec(&site, "{userName: azureuser}", unsigned));
    assert!(sent().1 > 1, "what has no token is sent again");
}

#[test]
fn names_are_written_as_asked_and_groups_beside_them() {
    let site = site("{userName: azureuser}", "{}");
    let server = site.start();
    let domain = "domain: {netbios: CORP, dns: corp.example}";
    for (user, forward, expected) in [
        ("CORP\\alice", "userFormat: AsWritten", Some("CORP\\alice")),
        ("CORP\\alice", "userFormat: AccountName", Some("alice")),
        ("CORP\\alice", "userFormat: DownLevelLogonName", Some("CORP\\alice")),
        ("CORP\\alice", "userFormat: UserPrincipalName", None),
        (
            "CORP\\alice",
            &format!("userFormat: UserPrincipalName, {domain}"),
            Some("alice@corp.example"),
        ),
        (
            "alice@corp.example",
            &format!("userFormat: DownLevelLogonName, {domain}"),
            Some("CORP\\alice"),
        ),
        ("alice", "userFormat: DownLevelLogonName", None),
        ("alice", &format!("userFormat: DownLevelLogonName, {domain}"), Some("CORP\\alice")),
    ] {
        let account = format!("{{userName: '{user}', groups: ['HR, Staff', Jürgens]}}");
        let forward = format!(
            "{{userHeader: X-Remote-User, groupsHeader: X-Remote-Groups, groupsSeparator: '|', {forward}}}"
        );
        server.edit("policy.yaml", &spec(&site, &account, &forward));
        let reply =
            curl(&site, server.https, "alice", "app.test", "/", &["-H", "X-Remote-Groups: admins"]);
        assert_eq!(
            told(&reply, "x-remote-user").as_deref(),
            expected,
            "{user} {forward}: {reply:?}"
        );
        if expected.is_some() {
            assert_eq!(told(&reply, "x-remote-groups").as_deref(), Some("HR, Staff|Jürgens"));
        } else {
            assert_eq!(reply.code(), "502");
            server.logged(|line| {
                line.contains("no name of the form that forward.userFormat asks for")
            });
        }
    }
    let account = "{userName: alice, groups: ['HR, Staff']}";
    server.edit("policy.yaml", &spec(&site, account, "{groupsHeader: X-Remote-Groups}"));
    assert_eq!(curl(&site, server.https, "alice", "app.test", "/", &[]).code(), "502");
    server.logged(|line| line.contains("a group's name holds forward.groupsSeparator"));
}

#[test]
fn a_certificate_is_told_in_every_form_at_once() {
    let site =
        site("{userName: azureuser}", "{clientCertificate: [rfc9440, xfcc, nginx, arr, traefik]}");
    let server = site.start();
    let reply = curl(&site, server.https, "alice", "app.test", "/", &[]);
    let base64 = site.alice.base64();
    assert_eq!(told(&reply, "client-cert"), Some(format!(":{base64}:")));
    assert_eq!(told(&reply, "x-arr-clientcert"), Some(base64.clone()));
    assert_eq!(told(&reply, "x-forwarded-tls-client-cert"), Some(base64.clone()));
    let info = told(&reply, "x-forwarded-tls-client-cert-info").unwrap();
    assert!(info.starts_with("Subject%3D%22") && info.contains("%3BIssuer%3D%22"), "{info}");
    assert_eq!(told(&reply, "ssl-client-verify").as_deref(), Some("SUCCESS"));
    assert!(told(&reply, "ssl-client-subject-dn").unwrap().contains("CN=Alice"));
    let xfcc = told(&reply, "x-forwarded-client-cert").unwrap();
    let body = STANDARD.decode(&base64).unwrap();
    let hash = certmap::identity::Fingerprint::of(&body);
    assert!(xfcc.starts_with(&format!("Hash={hash};Cert=\"-----BEGIN%20CERTIFICATE")), "{xfcc}");
    for part in [";Chain=\"-----BEGIN", ";Subject=\""] {
        assert!(xfcc.contains(part), "{xfcc}");
    }
}

#[test]
fn names_stand_as_openssl_prints_them() {
    let custom = |oid: &[u64]| DnType::CustomDnType(oid.to_vec());
    let odd = named(&[
        (custom(&[0, 9, 2342, 19_200_300, 100, 1, 25]), "example".into()),
        (DnType::OrganizationName, "Contoso, \"Ltd\" #1; <x>=\\".into()),
        (DnType::OrganizationalUnitName, "#HR".into()),
        (custom(&[2, 5, 4, 5]), "4711".into()),
        (custom(&[2, 5, 4, 12]), "Dr.".into()),
        (custom(&[2, 5, 4, 9]), "Main Street".into()),
        (custom(&[2, 5, 4, 43]), "J.".into()),
        (custom(&[0, 9, 2342, 19_200_300, 100, 1, 1]), "u1".into()),
        (
            custom(&[1, 2, 840, 113_549, 1, 9, 1]),
            DnValue::Ia5String("j@a.test".try_into().unwrap()),
        ),
        (DnType::CommonName, " Jürgen + ".into()),
    ]);
    let site = Site::new();
    site.person("odd", &site.zerossl.issue(odd));
    let spec = format!(
        "sslFlags: {REQUIRE}\ntrust: {{caCertificateRefs: [{{kind: ConfigMap, name: corporate-ca}}]}}\nadmitAnyVerified: {{userFrom: SubjectCN}}\nforward: {{clientCertificate: [nginx, xfcc]}}\n"
    );
    site.write("policy.yaml", &policy("app", "app", &spec));
    let server = site.start();
    let reply = curl(&site, server.https, "odd", "app.test", "/", &[]);
    for (name, header) in
        [("-subject", "ssl-client-subject-dn"), ("-issuer", "ssl-client-issuer-dn")]
    {
        let mut openssl = Command::new("openssl");
        openssl.args(["x509", "-noout", name, "-nameopt", "RFC2253", "-in"]);
        let (_, shown) = run(openssl.arg(site.path("odd.crt")));
        let (_, shown) = shown.trim_end_matches('\n').split_once('=').unwrap();
        assert_eq!(told(&reply, header).as_deref(), Some(shown), "{name}");
    }
}

#[test]
fn no_route_lets_a_clients_word_about_itself_through() {
    let site = site(
        "{userName: azureuser}",
        "{groupsHeader: X-Employee-Teams, signedIdentity: {header: X-Badge, keySecretRef: {name: signing}}}",
    );
    site.write("signing.yaml", &signing_key());
    let server = site.start();
    let forged = "X-Employee-Teams: admins\r\nx_badge: e30.e30.\r\nX-Certmap-Identity: e30.e30.\r\nX-Forwarded-Tls-Client-Cert-Info: Subject\r\nX-Remote-Groups: admins\r\n";
    let mut stream = TcpStream::connect(server.http).unwrap();
    let text = format!(
        "POST / HTTP/1.1\r\nHost: open.test\r\nTransfer-Encoding: chunked\r\nTrailer: X-Badge, X-Sum\r\n{forged}\r\n1\r\nx\r\n0\r\n{forged}X-Sum: 1\r\n\r\n"
    );
    let told = request(&mut stream, &text).told();
    assert_eq!(told["trailers"], serde_json::json!(["x-sum"]), "{told}");
    let names: Vec<&str> =
        told["headers"].as_array().unwrap().iter().filter_map(|it| it[0].as_str()).collect();
    for name in [
        "x-employee-teams",
        "x-badge",
        "x_badge",
        "x-certmap-identity",
        "x-forwarded-tls-client-cert-info",
        "x-remote-groups",
    ] {
        assert!(!names.contains(&name), "{name} in {names:?}");
    }
}
