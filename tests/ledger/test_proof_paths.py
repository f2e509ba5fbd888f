"""Proofs computed from subtrees against RFC 9162 computed from leaves, over every small tree."""

import itertools

import pytest

from stanch.crypto import (
    Frontier,
    consistency_path,
    inclusion_path,
    leaf_hash,
    merkle_root,
    verify_consistency,
    verify_inclusion,
)
from stanch.errors import InvalidInput, ProofInvalid
from stanch.ledger.damage import LogDamaged
from stanch.ledger.proof import frontier_at, prove_consistency, prove_inclusion, range_root, stored_frontier

LEAVES = [leaf_hash(bytes([number])) for number in range(33)]


def subtree_of(leaves):
    return lambda level, index: merkle_root(leaves[index << level : (index + 1) << level])


def test_golden_tree(load):
    golden = load("ledger/merkle.json")
    leaves = [leaf_hash(bytes.fromhex(data)) for data in golden["leaves"]]
    subtree = subtree_of(leaves)
    for size, root in golden["roots"].items():
        assert frontier_at(int(size), subtree).root().hex() == root
    wanted = golden["inclusion"]
    path = prove_inclusion(wanted["index"], wanted["size"], subtree)
    assert [node.hex()[:8] for node in path] == wanted["path_starts"]
    for case in golden["consistency"]:
        path = prove_consistency(case["old"], case["size"], subtree)
        assert [node.hex()[:8] for node in path] == case["path_starts"]


def test_all_trees_up_to_33_leaves_equal_the_definition():
    subtree = subtree_of(LEAVES)
    for size in range(34):
        assert frontier_at(size, subtree) == Frontier().append(LEAVES[:size])
        for index in range(size):
            assert prove_inclusion(index, size, subtree) == inclusion_path(LEAVES[:size], index)
        for old in range(size + 1):
            assert prove_consistency(old, size, subtree) == consistency_path(LEAVES[:size], old)


def changed(path):
    """Every path with one hash deleted, doubled, changed, or two neighbours swapped."""
    for position in range(len(path)):
        yield path[:position] + path[position + 1 :]
        yield path[: position + 1] + path[position:]
        yield [*path[:position], bytes([path[position][0] ^ 1]) + path[position][1:], *path[position + 1 :]]
    for position in range(len(path) - 1):
        if path[position] != path[position + 1]:
            yield [*path[:position], path[position + 1], path[position], *path[position + 2 :]]


def test_every_changed_inclusion_proof_fails():
    subtree = subtree_of(LEAVES)
    for size in range(1, 34):
        root = frontier_at(size, subtree).root()
        for index in range(size):
            path = prove_inclusion(index, size, subtree)
            verify_inclusion(LEAVES[index], index, size, path, root)
            for wrong in changed(path):
                with pytest.raises(ProofInvalid):
                    verify_inclusion(LEAVES[index], index, size, wrong, root)
            for other in {index - 1, index + 1, size} - {index}:
                with pytest.raises(ProofInvalid):
                    verify_inclusion(LEAVES[index], other, size, path, root)


def test_every_changed_consistency_proof_fails():
    subtree = subtree_of(LEAVES)
    roots = [frontier_at(size, subtree).root() for size in range(34)]
    for old, size in itertools.combinations(range(1, 34), 2):
        path = prove_consistency(old, size, subtree)
        verify_consistency(old, roots[old], size, roots[size], path)
        for wrong in changed(path):
            with pytest.raises(ProofInvalid):
                verify_consistency(old, roots[old], size, roots[size], wrong)
        with pytest.raises(ProofInvalid):
            verify_consistency(old, roots[old - 1], size, roots[size], path)


def test_range_root_of_a_right_edge():
    subtree = subtree_of(LEAVES)
    assert range_root(16, 23, subtree) == merkle_root(LEAVES[16:23])


def test_a_stored_frontier_is_of_its_size():
    frontier = Frontier().append(LEAVES[:5])
    assert stored_frontier(5, frontier.to_bytes()) == frontier
    for size, data in [(4, frontier.to_bytes()), (5, frontier.to_bytes()[:-1]), (5, b"")]:
        with pytest.raises(LogDamaged, match=f"expected the hashes of {size} entries, found {len(data)} bytes$"):
            stored_frontier(size, data)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (3, 3), (-1, 3), (4, 3)])
def test_no_proof_outside_the_tree(index, size):
    with pytest.raises(InvalidInput):
        prove_inclusion(index, size, subtree_of(LEAVES))


@pytest.mark.parametrize(("old", "size"), [(4, 3), (-1, 3)])
def test_no_consistency_with_a_larger_tree(old, size):
    with pytest.raises(InvalidInput):
        prove_consistency(old, size, subtree_of(LEAVES))
