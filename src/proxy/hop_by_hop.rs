//! Fields that are between two neighbours and go no further (RFC 9110, 7.6.1).

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::snapshot::IdentityHeaders;

const NAMES: &[&str] = &[
    "connection",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// What frames a message, in a spelling that is not its own: some readers take an underscore for a hyphen, and would find
/// a second length.
const LOOKALIKES: &[&str] = &["content-length", "host"];

const BEGINNINGS: &[&[u8; 2]] = &[b"co", b"ex", b"ht", b"ke", b"pr", b"te", b"tr", b"up", b"ho"];

pub(super) fn is_hop_by_hop(name: &HeaderName) -> bool {
    // Every name here begins with two of these: most others need no further look.
    let begins = name.as_str().as_bytes().first_chunk();
    if !begins.is_some_and(|begins: &[u8; 2]| BEGINNINGS.contains(&begins)) {
        return false;
    }
    let folded = IdentityHeaders::folded(name);
    NAMES.contains(&&*folded) || (folded != name.as_str() && LOOKALIKES.contains(&&*folded))
}

/// What Connection lists.
pub(super) fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    options(headers, &header::CONNECTION)
}

/// The members of a list in one field or several.
pub(super) fn options<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'h [u8]> + use<'h> {
    let values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    values.flat_map(|value| value.split(|&b| b == b',')).map(<[u8]>::trim_ascii)
}

/// Whether the message has no transfer coding but chunked, once: another one is nobody's here to undo (RFC 9112, 6.1).
pub(super) fn has_known_coding(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let first = codings.next().is_none_or(|it| it.as_bytes().eq_ignore_ascii_case(b"chunked"));
    first && codings.next().is_none()
}

/// Whether there is one length in its shortest form, or none. Some readers take a leading zero for octal.
pub(super) fn has_plain_length(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let first = lengths.next().is_none_or(|length| match length.as_bytes() {
        [b'0'] => true,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    });
    first && lengths.next().is_none()
}

/// Removes them, and those that Connection lists.
pub(super) fn strip(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = connection_options(headers)
        .filter_map(|option| HeaderName::from_bytes(option).ok())
        .collect();
    // Host and what frames the body are not the client's to remove.
    let kept = |name: &HeaderName| [header::HOST, header::CONTENT_LENGTH].contains(name);
    remove(headers, |name| is_hop_by_hop(name) || (listed.contains(name) && !kept(name)));
}

/// Removes those that Connection lists, and lets it list nothing that is yet to come: fields that are set from here on are
/// not the client's to remove.
pub(super) fn settle(headers: &mut HeaderMap) {
    if !headers.contains_key(header::CONNECTION) {
        return;
    }
    let listed: Vec<HeaderName> = connection_options(headers)
        .filter_map(|option| HeaderName::from_bytes(option).ok())
        .collect();
    let (ours, theirs): (Vec<_>, Vec<_>) = listed.into_iter().partition(is_hop_by_hop);
    let kept = [header::HOST, header::CONTENT_LENGTH];
    remove(headers, |name| theirs.contains(name) && !kept.contains(name));
    let ours: Vec<&str> = ours.iter().map(HeaderName::as_str).collect();
    headers.remove(header::CONNECTION);
    if let Some(left) = HeaderValue::try_from(ours.join(", ")).ok().filter(|left| !left.is_empty())
    {
        headers.insert(header::CONNECTION, left);
    }
}

/// Removes every field of an unwanted name.
pub(super) fn remove(headers: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    let names: Vec<HeaderName> = headers.keys().filter(|name| unwanted(name)).cloned().collect();
    names.iter().for_each(|name| drop(headers.remove(name)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spelling_that_is_read_as_one_of_them_is_one_of_them() {
        for name in ["transfer_encoding", "transfer.encoding", "content_length", "_host", "te"] {
            let name = HeaderName::from_static(name);
            assert_eq!(is_hop_by_hop(&name), name.as_str() != "_host", "{name}");
        }
        for name in ["content-length", "host", "content_type"] {
            assert!(!is_hop_by_hop(&HeaderName::from_static(name)), "{name}");
        }
    }

    #[test]
    fn each_begins_as_one_of_them_does() {
        for name in NAMES.iter().chain(LOOKALIKES) {
            let begins = name.as_bytes().first_chunk().unwrap();
            assert!(BEGINNINGS.contains(&begins), "{name}");
        }
    }

    #[test]
    fn they_and_what_connection_lists_are_removed_but_not_host_and_length() {
        let mut headers = HeaderMap::new();
        let latin_1 = b"\xE9, X-Other, Content-Length, Host";
        headers.append("connection", HeaderValue::from_static("X-Secret"));
        headers.append("connection", HeaderValue::from_bytes(latin_1).unwrap());
        let others = ["x-secret", "x-other", "content-length", "host", "trailer", "accept"];
        for name in others.iter().chain(NAMES).filter(|name| **name != "connection") {
            headers.append(*name, HeaderValue::from_static("1"));
        }
        strip(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "content-length", "host", "trailer"]);
    }

    #[test]
    fn connection_lists_nothing_that_is_yet_to_come() {
        let mut headers = HeaderMap::new();
        headers.insert("connection", HeaderValue::from_static("X-Env, Upgrade, te, Host, close"));
        for name in ["x-env", "upgrade", "te", "host"] {
            headers.insert(name, HeaderValue::from_static("1"));
        }
        settle(&mut headers);
        assert_eq!(headers["connection"], "upgrade, te");
        assert!(!headers.contains_key("x-env"));
        assert!(["upgrade", "te", "host"].iter().all(|name| headers.contains_key(*name)));
    }
}
