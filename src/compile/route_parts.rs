//! One `RoutePolicy` → what it says of routes, part by part; what it leaves out another may say.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use http::{HeaderName, HeaderValue};

use super::account::key;
use super::backend_tls::{Client, Made, backend_tls};
use super::certificates::{LastGood, content};
use super::dependency::Lookup;
use super::finding::{Finding, Severity};
use super::route_values::{
    Wrong, client_tls, code, compression, cors, duration, edits, octets, rate_limit, rewrite,
};
use super::world::ObjectName;
use crate::api::{self, HeaderNames, RoutePolicySpec, TAKEN_IN_REQUESTS, TAKEN_IN_RESPONSES};
use crate::snapshot::{
    BackendTls, Balance, Compression, CookieAffinity, Cors, DemandedBy, Ejection, ErrorPage,
    HeaderEdits, IdentityHeaders, RateLimit, Retry, Rewrite, RouteLimits, RouteSettings,
    RouteTimeouts, RouteTls, StatusRange,
};

/// With fewer octets a key can be guessed.
const SHORTEST_KEY: usize = 32;

/// What a policy says.
#[derive(Debug, Default)]
pub(super) struct RouteParts {
    timeouts: RouteTimeouts,
    limits: RouteLimits,
    tls: RouteTls,
    retry: Option<Retry>,
    slow_start: Option<Duration>,
    ejection: Option<Ejection>,
    /// Where it cannot be made out there is none: not the default's either.
    affinity: Option<Option<CookieAffinity>>,
    /// Where it cannot be made out nothing is sent, for it would be sent in the clear.
    backend_tls: Option<Result<Arc<BackendTls>, Arc<str>>>,
    rate_limits: Option<Box<[RateLimit]>>,
    https_redirect: Option<bool>,
    rewrite: Option<Rewrite>,
    request_headers: Option<HeaderEdits>,
    response_headers: Option<HeaderEdits>,
    cors: Option<Cors>,
    compression: Option<Compression>,
    error_pages: Option<Box<[ErrorPage]>>,
}

impl RouteParts {
    /// The settings of routes whose policy says this, where `default` says what it leaves out.
    ///
    /// # Errors
    /// What guards cannot be made out: for the log.
    pub(super) fn settings(
        &self,
        name: &Arc<str>,
        default: Option<(&Arc<str>, &Self)>,
    ) -> Result<RouteSettings, Arc<str>> {
        let (nobody, nothing) = (Arc::default(), Self::default());
        let (other_name, other) = default.unwrap_or((&nobody, &nothing));
        let (a, b) = (&self.timeouts, &other.timeouts);
        let timeouts = RouteTimeouts {
            request: a.request.or(b.request),
            connect: a.connect.or(b.connect),
            response: a.response.or(b.response),
            idle: a.idle.or(b.idle),
        };
        let limits = RouteLimits {
            request_body: self.limits.request_body.or(other.limits.request_body),
            target: self.limits.target.or(other.limits.target),
        };
        // An empty list stands for all of them, whatever the default says.
        let suites = either(&self.tls.suites, &other.tls.suites).filter(|it| !it.is_empty());
        let tls = RouteTls { oldest: self.tls.oldest.or(other.tls.oldest), suites };
        let whose = |is_own: bool| if is_own { name.clone() } else { other_name.clone() };
        let tls_by = DemandedBy {
            oldest: whose(self.tls.oldest.is_some()),
            suites: whose(self.tls.suites.is_some()),
            default: other_name.clone(),
        };
        let balance = Balance {
            slow_start: self.slow_start.or(other.slow_start).unwrap_or_default(),
            ejection: self.ejection.or(other.ejection),
            affinity: either(&self.affinity, &other.affinity).flatten(),
        };
        Ok(RouteSettings {
            name: name.clone(),
            timeouts,
            limits,
            tls,
            tls_by,
            retry: either(&self.retry, &other.retry),
            balance,
            backend_tls: either(&self.backend_tls, &other.backend_tls).transpose()?,
            rate_limits: either(&self.rate_limits, &other.rate_limits).unwrap_or_default(),
            https_redirect: self.https_redirect.or(other.https_redirect).unwrap_or_default(),
            rewrite: either(&self.rewrite, &other.rewrite).unwrap_or_default(),
            request_headers: either(&self.request_headers, &other.request_headers)
                .unwrap_or_default(),
            response_headers: either(&self.response_headers, &other.response_headers)
                .unwrap_or_default(),
            cors: either(&self.cors, &other.cors),
            compression: either(&self.compression, &other.compression)
                .filter(|compression| !compression.codings.is_empty()),
            error_pages: either(&self.error_pages, &other.error_pages).unwrap_or_default(),
        })
    }
}

impl RouteParts {
    /// Whether routes could be carried by it, whatever the default says.
    pub(super) fn stands_alone(&self) -> bool {
        !matches!(self.backend_tls, Some(Err(_)))
    }
}

fn either<T: Clone>(own: &Option<T>, default: &Option<T>) -> Option<T> {
    own.as_ref().or(default.as_ref()).cloned()
}

/// What became of a policy.
#[derive(Debug)]
pub(super) struct Read {
    /// What it says; or why it is not put in force at all, for the log.
    pub(super) parts: Result<RouteParts, Arc<str>>,
    pub(super) client: Client,
    pub(super) findings: Vec<Finding>,
}

/// Reads a policy. A value that makes no sense puts all of it out of force, and its routes with it: nobody can say what it
/// was to hold back.
pub(super) fn read(
    name: &ObjectName,
    spec: &RoutePolicySpec,
    (lookup, identity): (&Lookup<'_>, &IdentityHeaders),
    last_good: &mut LastGood,
    client: &Client,
) -> Read {
    let mut reader = Reader { name, lookup, identity, findings: Vec::new() };
    // Even where the rest makes no sense: what is deleted meanwhile has to be seen.
    let tls = spec.backend_tls.as_ref().map(|tls| reader.backend_tls(tls, last_good, client));
    let (tls, client) = tls.unzip();
    let client = client.flatten();
    let mut parts = match reader.parts(spec) {
        Ok(parts) => parts,
        Err((field, what)) => {
            let message = format!("{what}; until then its routes answer 503.96");
            reader.find(Severity::Error, field.clone(), "Invalid", message);
            let reason = format!("RoutePolicy {name}: {field}: {what}").into();
            return Read { parts: Err(reason), client, findings: reader.findings };
        }
    };
    parts.backend_tls = tls;
    Read { parts: Ok(parts), client, findings: reader.findings }
}

/// The names of request headers that a policy changes, as far as they are names.
pub(super) fn changed_in_requests(spec: &RoutePolicySpec) -> impl Iterator<Item = HeaderName> {
    let edits = spec.request_headers.iter();
    let names = edits.flat_map(|it| {
        let fields = it.set.iter().chain(&it.add).map(|field| &field.name);
        it.remove.iter().chain(fields)
    });
    names.filter_map(|name| name.parse().ok())
}

struct Reader<'a> {
    name: &'a ObjectName,
    lookup: &'a Lookup<'a>,
    identity: &'a IdentityHeaders,
    findings: Vec<Finding>,
}

impl Reader<'_> {
    fn find(&mut self, severity: Severity, field: String, reason: &'static str, message: String) {
        let finding = Finding::of_route_policy(self.name, severity, field, reason, message);
        self.findings.push(finding);
    }

    /// Everything but TLS to the backends.
    fn parts(&mut self, spec: &RoutePolicySpec) -> Result<RouteParts, Wrong> {
        let balancing = spec.load_balancing.as_ref();
        let affinity = balancing.and_then(|it| it.cookie_affinity.as_ref());
        let slow_start = balancing.and_then(|it| it.slow_start.as_ref());
        let limits = spec.rate_limits.as_ref().map(|limits| {
            let limits = limits.iter().enumerate();
            limits.map(|(index, it)| rate_limit(it, &format!("spec.rateLimits[{index}]"))).collect()
        });
        Ok(RouteParts {
            timeouts: timeouts(spec.timeouts.as_ref())?,
            limits: self::limits(spec.limits.as_ref())?,
            tls: spec.tls.as_ref().map(client_tls).transpose()?.unwrap_or_default(),
            retry: spec.retry.as_ref().map(retry),
            slow_start: slow_start
                .map(|it| duration(it, "spec.loadBalancing.slowStart"))
                .transpose()?,
            ejection: balancing.and_then(|it| it.ejection.as_ref()).map(ejection).transpose()?,
            affinity: affinity.map(|affinity| self.affinity(affinity)).transpose()?,
            backend_tls: None,
            rate_limits: limits.transpose()?,
            https_redirect: spec.https_redirect,
            rewrite: spec.rewrite.as_ref().map(rewrite).transpose()?,
            request_headers: self.request_headers(spec)?,
            response_headers: spec.response_headers.as_ref().map(response_headers).transpose()?,
            cors: spec.cors.as_ref().map(cors).transpose()?,
            compression: spec.compression.as_ref().map(compression),
            error_pages: spec.error_pages.as_ref().map(|pages| self.pages(pages)).transpose()?,
        })
    }

    /// What tells a backend who is calling is not said by a route: it is left out.
    fn request_headers(&mut self, spec: &RoutePolicySpec) -> Result<Option<HeaderEdits>, Wrong> {
        let Some(headers) = &spec.request_headers else { return Ok(None) };
        let (field, lists) =
            ("spec.requestHeaders", (&*headers.remove, &*headers.set, &*headers.add));
        let mut edits = edits(lists, field, is_none_of(TAKEN_IN_REQUESTS))?;
        let identity = self.identity;
        let tells = |name: &HeaderName| identity.contains(name);
        let mut told: Vec<HeaderName> = changed_in_requests(spec).filter(tells).collect();
        told.dedup();
        for name in told {
            let message = format!(
                "{name} tells backends who is calling, which a route may not change: it is left out; remove it"
            );
            self.find(Severity::Warning, field.to_owned(), "HeaderNeverSent", message);
        }
        let others = |list: &mut Box<[(HeaderName, _)]>| {
            *list = std::mem::take(list).into_iter().filter(|(name, _)| !tells(name)).collect();
        };
        edits.remove = edits.remove.into_iter().filter(|name| !tells(name)).collect();
        others(&mut edits.set);
        others(&mut edits.add);
        Ok(Some(edits))
    }

    /// TLS to backends, and the certificate to fall back on.
    fn backend_tls(
        &mut self,
        tls: &api::BackendTls,
        last_good: &mut LastGood,
        client: &Client,
    ) -> (Result<Arc<BackendTls>, Arc<str>>, Client) {
        let Made { tls, client, problems } =
            backend_tls(&self.name.namespace, tls, self.lookup, last_good, client);
        for (field, reason, message) in problems {
            self.find(Severity::Error, field, reason, message);
        }
        let tls = tls.map_err(|(field, message)| {
            let reason = format!("RoutePolicy {}: {message}", self.name).into();
            let message = format!("{message}; until then its routes answer 503.96");
            self.find(Severity::Error, field, "BackendTLSUnusable", message);
            reason
        });
        (tls, client)
    }

    /// Without a key that nobody can guess a client could choose any endpoint: there is no affinity then.
    fn affinity(&mut self, spec: &api::CookieAffinity) -> Result<Option<CookieAffinity>, Wrong> {
        let name = ObjectName::new(&self.name.namespace, &spec.key_secret_ref.name);
        let secret = self.lookup.secret(&name);
        let made = match (secret, secret.and_then(|secret| key(secret, "key"))) {
            (None, _) => Err(format!("Secret {name} does not exist: create it with the key `key`")),
            (Some(_), None) => Err(format!("Secret {name} has no key `key`: add it")),
            (Some(_), Some(octets)) if octets.len() < SHORTEST_KEY => {
                Err(format!("Secret {name}, key `key`: fewer than 32 octets: write more"))
            }
            (Some(_), Some(octets)) => Ok(derived(octets, self.name)),
        };
        let field = "spec.loadBalancing.cookieAffinity";
        let max_age = spec.max_age.as_ref().map(|it| duration(it, &format!("{field}.maxAge")));
        let max_age = max_age.transpose()?;
        match made {
            Ok(key) => Ok(Some(CookieAffinity { name: spec.name.as_str().into(), max_age, key })),
            Err(problem) => {
                let message = format!("{problem}; until then there is no affinity");
                let field = format!("{field}.keySecretRef");
                self.find(Severity::Error, field, "AffinityKeyUnusable", message);
                Ok(None)
            }
        }
    }

    /// The most specific first; what cannot be read is left out, and certmap's own page stays.
    fn pages(&mut self, pages: &[api::ErrorPage]) -> Result<Box<[ErrorPage]>, Wrong> {
        let mut read = Vec::new();
        for (index, page) in pages.iter().enumerate() {
            let field = format!("spec.errorPages[{index}]");
            let content_type = HeaderValue::try_from(&page.content_type)
                .map_err(|_| (format!("{field}.contentType"), "write a media type: text/html"))?;
            let codes = page.codes.iter().map(|text| code(text)).collect::<Option<Vec<_>>>();
            let wrong = || (format!("{field}.codes"), "write 404, 403.7, 4xx or 5xx");
            let codes = codes.ok_or_else(wrong)?;
            match self.page(&page.config_map_ref) {
                Ok(body) => read.extend(codes.into_iter().map(|(status, substatus)| {
                    let (body, content_type) = (body.clone(), content_type.clone());
                    let of_backend = page.of_backend;
                    ErrorPage { status, substatus, of_backend, content_type, body }
                })),
                Err((within, problem)) => {
                    let message = format!("{problem}; until then certmap's own page is shown");
                    let field = format!("{field}.{within}");
                    self.find(Severity::Error, field, "ErrorPageUnresolved", message);
                }
            }
        }
        read.sort_by_key(|page: &ErrorPage| match (page.status, page.substatus) {
            (StatusRange::One(_), Some(_)) => 0,
            (StatusRange::One(_), None) => 1,
            (StatusRange::Class(_), _) => 2,
        });
        Ok(read.into())
    }

    fn page(&self, page: &api::PageRef) -> Result<bytes::Bytes, (&'static str, String)> {
        let (name, key) = (ObjectName::new(&self.name.namespace, &page.name), &page.key);
        match content(self.lookup, api::ObjectKind::ConfigMap, &name, key) {
            Some(Ok(body)) => Ok(body.into()),
            Some(Err(problem)) => Err(("configMapRef.key", format!("{problem}: add it"))),
            None => {
                let message =
                    format!("ConfigMap {name} does not exist: create it with the key {key}");
                Err(("configMapRef", message))
            }
        }
    }
}

/// Each policy signs with a key of its own: no cookie of one is good for another.
fn derived(octets: &[u8], policy: &ObjectName) -> [u8; 32] {
    let master = hmac::Key::new(hmac::HMAC_SHA256, octets);
    let tag = hmac::sign(&master, format!("certmap cookie affinity\n{policy}").as_bytes());
    let mut key = [0; 32];
    key.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
    key
}

fn timeouts(timeouts: Option<&api::Timeouts>) -> Result<RouteTimeouts, Wrong> {
    let Some(timeouts) = timeouts else { return Ok(RouteTimeouts::default()) };
    let read = |text: &Option<String>, word: &str| {
        text.as_ref().map(|text| duration(text, &format!("spec.timeouts.{word}"))).transpose()
    };
    Ok(RouteTimeouts {
        request: read(&timeouts.request, "request")?,
        connect: read(&timeouts.connect, "connect")?,
        response: read(&timeouts.response, "response")?,
        idle: read(&timeouts.idle, "idle")?,
    })
}

fn limits(limits: Option<&api::Limits>) -> Result<RouteLimits, Wrong> {
    let Some(limits) = limits else { return Ok(RouteLimits::default()) };
    let body = limits.request_body.as_ref();
    let request_body = body.map(|text| octets(text, "spec.limits.requestBody")).transpose()?;
    let target = limits.target.and_then(|target| usize::try_from(target).ok());
    Ok(RouteLimits { request_body, target })
}

fn retry(retry: &api::Retry) -> Retry {
    let (attempts, budget_percent) = (retry.attempts, retry.budget_percent.min(100));
    Retry { attempts, codes: retry.codes.as_slice().into(), budget_percent }
}

fn ejection(ejection: &api::Ejection) -> Result<Ejection, Wrong> {
    let rest = duration(&ejection.rest, "spec.loadBalancing.ejection.rest")?;
    let (failures, most_percent) = (ejection.failures.max(1), ejection.most_percent.min(100));
    Ok(Ejection { failures, rest, most_percent })
}

fn response_headers(headers: &api::ResponseHeaders) -> Result<HeaderEdits, Wrong> {
    let lists = (&*headers.remove, &*headers.set, &*headers.add);
    edits(lists, "spec.responseHeaders", is_none_of(TAKEN_IN_RESPONSES))
}

/// The same as the CEL rules; what identifies is looked at apart.
fn is_none_of(taken: HeaderNames) -> impl Fn(&HeaderName) -> bool {
    move |name| {
        let name = name.as_str();
        !taken.names.contains(&name) && !taken.families.iter().any(|it| name.starts_with(it))
    }
}
