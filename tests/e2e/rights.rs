//! What certmap may do, and what it does without.

use super::cluster::{Namespace, kubectl, try_kubectl};
use super::eventually;
use super::install::Own;
use super::site::{Site, basic_secret, ingress_with};

const REQUIRE: &str = "[Ssl, SslNegotiateCert, SslRequireCert]";

/// What the API server says that an account may do.
fn may(account: &str, verb: &str, what: &str, namespace: &str) -> bool {
    let mut arguments = vec!["auth", "can-i", verb];
    arguments.extend(what.split(' '));
    arguments.extend(["-n", namespace, "--as", account]);
    try_kubectl(&arguments).0
}

#[test]
fn some_namespaces_and_no_right_beyond_them() {
    let own = Own::new("narrow");
    let mut site = Site::new("narrow", &["*.narrow.test"], 1);
    let other = Namespace::new("narrow-other");
    let watched = format!("watchNamespaces={{{}}}", site.namespace.0);
    site.installed = own.install(&["--set", &watched, "--set", "replicaCount=1"]);
    let site = site.ready();
    let (found, text) = try_kubectl(&["get", "clusterrole", "narrow"]);
    assert!(!found, "{text}");
    let account = format!("system:serviceaccount:{}:narrow", own.namespace.0);
    let here = &site.namespace.0;
    for (verb, what) in
        [("list", "secrets"), ("watch", "configmaps"), ("patch", "ingresses --subresource=status")]
    {
        assert!(may(&account, verb, what, here), "{verb} {what}");
        assert!(!may(&account, verb, what, &other.0), "{verb} {what} elsewhere");
    }
    for (verb, what) in
        [("create", "pods"), ("update", "ingresses"), ("delete", "secrets"), ("update", "secrets")]
    {
        assert!(!may(&account, verb, what, here), "{verb} {what}");
    }
    // The class is known by its name: it cannot be read.
    let further = "ingressClassName: narrow\n";
    let (host, there) = ("a.narrow.test", "b.narrow.test");
    site.namespace.apply(&ingress_with("a", further, host, &[("/", "Prefix", "whoami-0")]));
    site.policy("a", "a", &site.alice_spec(REQUIRE));
    site.until_user("alice", host, "/", "azureuser");
    other.apply(&ingress_with("b", further, there, &[("/", "Prefix", "whoami-0")]));
    // What comes after it is in force, and it is not.
    site.namespace.apply(&ingress_with(
        "c",
        further,
        "c.narrow.test",
        &[("/", "Prefix", "whoami-1")],
    ));
    site.until("-", "c.narrow.test", "/", "200");
    assert_eq!(site.get_unchecked("-", there, "/").code(), "404");
    let conditions = site.namespace.get(&["certmappingpolicy", "a"])["status"].to_string();
    assert!(conditions.contains("\"Programmed\""), "{conditions}");
}

/// The rules of a ClusterRole without those for a resource.
fn without(role: &str, resource: &str) -> String {
    let mut role = super::cluster::get(&["clusterrole", role]);
    let rules = role["rules"].as_array_mut().unwrap();
    for rule in rules.iter_mut() {
        rule["resources"].as_array_mut().unwrap().retain(|it| it != resource);
    }
    rules.retain(|rule| !rule["resources"].as_array().unwrap().is_empty());
    serde_json::json!([{"op": "replace", "path": "/rules", "value": rules}]).to_string()
}

#[test]
fn a_right_that_is_missing_is_named_and_nothing_opens() {
    let own = Own::new("denied");
    let mut site = Site::new("denied", &["*.denied.test"], 1);
    site.installed = own.install(&["--set", "replicaCount=1"]);
    let site = site.ready();
    let (further, host) = ("ingressClassName: denied\n", "a.denied.test");
    let patch =
        |patch: &str| kubectl(&["patch", "clusterrole", "denied", "--type=json", "-p", patch]);
    let all = serde_json::json!([{"op": "replace", "path": "/rules", "value": super::cluster::get(&["clusterrole", "denied"])["rules"]}]).to_string();
    // It may not write: it serves all the same, and counts what it could not write.
    patch(&without("denied", "certmappingpolicies/status"));
    let account = format!("system:serviceaccount:{}:denied", own.namespace.0);
    let write = "certmappingpolicies.certmap.dev --subresource=status";
    eventually("the end of the right to write", || {
        let still = may(&account, "patch", write, &site.namespace.0);
        if still { Err("it may".to_owned()) } else { Ok(()) }
    });
    site.namespace.apply(&ingress_with("a", further, host, &[("/", "Prefix", "whoami-0")]));
    site.policy("a", "a", &site.alice_spec(REQUIRE));
    site.until_user("alice", host, "/", "azureuser");
    let pod = own.pods().remove(0);
    let failed = "certmap_status_writes_total{kind=\"CertMappingPolicy\",outcome=\"failed\"}";
    eventually("a count of what could not be written", || {
        let count = own.metric(&pod, failed);
        if count >= 1.0 { Ok(()) } else { Err(count.to_string()) }
    });
    // Another installation may have said that the Ingress is not its own.
    let status = || site.namespace.get(&["certmappingpolicy", "a"])["status"].to_string();
    assert!(!status().contains("certmap.dev/denied"), "{}", status());
    patch(&all);
    eventually("the status once it may be written", || {
        let status = status();
        if status.contains("certmap.dev/denied") { Ok(()) } else { Err(status) }
    });
    // It may not read Secrets at its start: it names the right, and does not serve.
    patch(&without("denied", "secrets"));
    own.namespace.kubectl(&["delete", "pod", &pod]);
    let pod = eventually("word of what is missing", || {
        let pod = own.pods().pop().ok_or("no pod")?;
        let (_, log) = try_kubectl(&["logs", &pod, "-n", &own.namespace.0]);
        if log.contains("secrets may not be listed and watched: grant it") {
            Ok(pod)
        } else {
            Err(log)
        }
    });
    let status =
        own.namespace.get(&["pod", &pod])["status"]["containerStatuses"][0]["ready"].clone();
    assert_eq!(status, false);
    assert_eq!(site.get("-", host, "/").status, 0, "nobody answers");
    patch(&all);
    site.until_user("alice", host, "/", "azureuser");
    // The watch of Secrets works again.
    site.namespace.kubectl(&["delete", "secret", "azureuser"]);
    site.until("alice", host, "/", "401.1");
    site.namespace.apply(&basic_secret("azureuser", "azureuser", "again"));
    site.until_user("alice", host, "/", "azureuser");
}
