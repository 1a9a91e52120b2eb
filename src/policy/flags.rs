//! IIS's `sslFlags` with IIS's bits.

use crate::api::SslFlag;

/// A set of flags.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SslFlags(u16);

impl SslFlags {
    /// Whether the flag is set.
    #[must_use]
    pub fn contains(self, flag: SslFlag) -> bool {
        let bit = bit(flag);
        self.0 & bit == bit
    }

    /// Whether one of them makes a certificate compulsory.
    #[must_use]
    pub fn demand_certificate(self) -> bool {
        self.contains(SslFlag::SslRequireCert) || self.contains(SslFlag::SslMapCert)
    }

    /// A number that is higher the more is demanded of a client.
    #[must_use]
    pub fn strictness(self) -> u16 {
        self.0 & !bit(SslFlag::Ssl128)
    }
}

impl FromIterator<SslFlag> for SslFlags {
    fn from_iter<T: IntoIterator<Item = SslFlag>>(flags: T) -> Self {
        Self(flags.into_iter().fold(0, |bits, flag| bits | bit(flag)))
    }
}

fn bit(flag: SslFlag) -> u16 {
    match flag {
        SslFlag::None => 0,
        SslFlag::Ssl => 8,
        SslFlag::SslNegotiateCert => 32,
        SslFlag::SslRequireCert => 64,
        SslFlag::SslMapCert => 128,
        SslFlag::Ssl128 => 256,
    }
}
