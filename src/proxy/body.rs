//! Bodies on their way through: nothing is kept, and both can be cut short.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http::header::{self, HeaderValue};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::gate::Gate;
use super::headers::strip_trailers;
use super::traffic::{Bound, Cut};
use super::watch::Vigil;
use crate::snapshot::Snapshot;

/// What goes back to a client.
pub(super) type ResponseBody = BoxBody<Bytes, BodyError>;

/// A body that did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    /// The peer broke off.
    #[error("{0}")]
    Broken(#[from] hyper::Error),
    /// What admitted the request does so no longer.
    #[error("the permit no longer holds")]
    PermitEnded,
    /// The backend answered without it.
    #[error("the backend did not want it")]
    Unwanted,
    /// The route's bounds.
    #[error("{0}")]
    Cut(#[from] Cut),
    /// It cannot be compressed.
    #[error("it cannot be compressed: {0}")]
    Coding(io::Error),
}

/// A whole body in memory: a page of our own.
pub(super) fn full(bytes: impl Into<Bytes>) -> ResponseBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// The answer to HEAD, which says how long its body would be: over HTTP/2 the octets themselves would go out.
pub(super) fn unsent(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    let Some(length) = response.body().size_hint().exact().filter(|length| *length > 0) else {
        return response;
    };
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    response.map(|_| full(""))
}

/// A body, until its end or that of the permit, and within the route's bounds.
pub(super) struct Watched<B = Incoming> {
    body: B,
    vigil: Option<Vigil>,
    /// Whether its permit has ended.
    is_over: bool,
    bound: Option<Bound>,
}

impl<B> Watched<B> {
    pub(super) fn new(body: B, vigil: Option<Vigil>, bound: Option<Bound>) -> Self {
        Self { body, vigil, is_over: false, bound }
    }
}

impl<B: Body<Data = Bytes, Error = hyper::Error> + Unpin> Body for Watched<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(vigil) = &mut self.vigil
            && ready!(vigil.poll_ended(context))
        {
            self.is_over = true;
            return Poll::Ready(Some(Err(BodyError::PermitEnded)));
        }
        let polled = Pin::new(&mut self.body).poll_frame(context).map_err(Into::into);
        match &mut self.bound {
            Some(bound) => bound.pass(polled, context),
            None => polled,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A client's body, in a place from which another attempt can send it, as long as nobody has read from it.
#[derive(Clone)]
pub(super) struct RequestBody {
    shared: Arc<Shared>,
    snapshot: Arc<Snapshot>,
}

struct Shared {
    body: Mutex<Source>,
    /// Since somebody last looked.
    moved: AtomicBool,
    /// Whoever reads it waits for the client.
    awaited: AtomicBool,
    gate: Gate,
}

impl Shared {
    fn source(&self) -> MutexGuard<'_, Source> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Source {
    /// Until another attempt has it: whoever sent it before may still be there, and must not take from it.
    body: Option<Watched>,
    is_begun: bool,
}

impl RequestBody {
    pub(super) fn new(body: Watched, snapshot: Arc<Snapshot>) -> Self {
        let (moved, awaited) = (AtomicBool::new(false), AtomicBool::new(false));
        let body = Mutex::new(Source { body: Some(body), is_begun: false });
        let shared = Shared { body, moved, awaited, gate: Gate::default() };
        Self { shared: Arc::new(shared), snapshot }
    }

    /// The same for another attempt, if nobody has read from it: from now on nobody else does.
    pub(super) fn again(&self) -> Option<Self> {
        let mut source = self.shared.source();
        if source.is_begun {
            return None;
        }
        // Of nothing, nobody can take anything.
        let body = source.body.take_if(|body| !body.is_end_stream());
        let is_there = source.body.is_some();
        drop(source);
        match body {
            Some(body) => Some(Self::new(body, self.snapshot.clone())),
            None => is_there.then(|| self.clone()),
        }
    }

    /// Whether anything moved since this was last asked.
    pub(super) fn has_moved(&self) -> bool {
        self.shared.moved.swap(false, Ordering::AcqRel)
    }

    /// Whether the client is to send more of it, and does not.
    pub(super) fn is_awaited(&self) -> bool {
        self.shared.awaited.load(Ordering::Acquire)
    }

    /// Whether it was broken off, for what admitted it does so no longer.
    pub(super) fn is_over(&self) -> bool {
        self.shared.source().body.as_ref().is_some_and(|body| body.is_over)
    }

    /// What its client still sends, of which no backend gets any more. Nothing where it waits to be asked.
    pub(super) fn rest(self) -> Option<Rest> {
        if self.gate().is_held() {
            return None;
        }
        // Who else reads it is not to take what is left for the whole.
        self.gate().close();
        Some(Rest(self.shared))
    }

    /// Whether it may be read.
    pub(super) fn gate(&self) -> &Gate {
        &self.shared.gate
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if ready!(self.shared.gate.poll(context)).is_err() {
            return Poll::Ready(Some(Err(BodyError::Unwanted)));
        }
        let mut source = self.shared.source();
        let Some(body) = source.body.as_mut() else {
            return Poll::Ready(Some(Err(BodyError::Unwanted)));
        };
        let polled = Pin::new(body).poll_frame(context);
        source.is_begun |= polled.is_ready();
        self.shared.awaited.store(polled.is_pending(), Ordering::Release);
        drop(source);
        let frame = ready!(polled);
        self.shared.moved.store(true, Ordering::Release);
        Poll::Ready(frame.map(|frame| frame.map(|frame| without_identity(frame, &self.snapshot))))
    }

    fn is_end_stream(&self) -> bool {
        self.shared.source().body.as_ref().is_none_or(Watched::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.shared
            .source()
            .body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Watched::size_hint)
    }
}

/// What is left of a client's body, for nobody.
pub(super) struct Rest(Arc<Shared>);

impl Body for Rest {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut source = self.0.source();
        source
            .body
            .as_mut()
            .map_or(Poll::Ready(None), |watched| Pin::new(&mut watched.body).poll_frame(context))
    }
}

fn without_identity(frame: Frame<Bytes>, snapshot: &Snapshot) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            strip_trailers(&mut trailers, &snapshot.identity_headers);
            Frame::trailers(trailers)
        }
        Err(data) => data,
    }
}
