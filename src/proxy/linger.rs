//! Bodies of requests that are refused while they are still on their way. A client may not look at the answer before it
//! has sent everything, and takes a connection that breaks off for the answer: so what it sends is read and thrown away,
//! for a moment.

use std::pin::Pin;
use std::time::Duration;

use bytes::Buf;
use http::Request;
use http::header;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

/// No longer than this,
const LONGEST: Duration = Duration::from_secs(5);
/// no more octets,
const MOST_OCTETS: usize = 16 * 1024 * 1024;
/// and no more frames than this, as which each read of HTTP/1.1 counts.
const MOST_FRAMES: usize = 4096;

/// Reads on what belongs to a refused request.
pub(super) fn linger(request: Request<Incoming>) {
    // Who waits to be asked for a body sends none, and is not to be asked.
    if !request.body().is_end_stream() && !request.headers().contains_key(header::EXPECT) {
        throw_away(request.into_body());
    }
}

/// Reads on, whatever a frame is or why it is none.
pub(super) fn throw_away<B>(body: B)
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Send,
{
    tokio::spawn(tokio::time::timeout(LONGEST, discard(body)));
}

async fn discard<B: Body + Unpin>(mut body: B) {
    let mut octets = 0;
    for _ in 0..MOST_FRAMES {
        let Some(frame) = Pin::new(&mut body).frame().await else { return };
        octets += frame.ok().and_then(|frame| Some(frame.data_ref()?.remaining())).unwrap_or(0);
        if octets >= MOST_OCTETS {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll};

    use bytes::Bytes;
    use hyper::body::Frame;

    use super::*;

    /// A body that counts how often it was read.
    struct Counted(Arc<AtomicUsize>, VecDeque<Option<Frame<Bytes>>>);

    impl Body for Counted {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.0.fetch_add(1, Ordering::SeqCst);
            let endless = || Some(Frame::data(Bytes::from_static(b"x")));
            Poll::Ready(self.1.pop_front().unwrap_or_else(endless).map(Ok))
        }
    }

    #[tokio::test]
    async fn it_is_read_to_its_end_but_not_for_ever() {
        let long = || Some(Frame::data(Bytes::from(vec![0; MOST_OCTETS / 2])));
        for (frames, read) in
            [(vec![None], 1), (vec![long(), long()], 2), (Vec::new(), MOST_FRAMES)]
        {
            let count = Arc::new(AtomicUsize::new(0));
            discard(Counted(count.clone(), frames.into())).await;
            assert_eq!(count.load(Ordering::SeqCst), read);
        }
    }
}
