//! APR1, the MD5-based password hash of Apache's htpasswd (`$apr1$`): 1,000 rounds, a salt of up to eight characters.

use md5::{Digest, Md5};

const MAGIC: &[u8] = b"$apr1$";
const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Which octets of the digest make up each group of the text.
const GROUPS: [[usize; 3]; 5] = [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]];

/// The text after the salt.
pub(super) fn apr1(password: &[u8], salt: &[u8]) -> String {
    let mut digest = first_digest(password, salt);
    for round in 0..1000 {
        digest = next_digest(password, salt, digest, round);
    }
    encode(digest)
}

fn first_digest(password: &[u8], salt: &[u8]) -> [u8; 16] {
    let inner: [u8; 16] = Md5::new()
        .chain_update(password)
        .chain_update(salt)
        .chain_update(password)
        .finalize()
        .into();
    let mut outer = Md5::new().chain_update(password).chain_update(MAGIC).chain_update(salt);
    for (_, octet) in password.iter().zip(inner.iter().cycle()) {
        outer.update([*octet]);
    }
    let mut bits = password.len();
    while bits > 0 {
        outer.update([if bits & 1 == 1 { 0 } else { password.first().copied().unwrap_or(0) }]);
        bits >>= 1;
    }
    outer.finalize().into()
}

fn next_digest(password: &[u8], salt: &[u8], digest: [u8; 16], round: u32) -> [u8; 16] {
    let odd = round % 2 == 1;
    let mut hash = Md5::new();
    hash.update(if odd { password } else { &digest });
    if !round.is_multiple_of(3) {
        hash.update(salt);
    }
    if !round.is_multiple_of(7) {
        hash.update(password);
    }
    hash.update(if odd { &digest } else { password });
    hash.finalize().into()
}

fn encode(digest: [u8; 16]) -> String {
    let octet = |index: usize| u32::from(digest.get(index).copied().unwrap_or(0));
    let groups =
        GROUPS.map(|[high, middle, low]| (octet(high) << 16 | octet(middle) << 8 | octet(low), 4));
    groups
        .into_iter()
        .chain([(octet(11), 2)])
        .flat_map(|(bits, length)| (0..length).map(move |i| digit(bits >> (6 * i))))
        .collect()
}

fn digit(bits: u32) -> char {
    ALPHABET.get((bits & 63) as usize).map_or('.', |&octet| char::from(octet))
}
