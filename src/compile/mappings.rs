//! Mappings of `CertMappingPolicy` objects → what a certificate is looked up in.
//!
//! Apart from the rest of a policy: there may be very many, and a CA that changes leaves them as they are.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use super::account::Accounts;
use super::certificates::LastGood;
use super::dependency::Lookup;
use super::finding::{Finding, Severity};
use super::summary::PolicySummary;
use super::world::ObjectName;
use crate::api::{
    self, CertMappingPolicy, CertificateRef, ManyToOneMapping, OneToOneMapping, PermissionMode,
};
use crate::identity::{Fingerprint, Validity};
use crate::policy::{self, ManyToOneMappings, OneToOneMappings, Rule};

/// The mappings of policies that joined, what there is to say of them, and each object in figures.
#[derive(Clone, Debug)]
pub(super) struct Mappings {
    pub(super) one_to_one: Arc<OneToOneMappings>,
    pub(super) many_to_one: Arc<ManyToOneMappings>,
    pub(super) findings: Vec<Finding>,
    pub(super) summaries: Vec<(ObjectName, PolicySummary)>,
}

/// Compiles them; what accounts must have is said by the first policy's `forward`.
pub(super) fn compile_mappings(
    joined: &[(ObjectName, Arc<CertMappingPolicy>)],
    lookup: &Lookup<'_>,
    last_good: &mut LastGood,
) -> Option<Mappings> {
    let (name, first) = joined.first()?;
    let summary = PolicySummary::default();
    let mut out = Compiler { lookup, last_good, object: name, findings: Vec::new(), summary };
    let mut accounts = Accounts::new(lookup, first.spec.forward.basic_credentials);
    let (mut one_to_one, mut many_to_one) = (OneToOneMappings::default(), Vec::new());
    let mut summaries = Vec::new();
    for (name, object) in joined {
        (out.object, out.summary) = (name, PolicySummary::default());
        let policy: Arc<str> = name.to_string().into();
        out.one_to_one(object, &policy, &mut accounts, &mut one_to_one);
        many_to_one.extend(out.many_to_one(object, &policy, &mut accounts));
        summaries.push((name.clone(), out.summary));
    }
    Some(Mappings {
        one_to_one: Arc::new(one_to_one),
        many_to_one: Arc::new(ManyToOneMappings::new(many_to_one)),
        findings: out.findings,
        summaries,
    })
}

struct Compiler<'a> {
    lookup: &'a Lookup<'a>,
    last_good: &'a mut LastGood,
    object: &'a ObjectName,
    findings: Vec<Finding>,
    /// Of the object at hand.
    summary: PolicySummary,
}

impl<'a> Compiler<'a> {
    fn find(
        &mut self,
        severity: Severity,
        field: impl Into<String>,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        self.findings.push(Finding::of_policy(self.object, severity, field, reason, message));
    }

    fn one_to_one(
        &mut self,
        object: &'a CertMappingPolicy,
        policy: &Arc<str>,
        accounts: &mut Accounts<'a>,
        mappings: &mut OneToOneMappings,
    ) {
        let Some(one_to_one) =
            object.spec.one_to_one.as_ref().filter(|one_to_one| one_to_one.enabled)
        else {
            return;
        };
        for (index, mapping) in
            one_to_one.mappings.iter().enumerate().filter(|(_, mapping)| mapping.enabled)
        {
            let field = |rest: &str| format!("spec.oneToOne.mappings[{index}]{rest}");
            let (fingerprint, expiry) = match self.fingerprint(mapping, index) {
                Ok(found) => found,
                Err((form, problem)) => {
                    let message = format!("mapping {}: {problem}", mapping.name);
                    self.find(Severity::Error, field(form), "CertificateUnresolved", message);
                    continue;
                }
            };
            self.summary.add(expiry);
            let account =
                self.account(&mapping.name, || field(".account"), &mapping.account, accounts);
            let compiled = policy::OneToOneMapping {
                name: (&*mapping.name).into(),
                policy: policy.clone(),
                account,
            };
            if let Err(other) = mappings.add(fingerprint, compiled) {
                let message = format!(
                    "mapping {}: mapping {other} has the same certificate: remove one of them; with different accounts both are refused",
                    mapping.name
                );
                self.find(Severity::Error, field(""), "CertificateMappedTwice", message);
            }
        }
    }

    /// What to compare with and when the certificate expires; the field's end and a sentence, where there is none.
    fn fingerprint(
        &mut self,
        mapping: &OneToOneMapping,
        index: usize,
    ) -> Result<Expiring, (&'static str, String)> {
        if let Some(text) = &mapping.sha256 {
            let fingerprint = Fingerprint::parse(text);
            return fingerprint
                .map(|fingerprint| (fingerprint, None))
                .map_err(|error| (".sha256", error.to_string()));
        }
        if let Some(text) = &mapping.certificate {
            let found = crate::identity::read_certificates(text.as_bytes());
            let found = found.map_err(|error| (".certificate", error.to_string()))?;
            return only(&found, false).map_err(|problem| (".certificate", problem));
        }
        let reference =
            mapping.certificate_ref.as_ref().ok_or_else(|| ("", "no certificate".to_owned()))?;
        self.referenced(reference, index).map_err(|problem| (".certificateRef", problem))
    }

    fn referenced(&mut self, reference: &CertificateRef, index: usize) -> Result<Expiring, String> {
        let (from, elsewhere) = (&self.object.namespace, reference.namespace.as_deref());
        let name =
            LastGood::resolve(self.lookup, from, reference.kind, &reference.name, elsewhere)?;
        let found = self.last_good.read(self.lookup, reference.kind, &name, &reference.key)?;
        if let Some(problem) = found.stale {
            let message = format!("{problem}; the certificate read before stays in force");
            let field = format!("spec.oneToOne.mappings[{index}].certificateRef");
            self.find(Severity::Error, field, "CertificateInvalid", message);
        }
        only(&found.certificates, reference.key == "tls.crt")
    }

    fn account(
        &mut self,
        mapping: &str,
        field: impl Fn() -> String,
        account: &'a api::Account,
        accounts: &mut Accounts<'a>,
    ) -> Arc<policy::Account> {
        let (compiled, warning) = accounts.get(&self.object.namespace, account);
        if let policy::Account::Unusable { problem } = &*compiled {
            let message = format!("mapping {mapping}: {problem}; until then it answers 401.1");
            self.find(Severity::Error, field(), "AccountUnusable", message);
        }
        if let Some(warning) = warning {
            self.find(
                Severity::Warning,
                field(),
                "UserNameDiffers",
                format!("mapping {mapping}: {warning}"),
            );
        }
        compiled
    }

    fn many_to_one(
        &mut self,
        object: &'a CertMappingPolicy,
        policy: &Arc<str>,
        accounts: &mut Accounts<'a>,
    ) -> Vec<policy::ManyToOneMapping> {
        let many_to_one =
            object.spec.many_to_one.as_ref().filter(|many_to_one| many_to_one.enabled);
        let mappings =
            many_to_one.iter().flat_map(|many_to_one| many_to_one.mappings.iter().enumerate());
        let enabled: Vec<_> = mappings.filter(|(_, mapping)| mapping.enabled).collect();
        enabled
            .into_iter()
            .map(|(index, mapping)| self.many_to_one_mapping(index, mapping, policy, accounts))
            .collect()
    }

    /// A mapping that does not compile refuses whomever it meets: what is listed below it may have been meant for others.
    fn many_to_one_mapping(
        &mut self,
        index: usize,
        mapping: &'a ManyToOneMapping,
        policy: &Arc<str>,
        accounts: &mut Accounts<'a>,
    ) -> policy::ManyToOneMapping {
        self.summary.add(None);
        let field = |rest: &str| format!("spec.manyToOne.mappings[{index}]{rest}");
        let allowed =
            mapping.account.as_ref().filter(|_| mapping.permission_mode == PermissionMode::Allow);
        let account = allowed
            .map(|account| self.account(&mapping.name, || field(".account"), account, accounts));
        let rules: Result<Box<[Rule]>, _> = mapping.rules.iter().map(Rule::new).collect();
        let (rules, account) = match rules {
            Ok(rules) if !rules.is_empty() => (rules, account),
            Ok(rules) => {
                let message = format!(
                    "mapping {}: no rules: it refuses everyone who gets as far; write rules",
                    mapping.name
                );
                self.find(Severity::Error, field(".rules"), "MappingInvalid", message);
                (rules, None)
            }
            Err(error) => {
                let message = format!(
                    "mapping {}: {error}; until then it refuses everyone who gets as far",
                    mapping.name
                );
                self.find(Severity::Error, field(".rules"), "MappingInvalid", message);
                (Box::default(), None)
            }
        };
        policy::ManyToOneMapping {
            name: (&*mapping.name).into(),
            policy: policy.clone(),
            rules,
            account,
        }
    }
}

/// A certificate's fingerprint, and when it expires where that can be read (seconds since 1970).
type Expiring = (Fingerprint, Option<i64>);

fn only(certificates: &[CertificateDer<'_>], leaf_first: bool) -> Result<Expiring, String> {
    let expiring = |certificate: &CertificateDer<'_>| {
        let expiry = Validity::of(certificate).map(|validity| validity.not_after);
        (Fingerprint::of(certificate), expiry)
    };
    match certificates {
        [certificate] => Ok(expiring(certificate)),
        [leaf, ..] if leaf_first => Ok(expiring(leaf)),
        more => {
            Err(format!("{} certificates where one is expected: keep the client's own", more.len()))
        }
    }
}
