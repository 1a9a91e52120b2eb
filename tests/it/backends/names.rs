//! Backends that are known by names of their own: SPIFFE IDs, and other hosts than the one in SNI.

use rcgen::SanType;

use super::super::support::clients::curl_http;
use super::super::support::manifests::config_map;
use super::super::support::pki::{self, Ca};
use super::super::support::server::Server;
use super::super::support::{Site, run};
use super::{Program, node, route_policy, speaking};

const SPIFFE: &str = "spiffe://corp.example/ns/web/sa/app";

fn known_as(names: &str) -> String {
    let ca = "caCertificateRefs: [{kind: ConfigMap, name: backend-ca}]";
    route_policy(&format!("backendTLS: {{{ca}, hostname: sni.internal, subjectAltNames: {names}}}"))
}

/// A backend that is `app.internal` and has the SPIFFE ID, and none that SNI names.
fn backend(site: &Site) -> Program {
    let ca = Ca::new("Backends");
    let mut names = pki::server(&["app.internal"]);
    names.subject_alt_names.push(SanType::URI(SPIFFE.try_into().unwrap()));
    ca.issue(names).write(site.directory.path(), "internal");
    std::fs::write(site.path("clients.crt"), ca.pem()).unwrap();
    let files = ["internal.crt", "internal.key", "clients.crt"].map(|name| site.path(name));
    let backend = Program::start(node().arg("serve").args(files));
    site.write("backend.yaml", &speaking(backend.port, "https", ""));
    site.write("ca.yaml", &config_map("backend-ca", "ca.crt", &ca.pem()));
    backend
}

#[test]
fn a_backend_is_reached_by_one_of_its_names_and_a_list_that_changes_counts_from_the_next_request() {
    let site = Site::new();
    let _backend = backend(&site);
    let by_id = format!("[{{type: URI, uri: '{SPIFFE}'}}]");
    site.write("route.yaml", &known_as(&by_id));
    let server = site.start();
    let answer = |server: &Server| {
        let reply = curl_http(server.http, "app.test", "/", &[]);
        if reply.status == 200 { "200".to_owned() } else { reply.code() }
    };
    assert_eq!(answer(&server), "200");
    let another = by_id.replace("/app", "/another");
    for (names, expected) in [
        (&*another, "502.90"),
        (&*by_id, "200"),
        ("[{type: Hostname, hostname: sni.internal}]", "502.90"),
        (
            "[{type: URI, uri: 'spiffe://corp.example/x'}, {type: Hostname, hostname: a.internal}, {type: Hostname, hostname: APP.internal}]",
            "200",
        ),
        ("[{type: URI, uri: 'https://app.internal'}]", "502.90"),
    ] {
        server.edit("route.yaml", &known_as(names));
        assert_eq!(answer(&server), expected, "{names}");
    }
    let without = known_as("").replace(", subjectAltNames: ", "");
    server.edit("route.yaml", &without);
    assert_eq!(answer(&server), "502.90", "then hostname is the name");
    server.edit("route.yaml", &without.replace("sni.internal", "app.internal"));
    assert_eq!(answer(&server), "200");
}

#[test]
fn a_name_that_makes_no_sense_is_one_error_that_says_what_to_write() {
    let site = Site::new();
    site.write("ca.yaml", &config_map("backend-ca", "ca.crt", &Ca::new("Backends").pem()));
    let many = ["{type: Hostname, hostname: a}"; 6].join(", ");
    for (names, parts) in [
        ("[]", &["spec.backendTLS.subjectAltNames", "at least 1"][..]),
        (&*format!("[{many}]"), &["spec.backendTLS.subjectAltNames", "at most 5"]),
        ("[{type: Hostname}]", &["subjectAltNames[0]", "write hostname, and no uri, where type"]),
        (
            "[{type: URI, uri: 'a://b', hostname: a}]",
            &["subjectAltNames[0]", "uri, and no hostname, where it is URI"],
        ),
        ("[{type: Email, uri: 'a://b'}]", &["subjectAltNames[0].type", "Hostname", "URI"]),
        ("[{type: URI, uri: app}]", &["subjectAltNames[0].uri"]),
        ("[{type: Hostname, hostname: '*.a'}]", &["subjectAltNames[0].hostname"]),
        (
            "[{type: Hostname, hostname: b}, {type: Hostname, hostname: 10.0.0.1}]",
            &["subjectAltNames[1].hostname", "10.0.0.1 is no DNS name: write one", "503.96"],
        ),
    ] {
        site.write("route.yaml", &known_as(names));
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_certmap"));
        let (ok, text) = run(command.arg("validate").arg(site.manifests()));
        assert!(!ok, "{names}: {text}");
        for part in parts.iter().chain(&["web/app", "route.yaml"]) {
            assert!(text.contains(part), "{names}: {part}: {text}");
        }
        let errors = text.lines().filter(|line| line.contains("subjectAltNames")).count();
        assert_eq!(errors, 1, "{names}: {text}");
    }
}
