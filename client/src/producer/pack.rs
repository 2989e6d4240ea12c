//! Which records of a batch travel in one, and what its verdict says about each of them.
//!
//! Invariant: records of one shard only, consecutive ones, in order; so an aggregate is in its shard's order where its records
//! would have been. One that went to another shard than was believed (the shard was split meanwhile) went by its first
//! record's hash key: what becomes of the others is unknown, since readers that go by ranges pass them over.
//!
//! Pure. Not here: the bytes (`aggregate.rs`).

use std::iter;

use braid_proto::v1;

use super::queue::Batch;
use super::verdict::{Pending, Verdict};
use crate::aggregate::{OVERHEAD_BYTES, Part, pack, unpack};
use crate::routes::ShardIndex;

/// Records that travel as one, and the shard that they are believed to go to.
pub(super) struct Pack<'a, T> {
    shard: ShardIndex,
    records: &'a [Pending<T>],
    /// Whether they are put into an aggregate at all.
    aggregate: bool,
}

/// A batch in packs of up to `bytes_max` bytes each; `None`: every record by itself, as it is.
pub(super) fn packs<T>(batch: &Batch<T>, bytes_max: Option<usize>) -> Vec<Pack<'_, T>> {
    let mut packs = Vec::new();
    for (shard, mut rest) in batch.by_shard() {
        while !rest.is_empty() {
            let count = bytes_max.map_or(1, |most| together(rest, most));
            let (records, others) = rest.split_at(count);
            // What looks like an aggregate by itself would be taken apart by whoever reads it.
            let aggregate = bytes_max.is_some() && (count > 1 || unpack(&records[0].data).is_some());
            packs.push(Pack { shard, records, aggregate });
            rest = others;
        }
    }
    packs
}

/// How many of the first records fit; one does always.
fn together<T>(records: &[Pending<T>], bytes_max: usize) -> usize {
    let mut bytes = OVERHEAD_BYTES;
    let fits = |record: &&Pending<T>| {
        bytes += record.size() as usize + OVERHEAD_BYTES;
        bytes <= bytes_max && !record.alone
    };
    records.iter().take_while(fits).count().max(1)
}

impl<T> Pack<'_, T> {
    /// As it is sent: an aggregate goes by its first record's hash key.
    pub fn entry(&self) -> v1::PutRecordsRequestEntry {
        let first = &self.records[0];
        let (data, explicit) = match self.aggregate {
            false => (first.data.clone(), first.explicit),
            true => {
                let parts: Vec<Part> = self.records.iter().map(part).collect();
                (pack(&parts), Some(first.hash))
            }
        };
        let explicit_hash_key = explicit.map_or_else(String::new, |it| it.to_string());
        v1::PutRecordsRequestEntry { data, partition_key: first.key.clone(), explicit_hash_key }
    }

    /// What its verdict says about each of its records.
    pub fn each(&self, verdict: Verdict) -> impl Iterator<Item = Verdict> {
        let verdicts = iter::repeat_n(verdict, self.records.len());
        self.records.iter().zip(verdicts).map(|(record, verdict)| match &verdict {
            Verdict::Acked { shard, sequence_number }
                if sequence_number.shard_index != self.shard.0 && record.hash != self.records[0].hash =>
            {
                let why = format!("it was appended in an aggregate that went to {shard} instead of {}", self.shard);
                Verdict::Unknown { why }
            }
            _ => verdict,
        })
    }
}

fn part<T>(record: &Pending<T>) -> Part {
    Part {
        partition_key: record.key.clone(),
        explicit_hash_key: record.explicit.map(|it| it.to_string()),
        data: record.data.clone(),
    }
}

#[cfg(test)]
mod tests {
    use braid_env::time::Instant;
    use braid_stream::{HashKey, SequenceNumber};
    use bytes::Bytes;

    use super::*;

    fn pending(key: &str) -> Pending<()> {
        Pending {
            key: key.to_owned(),
            explicit: None,
            hash: HashKey::of_partition_key(key),
            data: Bytes::from_static(b"data"),
            put_at: Instant::now(),
            in_doubt: false,
            alone: false,
            token: (),
        }
    }

    #[test]
    fn an_aggregate_that_went_elsewhere_is_certain_only_of_the_keys_it_went_by() {
        let (believed, other) = (ShardIndex(0), ShardIndex(1));
        let records = [pending("a"), pending("b"), pending("a")];
        let pack = Pack { shard: believed, records: &records, aggregate: true };
        let acked = |shard: ShardIndex| {
            let sequence_number =
                SequenceNumber { created_s: 1, shard_index: shard.0, offset: braid_stream::Offset(0), arrival_s: 2 };
            let verdicts = pack.each(Verdict::Acked { shard: shard.to_string().into(), sequence_number });
            verdicts.map(|it| matches!(it, Verdict::Acked { .. })).collect::<Vec<_>>()
        };
        assert_eq!(acked(believed), [true, true, true]);
        assert_eq!(acked(other), [true, false, true]);
    }

    #[test]
    fn as_many_go_together_as_fit_and_one_always_does() {
        let each = pending("a").size() as usize + OVERHEAD_BYTES;
        let mut records = [pending("a"), pending("b"), pending("c")];
        assert_eq!(together(&records, 0), 1);
        assert_eq!(together(&records, OVERHEAD_BYTES + 2 * each), 2);
        assert_eq!(together(&records, usize::MAX), 3);
        records[1].alone = true;
        assert_eq!(together(&records, usize::MAX), 1);
    }
}
