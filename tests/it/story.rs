//! The story that the project was started for, told with real clients.

use super::support::clients::{Go, code, curl, user};
use super::support::manifests::{ingress, policy};
use super::support::server::Server;
use super::support::{NEGOTIATE, REQUIRE, Site};

const TRUST: &str = "trust: {caCertificateRefs: [{kind: ConfigMap, name: corporate-ca}]}";

fn zerossl(flags: &str) -> String {
    format!(
        "sslFlags: {flags}\n{TRUST}\nmanyToOne:\n  mappings:\n  - name: zerossl\n    rules: [{{certificateField: Issuer, certificateSubField: O, matchCriteria: ZeroSSL}}]\n    account: {{userName: test, secretRef: {{name: test}}}}\nforward: {{userHeader: X-Remote-User}}\n"
    )
}

/// The fields of a W3C line by their names.
fn w3c(
    server: &Server,
    log: &std::path::Path,
    status: &str,
) -> std::collections::HashMap<String, String> {
    let line = server.logged(|line| !line.starts_with('#') && line.contains(status));
    let text = std::fs::read_to_string(log).unwrap();
    let names = text.lines().find_map(|line| line.strip_prefix("#Fields: ")).unwrap();
    names.split(' ').map(str::to_owned).zip(line.split(' ').map(str::to_owned)).collect()
}

#[test]
fn a_certificate_becomes_an_account_and_the_rules_change_under_an_open_connection() {
    for http2 in [false, true] {
        let site = Site::with_people(REQUIRE);
        let log = site.path("access.log");
        let server = Server::start(&site.manifests(), &log, "w3c");
        let options: &[&str] = if http2 { &["-http2"] } else { &[] };
        let mut browser = Go::start(&site, server.https, "alice", "app.test", options);

        let answer = browser.get("/");
        assert_eq!(
            (answer["status"].as_u64(), user(&answer).as_str()),
            (Some(200), "azureuser"),
            "{answer}"
        );
        let fields = w3c(&server, &log, " 200 0 ");
        assert_eq!((&*fields["c-ip"], &*fields["cs-username"]), ("127.0.0.1", "azureuser"));
        assert_eq!(
            (&*fields["sc-status"], &*fields["sc-substatus"], &*fields["sc-win32-status"]),
            ("200", "0", "0")
        );
        assert_eq!((&*fields["x-policy"], &*fields["x-mapping"]), ("web/app", "alice-laptop"));

        for (who, expected, win32) in [
            ("stranger", "403.16", "2148204809"),
            ("-", "403.7", "5"),
            ("expired", "403.17", "2148204801"),
        ] {
            assert_eq!(curl(&site, server.https, who, "app.test", "/", &[]).code(), expected);
            let (status, substatus) = expected.split_once('.').unwrap();
            let fields = w3c(&server, &log, &format!(" {status} {substatus} "));
            assert_eq!((&*fields["cs-username"], &*fields["sc-win32-status"]), ("-", win32));
        }

        let took = server.edit("policy.yaml", &policy("app", "app", &zerossl(REQUIRE)));
        assert!(took.as_millis() < 1000, "{took:?}");
        let answer = browser.get("/");
        assert_eq!(
            (answer["status"].as_u64(), user(&answer).as_str()),
            (Some(200), "test"),
            "{answer}"
        );
        assert_eq!(answer["reused"], true, "the same connection");
        assert_eq!(&*w3c(&server, &log, " test ")["x-mapping"], "zerossl");
    }
}

#[test]
fn with_negotiate_alone_a_password_helps_who_has_no_certificate_and_nobody_with_a_wrong_one() {
    let site = Site::with_people(REQUIRE);
    let spec = format!(
        "sslFlags: {NEGOTIATE}\n{TRUST}\nauthentication: [{{basic: {{secretRefs: [{{name: test}}]}}}}]\nforward: {{userHeader: X-Remote-User}}\n"
    );
    site.write("policy.yaml", &policy("app", "app", &spec));
    site.write("ingress.yaml", &ingress("app", "app.test", "/", "echo"));
    let server = site.start();
    let none = curl(&site, server.https, "-", "app.test", "/", &[]);
    assert_eq!(none.code(), "401.2");
    assert!(none.head.contains("www-authenticate: basic realm=\"app\""), "{}", none.head);
    let right = curl(&site, server.https, "-", "app.test", "/", &["-u", "test:battery-staple"]);
    assert_eq!((right.status, right.told()["user"].as_str()), (200, Some("test")));
    assert_eq!(
        curl(&site, server.https, "-", "app.test", "/", &["-u", "test:wrong"]).code(),
        "401.1"
    );
    for credentials in [&[][..], &["-u", "test:battery-staple"]] {
        let wrong = curl(&site, server.https, "stranger", "app.test", "/", credentials);
        assert_eq!(wrong.code(), "403.16");
        assert!(!wrong.head.contains("www-authenticate"), "{}", wrong.head);
    }
}

#[test]
fn one_connection_of_a_browser_that_must_choose_again_is_closed() {
    let site = Site::with_people(REQUIRE);
    let server = site.start();
    let mut go = Go::start(&site, server.https, "stranger", "app.test", &["-http2"]);
    assert_eq!(code(&go.get("/")), "403.16");
    // The next request may be on its way before the GOAWAY has come.
    let again = (0..5)
        .map(|_| go.get("/"))
        .find(|answer| answer["reused"] == false)
        .expect("a new connection");
    assert_eq!(code(&again), "403.16");
}
