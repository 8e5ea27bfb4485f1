//! Files that are written durably, copied, removed and found, on the host and where a sync fails.

use super::*;

#[test]
fn of_a_file_that_is_much_longer_than_it_should_be_only_so_much_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let (name, dir) = ("currentEpoch", Dir::of_host(folder.path()));
    let path = dir.join(name);
    assert_eq!(dir.read_small(name).unwrap(), None);
    fs::write(&path, b"5").unwrap();
    assert_eq!(dir.read_small(name).unwrap().unwrap(), b"5");
    File::options().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(dir.read_small(name).unwrap().unwrap().len() as u64, SMALL_BYTES_MAX);
}

#[test]
fn what_was_trimmed_while_a_file_is_read_was_zeros() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    fs::write(&path, [1; 6]).unwrap();
    let mut bytes = [9; 8];
    read_what_is_left(&File::open(&path).unwrap(), &mut bytes, 2).unwrap();
    assert_eq!(bytes, [1, 1, 1, 1, 0, 0, 0, 0]);
    read_what_is_left(&File::open(&path).unwrap(), &mut bytes, 100).unwrap();
    assert_eq!(bytes, [0; 8]);
}

#[test]
fn a_cut_takes_small_steps_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let file = File::create(&path).unwrap();
    io::Write::write_all(&mut &file, &vec![1; 2 * CUT_BYTES as usize + 10]).unwrap();
    let mut cut = Cut::new(Box::new(file), 7).unwrap();
    let mut lengths = Vec::new();
    while cut.step().unwrap() {
        lengths.push(fs::metadata(&path).unwrap().len());
    }
    assert_eq!(lengths, [CUT_BYTES + 10, 10]);
    assert_eq!(fs::metadata(&path).unwrap().len(), 7);
    assert!(!cut.step().unwrap());
}

#[test]
fn a_hole_is_cut_off_in_one_step() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let file = File::create(&path).unwrap();
    file.set_len(100 * CUT_BYTES).unwrap();
    let mut cut = Cut::new(Box::new(file), 7).unwrap();
    assert!(!cut.step().unwrap());
    cut.finish().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 7);
}

fn gone(checked: io::Result<()>) -> Option<Gone> {
    checked.err().as_ref().and_then(Gone::of).cloned()
}

#[test]
fn a_name_that_leads_elsewhere_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, elsewhere) = (dir.path().join("folder"), dir.path().join("elsewhere"));
    fs::create_dir(&folder).unwrap();
    let identity = Identity::of(&fs::metadata(&folder).unwrap());
    assert_eq!(gone(identity.check(&folder)), None);
    fs::rename(&folder, &elsewhere).unwrap();
    assert_eq!(gone(identity.check(&folder)), Some(Gone::Away(folder.clone())));
    fs::create_dir(&folder).unwrap();
    assert_eq!(gone(identity.check(&folder)), Some(Gone::Replaced(folder.clone())));
    fs::remove_dir(&folder).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &folder).unwrap();
    assert_eq!(gone(identity.check(&folder)), None, "a link to it will do");
}

#[test]
fn what_an_error_is_about_does_not_hide_what_it_says() {
    let at = |number| at_path(Path::new("/data"), io::Error::from_raw_os_error(number));
    assert!(is_full(&at(libc::EDQUOT)) && is_lost(&at(libc::EIO)) && is_out_of_descriptors(&at(libc::EMFILE)));
    assert!(!is_full(&at(libc::EIO)) && !is_full(&io::Error::other("full")));
    assert!(advice(&at(libc::EROFS)).contains("read-only") && at(libc::EROFS).to_string().starts_with("/data: "));
}

#[test]
fn what_a_file_system_cannot_do_is_told_from_what_fails() {
    for number in [libc::EINVAL, libc::EIO, libc::ENOSPC, libc::ENOLCK] {
        let error = io::Error::from_raw_os_error(number);
        assert_eq!(cannot_sync_folders(&error), number == libc::EINVAL);
        assert_eq!(knows_no_locks(&error), number == libc::ENOLCK);
    }
}

#[test]
fn room_is_looked_for_and_nothing_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    Files::host().check_room(dir.path(), 1 << 20).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    assert!(!is_full(&Files::host().check_room(&dir.path().join("nowhere"), 1).unwrap_err()));
}

#[test]
fn an_exchange_keeps_the_file_that_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("new"), dir.path().join("name"));
    fs::write(&from, b"1").unwrap();
    assert!(!Files::host().exchange_durably(&from, &to).unwrap());
    fs::write(&from, b"2").unwrap();
    assert!(Files::host().exchange_durably(&from, &to).unwrap());
    assert_eq!((fs::read(&to).unwrap(), fs::read(&from).unwrap()), (b"2".to_vec(), b"1".to_vec()));
}

/// A file whose disk cannot read some of its blocks any more.
#[derive(Debug)]
struct Worn {
    bytes: Vec<u8>,
    lost: Vec<usize>,
    error: i32,
}

impl OpenFile for Worn {
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        let from = (at as usize).min(self.bytes.len());
        let read = bytes.len().min(self.bytes.len() - from);
        let lost = |block: &usize| from < (block + 1) * LOST_BYTES && block * LOST_BYTES < from + read;
        if self.lost.iter().any(lost) {
            return Err(io::Error::from_raw_os_error(self.error));
        }
        bytes[..read].copy_from_slice(&self.bytes[from..from + read]);
        Ok(read)
    }
    fn length(&self) -> io::Result<u64> {
        Ok(self.bytes.len() as u64)
    }
    fn allocated(&self) -> io::Result<u64> {
        self.length()
    }
    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        unreachable!("it is read only")
    }
    fn set_length(&self, _: u64) -> io::Result<()> {
        unreachable!("it is read only")
    }
    fn allocate(&self, _: usize) -> io::Result<()> {
        unreachable!("it is read only")
    }
    fn sync_data(&self) -> io::Result<()> {
        unreachable!("it is read only")
    }
    fn sync_all(&self) -> io::Result<()> {
        unreachable!("it is read only")
    }
    fn write_out(&self, _: u64, _: u64) -> io::Result<()> {
        unreachable!("it is read only")
    }
    fn forget(&self, _: u64) {}
}

#[test]
fn what_a_disk_cannot_read_is_zeros_and_the_rest_is_there() {
    let bytes: Vec<u8> = (0..4 * LOST_BYTES).map(|at| (at / LOST_BYTES) as u8 + 1).collect();
    let mut worn = Worn { bytes: bytes.clone(), lost: vec![1, 3], error: libc::EIO };
    let mut read = vec![9; 4 * LOST_BYTES];
    read_what_is_left(&worn, &mut read, 0).unwrap();
    assert!(read.chunks(LOST_BYTES).map(|block| block[0]).eq([1, 0, 3, 0]));
    assert!(read.chunks(LOST_BYTES).all(|block| block.iter().all(|b| *b == block[0])));
    // A disk that says something else may have it yet.
    worn.error = libc::ENOMEM;
    assert_eq!(read_what_is_left(&worn, &mut read, 0).unwrap_err().raw_os_error(), Some(libc::ENOMEM));
}

#[test]
fn what_cannot_be_looked_at_is_not_taken_for_what_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    // Below a file there can be none: an error, but not that nothing has the name.
    assert!(Files::host().make_durable(&file.join("acceptedEpoch")).is_err());
    assert!(Dir::of_host(&file).read_small("acceptedEpoch").is_err());
    Files::host().make_durable(&folder.path().join("acceptedEpoch")).unwrap();
    assert_eq!(Dir::of_host(folder.path()).read_small("acceptedEpoch").unwrap(), None);
    assert!(Files::host().create_dirs(&file).is_err());
    assert!(Files::host().check_writable(&folder.path().join("none")).is_err());
}

#[test]
fn a_folder_is_one_process_s_until_that_lets_it_go() {
    let folder = tempfile::tempdir().unwrap();
    let lock = lock_dir(folder.path()).unwrap();
    assert!(lock.is_some() && lock_dir(folder.path()).unwrap().is_none());
    drop(lock);
    assert!(lock_dir(folder.path()).unwrap().is_some());
}
