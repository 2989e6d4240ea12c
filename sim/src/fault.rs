//! The faults there are: what each does to whom, and for how long.
//!
//! Deliberately absent: carrying them out (`director`).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::rng::Rng;

/// A fault without its details; counted under its name.
macro_rules! kinds {
    ($($kind:ident $name:literal,)+) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Kind { $($kind,)+ }

        impl Kind {
            /// Every kind that is scheduled by time.
            pub const ALL: &'static [Kind] = &[$(Kind::$kind,)+];

            /// Its name in reports.
            pub const fn name(self) -> &'static str {
                match self { $(Kind::$kind => $name,)+ }
            }
        }
    };
}

kinds! {
    CutLink "link cut both ways",
    CutOneWay "link cut one way",
    IsolateNode "node isolated",
    IsolateZone "zone isolated",
    Loss "packet loss",
    Reorder "packets reordered",
    Duplicate "packets duplicated",
    Delay "slow link",
    Trickle "link trickles",
    HalfOpen "connections half open",
    Reset "connections reset",
    Kill "node killed",
    Restart "node restarted in good order",
    PowerLoss "node lost power",
    ZonePowerLoss "zone lost power",
    ClusterPowerLoss "cluster lost power",
    Pause "node paused",
    SlowNode "node slow",
    WallForward "wall clock jumped forward",
    WallBack "wall clock jumped back",
    WrongStart "node restarted with a wrong wall clock",
    Drift "monotonic clock drifts",
    Replace "disk lost, node replaced",
    SuccessorLost "node's successor lost too",
    SuccessorLeads "node's successor leads the catalog",
    FsyncError "fsync failed",
    FsyncDirError "fsync of directory failed",
    WriteError "write failed",
    ShortWrite "write cut short",
    ReadError "read failed",
    RenameError "rename failed",
    DiskFull "disk full",
    SlowDisk "disk slow",
    StuckDisk "disk stuck",
    BitFlip "bit flipped on disk",
    BitMisread "bit flipped in a read",
    TailMisread "last batch misread at a start",
    IndexLost "record index lost",
    LeaderDamaged "leader's segments damaged",
    LeaderRaced "leader cut off while a follower restarts",
    LeaderStalls "leader stalls with an append on its way",
    LeaderMistimed "leader's wall clock jumped",
    VoterForgets "voter lost power as it voted",
    OfferStalls "node that is offered a leadership stalls",
    HalfReplaced "replacement killed as it begins",
    StreamUnheard "node cut off while a stream is made",
    ControllerStalls "catalog's leader stalls in the middle of a split",
    ReshardUnheard "node cut off while shards split and merge",
    MoveStranded "node restarted while a replica is on its way from it",
    MoveReturned "node that a replica leaves replaces the one that it goes to",
    MoveUnheard "node restarted after a move that another voter has not heard of",
    ArrivalUnheard "node lost power as a replica came to it",
    LeaderUnaware "group led by a node that has not heard of a move",
    SuccessorUnheard "node's successor not heard while replicas move",
    SuccessorUnled "node's successor alone answers for a group",
}

impl Kind {
    /// Those of several steps, each of which drives the cluster into a corner.
    pub const COMBINED: &'static [Kind] = &[
        Kind::TailMisread,
        Kind::LeaderDamaged,
        Kind::LeaderRaced,
        Kind::LeaderStalls,
        Kind::LeaderMistimed,
        Kind::VoterForgets,
        Kind::OfferStalls,
        Kind::HalfReplaced,
        Kind::SuccessorLost,
        Kind::SuccessorLeads,
        Kind::StreamUnheard,
        Kind::ControllerStalls,
        Kind::ReshardUnheard,
        Kind::MoveReturned,
        Kind::MoveUnheard,
        Kind::ArrivalUnheard,
        Kind::LeaderUnaware,
        Kind::SuccessorUnheard,
    ];

    /// Whether a cluster of so many nodes can come there.
    pub fn fits(self, nodes: u32) -> bool {
        match self {
            // A group and the catalog have hardly a voter in common.
            Kind::SuccessorUnled => nodes > 4,
            // Some zone has more than one node.
            Kind::SuccessorLeads
            | Kind::SuccessorUnheard
            | Kind::MoveStranded
            | Kind::MoveReturned
            | Kind::MoveUnheard
            | Kind::ArrivalUnheard
            | Kind::LeaderUnaware => nodes > 3,
            _ => true,
        }
    }

    /// Whether it goes on once a node has forgotten a replica that was moved from it.
    pub fn awaits_forgetting(self) -> bool {
        matches!(self, Kind::MoveUnheard | Kind::LeaderUnaware)
    }

    /// Whether stored bytes may be called damaged because of it.
    pub fn damages(self) -> bool {
        matches!(self, Kind::BitFlip | Kind::BitMisread | Kind::TailMisread | Kind::ReadError | Kind::LeaderDamaged)
    }
}

/// One fault. Nodes are numbered from 0 as there are at that time; `for_ms` is how long it lasts, or until
/// what was stopped is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    pub kind: Kind,
    /// Whom it strikes.
    pub node: u32,
    /// And the other end of a link.
    pub other: u32,
    pub for_ms: u64,
    /// How hard: per mille, bytes a second, microseconds, milliseconds, or parts per million.
    pub amount: u64,
    /// What a power loss leaves of what was not synced.
    pub survive: Left,
}

/// What a power loss leaves of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Left {
    Nothing,
    Something,
    Everything,
}

/// A fault and its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduled {
    pub at_ms: u64,
    pub fault: Fault,
}

impl Left {
    fn draw(rng: &mut Rng) -> Left {
        *rng.pick(&[Left::Nothing, Left::Nothing, Left::Something, Left::Something, Left::Everything])
            .expect("not empty")
    }

    pub fn survive(self) -> braid_env::disk::sim::Survive {
        use braid_env::disk::sim::Survive;
        match self {
            Left::Nothing => Survive::Nothing,
            Left::Something => Survive::Random,
            Left::Everything => Survive::Everything,
        }
    }
}

impl Fault {
    /// One of a kind; those that lose durable data are carried out on a node of the unlucky zone, whatever
    /// is drawn here.
    pub fn draw(kind: Kind, nodes: u32, rng: &mut Rng) -> Fault {
        let node = rng.below(u64::from(nodes)) as u32;
        let other = (node + 1 + rng.below(u64::from(nodes.max(2) - 1)) as u32) % nodes.max(1);
        let for_ms = match kind {
            Kind::Kill
            | Kind::TailMisread
            | Kind::IndexLost
            | Kind::WrongStart
            | Kind::Restart
            | Kind::PowerLoss
            | Kind::ZonePowerLoss
            | Kind::ClusterPowerLoss => rng.skewed(50..=8_000),
            Kind::Pause | Kind::StuckDisk => rng.skewed(100..=6_000),
            Kind::DiskFull => rng.skewed(500..=5_000),
            _ => rng.skewed(200..=10_000),
        };
        let amount = match kind {
            Kind::Loss => rng.skewed(5..=300),
            Kind::Reorder | Kind::Duplicate => rng.skewed(50..=600),
            Kind::Delay => rng.skewed(5..=400),
            Kind::Trickle => rng.skewed(2_000..=2_000_000),
            Kind::SlowNode => rng.skewed(100..=50_000),
            Kind::WallForward | Kind::WallBack | Kind::WrongStart => rng.skewed(100..=86_400_000),
            Kind::LeaderMistimed => rng.skewed(3_000..=86_400_000),
            Kind::Drift => rng.skewed(10..=20_000),
            Kind::SlowDisk => rng.skewed(2..=50),
            _ => rng.u64(),
        };
        Fault { kind, node, other, for_ms, amount, survive: Left::draw(rng) }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: node #{}, other #{}, {} ms", self.kind.name(), self.node, self.other, self.for_ms)?;
        if self.amount < 1 << 40 {
            write!(f, ", {}", self.amount)?;
        }
        write!(f, ", unsynced: {:?}", self.survive)
    }
}

/// When an armed fault strikes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trigger {
    /// A mark in the code is passed for the so-manieth time.
    Mark { name: String, skip: u32 },
    /// A client is told that its record is stored.
    Acknowledged { skip: u32 },
    /// In the middle of an fsync of a file.
    MidFsync { skip: u32 },
    /// After a file was renamed and before its directory is synced.
    Renamed { skip: u32 },
    /// After a file was created.
    Created { skip: u32 },
    /// After an fsync, before its caller knows.
    Fsynced { skip: u32 },
}

/// Whom a trigger strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Blast {
    /// The node that it happened on; for an acknowledgement, any.
    Node,
    Zone,
    Cluster,
}

/// What a trigger does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    Killed,
    PowerLost,
    Paused,
    /// It hands over a group that it leads.
    HandsOver,
}

/// A trigger, armed from some time on; it strikes once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arming {
    pub from_ms: u64,
    pub trigger: Trigger,
    pub blast: Blast,
    pub effect: Effect,
    pub survive: Left,
    /// How long it lasts.
    pub for_ms: u64,
}

impl Trigger {
    /// Any, armed at some time of a run.
    pub fn draw(duration_ms: u64, rng: &mut Rng) -> Arming {
        let skip = match rng.chance(500) {
            true => rng.below(4) as u32,
            false => rng.skewed(1..=500) as u32,
        };
        let trigger = match rng.below(8) {
            0 | 1 => Trigger::Acknowledged { skip },
            2 => Trigger::MidFsync { skip },
            3 => Trigger::Fsynced { skip },
            4 => Trigger::Renamed { skip: skip % 8 },
            5 => Trigger::Created { skip: skip % 8 },
            _ => Trigger::Mark { name: crate::marks::draw(rng), skip: if rng.chance(700) { skip % 4 } else { skip } },
        };
        let effect = match rng.chance(700) {
            true => Effect::PowerLost,
            false => {
                *rng.pick(&[Effect::Killed, Effect::Killed, Effect::Paused, Effect::HandsOver]).expect("not empty")
            }
        };
        // What is told here is told of a cluster that has just formed, too.
        let from_ms = if effect == Effect::HandsOver && rng.chance(500) { 500 } else { 3_000 };
        let blast = *rng.pick(&[Blast::Node, Blast::Node, Blast::Zone, Blast::Cluster]).expect("not empty");
        Arming {
            from_ms: rng.within(from_ms..=if from_ms < 3_000 { 3_000 } else { duration_ms.max(3_001) }),
            trigger,
            blast,
            effect,
            survive: Left::draw(rng),
            for_ms: rng.skewed(50..=6_000),
        }
    }
}

impl fmt::Display for Arming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} {:?} {} {:?} for {} ms",
            self.blast,
            self.trigger,
            match self.effect {
                Effect::Killed => "is killed",
                Effect::PowerLost => "loses power",
                Effect::Paused => "is paused",
                Effect::HandsOver => "hands over",
            },
            self.survive,
            self.for_ms
        )
    }
}
