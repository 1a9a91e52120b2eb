//! Clients that take their time: each holds a place, and must lose it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::backend::Backend;
use rustls::version::TLS13;
use socket2::{Domain, Socket, Type};

use crate::support::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Event, H2, HEADERS, PING, WINDOW_UPDATE, block,
    frame, get, head,
};
use crate::support::manifests::{ingress, route_policy};
use crate::support::server::{Server, wait};
use crate::support::tls::{Client, client_hello};
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
    let (site, apart) = (Site::with_alice(REQUIRE), Backend::standing_back());
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

#[test]
fn who_drips_a_body_over_http_2_loses_the_request_and_keeps_the_others() {
    let site = Site::with_alice(REQUIRE);
    site.write("route.yaml", &route_policy("open", "open", "timeouts: {request: 1s}"));
    let server = site.start();
    let mut h2 = H2::plain(server.http, &[]).unwrap();
    let post = head("POST", "open.test", "/", &[]);
    h2.send(&frame(HEADERS, END_HEADERS, 1, &post)).unwrap();
    let started = Instant::now();
    let status = loop {
        assert!(started.elapsed() < Duration::from_secs(30), "it is kept for ever");
        h2.send(&frame(DATA, 0, 1, b"x")).unwrap();
        h2.stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        if h2.stream.peek(&mut [0]).is_err() {
            continue;
        }
        h2.stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        match h2.next().unwrap() {
            Event::Head { stream: 1, status, .. } => break status,
            Event::Other => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(status, 504);
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    h2.stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // Nobody waits for the rest of it: the stream ends too.
    let ends = |event: &Event| {
        matches!(event, Event::Reset { stream: 1, .. } | Event::Data { stream: 1, end: true, .. })
    };
    wait("the end of the stream", || h2.settled().0.iter().any(ends));
    h2.send(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &get("open.test", "/"))).unwrap();
    assert_eq!(h2.outcome(3), Some(200));
    server.logged(|line| line.contains("the request took too long") && line.contains("HTTP/2.0"));
}

/// Nobody has a route of his own; who reads nothing for a second has had his time.
fn impatient(site: &Site) -> Server {
    let options = ["--send-timeout", "1"];
    Server::start_with(&site.manifests(), &site.path("access.log"), "json", &options)
}

const BIG: &[u8] = b"GET /big HTTP/1.1\r\nHost: open.test\r\n\r\n";
const UPGRADE: &[u8] =
    b"GET /ws HTTP/1.1\r\nHost: open.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// Connections on which much is asked for and nothing read; over HTTP/2 with windows for all of it.
fn unread(site: &Site, server: &Server) -> Vec<Box<dyn Write>> {
    let client = Client::new(&site.server_ca, None, &TLS13);
    let mut streams: Vec<Box<dyn Write>> = Vec::new();
    for _ in 0..5 {
        streams.push(Box::new(TcpStream::connect(server.http).unwrap()));
        streams.push(Box::new(client.connect(server.https, "open.test")));
    }
    for stream in &mut streams {
        stream.write_all(BIG).unwrap();
        stream.flush().unwrap();
    }
    let mut h2 = H2::plain(server.http, &[(4, 1 << 30)]).unwrap();
    let window = frame(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes());
    let request = frame(HEADERS, END_HEADERS | END_STREAM, 1, &get("open.test", "/big"));
    h2.send(&[window, request].concat()).unwrap();
    streams.push(Box::new(h2.stream));
    streams
}

#[test]
fn who_does_not_read_loses_the_connection() {
    let site = Site::with_alice(REQUIRE);
    let server = impatient(&site);
    let streams = unread(&site, &server);
    for protocol in ["HTTP/1.1", "HTTP/2.0"] {
        let is_it = |line: &str| line.contains(protocol) && line.contains("client does not read");
        assert!(server.logged(is_it).contains("/big"));
    }
    wait("connections to end", || server.metric("certmap_connections_open") == 0.0);
    drop(streams);
}

#[test]
fn who_does_not_read_is_not_noticed_by_others() {
    let (site, apart) = (Site::with_alice(REQUIRE), Backend::standing_back());
    site.write("apart.yaml", &apart.manifest("apart"));
    site.write("open.yaml", &ingress("open", "open.test", "/", "apart"));
    let server = impatient(&site);
    unnoticed(&site, &server, || {
        let streams = unread(&site, &server);
        std::thread::sleep(Duration::from_millis(1500));
        drop(streams);
    });
}

#[test]
fn who_reads_slowly_but_reads_is_waited_for_and_who_has_nothing_to_read_is_not_meant() {
    let site = Site::with_alice(REQUIRE);
    let server = impatient(&site);
    let mut reader = TcpStream::connect(server.http).unwrap();
    reader.write_all(BIG).unwrap();
    // So slowly that a third of what the kernel would hold for it lasts for longer than the limit.
    let slower = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    slower.set_recv_buffer_size(65_536).unwrap();
    slower.connect(&server.http.into()).unwrap();
    let mut slower = TcpStream::from(slower);
    slower.write_all(BIG).unwrap();
    let slower = std::thread::spawn(move || {
        let mut part = vec![0; 20_480];
        for _ in 0..60 {
            slower.read_exact(&mut part).unwrap();
            std::thread::sleep(Duration::from_millis(100));
        }
        // More than could lie anywhere on the way, had it been cut.
        slower.read_exact(&mut vec![0; 16 << 20]).unwrap();
    });
    let mut silent = TcpStream::connect(server.http).unwrap();
    silent.write_all(UPGRADE).unwrap();
    let mut head = [0; 12];
    silent.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 101");
    // Five seconds of events, a few octets each.
    let mut events = TcpStream::connect(server.http).unwrap();
    events
        .write_all(b"GET /stream HTTP/1.1\r\nHost: open.test\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut part = vec![0; 1 << 20];
    for _ in 0..30 {
        reader.read_exact(&mut part).unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    let mut all = String::new();
    events.read_to_string(&mut all).unwrap();
    assert_eq!(all.matches("chunk\n").count(), 50);
    slower.join().unwrap();
    silent.write_all(b"still there").unwrap();
    silent.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut rest = Vec::new();
    while !rest.ends_with(b"still there") {
        let mut octet = [0];
        silent.read_exact(&mut octet).unwrap();
        rest.extend(octet);
    }
}

#[test]
fn a_websocket_whose_client_does_not_read_ends() {
    let site = Site::with_alice(REQUIRE);
    let server = impatient(&site);
    let mut stream = TcpStream::connect(server.http).unwrap();
    stream.write_all(UPGRADE).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    // What is echoed is not read, until nothing more is taken, and then the connection ends.
    let started = Instant::now();
    while stream.write(&[b'x'; 65_536]).is_ok() {
        assert!(started.elapsed() < Duration::from_secs(60), "it is kept for ever");
    }
    wait("the tunnel to end", || server.metric("certmap_connections_open") == 0.0);
    assert!(started.elapsed() < Duration::from_secs(19), "{:?}", started.elapsed());
}

/// An HTTP/2 connection whose streams have no more room than the protocol's 65,535 octets.
fn confined(server: &Server, paths: &[(u32, &str)]) -> H2<TcpStream> {
    let mut h2 = H2::plain(server.http, &[]).unwrap();
    let window = frame(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes());
    h2.send(&window).unwrap();
    for (stream, path) in paths {
        let request = get("open.test", path);
        h2.send(&frame(HEADERS, END_HEADERS | END_STREAM, *stream, &request)).unwrap();
    }
    h2
}

fn open_window(h2: &mut H2<TcpStream>, stream: u32, octets: u32) {
    h2.send(&frame(WINDOW_UPDATE, 0, stream, &octets.to_be_bytes())).unwrap();
}

#[test]
fn who_lets_one_answer_lie_over_http_2_loses_that_and_keeps_the_others() {
    let site = Site::with_alice(REQUIRE);
    let server = impatient(&site);
    let mut h2 = confined(&server, &[(1, "/big"), (3, "/big"), (5, "/stream")]);
    let (started, mut given, mut events) = (Instant::now(), 0, 0);
    let code = loop {
        match h2.next().unwrap() {
            Event::Reset { stream: 1, code } => break code,
            // Half a window at a time, as clients do it, and slowly.
            Event::Data { stream: 3, length, .. } => {
                given += length;
                if given >= 32_768 {
                    std::thread::sleep(Duration::from_millis(50));
                    open_window(&mut h2, 3, u32::try_from(given).unwrap());
                    given = 0;
                }
            }
            Event::Data { stream: 5, .. } => events += 1,
            Event::Data { stream: 1, .. } | Event::Head { .. } | Event::Other => {}
            other => panic!("{other:?}"),
        }
        assert!(started.elapsed() < Duration::from_secs(30), "it is kept for ever");
    };
    // RFC 9113, 7: CANCEL.
    assert_eq!(code, 8);
    assert!(started.elapsed() >= Duration::from_secs(1) && events > 0);
    server.logged(|line| line.contains("/big") && line.contains("the client does not read"));
    // The others go on for much longer than it was waited for the first, and so do new ones.
    let request = get("open.test", "/");
    h2.send(&frame(HEADERS, END_HEADERS | END_STREAM, 7, &request)).unwrap();
    let (mut answered, mut ended) = (false, false);
    while !(answered && ended) {
        match h2.next().unwrap() {
            Event::Head { stream: 7, status, .. } => answered = status == 200,
            Event::Data { stream: 5, end, .. } => ended |= end,
            Event::Data { stream: 3, length, .. } => {
                given += length;
                if given >= 32_768 {
                    std::thread::sleep(Duration::from_millis(50));
                    open_window(&mut h2, 3, u32::try_from(given).unwrap());
                    given = 0;
                }
            }
            Event::Reset { stream, .. } => panic!("stream {stream} is reset"),
            Event::GoAway { why, .. } => panic!("{why}"),
            _ => {}
        }
    }
}

#[test]
fn who_lets_every_answer_lie_keeps_nothing_of_the_backends() {
    let site = Site::with_alice(REQUIRE);
    let server = impatient(&site);
    let paths: Vec<(u32, &str)> = (0..50).map(|number| (2 * number + 1, "/big")).collect();
    let mut h2 = confined(&server, &paths);
    let mut reset = std::collections::HashSet::new();
    while reset.len() < paths.len() {
        if let Event::Reset { stream, code: 8 } = h2.next().unwrap() {
            reset.insert(stream);
        }
    }
}

#[test]
fn a_websocket_over_http_2_whose_client_does_not_read_ends() {
    let site = Site::with_alice(REQUIRE);
    let server = impatient(&site);
    let mut h2 = confined(&server, &[]);
    let further = [(&b":protocol"[..], &b"websocket"[..]), (b"sec-websocket-version", b"13")];
    let connect = head("CONNECT", "open.test", "/ws", &further);
    h2.send(&frame(HEADERS, END_HEADERS, 1, &connect)).unwrap();
    assert_eq!(h2.outcome(1), Some(200));
    // More than its window has room for comes back.
    for _ in 0..12 {
        h2.send(&frame(DATA, 0, 1, &[b'x'; 16_384])).unwrap();
    }
    let started = Instant::now();
    loop {
        match h2.next().unwrap() {
            Event::Reset { stream: 1, .. } => break,
            Event::Data { stream: 1, end: true, .. } => panic!("it looks like the whole"),
            _ => assert!(started.elapsed() < Duration::from_secs(30), "it is kept for ever"),
        }
    }
    // The connection goes on.
    let request = get("open.test", "/");
    h2.send(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &request)).unwrap();
    assert_eq!(h2.outcome(3), Some(200));
}
