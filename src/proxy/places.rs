//! Who may open another connection: so many in all, and so many from one address.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::ranges::{AddressRanges, network};
use super::settings::Limits;

/// The places for connections.
#[derive(Debug)]
pub(super) struct Places {
    all: Arc<Semaphore>,
    shares: Arc<Shares>,
    /// Proxies bring many clients on few addresses.
    exempt: AddressRanges,
}

#[derive(Debug)]
struct Shares {
    most: usize,
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// One place among all; free again when dropped.
pub(super) type Place = OwnedSemaphorePermit;

/// One place of those for an address; free again when dropped.
#[derive(Debug)]
pub(super) struct Share(Option<(Arc<Shares>, IpAddr)>);

impl Places {
    pub(super) fn new(limits: &Limits, exempt: AddressRanges) -> Self {
        let most = limits.connections.min(Semaphore::MAX_PERMITS);
        Self {
            all: Arc::new(Semaphore::new(most)),
            shares: Arc::new(Shares {
                most: limits.connections_per_client,
                taken: Mutex::default(),
            }),
            exempt,
        }
    }

    /// A place, if there is one.
    pub(super) fn take(&self) -> Option<Place> {
        self.all.clone().try_acquire_owned().ok()
    }

    /// A place of this client's, if there is one.
    pub(super) fn share(&self, client: IpAddr) -> Option<Share> {
        if self.shares.most == 0 || self.exempt.contains(client) {
            return Some(Share(None));
        }
        let network = network(client);
        let mut taken = self.shares.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(network).or_default();
        if *count >= self.shares.most {
            return None;
        }
        *count += 1;
        Some(Share(Some((self.shares.clone(), network))))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let Some((shares, network)) = self.0.take() else { return };
        let mut taken = shares.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = taken.entry(network) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(connections: usize, connections_per_client: usize) -> Places {
        let limits = Limits { connections, connections_per_client, ..Limits::default() };
        Places::new(&limits, ["10.0.0.0/8".parse().unwrap()].into_iter().collect())
    }

    #[test]
    fn there_are_so_many_in_all_and_one_that_goes_makes_room() {
        let places = places(2, 0);
        let first = places.take().unwrap();
        let _second = places.take().unwrap();
        assert!(places.take().is_none());
        drop(first);
        assert!(places.take().is_some());
    }

    #[test]
    fn one_address_takes_its_share_and_leaves_the_others_theirs() {
        let places = places(100, 2);
        let of = |address: &str| places.share(address.parse().unwrap());
        let held = [of("192.0.2.1"), of("::ffff:192.0.2.1")];
        assert!(held.iter().all(Option::is_some));
        assert!(of("192.0.2.1").is_none());
        assert!(of("192.0.2.2").is_some());
        let network = [of("2001:db8::1"), of("2001:db8::2")];
        assert!(of("2001:db8::3").is_none() && of("2001:db8:0:1::3").is_some());
        drop((held, network));
        assert!(of("192.0.2.1").is_some() && of("2001:db8::3").is_some());
        assert!(places.shares.taken.lock().unwrap().is_empty(), "nothing is kept of who is gone");
    }

    #[test]
    fn a_proxy_brings_as_many_as_it_likes() {
        let places = places(100, 1);
        let held: Vec<_> = (0..5).map(|_| places.share("10.1.2.3".parse().unwrap())).collect();
        assert!(held.iter().all(Option::is_some));
    }
}
