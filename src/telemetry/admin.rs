//! Health, metrics and the snapshot, on a port of their own.

use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;

const MOST_CONNECTIONS: usize = 64;

/// Text that is made when somebody asks for it.
type Text = Box<dyn Fn() -> String + Send + Sync>;

/// What is shown of what is in force.
pub struct Shown {
    /// As JSON, without secrets.
    pub snapshot: Text,
    /// The public keys by which signed identities are verified (RFC 7517).
    pub keys: Text,
}

/// What the endpoints show.
pub struct Admin {
    metrics: Arc<Metrics>,
    stage: RwLock<Stage>,
}

/// From start to end.
enum Stage {
    /// Nothing is served; a sentence says what is waited for.
    Waiting(String),
    /// Requests are served; what is in force can be shown.
    Serving(Shown),
    /// It is coming to its end.
    Draining(Option<Shown>),
}

impl Admin {
    /// Before anything is served.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, stage: RwLock::new(Stage::Waiting("the start".to_owned())) }
    }

    /// Says what is waited for, and whether that is news.
    pub fn waits_for(&self, what: &str) -> bool {
        let mut stage = self.stage.write().unwrap_or_else(PoisonError::into_inner);
        match &mut *stage {
            Stage::Waiting(known) if known != what => {
                what.clone_into(known);
                true
            }
            Stage::Waiting(_) | Stage::Serving(_) | Stage::Draining(_) => false,
        }
    }

    /// From now on requests are served.
    pub fn serves(&self, shown: Shown) {
        *self.stage.write().unwrap_or_else(PoisonError::into_inner) = Stage::Serving(shown);
    }

    /// From now on it comes to its end.
    pub fn drains(&self) {
        let mut stage = self.stage.write().unwrap_or_else(PoisonError::into_inner);
        *stage = match std::mem::replace(&mut *stage, Stage::Draining(None)) {
            Stage::Serving(shown) => Stage::Draining(Some(shown)),
            other => other,
        };
    }

    fn readiness(&self) -> Result<(), String> {
        match &*self.stage.read().unwrap_or_else(PoisonError::into_inner) {
            Stage::Serving(_) => Ok(()),
            Stage::Waiting(what) => Err(format!("not ready: waiting for {what}\n")),
            Stage::Draining(_) => Err("not ready: coming to an end\n".to_owned()),
        }
    }

    fn shown(&self, what: impl Fn(&Shown) -> &Text) -> Option<String> {
        match &*self.stage.read().unwrap_or_else(PoisonError::into_inner) {
            Stage::Serving(shown) | Stage::Draining(Some(shown)) => Some(what(shown)()),
            Stage::Waiting(_) | Stage::Draining(None) => None,
        }
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown").finish_non_exhaustive()
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("readiness", &self.readiness()).finish_non_exhaustive()
    }
}

/// Serves until it is told to stop.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let next = async { (places.clone().acquire_owned().await, listener.accept().await) };
        let next = tokio::select! {
            next = next => next,
            () = stop.cancelled() => return,
        };
        let (Ok(place), Ok((stream, _))) = next else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let admin = admin.clone();
        tokio::spawn(async move {
            serve_connection(stream, admin).await;
            drop(place);
        });
    }
}

async fn serve_connection(stream: TcpStream, admin: Arc<Admin>) {
    let local = stream.local_addr().map(|address| address.ip());
    let answer = move |request: Request<Incoming>| {
        let response = match local {
            Ok(local) if is_own_name(&request, local) => respond(&admin, &request),
            _ => text(
                StatusCode::MISDIRECTED_REQUEST,
                "text/plain",
                "not a name of this port\n".to_owned(),
            ),
        };
        async move { Ok::<_, Infallible>(response) }
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(10))
        .serve_connection(TokioIo::new(stream), service_fn(answer));
    if let Err(error) = connection.await {
        tracing::debug!(%error, "an admin connection ended");
    }
}

/// On loopback, a page in a browser must not get here through a name of its own (DNS rebinding).
fn is_own_name<B>(request: &Request<B>, local: IpAddr) -> bool {
    let host =
        request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    !local.is_loopback() || name == "localhost" || address.is_ok()
}

fn respond<B>(admin: &Admin, request: &Request<B>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(
            StatusCode::METHOD_NOT_ALLOWED,
            "text/plain",
            "only GET and HEAD\n".to_owned(),
        );
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "text/plain", "ok\n".to_owned()),
        "/readyz" => match admin.readiness() {
            Ok(()) => text(StatusCode::OK, "text/plain", "ready\n".to_owned()),
            Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, "text/plain", why),
        },
        "/metrics" => match admin.metrics.text(seconds()) {
            Ok(metrics) => text(
                StatusCode::OK,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
                metrics,
            ),
            Err(_) => text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "text/plain",
                "the metrics cannot be written\n".to_owned(),
            ),
        },
        "/snapshot" => shown("application/json", admin.shown(|shown| &shown.snapshot)),
        "/jwks.json" => shown("application/jwk-set+json", admin.shown(|shown| &shown.keys)),
        _ => text(
            StatusCode::NOT_FOUND,
            "text/plain",
            "try /healthz, /readyz, /metrics, /snapshot or /jwks.json\n".to_owned(),
        ),
    }
}

fn shown(kind: &'static str, what: Option<String>) -> Response<Full<Bytes>> {
    match what {
        Some(what) => text(StatusCode::OK, kind, what + "\n"),
        None => text(StatusCode::SERVICE_UNAVAILABLE, "text/plain", "no snapshot yet\n".to_owned()),
    }
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

fn seconds() -> f64 {
    #[expect(clippy::disallowed_methods, reason = "the age of the snapshot is measured here")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
