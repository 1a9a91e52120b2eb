//! Accept-Encoding (RFC 9110, 12.5.3): which of the route's codings a client would rather have.

use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

use crate::proxy::accept::{Quality, members};
use crate::snapshot::Coding;

/// The name of a coding in Accept-Encoding and Content-Encoding.
pub(super) fn name(coding: Coding) -> &'static str {
    match coding {
        Coding::Brotli => "br",
        Coding::Gzip => "gzip",
        Coding::Zstd => "zstd",
    }
}

/// The coding of the highest quality, of equal ones the first that the route names; none where the client accepts none,
/// or would rather have none.
pub(super) fn preferred(codings: &[Coding], headers: &HeaderMap) -> Option<Coding> {
    let members: Vec<(&str, Quality)> = members(headers.get_all(ACCEPT_ENCODING).iter()).collect();
    let plain = stated(&members, "identity").unwrap_or(0);
    let mut best = None;
    for &coding in codings {
        let stated = stated(&members, name(coding)).or_else(|| stated(&members, "*"));
        let quality = stated.unwrap_or(0);
        if quality > 0 && quality >= plain && best.is_none_or(|(_, than)| quality > than) {
            best = Some((coding, quality));
        }
    }
    best.map(|(coding, _)| coding)
}

/// The first time counts: whoever names a coding twice means the first.
fn stated(members: &[(&str, Quality)], name: &str) -> Option<Quality> {
    let is_it = |it: &str| {
        it.eq_ignore_ascii_case(name) || (name == "gzip" && it.eq_ignore_ascii_case("x-gzip"))
    };
    members.iter().find(|(it, _)| is_it(it)).map(|(_, quality)| *quality)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const ALL: &[Coding] = &[Coding::Brotli, Coding::Zstd, Coding::Gzip];

    fn of(accept: &str) -> Option<Coding> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_str(accept).unwrap());
        preferred(ALL, &headers)
    }

    #[test]
    fn the_highest_quality_wins_and_then_the_routes_order() {
        for (accept, coding) in [
            ("gzip, deflate, br, zstd", Some(Coding::Brotli)),
            ("gzip", Some(Coding::Gzip)),
            ("x-gzip", Some(Coding::Gzip)),
            ("GZIP;Q=0.5", Some(Coding::Gzip)),
            ("br;q=0.5, gzip;q=0.9", Some(Coding::Gzip)),
            ("br;q=0, *", Some(Coding::Zstd)),
            ("*;q=0.1", Some(Coding::Brotli)),
            ("*;q=0, gzip", Some(Coding::Gzip)),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=0.5", Some(Coding::Gzip)),
            ("identity;q=0", None),
            ("br;q=0.000", None),
            ("br;q=1.001, gzip;q=0.001", Some(Coding::Gzip)),
            ("br;q=.5", None),
            ("br;q=0.1234", None),
            ("deflate", None),
            ("", None),
        ] {
            assert_eq!(of(accept), coding, "{accept}");
        }
        assert_eq!(preferred(ALL, &HeaderMap::new()), None);
    }

    proptest! {
        #[test]
        fn any_field_is_read_without_a_panic_and_leads_to_something_that_it_names(
            accept in "[a-z*;=q0-9., ]{0,40}",
        ) {
            if let Some(coding) = of(&accept) {
                prop_assert!(accept.contains(name(coding)) || accept.contains('*'));
            }
        }

        #[test]
        fn what_is_refused_is_never_chosen(others in "(, (br|zstd|\\*)(;q=0(\\.[0-9]{1,3})?)?){0,4}") {
            prop_assert_ne!(of(&format!("gzip;q=0{others}")), Some(Coding::Gzip));
        }
    }
}
