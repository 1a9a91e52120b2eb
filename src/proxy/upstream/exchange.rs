//! One request on one connection, up to the head of its answer.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;

use super::super::body::RequestBody;
use super::error::UpstreamError;
use super::lease::{Busy, Held};
use super::message::Message;
use super::pool::Line;

/// Why there is no answer on this connection.
pub(super) enum Failure {
    /// Nothing was sent.
    Unsent(Message),
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

/// Sends a message.
pub(super) async fn send(line: Line, message: Message, terms: Terms) -> Result<Answered, Failure> {
    let body = message.body.clone();
    match line {
        Line::One(mut one) => {
            let sent = pin!(one.sender.try_send_request(message.over_http1()));
            let response = patient(sent, &body, terms).await?;
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
            let response = patient(sent, &body, terms).await?;
            Ok((response, Busy::Shared { _stream: stream }))
        }
    }
}

/// Waits for the head of an answer, as long as the request's body moves.
async fn patient(
    mut sent: Pin<&mut impl Future<Output = Sent>>,
    body: &RequestBody,
    terms: Terms,
) -> Result<Response<Incoming>, Failure> {
    if body.gate().is_held() {
        let wanted = tokio::time::timeout(WANTED_WITHIN.min(terms.limit), &mut sent).await;
        match wanted {
            Ok(answer) => return answer.map_err(|error| failure(error, terms.address)),
            Err(_) => body.gate().open(),
        }
    }
    loop {
        match tokio::time::timeout(terms.limit, &mut sent).await {
            Ok(Ok(response)) => return Ok(response),
            Ok(Err(error)) => return Err(failure(error, terms.address)),
            Err(_) if body.has_moved() => {}
            // It may be waiting for the client as we are.
            Err(_) if body.is_awaited() => {
                return Err(Failure::Failed(UpstreamError::Unfinished(terms.address)));
            }
            Err(_) => return Err(Failure::Failed(UpstreamError::ResponseTimeout(terms.address))),
        }
    }
}

type Sent = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>;

fn failure(mut error: TrySendError<Request<RequestBody>>, address: SocketAddr) -> Failure {
    match error.take_message() {
        Some(request) => Message::back(request).map_or_else(Failure::Failed, Failure::Unsent),
        None => Failure::Failed(UpstreamError::of(error.error(), address)),
    }
}
