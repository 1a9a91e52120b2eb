//! Changes while it runs: in force in no time, and no request the worse for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::version::TLS13;

use super::support::clients::curl;
use super::support::manifests::{basic_secret, ingress, policy};
use super::support::tls::{Client, get};
use super::support::{REQUIRE, Site, write_whole};

#[test]
fn a_second_of_load_across_200_edits_loses_no_request() {
    let site = Site::with_alice(REQUIRE);
    let server = site.start();
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let client = Arc::new(Client::new(&site.server_ca, Some(&site.alice), &TLS13));
    let load: Vec<_> = (0..4)
        .map(|worker| {
            let (stop, answered, client, https) =
                (stop.clone(), answered.clone(), client.clone(), server.https);
            std::thread::spawn(move || {
                let mut kept = client.connect(https, "app.test");
                while !stop.load(Ordering::Relaxed) {
                    // Half of them come over new connections.
                    let reply = if worker % 2 == 0 {
                        get(&mut kept, "app.test", "/")
                    } else {
                        client.get(https, "app.test", "app.test", "/").0
                    };
                    let user = reply.told()["user"].as_str().map(str::to_owned);
                    assert!(matches!(user.as_deref(), Some("azureuser" | "second")), "{reply:?}");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let first = policy("app", "app", &site.alice_spec(REQUIRE));
    let second = first.replace("userName: azureuser", "userName: second");
    let (started, before) = (Instant::now(), server.generation());
    for edit in 0..200 {
        write_whole(
            &site.manifests().join("policy.yaml"),
            if edit % 2 == 0 { &second } else { &first },
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    super::support::server::wait("the last edit", || {
        curl(&site, server.https, "alice", "app.test", "/", &[]).told()["user"] == "azureuser"
    });
    assert!(started.elapsed() >= Duration::from_secs(1));
    stop.store(true, Ordering::Relaxed);
    load.into_iter().for_each(|worker| worker.join().expect("a request failed"));
    println!(
        "{} requests across 200 edits and {} snapshots",
        answered.load(Ordering::Relaxed),
        server.generation() - before
    );
    assert!(answered.load(Ordering::Relaxed) > 100 && server.generation() > before + 2);
}

#[test]
fn a_broken_file_keeps_what_was_and_says_where_it_is_broken() {
    let site = Site::with_alice(REQUIRE);
    let server = site.start();
    let good = policy("app", "app", &site.alice_spec(REQUIRE));
    for (broken, parts) in [
        (
            good.replace("sslFlags:", "sslFlag:"),
            &["policy.yaml:6:", "spec.sslFlag", "did you mean sslFlags?"][..],
        ),
        (good.replace("oneToOne:", "oneToOne: ["), &["policy.yaml:", "not valid YAML"]),
        (good.trim_end().to_owned(), &["policy.yaml:", "half-written"]),
        (String::new(), &["policy.yaml:1:", "the file is empty"]),
        (
            format!("{}---\n{}\n", good.replace("sslFlags:", "sslFlag:"), "- ".repeat(100_000)),
            &["policy.yaml:", "not valid YAML: nested too deeply"],
        ),
        (
            good.replace("[Ssl, SslNegotiateCert, SslRequireCert]", "[SslRequireCert]"),
            &["policy.yaml:6:", "spec.sslFlags", "only with SslNegotiateCert"],
        ),
    ] {
        write_whole(&site.manifests().join("policy.yaml"), &broken);
        server.said(parts);
        assert_eq!(
            curl(&site, server.https, "alice", "app.test", "/", &[]).told()["user"],
            "azureuser",
            "{parts:?}"
        );
        assert_eq!(
            curl(&site, server.https, "-", "app.test", "/", &[]).code(),
            "403.7",
            "{parts:?}"
        );
        write_whole(&site.manifests().join("policy.yaml"), &good);
        super::support::server::wait("the mended file", || {
            server.admin("/metrics").1.contains("certmap_findings{severity=\"error\"} 0")
        });
    }
    server.delete("policy.yaml");
    assert_eq!(
        curl(&site, server.https, "-", "app.test", "/", &[]).status,
        200,
        "a deleted policy is gone"
    );
}

#[test]
fn a_file_that_is_replaced_opens_nothing_in_between() {
    let site = Site::with_alice(REQUIRE);
    let server = site.start();
    let path = site.manifests().join("policy.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let nobody = Client::new(&site.server_ca, None, &TLS13);
    for pause in [0, 20, 60, 120, 180] {
        // As editors do: the old one is put aside, and a while later the new one is there.
        std::fs::rename(&path, site.manifests().join("policy.yaml~")).unwrap();
        let until = Instant::now() + Duration::from_millis(pause);
        while Instant::now() < until {
            assert_eq!(
                nobody.get(server.https, "app.test", "app.test", "/").0.code(),
                "403.7",
                "after {pause} ms"
            );
        }
        std::fs::write(&path, &text).unwrap();
        let until = Instant::now() + Duration::from_millis(400);
        while Instant::now() < until {
            assert_eq!(
                nobody.get(server.https, "app.test", "app.test", "/").0.code(),
                "403.7",
                "after {pause} ms"
            );
        }
    }
}

#[test]
fn a_slip_of_the_pen_opens_nothing() {
    let site = Site::with_alice(REQUIRE);
    let server = site.start();
    let good = policy("app", "app", &site.alice_spec(REQUIRE));
    for (right, slip, said) in [
        ("v1alpha1", "v1beta1", "certmap.dev/v1beta1 is not supported"),
        ("kind: CertMappingPolicy", "kind: CertMapPolicy", "there is no kind CertMapPolicy"),
        ("name: app, namespace", "nmae: app, namespace", "needs a name"),
        ("apiVersion", "apiversion", "is not supported"),
    ] {
        write_whole(&site.manifests().join("policy.yaml"), &good.replacen(right, slip, 1));
        server.said(&["policy.yaml:", said]);
        assert_eq!(curl(&site, server.https, "-", "app.test", "/", &[]).code(), "403.7", "{slip}");
        assert_eq!(curl(&site, server.https, "alice", "app.test", "/", &[]).status, 200, "{slip}");
    }
}

#[test]
fn a_file_that_was_broken_from_the_start_opens_nothing() {
    let site = Site::with_alice(REQUIRE);
    let good = policy("app", "app", &site.alice_spec(REQUIRE));
    for (broken, app, open) in [
        // The policy says whom it protects, if nothing else.
        (good.replace("sslFlags:", "sslFlag:"), "503.92", "200"),
        // Nothing can be said of it: whatever has no policy could have had this one.
        (good.replace("oneToOne:", "oneToOne: ["), "503.92", "503.92"),
        (String::new(), "503.92", "503.92"),
    ] {
        site.write("policy.yaml", &broken);
        let server = site.start();
        assert_eq!(curl(&site, server.https, "alice", "app.test", "/", &[]).code(), app);
        assert_eq!(curl(&site, server.https, "-", "open.test", "/", &[]).code(), open);
        server.edit("policy.yaml", &good);
        assert_eq!(curl(&site, server.https, "alice", "app.test", "/", &[]).code(), "200");
        assert_eq!(curl(&site, server.https, "-", "open.test", "/", &[]).code(), "200");
    }
}

#[test]
fn an_account_heals_when_its_secret_appears() {
    let site = Site::with_alice(REQUIRE);
    let accounts = basic_secret("test", "test", "x");
    site.write("accounts.yaml", &accounts);
    let server = site.start();
    let code = || curl(&site, server.https, "alice", "app.test", "/", &[]).code();
    assert_eq!(code(), "401.1");
    server.said(&[
        "policy.yaml:",
        "spec.oneToOne.mappings[0].account",
        "Secret web/azureuser does not exist",
    ]);
    server.edit("azureuser.yaml", &basic_secret("azureuser", "azureuser", "''"));
    assert_eq!(code(), "401.1");
    server.edit("azureuser.yaml", &basic_secret("azureuser", "azureuser", "secret"));
    assert_eq!(code(), "200");
}

#[test]
fn an_open_connection_obeys_a_host_that_begins_to_ask() {
    let site = Site::new();
    let server = site.start();
    let client = Client::new(&site.server_ca, Some(&site.alice), &TLS13);
    let mut kept = client.connect(server.https, "app.test");
    assert_eq!(get(&mut kept, "app.test", "/").status, 200);
    server.edit("policy.yaml", &policy("app", "app", &site.alice_spec(REQUIRE)));
    let stale = get(&mut kept, "app.test", "/");
    assert_eq!(stale.code(), "421");
    assert!(stale.head.contains("connection: close"), "{}", stale.head);
    assert_eq!(client.get(server.https, "app.test", "app.test", "/").0.told()["user"], "azureuser");
}

#[test]
fn a_long_answer_ends_with_its_permit() {
    let site = Site::with_alice(REQUIRE);
    let server = site.start();
    let client = Client::new(&site.server_ca, Some(&site.alice), &TLS13);
    let mut stream = client.connect(server.https, "app.test");
    std::io::Write::write_all(&mut stream, b"GET /stream HTTP/1.1\r\nHost: app.test\r\n\r\n")
        .unwrap();
    let mut first = [0; 512];
    assert!(std::io::Read::read(&mut stream, &mut first).unwrap() > 0);
    // Another policy that says the same changes nothing for it.
    server.edit("more.yaml", &ingress("more", "more.test", "/", "echo"));
    assert!(std::io::Read::read(&mut stream, &mut first).unwrap() > 0);
    server.edit(
        "policy.yaml",
        &policy(
            "app",
            "app",
            &site.alice_spec(REQUIRE).replace("userName: azureuser", "userName: somebody"),
        ),
    );
    let (mut rest, started) = (Vec::new(), Instant::now());
    drop(std::io::Read::read_to_end(&mut stream, &mut rest));
    let text = String::from_utf8_lossy(&rest);
    assert!(
        !text.ends_with("0\r\n\r\n") && started.elapsed() < Duration::from_secs(3),
        "it went on: {text}"
    );
}
