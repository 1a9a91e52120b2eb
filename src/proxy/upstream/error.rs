//! Why there is no answer of a backend's.

use std::error::Error;
use std::net::SocketAddr;

use http::StatusCode;

use super::super::body::BodyError;
use super::super::told::HeaderError;
use crate::lookup::NameError;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum UpstreamError {
    #[error("no ready endpoint")]
    NoEndpoints,
    #[error("the backend is no Service")]
    Unsupported,
    #[error("the backend speaks TLS, and no RoutePolicy says by which CA and name it is known")]
    NoTls,
    #[error("{0}")]
    Name(#[from] NameError),
    #[error("{0} cannot be connected to: {1}")]
    Connect(SocketAddr, String),
    #[error("{0} does not accept connections in time")]
    ConnectTimeout(SocketAddr),
    #[error("no TLS with {0}: {1}")]
    Tls(SocketAddr, String),
    #[error("{0} does not answer in time")]
    ResponseTimeout(SocketAddr),
    #[error("{0} does not answer in time, and the client's body has not come to its end")]
    Unfinished(SocketAddr),
    #[error("{0} broke off: {1}")]
    Broken(SocketAddr, String),
    #[error("{0} answers in a transfer coding other than chunked")]
    Coding(SocketAddr),
    #[error("{0} did not take the request, and some of its body is gone")]
    Refused(SocketAddr),
    #[error("{0} switched protocols unasked")]
    Unasked(SocketAddr),
    #[error("{0} answers a WebSocket with neither a switch nor an error")]
    Unswitched(SocketAddr),
    #[error("the client's body broke off: {0}")]
    ClientBody(String),
    #[error("{0}")]
    Header(#[from] HeaderError),
    #[error("the request's target is not a path")]
    Target,
}

impl UpstreamError {
    pub(in super::super) fn status(&self) -> StatusCode {
        match self {
            Self::NoEndpoints => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unsupported => StatusCode::NOT_IMPLEMENTED,
            Self::NoTls
            | Self::Name(_)
            | Self::Connect(..)
            | Self::Tls(..)
            | Self::Broken(..)
            | Self::Coding(_)
            | Self::Refused(_)
            | Self::Unasked(_)
            | Self::Unswitched(_)
            | Self::Header(_) => StatusCode::BAD_GATEWAY,
            Self::ConnectTimeout(_) | Self::ResponseTimeout(_) | Self::Unfinished(_) => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Self::ClientBody(_) | Self::Target => StatusCode::BAD_REQUEST,
        }
    }

    /// What broke a request that was on its way.
    pub(super) fn of(error: &hyper::Error, address: SocketAddr) -> Self {
        let causes: Vec<&dyn Error> =
            std::iter::successors(error.source(), |cause| (*cause).source()).collect();
        let last = causes.last().map_or_else(|| error.to_string(), ToString::to_string);
        if causes.iter().any(|cause| cause.is::<BodyError>()) {
            return Self::ClientBody(last);
        }
        Self::Broken(address, last)
    }

    /// Whether it says something of the endpoint, and not of the request.
    pub(super) fn is_of_the_endpoint(&self) -> bool {
        matches!(
            self,
            Self::Connect(..)
                | Self::ConnectTimeout(_)
                | Self::Tls(..)
                | Self::ResponseTimeout(_)
                | Self::Broken(..)
        )
    }
}
