//! What is compressed and what is not; and that it comes out again as it went in, as it comes, with its trailers.

use std::collections::VecDeque;
use std::future::poll_fn;

use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZstdDecoder};
use tokio::io::AsyncReadExt as _;

use super::*;

const ALL: [Coding; 3] = [Coding::Brotli, Coding::Gzip, Coding::Zstd];

fn compression() -> Compression {
    let types = ["text/*".into(), "application/json".into()];
    Compression { codings: ALL.into(), types: types.into(), least: 100 }
}

fn response(body: Vec<u8>, fields: &[(&str, &str)]) -> Response<ResponseBody> {
    let mut response = Response::builder().header("content-type", "text/plain; charset=utf-8");
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response.body(full(body)).unwrap()
}

/// What can be read of it, and whether that is all.
async fn decoded(coding: Coding, body: &[u8]) -> (Vec<u8>, bool) {
    let mut out = Vec::new();
    let read = match coding {
        Coding::Brotli => BrotliDecoder::new(body).read_to_end(&mut out).await,
        Coding::Gzip => GzipDecoder::new(body).read_to_end(&mut out).await,
        Coding::Zstd => ZstdDecoder::new(body).read_to_end(&mut out).await,
    };
    (out, read.is_ok())
}

async fn frame(body: &mut ResponseBody) -> Option<Result<Frame<Bytes>, BodyError>> {
    poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await
}

/// All of its data, and its trailers.
async fn whole(mut body: ResponseBody) -> (Vec<u8>, Option<HeaderMap>) {
    let (mut data, mut trailers) = (Vec::new(), None);
    while let Some(frame) = frame(&mut body).await {
        match frame.unwrap().into_data() {
            Ok(more) => data.extend_from_slice(&more),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    (data, trailers)
}

#[tokio::test]
async fn every_coding_can_be_undone() {
    let text: Vec<u8> = (0..200_000_u32).flat_map(|n| n.to_string().into_bytes()).collect();
    for coding in ALL {
        let compressed = compress(&compression(), Some(coding), false, response(text.clone(), &[]));
        assert_eq!(compressed.headers()["content-encoding"], name(coding));
        let (data, trailers) = whole(compressed.into_body()).await;
        assert!(data.len() < text.len() / 2 && trailers.is_none(), "{coding:?}");
        assert!(decoded(coding, &data).await == (text.clone(), true), "{coding:?}");
    }
}

#[test]
fn what_was_said_of_the_body_is_said_of_the_compressed_one() {
    let fields = [
        ("content-length", "1000"),
        ("accept-ranges", "bytes"),
        ("etag", "\"x\""),
        ("content-md5", "x"),
        ("vary", "cookie"),
    ];
    let compressed =
        compress(&compression(), Some(Coding::Gzip), false, response(vec![b'x'; 1000], &fields));
    let headers = compressed.headers();
    for gone in ["content-length", "accept-ranges", "content-md5"] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
    assert_eq!(headers["etag"], "W/\"x\"");
    let vary: Vec<_> = headers.get_all("vary").iter().collect();
    assert_eq!(vary, ["cookie", "accept-encoding"]);
    let weak = response(vec![b'x'; 1000], &[("etag", "W/\"x\"")]);
    let weak = compress(&compression(), Some(Coding::Gzip), false, weak);
    assert_eq!(weak.headers()["etag"], "W/\"x\"");
}

#[test]
fn a_client_that_accepts_none_gets_it_as_it_is_and_caches_are_told() {
    let plain = compress(&compression(), None, false, response(vec![b'x'; 1000], &[]));
    assert_eq!(plain.headers()["vary"], "accept-encoding");
    assert!(!plain.headers().contains_key("content-encoding"));
}

#[test]
fn what_may_not_be_is_left_alone() {
    let long = || vec![b'x'; 1000];
    let left = |response| {
        let response = compress(&compression(), Some(Coding::Gzip), false, response);
        let headers = response.headers();
        !headers.contains_key("vary")
            && headers.get("content-encoding") != Some(&"gzip".parse().unwrap())
    };
    assert!(!left(response(long(), &[])));
    assert!(left(response(vec![b'x'; 99], &[])), "too short");
    assert!(left(response(Vec::new(), &[])));
    assert!(left(response(long(), &[("content-encoding", "br")])));
    assert!(left(response(long(), &[("content-range", "bytes 0-1/3")])));
    assert!(left(response(long(), &[("cache-control", "public, No-Transform")])));
    for status in [204, 206] {
        let mut response = response(long(), &[]);
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        assert!(left(response), "{status}");
    }
}

#[test]
fn what_has_no_content_to_send_says_what_it_would_say_of_it() {
    let alone = |status: u16, head: bool, fields: &[(&str, &str)]| {
        let mut response = response(Vec::new(), &[&[("etag", "\"x\"")], fields].concat());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        let response = compress(&compression(), Some(Coding::Gzip), head, response);
        assert!(response.body().is_end_stream());
        let headers = response.headers();
        assert_eq!(headers.contains_key("vary"), headers["etag"] == "W/\"x\"");
        assert!(!headers.contains_key("vary") || !headers.contains_key("content-length"));
        (headers.contains_key("vary"), headers.contains_key("content-encoding"))
    };
    let (yes, no) = ((true, true), (false, false));
    for (length, expected) in [("100", yes), ("99", no), ("0", no)] {
        assert_eq!(alone(200, true, &[("content-length", length)]), expected, "{length}");
    }
    assert_eq!(alone(200, true, &[]), yes);
    assert_eq!(alone(200, false, &[]), no);
    assert_eq!(alone(206, true, &[]), no);
    // A length of 0 is wrong there, and often said.
    for (length, expected) in [("100", true), ("99", false), ("0", true)] {
        let said = alone(304, false, &[("content-length", length)]);
        assert_eq!(said, (expected, false), "{length}");
    }
    assert_eq!(alone(304, false, &[("cache-control", "no-transform")]), no);
}

#[test]
fn types_count_without_parameters_and_events_only_where_they_are_named() {
    let of = |kind: &str, types: &[&str]| {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", kind.parse().unwrap());
        is_of(&types.iter().map(|kind| (*kind).into()).collect::<Vec<_>>(), &headers)
    };
    assert!(of("Text/HTML; charset=utf-8", &["text/*"]));
    assert!(of("application/json", &["text/*", "application/json"]));
    assert!(!of("application/json5", &["application/json"]));
    assert!(!of("image/png", &["text/*"]));
    assert!(!of("textual/x", &["text/*"]));
    assert!(!of("text/event-stream", &["text/*"]));
    assert!(of("text/event-stream;x=y", &["text/event-stream"]));
    assert!(!is_of(&["text/*".into()], &HeaderMap::new()));
}

/// Gives a frame, then has nothing for a moment, and so on.
struct Halting(VecDeque<Result<Frame<Bytes>, BodyError>>, bool);

impl Body for Halting {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.1 = !self.1;
        if self.1 {
            return Poll::Ready(self.0.pop_front());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

fn halting(frames: Vec<Result<Frame<Bytes>, BodyError>>) -> ResponseBody {
    Halting(frames.into(), false).boxed()
}

#[tokio::test]
async fn what_is_there_is_not_held_back() {
    for coding in ALL {
        let frames = ["data: 1\n\n", "data: 2\n\n"].map(|text| Ok(Frame::data(text.into())));
        let mut body = Encoded::new(coding, halting(frames.into())).boxed();
        let (mut sent, mut seen) = (Vec::new(), Vec::new());
        while seen.is_empty() {
            let frame = frame(&mut body).await.unwrap().unwrap();
            sent.extend_from_slice(&frame.into_data().unwrap());
            (seen, _) = decoded(coding, &sent).await;
        }
        // The first event can be read before the second one is there.
        assert_eq!(seen, b"data: 1\n\n", "{coding:?}");
    }
}

#[tokio::test]
async fn trailers_come_after_it() {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("1"));
    for coding in ALL {
        let frames = vec![Ok(Frame::data("text".into())), Ok(Frame::trailers(trailers.clone()))];
        let (data, after) = whole(Encoded::new(coding, halting(frames)).boxed()).await;
        assert_eq!(decoded(coding, &data).await, (b"text".to_vec(), true));
        assert_eq!(after.as_ref(), Some(&trailers));
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_breaks_off_compressed() {
    let frames = vec![Ok(Frame::data("text".into())), Err(BodyError::PermitEnded)];
    let mut body = Encoded::new(Coding::Gzip, halting(frames)).boxed();
    let mut last = None;
    while let Some(frame) = frame(&mut body).await {
        last = Some(frame);
    }
    assert!(matches!(last, Some(Err(BodyError::PermitEnded))), "{last:?}");
}
