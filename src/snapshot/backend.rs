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

    /// Every endpoint once, beginning with the one whose turn it is.
    pub fn in_turn(&self) -> impl Iterator<Item = SocketAddr> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let first = turn.checked_rem(self.endpoints.len()).unwrap_or_default();
        self.endpoints.iter().cycle().skip(first).take(self.endpoints.len()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_take_turns_and_each_comes_once() {
        let addresses: Vec<SocketAddr> =
            (1..=3).map(|host| SocketAddr::from(([10, 0, 0, host], 80))).collect();
        let backend = Backend::new("web/a:80", addresses.clone().into());
        for turn in 0..4 {
            let mut expected = addresses.clone();
            expected.rotate_left(turn % 3);
            assert_eq!(backend.in_turn().collect::<Vec<_>>(), expected);
        }
        assert_eq!(Backend::default().in_turn().next(), None);
    }
}
