//! One request's access record, written when the last of its response is gone, however it ends.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Request, Version};
use hyper::body::{Body, Frame, SizeHint};
use jiff::Timestamp;
use rustls::pki_types::UnixTime;

use super::body::{BodyError, ResponseBody};
use super::connection::{Connection, OpenRequest};
use super::hops::Origin;
use super::rejection::Rejection;
use super::streams;
use crate::policy::{Permit, Trace};
use crate::telemetry::{AccessLog, AccessRecord, Event, Metrics, Spans, TraceContext};

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
    span: Option<(TraceContext, Spans)>,
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
        let field = |name: HeaderName| request.headers().get(name).cloned();
        let authority = request.uri().authority();
        let authority = authority.and_then(|it| HeaderValue::from_str(it.as_str()).ok());
        let peer = connection.certificate().and_then(|certificate| certificate.peer.as_ref().ok());
        let (client, local) = (origin.client, connection.local);
        let mut record = AccessRecord::new(Event::Request, Timestamp::now(), client, local);
        record.tls = connection.tls.as_ref().map(|tls| tls.version);
        record.protocol = protocol(request.version());
        record.method = Some(request.method().clone());
        record.host = authority.or_else(|| field(header::HOST));
        record.target = request.uri().path_and_query().cloned();
        record.user_agent = field(header::USER_AGENT);
        record.referer = field(header::REFERER);
        record.certificate = peer.cloned();
        record.request_id = Some(request_id.clone());
        // What stands there if the client does not wait for an answer.
        record.status = 499;
        #[expect(clippy::disallowed_methods, reason = "how long a request takes is measured here")]
        let started = Instant::now();
        let open = OpenRequest::begin(connection.clone());
        Self { record, started, log, metrics, span: None, open, ended: false }
    }

    /// It belongs to this trace; its span goes there, if anywhere.
    pub(super) fn traced(&mut self, context: TraceContext, spans: Option<&Spans>) {
        self.record.trace_id = Some(context.trace_id());
        self.span = spans.filter(|_| context.sampled).map(|spans| (context, spans.clone()));
    }

    /// When it began.
    pub(super) fn begun(&self) -> UnixTime {
        let seconds = u64::try_from(self.record.time.as_second()).unwrap_or(0);
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    pub(super) fn admitted(&mut self, permit: &Permit) {
        self.record.user = permit.principal().cloned();
        self.record.mechanism = Some(permit.mechanism().as_str());
        (self.record.policy, self.record.mapping) = permit.shared_names();
        if let Some(policy) = &self.record.policy {
            self.metrics.decision(policy, permit.mechanism().as_str(), "admitted");
        }
    }

    pub(super) fn refused(
        &mut self,
        rejection: &Rejection,
        policy: Option<&Arc<str>>,
        trace: &Trace,
    ) {
        self.record.policy = policy.cloned();
        self.record.trace = trace.lines(MOST_TRACE_LINES).iter().map(ToString::to_string).collect();
        if let Some(policy) = policy {
            self.metrics.decision(policy, "none", rejection.code);
        }
    }

    pub(super) fn rejected(&mut self, rejection: &Rejection) {
        self.record.status = rejection.status.as_u16();
        self.record.substatus = rejection.substatus;
        self.record.code = Some(rejection.code);
        self.record.reason = Some(rejection.reason.to_string());
    }

    /// Answered by certmap itself, with what is everybody's.
    pub(super) fn published(&mut self, status: u16) {
        self.record.status = status;
    }

    pub(super) fn answered(&mut self, status: u16, endpoint: SocketAddr) {
        self.record.status = status;
        self.record.backend = Some(endpoint);
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.record.duration = self.started.elapsed();
        if !self.ended && (streams::is_given_up() || self.open.is_unread()) {
            self.record.reason = Some("the client does not read".to_owned());
        }
        if !self.ended && self.record.duration < SOON {
            self.open.taken_back();
        }
        self.metrics.request(self.record.status, self.record.protocol, self.record.duration);
        self.log.log(&self.record);
        if let Some((context, spans)) = &self.span {
            spans.finish(context, &self.record);
        }
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
    /// What of a frame is to be given later.
    rest: Option<Bytes>,
    visit: Box<Visit>,
}

impl Recorded {
    pub(super) fn new(body: ResponseBody, visit: Box<Visit>) -> Self {
        Self { body, rest: None, visit }
    }
}

impl Body for Recorded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match self.rest.take() {
            Some(rest) => Some(Ok(Frame::data(rest))),
            None => {
                streams::waits();
                ready!(Pin::new(&mut self.body).poll_frame(context))
            }
        };
        let frame = match frame.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(mut data))) => {
                self.rest = streams::gives(&mut data);
                self.visit.record.bytes_sent += data.len() as u64;
                Some(Ok(Frame::data(data)))
            }
            Some(Ok(Err(trailers))) => {
                // Nobody asks for more behind them.
                self.visit.ended |= trailers.is_trailers();
                Some(Ok(trailers))
            }
            Some(Err(error)) => {
                self.visit.record.reason = Some(error.to_string());
                // Whoever broke it off, it was not the client.
                self.visit.ended = true;
                Some(Err(error))
            }
            None => {
                self.visit.ended = true;
                None
            }
        };
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), self.rest.as_ref().map_or(0, Bytes::len));
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(rest as u64));
        }
        hint.set_lower(hint.lower().saturating_add(rest as u64));
        hint
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        // Nobody asks an empty body for its end.
        self.visit.ended |= self.rest.is_none() && self.body.is_end_stream();
    }
}
