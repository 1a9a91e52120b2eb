//! One access record: a request, or a handshake that failed.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderValue, Method};
use jiff::Timestamp;

use crate::auth::Principal;
use crate::identity::PeerCertificate;

/// What a record is about.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Event {
    /// A request.
    #[default]
    Request,
    /// A handshake that failed: there was no request.
    Handshake,
}

/// Everything that is logged. What the client wrote stands here as it came; as much as possible is shared with whoever has it
/// already, for every request makes one of these.
#[derive(Clone, Debug)]
pub struct AccessRecord {
    /// What happened.
    pub event: Event,
    /// When it began.
    pub time: Timestamp,
    /// How long it took.
    pub duration: Duration,
    /// Who asked.
    pub client: SocketAddr,
    /// The address that was asked.
    pub local: SocketAddr,
    /// Such as "TLSv1.3"; none over http.
    pub tls: Option<&'static str>,
    /// Such as "HTTP/2.0".
    pub protocol: &'static str,
    /// The request's method, if it came to one.
    pub method: Option<Method>,
    /// Host or :authority.
    pub host: Option<HeaderValue>,
    /// Path and query.
    pub target: Option<PathAndQuery>,
    /// User-Agent.
    pub user_agent: Option<HeaderValue>,
    /// Referer.
    pub referer: Option<HeaderValue>,
    /// The HTTP status; 0 where there was no response.
    pub status: u16,
    /// IIS's sub-status.
    pub substatus: u16,
    /// The stable code of a refusal, such as "403.16"; otherwise the status is the code.
    pub code: Option<&'static str>,
    /// The account.
    pub user: Option<Principal>,
    /// What admitted the request.
    pub mechanism: Option<&'static str>,
    /// The policy that decided.
    pub policy: Option<Arc<str>>,
    /// The mapping that matched.
    pub mapping: Option<Arc<str>>,
    /// What the client showed.
    pub certificate: Option<Arc<PeerCertificate>>,
    /// Why it was refused.
    pub reason: Option<String>,
    /// The same in page, log and header.
    pub request_id: Option<HeaderValue>,
    /// The trace that it belongs to.
    pub trace_id: Option<String>,
    /// Who answered.
    pub backend: Option<SocketAddr>,
    /// Of the response's body.
    pub bytes_sent: u64,
    /// How the decision came about, where it was a refusal.
    pub trace: Vec<String>,
}

impl AccessRecord {
    /// A record in which only the two ends are known.
    #[must_use]
    pub fn new(event: Event, time: Timestamp, client: SocketAddr, local: SocketAddr) -> Self {
        Self {
            event,
            time,
            duration: Duration::ZERO,
            client,
            local,
            tls: None,
            protocol: "-",
            method: None,
            host: None,
            target: None,
            user_agent: None,
            referer: None,
            status: 0,
            substatus: 0,
            code: None,
            user: None,
            mechanism: None,
            policy: None,
            mapping: None,
            certificate: None,
            reason: None,
            request_id: None,
            trace_id: None,
            backend: None,
            bytes_sent: 0,
            trace: Vec::new(),
        }
    }

    /// The path; empty where there is none.
    pub(super) fn path(&self) -> &str {
        self.target.as_ref().map_or("", PathAndQuery::path)
    }

    /// What follows the question mark.
    pub(super) fn query(&self) -> Option<&str> {
        self.target.as_ref()?.query()
    }

    /// The code, where there was a response.
    pub(super) fn shown_code(&self) -> Option<Cow<'static, str>> {
        let status = (self.status > 0).then(|| Cow::Owned(self.status.to_string()));
        self.code.map(Cow::Borrowed).or(status)
    }

    /// The Windows error that IIS logs beside such an answer.
    #[must_use]
    pub fn win32_status(&self) -> u32 {
        match (self.status, self.substatus) {
            (403, 16) => 0x800B_0109,
            (403, 17) => 0x800B_0101,
            (401, 1) => 1326,
            (401 | 403 | 503, 1..) => 5,
            _ => 0,
        }
    }
}

/// A field's octets as text.
pub(super) fn lossy(value: Option<&HeaderValue>) -> Option<Cow<'_, str>> {
    value.map(|value| String::from_utf8_lossy(value.as_bytes()))
}
