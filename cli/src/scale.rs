//! `braid scale`: as many shards as are asked for, with equal shares of the keys.
//!
//! Invariant: before each step the shards that are there are compared with the plan. Where it does not fit them, since
//! somebody else has split or merged, it is made anew; so a run that is interrupted can be begun again.

use std::collections::VecDeque;

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

/// How often a plan that does not fit any more is made anew.
const PLANS_MAX: u32 = 20;

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

    /// Whether what `step` is to make is there.
    fn has_done(&self, step: &Step) -> bool {
        self.has(&scale::outcome(&needs(step), std::slice::from_ref(step)))
    }

    /// Whether what `step` needs is there.
    fn can_do(&self, step: &Step) -> bool {
        self.has(&needs(step))
    }

    fn has(&self, ranges: &[HashRange]) -> bool {
        ranges.iter().all(|range| self.name(range).is_some())
    }

    /// The shard that has `range` now; none, if an earlier step makes it.
    fn name(&self, range: &HashRange) -> Option<&str> {
        self.0.iter().find(|(it, _)| it == range).map(|(_, name)| name.as_str())
    }
}

/// The shards that a step does away with.
fn needs(step: &Step) -> Vec<HashRange> {
    match *step {
        Step::Split { range, .. } => vec![range],
        Step::Merge { lower, upper } => vec![lower, upper],
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
    carry_out(&client, &stream, shards, steps.into()).await?;
    shard::list(&client, &stream, format).await
}

async fn carry_out(client: &Client, stream: &str, shards: u32, mut steps: VecDeque<Step>) -> Result<(), Failure> {
    let mut plans = 1;
    loop {
        let open = Open::of(client, stream).await?;
        while steps.front().is_some_and(|step| open.has_done(step)) {
            steps.pop_front();
        }
        if steps.front().is_none_or(|step| !open.can_do(step)) {
            steps = open.plan(shards)?.into();
            plans += 1;
        }
        let Some(step) = steps.front() else { return Ok(()) };
        if plans > PLANS_MAX {
            let why = format!("the shards of {stream} went on changing while it was scaled");
            return Err(Failure::failed(why).hint("is somebody else splitting or merging them? Run it again"));
        }
        eprintln!("{} to go: {}", steps.len(), describe(&open, step));
        let named = |range: &HashRange| open.name(range).expect("the step is of shards that are there");
        let done = match step {
            Step::Split { range, at } => client.split_shard(stream, named(range), Some(*at)).await,
            Step::Merge { lower, upper } => client.merge_shards(stream, named(lower), named(upper)).await,
        };
        match done {
            // Whether it was done, the shards that are there next say.
            Ok(()) | Err(CallError::Unknown { .. }) => {}
            Err(e) if matches!(e.reason(), Some(Reason::StreamNotActive | Reason::ShardClosed)) => plans += 1,
            Err(e) => return Err(e.into()),
        }
        client.wait_active(stream).await?;
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
