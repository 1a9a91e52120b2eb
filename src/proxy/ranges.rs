//! Ranges of addresses: who is believed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

/// One range, such as 10.0.0.0/8 or 2001:db8::1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AddressRange {
    network: IpAddr,
    length: u8,
}

/// What is no range.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("write ADDRESS/LENGTH, such as 10.0.0.0/8, 2001:db8::/32 or 192.0.2.1")]
pub struct RangeError;

/// Several ranges; none holds no address.
#[derive(Clone, Debug, Default)]
pub struct AddressRanges(Arc<[AddressRange]>);

impl AddressRange {
    /// Whether the address is in it. An IPv4 address is one in whatever form it came.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        masked(address.to_canonical(), self.length) == Some(self.network)
            && address.to_canonical().is_ipv4() == self.network.is_ipv4()
    }
}

impl FromStr for AddressRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| RangeError)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let length = length.map_or(Ok(longest), str::parse).map_err(|_| RangeError)?;
        let network = masked(address, length).ok_or(RangeError)?;
        Ok(Self { network, length })
    }
}

/// The address with nothing behind its first `length` bits; none where it has not so many.
fn masked(address: IpAddr, length: u8) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => {
            let rest = 32_u8.checked_sub(length)?;
            let mask = u32::MAX.checked_shl(rest.into()).unwrap_or(0);
            Some(Ipv4Addr::from_bits(address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let rest = 128_u8.checked_sub(length)?;
            let mask = u128::MAX.checked_shl(rest.into()).unwrap_or(0);
            Some(Ipv6Addr::from_bits(address.to_bits() & mask).into())
        }
    }
}

/// The network that counts as one client: an IPv4 address, or the /64 of an IPv6 one (RFC 6177).
pub(super) fn network(address: IpAddr) -> IpAddr {
    let address = address.to_canonical();
    let length = if address.is_ipv4() { 32 } else { 64 };
    masked(address, length).unwrap_or(address)
}

impl AddressRanges {
    /// Whether the address is in one of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|range| range.contains(address))
    }
}

impl FromIterator<AddressRange> for AddressRanges {
    fn from_iter<I: IntoIterator<Item = AddressRange>>(ranges: I) -> Self {
        Self(ranges.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(range: &str, address: &str) -> bool {
        range.parse::<AddressRange>().unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn a_range_holds_what_begins_as_it_does() {
        for (range, address, expected) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.1.2.3/8", "10.9.9.9", true),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "::ffff:10.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("2001:db8::1", "2001:db8::2", false),
        ] {
            assert_eq!(holds(range, address), expected, "{range} {address}");
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in
            ["", "x", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0/8", "10.0.0.0/-1", "a/8"]
        {
            assert_eq!(text.parse::<AddressRange>(), Err(RangeError), "{text}");
        }
    }

    #[test]
    fn one_client_of_ipv6_is_a_network() {
        let same = |a: &str, b: &str| network(a.parse().unwrap()) == network(b.parse().unwrap());
        assert!(same("2001:db8::1", "2001:db8::ffff:1"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(same("::ffff:192.0.2.1", "192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
    }
}
