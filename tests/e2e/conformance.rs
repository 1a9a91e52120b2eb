//! The scenarios of Kubernetes' conformance features for Ingress: host rules, path rules, default backend, ingress class,
//! load balancing, TLS.

use std::collections::BTreeMap;
use std::process::Command;

use super::client::{curl, curl_http};
use super::cluster::{Namespace, apply, run, try_kubectl};
use super::eventually;
use super::site::{Site, ingress, ingress_with};

/// Until the Service `whoami-N` answers there; `None` for a 404.
fn leads_to(site: &Site, host: &str, path: &str, service: Option<u16>) {
    eventually(&format!("{host}{path} leading to {service:?}"), || {
        let reply = match service {
            Some(_) => site.get("-", host, path),
            None => site.get_unchecked("-", host, path),
        };
        let fits = match service {
            Some(n) => reply.status == 200 && reply.port() == (8080 + n).to_string(),
            None => reply.status == 404,
        };
        if fits { Ok(()) } else { Err(format!("{reply:?}")) }
    });
}

#[test]
fn host_rules() {
    let site = Site::new(
        "hosts",
        &["*.foo.test", "foo.bar.test", "*.bar.test", "*.wild.foo.test", "foo.test"],
        1,
    )
    .ready();
    site.namespace.apply(&ingress("exact", "foo.bar.test", "/", "whoami-0"));
    site.namespace.apply(&ingress("wildcard", "*.foo.test", "/", "whoami-1"));
    leads_to(&site, "foo.bar.test", "/", Some(0));
    leads_to(&site, "bar.foo.test", "/", Some(1));
    // Neither a subdomain of an exact host, nor more or fewer labels than one in place of the star.
    for other in ["x.foo.bar.test", "other.bar.test", "baz.wild.foo.test", "foo.test"] {
        leads_to(&site, other, "/", None);
    }
    leads_to(&site, "FOO.bar.test", "/", Some(0));
    // An exact host goes before a wildcard.
    site.namespace.apply(&ingress("closer", "bar.foo.test", "/", "whoami-2"));
    leads_to(&site, "bar.foo.test", "/", Some(2));
    leads_to(&site, "baz.foo.test", "/", Some(1));
}

/// Paths with their types, each leading to the Service of its number; requests and where they lead.
type Scenario<'a> = (&'a [(&'a str, &'a str)], &'a [(&'a str, Option<u16>)]);

const PATHS: &[(&str, Scenario<'static>)] = &[
    (
        "exact",
        (
            &[("/foo", "Exact")],
            &[
                ("/foo", Some(0)),
                ("/bar", None),
                ("/foo/", None),
                ("/FOO", None),
                ("/foo/bar", None),
            ],
        ),
    ),
    ("exact-slash", (&[("/foo/", "Exact")], &[("/foo/", Some(0)), ("/foo", None)])),
    (
        "all",
        (
            &[("/", "Prefix")],
            &[("/", Some(0)), ("/foo", Some(0)), ("/foo/", Some(0)), ("/foo/bar", Some(0))],
        ),
    ),
    (
        "prefix",
        (
            &[("/foo", "Prefix")],
            &[
                ("/foo", Some(0)),
                ("/foo/", Some(0)),
                ("/foo/bar", Some(0)),
                ("/foobar", None),
                ("/FOO", None),
                ("/", None),
            ],
        ),
    ),
    (
        "prefix-slash",
        (&[("/foo/", "Prefix")], &[("/foo", Some(0)), ("/foo/", Some(0)), ("/foo/bar", Some(0))]),
    ),
    (
        "elements",
        (
            &[("/aaa/bb", "Prefix")],
            &[
                ("/aaa/bb", Some(0)),
                ("/aaa/bbb", None),
                ("/aaa", None),
                ("/aaa/bb/", Some(0)),
                ("/aaa/bb/ccc", Some(0)),
            ],
        ),
    ),
    (
        "elements-slash",
        (
            &[("/aaa/bbb/", "Prefix")],
            &[
                ("/aaa/bbb", Some(0)),
                ("/aaa/bbb/", Some(0)),
                ("/aaa/bbb/ccc", Some(0)),
                ("/aaa/bbbxyz", None),
            ],
        ),
    ),
    (
        "longest",
        (
            &[("/aaa", "Prefix"), ("/aaa/bbb", "Prefix"), ("/", "Prefix")],
            &[
                ("/aaa/bbb", Some(1)),
                ("/aaa/bbb/c", Some(1)),
                ("/aaa/ccc", Some(0)),
                ("/ccc", Some(2)),
            ],
        ),
    ),
    (
        "exact-first",
        (
            &[("/foo", "Prefix"), ("/foo", "Exact")],
            &[("/foo", Some(1)), ("/foo/", Some(0)), ("/foo/bar", Some(0))],
        ),
    ),
    (
        "implementation",
        (
            &[("/foo", "ImplementationSpecific")],
            &[("/foo", Some(0)), ("/foo/bar", Some(0)), ("/foobar", None)],
        ),
    ),
];

#[test]
fn path_rules() {
    let site = Site::new("paths", &["*.paths.test"], 1).ready();
    for (name, (paths, _)) in PATHS {
        let services: Vec<String> = (0..paths.len()).map(|n| format!("whoami-{n}")).collect();
        let paths: Vec<(&str, &str, &str)> = paths
            .iter()
            .zip(&services)
            .map(|((path, kind), service)| (*path, *kind, service.as_str()))
            .collect();
        let host = format!("{name}.paths.test");
        site.namespace.apply(&ingress_with(name, "ingressClassName: certmap\n", &host, &paths));
    }
    for (name, (_, requests)) in PATHS {
        for (path, service) in *requests {
            leads_to(&site, &format!("{name}.paths.test"), path, *service);
        }
    }
}

/// Every host of the cluster is the default backend's while this runs.
mod alone {
    #[test]
    fn default_backend() {
        super::default_backend();
    }
}

fn default_backend() {
    let site = Site::new("default", &["*.default.test"], 1).ready();
    let host = "rule.default.test";
    leads_to(&site, "any.default.test", "/", None);
    // Of a rule's own Ingress for what no rule takes; of an Ingress without rules for everything.
    let further = "ingressClassName: certmap\ndefaultBackend: {service: {name: whoami-3, port: {name: web}}}\n";
    site.namespace.apply(&ingress_with("both", further, host, &[("/foo", "Prefix", "whoami-0")]));
    leads_to(&site, host, "/foo", Some(0));
    leads_to(&site, host, "/other", Some(3));
    // No Ingress has a certificate for it.
    eventually("the default backend of every host", || {
        let reply = site.get_unchecked("-", "any.default.test", "/x/y");
        if reply.port() == "8083" { Ok(()) } else { Err(format!("{reply:?}")) }
    });
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let reply = curl(site.installed, site.path(), "-", host, "/other", &["-X", method]);
        assert_eq!((reply.status, reply.port()), (200, "8083"), "{method}: {reply:?}");
        assert!(reply.body.contains(&format!("{method} /other")), "{reply:?}");
    }
    for version in ["--http1.1", "--http2"] {
        assert_eq!(
            curl(site.installed, site.path(), "-", host, "/other", &[version]).status,
            200,
            "{version}"
        );
    }
    assert_eq!(curl_http(site.installed, "any.default.test", "/", &[]).port(), "8083");
    site.namespace.kubectl(&["delete", "ingress", "both"]);
    leads_to(&site, host, "/other", None);
}

const CLASSES: &str = "apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: e2e-foreign}
spec: {controller: example.org/other}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: e2e-second}
spec: {controller: certmap.dev/ingress-controller}
";

#[test]
fn ingress_class() {
    let site = Site::new("classes", &["*.class.test"], 1).ready();
    apply("default", CLASSES);
    let with = |name: &str, further: &str| {
        let host = format!("{name}.class.test");
        site.namespace.apply(&ingress_with(name, further, &host, &[("/", "Prefix", "whoami-0")]));
    };
    with("ours", "ingressClassName: certmap\n");
    with("second", "ingressClassName: e2e-second\n");
    with("foreign", "ingressClassName: e2e-foreign\n");
    with("missing", "ingressClassName: e2e-not-there\n");
    with("none", "");
    leads_to(&site, "ours.class.test", "/", Some(0));
    leads_to(&site, "second.class.test", "/", Some(0));
    for other in ["foreign", "missing", "none"] {
        leads_to(&site, &format!("{other}.class.test"), "/", None);
    }
    // The default class takes those that name none; the annotation of old names one.
    let default = "ingressclass.kubernetes.io/is-default-class=true";
    super::cluster::kubectl(&["annotate", "--overwrite", "ingressclass", "e2e-second", default]);
    leads_to(&site, "none.class.test", "/", Some(0));
    super::cluster::kubectl(&[
        "annotate",
        "ingressclass",
        "e2e-second",
        "ingressclass.kubernetes.io/is-default-class-",
    ]);
    leads_to(&site, "none.class.test", "/", None);
    site.namespace.kubectl(&["annotate", "ingress", "none", "kubernetes.io/ingress.class=certmap"]);
    leads_to(&site, "none.class.test", "/", Some(0));
    let (_, _) = try_kubectl(&["delete", "ingressclass", "e2e-foreign", "e2e-second"]);
}

#[test]
fn load_balancing() {
    let site = Site::new("balance", &["balance.test"], 3).ready();
    site.namespace.apply(&ingress("balance", "balance.test", "/", "whoami-0"));
    let count = |requests: usize| {
        let mut served: BTreeMap<String, usize> = BTreeMap::new();
        for _ in 0..requests {
            let reply = site.get("-", "balance.test", "/");
            *served.entry(reply.served_by().to_owned()).or_default() += 1;
        }
        served
    };
    leads_to(&site, "balance.test", "/", Some(0));
    eventually("all three pods", || {
        let served = count(12);
        if served.len() == 3 { Ok(()) } else { Err(format!("{served:?}")) }
    });
    let served = count(60);
    assert!(served.values().all(|count| *count >= 10), "evenly: {served:?}");
    site.namespace.kubectl(&["scale", "deployment/whoami", "--replicas=0"]);
    eventually("503 without pods", || {
        let reply = site.get("-", "balance.test", "/");
        if reply.status == 503 { Ok(()) } else { Err(format!("{reply:?}")) }
    });
    site.namespace.kubectl(&["scale", "deployment/whoami", "--replicas=1"]);
    leads_to(&site, "balance.test", "/", Some(0));
}

/// The names in the certificate that is shown for a host.
fn shown(site: &Site, host: &str) -> String {
    let connect = format!("{}:{}", site.installed.address, site.installed.https);
    let (_, handshake) =
        run(Command::new("sh").args(["-c", "openssl s_client -connect \"$0\" -servername \"$1\" </dev/null 2>/dev/null | openssl x509 -noout -ext subjectAltName", &connect, host]));
    handshake
}

#[test]
fn tls() {
    let site = Site::new("tls", &["one.tls.test", "*.tls.test"], 1).ready();
    site.namespace.apply(&ingress("one", "one.tls.test", "/", "whoami-0"));
    leads_to(&site, "one.tls.test", "/", Some(0));
    assert!(
        shown(&site, "one.tls.test").contains("DNS:one.tls.test"),
        "{}",
        shown(&site, "one.tls.test")
    );
    assert!(!shown(&site, "unknown.test").contains("tls.test"), "only where it belongs");
    // A Secret that is not there stops nothing else, and its coming is seen.
    let secret = "ingressClassName: certmap\ntls: [{secretName: late, hosts: [two.tls.test]}]\n";
    let two = ingress_with("two", "", "two.tls.test", &[("/", "Prefix", "whoami-1")]);
    let two = two.replace(
        "  tls: [{secretName: server-tls, hosts: [\"two.tls.test\"]}]\n",
        &super::site::indented(secret, 2),
    );
    site.namespace.apply(&two);
    eventually("two without its certificate", || {
        let reply = curl(site.installed, site.path(), "-", "two.tls.test", "/", &["--insecure"]);
        if reply.port() == "8081" { Ok(()) } else { Err(format!("{reply:?}")) }
    });
    assert!(!shown(&site, "two.tls.test").contains("tls.test"));
    site.namespace.kubectl(&["get", "secret", "server-tls"]);
    let copy = site.namespace.get(&["secret", "server-tls"]);
    let data = serde_json::json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": "late"}, "data": copy["data"]});
    site.namespace.apply(&data.to_string());
    leads_to(&site, "two.tls.test", "/", Some(1));
    assert!(shown(&site, "two.tls.test").contains("DNS:one.tls.test"));
    // And plain http is served beside it.
    assert_eq!(curl_http(site.installed, "one.tls.test", "/", &[]).port(), "8080");
}

#[test]
fn services_by_port_name_and_number() {
    let site = Site::new("ports", &["ports.test"], 1).ready();
    let both = "apiVersion: v1\nkind: Service\nmetadata: {name: both}\nspec: {selector: {app: whoami}, ports: [{name: first, port: 81, targetPort: 8084}, {name: second, port: 82, targetPort: 8085}]}\n";
    site.namespace.apply(both);
    let paths = ingress_with(
        "ports",
        "ingressClassName: certmap\n",
        "ports.test",
        &[("/first", "Prefix", "both"), ("/second", "Prefix", "both")],
    );
    let paths = paths.replacen("port: {number: 80}", "port: {name: first}", 1).replacen(
        "port: {number: 80}",
        "port: {number: 82}",
        1,
    );
    site.namespace.apply(&paths);
    leads_to(&site, "ports.test", "/first", Some(4));
    leads_to(&site, "ports.test", "/second", Some(5));
    drop(Namespace::new("ports-gone"));
}
