//! What the repository ships to be applied is applied, and does what its first line says; the commands look at it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::client::{curl, curl_http};
use super::cluster::{Namespace, kubectl, run};
use super::install::{NAMESPACE, installed};
use super::{cluster, eventually};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A sample, and who gets what at which path of its host.
type Sample<'a> = (&'a str, &'a [(&'a str, &'a str, &'a str)]);

const SAMPLES: &[Sample<'static>] = &[
    (
        "one-to-one",
        &[
            ("alice", "/", "engineer"),
            ("bob", "/", "401.2"),
            ("-", "/", "403.7"),
            ("eve", "/", "403.16"),
        ],
    ),
    ("many-to-one", &[("alice", "/", "engineer"), ("bob", "/", "403.12"), ("eve", "/", "403.16")]),
    ("basic-fallback", &[("alice", "/", "engineer"), ("-", "/", "401.2"), ("bob", "/", "401.2")]),
    (
        "paths",
        &[
            ("-", "/", "-"),
            ("-", "/internal", "403.7"),
            ("bob", "/internal", "Bob"),
            ("eve", "/internal/x", "403.16"),
        ],
    ),
    (
        "authorization",
        &[
            ("alice", "/", "engineer"),
            ("bob", "/", "401.3"),
            ("-", "/", "401.3"),
            ("eve", "/", "403.16"),
        ],
    ),
    ("route-policy", &[("-", "/", "-")]),
    ("class-default", &[("alice", "/", "Alice"), ("-", "/", "403.7")]),
];

fn host(sample: &str) -> String {
    format!("{}.samples.test", if sample == "basic-fallback" { "fallback" } else { sample })
}

#[test]
fn every_sample_does_what_it_says() {
    let installed = installed();
    let namespace = Namespace::new("samples");
    let files = tempfile::tempdir().unwrap();
    let mut certificates = Command::new(repository("deploy/samples/certificates"));
    let (ok, manifests) = run(certificates.arg(files.path()));
    assert!(ok, "{manifests}");
    namespace.apply(&manifests);
    let image = std::env::var("E2E_IMAGE").unwrap();
    let read = |name: &str| {
        let text =
            std::fs::read_to_string(repository(&format!("deploy/samples/{name}.yaml"))).unwrap();
        text.replace("certmap/certmap:0.1.0", &image)
            .replace("namespace: samples", &format!("namespace: {}", namespace.0))
    };
    let mut shipped: Vec<String> = std::fs::read_dir(repository("deploy/samples"))
        .unwrap()
        .filter_map(|entry| {
            Some(entry.unwrap().file_name().to_str()?.strip_suffix(".yaml")?.to_owned())
        })
        .filter(|name| name != "backend")
        .collect();
    shipped.sort_unstable();
    let mut shown: Vec<&str> = SAMPLES.iter().map(|(name, _)| *name).collect();
    shown.sort_unstable();
    assert_eq!(shipped, shown);
    namespace.apply(&read("backend"));
    namespace.kubectl(&["rollout", "status", "deployment/whoami", "--timeout=90s"]);
    for (name, _) in SAMPLES {
        namespace.apply(&read(name));
    }
    for (name, answers) in SAMPLES {
        for (who, path, expected) in *answers {
            eventually(&format!("{expected} for {who} at {}{path}", host(name)), || {
                let reply = curl(installed, files.path(), who, &host(name), path, &[]);
                let got = if reply.status == 200 { reply.user().to_owned() } else { reply.code() };
                if got == *expected { Ok(()) } else { Err(format!("{reply:?}")) }
            });
        }
    }
    let redirect = curl_http(installed, &host("one-to-one"), "/", &[]);
    assert_eq!(redirect.status, 308, "{redirect:?}");
    let visitor = curl(
        installed,
        files.path(),
        "-",
        &host("basic-fallback"),
        "/",
        &["-u", "visitor:change-me-too"],
    );
    assert_eq!(visitor.user(), "visitor", "{visitor:?}");
    commands(&namespace, files.path());
    kubectl(&["delete", "ingressclass", "certmap-internal"]);
}

/// `explain` and `validate` look at the cluster; kubectl finds them as a plugin.
fn commands(namespace: &Namespace, files: &Path) {
    let plugins = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(
        env!("CARGO_BIN_EXE_certmap"),
        plugins.path().join("kubectl-certmap"),
    )
    .unwrap();
    let path = format!("{}:{}", plugins.path().display(), std::env::var("PATH").unwrap());
    let plugin = |arguments: &[&str]| {
        run(Command::new("kubectl").env("PATH", &path).arg("certmap").args(arguments))
    };
    let bob = files.join("bob.crt");
    let (_, text) = plugin(&[
        "explain",
        "--host",
        "many-to-one.samples.test",
        "--cert",
        bob.to_str().unwrap(),
        "-n",
        &namespace.0,
    ]);
    assert!(text.contains("403.12") && text.contains("manyToOne sales"), "{text}");
    let (ok, text) = plugin(&["validate", "-n", &namespace.0]);
    assert!(ok, "{text}");
    let (ok, text) = plugin(&["--help"]);
    assert!(ok && text.contains("kubectl certmap"), "{text}");
    // What is wrong is said, and the exit code says so too.
    namespace.kubectl(&["delete", "configmap", "alice-certificate"]);
    let (ok, text) =
        run(Command::new(env!("CARGO_BIN_EXE_certmap")).args(["validate", "-n", &namespace.0]));
    assert!(!ok && text.contains("alice-certificate does not exist"), "{text}");
}

#[test]
fn the_kustomize_base_applies() {
    installed();
    let base = repository("deploy/base");
    let text = kubectl(&[
        "apply",
        "--server-side",
        "--force-conflicts",
        "--dry-run=server",
        "-k",
        base.to_str().unwrap(),
    ]);
    for part in [
        "certmappingpolicies.certmap.dev",
        "routepolicies.certmap.dev",
        "deployment.apps/certmap",
        "ingressclass.networking.k8s.io/certmap",
        "poddisruptionbudget.policy/certmap",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn the_notes_first_policy_applies() {
    installed();
    let notes = super::install::helm(&["get", "notes", "certmap", "-n", NAMESPACE]);
    let policy =
        notes.split("<<'EOF'\n").nth(1).and_then(|rest| rest.split("  EOF").next()).unwrap();
    let policy: String = policy
        .lines()
        .map(|line| format!("{}\n", line.strip_prefix("  ").unwrap_or(line)))
        .collect();
    let namespace = Namespace::new("notes");
    namespace.apply(&policy);
    eventually("the policy's status", || {
        let policies = cluster::get(&["certmappingpolicies", "-n", &namespace.0]).to_string();
        if policies.contains("\"Accepted\"") { Ok(()) } else { Err(policies) }
    });
}
