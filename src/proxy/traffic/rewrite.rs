//! What the backend gets for a path. Only a path that has one reading is rewritten: otherwise `/public/..%2fadmin`, judged
//! as something below `/public`, could become something else behind a new prefix.

use http::uri::PathAndQuery;

use crate::proxy::rejection::Rejection;
use crate::snapshot::{PathPattern, PathRewrite, unambiguous};

/// The target with another path; the query stays as it was.
///
/// # Errors
/// The path has several readings, or the result is none.
pub(super) fn target(
    rewrite: &PathRewrite,
    matched: &PathPattern,
    target: &PathAndQuery,
) -> Result<PathAndQuery, Rejection> {
    let judged = unambiguous(target.path())?;
    let path = match rewrite {
        PathRewrite::Full(path) => path.to_string(),
        PathRewrite::Prefix(prefix) => {
            let rest = rest(matched, &judged).unwrap_or_default();
            format!("{}{rest}", prefix.trim_end_matches('/'))
        }
    };
    let path = if path.is_empty() { "/" } else { path.as_str() };
    let whole = match target.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let unwritable = || Rejection::bad_request("the rewritten target is no path");
    let rewritten = PathAndQuery::try_from(whole).map_err(|_| unwritable())?;
    // A `?` or `#` in what the route says would move the boundary between path and query.
    let kept = rewritten.path() == path && rewritten.query() == target.query();
    if kept && path.starts_with('/') { Ok(rewritten) } else { Err(unwritable()) }
}

/// What follows the part that the pattern matched; none where the pattern is the whole path.
fn rest<'p>(matched: &PathPattern, path: &'p str) -> Option<&'p str> {
    match matched {
        PathPattern::Exact(_) => None,
        PathPattern::Prefix(prefix) => path.strip_prefix(&**prefix),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rewritten(prefix: &str, path: &str, to: &PathRewrite) -> Option<String> {
        let path = PathAndQuery::try_from(path).ok()?;
        let matched = PathPattern::new(prefix, false);
        target(to, &matched, &path).ok().map(|target| target.to_string())
    }

    #[test]
    fn the_matched_prefix_is_replaced_and_the_query_stays() {
        let to = |text: &str| PathRewrite::Prefix(text.into());
        // The table of Gateway API's ReplacePrefixMatch, and escapes.
        for (path, prefix, replacement, expected) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/foo/bar?a=/foo&b=%2f", "/foo", "/v1", "/v1/bar?a=/foo&b=%2f"),
            ("/foo?", "/foo", "/v1", "/v1?"),
            ("/f%6Fo/%c3%a9%3F", "/foo", "/v1", "/v1/%C3%A9%3F"),
            ("/x/y", "/", "/v1", "/v1/x/y"),
        ] {
            let got = rewritten(prefix, path, &to(replacement));
            assert_eq!(got.as_deref(), Some(expected), "{path} {prefix} {replacement}");
        }
    }

    #[test]
    fn a_whole_path_takes_the_place_of_any() {
        let to = PathRewrite::Full("/index.html".into());
        assert_eq!(rewritten("/", "/a/b?c=d", &to).as_deref(), Some("/index.html?c=d"));
        let exact = PathPattern::new("/old", true);
        let path = PathAndQuery::from_static("/old?x");
        let prefix = PathRewrite::Prefix("/new".into());
        assert_eq!(target(&prefix, &exact, &path).unwrap(), "/new?x");
    }

    #[test]
    fn what_has_two_readings_or_would_move_the_query_is_refused() {
        let to = PathRewrite::Prefix("/v1".into());
        for path in
            ["/foo/../admin", "/foo/%2e%2e/admin", "/foo/..%2fadmin", "/foo//x", "/foo/..;/x"]
        {
            assert_eq!(rewritten("/foo", path, &to), None, "{path}");
        }
        for odd in ["/v1?admin=1", "/v1#x", "v1", "/v 1"] {
            let to = PathRewrite::Prefix(odd.into());
            assert_eq!(rewritten("/foo", "/foo/x", &to), None, "{odd}");
        }
    }

    proptest! {
        #[test]
        fn nothing_leads_outside_of_what_the_route_writes(
            path in "/foo[a-z%2eEfF0-9/.;\\\\?#é]{0,24}",
            query in "(\\?[a-z=&/.%]{0,10})?",
        ) {
            let to = PathRewrite::Prefix("/v1".into());
            if let Some(target) = rewritten("/foo", &format!("{path}{query}"), &to) {
                let (path, _) = target.split_once('?').unwrap_or((&target, ""));
                prop_assert!(path.starts_with("/v1"), "{target}");
                prop_assert!(!path.split('/').any(|it| it == ".." || it == "."), "{target}");
                prop_assert!(unambiguous(path).is_ok(), "{target}");
            }
        }

        #[test]
        fn any_replacement_is_written_as_it_stands_or_not_at_all(
            to in "\\PC{0,20}",
            path in "/foo(/[a-z%2f]{0,10}){0,2}",
        ) {
            let full = PathRewrite::Full(to.clone().into());
            if let Some(target) = rewritten("/foo", &path, &full) {
                prop_assert!(target == to || (to.is_empty() && target == "/"), "{target}");
            }
        }
    }
}
