//! One entry of a search's result, read without trusting its form.

use std::collections::HashMap;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use ldap3::ResultEntry;

use crate::auth::Filetime;

/// SearchResultEntry (RFC 4511, 4.5.2).
const SEARCH_RESULT_ENTRY: u64 = 4;

/// A DN, and values by the attribute's name in lower case.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) dn: String,
    attributes: HashMap<String, Vec<Vec<u8>>>,
    /// Attributes of which the server gave only some values.
    partial: Vec<String>,
}

impl Entry {
    pub(super) fn read(entry: ResultEntry) -> Option<Self> {
        let mut parts = entry.0.match_id(SEARCH_RESULT_ENTRY)?.expect_constructed()?.into_iter();
        let dn = String::from_utf8(parts.next()?.expect_primitive()?).ok()?;
        let (mut attributes, mut partial) = (HashMap::new(), Vec::new());
        for attribute in parts.next()?.expect_constructed()? {
            let mut parts = attribute.expect_constructed()?.into_iter();
            let name = String::from_utf8(parts.next()?.expect_primitive()?).ok()?;
            let values = parts.next()?.expect_constructed()?.into_iter();
            let values: Vec<Vec<u8>> =
                values.map(ldap3::asn1::StructureTag::expect_primitive).collect::<Option<_>>()?;
            let name = name.to_ascii_lowercase();
            // An option such as `;range=0-1499` does not make it another attribute.
            let name = match name.split_once(';') {
                Some((name, _)) => {
                    partial.push(name.to_owned());
                    name.to_owned()
                }
                None => name,
            };
            attributes.entry(name).or_insert_with(Vec::new).extend(values);
        }
        Some(Self { dn, attributes, partial })
    }

    /// The values of an attribute, its name in lower case.
    pub(super) fn values(&self, attribute: &str) -> &[Vec<u8>] {
        self.attributes.get(attribute).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether there are more values than these.
    pub(super) fn is_partial(&self, attribute: &str) -> bool {
        self.partial.iter().any(|partial| partial == attribute)
    }

    /// The first value, where it is text.
    pub(super) fn text(&self, attribute: &str) -> Option<&str> {
        self.values(attribute).first().and_then(|value| std::str::from_utf8(value).ok())
    }

    pub(super) fn number(&self, attribute: &str) -> Option<i64> {
        self.text(attribute)?.parse().ok()
    }

    /// Flags are 32 bits that the directory writes as a signed number.
    pub(super) fn flags(&self, attribute: &str) -> Option<u32> {
        let number = self.number(attribute)?;
        i32::try_from(number).map(i32::cast_unsigned).or_else(|_| u32::try_from(number)).ok()
    }

    pub(super) fn filetime(&self, attribute: &str) -> Option<Filetime> {
        self.number(attribute).map(Filetime)
    }

    /// A GeneralizedTime such as `20261125031651.0Z`, in seconds since 1970.
    pub(super) fn time(&self, attribute: &str) -> Option<i64> {
        let (digits, rest) = self.text(attribute)?.split_at_checked(14)?;
        let time = DateTime::strptime("%Y%m%d%H%M%S", digits).ok()?;
        let is_utc = rest.ends_with('Z');
        is_utc
            .then(|| time.to_zoned(TimeZone::UTC).ok())
            .flatten()
            .map(|it| it.timestamp().as_second())
    }

    pub(super) fn sid(&self, attribute: &str) -> Option<String> {
        self.values(attribute).first().and_then(|bytes| sid(bytes))
    }
}

/// A security identifier as text (MS-DTYP, 2.4.2).
pub(super) fn sid(bytes: &[u8]) -> Option<String> {
    let (head, rest) = bytes.split_first_chunk::<8>()?;
    let [revision, count, authority @ ..] = head;
    let (parts, trailing) = rest.as_chunks::<4>();
    if *revision != 1 || parts.len() != usize::from(*count) || !trailing.is_empty() {
        return None;
    }
    let authority = authority.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    let parts = parts.iter().map(|part| format!("-{}", u32::from_le_bytes(*part)));
    Some(format!("S-1-{authority}{}", parts.collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(attribute: &str, value: &[u8]) -> Entry {
        Entry {
            dn: String::new(),
            partial: Vec::new(),
            attributes: [(attribute.to_owned(), vec![value.to_vec()])].into(),
        }
    }

    #[test]
    fn a_sid_is_written_as_windows_writes_it() {
        let bytes = [
            1, 5, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0x50, 4, 0, 0,
        ];
        assert_eq!(sid(&bytes).as_deref(), Some("S-1-5-21-1-2-3-1104"));
        assert_eq!(sid(&[1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]).as_deref(), Some("S-1-1-0"));
        for length in 0..bytes.len() {
            assert_eq!(sid(&bytes[..length]), None, "{length}");
        }
    }

    #[test]
    fn values_are_read_by_their_syntax() {
        assert_eq!(entry("t", b"20261125031651.0Z").time("t"), Some(1_795_576_611));
        for bad in [&b"20261125031651.0"[..], b"2026", b"20261325031651.0Z", b"\xFF"] {
            assert_eq!(entry("t", bad).time("t"), None, "{bad:?}");
        }
        assert_eq!(entry("f", b"-2147483646").flags("f"), Some(0x8000_0002));
        assert_eq!(entry("f", b"8388608").flags("f"), Some(0x80_0000));
        assert_eq!(entry("f", b"x").flags("f"), None);
        assert_eq!(entry("a", b"x").flags("f"), None);
    }
}
