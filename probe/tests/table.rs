//! Holds the two tables to their rules, and to the sources: every mark and every bug stands somewhere, once a name.

// A test of the workspace reads its sources.
#![allow(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use braid_probe::{Bug, Layer, Mark};

/// The crates that may have marks and planted bugs.
const CRATES: &[&str] = &["stream", "log", "node", "client"];

/// Fewest bugs in each layer: a checker that finds one may miss its neighbour.
const LEAST: &[(Layer, usize)] =
    &[(Layer::Log, 8), (Layer::Raft, 8), (Layer::Apply, 7), (Layer::Throttle, 6), (Layer::Read, 8)];

fn is_name(name: &str, extra: char) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == extra;
    !name.is_empty() && name.chars().all(word)
}

#[test]
fn names_are_unique_and_every_line_says_what_it_is() {
    let mut names = BTreeSet::new();
    for mark in Mark::ALL {
        let (place, moment) = mark.name().split_once('.').expect("a mark is named place.moment");
        assert!(is_name(place, '_') && is_name(moment, '_'), "{}", mark.name());
        assert!(names.insert(mark.name()), "{} twice", mark.name());
        assert!(!mark.about().is_empty(), "{}", mark.name());
        assert_eq!(Mark::named(mark.name()), Some(*mark));
    }
    let mut layers: BTreeMap<Layer, usize> = BTreeMap::new();
    for bug in Bug::ALL {
        assert!(is_name(bug.name(), '-'), "{}", bug.name());
        assert!(names.insert(bug.name()), "{} twice", bug.name());
        assert!(!bug.about().is_empty() && !bug.hint().is_empty(), "{}", bug.name());
        assert_eq!(Bug::named(bug.name()), Some(*bug));
        *layers.entry(bug.layer()).or_default() += 1;
    }
    for (layer, least) in LEAST {
        assert!(layers.get(layer) >= Some(least), "{layer:?} has {:?} bugs, at least {least}", layers.get(layer));
    }
}

#[test]
fn every_mark_and_bug_is_in_the_sources() {
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    // As of the run, not of the build: a target directory may serve several checkouts.
    let here = std::env::var("CARGO_MANIFEST_DIR").expect("cargo and nextest set it");
    for name in CRATES {
        let dir = Path::new(&here).join("..").join(name).join("src");
        gather(&dir, &mut found);
    }
    let marks = Mark::ALL.iter().map(|mark| format!("Mark::{mark:?}"));
    let bugs = Bug::ALL.iter().map(|bug| format!("Bug::{bug:?}"));
    let expected: BTreeSet<String> = marks.chain(bugs).collect();
    let used: BTreeSet<String> = found.keys().cloned().collect();
    let dead: Vec<_> = expected.difference(&used).collect();
    assert!(dead.is_empty(), "in a table and nowhere else: {dead:?}");
    // A mark at two places could be lost at one of them unseen. A bug may take two places to make.
    let twice: Vec<_> = found.iter().filter(|(name, n)| name.starts_with("Mark::") && **n > 1).collect();
    assert!(twice.is_empty(), "more than once: {twice:?}");
}

/// Counts `Mark::X` and `Bug::X` in the `.rs` files below `dir`.
fn gather(dir: &Path, found: &mut BTreeMap<String, usize>) {
    for entry in std::fs::read_dir(dir).expect("a crate has src/") {
        let path = entry.expect("a directory can be read").path();
        if path.is_dir() {
            gather(&path, found);
        } else if path.extension().is_some_and(|it| it == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source is text");
            for kind in ["Mark::", "Bug::"] {
                for (at, _) in text.match_indices(kind) {
                    // `Control::Mark { .. }` and the like are others' names.
                    let own = !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == ':');
                    let name: String = text[at + kind.len()..].chars().take_while(|c| c.is_alphanumeric()).collect();
                    if own && name.starts_with(|c: char| c.is_ascii_uppercase()) {
                        *found.entry(format!("{kind}{name}")).or_default() += 1;
                    }
                }
            }
        }
    }
}
