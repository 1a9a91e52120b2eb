//! How soon a change is in force in a large cluster, and that nothing goes wrong on the way.
//!
//! Five Ingresses to each of E2E_HOSTS hosts (1,000 unless said otherwise), and 100 policies with 100,000 mappings;
//! `docs/performance.md` has the figures.

use std::future::Future;
use std::io::Write;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{
    Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use certmap::api::CertMappingPolicy;

use crate::cluster::{kubectl, try_kubectl};
use crate::eventually;
use crate::install::{NAMESPACE, Own};
use crate::pki::{self, Ca};
use crate::site::Site;
use crate::tls;
use crate::traffic::Traffic;

const INGRESSES_PER_HOST: usize = 5;
const POLICIES: usize = 100;
const MAPPINGS: usize = 1000;
/// Of each kind.
const EDITS: usize = 25;
/// Changes under load.
const CHANGES: usize = 500;
const HOST: &str = "h0.load.test";
/// A policy among those of 1,000 mappings, and a small one: the API server takes its time for large objects.
const LARGE: &str = "p0";
const SMALL: &str = "small";

fn hosts() -> usize {
    std::env::var("E2E_HOSTS").map_or(1000, |hosts| hosts.parse().unwrap())
}

/// The shared installation, away: its replicas would compile the same policies on the same cores, and a replica has a node
/// of its own elsewhere.
struct Away;

impl Away {
    fn send() -> Self {
        kubectl(&["scale", "-n", NAMESPACE, "deployment/certmap", "--replicas=0"]);
        Self
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        let (_, _) = try_kubectl(&["scale", "-n", NAMESPACE, "deployment/certmap", "--replicas=2"]);
        let (_, _) = try_kubectl(&[
            "rollout",
            "status",
            "-n",
            NAMESPACE,
            "deployment/certmap",
            "--timeout=120s",
        ]);
    }
}

struct Large {
    own: Own,
    site: Site,
    client: Client,
    server_ca: Ca,
    pod: String,
}

fn ingress(host: usize, index: usize) -> Value {
    let service = if (host, index) == (0, 1) { "manual" } else { "whoami-0" };
    let name = format!("h{host}.load.test");
    let path = if index == 0 { "/".to_owned() } else { format!("/{index}") };
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": format!("i-{host}-{index}")},
        "spec": {
            "ingressClassName": "load", "tls": [{"hosts": [name], "secretName": "server-tls"}],
            "rules": [{"host": name, "http": {"paths": [{"path": path, "pathType": "Prefix", "backend": {"service": {"name": service, "port": {"number": 80}}}}]}}],
        },
    })
}

fn policy(index: usize, alice: &str) -> Value {
    let each = hosts() / POLICIES;
    let targets: Vec<Value> = (index * each..(index + 1) * each)
        .flat_map(|host| if host == 0 { vec![(0, 0), (0, 1)] } else { vec![(host, 0)] })
        .map(|(host, index)| json!({"group": "networking.k8s.io", "kind": "Ingress", "name": format!("i-{host}-{index}")}))
        .collect();
    let mut mappings: Vec<Value> = (1..MAPPINGS)
        .map(|n| json!({"name": format!("m{n}"), "sha256": format!("{:064x}", index * MAPPINGS + n), "account": {"userName": format!("u{n}")}}))
        .collect();
    let account = if index == 1 {
        json!({"secretRef": {"name": "azureuser"}})
    } else {
        json!({"userName": "s0"})
    };
    mappings.insert(0, json!({"name": "alice", "certificate": alice, "account": account}));
    json!({
        "apiVersion": "certmap.dev/v1alpha1", "kind": "CertMappingPolicy", "metadata": {"name": format!("p{index}")},
        "spec": {
            "targetRefs": targets, "sslFlags": ["Ssl", "SslNegotiateCert", "SslRequireCert"],
            "trust": {"caCertificateRefs": [{"kind": "ConfigMap", "name": "corporate-ca"}]},
            "oneToOne": {"mappings": mappings}, "forward": {"userHeader": "X-State-0"},
        },
    })
}

async fn create_all<K>(api: &Api<K>, objects: impl Iterator<Item = Value>)
where
    K: Clone + std::fmt::Debug + DeserializeOwned + Serialize,
{
    let create = |object: Value| async move {
        let object: K = serde_json::from_value(object).unwrap();
        api.create(&PostParams::default(), &object).await.map(drop)
    };
    stream::iter(objects).map(create).buffer_unordered(16).try_collect::<()>().await.unwrap();
}

impl Large {
    async fn new() -> Self {
        let own = Own::new("load");
        let mut site = Site::new("load", &["*.load.test"], 1);
        site.installed = own.install(&["--set", "replicaCount=1"]);
        let site = site.ready();
        let client = Client::try_default().await.unwrap();
        let server_ca = Ca::new("certmap load");
        std::fs::write(site.path().join("server-ca.crt"), server_ca.pem()).unwrap();
        let mut large = Self { own, site, client, server_ca, pod: String::new() };
        large.server_certificate().await;
        large.manual_service();
        let started = Instant::now();
        let alice = large.site.alice.base64();
        let ingresses = (0..hosts())
            .flat_map(|host| (0..INGRESSES_PER_HOST).map(move |index| ingress(host, index)));
        create_all(&large.api::<Ingress>(), ingresses).await;
        create_all(
            &large.api::<CertMappingPolicy>(),
            (0..POLICIES).map(|index| policy(index, &alice)),
        )
        .await;
        println!(
            "{} objects are created in {:?}",
            POLICIES + hosts() * INGRESSES_PER_HOST,
            started.elapsed()
        );
        large.pod = large.own.pods().remove(0);
        for host in [HOST.to_owned(), format!("h{}.load.test", hosts() - 1)] {
            large.site.until("alice", &host, "/", "200");
        }
        large
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.site.namespace.0)
    }

    async fn merge<K>(&self, name: &str, patch: Value)
    where
        K: Clone
            + std::fmt::Debug
            + DeserializeOwned
            + Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        let patched =
            self.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.unwrap();
    }

    /// A state: the user, and the header that names it, have one number.
    async fn state(&self, policy: &str, n: usize) {
        let patch = json!([
            {"op": "replace", "path": "/spec/oneToOne/mappings/0/account/userName", "value": format!("s{n}")},
            {"op": "replace", "path": "/spec/forward/userHeader", "value": format!("X-State-{n}")},
        ]);
        let patch = Patch::<()>::Json(serde_json::from_value(patch).unwrap());
        let api = self.api::<CertMappingPolicy>();
        api.patch(policy, &PatchParams::default(), &patch).await.unwrap();
    }

    async fn server_certificate(&self) -> String {
        let server = self.server_ca.issue(pki::server(&["*.load.test"]));
        let patch =
            json!({"stringData": {"tls.crt": server.pem(), "tls.key": server.key.serialize_pem()}});
        self.merge::<Secret>("server-tls", patch).await;
        server.pem()
    }

    async fn trust(&self, also: Option<&Ca>) {
        let bundle = self.site.zerossl.pem() + &also.map(Ca::pem).unwrap_or_default();
        self.merge::<ConfigMap>("corporate-ca", json!({"data": {"ca.crt": bundle}})).await;
    }

    /// A Service whose slice is ours: it leads to another port of the pod, back and forth.
    fn manual_service(&self) {
        let pods = self.site.namespace.get(&["pods", "-l", "app=whoami"]);
        let address = pods["items"][0]["status"]["podIP"].as_str().unwrap();
        self.site.namespace.apply(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: manual}}\nspec: {{ports: [{{name: web, port: 80}}]}}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: manual, labels: {{kubernetes.io/service-name: manual}}}}\naddressType: IPv4\nports: [{{name: web, port: 8080}}]\nendpoints: [{{addresses: [{address}], conditions: {{ready: true}}}}]\n"
        ));
    }

    fn small_policy(&self) {
        let spec = self.site.alice_spec("[Ssl, SslNegotiateCert, SslRequireCert]");
        let spec =
            spec.replace("{userName: azureuser, secretRef: {name: azureuser}}", "{userName: s0}");
        self.site.policy(SMALL, "i-0-3", &spec.replace("X-Remote-User", "X-State-0"));
    }

    async fn endpoint(&self, port: usize) {
        self.merge::<EndpointSlice>(
            "manual",
            json!({"ports": [{"name": "web", "port": port, "protocol": "TCP"}]}),
        )
        .await;
    }

    async fn backend(&self, service: usize) {
        let mut spec = ingress(0, 2);
        spec["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"] =
            format!("whoami-{service}").into();
        self.merge::<Ingress>("i-0-2", json!({"spec": spec["spec"]})).await;
    }

    fn connect(&self, host: &str) -> tls::Stream {
        let client =
            tls::Client::new(&self.server_ca, Some(&self.site.alice), &rustls::version::TLS13);
        let installed = self.site.installed;
        client.connect(format!("{}:{}", installed.address, installed.https).parse().unwrap(), host)
    }

    fn metric(&self, name: &str) -> f64 {
        self.own.metric(&self.pod, name)
    }
}

/// What there is to say of durations.
fn figures(name: &str, mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    let at = |share: f64| all[((all.len() - 1) as f64 * share) as usize];
    println!("{name:<28} median {:>8.1?}  p99 {:>8.1?}", at(0.5), at(0.99));
    at(0.99)
}

/// Makes a change and asks until it is obeyed: how long that takes from before the API server hears of it.
async fn timed(change: impl Future<Output = ()>, mut is_obeyed: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    change.await;
    while !is_obeyed() {
        assert!(started.elapsed() < Duration::from_secs(20), "it is not obeyed");
    }
    started.elapsed()
}

/// A client that keeps its connection, and opens another where it has to.
struct Kept<'a> {
    large: &'a Large,
    host: &'a str,
    stream: Option<tls::Stream>,
}

impl<'a> Kept<'a> {
    fn new(large: &'a Large, host: &'a str) -> Self {
        Self { large, host, stream: None }
    }

    fn says(&mut self, path: &str, what: &str) -> bool {
        let (large, host) = (self.large, self.host);
        let stream = self.stream.get_or_insert_with(|| large.connect(host));
        let question = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        match stream.write_all(question.as_bytes()).and_then(|()| tls::reply(stream)) {
            Ok(reply) => reply.head.contains(what) || reply.body.contains(what),
            Err(_) => {
                self.stream = None;
                false
            }
        }
    }
}

async fn speed(large: &Large) {
    let mut kept = Kept::new(large, HOST);
    let beyond = policy_edits(large, &mut kept).await;
    let mut all = Vec::new();
    for n in 0..EDITS {
        let service = 1 + n % 2;
        all.push(
            timed(large.backend(service), || kept.says("/2", &format!(":{}", 8080 + service)))
                .await,
        );
    }
    figures("an Ingress", all);
    let mut all = Vec::new();
    for n in 0..EDITS {
        let port = 8081 + n % 2;
        all.push(timed(large.endpoint(port), || kept.says("/1", &format!(":{port}"))).await);
    }
    figures("an endpoint", all);
    let second = &format!("h{}.load.test", hosts() / POLICIES);
    let mut all = Vec::new();
    let mut of_secret = Kept::new(large, second);
    for n in 0..EDITS {
        let change = large.merge::<Secret>(
            "azureuser",
            json!({"stringData": {"username": format!("secret{n}")}}),
        );
        all.push(timed(change, || of_secret.says("/", &format!(": secret{n}\n"))).await);
    }
    figures("an account's Secret", all);
    let (other, mut all) = (Ca::new("Fabrikam"), Vec::new());
    for n in 0..EDITS {
        let name = if n % 2 == 0 { &other } else { &large.site.zerossl };
        let change =
            large.merge::<ConfigMap>("corporate-ca", json!({"data": {"ca.crt": name.pem()}}));
        let code = if n % 2 == 0 { "403.16" } else { "200" };
        all.push(
            timed(change, || tls::get(&mut large.connect(HOST), HOST, "/").code() == code).await,
        );
    }
    large.trust(None).await;
    figures("a CA", all);
    let mut all = Vec::new();
    for _ in 0..EDITS {
        let started = Instant::now();
        let pem = large.server_certificate().await;
        let shown = || {
            let mut stream = large.connect(HOST);
            tls::get(&mut stream, HOST, "/");
            let certificates =
                stream.conn.peer_certificates().unwrap_or_default().first().map(|it| pki::pem(it));
            certificates.as_ref() == Some(&pem)
        };
        while !shown() {
            assert!(started.elapsed() < Duration::from_secs(20), "it is not shown");
        }
        all.push(started.elapsed());
    }
    figures("a server certificate", all);
    assert!(beyond < Duration::from_millis(300), "{beyond:?}");
}

/// When each state of the policy came through a watch of our own.
async fn arrivals(large: &Large) -> mpsc::UnboundedReceiver<(usize, Instant)> {
    let api = large.api::<CertMappingPolicy>();
    // Of now: that of an object may be too old to begin with.
    let list = api.list(&ListParams::default().limit(1)).await.unwrap();
    let version = list.metadata.resource_version.unwrap();
    let only = WatchParams::default().fields(&format!("metadata.name={LARGE}"));
    let mut events = api.watch(&only, &version).await.unwrap().boxed();
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(event)) = events.next().await {
            let now = Instant::now();
            let WatchEvent::Modified(policy) = event else { continue };
            let mappings = policy.spec.one_to_one.unwrap().mappings;
            let user = mappings[0].account.user_name.as_ref().unwrap().strip_prefix("s");
            if tell.send((user.unwrap().parse().unwrap(), now)).is_err() {
                break;
            }
        }
    });
    told
}

/// How often the policy is edited, with what a watch of our own makes of it: the p99 of what is beyond that.
async fn policy_edits(large: &Large, kept: &mut Kept<'_>) -> Duration {
    let mut arrivals = arrivals(large).await;
    let metric = |it| large.metric(&format!("certmap_compile_duration_seconds_{it}"));
    let (count, sum) = (metric("count"), metric("sum"));
    let (mut all, mut alone, mut beyond) = (Vec::new(), Vec::new(), Vec::new());
    for n in 1..=EDITS {
        let started = Instant::now();
        let whole =
            timed(large.state(LARGE, n), || kept.says("/", &format!("x-state-{n}: s{n}"))).await;
        let arrived = loop {
            let (state, at) = arrivals.recv().await.unwrap();
            if state == n {
                break at - started;
            }
        };
        all.push(whole);
        alone.push(arrived);
        beyond.push(whole.saturating_sub(arrived));
    }
    let compile = Duration::from_secs_f64((metric("sum") - sum) / (metric("count") - count));
    figures("a policy", all);
    figures("  until another watch has it", alone);
    let beyond = figures("  beyond that", beyond);
    println!("{:<28} mean   {compile:>8.1?}", "  of which compiling");
    // Three times the aims, here and below: this machine does other things too. The figures are what to look at.
    assert!(compile < Duration::from_millis(150), "compiling takes {compile:?}");
    beyond
}

/// Until everything is written that is to be: 5,000 Ingresses have a status.
fn until_written(large: &Large) {
    let started = Instant::now();
    let mut last = (-1.0, Instant::now());
    while last.1.elapsed() < Duration::from_secs(8) {
        let written = large.metric("certmap_status_writes_total{");
        if (written - last.0).abs() > 0.5 {
            last = (written, Instant::now());
        }
        assert!(started.elapsed() < Duration::from_secs(300), "statuses are written without end");
        std::thread::sleep(Duration::from_millis(500));
    }
    println!(
        "{} statuses and events are written {:?} after the last object was served",
        last.0,
        started.elapsed()
    );
}

/// CPU when nothing changes, and memory.
fn at_rest(large: &Large) {
    std::thread::sleep(Duration::from_secs(5));
    let (before, started) = (large.metric("process_cpu_seconds_total"), Instant::now());
    std::thread::sleep(Duration::from_secs(10));
    let share =
        (large.metric("process_cpu_seconds_total") - before) / started.elapsed().as_secs_f64();
    let memory = large.metric("process_resident_memory_bytes") / 1_048_576.0;
    println!("at rest: {:.2} % of a core, {memory:.0} MiB", share * 100.0);
    assert!(share < 0.02, "it does something while nothing changes: {share}");
    assert!(memory < 400.0, "{memory} MiB");
}

/// Header and user are of one state.
fn of_one_state(answer: &Value) -> Result<(), String> {
    let body = answer["body"].as_str().unwrap_or_default();
    let state = body
        .lines()
        .find_map(|line| line.strip_prefix("x-state-"))
        .and_then(|line| line.split_once(": s"));
    let right = answer["status"] == 200 && state.is_some_and(|(header, user)| header == user);
    if right { Ok(()) } else { Err(answer.to_string()) }
}

async fn under_load(large: &Large) {
    large.small_policy();
    eventually("the first state", || {
        let reply = large.site.get("alice", HOST, "/3");
        if reply.body.contains("x-state-0: s0") { Ok(()) } else { Err(format!("{reply:?}")) }
    });
    // The small policy's path, and one of the large one's whose endpoints change.
    let traffic = ["/3", "/1"].map(|path| Traffic::start(&large.site, HOST, path, of_one_state));
    let generation = large.metric("certmap_snapshot_generation");
    let (other, started) = (Ca::new("Fabrikam"), Instant::now());
    for n in 0..CHANGES {
        match n % 7 {
            0 | 1 => large.state(SMALL, n).await,
            2 => {
                large
                    .merge::<Secret>(
                        "azureuser",
                        json!({"stringData": {"username": format!("secret{n}")}}),
                    )
                    .await
            }
            // Every policy has to be made anew for it.
            3 if n % 5 == 3 => large.trust((n % 2 == 0).then_some(&other)).await,
            4 => large.endpoint(8080 + n % 3).await,
            5 => large.backend(n % 3).await,
            _ => drop(large.server_certificate().await),
        }
        std::thread::sleep(Duration::from_millis(20));
        if n % 25 == 0 {
            let api = large.api::<Ingress>();
            if n % 50 == 0 {
                create_all(&api, [ingress(hosts(), 0)].into_iter()).await;
            } else {
                api.delete(&format!("i-{}-0", hosts()), &DeleteParams::default()).await.unwrap();
            }
        }
    }
    let last = (0..CHANGES).rfind(|n| n % 7 < 2).unwrap();
    eventually("the last state", || {
        let reply = large.site.get("alice", HOST, "/3");
        let is_last = reply.body.contains(&format!("x-state-{last}: s{last}"));
        if is_last { Ok(()) } else { Err(format!("{reply:?}")) }
    });
    let took = started.elapsed();
    let swaps = large.metric("certmap_snapshot_generation") - generation;
    let requests: usize = traffic.into_iter().map(Traffic::stop).sum();
    println!(
        "{CHANGES} changes in {took:?}, {swaps} snapshots, {requests} requests: none failed, each of one state"
    );
    assert!(swaps > 15.0, "{swaps}");
}

#[test]
fn changes_are_in_force_soon_and_harm_no_request() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(1).build().unwrap();
    rustls::crypto::aws_lc_rs::default_provider().install_default().unwrap();
    runtime.block_on(async {
        let large = Large::new().await;
        let _away = Away::send();
        until_written(&large);
        speed(&large).await;
        at_rest(&large);
        under_load(&large).await;
    });
    kubectl(&["delete", "namespace", "e2e-load", "--ignore-not-found", "--wait=false"]);
}
