//! The same four answers for every client, protocol and version, resumed or not.

use serde_json::Value;

use super::support::clients::{Go, code, curl, python, s_client, user};
use super::support::{REQUIRE, Site};

const ANSWERS: [(&str, &str); 4] =
    [("alice", "200"), ("-", "403.7"), ("stranger", "403.16"), ("expired", "403.17")];

#[test]
fn curl_gets_them() {
    let site = Site::with_people(REQUIRE);
    let server = site.start();
    for http in ["--http1.1", "--http2"] {
        for version in [&["--tls-max", "1.2"][..], &["--tlsv1.3"]] {
            for (who, expected) in ANSWERS {
                let reply =
                    curl(&site, server.https, who, "app.test", "/", &[&[http], version].concat());
                assert_eq!(reply.code(), expected, "{who} {http} {version:?}: {reply:?}");
                assert_eq!(reply.head.starts_with("http/2"), http == "--http2");
                if who == "alice" {
                    assert_eq!(reply.told()["user"], "azureuser");
                }
            }
        }
    }
}

#[test]
fn go_gets_them_on_kept_and_on_resumed_connections() {
    let site = Site::with_people(REQUIRE);
    let server = site.start();
    for options in [
        &[][..],
        &["-http2"],
        &["-tls12"],
        &["-again"],
        &["-again", "-tls12"],
        &["-again", "-http2"],
    ] {
        for (who, expected) in ANSWERS {
            let mut go = Go::start(&site, server.https, who, "app.test", options);
            let (first, second) = (go.get("/"), go.get("/"));
            assert_eq!(
                (code(&first).as_str(), code(&second).as_str()),
                (expected, expected),
                "{who} {options:?}: {first} {second}"
            );
            let again = options.contains(&"-again");
            // Go resumes TLS 1.2 by ticket alone, and gets none: these sessions are kept on the server's side.
            let resumes = again && who == "alice" && !options.contains(&"-tls12");
            assert_eq!(second["resumed"], resumes, "{who} {options:?}: {second}");
            // Who was refused for the certificate must be asked again. An HTTP/2 client may have sent its next request
            // before it saw the GOAWAY.
            let kept = second["reused"] == true && (0..5).all(|_| go.get("/")["reused"] == true);
            assert_eq!(kept, !again && who == "alice", "{who} {options:?}: {second}");
            if who == "alice" {
                assert_eq!(
                    (user(&first).as_str(), user(&second).as_str()),
                    ("azureuser", "azureuser")
                );
            }
        }
    }
}

#[test]
fn python_gets_them() {
    let site = Site::with_people(REQUIRE);
    let server = site.start();
    for version in ["TLSv1_2", "TLSv1_3"] {
        for (who, expected) in ANSWERS {
            let answers = python(&site, server.https, who, "app.test", version);
            for answer in &answers {
                assert_eq!(code(answer), expected, "{who} {version}: {answer}");
            }
            assert_eq!(answers[1]["resumed"], who == "alice", "{who} {version}");
            let posted = &answers[2..];
            assert_eq!(posted.len(), 3);
            for (answer, length) in posted.iter().zip([0, 5, 300_000]).filter(|_| who == "alice") {
                let told: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
                assert_eq!(
                    (&told["method"], &told["bodyLength"]),
                    (&"POST".into(), &length.into())
                );
                assert_eq!((user(answer).as_str(), &answer["opened"]), ("azureuser", &1.into()));
            }
        }
    }
}

#[test]
fn openssl_is_asked_for_a_certificate_where_one_is_wanted_and_told_whose() {
    let site = Site::with_people(REQUIRE);
    let server = site.start();
    for version in ["-tls1_2", "-tls1_3"] {
        let text = s_client(&site, server.https, "alice", "app.test", &[version]);
        assert!(text.contains("HTTP/1.1 200 OK") && text.contains("azureuser"), "{text}");
        assert!(
            text.contains(
                "Acceptable client certificate CA names\nO = ZeroSSL, CN = ZeroSSL CA 0\n"
            ),
            "{text}"
        );
        let text = s_client(&site, server.https, "-", "app.test", &[version]);
        assert!(text.contains("403.7 Client certificate required"), "{text}");
        let text = s_client(&site, server.https, "alice", "open.test", &[version]);
        assert!(
            text.contains("No client certificate CA names sent")
                && text.contains("HTTP/1.1 200 OK"),
            "{text}"
        );
    }
}

#[test]
fn the_servers_certificate_is_chosen_by_name() {
    let site = Site::with_people(REQUIRE);
    let special = site.server_ca.issue(super::support::pki::server(&["special.test"]));
    site.write("special-tls.yaml", &super::support::manifests::tls_secret("special-tls", &special));
    let ingress = super::support::manifests::ingress("special", "special.test", "/", "echo");
    site.write("special.yaml", &ingress.replace("server-tls", "special-tls"));
    let server = site.start();
    for (host, names) in [
        ("app.test", "DNS:app.test"),
        ("special.test", "DNS:special.test"),
        ("SPECIAL.test", "DNS:special.test"),
    ] {
        let text = s_client(&site, server.https, "-", host, &["-showcerts"]);
        let pem =
            text.split_once("-----BEGIN").map(|(_, rest)| format!("-----BEGIN{rest}")).unwrap();
        let file = site.path("shown.pem");
        std::fs::write(&file, pem).unwrap();
        let mut openssl = std::process::Command::new("openssl");
        let (_, shown) = super::support::run(
            openssl.args(["x509", "-noout", "-ext", "subjectAltName", "-in"]).arg(&file),
        );
        assert!(shown.contains(names), "{host}: {shown}");
    }
}
