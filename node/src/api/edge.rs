//! What surrounds every call: a span, admission, a deadline, counting.
//!
//! ```text
//!  request ─▶ span ─▶ a place among max_concurrent_requests? ─▶ deadline ─▶ service ─▶ counted
//!                        └ no: RESOURCE_EXHAUSTED at once
//! ```
//! Invariant: at most so many calls are served at once, and none waits in line for that: what
//! cannot be served now is refused while the refusal is cheap. A subscription gives its place back
//! when its stream begins; subscriptions are limited apart.
//!
//! Health and reflection pass by: an overloaded node is alive, and has to be able to say so.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use braid_env::time::{self, Instant};
use http::{HeaderMap, Request, Response};
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};
use tracing::Instrument;

use super::error;
use crate::metrics::NodeMetrics;
use crate::metrics::requests::{code, method};

/// The calls that are admitted, timed and counted.
const OURS: &str = "/braid.v1.Braid/";

/// Held back from a caller's deadline, so that the answer that says so arrives in time.
const ANSWER_TIME: Duration = Duration::from_millis(20);

/// When a call's time is over; handlers find it among the request's extensions.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(pub Instant);

/// Puts [`Edge`] around a service.
#[derive(Clone)]
pub struct EdgeLayer {
    places: Arc<Semaphore>,
    deadline: Duration,
    metrics: Arc<NodeMetrics>,
}

impl EdgeLayer {
    /// Calls take of `places`; `deadline` for a call that brings none, and at most.
    pub fn new(places: Arc<Semaphore>, deadline: Duration, metrics: Arc<NodeMetrics>) -> EdgeLayer {
        EdgeLayer { places, deadline, metrics }
    }
}

impl<S> Layer<S> for EdgeLayer {
    type Service = Edge<S>;

    fn layer(&self, inner: S) -> Edge<S> {
        Edge { inner, layer: self.clone() }
    }
}

/// See the module's documentation.
#[derive(Clone)]
pub struct Edge<S> {
    inner: S,
    layer: EdgeLayer,
}

impl<S> Service<Request<Body>> for Edge<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let Some(name) = request.uri().path().strip_prefix(OURS).map(method) else {
            return Box::pin(self.inner.call(request));
        };
        let metrics = self.layer.metrics.clone();
        let Ok(place) = self.layer.places.clone().try_acquire_owned() else {
            metrics.requests.shed.increment(1);
            metrics.requests.done(name, code(tonic::Code::ResourceExhausted as i32), Duration::ZERO);
            return Box::pin(async { Ok(error::shed().into_http()) });
        };
        let started = Instant::now();
        let allowed = allowed(request.headers(), self.layer.deadline);
        request.extensions_mut().insert(Deadline(started + allowed));
        let served = self.inner.call(request);
        let call = async move {
            metrics.requests.in_flight.increment(1.0);
            let _in_flight = Leaving(&metrics);
            let response = match time::timeout(allowed, served).await {
                Ok(Ok(response)) => explained(response),
                Err(_) => error::deadline_exceeded(allowed).into_http(),
            };
            drop(place);
            metrics.requests.done(name, outcome(&response), started.elapsed());
            Ok(response)
        };
        Box::pin(call.instrument(tracing::debug_span!("call", method = name)))
    }
}

/// Counts a call out, also one whose caller went away and which was dropped.
struct Leaving<'a>(&'a NodeMetrics);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.requests.in_flight.decrement(1.0);
    }
}

/// How long the call may take: what its caller allows, but not more than this node does.
fn allowed(headers: &HeaderMap, most: Duration) -> Duration {
    let asked = headers.get("grpc-timeout").and_then(|value| value.to_str().ok()).and_then(grpc_timeout);
    asked.map_or(most, |asked| asked.saturating_sub(ANSWER_TIME.min(asked / 10)).min(most))
}

/// gRPC's form: at most eight digits and a unit.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// What tonic refused before any handler saw it has no detail yet: clients would have to take it
/// for a lost connection, and try again.
fn explained(response: Response<Body>) -> Response<Body> {
    let headers = response.headers();
    if headers.get("grpc-status").is_none_or(|code| code == "0") || headers.contains_key("grpc-status-details-bin") {
        return response;
    }
    match Status::from_header_map(headers) {
        Some(status) => error::unread(status).into_http(),
        None => response,
    }
}

/// A refusal has its code in the head; whatever has a body was OK when it began.
fn outcome(response: &Response<Body>) -> &'static str {
    let status = response.headers().get("grpc-status").and_then(|value| value.to_str().ok());
    code(status.and_then(|text| text.parse().ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use braid_proto::v1::{ErrorReason, Outcome};
    use braid_stream::ids::NodeId;
    use tokio::sync::Notify;
    use tonic::Code;
    use tower::{ServiceExt, service_fn};

    fn request(path: &str, timeout: Option<&str>) -> Request<Body> {
        let mut request = Request::builder().uri(path);
        if let Some(timeout) = timeout {
            request = request.header("grpc-timeout", timeout);
        }
        request.body(Body::empty()).unwrap()
    }

    fn layer(concurrency: usize) -> EdgeLayer {
        EdgeLayer::new(Arc::new(Semaphore::new(concurrency)), Duration::from_secs(10), NodeMetrics::new(NodeId(1)))
    }

    #[test]
    fn a_callers_deadline_counts_if_it_is_shorter() {
        let headers = |text: &str| request("/", Some(text)).into_parts().0.headers;
        let most = Duration::from_secs(10);
        assert_eq!(allowed(&HeaderMap::new(), most), most);
        assert_eq!(allowed(&headers("1S"), most), Duration::from_millis(980));
        assert_eq!(allowed(&headers("100m"), most), Duration::from_millis(90));
        assert_eq!(allowed(&headers("1H"), most), most);
        for nonsense in ["", "S", "123456789S", "1x", "-1S", "ä"] {
            assert_eq!(grpc_timeout(nonsense), None, "{nonsense}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_takes_too_long_ends_as_unknown() {
        let stuck = service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, Infallible>>());
        let response = layer(1).layer(stuck).oneshot(request("/braid.v1.Braid/PutRecord", Some("1S"))).await.unwrap();
        let status = Status::from_header_map(response.headers()).unwrap();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert_eq!(error::detail_of(&status).unwrap().outcome(), Outcome::Unknown);
    }

    #[tokio::test]
    async fn what_cannot_be_served_now_is_refused_at_once_and_health_is_not() {
        let go = Arc::new(Notify::new());
        let waits = go.clone();
        let service = layer(1).layer(service_fn(move |request: Request<Body>| {
            let waits = waits.clone();
            async move {
                if request.uri().path().starts_with(OURS) {
                    waits.notified().await;
                }
                Ok::<_, Infallible>(Response::new(Body::empty()))
            }
        }));
        let first = braid_env::task::spawn(service.clone().oneshot(request("/braid.v1.Braid/GetRecords", None)));
        while service.layer.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let second = service.clone().oneshot(request("/braid.v1.Braid/GetRecords", None)).await.unwrap();
        let status = Status::from_header_map(second.headers()).unwrap();
        let detail = error::detail_of(&status).unwrap();
        assert_eq!((status.code(), detail.reason()), (Code::ResourceExhausted, ErrorReason::Overloaded));
        assert!(detail.retryable && detail.outcome() == Outcome::Refused);
        service.clone().oneshot(request("/grpc.health.v1.Health/Check", None)).await.unwrap();
        go.notify_one();
        first.await.unwrap().unwrap();
        assert_eq!(service.layer.places.available_permits(), 1);
        let page = service.layer.metrics.render();
        assert!(page.contains("braid_requests_shed_total{node=\"1\"} 1"), "{page}");
        assert!(page.contains("method=\"GetRecords\",code=\"OK\"} 1"), "{page}");
    }
}
