//! `braid put`: records from an argument, from lines, or from a file cut into pieces.
//!
//! Owns what a record is made of. What becomes of it is `delivery`'s to tell.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use braid_client::HashKey;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::connect::Endpoints;
use crate::delivery::{Delivery, Tally};
use crate::exit::{Exit, Failure};
use crate::output::{Format, print_json, print_line, progress};
use crate::pieces::PieceKey;
use crate::size::parse_bytes;

/// Put records into a stream
///
/// One record from the command line, one per line of standard input or of a file, or a whole file
/// cut into pieces with --chunk-bytes, which `braid get --file NAME` puts together again.
///
/// Prints how many records were acked (on disk in two zones), refused (certainly not stored) and
/// unknown (maybe stored). Ends with 0 only if all were acked; 4 if any was refused, 5 if any is unknown.
///
/// Examples:
///   braid put clicks 'hello' --key me
///   tail -f app.log | braid put logs
///   braid put readings --file readings.ndjson --key-field device.id
///   braid put backups --file photo.raw --chunk-bytes 256KiB --retry-unknown
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The stream
    stream: String,

    /// One record's data; without it, and without --file, records are the lines of standard input
    #[arg(conflicts_with = "file")]
    data: Option<String>,

    /// Records are this file's lines, or its pieces with --chunk-bytes
    #[arg(long, short, value_name = "PATH")]
    file: Option<PathBuf>,

    /// Cut --file into pieces of this size (any bytes), spread over all shards
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, requires = "file")]
    chunk_bytes: Option<u64>,

    /// The partition key of every record (with --chunk-bytes: the name the file is stored under)
    /// [default: a random key per record; with --chunk-bytes: the file's name]
    #[arg(long, short, conflicts_with = "key_field")]
    key: Option<String>,

    /// Lines are JSON objects; the partition key is this field, such as device or device.id
    #[arg(long, value_name = "FIELD", conflicts_with_all = ["data", "chunk_bytes"])]
    key_field: Option<String>,

    /// Choose the shard by this hash key (0 to 2^128 - 1) in place of the partition key
    #[arg(long, value_name = "NUMBER", conflicts_with = "chunk_bytes")]
    explicit_hash_key: Option<String>,

    /// At least once: also send again what may have been stored. A piece stored twice does no harm
    #[arg(long)]
    retry_unknown: bool,
}

/// A record that is not handed over yet.
struct Item {
    /// For messages: `line 17`, `bytes 65536…`.
    what: String,
    key: String,
    data: Bytes,
}

/// Records read ahead of the cluster.
const READ_AHEAD: usize = 64;

pub async fn run(args: Args, endpoints: &Endpoints, format: Format) -> Result<(), Failure> {
    let hash = match &args.explicit_hash_key {
        Some(text) => Some(HashKey::parse(text).map_err(|e| Failure::usage(format!("--explicit-hash-key: {e}")))?),
        None => None,
    };
    // Before anything else: a missing file should be told at once.
    let source = Source::of(&args)?;
    let client = endpoints.connect().await?;
    let bar = progress(source.bytes);
    let mut delivery = Delivery::open(&client, &args.stream, args.retry_unknown, bar).await?;
    if source.is_terminal {
        eprintln!("Type records, one a line; end with Ctrl-D.");
    }

    let started = Instant::now();
    let single = matches!(source.kind, Kind::One(_));
    let mut items = source.read();
    let mut stopped = None;
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        let item = tokio::select! {
            item = items.recv() => item,
            _ = &mut interrupted => {
                stopped = Some(Failure::failed("interrupted: what follows was not put"));
                break;
            }
        };
        match item {
            Some(Ok(Item { what, key, data })) => delivery.put(what, key, hash, data).await?,
            Some(Err(failure)) => {
                stopped = Some(failure);
                break;
            }
            None => break,
        }
    }
    let tally = delivery.finish().await?;
    show(&tally, started.elapsed(), single, format)?;
    match (tally.verdict(), stopped) {
        (Ok(()), Some(failure)) => Err(failure),
        (verdict, Some(failure)) => {
            failure.report();
            verdict
        }
        (verdict, None) => verdict,
    }
}

fn show(tally: &Tally, took: Duration, single: bool, format: Format) -> io::Result<()> {
    match (&tally.last, format) {
        (Some((shard, number)), Format::Json) if single => {
            print_json(&json!({ "shard": shard.as_ref(), "sequence_number": number.to_string() }))
        }
        (Some((shard, number)), Format::Table) if single => print_line(&format!("{shard}  {number}")),
        (_, Format::Json) => print_json(&tally.to_json(took)),
        (_, Format::Table) => print_line(&tally.to_line(took)),
    }
}

/// Where records come from.
struct Source {
    kind: Kind,
    key: Option<String>,
    /// Of all the input, if known.
    bytes: Option<u64>,
    is_terminal: bool,
}

enum Kind {
    One(String),
    Lines { from: Box<dyn BufRead + Send>, key_field: Option<String> },
    Pieces { file: File, name: String, total: u64, piece_bytes: u64 },
}

impl Source {
    fn of(args: &Args) -> Result<Source, Failure> {
        let key = args.key.clone();
        if let Some(data) = &args.data {
            let bytes = Some(data.len() as u64);
            return Ok(Source { kind: Kind::One(data.clone()), key, bytes, is_terminal: false });
        }
        let key_field = args.key_field.clone();
        let Some(path) = &args.file else {
            let from = Box::new(BufReader::new(io::stdin()));
            let is_terminal = io::stdin().is_terminal();
            return Ok(Source { kind: Kind::Lines { from, key_field }, key, bytes: None, is_terminal });
        };
        let (file, total) = open(path)?;
        let kind = match args.chunk_bytes {
            None => Kind::Lines { from: Box::new(BufReader::new(file)), key_field },
            Some(0) => return Err(Failure::usage("--chunk-bytes must be at least 1")),
            Some(piece_bytes) => {
                let name = match &key {
                    Some(name) => name.clone(),
                    None => path.file_name().map_or_else(|| "file".into(), |n| n.to_string_lossy().into_owned()),
                };
                Kind::Pieces { file, name, total, piece_bytes }
            }
        };
        Ok(Source { kind, key, bytes: Some(total), is_terminal: false })
    }

    /// Reads on a thread of its own, since reading blocks.
    fn read(self) -> mpsc::Receiver<Result<Item, Failure>> {
        let (out, items) = mpsc::channel(READ_AHEAD);
        std::thread::spawn(move || {
            // An error of sending means that nobody wants more.
            let give = |item| out.blocking_send(item).is_ok();
            match self.kind {
                Kind::One(data) => {
                    let key = self.key.unwrap_or_else(random_key);
                    give(Ok(Item { what: "the record".into(), key, data: data.into() }));
                }
                Kind::Lines { from, key_field } => lines(from, self.key, key_field, give),
                Kind::Pieces { file, name, total, piece_bytes } => pieces(file, name, total, piece_bytes, give),
            }
        });
        items
    }
}

fn open(path: &Path) -> Result<(File, u64), Failure> {
    let failed = |e: io::Error| Failure::failed(format!("can't read {}: {e}", path.display()));
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    match metadata.is_dir() {
        true => Err(Failure::usage(format!("{} is a directory", path.display()))),
        false => Ok((file, metadata.len())),
    }
}

/// Spreads records over shards when nobody said where they belong.
fn random_key() -> String {
    format!("{:016x}", braid_env::random::u64())
}

fn lines(
    mut from: Box<dyn BufRead + Send>,
    key: Option<String>,
    key_field: Option<String>,
    give: impl Fn(Result<Item, Failure>) -> bool,
) {
    for number in 1u64.. {
        let mut line = Vec::new();
        match from.read_until(b'\n', &mut line) {
            Ok(0) => return,
            Ok(_) => {}
            Err(e) => {
                give(Err(Failure::failed(format!("can't read line {number}: {e}"))));
                return;
            }
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        let found = match (&key, &key_field) {
            (Some(key), _) => Ok(key.clone()),
            (None, Some(field)) => field_of(&line, field).map_err(|why| {
                Failure::new(Exit::Usage, format!("line {number}: {why}; this line and what follows were not put"))
            }),
            (None, None) => Ok(random_key()),
        };
        let stop = found.is_err();
        if !give(found.map(|key| Item { what: format!("line {number}"), key, data: line.into() })) || stop {
            return;
        }
    }
}

/// The text of a field of a JSON object; `a.b` is the field b of the object a.
fn field_of(line: &[u8], field: &str) -> Result<String, String> {
    let object: Value = serde_json::from_slice(line).map_err(|e| format!("not JSON: {e}"))?;
    let value = field.split('.').try_fold(&object, |value, name| value.get(name));
    match value {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(Value::Bool(bool)) => Ok(bool.to_string()),
        Some(other) => Err(format!("field {field:?} is {other}, which can't be a key")),
        None => Err(format!("no field {field:?}")),
    }
}

fn pieces(file: File, name: String, total: u64, piece_bytes: u64, give: impl Fn(Result<Item, Failure>) -> bool) {
    let mut from = BufReader::with_capacity(1 << 20, file);
    let mut offset = 0;
    loop {
        let mut data = Vec::new();
        let wanted = piece_bytes.min(total - offset);
        let read = (&mut from).take(wanted).read_to_end(&mut data);
        let why = match read {
            Ok(read) if read as u64 == wanted => None,
            Ok(_) => Some("it became shorter while it was read".to_string()),
            Err(e) => Some(e.to_string()),
        };
        if let Some(why) = why {
            give(Err(Failure::failed(format!("can't read {name} at byte {offset}: {why}"))));
            return;
        }
        let key = PieceKey { file: name.clone(), offset, total }.to_string();
        offset += wanted;
        // An empty file is one empty piece, so that it can be read back too.
        if !give(Ok(Item { what: key.clone(), key, data: data.into() })) || offset == total {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_from_fields() {
        let line = br#"{"device":{"id":"p-1"},"n":7,"on":true,"empty":"","list":[1]}"#;
        assert_eq!(field_of(line, "device.id"), Ok("p-1".into()));
        assert_eq!(field_of(line, "n"), Ok("7".into()));
        assert_eq!(field_of(line, "on"), Ok("true".into()));
        for bad in ["device", "empty", "list", "nothing", "device.id.x"] {
            assert!(field_of(line, bad).is_err(), "{bad}");
        }
        assert!(field_of(b"not json", "a").is_err());
    }
}
