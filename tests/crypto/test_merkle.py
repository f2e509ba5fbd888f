"""Every tree up to 20 leaves, every index, every pair of sizes; then every single change to a proof."""

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
from stanch.errors import InvalidInput, ProofInvalid

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "crypto" / "merkle.json").read_text())
LEAVES = [leaf_hash(bytes.fromhex(leaf)) for leaf in VECTORS["leaves"]]
LARGEST = 20
TREE = [leaf_hash(bytes([n])) for n in range(LARGEST)]
ROOTS = [merkle_root(TREE[:n]) for n in range(LARGEST + 1)]


@pytest.mark.parametrize(("size", "root"), VECTORS["roots"].items())
def test_roots_match_the_published_vectors(size, root):
    assert merkle_root(LEAVES[: int(size)]).hex() == root


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


@pytest.mark.parametrize(("index", "size"), [(-1, 4), (4, 4), (0, 0), (0, 2**63)])
def test_impossible_positions_are_refused(index, size):
    with pytest.raises(ProofInvalid):
        verify_inclusion(TREE[0], index, size, [], TREE[0])


@given(st.lists(st.binary(max_size=4), max_size=40), st.data())
def test_appending_in_any_batches_gives_the_same_tree(items, data):
    leaves = [leaf_hash(item) for item in items]
    frontier, rest = Frontier(), leaves
    while rest:
        step = data.draw(st.integers(1, len(rest)))
        frontier, rest = frontier.append(rest[:step]), rest[step:]
    assert frontier.root() == merkle_root(leaves)
    assert Frontier.parse(frontier.size, frontier.to_bytes()) == frontier


@pytest.mark.parametrize(("size", "data"), [(1, b""), (1, bytes(31)), (2, bytes(64)), (-1, b"")])
def test_a_frontier_that_does_not_fit_its_size_is_refused(size, data):
    with pytest.raises(InvalidInput):
        Frontier.parse(size, data)
