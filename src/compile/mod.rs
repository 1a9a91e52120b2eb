//! World of objects → [`Snapshot`] and findings: a pure function.
//!
//! No clock, no sockets, nothing that waits. What cannot be made out becomes something that refuses and a [`Finding`]
//! that names object, field, reason and remedy; nothing else stops because of it. Parts whose objects did not change
//! are taken over from the last time.

mod account;
mod attach;
mod backend_tls;
mod backends;
mod bearer;
mod certificates;
mod classes;
mod dependency;
mod directory;
mod endpoints;
mod external;
mod finding;
mod hosts;
mod lint;
mod mappings;
mod options;
mod policy;
mod references;
mod route_parts;
mod route_policies;
mod route_values;
mod server_certificates;
mod share;
mod signing;
mod summary;
mod ticket_keys;
mod world;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::networking::v1::Ingress;

pub use finding::{Finding, Severity};
pub use lint::lint;
pub use options::Options;
pub use references::references;
pub use server_certificates::Expiries;
pub use summary::PolicySummary;
pub use world::{
    Object, ObjectKind, ObjectName, ObjectRef, PolicyObject, Statuses, Targeting, World,
};

use attach::{Attachments, KeptPolicies};
use backends::{Backends, KeptBackends};
use certificates::LastGood;
use classes::{Belonging, belonging};
use hosts::{KeptHosts, KeptTls, hosts};
use route_policies::{KeptRoutePolicies, RoutePolicies};
use server_certificates::{KeptCertificates, ServerCertificateReader};
use share::{Share, Standing};
use ticket_keys::ticket_keys;

use crate::policy::{Guard, Policy};
use crate::snapshot::{IdentityHeaders, Snapshot, TicketKeys};

/// What the next compilation may take over.
#[derive(Clone, Debug, Default)]
pub struct Reuse {
    policies: KeptPolicies,
    route_policies: KeptRoutePolicies,
    backends: KeptBackends,
    certificates: KeptCertificates,
    shares: HashMap<ObjectName, Arc<Share>>,
    hosts: KeptHosts,
    tls: KeptTls,
    last_good: LastGood,
    ticket_keys: Option<Arc<TicketKeys>>,
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
    /// When what the TLS Secrets in use hold ends.
    pub expiries: Expiries,
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
    let mut attachments =
        Attachments::new(world, options, &previous.policies, previous.last_good.clone());
    // Of every policy, in force or not: a name that identifies does so on every route.
    let headers = world.policies.values().flat_map(PolicyObject::identity_headers);
    let identity_headers = IdentityHeaders::new(headers);
    let mut routing =
        RoutePolicies::new(world, options, &identity_headers, &previous.route_policies);
    let mut backends = Backends::new(world, options, &previous.backends);
    let mut server_certificates = ServerCertificateReader::new(world, &previous.certificates);
    let mut findings = Vec::new();
    let mut shares: Vec<Arc<Share>> = Vec::with_capacity(world.ingresses.len());
    for (name, ingress) in oldest_first(world) {
        match belonging(world, options, ingress) {
            Belonging::Ours(class) => {
                let attached = attachments.guard(name, ingress, class);
                let (settings, shut) = routing.of(name, &mut attachments.last_good);
                let standing = Standing { attached, settings, shut };
                let earlier = previous.shares.get(name);
                shares.push(Share::of(name, ingress, standing, &mut backends, earlier));
                server_certificates.take(name, ingress);
            }
            Belonging::Other(class) => findings.extend(passed_over(name, class, options)),
        }
    }
    let hosts = hosts(&shares, &previous.hosts, &options.tls);
    findings.extend(shares.iter().flat_map(|share| share.findings.iter().cloned()));
    findings.extend(hosts::findings(&hosts));
    findings.extend(unprotected(&shares));
    attachments.unattached();
    routing.unattached(&attachments.met, &mut attachments.last_good);
    let (certificates, expiries) = server_certificates.table(options);
    findings.append(&mut attachments.findings);
    findings.append(&mut routing.findings);
    let route_policies = routing.kept;
    findings.append(&mut server_certificates.findings);
    let policies = policies_of(&shares);
    let externals = external::externals(&policies, &mut backends);
    findings.extend(externals.findings);
    let (ticket_keys, problems) = ticket_keys(world, options, previous.ticket_keys.as_ref());
    findings.extend(problems);
    findings.sort();
    findings.dedup();
    let (table, mut tls, kept_tls) =
        hosts::tables(&hosts, certificates, &previous.tls, &options.tls)?;
    tls.ticket_keys.clone_from(&ticket_keys);
    let generation = previous.generation + 1;
    let snapshot = Snapshot {
        generation,
        hosts: table,
        tls,
        identity_headers,
        policies,
        externals: externals.backends,
        passed_on: externals.passed_on,
    };
    let made_from = attachments.kept.values().flat_map(|kept| kept.made_from());
    attachments.last_good.keep_only(made_from.chain(route_policies.made_from()));
    let summaries = attachments.kept.values().flat_map(|kept| kept.summaries().cloned());
    let summaries = summaries.collect();
    let reuse = Reuse {
        policies: attachments.kept,
        route_policies,
        last_good: attachments.last_good,
        backends: backends.kept,
        certificates: server_certificates.kept,
        shares: shares.into_iter().map(|share| (share.name.clone(), share)).collect(),
        hosts,
        tls: kept_tls,
        ticket_keys,
        generation,
    };
    Ok(Compiled { snapshot, findings, summaries, expiries, ours: attachments.met, reuse })
}

fn oldest_first(world: &World) -> Vec<(&ObjectName, &Arc<Ingress>)> {
    let mut ingresses: Vec<(&ObjectName, &Arc<Ingress>)> = world.ingresses.iter().collect();
    ingresses.sort_by_key(|(name, ingress)| {
        (ingress.metadata.creation_timestamp.as_ref().map(|time| time.0), *name)
    });
    ingresses
}

fn policies_of(shares: &[Arc<Share>]) -> Vec<Arc<Policy>> {
    let mut policies: Vec<&Arc<Policy>> =
        shares.iter().flat_map(|share| share.attached.policies()).collect();
    policies.sort_by(|a, b| (&a.name, Arc::as_ptr(a)).cmp(&(&b.name, Arc::as_ptr(b))));
    policies.dedup_by(|a, b| Arc::ptr_eq(a, b));
    policies.into_iter().cloned().collect()
}

/// In a directory somebody meant it for certmap; in a cluster it may be another's.
fn passed_over(name: &ObjectName, class: Option<&str>, options: &Options) -> Option<Finding> {
    let class = class.filter(|_| options.directory)?;
    Some(Finding {
        severity: Severity::Warning,
        object: ObjectRef { kind: ObjectKind::Ingress, name: name.clone() },
        target: None,
        field: "spec.ingressClassName".to_owned(),
        reason: "ClassIgnored",
        message: format!(
            "class {class} is not certmap's: the Ingress is passed over; write ingressClassName: {}",
            options.class_name
        ),
    })
}

/// A way past a policy: a route without one to a Service that another route protects.
fn unprotected(shares: &[Arc<Share>]) -> Vec<Finding> {
    // By Service: the ways to it without a policy, and those with one.
    let mut reached: BTreeMap<&ObjectName, (Vec<&str>, Vec<&str>)> = BTreeMap::new();
    for share in shares {
        let is_open = matches!(share.attached, Guard::Open);
        for (service, way) in &share.ways {
            let (open, policed) = reached.entry(service).or_default();
            if is_open { open.push(way) } else { policed.push(way) }
        }
    }
    reached.retain(|_, (open, policed)| !open.is_empty() && !policed.is_empty());
    let finding = |(service, (open, policed)): (&ObjectName, (Vec<&str>, Vec<&str>))| Finding {
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
    };
    reached.into_iter().map(finding).collect()
}
