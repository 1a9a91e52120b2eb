//! Keys for TLS session tickets, out of the Secret that the program is told of.

use std::sync::Arc;

use super::account::key;
use super::finding::{Finding, Severity};
use super::options::Options;
use super::world::{ObjectKind, ObjectName, ObjectRef, World};
use crate::snapshot::TicketKeys;

/// It seals.
const CURRENT: &str = "current.key";
/// Another replica may have moved on to the last already.
const OTHERS: [&str; 2] = ["previous.key", "next.key"];

/// The keys; those of the last time where the one that seals cannot be used now. Of the others each is left out by itself.
pub(super) fn ticket_keys(
    world: &World,
    options: &Options,
    earlier: Option<&Arc<TicketKeys>>,
) -> (Option<Arc<TicketKeys>>, Vec<Finding>) {
    let Some(name) = &options.ticket_keys else { return (None, Vec::new()) };
    let unusable = |message| {
        finding(name, Severity::Error, "TicketKeysUnusable", format!("Secret {name}{message}"))
    };
    let Some(secret) = world.secrets.get(name) else {
        return (
            None,
            vec![unusable(" does not exist: sessions are each replica's own".to_owned())],
        );
    };
    let current = match key(secret, CURRENT) {
        Some(current) if current.len() >= TicketKeys::SHORTEST => Ok(current),
        Some(_) => Err("current.key has fewer than 32 octets"),
        None => Err("it has no key current.key"),
    };
    let there = OTHERS.iter().filter_map(|at| Some((at, key(secret, at)?)));
    let (usable, spoilt): (Vec<_>, Vec<_>) =
        there.partition(|(_, key)| key.len() >= TicketKeys::SHORTEST);
    let mut findings: Vec<Finding> = spoilt.iter().map(|(at, _)| ignored(name, at)).collect();
    let keys = current.and_then(|current| {
        let others = usable.into_iter().map(|(_, key)| key);
        let secrets: Vec<&[u8]> = std::iter::once(current).chain(others).collect();
        TicketKeys::new(&secrets).ok_or("no keys can be derived")
    });
    match keys {
        Ok(keys) => (Some(Arc::new(keys)), findings),
        Err(problem) => {
            let stays = if earlier.is_some() { "the keys read before stay" } else { "none are" };
            findings.push(unusable(format!(": {problem}; {stays} in force")));
            (earlier.cloned(), findings)
        }
    }
}

fn ignored(name: &ObjectName, at: &str) -> Finding {
    let message = format!(
        "Secret {name}: {at} has fewer than 32 octets: it is left out, and the other keys are in force; write 32 or more, or remove it"
    );
    finding(name, Severity::Warning, "TicketKeyIgnored", message)
}

fn finding(
    name: &ObjectName,
    severity: Severity,
    reason: &'static str,
    message: String,
) -> Finding {
    Finding {
        severity,
        object: ObjectRef { kind: ObjectKind::Secret, name: name.clone() },
        target: None,
        field: String::new(),
        reason,
        message,
    }
}
