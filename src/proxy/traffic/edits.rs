//! Fields that a route removes, sets and adds. None of them frames a message or names its host, whatever the settings
//! hold; and those of a request come before identity headers are stripped, so that none of them identifies anybody.

use http::HeaderMap;
use http::header::{self, HeaderName};

use crate::proxy::hop_by_hop::{is_hop_by_hop, settle};
use crate::snapshot::HeaderEdits;

/// Edits a request's fields. What its Connection lists is gone before, and lists nothing of what is set here.
pub(super) fn request(edits: &HeaderEdits, headers: &mut HeaderMap) {
    if is_empty(edits) {
        return;
    }
    settle(headers);
    apply(edits, headers);
}

/// Edits a response's fields.
pub(super) fn response(edits: &HeaderEdits, headers: &mut HeaderMap) {
    if !is_empty(edits) {
        apply(edits, headers);
    }
}

fn is_empty(edits: &HeaderEdits) -> bool {
    edits.remove.is_empty() && edits.set.is_empty() && edits.add.is_empty()
}

fn apply(edits: &HeaderEdits, headers: &mut HeaderMap) {
    for name in edits.remove.iter().filter(|name| is_editable(name)) {
        headers.remove(name);
    }
    for (name, value) in edits.set.iter().filter(|(name, _)| is_editable(name)) {
        headers.insert(name.clone(), value.clone());
    }
    for (name, value) in edits.add.iter().filter(|(name, _)| is_editable(name)) {
        headers.append(name.clone(), value.clone());
    }
}

fn is_editable(name: &HeaderName) -> bool {
    let framing = [header::AUTHORIZATION, header::CONTENT_LENGTH, header::HOST, header::TRAILER];
    !is_hop_by_hop(name) && !framing.contains(name)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn pairs(pairs: &[(&'static str, &'static str)]) -> Box<[(HeaderName, HeaderValue)]> {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    fn fields(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs(fields).into_iter().collect()
    }

    #[test]
    fn fields_are_removed_then_set_then_added() {
        let edits = HeaderEdits {
            remove: [HeaderName::from_static("x-debug")].into(),
            set: pairs(&[("x-env", "prod")]),
            add: pairs(&[("x-env", "blue"), ("x-debug", "off")]),
        };
        let mut headers = fields(&[("x-debug", "1"), ("x-env", "theirs"), ("accept", "*/*")]);
        response(&edits, &mut headers);
        let all = |name| headers.get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(all("x-env"), ["prod", "blue"]);
        assert_eq!(all("x-debug"), ["off"]);
        assert_eq!(all("accept"), ["*/*"]);
    }

    #[test]
    fn nothing_that_frames_or_routes_is_touched() {
        let names = ["content-length", "transfer-encoding", "host", "connection", "authorization"];
        let edits = HeaderEdits {
            remove: names.iter().map(|name| HeaderName::from_static(name)).collect(),
            set: pairs(&names.map(|name| (name, "evil"))),
            add: pairs(&names.map(|name| (name, "evil"))),
        };
        let before = fields(&names.map(|name| (name, "te")));
        let mut headers = before.clone();
        request(&edits, &mut headers);
        assert_eq!(headers, before);
    }

    #[test]
    fn a_client_cannot_have_removed_what_the_route_sets() {
        let edits = HeaderEdits { set: pairs(&[("x-env", "prod")]), ..HeaderEdits::default() };
        let mut headers = fields(&[("connection", "x-env, close"), ("x-env", "theirs")]);
        request(&edits, &mut headers);
        crate::proxy::hop_by_hop::strip(&mut headers);
        assert_eq!(headers["x-env"], "prod");
    }
}
