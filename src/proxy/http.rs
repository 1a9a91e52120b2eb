//! One request, from its head to its access record: a straight line.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use rustls::pki_types::UnixTime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::accept::{Accept, prefers_json};
use super::authorize::{Admission, Case};
use super::body::{RequestBody, ResponseBody, Watched, full, unsent};
use super::connection::{Connection, OpenRequest};
use super::forwarded::{Arrival, shown};
use super::grpc::{self, is_grpc};
use super::hops::{Origin, REQUEST_ID};
use super::linger::{linger, throw_away};
use super::rejection::Rejection;
use super::request_ids::RequestIds;
use super::settings::ListenerSettings;
use super::trace::Trace;
use super::traffic::{self, Bounds, Cut, RateLimits, Returning};
use super::upgrade::{ClientEnd, is_websocket, tunnel};
use super::upstream::{Answer, Destination, Upstream, UpstreamError};
use super::visit::{Recorded, Visit};
use super::watch::{Permitted, ended};
use super::{extended_connect, headers};
use crate::lookup::Lookups;
use crate::snapshot::{PathPattern, Route, RouteSettings, Snapshot, SnapshotStore};
use crate::telemetry::{AccessLog, Metrics};

/// So many times the streams of a connection come at most before its client can know that no more are wanted.
const UNTOLD: usize = 8;

/// What every request needs.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) store: Arc<SnapshotStore>,
    pub(super) lookups: Arc<Lookups>,
    pub(super) upstream: Upstream,
    pub(super) metrics: Arc<Metrics>,
    pub(super) log: AccessLog,
    /// Who has asked how often.
    pub(super) rate_limits: Arc<RateLimits>,
    /// Where http is redirected to.
    pub(super) https_port: u16,
    /// Upgraded connections, which the server waits for as for others.
    pub(super) tunnels: TaskTracker,
    /// Set once every connection is to end with its next request.
    pub(super) leaving: CancellationToken,
    /// Ends them when the server does.
    pub(super) stop: CancellationToken,
    pub(super) settings: ListenerSettings,
    pub(super) request_ids: Arc<RequestIds>,
}

impl Line {
    /// Answers a request.
    pub(super) async fn handle(
        self: Arc<Self>,
        connection: Arc<Connection>,
        mut request: Box<Request<Incoming>>,
    ) -> Result<Response<Recorded>, Infallible> {
        if self.leaving.is_cancelled() || self.is_last(&connection) {
            connection.closing.cancel();
        }
        if self.is_too_many(&connection) {
            connection.cut.cancel();
        }
        let snapshot = self.store.load();
        let Begun { mut visit, request_id, led } = self.begin(&snapshot, &connection, &mut request);
        let (accept, version) = (Accept::of(request.headers()), request.version());
        let (grpc, head) = (is_grpc(&request), request.method() == Method::HEAD);
        let answer = match led {
            Ok(Led::To(exchange, place)) => self.answer(exchange, place, request, &mut visit).await,
            Ok(Led::Answer(response)) => Ok(response),
            Err(rejection) => {
                linger(*request);
                Err(rejection)
            }
        };
        let mut response = match answer {
            Ok(response) => response,
            Err(rejection) => {
                visit.rejected(&rejection);
                if rejection.ends_connection {
                    connection.end();
                }
                let (code, title) = (rejection.code, rejection.title);
                let refused = rejection.into_response(accept.prefers_json(), &request_id);
                if grpc { grpc::refusal(refused, code, title) } else { refused }
            }
        };
        if connection.closing.is_cancelled()
            && version <= Version::HTTP_11
            && !is_switching(&response)
        {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            connection.told.store(true, Ordering::Release);
        }
        let response = if head { unsent(response) } else { response };
        Ok(response.map(|body| Recorded::new(body, visit)))
    }

    /// Whether the connection has carried as many requests as it may.
    fn is_last(&self, connection: &Connection) -> bool {
        let most = self.settings.limits.requests_per_connection;
        most != 0 && connection.requests.begun() + 1 >= most
    }

    /// Whether a client goes on over HTTP/2 as if it had not been told to go. No more than the streams it may have are on
    /// their way when it is told, but that may be a moment later, and whoever does as it is told loses nothing.
    fn is_too_many(&self, connection: &Connection) -> bool {
        let limits = &self.settings.limits;
        let meanwhile = (limits.http2.streams as usize).saturating_mul(UNTOLD);
        let most = limits.requests_per_connection.saturating_add(meanwhile);
        limits.requests_per_connection != 0 && connection.requests.begun() >= most
    }

    fn receive(&self, connection: &Connection, headers: &HeaderMap) -> Received {
        let (peer, https) = (connection.client, connection.tls.is_some());
        let origin = Origin::of(peer, https, headers, &self.settings.hops);
        let number = self.request_ids.next();
        let unique = self.request_ids.name(number);
        let request_id = origin.request_id.clone().unwrap_or_else(|| unique.clone());
        let trace = self.settings.trace.as_ref().map(|settings| {
            Trace::of(headers, origin.believed, self.request_ids.trace(number), settings)
        });
        Received { origin, request_id, unique, trace }
    }

    /// Its record begins, and its way is found.
    fn begin<'s>(
        &self,
        snapshot: &'s Arc<Snapshot>,
        connection: &Arc<Connection>,
        request: &mut Request<Incoming>,
    ) -> Begun<'s> {
        let received = self.receive(connection, request.headers());
        let request_id = received.request_id.clone();
        let mut visit = Box::new(Visit::begin(
            connection,
            &received.origin,
            request,
            &request_id,
            self.log.clone(),
            self.metrics.clone(),
        ));
        if let (Some(trace), Some(settings)) = (&received.trace, &self.settings.trace) {
            visit.traced(trace.context, settings.spans.as_ref());
        }
        let read = extended_connect::read(request).map_err(Rejection::from);
        let led =
            read.and_then(|()| self.lead(snapshot, connection, request, received, &mut visit));
        Begun { visit, request_id, led }
    }

    /// Where a request goes.
    fn lead<'s>(
        &self,
        snapshot: &'s Arc<Snapshot>,
        connection: &Arc<Connection>,
        request: &Request<Incoming>,
        received: Received,
        visit: &mut Visit,
    ) -> Result<Led<'s>, Rejection> {
        if request.headers().len() > self.settings.limits.head_fields {
            return Err(Rejection::too_many_fields());
        }
        let Received { origin, request_id, unique, trace } = received;
        let case = Case::new(connection.clone(), request, &origin, snapshot)?;
        // To a CONNECT, 200 says that a tunnel is there.
        let may_publish = extended_connect::of(request).is_none();
        if may_publish && let Some(keys) = case.published_keys(snapshot, request.method()) {
            visit.published(200);
            return Ok(Led::Answer(jwk_set(&keys, &request_id)));
        }
        let place = case.route(snapshot)?;
        let settings = &place.1.settings;
        let client =
            if origin.believed { shown(origin.client.ip()) } else { connection.shown.clone() };
        let arrival = Arrival {
            origin,
            client,
            host: case.head.host.clone(),
            host_sent: settings.rewrite.host.clone(),
            request_id,
            unique,
            at: visit.begun(),
            forwarded: self.settings.hops.forwarded,
            trace,
        };
        let (snapshot, case, bounds) = (snapshot.clone(), Arc::new(case), Bounds::of(settings));
        let mut exchange = Box::new(Exchange { snapshot, case, arrival, bounds, returning: None });
        match self.arrived(settings, &exchange, request)? {
            Arrived::Request(returning) => {
                exchange.returning = returning;
                Ok(Led::To(exchange, place))
            }
            Arrived::Preflight(fields) => {
                visit.published(204);
                Ok(Led::Answer(no_content(fields, &exchange.arrival.request_id)))
            }
        }
    }

    async fn answer(
        &self,
        mut exchange: Box<Exchange>,
        place: (&PathPattern, &Route),
        mut request: Box<Request<Incoming>>,
        visit: &mut Visit,
    ) -> Result<Response<ResponseBody>, Rejection> {
        let returning = exchange.returning.take();
        let admitted = tokio::select! {
            biased;
            admitted = self.admit(&exchange, place, &mut request, visit) => admitted,
            () = traffic::late(exchange.bounds.as_ref()) => Err(Cut::Late.into()),
        };
        let answer = match admitted {
            Ok(admission) => self.forward(&exchange, admission, request, visit).await,
            Err(rejection) => {
                linger(*request);
                Err(rejection)
            }
        };
        match (returning, answer) {
            (None, answer) => answer,
            (Some(returning), Ok(response)) => Ok(returning.answer(response)),
            (Some(returning), Err(rejection)) => Err(rejection.returning(returning)),
        }
    }

    /// What the route does before anybody asks who is calling.
    fn arrived(
        &self,
        settings: &Arc<RouteSettings>,
        Exchange { case, arrival, .. }: &Exchange,
        request: &Request<Incoming>,
    ) -> Result<Arrived, Rejection> {
        if settings.name.is_empty() {
            return Ok(Arrived::Request(None));
        }
        let json = !settings.error_pages.is_empty() && prefers_json(request.headers());
        let returning = Box::new(Returning::of(settings.clone(), request, json));
        match traffic::arrived(settings, &arrival.origin, request, &self.rate_limits) {
            Ok(Some(fields)) => Ok(Arrived::Preflight(fields)),
            Ok(None) => Ok(Arrived::Request(Some(returning))),
            Err(rejection) => Err(self.redirected(rejection, case, request).returning(returning)),
        }
    }

    /// Who is calling; and the request as the backend gets it.
    async fn admit(
        &self,
        Exchange { snapshot, case, arrival, .. }: &Exchange,
        (matched, route): (&PathPattern, &Route),
        request: &mut Request<Incoming>,
        visit: &mut Visit,
    ) -> Result<Admission, Rejection> {
        let (admission, trace) = case.pass(route, snapshot, &self.lookups, arrival.at).await;
        let admission = admission.map_err(|rejection| {
            let policy = route.guard.policies().first();
            visit.refused(&rejection, policy.map(|policy| &policy.name), &trace);
            self.redirected(rejection, case, request)
        })?;
        visit.admitted(&admission.permit);
        let Admission { permit, settings, .. } = &admission;
        if !settings.name.is_empty() {
            let (origin, limits) = (&arrival.origin, &self.rate_limits);
            traffic::admitted(settings, permit, origin, matched, request, limits)?;
        }
        Ok(admission)
    }

    async fn forward(
        &self,
        Exchange { snapshot, case, arrival, bounds, .. }: &Exchange,
        Admission { permit, backend, settings }: Admission,
        mut request: Box<Request<Incoming>>,
        visit: &mut Visit,
    ) -> Result<Response<ResponseBody>, Rejection> {
        let (store, lookups) = (self.store.clone(), self.lookups.clone());
        let permitted = Permitted::new(case.clone(), &permit, snapshot.generation, store, lookups);
        let extended = extended_connect::of(&request).is_some();
        let upgrade = is_websocket(&request).then(|| hyper::upgrade::on(&mut *request));
        let sending = permitted.watch_over(request.body());
        let bound = bounds.as_ref().map(Bounds::sending);
        let vigil = permitted.vigil(request.body(), sending.clone());
        let (parts, body) = request.into_parts();
        let is_whole = body.is_end_stream();
        let body = RequestBody::new(Watched::new(body, vigil, bound), snapshot.clone());
        let kept = (!is_whole).then(|| body.clone());
        let request = Request::from_parts(parts, body);
        let identity = &snapshot.identity_headers;
        let destination = Destination { backend: &backend, settings: &settings };
        let answer = tokio::select! {
            // An ended permit breaks the body off as well, and is the reason.
            biased;
            () = ended(sending.as_ref()) => Err(self.refusal(case).await),
            () = traffic::late(bounds.as_ref()) => Err(Cut::Late.into()),
            answer = self.upstream.forward(permit, request, destination, arrival, identity) => match answer {
                Err(_) if kept.as_ref().is_some_and(RequestBody::is_over) => Err(self.refusal(case).await),
                answer => answer.map_err(|error| {
                    let cut = bounds.as_ref().and_then(Bounds::cut);
                    cut.map_or_else(|| error.into(), Rejection::from)
                }),
            },
        };
        let Answer { mut response, endpoint } = answer.inspect_err(|_| {
            if let Some(rest) = kept.and_then(RequestBody::rest) {
                throw_away(rest);
            }
        })?;
        visit.answered(response.status().as_u16(), endpoint);
        if is_switching(&response) {
            let client = upgrade.ok_or(UpstreamError::Unasked(endpoint))?;
            let patience = &case.connection.patience;
            let patience = if extended { patience.apart() } else { patience.clone() };
            let client = ClientEnd::new(client, patience);
            let backend = hyper::upgrade::on(&mut response);
            let idle = settings.timeouts.idle.unwrap_or_else(|| self.upstream.tunnel_limit());
            let stop = self.stop.clone();
            let carried = tunnel(client, backend, permitted.watch(), stop, idle);
            headers::to_client(&mut response, &arrival.request_id, !extended);
            if extended {
                extended_connect::answer(&mut response);
            }
            let (head, busy) = response.into_parts();
            // Until it ends the connection is not idle and keeps its place, and the endpoint counts as busy.
            let open = OpenRequest::continued(case.connection.clone());
            self.tunnels.spawn(async move {
                carried.await;
                drop((open, busy));
            });
            return Ok(Response::from_parts(head, full("")));
        }
        headers::to_client(&mut response, &arrival.request_id, false);
        let receiving = sending.or_else(|| permitted.watch_over(response.body()));
        let vigil = permitted.vigil(response.body(), receiving);
        let bounds = bounds.as_ref().filter(|_| !response.body().is_end_stream());
        let bound = bounds.map(|bounds| {
            let connection = case.connection.clone();
            bounds.receiving(move || connection.clone().stuck())
        });
        Ok(response.map(|body| Watched::new(body, vigil, bound).boxed()))
    }

    /// Why a permit that held no longer does.
    async fn refusal(&self, case: &Case) -> Rejection {
        let (admission, _) =
            case.authorize(&self.store.load(), &self.lookups, UnixTime::now()).await;
        admission.err().unwrap_or_else(|| Rejection::misdirected(true))
    }

    /// The answer to http where the policy says so.
    fn redirected(
        &self,
        rejection: Rejection,
        case: &Case,
        request: &Request<Incoming>,
    ) -> Rejection {
        if !rejection.to_https {
            return rejection;
        }
        // Behind a port mapping the client's port says nothing of ours: then https has its usual one.
        let written = case.head.host.to_str().unwrap_or_default();
        let mapped = !written.ends_with(&format!(":{}", case.connection.local.port()));
        let port = if mapped || self.https_port == 443 {
            String::new()
        } else {
            format!(":{}", self.https_port)
        };
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        rejection.redirected(format!("https://{}{port}{target}", case.host))
    }
}

/// Keys may be kept a while: those to come are published long before they sign.
fn jwk_set(keys: &Arc<str>, request_id: &HeaderValue) -> Response<ResponseBody> {
    let mut response = Response::new(full(keys.to_string()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    headers.insert(REQUEST_ID, request_id.clone());
    response
}

/// The answer to a preflight.
fn no_content(mut fields: HeaderMap, request_id: &HeaderValue) -> Response<ResponseBody> {
    fields.insert(REQUEST_ID, request_id.clone());
    let mut response = Response::new(full(""));
    *response.status_mut() = StatusCode::NO_CONTENT;
    *response.headers_mut() = fields;
    response
}

/// A request whose way is known, if there is one.
struct Begun<'s> {
    visit: Box<Visit>,
    request_id: HeaderValue,
    led: Result<Led<'s>, Rejection>,
}

/// Where a request goes.
enum Led<'s> {
    /// Nowhere: certmap has the answer itself.
    Answer(Response<ResponseBody>),
    /// To a route, by the pattern that its path matched.
    To(Box<Exchange>, (&'s PathPattern, &'s Route)),
}

/// What a request is, once it has arrived at its route.
enum Arrived {
    /// The fields of its answer.
    Preflight(HeaderMap),
    /// And what becomes of its answer.
    Request(Option<Box<Returning>>),
}

/// What is known of a request before anything is decided.
struct Received {
    origin: Origin,
    request_id: HeaderValue,
    unique: HeaderValue,
    trace: Option<Trace>,
}

/// A request on its way to a backend, in a place of its own: each future that it is handed to would have room for it.
struct Exchange {
    snapshot: Arc<Snapshot>,
    case: Arc<Case>,
    arrival: Arrival,
    bounds: Option<Bounds>,
    /// What becomes of its answer.
    returning: Option<Box<Returning>>,
}

fn is_switching<B>(response: &Response<B>) -> bool {
    response.status() == StatusCode::SWITCHING_PROTOCOLS
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests under way are many, and what they touch is to stay near the processor.
    #[test]
    fn a_request_takes_little_room() {
        fn room<F>(_: impl Fn(Arc<Line>, Arc<Connection>, Box<Request<Incoming>>) -> F) -> usize {
            size_of::<F>()
        }
        assert!(room(Line::handle) <= 3584, "{}", room(Line::handle));
    }
}
