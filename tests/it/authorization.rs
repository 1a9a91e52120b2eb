//! Who of those that were identified may come in: 401.3 wherever a refusal shows.

use std::process::Command;

use serde_json::Value;

use super::support::clients::curl;
use super::support::manifests::policy;
use super::support::server::Server;
use super::support::{REQUIRE, Site, run};

fn spec(site: &Site, authorization: &str) -> String {
    let spec = format!(
        "sslFlags: {REQUIRE}\ntrust: {{caCertificateRefs: [{{kind: ConfigMap, name: corporate-ca}}]}}\noneToOne:\n  mappings:\n  - name: alice-laptop\n    certificate: {}\n    account: {{userName: 'CORP\\alice', groups: [Staff, Interns]}}\nauthorization: {authorization}\nforward: {{userHeader: X-Remote-User}}\n",
        site.alice.base64()
    );
    policy("app", "app", &spec)
}

#[test]
fn a_refusal_shows_in_page_log_metric_and_explain_and_an_edit_lifts_it() {
    let site = Site::new();
    let denied = spec(&site, "{allow: {groups: [Staff]}, deny: {groups: [interns]}}");
    site.write("policy.yaml", &denied);
    let log = site.path("access.log");
    let server = Server::start(&site.manifests(), &log, "w3c");
    let ask = || curl(&site, server.https, "alice", "app.test", "/", &[]);
    let refused = ask();
    assert_eq!((refused.status, refused.code()), (401, "401.3".to_owned()), "{refused:?}");
    assert!(!refused.head.to_lowercase().contains("www-authenticate"), "{refused:?}");
    server.logged(|line| line.contains(" 401 3 "));
    let (_, metrics) = server.admin("/metrics");
    let counted = |line: &str| line.contains("web/app") && line.contains("\"401.3\"");
    assert!(metrics.lines().any(counted), "{metrics}");
    let certificate = site.path("alice.crt");
    let (_, text) = run(Command::new(env!("CARGO_BIN_EXE_certmap"))
        .args(["explain", "--host", "app.test", "-o", "json", "--manifests"])
        .arg(site.manifests())
        .arg("--cert")
        .arg(certificate));
    let explained: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(explained["code"], "401.3");
    let trace = explained["trace"].as_array().unwrap().last().unwrap();
    assert_eq!(trace["text"], "authorization: refused: authorization.deny lists group interns");
    server.edit("policy.yaml", &spec(&site, "{allow: {users: ['CORP\\*']}}"));
    assert_eq!(ask().told()["user"], "CORP\\alice");
    server.edit("policy.yaml", &spec(&site, "{allow: {users: [alice]}}"));
    assert_eq!(ask().code(), "401.3", "another account than CORP's");
}
