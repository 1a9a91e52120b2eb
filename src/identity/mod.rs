//! Certificate bytes → facts: who a certificate names, who issued it, when it holds.
//!
//! Pure: no clock, no sockets, nothing that waits. Nothing here says whether a certificate may be believed; that is
//! `policy`'s. Names are read from the DER, never from printed text, because a printed name can be made to say anything.

mod account_facts;
mod certificate;
mod encoding;
mod fingerprint;
mod name;
mod ocsp;
mod san;

pub use account_facts::AccountFacts;
pub use certificate::{CertificateError, PeerCertificate, Validity, Written, serial};
pub use encoding::{EncodingError, read_certificates};
pub use fingerprint::{Fingerprint, FingerprintError};
pub use name::{Attribute, AttributeType, DistinguishedName, NameError};
pub use ocsp::{OcspError, good_until};
pub use san::SubjectAltName;
