//! Pages of the route in place of ours, or of the backend's.

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};

use super::compression::DIGESTS;
use crate::snapshot::{ErrorPage, StatusRange};

/// What speaks of a body that is replaced.
const OF_THE_BODY: [HeaderName; 8] = [
    header::ACCEPT_RANGES,
    header::CONTENT_DISPOSITION,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::ETAG,
    header::LAST_MODIFIED,
];

/// Which answer a page is wanted for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) status: u16,
    pub(super) substatus: u16,
    /// Whether the client would rather have JSON: it gets the page only if that is some.
    pub(super) json: bool,
    /// Whether the backend answered.
    pub(super) backend: bool,
}

impl Wanted {
    /// The first page that fits: the most specific.
    pub(super) fn among(self, pages: &[ErrorPage]) -> Option<&ErrorPage> {
        let mut fitting = pages.iter().filter(|page| self.fits(page));
        if self.json {
            return fitting.find(|page| is_json(&page.content_type));
        }
        let mut others = fitting.clone();
        others.find(|page| !is_json(&page.content_type)).or_else(|| fitting.next())
    }

    /// Whether what the client accepts makes a difference.
    pub(super) fn depends(self, pages: &[ErrorPage]) -> bool {
        pages.iter().any(|page| self.fits(page))
    }

    fn fits(self, page: &ErrorPage) -> bool {
        let status = match page.status {
            StatusRange::One(status) => status == self.status,
            StatusRange::Class(class) => class == self.status / 100,
        };
        let substatus = page.substatus.is_none_or(|substatus| substatus == self.substatus);
        status && substatus && (page.of_backend || !self.backend)
    }
}

/// Makes the fields those of the page.
pub(super) fn describe(page: &ErrorPage, headers: &mut HeaderMap) {
    for name in OF_THE_BODY.iter().chain(&DIGESTS) {
        headers.remove(name);
    }
    headers.insert(header::CONTENT_TYPE, page.content_type.clone());
}

fn is_json(content_type: &HeaderValue) -> bool {
    let essence = content_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    let essence = essence.trim().to_ascii_lowercase();
    essence.ends_with("/json") || essence.ends_with("+json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(status: StatusRange, substatus: Option<u16>, kind: &'static str) -> ErrorPage {
        ErrorPage {
            status,
            substatus,
            of_backend: false,
            content_type: HeaderValue::from_static(kind),
            body: kind.into(),
        }
    }

    fn wanted(status: u16, substatus: u16) -> Wanted {
        Wanted { status, substatus, json: false, backend: false }
    }

    #[test]
    fn the_first_that_fits_is_taken() {
        let pages = [
            page(StatusRange::One(403), Some(7), "text/a"),
            page(StatusRange::One(403), None, "text/b"),
            page(StatusRange::Class(5), None, "text/c"),
        ];
        for (status, substatus, found) in [
            (403, 7, Some("text/a")),
            (403, 16, Some("text/b")),
            (403, 0, Some("text/b")),
            (503, 90, Some("text/c")),
            (404, 0, None),
            (200, 0, None),
        ] {
            let page = wanted(status, substatus).among(&pages);
            assert_eq!(page.map(|page| &*page.body), found.map(str::as_bytes), "{status}");
        }
    }

    #[test]
    fn programs_get_json_or_no_page_and_others_json_at_last() {
        let json = page(StatusRange::Class(4), None, "application/problem+json; charset=utf-8");
        let html = page(StatusRange::Class(4), None, "text/html");
        let program = Wanted { json: true, ..wanted(404, 0) };
        assert!(program.among(std::slice::from_ref(&html)).is_none());
        let both = [json.clone(), html];
        assert_eq!(program.among(&both).unwrap().body, json.body);
        assert_eq!(wanted(404, 0).among(&both).unwrap().body, "text/html");
        assert!(wanted(404, 0).among(&[json]).is_some());
    }

    #[test]
    fn a_backends_answer_is_replaced_only_where_the_page_says_so() {
        let mut pages = [page(StatusRange::One(404), None, "text/html")];
        let backends = Wanted { backend: true, ..wanted(404, 0) };
        assert!(backends.among(&pages).is_none());
        pages[0].of_backend = true;
        assert!(backends.among(&pages).is_some() && wanted(404, 0).among(&pages).is_some());
    }

    #[test]
    fn what_spoke_of_the_old_body_goes() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-encoding", "gzip"),
            ("content-length", "9"),
            ("etag", "\"x\""),
            ("content-digest", "sha-256=:x:"),
            ("repr-digest", "sha-256=:x:"),
            ("content-type", "text/plain"),
            ("set-cookie", "a=1"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        describe(&page(StatusRange::One(404), None, "text/html"), &mut headers);
        assert_eq!(headers.len(), 2);
        assert_eq!(
            (&headers["content-type"], &headers["set-cookie"]),
            (&HeaderValue::from_static("text/html"), &HeaderValue::from_static("a=1"))
        );
    }
}
