//! `CertMappingPolicy` objects → one compiled [`Policy`].

use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use super::account::basic_users;
use super::bearer::KeyReader;
use super::certificates::LastGood;
use super::dependency::Lookup;
use super::directory::directory;
use super::external::compile_external;
use super::finding::{Finding, Severity};
use super::mappings::Mappings;
use super::options::Options;
use super::signing::signed_identity;
use super::world::ObjectName;
use crate::api::{
    self, ActiveDirectory, AuthenticationModule, CertMappingPolicy, CertMappingPolicySpec,
    CertificateBound, Forward, SslFlag, Trust,
};
use crate::policy::{
    Authorization, DirectoryUse, DomainNames, ForwardSettings, Module, Pattern, People, Policy,
    SignedIdentity, SslFlags, TrustBundle,
};

/// Compiles policies that joined: the first says everything, and all brought their mappings.
pub(super) fn compile_policy(
    (name, policy): (&ObjectName, &CertMappingPolicy),
    mappings: &Mappings,
    options: &Options,
    lookup: &Lookup<'_>,
    last_good: &mut LastGood,
) -> (Policy, Vec<Finding>) {
    let spec = &policy.spec;
    let mut out = Compiler { lookup, last_good, object: name, findings: Vec::new() };
    let trust = spec.trust.as_ref().and_then(|trust| out.trust(trust));
    let directory = spec.active_directory.as_ref().map(|it| Arc::new(out.directory(it)));
    let forward = out.forward(&spec.forward, &options.identity_issuer);
    let modules = out.modules(&spec.authentication, directory.as_ref(), options.directory);
    out.anonymous_fallback(spec);
    let policy = Policy {
        name: name.to_string().into(),
        flags: SslFlags::from_iter(spec.ssl_flags.iter().copied()),
        https_redirect: spec.https_redirect,
        trust: trust.map(Arc::new),
        advertise_issuers: spec.trust.as_ref().is_some_and(|trust| trust.advertise_issuers),
        one_to_one: mappings.one_to_one.clone(),
        many_to_one: mappings.many_to_one.clone(),
        directory,
        admit_any_verified: spec.admit_any_verified.as_ref().map(|any| any.user_from),
        modules,
        authorization: authorization(spec.authorization.as_ref()),
        forward: Arc::new(forward),
    };
    (policy, out.findings)
}

/// What the API server's rules refuse must not be put in force if it gets here all the same.
///
/// # Errors
/// The field, and a sentence.
pub(super) fn acceptable(spec: &CertMappingPolicySpec) -> Result<(), (&'static str, &'static str)> {
    let has = |flag| spec.ssl_flags.contains(&flag);
    let reserved = |module: &AuthenticationModule| {
        let set = [
            module.basic.is_some(),
            module.bearer.is_some(),
            module.external.is_some(),
            module.anonymous.is_some(),
        ];
        set.iter().filter(|is_set| **is_set).count() != 1 || module.negotiate.is_some()
    };
    let logon =
        |module: &AuthenticationModule| module.basic.as_ref().is_some_and(|it| it.directory);
    if spec.active_directory.is_none() && spec.authentication.iter().any(logon) {
        return Err(("spec.authentication", "basic.directory needs activeDirectory: write it"));
    }
    if spec.trust.as_ref().is_some_and(|trust| trust.revocation.is_some()) {
        return Err(("spec.trust.revocation", "revocation is reserved: remove it"));
    }
    if spec.authentication.iter().any(reserved) {
        return Err((
            "spec.authentication",
            "an entry is exactly one module: write basic, bearer, external or anonymous",
        ));
    }
    let bound = |module: &AuthenticationModule| {
        module.bearer.as_ref().is_some_and(|it| it.certificate_bound == CertificateBound::Required)
    };
    if spec.authentication.iter().any(bound) && !has(SslFlag::SslNegotiateCert) {
        return Err((
            "spec.authentication",
            "certificateBound: Required works only with SslNegotiateCert: add it",
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
    tellable(&spec.forward)
}

/// Two values under one name, or without an end that a reader knows, would be one another.
fn tellable(forward: &Forward) -> Result<(), (&'static str, &'static str)> {
    let signed = forward.signed_identity.as_ref();
    let names = forward.user_header.iter().chain(&forward.groups_header);
    let names = names.chain(signed.map(|signed| &signed.header)).map(|it| it.to_ascii_lowercase());
    let names: Vec<String> = names.collect();
    if names
        .iter()
        .enumerate()
        .any(|(index, name)| names.iter().skip(index + 1).any(|it| it == name))
    {
        return Err(("spec.forward", "two of forward's headers have one name: write several"));
    }
    let mut separator = forward.groups_separator.chars();
    if !separator.next().is_some_and(|c| c.is_ascii_punctuation()) || separator.next().is_some() {
        return Err(("spec.forward.groupsSeparator", "write one punctuation character"));
    }
    if signed.is_some_and(|signed| !(5..=600).contains(&signed.lifetime_seconds)) {
        let field = "spec.forward.signedIdentity.lifetimeSeconds";
        return Err((field, "a token holds 5 to 600 seconds: write a number between"));
    }
    Ok(())
}

/// Under deny, case saves nobody.
fn authorization(authorization: Option<&api::Authorization>) -> Authorization {
    let people = |people: &api::People, case_sensitive| {
        People::new(&people.users, &people.groups, case_sensitive)
    };
    let allow = authorization.and_then(|it| it.allow.as_ref()).map(|allow| people(allow, true));
    let deny = authorization.and_then(|it| it.deny.as_ref()).map(|deny| people(deny, false));
    Authorization::new(allow, deny.unwrap_or_default())
}

struct Compiler<'a> {
    lookup: &'a Lookup<'a>,
    last_good: &'a mut LastGood,
    object: &'a ObjectName,
    findings: Vec<Finding>,
}

impl Compiler<'_> {
    fn find(&mut self, field: impl Into<String>, reason: &'static str, message: impl Into<String>) {
        let finding = Finding::of_policy(self.object, Severity::Error, field, reason, message);
        self.findings.push(finding);
    }

    /// What cannot be signed lets nobody in.
    fn forward(&mut self, forward: &Forward, issuer: &str) -> ForwardSettings {
        let signed = forward.signed_identity.as_ref();
        let signed = signed
            .map(|spec| signed_identity(&self.object.namespace, spec, issuer, self.lookup))
            .map(|(signed, problems)| self.signed(signed, problems));
        let lower = |name: &Option<String>| {
            name.as_ref().map(|name| name.to_ascii_lowercase().into_boxed_str())
        };
        let domain = forward.domain.as_ref();
        let name = |name: Option<&String>| name.map(|name| name.as_str().into());
        ForwardSettings {
            user_header: lower(&forward.user_header),
            user_format: forward.user_format,
            domain: DomainNames {
                netbios: name(domain.and_then(|domain| domain.netbios.as_ref())),
                dns: name(domain.and_then(|domain| domain.dns.as_ref())),
            },
            groups_header: lower(&forward.groups_header),
            groups_separator: forward.groups_separator.chars().next().unwrap_or(','),
            basic_credentials: forward.basic_credentials,
            pass_authorization: forward.pass_authorization,
            client_certificate: forward.client_certificate.clone(),
            signed_identity: signed,
        }
    }

    fn signed(&mut self, signed: SignedIdentity, problems: Vec<String>) -> SignedIdentity {
        let field = "spec.forward.signedIdentity.keySecretRef";
        if let Err(problem) = &signed.keys {
            let message = format!("{problem}; until then nobody is let in (503.92)");
            self.find(field, "SigningKeyUnusable", message);
        }
        for problem in problems {
            self.findings.push(Finding::of_policy(
                self.object,
                Severity::Warning,
                field,
                "SigningKeyIgnored",
                problem,
            ));
        }
        signed
    }

    /// All CAs of all references that resolve; fewer CAs never let more people in.
    fn trust(&mut self, trust: &Trust) -> Option<TrustBundle> {
        let cas = self.cas(&trust.ca_certificate_refs, "spec.trust.caCertificateRefs");
        match TrustBundle::new(&cas, trust.max_depth) {
            Ok(bundle) => Some(bundle),
            Err(error) => {
                let message = format!("trust {error}: every client is refused until it does");
                self.find("spec.trust", "NoTrust", message);
                None
            }
        }
    }

    /// A door that few mean to leave open: said wherever findings are, not only by `validate`.
    fn anonymous_fallback(&mut self, spec: &CertMappingPolicySpec) {
        let has = |flag| spec.ssl_flags.contains(&flag);
        let anonymous = spec.authentication.iter().position(|module| module.anonymous.is_some());
        let external = spec.authentication.iter().position(|module| module.external.is_some());
        let is_reached = anonymous.is_some_and(|at| external.is_none_or(|external| at < external));
        if has(SslFlag::SslNegotiateCert)
            && is_reached
            && !has(SslFlag::SslMapCert)
            && spec.admit_any_verified.is_none()
        {
            let message = "a certificate that verifies and maps to nobody is let in as anonymous: add SslMapCert to sslFlags if that is not meant";
            let (field, reason) = ("spec.authentication", "AnonymousFallback");
            let warning =
                Finding::of_policy(self.object, Severity::Warning, field, reason, message);
            self.findings.push(warning);
        }
    }

    /// The CAs of all references that can be read.
    fn cas(
        &mut self,
        references: &[api::CaCertificateRef],
        list: &str,
    ) -> Vec<CertificateDer<'static>> {
        let mut cas = Vec::new();
        for (index, reference) in references.iter().enumerate() {
            let field = format!("{list}[{index}]");
            match self.last_good.cas(self.lookup, &self.object.namespace, reference) {
                Ok((found, stale)) => {
                    cas.extend(found.iter().cloned());
                    if let Some(problem) = stale {
                        let message = format!("{problem}; the CAs read before stay in force");
                        self.find(field, "CABundleInvalid", message);
                    }
                }
                Err(problem) => self.find(field, "CABundleUnresolved", problem),
            }
        }
        cas
    }

    /// One that cannot be made out admits nobody, and says why.
    fn directory(&mut self, spec: &ActiveDirectory) -> DirectoryUse {
        let field = "spec.activeDirectory.caCertificateRefs";
        let cas = self.cas(&spec.ca_certificate_refs, field);
        let made = if cas.is_empty() {
            let problem = "no CA of the directory's is known: it is not asked until there is one";
            Err(("caCertificateRefs", problem.to_owned()))
        } else {
            directory(self.lookup, &self.object.namespace, spec, cas)
        };
        let made = made.map(Arc::new).map_err(|(field, problem)| {
            let field = format!("spec.activeDirectory.{field}");
            self.find(field, "DirectoryUnusable", format!("{problem}; until then 503.93"));
            problem.into()
        });
        let groups = spec.groups.iter().map(|text| Pattern::new(text, false)).collect();
        DirectoryUse { maps: spec.enabled, directory: made, groups }
    }

    fn modules(
        &mut self,
        authentication: &[AuthenticationModule],
        used: Option<&Arc<DirectoryUse>>,
        directory: bool,
    ) -> Vec<Module> {
        let mut modules = Vec::new();
        for (index, module) in authentication.iter().enumerate() {
            let field = format!("spec.authentication[{index}]");
            if let Some(basic) = &module.basic {
                modules.push(self.basic(basic, used, &field));
            }
            if let Some(bearer) = &module.bearer {
                modules.push(self.bearer(bearer, &field, directory));
            }
            if let Some(external) = &module.external {
                modules.push(self.external(external, &field));
            }
            if let Some(anonymous) = &module.anonymous {
                let user = anonymous.user_name.as_deref().map(Into::into);
                modules.push(Module::Anonymous { user });
            }
        }
        modules
    }

    fn basic(
        &mut self,
        basic: &api::Basic,
        used: Option<&Arc<DirectoryUse>>,
        field: &str,
    ) -> Module {
        let policy = self.object;
        let (users, problems) = basic_users(self.lookup, &policy.namespace, basic);
        for (reference, problem) in problems {
            self.find(
                format!("{field}.basic.secretRefs[{reference}]"),
                "CredentialsUnusable",
                problem,
            );
        }
        let realm = basic.realm.as_deref().unwrap_or(&policy.name).into();
        let directory = used.filter(|_| basic.directory).cloned();
        Module::Basic { users, directory, realm }
    }

    fn bearer(&mut self, bearer: &api::Bearer, field: &str, local: bool) -> Module {
        let (policy, lookup, last_good) = (self.object, self.lookup, &mut *self.last_good);
        let mut reader = KeyReader { policy, lookup, last_good, local, problems: Vec::new() };
        let realm = bearer.realm.as_deref().unwrap_or(&policy.name).into();
        let bearer = reader.bearer(bearer);
        for (within, problem) in reader.problems {
            self.find(format!("{field}.bearer.{within}"), "KeysUnresolved", problem);
        }
        Module::Bearer { bearer, realm }
    }

    fn external(&mut self, external: &api::External, field: &str) -> Module {
        let (service, problems) = compile_external(self.object, external, self.lookup);
        for (severity, within, reason, problem) in problems {
            let field = format!("{field}.external.{within}");
            self.findings.push(Finding::of_policy(self.object, severity, field, reason, problem));
        }
        Module::External(Arc::new(service))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_an_older_definition_lets_pass_is_not_put_in_force() {
        let check = |forward: serde_json::Value| {
            let spec = serde_json::from_value(json!({"forward": forward})).unwrap();
            acceptable(&spec).map_err(|(field, _)| field)
        };
        let signed = |more: serde_json::Value| {
            let mut signed = json!({"keySecretRef": {"name": "k"}});
            signed.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"userHeader": "X-User", "groupsHeader": "X-Groups", "signedIdentity": signed})
        };
        assert_eq!(check(signed(json!({}))), Ok(()));
        assert_eq!(
            check(json!({"userHeader": "X-User", "groupsHeader": "x-USER"})),
            Err("spec.forward")
        );
        assert_eq!(check(signed(json!({"header": "X-Groups"}))), Err("spec.forward"));
        for bad in ["", "a", ";;", " ", "\u{b6}"] {
            let found = check(json!({"groupsSeparator": bad}));
            assert_eq!(found, Err("spec.forward.groupsSeparator"), "{bad}");
        }
        let found = check(signed(json!({"lifetimeSeconds": 601})));
        assert_eq!(found, Err("spec.forward.signedIdentity.lifetimeSeconds"));
    }
}
