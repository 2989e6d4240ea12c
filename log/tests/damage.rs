//! Damage of any kind to any file: `open` and `read` never panic, and either everything that an intact Mark (or a
//! successor, or a checkpoint) says was durable is there, or the log is refused with a file and a byte.
//!
//! What is *not* asserted, because no log can do it: the last batch before the damage has nothing after it that says it
//! was acknowledged; if its bytes are bad it looks like a torn write. `Protected` leaves it out, and says by which rule.

mod support;

use std::path::{Path, PathBuf};

use braid_env::disk::sim::{SimDisk, Survive};
use braid_log::{Log, OpenError};
use proptest::prelude::*;
use support::{Crash, NEVER, State, Step, Trial};

fn append(count: usize, len: usize) -> Step {
    Step::Append { count, len, new_term: false, wait: true }
}

/// Several segments, two checkpoints; ends without a purge so that every entry stays in question.
fn script() -> Vec<Step> {
    let mut steps = vec![Step::Vote];
    for round in 0..8 {
        steps.extend([append(3, 300 + 100 * round), Step::Committed, append(1, 2500), Step::Vote, append(2, 40)]);
        if round == 3 || round == 6 {
            steps.push(Step::Checkpoint);
        }
        if round == 4 {
            steps.push(Step::Truncate { drop: 1 });
        }
    }
    steps
}

/// A log as a clean close leaves it: everything acknowledged is marked.
fn closed_log(seed: u64) -> Trial {
    let mut trial = Trial::new(seed);
    assert!(trial.run_until(&script(), NEVER, Crash::Power(Survive::Nothing)));
    trial
}

#[derive(Clone, Debug)]
enum Damage {
    Flip {
        at: u64,
        bit: u8,
    },
    Cut {
        at: u64,
    },
    /// This many sectors become zero.
    Zero {
        at: u64,
        sectors: usize,
    },
    Garbage {
        at: u64,
        bytes: Vec<u8>,
    },
    /// Sectors change places.
    Swap {
        at: u64,
        with: u64,
    },
    Replace {
        bytes: Vec<u8>,
    },
    /// The file's bytes become those of another of the same log.
    Mistake {
        other: usize,
    },
}

const SECTOR: usize = 512;

impl Damage {
    /// The bytes after it; positions are taken modulo the file's length.
    fn apply(&self, bytes: &mut Vec<u8>, files: &[Vec<u8>]) {
        let len = bytes.len().max(1);
        let sector = |at: u64| at as usize % len / SECTOR * SECTOR;
        match self {
            Damage::Flip { at, bit } if !bytes.is_empty() => bytes[*at as usize % len] ^= 1 << bit,
            Damage::Flip { .. } => {}
            Damage::Cut { at } => bytes.truncate(*at as usize % len),
            Damage::Zero { at, sectors } => {
                let from = sector(*at);
                let to = (from + sectors * SECTOR).min(bytes.len());
                bytes[from..to].fill(0);
            }
            Damage::Garbage { at, bytes: garbage } => {
                let from = *at as usize % len;
                let to = (from + garbage.len()).min(bytes.len());
                bytes[from..to].copy_from_slice(&garbage[..to - from]);
            }
            Damage::Swap { at, with } => {
                let (a, b) = (sector(*at), sector(*with));
                for i in 0..SECTOR {
                    if a.max(b) + i < bytes.len() {
                        bytes.swap(a + i, b + i);
                    }
                }
            }
            Damage::Replace { bytes: garbage } => *bytes = garbage.clone(),
            Damage::Mistake { other } => *bytes = files[other % files.len()].clone(),
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => (any::<u64>(), 0u8..8).prop_map(|(at, bit)| Damage::Flip { at, bit }),
        2 => any::<u64>().prop_map(|at| Damage::Cut { at }),
        2 => (any::<u64>(), 1usize..20).prop_map(|(at, sectors)| Damage::Zero { at, sectors }),
        2 => (any::<u64>(), prop::collection::vec(any::<u8>(), 1..700)).prop_map(|(at, bytes)| Damage::Garbage { at, bytes }),
        2 => (any::<u64>(), any::<u64>()).prop_map(|(at, with)| Damage::Swap { at, with }),
        1 => prop::collection::vec(any::<u8>(), 0..3000).prop_map(|bytes| Damage::Replace { bytes }),
        1 => any::<usize>().prop_map(|other| Damage::Mistake { other }),
    ]
}

fn log_files(disk: &SimDisk) -> Vec<PathBuf> {
    let wanted = |p: &PathBuf| p.file_name().is_some_and(|n| n != "lock");
    disk.files().into_iter().filter(wanted).collect()
}

fn is_segment(path: &Path) -> bool {
    path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("segment-"))
}

/// A refusal says where. Anything that is no refusal is a state as good as the one before.
async fn opens_whole_or_refuses(trial: &mut Trial, lost_end_allowed: bool) -> Option<Log> {
    match trial.open().await {
        Ok((log, recovered)) => {
            let found = State::of(&log, 4000).await;
            if lost_end_allowed {
                assert!(trial.states.contains(&found), "a state that was: {found:?}");
            } else {
                assert_eq!(&found, trial.now(), "{recovered}");
            }
            Some(log)
        }
        Err(e @ (OpenError::Damaged { .. } | OpenError::UnknownFormat { .. })) => {
            assert!(e.to_string().contains("byte") && e.to_string().contains("segment-"), "{e}");
            None
        }
        Err(e @ (OpenError::Missing { .. } | OpenError::WrongIdentity { .. })) => {
            assert!(e.to_string().contains("segment-"), "{e}");
            None
        }
        Err(e) => panic!("{e}"),
    }
}

/// Where the last batch that holds anything acknowledged begins is unknown to this test; but a closed log ends with two
/// empty batches (a Mark each), so single damage that leaves the last 96 bytes alone, or hits only them, loses nothing.
const CLOSING_MARKS: usize = 96;

#[test]
fn every_flipped_bit_of_a_closed_log_is_refused_or_harmless() {
    let model = closed_log(1);
    let files = log_files(&model.disk);
    let segments: Vec<_> = files.iter().filter(|f| is_segment(f)).collect();
    assert!(segments.len() >= 3, "{segments:?}");
    let good: Vec<_> = files.iter().map(|f| (f.clone(), model.disk.read_raw(f))).collect();
    let (mut refused, mut whole) = (0, 0);
    for path in segments {
        let bytes = model.disk.read_raw(path);
        let used = bytes.iter().rposition(|b| *b != 0).unwrap() + 1;
        // Every byte of the header and of the last kilobyte in use, every 37th of the rest.
        let near_end = used.saturating_sub(1024)..used + 64;
        for byte in (0..bytes.len()).filter(|b| *b < 180 || near_end.contains(b) || b % 37 == 0) {
            let mut trial = Trial { states: model.states.clone(), ..Trial::new(byte as u64) };
            copy(&good, &trial.disk);
            trial.disk.flip_bit(path, byte as u64, byte as u8 % 8);
            trial.process(async |trial| match opens_whole_or_refuses(trial, false).await {
                Some(_) => whole += 1,
                None => refused += 1,
            });
        }
    }
    println!("{refused} refused, {whole} whole");
    assert!(refused > 500 && whole > 100);
}

fn copy(files: &[(PathBuf, Vec<u8>)], to: &SimDisk) {
    for (path, bytes) in files {
        to.write_raw(path, bytes.clone());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    /// One damaged file, in a closed log. Unless the damage reaches the closing marks, nothing may be missing.
    #[test]
    fn one_damaged_file(which: usize, damage in damage(), seed in 0u64..4) {
        let mut trial = closed_log(seed);
        let files = log_files(&trial.disk);
        let path = &files[which % files.len()];
        let all: Vec<_> = files.iter().map(|f| trial.disk.read_raw(f)).collect();
        let good = trial.disk.read_raw(path);
        let mut bad = good.clone();
        damage.apply(&mut bad, &all);
        let used = good.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1).next_multiple_of(8).min(good.len());
        let marks = used.saturating_sub(CLOSING_MARKS);
        let marks_intact = bad.get(marks..used) == Some(&good[marks..used]);
        let before_intact = bad.get(..marks) == Some(&good[..marks]);
        trial.disk.write_raw(path, bad);
        trial.process(async |trial| {
            let lost_end_allowed = is_segment(path) && !marks_intact && !before_intact;
            opens_whole_or_refuses(trial, lost_end_allowed).await;
        });
    }

    /// Anything, anywhere, several times, also in the middle of things: no panic, and what opens can be used.
    #[test]
    fn many_damaged_files(
        damages in prop::collection::vec((any::<usize>(), damage()), 1..6),
        strangers in prop::collection::vec(("[a-z0-9-]{1,12}|segment-00000000000[0-9]|checkpoint-00000000000[0-9]|segment-000000000009\\.tmp", prop::collection::vec(any::<u8>(), 0..200)), 0..2),
        crash_at in 0u64..400,
        seed in 0u64..1000,
    ) {
        let mut trial = Trial::new(seed);
        trial.run_until(&script(), crash_at, Crash::Power(Survive::Random));
        let files = log_files(&trial.disk);
        let all: Vec<_> = files.iter().map(|f| trial.disk.read_raw(f)).collect();
        for (which, damage) in damages.iter().filter(|_| !files.is_empty()) {
            let path = &files[which % files.len()];
            let mut bytes = trial.disk.read_raw(path);
            damage.apply(&mut bytes, &all);
            trial.disk.write_raw(path, bytes);
        }
        for (name, bytes) in strangers {
            trial.disk.write_raw(PathBuf::from(support::DIR).join(name), bytes);
        }
        trial.process(async |trial| {
            if let Some(log) = opens_whole_or_refuses(trial, true).await {
                let next = log.last_id().map_or(0, |id| id.index + 1);
                let id = braid_log::LogId { term: 1000, index: next };
                log.append(vec![support::entry(id, 10)], Box::new(|_| ())).unwrap();
                log.wait_durable(next).await.unwrap();
                log.close().await.unwrap();
            }
        });
    }
}

/// A file that is gone is found missing, except the newest of a log that never sealed one: that is a new log.
#[test]
fn every_removed_segment_is_missed() {
    let segments: Vec<_> = log_files(&closed_log(1).disk).into_iter().filter(|p| is_segment(p)).collect();
    for path in &segments {
        let mut trial = closed_log(1);
        trial.process(async |trial| {
            braid_env::disk::remove_file(path).await.unwrap();
            let refused = trial.open().await.map(|_| ()).unwrap_err();
            assert!(matches!(refused, OpenError::Missing { .. }), "{refused}");
        });
    }
}

/// The same for a log that was not closed: a crash leaves the last batch unmarked, and only that may go.
#[test]
fn flips_in_an_unclosed_log_lose_at_most_the_last_unmarked_batch() {
    let mut lost = 0;
    for byte in 0..1100u64 {
        let mut trial = Trial::new(3);
        let path = PathBuf::from(support::DIR).join("segment-000000000001");
        trial.process(async |trial| {
            let (log, _) = trial.open().await.unwrap();
            for step in [append(1, 200), append(1, 200), append(1, 200)] {
                trial.step(&log, &step).await.unwrap();
            }
        });
        trial.disk.restart(Survive::Nothing);
        trial.disk.flip_bit(&path, 4096 + byte, (byte % 8) as u8);
        let last_batch = 4096 + 2 * (48 + 232);
        trial.process(async |trial| match trial.open().await {
            Ok((log, _)) => {
                let kept = log.last_id().map_or(0, |id| id.index + 1);
                assert!(kept >= 2, "byte {byte}: kept {kept}");
                assert!(kept == 3 || 4096 + byte >= last_batch, "byte {byte} is not in the last batch");
                lost += (kept == 2) as u64;
            }
            Err(e) => assert!(matches!(e, OpenError::Damaged { byte: at, .. } if at <= 4096 + byte), "{e}"),
        });
    }
    assert_eq!(lost, 48 + 232, "exactly the bytes of the last batch can't be told from a torn write");
}
