"""Cut a weighted graph into parts of about equal weight with little weight on the edges between them.

Recursive bisection, each multilevel: heavy edges are contracted until few vertices are left, these are cut by growing a
region, and the cut is improved by moves of single vertices at every level on the way back. Pure and deterministic: ties
go to the smaller number, nothing depends on hash order or chance.

Source: G. Karypis and V. Kumar, "A Fast and High Quality Multilevel Scheme for Partitioning Irregular Graphs", SIAM J.
Sci. Comput. 20(1), 1998; C. M. Fiduccia and R. M. Mattheyses, "A Linear-Time Heuristic for Improving Network Partitions",
DAC 1982.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush

COARSE_ENOUGH = 48
"""Vertices below which a graph is cut directly."""
SEEDS = 6
"""Starting points that are tried for the first cut."""
PASSES = 6
"""Passes of refinement per level, at most; a pass that gains nothing is the last."""
PATIENCE = 64
"""Moves of a pass without a better cut before it is given up."""
SLACK = 20
"""Usual slack: see `partition`."""


class Graph:
    """An undirected graph: `near[u]` is {neighbour: weight of the edge}, `work[u]` the vertex's own weight (above 0)."""

    __slots__ = ("near", "total", "work")

    def __init__(self, near: list[dict[int, int]], work: list[int]) -> None:
        self.near = near
        self.work = work
        self.total = sum(work)

    @classmethod
    def of(cls, work: Sequence[int], edges: Iterable[tuple[int, int, int]]) -> Graph:
        """From (a, b, weight) in any number and direction; loops are dropped, parallel edges added up."""
        near: list[dict[int, int]] = [{} for _ in work]
        for a, b, weight in edges:
            if a != b and weight > 0:
                near[a][b] = near[a].get(b, 0) + weight
                near[b][a] = near[b].get(a, 0) + weight
        return cls(near, [max(1, w) for w in work])

    def merged(self, into: Sequence[int], count: int) -> Graph:
        """The graph whose vertex `into[u]` stands for u, with `count` vertices."""
        near: list[dict[int, int]] = [{} for _ in range(count)]
        work = [0] * count
        for u, others in enumerate(self.near):
            mine = into[u]
            work[mine] += self.work[u]
            row = near[mine]
            for v, weight in others.items():
                other = into[v]
                if other != mine:
                    row[other] = row.get(other, 0) + weight
        return Graph(near, work)

    def part(self, vertices: Sequence[int]) -> Graph:
        """The graph of some vertices, renumbered in their order."""
        number = {u: i for i, u in enumerate(vertices)}
        near = [{number[v]: w for v, w in self.near[u].items() if v in number} for u in vertices]
        return Graph(near, [self.work[u] for u in vertices])


def cut_weight(graph: Graph, part: Sequence[int]) -> int:
    """Total weight of the edges between different parts."""
    return sum(w for u, others in enumerate(graph.near) for v, w in others.items() if u < v and part[u] != part[v])


def partition(graph: Graph, parts: int, slack: int = SLACK) -> list[int]:
    """The part, 0 to parts - 1, of each vertex; none is empty.

    At each cut in two a side may differ from its share by 1/slack of it, or by what the best packing of single vertices
    leaves.

    Raises:
        ValueError: fewer vertices than parts, or no part at all.
    """
    count = len(graph.work)
    if not 1 <= parts <= count:
        raise ValueError(f"parts must be in 1..{count} (the number of vertices), not {parts}")
    found = [0] * count
    pending = [(list(range(count)), graph, parts, 0)]
    while pending:
        vertices, piece, wanted, first = pending.pop()
        if wanted == 1:
            for u in vertices:
                found[u] = first
            continue
        left = wanted // 2
        side = _bisect(piece, left, wanted, slack)
        for which, share, start in ((0, left, first), (1, wanted - left, first + left)):
            local = [i for i, s in enumerate(side) if s == which]
            pending.append(([vertices[i] for i in local], piece.part(local), share, start))
    return found


def _bisect(graph: Graph, left: int, parts: int, part_of_share: int) -> list[int]:
    """Side 0 for `left` parts' worth of vertices, side 1 for the others."""
    target = graph.total * left // parts
    slack = max(target // part_of_share, _least_slack(graph.work, target))
    levels: list[tuple[Graph, list[int]]] = []
    small = graph
    while len(small.work) > COARSE_ENOUGH:
        into, count = _matching(small)
        if count * 20 > len(small.work) * 19:
            break
        levels.append((small, into))
        small = small.merged(into, count)
    side = _first_cut(small, target, max(slack, max(small.work) // 2))
    for finer, into in reversed(levels):
        side = [side[i] for i in into]
        _refine(finer, side, target, slack if finer is graph else max(slack, max(finer.work) // 2))
    if not levels:
        _refine(graph, side, target, slack)
    _populate(graph, side, (left, parts - left))
    return side


def _least_slack(work: Sequence[int], target: int) -> int:
    """How far from `target` a side ends when vertices are packed largest first, whatever their edges."""
    room = [target, sum(work) - target]
    for weight in sorted(work, reverse=True):
        room[room[1] > room[0]] -= weight
    return abs(room[0])


def _matching(graph: Graph) -> tuple[list[int], int]:
    """Pairs of vertices joined by heavy edges: the new number of each vertex, and how many there are."""
    count = len(graph.work)
    limit = max(2 * graph.total // COARSE_ENOUGH, 1)
    into = [-1] * count
    number = 0
    work = graph.work
    for u in sorted(range(count), key=lambda v: (len(graph.near[v]), v)):
        if into[u] >= 0:
            continue
        best, best_rank = -1, (0, 0)
        for v, weight in graph.near[u].items():
            if into[v] < 0 and work[u] + work[v] <= limit:
                rank = (weight, -v)
                if best < 0 or rank > best_rank:
                    best, best_rank = v, rank
        into[u] = number
        if best >= 0:
            into[best] = number
        number += 1
    return into, number


def _first_cut(graph: Graph, target: int, slack: int) -> list[int]:
    """The best of several grown regions, each refined."""
    count = len(graph.work)
    best: tuple[tuple[int, int], list[int]] | None = None
    for seed in sorted({i * count // SEEDS for i in range(SEEDS)}):
        side = _grown(graph, seed, target)
        _refine(graph, side, target, slack)
        weight = sum(w for w, s in zip(graph.work, side, strict=True) if s == 0)
        off = abs(weight - target)
        rank = (max(0, off - slack), cut_weight(graph, side))
        if best is None or rank < best[0]:
            best = (rank, side)
    assert best is not None
    return best[1]


def _grown(graph: Graph, seed: int, target: int) -> list[int]:
    """Side 0 grown from `seed` by the vertex that is tied to it most, until it has its weight."""
    count = len(graph.work)
    side = [1] * count
    weight = 0
    tie = [0] * count
    heap = [(0, u) for u in range(count) if u != seed]
    heap.append((-1, seed))
    heapify(heap)
    tie[seed] = 1
    while heap and weight < target:
        rank, u = heappop(heap)
        if side[u] == 0 or -rank != tie[u]:
            continue
        if weight + graph.work[u] - target > target - weight:
            continue  # nearer to the target without it
        side[u] = 0
        weight += graph.work[u]
        for v, w in graph.near[u].items():
            if side[v]:
                tie[v] += w
                heappush(heap, (-tie[v], v))
    return side


def _refine(graph: Graph, side: list[int], target: int, slack: int) -> None:
    """Improve a cut in place by passes of single moves; brings it within the slack first if it is not."""
    for _ in range(PASSES):
        if not _pass(graph, side, target, slack):
            return


def _pass(graph: Graph, side: list[int], target: int, slack: int) -> bool:
    """Move each vertex at most once, the best move first; keep the best state met. Returns whether it is a better one."""
    near, work = graph.near, graph.work
    gain = [sum(w if side[v] != side[u] else -w for v, w in near[u].items()) for u in range(len(work))]
    heaps: list[list[tuple[int, int]]] = [[], []]
    for u, g in enumerate(gain):
        heaps[side[u]].append((-g, u))
    for heap in heaps:
        heapify(heap)
    free = [True] * len(work)
    off = sum(w for w, s in zip(work, side, strict=True) if s == 0) - target
    moves: list[int] = []
    cut = 0
    first = best = (max(0, abs(off) - slack), cut)
    kept = 0
    while len(moves) - kept < PATIENCE:
        u = _next_move(heaps, gain, free, work, side, off, slack)
        if u < 0:
            break
        free[u] = False
        off += work[u] if side[u] else -work[u]
        cut -= gain[u]
        side[u] = here = 1 - side[u]
        moves.append(u)
        for v, w in near[u].items():
            if free[v]:
                gain[v] += -2 * w if side[v] == here else 2 * w
                heappush(heaps[side[v]], (-gain[v], v))
        state = (max(0, abs(off) - slack), cut)
        if state < best:
            best, kept = state, len(moves)
    for u in moves[kept:]:
        side[u] = 1 - side[u]
    return best < first


def _next_move(
    heaps: list[list[tuple[int, int]]],
    gain: list[int],
    free: list[bool],
    work: list[int],
    side: list[int],
    off: int,
    slack: int,
) -> int:
    """The free vertex of the greatest gain whose move leaves the balance within the slack, or betters it; -1 for none."""
    best, best_from = -1, 0
    for which in (0, 1):
        heap = heaps[which]
        skipped = []
        while heap:
            rank, u = heap[0]
            if not free[u] or side[u] != which or -rank != gain[u]:
                heappop(heap)
                continue
            after = off + (work[u] if which else -work[u])
            if abs(after) <= slack or abs(after) < abs(off):
                if best < 0 or gain[u] > gain[best]:
                    best, best_from = u, which
                break
            skipped.append(heappop(heap))
            if len(skipped) >= 8:
                break
        for entry in skipped:
            heappush(heap, entry)
    if best >= 0:
        heappop(heaps[best_from])
    return best


def _populate(graph: Graph, side: list[int], least: tuple[int, int]) -> None:
    """See that each side has as many vertices as it must become parts, taking the other's lightest."""
    for which in (0, 1):
        missing = least[which] - side.count(which)
        if missing > 0:
            others = sorted((u for u, s in enumerate(side) if s != which), key=lambda u: (graph.work[u], u))
            for u in others[:missing]:
                side[u] = which
