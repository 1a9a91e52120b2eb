//! What is allowed, and yet surely not meant: for `certmap validate`, not for every change.

use std::sync::Arc;

use rustls::pki_types::UnixTime;

use super::finding::{Finding, Severity};
use super::world::{ObjectKind, ObjectName, ObjectRef, PolicyObject, World};
use crate::api::{AuthenticationModule, CertMappingPolicy, SslFlag};
use crate::identity::{PeerCertificate, read_certificates};
use crate::policy::{ChainResult, ManyToOneMapping, Policy, Rule};
use crate::snapshot::Snapshot;

/// Warnings about the policies in force: mappings that can never decide, and doors that stand open.
#[must_use]
pub fn lint(world: &World, snapshot: &Snapshot, now: UnixTime) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        snapshot.policies.iter().flat_map(|policy| lint_policy(world, policy, now)).collect();
    findings.sort();
    findings.dedup();
    findings
}

fn lint_policy(world: &World, policy: &Arc<Policy>, now: UnixTime) -> Vec<Finding> {
    let mut findings = shadowed(world, policy);
    let name = object_name(&policy.name);
    let Some(object) = readable(world, &name) else { return findings };
    findings.extend(doors(&name, &object.spec));
    findings.extend(dead_certificates(&name, object, policy, now));
    findings
}

fn warning(
    policy: &ObjectName,
    field: impl Into<String>,
    reason: &'static str,
    message: impl Into<String>,
) -> Finding {
    let object = ObjectRef { kind: ObjectKind::CertMappingPolicy, name: policy.clone() };
    Finding {
        severity: Severity::Warning,
        object,
        target: None,
        field: field.into(),
        reason,
        message: message.into(),
    }
}

fn object_name(name: &str) -> ObjectName {
    let (namespace, name) = name.split_once('/').unwrap_or(("", name));
    ObjectName::new(namespace, name)
}

fn readable<'a>(world: &'a World, name: &ObjectName) -> Option<&'a CertMappingPolicy> {
    match world.policies.get(name)? {
        PolicyObject::Readable(policy) => Some(policy),
        PolicyObject::Unreadable { .. } => None,
    }
}

fn doors(name: &ObjectName, spec: &crate::api::CertMappingPolicySpec) -> Vec<Finding> {
    let asks = spec.ssl_flags.contains(&SslFlag::SslNegotiateCert);
    let one_to_one = spec
        .one_to_one
        .as_ref()
        .is_some_and(|part| part.enabled && part.mappings.iter().any(|m| m.enabled));
    let many_to_one = spec
        .many_to_one
        .as_ref()
        .is_some_and(|part| part.enabled && part.mappings.iter().any(|m| m.enabled));
    let directory = spec.active_directory.as_ref().filter(|directory| directory.enabled);
    let nameless = spec.admit_any_verified.is_some() || directory.is_some();
    let maps = one_to_one || many_to_one || nameless;
    let mut findings = Vec::new();
    if maps && !asks {
        let message = "the mappings are never looked at: without SslNegotiateCert no certificate is asked for; add it to sslFlags";
        findings.push(warning(name, "spec.sslFlags", "MappingsUnused", message));
    }
    if !maps && spec.authentication.is_empty() {
        findings.push(warning(
            name,
            "spec",
            "NobodyAdmitted",
            "nobody gets in: there is neither an enabled mapping nor an authentication module",
        ));
    }
    let named = |module: &AuthenticationModule| {
        let anonymous = module.anonymous.as_ref().is_some_and(|it| it.user_name.is_some());
        anonymous || module.bearer.is_some() || module.external.is_some()
    };
    let without_password = nameless || spec.authentication.iter().any(named);
    if without_password && spec.forward.basic_credentials {
        let message = "whoever admitAnyVerified, activeDirectory (by a certificate), a token or an external service lets in has no password to send, and gets 502: map them to accounts, or use userHeader";
        findings.push(warning(
            name,
            "spec.forward.basicCredentials",
            "CredentialsMissing",
            message,
        ));
    }
    let external = spec.authentication.iter().position(|module| module.external.is_some());
    if let Some(index) = external.filter(|index| index + 1 < spec.authentication.len()) {
        let field = format!("spec.authentication[{}]", index + 1);
        let message = "never reached: external decides on every request that gets as far as it; write this module before it, or remove it";
        findings.push(warning(name, field, "ModuleUnreachable", message));
    }
    if let Some(directory) = directory.filter(|directory| !directory.weak_mappings.is_empty()) {
        let weak = &directory.weak_mappings;
        let message = format!(
            "{weak:?} name what another certificate of a trusted CA could say as well: map by issuer and serial number, key, or SID where you can"
        );
        findings.push(warning(name, "spec.activeDirectory.weakMappings", "WeakMappings", message));
    }
    findings
}

/// Mappings whose certificate would be refused before anybody looks at them.
fn dead_certificates(
    name: &ObjectName,
    object: &CertMappingPolicy,
    policy: &Policy,
    now: UnixTime,
) -> Vec<Finding> {
    let (Some(trust), Some(one_to_one)) = (&policy.trust, &object.spec.one_to_one) else {
        return Vec::new();
    };
    let enabled = one_to_one
        .mappings
        .iter()
        .enumerate()
        .filter(|(_, mapping)| mapping.enabled && one_to_one.enabled);
    enabled
        .filter_map(|(index, mapping)| {
            let found = read_certificates(mapping.certificate.as_ref()?.as_bytes()).ok()?;
            let certificate = PeerCertificate::parse(&found).ok()?;
            let (reason, why) = match trust.judge(&certificate, now).result {
                // A client may send the intermediates that are missing here.
                ChainResult::Verified(_) => return None,
                ChainResult::Untrusted(_)
                    if certificate.chain.len() == 1 && policy_depth(object) > 0 =>
                {
                    return None;
                }
                ChainResult::Untrusted(why) => ("CertificateUntrusted", why.to_string()),
                ChainResult::Expired => ("CertificateExpired", "it has expired".to_owned()),
                ChainResult::NotYetValid => {
                    ("CertificateNotYetValid", "it is not yet valid".to_owned())
                }
            };
            let message = format!(
                "mapping {} is dead: its certificate is refused, because {why}",
                mapping.name
            );
            Some(warning(
                name,
                format!("spec.oneToOne.mappings[{index}].certificate"),
                reason,
                message,
            ))
        })
        .collect()
}

fn policy_depth(object: &CertMappingPolicy) -> u8 {
    object.spec.trust.as_ref().map_or(0, |trust| trust.max_depth)
}

/// Mappings that an earlier one always decides for.
fn shadowed(world: &World, policy: &Policy) -> Vec<Finding> {
    let mappings = policy.many_to_one.all();
    let earlier = |index: usize| mappings.get(..index).unwrap_or_default();
    let hidden = mappings.iter().enumerate().filter_map(|(index, mapping)| {
        earlier(index).iter().find(|other| covers(other, mapping)).map(|other| (other, mapping))
    });
    hidden
        .map(|(other, mapping)| {
            let name = object_name(&mapping.policy);
            let message = format!("mapping {} never decides: every certificate that fits it fits mapping {}, which stands before it", mapping.name, other.name);
            warning(&name, field_of(world, &name, &mapping.name), "MappingShadowed", message)
        })
        .collect()
}

fn field_of(world: &World, policy: &ObjectName, mapping: &str) -> String {
    let many_to_one = readable(world, policy).and_then(|object| object.spec.many_to_one.as_ref());
    let index = many_to_one
        .and_then(|part| part.mappings.iter().position(|candidate| candidate.name == mapping));
    index.map_or_else(
        || "spec.manyToOne".to_owned(),
        |index| format!("spec.manyToOne.mappings[{index}]"),
    )
}

/// Whether whatever fits `narrow` fits `wide` too.
fn covers(wide: &ManyToOneMapping, narrow: &ManyToOneMapping) -> bool {
    wide.rules.iter().all(|rule| narrow.rules.iter().any(|other| implies(other, rule)))
}

fn implies(narrow: &Rule, wide: &Rule) -> bool {
    let same_attribute = narrow.field == wide.field && narrow.attribute == wide.attribute;
    let literal = narrow.pattern.literal().filter(|_| narrow.pattern.is_case_sensitive());
    same_attribute
        && (narrow.pattern == wide.pattern
            || literal.is_some_and(|value| wide.pattern.matches(value)))
}
