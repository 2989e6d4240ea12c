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

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use braid_env::random;
use braid_env::time::{self, Instant};
use braid_stream::limits::PUT_BYTES_MAX_LARGE;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use tonic::body::Body;
use tower::{Layer, Service};
use tracing::Instrument;

use super::wire::fault::{Fault, FaultKind};
use super::wire::table::{Operation, table};
use super::wire::{self, Form};
use super::{Face, Parts};
use crate::metrics::requests::{code, method};

/// The largest request: 10 MiB of records in base64, and what surrounds 500 of them.
const BODY_BYTES_MAX: usize = PUT_BYTES_MAX_LARGE as usize / 3 * 4 + (2 << 20);

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
        let parts = self.face.0.clone();
        Box::pin(async move { Ok(answer(parts, request).await) })
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|it| it.as_bytes().starts_with(b"application/grpc"))
}

/// How a call ends: in bytes of a form, or without any form at all.
enum Ending {
    /// Its answer.
    Done(Form, Bytes),
    /// Its fault.
    Refused(Form, Fault),
    /// Not a call of this API: what the service says then is XML.
    Foreign(StatusCode, String),
    /// A browser asks whether it may ask.
    Preflight,
}

async fn answer(face: Arc<Parts>, request: Request<Body>) -> Response<Body> {
    let from_browser = request.headers().contains_key("origin");
    let asked_headers = request.headers().get("access-control-request-headers").cloned();
    let ending = ending(face, request).await;
    let preflight = matches!(ending, Ending::Preflight);
    let (status, content_type, body) = match ending {
        Ending::Done(form, body) => (StatusCode::OK, form.content_type(), body),
        Ending::Refused(form, fault) => {
            let status = StatusCode::from_u16(fault.kind.status()).expect("every kind has a status");
            (status, form.content_type(), wire::write(form, &fault.body()))
        }
        Ending::Foreign(status, text) => (status, "application/xml", Bytes::from(text)),
        Ending::Preflight => (StatusCode::OK, "text/plain", Bytes::new()),
    };
    let mut response = Response::new(Body::new(Full::new(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    identify(headers);
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
    let (Method::POST, Some((service, name))) = (request.method().clone(), target) else {
        return match form {
            Some(form) if request.method() == Method::POST => unknown(form),
            _ => denied(),
        };
    };
    let Some(form) = form else {
        return Ending::Foreign(StatusCode::NOT_FOUND, "<UnknownOperationException/>\n".to_string());
    };
    let operation = if service == SERVICE { table().operation(&name) } else { None };
    let Some(operation) = operation else { return unknown(form) };
    let method = method(operation.name);
    let Ok(_place) = face.places.clone().try_acquire_owned() else {
        face.metrics.requests.shed.increment(1);
        let fault = Fault::new(FaultKind::ServiceUnavailable, "The node serves as many requests as it may; try again.");
        return Ending::Refused(form, fault);
    };
    let started = Instant::now();
    let until = started + face.deadline;
    let served = serve(&face, form, operation, request, until).instrument(tracing::debug_span!("call", method));
    let ending = match time::timeout_at(until, served).await {
        Ok(Ok(body)) => Ending::Done(form, body),
        Ok(Err(fault)) => Ending::Refused(form, fault),
        Err(_) => {
            let text = format!("No result within {} ms.", face.deadline.as_millis());
            Ending::Refused(form, Fault::new(FaultKind::InternalFailure, text))
        }
    };
    face.metrics.requests.done(method, outcome(&ending), started.elapsed());
    ending
}

async fn serve(
    face: &Parts,
    form: Form,
    operation: &Operation,
    request: Request<Body>,
    until: Instant,
) -> Result<Bytes, Fault> {
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            let text = format!("The request has more than {BODY_BYTES_MAX} bytes.");
            return Err(Fault::new(FaultKind::RequestTooLarge, text));
        }
        Err(_) => return Err(Fault::unreadable()),
    };
    let caller = face.access.admit(&head, &body, face.service.now_ms())?;
    let input = wire::read(form, operation, &body)?;
    let output = face.serve(operation, input, caller, until).await?;
    // An operation that answers nothing has no body at all, in either form.
    Ok(output.map_or(Bytes::new(), |output| wire::write(form, &output)))
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
        Ending::Done(..) | Ending::Preflight => Code::Ok,
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
