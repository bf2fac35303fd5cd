//! The tree and its proofs against the definitions, taken literally, and against
//! two implementations by other hands.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::domain::ledger::{CompleteTile, Tree};

/// The definition of the root, word for word (RFC 9162 §2.1.1).
fn naive_root(leaves: &[Vec<u8>]) -> TreeHash {
    match leaves {
        [] => TreeHash::of_empty_tree(),
        [one] => TreeHash::of_leaf(one),
        more => {
            let mut k = 1;
            while k * 2 < more.len() {
                k *= 2;
            }
            TreeHash::of_children(naive_root(&more[..k]), naive_root(&more[k..]))
        }
    }
}

fn leaves(number: u64) -> Vec<Vec<u8>> {
    (0..number)
        .map(|n| format!("leaf {n}").into_bytes())
        .collect()
}

/// A grown tree, and every tile that was complete on the way.
struct Grown {
    tree: Tree,
    complete: HashMap<TileId, Tile>,
}

impl Grown {
    fn of(leaves: &[Vec<u8>]) -> Self {
        let mut tree = Tree::new();
        let mut complete = Vec::new();
        for leaf in leaves {
            tree.push(TreeHash::of_leaf(leaf), &mut complete);
        }
        let number = complete.len();
        let complete: HashMap<_, _> = complete
            .into_iter()
            .map(|CompleteTile { id, tile }| (id, tile))
            .collect();
        assert_eq!(complete.len(), number, "each tile once");
        Self { tree, complete }
    }

    fn build(&self, plan: &ProofPlan) -> Vec<TreeHash> {
        plan.build(|node| {
            let tile = node.tile();
            assert!(plan.tiles().contains(&tile));
            let complete = self.complete.get(&tile);
            node.in_tile(complete.unwrap_or_else(|| self.tree.edge(tile.level)))
        })
        .expect("every node is there")
    }

    fn inclusion(&self, index: u64, size: u64) -> Vec<TreeHash> {
        self.build(&ProofPlan::inclusion(index, size).expect("a leaf of it"))
    }

    fn consistency(&self, from: u64, to: u64) -> Vec<TreeHash> {
        self.build(&ProofPlan::consistency(from, to).expect("no smaller"))
    }

    fn root(&self, size: u64) -> TreeHash {
        self.build(&ProofPlan::root(size))
            .first()
            .copied()
            .unwrap_or_else(TreeHash::of_empty_tree)
    }
}

fn foreign(hash: TreeHash) -> tlog_tiles::Hash {
    tlog_tiles::Hash(*hash.as_bytes())
}

fn all_foreign(hashes: &[TreeHash]) -> Vec<tlog_tiles::Hash> {
    hashes.iter().copied().map(foreign).collect()
}

/// The root of the same leaves by a third implementation.
fn root_by_ct_merkle(leaves: &[Vec<u8>]) -> Vec<u8> {
    let mut tree = ct_merkle::mem_backed_tree::MemoryBackedTree::<sha2::Sha256, Vec<u8>>::new();
    for leaf in leaves {
        tree.push(leaf.clone());
    }
    tree.root().as_bytes().to_vec()
}

#[test]
fn the_root_is_the_definitions_at_every_size() {
    let leaves = leaves(600);
    let whole = Grown::of(&leaves);
    let mut growing = Tree::new();
    for size in 0..=600 {
        let naive = naive_root(&leaves[..size]);
        assert_eq!(growing.root(), naive, "{size}");
        assert_eq!(whole.root(size as u64), naive, "{size}");
        if let Some(leaf) = leaves.get(size) {
            growing.push(TreeHash::of_leaf(leaf), &mut Vec::new());
        }
    }
    assert_eq!(root_by_ct_merkle(&leaves), whole.tree.root().as_bytes());
}

#[test]
fn every_proof_of_a_small_tree_holds_here_and_elsewhere() {
    let leaves = leaves(70);
    let grown = Grown::of(&leaves);
    for size in 1..=70 {
        let root = grown.root(size);
        for index in 0..size {
            let leaf = TreeHash::of_leaf(&leaves[index as usize]);
            let proof = grown.inclusion(index, size);
            assert!(verify_inclusion(leaf, index, size, &proof, root));
            let theirs = all_foreign(&proof);
            tlog_tiles::check_record(&theirs, size, foreign(root), index, foreign(leaf))
                .expect("another implementation accepts it");
        }
        for from in 0..=size {
            let proof = grown.consistency(from, size);
            let old = grown.root(from);
            assert!(verify_consistency(from, old, size, root, &proof));
            if from > 0 {
                let theirs = all_foreign(&proof);
                tlog_tiles::check_tree(&theirs, size, foreign(root), from, foreign(old))
                    .expect("another implementation accepts it");
            }
        }
    }
}

#[test]
fn what_is_not_there_cannot_be_proved() {
    assert_eq!(ProofPlan::inclusion(5, 5), None);
    assert_eq!(ProofPlan::inclusion(0, 0), None);
    assert_eq!(ProofPlan::consistency(6, 5), None);
    let root = TreeHash::of_leaf(b"x");
    assert!(!verify_inclusion(root, 1, 1, &[], root));
    assert!(!verify_consistency(2, root, 1, root, &[]));
}

#[test]
fn a_tree_comes_back_from_its_edge() {
    let leaves = leaves(66_000);
    let mut tree = Tree::new();
    let mut complete = Vec::new();
    let looked_at = [
        0, 1, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, 65_792, 66_000,
    ];
    for size in 0..=66_000u64 {
        if looked_at.contains(&size) {
            let edge: Vec<_> = (0..Tree::levels(size))
                .map(|level| {
                    let all: Vec<TreeHash> = if level == 0 {
                        let first = Tree::complete_tiles(size, 0) as usize * 256;
                        let last = &leaves[first..size as usize];
                        last.iter().map(|leaf| TreeHash::of_leaf(leaf)).collect()
                    } else {
                        let first = Tree::complete_tiles(size, level) * 256;
                        let below = level as u8 - 1;
                        complete
                            .iter()
                            .filter(|tile: &&CompleteTile| {
                                tile.id.level == below && tile.id.index >= first
                            })
                            .map(|complete| complete.tile.root().expect("complete"))
                            .collect()
                    };
                    all
                })
                .collect();
            let read = Tree::from_edge(size, &edge);
            assert_eq!(read.as_ref().map(Tree::root), Some(tree.root()), "{size}");
            let mut wrong = edge;
            wrong.push(vec![TreeHash::of_leaf(b"too much")]);
            assert_eq!(Tree::from_edge(size, &wrong), None);
            let mut read = read.expect("as above");
            let mut grown = tree.clone();
            read.push(TreeHash::of_leaf(b"next"), &mut Vec::new());
            grown.push(TreeHash::of_leaf(b"next"), &mut Vec::new());
            assert_eq!(read.root(), grown.root(), "{size}");
        }
        if let Some(leaf) = leaves.get(size as usize) {
            tree.push(TreeHash::of_leaf(leaf), &mut complete);
        }
    }
    assert_eq!(tree.size(), 66_000);
    assert_eq!(naive_root(&leaves), tree.root());
}

/// Any other proof of the same statement, made by one change.
fn changed(proof: &[TreeHash], place: usize, kind: u8) -> Vec<TreeHash> {
    let mut changed = proof.to_vec();
    let place = place % (proof.len() + 1);
    match kind % 3 {
        0 => changed.insert(place, TreeHash::of_leaf(b"added")),
        1 if place < changed.len() => {
            changed.remove(place);
        }
        _ if place < changed.len() => changed[place] = TreeHash::of_leaf(b"changed"),
        _ => changed.push(TreeHash::of_leaf(b"added")),
    }
    changed
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn proofs_of_large_trees_hold_and_changed_ones_do_not(
        size in 1u64..3_000,
        index in any::<prop::sample::Index>(),
        from in any::<prop::sample::Index>(),
        place in 0usize..20,
        kind in 0u8..3,
    ) {
        let leaves = leaves(size);
        let grown = Grown::of(&leaves);
        let root = grown.tree.root();
        prop_assert_eq!(root, naive_root(&leaves));
        let index = index.index(size as usize) as u64;
        let leaf = TreeHash::of_leaf(&leaves[index as usize]);
        let proof = grown.inclusion(index, size);
        prop_assert!(verify_inclusion(leaf, index, size, &proof, root));
        let theirs = all_foreign(&proof);
        prop_assert!(
            tlog_tiles::check_record(&theirs, size, foreign(root), index, foreign(leaf)).is_ok()
        );
        let wrong = changed(&proof, place, kind);
        prop_assert!(!verify_inclusion(leaf, index, size, &wrong, root));
        prop_assert!(!verify_inclusion(TreeHash::of_leaf(b"no"), index, size, &proof, root));
        prop_assert!(!verify_inclusion(leaf, index, size, &proof, TreeHash::of_leaf(b"no")));
        if size > 1 {
            prop_assert!(!verify_inclusion(leaf, (index + 1) % size, size, &proof, root));
        }

        let from = from.index(size as usize) as u64 + 1;
        let old = naive_root(&leaves[..from as usize]);
        let proof = grown.consistency(from, size);
        prop_assert!(verify_consistency(from, old, size, root, &proof));
        prop_assert!(!verify_consistency(from, TreeHash::of_leaf(b"no"), size, root, &proof));
        prop_assert!(!verify_consistency(from, old, size, TreeHash::of_leaf(b"no"), &proof));
        let wrong = changed(&proof, place, kind);
        prop_assert!(!verify_consistency(from, old, size, root, &wrong));
    }
}
