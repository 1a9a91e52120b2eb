//! WebSockets: the one protocol that is switched to, and the tunnel that then carries it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Body;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_util::io::InspectReader;
use tokio_util::sync::CancellationToken;

use super::extended_connect;
use super::hop_by_hop::connection_options;
use super::patience::{Patience, Patient};
use super::streams;
use super::watch::Watch;

/// Why a tunnel did not come to its end.
#[derive(Debug, thiserror::Error)]
enum TunnelError {
    #[error("the switch failed: {0}")]
    Upgrade(#[from] hyper::Error),
    #[error("broken off: {0}")]
    Io(#[from] io::Error),
}

/// Whether the client wants a WebSocket (RFC 6455, 4.1). A request that carries a body does not: where the body ends and
/// the tunnel begins, two readers could see differently.
pub(super) fn is_websocket<B: Body>(request: &Request<B>) -> bool {
    if extended_connect::of(request).is_some() {
        return true;
    }
    request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && names_websocket(request.headers())
        && request.body().is_end_stream()
        && connection_options(request.headers())
            .any(|option| option.eq_ignore_ascii_case(b"upgrade"))
}

/// Whether a response switches to something that was not asked for.
pub(super) fn is_unasked<B>(response: &Response<B>, websocket: bool) -> bool {
    let agreed = websocket && names_websocket(response.headers());
    response.status() == StatusCode::SWITCHING_PROTOCOLS && !agreed
}

/// Sets the fields that only a switch of protocols has.
pub(super) fn set(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

fn names_websocket(headers: &HeaderMap) -> bool {
    let mut protocols = headers.get_all(header::UPGRADE).iter().map(HeaderValue::as_bytes);
    let first = protocols.next().is_some_and(|name| name.eq_ignore_ascii_case(b"websocket"));
    first && protocols.next().is_none()
}

/// The client's end of a tunnel.
#[derive(Debug)]
pub(super) struct ClientEnd {
    upgrade: OnUpgrade,
    patience: Arc<Patience>,
    /// Cancelled, where the tunnel breaks off.
    reset: CancellationToken,
}

impl ClientEnd {
    /// Of the request at hand.
    pub(super) fn new(upgrade: OnUpgrade, patience: Arc<Patience>) -> Self {
        Self { upgrade, patience, reset: streams::tunnel() }
    }
}

/// Carries a connection both ways until one side, silence, the permit or the server ends it.
pub(super) async fn tunnel(
    client: ClientEnd,
    backend: OnUpgrade,
    watch: Watch,
    stop: CancellationToken,
    idle: Duration,
) {
    let moved = AtomicBool::new(false);
    let both = async {
        let (upgraded, backend) = tokio::try_join!(client.upgrade, backend)?;
        carry(Patient::new(TokioIo::new(upgraded), client.patience), backend, &moved).await
    };
    let is_whole = tokio::select! {
        carried = both => {
            tracing::debug!(?carried, "A tunnel ended");
            carried.is_ok()
        }
        () = silence(&moved, idle) => {
            tracing::debug!("A tunnel was silent for too long");
            false
        }
        () = watch.ends.cancelled() => {
            tracing::debug!("A tunnel's permit ended");
            false
        }
        () = stop.cancelled() => false,
    };
    if !is_whole {
        client.reset.cancel();
    }
}

async fn carry(
    client: Patient<TokioIo<Upgraded>>,
    backend: Upgraded,
    moved: &AtomicBool,
) -> Result<(u64, u64), TunnelError> {
    let seen = |_: &[u8]| moved.store(true, Ordering::Relaxed);
    let mut client = InspectReader::new(client, seen);
    let mut backend = InspectReader::new(TokioIo::new(backend), seen);
    Ok(tokio::io::copy_bidirectional(&mut client, &mut backend).await?)
}

/// Comes when nothing moved for this long, and at the latest when nothing did for twice as long.
async fn silence(moved: &AtomicBool, idle: Duration) {
    loop {
        tokio::time::sleep(idle).await;
        if !moved.swap(false, Ordering::Relaxed) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{Empty, Full};

    use super::*;

    fn request(fields: &[(&'static str, &'static str)]) -> http::request::Builder {
        fields
            .iter()
            .fold(Request::get("/"), |request, (name, value)| request.header(*name, *value))
    }

    #[test]
    fn only_a_websocket_is_switched_to() {
        let wanted =
            |fields: &[_]| is_websocket(&request(fields).body(Empty::<&[u8]>::new()).unwrap());
        assert!(wanted(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")]));
        assert!(wanted(&[
            ("connection", "x"),
            ("connection", "upgrade"),
            ("upgrade", "websocket")
        ]));
        assert!(!wanted(&[("connection", "upgrade"), ("upgrade", "h2c")]));
        assert!(!wanted(&[("connection", "upgrade"), ("upgrade", "websocket, h2c")]));
        assert!(!wanted(&[
            ("connection", "upgrade"),
            ("upgrade", "h2c"),
            ("upgrade", "websocket")
        ]));
        assert!(!wanted(&[("connection", "close"), ("upgrade", "websocket")]));
        assert!(!wanted(&[("upgrade", "websocket")]));
    }

    #[test]
    fn a_request_with_a_body_or_another_method_or_version_is_no_websocket() {
        let fields = [("connection", "upgrade"), ("upgrade", "websocket")];
        assert!(!is_websocket(&request(&fields).body(Full::new(&b"x"[..])).unwrap()));
        let empty = Empty::<&[u8]>::new;
        assert!(!is_websocket(&request(&fields).method("POST").body(empty()).unwrap()));
        let old = request(&fields).version(Version::HTTP_10);
        assert!(!is_websocket(&old.body(empty()).unwrap()));
    }

    #[test]
    fn a_switch_is_let_through_only_to_what_was_asked_for() {
        let response = |status: u16, protocol: &str| {
            Response::builder().status(status).header("upgrade", protocol).body(()).unwrap()
        };
        assert!(!is_unasked(&response(101, "websocket"), true));
        assert!(is_unasked(&response(101, "websocket"), false));
        assert!(is_unasked(&response(101, "h2c"), true));
        assert!(!is_unasked(&response(200, "h2c"), false));
    }

    #[tokio::test]
    async fn a_tunnel_is_silent_only_when_nothing_moves_for_the_whole_time() {
        let (moved, idle) = (AtomicBool::new(true), Duration::from_millis(20));
        let started = tokio::time::Instant::now();
        silence(&moved, idle).await;
        assert!(started.elapsed() >= 2 * idle);
    }
}
