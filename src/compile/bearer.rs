//! The Bearer module: what a token has to say, and the keys by which it is verified.

use std::sync::Arc;

use jsonwebtoken::Algorithm;

use super::certificates::LastGood;
use super::dependency::Lookup;
use super::world::ObjectName;
use crate::api::{
    self, CaCertificateRef, CertificateBound, KeySetRef, KeySetSource, TokenAlgorithm,
};
use crate::auth::{Bearer, BearerSettings, KeySource, TokenKeys};
use crate::policy::TrustBundle;

/// What there is to say of the keys: the field within the module, and a sentence.
pub(super) type Problem = (String, String);

/// Where keys are read from.
pub(super) struct KeyReader<'a> {
    pub(super) policy: &'a ObjectName,
    pub(super) lookup: &'a Lookup<'a>,
    pub(super) last_good: &'a mut LastGood,
    /// Whether addresses of this machine may be asked.
    pub(super) local: bool,
    pub(super) problems: Vec<Problem>,
}

impl KeyReader<'_> {
    /// Compiles the module. Without keys it is closed, and a problem says why.
    pub(super) fn bearer(&mut self, bearer: &api::Bearer) -> Bearer {
        let settings = BearerSettings {
            issuer: bearer.issuer.as_str().into(),
            audiences: bearer.audiences.iter().map(|audience| audience.as_str().into()).collect(),
            algorithms: bearer.algorithms.iter().map(|name| algorithm(*name)).collect(),
            clock_skew: bearer.clock_skew_seconds.into(),
            user_claim: bearer.user_claim.as_str().into(),
            groups_claim: bearer.groups_claim.as_deref().map(Into::into),
            must_be_bound: bearer.certificate_bound == CertificateBound::Required,
        };
        let keys = self.keys(&bearer.jwks).unwrap_or_else(|(field, problem)| {
            self.problems
                .push((field, format!("{problem}: tokens are answered 503.94 until then")));
            TokenKeys::Missing(problem.into())
        });
        Bearer { settings, keys }
    }

    fn keys(&mut self, source: &KeySetSource) -> Result<TokenKeys, Problem> {
        match (&source.reference, &source.url, &source.ca_certificate_refs) {
            (Some(reference), None, None) => self.held(reference),
            (None, Some(url), Some(cas)) => self.published(url, cas),
            _ => Err((
                "jwks".to_owned(),
                "write exactly one of url (with caCertificateRefs) and ref".to_owned(),
            )),
        }
    }

    fn held(&mut self, reference: &KeySetRef) -> Result<TokenKeys, Problem> {
        let field = || "jwks.ref".to_owned();
        let found = self.last_good.key_set(self.lookup, &self.policy.namespace, reference);
        let (keys, stale) = found.map_err(|problem| (field(), problem))?;
        if let Some(problem) = stale {
            let message = format!("{problem}; the keys read before stay in force");
            self.problems.push((field(), message));
        }
        Ok(TokenKeys::Held(keys))
    }

    /// All CAs of all references that resolve; without any, nobody is asked.
    fn published(
        &mut self,
        url: &str,
        references: &[CaCertificateRef],
    ) -> Result<TokenKeys, Problem> {
        let mut cas = Vec::new();
        for (index, reference) in references.iter().enumerate() {
            let field = format!("jwks.caCertificateRefs[{index}]");
            match self.last_good.cas(self.lookup, &self.policy.namespace, reference) {
                Ok((found, stale)) => {
                    cas.extend(found.iter().cloned());
                    if let Some(problem) = stale {
                        let message = format!("{problem}; the CAs read before stay in force");
                        self.problems.push((field, message));
                    }
                }
                Err(problem) => self.problems.push((field, problem)),
            }
        }
        if let Err(error) = TrustBundle::new(&cas, 0) {
            let problem = format!("caCertificateRefs {error}: the server at url is not believed");
            return Err(("jwks.caCertificateRefs".to_owned(), problem));
        }
        let source = KeySource::new(url, cas, self.local);
        let source = source.ok_or_else(|| {
            ("jwks.url".to_owned(), "not a URL of https: write https://host/path".to_owned())
        })?;
        Ok(TokenKeys::Published(Arc::new(source)))
    }
}

fn algorithm(name: TokenAlgorithm) -> Algorithm {
    match name {
        TokenAlgorithm::RS256 => Algorithm::RS256,
        TokenAlgorithm::RS384 => Algorithm::RS384,
        TokenAlgorithm::RS512 => Algorithm::RS512,
        TokenAlgorithm::PS256 => Algorithm::PS256,
        TokenAlgorithm::PS384 => Algorithm::PS384,
        TokenAlgorithm::PS512 => Algorithm::PS512,
        TokenAlgorithm::ES256 => Algorithm::ES256,
        TokenAlgorithm::ES384 => Algorithm::ES384,
        TokenAlgorithm::EdDSA => Algorithm::EdDSA,
    }
}
