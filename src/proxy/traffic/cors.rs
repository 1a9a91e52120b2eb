//! Cross-origin requests, as the Fetch standard has them. A preflight carries no credentials and no certificate: it is
//! answered here, from the route's settings alone. On every other answer the fields say which origin's scripts may read it.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request};

use super::vary::vary;
use crate::proxy::hop_by_hop::options;
use crate::snapshot::Cors;

/// What a backend says about it, where the route says something.
const FIELDS: [HeaderName; 7] = [
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
    HeaderName::from_static("access-control-allow-private-network"),
];
/// More names than any script has.
const MOST_NAMES: usize = 64;

/// The fields of a preflight's answer; none where the request is no preflight. Of an origin that may not, it says nothing.
pub(super) fn preflight<B>(cors: &Cors, request: &Request<B>) -> Option<HeaderMap> {
    let headers = request.headers();
    let origin = headers.get(header::ORIGIN)?;
    let asks = headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if request.method() != Method::OPTIONS || !asks {
        return None;
    }
    let mut answer = HeaderMap::new();
    for name in ["origin", "access-control-request-method", "access-control-request-headers"] {
        vary(&mut answer, name);
    }
    if !grant(cors, origin, &mut answer) {
        return Some(answer);
    }
    let methods = cors.allow_methods.iter().map(Method::as_str);
    set(&mut answer, header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    let asked = if cors.allow_headers.is_empty() { asked_for(headers) } else { Vec::new() };
    let names = cors.allow_headers.iter().chain(&asked).map(HeaderName::as_str);
    set(&mut answer, header::ACCESS_CONTROL_ALLOW_HEADERS, names);
    let age = HeaderValue::from(cors.max_age.as_secs());
    answer.insert(header::ACCESS_CONTROL_MAX_AGE, age);
    Some(answer)
}

/// Says on an answer who may read it; what the backend said of it goes.
pub(super) fn answer(cors: &Cors, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
    for name in &FIELDS {
        headers.remove(name);
    }
    // Everybody gets the same where everybody may and nobody else is named.
    if !matches!(&*cors.allow_origins, [all] if **all == *"*") {
        vary(headers, "origin");
    }
    if origin.is_some_and(|origin| grant(cors, origin, headers)) {
        let names = cors.expose_headers.iter().map(HeaderName::as_str);
        set(headers, header::ACCESS_CONTROL_EXPOSE_HEADERS, names);
    }
}

/// Whether the origin may; if so, it is said. Everybody may never with credentials: then any page in the world could act
/// for whoever looks at it.
fn grant(cors: &Cors, origin: &HeaderValue, headers: &mut HeaderMap) -> bool {
    let named = origin.to_str().is_ok_and(|origin| {
        cors.allow_origins.iter().any(|pattern| **pattern != *"*" && matches(pattern, origin))
    });
    if !named && !cors.allow_origins.iter().any(|pattern| **pattern == *"*") {
        return false;
    }
    let value = if named { origin.clone() } else { HeaderValue::from_static("*") };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, value);
    if named && cors.allow_credentials {
        let yes = HeaderValue::from_static("true");
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
    }
    true
}

/// `*` stands for one label where it is the host's first.
fn matches(pattern: &str, origin: &str) -> bool {
    let Some((scheme, parent)) = pattern.split_once("://*.") else {
        return pattern.eq_ignore_ascii_case(origin);
    };
    let Some((theirs, host)) = origin.split_once("://") else { return false };
    let Some((label, rest)) = host.split_once('.') else { return false };
    let is_label = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
    theirs.eq_ignore_ascii_case(scheme)
        && rest.eq_ignore_ascii_case(parent)
        && !label.is_empty()
        && label.bytes().all(is_label)
}

/// What the script wants to send; what is no name is passed over.
fn asked_for(headers: &HeaderMap) -> Vec<HeaderName> {
    let names = options(headers, &header::ACCESS_CONTROL_REQUEST_HEADERS).take(MOST_NAMES);
    names.filter_map(|name| HeaderName::from_bytes(name).ok()).collect()
}

/// A list, where there is something to list.
fn set<'a>(headers: &mut HeaderMap, name: HeaderName, members: impl Iterator<Item = &'a str>) {
    let list = members.collect::<Vec<_>>().join(", ");
    if let Some(value) = HeaderValue::try_from(list).ok().filter(|value| !value.is_empty()) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn cors(origins: &[&str], allow_credentials: bool) -> Cors {
        Cors {
            allow_origins: origins.iter().map(|origin| (*origin).into()).collect(),
            allow_methods: [Method::GET, Method::PUT].into(),
            allow_headers: Box::default(),
            expose_headers: [HeaderName::from_static("x-total")].into(),
            allow_credentials,
            max_age: Duration::from_secs(600),
        }
    }

    fn asked(method: &str, origin: &str, further: &[(&str, &str)]) -> Request<()> {
        let request = Request::builder().method(method).header("origin", origin);
        further.iter().fold(request, |it, (name, value)| it.header(*name, *value)).body(()).unwrap()
    }

    #[test]
    fn a_preflight_is_answered_from_the_settings() {
        let wanted = [
            ("access-control-request-method", "PUT"),
            ("access-control-request-headers", "x-a, X-B,é,,"),
        ];
        let request = asked("OPTIONS", "https://app.example", &wanted);
        let mut cors = cors(&["https://app.example"], true);
        let answer = preflight(&cors, &request).unwrap();
        assert_eq!(answer["access-control-allow-origin"], "https://app.example");
        assert_eq!(answer["access-control-allow-credentials"], "true");
        assert_eq!(answer["access-control-allow-methods"], "GET, PUT");
        assert_eq!(answer["access-control-allow-headers"], "x-a, x-b");
        assert_eq!(answer["access-control-max-age"], "600");
        cors.allow_headers = [header::CONTENT_TYPE].into();
        let answer = preflight(&cors, &request).unwrap();
        assert_eq!(answer["access-control-allow-headers"], "content-type");
    }

    #[test]
    fn an_origin_that_may_not_learns_nothing() {
        let wanted = [("access-control-request-method", "PUT")];
        let request = asked("OPTIONS", "https://evil.example", &wanted);
        let answer = preflight(&cors(&["https://app.example"], true), &request).unwrap();
        assert!(answer.keys().all(|name| name == "vary"), "{answer:?}");
    }

    #[test]
    fn only_a_preflight_is_one() {
        let cors = cors(&["*"], false);
        let method = ("access-control-request-method", "PUT");
        assert!(preflight(&cors, &asked("OPTIONS", "https://a.example", &[])).is_none());
        assert!(preflight(&cors, &asked("GET", "https://a.example", &[method])).is_none());
        let request = Request::options("/").header(method.0, method.1).body(()).unwrap();
        assert!(preflight(&cors, &request).is_none());
    }

    #[test]
    fn one_star_is_one_label() {
        let pattern = "https://*.corp.example";
        for origin in ["https://a.corp.example", "https://A-1.Corp.example"] {
            assert!(matches(pattern, origin), "{origin}");
        }
        for origin in [
            "https://corp.example",
            "https://.corp.example",
            "https://a.b.corp.example",
            "http://a.corp.example",
            "https://a.corp.example:8443",
            "https://evil.example/.corp.example",
            "https://evil.example?.corp.example",
            "https://user@a.corp.example",
            "https://a.corp.example.evil.example",
            "null",
            "",
        ] {
            assert!(!matches(pattern, origin), "{origin}");
        }
        assert!(matches("https://*.corp.example:8443", "https://a.corp.example:8443"));
    }

    #[test]
    fn everybody_may_but_never_with_credentials() {
        let origin = HeaderValue::from_static("https://a.example");
        let mut headers = HeaderMap::new();
        answer(&cors(&["*"], true), Some(&origin), &mut headers);
        assert_eq!(headers["access-control-allow-origin"], "*");
        assert!(!headers.contains_key("vary"));
        assert!(!headers.contains_key("access-control-allow-credentials"));
    }

    #[test]
    fn what_the_backend_says_goes_and_caches_are_told() {
        let mut headers = HeaderMap::new();
        for name in &FIELDS {
            headers.insert(name.clone(), HeaderValue::from_static("*"));
        }
        answer(&cors(&["https://app.example"], true), None, &mut headers);
        assert_eq!(headers.len(), 1);
        assert_eq!(headers["vary"], "origin");
        let origin = HeaderValue::from_static("https://app.example");
        answer(&cors(&["https://app.example"], true), Some(&origin), &mut headers);
        assert_eq!(headers["access-control-expose-headers"], "x-total");
    }
}
