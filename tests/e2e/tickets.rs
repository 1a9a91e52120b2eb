//! Session tickets whose keys certmap makes and changes itself: every replica takes those of every other.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::version::TLS13;
use serde_json::Value;

use super::cluster::kubectl;
use super::eventually;
use super::install::Own;
use super::site::{Site, ingress_with};
use super::tls::{Client, Promiscuous};

const REQUIRE: &str = "[Ssl, SslNegotiateCert, SslRequireCert]";
const ROTATED_AT: &str = "certmap.dev/ticket-keys-rotated-at";
const HOST: &str = "a.tickets.test";
/// So many connections reach both of two replicas.
const CONNECTIONS: usize = 24;

/// How many handshakes a pod resumed.
fn resumed(own: &Own, pod: &str) -> f64 {
    let path = format!("/api/v1/namespaces/{}/pods/{pod}:8090/proxy/metrics", own.namespace.0);
    let metrics = kubectl(&["get", "--raw", &path]);
    let lines = metrics.lines().filter(|line| {
        line.starts_with("certmap_handshakes_total") && line.contains("resumed=\"true\"")
    });
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Every connection resumes, on either replica.
fn all_resume(own: &Own, pods: &[String], mut connect: impl FnMut() -> bool) {
    let before: Vec<f64> = pods.iter().map(|pod| resumed(own, pod)).collect();
    for number in 0..CONNECTIONS {
        assert!(connect(), "connection {number} shook hands in full");
    }
    for (pod, before) in pods.iter().zip(before) {
        assert!(resumed(own, pod) > before, "{pod} resumed none");
    }
}

#[test]
fn tickets_are_taken_by_every_replica_before_and_after_their_keys_changed() {
    let own = Own::new("tickets");
    let mut site = Site::new("tickets", &[HOST], 1);
    let watched = format!("watchNamespaces={{{}}}", site.namespace.0);
    // 18 seconds; the Secret stands outside of the namespaces that are watched.
    // Of a number with a point, `--set` makes a text.
    let hours = ["--set-json", "tls.tickets.rotationHours=0.005"];
    let further = ["--set", "tls.tickets.shared=true", "--set", &watched];
    site.installed = own.install(&[&further[..], &hours].concat());
    let site = site.ready();
    let ingress_class = "ingressClassName: tickets\n";
    site.namespace.apply(&ingress_with("app", ingress_class, HOST, &[("/", "Prefix", "whoami-0")]));
    site.policy("app", "app", &site.alice_spec(REQUIRE));
    site.until_user("alice", HOST, "/", "azureuser");
    let secret = || own.namespace.get(&["secret", "tickets-tickets"]);
    let pods = own.pods();
    assert_eq!(pods.len(), 2);
    let server: SocketAddr =
        format!("{}:{}", site.installed.address, site.installed.https).parse().unwrap();
    let sessions = Arc::new(Promiscuous::default());
    let client = Client::new(&site.server_ca, Some(&site.alice), &TLS13).with_sessions(&sessions);
    let connect = || {
        let (reply, resumed) = client.get(server, HOST, HOST, "/");
        assert!(reply.body.starts_with("user: azureuser\n"), "{reply:?}");
        resumed
    };
    // Both have the keys once what one of them gave is taken whoever gets it.
    eventually("keys on both replicas", || {
        connect();
        if (0..CONNECTIONS).all(|_| connect()) { Ok(()) } else { Err(secret().to_string()) }
    });
    all_resume(&own, &pods, connect);
    let first = secret();
    assert_eq!(first["type"], "certmap.dev/ticket-keys");
    assert_eq!(first["metadata"]["labels"]["certmap.dev/managed-keys"], "true");
    let moved = |from: &Value| {
        let (from, next) = (from["data"]["current.key"].clone(), from["data"]["next.key"].clone());
        eventually("the next key", || {
            let now = secret();
            let moved = now["data"]["previous.key"] == from;
            if moved && now["data"]["current.key"] == next {
                Ok(now)
            } else {
                Err(now["metadata"].to_string())
            }
        })
    };
    // By itself, and by one at a time.
    let second = moved(&first);
    all_resume(&own, &pods, connect);
    let third = moved(&second);
    all_resume(&own, &pods, connect);
    assert!(third["metadata"]["annotations"][ROTATED_AT].is_string());
    for pod in &pods {
        let log = own.namespace.kubectl(&["logs", pod]);
        for key in third["data"].as_object().unwrap().values() {
            assert!(!log.contains(key.as_str().unwrap()), "a key is in the log of {pod}");
        }
    }
    // What somebody else made stays as it is.
    let patch = format!(
        r#"{{"metadata": {{"labels": {{"certmap.dev/managed-keys": null}}, "annotations": {{"{ROTATED_AT}": "2000-01-01T00:00:00Z"}}}}}}"#
    );
    own.namespace.kubectl(&["patch", "secret", "tickets-tickets", "-p", &patch]);
    let before = secret()["data"].clone();
    std::thread::sleep(std::time::Duration::from_secs(40));
    assert_eq!(secret()["data"], before);
}
