//! Keys that seal session tickets, which replicas share: the one Secret that the program is told of.

use aws_lc_rs::rand;

use super::managed_keys::{KeyKind, NoKey, WantedKeys};
use crate::compile::{ObjectName, World};

/// More octets than anybody can guess.
const OCTETS: usize = 48;
/// Fewer are not taken (`snapshot/ticket_keys.rs`).
const FEWEST: usize = 32;

/// They open tickets before they seal them and after: it does not matter which replica learns first that they changed.
pub static TICKET_KEYS: KeyKind = KeyKind {
    words: "ticket keys",
    type_: "certmap.dev/ticket-keys",
    rotated_at: "certmap.dev/ticket-keys-rotated-at",
    fresh,
    is_usable: |key| key.len() >= FEWEST,
};

/// The Secret, and whether it is there.
#[must_use]
pub fn wanted_ticket_keys(world: &World, name: &ObjectName) -> WantedKeys {
    [(name.clone(), world.secrets.contains_key(name))].into()
}

fn fresh() -> Result<Vec<u8>, NoKey> {
    let mut key = vec![0; OCTETS];
    rand::fill(&mut key).map(|()| key).map_err(|_| NoKey)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::super::managed_keys::{CURRENT, MANAGED_BY, NEXT, PREVIOUS, Step};
    use super::super::signing_keys::SIGNING_KEYS;
    use super::*;

    const PERIOD: Duration = Duration::from_secs(12 * 3600);

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + hours * 3600).unwrap()
    }

    fn name() -> ObjectName {
        ObjectName::new("edge", "tickets")
    }

    #[test]
    fn whatever_a_key_sealed_the_keys_that_come_after_it_open_for_a_whole_period() {
        let Ok(Step::Create(first)) = TICKET_KEYS.step(&name(), None, at(0), PERIOD) else {
            panic!("not created")
        };
        let key = |secret: &k8s_openapi::api::core::v1::Secret, at: &str| {
            TICKET_KEYS.usable(secret, at).unwrap().clone()
        };
        assert_eq!(TICKET_KEYS.step(&name(), Some(&first), at(11), PERIOD), Ok(Step::Nothing));
        let Ok(Step::Replace(second)) = TICKET_KEYS.step(&name(), Some(&first), at(12), PERIOD)
        else {
            panic!("not replaced")
        };
        assert_eq!(key(&second, PREVIOUS), key(&first, CURRENT));
        assert_eq!(key(&second, CURRENT), key(&first, NEXT));
        assert_ne!(key(&second, NEXT), key(&first, NEXT));
        assert_eq!(TICKET_KEYS.step(&name(), Some(&second), at(23), PERIOD), Ok(Step::Nothing));
    }

    #[test]
    fn of_two_replicas_that_both_think_it_is_time_the_second_writes_onto_a_version_that_is_gone() {
        let Ok(Step::Create(mut there)) = TICKET_KEYS.step(&name(), None, at(0), PERIOD) else {
            panic!("not created")
        };
        there.metadata.resource_version = Some("7".to_owned());
        for _ in 0..2 {
            let Ok(Step::Replace(moved)) = TICKET_KEYS.step(&name(), Some(&there), at(12), PERIOD)
            else {
                panic!("not replaced")
            };
            assert_eq!(moved.metadata.resource_version.as_deref(), Some("7"));
        }
    }

    #[test]
    fn a_secret_of_another_kind_is_left_alone_though_certmap_made_it() {
        let Ok(Step::Create(signing)) = SIGNING_KEYS.step(&name(), None, at(0), PERIOD) else {
            panic!("not created")
        };
        let Ok(Step::Create(tickets)) = TICKET_KEYS.step(&name(), None, at(0), PERIOD) else {
            panic!("not created")
        };
        assert_eq!(signing.metadata.labels.as_ref().unwrap()[MANAGED_BY], "certmap");
        assert_eq!(TICKET_KEYS.step(&name(), Some(&signing), at(99), PERIOD), Ok(Step::Nothing));
        assert_eq!(SIGNING_KEYS.step(&name(), Some(&tickets), at(99), PERIOD), Ok(Step::Nothing));
    }
}
