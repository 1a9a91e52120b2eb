//! WebSockets over HTTP/2 (RFC 8441) to backends that speak HTTP/1.1.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::Empty;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::ext::Protocol as Extension;
use hyper_util::rt::TokioIo;

use super::*;

type Sender = SendRequest<Empty<Bytes>>;

/// A site, its client's connection over HTTP/2, and the backend's one connection.
async fn sides() -> (Site, Sender, tokio::task::JoinHandle<TcpStream>) {
    let (address, backend) = one_connection().await;
    let site = Site::with(&[address], Timeouts::default()).await;
    let (sender, connection) =
        handshake(TokioExecutor::new(), TokioIo::new(site.connect().await)).await.unwrap();
    tokio::spawn(connection);
    (site, sender, backend)
}

/// Whether extended CONNECT may be used is in the server's first frame.
async fn connected(sender: &mut Sender, protocol: &'static str) -> Response<hyper::body::Incoming> {
    let request = |protocol| {
        let request = Request::connect("http://a.example/chat?x");
        let request = request.header("sec-websocket-version", "13");
        request.extension(Extension::from_static(protocol)).body(Empty::new()).unwrap()
    };
    // The server's settings have to be there.
    let first = Request::get("http://a.example/other").header("host", "b.example");
    drop(sender.send_request(first.body(Empty::new()).unwrap()).await.unwrap());
    sender.send_request(request(protocol)).await.unwrap()
}

fn field<'h>(head: &'h str, name: &str) -> &'h str {
    let line = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    line.unwrap_or_else(|| panic!("no {name} in {head}"))
}

fn accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

fn switching(accept: &str) -> String {
    SWITCHING.replace("\r\n\r\n", &format!("\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"))
}

#[tokio::test]
async fn it_is_carried_both_ways_with_a_key_of_ours() {
    let (_site, mut sender, backend) = sides().await;
    let answer = tokio::spawn(async move { connected(&mut sender, "websocket").await });
    let mut backend = backend.await.unwrap();
    let head_there = head(&mut backend).await;
    assert!(head_there.starts_with("GET /chat?x HTTP/1.1\r\n"), "{head_there}");
    assert_eq!(field(&head_there, "upgrade"), "websocket");
    assert_eq!(field(&head_there, "sec-websocket-version"), "13");
    assert_eq!(field(&head_there, "host"), "a.example");
    let accept = accept(field(&head_there, "sec-websocket-key"));
    write(&mut backend, &format!("{}hello", switching(&accept))).await;
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200);
    for gone in ["connection", "upgrade", "sec-websocket-accept"] {
        assert!(!answer.headers().contains_key(gone), "{gone}");
    }
    let mut client = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    let mut hello = [0; 5];
    client.read_exact(&mut hello).await.unwrap();
    assert_eq!(&hello, b"hello");
    client.write_all(b"\0ping").await.unwrap();
    until(&mut backend, "\0ping").await;
    drop(client);
    assert_eq!(rest(&mut backend).await, "");
}

#[tokio::test]
async fn a_backend_that_does_not_speak_it_is_not_believed() {
    for (answer, expected) in [
        (switching("AAAALMBiTxaQ9kYGzzhZRbK+xOo="), 502),
        (SWITCHING.to_owned(), 502),
        (OK.to_owned(), 502),
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno".to_owned(), 403),
    ] {
        let (_site, mut sender, backend) = sides().await;
        let answered = tokio::spawn(async move { connected(&mut sender, "websocket").await });
        let mut backend = backend.await.unwrap();
        head(&mut backend).await;
        write(&mut backend, &answer).await;
        assert_eq!(answered.await.unwrap().status(), expected, "{answer}");
    }
}

#[tokio::test]
async fn another_protocol_is_not_carried() {
    let (_site, mut sender, _backend) = sides().await;
    assert_eq!(connected(&mut sender, "connect-udp").await.status(), 501);
}

#[tokio::test]
async fn it_ends_with_its_permit() {
    let (site, mut sender, backend) = sides().await;
    let answer = tokio::spawn(async move { connected(&mut sender, "websocket").await });
    let mut backend = backend.await.unwrap();
    let accept = accept(field(&head(&mut backend).await, "sec-websocket-key"));
    write(&mut backend, &switching(&accept)).await;
    let mut client = TokioIo::new(hyper::upgrade::on(answer.await.unwrap()).await.unwrap());
    site.withdraw();
    assert_eq!(rest(&mut backend).await, "");
    let mut rest = Vec::new();
    let end = tokio::time::timeout(LIMIT, client.read_to_end(&mut rest)).await;
    assert!(end.is_ok() && rest.is_empty());
}
