//! Reads the bytes of a snapshot without the code that is under test, and with it. Used by `trial`.

use std::collections::BTreeMap;

use rookeeper::ids::{SessionId, Zxid};
use rookeeper::jute::Reader;
use rookeeper::records::{Acl, StatPersisted};
use rookeeper::state::{Loader, State, StateRules};

use super::model::{Model, Node, key};

/// A snapshot: what it must hold, what came of it so far.
#[derive(Debug)]
pub struct Cut {
    pub expected: Model,
    pub bytes: Vec<u8>,
}

impl Cut {
    /// A cut of the state as it is now.
    pub fn begin(state: &State) -> Cut {
        Cut { expected: Model::of(state), bytes: Vec::new() }
    }

    /// The cut is complete: it holds the state as it was, and loads into it.
    pub fn check(&self, rules: StateRules) -> State {
        let mut loader = Loader::new(rules);
        let read = read(&self.bytes, self.expected.zxid, &mut loader);
        assert_eq!(read, self.expected, "a snapshot is the state at its beginning");
        let state = loader.finish(self.expected.zxid);
        self.expected.check(&state);
        state
    }
}

const WHOLE: &str = "a snapshot is whole";

fn read(bytes: &[u8], zxid: Zxid, loader: &mut Loader) -> Model {
    let mut r = Reader::new(bytes);
    assert_eq!((r.int(), r.int(), r.long()), (Ok(0x5a4b_534e), Ok(2), Ok(-1)), "the header of the file");
    let mut model = Model { zxid, ..Model::default() };
    for _ in 0..r.int().expect(WHOLE) {
        let (id, timeout_ms) = (SessionId(r.long().expect(WHOLE)), r.int().expect(WHOLE));
        assert_eq!(model.sessions.insert(id, timeout_ms), None);
        loader.session(id, timeout_ms);
    }
    let mut lists = BTreeMap::from([(-1, Acl::open())]);
    for _ in 0..r.int().expect(WHOLE) {
        let index = r.long().expect(WHOLE);
        let list = Acl::read_list(&mut r).expect(WHOLE).expect("a list");
        assert_eq!(lists.insert(index, list.clone()), None);
        loader.acl(index, list);
    }
    loop {
        let path = r.required_string().expect(WHOLE).into_owned();
        if path == "/" {
            break;
        }
        let data = r.buffer().expect(WHOLE).map(<[u8]>::to_vec);
        let index = r.long().expect(WHOLE);
        let stat = StatPersisted::read(&mut r).expect(WHOLE);
        loader.node(&path, data.as_deref(), index, stat).expect("parents come first, and once");
        let acl = lists.get(&index).expect("nodes name lists that are there").clone();
        assert_eq!(model.nodes.insert(key(&path).to_owned(), Node { data, acl, stat }), None, "{path} is there twice");
    }
    assert!(r.is_empty());
    model
}
