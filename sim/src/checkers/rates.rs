//! No shard accepts more than its rate times any window plus one burst, whoever leads it.
//!
//! A record was certainly accepted within a window if it was sent and known to be accepted within it. So
//! for every window the certain ones are counted; every window is tried, in n log n. The burst is a
//! second's worth, or the largest single amount if that is more.

use braid_stream::limits::Limits;

use super::{Bounds, Checker, Violation};
use crate::history::{At, History, PageRead, Place, ReadKind, ShardKey, ShardView};

pub const CHECKER: Checker = Checker {
    name: "rates",
    promise: "a shard accepts at most rate × window + burst, over every window and across failovers",
    check,
};

/// A nanosecond at `rate` a second earns `rate` parts of a token, as in the buckets themselves.
const PARTS: i128 = 1_000_000_000;

/// Something that a shard accepted.
#[derive(Copy, Clone, Debug)]
struct Accepted {
    /// Not before.
    from: At,
    /// Not after.
    to: At,
    /// Below zero where something was forgiven.
    amount: i64,
}

pub fn check(history: &History, bounds: &Bounds) -> Vec<Violation> {
    if !bounds.throttled {
        return Vec::new();
    }
    let limits = Limits::DEFAULT;
    let mut wrong = Vec::new();
    for (key, view) in history.certain_shards() {
        let records = written(history, key, view);
        let count: Vec<Accepted> = records.iter().map(|it| Accepted { amount: 1, ..*it }).collect();
        wrong.extend(exceeded(bounds, key, "records written", limits.write_records_per_s, &count, 0));
        wrong.extend(exceeded(bounds, key, "bytes written", limits.write_bytes_per_s, &records, 0));
        let polls = polled(history, key);
        let calls: Vec<Accepted> = polls.iter().map(|it| Accepted { amount: 1, ..*it }).collect();
        wrong.extend(exceeded(bounds, key, "GetRecords calls", limits.read_calls_per_s, &calls, 0));
        // A page is charged once it is given: those that are under way at a time come on top.
        let largest = polls.iter().map(|it| it.amount).max().unwrap_or(0);
        let on_top = largest as u64 * at_once(&polls);
        if let Some(elections) = &bounds.elections {
            // And a leader does not know what its predecessor's readers owe: at most one page.
            let forgiven = elections.iter().map(|at| Accepted { from: *at, to: *at, amount: -largest });
            let bytes: Vec<Accepted> = polls.into_iter().chain(forgiven).collect();
            wrong.extend(exceeded(bounds, key, "bytes read", limits.read_bytes_per_s, &bytes, on_top));
        }
    }
    wrong
}

/// Every record that is certainly there, with its bytes.
fn written(history: &History, key: &ShardKey, view: &ShardView) -> Vec<Accepted> {
    let bytes = |attempt| i64::from(history.sent(attempt).1.size);
    let acked = view.acks.iter().map(|it| Accepted { from: it.invoked, to: it.returned, amount: bytes(it.attempt) });
    let read = view.places.iter().filter_map(|(offset, it)| {
        let place = Place { shard: key.clone(), offset: *offset };
        let value = history.values.get(&it.seen.payload.as_ref().ok()?.value)?;
        let acked = value.attempts.iter().any(|it| history.acked_place(*it).as_ref() == Some(&place));
        let from = value.attempts.iter().map(|it| history.puts[it.put].invoked).min()?;
        (!acked).then_some(Accepted { from, to: it.at, amount: i64::from(it.seen.size) })
    });
    acked.chain(read).collect()
}

/// Every poll that was served, with its bytes.
fn polled(history: &History, key: &ShardKey) -> Vec<Accepted> {
    let polls = history.reads.iter().filter(|read| read.how == ReadKind::Poll && read.key.as_ref() == Some(key));
    let pages = polls.flat_map(|read| &read.pages);
    let bytes = |page: &PageRead| page.page.records.iter().map(|seen| i64::from(seen.size)).sum();
    pages.map(|page| Accepted { from: page.invoked, to: page.returned, amount: bytes(page) }).collect()
}

/// The most of them that were under way at one moment.
fn at_once(accepted: &[Accepted]) -> u64 {
    let mut moments: Vec<(At, bool)> = accepted.iter().flat_map(|it| [(it.from, true), (it.to, false)]).collect();
    moments.sort_unstable();
    let (mut now, mut most) = (0u64, 0);
    for (_, begins) in moments {
        now = if begins { now + 1 } else { now - 1 };
        most = most.max(now);
    }
    most
}

/// The worst window, if it is too much by more than `on_top`.
fn exceeded(
    bounds: &Bounds,
    key: &ShardKey,
    what: &str,
    rate: u64,
    accepted: &[Accepted],
    on_top: u64,
) -> Option<Violation> {
    let largest = accepted.iter().map(|it| it.amount).max()?;
    let burst = i128::from(rate.max(largest.unsigned_abs()) + on_top) * PARTS;
    // A clock that runs fast earns more in what is truly a second.
    let earns = i128::from(rate) * (1_000_000 + i128::from(bounds.drift_ppm)) / 1_000_000 + 1;
    let (excess, from, to) = worst_window(accepted, earns)?;
    if excess <= burst {
        return None;
    }
    let within = |it: &&Accepted| it.amount > 0 && it.from.ns >= from && it.to.ns <= to;
    let sum: i64 = accepted.iter().filter(within).map(|it| it.amount).sum();
    let count = accepted.iter().filter(within).count();
    let forgiven = accepted.iter().filter(|it| it.amount < 0 && it.from.ns >= from && it.to.ns <= to);
    let forgiven: i128 = forgiven.map(|it| i128::from(it.amount) * -PARTS).sum();
    let allowed = (earns * i128::from(to - from) + burst + forgiven) / PARTS;
    let text = format!("{key} accepted {sum} {what} within {}, where {allowed} are allowed", super::ms(to - from));
    let window = format!("from {} ms to {} ms of the run, {count} of them", from / 1_000_000, to / 1_000_000);
    let at = accepted.iter().map(|it| it.to).filter(|at| at.ns <= to).max()?;
    Some(Violation::new(CHECKER.name, text).at(at).because(window))
}

/// The window whose certain amount exceeds what is earned in it the most, in parts, and its ends.
fn worst_window(accepted: &[Accepted], earns: i128) -> Option<(i128, u64, u64)> {
    let mut begins: Vec<u64> = accepted.iter().map(|it| it.from.ns).collect();
    begins.sort_unstable();
    begins.dedup();
    let mut sums = Sums::new(begins.len());
    let mut ended: Vec<&Accepted> = accepted.iter().filter(|it| it.to != At::NEVER).collect();
    ended.sort_by_key(|it| it.to);
    let mut worst: Option<(i128, u64, u64)> = None;
    let mut begun = 0;
    for (nth, it) in ended.iter().enumerate() {
        // Windows that begin after this moment are none yet.
        while begins.get(begun).is_some_and(|begin| *begin <= it.to.ns) {
            sums.begin(begun, earns * i128::from(begins[begun]));
            begun += 1;
        }
        let last = begins.partition_point(|begin| *begin <= it.from.ns);
        sums.add_below(last, i128::from(it.amount) * PARTS);
        // Windows end behind the last of what ends at one moment.
        if ended.get(nth + 1).is_some_and(|next| next.to.ns == it.to.ns) {
            continue;
        }
        let (sum, begin) = sums.greatest();
        let excess = sum - earns * i128::from(it.to.ns);
        if worst.is_none_or(|(most, ..)| excess > most) {
            worst = Some((excess, begins[begin], it.to.ns));
        }
    }
    worst
}

/// For each beginning of a window, what it holds so far plus what is earned up to it: a segment tree that
/// adds to a prefix and finds the greatest.
struct Sums {
    /// The greatest of each subtree, without what its ancestors add, and where it is.
    greatest: Vec<(i128, usize)>,
    added: Vec<i128>,
    leaves: usize,
}

impl Sums {
    fn new(begins: usize) -> Sums {
        let leaves = begins.next_power_of_two();
        // Far below any sum, and far from overflowing.
        let mut greatest = vec![(i128::MIN / 4, 0); 2 * leaves];
        for nth in 0..leaves {
            greatest[leaves + nth].1 = nth;
        }
        Sums { greatest, added: vec![0; 2 * leaves], leaves }
    }

    /// The `nth` beginning counts from now on, and starts with `sum`.
    fn begin(&mut self, nth: usize, sum: i128) {
        let mut node = self.leaves + nth;
        let mut above = node / 2;
        let mut added = 0;
        while above > 0 {
            added += self.added[above];
            above /= 2;
        }
        self.greatest[node].0 = sum - added;
        while node > 1 {
            node /= 2;
            self.pull(node);
        }
    }

    fn pull(&mut self, node: usize) {
        let (sum, begin) = self.greatest[2 * node].max(self.greatest[2 * node + 1]);
        self.greatest[node] = (sum + self.added[node], begin);
    }

    /// Adds to the first `count` of them.
    fn add_below(&mut self, count: usize, amount: i128) {
        self.add(1, 0, self.leaves, count, amount);
    }

    fn add(&mut self, node: usize, from: usize, to: usize, below: usize, amount: i128) {
        if from >= below {
            return;
        }
        if to <= below {
            self.added[node] += amount;
            self.greatest[node].0 += amount;
            return;
        }
        let middle = from.midpoint(to);
        self.add(2 * node, from, middle, below, amount);
        self.add(2 * node + 1, middle, to, below, amount);
        self.pull(node);
    }

    fn greatest(&self) -> (i128, usize) {
        self.greatest[1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ns: u64) -> At {
        At { ns, nth: ns }
    }

    proptest! {
        #[test]
        fn the_worst_window_is_the_one_that_trying_all_finds(
            spans in proptest::collection::vec((0..50u64, 0..20u64, -9..9i64), 1..40),
        ) {
            let accepted: Vec<Accepted> = spans
                .iter()
                .map(|(from, for_ns, amount)| Accepted { from: at(*from), to: at(from + for_ns), amount: *amount })
                .collect();
            let earns = 300_000_000i128;
            let mut most = i128::MIN;
            for from in 0..50u64 {
                for to in from..70 {
                    let within = accepted.iter().filter(|it| it.from.ns >= from && it.to.ns <= to);
                    let sum: i64 = within.map(|it| it.amount).sum();
                    if accepted.iter().any(|it| it.from.ns == from) && accepted.iter().any(|it| it.to.ns == to) {
                        most = most.max(i128::from(sum) * PARTS - earns * i128::from(to - from));
                    }
                }
            }
            prop_assert_eq!(worst_window(&accepted, earns).unwrap().0, most);
        }
    }
}
