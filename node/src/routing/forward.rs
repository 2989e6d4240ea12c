//! Sending a public call on to the leader's node: the same call, marked, once.
//!
//! Invariant: a forwarded call carries [`FORWARDED`] and the time that is left. What comes back is
//! either an answer, a refusal by a node that said so, or *unknown*.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use braid_env::time::Instant;
use braid_probe::{Bug, Mark, planted, reachable};
use braid_proto::v1::braid_client::BraidClient;
use braid_transport::{Channel, ClientTls, ConnectError, never_sent};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use crate::peer::dial_client_port;

/// The metadata key that says that a call was forwarded by a node.
pub const FORWARDED: &str = "braid-forwarded";

/// The largest answer: 10 MiB of records and what surrounds them.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// A channel on which calls go unanswered for this long is given up: the connection may lead nowhere, and neither end
/// be told (a lost NAT entry, a peer without power). TCP would try for many minutes.
const SILENCE: Duration = Duration::from_secs(1);

/// Channels to the nodes that calls were forwarded to: at most one per node of the cluster.
pub struct Channels {
    known: Mutex<BTreeMap<String, Known>>,
    /// Where nodes' client ports have TLS.
    tls: Option<ClientTls>,
}

struct Known {
    channel: Channel,
    /// Since when calls that were given up on had no answer; `None` after an answer.
    silent_since: Option<Instant>,
}

/// Why a call to another node has no answer.
#[derive(Debug)]
pub enum CallError {
    /// It could not be reached: nothing was sent.
    NotSent,
    /// It answered so, or the connection was lost.
    Failed(Status),
}

impl Channels {
    /// None yet.
    pub fn new(tls: Option<ClientTls>) -> Channels {
        Channels { known: Mutex::default(), tls }
    }

    /// Makes a call of the node at `address`. Whoever drops this before its end, at a deadline, gives the call up.
    pub async fn call<R, Made>(
        &self,
        address: &str,
        make: impl FnOnce(BraidClient<Channel>) -> Made,
    ) -> Result<R, CallError>
    where
        Made: Future<Output = Result<Response<R>, Status>>,
    {
        let channel = self.channel(address).await.map_err(|_| CallError::NotSent)?;
        let client = BraidClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let mut under_way = UnderWay { channels: self, address, since: Instant::now(), answered: false };
        let answer = make(client).await;
        under_way.answered = true;
        drop(under_way);
        answer.map(Response::into_inner).map_err(|status| match never_sent(&status) {
            true => {
                self.forget(address);
                CallError::NotSent
            }
            false => CallError::Failed(status),
        })
    }

    async fn channel(&self, address: &str) -> Result<Channel, ConnectError> {
        if let Some(known) = self.lock().get(address) {
            return Ok(known.channel.clone());
        }
        // Two callers may dial at once; the later channel stays, the other one ends with its call.
        let channel = dial_client_port(address, self.tls.clone()).await?;
        self.lock().insert(address.to_string(), Known { channel: channel.clone(), silent_since: None });
        Ok(channel)
    }

    /// Drops the channel to a node, so that the next call dials anew. Calls under way keep it.
    fn forget(&self, address: &str) {
        self.lock().remove(address);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.known.lock().expect("no one panics here")
    }
}

/// A call that has no answer yet.
struct UnderWay<'a> {
    channels: &'a Channels,
    address: &'a str,
    since: Instant,
    answered: bool,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut known = self.channels.lock();
        let Some(entry) = known.get_mut(self.address) else { return };
        if self.answered {
            entry.silent_since = None;
        } else if !planted(Bug::SilenceIsBorne) && entry.silent_since.get_or_insert(self.since).elapsed() >= SILENCE {
            reachable!(Mark::SilentChannelDropped);
            known.remove(self.address);
        }
    }
}

/// The call to send on: marked, and with the time that is left until `deadline`.
pub fn request<T>(message: T, deadline: Option<Instant>) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(FORWARDED, tonic::metadata::MetadataValue::from_static("1"));
    if let Some(deadline) = deadline {
        request.set_timeout(deadline - Instant::now());
    }
    request
}

/// Whether another node sent this call here.
pub fn is_forwarded(metadata: &MetadataMap) -> bool {
    metadata.get(FORWARDED).is_some_and(|value| value == "1")
}
