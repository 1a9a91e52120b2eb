//! Signing keys that certmap makes itself, at an API server that holds one Secret.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use certmap::compile::ObjectName;
use certmap::status::{SIGNING_KEYS, WantedKeys, keep_keys};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::support::server::wait;

const ONE: &str = "/api/v1/namespaces/web/secrets/signing";
const ALL: &str = "/api/v1/namespaces/web/secrets";

/// The Secret, and every request that was about it.
#[derive(Default)]
struct Api {
    secret: Option<Value>,
    version: u64,
    requests: Vec<Method>,
    /// Somebody else is always quicker.
    contested: bool,
}

impl Api {
    fn answer(&mut self, method: &Method, path: &str, body: &[u8]) -> (StatusCode, Value) {
        self.requests.push(method.clone());
        let version = self.version.to_string();
        match (method.as_str(), path, &self.secret) {
            ("GET", ONE, Some(secret)) => (StatusCode::OK, secret.clone()),
            ("GET", ONE, None) => status(StatusCode::NOT_FOUND),
            ("POST", ALL, Some(_)) => status(StatusCode::CONFLICT),
            ("PUT", ONE, Some(_)) if self.contested => status(StatusCode::CONFLICT),
            ("POST", ALL, None) => self.store(body),
            ("PUT", ONE, Some(_)) => {
                let sent: Value = serde_json::from_slice(body).unwrap();
                if sent["metadata"]["resourceVersion"] == *version {
                    self.store(body)
                } else {
                    status(StatusCode::CONFLICT)
                }
            }
            _ => status(StatusCode::FORBIDDEN),
        }
    }

    fn store(&mut self, body: &[u8]) -> (StatusCode, Value) {
        let mut secret: Value = serde_json::from_slice(body).unwrap();
        self.version += 1;
        secret["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.secret = Some(secret.clone());
        (StatusCode::OK, secret)
    }

    fn wrote(&self) -> usize {
        self.requests.iter().filter(|method| **method != Method::GET).count()
    }
}

fn status(code: StatusCode) -> (StatusCode, Value) {
    let reason = code.canonical_reason().unwrap_or_default().replace(' ', "");
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": "no", "code": code.as_u16()});
    (code, status)
}

async fn answer(
    api: Arc<Mutex<Api>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let body = Limited::new(request.into_body(), 1 << 20).collect().await.unwrap().to_bytes();
    let (code, value) = api.lock().unwrap().answer(&method, &path, &body);
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    *response.status_mut() = code;
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    Ok(response)
}

async fn serve(listener: TcpListener, api: Arc<Mutex<Api>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let api = api.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(api.clone(), request));
            let connection = hyper::server::conn::http1::Builder::new();
            drop(connection.serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

#[test]
fn the_replica_that_leads_makes_keys_and_moves_them_up() {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    drop(tracing_subscriber::fmt().with_test_writer().try_init());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let _inside = runtime.enter();
    let api = Arc::new(Mutex::new(Api::default()));
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(serve(listener, api.clone()));
    let client =
        Client::try_from(Config::new(format!("http://{address}").parse().unwrap())).unwrap();
    let (wanted, names) = watch::channel(WantedKeys::default());
    let (leads, leadership) = watch::channel(false);
    let counted = Arc::new(Mutex::new(Vec::new()));
    let count = counted.clone();
    let written = Box::new(move |kind, ok| count.lock().unwrap().push((kind, ok)));
    let period = Duration::from_secs(3600);
    runtime.spawn(keep_keys(&SIGNING_KEYS, client, names, leadership, period, written));

    let want = || {
        wanted.send_modify(|wanted| {
            wanted.insert(ObjectName::new("web", "signing"), false);
        });
    };
    let look = || {
        let before = api.lock().unwrap().requests.len();
        want();
        wait("a look", || api.lock().unwrap().requests.len() > before);
    };
    want();
    std::thread::sleep(Duration::from_millis(200));
    assert!(api.lock().unwrap().requests.is_empty(), "another one leads");
    leads.send_replace(true);
    wait("a Secret", || api.lock().unwrap().secret.is_some());
    let first = api.lock().unwrap().secret.clone().unwrap();
    assert_eq!(first["metadata"]["labels"]["app.kubernetes.io/managed-by"], "certmap");
    look();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(api.lock().unwrap().wrote(), 1, "it is not time");
    // It is, and somebody else is quicker: nothing is forced.
    {
        let mut api = api.lock().unwrap();
        api.contested = true;
        let annotations = &mut api.secret.as_mut().unwrap()["metadata"]["annotations"];
        annotations["certmap.dev/signing-keys-rotated-at"] = "2020-01-01T00:00:00Z".into();
    }
    look();
    wait("an attempt", || api.lock().unwrap().wrote() == 2);
    assert_eq!(api.lock().unwrap().secret.as_ref().unwrap()["data"], first["data"]);
    api.lock().unwrap().contested = false;
    look();
    wait("the next key", || api.lock().unwrap().version == 2);
    let second = api.lock().unwrap().secret.clone().unwrap();
    assert_eq!(second["data"]["previous.key"], first["data"]["current.key"]);
    assert_eq!(second["data"]["current.key"], first["data"]["next.key"]);
    wait("a count", || counted.lock().unwrap().as_slice() == [("Secret", true); 2]);
}
