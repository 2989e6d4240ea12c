//! `braid scale`: as many shards as are asked for, with equal shares of the keys.
//!
//! The cluster carries it out. What is printed first is the plan that it would make of the shards as they are then.

use std::time::{Duration, Instant};

use braid_client::Client;
use braid_proto::v1;
use braid_stream::hash::{HashKey, HashRange};
use braid_stream::limits::SHARDS_PER_STREAM_MAX;
use braid_stream::scale::{self, Step};
use serde_json::{Value, json};

use crate::connect::Endpoints;
use crate::exit::Failure;
use crate::output::{Format, print_json, print_line, print_table, table};
use crate::shard;

/// Give a stream so many shards, with equal shares of the keys, while it is used
///
/// Prints the splits and merges it takes first; with --dry-run that is all. Then it asks the cluster, which carries them
/// out by itself, and says how far it is: if this is interrupted, the cluster goes on, and the same command shows the
/// rest. Any number from 1 to 10,000 is allowed, any number of times: the bounds of UpdateShardCount (twice, half, ten
/// times a day) are for applications.
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
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(SHARDS_PER_STREAM_MAX)))]
    shards: u32,
    /// Only print what would be done
    #[arg(long)]
    dry_run: bool,
    /// Return as soon as it is decided
    #[arg(long)]
    no_wait: bool,
}

/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(200);

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
    let Args { stream, shards, dry_run, no_wait } = args;
    if client.describe_stream(&stream).await?.target_shard_count == shards && !dry_run {
        eprintln!("Stream {stream} is on its way to {shards} shards already.");
        if !no_wait {
            follow(&client, &stream, shards, endpoints.patience).await?;
        }
        return shard::list(&client, &stream, format).await;
    }
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
    if !steps.is_empty() {
        ask(&client, &stream, shards).await?;
        if no_wait {
            eprintln!("The cluster goes on by itself; `braid stream describe {stream}` shows how far it is.");
            return Ok(());
        }
        follow(&client, &stream, shards, endpoints.patience).await?;
    }
    shard::list(&client, &stream, format).await
}

/// Asks for it, unless the stream is on its way there already.
async fn ask(client: &Client, stream: &str, shards: u32) -> Result<(), Failure> {
    match client.update_shard_count(stream, shards).await {
        Ok(()) => Ok(()),
        Err(e) => {
            // Asked before, or an attempt of this call whose answer was lost.
            let found = client.describe_stream(stream).await?;
            match found.target_shard_count == shards {
                true => Ok(()),
                false => Err(e.into()),
            }
        }
    }
}

/// Says how far it is until it is done; fails if nothing moves for `patience`.
async fn follow(client: &Client, stream: &str, shards: u32, patience: Duration) -> Result<(), Failure> {
    let (mut said, mut moved) = (None, Instant::now());
    loop {
        let found = client.describe_stream(stream).await?;
        if found.target_shard_count != shards {
            return Ok(());
        }
        if said != Some(found.scaling_steps_left) {
            eprintln!("{} of {} steps to go", found.scaling_steps_left, found.scaling_steps);
            (said, moved) = (Some(found.scaling_steps_left), Instant::now());
        }
        if moved.elapsed() > patience {
            let why = format!("no split or merge of {stream} was finished within {patience:?}");
            return Err(Failure::failed(why).hint(
                "It goes on by itself once every group has a leader: `braid cluster status` shows which has none, \
                 `braid stream describe` how far it is.",
            ));
        }
        tokio::time::sleep(LOOK).await;
    }
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
