//! Results on stdout: tables for people, JSON for programs.
//!
//! Invariant: with `-o json`, stdout holds JSON documents, one per line, and nothing else. Everything
//! said to the person at the terminal beside a result goes to stderr.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub enum Format {
    Table,
    Json,
}

/// A table in the house style: no borders, so that lines can be cut and pasted.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(|name| name.to_uppercase()));
    table
}

pub fn print_table(table: &Table) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in table.lines() {
        writeln!(out, "{}", line.strip_prefix(' ').unwrap_or(&line).trim_end())?; // cells are padded
    }
    out.flush()
}

pub fn print_json(value: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")?;
    out.flush()
}

pub fn print_line(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// A progress bar on stderr, if a person looks at it and there is enough to wait for.
/// `total_bytes`: `None` if the end is not known.
pub fn progress(total_bytes: Option<u64>) -> ProgressBar {
    let worth_it = total_bytes.is_none_or(|bytes| bytes >= PROGRESS_BYTES_MIN);
    if !worth_it || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match total_bytes {
        Some(total) => (
            ProgressBar::new(total),
            "{bar:30} {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  {eta} left  {msg}",
        ),
        None => (ProgressBar::no_length(), "{spinner} {binary_bytes}  {binary_bytes_per_sec}  {elapsed}  {msg}"),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    bar.set_style(ProgressStyle::with_template(template).expect("a constant template").progress_chars("=> "));
    bar
}

/// Below this a put takes about a second, and a bar would only flicker.
const PROGRESS_BYTES_MIN: u64 = 1 << 20;
