//! certmap in the cluster, by Helm.

use std::process::Command;
use std::sync::OnceLock;

use super::cluster::{Namespace, get, kubectl, run, try_kubectl};
use super::eventually;

/// Where it is installed; its pods keep to the restricted Pod Security Standard.
pub(crate) const NAMESPACE: &str = "certmap";

/// Where clients find it: the node's address and the Service's node ports.
#[derive(Clone, Debug)]
pub(crate) struct Installed {
    pub(crate) address: String,
    pub(crate) http: u16,
    pub(crate) https: u16,
}

pub(crate) fn helm(arguments: &[&str]) -> String {
    let (ok, text) = run(Command::new("helm").args(arguments));
    assert!(ok, "helm {arguments:?}: {text}");
    text
}

fn chart(name: &str) -> String {
    format!("{}/charts/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// How long pods that come and go are waited for, as the chart has it. Most tests wait for less.
pub(crate) const AS_RELEASED: [&str; 6] = [
    "--set",
    "minReadySeconds=5",
    "--set",
    "lifecycle.preStop.sleep.seconds=5",
    "--set",
    "config.drainDelay=5",
];

/// What every installation here is told: the image is loaded already, and nobody waits longer than needed.
pub(crate) fn values() -> Vec<String> {
    let image = std::env::var("E2E_IMAGE").unwrap_or_else(|_| "localhost/certmap:e2e".to_owned());
    let (repository, tag) = image.rsplit_once(':').unwrap();
    [
        &format!("image.repository={repository}"),
        &format!("image.tag={tag}"),
        "image.pullPolicy=Never",
        "service.type=NodePort",
        "resources.requests.cpu=10m",
        "minReadySeconds=0",
        "lifecycle.preStop.sleep.seconds=2",
        "config.drainDelay=2",
    ]
    .iter()
    .flat_map(|value| ["--set".to_owned(), (*value).to_owned()])
    .collect()
}

/// `helm upgrade --install`, waiting until it is ready.
pub(crate) fn install(release: &str, namespace: &str, further: &[&str]) {
    let chart = chart("certmap");
    let values = values();
    let mut arguments = vec![
        "upgrade",
        "--install",
        release,
        &chart,
        "-n",
        namespace,
        "--wait",
        "--timeout",
        "120s",
    ];
    arguments.extend(values.iter().map(String::as_str));
    arguments.extend(further);
    helm(&arguments);
}

/// An installation of a test's own, in a namespace of its own: the release's name is its class's too, and its controller's.
pub(crate) struct Own {
    pub(crate) namespace: Namespace,
    release: String,
}

impl Own {
    pub(crate) fn new(release: &str) -> Self {
        Self { namespace: Namespace::new(&format!("{release}-edge")), release: release.to_owned() }
    }

    /// Installs it, or changes how it is installed; returns once it is ready.
    pub(crate) fn install(&self, further: &[&str]) -> &'static Installed {
        let release = &self.release;
        let own = [
            format!("fullnameOverride={release}"),
            format!("ingressClass.name={release}"),
            format!("ingressClass.controllerName=certmap.dev/{release}"),
        ];
        let mut arguments: Vec<&str> =
            own.iter().flat_map(|value| ["--set", value.as_str()]).collect();
        arguments.extend(further);
        install(release, &self.namespace.0, &arguments);
        Box::leak(Box::new(service(&self.namespace.0, release)))
    }

    /// Its pods that are not about to go.
    pub(crate) fn pods(&self) -> Vec<String> {
        let selector = format!("app.kubernetes.io/instance={}", self.release);
        let pods = self.namespace.get(&["pods", "-l", &selector]);
        let pods = pods["items"].as_array().unwrap().iter();
        pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    }

    /// A metric of one of its pods, all its labels together.
    pub(crate) fn metric(&self, pod: &str, name: &str) -> f64 {
        let path = format!("/api/v1/namespaces/{}/pods/{pod}:8090/proxy/metrics", self.namespace.0);
        sum(&kubectl(&["get", "--raw", &path]), name)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let mut helm = Command::new("helm");
        run(helm.args(["uninstall", &self.release, "-n", &self.namespace.0, "--no-hooks"]));
    }
}

/// The sum of a metric's samples whose line begins so.
pub(crate) fn sum(metrics: &str, name: &str) -> f64 {
    let samples = metrics.lines().filter(|line| line.starts_with(name));
    samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// The one installation that most tests share: two replicas, the class `certmap`. Where there is no definition of
/// CertMappingPolicy yet, it comes after: until then certmap says what it waits for, and is not ready.
pub(crate) fn installed() -> &'static Installed {
    static INSTALLED: OnceLock<Installed> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        if std::env::var_os("E2E_INSTALLED").is_some() {
            return service(NAMESPACE, "certmap");
        }
        let (_, _) = try_kubectl(&["create", "namespace", NAMESPACE]);
        kubectl(&[
            "label",
            "--overwrite",
            "namespace",
            NAMESPACE,
            "pod-security.kubernetes.io/enforce=restricted",
        ]);
        if !try_kubectl(&["get", "crd", "certmappingpolicies.certmap.dev"]).0 {
            without_definitions();
        }
        install_definitions();
        install("certmap", NAMESPACE, &[]);
        service(NAMESPACE, "certmap")
    })
}

pub(crate) fn install_definitions() {
    helm(&["upgrade", "--install", "certmap-crds", &chart("certmap-crds"), "-n", "default"]);
}

fn without_definitions() {
    let chart = chart("certmap");
    let values = values();
    let mut arguments = vec!["upgrade", "--install", "certmap", &chart, "-n", NAMESPACE];
    arguments.extend(values.iter().map(String::as_str));
    let notes = helm(&arguments);
    assert!(notes.contains("Install the chart certmap-crds"), "{notes}");
    eventually("word of what is waited for", || {
        let (_, log) = try_kubectl(&["logs", "deployment/certmap", "-n", NAMESPACE]);
        let told =
            log.contains("CertMappingPolicy is not installed: install the chart certmap-crds");
        if told { Ok(()) } else { Err(log) }
    });
    // One of them is there, as after an upgrade without its definitions: the other is named.
    let old = concat!(env!("CARGO_MANIFEST_DIR"), "/crds/certmappingpolicies.yaml");
    kubectl(&["apply", "--server-side", "-f", old]);
    eventually("word of what else is waited for", || {
        let (_, log) = try_kubectl(&["logs", "deployment/certmap", "-n", NAMESPACE]);
        let last = log.lines().rfind(|line| line.contains("is not installed")).unwrap_or_default();
        let told = last.contains("RoutePolicy is not") && !last.contains("CertMappingPolicy is");
        if told { Ok(()) } else { Err(log) }
    });
    kubectl(&["delete", "-f", old]);
    let deployment = get(&["deployment", "certmap", "-n", NAMESPACE]);
    assert!(deployment["status"]["readyReplicas"].is_null(), "not ready: {}", deployment["status"]);
}

/// Where a Service is found from outside.
pub(crate) fn service(namespace: &str, name: &str) -> Installed {
    let service = get(&["service", name, "-n", namespace]);
    let port = |name: &str| {
        let ports = service["spec"]["ports"].as_array().unwrap();
        let port = ports.iter().find(|port| port["name"] == name).unwrap();
        u16::try_from(port["nodePort"].as_u64().unwrap()).unwrap()
    };
    let nodes = get(&["nodes"]);
    let addresses = nodes["items"][0]["status"]["addresses"].as_array().unwrap();
    let address = addresses.iter().find(|address| address["type"] == "InternalIP").unwrap();
    Installed {
        address: address["address"].as_str().unwrap().to_owned(),
        http: port("http"),
        https: port("https"),
    }
}
