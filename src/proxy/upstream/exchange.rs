//! One request on one connection, up to the head of its answer.

use std::error::Error;
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
use super::pool::{Line, Stream};

/// Why there is no answer on this connection.
pub(super) enum Failure {
    /// Nothing was sent, or the backend has not looked at it and takes no more on this connection (RFC 9113, 6.8): the
    /// message is where it was.
    Unsent,
    /// The backend has not looked at it, and says nothing of what comes next (RFC 9113, 8.7): the message is where it was.
    Refused,
    /// A copy is where the message was, if one was asked for.
    Failed(UpstreamError),
}

/// Where to, and how long it may take until the answer begins.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    pub(super) address: SocketAddr,
    pub(super) tls: bool,
    pub(super) limit: Duration,
    /// Whether the message may be sent again even if the backend may have looked at it.
    pub(super) may_repeat: bool,
}

/// The answer's head, and what the connection is busy with.
pub(super) type Answered = (Response<Incoming>, Busy);

/// Who wants a body says so at once, and who does not know of it never does.
const WANTED_WITHIN: Duration = Duration::from_secs(1);

/// Sends a message, if there is one. Over HTTP/2 a copy stays for as long as the backend may say that it has not looked at
/// it.
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
            *unsent = terms.may_repeat.then(|| message.copy());
            let way_back = &one.way_back;
            let end = |end, context: &mut Context<'_>| way_back.poll_end(end, context);
            let sent = pin!(one.sender.try_send_request(message.over_http1()));
            let response = match patient(sent, &body, terms, end).await {
                Ok(response) => response,
                Err(lost) => return Err(lost.alone(unsent, terms.address)),
            };
            // What was switched to is no connection for requests.
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                one.give_back();
            }
            Ok((response, Busy::Alone { _held: Held::of(body) }))
        }
        Line::Shared(mut sender, stream) => {
            body.gate().open();
            *unsent = Some(message.copy());
            let request = message.over_http2(terms.tls).map_err(Failure::Failed)?;
            let sent = pin!(sender.try_send_request(request));
            let mut deadline = Deadline::default();
            let end = |end, context: &mut Context<'_>| deadline.poll(end, context);
            match patient(sent, &body, terms, end).await {
                Ok(response) => Ok((response, Busy::Shared { _stream: stream })),
                Err(lost) => Err(lost.shared(unsent, terms.address, &stream)),
            }
        }
    }
}

/// Waits for the head of an answer, as long as the request's body moves.
async fn patient(
    mut sent: Pin<&mut impl Future<Output = Sent>>,
    body: &RequestBody,
    terms: Terms,
    mut poll_end: impl FnMut(Instant, &mut Context<'_>) -> Poll<()>,
) -> Result<Response<Incoming>, Lost> {
    if body.gate().is_held() {
        let wanted = tokio::time::timeout(WANTED_WITHIN.min(terms.limit), &mut sent).await;
        match wanted {
            Ok(answer) => return answer.map_err(Lost::Broken),
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
            Some(answer) => return answer.map_err(Lost::Broken),
            None if body.has_moved() => {}
            // It may be waiting for the client as we are.
            None if body.is_awaited() => {
                return Err(Lost::Late(UpstreamError::Unfinished(terms.address)));
            }
            None => return Err(Lost::Late(UpstreamError::ResponseTimeout(terms.address))),
        }
    }
}

type Sent = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>;

/// A request that has no answer.
enum Lost {
    Broken(TrySendError<Request<RequestBody>>),
    Late(UpstreamError),
}

impl Lost {
    /// On an HTTP/1.1 connection.
    fn alone(self, unsent: &mut Option<Message>, address: SocketAddr) -> Failure {
        match self {
            Self::Late(error) => Failure::Failed(error),
            Self::Broken(mut error) => {
                if let Some(failure) = given_back(&mut error, unsent) {
                    return failure;
                }
                Failure::Failed(UpstreamError::of(error.error(), address))
            }
        }
    }

    /// On an HTTP/2 connection, of which it may be the end.
    fn shared(self, unsent: &mut Option<Message>, address: SocketAddr, stream: &Stream) -> Failure {
        let mut error = match self {
            Self::Late(error) => return Failure::Failed(error),
            Self::Broken(error) => error,
        };
        let said = Said::by(error.error());
        if said.is_the_end() {
            stream.ends_its_trunk();
        }
        if let Some(failure) = given_back(&mut error, unsent) {
            return failure;
        }
        let unprocessed = match said {
            Said::Refused => Failure::Refused,
            Said::GoesAway => Failure::Unsent,
            Said::Reset | Said::End => {
                return Failure::Failed(UpstreamError::of(error.error(), address));
            }
        };
        *unsent = unsent.take().and_then(Message::again);
        match unsent {
            Some(_) => unprocessed,
            None => Failure::Failed(UpstreamError::Refused(address)),
        }
    }
}

/// A message that hyper had not begun to send.
fn given_back(
    error: &mut TrySendError<Request<RequestBody>>,
    unsent: &mut Option<Message>,
) -> Option<Failure> {
    Some(match Message::back(error.take_message()?) {
        Ok(message) => {
            *unsent = Some(message);
            Failure::Unsent
        }
        Err(error) => Failure::Failed(error),
    })
}

/// What a stream's end says of the request on it, and of its connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Said {
    /// This request was not looked at.
    Refused,
    /// Neither this request was nor will be any that comes.
    GoesAway,
    /// It may have been looked at; the others go on.
    Reset,
    /// It may have been looked at, and so may the others.
    End,
}

impl Said {
    fn by(error: &hyper::Error) -> Self {
        let mut causes = std::iter::successors(error.source(), |cause| (*cause).source());
        // Without one hyper has closed the connection.
        let Some(error) = causes.find_map(|cause| cause.downcast_ref::<h2::Error>()) else {
            return Self::End;
        };
        match error.reason() {
            Some(h2::Reason::REFUSED_STREAM) if error.is_reset() && error.is_remote() => {
                Self::Refused
            }
            // Only streams above the last one that it names learn of it. With another reason it may be this request's
            // fault, and the next connection would end as well.
            Some(h2::Reason::NO_ERROR) if error.is_go_away() && error.is_remote() => Self::GoesAway,
            _ if error.is_go_away() || error.is_io() => Self::End,
            _ => Self::Reset,
        }
    }

    fn is_the_end(self) -> bool {
        matches!(self, Self::GoesAway | Self::End)
    }
}
