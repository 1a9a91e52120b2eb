//! Handshakes that no client would shake: in crumbs, garbled, endless, half, or begun again.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustls::version::{TLS12, TLS13};

use crate::support::clients::{curl, s_client};
use crate::support::server::{Server, wait};
use crate::support::tls::{Client, client_hello, get, reply};
use crate::support::{REQUIRE, Site, run};

use super::bystander::unnoticed;

/// The record that a client begins with.
pub(super) fn hello(sni: &str) -> Vec<u8> {
    client_hello(sni)
}

/// Sends this and hangs up on one side; what comes back until the server hangs up on the other.
fn answer(server: &Server, octets: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.https).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    drop(stream.write_all(octets));
    drop(stream.shutdown(Shutdown::Write));
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_ne!(
            error.kind(),
            std::io::ErrorKind::WouldBlock,
            "no answer and no end: {octets:x?}"
        );
    }
    answer
}

#[test]
fn a_hello_that_is_garbled_anywhere_is_an_alert_or_an_end() {
    let site = Site::with_alice(REQUIRE);
    let server = site.start();
    let whole = hello("app.test");
    let mut garbled: Vec<Vec<u8>> = Vec::new();
    for at in (0..whole.len()).step_by(3) {
        let mut octets = whole.clone();
        octets[at] ^= 0xFF;
        garbled.push(octets);
        garbled.push(whole[..at].to_vec());
    }
    // Lengths that lie: of the record, of the message, of the extensions.
    for (at, lie) in [(3, 0xFF), (4, 0), (6, 0xFF), (8, 0), (9, 0), (43, 0xFF)] {
        let mut octets = whole.clone();
        octets[at] = lie;
        garbled.push(octets);
    }
    for octets in &garbled {
        answer(&server, octets);
    }
    assert_eq!(curl(&site, server.https, "alice", "app.test", "/", &[]).code(), "200");
    wait("connections to end", || server.metric("certmap_connections_open") == 0.0);
}

#[test]
fn records_of_one_octet_carry_the_same_request() {
    let site = Site::with_alice(REQUIRE);
    let server = site.start();
    for version in [&TLS12, &TLS13] {
        for (identity, expected) in [(Some(&site.alice), "200"), (None, "403.7")] {
            let mut client = Client::new(&site.server_ca, identity, version);
            client.fragment = true;
            let mut stream = client.connect(server.https, "app.test");
            for octet in b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n" {
                stream.write_all(&[*octet]).unwrap();
                stream.flush().unwrap();
            }
            assert_eq!(reply(&mut stream).unwrap().code(), expected);
        }
    }
    let client = Client::new(&site.server_ca, None, &TLS13);
    unnoticed(&site, &server, || {
        let mut stream = client.connect(server.https, "open.test");
        let request = "POST / HTTP/1.1\r\nHost: open.test\r\nContent-Length: 2000\r\n\r\n";
        for octet in [request.as_bytes(), &[b'x'; 2000]].concat() {
            stream.write_all(&[octet]).unwrap();
            stream.flush().unwrap();
        }
        assert_eq!(reply(&mut stream).unwrap().status, 200);
    });
}

#[test]
fn a_handshake_message_without_end_is_not_collected() {
    let site = Site::with_alice(REQUIRE);
    let server = site.start();
    unnoticed(&site, &server, || {
        let mut stream = TcpStream::connect(server.https).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        // A ClientHello of 16 MiB, in records as long as they may be.
        let record = |begins: bool| {
            let mut body = vec![0; 16_384];
            if begins {
                body[..4].copy_from_slice(&[1, 0xFF, 0xFF, 0xFF]);
            }
            [vec![0x16, 3, 3, 0x40, 0], body].concat()
        };
        let ended = (0..1024).any(|number| stream.write_all(&record(number == 0)).is_err());
        assert!(ended, "16 MiB of one message were read");
    });
}

#[test]
fn who_does_not_finish_a_handshake_is_hung_up_on() {
    let site = Site::with_alice(REQUIRE);
    let options = ["--handshake-timeout", "3"];
    let server = Server::start_with(&site.manifests(), &site.path("access.log"), "json", &options);
    let whole = hello("app.test");
    unnoticed(&site, &server, || {
        let started = Instant::now();
        let mut half = Vec::new();
        for begun in [&[][..], &whole[..3], &whole[..100], &whole[..]] {
            for _ in 0..10 {
                let mut stream = TcpStream::connect(server.https).unwrap();
                stream.write_all(begun).unwrap();
                half.push(stream);
            }
        }
        // Meanwhile others are served.
        assert_eq!(curl(&site, server.https, "alice", "app.test", "/", &[]).code(), "200");
        for stream in &mut half {
            stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
            drop(stream.read_to_end(&mut Vec::new()));
            // Reading ends when the server hangs up, or in vain.
            assert!(started.elapsed() < Duration::from_secs(40), "a handshake may last for ever");
        }
    });
    server.logged(|line| line.contains("the handshake took longer than"));
    wait("connections to end", || server.metric("certmap_connections_open") == 0.0);
}

#[test]
fn older_protocols_are_not_spoken() {
    let site = Site::with_alice(REQUIRE);
    let server = site.start();
    for version in ["-tls1", "-tls1_1"] {
        let said = s_client(
            &site,
            server.https,
            "alice",
            "app.test",
            &[version, "-cipher", "DEFAULT:@SECLEVEL=0"],
        );
        assert!(!said.contains("HTTP/1.1"), "{version}: {said}");
    }
}

#[test]
fn nothing_is_accepted_before_the_handshake_is_done() {
    let site = Site::with_alice(REQUIRE);
    let server = site.start();
    let (session, early) = (site.path("session.pem"), site.path("early.txt"));
    std::fs::write(&early, "GET /early HTTP/1.1\r\nHost: app.test\r\n\r\n").unwrap();
    let (out, text) = (session.to_str().unwrap(), early.to_str().unwrap());
    let first = s_client(&site, server.https, "alice", "app.test", &["-tls1_3", "-sess_out", out]);
    assert!(first.contains("HTTP/1.1 200"), "{first}");
    let shown = run(Command::new("openssl").args(["sess_id", "-noout", "-text", "-in", out])).1;
    assert!(shown.contains("Max Early Data: 0"), "{shown}");
    let options = ["-tls1_3", "-sess_in", out, "-early_data", text];
    let second = s_client(&site, server.https, "alice", "app.test", &options);
    assert!(!second.contains("Early data was accepted"), "{second}");
    assert_eq!(
        site.backend.requests.load(std::sync::atomic::Ordering::SeqCst),
        second.matches("HTTP/1.1 200").count() + 1
    );
}

#[test]
fn a_handshake_is_not_begun_again() {
    let site = Site::with_alice(REQUIRE);
    let server = site.start();
    let mut child = Command::new("openssl")
        .args([
            "s_client",
            "-tls1_2",
            "-connect",
            &server.https.to_string(),
            "-servername",
            "app.test",
        ])
        .arg("-CAfile")
        .arg(site.path("server-ca.crt"))
        .arg("-cert")
        .arg(site.path("alice.crt"))
        .arg("-key")
        .arg(site.path("alice.key"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is needed for this test");
    let mut commands = child.stdin.take().unwrap();
    let (tell, told) = mpsc::channel();
    for pipe in [
        Box::new(child.stdout.take().unwrap()) as Box<dyn Read + Send>,
        Box::new(child.stderr.take().unwrap()),
    ] {
        let tell = tell.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                drop(tell.send(line));
            }
        });
    }
    drop(tell);
    let heard = |until: &str| {
        let mut lines = Vec::new();
        while let Ok(line) = told.recv_timeout(Duration::from_secs(20)) {
            lines.push(line);
            if lines.last().is_some_and(|line| line.contains(until)) {
                break;
            }
        }
        lines.join("\n")
    };
    assert!(heard("Verify return code").contains("Verify return code: 0"));
    commands.write_all(b"R\n").unwrap();
    assert!(heard("RENEGOTIATING").contains("RENEGOTIATING"));
    // A server that agreed would show its certificate again, and that within milliseconds.
    let after: Vec<String> =
        std::iter::from_fn(|| told.recv_timeout(Duration::from_secs(2)).ok()).collect();
    assert!(!after.iter().any(|line| line.contains("verify return")), "{after:?}");
    drop(commands);
    drop(child.kill());
    drop(child.wait());
}

#[test]
fn a_connection_without_sni_by_any_other_road_gets_no_other_verdict() {
    let site = Site::with_alice(REQUIRE);
    let server = site.start();
    for version in [&TLS12, &TLS13] {
        for protocol in ["http/1.1", "h2", "h3", "spdy/1"] {
            let client = Client::new(&site.server_ca, None, version).with_alpn(protocol);
            let mut stream = client.connect(server.https, "app.test");
            // Where no protocol is agreed on, there is no connection; where one is, there is no way around the policy.
            let asked = stream
                .write_all(b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n")
                .and_then(|()| stream.flush());
            if asked.is_ok() && protocol != "h2" {
                assert!(
                    reply(&mut stream).is_ok_and(|reply| reply.code() == "403.7"),
                    "{protocol}"
                );
            }
        }
    }
    let mut stream = Client::new(&site.server_ca, None, &TLS13).connect(server.https, "app.test");
    assert_eq!(get(&mut stream, "app.test", "/").code(), "403.7");
}
