//! Which versions and cipher suites a handshake may come to: what the program is told, and what routes demand besides.

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, Error, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};

/// The oldest version that clients may speak.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum TlsVersion {
    /// 1.2
    #[default]
    Tls12,
    /// 1.3
    Tls13,
}

impl TlsVersion {
    /// As people write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tls12 => "1.2",
            Self::Tls13 => "1.3",
        }
    }

    fn of(suite: &SupportedCipherSuite) -> Self {
        if *suite.version() == TLS13 { Self::Tls13 } else { Self::Tls12 }
    }
}

/// What a route demands of the handshakes of its host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteTls {
    /// The oldest version.
    pub oldest: Option<TlsVersion>,
    /// These cipher suites and no others.
    pub suites: Option<Box<[SupportedCipherSuite]>>,
}

/// What handshakes go by.
#[derive(Clone, Debug, Default)]
pub struct TlsRules {
    /// The oldest version.
    pub oldest: TlsVersion,
    /// The cipher suites, the best first; empty for all that are known.
    pub suites: Vec<SupportedCipherSuite>,
}

impl TlsRules {
    /// The provider, with the suites that may be used. Key exchange is safe from computers to come with every client that
    /// prefers that: of groups, the client's order counts.
    pub(super) fn provider(&self) -> CryptoProvider {
        let mut provider = aws_lc_rs::default_provider();
        if !self.suites.is_empty() {
            provider.cipher_suites.clone_from(&self.suites);
        }
        provider.kx_groups = vec![
            kx_group::X25519MLKEM768,
            kx_group::X25519,
            kx_group::SECP256R1,
            kx_group::SECP384R1,
        ];
        provider
    }

    pub(super) fn versions(&self) -> &'static [&'static SupportedProtocolVersion] {
        static ALL: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
        let from = match self.oldest {
            TlsVersion::Tls12 => ALL.get(..),
            TlsVersion::Tls13 => ALL.get(..1),
        };
        from.unwrap_or_default()
    }

    /// Whether any handshake can succeed.
    ///
    /// # Errors
    /// No suite is of an allowed version.
    pub fn check(&self) -> Result<(), Error> {
        ServerConfig::builder_with_provider(self.provider().into())
            .with_protocol_versions(self.versions())
            .map(drop)
    }

    /// These, and what a route demands besides; none where no handshake could meet both, or none of the newest version that
    /// these have: what makes a host stricter must not leave it with the older one alone.
    #[must_use]
    pub fn with(&self, demanded: &RouteTls) -> Option<Self> {
        let oldest = demanded.oldest.map_or(self.oldest, |oldest| oldest.max(self.oldest));
        let both = Self { oldest, suites: self.suites.clone() };
        let wanted = |suite: &&SupportedCipherSuite| {
            demanded.suites.as_ref().is_none_or(|suites| suites.contains(suite))
        };
        let suites: Vec<SupportedCipherSuite> = both.allowed().filter(wanted).copied().collect();
        let newest = |suites: &mut dyn Iterator<Item = &SupportedCipherSuite>| {
            suites.map(TlsVersion::of).max()
        };
        let keeps_newest = newest(&mut suites.iter()) == newest(&mut self.allowed());
        (keeps_newest && !suites.is_empty()).then_some(Self { oldest, suites })
    }

    /// Whether a handshake that came to this suite, and to its version, is good enough.
    #[must_use]
    pub fn admit(&self, suite: CipherSuite) -> bool {
        self.allowed().any(|allowed| allowed.suite() == suite)
    }

    /// What handshakes can come to, in numbers: the same for rules that come to the same.
    #[must_use]
    pub fn numbers(&self) -> Vec<u16> {
        let mut numbers: Vec<u16> = self.allowed().map(|suite| suite.suite().into()).collect();
        numbers.sort_unstable();
        numbers
    }

    /// The names of the suites that handshakes can come to.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.allowed().map(suite_name).collect()
    }

    fn allowed(&self) -> impl Iterator<Item = &SupportedCipherSuite> {
        let known =
            if self.suites.is_empty() { aws_lc_rs::ALL_CIPHER_SUITES } else { &self.suites };
        known.iter().filter(|suite| TlsVersion::of(suite) >= self.oldest)
    }
}

/// A suite by the name of IANA's registry (rustls calls those of TLS 1.3 TLS13_…).
#[must_use]
pub fn cipher_suite(name: &str) -> Option<SupportedCipherSuite> {
    let name = name.replace("TLS13_", "TLS_");
    aws_lc_rs::ALL_CIPHER_SUITES.iter().find(|suite| suite_name(suite) == name).copied()
}

fn suite_name(suite: &SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite()).replace("TLS13_", "TLS_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const AES_128: &str = "TLS_AES_128_GCM_SHA256";
    const AES_256: &str = "TLS_AES_256_GCM_SHA384";
    const OLD: &str = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256";

    fn demand(oldest: Option<TlsVersion>, suites: &[&str]) -> RouteTls {
        let named = suites.iter().map(|name| cipher_suite(name).unwrap());
        RouteTls { oldest, suites: (!suites.is_empty()).then(|| named.collect()) }
    }

    fn admits(rules: &TlsRules, name: &str) -> bool {
        rules.admit(cipher_suite(name).unwrap().suite())
    }

    #[test]
    fn suites_have_the_names_of_the_registry() {
        for name in [AES_256, "TLS13_AES_256_GCM_SHA384"] {
            assert_eq!(cipher_suite(name).unwrap().suite(), CipherSuite::TLS13_AES_256_GCM_SHA384);
        }
        assert!(cipher_suite("TLS_RSA_WITH_RC4_128_MD5").is_none());
        assert_eq!(TlsRules::default().names().len(), aws_lc_rs::ALL_CIPHER_SUITES.len());
    }

    #[test]
    fn the_strictest_counts_whatever_comes_first() {
        let floor = TlsRules::default();
        let (newer, one) = (demand(Some(TlsVersion::Tls13), &[]), demand(None, &[AES_128, OLD]));
        let both = [(&newer, &one), (&one, &newer)]
            .map(|(first, second)| floor.with(first).and_then(|rules| rules.with(second)).unwrap());
        for rules in both {
            assert_eq!(
                (rules.oldest, rules.names()),
                (TlsVersion::Tls13, vec![AES_128.to_owned()])
            );
            assert!(admits(&rules, AES_128) && !admits(&rules, AES_256) && !admits(&rules, OLD));
            rules.check().unwrap();
        }
        let older = demand(Some(TlsVersion::Tls12), &[]);
        let strict = TlsRules { oldest: TlsVersion::Tls13, ..TlsRules::default() };
        assert!(
            !admits(&strict.with(&older).unwrap(), OLD),
            "the program's own rules are the floor"
        );
    }

    #[test]
    fn what_no_handshake_could_meet_is_none() {
        let floor =
            TlsRules { suites: vec![cipher_suite(AES_128).unwrap()], ..TlsRules::default() };
        assert!(floor.with(&demand(None, &[AES_256])).is_none());
        let older = TlsRules { suites: vec![cipher_suite(OLD).unwrap()], ..TlsRules::default() };
        assert!(older.with(&demand(Some(TlsVersion::Tls13), &[])).is_none());
        assert!(older.with(&demand(None, &[AES_256])).is_none());
    }

    #[test]
    fn no_demand_takes_the_newest_version_away() {
        assert!(TlsRules::default().with(&demand(None, &[OLD])).is_none());
        let (one, other) = (demand(None, &[AES_128, OLD]), demand(None, &[AES_256, OLD]));
        let rules = TlsRules::default().with(&one).unwrap();
        assert!(rules.with(&other).is_none(), "only the older version would be left");
        // Where the program itself has none of the newest, there is none to take away.
        let older = TlsRules { suites: vec![cipher_suite(OLD).unwrap()], ..TlsRules::default() };
        assert_eq!(older.with(&one).unwrap().names(), [OLD]);
    }
}
