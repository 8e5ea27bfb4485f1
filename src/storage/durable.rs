//! Makes durable what a recovery stands on, before anybody is answered from it. When a sync fails, the server ends; but the
//! kernel takes the pages for clean from then on, and the next start reads in them what the disk never got. A second sync
//! has nothing to write and succeeds. So the records that the last sync can have covered are written once more where they
//! stand, and synced.
//!
//! Written anew, and not read past the cache: that works on every file system (direct reads do not, and what a hint to drop
//! the cache did cannot be told), it leaves cache and disk saying the same, and whether the disk still fails is answered by
//! the sync. A crash meanwhile harms nothing: each sector is replaced by itself.
//!
//! Names need no more than another sync of their folder: file systems end in read-only mode when they cannot write their
//! own structures. Snapshots, epochs and configuration files are synced before they get their names, so what has the name is
//! durable, but for files that Apache wrote; [`Files::make_durable`] is for those. Used by `recover`.

use std::collections::VecDeque;
use std::io;
use std::path::Path;

use crate::limits::LOG_BATCH_RECORDS_MAX;
use crate::storage::logdir::FileEnd;
use crate::storage::txnlog::{self, Parsed};
use crate::sys::files::{Files, read_exact};

/// Bytes written again at a start, at most. More than one of our own batches has, unless it is a single record, which is
/// written whatever it has; a batch of Apache, which counts no bytes, nearly always.
const REWRITTEN_BYTES_MAX: usize = 16 << 20;

/// A record that was replayed.
#[derive(Clone, Copy, Debug)]
struct Replayed {
    /// Which of the files read.
    file: usize,
    offset: u64,
    bytes: usize,
}

/// The last records replayed: as many as one sync can have covered.
#[derive(Debug, Default)]
pub struct LastRecords {
    records: VecDeque<Replayed>,
    bytes: usize,
}

impl LastRecords {
    /// A record was replayed, of this file.
    pub fn push(&mut self, file: usize, offset: u64, bytes: usize) {
        self.records.push_back(Replayed { file, offset, bytes });
        self.bytes += bytes;
        while self.records.len() > LOG_BATCH_RECORDS_MAX || (self.bytes > REWRITTEN_BYTES_MAX && self.records.len() > 1)
        {
            self.bytes -= self.records.pop_front().map_or(0, |record| record.bytes);
        }
    }

    /// Writes them again: `rewrite` puts bytes where they stand, durably. Gives the error and the file it is about.
    pub fn make_durable<'a>(
        &self,
        files: &Files,
        ends: &'a [FileEnd],
        mut rewrite: impl FnMut(&Path, u64, &[u8]) -> io::Result<()>,
    ) -> Result<(), (&'a Path, io::Error)> {
        let mut records = self.records.iter().copied().peekable();
        while let Some(Replayed { file, offset, mut bytes }) = records.next() {
            let goes_on = |next: &Replayed, bytes| next.file == file && next.offset == offset + bytes as u64;
            while let Some(next) = records.next_if(|next| goes_on(next, bytes)) {
                bytes += next.bytes;
            }
            let path = ends[file].path.as_path();
            let read = read_again(files, path, offset, bytes);
            read.and_then(|bytes| rewrite(path, offset, &bytes)).map_err(|error| (path, error))?;
        }
        Ok(())
    }
}

/// Reads records that were read before. The kernel may have dropped them from memory meanwhile; what the disk has instead
/// must not be taken for them.
fn read_again(files: &Files, path: &Path, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
    let mut read = vec![0; bytes];
    read_exact(&*files.open(path)?, &mut read, offset)?;
    let mut rest = &read[..];
    while !rest.is_empty() {
        let Ok(Parsed::Record { bytes, .. }) = txnlog::parse(rest, rest.len() as u64, 0) else {
            return Err(io::Error::other("the disk does not hold what was read a moment ago"));
        };
        rest = &rest[bytes..];
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::logdir::Ending;
    use crate::storage::txnlog::END_BYTE;
    use std::path::PathBuf;

    fn record(payload: &[u8]) -> Vec<u8> {
        [&txnlog::prefix(payload)[..], payload, &[END_BYTE]].concat()
    }

    /// Files of these records, and all of them as replayed.
    fn files(contents: &[Vec<Vec<u8>>]) -> (tempfile::TempDir, Vec<FileEnd>, LastRecords) {
        let dir = tempfile::tempdir().unwrap();
        let (mut ends, mut last) = (Vec::new(), LastRecords::default());
        for (file, records) in contents.iter().enumerate() {
            let path = dir.path().join(format!("log.{file}"));
            std::fs::write(&path, [txnlog::header().to_vec(), records.concat()].concat()).unwrap();
            let mut offset = txnlog::HEADER_BYTES as u64;
            for record in records {
                last.push(file, offset, record.len());
                offset += record.len() as u64;
            }
            ends.push(FileEnd { path, offset, length: offset, last: None, ending: Ending::Clean, repeats: 0 });
        }
        (dir, ends, last)
    }

    fn rewritten(ends: &[FileEnd], last: &LastRecords) -> Vec<(PathBuf, u64, usize)> {
        let mut done = Vec::new();
        let note = |path: &Path, at, bytes: &[u8]| {
            assert_eq!(&std::fs::read(path).unwrap()[at as usize..][..bytes.len()], bytes);
            done.push((path.to_owned(), at, bytes.len()));
            Ok(())
        };
        last.make_durable(&Files::host(), ends, note).unwrap();
        done
    }

    #[test]
    fn what_one_sync_can_cover_is_written_again_in_both_files_of_a_roll() {
        let small = || record(&[1; 100]);
        let (_dir, ends, last) = files(&[vec![small(); 600], vec![small(); 600]]);
        let bytes = small().len();
        assert_eq!(
            rewritten(&ends, &last),
            [(ends[0].path.clone(), 16 + 200 * bytes as u64, 400 * bytes), (ends[1].path.clone(), 16, 600 * bytes)]
        );
    }

    #[test]
    fn behind_a_long_log_it_is_no_less() {
        let mut last = LastRecords::default();
        (0..40_000).for_each(|n| last.push(0, n * 1_000, 1_000));
        assert_eq!(last.records.len(), LOG_BATCH_RECORDS_MAX);
    }

    #[test]
    fn large_records_are_bounded_and_the_last_one_is_always_written() {
        let huge = record(&vec![1; REWRITTEN_BYTES_MAX + 1]);
        let (_dir, ends, last) = files(&[vec![record(&[1; 10]), huge.clone()]]);
        assert_eq!(rewritten(&ends, &last), [(ends[0].path.clone(), 16 + 23, huge.len())]);
    }

    #[test]
    fn a_disk_that_fails_again_or_forgot_meanwhile_is_told_with_the_file() {
        let (_dir, ends, last) = files(&[vec![record(&[1; 10])], vec![record(&[2; 10])]]);
        let fails_at_second = |path: &Path, _, _: &[u8]| {
            if path == ends[1].path { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) }
        };
        let (path, error) = last.make_durable(&Files::host(), &ends, fails_at_second).unwrap_err();
        assert_eq!((path, error.raw_os_error()), (ends[1].path.as_path(), Some(libc::EIO)));

        // The pages went, and the disk never had the record.
        std::fs::write(&ends[0].path, [&txnlog::header()[..], &[0; 23]].concat()).unwrap();
        let (path, error) =
            last.make_durable(&Files::host(), &ends, |_, _, _| panic!("nothing may be written")).unwrap_err();
        assert_eq!(path, ends[0].path.as_path());
        assert!(error.to_string().contains("a moment ago"), "{error}");
    }
}
