//! WebSockets over HTTP/2 (RFC 8441): an extended CONNECT becomes the request that HTTP/1.1 knows, with a key of ours, and
//! the answer becomes what HTTP/2 knows.

use aws_lc_rs::digest;
use aws_lc_rs::error::Unspecified;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::ext::Protocol;

/// RFC 6455, 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What a backend has to answer to be believed that it speaks WebSocket.
#[derive(Clone, Debug)]
pub(super) struct Extended {
    key: HeaderValue,
    accept: HeaderValue,
}

/// Why an extended CONNECT is none that can be carried.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Unextended {
    /// Another protocol than WebSocket.
    Protocol,
    /// The system has no random numbers.
    NoKey,
}

/// Turns an extended CONNECT into the GET that it stands for (RFC 8441, 5). Any other request is left as it is.
pub(super) fn read<B>(request: &mut Request<B>) -> Result<(), Unextended> {
    if request.method() != Method::CONNECT || request.version() != Version::HTTP_2 {
        return Ok(());
    }
    match request.extensions().get::<Protocol>().map(Protocol::as_ref) {
        // No tunnels to elsewhere: its target is no path, and is answered so.
        None => return Ok(()),
        Some(b"websocket") => {}
        Some(_) => return Err(Unextended::Protocol),
    }
    let extended = Extended::new().map_err(|_| Unextended::NoKey)?;
    request.extensions_mut().insert(extended);
    *request.method_mut() = Method::GET;
    Ok(())
}

/// What was made of an extended CONNECT.
pub(super) fn of<B>(request: &Request<B>) -> Option<&Extended> {
    request.extensions().get()
}

impl Extended {
    fn new() -> Result<Self, Unspecified> {
        let mut key = [0; 16];
        aws_lc_rs::rand::fill(&mut key)?;
        Self::with(&STANDARD.encode(key)).ok_or(Unspecified)
    }

    fn with(key: &str) -> Option<Self> {
        let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        hash.update(key.as_bytes());
        hash.update(GUID);
        let accept = HeaderValue::try_from(STANDARD.encode(hash.finish())).ok()?;
        Some(Self { key: HeaderValue::try_from(key).ok()?, accept })
    }

    /// Sets the key that the backend has to answer to.
    pub(super) fn ask(&self, headers: &mut HeaderMap) {
        headers.insert(header::SEC_WEBSOCKET_KEY, self.key.clone());
    }

    /// Whether the backend's answer may be shown: for HTTP/2 any success means that the tunnel is there.
    pub(super) fn believes<B>(&self, response: &Response<B>) -> bool {
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return !response.status().is_success();
        }
        response.headers().get(header::SEC_WEBSOCKET_ACCEPT) == Some(&self.accept)
    }
}

/// The answer to a switch, for HTTP/2.
pub(super) fn answer<B>(response: &mut Response<B>) {
    *response.status_mut() = StatusCode::OK;
    for name in [header::SEC_WEBSOCKET_ACCEPT, header::CONTENT_LENGTH] {
        response.headers_mut().remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(protocol: Option<&'static str>) -> Request<()> {
        let mut request = Request::connect("https://a.example/chat").body(()).unwrap();
        *request.version_mut() = Version::HTTP_2;
        protocol.map(|it| request.extensions_mut().insert(Protocol::from_static(it)));
        request
    }

    #[test]
    fn an_extended_connect_for_a_websocket_becomes_a_get() {
        let mut request = connect(Some("websocket"));
        read(&mut request).unwrap();
        assert_eq!((request.method(), of(&request).is_some()), (&Method::GET, true));
    }

    #[test]
    fn other_protocols_are_refused_and_other_requests_left_alone() {
        assert_eq!(read(&mut connect(Some("connect-udp"))), Err(Unextended::Protocol));
        let mut plain = connect(None);
        read(&mut plain).unwrap();
        assert_eq!((plain.method(), of(&plain).is_none()), (&Method::CONNECT, true));
        let mut old = connect(Some("websocket"));
        *old.version_mut() = Version::HTTP_11;
        read(&mut old).unwrap();
        assert!(of(&old).is_none());
    }

    #[test]
    fn only_the_right_answer_to_the_key_is_believed() {
        // RFC 6455, 1.3.
        let extended = Extended::with("dGhlIHNhbXBsZSBub25jZQ==").unwrap();
        let answer = |status: u16, accept: &str| {
            let response = Response::builder().status(status);
            response.header("sec-websocket-accept", accept).body(()).unwrap()
        };
        assert!(extended.believes(&answer(101, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")));
        assert!(!extended.believes(&answer(101, "AAAALMBiTxaQ9kYGzzhZRbK+xOo=")));
        assert!(extended.believes(&answer(403, "")));
        assert!(!extended.believes(&answer(200, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")));
    }
}
