//! DNS names → addresses, for backends outside of the cluster. Not by the C library: a static program cannot ask it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;

use hickory_resolver::TokioResolver;

/// Why a name leads nowhere.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NameError {
    /// `/etc/resolv.conf` cannot be used.
    #[error("no name server is configured: {0}")]
    Unconfigured(String),
    /// The name server says no, or nothing.
    #[error("{0} cannot be resolved: {1}")]
    NotFound(String, String),
    /// Only addresses that no other machine has.
    #[error("{0} leads to this machine itself, which is not allowed")]
    Local(String),
    /// It takes too long.
    #[error("no name server answers in time")]
    NoAnswer,
}

/// Asks the name servers of the system, and keeps their answers as long as they say.
#[derive(Default)]
pub struct NameLookup {
    resolver: OnceLock<Result<TokioResolver, String>>,
}

impl NameLookup {
    /// Nothing is asked yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The addresses of a name.
    ///
    /// # Errors
    /// There are none that may be used.
    pub async fn find(&self, name: &str, port: u16) -> Result<Vec<SocketAddr>, NameError> {
        let resolver = self.resolver.get_or_init(resolver).as_ref();
        let resolver = resolver.map_err(|error| NameError::Unconfigured(error.clone()))?;
        let found = resolver.lookup_ip(name).await;
        let found =
            found.map_err(|error| NameError::NotFound(name.to_owned(), error.to_string()))?;
        let addresses: Vec<IpAddr> = found.iter().filter(|address| !is_local(*address)).collect();
        if addresses.is_empty() {
            return Err(NameError::Local(name.to_owned()));
        }
        Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }
}

impl fmt::Debug for NameLookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NameLookup").finish_non_exhaustive()
    }
}

fn resolver() -> Result<TokioResolver, String> {
    let builder = TokioResolver::builder_tokio().map_err(|error| error.to_string())?;
    builder.build().map_err(|error| error.to_string())
}

/// Loopback and link-local (where clouds keep their metadata), however they are written.
pub(super) fn is_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_machine_are_known_in_every_spelling() {
        for local in
            ["127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "fe80::1", "0.0.0.0"]
        {
            assert!(is_local(local.parse().unwrap()), "{local}");
        }
        for other in ["10.0.0.1", "2001:db8::1", "192.0.2.1"] {
            assert!(!is_local(other.parse().unwrap()), "{other}");
        }
    }
}
