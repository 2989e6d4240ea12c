//! What the simulated disk promises, and what it is allowed to do, one case at a time.

use std::collections::BTreeSet;

use braid_env::disk::sim::{self, SimDisk, Survive};
use braid_env::disk::{self, File, Open};
use bytes::Bytes;

const ALL: [Survive; 3] = [Survive::Nothing, Survive::Everything, Survive::Random];

fn on<F: Future>(disk: &SimDisk, future: F) -> F::Output {
    let _guard = sim::enter(disk);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
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
