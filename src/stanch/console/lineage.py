"""Where a model comes from and where it went, as a graph: data set and base, tuned, merged or quantised, copies."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from msgspec import Struct

from stanch.console.records import Records
from stanch.crypto import sha256

_MOST = 40
"""So many nodes are drawn at most; what is beyond is counted."""


class Node(Struct, frozen=True):
    """An artifact: what it is, its digest where it is known, how far to the right it stands, and its page."""

    id: str
    kind: str
    name: str
    digest: str
    column: int
    page: str


class Edge(Struct, frozen=True):
    """One artifact was made from another: how, and the entry that says so; -1: the files of a release say so."""

    source: str
    target: str
    how: str
    entry: int


class Lineage(Struct, frozen=True):
    """The graph around one model, all of it in one sentence, and how many artifacts are left out."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    told: str
    left_out: int


class Copied(Struct, frozen=True):
    """A copy of a model: its release, for whom, the entry that commits to its mark, and whether it was made."""

    release: str
    recipient: str
    entry: int
    made: bool


def draw_up(
    digest: str,
    names: dict[str, str],
    bases: dict[str, set[str]],
    records: Records,
    copies: Callable[[str], Iterable[Copied]],
) -> Lineage:
    """Return the graph around a model.

    Args:
        digest: The model.
        names: What models are called, by digest; those that have a page.
        bases: Folders of base models by the digest of the adapter, as releases name them.
        records: What the log says.
        copies: Returns the copies of a model; asked for the model and for what was made from it.
    """
    graph = _Graph(names)
    graph.add(digest, "model", names.get(digest, digest), digest, 0)
    waiting = [(digest, 0)]
    while waiting:
        model, column = waiting.pop(0)
        waiting += [(found, column - 1) for found in _before(graph, model, column, bases, records)]
    waiting = [(digest, 0)]
    while waiting:
        model, column = waiting.pop(0)
        waiting += [(found, column + 1) for found in _after(graph, model, column, records)]
        for copy in copies(model):
            state = "sealed copy" if copy.made else "copy, not made yet"
            target = f"copy:{copy.release}:{copy.recipient}"
            graph.add(target, state, copy.recipient, "", column + 1, f"/releases/{copy.release}")
            graph.join(model, target, f"release {copy.release}", copy.entry)
    return graph.finish(digest)


def _after(graph: "_Graph", model: str, column: int, records: Records) -> list[str]:
    """Add what was made from a model; return the models that are new."""
    new: list[str] = []
    for made in dict.fromkeys(records.made.get(model, ())):
        if graph.add(made, "model", graph.names.get(made, records.names.get(made, made)), made, column + 1):
            new.append(made)
        for one in records.origins.get(made, ()):
            if one.digest == model:
                graph.join(model, made, one.how, one.entry)
    return new


def _before(graph: "_Graph", model: str, column: int, bases: dict[str, set[str]], records: Records) -> list[str]:
    """Add what a model was made from; return the models that are new."""
    new: list[str] = []
    for base in sorted(bases.get(model, ())):
        key = f"base:{sha256(base.encode()).hex()[:16]}"  # where it lies is not for everybody
        graph.add(key, "base model", Path(base).name, "", column - 1)
        graph.join(key, model, "tuned", -1)
    for one in records.origins.get(model, ()):
        if graph.add(one.digest, one.kind, one.name, one.digest, column - 1) and one.kind == "model":
            new.append(one.digest)
        graph.join(one.digest, model, one.how, one.entry)
    return new


class _Graph:
    """Nodes and edges, each once."""

    def __init__(self, names: dict[str, str]) -> None:
        self.names = names
        self._nodes: dict[str, Node] = {}
        self._edges: dict[tuple[str, str, str], Edge] = {}
        self._left_out: set[str] = set()

    def add(self, key: str, kind: str, name: str, digest: str, column: int, page: str = "") -> bool:
        """Add a node; return whether it is new and drawn."""
        if key in self._nodes or key in self._left_out:
            return False
        if len(self._nodes) >= _MOST:
            self._left_out.add(key)
            return False
        own = f"/models/{digest}" if digest in self.names else page
        self._nodes[key] = Node(key, kind, name, digest, column, own)
        return True

    def join(self, source: str, target: str, how: str, entry: int) -> None:
        """Add an edge between nodes that are drawn; the newest statement of the same stands for all."""
        if source in self._nodes and target in self._nodes:
            self._edges[source, target, how] = Edge(source, target, how, entry)

    def finish(self, digest: str) -> Lineage:
        """Return the graph with its first column numbered 0."""
        first = min(node.column for node in self._nodes.values())
        nodes = tuple(
            Node(one.id, one.kind, one.name, one.digest, one.column - first, one.page) for one in self._nodes.values()
        )
        edges = tuple(self._edges.values())
        return Lineage(nodes, edges, _tell(digest, self._nodes, edges), len(self._left_out))


def _tell(digest: str, nodes: dict[str, Node], edges: Sequence[Edge]) -> str:
    """Return the graph in one sentence."""
    made_from = ", ".join(
        f"{edge.how} from {nodes[edge.source].kind} {nodes[edge.source].name}"
        for edge in edges
        if edge.target == digest
    )
    after = [nodes[edge.target] for edge in edges if edge.source == digest]
    models = ", ".join(one.name for one in after if one.kind == "model")
    copies = ", ".join(one.name for one in after if one.kind != "model")
    told = (
        nodes[digest].name,
        made_from or "nothing says what it was made from",
        f"made from it: {models}" if models else "no other model is known that was made from it",
        f"copies for {copies}" if copies else "no copy was released",
    )
    return f"{told[0]}: {'; '.join(told[1:])}."
