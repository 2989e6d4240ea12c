//! What happened, for people: the nodes' own log lines and the simulator's doings, by virtual time.
//!
//! Invariant: keeping the story changes nothing of the run.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use crate::executor::{self, Nanos, Pid};

/// Lines kept of each teller.
const KEPT: usize = 400;

/// Who tells a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Teller {
    /// The simulator: a fault, a mark, a checker.
    Simulator,
    /// A node.
    Node(u64),
    /// A client's machine.
    Clients,
}

impl fmt::Display for Teller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Teller::Simulator => f.write_str("sim"),
            Teller::Node(number) => write!(f, "n{number}"),
            Teller::Clients => f.write_str("cli"),
        }
    }
}

/// One line.
#[derive(Clone, Debug)]
pub struct Line {
    /// When.
    pub at: Nanos,
    /// Its place among all lines.
    pub nth: u64,
    /// Who.
    pub teller: Teller,
    /// What.
    pub text: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>12.6}s {:>4}  {}", self.at as f64 / 1e9, self.teller.to_string(), self.text)
    }
}

/// The story of one run. Clones are the same story.
#[derive(Clone)]
pub struct Story(Arc<Mutex<Inner>>);

struct Inner {
    lines: BTreeMap<Teller, VecDeque<Line>>,
    tellers: BTreeMap<Pid, Teller>,
    next: u64,
    print: bool,
}

impl Story {
    /// An empty story; with `print`, lines are printed as they come.
    pub fn new(print: bool) -> Story {
        Story(Arc::new(Mutex::new(Inner { lines: BTreeMap::new(), tellers: BTreeMap::new(), next: 0, print })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whose process `pid` is.
    pub fn name(&self, pid: Pid, teller: Teller) {
        self.inner().tellers.insert(pid, teller);
    }

    /// Whose process `pid` is.
    pub fn teller(&self, pid: Pid) -> Teller {
        self.inner().tellers.get(&pid).copied().unwrap_or(Teller::Simulator)
    }

    /// Adds a line of the simulator's.
    pub fn tell(&self, at: Nanos, text: impl Into<String>) {
        self.add(at, Teller::Simulator, text.into());
    }

    fn add(&self, at: Nanos, teller: Teller, text: String) {
        let mut inner = self.inner();
        let nth = inner.next;
        inner.next += 1;
        let line = Line { at, nth, teller, text };
        if inner.print {
            println!("{line}");
        }
        let lines = inner.lines.entry(teller).or_default();
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// The last `count` lines of each teller, in order of time.
    pub fn last(&self, count: usize) -> Vec<Line> {
        let inner = self.inner();
        let mut lines: Vec<Line> =
            inner.lines.values().flat_map(|lines| lines.iter().rev().take(count).cloned()).collect();
        lines.sort_by_key(|line| line.nth);
        lines
    }
}

/// Puts log lines of the code that runs into the story.
pub struct Listener {
    /// Where they go.
    pub story: Story,
    /// The least important that are kept.
    pub level: Level,
}

impl<S: Subscriber> Layer<S> for Listener {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        let most = if metadata.target().starts_with("openraft") && self.level < Level::DEBUG {
            Level::WARN
        } else {
            self.level
        };
        metadata.is_event() && *metadata.level() <= most
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let (at, pid) = executor::current();
        let mut text = format!("{} {}: ", event.metadata().level(), event.metadata().target());
        event.record(&mut Fields(&mut text));
        self.story.add(at, self.story.teller(pid), text);
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(self.level.into())
    }
}

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let written = match field.name() {
            "message" => write!(self.0, "{value:?} "),
            name => write!(self.0, "{name}={value:?} "),
        };
        written.expect("a string takes everything");
    }
}
