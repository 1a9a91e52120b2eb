//! `certmap explain`: what a request would get, by the same engine that would answer it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use jiff::Timestamp;
use rustls::pki_types::UnixTime;
use serde_json::{Value, json};

use super::cluster::{AccessArguments, RuleArguments};
use super::{Output, print, read_cluster};
use crate::api::KEYS_PATH;
use crate::app;
use crate::auth::{Answers, Asked, DirectoryQuestion, Question, certificate_filter};
use crate::compile::{Finding, Reuse, World, compile, lint};
use crate::identity::{PeerCertificate, read_certificates};
use crate::policy::{
    ClientCertificate, Decision, Denial, DenialCode, Guard, OneToOneMatch, Permit, Subject, Trace,
    TraceLine, decide,
};
use crate::snapshot::{HostName, Route, Snapshot, TlsRules, canonical, unambiguous};

/// All of a trace.
const EVERYTHING: usize = usize::MAX;

#[derive(Args, Debug)]
pub(super) struct ExplainArguments {
    /// A directory of manifests, instead of a cluster
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kubeconfig", "context", "watch_namespaces"])]
    manifests: Option<PathBuf>,
    #[command(flatten)]
    access: AccessArguments,
    #[command(flatten)]
    rules: RuleArguments,
    /// The client's certificate: PEM (leaf first, then its chain), DER, PKCS#7, or base64 on one line
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "no_cert",
        conflicts_with = "no_cert"
    )]
    cert: Option<PathBuf>,
    /// The request comes without a certificate
    #[arg(long)]
    no_cert: bool,
    /// The request's host
    #[arg(long, value_name = "HOST")]
    host: String,
    /// The request's path
    #[arg(long, default_value = "/")]
    path: String,
    /// When, as RFC 3339 has it; now, if left out
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// Ask the directory, where it has to say; else only what it would be asked is shown
    #[arg(long)]
    live: bool,
    /// The request comes over plain http
    #[arg(long)]
    http: bool,
    /// text, or json for programs
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// What there is to say.
struct Answer {
    status: u16,
    code: String,
    permit: Option<Permit>,
    reason: Option<String>,
    challenges: Vec<Box<str>>,
    route: Option<(String, String)>,
    /// The RoutePolicy that carries it, if any.
    route_policy: Option<String>,
    /// What handshakes must come to, where the host's routes demand more than the program.
    tls: Option<Arc<TlsRules>>,
    trace: Vec<TraceLine>,
    also: Vec<String>,
    remarks: Vec<String>,
}

pub(super) fn explain(arguments: &ExplainArguments) -> anyhow::Result<ExitCode> {
    let (world, problems) = read(arguments)?;
    let options = app::options(arguments.manifests.is_some(), arguments.rules.rules())?;
    let compiled = compile(&world, &Reuse::default(), &options)?;
    let now = time(arguments.at)?;
    let certificate = arguments.cert.as_ref().map(certificate).transpose()?;
    let host = HostName::parse(&arguments.host)
        .with_context(|| format!("--host {} is not a host name", arguments.host))?;
    let mut answer = answer(&compiled.snapshot, &host, arguments, certificate.as_ref(), now);
    answer.remarks.extend(problems);
    answer.remarks.extend(remarks(&world, &compiled.snapshot, &answer, now, &compiled.findings));
    match arguments.output {
        Output::Text => print(&text(&answer))?,
        Output::Json => print(&format!("{:#}\n", to_json(&answer)))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The objects, and what cannot be read.
fn read(arguments: &ExplainArguments) -> anyhow::Result<(World, Vec<String>)> {
    if let Some(directory) = &arguments.manifests {
        let (_, world, problems) = app::read_all(std::slice::from_ref(directory))?;
        return Ok((world, problems.iter().map(ToString::to_string).collect()));
    }
    let (world, unreadable) = read_cluster(&arguments.access, &arguments.rules.rules())?;
    let sentence = |it: &Finding| format!("{}: {}: {}", it.object, it.field, it.message);
    Ok((world, unreadable.iter().map(sentence).collect()))
}

fn time(at: Option<Timestamp>) -> anyhow::Result<UnixTime> {
    let Some(at) = at else { return Ok(UnixTime::now()) };
    let seconds = u64::try_from(at.as_second()).context("--at lies before 1970")?;
    Ok(UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)))
}

fn certificate(path: &PathBuf) -> anyhow::Result<ClientCertificate> {
    let bytes =
        std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let chain = read_certificates(&bytes).with_context(|| path.display().to_string())?;
    if chain.is_empty() {
        bail!("{} holds no certificate", path.display());
    }
    Ok(ClientCertificate::new(PeerCertificate::parse(&chain)))
}

fn answer(
    snapshot: &Snapshot,
    host: &HostName,
    arguments: &ExplainArguments,
    certificate: Option<&ClientCertificate>,
    now: UnixTime,
) -> Answer {
    let plain = |status: u16, reason: String| Answer {
        status,
        code: status.to_string(),
        permit: None,
        reason: Some(reason),
        challenges: Vec::new(),
        route: None,
        route_policy: None,
        tls: None,
        trace: Vec::new(),
        also: Vec::new(),
        remarks: Vec::new(),
    };
    let Some(virtual_host) = snapshot.hosts.resolve(Some(host)) else {
        return plain(404, format!("no Ingress has host {host}"));
    };
    let path = if virtual_host.policed {
        unambiguous(&arguments.path)
    } else {
        Ok(canonical(&arguments.path))
    };
    let path = match path {
        Ok(path) => path,
        Err(ambiguous) => return plain(400, ambiguous.to_string()),
    };
    if path == KEYS_PATH && virtual_host.keys.is_some() && !arguments.http {
        return plain(
            200,
            "the public keys of the host's policies: certmap serves them".to_owned(),
        );
    }
    let Some(route) = virtual_host.route(&path) else {
        return plain(404, format!("no path of host {host} fits {path}"));
    };
    // A certificate is only there where the handshake asked for it.
    let certificate = certificate.filter(|_| virtual_host.terms.asks && !arguments.http);
    let request = Arc::default();
    let mut answers = Answers::default();
    let decided_with = |answers: &Answers| {
        let subject = Subject {
            https: !arguments.http,
            cipher_bits: if arguments.http { 0 } else { 256 },
            certificate,
            credentials: None,
            request: &request,
            answers,
        };
        decide(&route.guard, &subject, now)
    };
    let (mut decision, mut trace) = decided_with(&answers);
    let mut unanswered = None;
    while let Decision::Ask(question @ Question::Directory(_)) = &decision
        && arguments.live
    {
        match app::ask(question, snapshot) {
            Ok(answer) => answers.add(question.clone(), answer),
            Err(error) => {
                unanswered = Some(error.to_string());
                break;
            }
        }
        (decision, trace) = decided_with(&answers);
    }
    if let Some(error) = unanswered {
        let code = DenialCode::DirectoryUnavailable;
        decision = Decision::Deny(Denial::new(code, error));
    }
    let route_names = Some((route.ingress.to_string(), route.backend.name.to_string()));
    let named = Some(&*route.settings.name).filter(|name| !name.is_empty());
    let route_policy = named.map(str::to_owned);
    let also = also_matching(route, certificate, &decision);
    let tls = virtual_host.rules.clone().filter(|_| !arguments.http);
    let base = Answer { route: route_names, route_policy, tls, also, ..decided(decision) };
    Answer { trace: lines(&trace), ..base }
}

fn lines(trace: &Trace) -> Vec<TraceLine> {
    trace.lines(EVERYTHING)
}

fn decided(decision: Decision) -> Answer {
    let (status, code, permit, reason, challenges) = match decision {
        Decision::Allow(permit) => (200, "200".to_owned(), Some(*permit), None, Vec::new()),
        Decision::Deny(Denial { code, reason, challenges, redirect, .. }) => {
            let status = if redirect { 308 } else { code.status() };
            let code = if redirect { "308" } else { code.as_str() };
            (status, code.to_owned(), None, Some(reason.into_owned()), challenges)
        }
        Decision::Ask(question) => {
            let (status, code, reason) = match question {
                Question::Directory(question) => (0, "undecided", would_ask(&question)),
                Question::Password(_) => {
                    (401, "401.2", "a password would have to be checked".to_owned())
                }
                Question::Keys(question) => {
                    let url = question.source.url();
                    (401, "401.2", format!("a token would have to be verified by {url}"))
                }
                Question::External(question) => {
                    let service = question.service.backend();
                    (401, "401.2", format!("external service {service} would be asked"))
                }
            };
            (status, code.to_owned(), None, Some(reason), Vec::new())
        }
    };
    Answer {
        status,
        code,
        permit,
        reason,
        challenges,
        route: None,
        route_policy: None,
        tls: None,
        trace: Vec::new(),
        also: Vec::new(),
        remarks: Vec::new(),
    }
}

/// Where, and by which filter.
fn would_ask(question: &DirectoryQuestion) -> String {
    let settings = question.directory.settings();
    let urls: Vec<String> = settings.urls.iter().map(ToString::to_string).collect();
    let what = match &question.asked {
        Asked::Certificate(certificate) => certificate_filter(certificate, &settings.weak),
        Asked::Logon(..) => "a logon".to_owned(),
    };
    format!("the directory has to say (--live asks it): {} is asked for {what}", urls.join(", or "))
}

/// Mappings that fit as well, and did not get to decide.
fn also_matching(
    route: &Route,
    certificate: Option<&ClientCertificate>,
    decision: &Decision,
) -> Vec<String> {
    let Some(peer) = certificate.and_then(|certificate| certificate.peer.as_ref().ok()) else {
        return Vec::new();
    };
    let decided = match decision {
        Decision::Allow(permit) => permit.mapping(),
        Decision::Deny(_) | Decision::Ask(_) => None,
    };
    let Guard::Policed(policies) = &route.guard else { return Vec::new() };
    let mut also = Vec::new();
    for policy in policies.iter() {
        if let Some(OneToOneMatch::Mapping(mapping) | OneToOneMatch::Ambiguous(mapping)) =
            policy.one_to_one.find(&peer.fingerprint)
        {
            also.push(("oneToOne", mapping.name.clone()));
        }
        let matching =
            policy.many_to_one.all().iter().filter(|mapping| mapping.mismatch(peer).is_none());
        also.extend(matching.map(|mapping| ("manyToOne", mapping.name.clone())));
    }
    also.retain(|(_, name)| decided != Some(&**name));
    also.into_iter().map(|(stage, name)| format!("{stage} {name}")).collect()
}

/// Findings and warnings about the policies that stand before the route.
fn remarks(
    world: &World,
    snapshot: &Snapshot,
    answer: &Answer,
    now: UnixTime,
    findings: &[Finding],
) -> Vec<String> {
    let concerned: Vec<&str> =
        answer.trace.iter().filter_map(|line| line.policy.as_deref()).collect();
    let ingress = answer.route.as_ref().map(|(ingress, _)| ingress.as_str());
    let carried = answer.route_policy.as_deref();
    let about =
        |name: &str| concerned.contains(&name) || ingress == Some(name) || carried == Some(name);
    let linted = lint(world, snapshot, now);
    let relevant =
        findings.iter().chain(&linted).filter(|finding| about(&finding.object.name.to_string()));
    relevant
        .map(|finding| format!("{}: {}: {}", finding.object, finding.field, finding.message))
        .collect()
}

fn text(answer: &Answer) -> String {
    let mut out = vec![format!("answer      {}", answer.code)];
    let mut say = |name: &str, value: Option<String>| {
        out.extend(value.map(|value| format!("{name:<12}{value}")))
    };
    let permit = answer.permit.as_ref();
    say("account", permit.and_then(Permit::user).map(str::to_owned));
    say("mechanism", permit.map(|permit| permit.mechanism().as_str().to_owned()));
    say("mapping", permit.and_then(Permit::mapping).map(str::to_owned));
    say("policy", permit.and_then(Permit::policy).map(str::to_owned));
    say("reason", answer.reason.clone());
    answer.challenges.iter().for_each(|challenge| say("challenge", Some(challenge.to_string())));
    say("ingress", answer.route.as_ref().map(|(ingress, _)| ingress.clone()));
    say("carried by", answer.route_policy.clone());
    say("handshake", answer.tls.as_ref().map(|rules| handshake(rules)));
    say("backend", answer.route.as_ref().map(|(_, backend)| backend.clone()));
    for (index, line) in answer.trace.iter().enumerate() {
        say(if index == 0 { "trace" } else { "" }, Some(line.to_string()));
    }
    answer.also.iter().for_each(|also| say("also fits", Some(also.clone())));
    answer.remarks.iter().for_each(|remark| say("note", Some(remark.clone())));
    out.join("\n") + "\n"
}

fn handshake(rules: &TlsRules) -> String {
    format!("TLS {} or later, with {}", rules.oldest.as_str(), rules.names().join(", "))
}

fn to_json(answer: &Answer) -> Value {
    let permit = answer.permit.as_ref();
    let line = |line: &TraceLine| {
        json!({
            "stage": line.stage,
            "policy": line.policy.as_deref(),
            "mapping": line.mapping.as_deref(),
            "outcome": line.outcome.as_str(),
            "field": line.field,
            "expected": line.expected,
            "actual": line.actual,
            "text": line.to_string(),
        })
    };
    json!({
        "status": answer.status,
        "code": answer.code,
        "account": permit.and_then(Permit::user),
        "mechanism": permit.map(|permit| permit.mechanism().as_str()),
        "mapping": permit.and_then(Permit::mapping),
        "policy": permit.and_then(Permit::policy),
        "reason": answer.reason,
        "challenges": answer.challenges.iter().map(|challenge| &**challenge).collect::<Vec<_>>(),
        "ingress": answer.route.as_ref().map(|(ingress, _)| ingress),
        "routePolicy": answer.route_policy,
        "tls": answer.tls.as_ref().map(|rules| {
            json!({"minVersion": rules.oldest.as_str(), "cipherSuites": rules.names()})
        }),
        "backend": answer.route.as_ref().map(|(_, backend)| backend),
        "trace": answer.trace.iter().map(line).collect::<Vec<_>>(),
        "alsoMatches": answer.also,
        "notes": answer.remarks,
    })
}
