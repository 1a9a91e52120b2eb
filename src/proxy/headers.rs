//! Header fields on their way to the backend: always strip, then perhaps set.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, Version};

use super::certificate_headers::{self, HeaderError};
use crate::policy::Permit;
use crate::snapshot::Snapshot;

const HOP_BY_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "expect",
];

/// What a proxy in front says, which only we can say here.
const FORWARDED: &[&str] = &[
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-protocol",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-forwarded-by",
    "x-original-forwarded-for",
    "x-original-host",
    "x-original-uri",
    "x-original-url",
    "x-real-ip",
    "x-request-id",
    "x-rewrite-url",
    "x-scheme",
    "x-url-scheme",
    "front-end-https",
];

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Where a request came from, and as what.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    pub(super) client: SocketAddr,
    pub(super) local: SocketAddr,
    pub(super) https: bool,
    /// As the client wrote it.
    pub(super) host: HeaderValue,
    pub(super) request_id: HeaderValue,
}

/// Whether the client wants a WebSocket (RFC 6455, 4.1).
pub(super) fn is_websocket<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    let upgrade = headers
        .get(header::UPGRADE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let connection =
        connection_options(headers).any(|option| option.eq_ignore_ascii_case("upgrade"));
    upgrade
        && connection
        && request.method() == Method::GET
        && request.version() == Version::HTTP_11
}

/// Makes a client's header fields ours.
///
/// # Errors
/// The permit says something that the fields cannot carry.
pub(super) fn to_backend(
    headers: &mut HeaderMap,
    permit: &Permit,
    arrival: &Arrival,
    snapshot: &Snapshot,
    websocket: bool,
) -> Result<(), HeaderError> {
    let trailers = headers
        .get_all(header::TE)
        .iter()
        .any(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers"));
    drop_hop_by_hop(headers);
    strip(headers, snapshot);
    if permit.forward().is_some_and(|forward| !forward.pass_authorization) {
        drop(headers.remove(header::AUTHORIZATION));
    }
    merge_cookies(headers);
    forwarded(headers, arrival);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if websocket {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    identity(headers, permit)
}

/// Makes a backend's header fields ours.
pub(super) fn to_client<B>(response: &mut Response<B>, request_id: &HeaderValue, websocket: bool) {
    drop_hop_by_hop(response.headers_mut());
    if websocket {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    response.headers_mut().insert(REQUEST_ID, request_id.clone());
}

/// Whether a trailer must not go on: what identifies, and what frames.
pub(super) fn is_unwanted_trailer(name: &HeaderName, snapshot: &Snapshot) -> bool {
    let framing = [
        header::CONTENT_LENGTH,
        header::HOST,
        header::AUTHORIZATION,
        header::COOKIE,
        header::TRAILER,
    ];
    snapshot.identity_headers.contains(name)
        || HOP_BY_HOP.contains(&name.as_str())
        || framing.contains(name)
        || FORWARDED.contains(&name.as_str())
}

fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> =
        connection_options(headers).filter_map(|option| option.parse().ok()).collect();
    // Host and what frames the body are not the client's to remove.
    let kept = |name: &HeaderName| [header::HOST, header::CONTENT_LENGTH].contains(name);
    HOP_BY_HOP.iter().for_each(|name| drop(headers.remove(*name)));
    listed.iter().filter(|name| !kept(name)).for_each(|name| drop(headers.remove(name)));
}

fn strip(headers: &mut HeaderMap, snapshot: &Snapshot) {
    let ours = |name: &HeaderName| {
        let forwarded = |name: &str| FORWARDED.contains(&name);
        let name_text = name.as_str();
        snapshot.identity_headers.contains(name)
            || if name_text.contains('_') {
                forwarded(&name_text.replace('_', "-"))
            } else {
                forwarded(name_text)
            }
    };
    let stripped: Vec<HeaderName> = headers.keys().filter(|name| ours(name)).cloned().collect();
    stripped.iter().for_each(|name| drop(headers.remove(name)));
}

/// HTTP/2 may split Cookie; HTTP/1.1 may not (RFC 9113, 8.2.3).
fn merge_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_some() {
        let cookies: Vec<&[u8]> =
            headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
        if let Ok(merged) = HeaderValue::from_bytes(&cookies.join(&b"; "[..])) {
            headers.insert(header::COOKIE, merged);
        }
    }
}

fn forwarded(headers: &mut HeaderMap, arrival: &Arrival) {
    let client = arrival.client.ip().to_canonical().to_string();
    let protocol = if arrival.https { "https" } else { "http" };
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    set("x-forwarded-for", &client);
    set("x-real-ip", &client);
    set("x-forwarded-proto", protocol);
    set("x-forwarded-port", &arrival.local.port().to_string());
    headers.insert(HeaderName::from_static("x-forwarded-host"), arrival.host.clone());
    headers.insert(header::HOST, arrival.host.clone());
    headers.insert(REQUEST_ID, arrival.request_id.clone());
}

fn identity(headers: &mut HeaderMap, permit: &Permit) -> Result<(), HeaderError> {
    let Some(forward) = permit.forward() else { return Ok(()) };
    if let (Some(name), Some(user)) = (&forward.user_header, permit.user()) {
        let name: HeaderName = name.parse().map_err(|_| HeaderError("forward.userHeader"))?;
        let value =
            HeaderValue::from_bytes(user.as_bytes()).map_err(|_| HeaderError("the user's name"))?;
        headers.insert(name, value);
    }
    if forward.basic_credentials && permit.user().is_some() {
        let (user, password) =
            permit.credentials().ok_or(HeaderError("an account without a password"))?;
        let pair = STANDARD.encode([user.as_bytes(), b":", password].concat());
        let value = HeaderValue::try_from(format!("Basic {pair}"))
            .map_err(|_| HeaderError("the credentials"))?;
        headers.insert(header::AUTHORIZATION, value);
    }
    if let Some(certificate) = permit.certificate() {
        for format in &forward.client_certificate {
            certificate_headers::set(headers, *format, certificate)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_merged_and_listed_fields_dropped() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=1"));
        headers.append(header::COOKIE, HeaderValue::from_static("b=2"));
        headers.append(header::CONNECTION, HeaderValue::from_static("close, X-Secret, Host"));
        headers.append("x-secret", HeaderValue::from_static("1"));
        headers.append(header::HOST, HeaderValue::from_static("h"));
        merge_cookies(&mut headers);
        drop_hop_by_hop(&mut headers);
        assert_eq!(headers.get(header::COOKIE).unwrap(), "a=1; b=2");
        assert!(!headers.contains_key("x-secret") && !headers.contains_key(header::CONNECTION));
        assert!(headers.contains_key(header::HOST));
    }
}
