//! A request as it goes to a backend, in the form of either version; it can be had back as long as nothing was sent.

use http::header::{self, HeaderMap, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, StatusCode, Uri, Version, request, uri};
use hyper::body::Body;

use super::super::body::RequestBody;
use super::error::UpstreamError;

/// Method, target, fields and body.
pub(super) struct Message {
    method: Method,
    target: PathAndQuery,
    headers: HeaderMap,
    pub(super) body: RequestBody,
    /// Whether the client waits to be asked for the body.
    expects: bool,
}

impl Message {
    pub(super) fn new(parts: request::Parts, body: RequestBody) -> Result<Self, UpstreamError> {
        let target = parts.uri.into_parts().path_and_query.ok_or(UpstreamError::Target)?;
        let target = root_if_empty(target);
        Ok(Self { method: parts.method, target, headers: parts.headers, body, expects: false })
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// One to send, should this one be lost.
    pub(super) fn copy(&self) -> Self {
        Self {
            method: self.method.clone(),
            target: self.target.clone(),
            headers: self.headers.clone(),
            body: self.body.clone(),
            expects: self.expects,
        }
    }

    /// A copy of what was not looked at, if nothing of its body is gone.
    pub(super) fn again(self) -> Option<Self> {
        // Its client was asked for it already.
        Some(Self { body: self.body.again()?, expects: false, ..self })
    }

    /// Whether it may be sent twice (RFC 9110, 9.2.2), and is all there to be sent twice.
    pub(super) fn is_repeatable(&self) -> bool {
        const IDEMPOTENT: &[Method] = &[
            Method::GET,
            Method::HEAD,
            Method::OPTIONS,
            Method::TRACE,
            Method::PUT,
            Method::DELETE,
        ];
        IDEMPOTENT.contains(&self.method) && self.body.is_end_stream()
    }

    /// Its client sends the body only once it is asked for it (RFC 9110, 10.1.1).
    pub(super) fn expects_to_be_asked(mut self) -> Self {
        if !self.body.is_end_stream() {
            self.body.gate().hold();
            self.expects = true;
        }
        self
    }

    /// As HTTP/1.1 has it. A body of unknown length is chunked: where nothing says so, hyper leaves out that of a GET.
    pub(super) fn over_http1(mut self) -> Request<RequestBody> {
        if !self.body.is_end_stream() && !self.headers.contains_key(header::CONTENT_LENGTH) {
            self.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        if self.expects {
            self.headers.insert(header::EXPECT, HeaderValue::from_static("100-continue"));
        }
        let asked = self.expects.then(|| self.body.clone());
        let mut request = Request::new(self.body);
        *request.method_mut() = self.method;
        *request.uri_mut() = Uri::from(self.target);
        *request.headers_mut() = self.headers;
        if let Some(body) = asked {
            hyper::ext::on_informational(&mut request, move |response| {
                if response.status() == StatusCode::CONTINUE {
                    body.gate().open();
                }
            });
        }
        request
    }

    /// As HTTP/2 has it: Host is part of the target, and nothing concerns the connection (RFC 9113, 8.2.2 and 8.3.1).
    pub(super) fn over_http2(mut self, tls: bool) -> Result<Request<RequestBody>, UpstreamError> {
        let host = self.headers.remove(header::HOST).ok_or(UpstreamError::Target)?;
        for name in [header::CONNECTION, header::EXPECT, header::TRANSFER_ENCODING, header::UPGRADE]
        {
            self.headers.remove(name);
        }
        let mut parts = uri::Parts::default();
        parts.scheme = Some(if tls { Scheme::HTTPS } else { Scheme::HTTP });
        let authority = Authority::try_from(host.as_bytes());
        parts.authority = Some(authority.map_err(|_| UpstreamError::Target)?);
        parts.path_and_query = Some(self.target);
        let mut request = Request::new(self.body);
        *request.method_mut() = self.method;
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| UpstreamError::Target)?;
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = self.headers;
        Ok(request)
    }

    /// A request that was not sent.
    pub(super) fn back(request: Request<RequestBody>) -> Result<Self, UpstreamError> {
        let (mut parts, body) = request.into_parts();
        let expects = body.gate().is_held();
        if let Some(authority) = parts.uri.authority() {
            let host = HeaderValue::from_str(authority.as_str());
            parts.headers.insert(header::HOST, host.map_err(|_| UpstreamError::Target)?);
        }
        Ok(Self { expects, ..Self::new(parts, body)? })
    }
}

/// An empty target (`:path` is only a fragment) would be written as nothing at all, and the request line fall apart.
fn root_if_empty(target: PathAndQuery) -> PathAndQuery {
    if target.as_str() == "/" { PathAndQuery::from_static("/") } else { target }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_never_empty() {
        for (written, target) in [("#x", "/"), ("/", "/"), ("?a", "/?a"), ("/a?b", "/a?b")] {
            let target_and_query = written.parse().unwrap();
            assert_eq!(Uri::from(root_if_empty(target_and_query)).to_string(), target);
        }
    }
}
