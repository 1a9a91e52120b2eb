//! From host and path to what stands before the backend, and to the backend. Pure.

use std::sync::Arc;

use super::backend::Backend;
use super::host::HostPattern;
use super::key_set::key_set;
use super::path::canonical;
use super::settings::RouteSettings;
use super::terms::ClientCertificateTerms;
use super::tls_rules::TlsRules;
use crate::policy::{Guard, Policy};

/// What stands at each path of a host. Clients look paths up and put none in, as with hosts.
pub type Routes = foldhash::HashMap<PathPattern, Route>;

/// One path of one host.
#[derive(Clone, Debug)]
pub struct Route {
    /// namespace/name of the Ingress.
    pub ingress: Arc<str>,
    /// What stands before it.
    pub guard: Guard,
    /// Where its requests go.
    pub backend: Arc<Backend>,
    /// What its RoutePolicy says.
    pub settings: Arc<RouteSettings>,
}

/// Which paths a route is for.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum PathPattern {
    /// This path alone.
    Exact(Box<str>),
    /// This path and everything below it, element by element; without a trailing slash.
    Prefix(Box<str>),
}

impl PathPattern {
    /// A path of an Ingress with its `pathType`: Exact, or else a prefix.
    #[must_use]
    pub fn new(path: &str, exact: bool) -> Self {
        let path = canonical(path);
        if exact {
            Self::Exact(path.into())
        } else {
            Self::Prefix(path.trim_end_matches('/').into())
        }
    }
}

/// One host's routes, and what its handshakes are like.
#[derive(Clone, Debug)]
pub struct VirtualHost {
    /// Which hosts these are.
    pub pattern: HostPattern,
    /// What is asked of their clients in the handshake.
    pub terms: Arc<ClientCertificateTerms>,
    /// What they must come to, where its routes demand more than the program does.
    pub rules: Option<Arc<TlsRules>>,
    /// Whether any path has a policy, or refuses for want of one.
    pub policed: bool,
    /// The public keys that its policies publish, as a JWK set.
    pub keys: Option<Arc<str>>,
    routes: Routes,
    exact: Lengths,
    prefixes: Lengths,
}

/// How long the paths of some patterns are: most others need no look into the table.
#[derive(Clone, Copy, Debug, Default)]
struct Lengths(u128);

impl Lengths {
    fn bit(length: usize) -> u128 {
        1 << length.min(127)
    }

    fn have(self, path: &str) -> bool {
        self.0 & Self::bit(path.len()) != 0
    }
}

impl<'p> FromIterator<&'p str> for Lengths {
    fn from_iter<I: IntoIterator<Item = &'p str>>(paths: I) -> Self {
        Self(paths.into_iter().fold(0, |all, path| all | Self::bit(path.len())))
    }
}

impl VirtualHost {
    /// A host with these routes.
    #[must_use]
    pub fn new(pattern: HostPattern, terms: Arc<ClientCertificateTerms>, routes: Routes) -> Self {
        let policed = routes.values().any(|route| !matches!(route.guard, Guard::Open));
        let publishes = |policy: &&Policy| {
            policy.forward.signed_identity.as_ref().is_some_and(|signed| signed.publish)
        };
        let policies = routes.values().flat_map(|route| route.guard.policies());
        let keys = key_set(policies.map(|policy| &**policy).filter(publishes));
        let keys = keys.map(|keys| format!("{keys}\n").into());
        let exact = routes.keys().filter_map(|pattern| match pattern {
            PathPattern::Exact(path) => Some(&**path),
            PathPattern::Prefix(_) => None,
        });
        let prefixes = routes.keys().filter_map(|pattern| match pattern {
            PathPattern::Exact(_) => None,
            PathPattern::Prefix(path) => Some(&**path),
        });
        let (exact, prefixes) = (exact.collect(), prefixes.collect());
        Self { pattern, terms, rules: None, policed, keys, routes, exact, prefixes }
    }

    /// The route of a canonical path: the exact one, else the one with the longest prefix.
    #[must_use]
    pub fn route(&self, path: &str) -> Option<&Route> {
        self.matched(path).map(|(_, route)| route)
    }

    /// The same, and the pattern that the path matched.
    #[must_use]
    pub fn matched(&self, path: &str) -> Option<(&PathPattern, &Route)> {
        let find = |pattern: PathPattern| self.routes.get_key_value(&pattern);
        let exact = self.exact.have(path).then(|| find(PathPattern::Exact(path.into())));
        if let Some(found) = exact.flatten() {
            return Some(found);
        }
        let mut prefix = path.trim_end_matches('/');
        loop {
            let found =
                self.prefixes.have(prefix).then(|| find(PathPattern::Prefix(prefix.into())));
            if let Some(found) = found.flatten() {
                return Some(found);
            }
            prefix = prefix.rsplit_once('/')?.0;
        }
    }

    /// All routes, in no order.
    pub fn routes(&self) -> impl Iterator<Item = (&PathPattern, &Route)> {
        self.routes.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(paths: &[(&str, bool)]) -> VirtualHost {
        let route = |(path, exact): &(&str, bool)| {
            let guard = Guard::Open;
            let ingress = format!("{path} {exact}").into();
            (
                PathPattern::new(path, *exact),
                Route { ingress, guard, backend: Arc::default(), settings: Arc::default() },
            )
        };
        VirtualHost::new(HostPattern::Any, Arc::default(), paths.iter().map(route).collect())
    }

    #[test]
    fn the_longest_prefix_by_element_wins_and_exact_goes_first() {
        let host = host(&[
            ("/", false),
            ("/foo", false),
            ("/foo/bar/", false),
            ("/foo", true),
            ("/é", false),
        ]);
        let find = |path: &str| host.route(path).map(|route| route.ingress.to_string());
        for (path, expected) in [
            ("/foo", "/foo true"),
            ("/foo/", "/foo false"),
            ("/foo/x", "/foo false"),
            ("/foobar", "/ false"),
            ("/foo/bar", "/foo/bar/ false"),
            ("/foo/bar/baz", "/foo/bar/ false"),
            ("/foo/barbaz", "/foo false"),
            ("/%C3%A9/x", "/é false"),
            ("/", "/ false"),
        ] {
            assert_eq!(find(path).as_deref(), Some(expected), "{path}");
        }
    }

    #[test]
    fn the_longest_paths_are_found_too() {
        let long = format!("/{}", "a".repeat(300));
        let host = host(&[(&long, false), (&format!("{long}/b"), true)]);
        for (path, found) in [("", true), ("/x", true), ("/b", true), ("b", false)]
            .map(|(rest, found)| (format!("{long}{rest}"), found))
        {
            assert_eq!(host.route(&path).is_some(), found, "{path}");
        }
        assert!(host.route(&"/a".repeat(150)).is_none());
    }

    #[test]
    fn without_a_root_other_paths_have_no_route() {
        let host = host(&[("/foo", false), ("/only", true)]);
        assert!(host.route("/bar").is_none());
        assert!(host.route("/only/").is_none());
        assert!(host.route("/").is_none());
    }
}
