//! What the real and the simulated disk have in common: one suite that both pass.
//!
//! Power cuts are not here, for a real disk can't be made to have them; they are in `sim_disk`.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use braid_env::disk::sim::{self, SimDisk};
use braid_env::disk::{self, File, Open};
use bytes::Bytes;

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
}

fn on_real<F: Future<Output = ()>>(test: impl FnOnce(PathBuf) -> F) {
    let dir = tempfile::tempdir().unwrap();
    block_on(test(dir.path().to_owned()));
}

fn on_sim<F: Future<Output = ()>>(test: impl FnOnce(PathBuf) -> F) {
    let _guard = sim::enter(&SimDisk::new(1));
    block_on(async {
        disk::create_dir_all("/node").await.unwrap();
        test("/node".into()).await
    });
}

macro_rules! conformance {
    ($($name:ident),* $(,)?) => {
        mod real { $(#[test] fn $name() { super::on_real(super::$name) })* }
        mod simulated { $(#[test] fn $name() { super::on_sim(super::$name) })* }
    };
}

conformance!(
    open_modes,
    writes_and_reads,
    many_buffers,
    concurrent_writes_keep_their_order,
    lengths,
    allocation,
    renames,
    removal,
    directories,
    durable_files,
    locks,
    read_only_handles,
    counters,
    open_files_outlive_their_names,
);

async fn kind<T>(result: impl Future<Output = std::io::Result<T>>) -> Option<ErrorKind> {
    result.await.err().map(|e| e.kind())
}

async fn put(path: &Path, bytes: &'static [u8]) -> File {
    let file = File::open(path, Open::Create).await.unwrap();
    file.write_at(0, vec![Bytes::from_static(bytes)]).await.unwrap();
    file
}

async fn open_modes(dir: PathBuf) {
    let path = dir.join("f");
    assert_eq!(kind(File::open(&path, Open::Read)).await, Some(ErrorKind::NotFound));
    assert_eq!(kind(File::open(&path, Open::ReadWrite)).await, Some(ErrorKind::NotFound));
    File::open(&path, Open::CreateNew).await.unwrap();
    assert_eq!(kind(File::open(&path, Open::CreateNew)).await, Some(ErrorKind::AlreadyExists));
    put(&path, b"kept").await;
    for how in [Open::Read, Open::ReadWrite, Open::Create] {
        let file = File::open(&path, how).await.unwrap();
        assert_eq!(file.read_at(0, 9).await.unwrap(), "kept");
    }
    assert_eq!(kind(File::open(dir.join("no/f"), Open::Create)).await, Some(ErrorKind::NotFound));
    assert_eq!(kind(File::open(path.join("f"), Open::Create)).await, Some(ErrorKind::NotADirectory));
    assert_eq!(kind(File::open(&dir, Open::ReadWrite)).await, Some(ErrorKind::IsADirectory));
}

async fn writes_and_reads(dir: PathBuf) {
    let file = put(&dir.join("f"), b"0123456789").await;
    file.write_at_sync(8, vec!["ab".into(), "cd".into()]).await.unwrap();
    assert_eq!(file.read_at(6, 100).await.unwrap(), "67abcd");
    assert_eq!(file.read_at(2, 3).await.unwrap(), "234");
    assert_eq!(file.read_at(12, 1).await.unwrap(), "");
    assert_eq!(file.read_at(99, 1).await.unwrap(), "");
    file.write_at(1030, vec!["end".into()]).await.unwrap();
    file.fsync().await.unwrap();
    assert_eq!(file.len().await.unwrap(), 1033);
    assert_eq!(file.read_at(12, 1018).await.unwrap(), vec![0; 1018], "a hole is zero");
    file.write_at(2000, vec![]).await.unwrap();
    file.write_at(2000, vec![Bytes::new(), Bytes::new()]).await.unwrap();
    assert_eq!(file.len().await.unwrap(), 1033, "nothing was written");
    assert_eq!(disk::read_file(dir.join("f")).await.unwrap().len(), 1033);
}

async fn many_buffers(dir: PathBuf) {
    // More than one system call takes.
    let bufs: Vec<Bytes> = (0..5000_u32).map(|i| Bytes::from(vec![i as u8; (i % 7) as usize])).collect();
    let all = bufs.concat();
    let file = File::open(dir.join("f"), Open::CreateNew).await.unwrap();
    file.write_at(3, bufs).await.unwrap();
    assert_eq!(file.read_at(3, all.len() + 1).await.unwrap(), all);
}

async fn concurrent_writes_keep_their_order(dir: PathBuf) {
    let file = File::open(dir.join("f"), Open::CreateNew).await.unwrap();
    let writes = (0..200_u8).map(|i| {
        let file = file.clone();
        async move { file.write_at(0, vec![vec![i; 4096].into()]).await }
    });
    for done in futures_util::future::join_all(writes).await {
        done.unwrap();
    }
    assert_eq!(file.read_at(0, 4096).await.unwrap(), vec![199; 4096]);
}

async fn lengths(dir: PathBuf) {
    let file = put(&dir.join("f"), &[7; 2000]).await;
    file.set_len(700).await.unwrap();
    assert_eq!(file.len().await.unwrap(), 700);
    file.set_len(1500).await.unwrap();
    let bytes = file.read_at(0, 2000).await.unwrap();
    assert_eq!(bytes[..700], [7; 700]);
    assert_eq!(bytes[700..], [0; 800], "what was cut never comes back");
}

async fn allocation(dir: PathBuf) {
    let file = put(&dir.join("f"), b"abc").await;
    file.allocate(5000).await.unwrap();
    assert_eq!(file.len().await.unwrap(), 5000);
    let bytes = file.read_at(0, 5001).await.unwrap();
    assert_eq!(bytes[..3], *b"abc");
    assert_eq!(bytes[3..], [0; 4997]);
    file.allocate(5000).await.unwrap();
    assert_eq!(kind(file.allocate(4999)).await, Some(ErrorKind::InvalidInput));
    assert_eq!(file.len().await.unwrap(), 5000);
    let empty = File::open(dir.join("e"), Open::CreateNew).await.unwrap();
    empty.allocate(0).await.unwrap();
}

async fn renames(dir: PathBuf) {
    let (a, b, sub) = (dir.join("a"), dir.join("b"), dir.join("sub"));
    put(&a, b"A").await;
    put(&b, b"B").await;
    disk::rename(&a, &b).await.unwrap();
    assert_eq!(disk::read_file(&b).await.unwrap(), "A");
    assert!(!disk::exists(&a).await.unwrap());
    assert_eq!(kind(disk::rename(&a, &b)).await, Some(ErrorKind::NotFound));
    disk::rename(&b, &b).await.unwrap();
    disk::create_dir_all(&sub).await.unwrap();
    assert_eq!(kind(disk::rename(&b, &sub)).await, Some(ErrorKind::IsADirectory));
    assert_eq!(kind(disk::rename(&sub, &b)).await, Some(ErrorKind::NotADirectory));
    assert_eq!(kind(disk::rename(&sub, sub.join("x"))).await, Some(ErrorKind::InvalidInput));
    disk::rename(&b, sub.join("c")).await.unwrap();
    disk::rename(&sub, &a).await.unwrap();
    assert_eq!(disk::read_file(a.join("c")).await.unwrap(), "A");
    disk::create_dir_all(&sub).await.unwrap();
    assert_eq!(kind(disk::rename(&sub, &a)).await, Some(ErrorKind::DirectoryNotEmpty));
    disk::rename(&a, &sub).await.unwrap();
    assert_eq!(disk::list_dir(&sub).await.unwrap(), ["c"]);
}

async fn removal(dir: PathBuf) {
    let path = dir.join("d/e/f");
    assert_eq!(kind(disk::remove_file(&path)).await, Some(ErrorKind::NotFound));
    disk::create_dir_all(dir.join("d/e")).await.unwrap();
    put(&path, b"x").await;
    assert!(disk::exists(&path).await.unwrap());
    disk::remove_file(&path).await.unwrap();
    assert!(!disk::exists(&path).await.unwrap());
    put(&path, b"y").await;
    put(&dir.join("d/g"), b"z").await;
    assert_eq!(kind(disk::remove_file(dir.join("d"))).await, Some(ErrorKind::IsADirectory));
    disk::remove_dir_all(dir.join("d")).await.unwrap();
    assert!(!disk::exists(dir.join("d")).await.unwrap());
    assert_eq!(kind(disk::remove_dir_all(dir.join("d"))).await, Some(ErrorKind::NotFound));
}

async fn directories(dir: PathBuf) {
    assert_eq!(disk::list_dir(&dir).await.unwrap(), Vec::<String>::new(), "no tracks");
    disk::create_dir_all(dir.join("x/y")).await.unwrap();
    disk::create_dir_all(dir.join("x/y")).await.unwrap();
    for name in ["c", "a", "b"] {
        put(&dir.join(name), b"").await;
    }
    disk::fsync_dir(&dir).await.unwrap();
    assert_eq!(disk::list_dir(&dir).await.unwrap(), ["a", "b", "c", "x"]);
    let no = dir.join("no");
    assert_eq!(kind(disk::list_dir(&no)).await, Some(ErrorKind::NotFound));
    assert_eq!(kind(disk::fsync_dir(&no)).await, Some(ErrorKind::NotFound));
    assert_eq!(kind(disk::read_file(&no)).await, Some(ErrorKind::NotFound));
    let file = dir.join("a");
    assert_eq!(kind(disk::list_dir(&file)).await, Some(ErrorKind::NotADirectory));
    assert!(disk::create_dir_all(&file).await.is_err());
    assert!(disk::create_dir_all(file.join("z")).await.is_err());
}

async fn durable_files(dir: PathBuf) {
    let path = dir.join("f");
    disk::write_file_durably(&path, Bytes::from_static(b"a long first version")).await.unwrap();
    // What a crash left behind, longer than what comes.
    put(&dir.join("f.tmp"), &[1; 100]).await;
    disk::write_file_durably(&path, Bytes::from_static(b"second")).await.unwrap();
    assert_eq!(disk::read_file(&path).await.unwrap(), "second");
    assert_eq!(disk::list_dir(&dir).await.unwrap(), ["f"]);
}

async fn locks(dir: PathBuf) {
    for path in [dir.clone(), dir.join("LOCK")] {
        let held = disk::lock_exclusive(&path).await.unwrap();
        assert_eq!(kind(disk::lock_exclusive(&path)).await, Some(ErrorKind::WouldBlock));
        drop(held);
        let _again = disk::lock_exclusive(&path).await.unwrap();
    }
    assert_eq!(kind(disk::lock_exclusive(dir.join("no/LOCK"))).await, Some(ErrorKind::NotFound));
}

async fn read_only_handles(dir: PathBuf) {
    put(&dir.join("f"), b"fixed").await;
    let file = File::open(dir.join("f"), Open::Read).await.unwrap();
    assert!(file.write_at(0, vec!["x".into()]).await.is_err());
    assert!(file.write_at_sync(0, vec!["x".into()]).await.is_err());
    assert!(file.set_len(0).await.is_err());
    assert!(file.allocate(100).await.is_err());
    assert_eq!(file.read_at(0, 9).await.unwrap(), "fixed");
    file.fsync().await.unwrap();
}

async fn counters(dir: PathBuf) {
    let before = disk::counters();
    let file = put(&dir.join("f"), b"12345").await;
    file.write_at_sync(5, vec!["678".into(), "9".into()]).await.unwrap();
    file.fsync().await.unwrap();
    disk::fsync_dir(&dir).await.unwrap();
    file.read_at(0, 100).await.unwrap();
    let after = disk::counters();
    // Other tests of this process may count too.
    assert!(after.writes >= before.writes + 2);
    assert!(after.bytes_written >= before.bytes_written + 9);
    assert!(after.fsyncs >= before.fsyncs + 3);
    assert!(after.reads > before.reads);
    assert!(after.bytes_read >= before.bytes_read + 9);
}

async fn open_files_outlive_their_names(dir: PathBuf) {
    let file = put(&dir.join("f"), b"still").await;
    disk::remove_file(dir.join("f")).await.unwrap();
    disk::fsync_dir(&dir).await.unwrap();
    file.write_at_sync(5, vec![" here".into()]).await.unwrap();
    assert_eq!(file.read_at(0, 99).await.unwrap(), "still here");
}
