//! One comparison of a many-to-one mapping.

use std::fmt;

use super::pattern::Pattern;
use crate::api::{CertificateField, MatchRule};
use crate::identity::{AttributeType, DistinguishedName, PeerCertificate};

/// A compiled rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    /// Whose name is compared.
    pub field: CertificateField,
    /// Which attribute of it.
    pub attribute: AttributeType,
    /// What one of its values must be.
    pub pattern: Pattern,
}

/// A `certificateSubField` that is neither a known short name nor an object identifier.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{0} is not an attribute: write CN, OU, O, L, S, C, DC, E, UID, serialNumber, T, GN, SN, I, STREET or a dotted OID"
)]
pub struct UnknownAttribute(pub String);

/// The field of a rule that did not match, and both values.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mismatch {
    /// Such as `Issuer.O`.
    pub field: String,
    /// The criterion.
    pub expected: String,
    /// The values in the certificate; empty where it has none.
    pub actual: Vec<String>,
}

impl Rule {
    /// Compiles a rule.
    ///
    /// # Errors
    /// The attribute is unknown.
    pub fn new(rule: &MatchRule) -> Result<Self, UnknownAttribute> {
        let attribute = AttributeType::parse(&rule.certificate_sub_field)
            .ok_or_else(|| UnknownAttribute(rule.certificate_sub_field.clone()))?;
        let pattern = Pattern::new(&rule.match_criteria, rule.compare_case_sensitive);
        Ok(Self { field: rule.certificate_field, attribute, pattern })
    }

    /// Whether any value of the attribute matches.
    #[must_use]
    pub fn matches(&self, certificate: &PeerCertificate) -> bool {
        let mut values = name(certificate, self.field).values(&self.attribute);
        values.any(|value| self.pattern.matches(value))
    }

    /// Why it does not match, for the trace.
    #[must_use]
    pub fn mismatch(&self, certificate: &PeerCertificate) -> Option<Mismatch> {
        (!self.matches(certificate)).then(|| Mismatch {
            field: self.to_string(),
            expected: self.pattern.as_str().to_owned(),
            actual: name(certificate, self.field)
                .values(&self.attribute)
                .map(str::to_owned)
                .collect(),
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}.{}", self.field, self.attribute)
    }
}

/// The name that a field stands for.
#[must_use]
pub(super) fn name(certificate: &PeerCertificate, field: CertificateField) -> &DistinguishedName {
    match field {
        CertificateField::Subject => &certificate.subject,
        CertificateField::Issuer => &certificate.issuer,
    }
}
