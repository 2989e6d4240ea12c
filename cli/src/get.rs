//! `braid get`: what is in a stream now, and then an end.
//!
//! Invariant: shards are printed one after the other, in order of their ids, and each shard's
//! records in its order; so the same stream gives the same output.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use braid_client::{Client, SequenceNumber};
use braid_proto::v1;
use braid_stream::IteratorKind;
use futures_util::StreamExt;
use futures_util::stream;

use crate::connect::Endpoints;
use crate::exit::{Exit, Failure};
use crate::moment::parse_duration;
use crate::output::{Format, progress};
use crate::pieces::{Assembly, AssemblyError, PieceKey};
use crate::scan::{Page, Scan};
use crate::shown::Shown;
use crate::size::bytes_text;

/// Read a stream's records, from a position to the current end
///
/// Shard after shard, each in its order. For records as they arrive use `braid tail`.
///
/// Examples:
///   braid get clicks
///   braid get clicks --shard shardId-000000000001 --since 10m -o json
///   braid get clicks --since 2h --until 1h
///   braid get logs --lines > logs.txt
///   braid get backups --file photo.raw --out photo.raw
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The stream
    pub stream: String,

    /// Only this shard: its id, or its number
    #[arg(long)]
    pub shard: Option<String>,

    /// Begin here: trim-horizon (the oldest record kept) or a sequence number
    #[arg(long, value_name = "POSITION", value_parser = Start::parse, default_value = "trim-horizon")]
    pub from: Start,

    /// Begin with records that arrived so long ago, such as 5m
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, conflicts_with = "from")]
    pub since: Option<Duration>,

    /// End with records that arrived so long ago
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, conflicts_with = "file")]
    pub until: Option<Duration>,

    /// Only records with this partition key
    #[arg(long, short)]
    pub key: Option<String>,

    /// Stop after so many records
    #[arg(long, short = 'n', value_name = "COUNT")]
    pub limit: Option<u64>,

    /// Write the records' data and nothing else, without separators
    #[arg(long, conflicts_with_all = ["lines", "file"])]
    pub raw: bool,

    /// Write the records' data and nothing else, a newline after each
    #[arg(long, conflicts_with = "file")]
    pub lines: bool,

    /// Show sequence numbers in full (JSON always does)
    #[arg(long)]
    pub numbers: bool,

    /// Put together the file of this name that was put with `put --file … --chunk-bytes …`, and
    /// check that no byte is missing
    #[arg(long, value_name = "NAME", requires = "out", conflicts_with_all = ["key", "limit"])]
    pub file: Option<String>,

    /// Where --file is written
    #[arg(long, value_name = "PATH", requires = "file")]
    pub out: Option<PathBuf>,
}

/// Where reading begins.
#[derive(Copy, Clone, Debug)]
pub enum Start {
    TrimHorizon,
    Latest,
    Sequence(SequenceNumber),
}

impl Start {
    pub fn parse(text: &str) -> Result<Start, String> {
        match text {
            "trim-horizon" => Ok(Start::TrimHorizon),
            "latest" => Ok(Start::Latest),
            number => SequenceNumber::parse(number)
                .map(Start::Sequence)
                .map_err(|_| "neither trim-horizon, latest nor a sequence number of 56 digits".to_string()),
        }
    }

    /// The position in the shard of that index. A sequence number belongs to one shard; the others
    /// are read from the moment its record arrived.
    pub fn in_shard(self, index: u32) -> IteratorKind {
        match self {
            Start::TrimHorizon => IteratorKind::TrimHorizon,
            Start::Latest => IteratorKind::Latest,
            Start::Sequence(number) if number.shard_index == index => IteratorKind::AtSequence(number),
            Start::Sequence(number) => IteratorKind::AtTimestamp(number.arrival_s * 1_000),
        }
    }
}

/// A moment so long ago, by this machine's clock.
pub fn ago(since: Duration) -> IteratorKind {
    IteratorKind::AtTimestamp(braid_env::time::wall_ms().saturating_sub(since.as_millis() as u64))
}

/// `shardId-000000000012`, also from `12`.
pub fn shard_id(text: &str) -> String {
    match text.parse::<u32>() {
        Ok(index) => format!("shardId-{index:012}"),
        Err(_) => text.to_string(),
    }
}

/// The index in a shard's id, for one that has it.
pub fn shard_index(id: &str) -> u32 {
    id.strip_prefix("shardId-").and_then(|digits| digits.parse().ok()).unwrap_or(u32::MAX)
}

/// The arrival time at which reading ends, milliseconds since the Unix epoch: no record of it or later is wanted.
fn end(since: Option<Duration>, until: Option<Duration>) -> Result<u64, Failure> {
    let Some(until) = until else { return Ok(u64::MAX) };
    if since.is_some_and(|since| since <= until) {
        return Err(Failure::usage(format!(
            "--until {until:?} ago is not after --since {:?} ago",
            since.unwrap_or_default()
        )));
    }
    Ok(braid_env::time::wall_ms().saturating_sub(until.as_millis() as u64))
}

pub async fn run(args: Args, endpoints: &Endpoints, format: Format) -> Result<(), Failure> {
    let end_ms = end(args.since, args.until)?;
    let client = endpoints.connect().await?;
    let shards = positions(&client, &args).await?;
    let addresses = any_node(&client).await;
    let scan = Scan { client, endpoints: addresses, patience: endpoints.patience, stream: args.stream.clone() };
    match (&args.file, &args.out) {
        (Some(name), Some(out)) => assemble(&scan, shards, name, out, format).await,
        _ => print(&scan, shards, &args, end_ms, format).await,
    }
}

/// The shards to read and where to begin in each.
async fn positions(client: &Client, args: &Args) -> Result<Vec<(String, IteratorKind)>, Failure> {
    let wanted = args.shard.as_deref().map(shard_id);
    let listed = client.list_shards(&args.stream).await?;
    let shards: Vec<_> = listed
        .into_iter()
        .filter(|shard| wanted.as_ref().is_none_or(|wanted| *wanted == shard.shard_id))
        .map(|shard| {
            let start = match args.since {
                Some(since) => ago(since),
                None => args.from.in_shard(shard_index(&shard.shard_id)),
            };
            (shard.shard_id, start)
        })
        .collect();
    match wanted {
        Some(wanted) if shards.is_empty() => {
            Err(Failure::new(Exit::NotFound, format!("stream {} has no shard {wanted}", args.stream))
                .hint(format!("`braid shard list {}` shows the shards there are.", args.stream)))
        }
        _ => Ok(shards),
    }
}

/// The endpoints given, and every other node of the cluster behind them.
async fn any_node(client: &Client) -> Vec<String> {
    let mut addresses = client.addresses();
    if let Ok(status) = client.cluster_status().await {
        for node in status.nodes {
            if !node.client_address.is_empty() && !addresses.contains(&node.client_address) {
                addresses.push(node.client_address);
            }
        }
    }
    addresses
}

async fn print(
    scan: &Scan,
    shards: Vec<(String, IteratorKind)>,
    args: &Args,
    end_ms: u64,
    format: Format,
) -> Result<(), Failure> {
    let mut out = io::BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let mut left = args.limit.unwrap_or(u64::MAX);
    for (shard, mut pages) in scan.shards(shards) {
        'shard: while left > 0
            && let Some(page) = pages.recv().await
        {
            for record in page? {
                // Arrival times never go back within a shard.
                if record.approximate_arrival_timestamp_ms >= end_ms {
                    break 'shard;
                }
                if left == 0 || args.key.as_ref().is_some_and(|key| *key != record.partition_key) {
                    continue;
                }
                left -= 1;
                write(&mut out, &shard, &record, args, format)?;
            }
        }
    }
    Ok(out.flush()?)
}

fn write(out: &mut impl Write, shard: &str, record: &v1::Record, args: &Args, format: Format) -> Result<(), Failure> {
    if args.raw || args.lines {
        out.write_all(&record.data)?;
        if args.lines {
            out.write_all(b"\n")?;
        }
        return Ok(());
    }
    let shown = Shown {
        shard,
        number: SequenceNumber::parse(&record.sequence_number).map_err(|e| Failure::failed(e.to_string()))?,
        arrival_ms: record.approximate_arrival_timestamp_ms,
        key: &record.partition_key,
        data: &record.data,
    };
    match format {
        Format::Json => writeln!(out, "{}", shown.json())?,
        Format::Table => writeln!(out, "{}", shown.line(args.numbers))?,
    }
    Ok(())
}

/// Writes a file's pieces where they belong, whatever order they come in.
async fn assemble(
    scan: &Scan,
    shards: Vec<(String, IteratorKind)>,
    name: &str,
    out: &PathBuf,
    format: Format,
) -> Result<(), Failure> {
    let cant_write = |e: io::Error| Failure::failed(format!("can't write {}: {e}", out.display()));
    // Beside the target, and renamed when whole: nobody finds half a file under its name.
    let unfinished = out.with_extension("braid-partial");
    let file = File::create(&unfinished).map_err(cant_write)?;
    let mut assembly = Assembly::default();
    let bar = progress(None);
    let pages = scan.shards(shards).into_iter().map(|(_, pages)| {
        Box::pin(stream::unfold(pages, |mut pages| async move { pages.recv().await.map(|page| (page, pages)) }))
    });
    let mut pages = stream::select_all(pages);
    let refused = |e: AssemblyError| {
        let exit = if e == AssemblyError::Nothing { Exit::NotFound } else { Exit::Failed };
        Failure::new(exit, format!("{name} in stream {}: {e}", scan.stream))
    };
    let mut take = |page: Page| -> Result<(), Failure> {
        for record in page? {
            let Some(key) = PieceKey::parse(&record.partition_key).filter(|key| key.file == name) else { continue };
            if assembly.accept(&key, &record.data).map_err(refused)? {
                file.write_all_at(&record.data, key.offset).map_err(cant_write)?;
                bar.inc(record.data.len() as u64);
            }
        }
        Ok(())
    };
    let mut read = Ok(());
    while read.is_ok()
        && let Some(page) = pages.next().await
    {
        read = take(page);
    }
    bar.finish_and_clear();
    let bytes = match read.and_then(|()| assembly.check().map_err(refused)) {
        Ok(bytes) => bytes,
        Err(failure) => {
            let _ = std::fs::remove_file(&unfinished);
            return Err(failure);
        }
    };
    file.sync_all().map_err(cant_write)?;
    std::fs::rename(&unfinished, out).map_err(cant_write)?;
    let (pieces, duplicates) = (assembly.pieces(), assembly.duplicates);
    match format {
        Format::Json => crate::output::print_json(&serde_json::json!({
            "file": name, "bytes": bytes, "pieces": pieces, "duplicates": duplicates
        }))?,
        Format::Table => crate::output::print_line(&format!(
            "{name}: {bytes} bytes ({}) in {pieces} pieces, none missing, {duplicates} stored twice; written to {}",
            bytes_text(bytes),
            out.display()
        ))?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_after_the_beginning() {
        let hours = |n: u64| Some(Duration::from_secs(n * 3_600));
        let now_ms = braid_env::time::wall_ms();
        assert_eq!(end(hours(2), None).unwrap(), u64::MAX);
        let an_hour_ago = end(hours(2), hours(1)).unwrap();
        assert!(an_hour_ago.abs_diff(now_ms - 3_600_000) < 60_000);
        assert_eq!(end(hours(1), hours(2)).unwrap_err().exit, Exit::Usage);
        assert_eq!(end(hours(1), hours(1)).unwrap_err().exit, Exit::Usage);
        assert!(end(None, hours(1)).is_ok());
    }
}
