//! The marks: moments and conditions of production code that runs of the simulator have to see.
//!
//! One line here, and one `reachable!`, `sometimes!` or `always!` at the moment itself. A mark stands where a crash is
//! interesting: just before or just after something becomes durable, visible or promised.

/// What is expected of a mark.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// Its condition holds whenever it is passed.
    Always,
    /// Its condition holds at some time in some run.
    Sometimes,
    /// It is passed in some run.
    Reachable,
}

macro_rules! marks {
    ($($mark:ident $name:literal $kind:ident $about:literal;)+) => {
        /// A moment, or a condition.
        #[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Mark {
            $(#[doc = $about] $mark,)+
        }

        impl Mark {
            /// Every one, in the table's order.
            pub const ALL: &'static [Mark] = &[$(Mark::$mark,)+];

            /// `crate_or_module.what_happened`
            pub const fn name(self) -> &'static str {
                match self { $(Mark::$mark => $name,)+ }
            }

            /// What is expected of it.
            pub const fn kind(self) -> Kind {
                match self { $(Mark::$mark => Kind::$kind,)+ }
            }

            /// What it says.
            pub const fn about(self) -> &'static str {
                match self { $(Mark::$mark => $about,)+ }
            }

            /// The mark of this name.
            pub fn named(name: &str) -> Option<Mark> {
                Mark::ALL.iter().copied().find(|mark| mark.name() == name)
            }
        }
    };
}

#[rustfmt::skip]
marks! {
    // log: writing
    GroupCommit "log.group_commit" Sometimes "one fsync served several entries";
    BatchBeforeFsync "log.batch_before_fsync" Reachable "a batch is about to be written and synced";
    BatchDurable "log.batch_durable" Reachable "a batch is durable, and nobody was told yet";
    DurableNeverBack "log.durable_never_back" Always "the durable end goes back only by a truncation";
    SegmentRenamed "log.segment_renamed" Reachable "a new segment has its name, not yet durably";
    RollBeforeSeal "log.roll_before_seal" Reachable "the next segment is durable, the full one has no Seal";
    SegmentRolled "log.segment_rolled" Reachable "the full segment is sealed, the next one takes the frames";
    VoteSaved "log.vote_saved" Reachable "a vote is durable, and not answered yet";
    Truncated "log.truncated" Reachable "a truncation is durable";
    Purged "log.purged" Reachable "a purge is durable, its segments are still there";
    SegmentRemoved "log.segment_removed" Reachable "a purged segment is removed, not yet durably";
    CheckpointBeforeRename "log.checkpoint_before_rename" Reachable "a checkpoint is durable under its temporary name";
    CheckpointWritten "log.checkpoint_written" Reachable "a checkpoint is durable";
    InstallBeforeRename "log.install_before_rename" Reachable "a snapshot's purge is durable, its checkpoint not in place";
    CheckpointInstalled "log.checkpoint_installed" Reachable "a snapshot's checkpoint is in place";
    LogFailed "log.failed" Reachable "a log has failed for good";

    // log: reading
    ReadFromMemory "log.read_from_memory" Sometimes "entries were read from the ring alone";
    ReadFromFile "log.read_from_file" Reachable "entries are read from a file";
    ReadAcrossSegments "log.read_across_segments" Sometimes "one read went through two segments";
    ReadPlannedAgain "log.read_planned_again" Reachable "a truncation or purge came in between a read's plan and its bytes";
    LogIdsConsecutive "log.ids_consecutive" Always "entries read follow one another";

    // log: recovery
    TornTailCut "log.torn_tail_cut" Reachable "recovery cuts off what a power cut tore";
    TornTailHadFrames "log.torn_tail_had_frames" Sometimes "whole frames stood behind the torn one";
    RollFinished "log.roll_finished" Sometimes "recovery finished an interrupted roll";
    InstallFinished "log.install_finished" Reachable "recovery finishes an interrupted installation";
    PurgeFinished "log.purge_finished" Sometimes "recovery removed what a purge had left";
    CommittedClamped "log.committed_clamped" Reachable "the committed mark was beyond the log's end";
    DamageRefused "log.damage_refused" Reachable "a log is refused for damage";

    // raft
    ElectionBegun "raft.election_begun" Sometimes "this node voted for itself";
    VoteGranted "raft.vote_granted" Sometimes "this node voted for another";
    BecameLeader "raft.became_leader" Reachable "this node was elected, and its vote says so durably";
    SteppedDown "raft.stepped_down" Sometimes "a node that led follows another";
    LeadershipOffered "raft.leadership_offered" Reachable "a node is offered a leadership that it said it may take";
    LeadershipTransferred "raft.leadership_transferred" Sometimes "a leadership moved on request";
    DamageFound "raft.damage_found" Reachable "stored bytes could not be read twice in a row";
    LeadershipKept "raft.leadership_kept" Sometimes "a leadership did not move in time";
    OfferWithheld "raft.offer_withheld" Reachable "a replica that does not vote yet is not offered the leadership";
    AppendConflict "raft.append_conflict" Sometimes "a follower's log conflicts with its leader's";
    AppendTimedOut "raft.append_timed_out" Sometimes "a follower did not answer an append in time";
    SilentStreamEnded "raft.silent_stream_ended" Reachable "nothing was answered on a stream to a peer for three seconds";
    SnapshotSent "raft.snapshot_sent" Reachable "a follower has taken a snapshot";
    SnapshotReceived "raft.snapshot_received" Reachable "a snapshot has come in whole";
    SnapshotBeforeInstall "raft.snapshot_before_install" Reachable "a snapshot is about to replace the log";
    SnapshotInstalled "raft.snapshot_installed" Reachable "a snapshot has replaced state, index and log";
    VoterAwaited "raft.voter_awaited" Reachable "a replica that is to vote has to catch up first";
    ClockSetByOthers "clock.set_by_others" Sometimes "a node's clock was settled far from its own wall clock";
    ClockCaughtUp "clock.caught_up" Sometimes "a running node's clock was far behind what three zones show";
    ClockUndecided "clock.undecided" Sometimes "two zones disagreed on the time, and no third was heard";
    ClockRunsFree "clock.runs_free" Reachable "a running node heard too few zones to agree on the time";
    VoteOwed "raft.vote_owed" Reachable "a replica that was moved away before refuses a vote that it can't judge by its log";
    VotersHaveTheLog "raft.voters_have_the_log" Always "who is to vote has the log up to where it was named";
    VotersChanged "raft.voters_changed" Reachable "a group has other voters";
    LeaseNotEnough "raft.lease_not_enough" Reachable "a read found no valid lease";
    LeaseMistaken "raft.lease_mistaken" Reachable "openraft took a lease for valid that no majority's answers bear out";
    PeerRefused "raft.peer_refused" Reachable "a message's identity was refused";
    CheckpointTaken "raft.checkpoint_taken" Reachable "the state before a segment is encoded, nothing of it is written";
    StartedFromCheckpoint "raft.started_from_checkpoint" Reachable "a replica begins with a checkpoint's state";
    CheckpointPassedOver "raft.checkpoint_passed_over" Sometimes "a damaged checkpoint was passed over";
    IndexAheadOfLog "raft.index_ahead_of_log" Sometimes "the index knew more than the log at start-up";
    IndexRebuilt "raft.index_rebuilt" Sometimes "the index was cleared at start-up, to be rebuilt";
    ReplicaRefused "raft.replica_refused" Reachable "a replica does not start";

    // proposing
    Overloaded "propose.overloaded" Reachable "records were refused before anything was proposed";
    BatchBeforePropose "propose.before" Reachable "a batch is about to be proposed";
    BatchBeforeAnswer "propose.before_answer" Reachable "a batch's outcome is known, and no caller was told";
    BatchOfManyCallers "propose.many_callers" Sometimes "one entry has records of several callers";
    BatchUnknown "propose.unknown" Sometimes "a batch's outcome is unknown";
    BatchNotLeader "propose.not_leader" Sometimes "a batch met a node that does not lead";
    ResponderDropped "propose.responder_dropped" Sometimes "openraft discarded a proposal, or its answer";

    // apply
    AppliedAppend "apply.append" Reachable "an append is applied";
    AppliedOpenShards "apply.open_shards" Reachable "shards are opened";
    AppliedDropStream "apply.drop_stream" Reachable "a stream's shards are dropped";
    AppliedTrim "apply.trim" Reachable "a trim is applied";
    AppliedMembership "apply.membership" Reachable "a membership is applied";
    BatchOfManyShards "apply.many_shards" Sometimes "one entry has records of several shards";
    SliceRefused "apply.slice_refused" Sometimes "a shard did not take records";
    ClusterInitialised "apply.cluster_initialised" Reachable "the catalog has a cluster";
    NodeRegistered "apply.node_registered" Reachable "the catalog knows a node";
    NodeReplaced "apply.node_replaced" Reachable "a node's replicas are given to another";
    MoveBegun "apply.move_begun" Reachable "a replica shall be on another node";
    MoveEnded "apply.move_ended" Reachable "a replica is on another node, and the old one may go";
    GroupCreated "apply.group_created" Reachable "the catalog has another group";
    StreamCreating "apply.stream_creating" Reachable "a stream is named and placed";
    StreamActive "apply.stream_active" Reachable "a stream is active";
    StreamUpdating "apply.stream_updating" Reachable "a stream's settings or shards are being changed";
    ReshardCommitted "apply.reshard_committed" Reachable "children have taken their parents' place";
    StreamDeleting "apply.stream_deleting" Reachable "a stream is being deleted";
    StreamDropped "apply.stream_dropped" Reachable "a stream is gone";
    StateSound "apply.state_sound" Always "no rule of the whole state is broken";
    AppliedWithinLog "apply.within_log" Always "what is applied is in this replica's log";
    GroupTimeNeverBack "apply.time_never_back" Always "group time never goes back";

    // control
    BecameMember "control.became_member" Reachable "a node's identity names its cluster durably";
    IdentityRefused "control.identity_refused" Reachable "a node id came back with another disk";
    StrangerVouchedFor "control.stranger_vouched_for" Reachable "another node knows a node that this one has not heard of";
    StreamBeforeActive "control.stream_before_active" Sometimes "every group has a stream's shards, the catalog does not know";
    SettingsBeforeActive "control.settings_before_active" Reachable "every group knows a stream's settings, the catalog does not know";
    LeaderLeaves "control.leader_leaves" Reachable "a group's leader is to have no replica of it any more";
    GroupRenamed "control.group_renamed" Reachable "a group that left is called gone, and not removed yet";
    GroupForgotten "control.group_forgotten" Reachable "nothing of a group that left is here any more";
    ParentsSealed "control.parents_sealed" Reachable "a step's parents are sealed, its children not open";
    ChildrenOpen "control.children_open" Reachable "a step's children are open, the catalog does not know";
    StreamBeforeDropped "control.stream_before_dropped" Sometimes "no group has a stream's shards, the catalog does not know";
    StreamStepAgain "control.stream_step_again" Reachable "a stream's creation or deletion is begun again";
    TrimProposed "control.trim_proposed" Reachable "records are old enough to be trimmed";
    PurgeAsked "control.purge_asked" Reachable "a log is about to be purged";

    // api and routing
    PutRecordAcknowledged "api.put_record_acknowledged" Reachable "PutRecord is acknowledged, the answer has not left";
    PutRecordsAnswered "api.put_records_answered" Reachable "PutRecords is done, the answer has not left";
    PutRecordsPartial "api.put_records_partial" Sometimes "some records of a call were refused, some were not";
    PutForwarded "api.put_forwarded" Reachable "records are about to be sent on to their leader";
    ForwardLost "api.forward_lost" Sometimes "a forwarded call's answer was lost";
    CallForwarded "api.call_forwarded" Reachable "a call is about to be sent on to its leader";
    PutLooksAgain "api.put_looks_again" Reachable "records are routed again";
    CallLooksAgain "api.call_looks_again" Reachable "a call is routed again";
    NotLeaderRefusal "api.not_leader" Reachable "a call is refused for want of leadership";
    DeadlineExceeded "api.deadline_exceeded" Reachable "a call's time is over, its outcome unknown";
    LeaderNotConfirmed "api.leader_not_confirmed" Reachable "a leader could not make sure in time that it leads";
    PredecessorRefused "api.predecessor_refused" Reachable "a record is refused for the one before it";
    IteratorExpired "api.iterator_expired" Reachable "an iterator is too old";
    ElectionAwaited "route.election_awaited" Reachable "a call waits for an election";
    CatalogBehind "route.catalog_behind" Reachable "a node says that its catalog is behind, not that something is not there";
    CatalogAwaited "route.catalog_awaited" Sometimes "a call waits for a stream to become known";
    LeaderGuessed "route.leader_guessed" Reachable "a call is sent to a replica in turn";
    PutHeld "api.put_held" Reachable "records that a closed shard refused wait for its children";
    SilentChannelDropped "route.silent_channel_dropped" Reachable "calls to another node went unanswered, and it is dialled anew";

    // rates
    ThrottledRecords "throttle.records" Reachable "a shard takes no more records for now";
    ThrottledBytes "throttle.bytes" Reachable "a shard takes no more bytes for now";
    ThrottledReads "throttle.reads" Reachable "a shard gives no more for now";
    ThrottleNewTerm "throttle.new_term" Reachable "a group's buckets begin anew";

    // reading
    ReadFromTrimmed "read.from_trimmed" Sometimes "a read began below the trim point";
    ReadOvertakenByTrim "read.overtaken_by_trim" Sometimes "a trim took away what was being read";
    ReadAgain "read.again" Reachable "what could not be read is read once more";
    PageFull "read.page_full" Reachable "an answer holds no more records";
    SubscriptionInterrupted "read.subscription_interrupted" Reachable "a subscription ends with its leadership";
    SubscriptionOver "read.subscription_over" Reachable "a subscription's five minutes are over";
    SubscriptionPaced "read.subscription_paced" Sometimes "a subscription waited for its rate";
    SignOfLife "read.sign_of_life" Reachable "an idle subscription sends an empty event";

    // client
    CallRetried "client.call_retried" Reachable "an admin call is tried at another node";
    ProducerRetries "client.producer_retries" Reachable "a refused record is put back";
    ProducerUnknown "client.producer_unknown" Reachable "a record's outcome is unknown";
    ProducerOvertaken "client.producer_overtaken" Sometimes "a record is given up, since a later one of its key went in";
    ProducerTimedOut "client.producer_timed_out" Sometimes "a record was refused until its time was up";
    RoutesChangedInFlight "client.routes_changed_in_flight" Sometimes "routes changed with batches under way";
    ConsumerRenews "client.consumer_renews" Reachable "a subscription is renewed";
    ConsumerInterrupted "client.consumer_interrupted" Reachable "reading a shard is begun again after a failure";
    ConsumerIteratorStale "client.consumer_iterator_stale" Reachable "an iterator of a consumer is no good any more";
    ConsumerDropsRepeat "client.consumer_drops_repeat" Reachable "a record was given twice, and dropped";
    ConsumerShardForgotten "client.consumer_shard_forgotten" Reachable "a shard is forgotten before it was read to its end";
    ConsumerMissed "client.consumer_missed" Sometimes "records were trimmed before they were read";
}
