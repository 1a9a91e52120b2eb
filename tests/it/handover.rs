//! Addresses that are listened on, and how one process hands them to the next.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustls::version::TLS13;

use super::support::server::{Server, wait};
use super::support::tls::{Client, get, reply};
use super::support::{REQUIRE, Site};

fn start(site: &Site, log: &str, options: &[&str]) -> Server {
    Server::start_with(&site.manifests(), &site.path(log), "json", options)
}

#[test]
fn one_address_of_ipv6_is_for_both_families_and_several_may_be_given() {
    let site = Site::with_alice(REQUIRE);
    let server = start(&site, "access.log", &["--http", "[::]:0", "--https", "[::1]:0"]);
    let (http, https) = (server.addresses("http"), server.addresses("https"));
    assert_eq!((http.len(), https.len()), (2, 2));
    for address in [format!("127.0.0.1:{}", http[1].port()), format!("[::1]:{}", http[1].port())] {
        let mut stream = TcpStream::connect(address.parse::<SocketAddr>().unwrap()).unwrap();
        assert_eq!(get(&mut stream, "open.test", "/").status, 200, "{address}");
    }
    // An IPv4 client on the common socket is an IPv4 client.
    server.logged(|line| line.contains("\"client_ip\":\"127.0.0.1\""));
    server.logged(|line| line.contains("\"client_ip\":\"::1\""));
    for address in [https[0], https[1]] {
        let client = Client::new(&site.server_ca, Some(&site.alice), &TLS13);
        assert_eq!(client.get(address, "app.test", "app.test", "/").0.code(), "200");
    }
}

#[test]
fn an_address_is_shared_only_with_who_is_told_to() {
    let site = Site::with_alice(REQUIRE);
    let first = start(&site, "one.log", &[]);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_certmap"));
    command.args(["run", "--http", &first.http.to_string(), "--https", "127.0.0.1:0"]);
    command.args(["--admin", "127.0.0.1:0", "--reuse-port", "--manifests"]).arg(site.manifests());
    let (ok, said) = super::support::run(&mut command);
    assert!(!ok && said.contains("free it, or give --http another address"), "{said}");
}

/// Connects anew for each request, and says how many were answered.
fn ask(server: SocketAddr, stop: &AtomicBool, answered: &AtomicUsize) -> Result<(), String> {
    while !stop.load(Ordering::Relaxed) {
        let stream = TcpStream::connect(server).map_err(|error| format!("connect: {error}"));
        let mut stream = stream?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let text = b"GET / HTTP/1.1\r\nHost: open.test\r\n\r\n";
        stream.write_all(text).map_err(|error| format!("write: {error}"))?;
        let reply = reply(&mut stream).map_err(|error| format!("read: {error}"))?;
        if reply.status != 200 {
            return Err(format!("{reply:?}"));
        }
        answered.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Asks a TLS handshake of each connection.
fn ask_tls(
    site: &Site,
    server: SocketAddr,
    stop: &AtomicBool,
    answered: &AtomicUsize,
) -> Result<(), String> {
    let client = Client::new(&site.server_ca, Some(&site.alice), &TLS13);
    while !stop.load(Ordering::Relaxed) {
        let (reply, _) = client.get(server, "app.test", "app.test", "/");
        if reply.status != 200 {
            return Err(format!("{reply:?}"));
        }
        answered.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

#[test]
fn one_process_takes_over_from_another_and_no_connection_is_lost() {
    let site = Site::with_alice(REQUIRE);
    let mut first = start(&site, "one.log", &["--reuse-port"]);
    // Any port, as for the others, and then the same ones again.
    let first_ports = [first.http.to_string(), first.https.to_string()];
    let options = ["--reuse-port", "--http", &first_ports[0], "--https", &first_ports[1]];
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (http, https) = (first.http, first.https);
    std::thread::scope(|scope| {
        let plain: Vec<_> = (0..4).map(|_| scope.spawn(|| ask(http, &stop, &answered))).collect();
        let tls = scope.spawn(|| ask_tls(&site, https, &stop, &answered));
        let further = |by: usize| {
            let before = answered.load(Ordering::Relaxed);
            wait("further answers", || answered.load(Ordering::Relaxed) >= before + by);
        };
        further(50);
        let second = start(&site, "two.log", &options);
        further(50);
        first.terminate();
        assert_eq!(first.exit_code(), Some(0));
        further(50);
        stop.store(true, Ordering::Relaxed);
        for asking in plain.into_iter().chain([tls]) {
            assert_eq!(asking.join().unwrap(), Ok(()));
        }
        second.logged(|line| line.contains("app.test"));
    });
}
