//! Copies of a data directory: what they hold, and what they refuse.

use super::*;
use crate::ids::ServerId;
use crate::inspect::restore::restore;
use crate::quorum::JoinStage;

fn manifest() -> Manifest {
    let sum = Sum { bytes: 7, sha256: "ab".into() };
    let (zxid, digest) = (Zxid(0x2_0000_0001), u64::MAX);
    Manifest {
        made_by: "x 1".into(),
        time_ms: 5,
        source: "/data".into(),
        content: Content { zxid, nodes: 3, sessions: 1, digest, digest_mismatches: 0 },
        epochs: Epochs { accepted: 4, current: 2 },
        wrong_join: Some(WrongJoin {
            joint: Zxid(5),
            epoch: 2,
            last: Zxid(9),
            agreed: Zxid(3),
            leader: ServerId(3),
            stage: JoinStage::Short,
        }),
        files: vec![Entry { name: "snapshot.5.gz".into(), sum: sum.clone() }, Entry { name: "log.6".into(), sum }],
    }
}

/// A data directory of a real server, last zxid 0x18d, with these files beside.
fn data(extra: &[(&str, &str)]) -> (tempfile::TempDir, Folders) {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("data/version-2");
    fs::create_dir_all(&to).unwrap();
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/apache-3.8/version-2");
    for entry in fs::read_dir(vectors).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    extra.iter().for_each(|(name, text)| fs::write(to.join(name), text).unwrap());
    let folders = Folders { data: dir.path().join("data"), logs: None };
    (dir, folders)
}

#[test]
fn a_manifest_reads_back() {
    assert_eq!(Manifest::from_json(&manifest().to_json()), Some(manifest()));
}

#[test]
fn a_manifest_names_no_file_outside_its_folder() {
    for name in ["../log.1", "/etc/passwd", "log.1.bak", "snapshot", ""] {
        let mut value = manifest().to_json();
        value["files"][0]["name"] = name.into();
        assert_eq!(Manifest::from_json(&value), None, "{name}");
    }
}

#[test]
fn the_epochs_are_for_a_member_and_not_for_a_server_alone() {
    let (dir, folders) = data(&[("currentEpoch", "3"), ("acceptedEpoch", "5\n"), ("currentEpoch.tmp", "4")]);
    let to = dir.path().join("backup");
    assert_eq!(backup(&folders, &to, 0, true, &mut Vec::new()).unwrap(), GOOD);
    assert_eq!(Manifest::read(&to).unwrap().epochs, Epochs { accepted: 5, current: 3 });
    for (name, my_id, wanted) in
        [("member", Some(2), vec![("acceptedEpoch", "5"), ("currentEpoch", "3")]), ("alone", None, vec![])]
    {
        let new = Folders { data: dir.path().join(name), logs: None };
        assert_eq!(restore(&to, &new, my_id, true, &mut Vec::new()).unwrap(), GOOD);
        let mut found: Vec<(String, String)> = fs::read_dir(new.dirs().snapshots)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name().into_string().unwrap(), entry.path()))
            .filter(|(name, _)| name.contains("poch"))
            .map(|(name, path)| (name, fs::read_to_string(path).unwrap()))
            .collect();
        found.sort();
        assert_eq!(found, wanted.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect::<Vec<_>>(), "{name}");
        assert_eq!(new.data.join("myid").exists(), my_id.is_some());
    }
}

#[test]
fn a_member_that_has_no_voice_has_none_when_it_is_restored() {
    let (dir, folders) = data(&[]);
    let mark = manifest().wrong_join;
    wrong_join::write(&folders.dirs().snapshots, mark.as_ref()).unwrap();
    let copy = dir.path().join("copy");
    backup(&folders, &copy, 0, false, &mut Vec::new()).unwrap();
    for my_id in [None, Some(3)] {
        let to = Folders { data: dir.path().join(format!("restored{my_id:?}")), logs: None };
        restore(&copy, &to, my_id, false, &mut Vec::new()).unwrap();
        let restored = wrong_join::read(&to.dirs().snapshots).unwrap();
        assert_eq!(restored, mark.filter(|_| my_id.is_some()), "a server alone asks nobody");
    }
    // An earlier version said nothing of it.
    let mut value = manifest().to_json();
    value.as_object_mut().unwrap().remove("wrong_join");
    assert_eq!(Manifest::from_json(&value), Some(Manifest { wrong_join: None, ..manifest() }));
}

#[test]
fn nobody_else_may_read_a_backup() {
    let (dir, folders) = data(&[]);
    let to = dir.path().join("new/backup");
    backup(&folders, &to, 0, true, &mut Vec::new()).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    let inner = to.join("version-2");
    assert_eq!((mode(&to), mode(&inner), mode(&to.join(MANIFEST))), (0o700, 0o700, 0o600));
    let files: Vec<u32> = fs::read_dir(&inner).unwrap().map(|entry| mode(&entry.unwrap().path())).collect();
    assert!(files.len() > 1 && files.iter().all(|mode| *mode == 0o600), "{files:?}");
}

#[test]
fn without_epochs_there_those_of_the_last_transaction_are_taken() {
    let (dir, folders) = data(&[]);
    let to = dir.path().join("backup");
    backup(&folders, &to, 0, true, &mut Vec::new()).unwrap();
    let manifest = Manifest::read(&to).unwrap();
    assert_eq!(manifest.epochs, Epochs { accepted: 0, current: 0 });
    assert_eq!((manifest.content.zxid, manifest.content.digest), (Zxid(0x18d), 0x72_21b5_6cd6));
}

#[test]
fn a_history_that_changes_under_the_copy_is_noticed() {
    type Change = fn(&Path);
    let harmless: Change = |log| {
        let mut file = File::options().append(true).open(log).unwrap();
        file.write_all(b"more").unwrap();
    };
    let cut: Change = |log| File::options().write(true).open(log).unwrap().set_len(500).unwrap();
    let purged: Change = |log| fs::remove_file(log).unwrap();
    let replaced: Change = |log| {
        fs::copy(log, log.with_extension("new")).unwrap();
        fs::rename(log.with_extension("new"), log).unwrap();
    };
    for (change, noticed) in [(harmless, false), (cut, true), (purged, true), (replaced, true)] {
        let (dir, folders) = data(&[]);
        let log = names::list_logs(&folders.dirs().logs).unwrap().pop().unwrap();
        let needed = Needed { from: Zxid(1), next_log: None };
        let Ok(Some(copied)) = copy_log(&log, needed, dir.path()) else { panic!("it can be copied") };
        change(&log.path);
        assert_eq!(matches!(copied.check_source(), Err(Refused::Changed(_))), noticed);
    }
}

#[test]
fn damage_that_the_snapshot_covers_is_no_reason_to_refuse() {
    let (dir, folders) = data(&[]);
    let log = folders.dirs().logs.join("log.ec");
    let mut bytes = fs::read(&log).unwrap();
    bytes[1000] ^= 1;
    fs::write(&log, bytes).unwrap();
    let to = dir.path().join("backup");
    assert_eq!(backup(&folders, &to, 0, true, &mut Vec::new()).unwrap(), GOOD);
    let manifest = Manifest::read(&to).unwrap();
    assert_eq!((manifest.content.digest, manifest.files[0].name.as_str()), (0x72_21b5_6cd6, "snapshot.167"));
}

#[test]
fn an_older_snapshot_does_when_the_newest_is_damaged() {
    let (dir, folders) = data(&[]);
    let newest = folders.dirs().snapshots.join("snapshot.167");
    let mut bytes = fs::read(&newest).unwrap();
    bytes[1000] ^= 1;
    fs::write(&newest, bytes).unwrap();
    let to = dir.path().join("backup");
    assert_eq!(backup(&folders, &to, 0, true, &mut Vec::new()).unwrap(), GOOD);
    let manifest = Manifest::read(&to).unwrap();
    assert_eq!((manifest.content.digest, manifest.files[0].name.as_str()), (0x72_21b5_6cd6, "snapshot.a3"));
}
