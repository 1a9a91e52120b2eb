//! Shares → virtual hosts: the oldest Ingress keeps a path, under everything that any of them asks for.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rustls::ServerConfig;

use super::finding::{Finding, Severity};
use super::share::{Entry, Share};
use super::world::{ObjectKind, ObjectRef};
use crate::identity::Fingerprint;
use crate::policy::{Guard, Policy};
use crate::snapshot::{
    ClientCertificateTerms, HostPattern, HostTable, PathPattern, Route, ServerCertificates, Tls,
    TlsRules, VirtualHost,
};

/// Hosts and what each was made from, for the next time.
pub(super) type KeptHosts = HashMap<HostPattern, KeptHost>;

/// One host and what it was made from.
#[derive(Clone, Debug)]
pub(super) struct KeptHost {
    shares: Vec<Arc<Share>>,
    host: Arc<VirtualHost>,
    findings: Vec<Finding>,
}

impl KeptHost {
    fn is_current(&self, shares: &[&Arc<Share>]) -> bool {
        self.shares.len() == shares.len()
            && self.shares.iter().zip(shares).all(|(then, now)| Arc::ptr_eq(then, now))
    }
}

/// TLS configurations by the terms they ask by, and the certificates that all of them show.
#[derive(Clone, Debug, Default)]
pub(super) struct KeptTls {
    certificates: Option<Arc<ServerCertificates>>,
    plain: Option<Arc<ServerConfig>>,
    asking: HashMap<(Option<Fingerprint>, bool), Arc<ServerConfig>>,
}

/// The hosts of these shares, the oldest first.
pub(super) fn hosts(shares: &[Arc<Share>], earlier: &KeptHosts) -> KeptHosts {
    let mut by_host: BTreeMap<&HostPattern, Vec<&Arc<Share>>> = BTreeMap::new();
    for share in shares {
        for entry in &share.entries {
            let of_host = by_host.entry(&entry.host).or_default();
            if of_host.last().is_none_or(|last| !Arc::ptr_eq(last, share)) {
                of_host.push(share);
            }
        }
    }
    let kept = by_host.into_iter().map(|(pattern, shares)| {
        let same = earlier.get(pattern).filter(|kept| kept.is_current(&shares));
        (pattern.clone(), same.cloned().unwrap_or_else(|| host(pattern, &shares)))
    });
    kept.collect()
}

/// All findings about paths that two Ingresses want.
pub(super) fn findings(hosts: &KeptHosts) -> impl Iterator<Item = Finding> {
    hosts.values().flat_map(|kept| kept.findings.iter().cloned())
}

fn host(pattern: &HostPattern, shares: &[&Arc<Share>]) -> KeptHost {
    let mut routes: HashMap<PathPattern, Route> = HashMap::new();
    let mut findings = Vec::new();
    // A default backend is for what no rule of any Ingress takes.
    for is_default in [false, true] {
        for share in shares {
            let entries = share.entries.iter();
            let entries = entries.filter(|it| it.is_default == is_default && it.host == *pattern);
            findings.extend(entries.filter_map(|entry| add(&mut routes, share, entry)));
        }
    }
    let policies: Vec<Arc<Policy>> =
        routes.values().flat_map(|route| route.guard.policies().iter().cloned()).collect();
    let terms = Arc::new(ClientCertificateTerms::of(&policies));
    let host = Arc::new(VirtualHost::new(pattern.clone(), terms, routes));
    KeptHost { shares: shares.iter().map(|share| (*share).clone()).collect(), host, findings }
}

fn add(routes: &mut HashMap<PathPattern, Route>, share: &Share, entry: &Entry) -> Option<Finding> {
    let Some(oldest) = routes.get_mut(&entry.path) else {
        routes.insert(entry.path.clone(), entry.route.clone());
        return None;
    };
    // How the other one would be carried is no affair of this one's.
    oldest.guard = stricter(&oldest.guard, &share.attached);
    if entry.is_default {
        return None;
    }
    let message = format!(
        "Ingress {} has the same path of host {}: it keeps it, under the policies of both",
        oldest.ingress, entry.host
    );
    Some(Finding {
        severity: Severity::Warning,
        object: ObjectRef { kind: ObjectKind::Ingress, name: share.name.clone() },
        target: None,
        field: entry.field.clone(),
        reason: "PathTaken",
        message,
    })
}

/// Both guards in one: shut stays shut, and of policies every one must admit, the strictest first.
fn stricter(a: &Guard, b: &Guard) -> Guard {
    match (a, b) {
        (Guard::Shut { .. }, _) | (_, Guard::Open) => a.clone(),
        (_, Guard::Shut { .. }) | (Guard::Open, _) => b.clone(),
        (Guard::Policed(a), Guard::Policed(b)) => {
            let mut both: Vec<Arc<Policy>> = a.iter().chain(b.iter()).cloned().collect();
            both.sort_by_key(|policy| {
                (std::cmp::Reverse(policy.flags.strictness()), policy.name.clone())
            });
            both.dedup_by(|a, b| Arc::ptr_eq(a, b));
            Guard::Policed(both.into())
        }
    }
}

/// The tables that requests and handshakes are resolved by. Hosts with the same terms share one TLS configuration.
///
/// # Errors
/// The TLS provider is unusable.
pub(super) fn tables(
    hosts: &KeptHosts,
    certificates: ServerCertificates,
    earlier: &KeptTls,
    rules: &TlsRules,
) -> Result<(HostTable<Arc<VirtualHost>>, Tls, KeptTls), rustls::Error> {
    let same = earlier.certificates.as_ref().filter(|then| then.is_same(&certificates));
    let (certificates, mut kept) = match same {
        Some(same) => (same.clone(), earlier.clone()),
        None => (Arc::new(certificates), KeptTls::default()),
    };
    let plain = match &kept.plain {
        Some(plain) => plain.clone(),
        None => rules.server_config(&ClientCertificateTerms::default(), certificates.clone())?,
    };
    let mut used = HashMap::new();
    let (mut table, mut asking) = (HostTable::default(), HostTable::default());
    for (pattern, KeptHost { host, .. }) in hosts {
        let config = if host.terms.asks {
            let key = (host.terms.trust, host.terms.hints.is_empty());
            let known = used.get(&key).or_else(|| kept.asking.get(&key)).cloned();
            let config = match known {
                Some(config) => config,
                None => rules.server_config(&host.terms, certificates.clone())?,
            };
            used.insert(key, config.clone());
            Some(config)
        } else {
            None
        };
        asking.insert(pattern.clone(), config);
        table.insert(pattern.clone(), host.clone());
    }
    kept = KeptTls { certificates: Some(certificates), plain: Some(plain.clone()), asking: used };
    Ok((table, Tls { plain, asking, ticket_keys: None }, kept))
}
