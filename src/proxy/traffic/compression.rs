//! Responses compressed on their way through. Whatever the backend has given so far is flushed whenever it pauses, so that
//! nobody waits for what is there; and windows are small, for there may be thousands of them at once.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_compression::Level;
use async_compression::brotli::EncoderParams;
use async_compression::tokio::bufread::{BrotliEncoder, GzipEncoder, ZstdEncoder};
use async_compression::zstd::CParameter;
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use tokio_util::io::{StreamReader, poll_read_buf};

use super::accept_encoding::name;
use super::vary::vary;
use crate::proxy::body::{BodyError, ResponseBody, full};
use crate::proxy::hop_by_hop::options;
use crate::snapshot::{Coding, Compression};

/// Octets that are read from an encoder at once.
const CHUNK: usize = 16 * 1024;
/// 256 KiB of memory of what went before: the best that a few hundred KiB for each response can buy.
const WINDOW_BITS: u32 = 18;
/// Digests of the octets that went over the wire, or that were to.
pub(super) const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("repr-digest"),
];
/// Held back by nobody, unless a route names them.
const NOT_BY_FAMILY: &[&str] = &["text/event-stream"];

/// Compresses a response that may be, for a client that accepts it. What answers HEAD, or says that nothing is modified,
/// says the same as if it had its content (RFC 9110, 9.3.2 and 15.4.5).
pub(super) fn compress(
    compression: &Compression,
    accepted: Option<Coding>,
    head: bool,
    mut response: Response<ResponseBody>,
) -> Response<ResponseBody> {
    if !may_be(compression, head, &response) {
        return response;
    }
    vary(response.headers_mut(), "accept-encoding");
    let Some(coding) = accepted else { return response };
    describe(response.headers_mut());
    // Whoever has it knows how it is encoded.
    if response.status() == StatusCode::NOT_MODIFIED {
        return response;
    }
    let encoding = HeaderValue::from_static(name(coding));
    response.headers_mut().insert(header::CONTENT_ENCODING, encoding);
    if head {
        return response.map(|_| full(""));
    }
    response.map(|body| Encoded::new(coding, body).boxed())
}

fn may_be(compression: &Compression, head: bool, response: &Response<ResponseBody>) -> bool {
    let (status, headers) = (response.status(), response.headers());
    let whole = !matches!(status, StatusCode::NO_CONTENT | StatusCode::PARTIAL_CONTENT)
        && !status.is_informational();
    let plain = !headers.contains_key(header::CONTENT_ENCODING)
        && !headers.contains_key(header::CONTENT_RANGE)
        && !is_to_stay(headers);
    whole
        && plain
        && is_long(compression.least, head, response)
        && (is_of(&compression.types, headers)
            // It need not say of what type it would be.
            || (status == StatusCode::NOT_MODIFIED && !headers.contains_key(header::CONTENT_TYPE)))
}

/// Whether its content is worth it, or would be where none is sent; whose length nobody says is.
fn is_long(least: u64, head: bool, response: &Response<ResponseBody>) -> bool {
    let unmodified = response.status() == StatusCode::NOT_MODIFIED;
    let body = response.body();
    let length = match body.size_hint().exact() {
        Some(0) if head || unmodified => said_length(response.headers()),
        Some(0) => return false,
        length => length,
    };
    // Some write 0 where the length of what they do not send should stand.
    length.is_none_or(|it| (it > 0 && it >= least) || (it == 0 && unmodified))
}

fn said_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Whether a message's content is not to be transformed (RFC 9111, 5.2.1.6 and 5.2.2.6).
pub(super) fn is_to_stay(headers: &HeaderMap) -> bool {
    options(headers, &header::CACHE_CONTROL).any(|it| it.eq_ignore_ascii_case(b"no-transform"))
}

fn is_of(types: &[Box<str>], headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let Some(kind) = kind.and_then(|kind| kind.split(';').next()).map(str::trim) else {
        return false;
    };
    let by_family = !NOT_BY_FAMILY.iter().any(|it| it.eq_ignore_ascii_case(kind));
    types.iter().any(|wanted| match wanted.strip_suffix("/*") {
        Some(family) => {
            let theirs = kind.split_once('/').map(|(theirs, _)| theirs);
            by_family && theirs.is_some_and(|theirs| theirs.eq_ignore_ascii_case(family))
        }
        None => wanted.eq_ignore_ascii_case(kind),
    })
}

/// RFC 9110, 8.8.1: the compressed one is another representation, of the same meaning.
fn describe(headers: &mut HeaderMap) {
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::ACCEPT_RANGES);
    for digest in &DIGESTS {
        headers.remove(digest);
    }
    let strong = headers.get(header::ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/"));
    let weak = strong.map(|tag| HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()));
    match weak {
        Some(Ok(weak)) => drop(headers.insert(header::ETAG, weak)),
        Some(Err(_)) => drop(headers.remove(header::ETAG)),
        None => {}
    }
}

/// The data of a body as a stream; its trailers wait beside it.
struct Data {
    body: ResponseBody,
    trailers: Option<HeaderMap>,
}

impl Stream for Data {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(Some(Err(io::Error::other(error)))),
                None => return Poll::Ready(None),
            };
            match frame.into_data() {
                Ok(data) => return Poll::Ready(Some(Ok(data))),
                Err(frame) => self.trailers = frame.into_trailers().ok(),
            }
        }
    }
}

type Source = StreamReader<Data, Bytes>;

/// Boxed: what an encoder remembers is large.
enum Encoder {
    Brotli(Box<BrotliEncoder<Source>>),
    Gzip(Box<GzipEncoder<Source>>),
    Zstd(Box<ZstdEncoder<Source>>),
}

impl Encoder {
    fn new(coding: Coding, source: Source) -> Self {
        match coding {
            Coding::Brotli => {
                let window = EncoderParams::default().window_size(WINDOW_BITS as i32);
                let params = window.quality(Level::Precise(4));
                Self::Brotli(Box::new(BrotliEncoder::with_params(source, params)))
            }
            Coding::Gzip => {
                Self::Gzip(Box::new(GzipEncoder::with_quality(source, Level::Precise(5))))
            }
            Coding::Zstd => {
                let window = [CParameter::window_log(WINDOW_BITS)];
                let level = Level::Precise(3);
                let encoder = ZstdEncoder::with_quality_and_params(source, level, &window);
                Self::Zstd(Box::new(encoder))
            }
        }
    }

    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Brotli(encoder) => poll_read_buf(Pin::new(&mut **encoder), context, buffer),
            Self::Gzip(encoder) => poll_read_buf(Pin::new(&mut **encoder), context, buffer),
            Self::Zstd(encoder) => poll_read_buf(Pin::new(&mut **encoder), context, buffer),
        }
    }

    fn trailers(&mut self) -> Option<HeaderMap> {
        let source = match self {
            Self::Brotli(encoder) => encoder.get_mut(),
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
        };
        source.get_mut().trailers.take()
    }
}

/// A compressed body.
struct Encoded {
    encoder: Encoder,
    buffer: BytesMut,
    ended: bool,
}

impl Encoded {
    fn new(coding: Coding, body: ResponseBody) -> Self {
        let source = StreamReader::new(Data { body, trailers: None });
        Self { encoder: Encoder::new(coding, source), buffer: BytesMut::new(), ended: false }
    }
}

impl Body for Encoded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self { encoder, buffer, ended } = &mut *self;
        if *ended {
            return Poll::Ready(encoder.trailers().map(|trailers| Ok(Frame::trailers(trailers))));
        }
        buffer.reserve(CHUNK);
        match ready!(encoder.poll_read(context, buffer)) {
            Ok(0) => {
                *ended = true;
                Poll::Ready(encoder.trailers().map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Ok(_) => Poll::Ready(Some(Ok(Frame::data(buffer.split().freeze())))),
            Err(error) => {
                *ended = true;
                Poll::Ready(Some(Err(error.downcast().unwrap_or_else(BodyError::Coding))))
            }
        }
    }
}

#[cfg(test)]
mod tests;
