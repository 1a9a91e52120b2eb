//! When a request is sent again after it was sent: only where its RoutePolicy says so, and within a budget.

use std::sync::atomic::Ordering;

use crate::snapshot::{BackendState, Retry};

/// What one retry costs.
const COST: i64 = 100;

/// What is left for one request.
pub(super) struct Retries<'a> {
    retry: Option<&'a Retry>,
    state: &'a BackendState,
    left: u8,
}

impl<'a> Retries<'a> {
    /// Every request earns its share of a retry, whether it may be repeated or not.
    pub(super) fn new(retry: Option<&'a Retry>, state: &'a BackendState, may_repeat: bool) -> Self {
        let left = match retry {
            // Without a code a copy would be made in vain.
            Some(retry) if may_repeat && !retry.codes.is_empty() => retry.attempts,
            _ => 0,
        };
        if let Some(retry) = retry {
            earn(state, retry.budget_percent);
        }
        Self { retry, state, left }
    }

    /// Whether a copy is of use.
    pub(super) fn are_left(&self) -> bool {
        self.left > 0
    }

    /// Whether what ended so is tried again; if so, it is paid for.
    pub(super) fn again(&mut self, status: u16) -> bool {
        let listed = self.retry.is_some_and(|retry| retry.codes.contains(&status));
        if self.left == 0 || !listed || !spend(self.state) {
            return false;
        }
        self.left -= 1;
        true
    }
}

fn earn(state: &BackendState, percent: u8) {
    let more = |saved: i64| {
        let saved_up = saved.saturating_add(i64::from(percent)).min(BackendState::MOST_ALLOWANCE);
        (saved_up > saved).then_some(saved_up)
    };
    let order = Ordering::Relaxed;
    // An error says that it is full.
    let _full = state.allowance.fetch_update(order, order, more).is_err();
}

fn spend(state: &BackendState) -> bool {
    let less = |saved: i64| (saved >= COST).then_some(saved - COST);
    state.allowance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_the_requests() {
        let state = BackendState::default();
        while spend(&state) {}
        let mut retried = 0;
        for _ in 0..1000 {
            earn(&state, 20);
            retried += u32::from(spend(&state));
        }
        assert_eq!(retried, 200);
    }

    #[test]
    fn what_is_saved_up_has_a_limit() {
        let state = BackendState::default();
        for _ in 0..1000 {
            earn(&state, 100);
        }
        assert_eq!((0..100).filter(|_| spend(&state)).count(), 10);
    }
}
