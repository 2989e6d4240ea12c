//! Sending a public call on to the leader's node: the same call, marked, once.
//!
//! Invariant: a forwarded call carries [`FORWARDED`] and the time that is left. What comes back is
//! either an answer, a refusal by a node that said so, or *unknown*.

use std::collections::BTreeMap;
use std::sync::Mutex;

use braid_env::time::Instant;
use braid_proto::v1::braid_client::BraidClient;
use braid_transport::{Channel, ConnectError};
use tonic::Request;
use tonic::metadata::MetadataMap;

use crate::peer::dial;

/// The metadata key that says that a call was forwarded by a node.
pub const FORWARDED: &str = "braid-forwarded";

/// The largest answer: 10 MiB of records and what surrounds them.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Channels to the nodes that calls were forwarded to: at most one per node of the cluster.
#[derive(Default)]
pub struct Channels(Mutex<BTreeMap<String, Channel>>);

impl Channels {
    /// A client of the node at `address`. The error means that nothing was sent.
    pub async fn client(&self, address: &str) -> Result<BraidClient<Channel>, ConnectError> {
        let known = self.0.lock().expect("no one panics here").get(address).cloned();
        let channel = match known {
            Some(channel) => channel,
            None => {
                // Two callers may dial at once; the later channel stays, the other one ends with
                // its call.
                let channel = dial(address).await?;
                self.0.lock().expect("no one panics here").insert(address.to_string(), channel.clone());
                channel
            }
        };
        Ok(BraidClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    /// Drops the channel to a node that could not be reached, so that the next call dials anew.
    pub fn forget(&self, address: &str) {
        self.0.lock().expect("no one panics here").remove(address);
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
