//! `braid stream`: create, list, describe, update and delete streams.

use std::time::Duration;

use braid_client::{Client, StreamSettings};
use braid_proto::v1;
use serde_json::{Value, json};

use crate::connect::Endpoints;
use crate::exit::{Exit, Failure};
use crate::moment::{self, duration_text, parse_duration};
use crate::output::{Format, print_json, print_line, print_table, table};
use crate::size::{bytes_text, parse_bytes};

/// Create, list, describe, update or delete streams
#[derive(clap::Subcommand)]
pub enum Command {
    /// Create a stream, and wait until it takes records
    ///
    /// Each shard takes 1 MiB/s and 1,000 records/s, and gives 2 MiB/s to all who poll it.
    ///
    /// Examples:
    ///   braid stream create clicks --shards 4
    ///   braid stream create audit --shards 1 --retention 7d
    ///   braid stream create busy --shards 8 --write-rate 4MiB --write-records 4000
    #[command(verbatim_doc_comment)]
    Create {
        /// 1 to 128 characters of a-z A-Z 0-9 _ . -
        name: String,
        /// How many shards; their ranges divide the keys evenly
        #[arg(long, short, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        shards: u32,
        /// How long records are kept, such as 24h or 7d [default: the cluster's, 24h]
        #[arg(long, value_parser = parse_duration)]
        retention: Option<Duration>,
        #[command(flatten)]
        limits: NewLimitArgs,
        /// Return as soon as it is decided, without waiting until it takes records
        #[arg(long)]
        no_wait: bool,
        /// Succeed if the stream is there already with as many open shards
        #[arg(long)]
        if_missing: bool,
    },
    /// List the streams
    List,
    /// Show a stream's status and settings
    Describe {
        /// The stream
        name: String,
    },
    /// Change a stream's retention or its shards' limits while it is used, and wait until its shards know
    ///
    /// A longer retention keeps what is still there. With a shorter one, older records can't be read any more within
    /// a minute or so, and their disk space comes back.
    ///
    /// Examples:
    ///   braid stream update clicks --retention 7d
    ///   braid stream update clicks --write-rate 4MiB --write-records 4000
    ///   braid stream update clicks --default-limits
    ///   braid stream update clicks --autoscale 2..16
    #[command(verbatim_doc_comment)]
    Update {
        /// The stream
        name: String,
        /// How long records are kept, such as 24h or 7d
        #[arg(long, value_parser = parse_duration)]
        retention: Option<Duration>,
        #[command(flatten)]
        limits: LimitArgs,
        /// Scale by load within these numbers of shards, such as 2..16; off: never
        #[arg(long, value_name = "MIN..MAX", value_parser = parse_autoscale)]
        autoscale: Option<v1::Autoscale>,
        /// Return as soon as it is decided, without waiting until its shards know
        #[arg(long)]
        no_wait: bool,
    },
    /// Delete a stream and all its records
    Delete {
        /// The stream
        name: String,
        /// Return as soon as it is decided, without waiting until the name is free
        #[arg(long)]
        no_wait: bool,
    },
}

/// The limits of each shard of a new stream; those that are not named have their defaults.
#[derive(clap::Args)]
pub struct NewLimitArgs {
    /// Bytes that each shard takes a second, such as 2MiB
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    write_rate: Option<u64>,
    /// Records that each shard takes a second
    #[arg(long, value_name = "RECORDS")]
    write_records: Option<u64>,
    /// Bytes that each shard gives to all who poll it a second, such as 4MiB
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    read_rate: Option<u64>,
    /// GetRecords calls that each shard answers a second
    #[arg(long, value_name = "CALLS")]
    read_calls: Option<u64>,
    /// The largest record (data and key), such as 2MiB; 4KiB to 10MiB
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    max_record_bytes: Option<u64>,
}

/// The limits of each shard; those that are not named stay as they are.
#[derive(clap::Args)]
pub struct LimitArgs {
    #[command(flatten)]
    named: NewLimitArgs,
    /// Back to the defaults: 1 MiB/s and 1,000 records/s in, 2 MiB/s and 5 calls/s out, records of 1 MiB
    #[arg(long, conflicts_with_all = ["write_rate", "write_records", "read_rate", "read_calls", "max_record_bytes"])]
    default_limits: bool,
}

impl NewLimitArgs {
    /// Those that are named, and the others of `now`.
    fn over(&self, now: v1::StreamLimits) -> v1::StreamLimits {
        v1::StreamLimits {
            write_bytes_per_s: self.write_rate.unwrap_or(now.write_bytes_per_s),
            write_records_per_s: self.write_records.unwrap_or(now.write_records_per_s),
            read_bytes_per_s: self.read_rate.unwrap_or(now.read_bytes_per_s),
            read_calls_per_s: self.read_calls.unwrap_or(now.read_calls_per_s),
            max_record_bytes: self.max_record_bytes.unwrap_or(now.max_record_bytes),
        }
    }
}

impl LimitArgs {
    /// What to send, given what is in force; `None` if nothing is named.
    fn over(&self, now: v1::StreamLimits) -> Option<v1::StreamLimits> {
        if self.default_limits {
            return Some(v1::StreamLimits::default());
        }
        let wanted = self.named.over(now);
        (wanted != now).then_some(wanted)
    }
}

pub async fn run(command: Command, endpoints: &Endpoints, format: Format) -> Result<(), Failure> {
    let client = endpoints.connect().await?;
    match command {
        Command::Create { name, shards, retention, limits, no_wait, if_missing } => {
            let settings = StreamSettings {
                retention_ms: retention.map_or(0, |kept| kept.as_millis() as u64),
                limits: Some(limits.over(v1::StreamLimits::default())),
            };
            if if_missing && exists_with(&client, &name, shards).await? {
                let found = client.wait_active(&name).await?;
                return show(&found, format);
            }
            if no_wait {
                client.create_stream(&name, shards, settings).await?;
                return show(&client.describe_stream(&name).await?, format);
            }
            show(&client.create_and_wait_active(&name, shards, settings).await?, format)
        }
        Command::List => list(&client.list_streams().await?, format),
        Command::Describe { name } => show(&client.describe_stream(&name).await?, format),
        Command::Update { name, retention, limits, autoscale, no_wait } => {
            let now = client.describe_stream(&name).await?;
            if let Some(bounds) = autoscale {
                client.set_autoscale(&name, bounds.min_shards, bounds.max_shards).await?;
            }
            let limits = limits.over(now.limits.unwrap_or_default());
            let retention_ms = retention.map_or(0, |kept| kept.as_millis() as u64);
            if limits.is_some() || (retention_ms > 0 && retention_ms != now.retention_ms) {
                client.update_stream(&name, retention_ms, limits).await?;
            } else if autoscale.is_none() {
                eprintln!("Nothing to change: stream {name} has these settings.");
            }
            let now = if no_wait { client.describe_stream(&name).await? } else { client.wait_active(&name).await? };
            show(&now, format)
        }
        Command::Delete { name, no_wait } => {
            client.delete_stream(&name).await?;
            if !no_wait {
                wait_gone(&client, &name, endpoints.patience).await?;
            }
            match format {
                Format::Json => print_json(&json!({ "stream": name, "deleted": !no_wait }))?,
                Format::Table if no_wait => print_line(&format!("stream {name} is being deleted"))?,
                Format::Table => print_line(&format!("stream {name} and its records are gone"))?,
            }
            Ok(())
        }
    }
}

/// `2..16`, or `off`.
fn parse_autoscale(text: &str) -> Result<v1::Autoscale, String> {
    if text == "off" {
        return Ok(v1::Autoscale::default());
    }
    let bounds = text.split_once("..").and_then(|(min, max)| Some((min.parse().ok()?, max.parse().ok()?)));
    match bounds {
        Some((min_shards @ 1.., max_shards)) => Ok(v1::Autoscale { min_shards, max_shards }),
        _ => Err(format!("{text:?} is neither bounds such as 2..16 nor off")),
    }
}

async fn exists_with(client: &Client, name: &str, shards: u32) -> Result<bool, Failure> {
    match client.describe_stream(name).await.map_err(Failure::from) {
        Ok(found) if found.open_shard_count == shards || found.status() == v1::StreamStatus::Creating => Ok(true),
        Ok(found) => Err(Failure::new(
            Exit::Refused,
            format!("stream {name} is there with {} open shards, not {shards}", found.open_shard_count),
        )),
        Err(e) if e.exit == Exit::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// Waits until nobody knows the stream any more.
pub async fn wait_gone(client: &Client, name: &str, within: Duration) -> Result<(), Failure> {
    let deadline = tokio::time::Instant::now() + within;
    loop {
        match client.describe_stream(name).await.map_err(Failure::from) {
            Err(e) if e.exit == Exit::NotFound => return Ok(()),
            Err(e) => return Err(e),
            Ok(_) if tokio::time::Instant::now() >= deadline => {
                return Err(Failure::failed(format!("stream {name} is still DELETING after {within:?}"))
                    .hint("It goes on being deleted; `braid stream list` shows when it is gone."));
            }
            Ok(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// `ACTIVE`, not `STREAM_STATUS_ACTIVE`.
fn status(stream: &v1::StreamDescription) -> &'static str {
    stream.status().as_str_name().trim_start_matches("STREAM_STATUS_")
}

/// `UPDATING: to 8 shards, 3 of 4 steps to go`.
fn status_text(stream: &v1::StreamDescription) -> String {
    match stream.target_shard_count {
        0 => status(stream).to_string(),
        target => format!(
            "{}: to {target} shards, {} of {} steps to go",
            status(stream),
            stream.scaling_steps_left,
            stream.scaling_steps
        ),
    }
}

fn to_json(stream: &v1::StreamDescription) -> Value {
    let limits = stream.limits.map(|it| {
        json!({
            "write_bytes_per_s": it.write_bytes_per_s,
            "write_records_per_s": it.write_records_per_s,
            "read_bytes_per_s": it.read_bytes_per_s,
            "read_calls_per_s": it.read_calls_per_s,
        })
    });
    json!({
        "stream": stream.stream_name,
        "status": status(stream),
        "created_ms": stream.created_ms,
        "retention_ms": stream.retention_ms,
        "open_shards": stream.open_shard_count,
        "shards": stream.shard_count,
        "max_record_bytes": stream.max_record_bytes,
        "limits": limits,
        "target_shards": stream.target_shard_count,
        "scaling_steps": stream.scaling_steps,
        "scaling_steps_left": stream.scaling_steps_left,
        "autoscale": stream.autoscale.map(|it| json!({ "min_shards": it.min_shards, "max_shards": it.max_shards })),
    })
}

fn show(stream: &v1::StreamDescription, format: Format) -> Result<(), Failure> {
    if format == Format::Json {
        return Ok(print_json(&to_json(stream))?);
    }
    list(std::slice::from_ref(stream), format)
}

fn list(streams: &[v1::StreamDescription], format: Format) -> Result<(), Failure> {
    if format == Format::Json {
        return Ok(print_json(&streams.iter().map(to_json).collect())?);
    }
    if streams.is_empty() {
        eprintln!("No streams yet. Create one: braid stream create NAME --shards 4");
        return Ok(());
    }
    let mut table = table(&[
        "stream",
        "status",
        "open shards",
        "shards",
        "retention",
        "in a shard, per s",
        "out of a shard, per s",
        "largest record",
        "created",
    ]);
    for stream in streams {
        let limits = stream.limits.unwrap_or_default();
        table.add_row([
            stream.stream_name.clone(),
            status_text(stream),
            match stream.autoscale {
                Some(it) => format!("{} ({}..{})", stream.open_shard_count, it.min_shards, it.max_shards),
                None => stream.open_shard_count.to_string(),
            },
            stream.shard_count.to_string(),
            duration_text(stream.retention_ms),
            format!("{}, {} records", bytes_text(limits.write_bytes_per_s), limits.write_records_per_s),
            format!("{}, {} calls", bytes_text(limits.read_bytes_per_s), limits.read_calls_per_s),
            bytes_text(stream.max_record_bytes.into()),
            moment::utc(stream.created_ms),
        ]);
    }
    Ok(print_table(&table)?)
}
