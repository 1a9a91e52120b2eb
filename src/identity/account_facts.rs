//! What a certificate holds by which a directory may know whose it is (KB5014754, MS-WCCE, MS-PKCA).

use aws_lc_rs::digest;
use x509_parser::asn1_rs::{Any, Class, FromDer, Tag};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;

/// The extension that an enterprise CA writes the account's SID in: 1.3.6.1.4.1.311.25.2.
const SID_EXTENSION: &[u8] = &[0x2B, 6, 1, 4, 1, 0x82, 0x37, 25, 2];
/// The otherName in it: 1.3.6.1.4.1.311.25.2.1.
const SID_NAME: &[u8] = &[0x2B, 6, 1, 4, 1, 0x82, 0x37, 25, 2, 1];

/// Facts beside the names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AccountFacts {
    /// The SID that the extension holds. One that cannot be read, or of two, is [`Self::UNREADABLE`], which is nobody's.
    pub sid: Option<Box<str>>,
    /// The subject key identifier.
    pub subject_key_id: Option<Box<[u8]>>,
    /// SHA-1 of the public key's bits, then of the whole SubjectPublicKeyInfo. Microsoft's text does not say which of
    /// them it means, and either names one key.
    pub public_key_sha1: [Box<[u8]>; 2],
    /// The octets of the serial number as the DER has them, a leading zero included.
    pub serial: Box<[u8]>,
}

impl AccountFacts {
    /// What stands for a SID that cannot be read.
    pub const UNREADABLE: &str = "unreadable";

    pub(super) fn from_x509(certificate: &X509Certificate<'_>) -> Self {
        let key = certificate.public_key();
        let extensions = || certificate.extensions().iter();
        let mut sids = extensions().filter(|extension| extension.oid.as_bytes() == SID_EXTENSION);
        let sid = sids.next().map(|first| read_sid(first.value).filter(|_| sids.next().is_none()));
        let subject_key_id =
            extensions().find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.into()),
                _ => None,
            });
        Self {
            sid: sid.map(|sid| sid.unwrap_or_else(|| Self::UNREADABLE.into())),
            subject_key_id,
            public_key_sha1: [sha1(&key.subject_public_key.data), sha1(key.raw)],
            serial: certificate.raw_serial().into(),
        }
    }
}

fn sha1(bytes: &[u8]) -> Box<[u8]> {
    digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref().into()
}

/// `SEQUENCE { [0] { OID, [0] { OCTET STRING } } }`: the SID as text.
fn read_sid(der: &[u8]) -> Option<Box<str>> {
    let name = only(der, Class::Universal, Tag::Sequence)?;
    let content = only(name, Class::ContextSpecific, Tag(0))?;
    let (rest, kind) = Any::from_der(content).ok()?;
    let value = only(rest, Class::ContextSpecific, Tag(0))?;
    let text = std::str::from_utf8(only(value, Class::Universal, Tag::OctetString)?).ok()?;
    let is_ours = kind.tag() == Tag::Oid && kind.data == SID_NAME;
    (is_ours && text.starts_with("S-1-")).then(|| text.into())
}

/// The content of the one value that the bytes hold.
fn only(der: &[u8], class: Class, tag: Tag) -> Option<&[u8]> {
    let (rest, value) = Any::from_der(der).ok()?;
    (rest.is_empty() && value.class() == class && value.tag() == tag).then_some(value.data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extension(sid: &str) -> Vec<u8> {
        let wrap = |tag: u8, content: &[u8]| {
            [&[tag, u8::try_from(content.len()).unwrap()], content].concat()
        };
        let value = wrap(0xA0, &wrap(0x04, sid.as_bytes()));
        wrap(0x30, &wrap(0xA0, &[wrap(0x06, SID_NAME), value].concat()))
    }

    #[test]
    fn the_sid_is_read_from_microsofts_extension() {
        assert_eq!(
            read_sid(&extension("S-1-5-21-1-2-3-1104")).as_deref(),
            Some("S-1-5-21-1-2-3-1104")
        );
    }

    #[test]
    fn what_is_no_sid_is_not_read() {
        let whole = extension("S-1-5-21-1-2-3-1104");
        assert_eq!(read_sid(&extension("alice")), None);
        assert_eq!(read_sid(&[&whole[..], &[0]].concat()), None);
        for length in 0..whole.len() {
            assert_eq!(read_sid(&whole[..length]), None, "{length}");
        }
    }
}
