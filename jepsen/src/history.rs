//! What was written, what became of each write, what was read; and whether it fits together.
//!
//! A record's data is `<key> <n>`, n counting from 0 per key, so each record can be told from every
//! other. The rules:
//!
//! | outcome      | in the stream            |
//! |--------------|--------------------------|
//! | acknowledged | exactly once             |
//! | refused      | never                    |
//! | unknown      | at most once             |
//! | never put    | never                    |
//!
//! and within a key, the acknowledged records are read in the order in which they were put; within
//! a shard, offsets are dense and acknowledged offsets are where the acknowledgement said.

use std::collections::BTreeMap;
use std::time::Instant;

/// What a client learned of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is at this offset of this shard.
    Acked { shard: String, offset: u64 },
    /// It is not, and never will be, in the stream.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// One write.
#[derive(Clone, Debug)]
pub struct Write {
    /// The record's key.
    pub key: String,
    /// The how-manieth of its key, from 0.
    pub n: u64,
    /// What became of it.
    pub seen: Seen,
    /// When it was put.
    pub put: Instant,
    /// When that was known.
    pub known: Instant,
}

/// One record as read.
#[derive(Clone, Debug)]
pub struct Read {
    /// Its shard.
    pub shard: String,
    /// Its offset.
    pub offset: u64,
    /// Its partition key.
    pub key: String,
    /// The n of its data.
    pub n: u64,
}

/// Everything that is wrong; empty if nothing is.
pub fn violations(writes: &[Write], reads: &[Read]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut found: BTreeMap<(&str, u64), Vec<&Read>> = BTreeMap::new();
    for read in reads {
        found.entry((&read.key, read.n)).or_default().push(read);
    }
    let mut put = BTreeMap::new();
    for write in writes {
        assert!(put.insert((write.key.as_str(), write.n), write).is_none(), "the load wrote a record twice");
    }
    for ((key, n), at) in &found {
        match put.get(&(*key, *n)).map(|w| &w.seen) {
            None => wrong.push(format!("invented: {key} {n} was never put, and is at {at:?}")),
            Some(Seen::Refused) => wrong.push(format!("{key} {n} was refused, and is at {at:?}")),
            Some(_) if at.len() > 1 => wrong.push(format!("{key} {n} is there {} times: {at:?}", at.len())),
            Some(_) => {}
        }
    }
    for write in writes {
        let Seen::Acked { shard, offset } = &write.seen else { continue };
        match found.get(&(write.key.as_str(), write.n)).and_then(|at| at.first()) {
            None => wrong.push(format!("lost: {} {} was acknowledged at {shard} {offset}", write.key, write.n)),
            Some(at) if (&at.shard, &at.offset) != (shard, offset) => {
                wrong.push(format!("{} {} was acknowledged at {shard} {offset}, and is at {at:?}", write.key, write.n));
            }
            Some(_) => {}
        }
    }
    wrong.extend(out_of_order(&put, reads));
    wrong.extend(gaps(reads));
    wrong
}

fn out_of_order(put: &BTreeMap<(&str, u64), &Write>, reads: &[Read]) -> Vec<String> {
    let acked = |r: &&Read| put.get(&(r.key.as_str(), r.n)).is_some_and(|w| matches!(w.seen, Seen::Acked { .. }));
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    let mut wrong = Vec::new();
    for read in reads.iter().filter(acked) {
        if let Some(before) = last.insert(&read.key, read.n)
            && before >= read.n
        {
            wrong.push(format!("out of order: {} {} is read after {before}", read.key, read.n));
        }
    }
    wrong
}

fn gaps(reads: &[Read]) -> Vec<String> {
    let mut next: BTreeMap<&str, u64> = BTreeMap::new();
    let mut wrong = Vec::new();
    for read in reads {
        let expected = next.entry(&read.shard).or_insert(0);
        if read.offset != *expected {
            wrong.push(format!("{}: offset {} is read where {expected} was due", read.shard, read.offset));
        }
        *expected = read.offset + 1;
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(key: &str, n: u64, seen: Seen) -> Write {
        let now = Instant::now();
        Write { key: key.into(), n, seen, put: now, known: now }
    }

    fn acked(key: &str, n: u64, offset: u64) -> Write {
        write(key, n, Seen::Acked { shard: "s".into(), offset })
    }

    fn read(key: &str, n: u64, offset: u64) -> Read {
        Read { shard: "s".into(), offset, key: key.into(), n }
    }

    #[test]
    fn a_sound_history_is_accepted() {
        let writes = [
            acked("a", 0, 0),
            write("a", 1, Seen::Unknown),
            acked("a", 2, 2),
            write("a", 3, Seen::Refused),
            write("b", 0, Seen::Unknown),
        ];
        assert_eq!(violations(&writes, &[read("a", 0, 0), read("a", 1, 1), read("a", 2, 2)]), Vec::<String>::new());
    }

    #[test]
    fn each_kind_of_wrong_is_seen() {
        let writes = [acked("a", 0, 0), acked("a", 1, 1), write("a", 2, Seen::Refused), write("b", 0, Seen::Unknown)];
        let whole = [read("a", 0, 0), read("a", 1, 1)];
        for (name, reads) in [
            ("lost", vec![read("a", 0, 0)]),
            ("invented", vec![whole[0].clone(), whole[1].clone(), read("c", 0, 2)]),
            ("refused", vec![whole[0].clone(), whole[1].clone(), read("a", 2, 2)]),
            ("times", vec![whole[0].clone(), whole[1].clone(), read("b", 0, 2), read("b", 0, 3)]),
            ("out of order", vec![read("a", 1, 0), read("a", 0, 1)]),
            ("acknowledged at", vec![read("b", 0, 0), read("a", 0, 1), read("a", 1, 2)]),
            ("was due", vec![read("a", 0, 0), read("a", 1, 2)]),
        ] {
            let wrong = violations(&writes, &reads);
            assert!(wrong.iter().any(|w| w.contains(name)), "{name}: {wrong:?}");
        }
    }
}
