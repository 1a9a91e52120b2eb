//! Which endpoint: the better of two, by what each is busy with.
//!
//! One of the two is whose turn it is, the other one is drawn; a tie is the former's. So endpoints at rest take turns, and
//! nobody waits behind one that is slow.

use std::sync::LazyLock;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use crate::snapshot::{BackendState, Balance, Ejection, Endpoint};

/// A dead endpoint costs one connect timeout each: not more than this many.
const MOST_ENDPOINTS: usize = 3;
/// So often it is drawn before all are looked at.
const DRAWS: u64 = 8;
/// A new endpoint's share begins at this many hundredths.
const LEAST_SHARE: u64 = 10;
/// A rest is at most so many times the first.
const LONGEST_REST: u64 = 10;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Milliseconds since this was first asked; never 0.
pub(super) fn now() -> u64 {
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX - 1).saturating_add(1)
}

/// What endpoints are chosen by.
#[derive(Clone, Copy)]
pub(super) struct Scales<'a> {
    pub(super) endpoints: &'a [Endpoint],
    pub(super) state: &'a BackendState,
    pub(super) heaviest: u16,
    pub(super) balance: &'a Balance,
    pub(super) now: u64,
}

/// The endpoints of one request, one after the other.
pub(super) struct Choice<'a> {
    scales: Scales<'a>,
    /// Where the client was before.
    preferred: Option<usize>,
    tried: [Option<usize>; MOST_ENDPOINTS],
}

/// How good an endpoint has to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Tier {
    /// In this zone, and not put out.
    Near,
    /// Not put out.
    In,
    /// If all are out, all are in.
    Any,
}

impl<'a> Choice<'a> {
    pub(super) fn new(scales: Scales<'a>, preferred: Option<usize>) -> Self {
        Self { scales, preferred, tried: [None; MOST_ENDPOINTS] }
    }

    /// The next one that was not tried yet.
    pub(super) fn next(&mut self) -> Option<(usize, &'a Endpoint)> {
        let place = self.tried.iter().position(Option::is_none)?;
        let index = self.preferred.take().filter(|index| self.fits(*index, Tier::In));
        let index = index.or_else(|| self.better_of_two())?;
        *self.tried.get_mut(place)? = Some(index);
        Some((index, self.scales.endpoints.get(index)?))
    }

    /// Some time has passed. Begins anew, where all were tried.
    pub(super) fn again(&mut self, now: u64) {
        self.scales.now = now;
        if self.count() >= self.scales.endpoints.len().min(MOST_ENDPOINTS) {
            self.tried = [None; MOST_ENDPOINTS];
        }
    }

    /// How many were tried.
    fn count(&self) -> usize {
        self.tried.iter().flatten().count()
    }

    fn better_of_two(&self) -> Option<usize> {
        let turn = self.scales.state.turn.fetch_add(1, Ordering::Relaxed);
        let first = self.draw(turn, None)?;
        if self.scales.endpoints.len() - self.count() < 2 {
            return Some(first);
        }
        let Some(second) = self.draw(mixed(turn), Some(first)) else { return Some(first) };
        // load / share, compared without dividing.
        let (one, other) = (self.scales.load(first), self.scales.load(second));
        let is_lighter = other.0 * one.1 < one.0 * other.1;
        Some(if is_lighter { second } else { first })
    }

    /// One of the best tier, by its share. Where there is no other yet, the first draw is the turn itself.
    fn draw(&self, seed: u64, other: Option<usize>) -> Option<usize> {
        let count = u64::try_from(self.scales.endpoints.len()).ok().filter(|count| *count > 0)?;
        for draw in 0..DRAWS {
            let random = mixed(seed.wrapping_add(draw << 32));
            let place = if other.is_none() && draw == 0 { seed } else { random };
            let index = usize::try_from(place % count).ok()?;
            let chance = random >> 32;
            let fits = other != Some(index) && self.fits(index, Tier::Near);
            if fits && self.scales.accepts(index, chance) {
                return Some(index);
            }
        }
        let tiers = [Tier::Near, Tier::In, Tier::Any];
        let best = tiers.into_iter().find(|tier| self.all(*tier).next().is_some())?;
        self.any(seed, self.all(best).filter(|index| other != Some(*index)))
    }

    /// All that fit.
    fn all(&self, tier: Tier) -> impl Iterator<Item = usize> + Clone {
        (0..self.scales.endpoints.len()).filter(move |index| self.fits(*index, tier))
    }

    /// One of these, by their shares.
    fn any(&self, seed: u64, mut all: impl Iterator<Item = usize> + Clone) -> Option<usize> {
        let sum: u64 = all.clone().map(|index| self.scales.share(index)).sum();
        let mut left = mixed(seed).checked_rem(sum)?;
        all.find(|index| {
            let share = self.scales.share(*index);
            let is_it = left < share;
            left = left.saturating_sub(share);
            is_it
        })
    }

    fn fits(&self, index: usize, tier: Tier) -> bool {
        let Some(endpoint) = self.scales.endpoints.get(index) else { return false };
        // Another route's requests may have put it out: that is its own affair.
        let ejects = self.scales.balance.ejection.is_some();
        let is_in = || !ejects || !endpoint.state.is_out(self.scales.now);
        let good = match tier {
            Tier::Near => endpoint.near && is_in(),
            Tier::In => is_in(),
            Tier::Any => true,
        };
        good && !self.tried.contains(&Some(index))
    }
}

impl Scales<'_> {
    /// What it is busy with, and its share.
    fn load(&self, index: usize) -> (u64, u64) {
        let busy =
            self.endpoints.get(index).map_or(0, |it| it.state.outstanding.load(Ordering::Relaxed));
        (u64::from(busy), self.share(index))
    }

    /// Its weight in hundredths, less while it is new.
    fn share(&self, index: usize) -> u64 {
        let Some(endpoint) = self.endpoints.get(index) else { return 0 };
        u64::from(endpoint.weight) * self.grown(endpoint)
    }

    /// Hundredths of its share that an endpoint gets.
    fn grown(&self, endpoint: &Endpoint) -> u64 {
        let slow = u64::try_from(self.balance.slow_start.as_millis()).unwrap_or(u64::MAX);
        if slow == 0 {
            return 100;
        }
        let order = Ordering::Relaxed;
        let since = &endpoint.state.since;
        let since = since.compare_exchange(0, self.now, order, order).err().unwrap_or(self.now);
        let age = self.now.saturating_sub(since);
        (age.saturating_mul(100) / slow).clamp(LEAST_SHARE, 100)
    }

    /// Whether a draw with this chance (32 bits) hits, by the share that it has beside the heaviest.
    fn accepts(&self, index: usize, chance: u64) -> bool {
        let whole = u64::from(self.heaviest) * 100;
        let share = self.share(index);
        share >= whole || (chance * whole) >> 32 < share
    }

    /// What became of a request at an endpoint. It may have taken longer than a rest does: the clock is asked anew.
    pub(super) fn report(&self, endpoint: &Endpoint, failed: bool, now: impl FnOnce() -> u64) {
        let Some(ejection) = &self.balance.ejection else { return };
        let state = &endpoint.state;
        if failed {
            let now = now();
            let failures = state.failures.fetch_add(1, Ordering::Relaxed) + 1;
            if failures >= ejection.failures && !state.is_out(now) && self.may_go(ejection, now) {
                put_out(endpoint, ejection, now);
            }
        } else if state.failures.load(Ordering::Relaxed) > 0 {
            state.failures.store(0, Ordering::Relaxed);
            state.ejections.store(0, Ordering::Relaxed);
        }
    }

    /// Whether one more may rest.
    fn may_go(&self, ejection: &Ejection, now: u64) -> bool {
        let out = self.endpoints.iter().filter(|it| it.state.is_out(now)).count();
        (out + 1) * 100 <= usize::from(ejection.most_percent) * self.endpoints.len()
    }
}

/// Its next failure puts it out again: only an answer sets it right.
fn put_out(endpoint: &Endpoint, ejection: &Ejection, now: u64) {
    let state = &endpoint.state;
    let times = state.ejections.fetch_add(1, Ordering::Relaxed).min(8);
    let rest = u64::try_from(ejection.rest.as_millis()).unwrap_or(u64::MAX);
    let rest = rest.saturating_mul((1 << times).min(LONGEST_REST));
    state.out_until.store(now.saturating_add(rest), Ordering::Relaxed);
    tracing::info!(addresses = ?endpoint.addresses, milliseconds = rest, "an endpoint rests");
}

/// SplitMix64: spreads a number over all of them.
fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Site {
        endpoints: Vec<Endpoint>,
        state: BackendState,
        balance: Balance,
        now: u64,
    }

    impl Site {
        fn new(count: u8) -> Self {
            let endpoint = |host| Endpoint::new(([10, 0, 0, host], 80).into());
            let endpoints = (0..count).map(endpoint).collect();
            Self { endpoints, state: BackendState::default(), balance: Balance::default(), now: 1 }
        }

        fn scales(&self) -> Scales<'_> {
            let heaviest = self.endpoints.iter().map(|it| it.weight).max().unwrap_or(1);
            Scales {
                endpoints: &self.endpoints,
                state: &self.state,
                heaviest,
                balance: &self.balance,
                now: self.now,
            }
        }

        fn choice(&self) -> Choice<'_> {
            Choice::new(self.scales(), None)
        }

        /// How many of so many requests each gets.
        fn shares(&self, requests: usize) -> Vec<usize> {
            let mut shares = vec![0; self.endpoints.len()];
            for _ in 0..requests {
                shares[self.choice().next().unwrap().0] += 1;
            }
            shares
        }

        fn eject(&mut self, failures: u32, most_percent: u8) {
            let rest = Duration::from_secs(1);
            self.balance.ejection = Some(Ejection { failures, rest, most_percent });
        }

        fn fail(&self, index: usize) {
            self.scales().report(&self.endpoints[index], true, || self.now);
        }

        fn out(&self) -> Vec<usize> {
            let is_out = |index: &usize| self.endpoints[*index].state.is_out(self.now);
            (0..self.endpoints.len()).filter(is_out).collect()
        }
    }

    #[test]
    fn endpoints_at_rest_take_turns() {
        assert_eq!(Site::new(3).shares(300), [100; 3]);
        assert!(Site::new(0).choice().next().is_none());
    }

    #[test]
    fn each_is_tried_once_and_three_at_most() {
        for (count, expected) in [(1, 1), (2, 2), (5, 3)] {
            let site = Site::new(count);
            let mut choice = site.choice();
            let mut tried: Vec<usize> =
                std::iter::from_fn(|| choice.next().map(|it| it.0)).collect();
            tried.sort_unstable();
            tried.dedup();
            assert_eq!(tried.len(), expected);
        }
    }

    #[test]
    fn one_that_is_busy_is_passed_over() {
        let site = Site::new(4);
        site.endpoints[2].state.outstanding.store(50, Ordering::Relaxed);
        let shares = site.shares(400);
        assert!(shares[2] < 60, "{shares:?}");
    }

    #[test]
    fn weights_are_shares() {
        let mut site = Site::new(3);
        site.endpoints[0].weight = 8;
        site.endpoints[1].weight = 4;
        site.endpoints[2].weight = 4;
        let shares = site.shares(4000);
        assert!((1700..2700).contains(&shares[0]), "{shares:?}");
    }

    #[test]
    fn a_new_endpoint_begins_with_little() {
        let mut site = Site::new(2);
        site.balance.slow_start = Duration::from_secs(100);
        site.shares(2);
        site.now = 1_000_000;
        site.endpoints[1].state.since.store(1_000_000 - 20_000, Ordering::Relaxed);
        let fifth = site.shares(1000)[1];
        site.now += 80_000;
        let whole = site.shares(1000)[1];
        assert!((20..300).contains(&fifth) && (450..550).contains(&whole), "{fifth} {whole}");
    }

    #[test]
    fn a_failing_endpoint_rests_longer_each_time_and_comes_back() {
        let mut site = Site::new(3);
        site.eject(3, 50);
        site.fail(1);
        site.fail(1);
        assert_eq!(site.out(), [0; 0]);
        site.fail(1);
        assert_eq!(site.out(), [1]);
        assert_eq!(site.shares(100)[1], 0);
        site.now += 1001;
        assert!(site.shares(99)[1] > 20, "it is asked again");
        site.fail(1);
        site.now += 1500;
        assert_eq!(site.out(), [1], "twice as long");
        site.now += 1000;
        site.scales().report(&site.endpoints[1], false, || site.now);
        site.fail(1);
        assert_eq!(site.out(), [0; 0], "an answer set it right");
    }

    #[test]
    fn a_rest_begins_when_the_request_has_failed() {
        let mut site = Site::new(2);
        site.eject(1, 50);
        let begun = site.scales();
        begun.report(&site.endpoints[0], true, || 60_000);
        let mut choice = Choice::new(begun, None);
        let later = 60_500;
        assert!(site.endpoints[0].state.is_out(later));
        choice.again(later);
        assert_eq!(choice.next().map(|it| it.0), Some(1));
    }

    #[test]
    fn who_does_not_eject_does_not_mind_what_another_route_put_out() {
        let mut site = Site::new(2);
        site.eject(1, 50);
        site.fail(0);
        assert_eq!(site.shares(100), [0, 100]);
        site.balance.ejection = None;
        assert_eq!(site.shares(100), [50, 50]);
        let mut choice = Choice::new(site.scales(), Some(0));
        assert_eq!(choice.next().map(|it| it.0), Some(0));
    }

    #[test]
    fn never_more_rest_than_may_and_if_all_are_out_all_are_in() {
        let mut site = Site::new(4);
        site.eject(1, 50);
        (0..4).for_each(|index| site.fail(index));
        assert_eq!(site.out(), [0, 1]);
        let mut alone = Site::new(1);
        alone.eject(1, 50);
        alone.fail(0);
        assert_eq!(alone.out(), [0; 0]);
        site.eject(1, 100);
        (0..4).for_each(|index| site.fail(index));
        assert_eq!(site.out(), [0, 1, 2, 3]);
        assert!(site.shares(100).iter().all(|share| *share > 5));
    }

    #[test]
    fn a_zones_requests_stay_there_while_it_has_endpoints_that_are_in() {
        let mut site = Site::new(8);
        site.endpoints.iter_mut().take(6).for_each(|it| it.near = false);
        let shares = site.shares(200);
        assert_eq!(shares[..6], [0; 6]);
        site.eject(1, 100);
        site.fail(6);
        site.fail(7);
        assert_eq!(site.shares(100)[6..], [0, 0]);
    }

    #[test]
    fn a_client_comes_back_unless_its_endpoint_is_out() {
        let mut site = Site::new(3);
        site.eject(1, 50);
        for _ in 0..5 {
            let mut choice = Choice::new(site.scales(), Some(2));
            assert_eq!(choice.next().map(|it| it.0), Some(2));
        }
        site.fail(2);
        let mut choice = Choice::new(site.scales(), Some(2));
        assert_ne!(choice.next().map(|it| it.0), Some(2));
    }
}
