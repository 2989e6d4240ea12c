//! Asking the other nodes what time it is: until the clock is settled, and every ten seconds after that.
//!
//! Invariant: an answer that took long says nothing. A node whose clock is settled is believed before wall clocks are:
//! what it shows was agreed on, and has run on since.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use braid_env::time::{self, Instant};
use braid_probe::{Bug, Mark, planted, reachable, sometimes};
use braid_proto::peer::{ClockReply, Kind};
use bytes::Bytes;
use futures_util::future::join_all;
use prost::Message;

use super::agree::earliest;
use super::{Heard, NodeClock, agreed};
use crate::peer::{Lane, Links, PeerEntry};

/// An answer that took longer is not used: the time in it may be off by half of that.
const ANSWER: Duration = Duration::from_secs(2);

/// How often an unsettled node asks again.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// With fewer zones than this, each node counts for itself.
const ZONES: usize = 3;

/// How long a node that hears another zone, and disagrees with it, waits for a third.
const UNDECIDED: Duration = Duration::from_secs(10);

/// How often a running node asks.
const EVERY: Duration = Duration::from_secs(10);

/// What the nodes show, as of one moment.
struct Round {
    at: Instant,
    /// What counts once.
    units: BTreeSet<String>,
    /// Every wall clock heard of, this node's own too.
    wall: Vec<Heard>,
    /// The settled clocks of other nodes.
    settled: Vec<Heard>,
}

impl Round {
    /// How many of the units were heard of, this node's own included.
    fn heard(&self) -> usize {
        self.wall.iter().map(|(unit, _)| unit).collect::<BTreeSet<_>>().len()
    }

    /// What the wall clocks agree on.
    fn by_wall(&self) -> Option<u64> {
        agreed(&self.units, &self.wall)
    }

    /// The same, where it can't be wrong because of one of them.
    fn by_three(&self) -> Option<u64> {
        self.by_wall().filter(|_| self.heard() >= ZONES)
    }
}

/// Answers another node: what this one's clocks show.
pub fn answer(clock: &NodeClock) -> Bytes {
    ClockReply { wall_ms: time::wall_ms(), settled_ms: clock.settled_ms().unwrap_or(0) }.encode_to_vec().into()
}

/// Sets the clock to what the zones agree on; returns once that is done, or after `alone` without a word from another
/// zone: until it is settled it stamps nothing. One that hears a single other zone and disagrees waits for a
/// third, and in the end goes by the earlier of the two.
pub async fn settle(clock: &NodeClock, links: &Links, alone: Duration) {
    let mut heard_since = None;
    let start = Instant::now();
    while clock.settled_ms().is_none() {
        let round = ask(links).await;
        if round.heard() < round.units.len().min(2) {
            heard_since = None;
            if round.at - start >= alone {
                return;
            }
        } else {
            let undecided = round.at - *heard_since.get_or_insert(round.at) >= UNDECIDED;
            sometimes!(undecided, Mark::ClockUndecided);
            let found = agreed(&round.units, &round.settled)
                .or_else(|| round.by_three())
                .or_else(|| earliest(&round.settled))
                .or_else(|| round.by_wall())
                .or_else(|| earliest(&round.wall).filter(|_| undecided));
            if let Some(ms) = found {
                let wall_ms = time::wall_ms();
                sometimes!(ms.abs_diff(wall_ms) > 5_000, Mark::ClockSetByOthers);
                clock.settle_at(round.at, if planted(Bug::ClockOfItsOwn) { wall_ms } else { ms });
                return clock.compare();
            }
        }
        time::sleep(ASK_AGAIN).await;
    }
}

/// Settles the clock if it is not yet, and keeps it to what the zones agree on. Runs until dropped.
pub async fn keep_right(clock: &NodeClock, links: &Links) -> Infallible {
    settle(clock, links, Duration::MAX).await;
    loop {
        time::sleep(EVERY).await;
        let round = ask(links).await;
        let heard = match planted(Bug::ClockPulledAlone) {
            true => Some(time::wall_ms()),
            false => round.by_wall(),
        };
        match heard {
            Some(ms) => clock.pull_to(round.at, ms),
            None => reachable!(Mark::ClockRunsFree),
        }
        if let Some(ms) = round.by_three() {
            clock.catch_up(round.at, ms);
        }
        clock.compare();
    }
}

/// What counts once: a zone, or a node where there are fewer than three zones.
fn units(nodes: &[(u64, PeerEntry)]) -> BTreeSet<String> {
    let zones: BTreeSet<String> = nodes.iter().map(|(_, entry)| entry.zone.clone()).collect();
    match zones.len() < ZONES {
        true => nodes.iter().map(|(node, _)| node_unit(*node)).collect(),
        false => zones,
    }
}

/// No zone is called so: their names have no spaces.
fn node_unit(node: u64) -> String {
    format!("node {node}")
}

/// Asks every node that is known, all at once.
async fn ask(links: &Links) -> Round {
    let me = links.directory().me().node;
    let nodes = links.directory().all();
    let units = units(&nodes);
    let unit = |node: u64, zone: &str| if units.contains(zone) { zone.to_owned() } else { node_unit(node) };
    let ask = |node: u64, unit: String| async move {
        let asked = Instant::now();
        let reply = links.call(node, Lane::Control, 0, Kind::Clock, Bytes::new(), ANSWER).await.ok()?;
        let (answered, reply) = (Instant::now(), ClockReply::decode(reply).ok()?);
        // In the middle of the way there and back.
        let at = asked + (answered - asked) / 2;
        (answered - asked <= ANSWER).then_some((at, unit, reply))
    };
    let others = nodes.iter().filter(|(node, _)| *node != me);
    let others = others.map(|(node, entry)| ask(*node, unit(*node, &entry.zone)));
    let answers: Vec<_> = join_all(others).await.into_iter().flatten().collect();
    let at = Instant::now();
    let as_of = |then: Instant, ms: u64| ms.saturating_add((at - then).as_millis() as u64);
    let (mut wall, mut settled) = (Vec::new(), Vec::new());
    if let Some((_, entry)) = nodes.iter().find(|(node, _)| *node == me) {
        wall.push((unit(me, &entry.zone), time::wall_ms()));
    }
    for (then, unit, reply) in answers {
        if reply.settled_ms > 0 {
            settled.push((unit.clone(), as_of(then, reply.settled_ms)));
        }
        wall.push((unit, as_of(then, reply.wall_ms)));
    }
    Round { at, units, wall, settled }
}
