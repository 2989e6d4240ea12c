//! The simulated directories: names seen, names on the platter, and the changes in between.
//!
//! Invariant: a rename is one change. Whatever a crash does, the file has its old name or its new one (or
//! none, if its old one was never synced), never both.
//!
//! It knows no file's contents, only numbers ([`Ino`]) of files and directories.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};

use rand_chacha::ChaCha12Rng;

use super::Survive;
use crate::random::below_with as below;

/// The number of a file or directory; never used again.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Ino(pub(super) u64);

pub(super) const ROOT: Ino = Ino(0);

/// A name and the directory it is in.
pub(super) type Place = (Ino, String);

#[derive(Default)]
struct Dir {
    live: BTreeMap<String, Ino>,
    durable: BTreeMap<String, Ino>,
}

#[derive(Clone)]
enum Change {
    Link(Place, Ino),
    Unlink(Place, Ino),
    Rename(Place, Place, Ino),
}

impl Change {
    fn dirs(&self) -> [Ino; 2] {
        match self {
            Change::Link((dir, _), _) | Change::Unlink((dir, _), _) => [*dir, *dir],
            Change::Rename((from, _), (to, _), _) => [*from, *to],
        }
    }

    /// Whether it is in one of these directories.
    fn is_in(&self, dirs: &BTreeSet<Ino>) -> bool {
        self.dirs().iter().any(|dir| dirs.contains(dir))
    }

    fn ino(&self) -> Ino {
        match self {
            Change::Link(_, ino) | Change::Unlink(_, ino) | Change::Rename(_, _, ino) => *ino,
        }
    }
}

/// How many changes there have been: what an fsync_dir that begins now is to make durable.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark(u64);

pub(super) struct Names {
    dirs: BTreeMap<Ino, Dir>,
    /// In order, each with how many came before it.
    unsynced: Vec<(Mark, Change)>,
    mark: Mark,
    last: Ino,
}

impl Names {
    /// An empty root.
    pub(super) fn new() -> Names {
        Names { dirs: BTreeMap::from([(ROOT, Dir::default())]), unsynced: Vec::new(), mark: Mark(0), last: ROOT }
    }

    pub(super) fn is_dir(&self, ino: Ino) -> bool {
        self.dirs.contains_key(&ino)
    }

    /// # Errors
    ///
    /// `NotFound`, `NotADirectory`.
    pub(super) fn resolve(&self, path: &Path) -> io::Result<Ino> {
        self.walk(&parts(path), |dir| &dir.live)
    }

    /// What `path` would be, were the power cut now and nothing unsynced to survive.
    pub(super) fn resolve_durable(&self, path: &Path) -> Option<Ino> {
        self.walk(&parts(path), |dir| &dir.durable).ok()
    }

    /// The place a path names, whether or not anything is there.
    pub(super) fn place(&self, path: &Path) -> io::Result<Place> {
        let mut parts = parts(path);
        let name = parts.pop().ok_or_else(|| error(io::ErrorKind::InvalidInput, path))?;
        let dir = self.walk(&parts, |dir| &dir.live)?;
        self.dir(dir)?;
        Ok((dir, name.into_owned()))
    }

    pub(super) fn at(&self, (dir, name): &Place) -> Option<Ino> {
        self.dirs[dir].live.get(name).copied()
    }

    pub(super) fn list(&self, dir: Ino) -> io::Result<Vec<String>> {
        Ok(self.dir(dir)?.live.keys().cloned().collect())
    }

    /// A new file's number, under a name that is free.
    pub(super) fn create_file(&mut self, place: Place) -> Ino {
        self.last = Ino(self.last.0 + 1);
        let ino = self.last;
        self.live(place.0).insert(place.1.clone(), ino);
        self.change(Change::Link(place, ino));
        ino
    }

    pub(super) fn create_dir(&mut self, place: Place) -> Ino {
        let ino = self.create_file(place);
        self.dirs.insert(ino, Dir::default());
        ino
    }

    /// Removes a name, of a file or of an empty directory.
    pub(super) fn unlink(&mut self, place: Place) {
        let ino = self.live(place.0).remove(&place.1).expect("it has a name");
        self.change(Change::Unlink(place, ino));
    }

    /// # Errors
    ///
    /// As rename(2): what is replaced must be of the same kind, and a directory empty.
    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let ino = self.resolve(from)?;
        let (from_place, to_place) = (self.place(from)?, self.place(to)?);
        if from_place == to_place {
            return Ok(());
        }
        if parts(to).starts_with(&parts(from)) {
            return Err(error(io::ErrorKind::InvalidInput, to));
        }
        if let Some(replaced) = self.at(&to_place) {
            match (self.is_dir(ino), self.dirs.get(&replaced)) {
                (false, None) => {}
                (false, Some(_)) => return Err(error(io::ErrorKind::IsADirectory, to)),
                (true, None) => return Err(error(io::ErrorKind::NotADirectory, to)),
                (true, Some(dir)) if dir.live.is_empty() => {}
                (true, Some(_)) => return Err(error(io::ErrorKind::DirectoryNotEmpty, to)),
            }
        }
        self.live(from_place.0).remove(&from_place.1);
        self.live(to_place.0).insert(to_place.1.clone(), ino);
        self.change(Change::Rename(from_place, to_place, ino));
        Ok(())
    }

    pub(super) fn mark(&self) -> Mark {
        self.mark
    }

    /// Makes the changes in a directory before `mark` durable. A rename between two directories takes the
    /// other one's changes along, as a journal would: else it could come to stand before what it builds on.
    pub(super) fn sync_dir(&mut self, dir: Ino, mark: Mark) {
        let mut together = BTreeSet::from([dir]);
        loop {
            let before = together.len();
            for (_, change) in self.unsynced.iter().take_while(|(at, _)| *at < mark) {
                if change.is_in(&together) {
                    together.extend(change.dirs());
                }
            }
            if together.len() == before {
                break;
            }
        }
        let is_synced = |(at, change): &(Mark, Change)| *at < mark && together.contains(&change.dirs()[0]);
        let (now, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.unsynced).into_iter().partition(is_synced);
        self.unsynced = later;
        for (_, change) in now {
            self.persist(change);
        }
    }

    /// Makes everything durable. For tests that lay out a disk.
    pub(super) fn sync_all(&mut self) {
        for (_, change) in std::mem::take(&mut self.unsynced) {
            self.persist(change);
        }
    }

    /// The power is back: the names on the platter are all there are. How many changes are undone.
    pub(super) fn settle(&mut self, how: Survive, rng: &mut ChaCha12Rng) -> u64 {
        let unsynced = std::mem::take(&mut self.unsynced);
        // Journals keep the order, POSIX promises none: so either all up to one, or each for itself.
        let in_order = below(rng, 2) == 0;
        let first = below(rng, unsynced.len() as u64 + 1) as usize;
        let mut undone = 0;
        for (i, (_, change)) in unsynced.into_iter().enumerate() {
            let survives = match how {
                Survive::Nothing => false,
                Survive::Everything => true,
                Survive::Random if in_order => i < first,
                Survive::Random => below(rng, 2) == 0,
            };
            if survives {
                self.persist(change);
            } else {
                undone += 1;
            }
        }
        for dir in self.dirs.values_mut() {
            dir.live = dir.durable.clone();
        }
        undone
    }

    fn change(&mut self, change: Change) {
        self.unsynced.push((self.mark, change));
        self.mark = Mark(self.mark.0 + 1);
    }

    fn persist(&mut self, change: Change) {
        match change {
            Change::Link((dir, name), ino) => {
                self.durable(dir).insert(name, ino);
            }
            Change::Unlink((dir, name), ino) => {
                // Another file may have the name by now, if the unlink before it was lost.
                if self.durable(dir).get(&name) == Some(&ino) {
                    self.durable(dir).remove(&name);
                }
            }
            Change::Rename(_, (dir, name), ino) => {
                // Not only its old name: an earlier rename of the same file may have been lost.
                for dir in self.dirs.values_mut() {
                    dir.durable.retain(|_, linked| *linked != ino);
                }
                self.durable(dir).insert(name, ino);
            }
        }
    }

    /// Every file and directory that has a name, had one on the platter, or may have one after a crash.
    /// Forgets directories that have none, and what was changed in them.
    pub(super) fn retain_reachable(&mut self) -> BTreeSet<Ino> {
        let mut reached = BTreeSet::from([ROOT]);
        let mut todo = vec![ROOT];
        while !todo.is_empty() {
            while let Some(ino) = todo.pop() {
                let Some(dir) = self.dirs.get(&ino) else { continue };
                let inner = dir.live.values().chain(dir.durable.values());
                todo.extend(inner.copied().filter(|inner| reached.insert(*inner)));
            }
            for (_, change) in &self.unsynced {
                if change.is_in(&reached) {
                    let [from, to] = change.dirs();
                    todo.extend([from, to, change.ino()].into_iter().filter(|ino| reached.insert(*ino)));
                }
            }
        }
        self.dirs.retain(|ino, _| reached.contains(ino));
        self.unsynced.retain(|(_, change)| change.is_in(&reached));
        reached
    }

    /// The paths of all files that have a name, sorted.
    pub(super) fn files(&self) -> Vec<(PathBuf, Ino)> {
        let mut files = Vec::new();
        let mut todo = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, ino)) = todo.pop() {
            match self.dirs.get(&ino) {
                None => files.push((path, ino)),
                Some(dir) => todo.extend(dir.live.iter().map(|(n, i)| (path.join(n), *i))),
            }
        }
        files.sort();
        files
    }

    /// Calls `each` with every file that has a name; faster than [`Names::files`].
    pub(super) fn each_file(&self, each: &mut impl FnMut(Ino)) {
        self.each_file_in(ROOT, each);
    }

    fn each_file_in(&self, dir: Ino, each: &mut impl FnMut(Ino)) {
        for &inner in self.dirs[&dir].live.values() {
            if self.is_dir(inner) {
                self.each_file_in(inner, each);
            } else {
                each(inner);
            }
        }
    }

    fn walk(&self, parts: &[Cow<'_, str>], which: impl Fn(&Dir) -> &BTreeMap<String, Ino>) -> io::Result<Ino> {
        let mut at = ROOT;
        for part in parts {
            let found = which(self.dir(at)?).get(&**part);
            at = *found.ok_or_else(|| error(io::ErrorKind::NotFound, Path::new(&**part)))?;
        }
        Ok(at)
    }

    fn dir(&self, ino: Ino) -> io::Result<&Dir> {
        self.dirs.get(&ino).ok_or_else(|| io::ErrorKind::NotADirectory.into())
    }

    fn live(&mut self, dir: Ino) -> &mut BTreeMap<String, Ino> {
        &mut self.dirs.get_mut(&dir).expect("a directory").live
    }

    fn durable(&mut self, dir: Ino) -> &mut BTreeMap<String, Ino> {
        &mut self.dirs.get_mut(&dir).expect("a directory").durable
    }
}

pub(super) fn error(kind: io::ErrorKind, path: &Path) -> io::Error {
    io::Error::new(kind, format!("{}: {kind}", path.display()))
}

/// The names on the way from the root. The simulated disk has no working directory: a relative path
/// starts at the root as well.
fn parts(path: &Path) -> Vec<Cow<'_, str>> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => parts.push(name.to_string_lossy()),
            Component::ParentDir => {
                parts.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It was kept for ever, with the files that it had had on the platter, since nothing syncs what is not there.
    #[test]
    fn what_was_changed_in_a_removed_directory_is_forgotten() {
        let mut names = Names::new();
        let dir = names.create_dir((ROOT, "d".into()));
        let file = names.create_file((dir, "f".into()));
        names.sync_all();
        names.unlink((dir, "f".into()));
        names.unlink((ROOT, "d".into()));
        assert!(names.retain_reachable().is_superset(&[dir, file].into()), "a crash may bring them back");
        names.sync_dir(ROOT, names.mark());
        assert_eq!(names.retain_reachable(), [ROOT].into());
        assert!(names.unsynced.is_empty());
    }
}
