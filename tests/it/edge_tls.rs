//! Handshakes: which certificate, key exchange, version and suite; and tickets that replicas share.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{KeyPair, PKCS_RSA_SHA256};
use rustls::crypto::SupportedKxGroup;
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::support::clients::s_client;
use super::support::manifests::{config_map, ingress, policy, tls_secret};
use super::support::pki::{self, Identity};
use super::support::server::Server;
use super::support::tls::{Client, Promiscuous};
use super::support::{REQUIRE, Site, run};

fn start(site: &Site, name: &str, options: &[&str]) -> Server {
    Server::start_with(&site.manifests(), &site.path(name), "json", options)
}

#[test]
fn a_host_shows_each_client_the_certificate_that_it_can_verify() {
    let site = Site::with_alice(REQUIRE);
    let rsa = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let rsa = site.server_ca.issue_for(rsa, pki::server(&["open.test"]));
    site.write("rsa.yaml", &tls_secret("rsa-tls", &rsa));
    // The RSA one goes first in the Ingress: what counts is the key.
    let both = "tls: [{hosts: [\"open.test\"], secretName: rsa-tls}, {hosts: [\"open.test\"], secretName: server-tls}]";
    let one = "tls: [{hosts: [\"open.test\"], secretName: server-tls}]";
    let manifest = ingress("open", "open.test", "/", "echo");
    assert!(manifest.contains(one));
    site.write("open.yaml", &manifest.replace(one, both));
    let server = start(&site, "access.log", &[]);
    for (options, expected) in [
        (&["-tls1_3"][..], "Peer signature type: ECDSA"),
        (&["-tls1_2"], "Peer signature type: ECDSA"),
        (&["-tls1_3", "-sigalgs", "RSA-PSS+SHA256"], "Peer signature type: RSA-PSS"),
        (&["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"], "Peer signature type: RSA"),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], "Peer signature type: ECDSA"),
    ] {
        let said = s_client(&site, server.https, "-", "open.test", options);
        assert!(said.contains(expected) && said.contains("200 OK"), "{options:?}: {said}");
        assert!(said.contains("Verify return code: 0 (ok)"), "{options:?}: {said}");
    }
    // Renewed by a later one of the same kind of key.
    let mut later = pki::server(&["open.test"]);
    pki::validity(&mut later, -1, 40);
    let later = site.server_ca.issue(later);
    let three = both.replace("tls: [", "tls: [{hosts: [\"open.test\"], secretName: later-tls}, ");
    // In one file: two could come into force one after the other.
    let both = [tls_secret("later-tls", &later), manifest.replace(one, &three)].join("\n---\n");
    server.edit("open.yaml", &both);
    let said = s_client(&site, server.https, "-", "open.test", &["-showcerts"]);
    assert!(said.contains(pki::pem(&later.der).trim()), "the one issued last: {said}");
}

/// What the CA's own responder says of a certificate, in DER.
fn ocsp_response(site: &Site, identity: &Identity, state: &str) -> Vec<u8> {
    let file = |name: &str| site.path(&format!("ocsp-{name}"));
    std::fs::write(file("ca.crt"), site.server_ca.pem()).unwrap();
    std::fs::write(file("ca.key"), site.server_ca.key_pem()).unwrap();
    std::fs::write(file("server.crt"), identity.pem()).unwrap();
    let openssl = |arguments: &[&str], files: &[(&str, &Path)]| {
        let mut command = Command::new("openssl");
        command.args(arguments);
        for (option, file) in files {
            command.arg(option).arg(file);
        }
        run(&mut command)
    };
    let (ok, serial) = openssl(&["x509", "-noout", "-serial"], &[("-in", &file("server.crt"))]);
    assert!(ok, "{serial}");
    let serial = serial.trim().strip_prefix("serial=").unwrap().to_owned();
    let revoked = if state == "R" { "261101000000Z" } else { "" };
    let index = format!("{state}\t361101000000Z\t{revoked}\t{serial}\tunknown\t/CN=server\n");
    std::fs::write(file("index"), index).unwrap();
    let (ca, response) = (file("ca.crt"), file("response"));
    let (ok, said) = openssl(
        &["ocsp", "-ndays", "2", "-no_nonce"],
        &[
            ("-index", &file("index")),
            ("-rsigner", &ca),
            ("-rkey", &file("ca.key")),
            ("-CA", &ca),
            ("-issuer", &ca),
            ("-cert", &file("server.crt")),
            ("-respout", &response),
        ],
    );
    assert!(ok, "{said}");
    std::fs::read(response).unwrap()
}

#[test]
fn an_ocsp_response_in_the_secret_is_stapled_if_it_says_that_the_certificate_is_good() {
    let site = Site::with_alice(REQUIRE);
    let identity = site.server_ca.issue(pki::server(&["open.test", "app.test"]));
    let secret = |response: &[u8]| {
        let data = format!("data: {{tls.ocsp-staple: {}}}\n", STANDARD.encode(response));
        format!("{}{data}", tls_secret("server-tls", &identity))
    };
    site.write("tls.yaml", &secret(&ocsp_response(&site, &identity, "V")));
    let server = start(&site, "access.log", &[]);
    for version in ["-tls1_2", "-tls1_3"] {
        let said = s_client(&site, server.https, "-", "open.test", &["-status", version]);
        assert!(said.contains("OCSP Response Status: successful"), "{said}");
        assert!(said.contains("Cert Status: good") && said.contains("200 OK"), "{said}");
    }
    for (response, problem) in [
        (ocsp_response(&site, &identity, "R"), "does not say that the certificate is good"),
        (b"nonsense".to_vec(), "no successful OCSP response"),
        (
            ocsp_response(&site, &site.server_ca.issue(pki::server(&["x.test"])), "V"),
            "about another certificate",
        ),
    ] {
        server.edit("tls.yaml", &secret(&response));
        server.said(&["StapleUnusable", problem]);
        let said = s_client(&site, server.https, "-", "open.test", &["-status"]);
        assert!(said.contains("OCSP response: no response sent"), "{said}");
        assert!(said.contains("200 OK"), "{said}");
    }
}

/// Until when a Secret's OCSP response is stapled, as /metrics has it.
fn staple_ends(server: &Server, secret: &str) -> Option<i64> {
    let beginning = format!("certmap_ocsp_staple_expiry_timestamp_seconds{{secret=\"{secret}\"}} ");
    let metrics = server.admin("/metrics").1;
    metrics.lines().find_map(|line| line.strip_prefix(&beginning)).map(|it| it.parse().unwrap())
}

#[test]
fn when_a_staple_ends_is_measured_and_one_of_the_default_certificate_that_cannot_be_used_is_told() {
    let site = Site::with_alice(REQUIRE);
    let identity = site.server_ca.issue(pki::server(&["elsewhere.test"]));
    let secret = |response: &[u8]| {
        let data = format!("data: {{tls.ocsp-staple: {}}}\n", STANDARD.encode(response));
        format!("{}{data}", tls_secret("default-tls", &identity))
    };
    let two_days = jiff::Timestamp::now().as_second() + 2 * 86_400;
    site.write("default.yaml", &secret(&ocsp_response(&site, &identity, "V")));
    let server = start(&site, "access.log", &["--default-tls-secret", "web/default-tls"]);
    let ends = staple_ends(&server, "web/default-tls").unwrap();
    assert!((two_days..two_days + 60).contains(&ends), "{ends} {two_days}");
    assert_eq!(staple_ends(&server, "web/server-tls"), None, "it has none");
    server.edit("default.yaml", &secret(&ocsp_response(&site, &identity, "R")));
    let problem = "does not say that the certificate is good (it is the default certificate)";
    server.said(&["WARN", "Secret web/default-tls", problem, "StapleUnusable"]);
    assert_eq!(staple_ends(&server, "web/default-tls"), None);
    assert_eq!(
        server.metric("certmap_findings{severity=\"error\"}"),
        0.0,
        "it is shown all the same"
    );
}

#[test]
fn versions_and_suites_are_those_that_are_allowed() {
    let site = Site::with_alice(REQUIRE);
    let suites = "TLS_AES_128_GCM_SHA256,TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384";
    let server = start(&site, "access.log", &["--tls-cipher-suites", suites]);
    for (options, expected) in [
        (&["-tls1_3"][..], "Cipher is TLS_AES_128_GCM_SHA256"),
        (&["-tls1_2"], "Cipher is ECDHE-ECDSA-AES256-GCM-SHA384"),
        (&["-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384"], "handshake failure"),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], "handshake failure"),
    ] {
        let said = s_client(&site, server.https, "alice", "app.test", options);
        assert!(said.contains(expected), "{options:?}: {said}");
    }
    let newest = start(&site, "newest.log", &["--tls-min-version", "1.3"]);
    for host in ["app.test", "open.test"] {
        let said = s_client(&site, newest.https, "-", host, &["-tls1_2"]);
        assert!(said.contains("protocol version"), "{said}");
        let said = s_client(&site, newest.https, "alice", host, &["-tls1_3"]);
        assert!(said.contains("200 OK"), "{said}");
    }
    for (options, expected) in [
        (&["--tls-cipher-suites", "TLS_RSA_WITH_RC4_128_MD5"][..], "there are TLS_AES_256_GCM"),
        (
            &[
                "--tls-min-version",
                "1.3",
                "--tls-cipher-suites",
                "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
            ],
            "no handshake could succeed",
        ),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_certmap"));
        command.args(["run", "--manifests"]).arg(site.manifests()).args(options);
        let (ok, said) = run(&mut command);
        assert!(!ok && said.contains(expected), "{said}");
    }
}

/// The key exchange that a client with these groups comes to.
fn group(site: &Site, server: SocketAddr, groups: &[&'static dyn SupportedKxGroup]) -> String {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = groups.to_vec();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(site.server_ca.der())).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("open.test").unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = std::net::TcpStream::connect(server).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut stream).unwrap();
    }
    format!("{:?}", connection.negotiated_key_exchange_group().unwrap().name())
}

#[test]
fn key_exchange_is_safe_from_computers_to_come_with_every_client_that_wants_it() {
    let site = Site::with_alice(REQUIRE);
    let server = start(&site, "access.log", &[]);
    let hybrid = kx_group::X25519MLKEM768;
    for (groups, expected) in [
        (&[hybrid, kx_group::X25519][..], "X25519MLKEM768"),
        (&[hybrid, kx_group::SECP256R1], "X25519MLKEM768"),
        // The client's order counts.
        (&[kx_group::X25519, hybrid], "X25519"),
        (&[kx_group::X25519], "X25519"),
        (&[kx_group::SECP256R1], "secp256r1"),
    ] {
        assert_eq!(group(&site, server.https, groups), expected);
    }
}

const TICKETS: &[&str] = &["--ticket-key-secret", "web/tickets"];

fn ticket_keys(current: &str, previous: &str, next: &str) -> String {
    let key = |name: &str, of: &str| format!("  {name}.key: \"{}\"\n", of.repeat(32));
    let keys = [key("current", current), key("previous", previous), key("next", next)].concat();
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: tickets, namespace: web}}\nstringData:\n{keys}"
    )
}

/// app.test maps alice under ZeroSSL; other.test trusts another CA; open.test asks nothing. And two replicas.
fn replicas() -> (Site, [Server; 2]) {
    let site = Site::with_alice(REQUIRE);
    site.write("other-ca.yaml", &config_map("other-ca", "ca.crt", &site.other.pem()));
    site.write("other.yaml", &ingress("other", "other.test", "/", "echo"));
    let spec = "sslFlags: [Ssl, SslNegotiateCert, SslRequireCert]\ntrust: {caCertificateRefs: [{kind: ConfigMap, name: other-ca}]}\nadmitAnyVerified: {userFrom: SubjectCN}\nforward: {userHeader: X-Remote-User}\n";
    site.write("other-policy.yaml", &policy("other", "other", spec));
    site.write("tickets.yaml", &ticket_keys("1", "0", "2"));
    let servers = ["one.log", "two.log"].map(|log| start(&site, log, TICKETS));
    (site, servers)
}

#[test]
fn a_ticket_of_one_replica_is_taken_by_another_and_judged_by_what_is_in_force_there() {
    for version in [&TLS12, &TLS13] {
        let (site, [one, two]) = replicas();
        let sessions = Arc::new(Promiscuous::default());
        let client =
            Client::new(&site.server_ca, Some(&site.alice), version).with_sessions(&sessions);
        let get = |server: &Server| {
            let (reply, resumed) = client.get(server.https, "app.test", "app.test", "/");
            (reply.code(), resumed)
        };
        assert_eq!(get(&one), ("200".to_owned(), false));
        assert_eq!(get(&two), ("200".to_owned(), true));
        assert_eq!(get(&one), ("200".to_owned(), true));
        // The mapping goes: the ticket stays good, the request does not.
        let disabled = "enabled: false\n    name: alice-laptop";
        let spec = site.alice_spec(REQUIRE).replace("name: alice-laptop", disabled);
        two.edit("policy.yaml", &policy("app", "app", &spec));
        assert_eq!(get(&two), ("401.2".to_owned(), true));
        // The CA goes: not even the ticket does.
        two.edit("trust.yaml", &config_map("corporate-ca", "ca.crt", &site.other.pem()));
        assert_eq!(get(&two), ("403.16".to_owned(), false));
    }
}

#[test]
fn a_ticket_of_one_host_is_worth_nothing_at_another() {
    for version in [&TLS12, &TLS13] {
        let (site, [one, two]) = replicas();
        for (from, to) in [
            ("open.test", "app.test"),
            ("open.test", "other.test"),
            ("other.test", "app.test"),
            ("app.test", "other.test"),
            ("app.test", "open.test"),
        ] {
            for server in [&one, &two] {
                let sessions = Arc::new(Promiscuous::default());
                let with = Client::new(&site.server_ca, Some(&site.alice), version)
                    .with_sessions(&sessions);
                let (first, _) = with.get(one.https, from, from, "/");
                let without = Client::new(&site.server_ca, None, version).with_sessions(&sessions);
                let (second, resumed) = without.get(server.https, to, to, "/");
                assert!(!resumed, "{from} → {to}: resumed");
                let expected = if to == "open.test" { "200" } else { "403.7" };
                assert_eq!(second.code(), expected, "{from} ({}) → {to}", first.code());
            }
        }
    }
}

#[test]
fn who_came_without_a_certificate_can_come_again_with_one() {
    for version in [&TLS12, &TLS13] {
        let (site, [one, two]) = replicas();
        let sessions = Arc::new(Promiscuous::default());
        let client = Client::new(&site.server_ca, None, version).with_sessions(&sessions);
        let get = |server: &Server| {
            let (reply, resumed) = client.get(server.https, "app.test", "app.test", "/");
            (reply.code(), resumed)
        };
        assert_eq!(get(&one), ("403.7".to_owned(), false));
        assert_eq!(get(&one), ("403.7".to_owned(), false), "the ticket is forgotten");
        assert_eq!(get(&two).0, "403.7", "and elsewhere it is worth no more");
    }
}

#[test]
fn where_there_are_tickets_no_session_comes_back_by_its_number() {
    let site = Site::with_alice(REQUIRE);
    site.write("tickets.yaml", &ticket_keys("1", "0", "2"));
    for (log, options, resumed) in [("kept.log", &[][..], true), ("tickets.log", TICKETS, false)] {
        let server = start(&site, log, options);
        let file = site.path(&format!("{log}.session"));
        let with = |option: &str| {
            let options = ["-tls1_2", "-no_ticket", option, file.to_str().unwrap()];
            s_client(&site, server.https, "alice", "app.test", &options)
        };
        let first = with("-sess_out");
        assert!(first.contains("New, TLSv1.2") && first.contains("200 OK"), "{first}");
        let second = with("-sess_in");
        assert_eq!(second.contains("Reused, TLSv1.2"), resumed, "{second}");
    }
}

#[test]
fn keys_move_up_and_tickets_with_them() {
    for version in [&TLS12, &TLS13] {
        let (site, [one, _]) = replicas();
        let sessions = Arc::new(Promiscuous::default());
        let client =
            Client::new(&site.server_ca, Some(&site.alice), version).with_sessions(&sessions);
        let resumed = || client.get(one.https, "app.test", "app.test", "/").1;
        assert_eq!([resumed(), resumed()], [false, true]);
        one.edit("tickets.yaml", &ticket_keys("2", "1", "3"));
        assert!(resumed(), "by the previous key");
        one.edit("tickets.yaml", &ticket_keys("7", "8", "9"));
        assert_eq!([resumed(), resumed()], [false, true]);
        // One that is spoilt is left out by itself, unless it is the one that seals.
        let spoilt = |keys: &str, of: &str| keys.replace(&of.repeat(32), "short");
        one.edit("tickets.yaml", &spoilt(&ticket_keys("4", "7", "5"), "5"));
        one.said(&["TicketKeyIgnored", "next.key has fewer than 32 octets"]);
        assert_eq!([resumed(), resumed()], [true, true], "by the previous key, and by the current");
        one.edit("tickets.yaml", &spoilt(&ticket_keys("7", "6", "4"), "6"));
        one.said(&["TicketKeyIgnored", "previous.key has fewer than 32 octets"]);
        assert_eq!([resumed(), resumed()], [true, true], "by the next key, and by the current");
        // What cannot be read changes nothing; what is gone is gone.
        one.edit("tickets.yaml", &spoilt(&ticket_keys("7", "8", "9"), "7"));
        one.said(&["TicketKeysUnusable", "current.key has fewer than 32 octets"]);
        assert!(resumed());
        one.delete("tickets.yaml");
        assert!(!resumed());
        let sessions = Arc::new(Promiscuous::default());
        let client =
            Client::new(&site.server_ca, Some(&site.alice), version).with_sessions(&sessions);
        let resumed = || client.get(one.https, "app.test", "app.test", "/").1;
        assert_eq!([resumed(), resumed()], [false, true], "sessions are kept in memory again");
    }
}
