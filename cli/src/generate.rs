//! `braid generate`: records like those of a field of sensors, at a steady rate.
//!
//! Owns what the readings look like. They drift as real ones do, so that charts made of them look
//! like something; `n` counts each device's readings, so that a reader can see a gap.

use std::io::Write;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;

use crate::connect::Endpoints;
use crate::delivery::Delivery;
use crate::exit::Failure;
use crate::moment::{self, parse_duration};
use crate::output::{Format, print_json, print_line, progress};

/// Put sensor-like records into a stream, at a given rate
///
/// Each record is a JSON object such as
///   {"device":"sensor-007","n":41,"at":"2026-01-31T12:00:00.000Z","temperature_c":21.4,"pressure_hpa":1013.1,"battery":0.97}
/// with the device as its partition key. `n` counts a device's records from 0 without gaps.
///
/// Examples:
///   braid generate readings --rate 100 --duration 30s
///   braid generate readings --rate 5 --devices 3            (until Ctrl-C)
///   braid generate - --rate 1000 --duration 1s > readings.ndjson
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The stream, or - to write to standard output instead
    stream: String,

    /// Records per second, all devices together
    #[arg(long, short, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: u64,

    /// Stop after so long, such as 30s [default: go on until Ctrl-C]
    #[arg(long, short, value_name = "DURATION", value_parser = parse_duration)]
    duration: Option<Duration>,

    /// How many devices report, in turn
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    devices: u64,

    /// At least once: also send again what may have been stored
    #[arg(long)]
    retry_unknown: bool,
}

pub async fn run(args: Args, endpoints: &Endpoints, format: Format) -> Result<(), Failure> {
    let mut sensors = Sensors::new(args.devices);
    let count = args.duration.map_or(u64::MAX, |duration| (duration.as_secs_f64() * args.rate as f64).round() as u64);
    let mut pace = Pace::new(args.rate);
    let started = Instant::now();
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);

    if args.stream == "-" {
        for _ in 0..count {
            tokio::select! {
                () = pace.wait() => {}
                _ = &mut interrupted => break,
            }
            let mut line = sensors.next().1;
            line.push('\n');
            std::io::stdout().write_all(line.as_bytes())?;
        }
        return Ok(());
    }
    let client = endpoints.connect().await?;
    let mut delivery = Delivery::open(&client, &args.stream, args.retry_unknown, progress(None)).await?;
    for number in 0..count {
        tokio::select! {
            () = pace.wait() => {}
            _ = &mut interrupted => break,
        }
        let (device, reading) = sensors.next();
        delivery.put(format!("record {number} of {device}"), device, None, Bytes::from(reading)).await?;
    }
    let tally = delivery.finish().await?;
    match format {
        Format::Json => print_json(&tally.to_json(started.elapsed()))?,
        Format::Table => print_line(&tally.to_line(started.elapsed()))?,
    }
    tally.verdict()
}

/// Says when the next of evenly spaced things is due. It catches up after a delay, so the rate
/// holds on average.
struct Pace {
    started: tokio::time::Instant,
    rate: u64,
    done: u64,
}

impl Pace {
    fn new(rate: u64) -> Pace {
        Pace { started: tokio::time::Instant::now(), rate, done: 0 }
    }

    async fn wait(&mut self) {
        let due = self.started + Duration::from_secs_f64(self.done as f64 / self.rate as f64);
        self.done += 1;
        if due > tokio::time::Instant::now() {
            tokio::time::sleep_until(due).await;
        }
    }
}

struct Sensors {
    devices: u64,
    next: u64,
}

impl Sensors {
    fn new(devices: u64) -> Sensors {
        Sensors { devices, next: 0 }
    }

    /// The next device and its reading.
    fn next(&mut self) -> (String, String) {
        let (device, n) = (self.next % self.devices, self.next / self.devices);
        self.next += 1;
        // Slow waves of different lengths per device, and a little noise on top.
        let phase = n as f64 / (200.0 + 7.0 * device as f64) + device as f64;
        let noise = |width: f64| (braid_env::random::below(2_001) as f64 / 1_000.0 - 1.0) * width;
        let rounded = |value: f64, digits: i32| (value * 10f64.powi(digits)).round() / 10f64.powi(digits);
        let name = format!("sensor-{device:03}");
        let reading = json!({
            "device": name,
            "n": n,
            "at": moment::utc(braid_env::time::wall_ms()),
            "temperature_c": rounded(20.0 + 6.0 * phase.sin() + noise(0.2), 2),
            "pressure_hpa": rounded(1_013.0 + 8.0 * (phase / 3.0).cos() + noise(0.3), 1),
            "battery": rounded(1.0 - (n % 10_000) as f64 / 12_000.0, 3),
        });
        (name, reading.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_device_counts_without_gaps() {
        let mut sensors = Sensors::new(3);
        for n in 0..5u64 {
            for device in 0..3 {
                let (name, reading) = sensors.next();
                let reading: serde_json::Value = serde_json::from_str(&reading).unwrap();
                assert_eq!((reading["n"].as_u64(), name), (Some(n), format!("sensor-{device:03}")));
            }
        }
    }
}
