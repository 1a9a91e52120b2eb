//! A RoutePolicy applied with kubectl: what the API server refuses, conditions, what the next request gets.

use super::client::curl_http;
use super::cluster::{kubectl, try_apply};
use super::eventually;
use super::site::{Site, config_map, indented, ingress};
use super::status::{ancestor, condition};

fn route_policy(name: &str, ingress: &str, spec: &str) -> String {
    format!(
        "apiVersion: certmap.dev/v1alpha1\nkind: RoutePolicy\nmetadata: {{name: {name}}}\nspec:\n  targetRefs: [{{group: networking.k8s.io, kind: Ingress, name: {ingress}}}]\n{}",
        indented(spec, 2)
    )
}

/// Until a condition is so; its message.
fn until(site: &Site, name: &str, kind: &str, status: &str, reason: &str) -> String {
    eventually(&format!("{kind} {status} {reason}"), || {
        let policy = site.namespace.get(&["routepolicy", name]);
        match condition(&policy, kind) {
            Some((s, r, message)) if s == status && r == reason => Ok(message),
            other => Err(format!("{other:?}")),
        }
    })
}

#[test]
fn a_route_policy_is_obeyed_and_says_what_became_of_it() {
    let site = Site::new("routes", &["*.routes.test"], 1).ready();
    let host = "a.routes.test";
    site.namespace.apply(&route_policy("p", "a", "httpsRedirect: true"));
    let message = until(&site, "p", "Accepted", "False", "TargetNotFound");
    let missing = format!("Ingress {}/a does not exist", site.namespace.0);
    assert!(message.contains(&missing), "{message}");
    site.namespace.apply(&ingress("a", host, "/", "whoami-0"));
    until(&site, "p", "Accepted", "True", "Accepted");
    until(&site, "p", "ResolvedRefs", "True", "ResolvedRefs");
    until(&site, "p", "Programmed", "True", "Programmed");
    let object = site.namespace.get(&["routepolicy", "p"]);
    let ancestor = ancestor(&object).unwrap();
    assert_eq!(ancestor["ancestorRef"]["kind"], "Ingress");
    assert_eq!(ancestor["conditions"][0]["observedGeneration"], object["metadata"]["generation"]);
    let table = kubectl(&["get", "cmrp", "-n", &site.namespace.0]);
    assert!(table.contains("PROGRAMMED") && table.contains("True"), "{table}");
    site.until("-", host, "/", "200");
    assert_eq!(curl_http(site.installed, host, "/", &[]).status, 308);
    // An edit.
    let spec = "responseHeaders: {set: [{name: X-Carried-By, value: certmap}]}";
    site.namespace.apply(&route_policy("p", "a", spec));
    eventually("the header", || {
        let reply = site.get("-", host, "/");
        let is_there = reply.head.contains("x-carried-by: certmap");
        if is_there { Ok(()) } else { Err(reply.head) }
    });
    assert_eq!(curl_http(site.installed, host, "/", &[]).status, 200, "no redirect any more");
    // It goes, and so does what it said.
    site.namespace.kubectl(&["delete", "routepolicy", "p"]);
    eventually("no header", || {
        let reply = site.get("-", host, "/");
        if reply.head.contains("x-carried-by") { Err(reply.head) } else { Ok(()) }
    });
}

#[test]
fn of_two_route_policies_the_older_counts_and_the_other_says_so() {
    let site = Site::new("two-routes", &["*.two.test"], 1).ready();
    let host = "a.two.test";
    site.namespace.apply(&ingress("a", host, "/", "whoami-0"));
    let spec = |word: &str| format!("responseHeaders: {{set: [{{name: X-Of, value: {word}}}]}}");
    // By its name it would come last.
    site.namespace.apply(&route_policy("z", "a", &spec("older")));
    until(&site, "z", "Programmed", "True", "Programmed");
    // Creation times are whole seconds.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    site.namespace.apply(&route_policy("a", "a", &spec("newer")));
    let message = until(&site, "a", "Accepted", "False", "Conflicted");
    let counts = format!("RoutePolicy {}/z is older and counts for Ingress", site.namespace.0);
    assert!(message.contains(&counts), "{message}");
    until(&site, "a", "Programmed", "False", "Conflicted");
    until(&site, "z", "Programmed", "True", "Programmed");
    assert!(site.until("-", host, "/", "200").head.contains("x-of: older"));
    let events = || {
        let of =
            ["events", "--field-selector", "reason=Conflicted,involvedObject.kind=RoutePolicy"];
        site.namespace.get(&of)["items"].as_array().unwrap().len()
    };
    eventually("the event", || if events() == 1 { Ok(()) } else { Err(events().to_string()) });
    site.namespace.kubectl(&["delete", "routepolicy", "z"]);
    until(&site, "a", "Programmed", "True", "Programmed");
    eventually("the newer one's header", || {
        let reply = site.get("-", host, "/");
        if reply.head.contains("x-of: newer") { Ok(()) } else { Err(reply.head) }
    });
}

#[test]
fn what_a_route_policy_refers_to_is_looked_after() {
    let site = Site::new("route-refs", &["*.refs.test"], 1).ready();
    let host = "a.refs.test";
    site.namespace.apply(&ingress("a", host, "/", "whoami-0"));
    site.until("-", host, "/", "200");
    let tls =
        "backendTLS: {hostname: whoami, caCertificateRefs: [{kind: ConfigMap, name: backend-ca}]}";
    site.namespace.apply(&route_policy("p", "a", tls));
    site.until("-", host, "/", "503.96");
    let message = until(&site, "p", "Programmed", "False", "BackendTLSUnusable");
    assert!(message.contains("backend-ca does not exist"), "{message}");
    until(&site, "p", "Accepted", "True", "Accepted");
    until(&site, "p", "ResolvedRefs", "False", "BackendTLSUnusable");
    site.namespace.apply(&config_map("backend-ca", "ca.crt", &site.zerossl.pem()));
    until(&site, "p", "Programmed", "True", "Programmed");
    let page = "errorPages: [{codes: [\"5xx\"], configMapRef: {name: pages, key: sorry.html}}]";
    site.namespace.apply(&route_policy("p", "a", page));
    let message = until(&site, "p", "Programmed", "True", "PartiallyProgrammed");
    assert!(message.contains("spec.errorPages[0].configMapRef"), "{message}");
    site.until("-", host, "/", "200");
}

#[test]
fn the_api_server_refuses_a_route_policy_that_makes_no_sense() {
    let site = Site::new("route-rules", &["*.rules.test"], 1);
    for (spec, part) in [
        ("rewrite: {}", "write host, path or both"),
        ("timeouts: {request: 1 minute}", "spec.timeouts.request"),
        ("requestHeaders: {set: [{name: Host, value: x}]}", "rewrite.host changes Host"),
        ("responseHeaders: {remove: [Content-Length]}", "frames the response"),
        ("cors: {allowOrigins: ['*'], allowCredentials: true}", "name the origins"),
        ("limits: {requestBody: 10 MB}", "spec.limits.requestBody"),
        ("nonsense: 1", "unknown field"),
    ] {
        let (ok, text) = try_apply(&site.namespace.0, &route_policy("p", "a", spec));
        assert!(!ok && text.contains(part), "{spec}: {part}: {text}");
    }
}
