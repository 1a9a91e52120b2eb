//! The backend's side: pooled connections, one request at a time, and the permit that it takes.

use std::borrow::Cow;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, StatusCode, Uri, Version, request};
use hyper::body::{Body, Incoming};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::body::{BodyError, RequestBody};
use super::forwarded::Arrival;
use super::headers;
use super::told::HeaderError;
use super::upgrade::{is_unasked, is_websocket};
use crate::lookup::{NameError, NameLookup};
use crate::policy::Permit;
use crate::snapshot::{Backend, IdentityHeaders, Target};

/// A dead endpoint costs one connect timeout each: not more than this many.
const MOST_ENDPOINTS: usize = 3;

/// How long others may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Until it accepts a connection.
    pub connect: Duration,
    /// Until its response begins, counted from the last sign of life.
    pub response: Duration,
    /// How long a connection is kept without a request.
    pub idle: Duration,
    /// How long an upgraded connection is kept while nothing moves.
    pub tunnel: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            connect: seconds(5),
            response: seconds(60),
            idle: seconds(60),
            tunnel: seconds(3600),
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpstreamError {
    #[error("no ready endpoint")]
    NoEndpoints,
    #[error("the backend is no Service")]
    Unsupported,
    #[error("{0}")]
    Name(#[from] NameError),
    #[error("{0} cannot be connected to: {1}")]
    Connect(SocketAddr, String),
    #[error("{0} does not accept connections in time")]
    ConnectTimeout(SocketAddr),
    #[error("{0} does not answer in time")]
    ResponseTimeout(SocketAddr),
    #[error("{0} broke off: {1}")]
    Broken(SocketAddr, String),
    #[error("{0} switched protocols unasked")]
    Unasked(SocketAddr),
    #[error("the client's body broke off: {0}")]
    ClientBody(String),
    #[error("{0}")]
    Header(#[from] HeaderError),
    #[error("the request's target is not a path")]
    Target,
}

impl UpstreamError {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::NoEndpoints => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unsupported => StatusCode::NOT_IMPLEMENTED,
            Self::Name(_)
            | Self::Connect(..)
            | Self::Broken(..)
            | Self::Unasked(_)
            | Self::Header(_) => StatusCode::BAD_GATEWAY,
            Self::ConnectTimeout(_) | Self::ResponseTimeout(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::ClientBody(_) | Self::Target => StatusCode::BAD_REQUEST,
        }
    }
}

/// Connections to backends, for all clients.
#[derive(Clone, Debug)]
pub(super) struct Upstream {
    client: Client<HttpConnector, RequestBody>,
    names: Arc<NameLookup>,
    timeouts: Timeouts,
}

/// What a backend said, and who it was.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    pub(super) endpoint: SocketAddr,
}

impl Upstream {
    pub(super) fn new(timeouts: Timeouts) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(timeouts.connect));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(timeouts.idle)
            .set_host(false)
            .build(connector);
        Self { client, names: Arc::new(NameLookup::new()), timeouts }
    }

    /// How long a tunnel may be silent.
    pub(super) fn tunnel_limit(&self) -> Duration {
        self.timeouts.tunnel
    }

    /// Sends a request that was permitted to one of the backend's endpoints. Only a failed connect is tried again, with
    /// the next endpoint: then nothing has been sent.
    pub(super) async fn forward(
        &self,
        permit: Permit,
        request: Request<RequestBody>,
        backend: &Backend,
        arrival: &Arrival,
        identity: &IdentityHeaders,
    ) -> Result<Answer, UpstreamError> {
        let websocket = is_websocket(&request);
        let (mut parts, body) = request.into_parts();
        let (fields, service) = (&mut parts.headers, backend.service());
        headers::to_backend(fields, &permit, arrival, identity, service, websocket)?;
        drop(permit);
        frame(&mut parts, &body);
        let target = parts.uri.path_and_query().cloned().ok_or(UpstreamError::Target)?;
        let mut failure = UpstreamError::NoEndpoints;
        let endpoints = self.endpoints(backend).await?;
        for endpoint in backend.in_turn(&endpoints).take(MOST_ENDPOINTS) {
            let uri = uri(endpoint, &target).ok_or(UpstreamError::Target)?;
            match self.send(attempt(&parts, uri, &body), &body, endpoint).await {
                Ok(response) if is_unasked(&response, websocket) => {
                    return Err(UpstreamError::Unasked(endpoint));
                }
                Ok(response) => return Ok(Answer { response, endpoint }),
                Err(error @ (UpstreamError::Connect(..) | UpstreamError::ConnectTimeout(_)))
                    if !body.is_touched() =>
                {
                    failure = error;
                }
                Err(error) => return Err(error),
            }
        }
        Err(failure)
    }

    /// Where the backend can be reached now.
    async fn endpoints<'a>(
        &self,
        backend: &'a Backend,
    ) -> Result<Cow<'a, [SocketAddr]>, UpstreamError> {
        match &backend.target {
            Target::Endpoints(endpoints) => Ok(Cow::Borrowed(endpoints)),
            Target::Name(name, port) => {
                let found =
                    tokio::time::timeout(self.timeouts.connect, self.names.find(name, *port));
                // Large, and not every backend is a name.
                let found = Box::pin(found);
                let found = found.await.unwrap_or(Err(NameError::NoAnswer));
                Ok(Cow::Owned(found?))
            }
            Target::Unsupported => Err(UpstreamError::Unsupported),
        }
    }

    async fn send(
        &self,
        request: Request<RequestBody>,
        body: &RequestBody,
        endpoint: SocketAddr,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let mut response = self.client.request(request);
        loop {
            match tokio::time::timeout(self.timeouts.response, &mut response).await {
                Ok(answer) => return answer.map_err(|error| failure(&error, endpoint)),
                Err(_) if body.has_moved() => {}
                Err(_) => return Err(UpstreamError::ResponseTimeout(endpoint)),
            }
        }
    }
}

fn attempt(parts: &request::Parts, uri: Uri, body: &RequestBody) -> Request<RequestBody> {
    let mut attempt = Request::new(body.clone());
    *attempt.method_mut() = parts.method.clone();
    *attempt.uri_mut() = uri;
    *attempt.headers_mut() = parts.headers.clone();
    *attempt.version_mut() = Version::HTTP_11;
    attempt
}

/// A body of unknown length is chunked. Where nothing says so, hyper leaves out that of a GET.
fn frame(parts: &mut request::Parts, body: &RequestBody) {
    if !body.is_end_stream() && !parts.headers.contains_key(header::CONTENT_LENGTH) {
        parts.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

fn uri(endpoint: SocketAddr, target: &PathAndQuery) -> Option<Uri> {
    let authority: Authority = endpoint.to_string().parse().ok()?;
    Uri::builder()
        .scheme(Scheme::HTTP)
        .authority(authority)
        .path_and_query(target.clone())
        .build()
        .ok()
}

fn failure(error: &legacy::Error, endpoint: SocketAddr) -> UpstreamError {
    let causes: Vec<&dyn Error> =
        std::iter::successors(error.source(), |cause| (*cause).source()).collect();
    let last = causes.last().map_or_else(|| error.to_string(), ToString::to_string);
    let timed_out = causes.iter().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::TimedOut)
    });
    if causes.iter().any(|cause| cause.is::<BodyError>()) {
        return UpstreamError::ClientBody(last);
    }
    match (error.is_connect(), timed_out) {
        (true, true) => UpstreamError::ConnectTimeout(endpoint),
        (true, false) => UpstreamError::Connect(endpoint, last),
        (false, _) => UpstreamError::Broken(endpoint, last),
    }
}

#[cfg(test)]
mod tests;
