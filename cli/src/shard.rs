//! `braid shard`: the shards of a stream, where they live, what is asked of them, and splitting and merging them.

use braid_client::Client;
use braid_proto::v1;
use braid_stream::hash::HashKey;
use serde_json::{Value, json};

use crate::connect::Endpoints;
use crate::exit::Failure;
use crate::get::shard_id;
use crate::load;
use crate::output::{Format, print_json, print_table, table};

/// Look at, split or merge the shards of a stream
#[derive(clap::Subcommand)]
pub enum Command {
    /// List a stream's shards: their keys, their group, and who leads it
    ///
    /// Examples:
    ///   braid shard list clicks
    ///   braid shard list clicks -o json
    #[command(verbatim_doc_comment)]
    List {
        /// The stream
        stream: String,
    },
    /// Show the busiest shards of a stream: rates, what is refused, how far readers are behind, the hottest keys
    ///
    /// Over about the last minute, as each shard's leader counts it; a new leader counts anew. "Of limit" is what
    /// writers ask for, refused records included: above 100% they wait.
    ///
    /// Examples:
    ///   braid shard top clicks
    ///   braid shard top clicks --watch
    #[command(verbatim_doc_comment)]
    Top(load::TopArgs),
    /// Say whether a split would help a shard, and at which hash key; or which key is the load
    ///
    /// Examples:
    ///   braid shard explain clicks shardId-000000000001
    #[command(verbatim_doc_comment)]
    Explain {
        /// The stream
        stream: String,
        /// The shard: its id, or its number
        shard: String,
    },
    /// Split a shard in two while it is used, and wait until its children take records
    ///
    /// Writers and readers go on: writes to the shard wait for some milliseconds and go to its children. Each child
    /// has the limits of a whole shard. Records that are there stay in the parent, and are read from there first.
    ///
    /// Examples:
    ///   braid shard split clicks shardId-000000000000
    ///   braid shard split clicks shardId-000000000000 --by-load
    ///   braid shard split clicks shardId-000000000000 --at 85070591730234615865843651857942052864
    #[command(verbatim_doc_comment)]
    Split {
        /// The stream
        stream: String,
        /// The shard: its id, or its number
        shard: String,
        /// The hash key at which the upper child begins [default: in the middle]
        #[arg(long, value_name = "HASH", value_parser = parse_hash, conflicts_with_all = ["even", "by_load"])]
        at: Option<HashKey>,
        /// In the middle of its keys; the default
        #[arg(long, conflicts_with = "by_load")]
        even: bool,
        /// Where it divides what was written in the last minute
        #[arg(long)]
        by_load: bool,
        /// Return as soon as it is decided
        #[arg(long)]
        no_wait: bool,
    },
    /// Merge two shards with adjacent keys into one while they are used, and wait until it takes records
    ///
    /// Examples:
    ///   braid shard merge clicks shardId-000000000001 shardId-000000000002
    #[command(verbatim_doc_comment)]
    Merge {
        /// The stream
        stream: String,
        /// One shard: its id, or its number
        shard: String,
        /// The other one
        adjacent: String,
        /// Return as soon as it is decided
        #[arg(long)]
        no_wait: bool,
    },
}

fn parse_hash(text: &str) -> Result<HashKey, String> {
    HashKey::parse(text).map_err(|e| e.to_string())
}

pub async fn run(command: Command, endpoints: &Endpoints, format: Format) -> Result<(), Failure> {
    let client = endpoints.connect().await?;
    let (stream, wait) = match command {
        Command::List { stream } => (stream, false),
        Command::Top(args) => return load::top(&client, &args, format).await,
        Command::Explain { stream, shard } => return load::explain(&client, &stream, &shard, format).await,
        Command::Split { stream, shard, at, even: _, by_load, no_wait } => {
            let shard = shard_id(&shard);
            let at = match by_load {
                true => Some(load::split_point(&client, &stream, &shard).await?),
                false => at,
            };
            client.split_shard(&stream, &shard, at).await?;
            (stream, !no_wait)
        }
        Command::Merge { stream, shard, adjacent, no_wait } => {
            client.merge_shards(&stream, &shard_id(&shard), &shard_id(&adjacent)).await?;
            (stream, !no_wait)
        }
    };
    if wait {
        client.wait_active(&stream).await?;
    }
    list(&client, &stream, format).await
}

pub async fn list(client: &Client, stream: &str, format: Format) -> Result<(), Failure> {
    let shards = client.list_shards(stream).await?;
    if format == Format::Json {
        return Ok(print_json(&shards.iter().map(to_json).collect())?);
    }
    let mut table = table(&["shard", "state", "group", "leader", "leader address", "first key", "last key"]);
    for shard in &shards {
        let keys = shard.hash_key_range.clone().unwrap_or_default();
        table.add_row([
            shard.shard_id.clone(),
            state(shard).to_string(),
            shard.group.to_string(),
            if shard.leader_node == 0 { "none".to_string() } else { format!("node {}", shard.leader_node) },
            shard.leader_address.clone(),
            keys.starting_hash_key,
            keys.ending_hash_key,
        ]);
    }
    Ok(print_table(&table)?)
}

fn state(shard: &v1::Shard) -> &'static str {
    if is_open(shard) { "open" } else { "closed" }
}

/// Whether it takes records.
pub fn is_open(shard: &v1::Shard) -> bool {
    shard.sequence_number_range.as_ref().is_none_or(|range| range.ending_sequence_number.is_empty())
}

fn to_json(shard: &v1::Shard) -> Value {
    let keys = shard.hash_key_range.clone().unwrap_or_default();
    let numbers = shard.sequence_number_range.clone().unwrap_or_default();
    json!({
        "shard": shard.shard_id,
        "state": state(shard),
        "group": shard.group,
        "leader_node": shard.leader_node,
        "leader_address": shard.leader_address,
        "starting_hash_key": keys.starting_hash_key,
        "ending_hash_key": keys.ending_hash_key,
        "starting_sequence_number": numbers.starting_sequence_number,
        "ending_sequence_number": numbers.ending_sequence_number,
        "parent_shard": shard.parent_shard_id,
        "adjacent_parent_shard": shard.adjacent_parent_shard_id,
    })
}
