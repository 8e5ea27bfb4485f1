//! The tree: nodes, stats, digests and counts, change by change.

use super::*;
use crate::jute::Reader;
use crate::state::lists::LIST_BYTES;

fn tree_with(paths: &[&str]) -> Tree {
    let mut tree = Tree::default();
    for path in paths {
        let parent = tree.lookup(path.rsplit_once('/').expect("absolute").0).expect("parents come first");
        let name = path.rsplit('/').next().expect("absolute");
        tree.insert(parent, name, path, Some(b"x"), AclId::OPEN, StatPersisted::default());
    }
    tree
}

fn await_list(tree: &mut Tree, parent: NodeId) {
    tree.begin_children(parent);
    tree.await_list(Listed::Children(parent));
}

fn list_children(tree: &mut Tree, parent: NodeId) -> Arc<Rope> {
    tree.begin_children(parent);
    tree.list(Listed::Children(parent))
}

#[test]
fn the_paths_that_a_change_touches_are_noted_and_no_others() {
    type Change = fn(&mut Tree, NodeId);
    let insert: Change = |tree, b| {
        tree.insert(b, "new", "/a/b/new", None, AclId::OPEN, StatPersisted::default()).expect("new");
    };
    let remove: Change = |tree, _| tree.remove(tree.lookup("/a/b/c").expect("there"));
    let set_data: Change = |tree, b| tree.set_data(b, "/a/b", Some(b"y"), |_| ());
    let update: Change = |tree, b| tree.update(b, |stat| stat.version = 1);
    let set_acl: Change = |tree, b| tree.set_acl(b, AclId::OPEN, |_| ());
    let root: Change = |tree, _| tree.update(NodeId::ROOT, |stat| stat.cversion = 1);
    let changes: [(Change, &[&str]); 6] = [
        (insert, &["/a/b", "/a/b/new"]),
        (remove, &["/a/b", "/a/b/c"]),
        (set_data, &["/a/b"]),
        (update, &["/a/b"]),
        (set_acl, &["/a/b"]),
        (root, &["", "/"]),
    ];
    for (n, (change, touched)) in changes.into_iter().enumerate() {
        let mut tree = tree_with(&["/a", "/a/b", "/a/b/c"]);
        let b = tree.lookup("/a/b").expect("there");
        tree.note_touched();
        assert!(!tree.is_touched());
        change(&mut tree, b);
        assert!(tree.is_touched());
        for path in ["", "/", "/a", "/a/b", "/a/b/c", "/a/b/new", "/a/b/other"] {
            assert_eq!(tree.has_touched(tree.trace(path)), touched.contains(&path), "{n} {path}");
        }
        tree.note_touched();
        assert!(!tree.is_touched() && !tree.has_touched(tree.trace(touched[0])), "it begins anew");
        tree.end_touched();
        tree.update(b, |_| ());
        assert!(!tree.is_touched(), "nobody is to be told");
    }
}

#[test]
fn nodes_are_found_by_path_and_odd_paths_are_not() {
    let tree = tree_with(&["/a", "/a/b", "/c"]);
    let b = tree.lookup("/a/b").expect("it was added");
    assert_eq!(tree.path(b), "/a/b");
    assert_eq!(tree.lookup(""), Some(NodeId::ROOT));
    for odd in ["/a/", "a", "//", "/a//b", "/b"] {
        assert_eq!(tree.lookup(odd), None, "{odd}");
    }
}

#[test]
fn each_node_knows_how_many_are_below_it() {
    let mut tree = tree_with(&["/a", "/a/b", "/a/b/c", "/a/d", "/e"]);
    for gone in ["", "/a/b/c", "/e", "/a/d"] {
        tree.lookup(gone).filter(|id| *id != NodeId::ROOT).into_iter().for_each(|id| tree.remove(id));
        for id in tree.subtree(NodeId::ROOT).collect::<Vec<_>>() {
            assert_eq!(tree.node(id).descendants() as usize, tree.subtree(id).count() - 1, "{}", tree.path(id));
        }
    }
}

#[test]
fn the_digest_of_a_tree_does_not_depend_on_its_history() {
    let mut tree = tree_with(&["/a", "/a/b", "/c"]);
    let before = tree.digest();
    let a = tree.lookup("/a").expect("there");
    tree.set_data(a, "/a", Some(b"longer"), |s| s.version = 1);
    let added = tree.insert(a, "z", "/a/z", None, AclId::OPEN, StatPersisted::default()).expect("new");
    tree.remove(added);
    tree.set_data(a, "/a", Some(b"x"), |s| s.version = 0);
    assert_eq!(tree.digest(), before);
    assert_eq!(tree.len(), 4);
}

#[test]
fn a_list_is_made_in_pieces_while_children_come_and_go() {
    let mut tree = Tree::default();
    let add = |tree: &mut Tree, name: &str| {
        let path = format!("/{name}");
        tree.insert(NodeId::ROOT, name, &path, None, AclId::OPEN, StatPersisted::default()).expect("it is new")
    };
    let listed = |tree: &mut Tree| {
        let rope = list_children(tree, NodeId::ROOT);
        let bytes = rope.pieces().flat_map(|piece| piece.iter().copied()).collect::<Vec<u8>>();
        let mut names = Reader::new(&bytes).strings().expect("it is a list").expect("and not null");
        names.sort();
        names
    };
    let walked = |tree: &Tree| {
        let mut names: Vec<_> = tree.children(NodeId::ROOT).map(|c| tree.node(c).name().to_owned()).collect();
        names.sort();
        names
    };
    let ids: Vec<NodeId> = (0..3 * LISTED_AT_ONCE).map(|n| add(&mut tree, &format!("{n}"))).collect();
    assert!(tree.is_wide() && !tree.is_listed(NodeId::ROOT));
    await_list(&mut tree, NodeId::ROOT);
    let list_some = |tree: &mut Tree| tree.list_some(&[], usize::MAX);
    list_some(&mut tree);
    // The next child that was to come, one that was listed, one that is to be; and new ones.
    let next = tree.lists.next_of(NodeId::ROOT);
    for gone in [next, ids[3 * LISTED_AT_ONCE - 1], ids[0]] {
        tree.remove(gone);
    }
    for n in 0..5 {
        add(&mut tree, &format!("new{n}"));
    }
    list_some(&mut tree);
    assert!(!tree.is_listed(NodeId::ROOT));
    list_some(&mut tree);
    assert!(tree.is_listed(NodeId::ROOT) && tree.lists.take_turn().is_none());
    assert_eq!(listed(&mut tree), walked(&tree));
    let bytes = tree.listed_bytes();
    for _ in 0..3 {
        tree.forget_unwanted_lists();
        tree.bound_lists(0);
    }
    assert!(bytes > 0 && tree.is_listed(NodeId::ROOT), "somebody waits for it");
    tree.release_list(Listed::Children(NodeId::ROOT));
    listed(&mut tree);
    tree.forget_unwanted_lists();
    assert!(tree.is_listed(NodeId::ROOT), "it was asked for");
    // What nobody asks for is not kept for long, neither among changes nor by itself.
    let mut changes = 0;
    while tree.lists.has(Listed::Children(NodeId::ROOT)) {
        changes += 1;
        add(&mut tree, &format!("more{changes}"));
    }
    assert!((LISTED_AT_ONCE / 16..LISTED_AT_ONCE).contains(&changes));
    assert_eq!(tree.listed_bytes(), 0);
    assert_eq!(listed(&mut tree), walked(&tree));
    tree.forget_unwanted_lists();
    tree.forget_unwanted_lists();
    assert_eq!(tree.listed_bytes(), 0);
    // One that was begun is given up when nobody waits for it any more.
    await_list(&mut tree, NodeId::ROOT);
    list_some(&mut tree);
    assert!(tree.listed_bytes() > 0);
    tree.release_list(Listed::Children(NodeId::ROOT));
    assert_eq!(tree.listed_bytes(), 0);
    // And it ends with the children, unless somebody waits for it: there may be others by then.
    await_list(&mut tree, NodeId::ROOT);
    list_some(&mut tree);
    let children: Vec<NodeId> = tree.children(NodeId::ROOT).collect();
    children.into_iter().for_each(|child| tree.remove(child));
    assert!(tree.is_listed(NodeId::ROOT) && !tree.is_wide() && tree.listed_bytes() == LIST_BYTES);
    for n in 0..2 * LISTED_AT_ONCE {
        add(&mut tree, &format!("{n}"));
    }
    assert!(tree.is_listed(NodeId::ROOT) && tree.is_wide());
    assert_eq!(listed(&mut tree), walked(&tree));
    let children: Vec<NodeId> = tree.children(NodeId::ROOT).collect();
    children.into_iter().for_each(|child| tree.remove(child));
    tree.release_list(Listed::Children(NodeId::ROOT));
    assert_eq!(tree.listed_bytes(), 0);
}

#[test]
fn a_list_that_somebody_waits_for_passes_to_the_node_that_comes_into_its_place() {
    let (mut tree, nodes) = wide_nodes(&[2 * LISTED_AT_ONCE, 0]);
    let wide = nodes[0];
    await_list(&mut tree, wide);
    await_list(&mut tree, nodes[1]);
    tree.list_some(&nodes.iter().copied().map(Listed::Children).collect::<Vec<_>>(), usize::MAX);
    let children: Vec<NodeId> = tree.children(wide).collect();
    children.into_iter().for_each(|child| tree.remove(child));
    tree.remove(wide);
    let again = tree.insert(NodeId::ROOT, "w", "/w", None, AclId::OPEN, StatPersisted::default());
    assert_eq!(again, Some(wide));
    for parent in [wide, nodes[1]] {
        for n in 0..LISTED_AT_ONCE + 1 {
            let name = format!("{n:08}");
            tree.insert(parent, &name, &format!("/w/{name}"), None, AclId::OPEN, StatPersisted::default());
        }
        assert!(tree.is_listed(parent), "who waits for it is not forgotten");
        tree.release_list(Listed::Children(parent));
        let mut expected = Vec::new();
        tree.write_children(parent, &mut expected);
        assert_eq!(list_children(&mut tree, parent).len(), expected.len());
    }
}

/// Nodes below the root, each with so many children.
fn wide_nodes(children: &[usize]) -> (Tree, Vec<NodeId>) {
    let mut tree = Tree::default();
    let mut add = |parent: NodeId, path: String| {
        let name = path.rsplit('/').next().expect("absolute").to_owned();
        tree.insert(parent, &name, &path, None, AclId::OPEN, StatPersisted::default()).expect("it is new")
    };
    let nodes = children.iter().enumerate().map(|(n, &count)| {
        let parent = add(NodeId::ROOT, format!("/{n}"));
        for child in 0..count {
            add(parent, format!("/{n}/{child:08}"));
        }
        parent
    });
    let nodes = nodes.collect();
    (tree, nodes)
}

#[test]
fn lists_are_made_in_turn_and_a_short_one_does_not_wait_for_a_long_one() {
    let (mut tree, nodes) = wide_nodes(&[10 * LISTED_AT_ONCE, 10, 2 * LISTED_AT_ONCE, 20]);
    nodes.iter().for_each(|&node| await_list(&mut tree, node));
    let mut made = |turns: usize| {
        (0..turns).for_each(|_| tree.list_some(&[], usize::MAX));
        nodes.iter().map(|&node| tree.is_listed(node)).collect::<Vec<_>>()
    };
    assert_eq!(made(1), [false; 4]);
    assert_eq!(made(1), [false, true, false, false]);
    // The long one's turn, then the rest of the third; and all that is left of the turn.
    assert_eq!(made(3), [false, true, false, true]);
    assert_eq!(made(2), [false, true, true, true]);
    assert_eq!(made(7), [true; 4]);
}

#[test]
fn lists_that_nobody_waits_for_make_room_and_beyond_it_only_the_first_is_made() {
    let (mut tree, nodes) = wide_nodes(&[2 * LISTED_AT_ONCE; 4]);
    let each = 12 * 2 * LISTED_AT_ONCE + LIST_BYTES;
    let [a, b, c, d] = nodes[..] else { panic!("there are four") };
    list_children(&mut tree, a);
    list_children(&mut tree, b);
    assert_eq!(tree.listed_bytes(), 2 * each);
    await_list(&mut tree, c);
    await_list(&mut tree, d);
    // The one that was asked for longest ago goes, while another list is being made.
    let bound = 2 * each + 2 * LIST_BYTES;
    tree.list_some(&[Listed::Children(c)], bound);
    tree.list_some(&[Listed::Children(c)], bound);
    assert!(!tree.is_listed(a) && tree.is_listed(b) && tree.listed_bytes() <= bound);
    // Beyond the bound the first alone is gone on with, and when it is made none is.
    let beyond = |tree: &mut Tree, first| (0..10).for_each(|_| tree.list_some(&[Listed::Children(first)], each / 4));
    beyond(&mut tree, c);
    assert!(tree.is_listed(c) && !tree.is_listed(d));
    assert!(tree.listed_bytes() <= bound + each / 2, "b was asked for last, and half of d is there");
    tree.release_list(Listed::Children(c));
    beyond(&mut tree, d);
    assert!(tree.is_listed(d) && !tree.is_listed(c));
    tree.release_list(Listed::Children(d));
    list_children(&mut tree, d);
    tree.bound_lists(0);
    assert_eq!(tree.listed_bytes(), each, "only the one that was asked for last is left");
}

#[test]
fn removal_keeps_siblings_linked_and_places_are_used_again() {
    let mut tree = tree_with(&["/1", "/2", "/3"]);
    let two = tree.lookup("/2").expect("there");
    tree.remove(two);
    let mut names: Vec<_> = tree.children(NodeId::ROOT).map(|c| tree.node(c).name().to_owned()).collect();
    names.sort();
    assert_eq!(names, ["1", "3"]);
    let four = tree.insert(NodeId::ROOT, "4", "/4", None, AclId::OPEN, StatPersisted::default());
    assert_eq!(four, Some(two));
    assert_eq!(tree.node(NodeId::ROOT).descendants(), 3);
}
