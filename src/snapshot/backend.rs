//! The ready endpoints of a Service's port.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Where requests of a route go.
#[derive(Debug, Default)]
pub struct Backend {
    /// namespace/service:port, for logs.
    pub name: Box<str>,
    /// Ready endpoints, sorted.
    pub endpoints: Box<[SocketAddr]>,
    /// Round robin; the only thing in a snapshot that moves.
    next: AtomicUsize,
}

impl Backend {
    /// A backend with these endpoints.
    #[must_use]
    pub fn new(name: &str, endpoints: Box<[SocketAddr]>) -> Self {
        Self { name: name.into(), endpoints, next: AtomicUsize::new(0) }
    }

    /// The next endpoint in turn; none where none is ready.
    #[must_use]
    pub fn pick(&self) -> Option<SocketAddr> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.endpoints.get(turn.checked_rem(self.endpoints.len())?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_take_turns() {
        let addresses: Vec<SocketAddr> =
            vec!["10.0.0.1:80".parse().unwrap(), "10.0.0.2:80".parse().unwrap()];
        let backend = Backend::new("web/a:80", addresses.clone().into());
        let picked: Vec<_> = (0..4).filter_map(|_| backend.pick()).collect();
        assert_eq!(picked, [addresses.clone(), addresses].concat());
        assert_eq!(Backend::default().pick(), None);
    }
}
