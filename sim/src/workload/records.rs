//! Making records: keys, sizes, counters, data.

use std::collections::BTreeMap;
use std::sync::Arc;

use braid_stream::HashKey;
use bytes::Bytes;

use super::dice::Dice;
use super::spec::{KeySpec, SizeSpec};
use crate::history::{ClientId, Recorder, Sent};
use crate::payload::Payload;

/// One in so many keys is as long as keys may be.
const LONG_KEYS: u32 = 97;

/// One client's records.
pub struct Records {
    recorder: Recorder,
    client: ClientId,
    keys: KeySpec,
    sizes: SizeSpec,
    /// How many of each key there were.
    counts: BTreeMap<Arc<str>, u64>,
    /// Put before the names of keys that are this client's own.
    prefix: String,
}

impl Records {
    /// `lane` tells a client's parallel lanes apart, which share no key of their own.
    pub fn new(recorder: &Recorder, client: ClientId, lane: u32, keys: KeySpec, sizes: SizeSpec) -> Records {
        let prefix = match keys.shared {
            true => String::new(),
            false => format!("c{}.{lane}-", client.0),
        };
        Records { recorder: recorder.clone(), client, keys, sizes, counts: BTreeMap::new(), prefix }
    }

    pub fn next(&mut self, dice: &mut Dice) -> (Sent, Bytes) {
        let key = self.key(dice);
        let explicit = dice.percent(self.keys.explicit_percent).then(|| explicit(dice));
        let length = self.sizes.next(dice);
        self.make(key, explicit, length)
    }

    /// A record of this key, place and number of bytes of data.
    pub fn make(&mut self, key: Arc<str>, explicit: Option<HashKey>, length: usize) -> (Sent, Bytes) {
        let count = self.counts.entry(key.clone()).or_default();
        let (n, value) = (*count, self.recorder.next_value());
        *count += 1;
        let length = u32::try_from(length).expect("records are small");
        let size = length + u32::try_from(key.len()).expect("keys are small");
        let data = Payload { value, client: self.client.0, n, length }.encode();
        (Sent { value, key, explicit, size, n }, data)
    }

    fn key(&self, dice: &mut Dice) -> Arc<str> {
        let nth = match dice.percent(self.keys.hot_percent) {
            true => 0,
            false => dice.between(0, u64::from(self.keys.count.max(1)) - 1) as u32,
        };
        let mut name = format!("{}key-{nth}", self.prefix);
        if nth % LONG_KEYS == LONG_KEYS - 1 {
            let chars = name.chars().count();
            name.extend(std::iter::repeat_n('ß', 256 - chars));
        }
        self.recorder.intern(&name)
    }
}

/// The data of a record that was made before: a client that sends again sends the same bytes.
pub fn data_of(client: ClientId, sent: &Sent) -> Bytes {
    let length = sent.size - u32::try_from(sent.key.len()).expect("keys are small");
    Payload { value: sent.value, client: client.0, n: sent.n, length }.encode()
}

/// Anywhere, and at the edges of the ranges that streams begin with.
fn explicit(dice: &mut Dice) -> HashKey {
    HashKey(match dice.between(0, 9) {
        0 => 0,
        1 => u128::MAX,
        2 | 3 => {
            let shards = u128::from(dice.between(2, 8));
            let edge = (u128::MAX / shards).wrapping_mul(u128::from(dice.between(1, 7)));
            edge.wrapping_add(u128::from(dice.between(0, 4))).wrapping_sub(2)
        }
        _ => dice.u128(),
    })
}
