//! What certmap writes back: conditions, figures, addresses, events; nothing twice, and nobody else's.

use serde_json::Value;

use super::eventually;
use super::site::{Site, ingress, policy};

const REQUIRE: &str = "[Ssl, SslNegotiateCert, SslRequireCert]";

/// The condition of that type at a policy's first target: status, reason, message.
/// What the shared installation says, or failing that another test's: of a target that is nowhere, any of them may.
pub(crate) fn ancestor(policy: &Value) -> Option<&Value> {
    let ancestors = policy["status"]["ancestors"].as_array()?;
    let ours = |it: &&Value| it["controllerName"] == "certmap.dev/ingress-controller";
    ancestors.iter().find(ours).or_else(|| ancestors.first())
}

pub(crate) fn condition(policy: &Value, kind: &str) -> Option<(String, String, String)> {
    let conditions = ancestor(policy)?["conditions"].as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == kind)?;
    let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
    Some((text("status"), text("reason"), text("message")))
}

pub(crate) fn until(site: &Site, name: &str, kind: &str, status: &str, reason: &str) -> String {
    eventually(&format!("{kind} {status} {reason}"), || {
        let policy = site.namespace.get(&["certmappingpolicy", name]);
        match condition(&policy, kind) {
            Some((s, r, message)) if s == status && r == reason => Ok(message),
            other => Err(format!("{other:?}")),
        }
    })
}

#[test]
fn conditions_say_what_became_of_a_policy() {
    let site = Site::new("status", &["*.status.test"], 1);
    site.namespace.apply(&policy("p", "a", &site.alice_spec(REQUIRE)));
    let message = until(&site, "p", "Accepted", "False", "TargetNotFound");
    assert!(
        message.contains(&format!("Ingress {}/a does not exist", site.namespace.0)),
        "{message}"
    );
    site.namespace.apply(&ingress("a", "a.status.test", "/", "whoami-0"));
    until(&site, "p", "Accepted", "True", "Accepted");
    until(&site, "p", "ResolvedRefs", "True", "ResolvedRefs");
    let message = until(&site, "p", "Programmed", "True", "Programmed");
    assert_eq!(message, "1 mapping is in force");
    let object = site.namespace.get(&["certmappingpolicy", "p"]);
    assert_eq!(object["status"]["mappings"], 1);
    assert!(
        (25..=31).contains(&object["status"]["daysToEarliestExpiry"].as_i64().unwrap()),
        "{object}"
    );
    let ancestor = ancestor(&object).unwrap();
    assert_eq!(ancestor["ancestorRef"]["kind"], "Ingress");
    assert_eq!(ancestor["conditions"][0]["observedGeneration"], object["metadata"]["generation"]);
    // Object, field, reason and remedy.
    site.namespace.kubectl(&[
        "patch",
        "secret",
        "azureuser",
        "--type=json",
        "-p",
        "[{\"op\": \"remove\", \"path\": \"/data/password\"}]",
    ]);
    let message = until(&site, "p", "ResolvedRefs", "False", "AccountUnusable");
    for part in [
        "spec.oneToOne.mappings[0].account",
        &format!("Secret {}/azureuser has no key password", site.namespace.0),
        "(keys: username)",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    until(&site, "p", "Programmed", "True", "PartiallyProgrammed");
    // An event says so too, once. (On a slow machine another may say that the Secret was not there yet.)
    let events = || {
        let all = site.namespace.get(&[
            "events",
            "--field-selector",
            "reason=AccountUnusable,involvedObject.name=p",
        ]);
        let mut all = all["items"].as_array().unwrap().clone();
        all.retain(|event| event["message"].as_str().unwrap().contains("has no key password"));
        all
    };
    eventually("the event", || if events().is_empty() { Err("none".to_owned()) } else { Ok(()) });
    let event = &events()[0];
    assert_eq!(
        (event["type"].as_str(), event["involvedObject"]["name"].as_str()),
        (Some("Warning"), Some("p"))
    );
    // Two that contradict each other: both say so.
    site.namespace.apply(&policy("q", "a", &site.alice_spec("[Ssl, SslNegotiateCert]")));
    for name in ["p", "q"] {
        let message = until(&site, name, "Accepted", "False", "Conflicted");
        assert!(
            message.contains("spec.sslFlags") && message.contains("/p, ") && message.contains("/q"),
            "{message}"
        );
    }
    let table = site.namespace.kubectl(&["get", "cmp", "-o", "wide"]);
    assert!(table.contains("Conflicted") && table.contains("MAPPINGS"), "{table}");
    assert_eq!(events().len(), 1, "said once: {:?}", events());
}

#[test]
fn nothing_is_written_where_nothing_differs_and_foreign_entries_stay() {
    let site = Site::new("quiet", &["*.quiet.test"], 1);
    site.namespace.apply(&ingress("a", "a.quiet.test", "/", "whoami-0"));
    site.namespace.apply(&policy("p", "a", &site.alice_spec(REQUIRE)));
    until(&site, "p", "Programmed", "True", "Programmed");
    let foreign = "{\"status\": {\"ancestors\": [{\"ancestorRef\": {\"group\": \"networking.k8s.io\", \"kind\": \"Ingress\", \"name\": \"elsewhere\"}, \"controllerName\": \"example.org/other\", \"conditions\": []}]}}";
    site.namespace.kubectl(&[
        "patch",
        "certmappingpolicy",
        "p",
        "--subresource=status",
        "--type=merge",
        "-p",
        foreign,
    ]);
    let entries = || {
        let policy = site.namespace.get(&["certmappingpolicy", "p"]);
        let all = policy["status"]["ancestors"].as_array().unwrap().iter();
        let names: Vec<String> =
            all.map(|it| it["controllerName"].as_str().unwrap().to_owned()).collect();
        (names, policy["metadata"]["resourceVersion"].as_str().unwrap().to_owned())
    };
    eventually("our entry beside the foreign one", || {
        let (names, _) = entries();
        if names == ["example.org/other", "certmap.dev/ingress-controller"] {
            Ok(())
        } else {
            Err(format!("{names:?}"))
        }
    });
    let version = entries().1;
    let ingress_version =
        || site.namespace.get(&["ingress", "a"])["metadata"]["resourceVersion"].clone();
    let before = ingress_version();
    // Something else changes, and comes to be in force.
    site.namespace.apply(&ingress("b", "b.quiet.test", "/", "whoami-0"));
    eventually("another status", || {
        let address =
            site.namespace.get(&["ingress", "b"])["status"]["loadBalancer"]["ingress"].clone();
        if address.is_array() { Ok(()) } else { Err(address.to_string()) }
    });
    assert_eq!((entries().1, ingress_version()), (version, before));
}

#[test]
fn an_ingress_says_where_it_is_reached() {
    let site = Site::new("address", &["*.address.test"], 1);
    site.namespace.apply(&ingress("a", "a.address.test", "/", "whoami-0"));
    let service = super::cluster::get(&["service", "certmap", "-n", super::install::NAMESPACE]);
    eventually("the Service's address", || {
        let status = site.namespace.get(&["ingress", "a"])["status"].clone();
        let address = &status["loadBalancer"]["ingress"][0]["ip"];
        if *address == service["spec"]["clusterIP"] { Ok(()) } else { Err(status.to_string()) }
    });
}

#[test]
fn who_loses_a_path_is_told() {
    let site = Site::new("taken", &["*.taken.test"], 1);
    site.namespace.apply(&ingress("a", "a.taken.test", "/", "whoami-0"));
    // Objects made within one second have one age, and then the name decides.
    site.namespace.apply(&ingress("b", "a.taken.test", "/", "whoami-1"));
    eventually("the event", || {
        let events = site.namespace.get(&["events", "--field-selector", "reason=PathTaken"]);
        let event = &events["items"][0];
        let note = event["message"].as_str().unwrap_or_default();
        if event["involvedObject"]["name"] == "b"
            && note.contains("/a has the same path of host a.taken.test")
        {
            Ok(())
        } else {
            Err(events.to_string())
        }
    });
}
