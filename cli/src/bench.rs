//! `braid bench`: how many records a second, and how long each takes to be acknowledged.
//!
//! Invariant: a latency begins when a record *should* have been put. In an open loop
//! (`--records-per-second`) that is its place in the schedule, so that a stall counts for every
//! record that would have been put meanwhile; at full speed it is the moment the producer took it.
//!
//! Deliberately absent: starting a cluster, and judging the numbers.

use std::time::Duration;

use braid_client::{Client, Outcome, Producer, ProducerOptions, PutFuture, StreamSettings};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::connect::Endpoints;
use crate::exit::{Exit, Failure};
use crate::moment::{duration_text, parse_duration};
use crate::output::{Format, print_json, print_line, print_table, table};
use crate::size::{bytes_text, parse_bytes};

/// Measure writes: acknowledged records per second and their latency
///
/// Creates a stream for itself and deletes it afterwards, unless --stream names one. A shard takes
/// 1,000 records/s: use as many shards as the rate needs, or a cluster with `throttle = off`.
///
/// Examples:
///   braid bench                                                   (as fast as it goes, 10 s)
///   braid bench --records-per-second 20000 --duration 30s
///   braid bench --shards 64 --batch 500 --record-bytes 1024 -o json
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Put so many records per second, evenly [default: as many as are acknowledged]
    #[arg(long, value_name = "RATE", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    records_per_second: Option<u64>,

    /// How long to measure
    #[arg(long, value_parser = parse_duration, default_value = "10s")]
    duration: Duration,

    /// Not measured, before it
    #[arg(long, value_parser = parse_duration, default_value = "2s")]
    warm_up: Duration,

    /// Most records in one request
    #[arg(long, value_name = "RECORDS", default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=500))]
    batch: u16,

    /// Data in each record
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, default_value = "1024")]
    record_bytes: u64,

    /// Shards of the stream
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    shards: u32,

    /// How long a record waits for others to share its request
    #[arg(long, value_parser = parse_duration, default_value = "5ms")]
    linger: Duration,

    /// Producers, each with connections and batches of its own
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    producers: u16,

    /// Requests under way per producer and group
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    in_flight: u16,

    /// Records put and not yet acknowledged, all producers together, at full speed
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    outstanding: u32,

    /// Use this stream, and leave it there
    #[arg(long)]
    stream: Option<String>,
}

/// Latencies are kept in µs with three digits, up to ten minutes.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("constant bounds")
}

pub async fn run(args: Args, endpoints: &Endpoints, format: Format) -> Result<(), Failure> {
    let client = endpoints.connect().await?;
    let stream = match &args.stream {
        Some(stream) => stream.clone(),
        None => {
            let stream = format!("bench-{:08x}", braid_env::random::below(1 << 32));
            client.create_and_wait_active(&stream, args.shards, StreamSettings::default()).await?;
            stream
        }
    };
    let measured = measure(&args, endpoints, &stream).await;
    if args.stream.is_none()
        && let Err(e) = client.delete_stream(&stream).await
    {
        eprintln!("Stream {stream} could not be deleted: {e}. Delete it: braid stream delete {stream}");
    }
    let found = measured?;
    match format {
        Format::Json => print_json(&found.json(&args))?,
        Format::Table => found.print(&args)?,
    }
    match (found.unknown, found.refused) {
        (0, 0) => Ok(()),
        (0, refused) => Err(Failure::new(Exit::Refused, format!("{refused} records were refused: {}", found.problem))
            .hint("More shards, a lower rate, or nodes with throttle = off.")),
        (unknown, _) => {
            Err(Failure::new(Exit::Unknown, format!("{unknown} records have an unknown outcome: {}", found.problem)))
        }
    }
}

/// What was seen between the end of the warm-up and the end.
struct Found {
    latencies_us: Histogram<u64>,
    /// Acknowledged within the measured time.
    acked: u64,
    refused: u64,
    unknown: u64,
    /// The first record's that was not acknowledged.
    problem: String,
    measured: Duration,
}

async fn measure(args: &Args, endpoints: &Endpoints, stream: &str) -> Result<Found, Failure> {
    let from = Instant::now() + args.warm_up;
    let until = from + args.duration;
    let mut running = Vec::new();
    for index in 0..args.producers {
        let client = endpoints.connect().await?; // connections of its own
        let options = ProducerOptions {
            linger: args.linger,
            max_batch_records: args.batch.into(),
            max_in_flight_per_group: args.in_flight.into(),
            max_buffered_bytes: usize::MAX, // `outstanding` bounds it
            ..ProducerOptions::default()
        };
        let load = Load {
            producer: open(&client, stream, options).await?,
            index: index.into(),
            producers: args.producers.into(),
            rate: args.records_per_second,
            outstanding: (args.outstanding as usize / usize::from(args.producers)).max(1),
            data: Bytes::from(random_bytes(args.record_bytes)),
            from,
            until,
        };
        running.push(tokio::spawn(load.run()));
    }
    let mut all = Found {
        latencies_us: histogram(),
        acked: 0,
        refused: 0,
        unknown: 0,
        problem: String::new(),
        measured: args.duration,
    };
    for one in running {
        let one = one.await.map_err(|e| Failure::failed(format!("a producer died: {e}")))?;
        all.latencies_us.add(&one.latencies_us).expect("same bounds");
        all.acked += one.acked;
        all.refused += one.refused;
        all.unknown += one.unknown;
        if all.problem.is_empty() {
            all.problem = one.problem;
        }
    }
    Ok(all)
}

async fn open(client: &Client, stream: &str, options: ProducerOptions) -> Result<Producer, Failure> {
    Ok(client.producer(stream, options).await?)
}

/// Bytes that don't compress, so that nothing on the way can flatter the numbers.
fn random_bytes(len: u64) -> Vec<u8> {
    let mut data = vec![0; len as usize];
    braid_env::random::fill(&mut data);
    data
}

/// One producer's share.
struct Load {
    producer: Producer,
    index: u64,
    producers: u64,
    /// Of all producers together.
    rate: Option<u64>,
    outstanding: usize,
    data: Bytes,
    from: Instant,
    until: Instant,
}

impl Load {
    async fn run(self) -> Found {
        // Bounds what is under way: the counting side takes one out per outcome.
        let (under_way, outcomes) = mpsc::channel(self.outstanding);
        let counting = tokio::spawn(count(outcomes, self.outstanding, self.from, self.until));
        let started = Instant::now();
        for number in 0u64.. {
            let begun = match self.rate {
                Some(rate) => {
                    let place = number * self.producers + self.index;
                    let due = started + Duration::from_secs_f64(place as f64 / rate as f64);
                    if due > Instant::now() {
                        tokio::time::sleep_until(due).await;
                    }
                    due
                }
                None => Instant::now(),
            };
            if begun >= self.until {
                break;
            }
            // Keys without end: even over all shards.
            let key = format!("{:x}-{number:x}", self.index);
            let Ok(outcome) = self.producer.put(key, None, self.data.clone()).await else { break };
            if under_way.send((begun, outcome)).await.is_err() {
                break;
            }
        }
        drop(under_way);
        self.producer.close().await;
        counting.await.expect("counting does not panic")
    }
}

async fn count(
    mut incoming: mpsc::Receiver<(Instant, PutFuture)>,
    outstanding: usize,
    from: Instant,
    until: Instant,
) -> Found {
    let mut found = Found {
        latencies_us: histogram(),
        acked: 0,
        refused: 0,
        unknown: 0,
        problem: String::new(),
        measured: until - from,
    };
    let mut waiting = FuturesUnordered::new();
    let mut more = true;
    while more || !waiting.is_empty() {
        tokio::select! {
            biased;
            Some((begun, outcome)) = waiting.next() => found.count(begun, outcome, from, until),
            next = incoming.recv(), if more && waiting.len() < outstanding => match next {
                Some((begun, outcome)) => waiting.push(async move { (begun, outcome.await) }),
                None => more = false,
            },
        }
    }
    found
}

impl Found {
    fn count(&mut self, begun: Instant, outcome: Outcome, from: Instant, until: Instant) {
        let now = Instant::now();
        match outcome {
            Outcome::Acked { .. } => {
                self.acked += u64::from(now >= from && now < until);
                if begun >= from {
                    self.latencies_us.saturating_record((now - begun).as_micros() as u64);
                }
            }
            Outcome::Refused { reason, message, .. } => {
                self.refused += 1;
                self.tell(|| format!("refused ({reason:?}): {message}"));
            }
            Outcome::Unknown { why } => {
                self.unknown += 1;
                self.tell(|| format!("outcome unknown: {why}"));
            }
        }
    }

    fn tell(&mut self, problem: impl FnOnce() -> String) {
        if self.problem.is_empty() {
            self.problem = problem();
        }
    }

    fn records_per_second(&self) -> f64 {
        self.acked as f64 / self.measured.as_secs_f64().max(0.001)
    }

    fn quantile_ms(&self, quantile: f64) -> f64 {
        self.latencies_us.value_at_quantile(quantile) as f64 / 1_000.0
    }

    fn json(&self, args: &Args) -> Value {
        json!({
            "records_per_second": self.records_per_second(),
            "bytes_per_second": self.records_per_second() * args.record_bytes as f64,
            "acked": self.acked,
            "refused": self.refused,
            "unknown": self.unknown,
            "latency_ms": {
                "p50": self.quantile_ms(0.5), "p99": self.quantile_ms(0.99), "p99_9": self.quantile_ms(0.999),
                "max": self.latencies_us.max() as f64 / 1_000.0,
            },
            "measured_ms": self.measured.as_millis() as u64,
            "asked_records_per_second": args.records_per_second,
            "batch": args.batch, "record_bytes": args.record_bytes, "shards": args.shards,
            "producers": args.producers, "linger_ms": args.linger.as_millis() as u64,
        })
    }

    fn print(&self, args: &Args) -> Result<(), Failure> {
        let rate = self.records_per_second();
        print_line(&format!(
            "{} at {}, records of {}, batches of up to {}, {} producers",
            duration_text(self.measured.as_millis() as u64),
            args.records_per_second.map_or("full speed".to_string(), |rate| format!("{rate} records/s asked")),
            bytes_text(args.record_bytes),
            args.batch,
            args.producers,
        ))?;
        let mut table =
            table(&["acked/s", "MB/s", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "acked", "refused", "unknown"]);
        table.add_row([
            format!("{rate:.0}"),
            format!("{:.1}", rate * args.record_bytes as f64 / 1e6),
            format!("{:.2}", self.quantile_ms(0.5)),
            format!("{:.2}", self.quantile_ms(0.99)),
            format!("{:.2}", self.quantile_ms(0.999)),
            format!("{:.2}", self.latencies_us.max() as f64 / 1_000.0),
            self.acked.to_string(),
            self.refused.to_string(),
            self.unknown.to_string(),
        ]);
        Ok(print_table(&table)?)
    }
}
