//! `braid scale`: as many shards as are asked for, with equal shares of the keys.
//!
//! Invariant: the plan is made anew from the shards there are after every step, so that a run that is interrupted, or
//! finds that somebody else has split or merged meanwhile, goes on from there.

use braid_client::{CallError, Client, Reason};
use braid_proto::v1;
use braid_stream::hash::{HashKey, HashRange};
use braid_stream::scale::{self, Step};
use serde_json::{Value, json};

use crate::connect::Endpoints;
use crate::exit::Failure;
use crate::output::{Format, print_json, print_line, print_table, table};
use crate::shard;

/// Give a stream so many shards, with equal shares of the keys, while it is used
///
/// Prints the splits and merges it takes first; with --dry-run that is all. Then it carries them out, one at a time. If
/// it is interrupted, run it again: it goes on from what is there.
///
/// Examples:
///   braid scale clicks --shards 8 --dry-run
///   braid scale clicks --shards 8
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The stream
    stream: String,
    /// How many open shards it is to have
    #[arg(long, value_name = "N")]
    shards: u32,
    /// Only print what would be done
    #[arg(long)]
    dry_run: bool,
}

/// The open shards, in order of their keys.
struct Open(Vec<(HashRange, String)>);

impl Open {
    async fn of(client: &Client, stream: &str) -> Result<Open, Failure> {
        let shards = client.list_shards(stream).await?;
        let open = shards.iter().filter(|it| shard::is_open(it));
        let mut open = open.map(|it| Ok((range(it)?, it.shard_id.clone()))).collect::<Result<Vec<_>, Failure>>()?;
        open.sort();
        Ok(Open(open))
    }

    fn ranges(&self) -> Vec<HashRange> {
        self.0.iter().map(|(range, _)| *range).collect()
    }

    fn plan(&self, shards: u32) -> Result<Vec<Step>, Failure> {
        scale::plan(&self.ranges(), shards).map_err(|e| Failure::usage(e.to_string()))
    }

    /// The shard that has `range` now; none, if an earlier step makes it.
    fn name(&self, range: &HashRange) -> Option<&str> {
        self.0.iter().find(|(it, _)| it == range).map(|(_, name)| name.as_str())
    }
}

fn range(shard: &v1::Shard) -> Result<HashRange, Failure> {
    let keys = shard.hash_key_range.clone().unwrap_or_default();
    let bound = |text: &str| HashKey::parse(text).map_err(|e| Failure::failed(format!("{}: {e}", shard.shard_id)));
    let range = HashRange::new(bound(&keys.starting_hash_key)?, bound(&keys.ending_hash_key)?);
    range.map_err(|e| Failure::failed(format!("{}: {e}", shard.shard_id)))
}

pub async fn run(args: Args, endpoints: &Endpoints, format: Format) -> Result<(), Failure> {
    let client = endpoints.connect().await?;
    let Args { stream, shards, dry_run } = args;
    client.wait_active(&stream).await?;
    let open = Open::of(&client, &stream).await?;
    let steps = open.plan(shards)?;
    if format == Format::Table {
        print_plan(&stream, &open, shards, &steps)?;
    } else if dry_run {
        print_json(&plan_json(&stream, &open, &steps))?;
    }
    if dry_run {
        return Ok(());
    }
    carry_out(&client, &stream, shards, steps.len()).await?;
    shard::list(&client, &stream, format).await
}

async fn carry_out(client: &Client, stream: &str, shards: u32, planned: usize) -> Result<(), Failure> {
    // Somebody else may work on the same stream; not for ever.
    for _ in 0..planned.max(1) * 2 + 10 {
        let open = Open::of(client, stream).await?;
        let steps = open.plan(shards)?;
        let Some(step) = steps.first() else { return Ok(()) };
        eprintln!("{} to go: {}", steps.len(), describe(&open, step));
        let named = |range: &HashRange| open.name(range).expect("the first step is of what is there").to_owned();
        let done = match step {
            Step::Split { range, at } => client.split_shard(stream, &named(range), Some(*at)).await,
            Step::Merge { lower, upper } => client.merge_shards(stream, &named(lower), &named(upper)).await,
        };
        match done {
            // Whether it was done, the shards that are there next say.
            Ok(()) | Err(CallError::Unknown { .. }) => {}
            Err(e) if matches!(e.reason(), Some(Reason::StreamNotActive | Reason::ShardClosed)) => {}
            Err(e) => return Err(e.into()),
        }
        client.wait_active(stream).await?;
    }
    let why = format!("the shards of {stream} went on changing while it was scaled");
    Err(Failure::failed(why).hint("is somebody else splitting or merging them? Run it again"))
}

fn describe(open: &Open, step: &Step) -> String {
    let name = |range: &HashRange| open.name(range).map_or_else(|| range.to_string(), str::to_owned);
    match step {
        Step::Split { range, at } => format!("split {} at {at}", name(range)),
        Step::Merge { lower, upper } => format!("merge {} and {}", name(lower), name(upper)),
    }
}

fn print_plan(stream: &str, open: &Open, shards: u32, steps: &[Step]) -> Result<(), Failure> {
    let splits = steps.iter().filter(|step| matches!(step, Step::Split { .. })).count();
    let (now, merges) = (open.0.len(), steps.len() - splits);
    print_line(&format!("{stream}: from {now} open shards to {shards}, by {splits} splits and {merges} merges"))?;
    for (nth, step) in steps.iter().enumerate() {
        print_line(&format!("{:>4}  {}", nth + 1, describe(open, step)))?;
    }
    if steps.is_empty() {
        return Ok(());
    }
    let mut table = table(&["first key", "last key", "shard now"]);
    for range in scale::outcome(&open.ranges(), steps) {
        let now = open.name(&range).unwrap_or("new").to_owned();
        table.add_row([range.start().to_string(), range.end().to_string(), now]);
    }
    Ok(print_table(&table)?)
}

fn plan_json(stream: &str, open: &Open, steps: &[Step]) -> Value {
    let keys = |range: &HashRange| {
        json!({
            "starting_hash_key": range.start().to_string(),
            "ending_hash_key": range.end().to_string(),
            "shard": open.name(range),
        })
    };
    let step = |step: &Step| match step {
        Step::Split { range, at } => json!({ "split": keys(range), "at": at.to_string() }),
        Step::Merge { lower, upper } => json!({ "merge": [keys(lower), keys(upper)] }),
    };
    let outcome = scale::outcome(&open.ranges(), steps);
    json!({
        "stream": stream,
        "open_shards": open.0.len(),
        "steps": steps.iter().map(step).collect::<Vec<_>>(),
        "ranges": outcome.iter().map(keys).collect::<Vec<_>>(),
    })
}
