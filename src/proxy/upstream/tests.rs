//! Requests through the whole line, over real sockets, on routes without a policy.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioExecutor;
use rustls::server::ResolvesServerCertUsingSni;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

mod balancing;
mod expect;
mod http2;
mod tls;
mod websocket;

use super::*;
use crate::lookup::{
    DirectoryCounts, DirectoryLookup, ExternalLookup, KeyLookup, Lookups, PasswordLookup,
};
use crate::policy::Guard;
use crate::proxy::{ListenerSettings, Parts, Proxy};
use crate::snapshot::{
    ClientCertificateTerms, HostPattern, HostTable, PathPattern, Route, Snapshot, SnapshotStore,
    Tls, TlsRules, VirtualHost,
};
use crate::telemetry::{AccessLog, Destination, Format, Metrics};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const GET: &str = "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
const WEBSOCKET: &str =
    "GET /chat HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const SWITCHING: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// A proxy whose only route leads to these endpoints.
struct Site {
    address: SocketAddr,
    store: Arc<SnapshotStore>,
    _proxy: Proxy,
    _directory: tempfile::TempDir,
}

fn lookups() -> Lookups {
    let names = Arc::new(NameLookup::new());
    Lookups {
        passwords: PasswordLookup::new(1).unwrap(),
        directories: DirectoryLookup::new(names.clone(), DirectoryCounts::default()).unwrap(),
        keys: Arc::new(KeyLookup::new(names.clone(), Arc::new(|_| {}))),
        external: ExternalLookup::new(names),
    }
}

fn backend(endpoints: &[SocketAddr]) -> Backend {
    let endpoints = endpoints.iter().map(|address| Endpoint::new(*address)).collect();
    Backend::new("web/a:80", Target::Endpoints(endpoints), Protocol::Http1)
}

/// What a route needs besides its endpoints.
type Way = (Arc<Backend>, Arc<RouteSettings>);

fn snapshot(generation: u64, way: Option<Way>) -> Snapshot {
    let route = |(backend, settings): Way| Route {
        ingress: "web/a".into(),
        guard: Guard::Open,
        backend,
        settings,
    };
    let routes = way.map(|way| (PathPattern::new("/", false), route(way))).into_iter().collect();
    let mut hosts = HostTable::default();
    let host = VirtualHost::new(HostPattern::Any, Arc::default(), routes);
    hosts.insert(HostPattern::Any, Arc::new(host));
    let certificates = Arc::new(ResolvesServerCertUsingSni::new());
    let terms = ClientCertificateTerms::default();
    let plain = TlsRules::default().server_config(&terms, certificates).unwrap();
    Snapshot {
        generation,
        hosts,
        tls: Tls { plain, apart: HostTable::default(), ticket_keys: None },
        identity_headers: IdentityHeaders::new(["X-Employee"]),
        externals: HashMap::new(),
        passed_on: Box::default(),
        policies: Vec::new(),
    }
}

impl Site {
    async fn new(endpoints: &[SocketAddr]) -> Self {
        let short = Duration::from_millis(150);
        let timeouts = Timeouts { connect: short, response: short, ..Timeouts::default() };
        Self::with(endpoints, timeouts).await
    }

    async fn with(endpoints: &[SocketAddr], timeouts: Timeouts) -> Self {
        Self::on((Arc::new(backend(endpoints)), Arc::default()), timeouts).await
    }

    async fn on(way: Way, timeouts: Timeouts) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let destination =
            Destination::File { path: directory.path().join("log"), longest: 1 << 20 };
        let store = Arc::new(SnapshotStore::new(snapshot(1, Some(way))));
        let (http, https) = (listener().await, listener().await);
        let address = http.local_addr().unwrap();
        let parts = Parts {
            store: store.clone(),
            lookups: Arc::new(lookups()),
            metrics: Arc::new(Metrics::default()),
            log: AccessLog::start(destination, Format::Json, Default::default()).unwrap(),
            timeouts,
            settings: ListenerSettings::default(),
            workers: std::num::NonZeroUsize::MIN,
        };
        let proxy = Proxy::start(http, https, parts).unwrap();
        Self { address, store, _proxy: proxy, _directory: directory }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn sent(&self, request: &str) -> TcpStream {
        let mut client = self.connect().await;
        client.write_all(request.as_bytes()).await.unwrap();
        client
    }

    /// The whole answer to a request that asks for the connection's end.
    async fn answer(&self, request: &str) -> String {
        rest(&mut self.sent(request).await).await
    }

    async fn status(&self) -> u16 {
        let answer = self.answer(GET).await;
        answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap()
    }

    /// The route is gone, and with it whatever was admitted by it.
    fn withdraw(&self) {
        self.store.swap(snapshot(2, None));
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// An address at which nobody listens.
async fn closed() -> SocketAddr {
    listener().await.local_addr().unwrap()
}

/// What does not come within this long will not.
const LIMIT: Duration = Duration::from_secs(10);

async fn rest(stream: &mut TcpStream) -> String {
    let mut octets = Vec::new();
    // Being cut off is an end too.
    let end = tokio::time::timeout(LIMIT, stream.read_to_end(&mut octets)).await;
    assert!(end.is_ok(), "no end after {:?}", String::from_utf8_lossy(&octets));
    String::from_utf8(octets).unwrap()
}

/// Reads up to and with `end`.
async fn until(stream: &mut TcpStream, end: &str) -> String {
    let mut octets = Vec::new();
    while !octets.ends_with(end.as_bytes()) {
        match tokio::time::timeout(LIMIT, stream.read_u8()).await {
            Ok(Ok(octet)) => octets.push(octet),
            broken => panic!("{broken:?} after {:?}", String::from_utf8_lossy(&octets)),
        }
    }
    String::from_utf8(octets).unwrap()
}

async fn head(stream: &mut TcpStream) -> String {
    until(stream, "\r\n\r\n").await
}

async fn write(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

/// A backend that accepts one connection.
async fn one_connection() -> (SocketAddr, tokio::task::JoinHandle<TcpStream>) {
    let listener = listener().await;
    let address = listener.local_addr().unwrap();
    let accepting =
        tokio::time::timeout(
            Duration::from_secs(10),
            async move { listener.accept().await.unwrap().0 },
        );
    (address, tokio::spawn(async { accepting.await.expect("nobody came") }))
}

/// A site, a client that has sent this, and the backend's end after the request's head.
async fn meet(request: &str) -> (Site, TcpStream, TcpStream, String) {
    let (address, backend) = one_connection().await;
    let site = Site::with(&[address], Timeouts::default()).await;
    let client = site.sent(request).await;
    let mut backend = backend.await.unwrap();
    let head = head(&mut backend).await;
    (site, client, backend, head)
}

/// A backend that gives every request on every connection the same answer; counts both.
async fn answering(answer: &'static str) -> (SocketAddr, Arc<std::sync::atomic::AtomicUsize>) {
    let listener = listener().await;
    let address = listener.local_addr().unwrap();
    let accepted = Arc::<std::sync::atomic::AtomicUsize>::default();
    let count = accepted.clone();
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            connections.spawn(async move {
                // Until nobody asks any more: that is no fault, and to write out a panic takes longer than others wait.
                while stream.peek(&mut [0]).await.is_ok_and(|octets| octets > 0) {
                    head(&mut stream).await;
                    write(&mut stream, answer).await;
                }
            });
        }
    });
    (address, accepted)
}

#[tokio::test]
async fn the_target_and_host_arrive_byte_for_byte() {
    let target = "//a%2Fb/../%7euser;v=1/%zz?x=%20&y='[]|";
    let request = format!("GET {target} HTTP/1.1\r\nHost: A.Example:8080\r\n\r\n");
    let (_site, _client, _backend, head) = meet(&request).await;
    assert!(head.starts_with(&format!("GET {target} HTTP/1.1\r\n")), "{head}");
    assert!(head.contains("host: A.Example:8080\r\n"), "{head}");
    assert!(head.contains("x-forwarded-port: 8080\r\n"), "{head}");
}

#[tokio::test]
async fn an_absolute_target_gives_the_host() {
    let request = "GET http://b.example/x?y HTTP/1.1\r\nHost: b.example\r\n\r\n";
    let (_site, _client, _backend, head) = meet(request).await;
    assert!(head.starts_with("GET /x?y HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("host: b.example\r\n"), "{head}");
}

#[tokio::test]
async fn forged_identities_do_not_arrive_on_a_route_without_a_policy() {
    let forged = "X-Remote-User: root\r\nX_REMOTE_USER: root\r\nx-employee: root\r\nX.Employee: root\r\n\
                  Client-Cert: :AA==:\r\nConnection: X-Forwarded-For\r\nX-Forwarded-For: 10.9.8.7\r\n";
    let (_site, _client, _backend, head) =
        meet(&format!("GET / HTTP/1.1\r\nHost: a.example\r\n{forged}\r\n")).await;
    let head = head.to_lowercase();
    for forbidden in ["root", "client-cert", "10.9.8.7", "connection"] {
        assert!(!head.contains(forbidden), "{head}");
    }
    assert!(head.contains("x-forwarded-for: 127.0.0.1\r\n"), "{head}");
}

#[tokio::test]
async fn trailers_that_identify_are_taken_out_of_http_1() {
    let (_site, _client, mut backend, _) = meet(
        "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\
         Trailer: X-Remote-User, X-Employee, Authorization, X-Checksum\r\n\r\n\
         2\r\nhi\r\n0\r\nX-Remote-User: root\r\nX-Employee: root\r\nAuthorization: x\r\nX-Checksum: 1\r\n\r\n",
    )
    .await;
    let body = until(&mut backend, "1\r\n\r\n").await;
    assert_eq!(body, "2\r\nhi\r\n0\r\nx-checksum: 1\r\n\r\n");
}

#[tokio::test]
async fn trailers_that_identify_are_taken_out_of_http_2() {
    let (address, backend) = one_connection().await;
    let site = Site::with(&[address], Timeouts::default()).await;
    let mut trailers = HeaderMap::new();
    for name in ["x-remote-user", "x-employee", "x-checksum"] {
        trailers.insert(name, HeaderValue::from_static("1"));
    }
    // Without a map its length would be known, and what has a length has no trailers in HTTP/1.1.
    let body = Full::new(Bytes::from_static(b"hi"))
        .with_trailers(std::future::ready(Some(Ok(trailers))))
        .map_frame(|frame| frame);
    let request = Request::post("http://a.example/")
        .header("trailer", "x-remote-user, x-employee, x-checksum")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(body)
        .unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(
        TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(site.connect().await),
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    let answer = tokio::spawn(sender.send_request(request));
    let mut backend = backend.await.unwrap();
    let head = head(&mut backend).await;
    assert!(
        head.contains("host: a.example\r\n") && head.contains("cookie: a=1; b=2\r\n"),
        "{head}"
    );
    assert_eq!(until(&mut backend, "1\r\n\r\n").await, "2\r\nhi\r\n0\r\nx-checksum: 1\r\n\r\n");
    write(&mut backend, OK).await;
    assert_eq!(answer.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn a_body_of_unknown_length_arrives_whole_whatever_the_method() {
    let (_site, _client, mut backend, head) = meet(
        "GET / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n\
         2\r\nhi\r\n0\r\n\r\n",
    )
    .await;
    assert!(
        head.contains("transfer-encoding: chunked") && !head.contains("content-length"),
        "{head}"
    );
    assert_eq!(until(&mut backend, "0\r\n\r\n").await, "2\r\nhi\r\n0\r\n\r\n");
}

#[tokio::test]
async fn each_failure_has_its_status() {
    let silent = listener().await;
    for (endpoints, expected) in [
        (vec![], 503),
        (vec![closed().await], 502),
        (vec![silent.local_addr().unwrap()], 504),
        (vec![answering("nonsense\r\n\r\n").await.0], 502),
        (vec![answering(SWITCHING).await.0], 502),
    ] {
        assert_eq!(Site::new(&endpoints).await.status().await, expected, "{endpoints:?}");
    }
}

#[tokio::test]
async fn an_endpoint_that_does_not_accept_is_a_timeout() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = socket.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    // Once its queue is full, further connections are left without an answer.
    let mut waiting = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(address)).await
    {
        waiting.push(stream);
    }
    assert_eq!(Site::new(&[address]).await.status().await, 504);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_the_clients_fault() {
    let (address, backend) = one_connection().await;
    let site = Site::with(&[address], Timeouts::default()).await;
    let mut client = site
        .sent(
            "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        )
        .await;
    let _backend = backend.await.unwrap();
    let answer = rest(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn a_dead_endpoint_is_passed_over_also_with_a_body() {
    let (alive, _) = answering(OK).await;
    let site = Site::new(&[closed().await, alive, closed().await]).await;
    let post =
        "POST / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    for request in [GET, post, GET, post] {
        assert!(site.answer(request).await.starts_with("HTTP/1.1 200 "));
    }
}

#[tokio::test]
async fn a_body_is_sent_to_the_endpoint_that_accepts() {
    let (address, backend) = one_connection().await;
    let site = Site::new(&[closed().await, address]).await;
    let _client =
        site.sent("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello").await;
    let mut backend = backend.await.unwrap();
    assert!(until(&mut backend, "hello").await.contains("content-length: 5\r\n"));
}

#[tokio::test]
async fn endpoints_take_turns() {
    let (one, _) = answering("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none").await;
    let (two, _) = answering("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo").await;
    let site = Site::new(&[one, two]).await;
    let mut answers = Vec::new();
    for _ in 0..4 {
        let answer = site.answer(GET).await;
        answers.push(answer.rsplit("\r\n\r\n").next().unwrap().to_owned());
    }
    assert_eq!(answers, ["one", "two", "one", "two"]);
}

#[tokio::test]
async fn connections_are_kept_for_other_clients() {
    let (address, accepted) = answering(OK).await;
    let site = Site::new(&[address]).await;
    for _ in 0..6 {
        assert_eq!(site.status().await, 200);
    }
    // One may still be on its way back into the pool when the next request comes.
    assert!(accepted.load(std::sync::atomic::Ordering::SeqCst) <= 2);
}

#[tokio::test]
async fn a_kept_connection_that_the_backend_closed_is_not_noticed() {
    let listener = listener().await;
    let site = Site::new(&[listener.local_addr().unwrap()]).await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            head(&mut stream).await;
            write(&mut stream, OK).await;
        }
    });
    for _ in 0..6 {
        assert_eq!(site.status().await, 200);
    }
}

#[tokio::test]
async fn what_has_come_is_passed_on_before_the_rest_is_there() {
    let (_site, mut client, mut backend, _) = meet(
        "POST / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n",
    )
    .await;
    write(&mut client, "5\r\nfirst\r\n").await;
    until(&mut backend, "first\r\n").await;
    write(&mut backend, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await;
    until(&mut client, "one\r\n").await;
    write(&mut client, "4\r\nlast\r\n0\r\n\r\n").await;
    until(&mut backend, "last\r\n0\r\n\r\n").await;
    write(&mut backend, "3\r\ntwo\r\n0\r\n\r\n").await;
    assert_eq!(rest(&mut client).await, "3\r\ntwo\r\n0\r\n\r\n");
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_the_backend_back() {
    let (_site, client, mut backend, _) = meet(GET).await;
    write(&mut backend, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 16, "x".repeat(1 << 16));
    let endless = async {
        for _ in 0..4096 {
            write(&mut backend, &chunk).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(1), endless).await.is_err());
    drop(client);
}

#[tokio::test]
async fn versions_are_each_hops_own() {
    let (chunked, _) =
        answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
            .await;
    let old = Site::new(&[chunked]).await.answer("GET / HTTP/1.0\r\nHost: a.example\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 200 ") && old.ends_with("\r\n\r\nok"), "{old}");
    let (_site, mut client, mut backend, _) = meet(GET).await;
    write(&mut backend, "HTTP/1.0 200 OK\r\n\r\nok").await;
    drop(backend);
    let new = rest(&mut client).await;
    assert!(new.starts_with("HTTP/1.1 200 "), "{new}");
    assert!(new.ends_with("2\r\nok\r\n0\r\n\r\n"), "{new}");
}

#[tokio::test]
async fn responses_without_a_body_end_with_their_head() {
    for (request, answer) in [
        (GET.replace("GET", "HEAD"), "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        (GET.to_owned(), "HTTP/1.1 204 No Content\r\n\r\n"),
        (GET.to_owned(), "HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n"),
        (GET.to_owned(), "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"),
    ] {
        let site = Site::new(&[answering(answer).await.0]).await;
        let answered = site.answer(&request).await;
        assert!(answered.ends_with("\r\n\r\n"), "{answered}");
        assert_eq!(
            answered.contains("content-length: 5"),
            answer.contains("Length: 5"),
            "{answered}"
        );
        assert!(answered.contains("x-request-id: "), "{answered}");
    }
}

#[tokio::test]
async fn a_websocket_is_carried_both_ways() {
    let (_site, mut client, mut backend, head_there) = meet(WEBSOCKET).await;
    assert!(head_there.contains("upgrade: websocket\r\n"), "{head_there}");
    assert!(head_there.contains("connection: upgrade\r\n"), "{head_there}");
    write(&mut backend, &format!("{SWITCHING}hello")).await;
    let switched = head(&mut client).await;
    assert!(switched.starts_with("HTTP/1.1 101 "), "{switched}");
    assert!(switched.contains("upgrade: websocket\r\n"), "{switched}");
    until(&mut client, "hello").await;
    write(&mut client, "\u{0}ping").await;
    until(&mut backend, "\u{0}ping").await;
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut backend).await, "");
    write(&mut backend, "bye").await;
    drop(backend);
    assert_eq!(rest(&mut client).await, "bye");
}

#[tokio::test]
async fn other_protocols_are_not_switched_to() {
    let (_site, _client, _backend, head) = meet(
        "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    )
    .await;
    assert!(!head.to_lowercase().contains("upgrade"), "{head}");
    assert!(!head.to_lowercase().contains("http2"), "{head}");
}

#[tokio::test]
async fn a_silent_tunnel_ends() {
    let (address, backend) = one_connection().await;
    let tunnel = Duration::from_millis(50);
    let site = Site::with(&[address], Timeouts { tunnel, ..Timeouts::default() }).await;
    let mut client = site.sent(WEBSOCKET).await;
    let mut backend = backend.await.unwrap();
    head(&mut backend).await;
    write(&mut backend, SWITCHING).await;
    head(&mut client).await;
    assert_eq!(rest(&mut client).await, "");
    assert_eq!(rest(&mut backend).await, "");
}

#[tokio::test]
async fn a_tunnel_ends_with_its_permit() {
    let (site, mut client, mut backend, _) = meet(WEBSOCKET).await;
    write(&mut backend, SWITCHING).await;
    head(&mut client).await;
    site.withdraw();
    assert_eq!(rest(&mut client).await, "");
    assert_eq!(rest(&mut backend).await, "");
}

#[tokio::test]
async fn a_long_response_ends_with_its_permit() {
    let (site, mut client, mut backend, _) = meet(GET).await;
    write(&mut backend, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await;
    until(&mut client, "one\r\n").await;
    site.withdraw();
    assert_eq!(rest(&mut client).await, "", "the last chunk must be missing");
    assert_eq!(rest(&mut backend).await, "");
}

#[tokio::test]
async fn a_long_upload_ends_with_its_permit_even_if_it_was_answered() {
    let upload = "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (site, mut client, mut backend, _) = meet(upload).await;
    write(&mut client, "3\r\none\r\n").await;
    until(&mut backend, "one\r\n").await;
    site.withdraw();
    assert!(head(&mut client).await.starts_with("HTTP/1.1 404 "));
    assert_eq!(rest(&mut backend).await, "");

    let (site, mut client, mut backend, _) = meet(upload).await;
    write(&mut client, "3\r\none\r\n").await;
    until(&mut backend, "one\r\n").await;
    write(&mut backend, OK).await;
    until(&mut client, "\r\n\r\nok").await;
    site.withdraw();
    assert_eq!(rest(&mut backend).await, "");
}

#[tokio::test]
async fn a_short_upload_that_takes_long_ends_with_its_permit_too() {
    let upload = "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100\r\n\r\n";
    let later = Duration::from_millis(10_200);
    let begun = async || {
        let (site, mut client, mut backend, _) = meet(upload).await;
        write(&mut client, "one,").await;
        until(&mut backend, "one,").await;
        write(&mut backend, OK).await;
        until(&mut client, "\r\n\r\nok").await;
        (site, client, backend)
    };
    let ((_held, mut held, mut takes), (lost, mut loses, mut misses)) =
        tokio::join!(begun(), begun());
    lost.withdraw();
    tokio::time::sleep(later).await;
    write(&mut held, "two").await;
    until(&mut takes, "two").await;
    write(&mut loses, "two").await;
    assert_eq!(rest(&mut misses).await, "");
}
