//! Vary: which fields of a request its answer depended on (RFC 9110, 12.5.5).

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue, VARY};

use crate::proxy::hop_by_hop::options;

/// Names a field, unless it is named already or everything is.
pub(super) fn vary(headers: &mut HeaderMap, name: &'static str) {
    let named = |it: &[u8]| it == b"*" || it.eq_ignore_ascii_case(name.as_bytes());
    if !options(headers, &VARY).any(named) {
        headers.append(HeaderName::from_static("vary"), HeaderValue::from_static(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_named_once() {
        let mut headers = HeaderMap::new();
        vary(&mut headers, "origin");
        vary(&mut headers, "origin");
        assert_eq!(headers.get_all(VARY).iter().count(), 1);
        for (before, named) in [("Accept, ORIGIN", 1), ("*", 1), ("accept", 2)] {
            let mut headers = HeaderMap::new();
            headers.insert(VARY, HeaderValue::from_static(before));
            vary(&mut headers, "origin");
            assert_eq!(headers.get_all(VARY).iter().count(), named, "{before}");
        }
    }
}
