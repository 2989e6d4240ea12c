//! How a gRPC call gets from one process to another: a channel at one end, a server at the other.
//!
//! ```text
//!   generated client ─▶ Channel ─┬─ HTTP/2 over env's sockets ──────────▶ serve ─▶ generated server
//!                                └─ packets of a simulated host's network ▶   │
//! ```
//!
//! Invariant: sockets, tasks and timers are `env`'s, in both ways; and "not sent" is claimed
//! ([`never_sent`]) only where no connection was made.
//!
//! Deliberately absent: retries, and any knowledge of the services. A simulated host's network has no TLS. Messages are encoded and framed
//! as gRPC says in both ways; the simulated one only spares HTTP/2's own framing and flow control, which
//! is not Braid's.

mod accepted;
mod channel;
mod serve;
mod simulated;
mod tls;

pub use channel::{Channel, ChannelOptions, ConnectError, InvalidAddress, never_sent};
pub use serve::{ServeError, ServeOptions, serve};
pub use tls::{ClientTls, ServerTls, TlsError};

/// The request and response body on both sides.
pub use tonic::body::Body;
