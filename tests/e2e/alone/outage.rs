//! The API server goes away, and comes back.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::cluster::{get, run};
use crate::eventually;
use crate::install::{NAMESPACE, sum};
use crate::site::{Site, ingress};
use crate::traffic::{Traffic, as_azureuser, listens};

const REQUIRE: &str = "[Ssl, SslNegotiateCert, SslRequireCert]";
/// As long as it can be without the cluster itself calling its node lost: by default that is 50 seconds.
const AWAY: Duration = Duration::from_secs(30);

fn shell(script: &str) -> String {
    let (ok, text) = run(Command::new("bash").args(["-euc", script]));
    assert!(ok, "{script}: {text}");
    text
}

#[test]
fn what_was_known_is_served_while_the_api_server_is_away() {
    let Some(cluster) = std::env::var_os("E2E_CLUSTER") else {
        return println!("not shown: the API server of somebody else's cluster is not ended");
    };
    let cluster = cluster.into_string().unwrap();
    let host = "a.outage.test";
    let site = Site::new("outage", &[host], 1).ready();
    site.namespace.apply(&ingress("a", host, "/", "whoami-0"));
    site.policy("a", "a", &site.alice_spec(REQUIRE));
    site.until_user("alice", host, "/", "azureuser");
    let pods = get(&["pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/name=certmap"]);
    let addresses: Vec<String> = pods["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pod| format!("{}:8090", pod["status"]["podIP"].as_str().unwrap()))
        .collect();
    assert_eq!(addresses.len(), 2);
    let metric = |address: &str, name: &str| {
        let (_, text) = run(Command::new("curl").args([
            "-sS",
            "-m",
            "5",
            &format!("http://{address}/metrics"),
        ]));
        sum(&text, name)
    };
    let before: Vec<f64> =
        addresses.iter().map(|it| metric(it, "certmap_snapshot_generation")).collect();
    let traffic = Traffic::start(&site, host, "/", as_azureuser);
    let gone = Instant::now();
    // Not politely: that would take it a minute, in which it answers nobody and is still there.
    shell(&format!(". {cluster}/env; kill -9 $(cat $E2E_DIR/pid/kube-apiserver)"));
    eventually("the end of the API server", || {
        if listens("10.250.0.1:6443") { Err("it listens".to_owned()) } else { Ok(()) }
    });
    for address in &addresses {
        eventually("word of failing watches", || {
            let failing = metric(address, "certmap_watch_failing");
            if failing >= 1.0 { Ok(()) } else { Err(failing.to_string()) }
        });
    }
    std::thread::sleep(AWAY.saturating_sub(gone.elapsed()));
    // Refusals as before, from what was known.
    assert_eq!(site.get("-", host, "/").code(), "403.7");
    assert_eq!(site.get("stranger", host, "/").code(), "403.16");
    for (address, before) in addresses.iter().zip(&before) {
        let now = metric(address, "certmap_snapshot_generation");
        assert!((now - before).abs() < 0.5, "no other snapshot came of it: {before}, {now}");
    }
    shell(&format!("{cluster}/up"));
    let back = Instant::now();
    let spec = site.alice_spec(REQUIRE).replace("userName: azureuser", "userName: renamed");
    println!(
        "{} requests while the API server was away for {:?}: none failed",
        traffic.stop(),
        gone.elapsed()
    );
    site.policy("a", "a", &spec);
    site.until_user("alice", host, "/", "renamed");
    println!("an edit is in force {:?} after it came back", back.elapsed());
    for address in &addresses {
        eventually("well watches", || {
            let failing = metric(address, "certmap_watch_failing");
            if failing < 0.5 { Ok(()) } else { Err(failing.to_string()) }
        });
    }
}
