//! Backends that speak HTTP/2 from their first octet on, and what gRPC needs.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::combinators::BoxBody;
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;

use super::*;

type Body = BoxBody<Bytes, Infallible>;

/// A backend over HTTP/2, and what it was sent.
struct Backend2 {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    heads: mpsc::UnboundedReceiver<request::Parts>,
}

/// Answers with the request's body, and `grpc-status` for a trailer; a path may ask for something else.
async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    if path == "/slow" {
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let named = path == "/named";
    let body = request.into_body().map_frame(move |frame| match frame.into_trailers() {
        Ok(trailers) if named => Frame::data(Bytes::from(format!("+{trailers:?}"))),
        Ok(_) => Frame::data(Bytes::from_static(b"+trailers")),
        Err(frame) => frame,
    });
    let body = body.map_err(|error| panic!("{error}"));
    let body = body.with_trailers(std::future::ready(Some(Ok(trailers)))).boxed();
    Ok(Response::builder().header("content-type", "application/grpc").body(body).unwrap())
}

async fn backend2(most_streams: u32) -> Backend2 {
    let listener = listener().await;
    let address = listener.local_addr().unwrap();
    let (sent, heads) = mpsc::unbounded_channel();
    let connections = Arc::<AtomicUsize>::default();
    let count = connections.clone();
    tokio::spawn(async move {
        let mut open = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let sent = sent.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let (parts, body) = request.into_parts();
                drop(sent.send(parts.clone()));
                answer(Request::from_parts(parts, body))
            });
            let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            builder.max_concurrent_streams(most_streams);
            open.spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    Backend2 { address, connections, heads }
}

async fn site(backend: &Backend2) -> Site {
    let endpoints = [Endpoint::new(backend.address)].into();
    let backend = Backend::new("web/a:80", Target::Endpoints(endpoints), Protocol::H2c);
    Site::on((Arc::new(backend), Arc::default()), Timeouts::default()).await
}

#[tokio::test]
async fn it_is_told_the_same_as_over_http_1() {
    let mut backend = backend2(100).await;
    let site = site(&backend).await;
    let answer = site
        .answer(
            "POST /a?b HTTP/1.1\r\nHost: A.Example:8080\r\nTE: trailers\r\nConnection: close, X-Not\r\nX-Not: 1\r\n\
             X-Remote-User: root\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        )
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("hi"), "{answer}");
    let head = backend.heads.recv().await.unwrap();
    assert_eq!(head.uri.to_string(), "http://A.Example:8080/a?b");
    assert_eq!(head.headers["te"], "trailers");
    for gone in ["host", "connection", "transfer-encoding", "x-not", "x-remote-user"] {
        assert!(!head.headers.contains_key(gone), "{gone}");
    }
    assert_eq!(head.headers["x-forwarded-host"], "A.Example:8080");
}

#[tokio::test]
async fn requests_share_a_connection() {
    let backend = backend2(100).await;
    let site = Arc::new(site(&backend).await);
    let mut requests = JoinSet::new();
    for _ in 0..20 {
        let site = site.clone();
        requests.spawn(async move { site.status().await });
    }
    assert_eq!(requests.join_all().await, [200; 20]);
    assert_eq!(backend.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn where_streams_are_used_up_there_is_another_connection() {
    let backend = backend2(2).await;
    let site = Arc::new(site(&backend).await);
    // The limit comes with the first answer, and is looked at with the next request.
    for _ in 0..3 {
        assert_eq!(site.status().await, 200);
    }
    let mut requests = JoinSet::new();
    for _ in 0..6 {
        let site = site.clone();
        requests.spawn(async move {
            site.answer(&GET.replace("GET /", "GET /slow")).await.starts_with("HTTP/1.1 200 ")
        });
    }
    assert!(requests.join_all().await.into_iter().all(|is_good| is_good));
    let connections = backend.connections.load(Ordering::SeqCst);
    assert!((2..=4).contains(&connections), "{connections}");
}

#[tokio::test]
async fn trailers_come_back_to_http_2() {
    let backend = backend2(100).await;
    let site = site(&backend).await;
    let (mut sender, connection) = hyper::client::conn::http2::handshake(
        TokioExecutor::new(),
        TokioIo::new(site.connect().await),
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-remote-user", HeaderValue::from_static("root"));
    let body = Full::new(Bytes::from_static(b"hi"))
        .with_trailers(std::future::ready(Some(Ok(trailers))))
        .map_frame(|frame| frame);
    let request = Request::post("http://a.example/").header("te", "trailers").body(body).unwrap();
    let response = sender.send_request(request).await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "the body is ours")]
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(body.to_bytes(), "hi+trailers");
}

#[tokio::test]
async fn trailers_of_http_1_go_on_over_http_2() {
    let backend = backend2(100).await;
    let site = site(&backend).await;
    let answer = site
        .answer(
            "POST /named HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\
             Trailer: X-Checksum, X-Remote-User\r\n\r\n\
             2\r\nhi\r\n0\r\nX-Checksum: 7\r\nX-Remote-User: root\r\nContent-Length: 9\r\n\r\n",
        )
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("hi") && answer.contains("+{\"x-checksum\": \"7\"}"), "{answer}");
}

#[tokio::test]
async fn a_connection_that_ended_is_replaced() {
    let listener = listener().await;
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(answer);
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            // One request or so each.
            tokio::spawn(tokio::time::timeout(Duration::from_millis(100), connection));
        }
    });
    let backend =
        Backend2 { address, connections: Arc::default(), heads: mpsc::unbounded_channel().1 };
    let site = site(&backend).await;
    for _ in 0..4 {
        assert_eq!(site.status().await, 200);
        tokio::time::sleep(Duration::from_millis(120)).await;
    }
}

#[tokio::test]
async fn our_own_refusals_are_grpcs_for_grpc() {
    let site = Site::new(&[]).await;
    let stream = TokioIo::new(site.connect().await);
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let call = Request::post("http://a.example/").header("content-type", "application/grpc");
    let answer = client.send_request(call.body(String::new()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["grpc-status"], "14");
    assert_eq!(answer.headers()["grpc-message"], "503 Service unavailable");
    // Over HTTP/1.1 there is no gRPC, and to whoever says so all the same a 200 would be a success.
    let request = GET.replace("\r\n\r\n", "\r\nContent-Type: application/grpc\r\n\r\n");
    assert!(site.answer(&request).await.starts_with("HTTP/1.1 503 "));
}
