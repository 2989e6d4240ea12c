//! What the clients of a run do: drawn from the seed, printed with it, and cut down by shrinking.
//!
//! Every client has its own seed, so that a run with one of them left out lets the others choose as
//! before.

use serde::{Deserialize, Serialize};

use super::dice::Dice;
use crate::fault::Kind;
use crate::payload::BYTES_MIN;

/// The shortest retention of a stream, a little longer than what a cluster here allows at least.
const RETENTION_MS_SHORT: u64 = 12_000;

/// Every client of a run. Removing an element leaves a valid spec.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct WorkloadSpec {
    pub streams: Vec<StreamSpec>,
    pub writers: Vec<WriterSpec>,
    pub producers: Vec<ProducerSpec>,
    pub pollers: Vec<PollerSpec>,
    pub subscribers: Vec<SubscriberSpec>,
    pub consumers: Vec<ConsumerSpec>,
    pub admins: Vec<AdminSpec>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StreamSpec {
    pub name: String,
    pub shards: u32,
    /// 0 for the cluster's default.
    pub retention_ms: u64,
    /// May be deleted, and created again, while it is used.
    pub doomed: bool,
    /// So long nobody writes into it: readers come to an empty stream.
    pub quiet_ms: u64,
}

/// Which node a client asks.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum NodeChoice {
    /// This one of the endpoints, modulo their number.
    Fixed(u32),
    /// Any, anew for each call.
    Random,
}

/// What all clients have.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClientSpec {
    pub id: u32,
    pub seed: u64,
    /// Index into the spec's streams, modulo their number.
    pub stream: u32,
    pub nodes: NodeChoice,
    /// Of one call.
    pub deadline_ms: u64,
    /// Idle from time to time for so long, in percent of the loops.
    pub pause_percent: u32,
    pub pause_ms: u64,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeySpec {
    pub count: u32,
    /// Of the records, those that go to the first key.
    pub hot_percent: u32,
    /// Of the records, those with an explicit hash key.
    pub explicit_percent: u32,
    /// The same keys as other clients that share.
    pub shared: bool,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SizeSpec {
    /// Most records have up to this many bytes of data.
    pub usual_bytes: u32,
    /// In a thousand records, those of about 30 KiB.
    pub large_permille: u32,
    /// In ten thousand records, those of nearly 1 MiB.
    pub huge_permyriad: u32,
}

/// How fast records come.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PaceSpec {
    pub records_per_s: u32,
    pub burst: Option<BurstSpec>,
}

/// From time to time, much faster.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BurstSpec {
    pub every_ms: u64,
    pub for_ms: u64,
    pub records_per_s: u32,
}

/// Raw PutRecord and PutRecords calls.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WriterSpec {
    pub client: ClientSpec,
    pub keys: KeySpec,
    pub sizes: SizeSpec,
    pub pace: PaceSpec,
    /// 1: PutRecord. Else PutRecords of 1 to so many.
    pub batch_max: u32,
    pub keep_order: bool,
    /// Calls at a time.
    pub lanes: u32,
    pub retry_refused: bool,
    /// At least once: records whose outcome is unknown are sent again.
    pub retry_unknown: bool,
}

/// The library's producer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProducerSpec {
    pub client: ClientSpec,
    pub keys: KeySpec,
    pub sizes: SizeSpec,
    pub pace: PaceSpec,
    pub linger_ms: u64,
    pub batch_max: u32,
    pub delivery_ms: u64,
    pub retry_unknown: bool,
    /// A new client and producer after so many records.
    pub renew_after: u32,
}

/// GetShardIterator and GetRecords.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PollerSpec {
    pub client: ClientSpec,
    pub limit_max: u32,
    pub interval_ms: u64,
    /// Pages of one chain, at most.
    pub pages_max: u32,
    pub habit: Habit,
}

/// Where a poller begins.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Habit {
    /// Anywhere.
    Any,
    /// At the beginning, again and again: it reads more than it may.
    Horizon,
    /// At the end, again and again: whoever leads is asked where that is as soon as it leads.
    Latest,
}

/// SubscribeToShard.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SubscriberSpec {
    pub client: ClientSpec,
    /// A subscription is given up after this at the latest.
    pub keep_ms: u64,
}

/// The library's consumer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ConsumerSpec {
    pub client: ClientSpec,
    pub subscribe: bool,
    pub latest: bool,
    pub poll_max: u32,
    pub poll_interval_ms: u64,
    pub keep_ms: u64,
}

/// Describing, listing, moving leaderships, and streams that come and go.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AdminSpec {
    pub client: ClientSpec,
    pub interval_ms: u64,
    /// In percent of the steps.
    pub transfer_percent: u32,
    /// In percent of the steps: create, use and delete a small stream.
    pub churn_percent: u32,
    /// In percent of the steps: delete a doomed stream, or bring it back.
    pub doom_percent: u32,
    /// In percent of the steps: another retention for a stream.
    pub update_percent: u32,
    /// In percent of the steps: split or merge shards.
    pub reshard_percent: u32,
    /// In percent of the steps: drain a node or let it keep what it has, or even out where replicas are.
    pub move_percent: u32,
}

impl WorkloadSpec {
    /// What speed is measured on: about fifty writes a second, a poller once a second and a consumer that subscribes.
    pub fn reference(seed: u64) -> WorkloadSpec {
        let mut dice = Dice::of(seed);
        let name = "stream-0".to_owned();
        let streams = vec![StreamSpec { name, shards: 16, retention_ms: 60_000, doomed: false, quiet_ms: 0 }];
        let mut spec = WorkloadSpec { streams, ..WorkloadSpec::default() };
        let client = |dice: &mut Dice, id| ClientSpec { deadline_ms: 3_000, pause_percent: 0, ..draw_client(dice, id) };
        let sizes = SizeSpec { usual_bytes: 1_000, large_permille: 5, huge_permyriad: 0 };
        for id in 0..4 {
            let it = client(&mut dice, id);
            let pace = PaceSpec { records_per_s: 10, burst: None };
            spec.writers.push(WriterSpec { sizes, pace, batch_max: 1, lanes: 1, ..draw_writer(&mut dice, it) });
        }
        let it = client(&mut dice, 4);
        let pace = PaceSpec { records_per_s: 10, burst: None };
        spec.producers.push(ProducerSpec { sizes, pace, ..draw_producer(&mut dice, it) });
        let it = client(&mut dice, 5);
        spec.pollers.push(PollerSpec { interval_ms: 1_000, habit: Habit::Any, ..draw_poller(&mut dice, it) });
        let it = client(&mut dice, 6);
        spec.consumers.push(ConsumerSpec { subscribe: true, latest: false, ..draw_consumer(&mut dice, it) });
        spec
    }

    /// Somebody does what a fault of that kind waits for.
    pub fn suit(&mut self, kind: Kind, seed: u64) {
        let mut dice = Dice::of(seed);
        let id = self.clients().map(|it| it.id + 1).max().unwrap_or(0);
        let client = ClientSpec { nodes: NodeChoice::Random, deadline_ms: 1_000, ..draw_client(&mut dice, id) };
        let idle = AdminSpec {
            client,
            interval_ms: dice.between(200, 800),
            transfer_percent: 0,
            churn_percent: 0,
            doom_percent: 0,
            update_percent: 0,
            reshard_percent: 0,
            move_percent: 0,
        };
        match kind {
            Kind::StreamUnheard => self.admins.push(AdminSpec { churn_percent: 100, ..idle }),
            Kind::ControllerStalls => {
                for stream in &mut self.streams {
                    stream.retention_ms = RETENTION_MS_SHORT;
                }
                let interval_ms = idle.interval_ms / 3;
                self.admins.push(AdminSpec { interval_ms, reshard_percent: 100, ..idle });
            }
            Kind::SuccessorUnheard => self.admins.push(AdminSpec { update_percent: 100, ..idle }),
            Kind::ReshardUnheard => {
                self.admins.push(AdminSpec { reshard_percent: 100, ..idle });
                for nth in 1..=2 {
                    let client = draw_client(&mut dice, id + nth);
                    self.consumers.push(ConsumerSpec { latest: false, ..draw_consumer(&mut dice, client) });
                }
            }
            Kind::MoveReturned | Kind::MoveUnheard | Kind::ArrivalUnheard => {
                let interval_ms = idle.interval_ms / 2;
                self.admins.push(AdminSpec { interval_ms, move_percent: 100, ..idle });
            }
            _ => {}
        }
    }

    /// Every client of the spec.
    pub fn clients(&self) -> impl Iterator<Item = &ClientSpec> {
        let writers = self.writers.iter().map(|it| &it.client);
        let producers = self.producers.iter().map(|it| &it.client);
        let pollers = self.pollers.iter().map(|it| &it.client);
        let subscribers = self.subscribers.iter().map(|it| &it.client);
        let consumers = self.consumers.iter().map(|it| &it.client);
        let admins = self.admins.iter().map(|it| &it.client);
        writers.chain(producers).chain(pollers).chain(subscribers).chain(consumers).chain(admins)
    }

    /// A swarm's workload: which kinds of clients there are, and how they are, differs from seed to seed.
    pub fn draw(seed: u64) -> WorkloadSpec {
        let mut dice = Dice::of(seed);
        let streams = draw_streams(&mut dice);
        let mut spec = WorkloadSpec { streams, ..WorkloadSpec::default() };
        let mut ids = 0..;
        let mut client = |dice: &mut Dice| draw_client(dice, ids.next().expect("endless"));
        if dice.percent(10) {
            let it = client(&mut dice);
            let stream = it.stream;
            spec.writers.push(draw_flood(&mut dice, it));
            let it = client(&mut dice);
            if dice.percent(50) {
                let (interval_ms, transfer_percent) = (dice.between(100, 1_000), 100);
                spec.admins.push(AdminSpec { interval_ms, transfer_percent, ..draw_admin(&mut dice, it) });
            } else {
                // A shard that is full is what readers can ask too much of.
                let it = ClientSpec { stream, ..it };
                spec.pollers.push(draw_poller_of(&mut dice, it, Habit::Horizon));
            }
        }
        for _ in 0..dice.between(1, 6) {
            match dice.percent(60) {
                true => {
                    let it = client(&mut dice);
                    spec.writers.push(draw_writer(&mut dice, it));
                }
                false => {
                    let it = client(&mut dice);
                    spec.producers.push(draw_producer(&mut dice, it));
                }
            }
        }
        for _ in 0..dice.between(0, 3) {
            let it = client(&mut dice);
            spec.pollers.push(draw_poller(&mut dice, it));
        }
        for _ in 0..dice.between(0, 2) {
            let it = client(&mut dice);
            let keep_ms = dice.between(500, 60_000);
            spec.subscribers.push(SubscriberSpec { client: it, keep_ms });
        }
        for _ in 0..dice.between(0, 2) {
            let it = client(&mut dice);
            spec.consumers.push(draw_consumer(&mut dice, it));
        }
        if spec.admins.is_empty() && dice.percent(70) {
            let it = client(&mut dice);
            spec.admins.push(draw_admin(&mut dice, it));
        }
        spec
    }
}

fn draw_streams(dice: &mut Dice) -> Vec<StreamSpec> {
    let doomed = dice.percent(30);
    let count = *dice.one_of(&[1, 1, 2, 2, 3, 4]);
    (0..count)
        .map(|nth| StreamSpec {
            name: format!("stream-{nth}"),
            shards: *dice.one_of(&[1, 1, 2, 3, 4, 8]),
            retention_ms: *dice.one_of(&[0, 0, 0, RETENTION_MS_SHORT, 25_000, 60_000]),
            doomed: doomed && nth > 0,
            quiet_ms: if dice.percent(20) { dice.between(3_000, 25_000) } else { 0 },
        })
        .collect()
}

fn draw_client(dice: &mut Dice, id: u32) -> ClientSpec {
    ClientSpec {
        id,
        seed: dice.u64(),
        stream: dice.between(0, 11) as u32,
        nodes: match dice.percent(50) {
            true => NodeChoice::Random,
            false => NodeChoice::Fixed(dice.between(0, 59) as u32),
        },
        deadline_ms: *dice.one_of(&[300, 1_000, 3_000, 10_000]),
        pause_percent: *dice.one_of(&[0, 0, 1, 5]),
        pause_ms: dice.between(100, 20_000),
    }
}

fn draw_keys(dice: &mut Dice) -> KeySpec {
    KeySpec {
        count: *dice.one_of(&[1, 3, 10, 100, 10_000]),
        hot_percent: *dice.one_of(&[0, 0, 50, 90]),
        explicit_percent: *dice.one_of(&[0, 0, 10, 100]),
        shared: dice.percent(30),
    }
}

fn draw_sizes(dice: &mut Dice) -> SizeSpec {
    SizeSpec {
        usual_bytes: dice.between(50, 1_000) as u32,
        large_permille: *dice.one_of(&[0, 0, 5, 50]),
        huge_permyriad: *dice.one_of(&[0, 0, 0, 5]),
    }
}

fn draw_pace(dice: &mut Dice) -> PaceSpec {
    let burst = dice.percent(30).then(|| BurstSpec {
        every_ms: dice.between(5_000, 60_000),
        for_ms: dice.between(200, 2_000),
        records_per_s: *dice.one_of(&[500, 1_500, 4_000]),
    });
    PaceSpec { records_per_s: *dice.one_of(&[1, 3, 10, 20, 50]), burst }
}

fn draw_writer(dice: &mut Dice, client: ClientSpec) -> WriterSpec {
    WriterSpec {
        client,
        keys: draw_keys(dice),
        sizes: draw_sizes(dice),
        pace: draw_pace(dice),
        batch_max: *dice.one_of(&[1, 1, 5, 50, 500]),
        keep_order: dice.percent(30),
        lanes: *dice.one_of(&[1, 1, 2, 4]),
        retry_refused: dice.percent(50),
        retry_unknown: dice.percent(20),
    }
}

fn draw_producer(dice: &mut Dice, client: ClientSpec) -> ProducerSpec {
    ProducerSpec {
        client,
        keys: draw_keys(dice),
        sizes: draw_sizes(dice),
        pace: draw_pace(dice),
        linger_ms: *dice.one_of(&[0, 2, 20]),
        batch_max: *dice.one_of(&[1, 20, 500]),
        delivery_ms: *dice.one_of(&[1_000, 5_000, 15_000]),
        retry_unknown: dice.percent(20),
        renew_after: *dice.one_of(&[20, 200, 100_000]),
    }
}

/// Above the limit of one shard, by records or by bytes, for as long as what it costs to run allows.
fn draw_flood(dice: &mut Dice, client: ClientSpec) -> WriterSpec {
    let by_bytes = dice.percent(40);
    let (usual_bytes, large_permille, records_per_s) = if by_bytes { (200, 500, 150) } else { (60, 0, 2_000) };
    let burst = BurstSpec { every_ms: 15_000, for_ms: dice.between(4_000, 12_000), records_per_s };
    WriterSpec {
        client: ClientSpec { deadline_ms: 1_000, pause_percent: 0, ..client },
        keys: KeySpec { count: 1, hot_percent: 0, explicit_percent: 0, shared: false },
        sizes: SizeSpec { usual_bytes, large_permille, huge_permyriad: 0 },
        pace: PaceSpec { records_per_s: 5, burst: Some(burst) },
        batch_max: if by_bytes { 10 } else { 100 },
        keep_order: dice.percent(40),
        lanes: 2,
        retry_refused: false,
        retry_unknown: false,
    }
}

fn draw_poller(dice: &mut Dice, client: ClientSpec) -> PollerSpec {
    let habit = *dice.one_of(&[Habit::Any, Habit::Any, Habit::Any, Habit::Horizon, Habit::Latest]);
    draw_poller_of(dice, client, habit)
}

fn draw_poller_of(dice: &mut Dice, client: ClientSpec, habit: Habit) -> PollerSpec {
    PollerSpec {
        client,
        limit_max: match habit {
            Habit::Any => *dice.one_of(&[1, 7, 100, 10_000]),
            _ => 10_000,
        },
        interval_ms: match habit {
            Habit::Any => *dice.one_of(&[50, 250, 1_000]),
            Habit::Horizon => 50,
            Habit::Latest => *dice.one_of(&[10, 30, 100]),
        },
        pages_max: match habit {
            Habit::Any => *dice.one_of(&[3, 20, 200]),
            _ => 1,
        },
        habit,
    }
}

fn draw_consumer(dice: &mut Dice, client: ClientSpec) -> ConsumerSpec {
    ConsumerSpec {
        client,
        subscribe: dice.percent(60),
        latest: dice.percent(30),
        poll_max: *dice.one_of(&[3, 100, 10_000]),
        poll_interval_ms: *dice.one_of(&[100, 250, 1_000]),
        keep_ms: dice.between(1_000, 120_000),
    }
}

fn draw_admin(dice: &mut Dice, client: ClientSpec) -> AdminSpec {
    AdminSpec {
        client,
        interval_ms: dice.between(300, 5_000),
        transfer_percent: *dice.one_of(&[0, 10, 30]),
        churn_percent: *dice.one_of(&[0, 10, 30]),
        doom_percent: *dice.one_of(&[5, 20, 40]),
        update_percent: *dice.one_of(&[0, 0, 10, 20]),
        reshard_percent: *dice.one_of(&[0, 20, 60]),
        move_percent: *dice.one_of(&[0, 0, 20, 60]),
    }
}

impl SizeSpec {
    /// Bytes of data of the next record.
    pub fn next(&self, dice: &mut Dice) -> usize {
        let bytes = if dice.between(1, 10_000) <= u64::from(self.huge_permyriad) {
            // With the longest key it still fits the limit of 1 MiB.
            dice.between(900 << 10, (1 << 20) - 1_100)
        } else if dice.between(1, 1_000) <= u64::from(self.large_permille) {
            dice.between(25 << 10, 35 << 10)
        } else {
            dice.between(BYTES_MIN as u64, u64::from(self.usual_bytes).max(BYTES_MIN as u64))
        };
        bytes as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_survives_its_own_text_and_is_the_seeds() {
        for seed in 0..200 {
            let spec = WorkloadSpec::draw(seed);
            assert_eq!(spec, WorkloadSpec::draw(seed));
            let text = serde_json::to_string(&spec).unwrap();
            assert_eq!(serde_json::from_str::<WorkloadSpec>(&text).unwrap(), spec);
            assert!((1..=4).contains(&spec.streams.len()));
            // One more in a flood.
            assert!((1..=7).contains(&(spec.writers.len() + spec.producers.len())));
        }
    }

    #[test]
    fn every_kind_of_client_is_drawn_sooner_or_later() {
        let specs: Vec<_> = (0..100).map(WorkloadSpec::draw).collect();
        assert!(specs.iter().any(|it| !it.writers.is_empty() && it.producers.is_empty()));
        assert!(specs.iter().any(|it| !it.producers.is_empty()));
        assert!(specs.iter().any(|it| !it.subscribers.is_empty()));
        assert!(specs.iter().any(|it| !it.consumers.is_empty()));
        assert!(specs.iter().any(|it| it.writers.iter().any(|w| w.pace.burst.is_some())));
        assert!(specs.iter().any(|it| it.streams.iter().any(|s| s.doomed)));
    }
}
