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

    fn name(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "ext4",
            FileSystem::Xfs => "xfs",
            FileSystem::Btrfs => "btrfs",
        }
    }

    /// The program that makes one, and its arguments. Nothing is left to be done while it is in use, and nothing discarded.
    fn making(self) -> (&'static str, &'static [&'static str]) {
        match self {
            FileSystem::Ext4 => ("mkfs.ext4", &["-q", "-F", "-E", "nodiscard,lazy_itable_init=0"]),
            FileSystem::Xfs => ("mkfs.xfs", &["-q", "-f", "-K"]),
            FileSystem::Btrfs => ("mkfs.btrfs", &["-q", "-f", "-K"]),
        }
    }

    /// The programs that all of them need.
    pub fn programs() -> impl Iterator<Item = &'static str> {
        FileSystem::ALL.into_iter().map(|kind| kind.making().0)
    }

    /// Bytes that its disk writes whole or not at all. btrfs counts on 4096: it has one superblock of that size that counts.
    pub fn sector_bytes(self) -> &'static [usize] {
        match self {
            FileSystem::Ext4 | FileSystem::Xfs => &[512, 4096],
            FileSystem::Btrfs => &[4096],
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
    pub fn make(within: &Path, kind: FileSystem) -> Result<Volume, String> {
        let (device, folder) = (within.join("device"), within.join("files"));
        [&device, &folder].into_iter().try_for_each(std::fs::create_dir_all).map_err(|error| error.to_string())?;
        let disk = Disk::new(DISK_BYTES);
        let session = fuser::spawn_mount(Device(disk.clone()), &device, &Config::default())
            .map_err(|error| format!("the disk cannot be mounted at {}: {error}", device.display()))?;
        let volume = Volume { disk, kind, device, folder, is_mounted: false, _session: session };
        let (program, arguments) = kind.making();
        run(program, arguments, &[&volume.file()])?;
        Ok(volume)
    }

    fn file(&self) -> PathBuf {
        self.device.join(self.disk.name())
    }

    /// Mounts it, by a loop device that goes with the mount.
    pub fn mount(&mut self) -> Result<(), String> {
        run("mount", &["-t", self.kind.name(), "-o", "loop"], &[&self.file(), &self.folder])?;
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
