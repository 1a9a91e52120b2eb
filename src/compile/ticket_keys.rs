//! Keys for TLS session tickets, out of the Secret that the program is told of.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;

use super::account::key;
use super::finding::{Finding, Severity};
use super::options::Options;
use super::world::{ObjectKind, ObjectName, ObjectRef, World};
use crate::snapshot::TicketKeys;

/// The first seals. Another replica may have moved on to the last already.
const KEYS: [&str; 3] = ["current.key", "previous.key", "next.key"];

/// The keys; those of the last time where what stands there now cannot be used.
pub(super) fn ticket_keys(
    world: &World,
    options: &Options,
    earlier: Option<&Arc<TicketKeys>>,
) -> (Option<Arc<TicketKeys>>, Option<Finding>) {
    let Some(name) = &options.ticket_keys else { return (None, None) };
    let Some(secret) = world.secrets.get(name) else {
        let message = format!("Secret {name} does not exist: sessions are each replica's own");
        return (None, Some(finding(name, message)));
    };
    match read(secret) {
        Ok(keys) => (Some(Arc::new(keys)), None),
        Err(problem) => {
            let stays = if earlier.is_some() { "the keys read before stay" } else { "none are" };
            let message = format!("Secret {name}: {problem}; {stays} in force");
            (earlier.cloned(), Some(finding(name, message)))
        }
    }
}

fn read(secret: &Secret) -> Result<TicketKeys, &'static str> {
    let [current, others @ ..] = KEYS.map(|name| key(secret, name));
    let current = current.ok_or("it has no key current.key")?;
    let secrets: Vec<&[u8]> =
        std::iter::once(current).chain(others.into_iter().flatten()).collect();
    TicketKeys::new(&secrets).ok_or("a key has fewer than 32 octets")
}

fn finding(name: &ObjectName, message: String) -> Finding {
    Finding {
        severity: Severity::Error,
        object: ObjectRef { kind: ObjectKind::Secret, name: name.clone() },
        target: None,
        field: String::new(),
        reason: "TicketKeysUnusable",
        message,
    }
}
