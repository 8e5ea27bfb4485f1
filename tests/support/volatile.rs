//! A disk in memory that knows what is durable: content by the syncs of its file, names by the syncs of their folder. It
//! counts every change, so that a test can let the process die at each of them, or the power go; and it fails, fills up and
//! rots where it is told to. Everything that is left to chance follows from a seed.
//!
//! When the power goes, of what was written and not synced any sectors are there, of what files were made longer or shorter
//! any part, and of the changes of names any. What is removed may come back; what is moved to another folder is in one of the
//! two at least, as file systems with a journal have it. A sync that failed has given up what it was
//! for: it is read until the power goes, and a later sync does not make it durable.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use rookeeper::sys::file_system::{DirEntry, FileSystem, OpenFile, Stat};
use rookeeper::sys::files::Files;

use crate::random::Random;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: u64 = 512;

/// A change of what a file holds.
#[derive(Clone, Debug)]
enum Write {
    Bytes { at: u64, bytes: Vec<u8> },
    Length(u64),
}

impl Write {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Write::Bytes { at, bytes } => {
                let at = *at as usize;
                content.resize(content.len().max(at + bytes.len()), 0);
                content[at..at + bytes.len()].copy_from_slice(bytes);
            }
            Write::Length(length) => content.resize(*length as usize, 0),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Inode {
    /// What is read.
    content: Vec<u8>,
    durable: Vec<u8>,
    /// Since the last sync, in order.
    unsynced: Vec<Write>,
}

impl Inode {
    fn write(&mut self, write: Write) {
        write.apply(&mut self.content);
        self.unsynced.push(write);
    }

    fn sync(&mut self) {
        for write in self.unsynced.drain(..) {
            write.apply(&mut self.durable);
        }
    }

    fn lose_power(&mut self, random: &mut Random) {
        // All of it, nothing, or each sector by itself.
        let survives = random.below(3);
        for write in std::mem::take(&mut self.unsynced) {
            match write {
                Write::Length(_) if survives == 0 || (survives == 2 && random.one_in(2)) => {}
                Write::Length(length) => Write::Length(length).apply(&mut self.durable),
                Write::Bytes { at, bytes } => {
                    let mut from = 0;
                    while from < bytes.len() {
                        let begin = at + from as u64;
                        let to = bytes.len().min((begin - begin % SECTOR_BYTES + SECTOR_BYTES - at) as usize);
                        if survives == 1 || (survives == 2 && random.one_in(2)) {
                            Write::Bytes { at: begin, bytes: bytes[from..to].to_vec() }.apply(&mut self.durable);
                        }
                        from = to;
                    }
                }
            }
        }
        self.content.clone_from(&self.durable);
    }
}

/// What a name is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Entry {
    File(usize),
    Dir,
}

/// By their whole paths, which compare as bytes: a path compares part by part, and much is looked up here.
type Names = BTreeMap<OsString, Entry>;

/// A change of names in one folder, behind those in others that it needs. All of it is durable, or nothing.
#[derive(Clone, Debug)]
struct NameChange {
    dir: PathBuf,
    changes: Vec<(PathBuf, Option<Entry>)>,
}

impl NameChange {
    fn apply(&self, names: &mut Names) {
        for (path, entry) in &self.changes {
            match entry {
                Some(entry) => names.insert(path.clone().into(), *entry),
                None => names.remove(path.as_os_str()),
            };
        }
    }
}

/// What goes wrong with one change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The process dies in it: nothing works for it any more.
    Dies,
    /// The change fails with this error; of a write a part may be there, and a sync has given up what it was for.
    Fails(i32),
    /// It is said to be done, and is not.
    Lied,
}

/// A file is synced.
pub const SYNC: &str = "sync";
/// The names in a folder are.
pub const SYNC_NAMES: &str = "sync names in";

/// A change that was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// What was done.
    pub what: &'static str,
    /// The file or folder, by the name that it had when it was opened.
    pub path: Arc<Path>,
}

impl Change {
    /// Whether it makes others durable.
    pub fn is_sync(&self) -> bool {
        [SYNC, SYNC_NAMES].contains(&self.what)
    }
}

#[derive(Clone, Debug, Default)]
struct Inner {
    inodes: Vec<Inode>,
    names: Names,
    durable_names: Names,
    unsynced_names: Vec<NameChange>,
    /// In order.
    changes: Vec<Change>,
    /// By the number of the change, counted from 1.
    faults: BTreeMap<u64, Fault>,
    /// Syncs of this kind are said to be done, and are not.
    lies_about: Option<&'static str>,
    is_dead: bool,
    /// Bytes of all files at most.
    capacity: Option<u64>,
}

impl Inner {
    fn get(&self, path: &Path) -> io::Result<Entry> {
        self.names.get(path.as_os_str()).copied().ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        match self.get(path)? {
            Entry::File(inode) => Ok(inode),
            Entry::Dir => Err(io::Error::from_raw_os_error(libc::EISDIR)),
        }
    }

    /// Whether whoever asks still lives.
    fn look(&self) -> io::Result<()> {
        if self.is_dead { Err(io::Error::other("the process is dead")) } else { Ok(()) }
    }

    /// Counts a change, which then goes wrong or not; gives whether it is done.
    fn change(&mut self, what: &'static str, path: impl Into<Arc<Path>>) -> io::Result<bool> {
        self.look()?;
        self.changes.push(Change { what, path: path.into() });
        match self.faults.get(&(self.changes.len() as u64)) {
            Some(Fault::Dies) => {
                self.is_dead = true;
                self.look().map(|()| false)
            }
            Some(Fault::Fails(number)) => Err(io::Error::from_raw_os_error(*number)),
            Some(Fault::Lied) => Ok(false),
            None => Ok(self.lies_about != Some(what)),
        }
    }

    fn rename(&mut self, changes: Vec<(PathBuf, Option<Entry>)>) {
        let dirs: BTreeSet<PathBuf> = changes.iter().map(|(path, _)| parent(path)).collect();
        let (gone, new): (Vec<_>, Vec<_>) = changes.into_iter().partition(|(_, entry)| entry.is_none());
        for dir in dirs {
            // Nothing goes from one folder before it is in the other.
            let goes = gone.iter().filter(|(path, _)| parent(path) == dir);
            let is_left = goes.clone().next().is_some();
            let comes = new.iter().filter(|(path, _)| is_left || parent(path) == dir);
            let change = NameChange { changes: comes.chain(goes).cloned().collect(), dir };
            change.apply(&mut self.names);
            self.unsynced_names.push(change);
        }
    }

    fn check_room(&self, more: u64) -> io::Result<()> {
        let Some(capacity) = self.capacity else { return Ok(()) };
        let used: u64 = self
            .names
            .values()
            .map(|entry| if let Entry::File(inode) = entry { self.inodes[*inode].content.len() as u64 } else { 0 })
            .sum();
        if used + more > capacity { Err(io::Error::from_raw_os_error(libc::ENOSPC)) } else { Ok(()) }
    }
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("/")).to_owned()
}

/// See the module. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct VolatileDisk(Arc<Mutex<Inner>>);

impl VolatileDisk {
    /// One with these empty folders.
    pub fn new(dirs: &[&str]) -> VolatileDisk {
        let dirs: Names = dirs.iter().map(|dir| (OsString::from(dir), Entry::Dir)).collect();
        VolatileDisk::of(Inner { names: dirs.clone(), durable_names: dirs, ..Inner::default() })
    }

    fn of(inner: Inner) -> VolatileDisk {
        VolatileDisk(Arc::new(Mutex::new(inner)))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// For whoever works with files.
    pub fn files(&self) -> Files {
        Files::of(self.clone())
    }

    /// Another disk that is as this one is now.
    pub fn fork(&self) -> VolatileDisk {
        VolatileDisk::of(self.inner().clone())
    }

    /// Changes so far: writes, syncs, names.
    pub fn changes(&self) -> Vec<Change> {
        self.inner().changes.clone()
    }

    /// What goes wrong with the `n`th change from now on, counted from 1.
    pub fn at_change(&self, n: u64, fault: Fault) {
        let mut inner = self.inner();
        let at = inner.changes.len() as u64 + n;
        inner.faults.insert(at, fault);
    }

    /// From now on syncs of this kind, as [`Change::what`] has it, are said to be done and are not.
    pub fn lie_about(&self, what: &'static str) {
        self.inner().lies_about = Some(what);
    }

    /// Whether the process died.
    pub fn is_dead(&self) -> bool {
        self.inner().is_dead
    }

    /// The process ends, and the next one may begin: all that was written is there.
    pub fn restart(&self) {
        let mut inner = self.inner();
        (inner.is_dead, inner.lies_about) = (false, None);
        inner.faults.clear();
    }

    /// The power goes, and comes back.
    pub fn lose_power(&self, random: &mut Random) {
        self.restart();
        let inner = &mut *self.inner();
        let survives = random.below(3);
        for change in std::mem::take(&mut inner.unsynced_names) {
            if survives == 1 || (survives == 2 && random.one_in(2)) {
                change.apply(&mut inner.durable_names);
            }
        }
        let there = inner.durable_names.clone();
        inner
            .durable_names
            .retain(|path, _| ancestors(path).all(|dir| is_root(dir) || there.contains_key(dir.as_os_str())));
        inner.names.clone_from(&inner.durable_names);
        inner.inodes.iter_mut().for_each(|inode| inode.lose_power(random));
    }

    /// Nothing of what is to go wrong does.
    pub fn clear_faults(&self) {
        self.inner().faults.clear();
    }

    /// Whether the room is bounded.
    pub fn is_limited(&self) -> bool {
        self.inner().capacity.is_some()
    }

    /// No more than so many bytes fit from now on.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.inner().capacity = bytes;
    }

    /// Bytes of this file change on the disk, durable as they are.
    pub fn rot(&self, path: &Path, change: impl Fn(&mut Vec<u8>)) {
        let mut inner = self.inner();
        let inode = inner.file(path).unwrap();
        change(&mut inner.inodes[inode].content);
        change(&mut inner.inodes[inode].durable);
    }

    /// All files, by name.
    pub fn contents(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let inner = self.inner();
        let of = |(path, entry): (&OsString, &Entry)| match entry {
            Entry::File(inode) => Some((PathBuf::from(path), inner.inodes[*inode].content.clone())),
            Entry::Dir => None,
        };
        inner.names.iter().filter_map(of).collect()
    }

    fn handle(&self, inode: usize, path: &Path) -> Box<dyn OpenFile> {
        Box::new(VolatileFile { disk: self.clone(), inode, path: path.into() })
    }
}

fn ancestors(path: &OsStr) -> impl Iterator<Item = &Path> {
    Path::new(path).ancestors().skip(1)
}

fn is_root(dir: &Path) -> bool {
    dir == Path::new("/") || dir == Path::new("")
}

impl FileSystem for VolatileDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        let inner = self.inner();
        inner.look()?;
        Ok(self.handle(inner.file(path)?, path))
    }

    fn open_to_write(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        self.open(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        let inner = &mut *self.inner();
        inner.change("create", path)?;
        if !is_root(&parent(path)) {
            inner.get(&parent(path))?;
        }
        let inode = match inner.file(path) {
            Ok(inode) => {
                inner.inodes[inode].write(Write::Length(0));
                inode
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                inner.inodes.push(Inode::default());
                let inode = inner.inodes.len() - 1;
                inner.rename(vec![(path.to_owned(), Some(Entry::File(inode)))]);
                inode
            }
            Err(error) => return Err(error),
        };
        Ok(self.handle(inode, path))
    }

    fn scratch(&self, dir: &Path) -> io::Result<Box<dyn OpenFile>> {
        let mut inner = self.inner();
        inner.look()?;
        inner.get(dir)?;
        inner.inodes.push(Inode::default());
        Ok(self.handle(inner.inodes.len() - 1, &dir.join("(no name)")))
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        let inner = self.inner();
        inner.look()?;
        Ok(match inner.get(path)? {
            Entry::Dir => Stat { length: 0, is_dir: true, is_file: false },
            Entry::File(inode) => {
                Stat { length: inner.inodes[inode].content.len() as u64, is_dir: false, is_file: true }
            }
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let inner = self.inner();
        inner.look()?;
        inner.get(dir)?;
        let within = dir.join("");
        let below = inner.names.range::<OsStr, _>((Bound::Excluded(within.as_os_str()), Bound::Unbounded));
        let names = below.map_while(|(path, _)| path.to_str().unwrap().strip_prefix(within.to_str().unwrap()));
        let here = names.filter(|name| !name.contains('/'));
        Ok(here.map(|name| DirEntry { name: name.to_owned(), path: within.join(name) }).collect())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.change("create folder", dir)?;
        if inner.names.contains_key(dir.as_os_str()) {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        inner.rename(vec![(dir.to_owned(), Some(Entry::Dir))]);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.change("rename", from)?;
        inner.get(&parent(to))?;
        let entry = inner.get(from)?;
        inner.rename(vec![(from.to_owned(), None), (to.to_owned(), Some(entry))]);
        Ok(())
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.inner().names.contains_key(to.as_os_str()) {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        self.rename(from, to)
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let (first, second) = (inner.get(one)?, inner.get(other)?);
        inner.change("exchange", one)?;
        inner.rename(vec![(one.to_owned(), Some(second)), (other.to_owned(), Some(first))]);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.change("remove", path)?;
        inner.file(path)?;
        inner.rename(vec![(path.to_owned(), None)]);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let inner = &mut *self.inner();
        if !inner.change(SYNC_NAMES, dir)? {
            return Ok(());
        }
        let (here, elsewhere) =
            std::mem::take(&mut inner.unsynced_names).into_iter().partition(|change| change.dir == dir);
        inner.unsynced_names = elsewhere;
        // What came here from another folder has come.
        for change in &mut inner.unsynced_names {
            change.changes.retain(|(path, _)| parent(path) != dir);
        }
        let here: Vec<NameChange> = here;
        here.iter().for_each(|change| change.apply(&mut inner.durable_names));
        Ok(())
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_owned())
    }

    fn copy_mode(&self, _like: &Path, _to: &Path) -> io::Result<()> {
        Ok(())
    }
}

/// An open file of a [`VolatileDisk`], which stays what it is whatever becomes of its name.
#[derive(Debug)]
struct VolatileFile {
    disk: VolatileDisk,
    inode: usize,
    path: Arc<Path>,
}

impl VolatileFile {
    fn sync(&self) -> io::Result<()> {
        let inner = &mut *self.disk.inner();
        let synced = inner.change(SYNC, self.path.clone());
        let inode = &mut inner.inodes[self.inode];
        match synced {
            Ok(true) => inode.sync(),
            // Its pages count as clean from now on.
            Err(_) if !inner.is_dead => inode.unsynced.clear(),
            Ok(false) | Err(_) => {}
        }
        synced.map(drop)
    }
}

impl OpenFile for VolatileFile {
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        let inner = self.disk.inner();
        inner.look()?;
        let content = &inner.inodes[self.inode].content;
        let at = content.len().min(at as usize);
        let read = bytes.len().min(content.len() - at);
        bytes[..read].copy_from_slice(&content[at..at + read]);
        Ok(read)
    }

    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let inner = &mut *self.disk.inner();
        let was_dead = inner.is_dead;
        let length = inner.inodes[self.inode].content.len() as u64;
        inner.check_room((at + bytes.len() as u64).saturating_sub(length))?;
        if let Err(error) = inner.change("write", self.path.clone()) {
            // It came half way.
            if !was_dead {
                inner.inodes[self.inode].write(Write::Bytes { at, bytes: bytes[..bytes.len() / 2].to_vec() });
            }
            return Err(error);
        }
        inner.inodes[self.inode].write(Write::Bytes { at, bytes: bytes.to_vec() });
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        let inner = self.disk.inner();
        inner.look()?;
        Ok(inner.inodes[self.inode].content.len() as u64)
    }

    fn allocated(&self) -> io::Result<u64> {
        self.length()
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        let inner = &mut *self.disk.inner();
        inner.check_room(bytes.saturating_sub(inner.inodes[self.inode].content.len() as u64))?;
        inner.change("set length of", self.path.clone())?;
        inner.inodes[self.inode].write(Write::Length(bytes));
        Ok(())
    }

    fn allocate(&self, bytes: usize) -> io::Result<()> {
        self.set_length(bytes as u64)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }

    fn write_out(&self, _from: u64, _bytes: u64) -> io::Result<()> {
        self.disk.inner().look()
    }

    fn forget(&self, _to: u64) {}
}
