//! Refusals in gRPC's own words: a client of it reads no page, and no HTTP status but 200.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};

use super::body::{ResponseBody, full};

/// Whether a request is gRPC's, and its answer must be: a POST over HTTP/2. To anybody else a refusal that is a 200 would
/// be a success.
pub(super) fn is_grpc<B>(request: &Request<B>) -> bool {
    let over = request.method() == Method::POST && request.version() == Version::HTTP_2;
    over && has_its_type(request.headers())
}

fn has_its_type(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let rest = kind.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// A refusal as gRPC has it (PROTOCOL-HTTP2.md, Trailers-Only): its status by that of HTTP, and whatever else it says in
/// its message.
pub(super) fn refusal(
    refused: Response<ResponseBody>,
    code: &str,
    title: &str,
) -> Response<ResponseBody> {
    let status = refused.status();
    let (mut head, _) = refused.into_parts();
    for name in [header::CONTENT_ENCODING, header::CONTENT_LENGTH, header::LOCATION] {
        head.headers.remove(name);
    }
    head.status = StatusCode::OK;
    let (kind, number) = (HeaderValue::from_static("application/grpc"), grpc_status(status));
    head.headers.insert(header::CONTENT_TYPE, kind);
    head.headers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from_static(number));
    // Codes and titles are ours, and plain ASCII without a percent sign.
    if let Ok(message) = HeaderValue::try_from(format!("{code} {title}")) {
        head.headers.insert(HeaderName::from_static("grpc-message"), message);
    }
    Response::from_parts(head, full(""))
}

/// http-grpc-status-mapping.md; 413 and 429 as gRPC's own servers say it.
fn grpc_status(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "13",
        401 => "16",
        403 => "7",
        404 => "12",
        413 => "8",
        429 | 502..=504 => "14",
        501 => "12",
        _ => "2",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_known_by_its_content_type() {
        for (kind, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            assert_eq!(is_grpc(&request(kind)), expected, "{kind}");
        }
        assert!(!is_grpc(&Request::new(())));
    }

    fn request(kind: &str) -> Request<()> {
        let request = Request::post("/").version(Version::HTTP_2);
        request.header(header::CONTENT_TYPE, kind).body(()).unwrap()
    }

    #[test]
    fn only_a_post_over_http2_is_grpcs() {
        let mut get = request("application/grpc");
        *get.method_mut() = Method::GET;
        let mut old = request("application/grpc");
        *old.version_mut() = Version::HTTP_11;
        assert!(!is_grpc(&get) && !is_grpc(&old));
    }

    #[test]
    fn a_refusal_is_trailers_only() {
        for (status, expected) in
            [(401, "16"), (403, "7"), (404, "12"), (400, "13"), (503, "14"), (421, "2")]
        {
            let refused = Response::builder().status(status).header("www-authenticate", "Basic");
            let answer = refusal(refused.body(full("page")).unwrap(), "403.7", "No");
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.headers()["grpc-status"], expected);
            assert_eq!(answer.headers()["grpc-message"], "403.7 No");
            assert_eq!(answer.headers()["www-authenticate"], "Basic");
            assert!(hyper::body::Body::is_end_stream(answer.body()));
        }
    }
}
