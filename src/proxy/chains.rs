//! Client certificates that came lately: parsed once, and with them what policies found their chains to be worth.
//!
//! The key is the digest of the whole chain. A verdict stands in it under the digest of the CAs and the depth, and only for
//! as long as no certificate of it begins or ceases to hold: another bundle never meets it. That the client holds the key
//! is proven by each handshake for itself, and before anybody looks here.

use std::fmt;
use std::sync::Arc;

use moka::sync::Cache;
use rustls::pki_types::CertificateDer;

use crate::identity::{Fingerprint, PeerCertificate};
use crate::policy::ClientCertificate;

/// Octets of certificates in all.
const MOST_OCTETS: u64 = 16 * 1024 * 1024;
/// A longer chain is read for its connection alone: nobody may put out many others.
const LONGEST_CHAIN: usize = 16 * 1024;
/// What a certificate takes beside its octets, parsed: this,
const OVERHEAD: usize = 2048;
/// and so many times its own octets, where they are nothing but short names.
const PARSED: usize = 16;

/// What is known of chains; clones know the same.
#[derive(Clone)]
pub(super) struct Chains(Cache<Fingerprint, Arc<ClientCertificate>>);

impl Chains {
    pub(super) fn new() -> Self {
        let weigh = |_: &Fingerprint, certificate: &Arc<ClientCertificate>| {
            let peer = certificate.peer.as_ref();
            let octets = peer.map_or(0, |peer| {
                octets(&peer.chain) + PARSED * peer.leaf().map_or(0, |leaf| leaf.len())
            });
            u32::try_from(octets + OVERHEAD).unwrap_or(u32::MAX)
        };
        Self(Cache::builder().max_capacity(MOST_OCTETS).weigher(weigh).build())
    }

    /// Reads a chain that came out of a handshake, or remembers it.
    pub(super) fn read(&self, chain: &[CertificateDer<'static>]) -> Arc<ClientCertificate> {
        let parse = || Arc::new(ClientCertificate::new(PeerCertificate::parse(chain)));
        if octets(chain) > LONGEST_CHAIN {
            return parse();
        }
        let digest = digest(chain);
        if let Some(known) = self.0.get(&digest) {
            return known;
        }
        let certificate = parse();
        self.0.insert(digest, certificate.clone());
        certificate
    }
}

fn octets(chain: &[CertificateDer<'_>]) -> usize {
    chain.iter().map(|der| der.len()).sum()
}

/// Of the certificates and of where each of them ends.
fn digest(chain: &[CertificateDer<'_>]) -> Fingerprint {
    let lengths = chain.iter().flat_map(|der| der.len().to_be_bytes());
    let octets: Vec<u8> = chain.iter().flat_map(|der| der.iter().copied()).chain(lengths).collect();
    Fingerprint::of(&octets)
}

impl fmt::Debug for Chains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chains").field("known", &self.0.entry_count()).finish()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::pki_types::UnixTime;

    use super::*;
    use crate::policy::{ChainResult, TrustBundle};

    fn ca(name: &str) -> CertifiedIssuer<'static, KeyPair> {
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.distinguished_name.push(rcgen::DnType::CommonName, name);
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap()
    }

    fn leaf(ca: &CertifiedIssuer<'static, KeyPair>) -> CertificateDer<'static> {
        let leaf = CertificateParams::new(Vec::new()).unwrap();
        leaf.signed_by(&KeyPair::generate().unwrap(), ca).unwrap().der().clone()
    }

    #[test]
    fn a_chain_is_read_once_and_another_is_another() {
        let (chains, ca) = (Chains::new(), ca("a"));
        let (one, two) = ([leaf(&ca)], [leaf(&ca)]);
        let first = chains.read(&one);
        assert!(Arc::ptr_eq(&first, &chains.read(&one)));
        assert!(!Arc::ptr_eq(&first, &chains.read(&two)));
        let longer = [one[0].clone(), two[0].clone()];
        assert!(!Arc::ptr_eq(&first, &chains.read(&longer)));
    }

    #[test]
    fn a_certificate_weighs_what_becomes_of_it() {
        let (chains, ca) = (Chains::new(), ca("a"));
        let chain = [leaf(&ca)];
        let _kept = chains.read(&chain);
        chains.0.run_pending_tasks();
        assert!(chains.0.weighted_size() > 17 * chain[0].len() as u64);
    }

    #[test]
    fn certificates_that_are_cut_elsewhere_are_another_chain() {
        let cut = |at: usize| [b"ab".split_at(at).0, b"ab".split_at(at).1].map(<[u8]>::to_vec);
        let of = |at| cut(at).map(CertificateDer::from);
        assert_ne!(digest(&of(0)), digest(&of(1)));
    }

    #[test]
    fn a_verdict_is_never_another_bundles() {
        let (chains, issuer, other) = (Chains::new(), ca("a"), ca("a"));
        let chain = [leaf(&issuer)];
        let judge = |issuer: &CertifiedIssuer<'static, KeyPair>| {
            let trust = TrustBundle::new(&[issuer.der().clone()], 3).unwrap();
            let certificate = chains.read(&chain);
            let peer = certificate.peer.clone().unwrap();
            certificate.verdicts.judge(&trust, &peer, UnixTime::now()).result.clone()
        };
        assert!(matches!(judge(&issuer), ChainResult::Verified(_)));
        assert!(matches!(judge(&other), ChainResult::Untrusted(_)));
        assert!(matches!(judge(&issuer), ChainResult::Verified(_)));
    }

    #[test]
    fn a_chain_that_would_put_out_many_others_is_not_kept() {
        let chains = Chains::new();
        let long = [CertificateDer::from(vec![0; LONGEST_CHAIN + 1])];
        assert!(!Arc::ptr_eq(&chains.read(&long), &chains.read(&long)));
    }
}
