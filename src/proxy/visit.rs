//! One request's access record, written when the last of its response is gone, however it ends.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Request, Version};
use hyper::body::{Body, Frame, SizeHint};
use jiff::Timestamp;

use super::body::{BodyError, ResponseBody};
use super::connection::{Connection, OpenRequest};
use super::hops::Origin;
use super::rejection::Rejection;
use crate::policy::{Permit, Trace};
use crate::telemetry::{AccessLog, AccessRecord, Event, Metrics};

/// Steps of a trace that a log line holds for each list of mappings.
const MOST_TRACE_LINES: usize = 16;

/// Whoever waits no longer than this for an answer did not want one.
const SOON: Duration = Duration::from_secs(1);

/// A request under way. Dropping it writes the record.
#[derive(Debug)]
pub(super) struct Visit {
    record: AccessRecord,
    started: Instant,
    log: AccessLog,
    metrics: Arc<Metrics>,
    open: OpenRequest,
    /// Whether the last of the response is gone.
    ended: bool,
}

impl Visit {
    pub(super) fn begin<B>(
        connection: &Arc<Connection>,
        origin: &Origin,
        request: &Request<B>,
        request_id: &HeaderValue,
        log: AccessLog,
        metrics: Arc<Metrics>,
    ) -> Self {
        let text = |name: HeaderName| {
            request
                .headers()
                .get(name)
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let authority = request.uri().authority().map(ToString::to_string);
        let peer = connection.certificate().and_then(|certificate| certificate.peer.as_ref().ok());
        let (client, local) = (origin.client, connection.local);
        let mut record = AccessRecord::new(Event::Request, Timestamp::now(), client, local);
        record.tls = connection.tls.as_ref().map(|tls| tls.version);
        record.protocol = protocol(request.version());
        record.method = request.method().to_string();
        record.host = authority.or_else(|| text(header::HOST)).unwrap_or_default();
        record.path = request.uri().path().to_owned();
        record.query = request.uri().query().map(str::to_owned);
        record.user_agent = text(header::USER_AGENT);
        record.referer = text(header::REFERER);
        record.certificate_serial = peer.map(|peer| peer.serial.to_string());
        record.certificate_subject = peer.map(|peer| peer.subject.to_string());
        record.request_id = request_id.to_str().unwrap_or_default().to_owned();
        // What stands there if the client does not wait for an answer.
        (record.status, record.code) = (499, "499".to_owned());
        #[expect(clippy::disallowed_methods, reason = "how long a request takes is measured here")]
        let started = Instant::now();
        let open = OpenRequest::begin(connection.clone());
        Self { record, started, log, metrics, open, ended: false }
    }

    pub(super) fn admitted(&mut self, permit: &Permit) {
        self.record.user = permit.user().map(str::to_owned);
        self.record.mechanism = Some(permit.mechanism().as_str());
        self.record.policy = permit.policy().map(str::to_owned);
        self.record.mapping = permit.mapping().map(str::to_owned);
        if let Some(policy) = permit.policy() {
            self.metrics.decision(&policy.into(), permit.mechanism().as_str(), "admitted");
        }
    }

    pub(super) fn refused(
        &mut self,
        rejection: &Rejection,
        policy: Option<&Arc<str>>,
        trace: &Trace,
    ) {
        self.record.policy = policy.map(ToString::to_string);
        self.record.trace = trace.lines(MOST_TRACE_LINES).iter().map(ToString::to_string).collect();
        if let Some(policy) = policy {
            self.metrics.decision(policy, "none", rejection.code);
        }
    }

    pub(super) fn rejected(&mut self, rejection: &Rejection) {
        self.record.status = rejection.status.as_u16();
        self.record.substatus = rejection.substatus;
        rejection.code.clone_into(&mut self.record.code);
        self.record.reason = Some(rejection.reason.to_string());
    }

    /// Answered by certmap itself, with what is everybody's.
    pub(super) fn published(&mut self, status: u16) {
        (self.record.status, self.record.code) = (status, status.to_string());
    }

    pub(super) fn answered(&mut self, status: u16, endpoint: String) {
        self.record.status = status;
        self.record.code = status.to_string();
        self.record.backend = Some(endpoint);
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.record.duration = self.started.elapsed();
        if !self.ended && self.record.duration < SOON {
            self.open.taken_back();
        }
        self.metrics.request(self.record.status, self.record.protocol, self.record.duration);
        self.log.log(&self.record);
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "unknown",
    }
}

/// A response's body that holds its record open.
pub(super) struct Recorded {
    body: ResponseBody,
    visit: Visit,
}

impl Recorded {
    pub(super) fn new(body: ResponseBody, visit: Visit) -> Self {
        Self { body, visit }
    }
}

impl Body for Recorded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                self.visit.record.bytes_sent += frame.data_ref().map_or(0, |data| data.len() as u64)
            }
            Some(Err(error)) => self.visit.record.reason = Some(error.to_string()),
            None => self.visit.ended = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        // Nobody asks an empty body for its end.
        self.visit.ended |= self.body.is_end_stream();
    }
}
