//! Clients that take their time: each holds a place, and must lose it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::frames::{CONTINUATION, END_STREAM, H2, HEADERS, PING, block, frame, get};
use crate::support::server::{Server, wait};
use crate::support::tls::client_hello;
use crate::support::{REQUIRE, Site};

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
