//! RoutePolicies in a directory: what they come to on each route, and what becomes of those that cannot be made out.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use certmap::app::{Rules, options};
use certmap::compile::{Compiled, Finding, Object, ObjectKind, ObjectName, Reuse, compile};
use certmap::policy::{DenialCode, Guard};
use certmap::snapshot::{
    Coding, HostName, PathRewrite, RateKey, Route, RouteSettings, StatusRange,
};
use certmap::source::{Directory, Scan};
use serde_json::{Value, json};

use super::support::clients::curl;
use super::support::manifests::{config_map, ingress, policy, route_policy, service, tls_secret};
use super::support::pki::{Ca, leaf};
use super::support::{REQUIRE, Site, run, write_whole};

/// Manifests, and what they were compiled to.
struct Bench {
    root: tempfile::TempDir,
    directory: Directory,
    default: Option<ObjectName>,
    reuse: Reuse,
}

impl Bench {
    /// An Ingress for app.test, with a backend.
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::new(root.path());
        let bench = Self { root, directory, default: None, reuse: Reuse::default() };
        bench.write("ingress.yaml", &ingress("app", "app.test", "/", "echo"));
        bench.write("service.yaml", &service("echo", &[9]));
        bench
    }

    fn write(&self, name: &str, text: &str) {
        write_whole(&self.root.path().join(name), text);
    }

    fn route_policy(&self, spec: &str) {
        self.write("route.yaml", &route_policy("route", "app", spec));
    }

    fn scan(&mut self) -> Scan {
        self.directory.rescan().unwrap()
    }

    fn compile(&mut self) -> Compiled {
        let world = self.scan().world;
        let rules = Rules { default_route_policy: self.default.clone(), ..Rules::default() };
        let compiled = compile(&world, &self.reuse, &options(true, rules).unwrap()).unwrap();
        self.reuse = compiled.reuse.clone();
        compiled
    }

    /// With a route policy for the Ingress that the schema need not have seen.
    fn stored(&mut self, mut spec: Value) -> Compiled {
        let target = json!({"group": "networking.k8s.io", "kind": "Ingress", "name": "app"});
        spec["targetRefs"] = json!([target]);
        let metadata = json!({"name": "stored", "namespace": "web"});
        let api = "certmap.dev/v1alpha1";
        let object =
            json!({"apiVersion": api, "kind": "RoutePolicy", "metadata": metadata, "spec": spec});
        let mut world = self.scan().world;
        world.apply(Object::RoutePolicy(Arc::new(serde_json::from_value(object).unwrap())));
        compile(&world, &Reuse::default(), &options(true, Rules::default()).unwrap()).unwrap()
    }

    fn settings(&mut self) -> Arc<RouteSettings> {
        let compiled = self.compile();
        let route = route(&compiled);
        assert!(matches!(route.guard, Guard::Open), "{:?} {:?}", route.guard, compiled.findings);
        route.settings.clone()
    }

    /// Why nothing passes.
    fn shut(&mut self) -> String {
        match &route(&self.compile()).guard {
            Guard::Shut { code, reason } => format!("{} {reason}", code.as_str()),
            other => panic!("{other:?}"),
        }
    }

    fn findings(&mut self) -> Vec<String> {
        said(&self.compile())
    }
}

fn route(compiled: &Compiled) -> &Route {
    let host = compiled.snapshot.hosts.resolve(HostName::parse("app.test").as_ref()).unwrap();
    host.route("/").unwrap()
}

/// Of route policies alone.
fn said(compiled: &Compiled) -> Vec<String> {
    let findings = compiled.findings.iter();
    let findings = findings.filter(|it| it.object.to_string().starts_with("RoutePolicy "));
    findings
        .map(|it| format!("{}: {} ({}): {}", it.object, it.field, it.reason, it.message))
        .collect()
}

fn one(findings: &[String], parts: &[&str]) {
    assert_eq!(findings.len(), 1, "{findings:#?}");
    for part in parts {
        assert!(findings[0].contains(part), "{part}: {}", findings[0]);
    }
}

const WHOLE: &str = "
timeouts: {request: 1m30s, connect: 500ms, response: 60s, idle: 300s}
limits: {requestBody: 10Mi, target: 8192}
retry: {codes: [502, 503]}
loadBalancing:
  slowStart: 30s
  ejection: {failures: 3}
  cookieAffinity: {maxAge: 1h, keySecretRef: {name: affinity}}
rateLimits: [{per: ClientAddress, requests: 100, burst: 200}, {per: Account, requests: 600, period: 1m}]
httpsRedirect: true
rewrite: {host: app.internal, path: {replacePrefix: /v1}}
requestHeaders: {set: [{name: X-Env, value: prod}], remove: [X-Debug]}
responseHeaders: {add: [{name: Strict-Transport-Security, value: max-age=31536000}]}
cors: {allowOrigins: ['https://*.Corp.example'], allowHeaders: [X-Token], allowCredentials: true, maxAge: 1h}
compression: {codings: [br, zstd]}
errorPages:
- {codes: [4xx, '404', '403.7'], configMapRef: {name: pages, key: denied.html}}
";

#[test]
fn every_field_is_on_the_route() {
    let mut bench = Bench::new();
    bench.route_policy(WHOLE.trim_start());
    bench.write("pages.yaml", &config_map("pages", "denied.html", "<p>no</p>"));
    bench.write("key.yaml", &affinity_secret(&"k".repeat(32)));
    let scan = bench.scan();
    assert!(scan.problems.is_empty(), "{:?}", scan.problems);
    let compiled = bench.compile();
    assert!(said(&compiled).is_empty(), "{:?}", said(&compiled));
    let settings = &route(&compiled).settings;
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    assert_eq!(&*settings.name, "web/route");
    assert_eq!(settings.timeouts.request, seconds(90));
    assert_eq!(settings.timeouts.connect, Some(Duration::from_millis(500)));
    assert_eq!((settings.timeouts.response, settings.timeouts.idle), (seconds(60), seconds(300)));
    assert_eq!(
        (settings.limits.request_body, settings.limits.target),
        (Some(10 << 20), Some(8192))
    );
    let retry = settings.retry.as_ref().unwrap();
    assert_eq!((retry.attempts, &*retry.codes, retry.budget_percent), (2, &[502, 503][..], 20));
    let ejection = settings.balance.ejection.unwrap();
    assert_eq!((ejection.failures, ejection.most_percent), (3, 50));
    assert_eq!(settings.balance.slow_start, Duration::from_secs(30));
    let affinity = settings.balance.affinity.as_ref().unwrap();
    assert_eq!((&*affinity.name, affinity.max_age), ("certmap-affinity", seconds(3600)));
    assert_ne!(affinity.key, [0; 32]);
    let limits: Vec<_> =
        settings.rate_limits.iter().map(|it| (it.per, it.requests, it.period, it.burst)).collect();
    let expected = [
        (RateKey::ClientAddress, 100, Duration::from_secs(1), 200),
        (RateKey::Account, 600, Duration::from_secs(60), 600),
    ];
    assert_eq!(limits, expected);
    assert!(settings.https_redirect);
    assert_eq!(settings.rewrite.host.as_ref().unwrap(), "app.internal");
    assert_eq!(settings.rewrite.path, Some(PathRewrite::Prefix("/v1".into())));
    assert_eq!(settings.request_headers.set[0].0, "x-env");
    assert_eq!(settings.request_headers.remove[0], "x-debug");
    assert_eq!(settings.response_headers.add[0].1, "max-age=31536000");
    let cors = settings.cors.as_ref().unwrap();
    assert_eq!((&*cors.allow_origins[0], cors.allow_methods.len()), ("https://*.corp.example", 3));
    let compression = settings.compression.as_ref().unwrap();
    assert_eq!(&*compression.codings, &[Coding::Brotli, Coding::Zstd]);
    let pages: Vec<_> = settings.error_pages.iter().map(|it| (it.status, it.substatus)).collect();
    let expected = [
        (StatusRange::One(403), Some(7)),
        (StatusRange::One(404), None),
        (StatusRange::Class(4), None),
    ];
    assert_eq!(pages, expected, "the most specific first");
    assert_eq!(settings.error_pages[0].body, "<p>no</p>\n");
}

#[test]
fn a_retry_without_codes_is_one_after_what_gateways_say() {
    let mut bench = Bench::new();
    bench.route_policy("retry: {attempts: 1}");
    let settings = bench.settings();
    let retry = settings.retry.as_ref().unwrap();
    assert_eq!(
        (retry.attempts, &*retry.codes, retry.budget_percent),
        (1, &[502, 503, 504][..], 20)
    );
}

fn affinity_secret(key: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: affinity, namespace: web}}\nstringData: {{key: '{key}'}}\n"
    )
}

fn default_policy(spec: &str) -> String {
    let spec: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "apiVersion: certmap.dev/v1alpha1\nkind: RoutePolicy\nmetadata: {{name: all, namespace: web}}\nspec:\n{spec}"
    )
}

#[test]
fn what_a_policy_leaves_out_the_default_says() {
    let mut bench = Bench::new();
    bench.default = Some(ObjectName::new("web", "all"));
    let default = "timeouts: {request: 9s, idle: 8s}\nhttpsRedirect: true\nrateLimits: [{per: Account, requests: 1}]\ncompression: {}";
    bench.write("default.yaml", &default_policy(default));
    let alone = bench.settings();
    assert_eq!((&*alone.name, alone.https_redirect), ("web/all", true));
    assert_eq!(&*alone.compression.as_ref().unwrap().types[0], "text/*");
    bench.route_policy(
        "timeouts: {idle: 1s}\nhttpsRedirect: false\nrateLimits: []\ncompression: {codings: []}",
    );
    let both = bench.settings();
    assert_eq!((&*both.name, both.https_redirect), ("web/route", false));
    assert_eq!(both.timeouts.request, Some(Duration::from_secs(9)));
    assert_eq!(both.timeouts.idle, Some(Duration::from_secs(1)));
    assert!(both.rate_limits.is_empty() && both.compression.is_none());
}

#[test]
fn a_default_that_is_not_there_lets_nothing_pass() {
    let mut bench = Bench::new();
    bench.default = Some(ObjectName::new("infra", "all"));
    let shut = bench.shut();
    assert!(shut.starts_with("503.96 RoutePolicy infra/all does not exist"), "{shut}");
    one(
        &bench.findings(),
        &["RoutePolicy infra/all: ", "DefaultMissing", "--default-route-policy"],
    );
}

#[test]
fn a_policy_that_is_well_says_why_its_routes_are_not_carried() {
    let mut bench = Bench::new();
    bench.route_policy("httpsRedirect: true");
    bench.default = Some(ObjectName::new("infra", "all"));
    assert!(bench.shut().starts_with("503.96 RoutePolicy infra/all does not exist"));
    let own = |bench: &mut Bench| -> Vec<String> {
        let findings = bench.findings().into_iter();
        findings.filter(|it| it.starts_with("RoutePolicy web/route: ")).collect()
    };
    let said =
        ["(DefaultUnusable): RoutePolicy infra/all does not exist", "Ingress web/app answers"];
    one(&own(&mut bench), &said);
    bench.default = Some(ObjectName::new("web", "all"));
    bench.write("default.yaml", &default_policy(&TLS.replace("CLIENT", "")));
    let missing = "RoutePolicy web/all: ConfigMap web/backend-ca does not exist";
    one(&own(&mut bench), &["(DefaultUnusable)", missing]);
    bench.default = None;
    assert!(own(&mut bench).is_empty());
    bench.write("nobody.yaml", &default_policy("timeouts: {requst: 5s}").replace("all", "nobody"));
    one(&own(&mut bench), &["(OtherUnreadable): RoutePolicy web/nobody cannot be read"]);
    bench.write("nobody.yaml", &service("gone", &[]));
    bench.route_policy(&TLS.replace("CLIENT", ""));
    one(&own(&mut bench), &["(BackendTLSUnusable)"]);
}

const AES_128: &str = "TLS_AES_128_GCM_SHA256";
const AES_256: &str = "TLS_AES_256_GCM_SHA384";
const OLDER: &str = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256";

fn suites(suites: &[&str]) -> String {
    format!("tls: {{cipherSuites: [{}]}}", suites.join(", "))
}

/// And of another namespace, younger, an Ingress for app.test/below, with a policy of this.
fn with_a_neighbour(spec: &str) -> Bench {
    let bench = Bench::new();
    let there = |text: String| text.replace("namespace: web", "namespace: xx");
    bench.write("below.yaml", &there(ingress("below", "app.test", "/below", "echo")));
    bench.write("below-service.yaml", &there(service("echo", &[9])));
    bench.write("below-route.yaml", &there(route_policy("near", "below", spec)));
    bench
}

#[test]
fn no_namespace_takes_the_newest_tls_from_anothers_host_or_shuts_it() {
    for (ours, theirs, left) in [
        (&[AES_128, OLDER][..], &[AES_256, OLDER][..], &[AES_128, OLDER][..]),
        (&[AES_128, OLDER], &[OLDER], &[AES_128, OLDER]),
        (&[AES_128, AES_256, OLDER], &[AES_128], &[AES_128]),
    ] {
        let mut bench = with_a_neighbour(&suites(theirs));
        bench.route_policy(&suites(ours));
        let compiled = bench.compile();
        let host = HostName::parse("app.test");
        let host = compiled.snapshot.hosts.resolve(host.as_ref()).unwrap();
        let mut names = host.rules.as_ref().unwrap().names();
        names.sort();
        assert_eq!(names, left, "{theirs:?}");
        assert!(matches!(host.route("/").unwrap().guard, Guard::Open), "{theirs:?}");
        let is_met = left == theirs;
        let below = &host.route("/below").unwrap().guard;
        assert_eq!(matches!(below, Guard::Open), is_met, "{theirs:?}: {below:?}");
        if !is_met {
            let parts = ["RoutePolicy xx/near: spec.tls.cipherSuites (Invalid)", "503.96"];
            one(&said(&compiled), &parts);
        }
    }
}

#[test]
fn of_a_demand_that_cannot_be_met_whoever_makes_it_is_told() {
    let mut bench = with_a_neighbour("httpsRedirect: true");
    bench.route_policy(&suites(&[AES_256]));
    bench.default = Some(ObjectName::new("web", "all"));
    bench.write("default.yaml", &default_policy(&suites(&[AES_128])));
    let findings = bench.findings();
    let all = "RoutePolicy web/all: spec.tls.cipherSuites (Invalid): no handshake";
    let near = "RoutePolicy xx/near:  (DefaultUnusable): RoutePolicy web/all: no handshake";
    assert_eq!(findings.len(), 2, "{findings:#?}");
    assert!(findings[0].starts_with(all) && findings[1].starts_with(near), "{findings:#?}");
    assert!(findings.iter().all(|it| it.contains("the routes of Ingress xx/below")));
    // It is no target of the default one: that says so everywhere.
    let targets = bench.compile().findings.into_iter().map(|it| it.target);
    assert_eq!(targets.flatten().collect::<Vec<_>>(), [ObjectName::new("xx", "below")]);
    // Where the policy itself says nothing of suites, either.
    bench.write("below-route.yaml", &service("gone", &[]));
    one(&bench.findings(), &[all]);
}

#[test]
fn a_value_that_makes_no_sense_puts_a_policy_out_of_force() {
    let mut bench = Bench::new();
    bench.write("pages.yaml", &config_map("pages", "a.html", "x"));
    bench.write("key.yaml", &affinity_secret(&"x".repeat(64)));
    let page = |codes: &str, kind: &str| {
        let map = json!({"name": "pages", "key": "a.html"});
        json!({"errorPages": [{"codes": [codes], "contentType": kind, "configMapRef": map}]})
    };
    let affinity = |age: &str| json!({"loadBalancing": {"cookieAffinity": {"maxAge": age, "keySecretRef": {"name": "affinity"}}}});
    for (spec, field) in [
        (page("200", "text/html"), "spec.errorPages[0].codes (Invalid)"),
        (page("404", "a\nb"), "spec.errorPages[0].contentType (Invalid)"),
        (affinity("5"), "spec.loadBalancing.cookieAffinity.maxAge (Invalid)"),
    ] {
        let compiled = bench.stored(spec);
        let DenialCode::RoutePolicyUnusable = code(&compiled) else { panic!("{field}") };
        one(&said(&compiled), &[field]);
    }
    for right in [page("404", "text/html"), affinity("5s")] {
        assert!(matches!(route(&bench.stored(right)).guard, Guard::Open));
    }
}

fn code(compiled: &Compiled) -> DenialCode {
    match &route(compiled).guard {
        Guard::Shut { code, .. } => *code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_affinity_that_cannot_be_made_out_is_none_and_not_the_defaults() {
    let affinity = |name: &str| {
        format!("loadBalancing: {{cookieAffinity: {{keySecretRef: {{name: {name}}}}}}}")
    };
    let mut bench = Bench::new();
    bench.default = Some(ObjectName::new("web", "all"));
    bench.write("key.yaml", &affinity_secret(&"x".repeat(64)));
    bench.write("default.yaml", &default_policy(&affinity("affinity")));
    assert!(bench.settings().balance.affinity.is_some());
    bench.route_policy(&affinity("other"));
    assert!(bench.settings().balance.affinity.is_none());
}

#[test]
fn the_oldest_counts_and_the_others_are_told() {
    let mut bench = Bench::new();
    for (name, created) in [("old", "2026-01-01"), ("new", "2026-06-01"), ("a", "2026-07-01")] {
        let text = route_policy(name, "app", "httpsRedirect: true");
        let created = format!("creationTimestamp: {created}T00:00:00Z, name: {name}");
        bench.write(
            &format!("{name}.yaml"),
            &text.replace(&format!("{{name: {name}"), &format!("{{{created}")),
        );
    }
    assert_eq!(&*bench.settings().name, "web/old");
    let findings = bench.findings();
    assert_eq!(findings.len(), 2, "{findings:#?}");
    assert!(findings[0].starts_with("RoutePolicy web/a: spec.targetRefs (Conflicted): "));
    assert!(findings[1].contains("RoutePolicy web/old is older and counts for Ingress web/app"));
}

#[test]
fn one_that_never_could_be_read_shuts_its_targets_and_one_that_could_stays_what_it_was() {
    let mut bench = Bench::new();
    bench.route_policy("timeouts: {request: 5s}");
    assert!(bench.settings().timeouts.request.is_some());
    bench.route_policy("timeouts: {requst: 5s}");
    assert_eq!(bench.settings().timeouts.request, Some(Duration::from_secs(5)));
    let problem = bench.scan().problems[0].to_string();
    assert!(problem.contains("spec.timeouts.requst: no such field: did you mean request?"));
    let mut fresh = Bench::new();
    fresh.route_policy("timeouts: {requst: 5s}");
    assert_eq!(fresh.shut(), "503.96 RoutePolicy web/route cannot be read");
    let mut nobody = Bench::new();
    nobody.write("default.yaml", &default_policy("limits: {requestBody: much}"));
    assert_eq!(nobody.shut(), "503.96 RoutePolicy web/all cannot be read");
}

#[test]
fn one_of_whose_targets_only_some_can_be_made_out_shuts_its_namespace() {
    let mut bench = Bench::new();
    let text = route_policy("route", "other", "httpsRedirect: true");
    let slip = ", name: other}, {group: networking.k8s.io, kind: Ingress, nme: app}]";
    bench.write("route.yaml", &text.replace(", name: other}]", slip));
    assert_eq!(bench.shut(), "503.96 RoutePolicy web/route cannot be read");
}

#[test]
fn a_manifest_that_may_hold_one_shuts_what_has_none_and_an_unreadable_policy_of_the_other_kind_does_not()
 {
    let mut bench = Bench::new();
    bench.write("broken.yaml", "certmap: [\n");
    bench.write("policy.yaml", &policy("p", "app", "sslFlags: [Ssl]"));
    assert_eq!(bench.shut(), "503.96 a manifest that may hold a route policy cannot be read");
    let nobody = "apiVersion: certmap.dev/v1alpha1\nkind: CertMappingPolicy\nmetadata: {name: q}\nspec: {targetRef: []}\n";
    let mut bench = Bench::new();
    bench.write("policy.yaml", &policy("p", "app", "sslFlags: [Ssl]"));
    bench.write("broken.yaml", nobody);
    assert!(matches!(route(&bench.compile()).guard, Guard::Policed(_)));
}

const TLS: &str = "backendTLS: {hostname: app.internal, caCertificateRefs: [{kind: ConfigMap, name: backend-ca}]CLIENT}";

#[test]
fn without_its_ca_nothing_is_sent_to_a_backend() {
    let mut bench = Bench::new();
    bench.route_policy(&TLS.replace("CLIENT", ""));
    let shut = bench.shut();
    assert!(
        shut.contains("503.96 ") && shut.contains("ConfigMap web/backend-ca does not"),
        "{shut}"
    );
    let field = "spec.backendTLS.caCertificateRefs[0] (BackendTLSUnusable)";
    one(&bench.findings(), &[field, "create it with the key ca.crt", "503.96"]);
    let ca = Ca::new("backends");
    bench.write("ca.yaml", &config_map("backend-ca", "ca.crt", &ca.pem()));
    let made = bench.settings().backend_tls.clone().unwrap();
    assert_eq!(made.name.to_str(), "app.internal");
    bench.write("ca.yaml", &config_map("backend-ca", "ca.crt", "no certificate"));
    let kept = bench.settings().backend_tls.clone().unwrap();
    assert_eq!(kept.digest, made.digest, "last good");
    one(&bench.findings(), &["CABundleInvalid", "the CAs read before stay in force"]);
    bench.write("ca.yaml", &config_map("backend-ca", "ca.crt", &Ca::new("other").pem()));
    let renewed = bench.settings().backend_tls.clone().unwrap();
    assert_ne!(renewed.digest, made.digest, "connections made under the other CA are not used");
    bench.write("ca.yaml", &service("gone", &[]));
    assert!(bench.shut().starts_with("503.96 "));
}

#[test]
fn a_client_certificate_that_is_not_there_is_not_left_out() {
    let mut bench = Bench::new();
    let ca = Ca::new("backends");
    bench.write("ca.yaml", &config_map("backend-ca", "ca.crt", &ca.pem()));
    bench.route_policy(&TLS.replace("CLIENT", ", clientCertificateRef: {name: ours}"));
    assert!(bench.shut().contains("Secret web/ours does not exist"));
    let secret = tls_secret("ours", &ca.issue(leaf("certmap")));
    bench.write("ours.yaml", &secret);
    let made = bench.settings().backend_tls.clone().unwrap();
    assert!(made.config.client_auth_cert_resolver.has_certs());
    bench.write("ours.yaml", &secret.replace("PRIVATE KEY", "SECRET"));
    assert_eq!(bench.settings().backend_tls.as_ref().unwrap().digest, made.digest, "last good");
    one(&bench.findings(), &["clientCertificateRef", "ClientCertificateInvalid", "tls.key"]);
}

#[test]
fn a_client_certificate_that_was_deleted_does_not_come_back() {
    let mut bench = Bench::new();
    let ca = Ca::new("backends");
    bench.write("ca.yaml", &config_map("backend-ca", "ca.crt", &ca.pem()));
    bench.route_policy(&TLS.replace("CLIENT", ", clientCertificateRef: {name: ours}"));
    let secret = tls_secret("ours", &ca.issue(leaf("certmap")));
    bench.write("ours.yaml", &secret);
    bench.settings();
    bench.write("ours.yaml", &service("gone", &[]));
    assert!(bench.shut().contains("Secret web/ours does not exist"));
    bench.write("ours.yaml", &secret.replace("PRIVATE KEY", "SECRET"));
    assert!(bench.shut().starts_with("503.96 RoutePolicy web/route: Secret web/ours: "));
}

#[test]
fn a_ca_that_was_deleted_does_not_come_back_whatever_else_was_wrong() {
    let two = TLS.replace("[{", "[{kind: ConfigMap, name: first}, {").replace("CLIENT", "");
    let ca = |name: &str, text: &str| config_map(name, "ca.crt", text);
    let mut bench = Bench::new();
    bench.route_policy(&two);
    let pem = Ca::new("backends").pem();
    bench.write("first.yaml", &ca("first", &pem));
    bench.write("ca.yaml", &ca("backend-ca", &pem));
    bench.settings();
    // Both are deleted, and come back broken, the second one too.
    bench.write("first.yaml", &service("gone", &[]));
    bench.write("ca.yaml", &service("gone-too", &[]));
    assert!(bench.shut().contains("ConfigMap web/first does not exist"));
    bench.write("first.yaml", &ca("first", &pem));
    bench.write("ca.yaml", &ca("backend-ca", "no certificate"));
    assert!(bench.shut().contains("ConfigMap web/backend-ca"));
    // The policy goes with its CA.
    bench.write("ca.yaml", &ca("backend-ca", &pem));
    bench.settings();
    bench.write("route.yaml", &service("gone-as-well", &[]));
    bench.write("ca.yaml", &service("gone-too", &[]));
    bench.settings();
    bench.route_policy(&two);
    bench.write("ca.yaml", &ca("backend-ca", "no certificate"));
    assert!(bench.shut().contains("ConfigMap web/backend-ca"));
}

#[test]
fn a_certificate_that_was_read_for_a_mapping_never_stands_in_for_a_ca() {
    let mut bench = Bench::new();
    let leaf = Ca::new("backends").issue(leaf("alice")).pem();
    bench.write("ca.yaml", &config_map("backend-ca", "ca.crt", &leaf));
    let mapping = "oneToOne: {mappings: [{name: a, certificateRef: {kind: ConfigMap, name: backend-ca, key: ca.crt}, account: {userName: a}}]}";
    bench.write("policy.yaml", &policy("p", "other", mapping));
    bench.settings();
    bench.write("ca.yaml", &config_map("backend-ca", "ca.crt", "no certificate"));
    bench.route_policy(&TLS.replace("CLIENT", ""));
    let compiled = bench.compile();
    assert!(matches!(route(&compiled).guard, Guard::Shut { .. }), "{:?}", route(&compiled).guard);
    let of_mapping = |it: &&Finding| it.object.kind == ObjectKind::CertMappingPolicy;
    let said = compiled.findings.iter().filter(of_mapping).map(|it| it.reason);
    let said: Vec<_> = said.filter(|it| it.starts_with("Certificate")).collect();
    assert_eq!(said, ["CertificateInvalid"], "the mapping keeps its own");
}

#[test]
fn a_younger_ingress_brings_its_policies_to_an_older_path_and_not_its_route_policys_faults() {
    let broken = TLS.replace("CLIENT", "");
    let bench = || {
        let bench = Bench::new();
        bench.write("late.yaml", &ingress("late", "app.test", "/", "echo"));
        bench
    };
    let mut open = bench();
    open.write("route.yaml", &route_policy("route", "late", &broken));
    assert!(matches!(route(&open.compile()).guard, Guard::Open));
    open.write("policy.yaml", &policy("p", "late", "sslFlags: [Ssl]"));
    let compiled = open.compile();
    let policed = route(&compiled);
    assert!(matches!(&policed.guard, Guard::Policed(all) if &*all[0].name == "web/p"));
    assert_eq!(&*policed.ingress, "web/app");
    let mut unreadable = bench();
    unreadable.write("route.yaml", &route_policy("route", "late", &broken));
    unreadable.write("policy.yaml", &policy("p", "late", "sslFlag: [Ssl]"));
    assert_eq!(unreadable.shut(), "503.92 CertMappingPolicy web/p cannot be read");
    let mut own = bench();
    own.write("route.yaml", &route_policy("route", "app", &broken));
    own.write("policy.yaml", &policy("p", "app", "sslFlags: [Ssl]"));
    assert!(own.shut().starts_with("503.96 "), "whoever is younger");
    assert_eq!(own.compile().snapshot.policies.len(), 1, "its keys are fetched all the same");
}

#[test]
fn another_namespaces_ca_takes_a_grant_to_route_policies() {
    let mut bench = Bench::new();
    let ca = config_map("backend-ca", "ca.crt", &Ca::new("backends").pem());
    bench.write("ca.yaml", &ca.replace("namespace: web", "namespace: infra"));
    bench.route_policy(
        &TLS.replace("name: backend-ca", "name: backend-ca, namespace: infra")
            .replace("CLIENT", ""),
    );
    let grant = |kind: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {{name: g, namespace: infra}}\nspec: {{from: [{{group: certmap.dev, kind: {kind}, namespace: web}}], to: [{{group: '', kind: ConfigMap}}]}}\n"
        )
    };
    bench.write("grant.yaml", &grant("CertMappingPolicy"));
    assert!(
        bench.shut().contains("create a ReferenceGrant in namespace infra from RoutePolicy in web")
    );
    bench.write("grant.yaml", &grant("RoutePolicy"));
    assert!(bench.settings().backend_tls.is_some());
}

#[test]
fn what_does_not_guard_is_left_out_with_a_finding() {
    let mut bench = Bench::new();
    bench.route_policy("httpsRedirect: true\nloadBalancing: {cookieAffinity: {keySecretRef: {name: affinity}}}\nerrorPages: [{codes: ['404'], configMapRef: {name: pages, key: a.html}}]");
    let settings = bench.settings();
    assert!(settings.https_redirect && settings.error_pages.is_empty());
    assert!(settings.balance.affinity.is_none());
    let findings = bench.findings();
    assert_eq!(findings.len(), 2, "{findings:#?}");
    assert!(findings[0].contains("spec.errorPages[0].configMapRef (ErrorPageUnresolved)"));
    assert!(
        findings[1].contains("keySecretRef (AffinityKeyUnusable): Secret web/affinity does not")
    );
    bench.write("key.yaml", &affinity_secret("too short"));
    assert!(bench.findings()[1].contains("fewer than 32 octets"));
    bench.write("key.yaml", &affinity_secret(&"x".repeat(64)));
    bench.write("pages.yaml", &config_map("pages", "a.html", "x"));
    let settings = bench.settings();
    assert!(settings.balance.affinity.is_some() && settings.error_pages.len() == 1);
}

#[test]
fn a_header_by_which_backends_learn_who_calls_is_never_set_by_a_route() {
    let mut bench = Bench::new();
    bench.write("other.yaml", &policy("p", "other", "forward: {userHeader: X-Caller}"));
    bench.route_policy("requestHeaders: {set: [{name: X-Caller, value: admin}, {name: X-Remote-User, value: admin}, {name: X-A, value: b}]}");
    let settings = bench.settings();
    let names: Vec<&str> =
        settings.request_headers.set.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["x-a"]);
    assert!(bench.findings().iter().all(|it| it.contains("HeaderNeverSent")));
    std::fs::remove_file(bench.root.path().join("other.yaml")).unwrap();
    bench.scan();
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(
        bench.settings().request_headers.set.len(),
        2,
        "X-Caller is a header like others now"
    );
}

#[test]
fn what_did_not_change_is_the_very_same() {
    let mut bench = Bench::new();
    bench.route_policy("errorPages: [{codes: ['404'], configMapRef: {name: pages, key: a.html}}]");
    bench.write("pages.yaml", &config_map("pages", "a.html", "x"));
    let first = bench.settings();
    bench.write("more.yaml", &ingress("more", "more.test", "/", "echo"));
    assert!(Arc::ptr_eq(&first, &bench.settings()));
    bench.write("pages.yaml", &config_map("pages", "a.html", "y"));
    assert_eq!(bench.settings().error_pages[0].body, "y\n");
}

#[test]
fn a_slip_of_the_pen_is_told_with_its_line_and_what_to_write() {
    let site = Site::new();
    let validate = |spec: &str| {
        site.write("route.yaml", &route_policy("route", "app", spec));
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_certmap"));
        run(command.arg("validate").arg(site.manifests()))
    };
    let (ok, text) = validate("httpsRedirect: true");
    assert!(ok, "{text}");
    for (spec, parts) in [
        ("timeouts: {request: 60}", &["route.yaml:6:", "spec.timeouts.request", "write 60s"][..]),
        ("timeouts: {request: 0s}", &["spec.timeouts.request", "such as 500ms"]),
        ("limits: {requestBody: 10MB}", &["spec.limits.requestBody", "512Ki or 10Mi"]),
        ("rewrite: {}", &["spec.rewrite", "write host, path or both"]),
        ("rewrite: {path: {replacePrefix: /a, replaceFull: /b}}", &["exactly one of"]),
        ("rewrite: {path: {replacePrefix: /a/../b}}", &["write a plain path"]),
        (
            "requestHeaders: {set: [{name: Host, value: x}]}",
            &["requestHeaders.set", "rewrite.host"],
        ),
        ("requestHeaders: {remove: [Authorization]}", &["requestHeaders.remove", "who is calling"]),
        ("requestHeaders: {add: [{name: X-Forwarded-For, value: x}]}", &["requestHeaders.add"]),
        ("responseHeaders: {set: [{name: Content-Length, value: '1'}]}", &["frames the response"]),
        ("responseHeaders: {set: [{name: A, value: \"a\\nb\"}]}", &["set[0].value", "right form"]),
        ("cors: {allowOrigins: ['*'], allowCredentials: true}", &["name the origins"]),
        ("compression: {codings: [br, br]}", &["spec.compression.codings[1]", "occurs before"]),
        ("errorPages: [{codes: ['200'], configMapRef: {name: a, key: b}}]", &["codes[0]"]),
        ("loadBalancing: {cookieAffinity: {}}", &["keySecretRef is missing"]),
        (
            "loadBalancing: {cookieAffinity: {maxAge: 500ms, keySecretRef: {name: a}}}",
            &["cookieAffinity.maxAge", "a second or more"],
        ),
        ("retry: {codes: []}", &["spec.retry.codes", "at least 1"]),
        ("backendTLS: {hostname: a, caCertificateRefs: []}", &["at least 1"]),
    ] {
        let (ok, text) = validate(spec);
        assert!(!ok, "{spec}: {text}");
        for part in parts {
            assert!(text.contains(part), "{spec}: {part}: {text}");
        }
    }
}

#[test]
fn a_route_that_cannot_be_carried_as_written_answers_503_96_until_it_can() {
    let site = Site::with_alice(REQUIRE);
    site.write("route.yaml", &route_policy("route", "app", &TLS.replace("CLIENT", "")));
    let server = site.start();
    let get = |host: &str| curl(&site, server.https, "alice", host, "/", &[]);
    assert_eq!(get("app.test").code(), "503.96");
    assert_eq!(get("open.test").status, 200, "nobody else is concerned");
    server.said(&["RoutePolicy web/route", "spec.backendTLS", "BackendTLSUnusable"]);
    site.write("route.yaml", &route_policy("route", "app", "limits: {target: 8192}"));
    super::support::server::wait("the route", || get("app.test").status == 200);
    let mut explain = std::process::Command::new(env!("CARGO_BIN_EXE_certmap"));
    explain
        .args(["explain", "--host", "app.test", "--no-cert", "--manifests"])
        .arg(site.manifests());
    let (_, text) = run(&mut explain);
    assert!(text.contains("carried by  web/route\n"), "{text}");
}

#[test]
fn the_sample_of_every_field_is_right() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/samples/route-policy.yaml");
    let scan = Directory::new(&samples).rescan().unwrap();
    assert!(scan.problems.is_empty(), "{:?}", scan.problems);
    assert!(!scan.world.route_policies.is_empty());
}
