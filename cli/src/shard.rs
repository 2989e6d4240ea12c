//! `braid shard`: the shards of a stream and where they live.

use braid_proto::v1;
use serde_json::{Value, json};

use crate::connect::Endpoints;
use crate::exit::Failure;
use crate::output::{Format, print_json, print_table, table};

/// Look at the shards of a stream
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
}

pub async fn run(command: Command, endpoints: &Endpoints, format: Format) -> Result<(), Failure> {
    let Command::List { stream } = command;
    let shards = endpoints.connect().await?.list_shards(&stream).await?;
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
    match &shard.sequence_number_range {
        Some(range) if !range.ending_sequence_number.is_empty() => "closed",
        _ => "open",
    }
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
