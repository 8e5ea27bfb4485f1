//! Directories that real Apache servers left behind, whole and damaged, and what this server makes of them. Each
//! manifest and each variant is a case. Where the outcome is deliberately another than that of Apache 3.8, the table
//! [`DIFFERENT`] says which and why.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test where it stands")]

mod support;

use std::collections::BTreeMap;
use std::fs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rookeeper::ids::{SessionId, Zxid};
use rookeeper::records::{Acl, Stat};
use rookeeper::storage::recover::{Origin, recover};
use serde_json::Value;

use support::{DataDir, NodeView, StateView, options, vector, view};

fn json(path: &str) -> Value {
    serde_json::from_slice(&fs::read(vector(path)).unwrap()).unwrap()
}

fn hex(value: &Value) -> i64 {
    u64::from_str_radix(value.as_str().unwrap().trim_start_matches("0x"), 16).unwrap() as i64
}

fn int(value: &Value) -> i32 {
    i32::try_from(value.as_i64().unwrap()).unwrap()
}

/// The state that a manifest describes.
fn described(manifest: &Value) -> StateView {
    let mut nodes = BTreeMap::new();
    for node in manifest["nodes"].as_array().unwrap() {
        nodes.insert(node["path"].as_str().unwrap().to_owned(), described_node(node));
    }
    let session = |s: &Value| (SessionId(hex(&s["id"])), int(&s["timeout_ms"]));
    StateView { nodes, sessions: manifest["sessions"].as_array().unwrap().iter().map(session).collect() }
}

fn described_node(node: &Value) -> NodeView {
    let stat = &node["stat"];
    let shown = Stat {
        czxid: hex(&stat["czxid"]),
        mzxid: hex(&stat["mzxid"]),
        ctime: stat["ctime"].as_i64().unwrap(),
        mtime: stat["mtime"].as_i64().unwrap(),
        version: int(&stat["version"]),
        cversion: int(&stat["cversion"]),
        aversion: int(&stat["aversion"]),
        ephemeral_owner: hex(&stat["ephemeralOwner"]),
        data_length: int(&stat["dataLength"]),
        num_children: int(&stat["numChildren"]),
        pzxid: hex(&stat["pzxid"]),
    };
    let mut stored = rookeeper::records::StatPersisted {
        czxid: shown.czxid,
        mzxid: shown.mzxid,
        ctime: shown.ctime,
        mtime: shown.mtime,
        version: shown.version,
        cversion: int(&node["persisted_cversion"]),
        aversion: shown.aversion,
        ephemeral_owner: hex(&node["persisted_ephemeral_owner"]),
        pzxid: shown.pzxid,
    };
    stored.pzxid = shown.pzxid;
    let entry =
        |acl: &Value| Acl::new(int(&acl["perms"]), acl["scheme"].as_str().unwrap(), acl["id"].as_str().unwrap());
    NodeView {
        data: node["data"].as_str().map(|text| STANDARD.decode(text).unwrap()),
        shown,
        stored,
        acl: Some(node["acl"].as_array().unwrap().iter().map(entry).collect()),
    }
}

#[track_caller]
fn assert_same(found: &StateView, expected: &StateView) {
    assert_eq!(found.sessions, expected.sessions);
    let paths = |view: &StateView| view.nodes.keys().cloned().collect::<Vec<_>>();
    assert_eq!(paths(found), paths(expected));
    for (path, node) in &expected.nodes {
        assert_eq!(&found.nodes[path], node, "{path}");
    }
}

fn check_manifest(folder: &str) {
    let manifest = json(&format!("{folder}/manifest.json"));
    let dir = DataDir::of_vector(folder);
    let recovered = dir.recover().unwrap();
    let recovery = &manifest["recovery"];
    let opened = recovery["snapshots_opened"].as_array().unwrap().last().unwrap().as_str().unwrap();
    assert_eq!(recovered.origin, Origin::Snapshot(opened.to_owned()));
    assert_eq!(recovered.replayed, recovery["transactions_replayed"].as_u64().unwrap());
    assert_eq!(recovered.state.digest_mismatches(), recovery["digest_mismatches_reported"].as_u64().unwrap());
    assert_eq!(recovered.state.last_zxid(), Zxid(hex(&manifest["last_zxid"])));
    assert_eq!(recovered.state.tree_digest(), manifest["tree_digest"]["value"].as_u64().unwrap());
    assert_same(&view(&recovered.state), &described(&manifest));
    // What was tidied reads back as before.
    let again = dir.recover().unwrap();
    assert_eq!(again.replayed, recovered.replayed);
    assert_same(&view(&again.state), &view(&recovered.state));
}

#[test]
fn a_killed_server_comes_back() {
    check_manifest("apache-3.8");
}

#[test]
fn a_fuzzy_snapshot_that_is_ahead_of_its_log_comes_right() {
    check_manifest("apache-3.8-fuzzy/nodes-already-there");
}

#[test]
fn a_fuzzy_snapshot_that_lacks_deleted_nodes_comes_right() {
    check_manifest("apache-3.8-fuzzy/nodes-already-gone");
}

#[test]
fn a_torn_tail_is_cut_and_the_rest_comes_back() {
    check_manifest("apache-3.8-damaged/torn-tail");
}

#[test]
fn a_truncated_snapshot_is_passed_over() {
    check_manifest("apache-3.8-damaged/truncated-snapshot");
}

#[test]
fn a_flipped_byte_refuses_to_start_and_names_the_place() {
    let manifest = json("apache-3.8-damaged/flipped-byte/manifest.json");
    let dir = DataDir::of_vector("apache-3.8-damaged/flipped-byte");
    let before = dir.files();
    let message = dir.recover().unwrap_err().to_string();
    let damage = &manifest["damage"];
    let last_good = Zxid(hex(&damage["record_zxid"]) - 1);
    for part in [format!("log.ec is damaged at offset {}", damage["record_offset"]), format!("{last_good}")] {
        assert!(message.contains(&part), "{message}");
    }
    assert!(dir.files() == before, "a refused directory is left as it was");
}

#[test]
fn a_run_of_transactions_that_a_follower_logged_twice_counts_once() {
    let manifest = json("apache-3.8-logged-twice/manifest.json");
    let dir = DataDir::of_vector("apache-3.8-logged-twice");
    // The second time without the padding, which the first one trims.
    for _ in 0..2 {
        let recovered = dir.recover().unwrap();
        assert_eq!(recovered.replayed, manifest["recovery"]["transactions_replayed"].as_u64().unwrap());
        assert_eq!(recovered.state.last_zxid(), Zxid(hex(&manifest["last_zxid"])));
        assert_eq!(recovered.state.tree_digest(), manifest["tree_digest"]["value"].as_u64().unwrap());
        assert_eq!(recovered.state.digest_mismatches(), 0);
    }
}

#[test]
fn compressed_snapshots_of_apache_read_back() {
    let expected = described(&json("apache-3.8/manifest.json"));
    for name in ["snapshot.18d.gz", "snapshot.18d.snappy"] {
        let dir = DataDir::new();
        fs::copy(vector("apache-3.8-compressed").join(name), dir.file(name)).unwrap();
        let recovered = dir.recover().unwrap();
        assert_eq!(recovered.origin, Origin::Snapshot(name.to_owned()));
        assert_eq!(recovered.state.digest_mismatches(), 0);
        assert_same(&view(&recovered.state), &expected);
    }
}

/// What is expected of a variant where it is not what Apache 3.8 does.
enum Instead {
    /// Not to start, with this in the message.
    Refuses(&'static str),
    /// To start at this zxid with this tree, having replayed so many transactions.
    Starts { last_zxid: i64, replayed: u64 },
    /// To start as Apache does, having counted so many digest mismatches.
    Mismatches(u64),
}

use Instead::{Mismatches, Refuses, Starts};

/// Deliberate differences: what, and why.
const DIFFERENT: &[(&str, Instead, &str)] = &[
    (
        "torn_zero_then_record",
        Refuses("behind the damage 1 whole records up to 0x18d stand"),
        "3.8 drops a synced record and the whole one behind it in silence; no sector is missing",
    ),
    ("last_eor_flip", Refuses("it is not what an interrupted sync leaves"), "3.8 drops a record that was acknowledged"),
    ("len_past_eof", Refuses("it is not what an interrupted sync leaves"), "as above"),
    (
        "mid_eor_flip",
        Refuses("behind the damage 29 whole records up to 0x18d stand"),
        "3.8 leaves out 0x170 to 0x17b in silence; 3.9.4 refuses",
    ),
    ("mid_len_zero", Refuses("behind the damage 29 whole records up to 0x18d stand"), "as above"),
    (
        "mid_flip_before_snap",
        Starts { last_zxid: 0x18d, replayed: 38 },
        "3.8 refuses; the snapshot holds all that the damaged record did",
    ),
    (
        "log_magic",
        Starts { last_zxid: 0x18d, replayed: 38 },
        "3.8 refuses; the records behind the header are whole and go on where the log before it ends",
    ),
    ("log_empty_new", Starts { last_zxid: 0x18d, replayed: 38 }, "an empty log holds nothing; 3.9.3 removes it too"),
    ("log_hdr_partial", Starts { last_zxid: 0x18d, replayed: 38 }, "half a header holds nothing"),
    ("log_zero_file", Starts { last_zxid: 0x18d, replayed: 38 }, "zeros hold nothing"),
    (
        "dup_bak",
        Starts { last_zxid: 0x18d, replayed: 38 },
        "3.8 replays the copy on top of the log and counts 17 digest mismatches",
    ),
    ("old_log_as_new", Refuses("behind 0x18d"), "3.8 applies 0x1 to 0x6f again on top of 0x18d"),
    ("gap", Refuses("goes on with 0x17c"), "3.8 and 3.9 start without 0xec to 0x17b"),
    ("old_only_log", Refuses("goes on with 0x17c"), "3.8 and 3.9 start without 0x168 to 0x17b"),
    ("rec_gap_zxid", Refuses("goes on with 0x500"), "zxids within an epoch have no gaps; 3.9.4 refuses too"),
    ("rec_lower_zxid", Refuses("behind 0x18e"), "3.8 applies it all the same"),
    (
        "rec_close_nopaths_digest",
        Mismatches(1),
        "3.8 takes the digest for the list; it is read here, and the hand-made one is that of the tree before the close",
    ),
];

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn apply_edit(dir: &DataDir, edit: &Value) {
    let name = |key: &str| dir.file(edit[key].as_str().unwrap());
    let path = name("file");
    match edit["op"].as_str().unwrap() {
        "overwrite" => {
            let mut bytes = fs::read(&path).unwrap();
            let new = unhex(edit["hex"].as_str().unwrap());
            let at = edit["offset"].as_u64().unwrap() as usize;
            bytes.resize(bytes.len().max(at + new.len()), 0);
            bytes[at..at + new.len()].copy_from_slice(&new);
            fs::write(&path, bytes).unwrap();
        }
        "truncate" => {
            let mut bytes = fs::read(&path).unwrap();
            bytes.truncate(edit["size"].as_u64().unwrap() as usize);
            fs::write(&path, bytes).unwrap();
        }
        "create" => {
            let mut bytes = unhex(edit["hex"].as_str().unwrap());
            bytes.resize(edit["size"].as_u64().unwrap() as usize, 0);
            fs::write(&path, bytes).unwrap();
        }
        "copy of" => {
            let _bytes = fs::copy(vector("apache-3.8/version-2").join(edit["source"].as_str().unwrap()), path).unwrap();
        }
        "rename" => fs::rename(path, name("to")).unwrap(),
        "delete" => fs::remove_file(path).unwrap(),
        other => panic!("unknown edit {other}"),
    }
}

/// Runs one variant; gives what is wrong, if anything is.
fn check_variant(variant: &Value, base: &StateView) -> Result<(), String> {
    let name = variant["name"].as_str().unwrap();
    let dir = DataDir::of_vector("apache-3.8");
    variant["edits"].as_array().unwrap().iter().for_each(|edit| apply_edit(&dir, edit));
    let before = dir.files();
    let mut options = options();
    options.trust_empty = name == "snap_none_trust";
    let outcome = recover(&dir.dirs(), &options);
    let instead = DIFFERENT.iter().find(|row| row.0 == name).map(|row| &row.1);
    let apache = &variant["3.8"];
    let started = apache["started"].as_bool().unwrap();
    let mut recovered = match (instead, outcome) {
        (Some(Refuses(part)), Err(error)) if error.to_string().contains(part) => return Ok(()),
        (None, Err(_)) if !started => {
            return if dir.files() == before { Ok(()) } else { Err("changed what it refused".into()) };
        }
        (_, Err(error)) => return Err(format!("refused: {error}")),
        (Some(Refuses(_)), Ok(_)) => return Err("started".into()),
        (None, Ok(_)) if !started => return Err(format!("started, Apache said {}", apache["message"])),
        (_, Ok(recovered)) => recovered,
    };
    recovered.state.delete_orphans();
    let found = (
        recovered.state.last_zxid().0,
        recovered.replayed,
        recovered.state.digest_mismatches(),
        view(&recovered.state).nodes == base.nodes,
    );
    let expected = match instead {
        Some(Starts { last_zxid, replayed }) => (*last_zxid, *replayed, 0, true),
        other => (
            hex(&apache["last_zxid"]),
            apache["transactions_replayed"].as_u64().unwrap_or(0),
            if let Some(Mismatches(n)) = other { *n } else { apache["digest_mismatches"].as_u64().unwrap() },
            apache["tree"] == "same as apache-3.8",
        ),
    };
    if found != expected {
        return Err(format!("zxid, replayed, mismatches, same tree: {found:x?}, expected {expected:x?}"));
    }
    let opened = apache["snapshots_opened"].as_array().and_then(|list| list.last()).and_then(Value::as_str);
    match (&recovered.origin, opened) {
        (Origin::Snapshot(name), Some(opened)) if name != opened => Err(format!("opened {name}, not {opened}")),
        _ => Ok(()),
    }
}

#[test]
fn every_variant_ends_as_the_table_says() {
    let base = described(&json("apache-3.8/manifest.json"));
    let variants = json("apache-3.8-damaged/variants.json");
    let variants = variants["variants"].as_array().unwrap();
    let mut wrong = Vec::new();
    for variant in variants {
        if let Err(what) = check_variant(variant, &base) {
            wrong.push(format!("{}: {what}", variant["name"].as_str().unwrap()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(variants.len(), 65);
    for (name, ..) in DIFFERENT {
        assert!(variants.iter().any(|variant| variant["name"] == *name), "{name} is no variant");
    }
}
