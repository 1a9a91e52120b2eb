//! World of objects → [`Snapshot`] and findings: a pure function.
//!
//! No clock, no sockets, nothing that waits. What cannot be made out becomes something that refuses and a [`Finding`]
//! that names object, field, reason and remedy; nothing else stops because of it. Parts whose objects did not change
//! are taken over from the last time.

mod account;
mod attach;
mod backends;
mod certificates;
mod dependency;
mod finding;
mod lint;
mod options;
mod policy;
mod references;
mod routes;
mod server_certificates;
mod summary;
mod world;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rustls::ServerConfig;

pub use finding::{Finding, Severity};
pub use lint::lint;
pub use options::Options;
pub use references::references;
pub use summary::PolicySummary;
pub use world::{Object, ObjectKind, ObjectName, ObjectRef, PolicyObject, Statuses, World};

use attach::{Attachments, KeptPolicies};
use backends::{Backends, KeptBackends, Reached};
use certificates::LastGood;
use routes::{Hosts, Router};
use server_certificates::{KeptCertificates, ServerCertificateReader};

use crate::identity::Fingerprint;
use crate::policy::Policy;
use crate::snapshot::{
    ClientCertificateTerms, HostTable, IdentityHeaders, ServerCertificates, Snapshot, Tls,
    VirtualHost, server_config,
};

/// What the next compilation may take over.
#[derive(Clone, Debug, Default)]
pub struct Reuse {
    policies: KeptPolicies,
    backends: KeptBackends,
    certificates: KeptCertificates,
    last_good: LastGood,
    generation: u64,
}

/// What became of a world.
#[derive(Debug)]
pub struct Compiled {
    /// What is served.
    pub snapshot: Snapshot,
    /// What there is to say, in order.
    pub findings: Vec<Finding>,
    /// Of each policy that could be compiled.
    pub summaries: HashMap<ObjectName, PolicySummary>,
    /// When the server certificate of each TLS Secret in use expires, in seconds since 1970.
    pub expiries: Vec<(ObjectName, i64)>,
    /// Ingresses that are ours.
    pub ours: HashSet<ObjectName>,
    /// For the next time.
    pub reuse: Reuse,
}

/// rustls refuses the configuration: a fault of this program, not of any object.
#[derive(Debug, thiserror::Error)]
#[error("no TLS configuration can be made: {0}")]
pub struct CompileError(#[from] rustls::Error);

/// Compiles.
///
/// # Errors
/// The TLS provider is unusable; objects are never to blame.
pub fn compile(
    world: &World,
    previous: &Reuse,
    options: &Options,
) -> Result<Compiled, CompileError> {
    let mut attachments = Attachments::new(
        world,
        options.policy_required,
        &previous.policies,
        previous.last_good.clone(),
    );
    let mut backends = Backends::new(world, options, &previous.backends);
    let mut server_certificates = ServerCertificateReader::new(world, &previous.certificates);
    let mut router =
        Router::new(world, options, &mut attachments, &mut backends, &mut server_certificates);
    router.route_all();
    let Router { hosts, certificates, reached, mut findings, .. } = router;
    findings.extend(unprotected(&reached));
    attachments.unattached();
    findings.append(&mut attachments.findings);
    findings.sort();
    findings.dedup();
    let fallback =
        options.default_certificate.as_ref().and_then(|name| server_certificates.get(name).0);
    let certificates = ServerCertificates {
        by_host: certificates,
        fallback: fallback.unwrap_or_else(|| options.fallback_certificate.clone()),
    };
    let mut policies: Vec<Arc<Policy>> =
        policies_of(hosts.values().flat_map(HashMap::values)).collect();
    policies.sort_by(|a, b| a.name.cmp(&b.name));
    policies.dedup_by(|a, b| Arc::ptr_eq(a, b));
    // Of every policy, in force or not: a name that identifies does so on every route.
    let headers = world.policies.values().filter_map(PolicyObject::user_header);
    let identity_headers = IdentityHeaders::new(headers);
    let (hosts, tls) = virtual_hosts(hosts, certificates)?;
    let generation = previous.generation + 1;
    let snapshot = Snapshot { generation, hosts, tls, identity_headers, policies };
    let summaries = attachments.kept.values().flat_map(|kept| kept.summaries.iter().cloned());
    let summaries = summaries.collect();
    let expiries = server_certificates.expiries();
    let reuse = Reuse {
        policies: attachments.kept,
        last_good: attachments.last_good,
        backends: backends.kept,
        certificates: server_certificates.kept,
        generation,
    };
    Ok(Compiled { snapshot, findings, summaries, expiries, ours: attachments.met, reuse })
}

fn policies_of<'a>(
    routes: impl Iterator<Item = &'a crate::snapshot::Route>,
) -> impl Iterator<Item = Arc<Policy>> {
    routes.flat_map(|route| route.guard.policies().iter().cloned())
}

/// Terms, and the configuration that asks by them.
type Asking = (Arc<ClientCertificateTerms>, Arc<ServerConfig>);

/// Hosts with the same terms share one TLS configuration.
fn virtual_hosts(
    hosts: Hosts,
    certificates: ServerCertificates,
) -> Result<(HostTable<Arc<VirtualHost>>, Tls), CompileError> {
    let certificates = Arc::new(certificates);
    let plain = server_config(&ClientCertificateTerms::default(), certificates.clone())?;
    let mut shared: HashMap<(Option<Fingerprint>, bool), Asking> = HashMap::new();
    let (mut table, mut asking) = (HostTable::default(), HostTable::default());
    for (pattern, routes) in hosts {
        let policies: Vec<Arc<Policy>> = policies_of(routes.values()).collect();
        let terms = ClientCertificateTerms::of(&policies);
        let (terms, config) = if terms.asks {
            let (terms, config) = match shared.entry((terms.trust, terms.hints.is_empty())) {
                Entry::Occupied(known) => known.get().clone(),
                Entry::Vacant(vacant) => {
                    let config = server_config(&terms, certificates.clone())?;
                    vacant.insert((Arc::new(terms), config)).clone()
                }
            };
            (terms, Some(config))
        } else {
            (Arc::new(terms), None)
        };
        asking.insert(pattern.clone(), config);
        table.insert(pattern.clone(), Arc::new(VirtualHost::new(pattern, terms, routes)));
    }
    Ok((table, Tls { plain, asking }))
}

/// A way past a policy: a route without one to a Service that another route protects.
fn unprotected(reached: &Reached) -> impl Iterator<Item = Finding> {
    let both =
        reached.iter().filter(|(_, (open, policed))| !open.is_empty() && !policed.is_empty());
    both.map(|(service, (open, policed))| Finding {
        severity: Severity::Warning,
        object: ObjectRef { kind: ObjectKind::Service, name: service.clone() },
        target: None,
        field: String::new(),
        reason: "ReachedWithoutPolicy",
        message: format!(
            "{} reaches it without a policy, while {} protects it: target the Ingress with a policy too, if that is not meant",
            open.join(", "),
            policed.join(", ")
        ),
    })
}
