//! What an endpoint and a connection are busy with: counted while the answer's body is there.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::super::body::RequestBody;
use super::pool::Stream;
use crate::snapshot::EndpointState;

/// A request that an endpoint is busy with.
pub(super) struct Lease(Arc<EndpointState>);

impl Lease {
    pub(super) fn on(endpoint: &Arc<EndpointState>) -> Self {
        endpoint.outstanding.fetch_add(1, Ordering::Relaxed);
        Self(endpoint.clone())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.outstanding.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request's body that the backend has not asked for.
pub(super) struct Held(RequestBody);

impl Held {
    pub(super) fn of(body: RequestBody) -> Option<Self> {
        body.gate().is_held().then_some(Self(body))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // The answer is through: what it did without is not sent any more.
        self.0.gate().shut();
    }
}

/// What a connection is busy with, beside the answer's body. It is there to be dropped.
pub(super) enum Busy {
    Alone { _held: Option<Held> },
    Shared { _stream: Stream },
}

/// The body of a backend's answer. While it is there, endpoint and connection count as busy.
pub(in super::super) struct AnswerBody {
    body: Incoming,
    _lease: Lease,
    _busy: Busy,
}

impl AnswerBody {
    pub(super) fn new(body: Incoming, lease: Lease, busy: Busy) -> Self {
        Self { body, _lease: lease, _busy: busy }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
