//! A backend that says what it was told.

use std::convert::Infallible;

use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

const SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");

/// Answers every request with the request's own head, the user on top; `x-served-by` is `name` and the port. Ends with the
/// program.
pub async fn whoami(listener: TcpListener, name: &str) {
    let port = listener.local_addr().map_or(0, |address| address.port());
    let served_by = HeaderValue::try_from(format!("{name}:{port}"));
    let served_by = served_by.unwrap_or_else(|_| HeaderValue::from_static("whoami"));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let served_by = served_by.clone();
        tokio::spawn(async move {
            let answer = |mut request: Request<Incoming>| {
                let mut response = answer_to(&request);
                response.headers_mut().insert(SERVED_BY, served_by.clone());
                async move {
                    // An answer in the middle of a body would end the connection with octets unread: the answer can be lost
                    // with it (RFC 9112, 9.6).
                    while let Some(Ok(_)) = request.body_mut().frame().await {}
                    Ok::<_, Infallible>(response)
                }
            };
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service_fn(answer));
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a whoami connection broke");
            }
        });
    }
}

fn answer_to<B>(request: &Request<B>) -> Response<String> {
    let mut response = Response::new(text(request));
    for (name, value) in
        [("content-type", "text/plain; charset=utf-8"), ("cache-control", "no-store")]
    {
        response
            .headers_mut()
            .insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

fn text<B>(request: &Request<B>) -> String {
    let header = |name: &str| {
        request
            .headers()
            .get(name)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let user = header("x-remote-user").unwrap_or_else(|| "-".to_owned());
    let fields = request
        .headers()
        .iter()
        .map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
    let head: String = fields.collect();
    format!("user: {user}\n\n{} {}\n{head}", request.method(), request.uri())
}
