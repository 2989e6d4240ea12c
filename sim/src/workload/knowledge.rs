//! A few places of each shard that clients have heard of: what iterators are asked for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use braid_stream::{IteratorKind, SequenceNumber};

use super::dice::Dice;
use crate::history::Outcome;

/// Places kept for each shard.
const KEPT: usize = 64;

/// Shared by the clients of a run.
#[derive(Default)]
pub struct Knowledge(Mutex<BTreeMap<StreamAndShard, Vec<Heard>>>);

type StreamAndShard = (Arc<str>, Arc<str>);

#[derive(Copy, Clone)]
struct Heard {
    number: SequenceNumber,
    /// As read; of an acknowledged record only the second is known.
    arrival_ms: u64,
}

impl Knowledge {
    pub fn hear(&self, dice: &mut Dice, stream: &Arc<str>, shard: &Arc<str>, number: SequenceNumber, arrival_ms: u64) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let places = known.entry((stream.clone(), shard.clone())).or_default();
        let heard = Heard { number, arrival_ms };
        match places.len() < KEPT {
            true => places.push(heard),
            false => *dice.pick_mut(places) = heard,
        }
    }

    pub fn hear_outcomes(&self, dice: &mut Dice, stream: &Arc<str>, outcomes: &[Outcome]) {
        for outcome in outcomes {
            if let Outcome::Acked { shard, number } = outcome
                && dice.percent(20)
            {
                self.hear(dice, stream, shard, *number, number.arrival_s * 1_000);
            }
        }
    }

    /// Somewhere to begin reading: any kind of iterator that what is known allows.
    pub fn begin(&self, dice: &mut Dice, stream: &Arc<str>, shard: &Arc<str>) -> IteratorKind {
        let heard = {
            let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            known.get(&(stream.clone(), shard.clone())).map(|places| *dice.one_of(places))
        };
        match (dice.between(0, 5), heard) {
            (0, _) => IteratorKind::TrimHorizon,
            (1, _) => IteratorKind::Latest,
            (2, Some(it)) => IteratorKind::AtSequence(it.number),
            (3, Some(it)) => IteratorKind::AfterSequence(it.number),
            // At, just before and just after a record's time, and the ends of its second.
            (_, Some(it)) => IteratorKind::AtTimestamp((it.arrival_ms + dice.between(0, 4)).saturating_sub(2)),
            (_, None) => match dice.percent(50) {
                true => IteratorKind::TrimHorizon,
                false => {
                    IteratorKind::AtTimestamp((braid_env::time::wall_ms() + dice.between(0, 1_000)).saturating_sub(500))
                }
            },
        }
    }
}
