"""Loops of a chat template that never end, or grow what they hold without end.

A sandbox does not stop `range(10**9)`: one request would keep the server busy for hours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from bundler.scan import bounds
from bundler.scan.template_rules import Hit
from bundler.scan.template_tree import Tree, below

if TYPE_CHECKING:
    from jinja2 import nodes


def judge(tree: Tree) -> Iterator[Hit]:
    """Hits for numbers, loops and texts that grow."""
    from jinja2 import nodes as n

    named = _named_numbers(tree)
    inner = {id(c) for f in tree.nodes if isinstance(f, n.For) for c in below(f) if c is not f}
    for node in tree.nodes:
        yield from _number(node)
        if isinstance(node, n.For) and id(node) not in inner:
            yield from _nest(node, named)
        if isinstance(node, n.For):
            yield from _doubling(node)


def _number(node: nodes.Node) -> Iterator[Hit]:
    from jinja2 import nodes as n

    if isinstance(node, n.Pow):
        yield "template.number", "medium", f"line {node.lineno} raises a number to a power"
    elif isinstance(node, n.Const) and type(node.value) in (int, float):
        if abs(node.value) > bounds.MAX_TEMPLATE_NUMBER:
            yield "template.number", "medium", f"line {node.lineno} holds a very large number"
    elif isinstance(node, n.Mul):
        sides = (node.left, node.right)
        large = any(c > bounds.MAX_TEMPLATE_FACTOR for side in sides for c in _numbers(side))
        if large or any(isinstance(side, n.Mul) for side in sides):
            yield "template.number", "medium", f"line {node.lineno} multiplies beyond need"


def _numbers(node: nodes.Node) -> list[int]:
    from jinja2 import nodes as n

    found = [c.value for c in below(node) if isinstance(c, n.Const)]
    return [abs(v) for v in found if type(v) is int]


def _nest(outer: nodes.For, named: Mapping[str, int]) -> Iterator[Hit]:
    """The rounds of loops within `outer`, where they count constants; and how often one list is
    gone through within itself."""
    from jinja2 import nodes as n

    todo: list[tuple[nodes.Node, int, tuple[str, ...]]] = [(outer, 1, ())]
    while todo:
        node, rounds, lists = todo.pop()
        if isinstance(node, n.For):
            rounds *= _rounds(node.iter, named)
            lists += tuple(c.name for c in below(node.iter) if isinstance(c, n.Name))
            if rounds > bounds.MAX_TEMPLATE_ROUNDS:
                yield "template.endless", "high", f"line {node.lineno} goes round too often"
                return
            if lists.count("messages") > 2:
                message = f"line {node.lineno} goes through all messages within two such loops"
                yield "template.endless", "high", message
                return
        todo.extend((c, rounds, lists) for c in node.iter_child_nodes())


def _named_numbers(tree: Tree) -> dict[str, int]:
    """Variables that are given constant numbers somewhere, with the largest."""
    from jinja2 import nodes as n

    out: dict[str, int] = {}
    for node in tree.nodes:
        if isinstance(node, n.Assign) and (key := key_of(node.target)):
            out[key] = max([out.get(key, 1), *_numbers(node.node)])
    return out


def _rounds(iterated: nodes.Node, named: Mapping[str, int]) -> int:
    """How often a loop over a range of constants goes round; 1 where the data decide."""
    from jinja2 import nodes as n

    most = 1
    for call in below(iterated):
        if isinstance(call, n.Call) and isinstance(call.node, n.Name) and call.node.name == "range":
            known = [named.get(key_of(c) or "", 1) for a in call.args for c in below(a)]
            found = [v for a in call.args for v in _numbers(a)]
            if any(isinstance(c, n.Pow) for a in call.args for c in below(a)):
                return bounds.MAX_TEMPLATE_ROUNDS + 1
            multiplies = any(isinstance(c, n.Mul) for a in call.args for c in below(a))
            each = [*known, *found]
            most = max([most, *each, math.prod(each) if multiplies else 1])
    return most


def _doubling(loop: nodes.For) -> Iterator[Hit]:
    """A value that is made of itself twice doubles in each round: forty rounds fill any memory."""
    from jinja2 import nodes as n

    for node in below(loop):
        if not isinstance(node, n.Assign):
            continue
        target = key_of(node.target)
        uses = [c for c in below(node.node) if target is not None and key_of(c) == target]
        product = any(isinstance(c, n.Mul) for c in below(node.node))
        if len(uses) > 1 and (product or any(isinstance(c, n.Concat | n.Add) for c in below(node))):
            yield "template.endless", "high", f"line {node.lineno} doubles what it holds"


def key_of(node: nodes.Node) -> str | None:
    """A variable, or an attribute of a namespace, as one word."""
    from jinja2 import nodes as n

    if isinstance(node, n.NSRef):
        return f"{node.name}.{node.attr}"
    if isinstance(node, n.Getattr) and isinstance(node.node, n.Name):
        return f"{node.node.name}.{node.attr}"
    return node.name if isinstance(node, n.Name) else None
