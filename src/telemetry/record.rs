//! One access record: a request, or a handshake that failed.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;

/// What a record is about.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Event {
    /// A request.
    #[default]
    Request,
    /// A handshake that failed: there was no request.
    Handshake,
}

/// Everything that is logged. What the client wrote stands here as it came.
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
    /// The request's method.
    pub method: String,
    /// Host or :authority.
    pub host: String,
    /// The path.
    pub path: String,
    /// What follows the question mark.
    pub query: Option<String>,
    /// User-Agent.
    pub user_agent: Option<String>,
    /// Referer.
    pub referer: Option<String>,
    /// The HTTP status; 0 where there was no response.
    pub status: u16,
    /// IIS's sub-status.
    pub substatus: u16,
    /// The stable code: "200", "403.16".
    pub code: String,
    /// The account.
    pub user: Option<String>,
    /// What admitted the request.
    pub mechanism: Option<&'static str>,
    /// The policy that decided.
    pub policy: Option<String>,
    /// The mapping that matched.
    pub mapping: Option<String>,
    /// In hex.
    pub certificate_serial: Option<String>,
    /// RFC 4514.
    pub certificate_subject: Option<String>,
    /// Why it was refused.
    pub reason: Option<String>,
    /// The same in page, log and header.
    pub request_id: String,
    /// Who answered.
    pub backend: Option<String>,
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
            method: String::new(),
            host: String::new(),
            path: String::new(),
            query: None,
            user_agent: None,
            referer: None,
            status: 0,
            substatus: 0,
            code: String::new(),
            user: None,
            mechanism: None,
            policy: None,
            mapping: None,
            certificate_serial: None,
            certificate_subject: None,
            reason: None,
            request_id: String::new(),
            backend: None,
            bytes_sent: 0,
            trace: Vec::new(),
        }
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
