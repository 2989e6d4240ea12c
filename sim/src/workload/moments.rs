//! What was open at times that have passed: each stream as of the moments in which shards were closed.

use std::sync::Arc;
use std::time::Duration;

use braid_env::time::{self, Instant};

use super::liveness::Answering;
use super::node_client::NodeClient;
use super::{OWN, RETRY};
use crate::history::{Admin, ClientId, OpenAt, Reason, Recorder};

/// Its number among the clients.
const LISTER: ClientId = ClientId(OWN + 4);

/// Of one call.
const DEADLINE: Duration = Duration::from_secs(5);

/// All that it may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Lists the shards of each stream that were open at each of its moments, in milliseconds since the epoch, in turn
/// through all nodes. What is not answered is passed over, but for throttled calls; a moment's shards are for the
/// checkers to judge.
pub async fn open_at(recorder: &Recorder, answering: &Answering, moments: Vec<(String, Vec<u64>)>) {
    let calls = NodeClient::new(recorder, LISTER, &answering(), DEADLINE);
    let until = Instant::now() + PATIENCE;
    let mut node = 0;
    for (stream, moments) in moments {
        let stream: Arc<str> = recorder.intern(&stream);
        for ms in moments {
            while Instant::now() < until {
                let list = Admin::ListOpen { stream: stream.clone(), at: OpenAt::Time(ms) };
                node += 1;
                match calls.admin(node, list).await {
                    Err(failed) if failed.reason == Reason::Throttled => time::sleep(RETRY).await,
                    _ => break,
                }
            }
        }
    }
}
