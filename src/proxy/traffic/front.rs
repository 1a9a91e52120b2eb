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
    let preflight = settings.cors.as_ref().and_then(|cors| cors::preflight(cors, request));
    if let Some(mut answer) = preflight {
        edits::response(&settings.response_headers, &mut answer);
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::Full;

    use super::*;
    use crate::proxy::settings::TrustedHops;
    use crate::snapshot::{RateLimit, RouteLimits};

    fn origin(https: bool) -> Origin {
        let client = "192.0.2.7:50000".parse().unwrap();
        Origin::of(client, https, &HeaderMap::new(), &TrustedHops::default())
    }

    fn code(arrived: Result<Option<HeaderMap>, Rejection>) -> &'static str {
        arrived.map_or_else(|rejection| rejection.code, |_| "goes on")
    }

    fn settings(target: Option<usize>, https_redirect: bool) -> RouteSettings {
        let limits = RouteLimits { target, request_body: Some(4) };
        RouteSettings { limits, https_redirect, ..RouteSettings::default() }
    }

    #[test]
    fn a_target_may_be_as_long_as_the_route_says() {
        let (origin, limits) = (origin(false), RateLimits::new());
        for (target, expected) in [("/a?b=c", "goes on"), ("/a?b=cd", "414"), ("/a?b=%20", "414")] {
            let request = Request::get(format!("http://a.example{target}")).body(()).unwrap();
            let arrived = arrived(&settings(Some(6), false), &origin, &request, &limits);
            assert_eq!(code(arrived), expected, "{target}");
        }
    }

    #[test]
    fn only_http_is_redirected() {
        let (limits, request) = (RateLimits::new(), Request::new(()));
        for (https, expected) in [(false, "308"), (true, "goes on")] {
            let arrived = arrived(&settings(None, true), &origin(https), &request, &limits);
            assert_eq!(code(arrived), expected);
        }
    }

    #[test]
    fn addresses_are_counted_before_and_accounts_after() {
        let limits = RateLimits::new();
        let limit = |per| RateLimit { per, requests: 1, period: Duration::from_secs(60), burst: 1 };
        let rate_limits = [limit(RateKey::ClientAddress), limit(RateKey::Account)].into();
        let settings = RouteSettings { rate_limits, ..settings(None, false) };
        let before = || code(arrived(&settings, &origin(true), &Request::new(()), &limits));
        assert_eq!([before(), before()], ["goes on", "429"]);
        let after = |user| {
            let permit = Permit::for_test(Some(user), None, None, None);
            let mut request = Request::new(Full::new(&b"1234"[..]));
            let matched = PathPattern::new("/", false);
            admitted(&settings, &permit, &origin(true), &matched, &mut request, &limits)
                .map_or_else(|rejection| rejection.code, |()| "goes on")
        };
        assert_eq!([after("alice"), after("bob"), after("alice")], ["goes on", "goes on", "429"]);
    }

    #[test]
    fn a_body_is_measured_by_what_it_says_of_its_length() {
        let permit = Permit::for_test(None, None, None, None);
        for (body, expected) in [(&b"1234"[..], true), (b"12345", false)] {
            let mut request = Request::new(Full::new(body));
            let (matched, limits) = (PathPattern::new("/", false), RateLimits::new());
            let settings = settings(None, false);
            let admitted =
                admitted(&settings, &permit, &origin(true), &matched, &mut request, &limits);
            assert_eq!(admitted.is_ok(), expected);
        }
    }

    #[test]
    fn the_path_is_rewritten_in_whatever_form_the_target_has() {
        let permit = Permit::for_test(None, None, None, None);
        let mut settings = settings(None, false);
        settings.rewrite.path = Some(PathRewrite::Prefix("/v1".into()));
        for (target, expected) in
            [("/a/b?c", "/v1/b?c"), ("http://a.example/a/b", "http://a.example/v1/b")]
        {
            let mut request = Request::get(target).body(Full::new(&b""[..])).unwrap();
            let (matched, limits) = (PathPattern::new("/a", false), RateLimits::new());
            admitted(&settings, &permit, &origin(true), &matched, &mut request, &limits).unwrap();
            assert_eq!(request.uri(), expected);
        }
    }
}
