//! The names of a subjectAltName extension (RFC 5280, 4.2.1.6), each under its own type.

use std::net::IpAddr;

use x509_parser::asn1_rs::{Any, FromDer, Tag};
use x509_parser::extensions::GeneralName;

/// Microsoft's user principal name, an otherName: 1.3.6.1.4.1.311.20.2.3.
const UPN: &[u8] = &[0x2B, 6, 1, 4, 1, 0x82, 0x37, 20, 2, 3];

/// What stands before a SID in a uniformResourceIdentifier that is meant as one (KB5014754).
const SID_URI: &str = "tag:microsoft.com,2022-09-14:sid:";

/// The alternative names that certmap uses. A name of one type is never compared with one of another.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SubjectAltName {
    /// rfc822Name.
    pub emails: Vec<Box<str>>,
    /// otherName with Microsoft's user principal name.
    pub upns: Vec<Box<str>>,
    /// dNSName.
    pub dns_names: Vec<Box<str>>,
    /// uniformResourceIdentifier.
    pub uris: Vec<Box<str>>,
    /// iPAddress.
    pub addresses: Vec<IpAddr>,
}

impl SubjectAltName {
    /// The security identifiers that URIs of Microsoft's form name, as they are written.
    pub fn sids(&self) -> impl Iterator<Item = &str> {
        self.uris.iter().filter_map(|uri| sid(uri))
    }

    pub(super) fn from_general_names(names: &[GeneralName<'_>]) -> Self {
        let mut san = Self::default();
        for name in names {
            match name {
                GeneralName::RFC822Name(email) => san.emails.push((*email).into()),
                GeneralName::OtherName(oid, value) if oid.as_bytes() == UPN => {
                    san.upns.extend(utf8_in_context_tag(value));
                }
                GeneralName::DNSName(name) => san.dns_names.push((*name).into()),
                GeneralName::URI(uri) => san.uris.push((*uri).into()),
                GeneralName::IPAddress(octets) => san.addresses.extend(address(octets)),
                _ => {}
            }
        }
        san
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(octets).map(IpAddr::from);
    <[u8; 16]>::try_from(octets).map(IpAddr::from).or_else(|_| v4()).ok()
}

fn sid(uri: &str) -> Option<&str> {
    let (prefix, sid) = uri.split_at_checked(SID_URI.len())?;
    prefix.eq_ignore_ascii_case(SID_URI).then_some(sid)
}

/// `[0] EXPLICIT UTF8String`, which is how a UPN is written.
fn utf8_in_context_tag(der: &[u8]) -> Option<Box<str>> {
    let (_, outer) = Any::from_der(der).ok()?;
    let (rest, inner) = Any::from_der(outer.data).ok()?;
    let text = std::str::from_utf8(inner.data).ok()?;
    (inner.tag() == Tag::Utf8String && rest.is_empty()).then(|| text.into())
}
