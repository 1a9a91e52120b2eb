//! The way in. Before anybody asks who is calling: what is cheap, and what needs no credentials. After it: what depends on
//! who it is, and what changes the request.

use http::header::HeaderMap;
use http::{Request, Uri};
use hyper::body::Body;

use super::rate_limit::{Asking, RateLimits};
use super::{cors, edits, rewrite};
use crate::policy::Permit;
use crate::proxy::hops::Origin;
use crate::proxy::rejection::Rejection;
use crate::snapshot::{PathPattern, PathRewrite, RateKey, RouteSettings};

/// Before authorization. The fields of the answer, where the request is a preflight.
///
/// # Errors
/// The request goes no further.
pub(in crate::proxy) fn arrived<B>(
    settings: &RouteSettings,
    origin: &Origin,
    request: &Request<B>,
    limits: &RateLimits,
) -> Result<Option<HeaderMap>, Rejection> {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if settings.limits.target.is_some_and(|most| target > most) {
        return Err(Rejection::uri_too_long());
    }
    if let Some(answer) = settings.cors.as_ref().and_then(|cors| cors::preflight(cors, request)) {
        return Ok(Some(answer));
    }
    if settings.https_redirect && !origin.https {
        return Err(Rejection::https_wanted());
    }
    let asking = Asking { address: origin.client.ip(), account: None };
    limits.take(settings, RateKey::ClientAddress, asking).map_err(Rejection::too_many_requests)?;
    Ok(None)
}

/// After authorization: the request as the backend gets it, apart from what it is told of the caller.
///
/// # Errors
/// The request goes no further.
pub(in crate::proxy) fn admitted<B: Body>(
    settings: &RouteSettings,
    permit: &Permit,
    origin: &Origin,
    matched: &PathPattern,
    request: &mut Request<B>,
    limits: &RateLimits,
) -> Result<(), Rejection> {
    let asking = Asking { address: origin.client.ip(), account: permit.user() };
    limits.take(settings, RateKey::Account, asking).map_err(Rejection::too_many_requests)?;
    let length = request.body().size_hint().lower();
    if settings.limits.request_body.is_some_and(|most| length > most) {
        return Err(Rejection::content_too_large());
    }
    edits::request(&settings.request_headers, request.headers_mut());
    match &settings.rewrite.path {
        Some(path) => rewrite(path, matched, request.uri_mut()),
        None => Ok(()),
    }
}

fn rewrite(path: &PathRewrite, matched: &PathPattern, uri: &mut Uri) -> Result<(), Rejection> {
    let unwritable = || Rejection::bad_request("the target is not a path");
    let mut parts = std::mem::take(uri).into_parts();
    let target = parts.path_and_query.as_ref().ok_or_else(unwritable)?;
    parts.path_and_query = Some(rewrite::target(path, matched, target)?);
    *uri = Uri::from_parts(parts).map_err(|_| unwritable())?;
    Ok(())
}
