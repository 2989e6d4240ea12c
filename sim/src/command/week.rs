//! Seven days of retention, in a table.

use braid_sim::week::{self, Hour};

use super::core_seconds;

/// Lives through a week, and fails if a record went too early or too late.
pub fn run(seed: u64) -> bool {
    let week = week::run(seed);
    println!("| hour | retention, h | records put | oldest readable, h | youngest gone, h | disks, MiB |");
    println!("|---|---|---|---|---|---|");
    for hour in week.hours.iter().filter(|it| it.hour % 6 == 0) {
        println!("{}", row(hour));
    }
    for wrong in &week.wrong {
        println!("WRONG: {wrong}");
    }
    let hours = week.hours.len();
    println!("{hours} hours, {} things wrong, {:.0} core-seconds", week.wrong.len(), core_seconds());
    week.wrong.is_empty() && hours > 0
}

fn row(it: &Hour) -> String {
    let hours = |ms: u64| format!("{:.4}", ms as f64 / 3_600_000.0);
    let disks: Vec<String> = it.disks.iter().map(|bytes| format!("{:.1}", *bytes as f64 / 1_048_576.0)).collect();
    format!(
        "| {} | {} | {} | {} | {} | {} |",
        it.hour,
        it.retention,
        it.put,
        hours(it.oldest_ms),
        it.gone_ms.map_or("–".into(), hours),
        disks.join(", ")
    )
}
