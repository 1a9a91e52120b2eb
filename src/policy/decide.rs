//! The one place where requests are admitted or refused: design.md's table, row by row.

use std::sync::Arc;

use rustls::pki_types::UnixTime;

use super::account::Account;
use super::challenge::{Why, challenges};
use super::compiled::{Guard, Policy};
use super::denial::{Denial, DenialCode};
use super::directory::DirectoryOutcome;
use super::one_to_one::OneToOneMatch;
use super::permit::{Mechanism, Permit, VerifiedCertificate};
use super::subject::{ClientCertificate, Subject};
use super::trace::{Step, Trace, TraceOutcome};
use super::trust::{ChainResult, TrustBundle};
use crate::api::{SslFlag, UserFrom};
use crate::auth::{Asked, Principal, Question, Secret};
use crate::identity::{AttributeType, PeerCertificate};

/// What becomes of a request.
#[derive(Debug)]
pub enum Decision {
    /// It is forwarded.
    Allow(Box<Permit>),
    /// It takes an answer from outside to decide.
    Ask(Question),
    /// It is refused, with challenges if there are any.
    Deny(Denial),
}

/// Decides on a request.
#[must_use]
pub fn decide(guard: &Guard, subject: &Subject<'_>, now: UnixTime) -> (Decision, Trace) {
    let mut trace = Trace::default();
    let decision = match guard {
        Guard::Open => Decision::Allow(Box::new(open())),
        Guard::Shut { code, reason } => Decision::Deny(Denial::new(*code, reason.to_string())),
        Guard::Policed(policies) => by_all(policies, subject, now, &mut trace),
    };
    (decision, trace)
}

fn open() -> Permit {
    Permit {
        principal: None,
        mechanism: Mechanism::None,
        policy: None,
        mapping: None,
        password: None,
        certificate: None,
        forward: None,
    }
}

/// The first that does not admit decides; the first policy, being the strictest, names the user.
fn by_all(
    policies: &[Arc<Policy>],
    subject: &Subject<'_>,
    now: UnixTime,
    trace: &mut Trace,
) -> Decision {
    let mut permit = None;
    for policy in policies {
        match (Engine { policy, subject, now, trace }).decide() {
            Ok(admitted) => permit = permit.or(Some(admitted)),
            Err(Refusal::Ask(question)) => return Decision::Ask(question),
            Err(Refusal::Deny(denial)) => return Decision::Deny(denial),
        }
    }
    let missing =
        || Decision::Deny(Denial::new(DenialCode::PolicyMissing, "the route names no policy"));
    permit.map_or_else(missing, |permit| Decision::Allow(Box::new(permit)))
}

pub(super) enum Refusal {
    Ask(Question),
    Deny(Denial),
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        Self::Deny(denial)
    }
}

/// One policy, deciding on one request: rows 1 to 6a here, row 7 in `modules`.
pub(super) struct Engine<'a> {
    pub(super) policy: &'a Arc<Policy>,
    pub(super) subject: &'a Subject<'a>,
    pub(super) now: UnixTime,
    trace: &'a mut Trace,
}

impl Engine<'_> {
    fn decide(mut self) -> Result<Permit, Refusal> {
        let permit = self.admit()?;
        self.authorize(&permit)?;
        self.vouch()?;
        Ok(permit)
    }

    /// A backend that is promised a signature gets no request without one.
    fn vouch(&mut self) -> Result<(), Denial> {
        let signed = self.policy.forward.signed_identity.as_ref();
        match signed.and_then(|signed| signed.keys.as_ref().err()) {
            Some(problem) => {
                let reason = format!("forward.signedIdentity: {problem}");
                Err(self.refuse("forward", DenialCode::PolicyUnusable, reason))
            }
            None => Ok(()),
        }
    }

    /// `authorization`, whatever admitted.
    fn authorize(&mut self, permit: &Permit) -> Result<(), Denial> {
        let (stage, policy) = ("authorization", self.policy);
        if policy.authorization.is_empty() {
            return Ok(());
        }
        match policy.authorization.check(permit.principal()) {
            Ok(reason) => self.plain(stage, TraceOutcome::Passed, &reason),
            Err(reason) => {
                let denial = self.refuse(stage, DenialCode::AuthorizationDenied, reason);
                // Another name and password, or token, may be let in; a certificate cannot be changed by asking.
                let asks = matches!(permit.mechanism(), Mechanism::Basic | Mechanism::Bearer);
                let modules = if asks { &*self.policy.modules } else { &[] };
                return Err(Denial { challenges: challenges(modules, &Why::Missing), ..denial });
            }
        }
        Ok(())
    }

    fn admit(&mut self) -> Result<Permit, Refusal> {
        self.connection()?;
        if self.policy.asks() {
            let trust = self.trust()?;
            match self.subject.certificate {
                Some(certificate) => {
                    if let Some(permit) = self.by_certificate(certificate, &trust)? {
                        return Ok(permit);
                    }
                }
                None => self.without_certificate()?,
            }
        }
        self.by_modules()
    }

    /// Rows 1 and 2.
    fn connection(&mut self) -> Result<(), Denial> {
        let flags = self.policy.flags;
        if flags.contains(SslFlag::Ssl) && !self.subject.https {
            let denial =
                self.refuse("connection", DenialCode::HttpsRequired, "the request came over http");
            return Err(Denial { redirect: self.policy.https_redirect, ..denial });
        }
        if flags.contains(SslFlag::Ssl128) && self.subject.cipher_bits < 128 {
            return Err(self.refuse(
                "connection",
                DenialCode::WeakCipher,
                "the cipher has less than 128 bits",
            ));
        }
        Ok(())
    }

    /// Trust that could not be made out refuses everyone, with the code that a client in that case gets anyway.
    fn trust(&mut self) -> Result<Arc<TrustBundle>, Denial> {
        if let Some(trust) = &self.policy.trust {
            return Ok(trust.clone());
        }
        let code = match self.subject.certificate {
            Some(_) => DenialCode::CertificateUntrusted,
            None if self.policy.flags.demand_certificate() => DenialCode::CertificateRequired,
            None => DenialCode::PolicyUnusable,
        };
        Err(self.refuse("trust", code, "the policy's trust resolves to no CA"))
    }

    /// Row 3.
    fn without_certificate(&mut self) -> Result<(), Denial> {
        if self.policy.flags.demand_certificate() {
            return Err(self.refuse(
                "connection",
                DenialCode::CertificateRequired,
                "no certificate was sent",
            ));
        }
        self.plain("connection", TraceOutcome::Passed, "no certificate was sent");
        Ok(())
    }

    /// Rows 4 to 6a.
    fn by_certificate(
        &mut self,
        certificate: &ClientCertificate,
        trust: &TrustBundle,
    ) -> Result<Option<Permit>, Refusal> {
        let verified = self.verify(certificate, trust)?;
        if let Some(permit) = self.by_one_to_one(&verified)? {
            return Ok(Some(permit));
        }
        if let Some(permit) = self.by_many_to_one(&verified)? {
            return Ok(Some(permit));
        }
        if let Some(permit) = self.by_directory(&verified)? {
            return Ok(Some(permit));
        }
        if let Some(user_from) = self.policy.admit_any_verified {
            return Ok(Some(self.any_verified(user_from, verified)?));
        }
        if self.policy.flags.contains(SslFlag::SslMapCert) {
            let reason = "the certificate maps to no account";
            return Err(self.refuse("sslMapCert", DenialCode::MapperDenied, reason).into());
        }
        Ok(None)
    }

    /// Row 4.
    fn verify(
        &mut self,
        certificate: &ClientCertificate,
        trust: &TrustBundle,
    ) -> Result<VerifiedCertificate, Denial> {
        let peer = match &certificate.peer {
            Ok(peer) => peer,
            Err(error) => {
                return Err(self.refuse(
                    "trust",
                    DenialCode::CertificateUntrusted,
                    error.to_string(),
                ));
            }
        };
        let verdict = certificate.verdicts.judge(trust, peer, self.now);
        self.trace.add(Some(self.policy), Step::Trust(verdict.clone()));
        match &verdict.result {
            ChainResult::Verified(intermediates) => {
                Ok(VerifiedCertificate { peer: peer.clone(), intermediates: intermediates.clone() })
            }
            ChainResult::Untrusted(reason) => {
                Err(Denial::new(DenialCode::CertificateUntrusted, reason.to_string()))
            }
            ChainResult::Expired => Err(Denial::new(
                DenialCode::CertificateExpired,
                "the certificate or its chain has expired",
            )),
            ChainResult::NotYetValid => Err(Denial::new(
                DenialCode::CertificateExpired,
                "the certificate or its chain is not yet valid",
            )),
        }
    }

    fn by_one_to_one(&mut self, verified: &VerifiedCertificate) -> Result<Option<Permit>, Denial> {
        let policy = self.policy.clone();
        let fingerprint = verified.peer.fingerprint;
        if policy.one_to_one.is_empty() {
            return Ok(None);
        }
        match policy.one_to_one.find(&fingerprint) {
            None => {
                self.trace
                    .add(Some(&policy), Step::OneToOne(fingerprint, None, TraceOutcome::NoMatch));
                Ok(None)
            }
            Some(OneToOneMatch::Mapping(mapping)) => {
                let outcome = usable(&mapping.account);
                let step = Step::OneToOne(fingerprint, Some(mapping.name.clone()), outcome);
                self.trace.add(Some(&policy), step);
                let names = (&*mapping.name, &mapping.policy);
                self.as_account(Mechanism::OneToOne, names, &mapping.account, verified).map(Some)
            }
            Some(OneToOneMatch::Ambiguous(mapping)) => {
                let step =
                    Step::OneToOne(fingerprint, Some(mapping.name.clone()), TraceOutcome::Refused);
                self.trace.add(Some(&policy), step);
                let reason = format!(
                    "mapping {} and another map one certificate to different accounts",
                    mapping.name
                );
                Err(Denial::new(DenialCode::LogonFailed, reason))
            }
        }
    }

    fn by_many_to_one(&mut self, verified: &VerifiedCertificate) -> Result<Option<Permit>, Denial> {
        let policy = self.policy.clone();
        let found = policy.many_to_one.find(&verified.peer);
        let account = found.and_then(|(_, mapping)| mapping.account.as_deref());
        let outcome = account.map_or(TraceOutcome::Refused, usable);
        let step = Step::ManyToOne(verified.peer.clone(), found.map(|(index, _)| index), outcome);
        self.trace.add(Some(&policy), step);
        match found {
            None => Ok(None),
            Some((_, mapping)) => match &mapping.account {
                None => Err(Denial::new(
                    DenialCode::MapperDenied,
                    format!("mapping {} denies", mapping.name),
                )),
                Some(account) => {
                    let names = (&*mapping.name, &mapping.policy);
                    self.as_account(Mechanism::ManyToOne, names, account, verified).map(Some)
                }
            },
        }
    }

    /// Rows 5 and 6: the search has ended, whatever the account is worth.
    fn as_account(
        &self,
        mechanism: Mechanism,
        (mapping, policy): (&str, &Arc<str>),
        account: &Account,
        verified: &VerifiedCertificate,
    ) -> Result<Permit, Denial> {
        match account {
            Account::Usable { principal, password } => Ok(Permit {
                principal: Some(principal.clone()),
                mechanism,
                policy: Some(policy.clone()),
                mapping: Some(mapping.into()),
                password: password.clone(),
                certificate: Some(verified.clone()),
                forward: Some(self.policy.forward.clone()),
            }),
            Account::Unusable { problem } => {
                Err(Denial::new(DenialCode::LogonFailed, format!("mapping {mapping}: {problem}")))
            }
        }
    }

    /// The directory says whose certificate it is; only one that verified is ever asked about.
    fn by_directory(&mut self, verified: &VerifiedCertificate) -> Result<Option<Permit>, Refusal> {
        let (stage, policy) = ("activeDirectory", self.policy);
        let Some(used) = policy.directory.as_ref().filter(|it| it.maps) else { return Ok(None) };
        let asked = Asked::Certificate(verified.peer.clone());
        match used.outcome(asked, self.subject.answers, self.now) {
            DirectoryOutcome::Found(principal, how) => {
                self.plain(stage, TraceOutcome::Admitted, &how);
                Ok(Some(Permit {
                    principal: Some(principal),
                    certificate: Some(verified.clone()),
                    ..self.permit(Mechanism::ActiveDirectory)
                }))
            }
            DirectoryOutcome::NotFound => {
                self.plain(stage, TraceOutcome::NoMatch, "no account has this certificate");
                Ok(None)
            }
            other => Err(self.not_by_directory(stage, other)),
        }
    }

    pub(super) fn not_by_directory(
        &mut self,
        stage: &'static str,
        outcome: DirectoryOutcome,
    ) -> Refusal {
        match outcome {
            DirectoryOutcome::Ask(question) => {
                self.plain(stage, TraceOutcome::Passed, "the directory has to say");
                Refusal::Ask(Question::Directory(question))
            }
            DirectoryOutcome::Unavailable(problem) => {
                self.refuse(stage, DenialCode::DirectoryUnavailable, problem.into_string()).into()
            }
            DirectoryOutcome::Refused(reason) => {
                self.refuse(stage, DenialCode::LogonFailed, reason).into()
            }
            DirectoryOutcome::Found(..) | DirectoryOutcome::NotFound => {
                let reason = "the directory knows nobody of this name";
                self.refuse(stage, DenialCode::LogonFailed, reason).into()
            }
        }
    }

    fn any_verified(
        &mut self,
        user_from: UserFrom,
        verified: VerifiedCertificate,
    ) -> Result<Permit, Denial> {
        let stage = "admitAnyVerified";
        let Some(user) = only_name(user_from, &verified.peer) else {
            let reason = format!("{user_from:?} is missing, occurs twice or is not printable");
            return Err(self.refuse(stage, DenialCode::MapperDenied, reason));
        };
        self.plain(stage, TraceOutcome::Admitted, &user);
        Ok(Permit {
            principal: Some(Principal::named(user)),
            certificate: Some(verified),
            ..self.permit(Mechanism::AdmitAnyVerified)
        })
    }

    /// By one of the other modules.
    pub(super) fn admitted(
        &self,
        mechanism: Mechanism,
        principal: Option<Principal>,
        password: Option<&Secret<Box<[u8]>>>,
    ) -> Permit {
        let password = password.map(|password| Secret::new((&**password.expose()).into()));
        Permit { principal, password, ..self.permit(mechanism) }
    }

    fn permit(&self, mechanism: Mechanism) -> Permit {
        let policy = Some(self.policy.name.clone());
        Permit { mechanism, policy, forward: Some(self.policy.forward.clone()), ..open() }
    }

    pub(super) fn refuse(
        &mut self,
        stage: &'static str,
        code: DenialCode,
        reason: impl Into<std::borrow::Cow<'static, str>>,
    ) -> Denial {
        let denial = Denial::new(code, reason);
        self.plain(stage, TraceOutcome::Refused, &denial.reason);
        denial
    }

    pub(super) fn plain(&mut self, stage: &'static str, outcome: TraceOutcome, note: &str) {
        self.trace.add(Some(self.policy), Step::Plain(stage, outcome, Some(note.into())));
    }
}

fn usable(account: &Account) -> TraceOutcome {
    match account {
        Account::Usable { .. } => TraceOutcome::Admitted,
        Account::Unusable { .. } => TraceOutcome::Refused,
    }
}

/// A name is a user only where there is exactly one and nothing in it could be mistaken.
fn only_name(user_from: UserFrom, certificate: &PeerCertificate) -> Option<Arc<str>> {
    let only = |names: Vec<&str>| match names.as_slice() {
        [name] => Some((*name).to_owned()),
        _ => None,
    };
    let unbox = |names: &'_ [Box<str>]| only(names.iter().map(|name| &**name).collect());
    let name = match user_from {
        UserFrom::SubjectDN => Some(certificate.subject.to_string()),
        UserFrom::SubjectCN => {
            only(certificate.subject.values(&AttributeType::COMMON_NAME).collect())
        }
        UserFrom::SanEmail => unbox(&certificate.san.emails),
        UserFrom::SanUpn => unbox(&certificate.san.upns),
    }?;
    (!name.trim().is_empty() && !name.chars().any(char::is_control)).then(|| name.into())
}
