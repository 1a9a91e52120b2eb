//! How often somebody may ask: a bucket for each limit and each address or account (GCRA). Memory has a bound. Where more
//! ask than there are places, those who ask seldom lose theirs first, and with it nothing but what they had used up.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use moka::Expiry;
use moka::sync::Cache;

use crate::identity::Fingerprint;
use crate::proxy::ranges::network;
use crate::snapshot::{RateKey, RateLimit, RouteSettings};

/// Buckets that are kept; one takes a few hundred octets.
const MOST_BUCKETS: u64 = 65_536;

/// Who has used up how much.
#[derive(Debug)]
pub(in crate::proxy) struct RateLimits {
    buckets: Cache<Key, Bucket>,
    clock: DefaultClock,
}

type Bucket = Arc<DefaultDirectRateLimiter>;

/// A limit that is changed begins anew, and so does nothing else.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Key {
    policy: Arc<str>,
    limit: RateLimit,
    who: Who,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Who {
    Address(IpAddr),
    /// Of the account's name, which may be long.
    Account(Fingerprint),
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asking<'a> {
    pub(super) address: IpAddr,
    pub(super) account: Option<&'a str>,
}

impl RateLimits {
    pub(in crate::proxy) fn new() -> Self {
        let buckets = Cache::builder().max_capacity(MOST_BUCKETS).expire_after(UntilFull).build();
        Self { buckets, clock: DefaultClock::default() }
    }

    /// Takes one from each bucket of this kind.
    ///
    /// # Errors
    /// One is empty, and for how long.
    pub(super) fn take(
        &self,
        settings: &RouteSettings,
        per: RateKey,
        asking: Asking<'_>,
    ) -> Result<(), Duration> {
        settings
            .rate_limits
            .iter()
            .filter(|limit| limit.per == per)
            .try_for_each(|limit| self.take_one(&settings.name, *limit, asking))
    }

    fn take_one(
        &self,
        policy: &Arc<str>,
        limit: RateLimit,
        asking: Asking<'_>,
    ) -> Result<(), Duration> {
        let who = match (limit.per, asking.account) {
            (RateKey::Account, Some(account)) => Who::Account(Fingerprint::of(account.as_bytes())),
            _ => Who::Address(network(asking.address)),
        };
        // A limit that admits nobody, should there be one.
        let quota = quota(limit).ok_or(limit.period)?;
        let key = Key { policy: policy.clone(), limit, who };
        let full = || Arc::new(RateLimiter::direct_with_clock(quota, self.clock.clone()));
        let bucket = self.buckets.get_with(key, full);
        bucket.check().map_err(|until| until.wait_time_from(self.clock.now()))
    }
}

fn quota(limit: RateLimit) -> Option<Quota> {
    let one = limit.period.checked_div(limit.requests)?;
    Some(Quota::with_period(one)?.allow_burst(NonZeroU32::new(limit.burst)?))
}

/// A bucket that nobody took from until it was full again is as good as none.
struct UntilFull;

impl Expiry<Key, Bucket> for UntilFull {
    fn expire_after_create(&self, key: &Key, _: &Bucket, _: Instant) -> Option<Duration> {
        quota(key.limit).map(|quota| quota.burst_size_replenished_in())
    }

    fn expire_after_read(
        &self,
        key: &Key,
        _: &Bucket,
        _: Instant,
        _: Option<Duration>,
        _: Instant,
    ) -> Option<Duration> {
        quota(key.limit).map(|quota| quota.burst_size_replenished_in())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(name: &str, limits: &[(RateKey, u32, u32)]) -> RouteSettings {
        let period = Duration::from_secs(3600);
        let limit = |&(per, requests, burst): &_| RateLimit { per, requests, period, burst };
        RouteSettings {
            name: name.into(),
            rate_limits: limits.iter().map(limit).collect(),
            ..RouteSettings::default()
        }
    }

    fn from(address: &str) -> Asking<'static> {
        Asking { address: address.parse().unwrap(), account: None }
    }

    #[test]
    fn a_burst_passes_and_then_one_waits_for_the_next() {
        let limits = RateLimits::new();
        let settings = settings("web/a", &[(RateKey::ClientAddress, 60, 3)]);
        let take = || limits.take(&settings, RateKey::ClientAddress, from("192.0.2.1"));
        for _ in 0..3 {
            assert_eq!(take(), Ok(()));
        }
        let wait = take().unwrap_err();
        assert!(wait > Duration::from_secs(50) && wait <= Duration::from_secs(60), "{wait:?}");
        let other = limits.take(&settings, RateKey::ClientAddress, from("192.0.2.2"));
        assert_eq!(other, Ok(()));
        assert_eq!(limits.take(&settings, RateKey::Account, from("192.0.2.1")), Ok(()), "none");
    }

    #[test]
    fn addresses_of_one_network_are_one_client() {
        let limits = RateLimits::new();
        let settings = settings("web/a", &[(RateKey::ClientAddress, 1, 1)]);
        let take = |address| limits.take(&settings, RateKey::ClientAddress, from(address)).is_ok();
        assert!(take("2001:db8:0:1::1") && !take("2001:db8:0:1:ffff::2"));
        assert!(take("2001:db8:0:2::1"));
        assert!(take("192.0.2.1") && !take("::ffff:192.0.2.1"));
    }

    #[test]
    fn an_account_is_counted_wherever_it_comes_from_and_nobody_by_address() {
        let limits = RateLimits::new();
        let settings = settings("web/a", &[(RateKey::Account, 1, 1)]);
        let take = |address, account| {
            let asking = Asking { account, ..from(address) };
            limits.take(&settings, RateKey::Account, asking).is_ok()
        };
        assert!(take("192.0.2.1", Some("alice")) && !take("192.0.2.2", Some("alice")));
        assert!(take("192.0.2.1", Some("bob")));
        assert!(take("192.0.2.1", None) && !take("192.0.2.1", None));
        assert!(take("192.0.2.2", None));
    }

    #[test]
    fn every_limit_of_every_policy_has_buckets_of_its_own() {
        let limits = RateLimits::new();
        let both = [(RateKey::ClientAddress, 10, 10), (RateKey::ClientAddress, 1, 1)];
        let (first, second) = (settings("web/a", &both), settings("web/b", &both));
        let take =
            |settings| limits.take(settings, RateKey::ClientAddress, from("192.0.2.1")).is_ok();
        assert!(take(&first) && !take(&first), "the narrower one counts");
        assert!(take(&second));
    }

    #[test]
    fn a_limit_that_makes_no_sense_admits_nobody() {
        let limits = RateLimits::new();
        for (requests, burst) in [(0, 1), (1, 0)] {
            let settings = settings("web/a", &[(RateKey::ClientAddress, requests, burst)]);
            let asked = limits.take(&settings, RateKey::ClientAddress, from("192.0.2.1"));
            assert_eq!(asked, Err(Duration::from_secs(3600)));
        }
    }

    #[test]
    fn memory_has_a_bound() {
        let limits = RateLimits::new();
        let settings = settings("web/a", &[(RateKey::ClientAddress, 1, 1)]);
        for host in 0..2 * MOST_BUCKETS as u32 {
            let asking =
                Asking { address: std::net::Ipv4Addr::from_bits(host).into(), account: None };
            assert!(limits.take(&settings, RateKey::ClientAddress, asking).is_ok());
        }
        limits.buckets.run_pending_tasks();
        assert!(limits.buckets.entry_count() <= MOST_BUCKETS);
    }
}
