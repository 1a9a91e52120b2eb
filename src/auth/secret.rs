//! A value that is never printed.

use std::fmt;

/// Holds a password or the like: `Debug` shows nothing of it, and comparison takes the same time whatever differs.
#[derive(Clone)]
pub struct Secret<T>(T);

impl<T: AsRef<[u8]>> Secret<T> {
    /// Wraps a value.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value, for the one place that needs it.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: AsRef<[u8]>> PartialEq for Secret<T> {
    fn eq(&self, other: &Self) -> bool {
        // Digests are compared, so that not even the length can be timed.
        let digest =
            |value: &T| aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, value.as_ref());
        let (left, right) = (digest(&self.0), digest(&other.0));
        aws_lc_rs::constant_time::verify_slices_are_equal(left.as_ref(), right.as_ref()).is_ok()
    }
}

impl<T: AsRef<[u8]>> Eq for Secret<T> {}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_not_printed() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "<redacted>");
    }

    #[test]
    fn compares_by_value() {
        assert_eq!(Secret::new("a"), Secret::new("a"));
        assert_ne!(Secret::new("a"), Secret::new("ab"));
    }
}
