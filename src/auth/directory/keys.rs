//! By what a directory may know a certificate: the strings of `altSecurityIdentities` as Windows writes them, and how
//! strongly each binds (KB5014754).

use std::fmt;

use crate::identity::{AccountFacts, PeerCertificate};

/// The way in which a certificate leads to an account.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Form {
    /// The SID in the certificate is the account's.
    Sid,
    /// `X509:<I>…<SR>…`
    IssuerSerial,
    /// `X509:<SKI>…`
    SubjectKeyId,
    /// `X509:<SHA1-PUKEY>…`
    PublicKey,
    /// `X509:<I>…<SID>…`
    IssuerSid,
    /// `X509:<I>…<S>…`
    IssuerSubject,
    /// `X509:<S>…`
    Subject,
    /// `X509:<RFC822>…`
    Rfc822,
    /// The UPN in the certificate is the account's.
    Upn,
}

/// How strongly a form binds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Strength {
    /// It names this certificate, its key, or the account itself.
    Strong,
    /// It names what another certificate could say as well.
    Weak,
}

impl Form {
    /// How strongly it binds.
    #[must_use]
    pub fn strength(self) -> Strength {
        match self {
            Self::Sid
            | Self::IssuerSerial
            | Self::SubjectKeyId
            | Self::PublicKey
            | Self::IssuerSid => Strength::Strong,
            Self::IssuerSubject | Self::Subject | Self::Rfc822 | Self::Upn => Strength::Weak,
        }
    }

    /// The word for it, in policies and traces.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sid => "Sid",
            Self::IssuerSerial => "IssuerSerial",
            Self::SubjectKeyId => "SubjectKeyId",
            Self::PublicKey => "PublicKey",
            Self::IssuerSid => "IssuerSid",
            Self::IssuerSubject => "IssuerSubject",
            Self::Subject => "Subject",
            Self::Rfc822 => "Rfc822",
            Self::Upn => "Upn",
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let strength = match self.strength() {
            Strength::Strong => "strong",
            Strength::Weak => "weak",
        };
        write!(f, "{} ({strength})", self.as_str())
    }
}

/// One value to look for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Key {
    pub(super) form: Form,
    pub(super) attribute: Attribute,
    pub(super) value: String,
}

/// Of one kind in one certificate; filters do not grow without end.
const MOST_NAMES: usize = 8;

/// Where a value stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Attribute {
    ObjectSid,
    UserPrincipalName,
    AltSecurityIdentities,
}

impl Attribute {
    fn name(self) -> &'static str {
        match self {
            Self::ObjectSid => "objectSid",
            Self::UserPrincipalName => "userPrincipalName",
            Self::AltSecurityIdentities => "altSecurityIdentities",
        }
    }
}

/// The SIDs that the certificate claims: of its extension, and of its subjectAltName.
pub(super) fn claimed_sids(certificate: &PeerCertificate) -> Vec<&str> {
    let written = certificate.account.sid.as_deref();
    let mut sids: Vec<&str> = written.into_iter().chain(certificate.san.sids()).collect();
    sids.sort_unstable();
    sids.dedup();
    sids
}

/// Every value that may lead to an account: all strong forms, and the weak ones that are listed.
pub(super) fn keys(certificate: &PeerCertificate, weak: &[Form]) -> Vec<Key> {
    let issuers =
        spellings(certificate.issuer.root_first(), certificate.issuer.root_first_escaped());
    let subjects =
        spellings(certificate.subject.root_first(), certificate.subject.root_first_escaped());
    let mut keys = strong(certificate, &issuers);
    if !certificate.subject.is_empty() {
        for subject in &subjects {
            let with =
                |issuer: &String| alt(Form::IssuerSubject, &format!("<I>{issuer}<S>{subject}"));
            keys.extend(issuers.iter().map(with));
            keys.push(alt(Form::Subject, &format!("<S>{subject}")));
        }
    }
    let emails = few(&certificate.san.emails);
    keys.extend(emails.map(|email| alt(Form::Rfc822, &format!("<RFC822>{email}"))));
    keys.extend(few(&certificate.san.upns).map(|upn| Key {
        form: Form::Upn,
        attribute: Attribute::UserPrincipalName,
        value: upn.to_string(),
    }));
    keys.retain(|key| key.form.strength() == Strength::Strong || weak.contains(&key.form));
    keys
}

/// A certificate with more names than people have is known by none of them.
fn few(names: &[Box<str>]) -> impl Iterator<Item = &str> {
    let names = if names.len() <= MOST_NAMES { names } else { &[] };
    names.iter().map(|name| &**name).filter(|name| !name.is_empty())
}

fn strong(certificate: &PeerCertificate, issuers: &[String]) -> Vec<Key> {
    let facts = &certificate.account;
    let mut keys = Vec::new();
    let sids = claimed_sids(certificate).into_iter().filter(|sid| *sid != AccountFacts::UNREADABLE);
    for sid in sids.take(MOST_NAMES) {
        let value = sid.to_owned();
        keys.push(Key { form: Form::Sid, attribute: Attribute::ObjectSid, value });
        keys.extend(
            issuers.iter().map(|issuer| alt(Form::IssuerSid, &format!("<I>{issuer}<SID>{sid}"))),
        );
    }
    for serial in serials(&facts.serial) {
        keys.extend(
            issuers
                .iter()
                .map(|issuer| alt(Form::IssuerSerial, &format!("<I>{issuer}<SR>{serial}"))),
        );
    }
    let key_id = facts.subject_key_id.iter().filter(|id| !id.is_empty());
    keys.extend(key_id.map(|id| alt(Form::SubjectKeyId, &format!("<SKI>{}", hex(id.iter())))));
    let digests = facts.public_key_sha1.iter();
    keys.extend(
        digests.map(|sha1| alt(Form::PublicKey, &format!("<SHA1-PUKEY>{}", hex(sha1.iter())))),
    );
    keys
}

fn alt(form: Form, value: &str) -> Key {
    Key { form, attribute: Attribute::AltSecurityIdentities, value: format!("X509:{value}") }
}

fn spellings(windows: String, escaped: Option<String>) -> Vec<String> {
    let escaped = escaped.filter(|escaped| *escaped != windows);
    std::iter::once(windows).chain(escaped).collect()
}

/// The last octet first, as Windows writes serial numbers; with the zero that DER puts before a high bit and without,
/// because both are met.
fn serials(octets: &[u8]) -> Vec<String> {
    let whole = hex(octets.iter().rev());
    match octets {
        [0, rest @ ..] if !rest.is_empty() => vec![hex(rest.iter().rev()), whole],
        _ => vec![whole],
    }
}

fn hex<'a>(octets: impl Iterator<Item = &'a u8>) -> String {
    octets.map(|octet| format!("{octet:02x}")).collect()
}

/// The filter (RFC 4515) that finds every account which some key leads to.
#[must_use]
pub fn certificate_filter(certificate: &PeerCertificate, weak: &[Form]) -> String {
    let clauses = keys(certificate, weak)
        .iter()
        .map(|key| format!("({}={})", key.attribute.name(), escape_filter(&key.value)))
        .collect::<String>();
    format!("(&(objectClass=user)(|{clauses}))")
}

/// Escapes an assertion value (RFC 4515, 3): whatever is not a plain letter, digit or one of few harmless signs.
#[must_use]
pub fn escape_filter(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'0'..=b'9'
            | b'A'..=b'Z'
            | b'a'..=b'z'
            | b'-'
            | b'.'
            | b'@'
            | b':'
            | b','
            | b'='
            | b'_' => {
                out.push(char::from(byte));
            }
            byte => out.push_str(&format!("\\{byte:02x}")),
        }
    }
    out
}
