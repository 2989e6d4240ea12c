//! What the simulated disk promises, and what it is allowed to do, one case at a time.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use braid_env::disk::sim::{self, DiskEvent, FaultCounters, Hook, Latency, SimDisk, Survive, Verdict};
use braid_env::disk::{self, File, Open};
use braid_env::time::{Instant, sleep};
use bytes::Bytes;

const ALL: [Survive; 3] = [Survive::Nothing, Survive::Everything, Survive::Random];

fn on<F: Future>(disk: &SimDisk, future: F) -> F::Output {
    let _guard = sim::enter(disk);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
}

/// With a clock that moves only when all wait for it.
fn timed<F: Future>(disk: &SimDisk, future: F) -> F::Output {
    let _guard = sim::enter(disk);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(future)
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Reads take 10 to 20 ms, writes 100 to 200, fsyncs 1000 to 2000; never more.
fn latency() -> Latency {
    Latency {
        read: ms(10)..=ms(20),
        write: ms(100)..=ms(200),
        fsync: ms(1000)..=ms(2000),
        slow_per_mille: 0,
        slow_factor: 1,
    }
}

fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// An operation of a kind, and its name.
type Op = (&'static str, Pin<Box<dyn Future<Output = std::io::Result<()>>>>);

/// On a disk that was [`laid_out`].
fn an_op_of_each_kind(file: &File) -> Vec<Op> {
    let on = |file: &File| file.clone();
    let (write, write_sync, read, fsync, allocate, set_len, len) =
        (on(file), on(file), on(file), on(file), on(file), on(file), on(file));
    vec![
        ("open", Box::pin(async { File::open("/f", Open::Read).await.map(drop) })),
        ("create", Box::pin(async { File::open("/new", Open::CreateNew).await.map(drop) })),
        ("write", Box::pin(async move { write.write_at(0, vec!["1".into()]).await })),
        ("write_sync", Box::pin(async move { write_sync.write_at_sync(1, vec!["2".into()]).await })),
        ("read", Box::pin(async move { read.read_at(0, 9).await.map(drop) })),
        ("fsync", Box::pin(async move { fsync.fsync().await })),
        ("allocate", Box::pin(async move { allocate.allocate(50).await })),
        ("set_len", Box::pin(async move { set_len.set_len(100).await })),
        ("len", Box::pin(async move { len.len().await.map(drop) })),
        ("rename", Box::pin(disk::rename("/a", "/z"))),
        ("fsync_dir", Box::pin(disk::fsync_dir("/"))),
        ("remove_file", Box::pin(disk::remove_file("/b"))),
        ("remove_dir_all", Box::pin(disk::remove_dir_all("/d"))),
        ("list_dir", Box::pin(async { disk::list_dir("/").await.map(drop) })),
        ("exists", Box::pin(async { disk::exists("/f").await.map(drop) })),
        ("read_file", Box::pin(async { disk::read_file("/f").await.map(drop) })),
        ("lock", Box::pin(async { disk::lock_exclusive("/").await.map(drop) })),
    ]
}

/// Has `/f`, `/a`, `/b` and `/d/g`, all durable.
fn laid_out(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    for path in ["/f", "/a", "/b", "/d/g"] {
        disk.write_raw(path, b"old".to_vec());
    }
    disk
}

/// A new file whose name is durable.
async fn created(path: &str) -> File {
    let file = File::open(path, Open::CreateNew).await.unwrap();
    disk::fsync_dir("/").await.unwrap();
    file
}

async fn write(file: &File, offset: u64, bytes: &[u8]) {
    file.write_at(offset, vec![Bytes::copy_from_slice(bytes)]).await.unwrap();
}

fn error_of<T>(result: std::io::Result<T>) -> String {
    result.err().expect("an error").to_string()
}

#[test]
fn synced_bytes_survive_and_unsynced_ones_may_not() {
    for how in ALL {
        let disk = SimDisk::new(3);
        on(&disk, async {
            let file = created("/f").await;
            write(&file, 0, &[1; 1000]).await;
            file.fsync().await.unwrap();
            write(&file, 1000, &[2; 1000]).await;
            assert_eq!(file.read_at(0, 3000).await.unwrap().len(), 2000, "visible");
        });
        assert_eq!(disk.durable("/f").unwrap(), [1; 1000]);
        disk.restart(how);
        let left = disk.read_raw("/f");
        assert_eq!(left[..1000], [1; 1000]);
        match how {
            Survive::Nothing => assert_eq!(left.len(), 1000),
            Survive::Everything => assert_eq!(left[1000..], [2; 1000]),
            Survive::Random => {}
        }
        assert_eq!(disk.durable("/f").unwrap(), left, "what is left is durable");
    }
}

#[test]
fn unsynced_writes_vanish_survive_reorder_and_tear() {
    let mut seen = BTreeSet::new();
    for seed in 0..400 {
        let disk = SimDisk::new(seed);
        on(&disk, async {
            let file = created("/f").await;
            file.allocate(4096).await.unwrap();
            file.fsync().await.unwrap();
            write(&file, 0, &[1; 1024]).await;
            write(&file, 2048, &[2; 1024]).await;
        });
        disk.restart(Survive::Random);
        let left = disk.read_raw("/f");
        assert_eq!(left.len(), 4096);
        assert!(left[1024..2048].iter().chain(&left[3072..]).all(|b| *b == 0));
        let sectors = [&left[..512], &left[512..1024], &left[2048..2560], &left[2560..3072]];
        let state = |s: &[u8]| match (s.contains(&0), s.iter().any(|b| *b != 0)) {
            (true, true) => "torn",
            (true, false) => "lost",
            _ => "kept",
        };
        let [a, b, c, d] = sectors.map(state);
        seen.insert(match [a, b, c, d] {
            ["lost", "lost", "lost", "lost"] => "nothing",
            ["kept", "kept", "kept", "kept"] => "everything",
            ["kept", "kept", "lost", "lost"] => "first write only",
            ["lost", "lost", "kept", "kept"] => "second write only",
            all if all.contains(&"torn") => "torn sector",
            _ => "some sectors",
        });
    }
    let expected = ["nothing", "everything", "first write only", "second write only", "torn sector", "some sectors"];
    assert_eq!(seen, BTreeSet::from(expected));
}

#[test]
fn a_length_may_get_to_the_disk_without_its_bytes() {
    let zero_tail = (0..100).any(|seed| {
        let disk = SimDisk::new(seed);
        on(&disk, async {
            write(&created("/f").await, 0, &[1; 512]).await;
        });
        disk.restart(Survive::Random);
        disk.read_raw("/f") == [0; 512]
    });
    assert!(zero_tail);
}

/// The names left after `f` on a disk that has a durable `/a` (holding "A") and `/b` (holding "B").
async fn lay_out() {
    for name in ["a", "b"] {
        let file = File::open(format!("/{name}"), Open::CreateNew).await.unwrap();
        file.write_at_sync(0, vec![name.to_uppercase().into()]).await.unwrap();
    }
    disk::fsync_dir("/").await.unwrap();
}

fn contents(disk: &SimDisk) -> Vec<(String, String)> {
    let read = |path: std::path::PathBuf| {
        let bytes = disk.read_raw(&path);
        (path.display().to_string(), String::from_utf8_lossy(&bytes).into_owned())
    };
    disk.files().into_iter().map(read).collect()
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(p, c)| (p.to_string(), c.to_string())).collect()
}

#[test]
fn an_unsynced_rename_may_revert_and_is_never_half_done() {
    let before = pairs(&[("/a", "A"), ("/b", "B")]);
    let after = pairs(&[("/b", "A")]);
    let mut seen = BTreeSet::new();
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        on(&disk, async {
            lay_out().await;
            disk::rename("/a", "/b").await.unwrap();
        });
        assert_eq!(contents(&disk), after, "visible at once");
        disk.restart(Survive::Random);
        seen.insert(contents(&disk));
    }
    assert_eq!(seen, BTreeSet::from([before, after]));
}

#[test]
fn names_are_durable_once_their_directory_is_synced() {
    for how in ALL {
        for seed in 0..20 {
            let disk = SimDisk::new(seed);
            on(&disk, async {
                lay_out().await;
                disk::rename("/a", "/c").await.unwrap();
                disk::remove_file("/b").await.unwrap();
                let new = File::open("/d", Open::CreateNew).await.unwrap();
                new.write_at_sync(0, vec!["D".into()]).await.unwrap();
                disk::fsync_dir("/").await.unwrap();
            });
            disk.restart(how);
            assert_eq!(contents(&disk), pairs(&[("/c", "A"), ("/d", "D")]));
        }
    }
}

#[test]
fn syncing_a_file_does_not_sync_its_name() {
    let disk = SimDisk::new(1);
    on(&disk, async {
        let file = File::open("/new", Open::CreateNew).await.unwrap();
        file.write_at_sync(0, vec!["x".into()]).await.unwrap();
    });
    assert_eq!(disk.durable("/new"), None);
    disk.restart(Survive::Nothing);
    assert_eq!(disk.files(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn an_unsynced_removal_may_bring_the_file_back() {
    let disk = SimDisk::new(1);
    on(&disk, async {
        lay_out().await;
        disk::remove_file("/a").await.unwrap();
        let again = File::open("/a", Open::CreateNew).await.unwrap();
        again.write_at_sync(0, vec!["new".into()]).await.unwrap();
    });
    disk.restart(Survive::Nothing);
    assert_eq!(contents(&disk), pairs(&[("/a", "A"), ("/b", "B")]));
}

#[test]
fn a_rename_between_directories_is_whole_after_either_is_synced() {
    for synced in ["/x", "/y"] {
        let disk = SimDisk::new(1);
        on(&disk, async {
            disk::create_dir_all("/x").await.unwrap();
            disk::create_dir_all("/y").await.unwrap();
            let file = File::open("/x/f", Open::CreateNew).await.unwrap();
            file.write_at_sync(0, vec!["F".into()]).await.unwrap();
            disk::rename("/x/f", "/y/f").await.unwrap();
            disk::fsync_dir(synced).await.unwrap();
        });
        disk.restart(Survive::Nothing);
        assert_eq!(contents(&disk), pairs(&[("/y/f", "F")]));
    }
}

#[test]
fn create_dir_all_and_write_file_durably_are_durable() {
    for how in ALL {
        let disk = SimDisk::new(5);
        on(&disk, async {
            disk::create_dir_all("/p/q/r").await.unwrap();
            disk::write_file_durably("/p/q/r/f", "1".into()).await.unwrap();
            disk::write_file_durably("/p/q/r/f", "2".into()).await.unwrap();
        });
        disk.restart(how);
        assert_eq!(contents(&disk), pairs(&[("/p/q/r/f", "2")]));
    }
}

#[test]
fn write_file_durably_is_atomic_wherever_the_power_goes() {
    for crash_at in 0.. {
        let mut done = false;
        for seed in 0..30 {
            let disk = SimDisk::new(seed);
            disk.write_raw("/f", b"old".to_vec());
            disk.crash_at_op(crash_at);
            done = on(&disk, disk::write_file_durably("/f", "new".into())).is_ok();
            disk.restart(Survive::Random);
            let left = disk.read_raw("/f");
            assert!(left == b"new" || (left == b"old" && !done), "{left:?}");
        }
        if done {
            assert_eq!(crash_at, 6, "create, set_len, write, fsync, rename, fsync_dir");
            return;
        }
    }
}

#[test]
fn the_power_goes_at_the_operation_asked_for() {
    let disk = SimDisk::new(1);
    on(&disk, async {
        let file = created("/f").await;
        assert_eq!(disk.ops(), 2, "create, fsync_dir");
        disk.crash_at_op(3);
        write(&file, 0, b"before").await;
        assert_eq!(file.read_at(0, 9).await.unwrap(), "before", "reads don't count");
        assert!(disk.is_powered());
        assert_eq!(error_of(file.fsync().await), "power is off");
        assert!(!disk.is_powered());
        assert_eq!(error_of(file.read_at(0, 9).await), "power is off");
        assert_eq!(error_of(disk::exists("/f").await), "power is off");
        assert_eq!(error_of(File::open("/f", Open::Read).await), "power is off");
        assert_eq!(disk.ops(), 4, "what fails for want of power is none");
        disk.restart(Survive::Nothing);
        assert!(error_of(file.read_at(0, 9).await).contains("before the restart"));
        assert!(error_of(file.fsync().await).contains("before the restart"));
        File::open("/f", Open::Read).await.unwrap();
        disk.power_cut();
        assert_eq!(error_of(disk::list_dir("/").await), "power is off");
    });
}

#[test]
fn an_fsync_the_power_goes_at_may_have_synced() {
    let survived = |seed| {
        let disk = SimDisk::new(seed);
        on(&disk, async {
            let file = created("/f").await;
            disk.crash_at_op(disk.ops() + 1);
            assert_eq!(error_of(file.write_at_sync(0, vec!["x".into()]).await), "power is off");
        });
        disk.restart(Survive::Nothing);
        disk.read_raw("/f") == b"x"
    };
    let seen: BTreeSet<bool> = (0..20).map(survived).collect();
    assert_eq!(seen.len(), 2);
}

#[test]
fn after_a_failed_fsync_the_unsynced_is_gone_although_it_reads_well() {
    for how in ALL {
        let disk = SimDisk::new(1);
        on(&disk, async {
            let file = created("/f").await;
            write(&file, 0, &[1; 100]).await;
            file.fsync().await.unwrap();
            write(&file, 100, &[2; 100]).await;
            disk.fail_next_fsync();
            assert!(file.fsync().await.is_err());
            file.fsync().await.expect("which is the trap");
            assert_eq!(file.read_at(100, 100).await.unwrap(), vec![2; 100]);
            write(&file, 200, &[3; 100]).await;
            file.fsync().await.unwrap();
        });
        disk.restart(how);
        let left = disk.read_raw("/f");
        assert_eq!(left, [[1; 100], [0; 100], [3; 100]].concat());
    }
}

#[test]
fn the_fsync_asked_for_fails() {
    let disk = SimDisk::new(1);
    on(&disk, async {
        let file = created("/f").await;
        disk.fail_nth_fsync(2);
        file.fsync().await.unwrap();
        file.write_at_sync(0, vec!["x".into()]).await.unwrap();
        assert!(file.write_at_sync(1, vec!["y".into()]).await.is_err());
        file.fsync().await.unwrap();
        disk.fail_next_fsync_dir();
        assert!(disk::fsync_dir("/").await.is_err());
        disk.fail_next_write();
        assert!(file.write_at(5, vec!["z".into()]).await.is_err());
        assert_eq!(file.len().await.unwrap(), 2);
    });
}

#[test]
fn a_full_disk_says_so_and_space_comes_back() {
    let full = Some(std::io::ErrorKind::StorageFull);
    let kind = |r: std::io::Result<()>| r.err().map(|e| e.kind());
    let disk = SimDisk::new(1);
    disk.set_capacity(Some(3000));
    on(&disk, async {
        let a = created("/a").await;
        a.allocate(2000).await.unwrap();
        let b = created("/b").await;
        assert_eq!(kind(b.allocate(1001).await), full);
        assert_eq!(b.len().await.unwrap(), 0, "nothing of it");
        let write = b.write_at(500, vec![vec![1; 400].into(), vec![2; 400].into()]);
        assert_eq!(kind(write.await), full);
        assert_eq!(b.len().await.unwrap(), 1000, "the part that fits");
        assert_eq!(b.read_at(900, 100).await.unwrap(), vec![2; 100]);
        a.write_at(0, vec![vec![3; 2000].into()]).await.expect("room that is reserved");
        assert_eq!(kind(a.set_len(2001).await), full);
        disk::remove_file("/b").await.unwrap();
        a.set_len(3000).await.unwrap();
        disk.set_capacity(None);
        a.set_len(1 << 40).await.unwrap();
        assert_eq!(a.read_at((1 << 40) - 1, 9).await.unwrap(), vec![0]);
    });
}

#[test]
fn damage_on_order() {
    let disk = SimDisk::new(1);
    disk.write_raw("/d/f", vec![0; 1000]);
    on(&disk, async {
        let file = File::open("/d/f", Open::ReadWrite).await.unwrap();
        disk.flip_on_next_read("/d/f", 600, 3);
        assert_eq!(file.read_at(0, 600).await.unwrap(), vec![0; 600], "not there");
        assert_eq!(file.read_at(599, 3).await.unwrap()[..], [0, 8, 0]);
        assert_eq!(file.read_at(599, 3).await.unwrap()[..], [0, 0, 0]);
        disk.flip_bit("/d/f", 600, 0);
        assert_eq!(file.read_at(599, 3).await.unwrap()[..], [0, 1, 0]);
        disk.restart(Survive::Nothing);
        assert_eq!(disk.read_raw("/d/f")[600], 1);
        disk.truncate_file("/d/f", 600);
        disk.flip_bit("/d/f", 600, 0);
        assert_eq!(disk.durable("/d/f").unwrap(), [0; 600]);
    });
}

#[test]
#[should_panic(expected = "no file /nope")]
fn damage_to_a_file_that_is_not_there_is_a_mistake() {
    SimDisk::new(1).flip_bit("/nope", 0, 0);
}

#[test]
fn a_killed_process_loses_nothing_and_syncs_nothing() {
    let disk = SimDisk::new(1);
    on(&disk, async {
        let file = created("/f").await;
        let _lock = disk::lock_exclusive("/").await.unwrap();
        write(&file, 0, b"unsynced").await;
        disk.kill_process();
        assert!(error_of(file.len().await).contains("before the restart"));
        let _lock_again = disk::lock_exclusive("/").await.unwrap();
        drop(_lock);
        assert!(disk::lock_exclusive("/").await.is_err(), "the old lock frees nothing");
        assert_eq!(disk::read_file("/f").await.unwrap(), "unsynced");
    });
    disk.restart(Survive::Nothing);
    assert_eq!(disk.read_raw("/f"), b"");
}

#[test]
fn another_task_runs_before_an_operation_returns() {
    let disk = SimDisk::new(1);
    on(&disk, async {
        let file = created("/f").await;
        let (ours, theirs) = (file.clone(), file);
        let (seen, _) = tokio::join!(
            async {
                write(&ours, 0, b"1").await;
                ours.read_at(0, 9).await.unwrap()
            },
            write(&theirs, 1, b"2"),
        );
        assert_eq!(seen, "12");
    });
}

#[test]
fn an_operation_whose_caller_left_has_happened() {
    let disk = SimDisk::new(1);
    on(&disk, async {
        let file = created("/f").await;
        tokio::select! {
            biased;
            _ = file.write_at(0, vec!["x".into()]) => panic!("it takes a turn"),
            () = std::future::ready(()) => {}
        }
        assert_eq!(disk.read_raw("/f"), b"x");
    });
}

#[test]
fn it_needs_no_runtime_and_every_operation_takes_one_turn() {
    let disk = laid_out(1);
    let _guard = sim::enter(&disk);
    let mut opening = pin!(File::open("/f", Open::ReadWrite));
    assert!(poll(opening.as_mut()).is_pending());
    let Poll::Ready(Ok(file)) = poll(opening) else { panic!("not open") };
    for (name, mut op) in an_op_of_each_kind(&file) {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        assert!(op.as_mut().poll(&mut Context::from_waker(&waker)).is_pending(), "{name}");
        assert_eq!(woken.0.load(Ordering::Relaxed), 1, "{name}");
        assert!(matches!(poll(op.as_mut()), Poll::Ready(Ok(()))), "{name}");
    }
}

#[derive(Default)]
struct Woken(AtomicU64);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// How long each of `n` operations of each kind took.
async fn times(n: usize) -> [Vec<Duration>; 3] {
    let file = File::open("/f", Open::ReadWrite).await.unwrap();
    let mut took = [const { Vec::new() }; 3];
    for _ in 0..n {
        let began = Instant::now();
        file.read_at(0, 9).await.unwrap();
        took[0].push(began.elapsed());
        let began = Instant::now();
        write(&file, 0, b"x").await;
        took[1].push(began.elapsed());
        let began = Instant::now();
        file.fsync().await.unwrap();
        took[2].push(began.elapsed());
    }
    took
}

#[test]
fn operations_take_a_time_of_their_range() {
    // (slowness, slow per mille, slow factor, by what times are multiplied, how many operations are slow)
    type Case = (u32, u32, u32, RangeInclusive<u32>, RangeInclusive<u64>);
    let cases: [Case; 5] = [
        (1, 0, 50, 1..=1, 0..=0),
        (3, 0, 50, 3..=3, 1..=91),
        (1, 1000, 5, 5..=5, 91..=91),
        (2, 1000, 5, 10..=10, 91..=91),
        (1, 300, 5, 1..=5, 10..=50),
    ];
    for (slowness, slow_per_mille, slow_factor, factor, slow) in cases {
        let disk = laid_out(1);
        disk.set_latency(Some(Latency { slow_per_mille, slow_factor, ..latency() }));
        disk.set_slowness(slowness);
        let usual = [(10, 20), (100, 200), (1000, 2000)];
        for (took, (min, max)) in timed(&disk, times(30)).into_iter().zip(usual) {
            // The clock has whole milliseconds.
            let range = ms(min) * *factor.start()..=ms(max) * *factor.end() + ms(1);
            assert!(took.iter().all(|t| range.contains(t)), "{slowness} {factor:?}: {took:?}");
            assert!(BTreeSet::from_iter(&took).len() > 3, "drawn: {took:?}");
            let is_rare = factor.start() < factor.end();
            let beyond = took.iter().filter(|t| **t > ms(max + 1)).count();
            assert!(!is_rare || (1..20).contains(&beyond), "{beyond} of 30 are slow");
        }
        let counted = disk.counters().ops_slow;
        assert!(slow.contains(&counted), "{counted} are slow, not {slow:?}");
        disk.set_latency(None);
        assert_eq!(timed(&disk, times(2)).concat(), [Duration::ZERO; 6]);
    }
}

#[test]
fn times_follow_from_the_seed_and_change_nothing_else() {
    let run = |seed: u64, latency: Option<Latency>| {
        let disk = laid_out(seed);
        disk.set_latency(latency);
        let took = timed(&disk, async {
            let took = times(5).await;
            write(&File::open("/f", Open::ReadWrite).await.unwrap(), 0, &[7; 5000]).await;
            took
        });
        disk.restart(Survive::Random);
        (took, disk.read_raw("/f"))
    };
    let (one, again, other) = (run(1, Some(latency())), run(1, Some(latency())), run(2, Some(latency())));
    assert_eq!(one, again);
    assert_ne!(one.0, other.0);
    assert_eq!(one.1, run(1, None).1);
}

#[test]
fn a_write_is_seen_at_once_and_durable_when_its_fsync_is_over() {
    let disk = laid_out(1);
    disk.set_latency(Some(latency()));
    timed(&disk, async {
        let file = File::open("/f", Open::ReadWrite).await.unwrap();
        let mut synced = pin!(file.write_at_sync(0, vec!["new".into()]));
        let mut renamed = pin!(disk::rename("/a", "/z"));
        assert!(poll(renamed.as_mut()).is_pending());
        // Whether it has returned after so many ms more, with that on the disk.
        let mut at = async |after: u64, durable: &[u8]| {
            sleep(ms(after)).await;
            let done = poll(synced.as_mut()).is_ready();
            assert_eq!(disk.read_raw("/f"), b"new", "after {after}");
            assert!(!disk.files().contains(&"/a".into()));
            assert_eq!(disk.durable("/f").unwrap(), durable, "after {after}");
            done
        };
        assert!(!at(0, b"old").await);
        assert!(!at(99, b"old").await, "writing");
        assert!(!at(110, b"old").await, "the fsync begins");
        assert!(!at(990, b"old").await, "syncing");
        assert!(at(1100, b"new").await);
        renamed.await.unwrap();
    });
    disk.restart(Survive::Nothing);
    assert!(disk.files().contains(&"/a".into()), "nobody synced the directory");
}

#[test]
fn an_fsync_covers_what_came_before_it_began() {
    let disk = laid_out(1);
    disk.set_latency(Some(latency()));
    timed(&disk, async {
        let file = File::open("/f", Open::ReadWrite).await.unwrap();
        write(&file, 0, b"1").await;
        disk::rename("/a", "/before").await.unwrap();
        let later = async {
            sleep(ms(500)).await;
            write(&file, 1, b"2").await;
            disk::rename("/b", "/after").await.unwrap();
        };
        let (synced, dir_synced, ()) = tokio::join!(file.fsync(), disk::fsync_dir("/"), later);
        synced.and(dir_synced).unwrap();
    });
    assert_eq!(disk.read_raw("/f"), b"12d");
    assert_eq!(disk.durable("/f").unwrap(), b"1ld");
    let durable = |path: &str| disk.durable(path).is_some();
    assert_eq!(["/a", "/before", "/b", "/after"].map(durable), [false, true, true, false]);
    disk.restart(Survive::Nothing);
    assert_eq!(disk.read_raw("/f"), b"1ld");
}

#[test]
fn the_first_fsync_to_end_covers_what_others_had_begun_to() {
    let disk = laid_out(1);
    timed(&disk, async {
        let file = File::open("/f", Open::ReadWrite).await.unwrap();
        disk.set_latency(Some(Latency { write: ms(0)..=ms(0), fsync: ms(100)..=ms(100), ..latency() }));
        write(&file, 0, b"1").await;
        let mut slow = pin!(file.fsync());
        assert!(poll(slow.as_mut()).is_pending());
        disk.set_latency(Some(Latency { write: ms(0)..=ms(0), fsync: ms(10)..=ms(10), ..latency() }));
        write(&file, 1, b"2").await;
        file.fsync().await.unwrap();
        assert_eq!(disk.durable("/f").unwrap(), b"12d");
        write(&file, 2, b"3").await;
        slow.await.unwrap();
        assert_eq!(disk.durable("/f").unwrap(), b"12d");
    });
}

#[test]
fn an_fsync_the_power_finds_on_its_way_is_half_done() {
    let mut seen = BTreeSet::new();
    let (mut torn, mut lost, mut reverted) = (0, 0, 0);
    for seed in 0..200 {
        let disk = laid_out(seed);
        disk.set_latency(Some(latency()));
        timed(&disk, async {
            let file = File::open("/f", Open::ReadWrite).await.unwrap();
            let mut synced = pin!(file.write_at_sync(0, vec![vec![1; 1024].into()]));
            let mut renamed = pin!(async {
                disk::rename("/a", "/z").await?;
                disk::fsync_dir("/").await
            });
            for _ in 0..3 {
                assert!(poll(synced.as_mut()).is_pending());
                assert!(poll(renamed.as_mut()).is_pending());
                sleep(ms(300)).await;
            }
            disk.power_cut();
            assert_eq!(error_of(synced.await), "power is off");
            assert_eq!(error_of(renamed.await), "power is off");
        });
        disk.restart(Survive::Random);
        let counters = disk.counters();
        assert_eq!((counters.power_cuts, counters.fsyncs_half_done), (1, 2));
        disk.power_cut();
        assert_eq!(disk.counters().fsyncs_half_done, 2, "each cut has its own");
        let left = disk.read_raw("/f");
        let write = match left.iter().filter(|b| **b == 1).count() {
            0 => "lost",
            1024 => "kept",
            _ => "torn",
        };
        torn += counters.writes_torn;
        lost += counters.writes_lost;
        assert_eq!(counters.writes_torn, u64::from(write == "torn"), "{seed}");
        assert_eq!(counters.writes_lost, u64::from(write == "lost"), "{seed}");
        let name = if disk.files().contains(&"/z".into()) { "renamed" } else { "reverted" };
        assert_eq!(counters.names_reverted, u64::from(name == "reverted"));
        reverted += counters.names_reverted;
        seen.insert((write, name));
    }
    assert_eq!(seen.len(), 6, "{seen:?}");
    assert!(torn > 20 && lost > 20 && reverted > 20);
}

#[test]
fn fsyncs_that_ended_before_the_power_went_are_not_half_done() {
    let disk = laid_out(1);
    disk.set_latency(Some(latency()));
    timed(&disk, async {
        let file = File::open("/f", Open::ReadWrite).await.unwrap();
        file.fsync().await.unwrap();
        disk::fsync_dir("/").await.unwrap();
        disk::fsync_dir("/nowhere").await.unwrap_err();
        disk.fail_next_fsync();
        file.fsync().await.unwrap_err();
        {
            let mut left = pin!(file.fsync());
            assert!(poll(left.as_mut()).is_pending());
        }
        disk.power_cut();
    });
    assert_eq!(disk.counters().fsyncs_half_done, 0);
}

#[test]
fn while_the_disk_is_stuck_every_operation_hangs_and_then_goes_on() {
    // (latency, how many begin before)
    for (latency, before) in [(None, 0), (Some(latency()), 0), (Some(latency()), 99)] {
        let disk = laid_out(1);
        timed(&disk, async {
            let file = File::open("/f", Open::ReadWrite).await.unwrap();
            disk.set_latency(latency);
            let mut ops = an_op_of_each_kind(&file);
            for (n, (name, op)) in ops.iter_mut().enumerate() {
                disk.set_stuck(n >= before);
                assert!(poll(op.as_mut()).is_pending(), "{name}");
            }
            disk.set_stuck(true);
            for _ in 0..3 {
                sleep(ms(10_000)).await;
                for (name, op) in &mut ops {
                    assert!(poll(op.as_mut()).is_pending(), "{name}");
                }
            }
            assert_eq!(disk.counters().ops_stuck, ops.len() as u64, "once each");
            assert_eq!(disk.read_raw("/f")[..3], *b"12d", "in the page cache");
            assert_eq!(disk.durable("/f").unwrap(), b"old");
            assert!(disk.durable("/a").is_some());
            disk.set_stuck(false);
            for (name, op) in ops {
                op.await.unwrap_or_else(|e| panic!("{name}: {e}"));
            }
            assert_eq!(disk.durable("/f").unwrap()[..3], *b"12d");
            assert!(disk.durable("/a").is_none());
        });
    }
}

#[test]
fn those_that_hang_are_woken_in_the_order_they_came() {
    struct Named(usize, Arc<Mutex<Vec<usize>>>);
    impl Wake for Named {
        fn wake(self: Arc<Self>) {
            self.1.lock().unwrap().push(self.0);
        }
    }
    let disk = laid_out(1);
    let _guard = sim::enter(&disk);
    let woken = Arc::new(Mutex::new(Vec::new()));
    let waker = |n| Waker::from(Arc::new(Named(n, woken.clone())));
    disk.set_stuck(true);
    let mut ops: Vec<_> = (0..6).map(|_| Box::pin(disk::exists("/f"))).collect();
    // Twice: the second time they hang, and look again without losing their place.
    for order in [[3, 1, 5, 0, 2, 4], [3, 1, 5, 0, 2, 4], [0, 1, 2, 3, 4, 5]] {
        for n in order {
            assert!(ops[n].as_mut().poll(&mut Context::from_waker(&waker(n))).is_pending());
        }
    }
    woken.lock().unwrap().clear();
    drop(ops.remove(5));
    disk.set_stuck(false);
    assert_eq!(*woken.lock().unwrap(), [3, 1, 0, 2, 4]);
}

#[test]
fn operations_on_their_way_fail_when_the_power_goes() {
    #[derive(Debug, Copy, Clone, PartialEq)]
    enum State {
        Yielding,
        Sleeping,
        Stuck,
    }
    for state in [State::Yielding, State::Sleeping, State::Stuck] {
        for restarted in [false, true] {
            let disk = laid_out(1);
            timed(&disk, async {
                let file = File::open("/f", Open::ReadWrite).await.unwrap();
                disk.set_latency(Some(latency()).filter(|_| state == State::Sleeping));
                disk.set_stuck(state == State::Stuck);
                let mut ops = an_op_of_each_kind(&file);
                let woken: Vec<_> = ops.iter().map(|_| Arc::new(Woken::default())).collect();
                for _ in 0..if state == State::Stuck { 2 } else { 1 } {
                    for ((name, op), woken) in ops.iter_mut().zip(&woken) {
                        let waker = Waker::from(woken.clone());
                        let polled = op.as_mut().poll(&mut Context::from_waker(&waker));
                        assert!(polled.is_pending(), "{name}");
                    }
                }
                let before: Vec<_> = woken.iter().map(|w| w.0.load(Ordering::Relaxed)).collect();
                disk.power_cut();
                if restarted {
                    disk.restart(Survive::Random);
                }
                for (((name, op), woken), before) in ops.iter_mut().zip(woken).zip(before) {
                    let Poll::Ready(result) = poll(op.as_mut()) else { panic!("{name} is still {state:?}") };
                    assert_eq!(error_of(result), "power is off", "{name} {state:?}");
                    let wakes = woken.0.load(Ordering::Relaxed) - before;
                    assert_eq!(wakes, u64::from(state == State::Stuck), "{name}");
                }
            });
        }
    }
}

#[test]
fn operations_on_their_way_fail_when_their_process_is_killed() {
    let disk = laid_out(1);
    disk.set_latency(Some(latency()));
    timed(&disk, async {
        let file = File::open("/f", Open::ReadWrite).await.unwrap();
        write(&file, 0, b"new").await;
        let mut ops = an_op_of_each_kind(&file);
        for (name, op) in &mut ops {
            assert!(poll(op.as_mut()).is_pending(), "{name}");
        }
        disk.kill_process();
        for (name, op) in ops {
            assert!(error_of(op.await).contains("before the restart"), "{name}");
        }
    });
    assert_eq!(disk.read_raw("/f")[..3], *b"12w");
    assert_eq!(disk.durable("/f").unwrap(), b"old", "nothing synced");
    assert_eq!(disk.counters().power_cuts, 0);
}

#[test]
fn a_thawed_disk_has_lost_and_synced_nothing() {
    for half_way in [false, true] {
        let disk = laid_out(1);
        disk.set_latency(Some(latency()));
        timed(&disk, async {
            let file = File::open("/f", Open::ReadWrite).await.unwrap();
            let _lock = disk::lock_exclusive("/").await.unwrap();
            write(&file, 0, b"new").await;
            disk::rename("/a", "/z").await.unwrap();
            let mut synced = pin!(file.fsync());
            if half_way {
                assert!(poll(synced.as_mut()).is_pending());
            }
            disk.power_cut();
            assert_eq!(error_of(disk::remove_file("/b").await), "power is off");
            disk.thaw();
            if half_way {
                assert_eq!(error_of(synced.await), "power is off");
            }
            assert!(error_of(file.len().await).contains("before the restart"));
            let _lock_again = disk::lock_exclusive("/").await.unwrap();
            assert_eq!(disk::read_file("/f").await.unwrap(), "new");
        });
        assert_eq!(disk.files(), ["/b", "/d/g", "/f", "/z"].map(std::path::PathBuf::from));
        assert_eq!(disk.durable("/f").unwrap(), b"old");
        disk.restart(Survive::Nothing);
        assert_eq!(disk.read_raw("/f"), b"old");
        assert!(disk.files().contains(&"/a".into()));
    }
}

#[test]
fn what_is_ordered_ahead_fails_once() {
    let disk = laid_out(1);
    on(&disk, async {
        let file = File::open("/f", Open::ReadWrite).await.unwrap();
        let eio = |result: std::io::Result<()>| assert_eq!(result.unwrap_err().raw_os_error(), Some(5));
        disk.fail_next_read();
        file.len().await.unwrap();
        eio(file.read_at(0, 9).await.map(drop));
        assert_eq!(file.read_at(0, 9).await.unwrap(), "old");
        disk.fail_next_read();
        eio(disk::read_file("/f").await.map(drop));
        disk.fail_next_rename();
        eio(disk::rename("/a", "/z").await);
        assert!(disk::exists("/a").await.unwrap());
        disk::rename("/a", "/z").await.unwrap();
        disk.fail_next_write();
        eio(file.write_at(0, vec!["new".into()]).await);
        disk.fail_next_fsync();
        eio(file.fsync().await);
        disk.fail_next_fsync_dir();
        eio(disk::fsync_dir("/").await);
        disk.set_capacity(Some(12));
        assert!(file.allocate(4).await.is_err());
        disk.flip_on_next_read("/f", 0, 1);
        file.read_at(0, 9).await.unwrap();
        disk.flip_bit("/f", 0, 1);
        disk.flip_bit("/f", 99, 1);
    });
    let expected = FaultCounters {
        reads_failed: 2,
        renames_failed: 1,
        writes_failed: 1,
        fsyncs_failed: 1,
        dir_fsyncs_failed: 1,
        out_of_space: 1,
        bits_misread: 1,
        bits_flipped: 1,
        ..FaultCounters::default()
    };
    assert_eq!(disk.counters(), expected);
    for order in [SimDisk::fail_next_read, SimDisk::fail_next_rename, SimDisk::shorten_next_write] {
        order(&disk);
    }
    disk.restart(Survive::Everything);
    on(&disk, async {
        disk::read_file("/f").await.expect("a restart forgets it");
        disk::rename("/b", "/y").await.expect("a restart forgets it");
        File::open("/f", Open::ReadWrite).await.unwrap().write_at(0, vec!["x".into()]).await.unwrap();
    });
    assert_eq!(disk.counters(), FaultCounters { power_cuts: 1, names_reverted: 0, ..expected }, "never reset");
}

#[test]
fn a_short_write_leaves_a_prefix() {
    let mut seen = BTreeSet::new();
    for seed in 0..60 {
        let disk = laid_out(seed);
        on(&disk, async {
            let file = File::open("/f", Open::ReadWrite).await.unwrap();
            disk.shorten_next_write();
            let bufs = vec!["1".into(), "23".into(), "45".into()];
            assert_eq!(file.write_at_sync(3, bufs).await.unwrap_err().raw_os_error(), Some(5));
            write(&file, 0, b"OLD").await;
        });
        assert_eq!((disk.counters().writes_short, disk.counters().writes_failed), (1, 0));
        assert_eq!(disk.durable("/f").unwrap(), b"old", "no fsync of what was not written");
        seen.insert(String::from_utf8(disk.read_raw("/f")).unwrap());
    }
    assert_eq!(seen, ["OLD1", "OLD12", "OLD123", "OLD1234"].map(String::from).into());
}

#[test]
fn a_random_flip_hits_synced_bytes_of_the_ranges_given() {
    let (mut hit, mut bits) = (BTreeSet::new(), BTreeSet::new());
    for seed in 0..300 {
        let disk = laid_out(seed);
        on(&disk, async {
            let file = File::open("/f", Open::ReadWrite).await.unwrap();
            write(&file, 1, b"unsynced").await;
            File::open("/unnamed", Open::CreateNew).await.unwrap().write_at_sync(0, vec!["x".into()]).await.unwrap();
        });
        let flip = disk.flip_random_durable_bit(|path, len| {
            assert_eq!(len, 3, "durable");
            if path.starts_with("/d") { None } else { Some(0..if path == Path::new("/b") { 1 } else { 99 }) }
        });
        let flip = flip.unwrap();
        let mut expected = b"old".to_vec();
        expected[flip.byte as usize] ^= 1 << flip.bit;
        assert_eq!(disk.durable(&flip.path).unwrap(), expected);
        assert_eq!(disk.read_raw(&flip.path)[flip.byte as usize], expected[flip.byte as usize], "seen at once");
        assert_eq!(disk.counters().bits_flipped, 1);
        hit.insert(format!("{} {}", flip.path.display(), flip.byte));
        bits.insert(flip.bit);
        assert_eq!(disk.flip_random_durable_bit(|_, _| None), None);
        assert_eq!(disk.flip_random_durable_bit(|_, _| Some(3..9)), None);
    }
    assert_eq!(hit, ["/a 0", "/a 1", "/a 2", "/b 0", "/f 0"].map(String::from).into());
    assert_eq!(bits.len(), 8);
}

#[test]
fn a_flip_in_a_file_with_unsynced_writes_outlives_their_fsync() {
    let disk = laid_out(1);
    on(&disk, async {
        let file = File::open("/f", Open::ReadWrite).await.unwrap();
        write(&file, 1, b"nsy").await;
        disk.flip_bit("/f", 0, 1);
        file.fsync().await.unwrap();
        assert_eq!(disk.durable("/f").unwrap(), b"mnsy");
        // Damage below a write that is still to come is written over, where it is on the disk.
        write(&file, 0, b"abcd").await;
        disk.flip_bit("/f", 0, 1);
        file.fsync().await.unwrap();
        assert_eq!(disk.durable("/f").unwrap(), b"abcd");
        write(&file, 1, b"x").await;
        file.fsync().await.unwrap();
        assert_eq!(disk.durable("/f").unwrap(), b"axcd");
    });
}

/// Events as text, and a hook that writes them down and says `verdict(text)`.
fn recorded(verdict: impl Fn(&str) -> Verdict + Send + Sync + 'static) -> (Arc<Mutex<Vec<String>>>, Hook) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let record = events.clone();
    let hook = move |event: &DiskEvent<'_>| {
        let text = match event {
            DiskEvent::Write { path } => format!("write {}", path.display()),
            DiskEvent::FsyncBegun { path } => format!("begun {}", path.display()),
            DiskEvent::FsyncHalf { path } => format!("half {}", path.display()),
            DiskEvent::FsyncDone { path } => format!("done {}", path.display()),
            DiskEvent::Renamed { from, to } => format!("renamed {} {}", from.display(), to.display()),
            DiskEvent::DirSynced { path } => format!("dir {}", path.display()),
            DiskEvent::Created { path } => format!("created {}", path.display()),
            DiskEvent::Removed { path } => format!("removed {}", path.display()),
            DiskEvent::Allocated { path } => format!("allocated {}", path.display()),
        };
        let verdict = verdict(&text);
        record.lock().unwrap().push(text);
        verdict
    };
    (events, Arc::new(hook))
}

/// What a node might do; stops at the first error.
async fn some_work() -> std::io::Result<()> {
    disk::create_dir_all("/w").await?;
    let file = File::open("/w/f.tmp", Open::Create).await?;
    file.allocate(10).await?;
    file.write_at_sync(0, vec!["new".into()]).await?;
    disk::rename("/w/f.tmp", "/w/f").await?;
    disk::fsync_dir("/w").await?;
    file.write_at(0, vec!["NEW".into()]).await?;
    file.fsync().await?;
    drop(disk::lock_exclusive("/w/lock").await?);
    disk::remove_dir_all("/d").await?;
    disk::remove_file("/a").await
}

const ITS_EVENTS: [&str; 19] = [
    "created /w",
    "dir /",
    "dir /",
    "created /w/f.tmp",
    "allocated /w/f.tmp",
    "write /w/f.tmp",
    "begun /w/f.tmp",
    "half /w/f.tmp",
    "done /w/f.tmp",
    "renamed /w/f.tmp /w/f",
    "dir /w",
    "write /w/f.tmp",
    "begun /w/f.tmp",
    "half /w/f.tmp",
    "done /w/f.tmp",
    "created /w/lock",
    "removed /d/g",
    "removed /d",
    "removed /a",
];

#[test]
fn the_hook_hears_of_everything_in_order() {
    for latency in [None, Some(latency())] {
        let disk = laid_out(1);
        disk.set_latency(latency);
        let (events, hook) = recorded(|_| Verdict::GoOn);
        disk.set_hook(Some(hook));
        timed(&disk, some_work()).unwrap();
        assert_eq!(*events.lock().unwrap(), ITS_EVENTS);
        timed(&disk, async {
            let file = File::open("/f", Open::ReadWrite).await.unwrap();
            disk.fail_next_write();
            file.write_at(0, vec!["x".into()]).await.unwrap_err();
            disk.fail_next_fsync();
            file.fsync().await.unwrap_err();
            disk.fail_next_rename();
            disk::rename("/f", "/z").await.unwrap_err();
            disk::remove_file("/nowhere").await.unwrap_err();
        });
        assert_eq!(events.lock().unwrap()[ITS_EVENTS.len()..], ["begun /f", "half /f"], "what fails is no event");
        disk.set_hook(None);
        timed(&disk, disk::remove_file("/b")).unwrap();
        assert_eq!(events.lock().unwrap().len(), ITS_EVENTS.len() + 2);
    }
}

#[test]
fn the_hook_can_cut_the_power_at_every_event() {
    for latency in [None, Some(latency())] {
        for (at, event) in ITS_EVENTS.iter().enumerate() {
            let disk = laid_out(1);
            disk.set_latency(latency.clone());
            let so_far = AtomicU64::new(0);
            let (events, hook) = recorded(move |_| {
                let is_it = so_far.fetch_add(1, Ordering::Relaxed) == at as u64;
                if is_it { Verdict::CutPower } else { Verdict::GoOn }
            });
            disk.set_hook(Some(hook));
            assert_eq!(error_of(timed(&disk, some_work())), "power is off");
            assert!(!disk.is_powered());
            assert_eq!(*events.lock().unwrap(), ITS_EVENTS[..=at], "and nothing after");
            let half_done = u64::from(event.starts_with("begun") || event.starts_with("half"));
            assert_eq!(disk.counters().fsyncs_half_done, half_done, "{event}");
            disk.restart(Survive::Nothing);
            let left = disk.durable("/w/f").map(|bytes| bytes[..3].to_vec());
            let expected = match at {
                0..=9 => None,
                10..=13 => Some(b"new".to_vec()),
                _ => Some(b"NEW".to_vec()),
            };
            assert_eq!(left, expected, "{event}");
            timed(&disk, some_work()).unwrap();
        }
    }
}

#[test]
fn the_hook_may_use_its_disk() {
    let disk = laid_out(1);
    let its = disk.clone();
    disk.set_hook(Some(Arc::new(move |event: &DiskEvent<'_>| {
        if matches!(event, DiskEvent::Write { .. }) {
            its.fail_next_fsync();
            its.set_stuck(true);
            its.set_stuck(false);
            its.set_hook(None);
        }
        Verdict::GoOn
    })));
    on(&disk, async {
        let file = File::open("/f", Open::ReadWrite).await.unwrap();
        assert!(file.write_at_sync(0, vec!["x".into()]).await.is_err());
        file.write_at_sync(0, vec!["x".into()]).await.unwrap();
    });
}

#[test]
fn the_digest_tells_every_difference_and_nothing_else() {
    async fn file() -> File {
        File::open("/f", Open::ReadWrite).await.unwrap()
    }
    async fn bytes(offset: u64, bufs: &[&'static [u8]]) {
        file().await.write_at(offset, bufs.iter().map(|b| Bytes::from_static(b)).collect()).await.unwrap();
    }
    type Run<'a> = dyn Fn(SimDisk) -> Pin<Box<dyn Future<Output = ()>>> + 'a;
    let digest = |what: &Run<'_>| {
        let disk = laid_out(1);
        on(&disk, what(disk.clone()));
        disk.digest()
    };
    let runs: [&Run<'_>; 18] = [
        &|_| Box::pin(async {}),
        &|_| Box::pin(async { drop(file().await) }),
        &|_| Box::pin(async { drop(File::open("/a", Open::ReadWrite).await) }),
        &|_| Box::pin(async { drop(File::open("/f", Open::Read).await) }),
        &|_| Box::pin(bytes(0, &[b"x"])),
        &|_| Box::pin(bytes(0, &[b"y"])),
        &|_| Box::pin(bytes(1, &[b"x"])),
        &|_| Box::pin(bytes(0, &[b"x\0"])),
        &|_| Box::pin(bytes(0, &[&[0; 100]])),
        &|_| Box::pin(bytes(0, &[&[0; 101]])),
        &|_| {
            Box::pin(async {
                bytes(0, &[b"x"]).await;
                file().await.fsync().await.unwrap()
            })
        },
        &|_| Box::pin(async { drop(file().await.read_at(0, 1).await) }),
        &|_| Box::pin(async { drop(file().await.read_at(0, 2).await) }),
        &|disk| {
            Box::pin(async move {
                disk.flip_on_next_read("/f", 0, 0);
                drop(file().await.read_at(0, 1).await)
            })
        },
        &|_| Box::pin(async { disk::rename("/a", "/b").await.unwrap() }),
        &|_| Box::pin(async { disk::rename("/b", "/a").await.unwrap() }),
        &|disk| Box::pin(async move { disk.power_cut() }),
        &|disk| Box::pin(async move { disk.restart(Survive::Nothing) }),
    ];
    let digests = runs.map(digest);
    assert_eq!(digests, runs.map(digest), "the same again");
    assert_eq!(BTreeSet::from(digests).len(), runs.len());
    let mut long = [7; 4096];
    let mut seen = BTreeSet::new();
    for at in (0..4096).step_by(37) {
        long[at] ^= 1;
        seen.insert(digest(&|_| {
            let long = Bytes::copy_from_slice(&long);
            Box::pin(async move { file().await.write_at(0, vec![long]).await.unwrap() })
        }));
    }
    assert_eq!(seen.len(), 4096_usize.div_ceil(37), "each byte counts");
}
