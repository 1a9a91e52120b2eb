//! The way back: what a route does to an answer, its backend's or ours.

use std::sync::Arc;

use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};

use super::compression::is_to_stay;
use super::error_pages::{Wanted, describe};
use super::vary::vary;
use super::{accept_encoding, compression, cors, edits};
use crate::proxy::body::{ResponseBody, full};
use crate::snapshot::{Coding, RouteSettings};

/// What of a request its answer depends on.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct Returning {
    settings: Arc<RouteSettings>,
    origin: Option<HeaderValue>,
    coding: Option<Coding>,
    head: bool,
    json: bool,
}

impl Returning {
    pub(in crate::proxy) fn of<B>(
        settings: Arc<RouteSettings>,
        request: &Request<B>,
        json: bool,
    ) -> Self {
        let headers = request.headers();
        let origin = settings.cors.as_ref().and_then(|_| headers.get(header::ORIGIN)).cloned();
        let compression = settings.compression.as_ref().filter(|_| !is_to_stay(headers));
        let coding = compression.and_then(|it| accept_encoding::preferred(&it.codings, headers));
        let head = request.method() == Method::HEAD;
        Self { settings, origin, coding, head, json }
    }

    /// The backend's answer.
    pub(in crate::proxy) fn answer(
        &self,
        response: Response<ResponseBody>,
    ) -> Response<ResponseBody> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return response;
        }
        let response = self.dressed(self.page(response, 0, true));
        match &self.settings.compression {
            Some(compression) => {
                compression::compress(compression, self.coding, self.head, response)
            }
            None => response,
        }
    }

    /// An answer of ours, with a page of the route where it has one; or, without a sub-status, as somebody else wrote it.
    /// Nobody keeps it, whatever the route says of its answers: who asks next may be admitted.
    pub(in crate::proxy) fn refusal(
        &self,
        response: Response<ResponseBody>,
        substatus: Option<u16>,
    ) -> Response<ResponseBody> {
        let mut response = self.dressed(match substatus {
            Some(substatus) => self.page(response, substatus, false),
            None => response,
        });
        let no_store = HeaderValue::from_static("no-store");
        response.headers_mut().insert(header::CACHE_CONTROL, no_store);
        response
    }

    fn page(
        &self,
        mut response: Response<ResponseBody>,
        substatus: u16,
        backend: bool,
    ) -> Response<ResponseBody> {
        let status = response.status().as_u16();
        let wanted = Wanted { status, substatus, json: self.json, backend };
        let pages = &self.settings.error_pages;
        if wanted.depends(pages) {
            vary(response.headers_mut(), "accept");
        }
        match wanted.among(pages) {
            Some(page) => {
                describe(page, response.headers_mut());
                response.map(|_| full(page.body.clone()))
            }
            None => response,
        }
    }

    fn dressed(&self, mut response: Response<ResponseBody>) -> Response<ResponseBody> {
        let headers = response.headers_mut();
        if let Some(cors) = &self.settings.cors {
            cors::answer(cors, self.origin.as_ref(), headers);
        }
        edits::response(&self.settings.response_headers, headers);
        response
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::header::HeaderName;
    use hyper::body::Body;

    use super::*;
    use crate::snapshot::{Compression, Cors, ErrorPage, HeaderEdits, StatusRange};

    fn settings() -> RouteSettings {
        let page = ErrorPage {
            status: StatusRange::Class(4),
            substatus: None,
            of_backend: true,
            content_type: HeaderValue::from_static("text/html"),
            body: "a page of the route's".into(),
        };
        let kind = (HeaderName::from_static("x-kind"), HeaderValue::from_static("1"));
        let kept = (header::CACHE_CONTROL, HeaderValue::from_static("public"));
        RouteSettings {
            error_pages: [page].into(),
            response_headers: HeaderEdits { set: [kind, kept].into(), ..HeaderEdits::default() },
            cors: Some(Cors {
                allow_origins: ["https://a.example".into()].into(),
                allow_methods: Box::default(),
                allow_headers: Box::default(),
                expose_headers: Box::default(),
                allow_credentials: true,
                max_age: Duration::ZERO,
            }),
            compression: Some(Compression {
                codings: [Coding::Gzip].into(),
                types: ["text/html".into()].into(),
                least: 1,
            }),
            ..RouteSettings::default()
        }
    }

    fn returning(method: Method, accept: &'static str) -> Returning {
        let request = Request::builder()
            .method(method)
            .header("origin", "https://a.example")
            .header("accept-encoding", accept)
            .body(())
            .unwrap();
        Returning::of(Arc::new(settings()), &request, false)
    }

    fn response(status: u16) -> Response<ResponseBody> {
        Response::builder()
            .status(status)
            .header("content-type", "text/plain")
            .header("content-length", "5")
            .body(full("plain"))
            .unwrap()
    }

    #[test]
    fn a_page_takes_the_answers_place_is_dressed_and_then_compressed() {
        let answer = returning(Method::GET, "gzip").answer(response(404));
        let headers = answer.headers();
        assert_eq!(headers["content-type"], "text/html");
        assert_eq!(headers["content-encoding"], "gzip");
        assert_eq!(headers["x-kind"], "1");
        assert_eq!(headers["access-control-allow-origin"], "https://a.example");
        assert!(!headers.contains_key("content-length"));
        let vary: Vec<_> = headers.get_all("vary").iter().collect();
        assert_eq!(vary, ["accept", "origin", "accept-encoding"]);
    }

    #[test]
    fn an_answer_to_head_has_the_fields_of_that_to_get_and_no_body() {
        let get = returning(Method::GET, "gzip").answer(response(404));
        let head = returning(Method::HEAD, "gzip").answer(response(404));
        assert_eq!(head.headers(), get.headers());
        assert_eq!(head.headers()["content-encoding"], "gzip");
        assert!(head.body().is_end_stream() && head.body().size_hint().exact() == Some(0));
    }

    #[test]
    fn who_wants_nothing_transformed_gets_it_as_it_is() {
        let mut request = Request::new(());
        for (name, value) in
            [("accept-encoding", "gzip"), ("cache-control", "no-cache, No-Transform")]
        {
            request.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        let returning = Returning::of(Arc::new(settings()), &request, false);
        let answer = returning.answer(response(404));
        assert!(!answer.headers().contains_key("content-encoding"));
    }

    #[test]
    fn a_switch_of_protocols_is_left_alone() {
        let answer = returning(Method::GET, "gzip").answer(response(101));
        assert_eq!(answer.headers().len(), 2);
    }

    #[test]
    fn ours_are_dressed_too_and_what_somebody_else_wrote_keeps_its_body() {
        let returning = returning(Method::GET, "gzip");
        let refused = returning.refusal(response(403), Some(7));
        assert_eq!(
            (&refused.headers()["content-type"], &refused.headers()["x-kind"]),
            (&HeaderValue::from_static("text/html"), &HeaderValue::from_static("1"))
        );
        let passed_back = returning.refusal(response(403), None);
        assert_eq!(passed_back.headers()["content-type"], "text/plain");
        assert!(passed_back.headers().contains_key("access-control-allow-origin"));
    }

    #[test]
    fn what_the_route_lets_others_keep_is_not_our_refusals() {
        let returning = returning(Method::GET, "gzip");
        for substatus in [None, Some(0)] {
            let refused = returning.refusal(response(308), substatus);
            let kept: Vec<_> = refused.headers().get_all("cache-control").iter().collect();
            assert_eq!(kept, ["no-store"]);
        }
        assert_eq!(returning.answer(response(200)).headers()["cache-control"], "public");
    }
}
