//! What is compared, and what it is to come to.

use clap::ValueEnum;

use crate::load::Mode;
use crate::pki::Kind;

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Figure {
    Full,
    Resumed,
    Mlkem,
    Tls12,
    H1,
    H2,
    Rate,
    Memory,
    Rsa,
    RsaTls12,
    RsaResumed,
}

/// Of nginx 1.26's cost to certmap's: more is better.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Aim {
    pub(crate) aim: f64,
    pub(crate) least: f64,
}

impl Figure {
    /// Its marks in docs/performance.md.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Full => "full handshake and request, ECDSA P-256, TLS 1.3, X25519",
            Self::Rsa => "full handshake and request, RSA-2048, TLS 1.3, X25519",
            Self::RsaTls12 => "full handshake and request, RSA-2048, TLS 1.2, X25519",
            Self::RsaResumed => "resumed handshake and request, RSA-2048, TLS 1.3",
            Self::Mlkem => "full handshake and request, ECDSA P-256, TLS 1.3, X25519MLKEM768",
            Self::Tls12 => "full handshake and request, ECDSA P-256, TLS 1.2, X25519",
            Self::Resumed => "resumed handshake and request, TLS 1.3",
            Self::H1 => "HTTP/1.1 keep-alive, 32 connections",
            Self::H2 => "HTTP/2, 4 connections of 8 streams",
            Self::Rate => "HTTP/1.1 at a fixed rate, half of what certmap can do",
            Self::Memory => "memory",
        }
    }

    pub(crate) fn load(self) -> (Mode, &'static [&'static str]) {
        match self {
            Self::Full | Self::Rsa => (Mode::Full, &[]),
            Self::Mlkem => (Mode::Full, &["--group", "mlkem"]),
            Self::Tls12 | Self::RsaTls12 => (Mode::Full, &["--tls12"]),
            Self::Resumed | Self::RsaResumed => (Mode::Resumed, &[]),
            Self::H1 => (Mode::H1, &[]),
            Self::H2 => (Mode::H2, &[]),
            Self::Rate => (Mode::Rate, &[]),
            Self::Memory => (Mode::Idle, &[]),
        }
    }

    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Rsa | Self::RsaTls12 | Self::RsaResumed => Kind::Rsa,
            _ => Kind::Ec,
        }
    }

    pub(crate) fn aim(self) -> Option<Aim> {
        let (aim, least) = match self {
            Self::Full => (2.3, 1.8),
            Self::Rsa => (1.5, 1.2),
            Self::Mlkem => (2.5, 1.9),
            Self::Resumed => (2.7, 1.8),
            Self::H1 => (1.3, 1.0),
            Self::H2 => (1.6, 1.1),
            Self::Tls12 | Self::RsaTls12 | Self::RsaResumed | Self::Rate | Self::Memory => {
                return None;
            }
        };
        Some(Aim { aim, least })
    }
}
