//! Chains that are long, large, crossed or strange. Anybody can make one: none of their signatures need be right, only
//! the client's own key.

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use rcgen::{
    CertificateParams, CrlDistributionPoint, CustomExtension, KeyPair, PKCS_ECDSA_P384_SHA384,
};
use rustls::version::{TLS12, TLS13};

use crate::support::clients::{curl, s_client};
use crate::support::manifests::policy;
use crate::support::pki::{Ca, Identity, leaf, validity};
use crate::support::server::Server;
use crate::support::tls::{Client, Reply};
use crate::support::{REQUIRE, Site, run};

fn code(site: &Site, server: &Server, identity: &Identity) -> String {
    let client = Client::new(&site.server_ca, Some(identity), &TLS13);
    client.get(server.https, "app.test", "app.test", "/").0.code()
}

/// Whether the handshake itself fails.
fn is_hung_up_on(site: &Site, server: &Server, identity: &Identity) -> bool {
    [&TLS12, &TLS13].into_iter().all(|version| {
        let client = Client::new(&site.server_ca, Some(identity), version);
        let mut stream = client.connect(server.https, "app.test");
        let asked =
            std::io::Write::write_all(&mut stream, b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
        let answer: std::io::Result<Reply> =
            asked.and_then(|()| crate::support::tls::reply(&mut stream));
        answer.is_err()
    })
}

fn with_extension(params: &mut CertificateParams, octets: usize, critical: bool) {
    // An arc of nobody's.
    let mut extension =
        CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![0; octets]);
    extension.set_criticality(critical);
    params.custom_extensions.push(extension);
}

/// A certificate of so many octets, that has nothing to do with the others.
fn ballast(octets: usize) -> Vec<u8> {
    let mut params = leaf("Ballast");
    with_extension(&mut params, octets, false);
    Identity::self_signed(params).der
}

#[test]
fn a_large_chain_is_read_and_a_huge_one_is_hung_up_on() {
    let site = Site::with_alice(REQUIRE);
    let server = site.start();
    let alice = |further: &[Vec<u8>]| {
        Identity {
            der: site.alice.der.clone(),
            chain: site.alice.chain.clone(),
            key: KeyPair::from_pem(&site.alice.key.serialize_pem()).unwrap(),
        }
        .with(further)
    };
    assert_eq!(code(&site, &server, &alice(&vec![ballast(100); 9])), "200", "ten");
    assert_eq!(code(&site, &server, &alice(&vec![ballast(4_000); 9])), "200", "40 KiB");
    assert_eq!(code(&site, &server, &alice(&vec![ballast(100); 10])), "403.16", "eleven");
    assert_eq!(code(&site, &server, &alice(&vec![ballast(10); 60])), "403.16", "sixty");
    assert!(is_hung_up_on(&site, &server, &alice(&vec![ballast(16_000); 8])), "128 KiB");
    assert!(
        is_hung_up_on(&site, &server, &alice(&vec![vec![0x30, 0]; 20_000])),
        "20000 of nothing"
    );
    assert_eq!(
        code(&site, &server, &alice(&[vec![0xFF; 500], Vec::from(*b"\x30\x80")])),
        "200",
        "garbage beside it"
    );
    // Larger than what is kept for a session: it is not resumed, and that is all.
    assert_eq!(code(&site, &server, &alice(&vec![ballast(4_000); 9])), "200");
    // Whoever sends the largest that are read, and larger ones, takes nobody else's time or memory.
    let client = |further: &[Vec<u8>]| Client::new(&site.server_ca, Some(&alice(further)), &TLS13);
    let (large, many, huge) = (
        client(&vec![ballast(4_000); 9]),
        client(&vec![ballast(10); 60]),
        client(&vec![ballast(16_000); 8]),
    );
    super::bystander::unnoticed(&site, &server, || {
        for (client, expected) in [(&large, "200"), (&many, "403.16")] {
            let reply = client.get(server.https, "app.test", "app.test", "/").0;
            assert_eq!(reply.code(), expected);
        }
        let mut stream = huge.connect(server.https, "app.test");
        let request = b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n";
        let asked = std::io::Write::write_all(&mut stream, request);
        let answer = asked.and_then(|()| crate::support::tls::reply(&mut stream));
        assert!(answer.is_err(), "{answer:?}");
    });
}

#[test]
fn a_chain_ten_deep_is_deeper_than_any_policy_lets_it_be() {
    let site = Site::with_alice(REQUIRE);
    let server = site.start();
    let mut cas = vec![site.zerossl.intermediate("ZeroSSL", 1)];
    for depth in 2..9 {
        cas.push(cas.last().unwrap().intermediate("ZeroSSL", depth));
    }
    let deep = cas.last().unwrap().issue(leaf("Alice"));
    let chain: Vec<Vec<u8>> = cas.iter().rev().map(Ca::der).collect();
    assert_eq!(code(&site, &server, &deep.with(&chain)), "403.16");
}

/// Seconds of CPU that the program has taken so far.
fn cpu(server: &Server) -> f64 {
    server.metric("process_cpu_seconds_total")
}

#[test]
fn crossed_chains_cost_no_more_than_a_handshake_may() {
    let site = Site::with_alice(REQUIRE);
    let server = site.start();
    // Eight CAs of one name, each of which could have issued every other; and one that says the trusted CA issued it.
    let crossed = |organization: &str, ends: bool, expired: bool| {
        let cas: Vec<Ca> = (0..8)
            .map(|number| {
                let mut params = Ca::params(organization);
                validity(&mut params, -800 + number, 800);
                Ca::from_params(params)
            })
            .collect();
        let mut params = leaf("Mallory");
        if expired {
            validity(&mut params, -30, -2);
        }
        let mallory = cas[0].issue(params);
        let mut chain: Vec<Vec<u8>> = cas.iter().map(Ca::der).collect();
        if ends {
            chain.push(Ca::new("ZeroSSL").intermediate(organization, 0).der());
        }
        mallory.with(&chain)
    };
    let cases = [
        ("of the trusted CA's own name", crossed("ZeroSSL", false, false)),
        ("that lead nowhere", crossed("Fabrikam", false, false)),
        ("that lead nowhere, out of their time", crossed("Fabrikam", false, true)),
        ("that seem to lead there", crossed("Fabrikam", true, false)),
        ("that seem to lead there, out of their time", crossed("Fabrikam", true, true)),
    ];
    let mut costs = Vec::new();
    for (what, identity) in &cases {
        let before = cpu(&server);
        let times = 20;
        for _ in 0..times {
            assert_eq!(code(&site, &server, identity), "403.16", "{what}");
        }
        costs.push((*what, (cpu(&server) - before) / f64::from(times)));
    }
    println!("seconds of CPU for each handshake: {costs:?}");
    assert!(costs.iter().all(|(_, seconds)| *seconds < 0.01), "{costs:?}");
    // It is nobody else's loss.
    let client = Client::new(&site.server_ca, Some(&cases[4].1), &TLS13);
    super::bystander::unnoticed(&site, &server, || {
        drop(client.get(server.https, "app.test", "app.test", "/"));
    });
}

/// DER: short, as everything here is.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    [&[tag, u8::try_from(content.len()).unwrap()], content].concat()
}

/// Says where its issuer, its revocation list and its OCSP responder are (RFC 5280, 4.2.1.13 and 4.2.2.1).
fn with_urls(mut params: CertificateParams, port: u16) -> CertificateParams {
    let url = |what: &str| format!("http://127.0.0.1:{port}/{what}");
    let access = |method: u8, what: &str| {
        let method = der(6, &[0x2B, 6, 1, 5, 5, 7, 0x30, method]);
        der(0x30, &[method, der(0x86, url(what).as_bytes())].concat())
    };
    let both = [access(1, "ocsp"), access(2, "issuer.crt")].concat();
    params
        .custom_extensions
        .push(CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], der(0x30, &both)));
    params.crl_distribution_points = vec![CrlDistributionPoint { uris: vec![url("list.crl")] }];
    params
}

#[test]
fn no_address_that_a_certificate_names_is_ever_asked() {
    let asked = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = asked.local_addr().unwrap().port();
    let site = Site::with_alice(REQUIRE);
    let spec = format!(
        "sslFlags: {REQUIRE}\ntrust: {{caCertificateRefs: [{{kind: ConfigMap, name: corporate-ca}}]}}\nadmitAnyVerified: {{userFrom: SubjectCN}}\n"
    );
    site.write("policy.yaml", &policy("app", "app", &spec));
    let server = site.start();
    for (root, whole) in [(&site.zerossl, "200"), (&site.other, "403.16")] {
        let below = root.below(with_urls(Ca::params("Intermediate"), port));
        let leaf = || below.issue(with_urls(leaf("Alice"), port));
        assert_eq!(code(&site, &server, &leaf().with(&[below.der()])), whole);
        assert_eq!(code(&site, &server, &leaf()), "403.16", "its issuer is for the client to send");
    }
    asked.set_nonblocking(true).unwrap();
    let nobody = |error: std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
    for _ in 0..50 {
        assert!(asked.accept().is_err_and(nobody), "somebody comes to ask");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_a_chain_says_that_is_not_understood_is_refused() {
    let site = Site::with_alice(REQUIRE);
    let server = site.start();
    let mut odd = leaf("Alice");
    with_extension(&mut odd, 8, true);
    site.person("odd", &site.zerossl.issue(odd));
    let reply = curl(&site, server.https, "odd", "app.test", "/", &[]);
    // Its key cannot be proven, so that there is no connection to refuse on.
    assert_eq!(reply.status, 0, "a critical extension of the leaf: {reply:?}");
    let intermediate = site.zerossl.intermediate("ZeroSSL", 1);
    let fine = intermediate.issue(leaf("Somebody")).with(&[intermediate.der()]);
    assert_ne!(code(&site, &server, &fine), "403.16", "the chain itself is in order");
    // Another algorithm than the certificate above it says.
    let stranger = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let issuer = rcgen::CertifiedIssuer::self_signed(Ca::params("ZeroSSL"), stranger).unwrap();
    let key = KeyPair::generate().unwrap();
    let der = leaf("Alice").signed_by(&key, &issuer).unwrap().der().to_vec();
    assert_eq!(
        code(&site, &server, &Identity { chain: vec![der.clone()], der, key }),
        "403.16",
        "another's signature"
    );
}

#[test]
fn keys_that_are_not_known_are_refused_before_or_after_the_handshake_and_never_crash() {
    let site = Site::with_alice(REQUIRE);
    site.person("zerossl", &site.zerossl.as_identity());
    let server = site.start();
    for (name, algorithm) in [
        ("secp256k1", "ec:secp256k1"),
        ("ed448", "ed448"),
        ("rsa1024", "rsa:1024"),
        ("brainpool", "ec:brainpoolP256r1"),
    ] {
        let (kind, parameter) = algorithm.split_once(':').unwrap_or((algorithm, ""));
        let path = |suffix: &str| site.path(&format!("{name}.{suffix}"));
        let mut command = Command::new("openssl");
        command.args(["genpkey", "-algorithm", kind, "-out"]).arg(path("key"));
        match kind {
            "ec" => drop(command.args(["-pkeyopt", &format!("ec_paramgen_curve:{parameter}")])),
            "rsa" => drop(command.args(["-pkeyopt", &format!("rsa_keygen_bits:{parameter}")])),
            _ => {}
        }
        assert!(run(&mut command).0, "{name}");
        let mut command = Command::new("openssl");
        command
            .args(["req", "-new", "-subj", "/CN=Alice", "-key"])
            .arg(path("key"))
            .arg("-out")
            .arg(path("csr"));
        assert!(run(&mut command).0, "{name}");
        let mut command = Command::new("openssl");
        command
            .args(["x509", "-req", "-days", "2", "-in"])
            .arg(path("csr"))
            .arg("-CA")
            .arg(site.path("zerossl.crt"));
        command
            .arg("-CAkey")
            .arg(site.path("zerossl.key"))
            .arg("-CAcreateserial")
            .arg("-out")
            .arg(path("crt"));
        let (ok, text) = run(&mut command);
        assert!(ok, "{name}: {text}");
        for version in ["-tls1_2", "-tls1_3"] {
            let said = s_client(
                &site,
                server.https,
                name,
                "app.test",
                &[version, "-cipher", "DEFAULT:@SECLEVEL=0"],
            );
            assert!(!said.contains("HTTP/1.1 200"), "{name} {version}: {said}");
            // A client that cannot use its key sends none.
            let refused = said.contains("HTTP/1.1 403 ") || !said.contains("HTTP/1.1");
            assert!(refused, "{name} {version}: {said}");
        }
    }
    assert_eq!(curl(&site, server.https, "alice", "app.test", "/", &[]).code(), "200");
}
