//! One request on one connection, up to the head of its answer.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tokio::time::Instant;

use super::super::body::RequestBody;
use super::super::deadline::Deadline;
use super::error::UpstreamError;
use super::lease::{Busy, Held};
use super::message::Message;
use super::pool::Line;

/// Why there is no answer on this connection.
pub(super) enum Failure {
    /// Nothing was sent: the message is where it was.
    Unsent,
    Failed(UpstreamError),
}

/// Where to, and how long it may take until the answer begins.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    pub(super) address: SocketAddr,
    pub(super) tls: bool,
    pub(super) limit: Duration,
}

/// The answer's head, and what the connection is busy with.
pub(super) type Answered = (Response<Incoming>, Busy);

/// Who wants a body says so at once, and who does not know of it never does.
const WANTED_WITHIN: Duration = Duration::from_secs(1);

/// Sends a message, if there is one.
pub(super) async fn send(
    line: Line,
    unsent: &mut Option<Message>,
    terms: Terms,
) -> Result<Answered, Failure> {
    // A message that is looked at once it is out has room in the future.
    let body = unsent.as_ref().map(|message| message.body.clone());
    let (Some(body), Some(message)) = (body, unsent.take()) else { return Err(Failure::Unsent) };
    match line {
        Line::One(mut one) => {
            let way_back = &one.way_back;
            let end = |end, context: &mut Context<'_>| way_back.poll_end(end, context);
            let sent = pin!(one.sender.try_send_request(message.over_http1()));
            let response = patient(sent, unsent, &body, terms, end).await?;
            // What was switched to is no connection for requests.
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                one.give_back();
            }
            Ok((response, Busy::Alone { _held: Held::of(body) }))
        }
        Line::Shared(mut sender, stream) => {
            body.gate().open();
            let request = message.over_http2(terms.tls).map_err(Failure::Failed)?;
            let sent = pin!(sender.try_send_request(request));
            let mut deadline = Deadline::default();
            let end = |end, context: &mut Context<'_>| deadline.poll(end, context);
            let response = patient(sent, unsent, &body, terms, end).await?;
            Ok((response, Busy::Shared { _stream: stream }))
        }
    }
}

/// Waits for the head of an answer, as long as the request's body moves.
async fn patient(
    mut sent: Pin<&mut impl Future<Output = Sent>>,
    unsent: &mut Option<Message>,
    body: &RequestBody,
    terms: Terms,
    mut poll_end: impl FnMut(Instant, &mut Context<'_>) -> Poll<()>,
) -> Result<Response<Incoming>, Failure> {
    if body.gate().is_held() {
        let wanted = tokio::time::timeout(WANTED_WITHIN.min(terms.limit), &mut sent).await;
        match wanted {
            Ok(answer) => return answer.map_err(|error| failure(error, unsent, terms.address)),
            Err(_) => body.gate().open(),
        }
    }
    loop {
        let end = Instant::now().checked_add(terms.limit);
        let answer = poll_fn(|context| match (sent.as_mut().poll(context), end) {
            (Poll::Ready(answer), _) => Poll::Ready(Some(answer)),
            (Poll::Pending, Some(end)) => poll_end(end, context).map(|()| None),
            (Poll::Pending, None) => Poll::Pending,
        });
        match answer.await {
            Some(Ok(response)) => return Ok(response),
            Some(Err(error)) => return Err(failure(error, unsent, terms.address)),
            None if body.has_moved() => {}
            // It may be waiting for the client as we are.
            None if body.is_awaited() => {
                return Err(Failure::Failed(UpstreamError::Unfinished(terms.address)));
            }
            None => return Err(Failure::Failed(UpstreamError::ResponseTimeout(terms.address))),
        }
    }
}

type Sent = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>;

fn failure(
    mut error: TrySendError<Request<RequestBody>>,
    unsent: &mut Option<Message>,
    address: SocketAddr,
) -> Failure {
    match error.take_message().map(Message::back) {
        Some(Ok(message)) => {
            *unsent = Some(message);
            Failure::Unsent
        }
        Some(Err(error)) => Failure::Failed(error),
        None => Failure::Failed(UpstreamError::of(error.error(), address)),
    }
}
