//! Backends that fail, are slow or are not there: what is sent again, who rests, and how long anybody waits.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::super::support::Site;
use super::super::support::backend::Backend;
use super::super::support::manifests::service;
use super::super::support::origin::{Origin, answer};
use super::super::support::server::Server;
use super::super::support::tls::{get, reply, request};
use super::{each, head, route_policy, sent};

const GET: &str = "GET /x HTTP/1.1\r\nHost: app.test\r\n\r\n";
const POST: &str = "POST /x HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\n\r\nhello";

/// app.test with these behind it, and this said of the way.
fn site(ports: &[u16], spec: &str) -> (Site, Server) {
    let site = Site::new();
    site.write("backend.yaml", &service("echo", ports));
    site.write("route.yaml", &route_policy(spec));
    let server = site.start();
    (site, server)
}

/// What so many requests are answered, one after the other on one connection.
fn statuses(server: &Server, count: usize, text: &str) -> Vec<u16> {
    let mut client = sent(server.http, "");
    (0..count).map(|_| request(&mut client, text).status).collect()
}

fn good() -> Origin {
    Origin::start(&[("/x", answer("200 OK", "", b"ok"))])
}

fn overloaded() -> Origin {
    Origin::start(&[("/x", answer("503 Service Unavailable", "", b"busy"))])
}

fn count(count: &AtomicUsize) -> usize {
    count.load(Ordering::SeqCst)
}

#[test]
fn what_one_endpoint_cannot_answer_is_asked_of_another_where_the_route_says_so() {
    let (one, other) = (good(), overloaded());
    let retry = "retry: {codes: [503], attempts: 1, budgetPercent: 100}";
    let (_site, server) = site(&[one.port, other.port], retry);
    assert_eq!(statuses(&server, 10, GET), [200; 10]);
    assert_eq!(count(&one.requests), 10, "each is answered once");
    assert!((1..=10).contains(&count(&other.requests)));

    // Twice is not the same as once; and a body is gone once it was sent.
    let empty = POST.replace("5\r\n\r\nhello", "0\r\n\r\n");
    for text in [&empty, POST, &POST.replace("POST", "PUT")] {
        let before = count(&one.requests) + count(&other.requests);
        let posted = statuses(&server, 10, text);
        assert!(posted.contains(&503) && posted.contains(&200), "{text}: {posted:?}");
        assert_eq!(count(&one.requests) + count(&other.requests), before + 10, "{text}");
    }

    server.delete("route.yaml");
    let before = count(&one.requests) + count(&other.requests);
    let got = statuses(&server, 10, GET);
    assert!(got.contains(&503) && got.contains(&200), "{got:?}");
    assert_eq!(count(&one.requests) + count(&other.requests), before + 10);
}

#[test]
fn another_code_than_the_routes_is_the_answer() {
    let (one, other) = (good(), overloaded());
    let (_site, server) =
        site(&[one.port, other.port], "retry: {codes: [502], attempts: 3, budgetPercent: 100}");
    assert!(statuses(&server, 10, GET).contains(&503));
    assert_eq!(count(&one.requests) + count(&other.requests), 10);
}

#[test]
fn a_backend_in_trouble_is_asked_again_for_a_share_of_the_requests_alone() {
    let (one, other) = (overloaded(), overloaded());
    let (_site, server) =
        site(&[one.port, other.port], "retry: {codes: [503], attempts: 1, budgetPercent: 20}");
    let arrived = || count(&one.requests) + count(&other.requests);
    // Ten retries are there at the beginning, and every fifth request earns one.
    assert_eq!(statuses(&server, 20, GET), [503; 20]);
    assert_eq!(arrived(), 20 + 13);
    assert_eq!(statuses(&server, 20, GET), [503; 20]);
    assert_eq!(arrived(), 40 + 13 + 4, "a fifth");
}

#[test]
fn an_endpoint_that_breaks_off_rests() {
    let healthy = Backend::start();
    let (port, asked) = each(|_, stream| drop(stream));
    let (_site, server) =
        site(&[healthy.port, port], "loadBalancing: {ejection: {failures: 1, rest: 60s}}");
    let posted = statuses(&server, 8, POST);
    assert_eq!(posted.iter().filter(|status| **status == 502).count(), 1, "{posted:?}");
    assert_eq!(posted.iter().filter(|status| **status == 200).count(), 7, "{posted:?}");
    assert_eq!(statuses(&server, 8, POST), [200; 8]);
    assert_eq!((count(&asked), count(&healthy.requests)), (1, 15));
}

#[test]
fn without_ejection_nobody_rests() {
    let healthy = Backend::start();
    let (port, asked) = each(|_, stream| drop(stream));
    let (_site, server) = site(&[healthy.port, port], "timeouts: {response: 60s}");
    let posted = statuses(&server, 8, POST);
    let failed = posted.iter().filter(|status| **status == 502).count();
    assert!(failed > 1, "{posted:?}");
    assert_eq!((count(&asked), count(&healthy.requests)), (failed, 8 - failed));
}

/// POSTs until one is answered 502; says when it began, and when it was answered.
fn failed(client: &mut TcpStream) -> (Instant, Instant) {
    let limit = Instant::now() + Duration::from_secs(60);
    while Instant::now() < limit {
        let begun = Instant::now();
        match request(client, POST).status {
            502 => return (begun, Instant::now()),
            status => assert_eq!(status, 200),
        }
    }
    panic!("it is not asked again");
}

#[test]
fn it_is_asked_again_after_its_rest_and_after_twice_that() {
    let healthy = Backend::start();
    let (port, asked) = each(|_, stream| drop(stream));
    let (_site, server) =
        site(&[healthy.port, port], "loadBalancing: {ejection: {failures: 1, rest: 500ms}}");
    let mut client = sent(server.http, "");
    let (first, _) = failed(&mut client);
    let (second, again) = failed(&mut client);
    let (_, last) = failed(&mut client);
    // Its clock counts whole milliseconds.
    assert!(again - first >= Duration::from_millis(499), "{:?}", again - first);
    assert!(last - second >= Duration::from_millis(999), "{:?}", last - second);
    assert_eq!(count(&asked), 3);
}

#[test]
fn where_all_rest_none_does() {
    let (one, asked_of_one) = each(|_, stream| drop(stream));
    let (other, asked_of_other) = each(|_, stream| drop(stream));
    let ejection = "loadBalancing: {ejection: {failures: 1, rest: 60s, mostPercent: 100}}";
    let (_site, server) = site(&[one, other], ejection);
    assert_eq!(statuses(&server, 2, POST), [502; 2]);
    assert_eq!((count(&asked_of_one), count(&asked_of_other)), (1, 1));
    assert_eq!(statuses(&server, 10, POST), [502; 10]);
    assert_eq!(count(&asked_of_one) + count(&asked_of_other), 12);
}

#[test]
fn no_more_rest_than_may() {
    let healthy = Backend::start();
    let failing = [0; 3].map(|_| each(|_, stream| drop(stream)));
    let ports = [healthy.port, failing[0].0, failing[1].0, failing[2].0];
    let ejection = "loadBalancing: {ejection: {failures: 1, rest: 60s, mostPercent: 25}}";
    let (_site, server) = site(&ports, ejection);
    let posted = statuses(&server, 40, POST);
    let mut asked = failing.map(|(_, asked)| count(&asked));
    asked.sort_unstable();
    // A quarter of four.
    assert_eq!(asked[0], 1, "{asked:?}");
    assert!(asked[1] > 5 && asked[2] > 5, "{asked:?}");
    let failed = posted.iter().filter(|status| **status == 502).count();
    assert_eq!((failed, count(&healthy.requests)), (asked.iter().sum(), 40 - failed));
}

#[test]
fn what_a_kept_connection_broke_under_is_sent_again_where_it_may_be() {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let broken = Arc::<AtomicUsize>::default();
    let breaks = broken.clone();
    let (port, opened) = each(move |begun, mut stream| {
        if begun.starts_with("POST ") {
            stream.read_exact(&mut [0; 5]).unwrap();
        }
        stream.write_all(ANSWER).unwrap();
        // It says nothing of closing, and closes when it has read the next one.
        if !head(&mut stream).is_empty() {
            breaks.fetch_add(1, Ordering::SeqCst);
        }
    });
    let (_site, server) = site(&[port], "timeouts: {response: 60s}");
    // On one connection: every thread has kept connections of its own.
    let mut client = sent(server.http, "");
    let mut ask = |text| (request(&mut client, text).status, count(&opened), count(&broken));
    assert_eq!(ask(GET), (200, 1, 0));
    assert_eq!(ask(GET), (200, 2, 1), "on a new connection");
    assert_eq!(ask(POST), (502, 2, 2), "it may have been done");
    assert_eq!(ask(POST), (200, 3, 2));
}

#[test]
fn an_answer_has_to_begin_in_time_counted_from_the_last_octet_of_the_request() {
    let (port, _) = each(|head, mut stream| {
        if head.starts_with("POST ") {
            let mut body = [0; 5];
            stream.read_exact(&mut body).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").unwrap();
            stream.write_all(&body).unwrap();
        }
        // Until it is given up.
        drop(stream.read(&mut [0]));
    });
    let (_site, server) = site(&[port], "timeouts: {response: 1s}");
    let begun = Instant::now();
    let late = get(&mut sent(server.http, ""), "app.test", "/x");
    let waited = begun.elapsed();
    assert_eq!(late.code(), "504");
    assert!((Duration::from_secs(1)..Duration::from_secs(30)).contains(&waited), "{waited:?}");
    server.logged(|line| line.contains("does not answer in time") && line.contains("\"504\""));

    let (begun, (head, body)) = (Instant::now(), POST.split_at(POST.len() - 5));
    let mut client = sent(server.http, head);
    for octet in body.as_bytes() {
        std::thread::sleep(Duration::from_millis(300));
        client.write_all(&[*octet]).unwrap();
    }
    assert_eq!(reply(&mut client).unwrap().body, "hello");
    assert!(begun.elapsed() > Duration::from_secs(1));
}

/// Listens, accepts nothing, and has as many waiting as may.
fn full() -> (u16, socket2::Socket, Vec<TcpStream>) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(500));
    let waiting = std::iter::from_fn(|| connect().ok()).take(64).collect();
    (address.port(), socket, waiting)
}

#[test]
fn a_connection_has_to_be_accepted_in_time() {
    let (port, _socket, _waiting) = full();
    let site = Site::new();
    site.write("backend.yaml", &service("echo", &[port]));
    site.write("route.yaml", &route_policy("timeouts: {connect: 300ms}"));
    let (manifests, log) = (site.manifests(), site.path("access.log"));
    let further = ["--connect-timeout", "6"];
    let server = Server::start_with(&manifests, &log, "json", &further);
    let ask = |host: &str| {
        let begun = Instant::now();
        (get(&mut sent(server.http, ""), host, "/").code(), begun.elapsed())
    };
    let (code, waited) = ask("app.test");
    assert_eq!(code, "504");
    assert!((Duration::from_millis(300)..Duration::from_secs(6)).contains(&waited), "{waited:?}");
    server.logged(|line| line.contains("does not accept connections in time"));
    // A route that says nothing of it waits for as long as the option has it.
    let (code, waited) = ask("open.test");
    assert_eq!(code, "504");
    assert!((Duration::from_secs(6)..Duration::from_secs(50)).contains(&waited), "{waited:?}");

    // Nothing was sent: the next one is asked, whatever the method.
    server.edit("backend.yaml", &service("echo", &[port, site.backend.port]));
    assert_eq!(statuses(&server, 4, POST), [200; 4]);
}
