//! Where requests go: the endpoints of a Service's port, or a name outside of the cluster.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What stands behind a backend.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    /// Usable endpoints, sorted.
    Endpoints(Box<[SocketAddr]>),
    /// A DNS name and a port (a Service of type ExternalName).
    Name(Box<str>, u16),
    /// Nothing that certmap can send requests to.
    Unsupported,
}

impl Default for Target {
    fn default() -> Self {
        Self::Endpoints(Box::default())
    }
}

/// Where requests of a route go.
#[derive(Debug, Default)]
pub struct Backend {
    /// namespace/service:port, for logs.
    pub name: Box<str>,
    /// What stands behind it.
    pub target: Target,
    /// Round robin; the only thing in a snapshot that moves.
    next: AtomicUsize,
}

impl Backend {
    /// A backend with this behind it.
    #[must_use]
    pub fn new(name: &str, target: Target) -> Self {
        Self { name: name.into(), target, next: AtomicUsize::new(0) }
    }

    /// namespace/service, without the port.
    #[must_use]
    pub fn service(&self) -> &str {
        self.name.rsplit_once(':').map_or(&self.name, |(service, _)| service)
    }

    /// Every one of its endpoints once, beginning with the one whose turn it is.
    pub fn in_turn<'a>(
        &self,
        endpoints: &'a [SocketAddr],
    ) -> impl Iterator<Item = SocketAddr> + use<'a> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let first = turn.checked_rem(endpoints.len()).unwrap_or_default();
        endpoints.iter().cycle().skip(first).take(endpoints.len()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_take_turns_and_each_comes_once() {
        let addresses: Vec<SocketAddr> =
            (1..=3).map(|host| SocketAddr::from(([10, 0, 0, host], 80))).collect();
        let backend = Backend::new("web/a:80", Target::default());
        for turn in 0..4 {
            let mut expected = addresses.clone();
            expected.rotate_left(turn % 3);
            assert_eq!(backend.in_turn(&addresses).collect::<Vec<_>>(), expected);
        }
        assert_eq!(Backend::default().in_turn(&[]).next(), None);
    }
}
