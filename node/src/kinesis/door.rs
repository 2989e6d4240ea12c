//! HTTP in, HTTP out: what is not gRPC on the client port.
//!
//! ```text
//!  request ─▶ gRPC? ─▶ yes: the other face
//!             └ no ─▶ a place? ─▶ body, bounded ─▶ who asks ─▶ read ─▶ serve ─▶ answer in the request's form
//! ```
//! Invariant: every answer has a request id; a body is never longer in memory than [`BODY_BYTES_MAX`]; a call that gets
//! no place is refused at once, and one whose time is over ends, whether its body has come or not.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use braid_env::random;
use braid_env::time::{self, Instant};
use braid_stream::limits::PUT_BYTES_MAX_LARGE;
use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use tonic::body::Body;
use tower::{Layer, Service};
use tracing::Instrument;

use super::subscribe::Frames;
use super::wire::fault::{Fault, FaultKind};
use super::wire::table::{Operation, table};
use super::wire::{self, Form};
use super::{Answer, Face, Parts};
use crate::metrics::requests::{code, method};

/// The largest request: 10 MiB of records in base64, and what surrounds 500 of them.
const BODY_BYTES_MAX: usize = PUT_BYTES_MAX_LARGE as usize / 3 * 4 + (2 << 20);

/// What is read of a body that nobody wants, so that the connection can go on: HTTP/1.1 closes one on which
/// a body was left lying.
const UNWANTED_BYTES_MAX: usize = 64 << 10;

/// How long a call waits on a node that was just started, whose catalog is not open yet: that takes a second or three, and an
/// SDK has made its three attempts in less.
const OPENING_WAIT: Duration = Duration::from_secs(5);

/// What `X-Amz-Target` begins with.
const SERVICE: &str = "Kinesis_20131202";

/// Puts [`Door`] in front of the gRPC face.
#[derive(Clone)]
pub struct DoorLayer(pub Face);

impl<S> Layer<S> for DoorLayer {
    type Service = Door<S>;

    fn layer(&self, inner: S) -> Door<S> {
        Door { inner, face: self.0.clone() }
    }
}

/// See the module's documentation.
#[derive(Clone)]
pub struct Door<S> {
    inner: S,
    face: Face,
}

impl<S> Service<Request<Body>> for Door<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if is_grpc(request.headers()) {
            return Box::pin(self.inner.call(request));
        }
        let face = self.face.clone();
        Box::pin(async move { Ok(face.answer(request).await) })
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|it| it.as_bytes().starts_with(b"application/grpc"))
}

/// How a call ends: in bytes of a form, or without any form at all.
enum Ending {
    /// Its answer.
    Done(Form, Bytes),
    /// Events, one after the other.
    Events(Frames),
    /// Its fault.
    Refused(Form, Fault),
    /// Not a call of this API: what the service says then is XML.
    Foreign(StatusCode, String),
    /// A browser asks whether it may ask.
    Preflight,
}

pub(super) async fn answer(face: Arc<Parts>, request: Request<Body>) -> Response<Body> {
    let from_browser = request.headers().contains_key("origin");
    let asked_headers = request.headers().get("access-control-request-headers").cloned();
    let one_at_a_time = request.version() <= Version::HTTP_11;
    let ending = ending(face, request).await;
    let preflight = matches!(ending, Ending::Preflight);
    let (status, content_type, body) = match ending {
        Ending::Done(form, body) => (StatusCode::OK, form.content_type(), whole(body)),
        Ending::Events(frames) => {
            let frames = frames.map(|frame| Ok::<_, Infallible>(Frame::data(frame)));
            (StatusCode::OK, "application/vnd.amazon.eventstream", Body::new(StreamBody::new(frames)))
        }
        Ending::Refused(form, fault) => {
            let status = StatusCode::from_u16(fault.kind.status()).expect("every kind has a status");
            (status, form.content_type(), whole(wire::write(form, &fault.body())))
        }
        Ending::Foreign(status, text) => (status, "application/xml", whole(Bytes::from(text))),
        Ending::Preflight => (StatusCode::OK, "text/plain", whole(Bytes::new())),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    identify(headers);
    // An SDK tries again over the connection that it has: another one may lead to a node that can serve.
    if status.is_server_error() && one_at_a_time {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if from_browser {
        headers.insert("access-control-allow-origin", HeaderValue::from_static("*"));
        if preflight {
            headers.insert("access-control-allow-methods", HeaderValue::from_static("POST"));
            headers.insert("access-control-max-age", HeaderValue::from_static("172800"));
            if let Some(asked) = asked_headers {
                headers.insert("access-control-allow-headers", asked);
            }
        } else {
            let exposed = "x-amzn-RequestId,x-amzn-ErrorType,x-amz-request-id,x-amz-id-2,x-amzn-ErrorMessage,Date";
            headers.insert("access-control-expose-headers", HeaderValue::from_static(exposed));
        }
    }
    response
}

fn whole(body: Bytes) -> Body {
    Body::new(Full::new(body))
}

/// Both ids are random: they are for whoever compares two logs.
fn identify(headers: &mut HeaderMap) {
    let mut id = [0; 16];
    random::fill(&mut id);
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let uuid = format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..]);
    let mut longer = [0; 72];
    random::fill(&mut longer);
    let value = |text: String| HeaderValue::from_str(&text).expect("digits and letters");
    headers.insert("x-amzn-requestid", value(uuid));
    headers.insert("x-amz-id-2", value(STANDARD.encode(longer)));
}

async fn ending(face: Arc<Parts>, request: Request<Body>) -> Ending {
    let headers = request.headers();
    if request.method() == Method::OPTIONS && headers.contains_key("origin") {
        return Ending::Preflight;
    }
    let text = |name: &str| headers.get(name).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let target = text("x-amz-target").split_once('.').map(|(service, name)| (service.to_string(), name.to_string()));
    let form = Form::of(text("content-type"));
    let until = Instant::now() + face.deadline;
    let (form, operation) = match called(request.method(), form, target) {
        Ok(called) => called,
        Err(ending) => {
            let unwanted = Limited::new(request.into_body(), UNWANTED_BYTES_MAX).collect();
            let _ = time::timeout_at(until, unwanted).await;
            return ending;
        }
    };
    let method = method(operation.name);
    let Ok(_place) = face.places.clone().try_acquire_owned() else {
        face.metrics.requests.shed.increment(1);
        let fault = Fault::new(FaultKind::ServiceUnavailable, "The node serves as many requests as it may; try again.");
        return Ending::Refused(form, fault);
    };
    let started = Instant::now();
    let served = serve(&face, form, operation, request, until).instrument(tracing::debug_span!("call", method));
    let ending = match time::timeout_at(until, served).await {
        Ok(Ok(Answer::Output(output))) => Ending::Done(form, wire::write(form, &output)),
        Ok(Ok(Answer::Nothing)) => Ending::Done(form, Bytes::new()),
        Ok(Ok(Answer::Events(frames))) => Ending::Events(frames),
        Ok(Err(fault)) => Ending::Refused(form, fault),
        Err(_) => {
            let text = format!("No result within {} ms.", face.deadline.as_millis());
            Ending::Refused(form, Fault::new(FaultKind::InternalFailure, text))
        }
    };
    face.metrics.requests.done(method, outcome(&ending), started.elapsed());
    ending
}

/// The operation that a request calls, and how its body is written; or how it ends.
fn called(
    method: &Method,
    form: Option<Form>,
    target: Option<(String, String)>,
) -> Result<(Form, &'static Operation), Ending> {
    match (form, target) {
        _ if *method != Method::POST => Err(denied()),
        (None, None) => Err(denied()),
        (None, Some(_)) => Err(Ending::Foreign(StatusCode::NOT_FOUND, "<UnknownOperationException/>\n".to_string())),
        (Some(form), Some((service, name))) if service == SERVICE => {
            table().operation(&name).map(|operation| (form, operation)).ok_or_else(|| unknown(form))
        }
        (Some(form), _) => Err(unknown(form)),
    }
}

async fn serve(
    face: &Parts,
    form: Form,
    operation: &Operation,
    request: Request<Body>,
    until: Instant,
) -> Result<Answer, Fault> {
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            let text = format!("The request has more than {BODY_BYTES_MAX} bytes.");
            return Err(Fault::new(FaultKind::RequestTooLarge, text));
        }
        Err(_) => return Err(Fault::unreadable()),
    };
    let admitted = face.access.admit(&head, &body, face.service.now_ms())?;
    face.service.opened(until.min(Instant::now() + OPENING_WAIT)).await;
    let input = wire::read(form, operation, &body)?;
    face.serve(operation, input, form, admitted, until).await
}

fn unknown(form: Form) -> Ending {
    Ending::Refused(form, Fault { kind: FaultKind::UnknownOperation, message: None })
}

fn denied() -> Ending {
    let text = "<AccessDeniedException>\n  <Message>Unable to determine service/operation name to be \
                authorized</Message>\n</AccessDeniedException>\n";
    Ending::Foreign(StatusCode::FORBIDDEN, text.to_string())
}

/// As gRPC's codes name it, so that one dashboard serves both faces.
fn outcome(ending: &Ending) -> &'static str {
    use tonic::Code;
    let it = match ending {
        Ending::Done(..) | Ending::Events(_) | Ending::Preflight => Code::Ok,
        Ending::Foreign(..) => Code::Unimplemented,
        Ending::Refused(_, fault) => match fault.kind {
            FaultKind::AccessDenied => Code::PermissionDenied,
            FaultKind::IncompleteSignature
            | FaultKind::InvalidSignature
            | FaultKind::MissingAuthenticationToken
            | FaultKind::UnrecognizedClient => Code::Unauthenticated,
            FaultKind::InternalFailure => Code::Internal,
            FaultKind::ServiceUnavailable => Code::Unavailable,
            FaultKind::LimitExceeded | FaultKind::ProvisionedThroughputExceeded => Code::ResourceExhausted,
            FaultKind::ResourceInUse | FaultKind::ExpiredIterator | FaultKind::ExpiredNextToken => {
                Code::FailedPrecondition
            }
            FaultKind::ResourceNotFound => Code::NotFound,
            FaultKind::UnknownOperation => Code::Unimplemented,
            FaultKind::DryRunOperation
            | FaultKind::InvalidArgument
            | FaultKind::RequestTooLarge
            | FaultKind::Serialization
            | FaultKind::Validation => Code::InvalidArgument,
        },
    };
    code(it as i32)
}
