//! The snapshot for people: what is in force, without anything secret.

use serde_json::{Value, json};

use super::backend::{Protocol, Target};
use super::route::{PathPattern, Route, VirtualHost};
use super::store::Snapshot;
use crate::auth::TokenKeys;
use crate::policy::{Guard, Module, Policy, SignedIdentity};

impl Snapshot {
    /// Hosts, routes and policies. Passwords, keys, certificates and user names are left out.
    #[must_use]
    pub fn dump(&self) -> Value {
        let mut hosts: Vec<&VirtualHost> = self.hosts.values().map(|host| &**host).collect();
        hosts.sort_by(|a, b| a.pattern.cmp(&b.pattern));
        json!({
            "generation": self.generation,
            "hosts": hosts.into_iter().map(host).collect::<Vec<_>>(),
            "policies": self.policies.iter().map(|named| policy(named)).collect::<Vec<_>>(),
        })
    }
}

fn host(host: &VirtualHost) -> Value {
    let mut routes: Vec<(&PathPattern, &Route)> = host.routes().collect();
    routes.sort_by_key(|(path, _)| *path);
    json!({
        "host": host.pattern.to_string(),
        "asksForCertificate": host.terms.asks,
        "advertisedIssuers": host.terms.hints.len(),
        "tls": host.rules.as_ref().map(|rules| {
            json!({"minVersion": rules.oldest.as_str(), "cipherSuites": rules.names()})
        }),
        "routes": routes.into_iter().map(route).collect::<Vec<_>>(),
    })
}

fn route((path, route): (&PathPattern, &Route)) -> Value {
    let (kind, path) = match path {
        PathPattern::Exact(path) => ("Exact", &**path),
        PathPattern::Prefix(path) => ("Prefix", if path.is_empty() { "/" } else { &**path }),
    };
    let guard = match &route.guard {
        Guard::Open => json!("open"),
        Guard::Policed(policies) => {
            json!(policies.iter().map(|policy| &*policy.name).collect::<Vec<_>>())
        }
        Guard::Shut { code, reason } => json!({"code": code.as_str(), "reason": &**reason}),
    };
    json!({
        "path": path,
        "pathType": kind,
        "ingress": &*route.ingress,
        "policies": guard,
        "routePolicy": Some(&*route.settings.name).filter(|name| !name.is_empty()),
        "backend": &*route.backend.name,
        "protocol": protocol(route),
        "endpoints": endpoints(&route.backend.target),
    })
}

/// What is spoken to the backend.
fn protocol(route: &Route) -> &'static str {
    match route.backend.protocol {
        Protocol::Http1 => "HTTP/1.1",
        Protocol::H2c => "h2c",
        Protocol::Https => "HTTPS",
        Protocol::H2 => "h2 over TLS",
    }
}

fn endpoints(target: &Target) -> Vec<String> {
    match target {
        Target::Endpoints(endpoints) => {
            let addresses = endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
            addresses.map(ToString::to_string).collect()
        }
        Target::Name(name, port) => vec![format!("{name}:{port}")],
        Target::Unsupported => Vec::new(),
    }
}

fn signed(signed: &SignedIdentity) -> Value {
    let keys = signed.keys.as_ref().ok();
    json!({
        "header": &*signed.header,
        "audience": signed.audience.as_deref(),
        "signsWith": keys.map(|keys| &*keys.current.public().kid),
        "keys": keys.map_or(0, |keys| keys.public().count()),
    })
}

fn policy(policy: &Policy) -> Value {
    let module = |module: &Module| match module {
        Module::Basic { users, directory, .. } => {
            json!({"basic": {"users": users.len(), "directory": directory.is_some()}})
        }
        Module::Bearer { bearer, .. } => {
            json!({"bearer": {"issuer": &*bearer.settings.issuer, "keys": keys(&bearer.keys)}})
        }
        Module::External(service) => json!({"external": {"service": service.backend()}}),
        Module::Anonymous { user } => json!({"anonymous": {"userName": user.as_deref()}}),
    };
    json!({
        "name": &*policy.name,
        "asksForCertificate": policy.asks(),
        "demandsCertificate": policy.flags.demand_certificate(),
        "trustedCAs": policy.trust.as_ref().map_or(0, |trust| trust.len()),
        "trustDigest": policy.trust.as_ref().map(|trust| trust.digest().to_string()),
        "oneToOneMappings": policy.one_to_one.len(),
        "manyToOneMappings": policy.many_to_one.all().len(),
        "activeDirectory": policy.directory.as_ref().map(|used| match &used.directory {
            Ok(directory) => {
                let settings = directory.settings();
                let urls: Vec<String> = settings.urls.iter().map(ToString::to_string).collect();
                let weak: Vec<&str> = settings.weak.iter().map(|form| form.as_str()).collect();
                json!({"maps": used.maps, "urls": urls, "weakMappings": weak})
            }
            Err(problem) => json!({"maps": used.maps, "problem": &**problem}),
        }),
        "authentication": policy.modules.iter().map(module).collect::<Vec<_>>(),
        "userHeader": policy.forward.user_header.as_deref(),
        "groupsHeader": policy.forward.groups_header.as_deref(),
        "signedIdentity": policy.forward.signed_identity.as_ref().map(signed),
    })
}

fn keys(keys: &TokenKeys) -> Value {
    match keys {
        TokenKeys::Held(keys) => json!(keys.len()),
        TokenKeys::Published(source) => json!(source.url()),
        TokenKeys::Missing(problem) => json!({"missing": &**problem}),
    }
}
