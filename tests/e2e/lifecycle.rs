//! Pods come and go under load: upgrades, deletions, evictions, a leader that is lost.

use std::time::{Duration, Instant};

use super::cluster::try_kubectl;
use super::eventually;
use super::install::{AS_RELEASED, Own, helm, install_definitions};
use super::site::{Site, ingress_with};
use super::traffic::{Traffic, as_azureuser};

const REQUIRE: &str = "[Ssl, SslNegotiateCert, SslRequireCert]";

/// A site behind an installation of its own, whose Ingress demands a certificate.
fn site(own: &Own, name: &str, host: &str, values: &[&str]) -> Site {
    let mut site = Site::new(name, &[host], 1);
    site.installed = own.install(values);
    let site = site.ready();
    let further = format!("ingressClassName: {name}\n");
    site.namespace.apply(&ingress_with("app", &further, host, &[("/", "Prefix", "whoami-0")]));
    site.policy("app", "app", &site.alice_spec(REQUIRE));
    site.until_user("alice", host, "/", "azureuser");
    site
}

/// Until as many pods are ready as there should be, and none is left of those before.
fn until_ready(own: &Own, without: &[String]) -> Vec<String> {
    own.namespace.kubectl(&["rollout", "status", "deployment", "--timeout=120s"]);
    eventually("two new pods", || {
        let pods = own.pods();
        let fresh = pods.iter().all(|pod| !without.contains(pod));
        if pods.len() == 2 && fresh { Ok(pods) } else { Err(format!("{pods:?}")) }
    })
}

/// `kubectl drain` does this: it asks, and a PodDisruptionBudget may say no.
fn evict(own: &Own, pod: &str) -> (bool, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let eviction = serde_json::json!({
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": own.namespace.0},
    });
    std::fs::write(file.path(), eviction.to_string()).unwrap();
    let path = format!("/api/v1/namespaces/{}/pods/{pod}/eviction", own.namespace.0);
    try_kubectl(&["create", "--raw", &path, "-f", file.path().to_str().unwrap()])
}

#[test]
fn no_request_fails_while_pods_are_upgraded_deleted_and_evicted() {
    let own = Own::new("lifecycle");
    let host = "a.lifecycle.test";
    // With the times that everybody has: a node at work takes seconds to hear that a pod is about to go.
    let site = site(&own, "lifecycle", host, &AS_RELEASED);
    let first = own.pods();
    let traffic = Traffic::start(&site, host, "/", as_azureuser);
    // A rolling upgrade.
    own.install(&[&AS_RELEASED[..], &["--set", "podAnnotations.upgraded=yes"]].concat());
    let second = until_ready(&own, &first);
    // A pod is deleted.
    own.namespace.kubectl(&["delete", "pod", &second[0]]);
    let third = until_ready(&own, &second[..1]);
    // One may be evicted; the other not before there is another in the first one's place.
    let (ok, text) = evict(&own, &third[0]);
    assert!(ok, "{text}");
    let (ok, text) = evict(&own, &third[1]);
    assert!(!ok && text.contains("disruption budget"), "{text}");
    until_ready(&own, &third[..1]);
    std::thread::sleep(Duration::from_secs(3));
    println!(
        "{} requests through an upgrade, a deletion and an eviction: none failed",
        traffic.stop()
    );
}

#[test]
fn a_lost_leader_is_replaced() {
    let own = Own::new("leader");
    let site = site(&own, "leader", "a.leader.test", &[]);
    let holder = || {
        let lease = own.namespace.get(&["lease", "leader"]);
        lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
    };
    let first = eventually("a leader", || {
        let holder = holder();
        if own.pods().contains(&holder) { Ok(holder) } else { Err(holder) }
    });
    assert!((own.metric(&first, "certmap_leads") - 1.0).abs() < 0.1);
    // Without a farewell.
    own.namespace.kubectl(&["delete", "pod", &first, "--grace-period=0", "--force"]);
    let lost = Instant::now();
    eventually("another leader", || {
        let holder = holder();
        if holder != first && !holder.is_empty() { Ok(()) } else { Err(holder) }
    });
    let took = lost.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
    println!("a leader that was killed is replaced after {took:?}");
    site.namespace.kubectl(&["delete", "ingress", "app"]);
    eventually("a status by the new leader", || {
        let policy = site.namespace.get(&["certmappingpolicy", "app"]).to_string();
        if policy.contains("TargetNotFound") { Ok(()) } else { Err(policy) }
    });
}

#[test]
fn policies_survive_an_uninstallation() {
    let site = Site::new("survives", &["*.survives.test"], 1);
    site.policy("p", "a", &site.alice_spec(REQUIRE));
    let kept = helm(&["uninstall", "certmap-crds", "-n", "default"]);
    assert!(kept.contains("certmappingpolicies.certmap.dev"), "{kept}");
    site.namespace.get(&["certmappingpolicy", "p"]);
    install_definitions();
}
