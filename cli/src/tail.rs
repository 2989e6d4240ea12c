//! `braid tail`: records as they arrive, from all shards of a stream, until interrupted.

use std::io::{self, Write};
use std::time::Duration;

use braid_client::{ConsumerOptions, ShardBatch};

use crate::connect::Endpoints;
use crate::exit::{Exit, Failure};
use crate::get::{self, Start, ago, shard_id, shard_index};
use crate::moment::parse_duration;
use crate::output::Format;
use crate::shown::Shown;

/// Follow a stream: print records as they arrive
///
/// Records of one partition key come in the order they were put; between keys there is no order.
/// Survives nodes that stop and leaders that move. Ends with Ctrl-C, or after --limit records.
/// With --until it ends there, and shows shard after shard, as `braid get` does.
///
/// Examples:
///   braid tail clicks
///   braid tail clicks --since 5m
///   braid tail clicks --since 2h --until 1h
///   braid tail clicks --from trim-horizon -o json | jq .data
///   braid tail clicks --from 49590338271490256608559692538361571095921575989136588898
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The stream
    stream: String,

    /// Begin here: latest (what arrives from now on), trim-horizon (the oldest record kept), or a
    /// sequence number; then the other shards begin at the moment its record arrived
    #[arg(long, value_name = "POSITION", value_parser = Start::parse, default_value = "latest")]
    from: Start,

    /// Begin with records that arrived so long ago, such as 5m
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, conflicts_with = "from")]
    since: Option<Duration>,

    /// End with records that arrived so long ago
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    until: Option<Duration>,

    /// Only this shard: its id, or its number
    #[arg(long)]
    shard: Option<String>,

    /// Only records with this partition key
    #[arg(long, short)]
    key: Option<String>,

    /// Stop after so many records
    #[arg(long, short = 'n', value_name = "COUNT")]
    limit: Option<u64>,

    /// Write the records' data and nothing else, a newline after each
    #[arg(long)]
    lines: bool,

    /// Show sequence numbers in full (JSON always does)
    #[arg(long)]
    numbers: bool,
}

pub async fn run(args: Args, endpoints: &Endpoints, format: Format) -> Result<(), Failure> {
    if args.until.is_some() {
        if args.since.is_none() && matches!(args.from, Start::Latest) {
            return Err(Failure::usage("--until is in the past: say where to begin with --since or --from"));
        }
        return get::run(args.ended(), endpoints, format).await;
    }
    let client = endpoints.connect().await?;
    let wanted = args.shard.as_deref().map(shard_id);
    let mut options = ConsumerOptions::default();
    match (args.since, args.from) {
        (Some(since), _) => options.start = ago(since),
        (None, Start::Sequence(number)) => {
            options.start = Start::Sequence(number).in_shard(u32::MAX);
            for shard in client.list_shards(&args.stream).await? {
                let index = shard_index(&shard.shard_id);
                if index == number.shard_index {
                    options.positions.insert(shard.shard_id, args.from.in_shard(index));
                }
            }
            if options.positions.is_empty() {
                let message = format!("stream {} has no shard {}", args.stream, number.shard_index);
                return Err(Failure::new(Exit::NotFound, message).hint("Is the number from another stream?"));
            }
        }
        (None, start) => options.start = start.in_shard(u32::MAX),
    }
    let mut consumer = client.consumer(&args.stream, options).await?;

    let mut left = args.limit.unwrap_or(u64::MAX);
    while left > 0 {
        let batch = tokio::select! {
            batch = consumer.next() => batch,
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        let Some(batch) = batch else {
            eprintln!("Every shard of {} is closed and read to its end.", args.stream);
            return Ok(());
        };
        let batch = batch?;
        if wanted.as_ref().is_none_or(|wanted| **wanted == *batch.shard) {
            left -= print(&batch, &args, left, format)?;
        }
    }
    Ok(())
}

impl Args {
    /// The same, of what is there.
    fn ended(self) -> get::Args {
        let Args { stream, from, since, until, shard, key, limit, lines, numbers } = self;
        get::Args { stream, shard, from, since, until, key, limit, raw: false, lines, numbers, file: None, out: None }
    }
}

/// Prints up to `most` of the records, and says how many.
fn print(batch: &ShardBatch, args: &Args, most: u64, format: Format) -> Result<u64, Failure> {
    if batch.missed > 0 {
        eprintln!("{}: {} records were removed by retention before they were read", batch.shard, batch.missed);
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut printed = 0;
    for record in &batch.records {
        if args.key.as_ref().is_some_and(|key| *key != record.partition_key) {
            continue;
        }
        if printed == most {
            break;
        }
        printed += 1;
        if args.lines {
            out.write_all(&record.data)?;
            out.write_all(b"\n")?;
            continue;
        }
        let shown = Shown {
            shard: &batch.shard,
            number: record.sequence_number,
            arrival_ms: record.arrival_ms,
            key: &record.partition_key,
            data: &record.data,
        };
        match format {
            Format::Json => writeln!(out, "{}", shown.json())?,
            Format::Table => writeln!(out, "{}", shown.line(args.numbers))?,
        }
    }
    out.flush()?;
    Ok(printed)
}
