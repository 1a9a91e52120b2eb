//! Distinguished names (RFC 5280, 4.1.2.4) as lists of attributes, and their text form (RFC 4514).

use std::borrow::Cow;
use std::fmt;

use x509_parser::asn1_rs::{Any, Oid, Tag};
use x509_parser::x509::X509Name;

/// What an attribute of a name is: the content octets of its object identifier.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct AttributeType(Cow<'static, [u8]>);

/// The attributes that IIS's rules and RFC 4514 name, with the first spelling the one we write.
const NAMED: &[(&[u8], &[&str])] = &[
    (&[0x55, 4, 3], &["CN"]),
    (&[0x55, 4, 4], &["SN"]),
    (&[0x55, 4, 5], &["serialNumber"]),
    (&[0x55, 4, 6], &["C"]),
    (&[0x55, 4, 7], &["L"]),
    (&[0x55, 4, 8], &["ST", "S", "SP"]),
    (&[0x55, 4, 9], &["STREET"]),
    (&[0x55, 4, 10], &["O"]),
    (&[0x55, 4, 11], &["OU"]),
    (&[0x55, 4, 12], &["T"]),
    (&[0x55, 4, 42], &["GN"]),
    (&[0x55, 4, 43], &["I"]),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xF2, 0x2C, 0x64, 1, 25], &["DC"]),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xF2, 0x2C, 0x64, 1, 1], &["UID"]),
    (&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 9, 1], &["E", "Email", "emailAddress"]),
];

impl AttributeType {
    /// commonName.
    pub const COMMON_NAME: Self = Self(Cow::Borrowed(&[0x55, 4, 3]));

    /// Reads a `certificateSubField`: a short name in any case, or a dotted object identifier.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let named =
            NAMED.iter().find(|(_, names)| names.iter().any(|n| n.eq_ignore_ascii_case(text)));
        if let Some((oid, _)) = named {
            return Some(Self(Cow::Borrowed(oid)));
        }
        let arcs: Option<Vec<u64>> = text.split('.').map(|arc| arc.parse().ok()).collect();
        let oid = arcs.filter(|arcs| arcs.len() > 1).and_then(|arcs| Oid::from(&arcs).ok())?;
        Some(Self::from_oid(&oid))
    }

    fn from_oid(oid: &Oid<'_>) -> Self {
        let named = NAMED.iter().find(|(known, _)| *known == oid.as_bytes());
        Self(named.map_or_else(
            || Cow::Owned(oid.as_bytes().to_vec()),
            |(known, _)| Cow::Borrowed(*known),
        ))
    }
}

impl fmt::Display for AttributeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMED.iter().find(|(oid, _)| **oid == *self.0) {
            Some((_, names)) => f.write_str(names.first().unwrap_or(&"")),
            None => f.write_str(&Oid::new(Cow::Borrowed(&self.0)).to_id_string()),
        }
    }
}

/// One attribute of a name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Attribute {
    /// What it is.
    pub kind: AttributeType,
    /// Its value, decoded from whichever ASN.1 string type held it.
    pub value: Box<str>,
}

/// A name: relative distinguished names in the order of the DER, each a set of attributes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DistinguishedName(Vec<Vec<Attribute>>);

/// A name that cannot be decoded.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NameError {
    /// The bytes of a string are not what its ASN.1 type allows.
    #[error("the value of {kind} is not a valid {string_type}")]
    BadString {
        /// The attribute.
        kind: String,
        /// The ASN.1 string type.
        string_type: Tag,
    },
}

impl DistinguishedName {
    /// Relative distinguished names in the order of the DER, each as its attributes.
    pub fn relative_names(&self) -> impl DoubleEndedIterator<Item = &[Attribute]> {
        self.0.iter().map(Vec::as_slice)
    }

    /// All attributes, in the order of the DER.
    pub fn attributes(&self) -> impl Iterator<Item = &Attribute> {
        self.0.iter().flatten()
    }

    /// The values of one attribute; there may be several (two OUs).
    pub fn values<'a>(&'a self, kind: &'a AttributeType) -> impl Iterator<Item = &'a str> {
        self.attributes().filter(move |a| a.kind == *kind).map(|a| &*a.value)
    }

    /// Whether the name has no attributes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.attributes().next().is_none()
    }

    /// The text that Windows compares in a directory: relative distinguished names in the order of the DER, which is
    /// root first, with a comma between; Windows' short names; a value with anything special in it in quotes.
    #[must_use]
    pub fn root_first(&self) -> String {
        self.joined(windows_name, |value| {
            let special =
                |c| matches!(c, ',' | '+' | '=' | '"' | '\n' | '\r' | '<' | '>' | '#' | ';');
            if value.is_empty() || value.contains(special) || value.trim() != value {
                format!("\"{}\"", value.replace('"', "\"\""))
            } else {
                value.to_owned()
            }
        })
    }

    /// The same as people write it who know RFC 4514: escaped with backslashes, ST for the state. None where a value
    /// holds a quotation mark or a backslash, because the text could then be read as another name's.
    #[must_use]
    pub fn root_first_escaped(&self) -> Option<String> {
        let unclear = |attribute: &Attribute| attribute.value.contains(['"', '\\']);
        (!self.attributes().any(unclear))
            .then(|| self.joined(|kind| kind.to_string(), |value| Escaped(value).to_string()))
    }

    /// A name of these attributes, in the order of the DER, for the tests of other rooms.
    #[cfg(test)]
    pub(crate) fn for_test(attributes: &[(&str, &str)]) -> Self {
        let rdn = |(kind, value): &(&str, &str)| {
            let kind = AttributeType::parse(kind)?;
            Some(vec![Attribute { kind, value: (*value).into() }])
        };
        Self(attributes.iter().filter_map(rdn).collect())
    }

    fn joined(
        &self,
        name: impl Fn(&AttributeType) -> String,
        value: impl Fn(&str) -> String,
    ) -> String {
        let attribute = |a: &Attribute| format!("{}={}", name(&a.kind), value(&a.value));
        let rdn = |rdn: &Vec<Attribute>| rdn.iter().map(attribute).collect::<Vec<_>>().join(" + ");
        self.0.iter().map(rdn).collect::<Vec<_>>().join(",")
    }

    pub(super) fn from_x509(name: &X509Name<'_>) -> Result<Self, NameError> {
        let decode = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
            let kind = AttributeType::from_oid(attribute.attr_type());
            let value = decode(attribute.attr_value()).map_err(|string_type| {
                NameError::BadString { kind: kind.to_string(), string_type }
            })?;
            Ok(Attribute { kind, value: value.into() })
        };
        name.iter_rdn()
            .map(|rdn| rdn.iter().map(decode).collect())
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// RFC 4514: the last relative distinguished name first, special characters escaped.
impl fmt::Display for DistinguishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, rdn) in self.0.iter().rev().enumerate() {
            for (j, attribute) in rdn.iter().enumerate() {
                f.write_str(if j > 0 {
                    "+"
                } else if i > 0 {
                    ","
                } else {
                    ""
                })?;
                write!(f, "{}=", attribute.kind)?;
                Escaped(&attribute.value).fmt(f)?;
            }
        }
        Ok(())
    }
}

/// Windows' own short names where they are others than ours, and its way of writing what has none.
fn windows_name(kind: &AttributeType) -> String {
    let name = kind.to_string();
    match &*name {
        "ST" => "S".to_owned(),
        "GN" => "G".to_owned(),
        "serialNumber" => "SERIALNUMBER".to_owned(),
        "UID" => "OID.0.9.2342.19200300.100.1.1".to_owned(),
        _ if name.starts_with(|c: char| c.is_ascii_digit()) => format!("OID.{name}"),
        _ => name,
    }
}

/// A value as RFC 4514 escapes it.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_escaped(f, self.0)
    }
}

fn write_escaped(f: &mut fmt::Formatter<'_>, value: &str) -> fmt::Result {
    let last = value.chars().count().saturating_sub(1);
    for (i, c) in value.chars().enumerate() {
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => write!(f, "\\{c}")?,
            '#' if i == 0 => f.write_str("\\#")?,
            ' ' if i == 0 || i == last => f.write_str("\\ ")?,
            c if c.is_control() => {
                let mut utf8 = [0; 4];
                c.encode_utf8(&mut utf8).bytes().try_for_each(|byte| write!(f, "\\{byte:02X}"))?;
            }
            c => write!(f, "{c}")?,
        }
    }
    Ok(())
}

/// Decodes a DirectoryString or one of its older kin. A value that is no string at all becomes RFC 4514's `#` and hex.
fn decode(value: &Any<'_>) -> Result<String, Tag> {
    let tag = value.tag();
    let bytes = value.data;
    let ascii =
        || Some(bytes).filter(|b| b.is_ascii()).map(|b| b.iter().map(|&b| char::from(b)).collect());
    let decoded = match tag {
        Tag::Utf8String => std::str::from_utf8(bytes).ok().map(str::to_owned),
        Tag::PrintableString | Tag::Ia5String | Tag::NumericString | Tag::VisibleString => ascii(),
        // T.61 in practice is Latin-1, whose code points are Unicode's first 256.
        Tag::TeletexString => Some(bytes.iter().map(|&b| char::from(b)).collect()),
        Tag::BmpString => utf16(bytes),
        Tag::UniversalString => utf32(bytes),
        _ => Some(bytes.iter().fold("#".to_owned(), |hex, byte| format!("{hex}{byte:02X}"))),
    };
    decoded.ok_or(tag)
}

fn utf16(bytes: &[u8]) -> Option<String> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let units = pairs.iter().map(|pair| u16::from_be_bytes(*pair));
    char::decode_utf16(units).collect::<Result<_, _>>().ok().filter(|_| rest.is_empty())
}

fn utf32(bytes: &[u8]) -> Option<String> {
    let (quads, rest) = bytes.as_chunks::<4>();
    quads
        .iter()
        .map(|quad| char::from_u32(u32::from_be_bytes(*quad)))
        .collect::<Option<_>>()
        .filter(|_| rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(rdns: &[&[(&str, &str)]]) -> DistinguishedName {
        let attribute = |(kind, value): &(&str, &str)| Attribute {
            kind: AttributeType::parse(kind).unwrap(),
            value: (*value).into(),
        };
        DistinguishedName(rdns.iter().map(|rdn| rdn.iter().map(attribute).collect()).collect())
    }

    fn string(tag: Tag, bytes: &[u8]) -> Result<String, Tag> {
        decode(&Any::from_tag_and_data(tag, bytes))
    }

    #[test]
    fn iis_spellings_name_one_attribute() {
        for (a, b) in [
            ("S", "ST"),
            ("SP", "st"),
            ("E", "Email"),
            ("cn", "CN"),
            ("2.5.4.3", "CN"),
            ("serialnumber", "2.5.4.5"),
        ] {
            assert_eq!(AttributeType::parse(a), AttributeType::parse(b), "{a} {b}");
        }
        assert_ne!(AttributeType::parse("SN"), AttributeType::parse("serialNumber"));
        assert_eq!(AttributeType::parse("1.2.3.4").unwrap().to_string(), "1.2.3.4");
        for bad in ["", "X", "3", "1..2", "CN=", "99999999999999999999.1"] {
            assert_eq!(AttributeType::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn text_form_is_rfc_4514() {
        let n = name(&[
            &[("C", "US")],
            &[("O", "Contoso, Ltd.")],
            &[("OU", "HR"), ("CN", " #1 \"x\"+y ")],
        ]);
        assert_eq!(n.to_string(), r#"OU=HR+CN=\ #1 \"x\"\+y\ ,O=Contoso\, Ltd.,C=US"#);
        assert_eq!(name(&[&[("CN", "#a\0")]]).to_string(), r"CN=\#a\00");
    }

    #[test]
    fn root_first_text_is_what_windows_writes() {
        for (rdns, expected) in [
            (
                &[&[("DC", "com")][..], &[("DC", "corp")], &[("CN", "CA")]][..],
                "DC=com,DC=corp,CN=CA",
            ),
            (
                &[&[("C", "US")], &[("ST", "Ohio")], &[("E", "a@b.example")]],
                "C=US,S=Ohio,E=a@b.example",
            ),
            (
                &[&[("O", "Contoso, Ltd.")], &[("CN", "a \"b\"")]],
                "O=\"Contoso, Ltd.\",CN=\"a \"\"b\"\"\"",
            ),
            (&[&[("CN", "x<S>CN=y")]], "CN=\"x<S>CN=y\""),
            (&[&[("OU", "HR"), ("CN", "Doe, John (HR)*")]], "OU=HR + CN=\"Doe, John (HR)*\""),
            (&[&[("1.2.3.4", " x")]], "OID.1.2.3.4=\" x\""),
        ] {
            assert_eq!(name(rdns).root_first(), expected);
        }
    }

    #[test]
    fn escaped_text_is_left_out_where_it_could_be_another_names() {
        let escaped =
            |value: &str| name(&[&[("ST", "Ohio")], &[("CN", value)]]).root_first_escaped();
        assert_eq!(escaped("Doe, John (HR)*").as_deref(), Some("ST=Ohio,CN=Doe\\, John (HR)*"));
        assert_eq!(escaped("a<S>b").as_deref(), Some("ST=Ohio,CN=a\\<S\\>b"));
        for unclear in ["a\\b", "a\"b"] {
            assert_eq!(escaped(unclear), None);
        }
    }

    #[test]
    fn every_string_type_is_decoded_by_its_own_rule() {
        assert_eq!(string(Tag::Utf8String, "Jürgen".as_bytes()).unwrap(), "Jürgen");
        assert_eq!(string(Tag::BmpString, &[0, b'a', 0x20, 0xAC]).unwrap(), "a€");
        assert_eq!(string(Tag::TeletexString, &[b'J', 0xFC]).unwrap(), "Jü");
        assert_eq!(string(Tag::UniversalString, &[0, 1, 0xF6, 0]).unwrap(), "\u{1F600}");
        assert_eq!(string(Tag::PrintableString, b"a\0b").unwrap(), "a\0b");
        assert_eq!(string(Tag::Integer, &[1, 0xFF]).unwrap(), "#01FF");
    }

    #[test]
    fn a_string_that_breaks_its_type_is_refused() {
        for (tag, bytes) in [
            (Tag::Utf8String, &[0xFF][..]),
            (Tag::PrintableString, &[0xE4]),
            (Tag::BmpString, &[0]),
            (Tag::BmpString, &[0xD8, 0]),
            (Tag::UniversalString, &[0, 0x11, 0, 0]),
        ] {
            assert_eq!(string(tag, bytes), Err(tag));
        }
    }
}
