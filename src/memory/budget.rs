//! Where the budget comes from: the smallest of what the service manager, a container and the host give. Pure;
//! `sys::memory` reads the files.

use std::path::{Path, PathBuf};

/// What bounds the memory of the process, and where that stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Budget {
    /// Bytes.
    pub bytes: u64,
    /// A key, a file, or the host.
    pub source: String,
}

impl Budget {
    /// The smallest of what is set: of the files of control groups with what they say, and the memory of the host.
    pub fn smallest(files: impl IntoIterator<Item = (PathBuf, String)>, host: u64) -> Budget {
        let host = Budget { bytes: host, source: "the memory of this host".to_owned() };
        let limit = |(path, text): (PathBuf, String)| {
            let bytes = text.trim().parse().ok()?;
            Some(Budget { bytes, source: path.display().to_string() })
        };
        files
            .into_iter()
            .filter_map(limit)
            .fold(host, |least, next| if next.bytes < least.bytes { next } else { least })
    }
}

/// Where the limits of a process stand, from its own group up to the root of what it sees: by `/proc/self/cgroup` and
/// `/proc/self/mountinfo`. systemd's `MemoryMax`, `docker run --memory` and the limit of a Kubernetes container are there.
pub fn limit_files(cgroup: &str, mountinfo: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in cgroup.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let (kind, file) = match controllers {
            "" => ("cgroup2", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => ("cgroup", "memory.limit_in_bytes"),
            _ => continue,
        };
        for (root, mount) in mountinfo.lines().filter_map(|line| mount_of(line, kind)) {
            // A container may see only its own part of the tree, by the name that the host has for it.
            let inside = Path::new(path).strip_prefix(root).or_else(|_| Path::new(path).strip_prefix("/"));
            let Ok(inside) = inside else { continue };
            files.extend(inside.ancestors().map(|group| Path::new(mount).join(group).join(file)));
        }
    }
    files
}

/// Root and place of a mount of control groups of this kind, with the memory controller if it is one of several.
fn mount_of<'a>(line: &'a str, kind: &str) -> Option<(&'a str, &'a str)> {
    let (left, right) = line.split_once(" - ")?;
    let mut right = right.split(' ');
    let (found, options) = (right.next()?, right.nth(1)?);
    let has_memory = kind == "cgroup2" || options.split(',').any(|option| option == "memory");
    let mut left = left.split(' ').skip(3);
    let place = (left.next()?, left.next()?);
    (found == kind && has_memory).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";

    fn paths(files: Vec<PathBuf>) -> Vec<String> {
        files.into_iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn limits_are_looked_for_from_the_own_group_up_to_the_root() {
        let mounts = "24 1 0:22 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(
            paths(limit_files("0::/system.slice/rookeeper.service\n", mounts)),
            [
                "/sys/fs/cgroup/system.slice/rookeeper.service/memory.max",
                "/sys/fs/cgroup/system.slice/memory.max",
                "/sys/fs/cgroup/memory.max"
            ]
        );
        assert_eq!(
            paths(limit_files("9:name=systemd:/\n4:memory:/a/b\n3:cpuset:/\n0::/\n", V1)),
            [
                "/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "/sys/fs/cgroup/unified/memory.max"
            ]
        );
        assert_eq!(paths(limit_files("no such thing", "nor this\n- \n 1 2 - x")), [""; 0]);
    }

    #[test]
    fn a_container_sees_its_own_group_as_the_root() {
        let mounts = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory";
        assert_eq!(paths(limit_files("4:memory:/docker/abc", mounts)), ["/sys/fs/cgroup/memory/memory.limit_in_bytes"]);
    }

    #[test]
    fn the_smallest_limit_is_the_budget() {
        let files = |texts: &[&str]| {
            let named = |(n, text): (usize, &&str)| (PathBuf::from(format!("/{n}")), (*text).to_owned());
            texts.iter().enumerate().map(named).collect::<Vec<_>>()
        };
        let budget = Budget::smallest(files(&["max\n", "2040109465\n", "9223372036854771712"]), 24 << 30);
        assert_eq!(budget, Budget { bytes: 2_040_109_465, source: "/1".to_owned() });
        let host = Budget::smallest(files(&["max", "", "9223372036854771712"]), 24 << 30);
        assert_eq!((host.bytes, host.source.as_str()), (24 << 30, "the memory of this host"));
    }
}
