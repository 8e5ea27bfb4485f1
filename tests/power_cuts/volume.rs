//! A file system of the kernel's on a disk of ours. Everything here is mounted in a namespace of this process, and ends
//! with it, whatever ends it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use fuser::{BackgroundSession, Config};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use crate::disk::{Device, Disk};

/// Room of a disk: xfs takes no less than 300 MB. Memory is used for what is written only.
const DISK_BYTES: usize = 512 << 20;
/// A block of each of the file systems.
const BLOCK_BYTES: usize = 4096;
/// Lines of the kernel's log that are shown when something cannot be mounted.
const LINES_SHOWN: usize = 15;
/// What fills a volume up.
const BALLAST: &str = "ballast";

/// The file systems that servers run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    Ext4,
    Xfs,
    Btrfs,
}

impl FileSystem {
    pub const ALL: [FileSystem; 3] = [FileSystem::Ext4, FileSystem::Xfs, FileSystem::Btrfs];

    pub const fn name(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "ext4",
            FileSystem::Xfs => "xfs",
            FileSystem::Btrfs => "btrfs",
        }
    }

    /// The program that makes one on a disk with such sectors, and its arguments. Nothing is left to be done while it is in
    /// use, and nothing discarded.
    fn making(self, sector_bytes: usize) -> (&'static str, &'static [&'static str]) {
        const EXT4: [&str; 6] = ["-q", "-F", "-E", "nodiscard,lazy_itable_init=0", "-O", "^metadata_csum"];
        match self {
            FileSystem::Ext4 => ("mkfs.ext4", if sector_bytes < BLOCK_BYTES { &EXT4 } else { EXT4.split_at(4).0 }),
            FileSystem::Xfs => ("mkfs.xfs", &["-q", "-f", "-K"]),
            FileSystem::Btrfs => ("mkfs.btrfs", &["-q", "-f", "-K"]),
        }
    }

    /// The programs that all of them need.
    pub fn programs() -> impl Iterator<Item = &'static str> {
        FileSystem::ALL.into_iter().map(|kind| kind.making(BLOCK_BYTES).0)
    }

    /// Sectors that it can live with, whatever they are said to be: a file system with checksums counts on each of its
    /// blocks being written whole, at least where it reads one before it has recovered, or does not recover what it takes for
    /// newer: the superblock of ext4, whose checksum is in the second of its two sectors of 512; blocks of xfs, which say at
    /// their beginning how new they are; the superblock of btrfs. ext4 without checksums counts on nothing.
    pub fn sector_bytes(self) -> &'static [usize] {
        match self {
            FileSystem::Ext4 => &[512, BLOCK_BYTES],
            FileSystem::Xfs | FileSystem::Btrfs => &[BLOCK_BYTES],
        }
    }
}

/// Runs a program that must succeed.
pub fn run(program: &str, arguments: &[&str], on: &[&Path]) -> Result<(), String> {
    let output =
        Command::new(program).args(arguments).args(on).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {} {on:?}: {}: {}", arguments.join(" "), output.status, said.trim()))
}

/// The end of the kernel's log. It is that of all mounts here.
fn kernel_said() -> String {
    let said = Command::new("dmesg").output().map(|output| output.stdout).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<_> = said.lines().collect();
    lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n  ")
}

/// A disk with a file system, which may be mounted.
pub struct Volume {
    pub disk: Disk,
    kind: FileSystem,
    /// Where the disk is a file.
    device: PathBuf,
    /// Where the file system is.
    pub folder: PathBuf,
    is_mounted: bool,
    _session: BackgroundSession,
}

impl Volume {
    /// A new one in this folder, not mounted.
    pub fn make(within: &Path, kind: FileSystem, sector_bytes: usize) -> Result<Volume, String> {
        let (device, folder) = (within.join("device"), within.join("files"));
        [&device, &folder].into_iter().try_for_each(std::fs::create_dir_all).map_err(|error| error.to_string())?;
        let disk = Disk::new(DISK_BYTES, sector_bytes);
        let session = fuser::spawn_mount(Device(disk.clone()), &device, &Config::default())
            .map_err(|error| format!("the disk cannot be mounted at {}: {error}", device.display()))?;
        let volume = Volume { disk, kind, device, folder, is_mounted: false, _session: session };
        let (program, arguments) = kind.making(sector_bytes);
        run(program, arguments, &[&volume.file()])?;
        Ok(volume)
    }

    fn file(&self) -> PathBuf {
        self.device.join(self.disk.name())
    }

    /// Mounts it, by a loop device that goes with the mount.
    pub fn mount(&mut self) -> Result<(), String> {
        run("mount", &["-t", self.kind.name(), "-o", "loop"], &[&self.file(), &self.folder])
            .map_err(|error| format!("{error}\nthe kernel said at last:\n  {}", kernel_said()))?;
        self.is_mounted = true;
        Ok(())
    }

    /// Unmounts it, if it is mounted. Nobody uses it any more.
    pub fn unmount(&mut self) -> Result<(), String> {
        if std::mem::take(&mut self.is_mounted) { run("umount", &[], &[&self.folder]) } else { Ok(()) }
    }

    /// A file that an operator made, long ago.
    pub fn write(&self, name: &str, text: &str) -> Result<(), String> {
        let path = self.folder.join(name);
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        run("sync", &["--file-system"], &[&path])
    }

    /// Whether anything can be made on it. Nothing is synced.
    pub fn takes_files(&self) -> bool {
        let path = self.folder.join("probe");
        File::create(&path).and_then(|_| std::fs::remove_file(&path)).is_ok()
    }

    /// Leaves no room.
    pub fn fill(&self) -> Result<(), String> {
        let told = |error: &dyn std::fmt::Display| format!("{} cannot be filled up: {error}", self.folder.display());
        let ballast = File::create(self.folder.join(BALLAST)).map_err(|error| told(&error))?;
        let (mut at, mut step) = (0, 32 << 20);
        while step >= 4096 {
            match fallocate(&ballast, FallocateFlags::empty(), at, step) {
                Ok(()) => at += step,
                Err(Errno::ENOSPC) => step /= 2,
                // The power may go meanwhile.
                Err(_) if self.disk.is_cut() => return Ok(()),
                Err(error) => return Err(told(&error)),
            }
        }
        Ok(())
    }

    /// Makes room again, where there was none.
    pub fn make_room(&self) -> Result<(), String> {
        match std::fs::remove_file(self.folder.join(BALLAST)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(format!("no room can be made: {error}")),
            _ => Ok(()),
        }
    }
}

impl Drop for Volume {
    /// Lazily, since a test that failed may have left it in any state. The session ends with its mount.
    fn drop(&mut self) {
        self.disk.resume();
        if self.is_mounted {
            let _ = run("umount", &["--lazy"], &[&self.folder]);
        }
        let _ = run("umount", &["--lazy"], &[&self.device]);
    }
}
