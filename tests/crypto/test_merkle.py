"""Every tree up to 20 leaves, every index, every pair of sizes; then every single change to a proof."""

import functools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.crypto import (
    EMPTY_ROOT,
    Frontier,
    consistency_path,
    inclusion_path,
    leaf_hash,
    merkle_root,
    verify_consistency,
    verify_inclusion,
)
from stanch.crypto.merkle import node_hash
from stanch.errors import InvalidInput, ProofInvalid

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "crypto" / "merkle.json").read_text())
LEAVES = [leaf_hash(bytes.fromhex(leaf)) for leaf in VECTORS["leaves"]]
LARGEST = 20
TREE = [leaf_hash(bytes([n])) for n in range(LARGEST)]
ROOTS = [merkle_root(TREE[:n]) for n in range(LARGEST + 1)]


@pytest.mark.parametrize(("size", "root"), VECTORS["roots"].items())
def test_roots_match_the_published_vectors(size, root):
    assert merkle_root([leaf_hash(bytes.fromhex(leaf)) for leaf in VECTORS["leaves"][: int(size)]]).hex() == root


def test_paths_match_the_published_vectors():
    inclusion = [node.hex()[:8] for node in inclusion_path(LEAVES[:7], 5)]
    assert inclusion == VECTORS["inclusion_5_in_7"]
    assert [node.hex()[:8] for node in consistency_path(LEAVES[:7], 3)] == VECTORS["consistency_3_to_7"]
    assert [node.hex()[:8] for node in consistency_path(LEAVES[:7], 4)] == VECTORS["consistency_4_to_7"]


def test_every_inclusion_proof_of_every_small_tree():
    for size in range(1, LARGEST + 1):
        for index in range(size):
            verify_inclusion(TREE[index], index, size, inclusion_path(TREE[:size], index), ROOTS[size])


def test_every_consistency_proof_between_small_trees():
    for size in range(LARGEST + 1):
        for old in range(size + 1):
            verify_consistency(old, ROOTS[old], size, ROOTS[size], consistency_path(TREE[:size], old))


def test_an_inclusion_proof_holds_for_nothing_else():
    for size in range(1, 14):
        for index in range(size):
            path = inclusion_path(TREE[:size], index)
            for other_index, other_size in ((index + 1, size), (index - 1, size), (index, size + 1), (index, size - 1)):
                # One case is no forgery: without the size in the leaf, a path may serve two sizes with one root only if
                # the roots are equal, which distinct leaves exclude.
                with pytest.raises(ProofInvalid):
                    verify_inclusion(
                        TREE[index], other_index, other_size, path, ROOTS[min(max(other_size, 0), LARGEST)]
                    )
            for forged in _changes(path):
                with pytest.raises(ProofInvalid):
                    verify_inclusion(TREE[index], index, size, forged, ROOTS[size])


def test_a_consistency_proof_holds_for_nothing_else():
    for size in range(2, 14):
        for old in range(1, size):
            path = consistency_path(TREE[:size], old)
            for forged in _changes(path):
                with pytest.raises(ProofInvalid):
                    verify_consistency(old, ROOTS[old], size, ROOTS[size], forged)
            with pytest.raises(ProofInvalid):
                verify_consistency(old, ROOTS[old - 1], size, ROOTS[size], path)
            with pytest.raises(ProofInvalid):
                verify_consistency(old, ROOTS[old], size, ROOTS[size + 1], path)


def _changes(path):
    """Yield every deletion, duplication, neighbour swap and bit flip of one hash, and one hash too many."""
    yield [*path, bytes(32)]
    for n, node in enumerate(path):
        yield [*path[:n], *path[n + 1 :]]
        yield [*path[:n], node, *path[n:]]
        yield [*path[:n], bytes([node[0] ^ 1]) + node[1:], *path[n + 1 :]]
        if n and path[n - 1] != node:
            yield [*path[: n - 1], node, path[n - 1], *path[n + 1 :]]


def test_size_zero_extends_to_everything_but_from_its_own_root_only():
    verify_consistency(0, EMPTY_ROOT, 5, ROOTS[5], [])
    with pytest.raises(ProofInvalid):
        verify_consistency(0, ROOTS[1], 5, ROOTS[5], [])
    with pytest.raises(ProofInvalid):
        verify_consistency(0, EMPTY_ROOT, 5, ROOTS[5], [ROOTS[1]])


def test_a_tree_has_fewer_than_2_to_the_63_leaves():
    path = [bytes([n]) * 32 for n in range(63)]
    root = functools.reduce(node_hash, path, TREE[0])
    verify_inclusion(TREE[0], 0, 2**63 - 1, path, root)
    verify_consistency(1, TREE[0], 2**63 - 1, root, path)
    assert Frontier(2**63 - 1, tuple(path)).size == 2**63 - 1
    with pytest.raises(ProofInvalid):
        verify_inclusion(TREE[0], 0, 2**63, path, root)
    with pytest.raises(ProofInvalid):
        verify_consistency(1, TREE[0], 2**63, root, path)
    with pytest.raises(InvalidInput):
        Frontier(2**63, (TREE[0],))


def test_no_path_leads_to_an_impossible_position():
    """Each path fits its root, if only its hashes are looked at: a root does not say how many leaves are below it."""
    first, last = inclusion_path(TREE[:4], 0), inclusion_path(TREE[:4], 3)
    for leaf, index, size, path, root in (
        (TREE[3], -1, 4, last, ROOTS[4]),
        (TREE[0], 4, 4, first, ROOTS[4]),
        (TREE[0], 0, 0, [], TREE[0]),
        (TREE[1], 0, 1, [TREE[0]], ROOTS[2]),
        (TREE[0], 0, 4, [TREE[1]], ROOTS[2]),
    ):
        with pytest.raises(ProofInvalid):
            verify_inclusion(leaf, index, size, path, root)
    a, b, c = TREE[:3]
    path = consistency_path(TREE[:4], 3)
    for old_size, old_root, size, root, nodes in (
        (-1, node_hash(c, a), 3, node_hash(c, node_hash(a, b)), [a, b, c]),
        (5, a, 3, node_hash(node_hash(a, b), c), [a, b, c]),
        (3, node_hash(a, ROOTS[3]), 4, node_hash(a, ROOTS[4]), [*path, a]),
        (3, ROOTS[3], 8, ROOTS[4], path),
        (3, ROOTS[3], 4, ROOTS[4], []),
        (3, ROOTS[3], 3, ROOTS[4], []),
        (3, ROOTS[3], 3, ROOTS[3], [a]),
    ):
        with pytest.raises(ProofInvalid):
            verify_consistency(old_size, old_root, size, root, nodes)


def test_a_hash_of_another_length_is_refused_though_the_bytes_together_are_the_same():
    left, right = TREE[0] + TREE[1][:1], TREE[1][1:]
    assert node_hash(left, right) == ROOTS[2]
    with pytest.raises(ProofInvalid, match="32 bytes"):
        verify_inclusion(left, 0, 2, [right], ROOTS[2])
    with pytest.raises(ProofInvalid, match="32 bytes"):
        verify_consistency(1, left, 2, ROOTS[2], [right])


def test_there_are_paths_of_leaves_and_trees_inside_alone():
    for index in (-1, 4):
        with pytest.raises(InvalidInput):
            inclusion_path(TREE[:4], index)
    for size in (-1, 5):
        with pytest.raises(InvalidInput):
            consistency_path(TREE[:4], size)


@given(st.lists(st.binary(max_size=4), max_size=40), st.data())
def test_appending_in_any_batches_gives_the_same_tree(items, data):
    leaves = [leaf_hash(item) for item in items]
    frontier, rest = Frontier(), leaves
    while rest:
        step = data.draw(st.integers(1, len(rest)))
        frontier, rest = frontier.append(rest[:step]), rest[step:]
    assert frontier.root() == merkle_root(leaves)
    assert Frontier.parse(frontier.size, frontier.to_bytes()) == frontier


@pytest.mark.parametrize(("size", "data"), [(1, b""), (1, bytes(31)), (2, bytes(64)), (-1, b""), (-1, bytes(32))])
def test_a_frontier_that_does_not_fit_its_size_is_refused(size, data):
    with pytest.raises(InvalidInput):
        Frontier.parse(size, data)
