//! Request paths, read the one way that every reader would read them (RFC 3986, 6.2.2).

use std::borrow::Cow;

/// Why a path is not routed to a policed host.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the path is ambiguous: {0}")]
pub struct AmbiguousPath(pub &'static str);

/// Decodes escaped unreserved characters and writes other escapes in upper case; what cannot be decoded stays.
#[must_use]
pub fn canonical(path: &str) -> Cow<'_, str> {
    if path.bytes().all(|b| b.is_ascii() && b != b'%') {
        return Cow::Borrowed(path);
    }
    let mut out = String::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match (first, escape(after)) {
            (b'%', Some((octet, after))) => {
                push(&mut out, octet, is_unreserved(octet));
                rest = after;
            }
            _ => push(&mut out, first, first.is_ascii()),
        }
    }
    Cow::Owned(out)
}

/// The canonical form of a path, where it has one reading only.
///
/// # Errors
/// Two readers could take it for different paths.
pub fn unambiguous(path: &str) -> Result<Cow<'_, str>, AmbiguousPath> {
    if is_plain(path) {
        return Ok(Cow::Borrowed(path));
    }
    let mut rest = path.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        let octet = if first == b'%' {
            let (octet, after) = escape(after).ok_or(AmbiguousPath("a broken escape"))?;
            rest = after;
            if matches!(octet, b'/') {
                return Err(AmbiguousPath("an escaped slash"));
            }
            octet
        } else {
            first
        };
        check(octet)?;
    }
    let canonical = canonical(path);
    if canonical.contains("//") {
        return Err(AmbiguousPath("an empty segment"));
    }
    if canonical.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(AmbiguousPath("a dot segment"));
    }
    if decoded(&canonical).is_err() {
        return Err(AmbiguousPath("escapes that are not UTF-8"));
    }
    Ok(canonical)
}

/// Whether a single look is enough, as for most: nothing is escaped, no segment is empty or begins with a dot.
fn is_plain(path: &str) -> bool {
    let mut before = b'/';
    let Some(rest) = path.strip_prefix('/') else { return false };
    rest.bytes().all(|octet| {
        let begins = std::mem::replace(&mut before, octet) == b'/';
        match octet {
            b'/' | b'.' => !begins,
            b'-' | b'_' | b'~' => true,
            _ => octet.is_ascii_alphanumeric(),
        }
    })
}

fn check(octet: u8) -> Result<(), AmbiguousPath> {
    match octet {
        b'\\' => Err(AmbiguousPath("a backslash")),
        b';' => Err(AmbiguousPath("a semicolon")),
        0..0x20 | 0x7F => Err(AmbiguousPath("a control character")),
        _ => Ok(()),
    }
}

fn decoded(canonical: &str) -> Result<String, std::string::FromUtf8Error> {
    let mut octets = Vec::with_capacity(canonical.len());
    let mut rest = canonical.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let (octet, after) = escape(after).filter(|_| first == b'%').unwrap_or((first, after));
        octets.push(octet);
        rest = after;
    }
    String::from_utf8(octets)
}

/// Two hex digits and what follows.
fn escape(after_percent: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, rest) = after_percent.split_first_chunk::<2>()?;
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
    u8::try_from(high? << 4 | low?).ok().map(|octet| (octet, rest))
}

fn is_unreserved(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b'~')
}

fn push(out: &mut String, octet: u8, plain: bool) {
    if plain {
        out.push(char::from(octet));
    } else {
        out.push_str(&format!("%{octet:02X}"));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escaped_unreserved_characters_are_decoded() {
        assert_eq!(unambiguous("/adm%69n/%7euser").unwrap(), "/admin/~user");
        assert_eq!(unambiguous("/a%c3%a9%26").unwrap(), "/a%C3%A9%26");
        assert_eq!(canonical("/é"), "/%C3%A9");
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        for path in [
            "//a",
            "/a//b",
            "/./a",
            "/a/..",
            "/a/../b",
            "/%2e%2e/a",
            "/a%2fb",
            "/a%2Fb",
            "/a\\b",
            "/a%5cb",
            "/a;b",
            "/a%3Bb",
            "/a%00",
            "/a%0d%0a",
            "/a%",
            "/a%4",
            "/a%zz",
            "/a%ff",
            "/.%2e/a",
            "/a%7f",
        ] {
            assert!(unambiguous(path).is_err(), "{path}");
        }
        for path in ["/", "/a", "/a/", "/a.b/..c", "/a...", "/a:b@c,d=e+f", "/%20"] {
            assert!(unambiguous(path).is_ok(), "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_canonical_path_is_its_own(path in "/[a-z%2eEfF0-9/.;é]{0,20}") {
            let once = canonical(&path).into_owned();
            if unambiguous(&path).is_ok() {
                prop_assert_eq!(unambiguous(&once).unwrap(), once.clone());
            }
        }

        #[test]
        fn what_one_look_is_enough_for_says_the_same_to_all(path in "/[a-z%2eEfF0-9/.;é~_-]{0,20}") {
            if is_plain(&path) {
                let segments: Vec<&str> = path.split('/').skip(1).collect();
                let empty = |(at, segment): (usize, &&str)| segment.is_empty() && at + 1 < segments.len();
                prop_assert!(!segments.iter().enumerate().any(empty));
                prop_assert!(!segments.iter().any(|segment| segment.starts_with('.')));
                prop_assert!(!path.contains(['%', ';', 'é']));
                prop_assert_eq!(canonical(&path), path.clone());
            }
        }

        #[test]
        fn any_text_is_read_without_a_panic(path in "\\PC{0,40}") {
            let _canonical = canonical(&path);
            let _unambiguous = unambiguous(&path);
        }
    }
}
