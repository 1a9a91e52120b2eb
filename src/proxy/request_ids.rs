//! What requests are called: no two in this process alike, nor most likely in any other. Nothing may rest on a name being
//! a secret.

use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderValue;

/// Names for requests. Who knows one may tell the next.
#[derive(Debug)]
pub(super) struct RequestIds {
    prefix: u64,
    /// What makes numbers of traces and spans look like none.
    secrets: [u64; 2],
    next: AtomicU64,
}

impl RequestIds {
    pub(super) fn new() -> Result<Self, aws_lc_rs::error::Unspecified> {
        let mut random = [[0; 8]; 3];
        for part in &mut random {
            aws_lc_rs::rand::fill(part)?;
        }
        let [prefix, trace, span] = random.map(u64::from_be_bytes);
        Ok(Self { prefix, secrets: [trace, span], next: AtomicU64::new(1) })
    }

    pub(super) fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn name(&self, number: u64) -> HeaderValue {
        let mut left = u128::from(self.prefix) << 64 | u128::from(number);
        let mut id = [0; 32];
        for digit in id.iter_mut().rev() {
            let value = (left & 0xF) as u8;
            *digit = if value < 10 { b'0' + value } else { b'a' + value - 10 };
            left >>= 4;
        }
        HeaderValue::from_bytes(&id).unwrap_or_else(|_| HeaderValue::from_static("none"))
    }

    /// For a trace that begins with this request, and for a span. Neither is 0, which would be none.
    pub(super) fn trace(&self, number: u64) -> (u128, u64) {
        let [trace, span] = self.secrets.map(|secret| mixed(number ^ secret));
        let trace = u128::from(self.prefix) << 64 | u128::from(trace);
        (trace.max(1), span.max(1))
    }
}

/// Another number for each number (the last step of SplitMix64).
fn mixed(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ number >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ number >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_alike() {
        let (one, other) = (RequestIds::new().unwrap(), RequestIds::new().unwrap());
        let numbers = [one.next(), one.next()];
        assert_ne!(one.name(numbers[0]), one.name(numbers[1]));
        assert_ne!(one.trace(numbers[0]), one.trace(numbers[1]));
        assert_ne!(one.name(1), other.name(1));
        assert_eq!(one.name(0xAF), format!("{:016x}00000000000000af", one.prefix));
    }
}
