//! Arguments about handshakes.

use clap::{Args, ValueEnum};
use rustls::SupportedCipherSuite;

use super::cluster::object_name;
use crate::app::Rules;
use crate::compile::ObjectName;
use crate::snapshot::{TlsRules, TlsVersion, cipher_suite};

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

fn suite(name: &str) -> Result<SupportedCipherSuite, String> {
    let known = || TlsRules::default().names().join(", ");
    cipher_suite(name).ok_or_else(|| format!("there are {}", known()))
}
