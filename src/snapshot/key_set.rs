//! The public keys by which backends verify what policies sign.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::auth::PublicKey;
use crate::policy::{Policy, SigningKeys};

/// The public keys of policies as a JWK set (RFC 7517, 5), each once; none where no policy signs.
pub(super) fn key_set<'a>(policies: impl IntoIterator<Item = &'a Policy>) -> Option<Value> {
    let signed = policies.into_iter().filter_map(|policy| policy.forward.signed_identity.as_ref());
    let mut signed = signed.peekable();
    signed.peek()?;
    let keys: BTreeSet<&PublicKey> =
        signed.filter_map(|it| it.keys.as_ref().ok()).flat_map(SigningKeys::public).collect();
    Some(json!({"keys": keys.into_iter().map(PublicKey::jwk).collect::<Vec<_>>()}))
}
