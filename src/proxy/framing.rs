//! Whether a request is one that can be carried, and its body ends at one place only, whoever reads it (RFC 9112, 6).
//! hyper has refused what it cannot read itself; what it can, but others would read differently, is refused here.

use http::{Method, Request, Version};

use super::hop_by_hop::{has_known_coding, has_plain_length};
use super::rejection::Rejection;

/// One chunked coding, or one length in its shortest form. The connection ends: what follows may be part of the body.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), Rejection> {
    if !is_carried(request) {
        return Err(Rejection::not_implemented("a method that is not carried").ending());
    }
    if request.version() <= Version::HTTP_11 && !has_known_coding(request.headers()) {
        return Err(Rejection::bad_request("a transfer coding other than chunked").ending());
    }
    if !has_plain_length(request.headers()) {
        return Err(Rejection::bad_request("a length that is not written plainly").ending());
    }
    Ok(())
}

/// CONNECT names no path by which it could be judged; one that is for a protocol (RFC 8441) has become a GET by now. TRACE has the backend send
/// back what it was told: the account's password, or a signed identity, is not the client's to see.
fn is_carried<B>(request: &Request<B>) -> bool {
    !matches!(*request.method(), Method::CONNECT | Method::TRACE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(fields: &[(&'static str, &'static str)]) -> bool {
        let request =
            fields.iter().fold(Request::post("/"), |it, (name, value)| it.header(*name, *value));
        check(&request.body(()).unwrap()).is_ok()
    }

    #[test]
    fn what_would_be_a_tunnel_or_an_echo_is_not_carried() {
        for (method, carried) in [
            ("CONNECT", false),
            ("TRACE", false),
            ("GET", true),
            ("connect", true),
            ("PURGE", true),
        ] {
            let request = Request::builder().method(method).uri("/").body(()).unwrap();
            assert_eq!(check(&request).is_ok(), carried, "{method}");
        }
    }

    #[test]
    fn a_body_ends_at_one_place_only() {
        assert!(passes(&[]));
        for coding in ["chunked", "CHUNKED"] {
            assert!(passes(&[("transfer-encoding", coding)]), "{coding}");
        }
        for coding in ["", "gzip, chunked", "chunked, chunked", "chunked;q=1", "identity"] {
            assert!(!passes(&[("transfer-encoding", coding)]), "{coding}");
        }
        assert!(!passes(&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")]));
        for length in ["0", "5", "18446744073709551615"] {
            assert!(passes(&[("content-length", length)]), "{length}");
        }
        for length in ["", "05", "+5", "-5", "5,5", "5 5", "0x5", "00"] {
            assert!(!passes(&[("content-length", length)]), "{length}");
        }
        assert!(!passes(&[("content-length", "5"), ("content-length", "5")]));
    }
}
