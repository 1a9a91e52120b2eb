//! A backend that says what it was told, and misbehaves on demand.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use paced::{big, chunks};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::cores;

/// Serves until it is dropped.
pub(crate) struct Backend {
    pub(crate) port: u16,
    pub(crate) connections: Arc<AtomicUsize>,
    pub(crate) requests: Arc<AtomicUsize>,
    _runtime: Runtime,
}

type Body = BoxBody<Bytes, Infallible>;

impl Backend {
    pub(crate) fn start() -> Self {
        Self::at(Ipv4Addr::LOCALHOST.into())
    }

    /// For requests of attackers: what it does for them is not at others' cost either.
    pub(crate) fn standing_back() -> Self {
        let start = || {
            cores::stand_back();
            Self::start()
        };
        std::thread::spawn(start).join().unwrap()
    }

    pub(crate) fn at(address: IpAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind((address, 0))).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (connections, requests) =
            (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        runtime.spawn(accept(listener, port, connections.clone(), requests.clone()));
        Self { port, connections, requests, _runtime: runtime }
    }

    /// The Service of this name.
    pub(crate) fn manifest(&self, name: &str) -> String {
        super::manifests::service(name, &[self.port])
    }
}

async fn accept(
    listener: TcpListener,
    port: u16,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        connections.fetch_add(1, Ordering::SeqCst);
        let requests = requests.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                requests.fetch_add(1, Ordering::SeqCst);
                answer(request, port)
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            drop(connection.with_upgrades().await);
        });
    }
}

async fn answer(mut request: Request<Incoming>, port: u16) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    if path.ends_with("/ws") {
        return Ok(websocket(&mut request));
    }
    if path.ends_with("/slow") {
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    if path.ends_with("/big") {
        return Ok(Response::new(big(64 << 20)));
    }
    if path.ends_with("/stream") {
        return Ok(Response::new(chunks(50, Duration::from_millis(100))));
    }
    let head = head(&request, port);
    let body = Limited::new(request.into_body(), 64 << 20).collect().await;
    let (length, trailers) = body.map_or((0, Value::Null), |body| {
        let trailers = body
            .trailers()
            .map_or(Value::Null, |t| json!(t.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>()));
        (body.to_bytes().len(), trailers)
    });
    let mut told = head;
    told["bodyLength"] = length.into();
    told["trailers"] = trailers;
    Ok(Response::new(Full::new(Bytes::from(format!("{told}\n"))).boxed()))
}

fn head(request: &Request<Incoming>, port: u16) -> Value {
    let headers: Vec<Value> = request
        .headers()
        .iter()
        .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
        .collect();
    let user = request
        .headers()
        .get("x-remote-user")
        .map(|value| String::from_utf8_lossy(value.as_bytes()));
    json!({"method": request.method().as_str(), "target": request.uri().to_string(), "headers": headers, "user": user, "port": port})
}

/// Echoes whatever comes after the upgrade.
fn websocket(request: &mut Request<Incoming>) -> Response<Body> {
    let upgrade = hyper::upgrade::on(&mut *request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let mut io = TokioIo::new(upgraded);
        let mut buffer = [0; 1024];
        while let Ok(read @ 1..) = io.read(&mut buffer).await {
            if io.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    });
    let mut response = Response::new(Full::new(Bytes::new()).boxed());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert("connection", "upgrade".parse().unwrap());
    response.headers_mut().insert("upgrade", "websocket".parse().unwrap());
    if let Some(key) = request.headers().get("sec-websocket-key") {
        // RFC 6455, 4.2.2.
        let key = [key.as_bytes(), b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat();
        let accept = STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &key));
        response.headers_mut().insert("sec-websocket-accept", accept.parse().unwrap());
    }
    response
}

mod paced {
    //! A body of several chunks with time between them.

    use std::pin::Pin;
    use std::task::{Context, Poll, ready};
    use std::time::Duration;

    use bytes::Bytes;
    use http_body_util::BodyExt;
    use hyper::body::{Body, Frame};
    use tokio::time::{Sleep, sleep};

    struct Chunks {
        left: usize,
        pause: Duration,
        timer: Pin<Box<Sleep>>,
        chunk: &'static [u8],
    }

    /// So many octets, as fast as they go.
    pub(super) fn big(octets: usize) -> super::Body {
        let timer = Box::pin(sleep(Duration::ZERO));
        Chunks { left: octets >> 14, pause: Duration::ZERO, timer, chunk: &[b'x'; 1 << 14] }.boxed()
    }

    pub(super) fn chunks(left: usize, pause: Duration) -> super::Body {
        Chunks { left, pause, timer: Box::pin(sleep(Duration::ZERO)), chunk: b"chunk\n" }.boxed()
    }

    impl Body for Chunks {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            if self.left == 0 {
                return Poll::Ready(None);
            }
            ready!(self.timer.as_mut().poll(context));
            self.left -= 1;
            if !self.pause.is_zero() {
                self.timer = Box::pin(sleep(self.pause));
            }
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(self.chunk)))))
        }
    }
}
