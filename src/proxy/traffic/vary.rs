//! Vary: which fields of a request its answer depended on (RFC 9110, 12.5.5).

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue, VARY};

/// Names a field, unless it is named already or everything is.
pub(super) fn vary(headers: &mut HeaderMap, name: &'static str) {
    let members = headers.get_all(VARY).iter().map(HeaderValue::as_bytes);
    let mut members = members.flat_map(|value| value.split(|&b| b == b',')).map(<[u8]>::trim_ascii);
    let named = |it: &[u8]| it == b"*" || it.eq_ignore_ascii_case(name.as_bytes());
    if !members.any(named) {
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
