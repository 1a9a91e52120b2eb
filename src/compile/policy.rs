//! `CertMappingPolicy` objects → one compiled [`Policy`].

use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use super::account::{Accounts, basic_users};
use super::certificates::LastGood;
use super::dependency::Lookup;
use super::finding::{Finding, Severity};
use super::summary::PolicySummary;
use super::world::{ObjectKind, ObjectName, ObjectRef};
use crate::api::{
    self, AuthenticationModule, CertMappingPolicy, CertMappingPolicySpec, CertificateRef, Forward,
    ManyToOneMapping, OneToOneMapping, PermissionMode, SslFlag, Trust,
};
use crate::identity::{Fingerprint, Validity};
use crate::policy::{
    self, ForwardSettings, ManyToOneMappings, Module, OneToOneMappings, Policy, Rule, SslFlags,
    TrustBundle,
};

/// A policy, what there is to say of it, and each of its objects in figures.
pub(super) type Made = (Policy, Vec<Finding>, Vec<(ObjectName, PolicySummary)>);

/// Compiles policies that joined: the first says everything, and all bring their mappings.
pub(super) fn compile_policy(
    joined: &[(ObjectName, Arc<CertMappingPolicy>)],
    lookup: &Lookup<'_>,
    last_good: &mut LastGood,
) -> Option<Made> {
    let (name, first) = joined.first()?;
    let spec = &first.spec;
    let summary = PolicySummary::default();
    let mut out = Compiler { lookup, last_good, object: name, findings: Vec::new(), summary };
    let trust = spec.trust.as_ref().and_then(|trust| out.trust(trust));
    let modules = out.modules(name, &spec.authentication);
    let mut accounts = Accounts::new(lookup, spec.forward.basic_credentials);
    let (mut one_to_one, mut many_to_one) = (OneToOneMappings::default(), Vec::new());
    let mut summaries = Vec::new();
    for (name, object) in joined {
        (out.object, out.summary) = (name, PolicySummary::default());
        let policy: Arc<str> = name.to_string().into();
        out.one_to_one(object, &policy, &mut accounts, &mut one_to_one);
        many_to_one.extend(out.many_to_one(object, &policy, &mut accounts));
        summaries.push((name.clone(), out.summary));
    }
    let findings = out.findings;
    let policy = Policy {
        name: name.to_string().into(),
        flags: SslFlags::from_iter(spec.ssl_flags.iter().copied()),
        https_redirect: spec.https_redirect,
        trust: trust.map(Arc::new),
        advertise_issuers: spec.trust.as_ref().is_some_and(|trust| trust.advertise_issuers),
        one_to_one: Arc::new(one_to_one),
        many_to_one: Arc::new(ManyToOneMappings::new(many_to_one)),
        admit_any_verified: spec.admit_any_verified.as_ref().map(|any| any.user_from),
        modules,
        forward: Arc::new(forward(&spec.forward)),
    };
    Some((policy, findings, summaries))
}

/// What the API server's rules refuse must not be put in force if it gets here all the same.
///
/// # Errors
/// The field, and a sentence.
pub(super) fn acceptable(spec: &CertMappingPolicySpec) -> Result<(), (&'static str, &'static str)> {
    let has = |flag| spec.ssl_flags.contains(&flag);
    let reserved =
        |module: &AuthenticationModule| module.basic.is_none() && module.anonymous.is_none();
    if spec.active_directory.is_some() {
        return Err(("spec.activeDirectory", "activeDirectory is reserved: remove it"));
    }
    if spec.trust.as_ref().is_some_and(|trust| trust.revocation.is_some()) {
        return Err(("spec.trust.revocation", "revocation is reserved: remove it"));
    }
    if spec.authentication.iter().any(reserved) {
        return Err((
            "spec.authentication",
            "a module is reserved or empty: write basic or anonymous",
        ));
    }
    if (has(SslFlag::SslRequireCert) || has(SslFlag::SslMapCert)) && !has(SslFlag::SslNegotiateCert)
    {
        return Err((
            "spec.sslFlags",
            "SslRequireCert and SslMapCert work only with SslNegotiateCert: add it",
        ));
    }
    if has(SslFlag::SslNegotiateCert) && spec.trust.is_none() {
        return Err((
            "spec.sslFlags",
            "SslNegotiateCert needs trust: write trust.caCertificateRefs",
        ));
    }
    Ok(())
}

fn forward(forward: &Forward) -> ForwardSettings {
    ForwardSettings {
        user_header: forward.user_header.as_ref().map(|name| name.to_ascii_lowercase().into()),
        basic_credentials: forward.basic_credentials,
        pass_authorization: forward.pass_authorization,
        client_certificate: forward.client_certificate.clone(),
    }
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
        let object = ObjectRef { kind: ObjectKind::CertMappingPolicy, name: self.object.clone() };
        self.findings.push(Finding {
            severity,
            object,
            target: None,
            field: field.into(),
            reason,
            message: message.into(),
        });
    }

    /// All CAs of all references that resolve; fewer CAs never let more people in.
    fn trust(&mut self, trust: &Trust) -> Option<TrustBundle> {
        let mut cas: Vec<CertificateDer<'static>> = Vec::new();
        for (index, reference) in trust.ca_certificate_refs.iter().enumerate() {
            let field = format!("spec.trust.caCertificateRefs[{index}]");
            match self.cas(reference) {
                Ok((found, stale)) => {
                    cas.extend(found.iter().cloned());
                    if let Some(problem) = stale {
                        let message = format!("{problem}; the CAs read before stay in force");
                        self.find(Severity::Error, field, "CABundleInvalid", message);
                    }
                }
                Err(problem) => self.find(Severity::Error, field, "CABundleUnresolved", problem),
            }
        }
        match TrustBundle::new(&cas, trust.max_depth) {
            Ok(bundle) => Some(bundle),
            Err(error) => {
                let message = format!("trust {error}: every client is refused until it does");
                self.find(Severity::Error, "spec.trust", "NoTrust", message);
                None
            }
        }
    }

    /// A bundle with a certificate that is no CA's is as bad as one that cannot be read.
    fn cas(
        &mut self,
        reference: &api::CaCertificateRef,
    ) -> Result<(Arc<[CertificateDer<'static>]>, Option<String>), String> {
        let (from, elsewhere) = (&self.object.namespace, reference.namespace.as_deref());
        let name =
            &LastGood::resolve(self.lookup, from, reference.kind, &reference.name, elsewhere)?;
        let earlier = self.last_good.clone();
        let found = self.last_good.read(self.lookup, reference.kind, name, &reference.key)?;
        let Err(error) = TrustBundle::new(&found.certificates, 0) else {
            return Ok((found.certificates, found.stale));
        };
        let problem = format!("{:?} {name}, key {}: {error}", reference.kind, reference.key);
        match self.last_good.restore(&earlier, reference.kind, name, &reference.key) {
            Some(certificates) => Ok((certificates, Some(problem))),
            None => Err(problem),
        }
    }

    fn modules(
        &mut self,
        policy: &ObjectName,
        authentication: &[AuthenticationModule],
    ) -> Vec<Module> {
        let mut modules = Vec::new();
        for (index, module) in authentication.iter().enumerate() {
            if let Some(basic) = &module.basic {
                let (users, problems) = basic_users(self.lookup, &policy.namespace, basic);
                for (reference, problem) in problems {
                    let field =
                        format!("spec.authentication[{index}].basic.secretRefs[{reference}]");
                    self.find(Severity::Error, field, "CredentialsUnusable", problem);
                }
                let realm = basic.realm.as_deref().unwrap_or(&policy.name).into();
                modules.push(Module::Basic { users, realm });
            }
            if module.anonymous.is_some() {
                modules.push(Module::Anonymous);
            }
        }
        modules
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
