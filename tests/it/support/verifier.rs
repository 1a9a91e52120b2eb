//! A forward-auth service: it decides by the cookie that it is sent, and remembers what it was asked.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// Serves until it is dropped.
pub(crate) struct Verifier {
    pub(crate) port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
    _runtime: Runtime,
}

/// A question as it came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: usize,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(header, _)| header == name);
        named.map(|(_, value)| value.as_str()).collect()
    }
}

impl Verifier {
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let (port, asked) =
            (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(Vec::new())));
        let told = asked.clone();
        runtime.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let told = told.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(request, told.clone()));
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service);
                    drop(connection.await);
                });
            }
        });
        Self { port, asked, _runtime: runtime }
    }

    /// What it was asked since this was last called.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

async fn answer(
    request: Request<Incoming>,
    told: Arc<Mutex<Vec<Asked>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, 1 << 20).collect().await;
    let headers = head.headers.iter().map(|(name, value)| {
        (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    });
    let asked = Asked {
        method: head.method.to_string(),
        target: head.uri.to_string(),
        headers: headers.collect(),
        body: body.map_or(0, |body| body.to_bytes().len()),
    };
    let cookie = asked.header("cookie").join("; ");
    told.lock().unwrap().push(asked);
    let answer = Response::builder();
    let (answer, body) = match cookie.as_str() {
        "session=alice" => {
            let answer = answer.header("x-auth-user", "alice").header("x-auth-groups", "staff, hr");
            (answer.header("x-other", "1"), "welcome".to_owned())
        }
        "session=two" => {
            (answer.header("x-auth-user", "alice").header("x-auth-user", "root"), String::new())
        }
        "session=nameless" => (answer, String::new()),
        "session=denied" => {
            (answer.status(403).header("content-type", "text/plain"), "no".to_owned())
        }
        "session=unknown" => {
            let answer = answer.status(401).header("www-authenticate", "Sesame realm=\"x\"");
            (answer, "who?".to_owned())
        }
        "session=gone" => (answer.status(404), "gone".to_owned()),
        "session=broken" => (answer.status(500), "broken".to_owned()),
        "session=huge" => (answer.status(403), "x".repeat(100_000)),
        "session=slow" => {
            tokio::time::sleep(Duration::from_secs(5)).await;
            (answer.header("x-auth-user", "alice"), String::new())
        }
        _ => {
            let answer = answer.status(302).header("location", "https://login.test/?to=app");
            (answer.header("set-cookie", "a=1").header("set-cookie", "b=2"), "log on".to_owned())
        }
    };
    Ok(answer.body(Full::new(Bytes::from(body))).unwrap())
}
