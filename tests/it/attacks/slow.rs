//! Clients that take their time: each holds a place, and must lose it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::backend::Backend;
use crate::support::frames::{CONTINUATION, END_STREAM, H2, HEADERS, PING, block, frame, get};
use crate::support::manifests::{ingress, route_policy};
use crate::support::server::{Server, wait};
use crate::support::tls::client_hello;
use crate::support::{REQUIRE, Site};

use super::bystander::unnoticed;

/// With limits that a test can wait for.
fn hurried(site: &Site) -> Server {
    let options = [
        ["--idle-timeout", "1"],
        ["--head-timeout", "1"],
        ["--handshake-timeout", "1"],
        ["--http2-ping-interval", "1"],
        ["--http2-ping-timeout", "1"],
    ];
    Server::start_with(&site.manifests(), &site.path("access.log"), "json", &options.concat())
}

/// Until the server hangs up; fails where it does not.
fn hung_up_on(stream: &mut TcpStream) -> Duration {
    let started = Instant::now();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut rest = Vec::new();
    if let Err(error) = stream.read_to_end(&mut rest) {
        assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "it waits for ever");
    }
    started.elapsed()
}

#[test]
fn who_says_nothing_loses_the_place() {
    let site = Site::with_alice(REQUIRE);
    let server = hurried(&site);
    let mut silent: Vec<TcpStream> =
        (0..20).map(|_| TcpStream::connect(server.http).unwrap()).collect();
    // In the middle of what might become HTTP/2's preface.
    silent.extend((0..5).map(|_| {
        let mut stream = TcpStream::connect(server.http).unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n").unwrap();
        stream
    }));
    for stream in &mut silent {
        hung_up_on(stream);
    }
    wait("connections to end", || server.metric("certmap_connections_open") == 0.0);
}

#[test]
fn who_only_answers_pings_over_http_2_loses_the_place() {
    let site = Site::with_alice(REQUIRE);
    let server = hurried(&site);
    let mut connection = H2::plain(server.http, &[]).unwrap();
    let started = Instant::now();
    // Pings of its own are no request either.
    while connection.send(&frame(PING, 0, 0, &[1; 8])).is_ok() && connection.next().is_ok() {
        assert!(started.elapsed() < Duration::from_secs(30), "it is kept for ever");
        std::thread::sleep(Duration::from_millis(100));
    }
    wait("connections to end", || server.metric("certmap_connections_open") == 0.0);
}

#[test]
fn who_does_not_end_a_head_loses_the_place() {
    let site = Site::with_alice(REQUIRE);
    let server = hurried(&site);
    let mut slow: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = TcpStream::connect(server.http).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nHost: open.test\r\n").unwrap();
            stream
        })
        .collect();
    // A field now and then keeps nobody in.
    let started = Instant::now();
    while !slow.is_empty() {
        slow.retain_mut(|stream| {
            stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            let is_open = |error: std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
            let written = stream.write_all(b"X: y\r\n").is_ok();
            written && stream.read(&mut [0; 1024]).is_err_and(is_open)
        });
        assert!(started.elapsed() < Duration::from_secs(30), "{} are kept for ever", slow.len());
        std::thread::sleep(Duration::from_millis(50));
    }
    wait("connections to end", || server.metric("certmap_connections_open") == 0.0);
}

#[test]
fn who_does_not_end_a_head_over_http_2_loses_the_place() {
    let site = Site::with_alice(REQUIRE);
    let server = hurried(&site);
    let mut connection = H2::plain(server.http, &[]).unwrap();
    connection.polite = false;
    // In the middle of a head nothing else may be sent, not even the answer to a ping.
    connection.send(&frame(HEADERS, END_STREAM, 1, &get("open.test", "/"))).unwrap();
    let mut other = H2::plain(server.http, &[]).unwrap();
    other.polite = false;
    other.send(&frame(HEADERS, END_STREAM, 1, &get("open.test", "/"))).unwrap();
    other.send(&frame(CONTINUATION, 0, 1, &block(&[(b"x", b"y")]))).unwrap();
    hung_up_on(&mut connection.stream);
    hung_up_on(&mut other.stream);
    wait("connections to end", || server.metric("certmap_connections_open") == 0.0);
}

#[test]
fn who_neither_shakes_hands_nor_goes_loses_the_place() {
    let site = Site::with_alice(REQUIRE);
    let server = hurried(&site);
    let hello = client_hello("app.test");
    let mut slow = Vec::new();
    for begun in [&hello[..0], &hello[..50], &hello[..]] {
        let mut stream = TcpStream::connect(server.https).unwrap();
        stream.write_all(begun).unwrap();
        slow.push(stream);
    }
    for stream in &mut slow {
        hung_up_on(stream);
    }
    wait("connections to end", || server.metric("certmap_connections_open") == 0.0);
}

/// Twenty requests whose bodies come an octet at a time, each until the server hangs up on it; what each was answered.
fn drips(server: &Server) -> Vec<Vec<u8>> {
    let head = b"POST / HTTP/1.1\r\nHost: open.test\r\nContent-Length: 100000\r\n\r\n";
    let open = |_| {
        let mut stream = TcpStream::connect(server.http).unwrap();
        stream.write_all(head).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        (stream, Vec::new())
    };
    let mut dripping: Vec<(TcpStream, Vec<u8>)> = (0..20).map(open).collect();
    let (started, mut answers) = (Instant::now(), Vec::new());
    while !dripping.is_empty() {
        dripping.retain_mut(|(stream, answer)| {
            let mut buffer = [0; 4096];
            let has_ended = match stream.read(&mut buffer) {
                Ok(0) => true,
                Ok(read) => {
                    answer.extend_from_slice(&buffer[..read]);
                    false
                }
                Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
            };
            let goes_on = !has_ended && stream.write_all(b"x").is_ok();
            if !goes_on {
                answers.push(std::mem::take(answer));
            }
            goes_on
        });
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "{} are kept for ever",
            dripping.len()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    answers
}

#[test]
fn who_drips_a_body_loses_the_place_and_nobody_else_waits() {
    let (site, apart) = (Site::with_alice(REQUIRE), Backend::start());
    site.write("apart.yaml", &apart.manifest("apart"));
    site.write("open.yaml", &ingress("open", "open.test", "/", "apart"));
    site.write("route.yaml", &route_policy("open", "open", "timeouts: {request: 1s}"));
    let server = site.start();
    unnoticed(&site, &server, || {
        let started = Instant::now();
        let answers = drips(&server);
        assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
        let text = answers.iter().map(|answer| String::from_utf8_lossy(answer));
        let other: Vec<_> = text.filter(|text| !text.starts_with("HTTP/1.1 504 ")).collect();
        assert!(
            other.is_empty() && answers.len() == 20,
            "{} of {}: {other:?}",
            other.len(),
            answers.len()
        );
    });
    wait("connections to end", || server.metric("certmap_connections_open") == 0.0);
    server.logged(|line| line.contains("the request took too long") && line.contains("\"504\""));
}
