"""A chat template as a syntax tree, by Jinja's own parser. It is never rendered or compiled here:
compiling already evaluates constants, and `'a' * 10**10` is one.

Trees are walked without recursion, because a hostile one nests as deeply as it likes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bundler.scan import bounds
from bundler.scan.report import Fault, shown

if TYPE_CHECKING:
    from jinja2 import nodes


@dataclass(frozen=True)
class Tree:
    """All nodes of a template, children before their parents."""

    nodes: tuple[nodes.Node, ...]


def parse(text: str) -> Tree:
    """The template's tree, in the dialect of transformers. Raises Fault `template.malformed`."""
    from jinja2 import Environment, TemplateSyntaxError
    from jinja2.ext import Extension
    from jinja2.nodes import Scope

    class Generation(Extension):
        """`{% generation %}` of transformers marks what the assistant said; it shows its body."""

        tags = {"generation"}

        def parse(self, parser):  # type: ignore[no-untyped-def]
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return Scope(body, lineno=line)

    # Nothing is rendered, so nothing needs escaping.
    environment = Environment(  # noqa: S701
        trim_blocks=True,
        lstrip_blocks=True,
        optimized=False,
        extensions=[Generation, "jinja2.ext.loopcontrols"],
    )
    try:
        root = environment.parse(text)
    except TemplateSyntaxError as e:
        raise Fault("template.malformed", f"line {e.lineno} is no Jinja: {shown(e)}") from e
    except (ValueError, OverflowError, MemoryError, RecursionError) as e:
        text = f"Jinja's parser gives up on it: {type(e).__name__}"
        raise Fault("template.malformed", text) from e
    return Tree(_from_leaves(root))


def _from_leaves(root: nodes.Node) -> tuple[nodes.Node, ...]:
    """Reversed preorder, so every node comes after all that is below it."""
    out: list[nodes.Node] = []
    todo = [root]
    while todo:
        node = todo.pop()
        out.append(node)
        if len(out) > bounds.MAX_TEMPLATE_NODES:
            raise Fault("template.malformed", f"it has over {bounds.MAX_TEMPLATE_NODES} nodes")
        todo.extend(node.iter_child_nodes())
    return tuple(reversed(out))


def below(node: nodes.Node) -> Iterator[nodes.Node]:
    """`node` and everything below it."""
    todo = [node]
    while todo:
        found = todo.pop()
        yield found
        todo.extend(found.iter_child_nodes())


def texts(node: nodes.Node) -> list[tuple[int, str]]:
    """(line, value) of every constant text at or below `node`."""
    from jinja2 import nodes as n

    return [
        (c.lineno, c.value)
        for c in below(node)
        if isinstance(c, n.Const) and isinstance(c.value, str)
    ]
