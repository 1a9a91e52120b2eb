//! A refusal as the client gets it: a short page, or problem details (RFC 9457).

use std::borrow::Cow;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use serde_json::json;

use super::body::{ResponseBody, full};
use super::extended_connect::Unextended;
use super::hops::REQUEST_ID;
use super::traffic::{Cut, Returning};
use super::upstream::UpstreamError;
use crate::auth::PassedBack;
use crate::lookup::Unanswered;
use crate::policy::{Denial, DenialCode};
use crate::snapshot::AmbiguousPath;

/// Why a request gets no answer of a backend's.
#[derive(Debug)]
pub(super) struct Rejection {
    pub(super) status: StatusCode,
    pub(super) substatus: u16,
    /// The same word in page, log, metric and documentation.
    pub(super) code: &'static str,
    pub(super) title: &'static str,
    detail: &'static str,
    /// For the log alone.
    pub(super) reason: Cow<'static, str>,
    challenges: Vec<Box<str>>,
    /// Whether the client has to come back on another connection.
    pub(super) ends_connection: bool,
    /// Where to go instead.
    pub(super) location: Option<String>,
    /// Whether the policy's answer to http is a redirect.
    pub(super) to_https: bool,
    /// Whether nothing was decided, for nobody can say.
    pub(super) is_unanswered: bool,
    /// What the client gets in place of a page.
    passed_back: Option<Box<PassedBack>>,
    /// When the client may come again.
    retry_after: Option<Duration>,
    /// What the route does to its answers.
    returning: Option<Box<Returning>>,
}

impl Rejection {
    fn plain(
        status: StatusCode,
        code: &'static str,
        title: &'static str,
        detail: &'static str,
        reason: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            substatus: 0,
            code,
            title,
            detail,
            reason: reason.into(),
            challenges: Vec::new(),
            ends_connection: false,
            location: None,
            to_https: false,
            is_unanswered: false,
            passed_back: None,
            retry_after: None,
            returning: None,
        }
    }

    pub(super) fn bad_request(reason: &'static str) -> Self {
        let detail = "The request cannot be understood in one way only.";
        Self::plain(StatusCode::BAD_REQUEST, "400", "Bad request", detail, reason)
    }

    pub(super) fn too_many_fields() -> Self {
        let (status, title) = (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "Head too large");
        Self::plain(status, "431", title, "The request has too many fields.", "too many fields")
    }

    /// The same, and nothing more on this connection.
    pub(super) fn ending(self) -> Self {
        Self { ends_connection: true, ..self }
    }

    pub(super) fn not_implemented(reason: &'static str) -> Self {
        let (status, detail) = (StatusCode::NOT_IMPLEMENTED, "This method is not served.");
        Self::plain(status, "501", "Not implemented", detail, reason)
    }

    pub(super) fn not_found(reason: &'static str) -> Self {
        Self::plain(StatusCode::NOT_FOUND, "404", "Not found", "There is nothing here.", reason)
    }

    /// RFC 9110, 15.5.20: the client may try again on another connection.
    pub(super) fn misdirected(ends_connection: bool) -> Self {
        let detail = "This host needs a connection of its own.";
        let reason = "the connection was made under other client-certificate terms than the host's";
        let status = StatusCode::MISDIRECTED_REQUEST;
        Self {
            ends_connection,
            ..Self::plain(status, "421", "Misdirected request", detail, reason)
        }
    }

    /// The same: on another connection the handshake comes to more, or fails.
    pub(super) fn too_weak(ends_connection: bool) -> Self {
        let detail = "This host demands a newer version of TLS or another cipher suite.";
        let reason =
            "the connection's TLS version or cipher suite is none that the host's routes admit";
        Self { detail, reason: reason.into(), ..Self::misdirected(ends_connection) }
    }

    pub(super) fn uri_too_long() -> Self {
        let detail = "The address of this request is too long.";
        let reason = "the target is longer than the route admits";
        Self::plain(StatusCode::URI_TOO_LONG, "414", "URI too long", detail, reason)
    }

    pub(super) fn content_too_large() -> Self {
        let detail = "What this request carries is too large.";
        let reason = "the body is longer than the route admits";
        Self::plain(StatusCode::PAYLOAD_TOO_LARGE, "413", "Content too large", detail, reason)
    }

    /// RFC 6585, 4.
    pub(super) fn too_many_requests(wait: Duration) -> Self {
        let detail = "There were too many requests: come again later.";
        let reason = "a rate limit of the route";
        let status = StatusCode::TOO_MANY_REQUESTS;
        let plain = Self::plain(status, "429", "Too many requests", detail, reason);
        Self { retry_after: Some(wait), ..plain }
    }

    /// To be redirected.
    pub(super) fn https_wanted() -> Self {
        let detail = "Go to the same place over https.";
        let (status, title) = (StatusCode::PERMANENT_REDIRECT, "Permanent redirect");
        let plain = Self::plain(status, "308", title, detail, "the route redirects to https");
        Self { to_https: true, ..plain }
    }

    /// As its route wants it.
    pub(super) fn returning(self, returning: Box<Returning>) -> Self {
        Self { returning: Some(returning), ..self }
    }

    /// The same, with a better place to go.
    pub(super) fn redirected(self, location: String) -> Self {
        let (status, code, title) = (StatusCode::PERMANENT_REDIRECT, "308", "Permanent redirect");
        Self { location: Some(location), status, substatus: 0, code, title, ..self }
    }

    /// The page.
    pub(super) fn into_response(
        mut self,
        json: bool,
        request_id: &HeaderValue,
    ) -> Response<ResponseBody> {
        let returning = self.returning.take();
        let substatus = self.passed_back.is_none().then_some(self.substatus);
        let response = self.into_page(json, request_id);
        match returning {
            Some(returning) => returning.refusal(response, substatus),
            None => response,
        }
    }

    fn into_page(self, json: bool, request_id: &HeaderValue) -> Response<ResponseBody> {
        if let Some(passed_back) = self.passed_back {
            return passed(*passed_back, &self.challenges, request_id);
        }
        let id = request_id.to_str().unwrap_or_default();
        let (kind, body) = if json {
            ("application/problem+json", self.problem(id))
        } else {
            ("text/html; charset=utf-8", self.page(id))
        };
        let mut response = Response::new(full(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(REQUEST_ID, request_id.clone());
        challenge(headers, &self.challenges);
        if let Some(wait) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds(wait)));
        }
        if let Some(location) =
            self.location.and_then(|location| HeaderValue::try_from(location).ok())
        {
            headers.insert(header::LOCATION, location);
        }
        response
    }

    fn problem(&self, id: &str) -> String {
        let problem = json!({
            "type": "about:blank",
            "title": self.title,
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.detail,
            "requestId": id,
        });
        format!("{problem}\n")
    }

    /// Nothing in it comes from the client: the identifier is ours.
    fn page(&self, id: &str) -> String {
        let Self { code, title, detail, .. } = self;
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{code} {title}</title></head>\n\
             <body><h1>{code} {title}</h1><p>{detail}</p><p><small>Request {id}</small></p></body></html>\n"
        )
    }
}

/// Whole ones, and not too few.
fn seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
}

fn challenge(headers: &mut HeaderMap, challenges: &[Box<str>]) {
    let values = challenges.iter().filter_map(|challenge| HeaderValue::from_str(challenge).ok());
    for value in values {
        headers.append(header::WWW_AUTHENTICATE, value);
    }
}

/// A refusal as an external service wrote it.
fn passed(
    passed_back: PassedBack,
    challenges: &[Box<str>],
    request_id: &HeaderValue,
) -> Response<ResponseBody> {
    let mut response = Response::new(full(passed_back.body));
    *response.status_mut() = passed_back.status;
    *response.headers_mut() = passed_back.headers;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REQUEST_ID, request_id.clone());
    if passed_back.status == StatusCode::UNAUTHORIZED {
        challenge(headers, challenges);
    }
    response
}

impl From<Denial> for Rejection {
    fn from(denial: Denial) -> Self {
        let code = denial.code;
        let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::FORBIDDEN);
        // The client sees the service's own status; the code stays ours.
        let theirs = denial.passed_back.as_ref().map(|it| it.status).filter(|it| *it != status);
        let status = theirs.unwrap_or(status);
        Self {
            substatus: if theirs.is_some() { 0 } else { code.substatus() },
            challenges: denial.challenges,
            ends_connection: code.concerns_certificate(),
            passed_back: denial.passed_back,
            to_https: denial.redirect && code == DenialCode::HttpsRequired,
            ..Self::plain(status, code.as_str(), code.title(), code.detail(), denial.reason)
        }
    }
}

impl From<Unextended> for Rejection {
    fn from(error: Unextended) -> Self {
        let (status, code, title, reason) = match error {
            Unextended::Protocol => {
                let reason = "an extended CONNECT for another protocol than WebSocket";
                (StatusCode::NOT_IMPLEMENTED, "501", "Not implemented", reason)
            }
            Unextended::NoKey => {
                let reason = "no random numbers for a WebSocket's key";
                (StatusCode::SERVICE_UNAVAILABLE, "503", "Service unavailable", reason)
            }
        };
        Self::plain(status, code, title, "This protocol is not carried here.", reason)
    }
}

impl From<Cut> for Rejection {
    fn from(cut: Cut) -> Self {
        let reason = cut.to_string();
        match cut {
            Cut::Idle => {
                let detail = "The request did not arrive in time.";
                let (status, title) = (StatusCode::REQUEST_TIMEOUT, "Request timeout");
                Self::plain(status, "408", title, detail, reason)
            }
            Cut::Late => {
                let detail = "The server did not answer in time.";
                let (status, title) = (StatusCode::GATEWAY_TIMEOUT, "Gateway timeout");
                Self::plain(status, "504", title, detail, reason)
            }
            Cut::Long => Self::content_too_large(),
        }
    }
}

impl From<AmbiguousPath> for Rejection {
    fn from(AmbiguousPath(what): AmbiguousPath) -> Self {
        Self { reason: format!("the path holds {what}").into(), ..Self::bad_request("") }
    }
}

impl From<Unanswered> for Rejection {
    fn from(error: Unanswered) -> Self {
        let reason = error.to_string();
        let code = match error {
            Unanswered::Directory(_) => DenialCode::DirectoryUnavailable,
            Unanswered::Keys(_) => DenialCode::KeysUnavailable,
            Unanswered::External(_) => DenialCode::ExternalUnavailable,
            Unanswered::Overloaded(_) => {
                let detail = "Too many people are logging on at once: try again in a moment.";
                let (status, title) = (StatusCode::SERVICE_UNAVAILABLE, "Service unavailable");
                let plain = Self::plain(status, "503", title, detail, reason);
                return Self { is_unanswered: true, ..plain };
            }
        };
        Self { is_unanswered: true, ..Denial::new(code, reason).into() }
    }
}

impl From<UpstreamError> for Rejection {
    fn from(error: UpstreamError) -> Self {
        let status = error.status();
        if let UpstreamError::Header(_) = error {
            let detail = "What the server has to be told about the caller cannot be written.";
            return Self::plain(status, "502", "Bad gateway", detail, error.to_string());
        }
        if let UpstreamError::Tls(..) | UpstreamError::NoTls = error {
            let detail = "The server could not be proven to be the right one.";
            let (substatus, code) = match error {
                UpstreamError::NoTls => (91, "502.91"),
                _ => (90, "502.90"),
            };
            let plain = Self::plain(status, code, "Bad gateway", detail, error.to_string());
            return Self { substatus, ..plain };
        }
        let (code, title, detail) = match status {
            StatusCode::SERVICE_UNAVAILABLE => {
                ("503", "Service unavailable", "No server is there to answer.")
            }
            StatusCode::NOT_IMPLEMENTED => {
                ("501", "Not implemented", "There is no server of a kind that can be asked.")
            }
            StatusCode::GATEWAY_TIMEOUT => {
                ("504", "Gateway timeout", "The server did not answer in time.")
            }
            StatusCode::BAD_REQUEST => {
                return Self { reason: error.to_string().into(), ..Self::bad_request("") };
            }
            _ => ("502", "Bad gateway", "The server could not be reached, or broke off."),
        };
        Self::plain(status, code, title, detail, error.to_string())
    }
}
