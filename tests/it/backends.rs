//! Backends of other makes, through the whole program: gRPC, WebSockets, streams; what they speak, and who they are.

mod answers;
mod failing;
mod going_away;
mod names;
mod nginx;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::clients::{curl, curl_http, go_program};
use super::support::frames::{
    DATA, END_HEADERS, END_STREAM, Event, H2, HEADERS, SETTINGS, block, frame,
};
use super::support::manifests::{config_map, service, tls_secret};
use super::support::origin::{Origin, answer};
use super::support::pki::{self, Ca, leaf};
use super::support::server::Server;
use super::support::tls::{get, reply};
use super::support::{REQUIRE, Site, run};

const MIB: u64 = 1 << 20;

/// A program that prints where it serves, and ends with its standard input.
struct Program {
    child: Child,
    _input: ChildStdin,
    port: u16,
}

impl Program {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().rsplit(':').next().unwrap().parse().unwrap();
        Self { child, _input: input, port }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn grpc() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| go_program("grpc"))
}

/// A Service with this beside its port, or among its metadata.
fn speaking(port: u16, app_protocol: &str, annotation: &str) -> String {
    let service = service("echo", &[port]);
    let service = match app_protocol {
        "" => service,
        _ => service.replace("{port: 80}", &format!("{{port: 80, appProtocol: {app_protocol}}}")),
    };
    match annotation {
        "" => service,
        _ => service.replacen(
            "{name: echo, namespace: web}",
            &format!("{{name: echo, namespace: web, annotations: {{certmap.dev/backend-protocol: {annotation}}}}}"),
            1,
        ),
    }
}

/// One call of each kind.
fn calls(site: &Site, server: &Server, who: &str, further: &[&str]) -> Value {
    let mut command = Command::new(grpc());
    command.args(["call", "-connect", &server.https.to_string(), "-host", "app.test", "-ca"]);
    command.arg(site.path("server-ca.crt"));
    if who != "-" {
        command.arg("-cert").arg(site.path(&format!("{who}.crt")));
        command.arg("-key").arg(site.path(&format!("{who}.key")));
    }
    let (ok, text) = run(command.args(further));
    assert!(ok, "{text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn answered(messages: &[&str], trailers: Value) -> Value {
    json!({"messages": messages, "code": "OK", "message": "", "trailers": trailers})
}

fn assert_all_kinds(answers: &Value) {
    assert_eq!(answers["unary"], answered(&["hello azureuser"], json!({"x-checksum": ["5"]})));
    assert_eq!(answers["server"], answered(&["one 0", "one 1", "one 2"], json!({})));
    assert_eq!(answers["client"], answered(&["3 messages, 1048582 octets"], json!({})));
    assert_eq!(answers["both"], answered(&["echo one", "echo two", "echo three"], json!({})));
}

#[test]
fn grpc_of_all_four_kinds_goes_through() {
    let site = Site::with_alice(REQUIRE);
    let backend = Program::start(Command::new(grpc()).arg("serve"));
    site.write("backend.yaml", &speaking(backend.port, "kubernetes.io/h2c", ""));
    let server = site.start();
    assert_all_kinds(&calls(&site, &server, "alice", &[]));
    server.edit("backend.yaml", &speaking(backend.port, "", "GRPC"));
    assert_all_kinds(&calls(&site, &server, "alice", &[]));
}

#[test]
fn grpc_gets_the_backends_status_and_ours() {
    let site = Site::with_alice(REQUIRE);
    let backend = Program::start(Command::new(grpc()).arg("serve"));
    site.write("backend.yaml", &speaking(backend.port, "grpc", ""));
    let server = site.start();
    let failed = calls(&site, &server, "alice", &["-message", "fail"]);
    assert_eq!(failed["unary"]["code"], "FailedPrecondition");
    assert_eq!(failed["unary"]["message"], "as asked: 100%");
    assert_eq!(failed["unary"]["trailers"]["x-checksum"], json!(["4"]));
    let refused = calls(&site, &server, "-", &[]);
    for kind in ["unary", "server", "client", "both"] {
        assert_eq!(refused[kind]["code"], "PermissionDenied", "{refused}");
        assert_eq!(refused[kind]["message"], "403.7 Client certificate required");
    }
    server.edit("backend.yaml", &speaking(1, "grpc", "").replace("ready: true", "ready: false"));
    let nobody = calls(&site, &server, "alice", &[]);
    assert_eq!(nobody["unary"]["code"], "Unavailable", "{nobody}");
}

#[test]
fn a_backend_that_speaks_tls_is_not_reached_without_its_ca_and_name() {
    let site = Site::new();
    site.write("backend.yaml", &speaking(site.backend.port, "https", ""));
    let server = site.start();
    let reply = curl_http(server.http, "app.test", "/", &[]);
    assert_eq!(reply.code(), "502.91", "{reply:?}");
    server.said(&["BackendTLSMissing", "web/app"]);
    assert_eq!(site.backend.connections.load(Ordering::SeqCst), 0);
    server.edit("backend.yaml", &speaking(site.backend.port, "https", "HTTP"));
    assert_eq!(curl_http(server.http, "app.test", "/", &[]).status, 200, "the annotation counts");
    server.edit("backend.yaml", &speaking(site.backend.port, "", "SPDY"));
    assert_eq!(curl_http(server.http, "app.test", "/", &[]).status, 503);
    server.said(&["BackendNotFound", "SPDY", "write HTTP, HTTPS, H2C, H2, GRPC or GRPCS"]);
}

/// The folder of Node's client, with what it needs.
fn ws() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/ws");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ws-client");
        std::fs::create_dir_all(&folder).unwrap();
        for file in ["package.json", "main.js"] {
            std::fs::copy(source.join(file), folder.join(file)).unwrap();
        }
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-package-lock", "--no-audit", "--no-fund", "--prefer-offline"]);
        let (ok, text) = run(npm.current_dir(&folder));
        assert!(ok, "npm: {text}");
        folder
    })
}

fn node() -> Command {
    let mut node = Command::new("node");
    node.arg(ws().join("main.js"));
    node
}

/// What Node's client of this version of HTTP hears.
fn websocket(site: &Site, server: &Server, version: &str, who: &str) -> Value {
    let mut node = node();
    node.args([version, &server.https.port().to_string(), "app.test", "/chat"]);
    node.arg(site.path("server-ca.crt"));
    let file = |kind: &str| site.path(&format!("{who}.{kind}"));
    let (ok, text) = match who {
        "-" => run(node.args(["-", "-"])),
        _ => run(node.arg(file("crt")).arg(file("key"))),
    };
    assert!(ok, "{text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn nodes_websockets_go_through_over_both_versions() {
    let site = Site::with_alice(REQUIRE);
    let backend = Program::start(node().arg("serve"));
    site.write("backend.yaml", &speaking(backend.port, "kubernetes.io/ws", ""));
    let server = site.start();
    for version in ["1", "2"] {
        let heard = json!({"heard": ["hello azureuser", "ping", 300_000], "code": 4000});
        assert_eq!(websocket(&site, &server, version, "alice"), heard, "HTTP/{version}");
        let refused = json!({"status": 403});
        assert_eq!(websocket(&site, &server, version, "-"), refused, "HTTP/{version}");
    }
}

#[test]
fn a_backend_that_speaks_http_1_over_tls_gets_requests_and_websockets_and_may_know_us() {
    let site = Site::with_alice(REQUIRE);
    let (ca, clients) = (Ca::new("Backends"), Ca::new("Clients"));
    ca.issue(pki::server(&["app.internal"])).write(site.directory.path(), "internal");
    std::fs::write(site.path("clients.crt"), clients.pem()).unwrap();
    let files = ["internal.crt", "internal.key", "clients.crt"].map(|name| site.path(name));
    let backend = Program::start(node().arg("serve").args(files));
    site.write("backend.yaml", &speaking(backend.port, "kubernetes.io/wss", ""));
    site.write("ca.yaml", &config_map("backend-ca", "ca.crt", &ca.pem()));
    site.write("ours.yaml", &tls_secret("ours", &clients.issue(leaf("certmap"))));
    site.write("route.yaml", &known_by("backend-ca", "app.internal", ""));
    let server = site.start();
    let assert_carried = |ours: &str| {
        for (http, version) in [("--http1.1", "1"), ("--http2", "2")] {
            let options = [http, "--data-binary", "12345"];
            let reply = curl(&site, server.https, "alice", "app.test", "/x", &options);
            let expected =
                json!({"version": "1.1", "user": "azureuser", "client": ours, "octets": 5});
            assert_eq!((reply.status, reply.told()), (200, expected), "{reply:?}");
            let hello = format!("hello azureuser of {ours}");
            let heard = json!({"heard": [hello, "ping", 300_000], "code": 4000});
            assert_eq!(websocket(&site, &server, version, "alice"), heard, "HTTP/{version}");
        }
    };
    assert_carried("nobody");
    server.edit("route.yaml", &known_by("backend-ca", "app.internal", "ours"));
    assert_carried("certmap");
    server.edit("route.yaml", &known_by("backend-ca", "other.internal", "ours"));
    for version in ["1", "2"] {
        let refused = json!({"status": 502});
        assert_eq!(websocket(&site, &server, version, "alice"), refused, "HTTP/{version}");
    }
}

/// A backend that takes one connection, reads a head, and does the rest as told.
fn one(then: impl FnOnce(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        head(&mut stream);
        then(stream);
    });
    port
}

/// A backend that does the same with each request, on a connection of its own; counts them.
fn each(then: impl Fn(String, TcpStream) + Clone + Send + 'static) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = Arc::<AtomicUsize>::default();
    let count = requests.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (then, count, mut stream) = (then.clone(), count.clone(), stream.unwrap());
            std::thread::spawn(move || {
                let head = head(&mut stream);
                if !head.is_empty() {
                    count.fetch_add(1, Ordering::SeqCst);
                    then(head, stream);
                }
            });
        }
    });
    (port, requests)
}

pub(super) fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut octet = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut octet).unwrap() > 0 {
        head.push(octet[0]);
    }
    String::from_utf8(head).unwrap()
}

pub(super) fn sent(http: SocketAddr, request: &str) -> TcpStream {
    let mut client = TcpStream::connect(http).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    client.write_all(request.as_bytes()).unwrap();
    client
}

#[test]
fn server_sent_events_arrive_one_by_one() {
    let (told, tell) = std::sync::mpsc::channel::<()>();
    let port = one(move |mut stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        for event in 0..3 {
            tell.recv_timeout(Duration::from_secs(30)).unwrap();
            stream.write_all(format!("9\r\ndata: {event}\n\n\r\n").as_bytes()).unwrap();
        }
    });
    let site = Site::new();
    site.write("backend.yaml", &service("echo", &[port]));
    let server = site.start();
    let mut client = sent(server.http, "GET /events HTTP/1.1\r\nHost: app.test\r\n\r\n");
    assert!(head(&mut client).starts_with("HTTP/1.1 200 "));
    for event in 0..3 {
        // The next one is sent only once this one is here.
        told.send(()).unwrap();
        let mut chunk = [0; 14];
        client.read_exact(&mut chunk).unwrap();
        assert_eq!(&chunk[..], format!("9\r\ndata: {event}\n\n\r\n").as_bytes());
    }
}

/// Memory that carrying something big may take.
const MOST_MORE: u64 = 24 * MIB;

#[test]
fn gigabytes_come_and_go_in_constant_memory_and_no_faster_than_they_are_read() {
    const DOWN: u64 = 2048 * MIB;
    const UP: u64 = 1024 * MIB;
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    let port = one(|mut stream| {
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {DOWN}\r\n\r\n").unwrap();
        let block = vec![b'x'; 1 << 20];
        for _ in 0..DOWN / MIB {
            stream.write_all(&block).unwrap();
            WRITTEN.fetch_add(MIB, Ordering::SeqCst);
        }
        head(&mut stream);
        let octets = std::io::copy(&mut Read::by_ref(&mut stream).take(UP), &mut std::io::sink());
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nX-Octets: {}\r\nContent-Length: 0\r\n\r\n",
            octets.unwrap()
        )
        .unwrap();
    });
    let site = Site::new();
    site.write("backend.yaml", &service("echo", &[port]));
    let server = site.start();
    let before = server.resident();
    let mut client = sent(server.http, "GET /big HTTP/1.1\r\nHost: app.test\r\n\r\n");
    head(&mut client);
    // Nobody reads: what is under way comes to rest.
    let mut last = u64::MAX;
    let stopped = Instant::now();
    while last != WRITTEN.load(Ordering::SeqCst) && stopped.elapsed() < Duration::from_secs(20) {
        last = WRITTEN.load(Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(300));
    }
    assert!(last < 64 * MIB, "{last} octets were taken from the backend");
    let mut most = server.resident();
    let mut block = vec![0; 4 << 20];
    let mut left = DOWN;
    while left > 0 {
        let read = client.read(&mut block).unwrap();
        assert!(read > 0, "{left} octets are missing");
        left -= read as u64;
        if left.is_multiple_of(64) {
            most = most.max(server.resident());
        }
    }
    write!(client, "POST /big HTTP/1.1\r\nHost: app.test\r\nContent-Length: {UP}\r\n\r\n").unwrap();
    for _ in 0..UP / MIB {
        client.write_all(&block[..1 << 20]).unwrap();
    }
    assert!(head(&mut client).contains(&format!("x-octets: {UP}\r\n")));
    most = most.max(server.resident());
    assert!(most < before + MOST_MORE, "{before} octets became {most}");
}

#[test]
fn an_early_hint_is_dropped_and_the_answer_comes() {
    let port = one(|mut stream| {
        stream
            .write_all(
                b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            )
            .unwrap();
    });
    let site = Site::new();
    site.write("backend.yaml", &service("echo", &[port]));
    let server = site.start();
    let reply = curl(&site, server.https, "-", "open.test", "/", &["--http2"]);
    assert_eq!((reply.status, reply.body.as_str()), (200, "ok"));
}

/// A backend over HTTP/2 by hand, which answers each request with these frames.
fn by_hand(frames: impl Fn(u32) -> Vec<u8> + Clone + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (frames, mut stream) = (frames.clone(), stream.unwrap());
            std::thread::spawn(move || {
                stream.read_exact(&mut [0; b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len()]).unwrap();
                let mut backend = H2::of(stream);
                backend.send(&frame(SETTINGS, 0, 0, &[])).unwrap();
                while let Ok(event) = backend.next() {
                    if let Event::Head { stream, .. } = event {
                        backend.send(&frames(stream)).unwrap();
                    }
                }
            });
        }
    });
    port
}

#[test]
fn an_early_hint_over_http_2_is_dropped_and_the_answer_comes() {
    let port = by_hand(|stream| {
        let hint = block(&[(b":status", b"103"), (b"link", b"</a.css>")]);
        let answer = block(&[(b":status", b"200"), (b"x-final", b"1")]);
        let frames = [
            frame(HEADERS, END_HEADERS, stream, &hint),
            frame(HEADERS, END_HEADERS, stream, &hint),
            frame(HEADERS, END_HEADERS, stream, &answer),
            frame(DATA, END_STREAM, stream, b"ok"),
        ];
        frames.concat()
    });
    let site = Site::new();
    site.write("backend.yaml", &speaking(port, "h2c", ""));
    let server = site.start();
    for http in ["--http1.1", "--http2"] {
        let reply = curl(&site, server.https, "-", "open.test", "/", &[http]);
        assert_eq!((reply.status, reply.body.as_str()), (200, "ok"), "{http}: {reply:?}");
        assert!(reply.head.contains("x-final: 1") && !reply.head.contains("link:"), "{reply:?}");
    }
}

#[test]
fn a_head_of_an_answer_that_is_too_long_is_a_502_and_says_so() {
    let padded = |octets: usize| {
        let fields: String = (0..octets / 1000)
            .map(|number| format!("X-{number}: {}\r\n", "x".repeat(1000)))
            .collect();
        answer("200 OK", &fields, b"whole")
    };
    let origin = Origin::start(&[("/long", padded(50_000)), ("/longer", padded(140_000))]);
    let site = Site::new();
    site.write("backend.yaml", &origin.manifest("echo"));
    let server = site.start();
    let reply = curl(&site, server.https, "-", "open.test", "/long", &["--http2"]);
    assert_eq!((reply.status, reply.body.as_str()), (200, "whole"));
    let reply = curl(&site, server.https, "-", "open.test", "/longer", &["--http2"]);
    assert_eq!(reply.status, 502, "{reply:?}");
    let line = server.logged(|line| line.contains("/longer"));
    assert!(line.contains("too large"), "{line}");
}

#[test]
fn a_head_alone_keeps_its_length_and_the_connection_goes_on() {
    let origin = Origin::start(&[
        ("/head", vec![b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n".to_vec()]),
        ("/", answer("200 OK", "", b"whole")),
    ]);
    let site = Site::new();
    site.write("backend.yaml", &origin.manifest("echo"));
    let server = site.start();
    let mut client = sent(server.http, "");
    for _ in 0..3 {
        client.write_all(b"HEAD /head HTTP/1.1\r\nHost: app.test\r\n\r\n").unwrap();
        let alone = head(&mut client);
        assert!(alone.starts_with("HTTP/1.1 200 "), "{alone}");
        assert!(alone.contains("content-length: 1234\r\n"), "{alone}");
        let whole = get(&mut client, "app.test", "/");
        assert_eq!((whole.status, whole.body.as_str()), (200, "whole"));
    }
    let alone = curl(&site, server.https, "-", "open.test", "/head", &["--http2", "--head"]);
    assert!(alone.head.contains("\r\ncontent-length: 1234"), "{alone:?}");
    assert_eq!((alone.status, alone.body.as_str()), (200, ""));
}

#[test]
fn a_trailer_comes_after_the_chunks_where_the_client_takes_it() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Checksum\r\n\r\n\
                   5\r\nwhole\r\n0\r\nX-Checksum: 7\r\n\r\n";
    let origin = Origin::start(&[("/", vec![chunked.as_bytes().to_vec()])]);
    let site = Site::new();
    site.write("backend.yaml", &origin.manifest("echo"));
    let server = site.start();
    let mut client = sent(server.http, "");
    for (asked, end) in
        [("TE: trailers\r\nConnection: TE\r\n", "x-checksum: 7\r\n\r\n"), ("", "\r\n")]
    {
        write!(client, "GET / HTTP/1.1\r\nHost: app.test\r\n{asked}\r\n").unwrap();
        let begun = head(&mut client);
        assert!(begun.contains("transfer-encoding: chunked\r\n"), "{begun}");
        // The connection goes on after it: nothing may stand there but this.
        let expected = format!("5\r\nwhole\r\n0\r\n{end}");
        let mut body = vec![0; expected.len()];
        client.read_exact(&mut body).unwrap();
        assert_eq!(String::from_utf8(body).unwrap(), expected);
    }
}

const ASKING: &str =
    "POST / HTTP/1.1\r\nHost: app.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";

/// app.test with this behind it.
fn with(port: u16) -> (Site, Server) {
    let site = Site::new();
    site.write("backend.yaml", &service("echo", &[port]));
    let server = site.start();
    (site, server)
}

#[test]
fn a_client_is_asked_for_its_body_when_the_backend_asks() {
    /// Whoever says nothing wants it, after so long.
    const SILENCE: Duration = Duration::from_secs(1);
    let has_asked = Arc::<AtomicBool>::default();
    let asks = has_asked.clone();
    let (port, _) = each(move |head, mut stream| {
        assert!(head.contains("expect: 100-continue\r\n"), "{head}");
        std::thread::sleep(Duration::from_millis(200));
        asks.store(true, Ordering::SeqCst);
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        let mut body = [0; 5];
        stream.read_exact(&mut body).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").unwrap();
        stream.write_all(&body).unwrap();
    });
    let (_site, server) = with(port);
    // On a machine that is too busy for it to ask in time, it is done anew.
    let at_its_word = (0..5).any(|_| {
        has_asked.store(false, Ordering::SeqCst);
        let begun = Instant::now();
        let mut client = sent(server.http, ASKING);
        assert_eq!(head(&mut client), "HTTP/1.1 100 Continue\r\n\r\n");
        let (asked, waited) = (has_asked.load(Ordering::SeqCst), begun.elapsed());
        assert!(asked || waited >= SILENCE, "asked after {waited:?}, before the backend did");
        client.write_all(b"hello").unwrap();
        let answered = reply(&mut client).unwrap();
        assert_eq!((answered.status, answered.body.as_str()), (200, "hello"));
        waited < SILENCE
    });
    assert!(at_its_word);
}

#[test]
fn a_body_that_the_backend_does_not_expect_never_comes() {
    let (tell, told) = std::sync::mpsc::channel();
    let port = one(move |mut stream| {
        let no = b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno";
        stream.write_all(no).unwrap();
        let mut body = Vec::new();
        // However it ends.
        drop(stream.read_to_end(&mut body));
        tell.send(body).unwrap();
    });
    let (_site, server) = with(port);
    let mut client = sent(server.http, ASKING);
    let answered = reply(&mut client).unwrap();
    assert_eq!((answered.status, answered.body.as_str()), (417, "no"));
    // One that sends it all the same sends it to nobody.
    drop(client.write_all(b"hello"));
    assert_eq!(told.recv_timeout(Duration::from_secs(60)).unwrap(), b"");
}

#[test]
fn a_backend_that_does_not_know_the_question_gets_the_body_after_a_second() {
    let port = one(|mut stream| {
        let mut body = [0; 5];
        stream.read_exact(&mut body).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").unwrap();
        stream.write_all(&body).unwrap();
    });
    let (_site, server) = with(port);
    let begun = Instant::now();
    let mut client = sent(server.http, ASKING);
    assert_eq!(head(&mut client), "HTTP/1.1 100 Continue\r\n\r\n");
    assert!(begun.elapsed() >= Duration::from_secs(1));
    client.write_all(b"hello").unwrap();
    assert_eq!(reply(&mut client).unwrap().body, "hello");
}

#[test]
fn a_client_that_is_refused_is_not_asked_for_its_body() {
    let site = Site::with_alice(REQUIRE);
    let limit = route_policy("limits: {requestBody: '4'}").replace("app", "open");
    site.write("route.yaml", &limit);
    let server = site.start();
    let asking = |host: &str| ASKING.replace("app.test", host);
    let mut answers = vec![];
    for (host, status) in [("nowhere.test", 404), ("app.test", 403), ("open.test", 413)] {
        answers.push((sent(server.http, &asking(host)), status));
    }
    let twice = asking("open.test").replace("Content-Length: 5", "Content-Length: 05");
    answers.push((sent(server.http, &twice), 400));
    for (mut client, status) in answers {
        // All that comes until the connection ends, or nothing has come for a while: a question would not be long.
        client.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
        let mut octets = Vec::new();
        drop(client.read_to_end(&mut octets));
        let text = String::from_utf8(octets).unwrap();
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
    }
    assert_eq!(site.backend.requests.load(Ordering::SeqCst), 0);
}

/// A RoutePolicy for the Ingress `app`; `spec` is YAML in one line.
pub(super) fn route_policy(spec: &str) -> String {
    format!(
        "apiVersion: certmap.dev/v1alpha1\nkind: RoutePolicy\nmetadata: {{name: app, namespace: web}}\nspec:\n  targetRefs: [{{group: networking.k8s.io, kind: Ingress, name: app}}]\n  {spec}\n"
    )
}

fn known_by(ca: &str, hostname: &str, client: &str) -> String {
    let client = match client {
        "" => String::new(),
        name => format!(", clientCertificateRef: {{name: {name}}}"),
    };
    route_policy(&format!(
        "backendTLS: {{caCertificateRefs: [{{kind: ConfigMap, name: {ca}}}], hostname: {hostname}{client}}}"
    ))
}

/// A gRPC server that is app.internal by one CA, and asks for certificates of another.
fn grpc_over_tls(site: &Site, ca: &Ca, clients: &Ca) -> Program {
    ca.issue(pki::server(&["app.internal"])).write(site.directory.path(), "internal");
    std::fs::write(site.path("clients.crt"), clients.pem()).unwrap();
    let mut serve = Command::new(grpc());
    serve.arg("serve").arg("-cert").arg(site.path("internal.crt"));
    serve.arg("-key").arg(site.path("internal.key")).arg("-clients").arg(site.path("clients.crt"));
    Program::start(&mut serve)
}

#[test]
fn grpc_over_tls_with_a_certificate_of_ours_whose_ca_and_ours_change_while_it_runs() {
    let site = Site::with_alice(REQUIRE);
    let (ca, new, clients) = (Ca::new("Backends"), Ca::new("New"), Ca::new("Clients"));
    let backend = grpc_over_tls(&site, &ca, &clients);
    site.write("backend.yaml", &speaking(backend.port, "", "GRPCS"));
    site.write("ca.yaml", &config_map("backend-ca", "ca.crt", &ca.pem()));
    let ours = |ca: &Ca| tls_secret("ours", &ca.issue(leaf("certmap")));
    site.write("ours.yaml", &ours(&clients));
    site.write("route.yaml", &known_by("backend-ca", "app.internal", "ours"));
    let server = site.start();
    assert_all_kinds(&calls(&site, &server, "alice", &[]));

    let refused = |server: &Server| calls(&site, server, "alice", &[])["unary"].clone();
    server.edit("route.yaml", &known_by("backend-ca", "other.internal", "ours"));
    let answer = refused(&server);
    assert_eq!(
        (&answer["code"], &answer["message"]),
        (&json!("Unavailable"), &json!("502.90 Bad gateway"))
    );
    server.edit("route.yaml", &known_by("backend-ca", "app.internal", ""));
    assert_eq!(refused(&server)["code"], "Unavailable", "without our certificate");
    server.edit("route.yaml", &known_by("backend-ca", "app.internal", "ours"));
    assert_all_kinds(&calls(&site, &server, "alice", &[]));

    server.edit("ours.yaml", &ours(&new));
    assert_eq!(refused(&server)["code"], "Unavailable", "a certificate of another CA");
    server.edit("ours.yaml", &ours(&clients));
    assert_all_kinds(&calls(&site, &server, "alice", &[]));

    // The backend comes back with a certificate of the new CA, at another port.
    let moved = grpc_over_tls(&site, &new, &clients);
    server.edit("ca.yaml", &config_map("backend-ca", "ca.crt", &(ca.pem() + &new.pem())));
    server.edit("backend.yaml", &speaking(moved.port, "", "GRPCS"));
    assert_all_kinds(&calls(&site, &server, "alice", &[]));
    server.edit("ca.yaml", &config_map("backend-ca", "ca.crt", &ca.pem()));
    assert_eq!(refused(&server)["message"], "502.90 Bad gateway", "the old CA alone");
    server.edit("ca.yaml", &config_map("backend-ca", "ca.crt", &new.pem()));
    assert_all_kinds(&calls(&site, &server, "alice", &[]));
}

#[test]
fn a_backend_that_is_not_proven_gets_nothing_of_a_request() {
    let site = Site::new();
    let (ca, other) = (Ca::new("Backends"), Ca::new("Other"));
    let backend = grpc_over_tls(&site, &ca, &other);
    site.write("backend.yaml", &speaking(backend.port, "https", ""));
    site.write("ca.yaml", &config_map("backend-ca", "ca.crt", &other.pem()));
    site.write("route.yaml", &known_by("backend-ca", "app.internal", ""));
    let server = site.start();
    assert_eq!(curl_http(server.http, "app.test", "/", &[]).code(), "502.90");
    // Plain HTTP is never a way out: the route's backends speak TLS, whatever the Service says.
    server.edit("backend.yaml", &speaking(site.backend.port, "http", "HTTP"));
    assert_eq!(curl_http(server.http, "app.test", "/", &[]).code(), "502.90");
    assert_eq!(site.backend.requests.load(Ordering::SeqCst), 0);
}

#[test]
fn a_routes_retries_ejection_and_affinity_are_as_its_policy_says() {
    let site = Site::new();
    let other = super::support::backend::Backend::start();
    let failing = Origin::start(&[("/", answer("503 Service Unavailable", "", b""))]);
    let ports = [site.backend.port, other.port, 1, failing.port];
    site.write("backend.yaml", &service("echo", &ports));
    site.write(
        "key.yaml",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: affinity, namespace: web}\nstringData: {key: 0123456789abcdef0123456789abcdef}\n",
    );
    site.write(
        "route.yaml",
        &route_policy(
            "retry: {codes: [503], attempts: 1, budgetPercent: 100}\n  loadBalancing: {ejection: {failures: 1, rest: 60s, mostPercent: 50}, cookieAffinity: {name: here, maxAge: 1h, keySecretRef: {name: affinity}}}",
        ),
    );
    let server = site.start();
    let first = curl_http(server.http, "app.test", "/", &[]);
    let cookie = first.head.split("set-cookie: ").nth(1).unwrap().split("\r\n").next().unwrap();
    assert!(cookie.contains("max-age=3600"), "{cookie}");
    // The head is shown in small letters; the cookie has to be sent as it was written.
    let jar = site.path("jar");
    let jar = jar.to_str().unwrap();
    let port = |reply: &super::support::tls::Reply| reply.told()["port"].clone();
    let chosen = port(&curl_http(server.http, "app.test", "/", &["-c", jar]));
    for _ in 0..6 {
        assert_eq!(port(&curl_http(server.http, "app.test", "/", &["-b", jar])), chosen);
    }
    let (name, _) = cookie.split_once('=').unwrap();
    assert!(name.starts_with("here-"), "{cookie}");
    let forged = format!("{name}=AAAAAAAAAAAAAAAAAAAAAA");
    let forged = curl_http(server.http, "app.test", "/", &["-b", &forged]);
    assert!(forged.head.contains(&format!("set-cookie: {name}=")), "{forged:?}");
    // Everybody's turn comes: what fails is made up for, and then rests.
    for _ in 0..12 {
        let reply = curl_http(server.http, "app.test", "/", &[]);
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    assert_eq!(failing.requests.load(Ordering::SeqCst), 1);
    // The client's endpoint goes: another one answers, and is the client's from then on.
    let left: Vec<u16> = ports.into_iter().filter(|port| chosen != *port).collect();
    server.edit("backend.yaml", &service("echo", &left));
    let moved = curl_http(server.http, "app.test", "/", &["-b", jar, "-c", jar]);
    assert_eq!(moved.status, 200, "{moved:?}");
    assert!(moved.head.contains(&format!("set-cookie: {name}=")), "{moved:?}");
    assert!(port(&moved) != chosen);
    for _ in 0..6 {
        let again = curl_http(server.http, "app.test", "/", &["-b", jar]);
        assert_eq!((port(&again), again.head.contains("set-cookie")), (port(&moved), false));
    }
}
