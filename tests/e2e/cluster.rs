//! kubectl, and namespaces of a test's own.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

/// Runs a program that must be there; what it wrote, and whether it was content.
pub(crate) fn run(command: &mut Command) -> (bool, String) {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

pub(crate) fn try_kubectl(arguments: &[&str]) -> (bool, String) {
    run(Command::new("kubectl").args(arguments))
}

pub(crate) fn kubectl(arguments: &[&str]) -> String {
    let (ok, text) = try_kubectl(arguments);
    assert!(ok, "kubectl {arguments:?}: {text}");
    text
}

pub(crate) fn get(arguments: &[&str]) -> Value {
    let text = kubectl(&[&["get", "-o", "json"], arguments].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// `kubectl apply`; what it said, and whether it was content.
pub(crate) fn try_apply(namespace: &str, yaml: &str) -> (bool, String) {
    let mut child = Command::new("kubectl")
        .args(["apply", "-n", namespace, "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(yaml.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

pub(crate) fn apply(namespace: &str, yaml: &str) {
    let (ok, text) = try_apply(namespace, yaml);
    assert!(ok, "{text}\n{yaml}");
}

/// A namespace that goes with the test.
pub(crate) struct Namespace(pub(crate) String);

impl Namespace {
    pub(crate) fn new(name: &str) -> Self {
        Self::labelled(name, "restricted")
    }

    pub(crate) fn labelled(name: &str, pod_security: &str) -> Self {
        let name = format!("e2e-{name}");
        let (_, _) = try_kubectl(&["delete", "namespace", &name, "--ignore-not-found"]);
        kubectl(&["create", "namespace", &name]);
        let label = format!("pod-security.kubernetes.io/enforce={pod_security}");
        kubectl(&["label", "namespace", &name, &label]);
        Self(name)
    }

    pub(crate) fn apply(&self, yaml: &str) {
        apply(&self.0, yaml);
    }

    pub(crate) fn get(&self, what: &[&str]) -> Value {
        get(&[what, &["-n", &self.0]].concat())
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        kubectl(&[arguments, &["-n", &self.0]].concat())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(try_kubectl(&["delete", "namespace", &self.0, "--wait=false"]));
    }
}
