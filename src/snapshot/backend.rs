//! Where requests go: the endpoints of a Service's port, or a name outside of the cluster; and what is known of each from
//! the requests before. The states are the only things in a snapshot that move, and outlive it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What a backend speaks, as far as its Service says.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 without TLS, from its first octet on.
    H2c,
    /// TLS, and HTTP/2 or HTTP/1.1 as the backend likes.
    Https,
    /// HTTP/2 over TLS.
    H2,
}

impl Protocol {
    /// Whether it is spoken over TLS.
    #[must_use]
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::H2)
    }
}

/// What stands behind a backend.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    /// Usable endpoints, sorted.
    Endpoints(Box<[Endpoint]>),
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

/// One pod, or whatever stands at these addresses. Two are equal when what was written of them is.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// One for each family; the first that accepts is used.
    pub addresses: Box<[SocketAddr]>,
    /// Its share, beside the others'.
    pub weight: u16,
    /// Whether the cluster wants this zone's requests here.
    pub near: bool,
    /// What is known of it.
    pub state: Arc<EndpointState>,
}

impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        self.addresses == other.addresses && self.weight == other.weight && self.near == other.near
    }
}

impl Eq for Endpoint {}

impl Endpoint {
    /// An endpoint like any other, of which nothing is known.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { addresses: [address].into(), weight: 1, near: true, state: Arc::default() }
    }
}

/// What requests found out about an endpoint. Times are milliseconds of the reader's own clock, 0 being never.
#[derive(Debug, Default)]
pub struct EndpointState {
    /// Requests that it has not answered to the end.
    pub outstanding: AtomicU32,
    /// Failures in a row.
    pub failures: AtomicU32,
    /// How often it was put out, lately.
    pub ejections: AtomicU32,
    /// It rests until then.
    pub out_until: AtomicU64,
    /// When it was first thought of.
    pub since: AtomicU64,
    /// What names it in cookies, under a key.
    tag: Mutex<Option<([u8; 32], Arc<str>)>>,
}

impl EndpointState {
    /// Its name under a key, which is worked out once.
    pub fn tag(&self, key: &[u8; 32], make: impl FnOnce() -> Arc<str>) -> Arc<str> {
        let mut tag = self.tag.lock().unwrap_or_else(PoisonError::into_inner);
        match &*tag {
            Some((under, tag)) if under == key => tag.clone(),
            _ => tag.insert((*key, make())).1.clone(),
        }
    }

    /// Whether it rests.
    #[must_use]
    pub fn is_out(&self, now: u64) -> bool {
        self.out_until.load(Ordering::Relaxed) > now
    }
}

/// What is known of a backend as a whole.
#[derive(Debug)]
pub struct BackendState {
    /// Whose turn it is.
    pub turn: AtomicU64,
    /// What may be spent on retries, in hundredths of a request.
    pub allowance: AtomicI64,
}

impl BackendState {
    /// So much can be saved up, and is there at the beginning.
    pub const MOST_ALLOWANCE: i64 = 1000;
}

impl Default for BackendState {
    fn default() -> Self {
        Self { turn: AtomicU64::new(0), allowance: AtomicI64::new(Self::MOST_ALLOWANCE) }
    }
}

/// Where requests of a route go.
#[derive(Debug, Default)]
pub struct Backend {
    /// namespace/service:port, for logs.
    pub name: Box<str>,
    /// What stands behind it.
    pub target: Target,
    /// What it speaks.
    pub protocol: Protocol,
    /// The greatest weight of an endpoint.
    pub heaviest: u16,
    /// What is known of it.
    pub state: Arc<BackendState>,
}

impl Backend {
    /// A backend with this behind it, of which nothing is known.
    #[must_use]
    pub fn new(name: &str, target: Target, protocol: Protocol) -> Self {
        let heaviest = match &target {
            Target::Endpoints(endpoints) => endpoints.iter().map(|it| it.weight).max(),
            Target::Name(..) | Target::Unsupported => None,
        };
        let (heaviest, state) = (heaviest.unwrap_or(1), Arc::default());
        Self { name: name.into(), target, protocol, heaviest, state }
    }

    /// The same, with what is known of an earlier one and of those endpoints that it had too.
    #[must_use]
    pub fn after(mut self, earlier: &Self) -> Self {
        self.state = earlier.state.clone();
        if let (Target::Endpoints(now), Target::Endpoints(then)) =
            (&mut self.target, &earlier.target)
        {
            for endpoint in now {
                if let Some(old) = then.iter().find(|old| old.addresses == endpoint.addresses) {
                    endpoint.state = old.state.clone();
                }
            }
        }
        self
    }

    /// namespace/service, without the port.
    #[must_use]
    pub fn service(&self) -> &str {
        self.name.rsplit_once(':').map_or(&self.name, |(service, _)| service)
    }

    /// Every address once, beginning with the one whose turn it is.
    pub fn in_turn<'a>(
        &self,
        addresses: &'a [SocketAddr],
    ) -> impl Iterator<Item = SocketAddr> + use<'a> {
        let turn = usize::try_from(self.state.turn.fetch_add(1, Ordering::Relaxed));
        let first = turn.unwrap_or_default().checked_rem(addresses.len()).unwrap_or_default();
        addresses.iter().cycle().skip(first).take(addresses.len()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> Vec<SocketAddr> {
        (1..=3).map(|host| SocketAddr::from(([10, 0, 0, host], 80))).collect()
    }

    #[test]
    fn endpoints_take_turns_and_each_comes_once() {
        let addresses = addresses();
        let backend = Backend::new("web/a:80", Target::default(), Protocol::Http1);
        for turn in 0..4 {
            let mut expected = addresses.clone();
            expected.rotate_left(turn % 3);
            assert_eq!(backend.in_turn(&addresses).collect::<Vec<_>>(), expected);
        }
        assert_eq!(Backend::default().in_turn(&[]).next(), None);
    }

    #[test]
    fn what_is_known_of_an_endpoint_outlives_its_backend() {
        let backend = |addresses: &[SocketAddr]| {
            let endpoints = addresses.iter().map(|address| Endpoint::new(*address)).collect();
            Backend::new("web/a:80", Target::Endpoints(endpoints), Protocol::Http1)
        };
        let states = |backend: &Backend| match &backend.target {
            Target::Endpoints(endpoints) => {
                endpoints.iter().map(|it| it.state.clone()).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        };
        let addresses = addresses();
        let old = backend(&addresses[..2]);
        states(&old)[1].failures.store(3, Ordering::Relaxed);
        let new = backend(&addresses[1..]).after(&old);
        assert!(Arc::ptr_eq(&states(&old)[1], &states(&new)[0]));
        assert_eq!(states(&new)[1].failures.load(Ordering::Relaxed), 0);
        assert!(Arc::ptr_eq(&old.state, &new.state));
    }

    #[test]
    fn a_tag_is_made_once_for_a_key() {
        let state = EndpointState::default();
        assert_eq!(&*state.tag(&[1; 32], || "one".into()), "one");
        assert_eq!(&*state.tag(&[1; 32], || "other".into()), "one");
        assert_eq!(&*state.tag(&[2; 32], || "two".into()), "two");
    }
}
