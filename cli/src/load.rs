//! `braid shard top` and `braid shard explain`: what is asked of shards, by whom, and whether a split would help.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use braid_client::Client;
use braid_proto::v1;
use braid_stream::hash::HashKey;
use serde_json::{Value, json};

use crate::exit::{Exit, Failure};
use crate::get::shard_id;
use crate::output::{Format, print_json, print_line, print_table, table};
use crate::shown::escaped;
use crate::size::bytes_text;

/// Of `shard top`.
#[derive(clap::Args)]
pub struct TopArgs {
    /// The stream
    stream: String,
    /// Look again and again, until Ctrl-C
    #[arg(long, short)]
    watch: bool,
    /// With --watch: how often
    #[arg(long, value_name = "DURATION", value_parser = crate::moment::parse_duration, default_value = "2s")]
    every: Duration,
    /// Show so many shards: the busiest
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 20,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

/// Hot keys that fit a line.
const KEYS_SHOWN: usize = 3;

pub async fn top(client: &Client, args: &TopArgs, format: Format) -> Result<(), Failure> {
    loop {
        let loads = client.shard_loads(&args.stream, None, args.limit).await?;
        match format {
            Format::Json => print_json(&loads.shards.iter().map(to_json).collect())?,
            Format::Table => {
                if args.watch && io::stdout().is_terminal() {
                    print!("\x1b[H\x1b[2J"); // to the top of an empty screen
                    io::stdout().flush()?;
                }
                print_loads(&loads)?;
            }
        }
        if !loads.missing_shard_ids.is_empty() {
            eprintln!("No answer from the leaders of: {}", loads.missing_shard_ids.join(", "));
        }
        if !args.watch {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(args.every) => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

fn print_loads(loads: &v1::DescribeShardLoadsResponse) -> Result<(), Failure> {
    let mut table = table(&[
        "shard",
        "leader",
        "of limit",
        "records/s in",
        "in/s",
        "refused/s",
        "records/s out",
        "out/s",
        "age",
        "hottest keys",
    ]);
    for it in &loads.shards {
        if it.window_ms == 0 {
            let idle = [it.shard_id.clone(), format!("node {}", it.leader_node), "idle".into()];
            table.add_row(idle.into_iter().chain(std::iter::repeat_n(String::new(), 7)).collect::<Vec<_>>());
            continue;
        }
        let hot = it.hot_keys.iter().take(KEYS_SHOWN);
        let hot: Vec<String> =
            hot.map(|key| format!("{} {:.0}%", escaped(&key.partition_key), key.share_percent)).collect();
        table.add_row([
            it.shard_id.clone(),
            format!("node {}", it.leader_node),
            format!("{:.0}%", it.write_percent),
            format!("{:.0}", it.incoming_records_per_s),
            bytes_text(it.incoming_bytes_per_s as u64),
            format!("{:.0}", it.throttled_records_per_s),
            format!("{:.0}", it.outgoing_records_per_s),
            bytes_text(it.outgoing_bytes_per_s as u64),
            format!("{} ms", it.iterator_age_ms),
            hot.join(", "),
        ]);
    }
    Ok(print_table(&table)?)
}

/// One shard's load, from its leader.
async fn load_of(client: &Client, stream: &str, shard: &str) -> Result<v1::ShardLoad, Failure> {
    let loads = client.shard_loads(stream, Some(shard), 1).await?;
    loads.shards.into_iter().next().ok_or_else(|| {
        Failure::new(Exit::Unreachable, format!("the leader of {shard} did not answer"))
            .hint("`braid cluster status` shows which group has none. A new leader counts anew.")
    })
}

pub async fn explain(client: &Client, stream: &str, shard: &str, format: Format) -> Result<(), Failure> {
    let load = load_of(client, stream, &shard_id(shard)).await?;
    if format == Format::Json {
        return Ok(print_json(&to_json(&load))?);
    }
    print_line(&text(stream, &load))?;
    let mut table = table(&["hottest keys", "hash key", "of the load"]);
    for key in &load.hot_keys {
        let less = key.share_percent - key.error_percent;
        let share = match key.error_percent < 0.5 {
            true => format!("{:.1}%", key.share_percent),
            false => format!("{less:.1}% to {:.1}%", key.share_percent),
        };
        table.add_row([escaped(&key.partition_key), key.hash_key.clone(), share]);
    }
    if load.hot_keys.is_empty() {
        return Ok(());
    }
    Ok(print_table(&table)?)
}

fn text(stream: &str, load: &v1::ShardLoad) -> String {
    let shard = &load.shard_id;
    let asked = format!(
        "{shard} was asked for {:.0}% of its write limits over the last {} s: {:.0} records/s ({}/s) appended, {:.0} \
         records/s refused.",
        load.write_percent,
        load.window_ms / 1_000,
        load.incoming_records_per_s,
        bytes_text(load.incoming_bytes_per_s as u64),
        load.throttled_records_per_s,
    );
    let first = load.hot_keys.first().map(|key| escaped(&key.partition_key)).unwrap_or_default();
    let verdict = match load.advice() {
        v1::SplitAdvice::Split => format!(
            "A split helps: the busier child would have {:.0}% of the load.\n  braid shard split {stream} {shard} --at {}",
            load.larger_half_percent, load.split_at
        ),
        v1::SplitAdvice::OneKey => format!(
            "No split helps: {:.0}% of the load is one key, {first:?}, and all records of a key are in one shard. Spread \
             it over several keys, write it less, or raise the stream's limits: braid stream update {stream} --help",
            load.larger_half_percent
        ),
        v1::SplitAdvice::NotNeeded => "No split is needed: it is far from its limits.".to_string(),
        v1::SplitAdvice::Unspecified => {
            "Too little was written to it under its leader to tell more. A new leader counts anew.".to_string()
        }
    };
    format!("{asked}\n{verdict}")
}

/// Where a split divides a shard's load best.
pub async fn split_point(client: &Client, stream: &str, shard: &str) -> Result<HashKey, Failure> {
    let load = load_of(client, stream, shard).await?;
    if load.split_at.is_empty() {
        return Err(Failure::new(Exit::Refused, text(stream, &load)).hint(format!(
            "--even splits it in the middle of its keys all the same; see `braid shard explain {stream} {shard}`"
        )));
    }
    HashKey::parse(&load.split_at).map_err(|e| Failure::failed(format!("{shard}: {e}")))
}

fn to_json(it: &v1::ShardLoad) -> Value {
    let key = |key: &v1::HotKey| {
        json!({
            "partition_key": key.partition_key,
            "hash_key": key.hash_key,
            "share_percent": key.share_percent,
            "error_percent": key.error_percent,
        })
    };
    json!({
        "shard": it.shard_id,
        "leader_node": it.leader_node,
        "window_ms": it.window_ms,
        "write_percent": it.write_percent,
        "incoming_records_per_s": it.incoming_records_per_s,
        "incoming_bytes_per_s": it.incoming_bytes_per_s,
        "throttled_records_per_s": it.throttled_records_per_s,
        "outgoing_records_per_s": it.outgoing_records_per_s,
        "outgoing_bytes_per_s": it.outgoing_bytes_per_s,
        "throttled_reads_per_s": it.throttled_reads_per_s,
        "iterator_age_ms": it.iterator_age_ms,
        "hot_keys": it.hot_keys.iter().map(key).collect::<Vec<_>>(),
        "advice": it.advice().as_str_name().trim_start_matches("SPLIT_ADVICE_").to_lowercase(),
        "split_at": it.split_at,
        "larger_half_percent": it.larger_half_percent,
    })
}
