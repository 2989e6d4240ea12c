//! Every series that goes through the facade: name, kind, unit and what it means.
//!
//! Invariant: a name is never used again with another meaning; units are part of the name.

use metrics::Unit;

use super::NO_UNIT;

pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

pub const BUILD_INFO: &str = "braid_build_info";
pub const REQUEST_SECONDS: &str = "braid_request_duration_seconds";
pub const REQUESTS: &str = "braid_requests_total";
pub const REQUESTS_SHED: &str = "braid_requests_shed_total";
pub const REQUESTS_FORWARDED: &str = "braid_requests_forwarded_total";
pub const REQUESTS_IN_FLIGHT: &str = "braid_requests_in_flight";
pub const GROUP_LEADER: &str = "braid_group_leader";
pub const GROUP_TERM: &str = "braid_group_term";
pub const GROUP_COMMITTED: &str = "braid_group_committed_index";
pub const GROUP_APPLIED: &str = "braid_group_applied_index";
pub const GROUP_LAST: &str = "braid_group_last_log_index";
pub const GROUP_PURGED: &str = "braid_group_purged_index";
pub const GROUP_SHARDS: &str = "braid_group_shards";
pub const LOG_FSYNCS: &str = "braid_log_fsyncs_total";
pub const LOG_BYTES: &str = "braid_log_written_bytes_total";
pub const LOG_ENTRIES: &str = "braid_log_entries_total";
pub const LOG_KEPT: &str = "braid_log_kept_bytes";
pub const DISK_WRITES: &str = "braid_disk_writes_total";
pub const DISK_BYTES_WRITTEN: &str = "braid_disk_written_bytes_total";
pub const DISK_FSYNCS: &str = "braid_disk_fsyncs_total";

pub const FACADE: &[(&str, Kind, Unit, &str)] = &[
    (BUILD_INFO, Kind::Gauge, NO_UNIT, "Always 1; the label says which version runs."),
    (
        REQUEST_SECONDS,
        Kind::Histogram,
        Unit::Seconds,
        "From a request's arrival to its answer's first byte, by method.",
    ),
    (REQUESTS, Kind::Counter, NO_UNIT, "Requests answered, by method and gRPC code."),
    (REQUESTS_SHED, Kind::Counter, NO_UNIT, "Requests refused because too many were being served."),
    (REQUESTS_FORWARDED, Kind::Counter, NO_UNIT, "Requests sent on to the leader's node."),
    (REQUESTS_IN_FLIGHT, Kind::Gauge, NO_UNIT, "Requests being served."),
    (GROUP_LEADER, Kind::Gauge, NO_UNIT, "1 where this node leads the group, else 0."),
    (GROUP_TERM, Kind::Gauge, NO_UNIT, "The group's Raft term; it grows with every election."),
    (GROUP_COMMITTED, Kind::Gauge, NO_UNIT, "Last log index known to be on a majority."),
    (GROUP_APPLIED, Kind::Gauge, NO_UNIT, "Last log index applied."),
    (GROUP_LAST, Kind::Gauge, NO_UNIT, "Last log index this replica has."),
    (GROUP_PURGED, Kind::Gauge, NO_UNIT, "Log indexes up to this one are no longer kept."),
    (GROUP_SHARDS, Kind::Gauge, NO_UNIT, "Shards that live in the group, closed ones included."),
    (LOG_FSYNCS, Kind::Counter, NO_UNIT, "Times the group's log was fsynced."),
    (LOG_BYTES, Kind::Counter, Unit::Bytes, "Bytes written to the group's log, framing included."),
    (LOG_ENTRIES, Kind::Counter, NO_UNIT, "Entries appended to the group's log."),
    (LOG_KEPT, Kind::Gauge, Unit::Bytes, "Bytes of the group's log kept on disk."),
    (DISK_WRITES, Kind::Counter, NO_UNIT, "Writes of the whole process, the record index excepted."),
    (DISK_BYTES_WRITTEN, Kind::Counter, Unit::Bytes, "Bytes written by the whole process, the record index excepted."),
    (DISK_FSYNCS, Kind::Counter, NO_UNIT, "Fsyncs of the whole process, the record index excepted."),
];
