//! The planted bugs: mistakes that the simulator's checkers have to find.
//!
//! Each breaks one promise of the contract in one place. One line here, and one `if planted(Bug::…)` where it is made.

/// Where a bug is made.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Layer {
    /// The segmented log and its recovery.
    Log,
    /// Between openraft and the log, the network and the callers.
    Raft,
    /// Replicated state and the way into it.
    Apply,
    /// Splitting, merging, and the shards' descent.
    Lineage,
    /// Rates.
    Throttle,
    /// Reading, the API, routing and the client.
    Read,
}

macro_rules! bugs {
    ($($bug:ident $name:literal $layer:ident $about:literal, $hint:literal;)+) => {
        /// A mistake that can be made on request.
        #[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Bug {
            $(#[doc = $about] $bug,)+
        }

        impl Bug {
            /// Every one, in the table's order.
            pub const ALL: &'static [Bug] = &[$(Bug::$bug,)+];

            /// As the command line knows it.
            pub const fn name(self) -> &'static str {
                match self { $(Bug::$bug => $name,)+ }
            }

            /// Where it is made.
            pub const fn layer(self) -> Layer {
                match self { $(Bug::$bug => Layer::$layer,)+ }
            }

            /// What is done wrong.
            pub const fn about(self) -> &'static str {
                match self { $(Bug::$bug => $about,)+ }
            }

            /// What it needs to show.
            pub const fn hint(self) -> &'static str {
                match self { $(Bug::$bug => $hint,)+ }
            }

            /// The bug of this name.
            pub fn named(name: &str) -> Option<Bug> {
                Bug::ALL.iter().copied().find(|bug| bug.name() == name)
            }
        }
    };
}

#[rustfmt::skip]
bugs! {
    // The log.
    AckBeforeFsync "ack-before-fsync" Log "a batch is written and acknowledged without its fsync",
        "power cut of a majority at once, soon after an acknowledgement";
    FsyncRetried "fsync-retried" Log "an fsync that failed is tried once more and believed",
        "fsync error on a replica, then a power cut of it";
    VoteNotAwaited "vote-not-awaited" Log "a vote is answered before it is durable",
        "power cut of a voter just after it granted a vote, and a second candidate of the same term";
    TornTailAccepted "torn-tail-accepted" Log "recovery takes a frame whose payload does not match its checksum",
        "single-node power cut in the middle of a large write: the replica must go on afterwards";
    DamageCutAsTorn "damage-cut-as-torn" Log "damage before what was durable is cut off as if a power cut had torn it",
        "flipped bits in a replica's last segment while it is down, then that replica in a majority without the others";
    LastBatchDropped "last-batch-dropped" Log "recovery drops the last whole batch of the log",
        "crash of all replicas, or of two one after the other, soon after an acknowledgement";
    TruncationNotLogged "truncation-not-logged" Log "a truncation is carried out in memory and not written",
        "a deposed leader with entries of its own is truncated, then restarted";
    SegmentNameNotSynced "segment-name-not-synced" Log "the directory is not synced when a segment gets its name",
        "power cut after a segment roll, small segments";
    CommittedNotClamped "committed-not-clamped" Log "recovery reports a committed mark that is beyond the log's end",
        "power cut of a leader with a slow disk: the mark at a batch's start survives, the batch's entries do not";
    CheckpointNotAwaited "checkpoint-not-awaited" Log "a checkpoint is written before the entries it covers are durable",
        "power cut of a replica with a slow disk just after a segment roll";
    PurgeTakesOneTooMany "purge-one-too-many" Log "a purge removes the segment that holds the first entry left",
        "retention short enough to trim in the run, then reads of what is left, or a restart";
    RingKeepsTruncated "ring-keeps-truncated" Log "the ring keeps truncated entries, and not what replaces them",
        "a deposed leader with entries of its own is truncated, and applies what replaces them";

    // Between openraft and everything else.
    LeaderRestored "leader-restored" Raft "a leader that restarts goes on leading in its term",
        "a leader with a slow disk commits through its followers, crashes before its own fsync, and is back at once";
    FlushedTooEarly "flushed-too-early" Raft "appended entries are reported as flushed before they are",
        "power cut of a majority at once, soon after an acknowledgement";
    VoteForgotten "vote-forgotten" Raft "a vote for a candidate that was not elected yet is not read back at restart",
        "crash of a voter in the middle of an election with two candidates";
    DiscardedIsCertain "discarded-is-certain" Raft "an entry whose answer was dropped counts as certainly not appended",
        "a leader is stopped, or overtaken by a snapshot, with proposals under way that its successor commits";
    AnswersSwapped "answers-swapped" Raft "the first two callers of a batch get each other's answers",
        "three or more producers on one group at a time";
    LostAppendCounted "lost-append-counted" Raft "an append whose answer did not come counts as done",
        "a leader cut off from both followers under load";
    CommitAhead "commit-ahead" Raft "a follower is told that entries are committed with the very message that brings them",
        "a leader is lost with entries on one follower, and another replica is elected";
    SnapshotTooNew "snapshot-too-new" Raft "the newest checkpoint is offered as snapshot, not the one at the trim point",
        "retention short enough to trim in the run, a replica that lags behind it or is new, then reads from it as leader";
    VoterDropped "voter-dropped" Raft "a replica that leaves is not replaced by the one that was added",
        "a node is replaced, then one of the other two is lost";

    // Replicated state.
    GapAfterLargeSlice "gap-after-large-slice" Apply "an offset is left out after a slice of more than 20 records",
        "batches of more than 20 records for one shard";
    TimeGoesBack "time-goes-back" Apply "group time follows the leader's stamp even backwards",
        "a leader change to a node whose clock is behind";
    SliceAppliedTwice "slice-applied-twice" Apply "the first slice of a batch of three or more is applied twice",
        "records of three shards of one group in one batch";
    LateSliceLost "late-slice-lost" Apply "a slice that begins beyond 16 KiB of its entry is answered and not counted",
        "batches of several shards with more than 16 KiB";
    UnstableOrder "unstable-order" Apply "records of a shard are sorted by an unstable sort",
        "more than 20 records of several shards in one batch";
    BoundaryKeyAstray "boundary-key-astray" Apply "a key that is the first of its shard's range goes to the shard before",
        "explicit hash keys at the start of a range";
    DropLeavesShard "drop-leaves-shard" Apply "deleting a stream leaves its last shard in the group",
        "deletion of a stream with two shards in a group";
    TrimOneTooMany "trim-one-too-many" Apply "a trim takes one record more than it says",
        "retention short enough to trim in the run";
    LocalClockInApply "local-clock-in-apply" Apply "opening shards is stamped by each replica's own wall clock",
        "a stream is created, and replicas' states are compared";
    StreamIdReused "stream-id-reused" Apply "the id of the newest stream is given out again after its deletion",
        "delete the newest stream, create another one";

    SettingsHalfTold "settings-half-told" Apply "a stream's new settings are told to its first group only",
        "a stream in two groups whose retention changes";

    // Moves.
    ForgottenOnBelief "forgotten-on-belief" Raft "a node forgets a group by what its own, perhaps old, catalog says",
        "a replica comes to a node that was restarted and has not caught up with the catalog";
    ChangedOnBelief "changed-on-belief" Raft "a group's leader changes its voters by what its own, perhaps old, catalog says",
        "a leader whose catalog is behind, after a move that another leader ended";
    BegunOnceMoved "begun-once-moved" Raft "a replica that was moved to an empty node begins the group anew",
        "a move whose target hears nothing of the group's leader for three seconds";
    LeavingNotOpened "leaving-not-opened" Raft "a restarted node does not open the replica that is on its way from it",
        "a restart during a move, and the loss of another replica of the group";
    SilentCounted "silent-counted" Raft "a voter that does not answer counts when it is asked whether a node can be stopped",
        "a zone that is asked about while a voter of another zone is down or new";
    TwoInAZone "two-in-a-zone" Raft "a replica moves to the least loaded node, whatever its zone",
        "a drain with a free node in another replica's zone";

    // Splits and merges.
    SealIgnored "seal-ignored" Lineage "a sealed shard goes on taking records",
        "writes through a node that has not heard of a split or merge";
    ChildrenSwapped "children-swapped" Lineage "the children of a split take each other's keys",
        "a split, then writes";
    ChildNotYounger "child-not-younger" Lineage "a child's numbers begin with its parent's second",
        "a split or merge within a second of the parent's creation";
    EndBeforeLast "end-before-last" Lineage "a closed shard ends before its last record",
        "a reader at the end of a shard that is split or merged";
    HeldReordered "held-reordered" Lineage "records that waited for a split are sent on in reverse order",
        "PutRecords of several records for a shard that is split or merged meanwhile";
    MovedIsAppended "moved-is-appended" Lineage "records that a sealed shard refused count as appended",
        "writes to a shard while it is split or merged";

    ScalePlanDropped "scale-plan-dropped" Lineage "a scaling ends with its first steps",
        "a stream is scaled to more than twice, or less than half";
    ScalingOutlives "scaling-outlives" Lineage "deleting a stream leaves its scaling",
        "deletion of a stream that is being scaled";
    ForgottenEarly "forgotten-early" Lineage "a closed shard is forgotten when half of its retention is over",
        "a split or merge in a stream that keeps records for a short time";
    OpenUntilSealed "open-until-sealed" Lineage "a shard is listed as open until it was sealed, not until its place was taken",
        "ListShards at a moment between the seals of a merge's parents";
    LateOpenRevives "late-open-revives" Lineage "a shard that was forgotten is opened again by a command that comes late",
        "a change of a stream that two leaders carried out, and then forgetting";

    // Rates.
    BucketFullAtFailover "bucket-full-at-failover" Throttle "a new leader starts with full buckets",
        "a shard under more load than its limit while its leader changes";
    BucketsOutliveTerm "buckets-outlive-term" Throttle "a node that leads again goes on with its old buckets",
        "a shard under more load than its limit while its leader changes to and fro";
    BytesRoundedDown "bytes-rounded-down" Throttle "records are charged in whole KiB, rounded down",
        "more than 1 MiB/s of records that are no multiple of 1 KiB";
    RefundOnRefusal "refund-on-refusal" Throttle "a refused record gives back what it never took",
        "a shard under several times its limit";
    BurstDoubled "burst-doubled" Throttle "two seconds' worth may be saved up",
        "a pause of two seconds, then more load than the limit";
    ChargedPerRequest "charged-per-request" Throttle "only the first record of each shard in a call is charged",
        "PutRecords calls of many records, above the limit";
    WallClockThrottle "wall-clock-throttle" Throttle "buckets fill by the wall clock",
        "a wall clock that jumps, either way, under load";
    ThrottledYetAppended "throttled-yet-appended" Throttle "a record that is refused by rate is appended all the same",
        "more load than the limit";
    ReadsNotCharged "reads-not-charged" Throttle "what a read gives is not charged",
        "GetRecords of more than 2 MiB/s";

    // Reading, the API, routing, the client.
    ReadsOnBelief "reads-on-belief" Read "a leader reads without making sure that it still leads",
        "reads at a deposed leader that is cut off";
    AnswerCountsForLater "answer-counts-for-later" Read "the lease is over when openraft says so, which takes one request's answer for a later one's",
        "a leader that is stopped for seconds with an answer in its buffers, and is asked as it wakes";
    ReadBeforeCatchUp "read-before-catch-up" Read "a leader makes sure that it leads and does not wait until it has applied",
        "reads just after a leader change, under load";
    IndexMarkIgnored "index-mark-ignored" Read "at restart the record index counts as complete",
        "restart of a node whose index lost what was not flushed, or all of it, after a segment roll";
    LatestInsideSlice "latest-inside-slice" Read "LATEST is the second record of the last slice if that has several",
        "LATEST iterators after batches of several records";
    AfterLastIsAt "after-last-is-at" Read "AFTER_SEQUENCE_NUMBER of the last record gives it again",
        "iterators after the newest record";
    TimestampSkipsEqual "timestamp-skips-equal" Read "AT_TIMESTAMP skips records of exactly that time",
        "AT_TIMESTAMP with the arrival time of a record";
    TrimmedStartSkipsOne "trimmed-start-skips-one" Read "a reader that comes after a trim skips one record more",
        "retention short enough to trim in the run, and a reader that is slower";
    PageDropsRecord "page-drops-record" Read "the record that no longer fits into an answer is passed over",
        "more than 1 MiB to read by subscription, or 10 MiB by GetRecords";
    BehindAtTip "behind-at-tip" Read "MillisBehindLatest is the last record's age even at the tip",
        "reads that reach the tip";
    SignOfLifeSkips "sign-of-life-skips" Read "a subscription skips a record after an empty event",
        "a shard that is idle for more than five seconds, then takes two records";
    VerdictsShifted "verdicts-shifted" Read "PutRecords answers by group and not in the order of the call",
        "PutRecords for shards of several groups";
    KeepOrderIgnored "keep-order-ignored" Read "keep_order does not refuse what follows a refused record",
        "PutRecords with keep_order of small and large records, above the limit";
    ForwardRetried "forward-retried" Read "a forwarded call whose answer was lost is sent again",
        "the connection between two nodes breaks, or one of them crashes, with calls under way";
    DeadlineIsRefused "deadline-is-refused" Read "a call that ran into its deadline is called refused",
        "a leader that can't commit for longer than a request may take, and then can";
    StaleRoutes "stale-routes" Read "routes of an active stream are kept when the catalog changes",
        "a stream is deleted and created again under the same name";
    UnknownRetried "unknown-retried" Read "the producer sends records again whose outcome is unknown",
        "a leader or a connection is lost with batches under way";
    RetryReorders "retry-reorders" Read "the producer puts back refused records in reverse order",
        "several records of one key in a batch that is refused as a whole";
    ResumeSwallowsEvent "resume-swallows-event" Read "the consumer loses the first event after an interruption",
        "a leader change under a consumer";
    LatestNotAnchored "latest-not-anchored" Read "a consumer at LATEST of an empty shard begins at LATEST again",
        "a consumer at LATEST on a new stream, interrupted while the first records come";

    // What the simulator found in Braid itself: mistakes that were really made, kept so that they stay found.
    ProducerSpins "producer-spins" Read "the producer wakes again and again while a listing of shards is under way",
        "a listing that takes longer than the pause between two of them";
    TransferNotTakenBack "transfer-not-taken-back" Raft "a leader whose transfer nobody takes up stays as it is for ever",
        "a transfer to a node that has just died, by the leader with the longest log";
    OffersToTheDead "offers-to-the-dead" Raft "leaderships are offered to nodes that are not heard of",
        "a zone that is dead for good";
    OffersToLearners "offers-to-learners" Raft "leaderships are offered to replicas that do not vote yet",
        "a move to the node that shall lead, while another new replica of the group is lost and can't catch up";
    MoveToItself "move-to-itself" Apply "a move whose end is replaced by the node that it leaves goes on, from there to there",
        "a node that is lost while a replica moves to it, and is replaced by the node from where it moves";
    PeersForgotten "peers-forgotten" Raft "a node that joined does not store whom it met",
        "a node that replaces another is restarted before its catalog has told it of any";
    CatalogVotesByNode "catalog-votes-by-node" Raft "every founder votes in the catalog, whatever its zone",
        "two of four founders in the zone that is lost";
    LeaseForgotten "lease-forgotten" Raft "a node votes as soon as it is restarted, within the lease of a leader it answered",
        "a follower is restarted at once and elects another leader while the old one still reads by its lease";
    AbsentOnBelief "absent-on-belief" Read "a node says that there is no such stream without asking whether it is up to date",
        "a stream is created, and another node believes that it leads the catalog";
    ReadsFullAtFailover "reads-full-at-failover" Throttle "a new leader gives the readers of an empty shard full buckets",
        "GetRecords of a shard without records while its leader changes";
    ResignsForAnother "resigns-for-another" Raft "a leader that resigns votes for a node that did not ask for it",
        "a transfer that is not taken up in time by a node that is elected a term earlier, in a group of which one replica is gone";
    DamagedKeepsLeading "damaged-keeps-leading" Read "a leader that can't read what it stores leads on, and its readers wait for ever",
        "damage in a sealed segment of a leader, and a reader that needs it";
    VoterWithoutLog "voter-without-log" Raft "a replica votes before it has what was committed",
        "a node that takes another's place is lost before it has caught up";
    ClockOfItsOwn "clock-of-its-own" Apply "a node that is restarted goes by its own wall clock",
        "a node with a wrong wall clock that is restarted, and leads";
    ClockPulledAlone "clock-pulled-alone" Apply "a running node follows its own wall clock, whatever the others show",
        "a leader whose wall clock jumps, and a while";
    UntouchedOnBelief "untouched-on-belief" Throttle "a new leader takes a shard for unwritten whose records it has not applied yet",
        "a shard's first second of load, while its leader changes";
    StrangersStayStrangers "strangers-stay-strangers" Raft "a node asks nobody about a node that it has not heard of",
        "a node that replaces another leads the catalog before a third, which was away, has applied its registration";
    SilenceIsBorne "silence-is-borne" Read "calls to another node go on over a channel that does not answer",
        "a connection between two nodes that leads nowhere, and calls that are forwarded over it";
    IdentityNameUnsynced "identity-name-unsynced" Raft "a node relies on an identity file whose name may not be durable",
        "a new node is killed just after it named its identity, restarted, registered, and then loses power";
    SilentStreamKept "silent-stream-kept" Raft "a stream to a peer is kept though nothing is answered on it",
        "a connection between two nodes that leads nowhere, and none but heartbeats on it";
    ReplacedOnce "replaced-once" Raft "a voter of the catalog whose successor was replaced too is counted beside its successor's successor",
        "a node that is replacing another is lost itself before the catalog's membership has settled";
    UnheardIsAbsent "unheard-is-absent" Read "a node that has not heard of a stream or shard says that there is none, without asking whether it is up to date",
        "a stream is created, or a shard split, while a node hears nothing of the catalog's leader and is asked";
    NamesakeKept "namesake-kept" Read "a shard is looked for in the stream that had the name when the call came in",
        "a stream is deleted and another made under its name while a node hears nothing of the catalog's leader and is asked";
    PromiseForgotten "promise-forgotten" Raft "a replica that was moved away leaves nothing of its vote and of how far its log was",
        "a move, and while another voter has not heard of it, a restart of the node that it was moved from, whose catalog is old then";
    UnlistedIsPast "unlisted-is-past" Read "the consumer takes a shard that a listing is too old for, for one that is past retention",
        "a split, then a merge of one of its children with another shard, while a node that is behind lists the shards";
    UnledByOneReplica "unled-by-one-replica" Raft "of a group that is not led, one replica is asked who votes, and a new one knows of nobody",
        "a replica that takes another's place, in a group that has no leader, while an operator asks whether a node can be stopped";
    LeaverNotAsked "leaver-not-asked" Lineage "a group is told nothing while the node that a replica is leaving leads it",
        "a move that can't end, since another new replica of the group is lost, and a stream that is changed meanwhile";
    SnapshotTooLate "snapshot-too-late" Raft "no snapshot is offered before the log is trimmed to it",
        "a leader that trims for the first time while a request to a node that does not answer is on its way";
    TornAtFirstSight "torn-at-first-sight" Log "recovery cuts a torn tail off that it has read once",
        "a bit misread in the last, large batch of one of the two replicas that have it";
    ClosedBeforeOpen "closed-before-open" Lineage "a listing takes a shard for closed when it was sealed, though its parents were sealed later by their clock",
        "a node whose wall clock is ahead seals a shard, and one of its children is split where the clock is right";
}
