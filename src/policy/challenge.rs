//! What a 401 asks for: the challenges of every listed module, in their order.

use super::compiled::Module;

/// The WWW-Authenticate values.
pub(super) fn challenges(modules: &[Module], why: &Why<'_>) -> Vec<Box<str>> {
    modules.iter().flat_map(|module| of(module, why)).collect()
}

/// What came before.
pub(super) enum Why<'a> {
    /// Nothing that concerns one module more than another.
    Missing,
    /// A token that is not good (RFC 6750, 3.1).
    InvalidToken,
    /// An external service asks for this.
    External(&'a [Box<str>]),
}

fn of(module: &Module, why: &Why<'_>) -> Vec<Box<str>> {
    match (module, why) {
        (Module::Basic { realm, .. }, _) => {
            vec![format!("Basic realm=\"{realm}\", charset=\"UTF-8\"").into()]
        }
        (Module::Bearer { realm, .. }, Why::InvalidToken) => {
            vec![format!("Bearer realm=\"{realm}\", error=\"invalid_token\"").into()]
        }
        (Module::Bearer { realm, .. }, _) => vec![format!("Bearer realm=\"{realm}\"").into()],
        (Module::External(_), Why::External(passed_back)) => passed_back.to_vec(),
        (Module::External(_) | Module::Anonymous { .. }, _) => Vec::new(),
    }
}
