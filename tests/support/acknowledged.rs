//! What a client was told, and so may expect to find: the nodes that it alone writes, one write after the other. After
//! whatever happened, what is there is what it was told, or that with the one write more that had no answer yet, whole.
//! Knows nothing of servers; the code of the server has no part in it.

use std::collections::BTreeMap;

/// A node, as a read tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub value: Vec<u8>,
    pub version: i32,
    pub czxid: i64,
    pub mzxid: i64,
}

/// What a client may ask for.
#[derive(Clone, Debug)]
pub enum Write {
    Create {
        path: String,
        value: Vec<u8>,
    },
    Set {
        path: String,
        value: Vec<u8>,
    },
    /// All of these, or none.
    Delete {
        paths: Vec<String>,
    },
}

/// Until a read tells the zxid of a write that had no answer.
const UNKNOWN: i64 = 0;

/// See the module.
#[derive(Debug, Default)]
pub struct Acknowledged {
    nodes: BTreeMap<String, Node>,
    asked: Option<Write>,
    /// Writes that were answered.
    pub writes: u64,
    /// The last of them that told a zxid.
    last_zxid: i64,
}

impl Acknowledged {
    /// What is known to be there.
    pub fn nodes(&self) -> &BTreeMap<String, Node> {
        &self.nodes
    }

    /// Whether a write has no answer yet.
    pub fn is_in_doubt(&self) -> bool {
        self.asked.is_some()
    }

    /// This write is about to be sent. The one before has its answer, or was looked for.
    pub fn ask(&mut self, write: Write) {
        assert!(!self.is_in_doubt(), "one write after the other");
        self.asked = Some(write);
    }

    /// The write was answered: its zxid, and the version of the node that it wrote, where the answer tells them.
    pub fn acknowledge(&mut self, told: Option<(i64, i32)>) -> Result<(), String> {
        let write = self.asked.take().expect("an answer is to a question");
        self.nodes = after(&self.nodes, &write, told.map_or(UNKNOWN, |(zxid, _)| zxid));
        self.writes += 1;
        let (Some((zxid, version)), Write::Create { path, .. } | Write::Set { path, .. }) = (told, &write) else {
            return Ok(());
        };
        let expected = self.nodes[path].version;
        if version != expected {
            return Err(format!("{path}: a write is acknowledged as version {version}, which must be {expected}"));
        }
        if zxid <= self.last_zxid {
            return Err(format!(
                "{path}: a write is acknowledged as {zxid:#x}, one before it as {:#x}",
                self.last_zxid
            ));
        }
        self.last_zxid = zxid;
        Ok(())
    }

    /// Compares with what is there, which tells whether the write without an answer happened.
    pub fn find(&mut self, found: BTreeMap<String, Node>) -> Result<(), String> {
        let lacking = differences(&self.nodes, &found, self.last_zxid);
        if lacking.is_empty() {
            self.asked = None;
            return Ok(());
        }
        let happened = self.asked.as_ref().map(|write| after(&self.nodes, write, UNKNOWN));
        if happened.is_some_and(|nodes| differences(&nodes, &found, self.last_zxid).is_empty()) {
            self.nodes = found;
            self.asked = None;
            return Ok(());
        }
        let doubt = self.asked.as_ref().map_or("nothing", |write| match write {
            Write::Create { path, .. } | Write::Set { path, .. } => path,
            Write::Delete { paths } => &paths[0],
        });
        Err(format!("{} ({} writes were acknowledged; without an answer: {doubt})", lacking.join("; "), self.writes))
    }
}

fn after(nodes: &BTreeMap<String, Node>, write: &Write, zxid: i64) -> BTreeMap<String, Node> {
    let mut nodes = nodes.clone();
    match write {
        Write::Create { path, value } => {
            nodes.insert(path.clone(), Node { value: value.clone(), version: 0, czxid: zxid, mzxid: zxid });
        }
        Write::Set { path, value } => {
            let node = nodes.get_mut(path).expect("it is there");
            *node = Node { value: value.clone(), version: node.version + 1, czxid: node.czxid, mzxid: zxid };
        }
        Write::Delete { paths } => paths.iter().for_each(|path| {
            nodes.remove(path);
        }),
    }
    nodes
}

/// A zxid that is not known is later than all that are.
fn is_zxid(expected: i64, found: i64, last: i64) -> bool {
    if expected == UNKNOWN { found > last } else { found == expected }
}

fn differences(expected: &BTreeMap<String, Node>, found: &BTreeMap<String, Node>, last: i64) -> Vec<String> {
    let told = |node: &Node| format!("version {} of {:#x} with {} bytes", node.version, node.mzxid, node.value.len());
    let mut differences = Vec::new();
    for (path, node) in expected {
        match found.get(path) {
            None => differences.push(format!("{path}: {} is lost", told(node))),
            Some(other) if other.version != node.version || !is_zxid(node.mzxid, other.mzxid, last) => {
                differences.push(format!("{path}: {} was acknowledged, there is {}", told(node), told(other)));
            }
            Some(other) if !is_zxid(node.czxid, other.czxid, last) => {
                differences.push(format!("{path}: created by {:#x}, not by {:#x}", other.czxid, node.czxid));
            }
            Some(other) if other.value != node.value => {
                differences.push(format!("{path}: {} has another value than what was written", told(node)));
            }
            Some(_) => {}
        }
    }
    let more = found.iter().filter(|(path, _)| !expected.contains_key(*path));
    differences.extend(more.map(|(path, node)| format!("{path}: {} is there, and must not be", told(node))));
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(value: &[u8], version: i32, czxid: i64, mzxid: i64) -> Node {
        Node { value: value.to_vec(), version, czxid, mzxid }
    }

    fn found(nodes: &[(&str, &Node)]) -> BTreeMap<String, Node> {
        nodes.iter().map(|(path, node)| ((*path).to_owned(), (*node).clone())).collect()
    }

    /// Two nodes that were acknowledged, and a write of the first on its way.
    fn told() -> Acknowledged {
        let mut told = Acknowledged::default();
        for (path, zxid) in [("/a", 1), ("/b", 2)] {
            told.ask(Write::Create { path: path.into(), value: b"old".to_vec() });
            told.acknowledge(Some((zxid, 0))).unwrap();
        }
        told.ask(Write::Set { path: "/a".into(), value: b"new".to_vec() });
        told
    }

    #[test]
    fn a_write_without_an_answer_is_there_whole_or_not_at_all() {
        let (old, new, b) = (node(b"old", 0, 1, 1), node(b"new", 1, 1, 3), node(b"old", 0, 2, 2));
        for a in [&old, &new] {
            let mut told = told();
            told.find(found(&[("/a", a), ("/b", &b)])).unwrap();
            assert!(!told.is_in_doubt() && told.nodes()["/a"] == *a);
        }
        for wrong in [node(b"new", 0, 1, 1), node(b"old", 1, 1, 3), node(b"ne", 1, 1, 3), node(b"new", 1, 1, 2)] {
            assert!(told().find(found(&[("/a", &wrong), ("/b", &b)])).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_was_acknowledged_is_there_and_nothing_else() {
        let (a, b) = (node(b"old", 0, 1, 1), node(b"old", 0, 2, 2));
        assert!(told().find(found(&[("/a", &a)])).unwrap_err().contains("/b: version 0 of 0x2 with 3 bytes is lost"));
        let more = told().find(found(&[("/a", &a), ("/b", &b), ("/c", &b)])).unwrap_err();
        assert!(more.contains("/c") && more.contains("must not be"), "{more}");
        let mut deleting = told();
        deleting.acknowledge(Some((3, 1))).unwrap();
        deleting.ask(Write::Delete { paths: vec!["/a".into(), "/b".into()] });
        assert!(deleting.find(found(&[("/b", &b)])).is_err(), "half of a multi");
        deleting.find(found(&[])).unwrap();
    }

    #[test]
    fn answers_count_up() {
        assert!(told().acknowledge(Some((3, 2))).unwrap_err().contains("version 2, which must be 1"));
        assert!(told().acknowledge(Some((2, 1))).is_err(), "a zxid that was given before");
    }
}
