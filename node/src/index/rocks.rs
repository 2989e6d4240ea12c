//! The record index in RocksDB: one database per node, without its write-ahead log.
//!
//! Invariant: everything here can be rebuilt from the groups' logs, so a database that is missing,
//! of another format, or damaged is removed and begun anew, and the operator is told. Memory is
//! bounded: two write buffers and one block cache that also holds RocksDB's own index blocks.
//!
//! RocksDB brings its own threads and files; this is the one module of the node that reaches the
//! disk past `env`. The simulator runs [`super::ordered::OrderedIndex`] in its place.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use braid_env::disk;
use braid_stream::ids::{GroupId, Offset, ShardId};
use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompactionStyle, DBCompressionType, DBRawIterator, ErrorKind, LogLevel, Options,
    ReadOptions, WriteBatch, WriteOptions,
};

use super::keys::{
    FORMAT, FORMAT_KEY, MARK_KEY_LEN, PACK_KEY_LEN, decode_mark, decode_pack, encode_mark, encode_pack, group_range,
    mark_key, pack_key, shard_range,
};
use super::{IndexEntry, IndexError, RecordIndex, bisect_time};

/// Shared by all groups: 32 MiB hold the index of about 900,000 slices, and the tip of a shard,
/// which most readers want, is in its tail or a write buffer anyway.
const BLOCK_CACHE_BYTES: usize = 32 << 20;
/// Packs are about 560 bytes in memory: a buffer holds some 240,000 slices between flushes.
const WRITE_BUFFER_BYTES: usize = 8 << 20;
/// One filling, one on its way to the disk.
const WRITE_BUFFERS: i32 = 2;
/// One flush and one compaction at a time: the index must not compete with the log for the disk.
const BACKGROUND_JOBS: i32 = 2;
/// Entries that are stored under one key. A batch to ten thousand shards has one slice for each of them: a key for each slice
/// would be most of what it costs to apply it. A shard's last few wait in memory, 48 bytes each, until they are as many or
/// the index is flushed.
const PACK_ENTRIES: usize = 16;
const NO_PANIC: &str = "no one panics while holding it";
/// Deletions per write batch, so that trimming a long-idle shard does not hold one huge batch.
const TRIM_BATCH: usize = 4096;
/// Greater than every key.
const AFTER_ALL_KEYS: [u8; PACK_KEY_LEN + 1] = [0xff; PACK_KEY_LEN + 1];
/// Its presence beside the database says that damage was seen while running.
const DAMAGED_SUFFIX: &str = ".damaged";

/// What [`RocksIndex::open`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// A database of this format.
    Existing,
    /// No database: a new node, or its index was removed.
    Created,
    /// An unusable database was removed; every group rebuilds from its log.
    Replaced {
        /// What was wrong with it.
        why: String,
    },
}

/// See the module's documentation.
pub struct RocksIndex {
    db: DB,
    path: PathBuf,
    /// Per shard, an offset below which [`RecordIndex::trim`] has removed everything. Only a hint:
    /// it keeps each trim from walking over the tombstones of the ones before it.
    trimmed: Mutex<BTreeMap<(GroupId, ShardId), Offset>>,
    tails: Mutex<BTreeMap<GroupId, Arc<Mutex<Tails>>>>,
    damage_noted: AtomicBool,
}

/// Of each shard of a group, its newest entries, fewer than a pack: behind all that the database has of the shard.
type Tails = BTreeMap<ShardId, Vec<IndexEntry>>;

impl RocksIndex {
    /// Opens the database in directory `path`, or removes it and creates an empty one.
    ///
    /// Errors: the database is open elsewhere, or the disk refuses. Neither says anything about
    /// what is stored, so nothing is removed.
    pub async fn open(path: &Path) -> Result<(RocksIndex, Opened), IndexError> {
        let existed = disk::exists(path).await.map_err(|e| IndexError::Storage(e.to_string()))?;
        let (db, opened) = match existed {
            false => (RocksIndex::create(path, false).await?, Opened::Created),
            true => match RocksIndex::open_existing(path).await {
                Ok(db) => (db, Opened::Existing),
                Err(Unusable::NotNow(error)) => return Err(error),
                Err(Unusable::Content(why)) => (RocksIndex::create(path, true).await?, Opened::Replaced { why }),
            },
        };
        if let Opened::Replaced { why } = &opened {
            tracing::error!(
                path = %path.display(), why,
                "the record index was unusable and has been removed; every group rebuilds it from its log, \
                 reads of older records wait for that, no record is lost"
            );
        }
        let (trimmed, tails) = (Mutex::default(), Mutex::default());
        let index = RocksIndex { db, path: path.to_path_buf(), trimmed, tails, damage_noted: AtomicBool::new(false) };
        Ok((index, opened))
    }

    async fn open_existing(path: &Path) -> Result<DB, Unusable> {
        let noted = disk::exists(damaged_marker(path)).await;
        if noted.map_err(|e| Unusable::NotNow(IndexError::Storage(e.to_string())))? {
            return Err(Unusable::Content("it was found damaged while the node ran".into()));
        }
        let db = DB::open(&options(false), path).map_err(unusable)?;
        match db.get(FORMAT_KEY).map_err(unusable)? {
            Some(found) if found == FORMAT => Ok(db),
            Some(found) => Err(Unusable::Content(format!("it has format {found:?}, this build reads {FORMAT:?}"))),
            None => Err(Unusable::Content("it has no format number".into())),
        }
    }

    async fn create(path: &Path, remove: bool) -> Result<DB, IndexError> {
        let storage = |e: std::io::Error| IndexError::Storage(e.to_string());
        if remove {
            disk::remove_dir_all(path).await.map_err(storage)?;
        }
        // The marker goes last: a crash between the two removes an empty directory once more.
        if disk::exists(damaged_marker(path)).await.map_err(storage)? {
            disk::remove_file(damaged_marker(path)).await.map_err(storage)?;
        }
        disk::create_dir_all(path).await.map_err(storage)?;
        let db = DB::open(&options(true), path).map_err(|e| IndexError::Storage(e.to_string()))?;
        let mut batch = WriteBatch::default();
        batch.put(FORMAT_KEY, FORMAT);
        db.write_without_wal(batch).map_err(|e| IndexError::Storage(e.to_string()))?;
        off_the_worker(|| db.flush()).map_err(|e| IndexError::Storage(e.to_string()))?;
        Ok(db)
    }

    fn write(&self, batch: WriteBatch) -> Result<(), IndexError> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut how = WriteOptions::default();
        how.disable_wal(true);
        // A batch's keys come in order, so each is looked for from where the last one went.
        how.set_memtable_insert_hint_per_batch(true);
        self.db.write_opt(batch, &how).map_err(|e| self.error(e))
    }

    /// An iterator that cannot leave `range`.
    fn iterate(&self, range: (Vec<u8>, Option<Vec<u8>>)) -> DBRawIterator<'_> {
        let mut read = ReadOptions::default();
        read.set_iterate_lower_bound(range.0);
        if let Some(end) = range.1 {
            read.set_iterate_upper_bound(end);
        }
        self.db.raw_iterator_opt(read)
    }

    /// The pack under the iterator, `None` at either end.
    fn pack(&self, at: &DBRawIterator<'_>) -> Result<Option<Vec<IndexEntry>>, IndexError> {
        match at.item() {
            Some((key, value)) => decode_pack(key, value).map(Some).inspect_err(|_| self.note_damage()),
            None => at.status().map(|()| None).map_err(|e| self.error(e)),
        }
    }

    /// Below a hint nothing is looked for again, so it goes when offsets may be used again.
    fn forget_hints(&self, which: impl Fn(GroupId, ShardId) -> bool) {
        let mut hints = self.trimmed.lock().expect(NO_PANIC);
        hints.retain(|(group, shard), _| !which(*group, *shard));
    }

    fn tails(&self, group: GroupId) -> Arc<Mutex<Tails>> {
        self.tails.lock().expect(NO_PANIC).entry(group).or_default().clone()
    }

    /// To be asked before the database: what goes from here to there is seen at least once.
    fn tail(&self, group: GroupId, shard: ShardId) -> Vec<IndexEntry> {
        self.tails(group).lock().expect(NO_PANIC).get(&shard).cloned().unwrap_or_default()
    }

    fn cut_tail(&self, group: GroupId, shard: ShardId, keep: impl Fn(&IndexEntry) -> bool) {
        let tails = self.tails(group);
        let mut tails = tails.lock().expect(NO_PANIC);
        if let Entry::Occupied(mut tail) = tails.entry(shard) {
            tail.get_mut().retain(keep);
            if tail.get().is_empty() {
                tail.remove();
            }
        }
    }

    /// The entry with the greatest `first` ≤ `offset` in the tail or, by an iterator over the shard, before it.
    fn floor(
        &self,
        at: &mut DBRawIterator<'_>,
        tail: &[IndexEntry],
        (group, shard): (GroupId, ShardId),
        offset: Offset,
    ) -> Result<Option<IndexEntry>, IndexError> {
        let floor = |entries: &[IndexEntry]| {
            let above = entries.partition_point(|entry| entry.first <= offset);
            above.checked_sub(1).map(|last| entries[last])
        };
        if let Some(found) = floor(tail) {
            return Ok(Some(found));
        }
        at.seek_for_prev(pack_key(group, shard, offset));
        Ok(self.pack(at)?.and_then(|pack| floor(&pack)))
    }

    fn flush_to_disk(&self) -> Result<(), IndexError> {
        off_the_worker(|| self.db.flush()).map_err(|e| self.error(e))
    }

    fn error(&self, error: rocksdb::Error) -> IndexError {
        if error.kind() != ErrorKind::Corruption {
            return IndexError::Storage(error.to_string());
        }
        self.note_damage();
        IndexError::Damaged(error.to_string())
    }

    /// Leaves a note beside the database, so that the next start removes it. RocksDB would open
    /// it without complaint: it checks a block only when it reads it.
    fn note_damage(&self) {
        if self.damage_noted.swap(true, Ordering::Relaxed) {
            return;
        }
        let marker = damaged_marker(&self.path);
        tracing::error!(
            path = %self.path.display(),
            "the record index is damaged; it will be removed and rebuilt from the logs at the next start"
        );
        braid_env::task::spawn(async move {
            if let Err(error) = disk::write_file_durably(&marker, Bytes::new()).await {
                tracing::error!(path = %marker.display(), %error, "could not note that the index is damaged");
            }
        });
    }
}

/// Why an existing database is not used.
enum Unusable {
    /// What is stored is no good: it is replaced.
    Content(String),
    /// It may be perfectly good, and cannot be opened: locked by someone who has it open, no file
    /// descriptors, no permission. Removing it would take it away from under its owner.
    NotNow(IndexError),
}

fn unusable(error: rocksdb::Error) -> Unusable {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::Corruption | ErrorKind::InvalidArgument | ErrorKind::NotSupported => Unusable::Content(text),
        // A file that the database says it has is gone.
        ErrorKind::IOError if text.contains("No such file or directory") => Unusable::Content(text),
        _ => Unusable::NotNow(IndexError::Storage(text)),
    }
}

fn damaged_marker(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(DAMAGED_SUFFIX);
    PathBuf::from(name)
}

fn options(create: bool) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(BLOCK_CACHE_BYTES));
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut options = Options::default();
    options.create_if_missing(create);
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_write_buffer_number(WRITE_BUFFERS);
    options.set_max_background_jobs(BACKGROUND_JOBS);
    // Writes come to all shards at once, so every file spans all keys: level by level, each flush would have a whole level
    // written anew. What is written is rarely read again.
    options.set_compaction_style(DBCompactionStyle::Universal);
    options.set_compression_type(DBCompressionType::None);
    options.set_max_open_files(512);
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(1 << 20);
    options.set_keep_log_file_num(2);
    options.set_stats_dump_period_sec(0);
    options
}

fn put_pack(batch: &mut WriteBatch, group: GroupId, pack: &[IndexEntry]) {
    batch.put(pack_key(group, pack[0].shard, pack[0].first), encode_pack(pack));
}

/// Runs something that waits for the disk without holding up the tasks queued behind it on this
/// worker. `env` has no seam for it because the simulator never runs this module.
#[allow(clippy::disallowed_methods)] // RocksDB's own I/O is past `env` already, see above
fn off_the_worker<R>(work: impl FnOnce() -> R) -> R {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

impl RecordIndex for RocksIndex {
    fn put(&self, group: GroupId, batch: &[IndexEntry]) -> Result<(), IndexError> {
        let tails = self.tails(group);
        let mut tails = tails.lock().expect(NO_PANIC);
        let mut write = WriteBatch::default();
        for slices in batch.chunk_by(|a, b| a.shard == b.shard) {
            let tail = tails.entry(slices[0].shard).or_default();
            for entry in slices {
                assert!(entry.count > 0, "an index entry points at no records");
                assert!(tail.last().is_none_or(|last| last.end() <= entry.first), "an entry is put behind the others");
                tail.push(*entry);
            }
            let packs = tail.chunks_exact(PACK_ENTRIES);
            let left = packs.remainder().len();
            packs.for_each(|pack| put_pack(&mut write, group, pack));
            tail.drain(..tail.len() - left);
        }
        self.write(write)
    }

    fn seek(&self, group: GroupId, shard: ShardId, offset: Offset) -> Result<Option<IndexEntry>, IndexError> {
        let tail = self.tail(group, shard);
        self.floor(&mut self.iterate(shard_range(group, shard)), &tail, (group, shard), offset)
    }

    fn scan(&self, group: GroupId, shard: ShardId, from: Offset, limit: usize) -> Result<Vec<IndexEntry>, IndexError> {
        let tail = self.tail(group, shard);
        let in_tail = |offset: Offset| tail.first().is_some_and(|first| first.first <= offset);
        let mut found = Vec::new();
        if !in_tail(from) {
            let mut at = self.iterate(shard_range(group, shard));
            at.seek_for_prev(pack_key(group, shard, from));
            if self.pack(&at)?.is_none() {
                at.seek(pack_key(group, shard, from));
            }
            // A pack that was a tail until now comes from there.
            while found.len() < limit
                && let Some(pack) = self.pack(&at)?
                && !in_tail(pack[0].first)
            {
                found.extend(pack.into_iter().filter(|entry| entry.end() > from));
                at.next();
            }
        }
        found.extend(tail.iter().filter(|entry| entry.end() > from));
        found.truncate(limit);
        Ok(found)
    }

    fn seek_time(&self, group: GroupId, shard: ShardId, ms: u64) -> Result<Option<IndexEntry>, IndexError> {
        let tail = self.tail(group, shard);
        let mut at = self.iterate(shard_range(group, shard));
        at.seek_to_first();
        let Some(head) = self.pack(&at)?.as_ref().unwrap_or(&tail).first().copied() else { return Ok(None) };
        let last = match tail.last() {
            Some(last) => Some(*last),
            None => {
                at.seek_to_last();
                self.pack(&at)?.and_then(|pack| pack.last().copied())
            }
        };
        // Nothing any more: trimmed meanwhile by another task.
        let Some(last) = last else { return Ok(None) };
        bisect_time(ms, head, last, |offset| self.floor(&mut at, &tail, (group, shard), Offset(offset)))
    }

    fn trim(&self, group: GroupId, shard: ShardId, below: Offset) -> Result<(), IndexError> {
        self.cut_tail(group, shard, |entry| entry.end() > below);
        let known = |hints: &BTreeMap<_, _>| hints.get(&(group, shard)).copied().unwrap_or(Offset(0));
        let from = known(&self.trimmed.lock().expect(NO_PANIC));
        let mut at = self.iterate(shard_range(group, shard));
        at.seek(pack_key(group, shard, from));
        let mut batch = WriteBatch::default();
        let mut reached = from;
        // Point deletions, not a range deletion: each costs one tombstone that compaction drops,
        // while ten thousand live range tombstones would slow down every read.
        while let Some(pack) = self.pack(&at)?
            && pack[0].end() <= below
        {
            batch.delete(pack_key(group, shard, pack[0].first));
            let (gone, kept) = pack.split_at(pack.partition_point(|entry| entry.end() <= below));
            reached = gone.last().expect("the first is gone").end();
            if !kept.is_empty() {
                put_pack(&mut batch, group, kept);
                break;
            }
            if batch.len() >= TRIM_BATCH {
                self.write(std::mem::take(&mut batch))?;
            }
            at.next();
        }
        self.write(batch)?;
        self.trimmed.lock().expect(NO_PANIC).insert((group, shard), reached);
        Ok(())
    }

    fn truncate_from(&self, group: GroupId, shard: ShardId, from: Offset) -> Result<(), IndexError> {
        self.cut_tail(group, shard, |entry| entry.first < from);
        let (_, end) = shard_range(group, shard);
        let mut at = self.iterate(shard_range(group, shard));
        let mut batch = WriteBatch::default();
        at.seek_for_prev(pack_key(group, shard, from));
        if let Some(pack) = self.pack(&at)?
            && let (kept, [_, ..]) = pack.split_at(pack.partition_point(|entry| entry.first < from))
            && !kept.is_empty()
        {
            put_pack(&mut batch, group, kept);
        }
        at.seek(pack_key(group, shard, from));
        // Most shards are opened once and have nothing here: ten thousand of them being opened
        // must not leave ten thousand range tombstones.
        if self.pack(&at)?.is_some() {
            let start = pack_key(group, shard, from).to_vec();
            batch.delete_range(start, end.unwrap_or_else(|| AFTER_ALL_KEYS.to_vec()));
        }
        self.write(batch)?;
        self.forget_hints(|g, s| (g, s) == (group, shard));
        Ok(())
    }

    fn truncate_after(&self, group: GroupId, last_kept: u64) -> Result<(), IndexError> {
        let is_kept = |entry: &IndexEntry| entry.log_index <= last_kept;
        self.tails(group).lock().expect(NO_PANIC).values_mut().for_each(|tail| tail.retain(is_kept));
        let mut at = self.iterate(group_range(group));
        at.seek_to_first();
        let mut batch = WriteBatch::default();
        while let Some((key, value)) = at.item() {
            if key.len() == MARK_KEY_LEN {
                if decode_mark(value).inspect_err(|_| self.note_damage())? > last_kept {
                    batch.put(key, encode_mark(last_kept));
                }
            } else {
                let mut pack = decode_pack(key, value).inspect_err(|_| self.note_damage())?;
                let before = pack.len();
                pack.retain(is_kept);
                match pack.len() {
                    0 => batch.delete(key),
                    after if after < before => put_pack(&mut batch, group, &pack),
                    _ => {}
                }
            }
            if batch.len() >= TRIM_BATCH {
                self.write(std::mem::take(&mut batch))?;
            }
            at.next();
        }
        at.status().map_err(|e| self.error(e))?;
        self.write(batch)?;
        self.forget_hints(|g, _| g == group);
        // Durable before the log takes other entries at those indexes. Otherwise: the log grows
        // past the old mark, the node crashes, the old mark and its entries come back, and look
        // as if they described the new log.
        self.flush_to_disk()
    }

    fn flush(&self, group: GroupId, mark: u64) -> Result<(), IndexError> {
        let tails = self.tails(group);
        {
            let mut tails = tails.lock().expect(NO_PANIC);
            let mut batch = WriteBatch::default();
            tails.values().filter(|tail| !tail.is_empty()).for_each(|tail| put_pack(&mut batch, group, tail));
            batch.put(mark_key(group), encode_mark(mark));
            self.write(batch)?;
            tails.clear();
        }
        self.flush_to_disk()
    }

    fn mark(&self, group: GroupId) -> Result<Option<u64>, IndexError> {
        match self.db.get(mark_key(group)).map_err(|e| self.error(e))? {
            Some(value) => decode_mark(&value).map(Some).inspect_err(|_| self.note_damage()),
            None => Ok(None),
        }
    }

    fn clear(&self, group: GroupId) -> Result<(), IndexError> {
        self.tails(group).lock().expect(NO_PANIC).clear();
        let (start, end) = group_range(group);
        let mut batch = WriteBatch::default();
        batch.delete_range(start, end.unwrap_or_else(|| AFTER_ALL_KEYS.to_vec()));
        self.write(batch)?;
        self.forget_hints(|g, _| g == group);
        self.flush_to_disk()
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // they spoil and copy RocksDB's own files
mod tests {
    use super::super::conformance::{self, entry, shard};
    use super::*;

    const GROUP: GroupId = GroupId(3);

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    fn open(path: &Path) -> (RocksIndex, Opened) {
        runtime().block_on(RocksIndex::open(path)).unwrap()
    }

    #[test]
    fn conforms() {
        let dir = tempfile::tempdir().unwrap();
        let mut n = 0;
        conformance::all(|| {
            n += 1;
            Box::new(open(&dir.path().join(n.to_string())).0)
        });
    }

    #[test]
    fn a_flushed_mark_and_what_came_before_it_survive_without_a_clean_close() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        let (index, opened) = open(&path);
        assert_eq!(opened, Opened::Created);
        // Some in packs, some not.
        let entries: Vec<_> = (0..100).map(|n| entry(shard(1), n * 5, 5, n, n)).collect();
        entries[..50].chunks(7).for_each(|some| index.put(GROUP, some).unwrap());
        index.flush(GROUP, 49).unwrap();
        entries[50..].chunks(7).for_each(|some| index.put(GROUP, some).unwrap());
        assert_eq!(index.scan(GROUP, shard(1), Offset(0), 100), Ok(entries.clone()));
        // A crash, as far as RocksDB can tell: a copy of the files without closing the database.
        let copy = dir.path().join("copy");
        std::fs::create_dir(&copy).unwrap();
        for file in std::fs::read_dir(&path).unwrap().map(Result::unwrap) {
            std::fs::copy(file.path(), copy.join(file.file_name())).unwrap();
        }
        let (again, opened) = open(&copy);
        assert_eq!(opened, Opened::Existing);
        assert_eq!(again.mark(GROUP), Ok(Some(49)));
        assert_eq!(again.scan(GROUP, shard(1), Offset(0), 100), Ok(entries[..50].to_vec()));
        // The log is applied again from before the mark.
        again.truncate_from(GROUP, shard(1), entries[30].first).unwrap();
        again.put(GROUP, &entries[30..]).unwrap();
        assert_eq!(again.scan(GROUP, shard(1), Offset(0), 100), Ok(entries.clone()));
        assert_eq!(again.seek_time(GROUP, shard(1), 77), Ok(Some(entries[77])));
    }

    #[test]
    fn an_unusable_database_is_replaced_by_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["garbage", "no manifest", "no tables", "empty", "noted"] {
            let path = dir.path().join(name);
            let (index, _) = open(&path);
            index.put(GROUP, &[entry(shard(1), 0, 5, 1, 10)]).unwrap();
            index.flush(GROUP, 1).unwrap();
            drop(index);
            let files = std::fs::read_dir(&path).unwrap().map(|file| file.unwrap().path());
            let remove = |which: &str| {
                let named = |file: &PathBuf| file.file_name().unwrap().to_str().unwrap().contains(which);
                files.filter(named).for_each(|file| std::fs::remove_file(file).unwrap());
            };
            match name {
                "garbage" => std::fs::write(path.join("CURRENT"), b"nonsense").unwrap(),
                "no manifest" => remove("MANIFEST"),
                "no tables" => remove(".sst"),
                "empty" => remove(""),
                _ => std::fs::write(damaged_marker(&path), b"").unwrap(),
            }
            let (index, opened) = open(&path);
            assert!(matches!(opened, Opened::Replaced { .. }), "{name}: {opened:?}");
            assert_eq!(index.mark(GROUP), Ok(None));
            assert_eq!(index.seek(GROUP, shard(1), Offset(4)), Ok(None));
            drop(index);
            assert_eq!(open(&path).1, Opened::Existing, "{name}: replaced once only");
        }
    }

    #[test]
    fn a_database_that_someone_has_open_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        let (index, _) = open(&path);
        index.flush(GROUP, 1).unwrap();
        let second = runtime().block_on(RocksIndex::open(&path));
        assert!(matches!(second.err(), Some(IndexError::Storage(_))));
        drop(index);
        let (index, opened) = open(&path);
        assert_eq!((opened, index.mark(GROUP)), (Opened::Existing, Ok(Some(1))));
    }

    #[test]
    fn a_flipped_bit_is_an_error_and_the_next_start_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        let (index, _) = open(&path);
        let entries: Vec<_> = (0..5000).map(|n| entry(shard(1), n, 1, n, n)).collect();
        index.put(GROUP, &entries).unwrap();
        index.flush(GROUP, 1).unwrap();
        drop(index);
        for file in std::fs::read_dir(&path).unwrap().map(Result::unwrap) {
            if file.path().extension().is_some_and(|e| e == "sst") {
                let mut bytes = std::fs::read(file.path()).unwrap();
                if bytes.len() > 10_000 {
                    bytes[5_000] ^= 1;
                    std::fs::write(file.path(), bytes).unwrap();
                }
            }
        }
        runtime().block_on(async {
            let (index, opened) = RocksIndex::open(&path).await.unwrap();
            assert_eq!(opened, Opened::Existing, "RocksDB checks a block when it reads it");
            let read = index.scan(GROUP, shard(1), Offset(0), 10_000);
            assert!(matches!(read, Err(IndexError::Damaged(_))), "{read:?}");
            drop(index);
            let noted = async {
                while !disk::exists(damaged_marker(&path)).await.unwrap() {
                    braid_env::time::sleep(std::time::Duration::from_millis(1)).await;
                }
            };
            braid_env::time::timeout(std::time::Duration::from_secs(30), noted).await.expect("damage is noted");
        });
        assert!(matches!(open(&path).1, Opened::Replaced { .. }));
    }
}
