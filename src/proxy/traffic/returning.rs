//! The way back: what a route does to an answer, its backend's or ours.

use std::sync::Arc;

use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};

use super::error_pages::{Wanted, describe};
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
        let compression = settings.compression.as_ref();
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
            Some(compression) if !self.head => {
                compression::compress(compression, self.coding, response)
            }
            _ => response,
        }
    }

    /// An answer of ours, with a page of the route where it has one; or, without a sub-status, as somebody else wrote it.
    pub(in crate::proxy) fn refusal(
        &self,
        response: Response<ResponseBody>,
        substatus: Option<u16>,
    ) -> Response<ResponseBody> {
        self.dressed(match substatus {
            Some(substatus) => self.page(response, substatus, false),
            None => response,
        })
    }

    fn page(
        &self,
        mut response: Response<ResponseBody>,
        substatus: u16,
        backend: bool,
    ) -> Response<ResponseBody> {
        let status = response.status().as_u16();
        let wanted = Wanted { status, substatus, json: self.json, backend };
        match wanted.among(&self.settings.error_pages) {
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
