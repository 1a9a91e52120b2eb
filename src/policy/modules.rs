//! Row 7 of design.md's table: the other authentication modules, in the order in which the policy lists them.

use std::sync::Arc;

use super::challenge::{Why, challenges};
use super::compiled::Module;
use super::decide::{Engine, Refusal};
use super::denial::{Denial, DenialCode};
use super::directory::{DirectoryOutcome, DirectoryUse};
use super::permit::{Mechanism, Permit};
use super::trace::TraceOutcome;
use crate::auth::{
    Answer, Asked, BasicCredentials, BasicOutcome, BasicUsers, Bearer, BearerOutcome, Claims,
    Credentials, ExternalAnswer, ExternalQuestion, ExternalService, LogonName, Principal, Question,
    Secret,
};

impl Engine<'_> {
    /// Row 7: credentials are for the module of their scheme alone, and what it says of them is the end.
    pub(super) fn by_modules(&mut self) -> Result<Permit, Refusal> {
        let policy = self.policy.clone();
        for module in &policy.modules {
            match (module, self.subject.credentials) {
                (Module::Basic { users, directory, .. }, Some(Credentials::Basic(offered))) => {
                    return match directory {
                        Some(used) if !users.knows(&offered.user) => self.by_logon(used, offered),
                        _ => self.by_basic(users, offered),
                    };
                }
                (Module::Basic { .. }, Some(Credentials::MalformedBasic)) => {
                    return Err(self.wrong("the Basic credentials are malformed").into());
                }
                (Module::Bearer { bearer, .. }, Some(Credentials::Bearer(token))) => {
                    return self.by_bearer(bearer, token.expose());
                }
                (Module::External(service), _) => return self.by_external(service),
                (Module::Anonymous { user }, None) => {
                    self.plain("authentication", TraceOutcome::Admitted, "anonymous");
                    let principal = user.clone().map(Principal::named);
                    return Ok(self.admitted(Mechanism::Anonymous, principal, None));
                }
                _ => {}
            }
        }
        let reason = match self.subject.credentials {
            _ if policy.modules.is_empty() => "no authentication module is configured",
            Some(_) => "no listed module reads credentials of this scheme",
            None => "no credentials were offered",
        };
        Err(self.challenge(DenialCode::NoCredentials, reason).into())
    }

    fn by_bearer(&mut self, bearer: &Bearer, token: &[u8]) -> Result<Permit, Refusal> {
        // Its key was proven in the handshake; where none is asked for, it is not looked at.
        let certificate = self.subject.certificate.filter(|_| self.policy.asks());
        let peer = certificate.and_then(|certificate| certificate.peer.as_ref().ok());
        let fingerprint = peer.map(|peer| &peer.fingerprint);
        match bearer.check(token, self.subject.answers, self.now.as_secs(), fingerprint) {
            BearerOutcome::Ask(question) => Err(Refusal::Ask(Question::Keys(question))),
            BearerOutcome::NoKeys(problem) => {
                let code = DenialCode::KeysUnavailable;
                Err(self.refuse("authentication", code, problem.into_string()).into())
            }
            BearerOutcome::Wrong(error) => {
                let challenges = challenges(&self.policy.modules, &Why::InvalidToken);
                let code = DenialCode::LogonFailed;
                let denial = self.refuse("authentication", code, error.to_string());
                Err(Denial { challenges, ..denial }.into())
            }
            BearerOutcome::Right(claims) => self.claimed(Mechanism::Bearer, Some(claims)),
        }
    }

    fn by_external(&mut self, service: &Arc<ExternalService>) -> Result<Permit, Refusal> {
        let request = self.subject.request.clone();
        let question = Question::External(ExternalQuestion { service: service.clone(), request });
        match self.subject.answers.to(&question) {
            Some(Answer::External(ExternalAnswer::Admitted(claims))) => {
                self.claimed(Mechanism::External, claims.clone())
            }
            Some(Answer::External(ExternalAnswer::Refused(passed_back))) => {
                let asked = passed_back.as_ref().map(|it| &*it.challenges).unwrap_or_default();
                let challenges = challenges(&self.policy.modules, &Why::External(asked));
                let reason = format!("external service {} refuses", service.backend());
                let denial = self.refuse("authentication", DenialCode::ExternalDenied, reason);
                Err(Denial { challenges, passed_back: passed_back.clone(), ..denial }.into())
            }
            Some(_) | None => Err(Refusal::Ask(question)),
        }
    }

    fn claimed(&mut self, mechanism: Mechanism, claims: Option<Claims>) -> Result<Permit, Refusal> {
        self.plain("authentication", TraceOutcome::Admitted, mechanism.as_str());
        Ok(self.admitted(mechanism, claims.map(Principal::from), None))
    }

    fn by_basic(
        &mut self,
        users: &BasicUsers,
        offered: &BasicCredentials,
    ) -> Result<Permit, Refusal> {
        match users.check(offered, self.subject.answers) {
            BasicOutcome::Ask(question) => Err(Refusal::Ask(Question::Password(question))),
            BasicOutcome::Wrong => Err(self.wrong("the user name or password is wrong").into()),
            BasicOutcome::Right => {
                self.plain("authentication", TraceOutcome::Admitted, "basic");
                let principal = Principal::named(&*offered.user);
                Ok(self.admitted(Mechanism::Basic, Some(principal), Some(&offered.password)))
            }
        }
    }

    fn wrong(&mut self, reason: &'static str) -> Denial {
        self.challenge(DenialCode::LogonFailed, reason)
    }

    /// A refusal after which the client may try again with credentials.
    fn challenge(&mut self, code: DenialCode, reason: &'static str) -> Denial {
        let challenges = challenges(&self.policy.modules, &Why::Missing);
        Denial { challenges, ..self.refuse("authentication", code, reason) }
    }

    /// The directory says whose name and password these are.
    fn by_logon(
        &mut self,
        used: &DirectoryUse,
        offered: &BasicCredentials,
    ) -> Result<Permit, Refusal> {
        let stage = "authentication";
        let name = LogonName::parse(&offered.user);
        // An empty password is not for a directory to see: it would be no logon at all, and succeed (RFC 4513, 5.1.2).
        let password = std::str::from_utf8(offered.password.expose()).ok();
        let (Some(name), Some(password)) = (name, password.filter(|text| !text.is_empty())) else {
            return Err(self.wrong("the user name or password is wrong").into());
        };
        let asked = Asked::Logon(name, Secret::new(password.into()));
        match used.outcome(asked, self.subject.answers, self.now) {
            DirectoryOutcome::Found(principal, how) => {
                self.plain(stage, TraceOutcome::Admitted, &format!("basic: {how}"));
                Ok(self.admitted(Mechanism::Basic, Some(principal), Some(&offered.password)))
            }
            other => {
                let refusal = self.not_by_directory(stage, other);
                let challenges = challenges(&self.policy.modules, &Why::Missing);
                Err(match refusal {
                    Refusal::Deny(denial) if denial.code == DenialCode::LogonFailed => {
                        Refusal::Deny(Denial { challenges, ..denial })
                    }
                    refusal => refusal,
                })
            }
        }
    }
}
