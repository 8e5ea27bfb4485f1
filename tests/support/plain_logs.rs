//! Log files of a fixed size on whatever file system there is, as the host's are (`threads::txnlog::MappedFiles`), without
//! what makes those fast.

use std::io;
use std::path::PathBuf;

use rookeeper::ids::Zxid;
use rookeeper::storage::dirs::DataDirs;
use rookeeper::storage::names;
use rookeeper::storage::writer::{LogFile, LogFiles};
use rookeeper::sys::file_system::OpenFile;

/// Makes them.
#[derive(Debug)]
pub struct PlainLogs {
    dirs: DataDirs,
    bytes: usize,
    made: u64,
}

/// One of them.
#[derive(Debug)]
pub struct PlainLog {
    file: Box<dyn OpenFile>,
    path: PathBuf,
    bytes: usize,
}

impl PlainLogs {
    /// In the log folder; each has room for so many bytes.
    pub fn new(dirs: &DataDirs, bytes: usize) -> PlainLogs {
        PlainLogs { dirs: dirs.clone(), bytes, made: 0 }
    }
}

impl LogFile for PlainLog {
    fn capacity(&self) -> usize {
        self.bytes
    }

    fn store(&mut self, at: usize, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, at as u64)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

impl LogFiles for PlainLogs {
    type File = PlainLog;

    fn next(&mut self, bytes_min: usize) -> io::Result<PlainLog> {
        let path = self.dirs.logs.join(format!("{}{}", names::NEXT_LOG_PREFIX, self.made));
        self.made += 1;
        let bytes = self.bytes.max(bytes_min);
        let file = self.dirs.files().create(&path)?;
        file.allocate(bytes)?;
        Ok(PlainLog { file, path, bytes })
    }

    fn publish(&mut self, log: &mut PlainLog, first: Zxid) -> io::Result<()> {
        let path = self.dirs.logs.join(names::log_name(first));
        self.dirs.files().rename_new_durably(&log.path, &path)?;
        log.path = path;
        Ok(())
    }

    fn flushed(&mut self, _end: usize) {}

    fn retire(&mut self, log: PlainLog, end: usize) {
        // Padding that stays is passed over.
        let _ = log.file.set_length(end as u64);
    }
}
