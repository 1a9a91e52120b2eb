//! Arguments about handshakes.

use clap::{Args, ValueEnum};
use rustls::SupportedCipherSuite;
use rustls::crypto::aws_lc_rs;

use super::cluster::object_name;
use crate::app::Rules;
use crate::compile::ObjectName;
use crate::snapshot::{TlsRules, TlsVersion};

/// What every handshake goes by.
#[derive(Args, Clone, Debug)]
pub(super) struct TlsArguments {
    /// The oldest version of TLS that clients may speak
    #[arg(long, value_name = "VERSION", value_enum, default_value_t = Oldest::Tls12)]
    tls_min_version: Oldest,
    /// The cipher suites, the best first; without it all that are known
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = suite)]
    tls_cipher_suites: Vec<SupportedCipherSuite>,
    /// The Secret with keys for session tickets (current.key, previous.key, next.key), which replicas share
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = object_name)]
    ticket_key_secret: Option<ObjectName>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Oldest {
    #[value(name = "1.2")]
    Tls12,
    #[value(name = "1.3")]
    Tls13,
}

impl TlsArguments {
    pub(super) fn rules(&self, rules: Rules) -> Rules {
        let oldest = match self.tls_min_version {
            Oldest::Tls12 => TlsVersion::Tls12,
            Oldest::Tls13 => TlsVersion::Tls13,
        };
        let tls = TlsRules { oldest, suites: self.tls_cipher_suites.clone() };
        Rules { tls, ticket_keys: self.ticket_key_secret.clone(), ..rules }
    }
}

/// By the name of IANA's registry (rustls calls those of TLS 1.3 TLS13_…).
fn suite(name: &str) -> Result<SupportedCipherSuite, String> {
    let named =
        |suite: &SupportedCipherSuite| format!("{:?}", suite.suite()).replace("TLS13_", "TLS_");
    let known = aws_lc_rs::ALL_CIPHER_SUITES;
    let found = known.iter().find(|suite| named(suite) == name.replace("TLS13_", "TLS_"));
    found.copied().ok_or_else(|| {
        let names: Vec<String> = known.iter().map(named).collect();
        format!("there are {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_have_the_names_of_the_registry() {
        for name in ["TLS_AES_256_GCM_SHA384", "TLS13_AES_256_GCM_SHA384"] {
            assert_eq!(suite(name).unwrap().suite(), rustls::CipherSuite::TLS13_AES_256_GCM_SHA384);
        }
        assert!(suite("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256").is_ok());
        let error = suite("TLS_RSA_WITH_RC4_128_MD5").unwrap_err();
        assert!(error.starts_with("there are TLS_AES_256_GCM_SHA384, "), "{error}");
    }
}
