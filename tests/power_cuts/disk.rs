//! A disk with a volatile cache: what was written is read back at once, and is sure to be there after a power cut only
//! once it was flushed. Its content is in memory; the kernel has it as a file that this process serves (FUSE), and makes a
//! block device of it (a loop device). It can also fail once, and stall.

use std::ffi::OsStr;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, KernelConfig, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};

use crate::random::Random;

/// Which of the writes that were not flushed are on the disk after a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    Nothing,
    All,
    /// Those before some moment.
    First,
    /// Any of the disk's sectors, of any of them: later ones without earlier ones, and parts of one.
    Sectors,
}

/// A write that was not flushed.
struct Unflushed {
    at: usize,
    before: Vec<u8>,
    written: Vec<u8>,
}

impl Unflushed {
    /// Where its parts in the disk's sectors are, within it. Sectors begin where the disk has them, not where a write does.
    fn parts(&self, sector_bytes: usize) -> impl Iterator<Item = Range<usize>> {
        let end = self.at + self.written.len();
        let sectors = self.at / sector_bytes..end.div_ceil(sector_bytes);
        sectors.map(move |sector| {
            let (from, to) = (sector * sector_bytes, (sector + 1) * sector_bytes);
            from.max(self.at) - self.at..to.min(end) - self.at
        })
    }
}

/// What is on the disk, or will be.
pub struct Medium {
    bytes: Vec<u8>,
    /// What is written whole or not at all.
    sector_bytes: usize,
    unflushed: Vec<Unflushed>,
}

impl Medium {
    pub fn new(bytes: usize, sector_bytes: usize) -> Medium {
        Medium { bytes: vec![0; bytes], sector_bytes, unflushed: Vec::new() }
    }

    /// At most this many bytes from there: fewer at the end.
    pub fn read(&self, at: usize, bytes: usize) -> &[u8] {
        let from = at.min(self.bytes.len());
        &self.bytes[from..from + bytes.min(self.bytes.len() - from)]
    }

    /// False for what lies beyond the end.
    pub fn write(&mut self, at: usize, written: &[u8]) -> bool {
        let Some(place) = at.checked_add(written.len()).and_then(|end| self.bytes.get_mut(at..end)) else {
            return false;
        };
        self.unflushed.push(Unflushed { at, before: place.to_vec(), written: written.to_vec() });
        place.copy_from_slice(written);
        true
    }

    pub fn flush(&mut self) {
        self.unflushed.clear();
    }

    /// Takes back what was not flushed, all but what is kept.
    pub fn lose_power(&mut self, kept: Kept, random: &mut Random) {
        for write in self.unflushed.iter().rev() {
            self.bytes[write.at..write.at + write.before.len()].copy_from_slice(&write.before);
        }
        let first = random.below(self.unflushed.len() as u64 + 1) as usize;
        let percent = random.between(1, 99);
        for (number, write) in self.unflushed.drain(..).enumerate() {
            for part in write.parts(self.sector_bytes) {
                let is_kept = match kept {
                    Kept::Nothing => false,
                    Kept::All => true,
                    Kept::First => number < first,
                    Kept::Sectors => random.below(100) < percent,
                };
                if is_kept {
                    self.bytes[write.at..][part.clone()].copy_from_slice(&write.written[part]);
                }
            }
        }
    }
}

/// What can fail, and what power cuts are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Write,
    Flush,
}

/// One that the kernel asks for.
#[derive(Clone, Copy)]
enum Asked<'a> {
    Write { at: usize, bytes: &'a [u8] },
    Flush,
}

/// The one operation that fails.
enum Failing {
    /// Counted from 1 for the next of its kind.
    Nth(Operation, u64),
    /// The first write that has these bytes.
    WriteOf(Vec<u8>),
}

/// A power cut that is to come.
struct Cut {
    /// Writes and flushes until then. The last of them meets it.
    operations: u64,
    kept: Kept,
    random: Random,
}

struct State {
    medium: Medium,
    is_on: bool,
    /// The power cuts so far.
    cuts: Vec<Kept>,
    cut: Option<Cut>,
    failing: Option<Failing>,
    is_stalled: bool,
    /// The kernel waits for something.
    is_waiting: bool,
}

/// A handle for whoever decides about the disk; clones are the same disk.
#[derive(Clone)]
pub struct Disk(Arc<(Mutex<State>, Condvar)>);

impl Disk {
    /// An empty one, with power. Its sectors are written whole or not at all.
    pub fn new(bytes: usize, sector_bytes: usize) -> Disk {
        let state = State {
            medium: Medium::new(bytes, sector_bytes),
            is_on: true,
            cuts: Vec::new(),
            cut: None,
            failing: None,
            is_stalled: false,
            is_waiting: false,
        };
        Disk(Arc::new((Mutex::new(state), Condvar::new())))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.0.1.notify_all();
    }

    /// The name of the file that the kernel finds: another one after each power cut.
    pub fn name(&self) -> String {
        format!("disk-{}", self.state().generation())
    }

    /// The power goes at that write or flush from now on.
    pub fn cut_at(&self, operations: u64, kept: Kept, random: Random) {
        self.change(|state| state.cut = Some(Cut { operations: operations.max(1), kept, random }));
    }

    /// The power goes, unless it is gone.
    pub fn cut(&self, kept: Kept, mut random: Random) {
        self.change(|state| {
            if state.is_on {
                state.lose_power(kept, &mut random);
            }
        });
    }

    /// The power cuts so far, and what each has left.
    pub fn cuts(&self) -> Vec<Kept> {
        self.state().cuts.clone()
    }

    pub fn is_cut(&self) -> bool {
        !self.state().is_on
    }

    /// The power is back, and every fault is over.
    pub fn power_on(&self) {
        self.change(|state| {
            state.is_on = true;
            state.failing = None;
        });
    }

    /// The `nth` such operation from now on fails, counted from 1; those after it do not.
    pub fn fail_once(&self, operation: Operation, nth: u64) {
        self.change(|state| state.failing = Some(Failing::Nth(operation, nth)));
    }

    /// The next write that has these bytes fails; none after it does.
    pub fn fail_write_of(&self, bytes: &[u8]) {
        self.change(|state| state.failing = Some(Failing::WriteOf(bytes.to_vec())));
    }

    /// Whether that has happened.
    pub fn has_failed(&self) -> bool {
        self.state().failing.is_none()
    }

    /// From now on nothing is carried out. Returns when something waits; false if that takes longer than this.
    pub fn stall(&self, within: Duration) -> bool {
        self.change(|state| state.is_stalled = true);
        let is_over = |state: &State| state.is_waiting || !state.is_on;
        let (state, _) = self.0.1.wait_timeout_while(self.state(), within, |state| !is_over(state)).unwrap();
        is_over(&state)
    }

    pub fn resume(&self) {
        self.change(|state| state.is_stalled = false);
    }
}

impl State {
    /// What the kernel had before a power cut reaches nothing after it.
    fn generation(&self) -> u64 {
        self.cuts.len() as u64
    }

    fn lose_power(&mut self, kept: Kept, random: &mut Random) {
        self.medium.lose_power(kept, random);
        self.is_on = false;
        self.is_stalled = false;
        self.cut = None;
        self.cuts.push(kept);
    }

    /// Carries out what the kernel asks for, unless it fails. A cut meets a write that may get there, and a flush that
    /// does not.
    fn operate(&mut self, request: Asked) -> Result<(), Errno> {
        if self.is_due_to_fail(request) {
            return Err(Errno::EIO);
        }
        match &mut self.cut {
            Some(cut) if cut.operations > 1 => cut.operations -= 1,
            Some(_) => {
                if let Asked::Write { at, bytes } = request {
                    self.medium.write(at, bytes);
                }
                if let Some(Cut { kept, mut random, .. }) = self.cut.take() {
                    self.lose_power(kept, &mut random);
                }
                return Err(Errno::EIO);
            }
            None => {}
        }
        match request {
            Asked::Write { at, bytes } if !self.medium.write(at, bytes) => return Err(Errno::ENOSPC),
            Asked::Write { .. } => {}
            Asked::Flush => self.medium.flush(),
        }
        Ok(())
    }

    fn is_due_to_fail(&mut self, request: Asked) -> bool {
        let is_due = match (&mut self.failing, request) {
            (Some(Failing::Nth(Operation::Write, left)), Asked::Write { .. })
            | (Some(Failing::Nth(Operation::Flush, left)), Asked::Flush) => {
                *left -= 1;
                *left == 0
            }
            (Some(Failing::WriteOf(wanted)), Asked::Write { bytes, .. }) => {
                bytes.windows(wanted.len()).any(|window| window == wanted.as_slice())
            }
            _ => false,
        };
        if is_due {
            self.failing = None;
        }
        is_due
    }
}

/// The disk as the kernel sees it: a folder with one file. One request after the other, by one thread.
pub struct Device(pub Disk);

/// What the kernel knows may be cached: names change with the power.
const KEPT: Duration = Duration::ZERO;
const WRITE_BYTES_MAX: u32 = 1 << 20;

impl Device {
    /// The disk, when it does something again. The file of an earlier generation is gone.
    fn working(&self, file: INodeNo) -> Result<MutexGuard<'_, State>, Errno> {
        let (lock, changed) = &*self.0.0;
        let mut state = lock.lock().unwrap();
        while state.is_stalled {
            state.is_waiting = true;
            changed.notify_all();
            state = changed.wait(state).unwrap();
        }
        state.is_waiting = false;
        if state.is_on && file == inode(state.generation()) { Ok(state) } else { Err(Errno::EIO) }
    }

    fn operate(&self, file: INodeNo, request: Asked) -> Result<(), Errno> {
        let done = self.working(file)?.operate(request);
        self.0.0.1.notify_all();
        done
    }

    fn attributes(&self, file: INodeNo) -> FileAttr {
        let is_folder = file == INodeNo::ROOT;
        let size = if is_folder { 0 } else { self.0.state().medium.bytes.len() as u64 };
        FileAttr {
            ino: file,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_folder { FileType::Directory } else { FileType::RegularFile },
            perm: if is_folder { 0o700 } else { 0o600 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

fn inode(generation: u64) -> INodeNo {
    INodeNo(2 + generation)
}

impl Filesystem for Device {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // More at once is of no use.
        let _ = config.set_max_write(WRITE_BYTES_MAX);
        Ok(())
    }

    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == OsStr::new(&self.0.name()) {
            let file = inode(self.0.state().generation());
            reply.entry(&KEPT, &self.attributes(file), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, file: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&KEPT, &self.attributes(file));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Whatever the kernel keeps in memory is the block device's.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // A close, which is none of a disk's.
        reply.ok();
    }

    fn read(
        &self,
        _: &Request,
        file: INodeNo,
        _: FileHandle,
        at: u64,
        bytes: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.working(file) {
            Ok(state) => reply.data(state.medium.read(at as usize, bytes as usize)),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        file: INodeNo,
        _: FileHandle,
        at: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.operate(file, Asked::Write { at: at as usize, bytes }) {
            Ok(()) => reply.written(bytes.len() as u32),
            Err(error) => reply.error(error),
        }
    }

    fn fsync(&self, _: &Request, file: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        match self.operate(file, Asked::Flush) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn fallocate(&self, _: &Request, _: INodeNo, _: FileHandle, _: u64, _: u64, _: i32, reply: ReplyEmpty) {
        reply.error(Errno::EOPNOTSUPP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One flushed write, and two that are not, of two sectors each: the second over a half of the first.
    fn medium() -> Medium {
        let mut medium = Medium::new(64, 8);
        assert!(medium.write(0, &[1; 16]));
        medium.flush();
        assert!(medium.write(0, &[2; 16]) && medium.write(8, &[3; 16]));
        medium
    }

    /// The first byte of each sector of eight bytes.
    fn sectors(medium: &Medium) -> [u8; 3] {
        [0, 8, 16].map(|at| medium.read(at, 1)[0])
    }

    #[test]
    fn what_is_written_is_read_and_what_is_flushed_stays() {
        assert_eq!(sectors(&medium()), [2, 3, 3]);
        let left = |kept, seed| {
            let mut medium = medium();
            medium.lose_power(kept, &mut Random::new(seed));
            sectors(&medium)
        };
        assert_eq!(left(Kept::Nothing, 1), [1, 1, 0]);
        assert_eq!(left(Kept::All, 1), [2, 3, 3]);
        let any = |kept| (0..200).map(|seed| left(kept, seed)).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(any(Kept::First), [[1, 1, 0], [2, 2, 0], [2, 3, 3]].into());
        // Each of the three sectors has what either write left there, or neither.
        assert_eq!(any(Kept::Sectors).len(), 2 * 3 * 2);
    }

    #[test]
    fn beyond_its_end_there_is_nothing() {
        let mut medium = Medium::new(64, 8);
        assert_eq!((medium.read(60, 8).len(), medium.read(100, 8).len()), (4, 0));
        assert!(!medium.write(60, &[1; 8]) && !medium.write(usize::MAX, &[1]));
        assert!(medium.unflushed.is_empty());
    }

    #[test]
    fn an_operation_fails_once_and_a_cut_ends_all() {
        let disk = Disk::new(64, 8);
        let device = Device(disk.clone());
        let write = |file| device.operate(file, Asked::Write { at: 0, bytes: &[1] }).is_ok();
        disk.fail_once(Operation::Write, 2);
        assert_eq!([write(inode(0)), write(inode(0)), write(inode(0))], [true, false, true]);
        assert!(disk.has_failed());
        disk.cut_at(2, Kept::Nothing, Random::new(1));
        assert_eq!([write(inode(0)), write(inode(0)), write(inode(0))], [true, false, false]);
        assert!(disk.is_cut() && disk.name() == "disk-1");
        disk.power_on();
        assert_eq!([write(inode(0)), write(inode(1))], [false, true], "the device of before the cut is gone");
        assert_eq!(disk.state().medium.read(0, 1), [1]);
    }

    #[test]
    fn a_sector_is_whole_wherever_a_write_begins() {
        let left = |seed| {
            let mut medium = Medium::new(64, 8);
            assert!(medium.write(4, &[1; 16]));
            medium.lose_power(Kept::Sectors, &mut Random::new(seed));
            medium.read(0, 24).to_vec()
        };
        let halves = |byte: [u8; 4]| [[0; 4], [byte[0]; 4], [byte[1]; 4], [byte[2]; 4], [byte[3]; 4], [0; 4]].concat();
        let all: std::collections::BTreeSet<_> = (0..200).map(left).collect();
        let any = (0..8u8).map(|kept| halves([kept & 1, kept >> 1 & 1, kept >> 1 & 1, kept >> 2]));
        assert_eq!(all, any.collect());
    }

    #[test]
    fn what_was_flushed_does_not_come_back_as_it_was_before() {
        for kept in [Kept::Nothing, Kept::All, Kept::First, Kept::Sectors] {
            for seed in 0..50 {
                let mut medium = Medium::new(64, 8);
                assert!(medium.write(0, &[1; 16]) && medium.write(0, &[2; 16]));
                medium.flush();
                assert!(medium.write(8, &[3; 16]));
                medium.lose_power(kept, &mut Random::new(seed));
                let [first, second, third] = sectors(&medium);
                assert_eq!(first, 2);
                assert!([2, 3].contains(&second) && [0, 3].contains(&third), "{kept:?}: {second} {third}");
            }
        }
    }

    #[test]
    fn the_write_that_has_certain_bytes_fails_once() {
        let disk = Disk::new(64, 8);
        let write = |bytes: &[u8]| Device(disk.clone()).operate(inode(0), Asked::Write { at: 0, bytes }).is_ok();
        disk.fail_write_of(b"marked");
        assert_eq!([write(b"mark"), write(b"is marked here"), write(b"marked")], [true, false, true]);
        assert_eq!(disk.state().medium.read(0, 8), b"marked\0\0", "what failed did not get there");
    }
}
