//! Shares → virtual hosts: the oldest Ingress keeps a path, under everything that any of them asks for.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rustls::ServerConfig;

use super::finding::{Finding, Severity};
use super::share::{Entry, Share};
use super::world::{ObjectKind, ObjectName, ObjectRef};
use crate::identity::Fingerprint;
use crate::policy::{DenialCode, Guard, Policy};
use crate::snapshot::{
    ClientCertificateTerms, HostPattern, HostTable, RouteSettings, RouteTls, Routes,
    ServerCertificates, Tls, TlsRules, VirtualHost,
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
    apart: HashMap<Handshakes, Arc<ServerConfig>>,
}

/// What handshakes are made by: the CAs that are asked for, whether their names are sent, the suites that are demanded.
type Handshakes = (Option<Fingerprint>, bool, Option<Vec<u16>>);

/// The hosts of these shares, the oldest first.
pub(super) fn hosts(shares: &[Arc<Share>], earlier: &KeptHosts, floor: &TlsRules) -> KeptHosts {
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
        (pattern.clone(), same.cloned().unwrap_or_else(|| host(pattern, &shares, floor)))
    });
    kept.collect()
}

/// All findings about paths that two Ingresses want, and about handshakes that none could make.
pub(super) fn findings(hosts: &KeptHosts) -> impl Iterator<Item = Finding> {
    hosts.values().flat_map(|kept| kept.findings.iter().cloned())
}

fn host(pattern: &HostPattern, shares: &[&Arc<Share>], floor: &TlsRules) -> KeptHost {
    let mut routes = Routes::default();
    let mut findings = Vec::new();
    // A default backend is for what no rule of any Ingress takes.
    for is_default in [false, true] {
        for share in shares {
            let entries = share.entries.iter();
            let entries = entries.filter(|it| it.is_default == is_default && it.host == *pattern);
            findings.extend(entries.filter_map(|entry| add(&mut routes, share, entry)));
        }
    }
    let rules = demanded(pattern, shares, &mut routes, floor, &mut findings);
    let policies: Vec<Arc<Policy>> =
        routes.values().flat_map(|route| route.guard.policies().iter().cloned()).collect();
    let terms = Arc::new(ClientCertificateTerms::of(&policies));
    let mut host = VirtualHost::new(pattern.clone(), terms, routes);
    host.rules = rules.map(Arc::new);
    let (host, shares) = (Arc::new(host), shares.iter().map(|share| (*share).clone()).collect());
    KeptHost { shares, host, findings }
}

/// What the handshakes of a host must come to: the strictest of what its routes demand. A demand that no handshake of the
/// newest version could meet together with those of older Ingresses shuts the routes that it comes with, and no others.
fn demanded(
    pattern: &HostPattern,
    shares: &[&Arc<Share>],
    routes: &mut Routes,
    floor: &TlsRules,
    findings: &mut Vec<Finding>,
) -> Option<TlsRules> {
    let demands = |share: &&&Arc<Share>| share.settings.tls != RouteTls::default();
    let mut demanding = shares.iter().filter(demands).peekable();
    demanding.peek()?;
    let mut guards: HashMap<Arc<str>, Vec<&mut Guard>> = HashMap::new();
    for route in routes.values_mut().filter(|it| !matches!(it.guard, Guard::Shut { .. })) {
        guards.entry(route.ingress.clone()).or_default().push(&mut route.guard);
    }
    let mut rules: Option<TlsRules> = None;
    for share in demanding {
        let Some(own) = guards.remove(&*share.name.to_string()) else { continue };
        let so_far = rules.as_ref().unwrap_or(floor);
        if let Some(both) = so_far.with(&share.settings.tls) {
            rules = Some(both);
            continue;
        }
        let finding = impossible(pattern, share, so_far);
        let reason: Arc<str> = format!("{}: {}", finding.object, finding.message).into();
        let code = DenialCode::RoutePolicyUnusable;
        own.into_iter().for_each(|guard| *guard = Guard::Shut { code, reason: reason.clone() });
        findings.extend(held_up(share, &finding));
        findings.push(finding);
    }
    rules
}

/// Of whoever makes the demand: the policy that targets the Ingress, or the default one.
fn impossible(pattern: &HostPattern, share: &Share, so_far: &TlsRules) -> Finding {
    let RouteSettings { tls, tls_by, .. } = &*share.settings;
    let suites = RouteTls { suites: tls.suites.clone(), oldest: None };
    let (field, by) = match so_far.with(&suites) {
        None => ("spec.tls.cipherSuites", &tls_by.suites),
        Some(_) => ("spec.tls.minVersion", &tls_by.oldest),
    };
    let message = format!(
        "no handshake of the newest version could meet this and what the program and older Ingresses of host {pattern} demand (TLS {} or later, with {}): the routes of Ingress {} there answer 503.96; name one of these suites, or leave tls out",
        so_far.oldest.as_str(),
        so_far.names().join(", "),
        share.name,
    );
    of_route_policy(by, share, field, "Invalid", message)
}

/// What the policy says that is well, and carries nothing there because of the default one's demand.
fn held_up(share: &Share, impossible: &Finding) -> Option<Finding> {
    let own = &share.settings.name;
    let message = format!("{}: {}", impossible.object, impossible.message);
    let finding = of_route_policy(own, share, "", "DefaultUnusable", message);
    (finding.object != impossible.object).then_some(finding)
}

fn of_route_policy(
    by: &str,
    share: &Share,
    field: &str,
    reason: &'static str,
    message: String,
) -> Finding {
    let (namespace, name) = by.split_once('/').unwrap_or_default();
    let policy = ObjectName::new(namespace, name);
    let finding = Finding::of_route_policy(&policy, Severity::Error, field, reason, message);
    // The default one speaks where nobody made it one of its targets.
    let target = (by != &*share.settings.tls_by.default).then(|| share.name.clone());
    Finding { target, ..finding }
}

fn add(routes: &mut Routes, share: &Share, entry: &Entry) -> Option<Finding> {
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

/// The tables that requests and handshakes are resolved by. Hosts with the same terms and rules share one TLS configuration.
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
    let (mut table, mut apart) = (HostTable::default(), HostTable::default());
    for (pattern, KeptHost { host, .. }) in hosts {
        let config = if host.terms.asks || host.rules.is_some() {
            let demanded = host.rules.as_ref().map(|rules| rules.numbers());
            let key = (host.terms.trust, host.terms.hints.is_empty(), demanded);
            let known = used.get(&key).or_else(|| kept.apart.get(&key)).cloned();
            let config = match known {
                Some(config) => config,
                None => {
                    let rules = host.rules.as_deref().unwrap_or(rules);
                    rules.server_config(&host.terms, certificates.clone())?
                }
            };
            used.insert(key, config.clone());
            Some(config)
        } else {
            None
        };
        apart.insert(pattern.clone(), config);
        table.insert(pattern.clone(), host.clone());
    }
    kept = KeptTls { certificates: Some(certificates), plain: Some(plain.clone()), apart: used };
    Ok((table, Tls { plain, apart, ticket_keys: None }, kept))
}
