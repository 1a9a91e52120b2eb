//! The backend's side: endpoints, kept connections, one request at a time, and the permit that it takes.

mod affinity;
mod balance;
mod dial;
mod error;
mod exchange;
mod lease;
mod message;
mod pool;
mod preface;
mod retry;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, Response, Version, header, request};
use hyper::body::Body;

use super::body::RequestBody;
use super::extended_connect::Extended;
use super::forwarded::Arrival;
use super::headers;
use super::hop_by_hop::has_known_coding;
use super::upgrade::{is_unasked, is_websocket};
use crate::lookup::{NameError, NameLookup};
use crate::policy::Permit;
use crate::snapshot::{
    Backend, BackendTls, Endpoint, IdentityHeaders, Protocol, RouteSettings, Target,
};
use balance::{Choice, Scales};
use dial::Opened;
pub(super) use error::UpstreamError;
use exchange::{Answered, Failure, Terms, send};
pub(super) use lease::AnswerBody;
use lease::Lease;
use message::Message;
use pool::{Key, Line, Offer, Pool, Shelf};
use retry::Retries;

/// So many kept connections are tried before a new one is opened.
const MOST_KEPT: usize = 8;
/// So many that are new, for a request that none of them takes.
const MOST_NEW: usize = 4;

/// How long others may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Until it accepts a connection.
    pub connect: Duration,
    /// Until its response begins, counted from the last sign of life.
    pub response: Duration,
    /// How long a connection is kept without a request.
    pub idle: Duration,
    /// How long an upgraded connection is kept while nothing moves.
    pub tunnel: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            connect: seconds(5),
            response: seconds(60),
            idle: seconds(60),
            tunnel: seconds(3600),
        }
    }
}

/// Connections to backends, for all clients.
#[derive(Clone, Debug)]
pub(super) struct Upstream {
    pool: Arc<Pool>,
    names: Arc<NameLookup>,
    timeouts: Timeouts,
}

/// What a backend said, and who it was.
pub(super) struct Answer {
    pub(super) response: Response<AnswerBody>,
    pub(super) endpoint: SocketAddr,
}

/// Where a request goes, and what its route says of the way.
#[derive(Clone, Copy)]
pub(super) struct Destination<'a> {
    pub(super) backend: &'a Backend,
    pub(super) settings: &'a RouteSettings,
}

impl Upstream {
    pub(super) fn new(timeouts: Timeouts, names: Arc<NameLookup>) -> Self {
        Self { pool: Arc::new(Pool::new(timeouts.idle)), names, timeouts }
    }

    /// How long a tunnel may be silent.
    pub(super) fn tunnel_limit(&self) -> Duration {
        self.timeouts.tunnel
    }

    /// Sends a request that was permitted to one of the backend's endpoints. Where nothing has been sent yet, another
    /// endpoint is tried; what was sent is sent again only where the route says so.
    pub(super) fn forward<'a>(
        &'a self,
        permit: Box<Permit>,
        request: Request<RequestBody>,
        destination: Destination<'a>,
        arrival: &Arrival,
        identity: &IdentityHeaders,
    ) -> impl Future<Output = Result<Answer, UpstreamError>> + Send + use<'a> {
        let mut call = self.call(&permit, request, destination, arrival, identity);
        drop(permit);
        // It is borrowed from here on: what is handed on by value has room on both sides, as long as the request lasts.
        async move {
            match call {
                Ok((ref call, ref mut unsent)) => call.run(unsent).await,
                Err(error) => Err(error),
            }
        }
    }

    /// A request as the backend gets it, and on which terms.
    fn call<'a>(
        &'a self,
        permit: &Permit,
        request: Request<RequestBody>,
        destination: Destination<'a>,
        arrival: &Arrival,
        identity: &IdentityHeaders,
    ) -> Result<(Call<'a>, Option<Message>), UpstreamError> {
        let websocket = is_websocket(&request);
        let (mut parts, body) = request.into_parts();
        let expects = expects_to_be_asked(&parts);
        let (fields, service) = (&mut parts.headers, destination.backend.service());
        headers::to_backend(fields, permit, arrival, identity, service, websocket)?;
        let extended = parts.extensions.remove::<Extended>();
        extended.iter().for_each(|extended| extended.ask(fields));
        let switch = Switch { websocket, extended };
        let mut call = Call::new(self, destination, switch, arrival.origin.https)?;
        call.once = permit.forward().is_some_and(|it| it.signed_identity.is_some());
        let message = Message::new(parts, body)?;
        let message = if expects { message.expects_to_be_asked() } else { message };
        Ok((call, Some(message)))
    }

    /// Where the backend can be reached now.
    async fn endpoints<'a>(
        &self,
        backend: &'a Backend,
        limit: Duration,
    ) -> Result<Cow<'a, [Endpoint]>, UpstreamError> {
        match &backend.target {
            Target::Endpoints(endpoints) => Ok(Cow::Borrowed(endpoints)),
            Target::Name(name, port) => {
                let found = tokio::time::timeout(limit, self.names.find(name, *port));
                // Large, and not every backend is a name.
                let found = Box::pin(found).await.unwrap_or(Err(NameError::NoAnswer))?;
                Ok(found.into_iter().map(Endpoint::new).collect())
            }
            Target::Unsupported => Err(UpstreamError::Unsupported),
        }
    }
}

/// What became of a request at one endpoint.
enum Outcome {
    Answered(Answered, SocketAddr),
    /// Nothing was sent: the message is where it was.
    Unreached(UpstreamError),
    Failed(UpstreamError),
}

/// The switch of protocols that the client asks for.
struct Switch {
    websocket: bool,
    extended: Option<Extended>,
}

impl Switch {
    /// Whether an answer may be shown.
    fn permits<B>(&self, response: &Response<B>, by: SocketAddr) -> Result<(), UpstreamError> {
        if is_unasked(response, self.websocket) {
            return Err(UpstreamError::Unasked(by));
        }
        match &self.extended {
            Some(extended) if !extended.believes(response) => Err(UpstreamError::Unswitched(by)),
            _ => Ok(()),
        }
    }
}

/// One request's terms.
struct Call<'a> {
    upstream: &'a Upstream,
    destination: Destination<'a>,
    offer: Offer,
    switch: Switch,
    https: bool,
    /// It holds a token by which a backend knows a request that it has seen (`jti`): it is not sent twice.
    once: bool,
    connect: Duration,
    response: Duration,
}

impl<'a> Call<'a> {
    fn new(
        upstream: &'a Upstream,
        destination: Destination<'a>,
        switch: Switch,
        https: bool,
    ) -> Result<Self, UpstreamError> {
        let (settings, timeouts) = (destination.settings, &upstream.timeouts);
        let tls = settings.backend_tls.as_deref();
        let offer = offer(destination.backend.protocol, tls, switch.websocket)?;
        let connect = settings.timeouts.connect.unwrap_or(timeouts.connect);
        let response = settings.timeouts.response.unwrap_or(timeouts.response);
        Ok(Self { upstream, destination, offer, switch, https, once: false, connect, response })
    }

    /// One endpoint after the other, until there is an answer, or an end that stays. The message is taken once it is sent.
    async fn run(&self, unsent: &mut Option<Message>) -> Result<Answer, UpstreamError> {
        let Destination { backend, settings } = self.destination;
        let endpoints = self.upstream.endpoints(backend, self.connect).await?;
        let scales = self.scales(&endpoints);
        let known = self.known(&endpoints, unsent.as_ref());
        let mut choice = Choice::new(scales, known);
        let may_repeat = self.may_repeat(unsent.as_ref());
        let mut retries = Retries::new(settings.retry.as_ref(), &backend.state, may_repeat);
        let mut ended = Err(UpstreamError::NoEndpoints);
        while let Some((index, endpoint)) = choice.next() {
            // Seldom needed, and large.
            let spare = unsent.as_ref().filter(|_| retries.are_left());
            let spare = spare.map(|message| Box::new(message.copy()));
            let lease = Lease::on(&endpoint.state);
            let outcome = self.at(endpoint, unsent).await;
            if let Some(failed) = outcome.failed() {
                scales.report(endpoint, failed, balance::now);
            }
            let status = match outcome {
                Outcome::Unreached(error) => {
                    ended = Err(error);
                    continue;
                }
                Outcome::Answered(answered, address) => {
                    let cookie_for = (known != Some(index)).then_some(endpoint);
                    let answer = self.answer(answered, lease, address, cookie_for)?;
                    let status = answer.response.status();
                    ended = Ok(answer);
                    status
                }
                Outcome::Failed(error) => {
                    let status = error.status();
                    ended = Err(error);
                    status
                }
            };
            match spare.filter(|_| retries.again(status.as_u16())) {
                Some(spare) => *unsent = Some(*spare),
                None => return ended,
            }
            choice.again(balance::now());
        }
        ended
    }

    fn scales<'s>(&self, endpoints: &'s [Endpoint]) -> Scales<'s>
    where
        'a: 's,
    {
        let Destination { backend, settings } = self.destination;
        Scales {
            endpoints,
            state: &backend.state,
            heaviest: backend.heaviest,
            balance: &settings.balance,
            now: balance::now(),
        }
    }

    /// Whether a request that was sent may be sent again.
    fn may_repeat(&self, message: Option<&Message>) -> bool {
        !self.once && message.is_some_and(Message::is_repeatable)
    }

    /// The endpoint that the client was at before.
    fn known(&self, endpoints: &[Endpoint], message: Option<&Message>) -> Option<usize> {
        let Destination { backend, settings } = self.destination;
        let affinity = settings.balance.affinity.as_ref()?;
        affinity::preferred(affinity, backend, endpoints, message?.headers())
    }

    async fn at(&self, endpoint: &Endpoint, unsent: &mut Option<Message>) -> Outcome {
        let mut failure = UpstreamError::NoEndpoints;
        for address in &endpoint.addresses {
            match self.reach(address, unsent).await {
                Outcome::Unreached(error) => failure = error,
                outcome => return outcome,
            }
        }
        Outcome::Unreached(failure)
    }

    /// Kept connections first. One that breaks under a request that may be repeated was closed while nobody looked
    /// (RFC 9112, 9.3.1): then a new one is opened.
    async fn reach(&self, address: &SocketAddr, unsent: &mut Option<Message>) -> Outcome {
        let (tls, limit) = (self.destination.settings.backend_tls.as_deref(), self.response);
        let key = Key { address: *address, tls: tls.map(|tls| tls.digest), offer: self.offer };
        let shelf = self.upstream.pool.shelf(key);
        let may_repeat = self.may_repeat(unsent.as_ref());
        let terms = Terms { address: *address, tls: tls.is_some(), limit, may_repeat };
        let mut may_share = true;
        for line in std::iter::from_fn(|| shelf.take()).take(MOST_KEPT) {
            match send(line, unsent, terms).await {
                Ok(answered) => return Outcome::Answered(answered, *address),
                Err(Failure::Unsent) => {}
                // The next one might be the same.
                Err(Failure::Refused) => {
                    may_share = false;
                    break;
                }
                Err(Failure::Failed(UpstreamError::Broken(..))) if may_repeat => break,
                Err(Failure::Failed(error)) => return Outcome::Failed(error),
            }
        }
        // Seldom needed, and large: every request would carry the room for it.
        Box::pin(self.anew(&shelf, key, terms, unsent, may_share)).await
    }

    /// On a new connection, which another request may have opened. Who opens the last one is the first on it: it is taken
    /// by whoever takes anything.
    async fn anew(
        &self,
        shelf: &Arc<Shelf>,
        key: Key,
        terms: Terms,
        unsent: &mut Option<Message>,
        mut may_share: bool,
    ) -> Outcome {
        let tls = self.destination.settings.backend_tls.as_deref();
        let mut problem = "it was closed at once";
        for left in (0..MOST_NEW).rev() {
            may_share = may_share && left > 0;
            let opened = dial::open(shelf, key, tls, self.connect, may_share).await;
            let Opened { line, is_new } = match opened {
                Ok(opened) => opened,
                Err(error) => return Outcome::Unreached(error),
            };
            let may_repeat = terms.may_repeat && !is_new;
            let is_shared = matches!(line, Line::Shared(..));
            match send(line, unsent, Terms { may_repeat, ..terms }).await {
                Ok(answered) => return Outcome::Answered(answered, key.address),
                Err(Failure::Failed(UpstreamError::Broken(..))) if may_repeat => {}
                Err(Failure::Failed(error)) => return Outcome::Failed(error),
                Err(Failure::Unsent) if is_shared => {}
                Err(Failure::Unsent) => break,
                Err(Failure::Refused) if may_share => may_share = false,
                Err(Failure::Refused) => {
                    problem = "it refuses requests";
                    break;
                }
            }
        }
        Outcome::Unreached(UpstreamError::Broken(key.address, problem.to_owned()))
    }

    fn answer(
        &self,
        (response, busy): Answered,
        lease: Lease,
        endpoint: SocketAddr,
        cookie_for: Option<&Endpoint>,
    ) -> Result<Answer, UpstreamError> {
        self.switch.permits(&response, endpoint)?;
        // What has no content is in no coding, whatever it says.
        if !response.body().is_end_stream() && !has_known_coding(response.headers()) {
            return Err(UpstreamError::Coding(endpoint));
        }
        let mut response = response.map(|body| AnswerBody::new(body, lease, busy));
        let Destination { backend, settings } = self.destination;
        let affinity = settings.balance.affinity.as_ref().zip(cookie_for);
        let cookie = affinity.and_then(|(affinity, endpoint)| {
            affinity::cookie(affinity, backend, endpoint, self.https)
        });
        if let Some(cookie) = cookie {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        Ok(Answer { response, endpoint })
    }
}

impl Outcome {
    /// Whether the endpoint failed, where it says anything of it.
    fn failed(&self) -> Option<bool> {
        match self {
            Self::Answered((response, _), _) => {
                Some(matches!(response.status().as_u16(), 502..=504))
            }
            Self::Unreached(..) => Some(true),
            Self::Failed(error) => error.is_of_the_endpoint().then_some(true),
        }
    }
}

/// Whether a client over HTTP/1.1 waits to be asked for its body. Over HTTP/2 hyper cannot ask for it.
fn expects_to_be_asked(request: &request::Parts) -> bool {
    let is_it = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    request.version == Version::HTTP_11 && request.headers.get(header::EXPECT).is_some_and(is_it)
}

/// What is offered to the backend. Where a RoutePolicy knows its CA and name, it is spoken to over TLS, whatever its
/// Service says: the other way round would be a quiet loss. A WebSocket is HTTP/1.1's.
fn offer(
    protocol: Protocol,
    tls: Option<&BackendTls>,
    websocket: bool,
) -> Result<Offer, UpstreamError> {
    if protocol.is_tls() && tls.is_none() {
        return Err(UpstreamError::NoTls);
    }
    Ok(match (protocol, tls) {
        _ if websocket => Offer::Http1,
        (Protocol::H2c | Protocol::H2, _) => Offer::Http2,
        (Protocol::Http1, None) => Offer::Http1,
        (Protocol::Http1 | Protocol::Https, _) => Offer::Either,
    })
}

#[cfg(test)]
mod tests;
