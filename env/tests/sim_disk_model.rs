//! The simulated disk against a model, under random work, crashes and every [`Survive`].

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use braid_env::disk::sim::{self, Latency, SimDisk, Survive};
use braid_env::disk::{self, File, Open};
use braid_env::time::sleep;
use futures_util::stream::{FuturesUnordered, StreamExt};
use proptest::prelude::*;

const NAMES: [&str; 4] = ["/a", "/b", "/d/c", "/d/e"];

#[derive(Clone, Debug)]
enum Op {
    Write { name: usize, offset: u64, len: usize, byte: u8 },
    SetLen { name: usize, len: u64 },
    Fsync { name: usize },
    Rename { from: usize, to: usize },
    Remove { name: usize },
    FsyncDir { dir: usize },
}

fn op() -> impl Strategy<Value = Op> {
    let name = 0..NAMES.len();
    prop_oneof![
        6 => (name.clone(), 0..3000_u64, 0..1500_usize, 1..=255_u8)
            .prop_map(|(name, offset, len, byte)| Op::Write { name, offset, len, byte }),
        1 => (name.clone(), 0..4000_u64).prop_map(|(name, len)| Op::SetLen { name, len }),
        4 => name.clone().prop_map(|name| Op::Fsync { name }),
        1 => (name.clone(), name.clone()).prop_map(|(from, to)| Op::Rename { from, to }),
        1 => name.prop_map(|name| Op::Remove { name }),
        2 => (0..2_usize).prop_map(|dir| Op::FsyncDir { dir }),
    ]
}

fn survive() -> impl Strategy<Value = Survive> {
    prop_oneof![Just(Survive::Nothing), Just(Survive::Everything), Just(Survive::Random)]
}

fn on<F: Future>(disk: &SimDisk, future: F) -> F::Output {
    let _guard = sim::enter(disk);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(future)
}

/// Does `op`; a file that is missing is made for a write and passed over for the rest.
async fn perform(op: &Op) -> std::io::Result<()> {
    let open = async |name: usize| File::open(NAMES[name], Open::ReadWrite).await;
    let done = match *op {
        Op::Write { name, offset, len, byte } => {
            let file = File::open(NAMES[name], Open::Create).await?;
            file.write_at(offset, vec![vec![byte; len].into()]).await
        }
        Op::SetLen { name, len } => match open(name).await {
            Ok(file) => file.set_len(len).await,
            Err(e) => Err(e),
        },
        Op::Fsync { name } => match open(name).await {
            Ok(file) => file.fsync().await,
            Err(e) => Err(e),
        },
        Op::Rename { from, to } => disk::rename(NAMES[from], NAMES[to]).await,
        Op::Remove { name } => disk::remove_file(NAMES[name]).await,
        Op::FsyncDir { dir } => disk::fsync_dir(["/", "/d"][dir]).await,
    };
    match done {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// What the model knows of one file. Kept naively: whole copies, byte by byte.
#[derive(Clone, Default)]
struct FileModel {
    live: Vec<u8>,
    synced: Vec<u8>,
    /// Per byte: what it has been since the last sync (beside what was synced).
    since: Vec<Vec<u8>>,
    /// The shortest it has been since the last sync, if its length was set.
    shortest: Option<usize>,
}

impl FileModel {
    fn write(&mut self, offset: usize, len: usize, byte: u8) {
        if len == 0 {
            return;
        }
        let end = offset + len;
        self.live.resize(self.live.len().max(end), 0);
        self.live[offset..end].fill(byte);
        self.since.resize(self.since.len().max(end), Vec::new());
        self.since[offset..end].iter_mut().for_each(|s| s.push(byte));
    }

    fn set_len(&mut self, len: usize) {
        self.live.resize(len, 0);
        self.shortest = Some(self.shortest.unwrap_or(usize::MAX).min(len));
    }

    fn sync(&mut self) {
        self.synced = self.live.clone();
        self.since.clear();
        self.shortest = None;
    }

    fn is_synced(&self) -> bool {
        self.since.is_empty() && self.shortest.is_none()
    }

    /// Whether a crash may leave `left` of the file.
    fn check(&self, left: &[u8]) -> Result<(), TestCaseError> {
        let sure = self.synced.len().min(self.shortest.unwrap_or(usize::MAX));
        prop_assert!(left.len() >= sure, "{} of {sure} bytes left", left.len());
        for (at, byte) in left.iter().enumerate() {
            let was = self.synced.get(at).copied();
            let since = self.since.get(at).map_or(&[][..], |s| s);
            let zeroed = at >= sure && *byte == 0;
            prop_assert!(
                Some(*byte) == was || since.contains(byte) || zeroed,
                "byte {at} is {byte}, was {was:?} when synced and {since:?} since"
            );
        }
        Ok(())
    }
}

/// The model of the whole disk. Of names it knows those seen, those on the platter, and, per directory,
/// whether the two may differ.
#[derive(Default)]
struct Model {
    files: Vec<FileModel>,
    live: BTreeMap<usize, usize>,
    durable: BTreeMap<usize, usize>,
    renamed_across: bool,
}

fn dir_of(name: usize) -> usize {
    usize::from(NAMES[name].starts_with("/d/"))
}

impl Model {
    fn perform(&mut self, op: &Op) {
        match *op {
            Op::Write { name, offset, len, byte } => {
                let files = &mut self.files;
                let file = *self.live.entry(name).or_insert_with(|| {
                    files.push(FileModel::default());
                    files.len() - 1
                });
                self.files[file].write(offset as usize, len, byte);
            }
            Op::SetLen { name, len } => {
                if let Some(file) = self.live.get(&name) {
                    self.files[*file].set_len(len as usize);
                }
            }
            Op::Fsync { name } => {
                if let Some(file) = self.live.get(&name) {
                    self.files[*file].sync();
                }
            }
            Op::Rename { from, to } => {
                if let Some(file) = self.live.remove(&from) {
                    self.live.insert(to, file);
                    self.renamed_across |= dir_of(from) != dir_of(to);
                }
            }
            Op::Remove { name } => {
                self.live.remove(&name);
            }
            Op::FsyncDir { dir } => {
                // A rename between the two takes both along.
                let synced = |name: &usize| self.renamed_across || dir_of(*name) == dir;
                self.durable.retain(|name, _| !synced(name));
                let now = self.live.iter().filter(|(name, _)| synced(name));
                self.durable.extend(now.map(|(n, f)| (*n, *f)));
                self.renamed_across = false;
            }
        }
    }
}

fn left_on(disk: &SimDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    let read = |path: PathBuf| {
        let bytes = disk.read_raw(&path);
        (path, bytes)
    };
    disk.files().into_iter().map(read).collect()
}

fn named(names: &BTreeMap<usize, usize>, bytes: impl Fn(usize) -> Vec<u8>) -> BTreeMap<PathBuf, Vec<u8>> {
    let named = |(name, file): (&usize, &usize)| (PathBuf::from(NAMES[*name]), bytes(*file));
    names.iter().map(named).collect()
}

/// Runs `ops` on a new disk until the power goes (before operation `crash_at`, if it has so many). On every
/// other disk they take time.
fn run(seed: u64, ops: &[Op], crash_at: Option<u64>) -> (SimDisk, Model) {
    let disk = SimDisk::new(seed);
    let times = Duration::ZERO..=Duration::from_millis(20);
    let latency =
        Latency { read: times.clone(), write: times.clone(), fsync: times, slow_per_mille: 50, slow_factor: 9 };
    disk.set_latency(Some(latency).filter(|_| seed % 2 == 1));
    let mut model = Model::default();
    on(&disk, async {
        disk::create_dir_all("/d").await.unwrap();
        for op in ops {
            if crash_at.is_some_and(|n| disk.ops() >= n) {
                break;
            }
            perform(op).await.unwrap();
            model.perform(op);
        }
    });
    (disk, model)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn readers_see_every_write(seed: u64, ops in prop::collection::vec(op(), 0..60)) {
        let (disk, model) = run(seed, &ops, None);
        prop_assert_eq!(left_on(&disk), named(&model.live, |f| model.files[f].live.clone()));
        let durable = |path: &Path| disk.durable(path);
        for (name, path) in NAMES.iter().enumerate() {
            let known = model.durable.get(&name).map(|f| model.files[*f].synced.clone());
            prop_assert_eq!(durable(Path::new(path)), known);
        }
    }

    #[test]
    fn a_power_cut_leaves_what_was_synced(
        seed: u64,
        ops in prop::collection::vec(op(), 0..60),
        how in survive(),
    ) {
        let (disk, model) = run(seed, &ops, None);
        disk.power_cut();
        disk.restart(how);
        let left = left_on(&disk);
        match how {
            Survive::Nothing => {
                prop_assert_eq!(&left, &named(&model.durable, |f| model.files[f].synced.clone()));
            }
            Survive::Everything => {
                prop_assert_eq!(&left, &named(&model.live, |f| model.files[f].live.clone()));
            }
            Survive::Random => {}
        }
        // A name that nothing was done to since it was synced is there, with a content that may be.
        let touched = |name: usize| touched_since_synced(&ops, name);
        for (name, path) in NAMES.iter().enumerate() {
            let Some(file) = model.durable.get(&name).filter(|_| !touched(name)) else {
                continue;
            };
            let file = &model.files[*file];
            let left = left.get(Path::new(path));
            prop_assert!(left.is_some(), "{path} is lost");
            file.check(left.unwrap())?;
            if file.is_synced() {
                prop_assert_eq!(left.unwrap(), &file.synced);
            }
        }
    }

    #[test]
    fn no_file_is_ever_under_two_names(seed: u64, ops in prop::collection::vec(op(), 0..60)) {
        let (disk, _) = run(seed, &ops, None);
        disk.restart(Survive::Random);
        let paths = disk.files();
        // A file under two names would grow twice.
        for path in &paths {
            on(&disk, async {
                let file = File::open(path, Open::ReadWrite).await.unwrap();
                let len = file.len().await.unwrap();
                file.set_len(len + 100_000).await.unwrap();
            });
        }
        for path in &paths {
            let len = disk.read_raw(path).len();
            prop_assert!((100_000..200_000).contains(&len), "{path:?} has two names");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_disk(seed: u64, ops in prop::collection::vec(op(), 0..60)) {
        let after = |seed| {
            let (disk, _) = run(seed, &ops, None);
            disk.restart(Survive::Random);
            (left_on(&disk), disk.digest(), disk.counters())
        };
        prop_assert_eq!(after(seed), after(seed));
    }

    #[test]
    fn overlapping_fsyncs_cover_what_was_written_before_they_began(
        seed: u64,
        steps in prop::collection::vec((0..40_u64, any::<bool>()), 1..40),
        how in survive(),
    ) {
        let disk = SimDisk::new(seed);
        disk.write_raw("/log", Vec::new());
        let times = |max| Duration::ZERO..=Duration::from_millis(max);
        let latency =
            Latency { read: times(0), write: times(0), fsync: times(100), slow_per_mille: 0, slow_factor: 1 };
        disk.set_latency(Some(latency));
        let acknowledged = Cell::new(0);
        on(&disk, async {
            let file = File::open("/log", Open::ReadWrite).await.unwrap();
            let mut written = 0;
            let mut fsyncs = FuturesUnordered::new();
            for (wait_ms, syncs) in steps {
                file.write_at(written, vec![vec![1; 100].into()]).await.unwrap();
                written += 100;
                if syncs {
                    let (file, acknowledged) = (&file, &acknowledged);
                    fsyncs.push(async move {
                        file.fsync().await.unwrap();
                        acknowledged.set(written.max(acknowledged.get()));
                    });
                }
                let mut pause = sleep(Duration::from_millis(wait_ms));
                std::future::poll_fn(|cx| {
                    while let Poll::Ready(Some(())) = fsyncs.poll_next_unpin(cx) {}
                    Pin::new(&mut pause).poll(cx)
                })
                .await;
            }
        });
        let durable = disk.durable("/log").unwrap().len() as u64;
        prop_assert_eq!(durable, acknowledged.get(), "no more and no less");
        disk.restart(how);
        prop_assert!(disk.read_raw("/log").len() as u64 >= durable);
    }

    #[test]
    fn synced_appends_survive_a_crash_at_any_operation(
        seed: u64,
        sizes in prop::collection::vec(1..2000_usize, 1..12),
        crash_at in 0..30_u64,
        how in survive(),
    ) {
        let disk = SimDisk::new(seed);
        disk.write_raw("/log", Vec::new());
        disk.crash_at_op(crash_at);
        let mut acknowledged = Vec::new();
        let mut asked = Vec::new();
        on(&disk, async {
            let file = File::open("/log", Open::ReadWrite).await.unwrap();
            for (i, size) in sizes.iter().enumerate() {
                let bytes = vec![i as u8 + 1; *size];
                let at = asked.len() as u64;
                asked.extend_from_slice(&bytes);
                if file.write_at_sync(at, vec![bytes.into()]).await.is_err() {
                    assert!(!disk.is_powered());
                    break;
                }
                acknowledged = asked.clone();
            }
        });
        disk.restart(how);
        let left = disk.read_raw("/log");
        prop_assert!(left.starts_with(&acknowledged));
        prop_assert!(left.len() <= asked.len());
        for (at, byte) in left.iter().enumerate().skip(acknowledged.len()) {
            prop_assert!(*byte == 0 || *byte == asked[at], "byte {at} was never written");
        }
    }
}

/// Whether, after the last sync of its directory, `name` was made, removed or renamed, or may have been.
fn touched_since_synced(ops: &[Op], name: usize) -> bool {
    ops.iter().rev().take_while(|op| !matches!(op, Op::FsyncDir { dir } if *dir == dir_of(name))).any(|op| match op {
        Op::Rename { from, to } => *from == name || *to == name,
        Op::Remove { name: removed } => *removed == name,
        _ => false,
    })
}
