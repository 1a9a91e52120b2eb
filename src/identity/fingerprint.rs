//! The SHA-256 of a certificate's DER: what a one-to-one mapping compares.

use std::fmt;

use aws_lc_rs::digest;

/// A SHA-256 digest.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Fingerprint([u8; 32]);

/// Text that is not a fingerprint.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a SHA-256 fingerprint is 64 hex digits, with or without colons; this has {digits}")]
pub struct FingerprintError {
    digits: usize,
}

impl Fingerprint {
    /// The fingerprint of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut digest_bytes = [0; 32];
        digest_bytes.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
        Self(digest_bytes)
    }

    /// Reads 64 hex digits, in either case, with or without colons or spaces.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(text: &str) -> Result<Self, FingerprintError> {
        let digits: Option<Vec<u8>> = text
            .chars()
            .filter(|c| !matches!(c, ':' | ' '))
            .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect();
        let digits = digits.unwrap_or_default();
        let error = FingerprintError { digits: digits.len() };
        let bytes: Vec<u8> = digits
            .chunks_exact(2)
            .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit))
            .collect();
        if digits.len() != 64 {
            return Err(error);
        }
        bytes.try_into().map(Self).map_err(|_| error)
    }

    /// The digest itself.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 16 hex digits, for people to tell fingerprints apart.
    #[must_use]
    pub fn abbreviated(&self) -> String {
        self.to_string().chars().take(16).chain(['…']).collect()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_sha256_of_the_bytes() {
        assert_eq!(
            Fingerprint::of(b"abc").to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn colons_and_case_do_not_matter() {
        let plain = Fingerprint::of(b"abc");
        let coloned: Vec<String> = plain.as_bytes().iter().map(|b| format!("{b:02X}")).collect();
        assert_eq!(Fingerprint::parse(&coloned.join(":")), Ok(plain));
        assert_eq!(Fingerprint::parse(&plain.to_string()), Ok(plain));
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["", "abc", &"0".repeat(63), &"0".repeat(66), &"g".repeat(64)] {
            assert!(Fingerprint::parse(text).is_err(), "{text}");
        }
    }
}
