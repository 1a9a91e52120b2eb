//! Host names, as SNI and Host carry them, and the one table that resolves both.

use std::fmt;

use foldhash::HashMap;

/// A DNS name or an address in lower case, without port and trailing dot.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct HostName(Box<str>);

impl HostName {
    /// Normalizes what SNI, Host or :authority holds; `None` where it is no host.
    #[must_use]
    pub fn parse(authority: &str) -> Option<Self> {
        let host = without_port(authority)?;
        let host = host.strip_suffix('.').unwrap_or(host);
        let allowed =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':' | '[' | ']');
        let dotted = host.starts_with('.') || host.ends_with('.') || host.contains("..");
        let whole = (1..=255).contains(&host.len()) && !dotted;
        (whole && host.chars().all(allowed)).then(|| Self(host.to_ascii_lowercase().into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn without_port(authority: &str) -> Option<&str> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']')?;
            let (_, after) = rest.split_at_checked(end + 1)?;
            (
                authority.get(..end + 2)?,
                if after.is_empty() { Some("") } else { after.strip_prefix(':') },
            )
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, Some("")),
        },
    };
    port?.chars().all(|c| c.is_ascii_digit()).then_some(host)
}

/// Which hosts a rule is for.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum HostPattern {
    /// One host.
    Exact(HostName),
    /// `*.` and this name: exactly one label more.
    Wildcard(HostName),
    /// Every host that no other pattern has.
    Any,
}

impl HostPattern {
    /// Reads an Ingress rule's host; `None` where it is neither a name nor `*.` and a name.
    #[must_use]
    pub fn parse(host: &str) -> Option<Self> {
        match host.strip_prefix("*.") {
            _ if host.is_empty() => Some(Self::Any),
            Some(parent) => {
                HostName::parse(parent).filter(|_| !parent.contains(':')).map(Self::Wildcard)
            }
            None => HostName::parse(host).filter(|_| !host.contains(':')).map(Self::Exact),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => write!(f, "{host}"),
            Self::Wildcard(parent) => write!(f, "*.{parent}"),
            Self::Any => f.write_str("*"),
        }
    }
}

/// Something for each pattern: an exact name goes before a wildcard, a wildcard before everything else. Clients look names up and
/// put none in: a hash against collisions that somebody makes would cost each request more.
#[derive(Clone, Debug)]
pub struct HostTable<T> {
    exact: HashMap<HostName, T>,
    wildcard: HashMap<HostName, T>,
    any: Option<T>,
}

impl<T> HostTable<T> {
    /// What a host resolves to; without a host (no SNI), what every host gets.
    #[must_use]
    pub fn resolve(&self, host: Option<&HostName>) -> Option<&T> {
        let by_name = |host: &HostName| self.exact.get(host).or_else(|| self.by_wildcard(host));
        host.and_then(by_name).or(self.any.as_ref())
    }

    /// Sets what a pattern resolves to.
    pub fn insert(&mut self, pattern: HostPattern, value: T) {
        match pattern {
            HostPattern::Exact(host) => drop(self.exact.insert(host, value)),
            HostPattern::Wildcard(parent) => drop(self.wildcard.insert(parent, value)),
            HostPattern::Any => self.any = Some(value),
        }
    }

    /// Whether both have the same patterns with the same values.
    pub fn is_same(&self, other: &Self, same: impl Fn(&T, &T) -> bool) -> bool {
        let all = |a: &HashMap<HostName, T>, b: &HashMap<HostName, T>| {
            a.len() == b.len()
                && a.iter().all(|(host, value)| b.get(host).is_some_and(|it| same(value, it)))
        };
        let any = match (&self.any, &other.any) {
            (Some(a), Some(b)) => same(a, b),
            (None, None) => true,
            _ => false,
        };
        any && all(&self.exact, &other.exact) && all(&self.wildcard, &other.wildcard)
    }

    /// Everything in it, in no order.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.exact.values().chain(self.wildcard.values()).chain(&self.any)
    }

    fn by_wildcard(&self, host: &HostName) -> Option<&T> {
        let (_, parent) = host.0.split_once('.')?;
        self.wildcard.get(&HostName(parent.into()))
    }
}

impl<T> Default for HostTable<T> {
    fn default() -> Self {
        Self { exact: HashMap::default(), wildcard: HashMap::default(), any: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_has_one_name() {
        for text in [
            "app.example.com",
            "APP.Example.com",
            "app.example.com.",
            "app.example.com:8443",
            "App.example.com.:1",
        ] {
            assert_eq!(HostName::parse(text).unwrap().as_str(), "app.example.com", "{text}");
        }
        assert_eq!(HostName::parse("[::1]:8443").unwrap().as_str(), "[::1]");
        for text in
            ["", ".", "a b", "a/b", "a:x", "a@b", "a..b", "a..", "é", "[::1", "a,b", "[::1]x"]
        {
            assert_eq!(HostName::parse(text), None, "{text}");
        }
    }

    #[test]
    fn exact_goes_before_wildcard_before_any() {
        let mut table = HostTable::default();
        for (pattern, value) in [("a.b.c", 1), ("*.b.c", 2), ("", 3)] {
            table.insert(HostPattern::parse(pattern).unwrap(), value);
        }
        let resolve = |host: &str| table.resolve(HostName::parse(host).as_ref()).copied();
        assert_eq!(resolve("a.b.c"), Some(1));
        assert_eq!(resolve("x.b.c"), Some(2));
        assert_eq!(resolve("x.y.b.c"), Some(3));
        assert_eq!(resolve("b.c"), Some(3));
        assert_eq!(table.resolve(None), Some(&3));
    }
}
