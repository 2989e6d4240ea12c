//! Events in words, for whoever reads a failure at night.

use std::fmt;

use super::{
    Admin, AdminDone, Call, Event, Failed, IteratorKind, Note, OpenAt, Outcome, Page, Returned, Seen, Sent, Via, What,
};

/// Records of a call or a page that are shown one by one; the rest are counted.
const SHOWN: usize = 3;

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.at)?;
        match &self.what {
            What::Invoked { op, client, via, call } => write!(f, "{op}: {client} {via} {call}"),
            What::Returned { op, with } => write!(f, "{op} ◀ {with}"),
            What::Received { op, shard, page } => write!(f, "{op} ◀ {shard} {page}"),
            What::Note(note) => note.fmt(f),
        }
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Via::Node(address) => write!(f, "▶ {address}"),
            Via::Library => f.write_str("▶ library"),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Call::Put(put) => {
                let bytes: u64 = put.records.iter().map(|sent| u64::from(sent.size)).sum();
                write!(f, "put {} records, {bytes} bytes, into {}:", put.records.len(), put.stream)?;
                some(f, &put.records)
            }
            Call::Iterator { stream, shard, kind } => write!(f, "iterator {} in {stream}/{shard}", kind_name(kind)),
            Call::Records { iterator, limit } => write!(f, "get at most {limit} records at the iterator of {iterator}"),
            Call::Subscribe { stream, shard, kind } => write!(f, "subscribe {} to {stream}/{shard}", kind_name(kind)),
            Call::Consume { stream, kind } => write!(f, "consume {stream} from {}", kind_name(kind)),
            Call::Admin(admin) => admin.fmt(f),
        }
    }
}

impl fmt::Display for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Admin::Create { stream, shards, retention_ms: 0 } => write!(f, "create {stream} with {shards} shards"),
            Admin::Create { stream, shards, retention_ms } => {
                write!(f, "create {stream} with {shards} shards, kept {retention_ms} ms")
            }
            Admin::Update { stream, retention_ms } => write!(f, "keep {stream} for {retention_ms} ms"),
            Admin::Split { stream, shard, at: Some(at) } => write!(f, "split {stream}/{shard} at {at}"),
            Admin::Split { stream, shard, at: None } => write!(f, "split {stream}/{shard}"),
            Admin::Merge { stream, shard, adjacent } => write!(f, "merge {stream}/{shard} with {adjacent}"),
            Admin::Scale { stream, shards, halves: false } => write!(f, "scale {stream} to {shards} shards"),
            Admin::Scale { stream, shards, halves: true } => write!(f, "scale {stream} to {shards} shards by halves"),
            Admin::Autoscale { stream, bounds: Some((min, max)) } => {
                write!(f, "scale {stream} by load, {min} to {max} shards")
            }
            Admin::Autoscale { stream, bounds: None } => write!(f, "scale {stream} by load no more"),
            Admin::Delete { stream } => write!(f, "delete {stream}"),
            Admin::Describe { stream } => write!(f, "describe {stream}"),
            Admin::ListStreams => f.write_str("list streams"),
            Admin::ListShards { stream } => write!(f, "list the shards of {stream}"),
            Admin::ListOpen { stream, at: OpenAt::Latest } => write!(f, "list the open shards of {stream}"),
            Admin::ListOpen { stream, at: OpenAt::TrimHorizon } => {
                write!(f, "list the shards of {stream} that were open at the trim horizon")
            }
            Admin::ListOpen { stream, at: OpenAt::Time(ms) } => {
                write!(f, "list the shards of {stream} that were open at {ms} ms")
            }
            Admin::TransferLeader { group, to } => write!(f, "move the leadership of group {group} to node {to}"),
            Admin::Drain { node, cancel: false } => write!(f, "drain node {node}"),
            Admin::Drain { node, cancel: true } => write!(f, "let node {node} keep what it has"),
            Admin::Rebalance => f.write_str("even out where replicas are"),
            Admin::SafeToStop { nodes } => write!(f, "ask whether nodes {nodes:?} can be stopped"),
            Admin::ClusterStatus => f.write_str("ask for the cluster's status"),
        }
    }
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "value {} (key {} n {})", self.value, Key(&self.key), self.n)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Acked { shard, number } => write!(f, "acked at {shard} {}", number.offset),
            Outcome::Refused { reason } => write!(f, "refused {}", reason.as_str_name()),
            Outcome::Unknown { why } => write!(f, "unknown: {why}"),
        }
    }
}

impl fmt::Display for Returned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Returned::Put(outcomes) => some(f, outcomes),
            Returned::Begun => f.write_str("open"),
            Returned::Page(page) => page.fmt(f),
            Returned::Ended => f.write_str("ended"),
            Returned::Admin(done) => done.fmt(f),
            Returned::Failed(failed) => failed.fmt(f),
        }
    }
}

impl fmt::Display for AdminDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdminDone::Accepted => f.write_str("accepted"),
            AdminDone::Stream(it) => write!(f, "{} is {:?}, {} open shards", it.name, it.status, it.open_shards),
            AdminDone::Streams(streams) => {
                let names: Vec<String> = streams.iter().map(|it| format!("{} {:?}", it.name, it.status)).collect();
                write!(f, "streams {}", names.join(", "))
            }
            AdminDone::Shards(listing) => {
                let open = listing.shards.iter().filter(|it| it.ending.is_none()).count();
                write!(f, "{} shards, {open} open", listing.shards.len())
            }
            AdminDone::Transferred { leader, term } => write!(f, "node {leader} leads in term {term}"),
            AdminDone::StopAnswered { reasons } => {
                write!(f, "{}", if reasons.is_empty() { "yes".into() } else { reasons.join("; ") })
            }
            AdminDone::Status => f.write_str("answered"),
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certainty = if self.refused { "refused" } else { "unknown" };
        write!(f, "{certainty} {}: {}", self.reason.as_str_name(), self.why)
    }
}

impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records", self.records.len())?;
        if let (Some(first), Some(last)) = (self.records.first(), self.records.last()) {
            write!(f, " at {}..={}", first.offset(), last.offset())?;
        }
        write!(f, ", {} ms behind", self.behind_ms)?;
        if self.missed > 0 {
            write!(f, ", {} missed", self.missed)?;
        }
        if let Some(continuation) = &self.continuation {
            write!(f, ", to go on after {}", continuation.offset)?;
        }
        if let Some(children) = &self.ended {
            write!(f, ", end of the shard, children {children:?}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.payload {
            Ok(payload) => write!(f, "value {} (key {} n {})", payload.value, Key(&self.key), payload.n)?,
            Err(corrupt) => write!(f, "{corrupt} (key {})", Key(&self.key))?,
        }
        write!(f, " at offset {}, arrived {} ms", self.offset(), self.arrival_ms)
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Malformed { op, why } => write!(f, "{op} was answered with nonsense: {why}"),
            Note::Healed => f.write_str("healed: no more faults"),
            Note::Probe { what, since_ns, done, last } => {
                let how = if *done { "worked" } else { "never worked" };
                write!(f, "{what} {how}, tried since {} ms: {last}", since_ns / 1_000_000)
            }
            Note::FinalStreams { via, streams } => write!(f, "{via} knows {} streams in the end", streams.len()),
            Note::FinalForgotten { stream, shard } => write!(f, "{stream}/{shard} was forgotten before it was read"),
            Note::FinalRead { pass, stream, shard, complete, .. } => {
                let how = if *complete { "whole" } else { "not to its end" };
                write!(f, "final reading {pass} of {stream}/{shard}: {how}")
            }
            Note::Remark(text) => f.write_str(text),
        }
    }
}

/// A beginning in few words.
pub fn kind_name(kind: &IteratorKind) -> String {
    match kind {
        IteratorKind::TrimHorizon => "TRIM_HORIZON".to_owned(),
        IteratorKind::Latest => "LATEST".to_owned(),
        IteratorKind::AtSequence(number) => format!("AT offset {}", number.offset),
        IteratorKind::AfterSequence(number) => format!("AFTER offset {}", number.offset),
        IteratorKind::AtTimestamp(ms) => format!("AT_TIMESTAMP {ms} ms"),
    }
}

/// A key, cut where it is long.
struct Key<'a>(&'a str);

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut chars = self.0.chars();
        for c in chars.by_ref().take(24) {
            write!(f, "{c}")?;
        }
        match chars.next() {
            Some(_) => f.write_str("…"),
            None => Ok(()),
        }
    }
}

fn some<T: fmt::Display>(f: &mut fmt::Formatter<'_>, all: &[T]) -> fmt::Result {
    for it in all.iter().take(SHOWN) {
        write!(f, " {it};")?;
    }
    match all.len().saturating_sub(SHOWN) {
        0 => Ok(()),
        more => write!(f, " and {more} more"),
    }
}
