"""Whether a chat template acts on what is said, or on what day it is: a hidden trigger.

A template may look at roles, kinds of parts and markup such as `</think>`. One that compares the
content of a message with words, or a date with anything, can make a model behave differently for
chosen users or from a chosen day on. We follow content and dates through variables, namespaces and
macros; names are taken as one for the whole template, so too much is followed rather than too
little.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from bundler.scan.report import shown, words
from bundler.scan.template_loops import key_of
from bundler.scan.template_rules import Hit
from bundler.scan.template_tree import Tree, below, texts

if TYPE_CHECKING:
    from jinja2 import nodes

_CONTENT = frozenset(["content", "text", "reasoning_content", "reasoning", "thinking"])
# Keys and kinds of the parts that a message's content may be a list of.
_PARTS = words(
    "content text image image_url input_image video video_url audio audio_url input_audio "
    "file type thinking reasoning document tool_use tool_result tool_reference object json "
    "parts blocks value description nullable properties required"
)
_ASKING = words(
    "startswith endswith find rfind index rindex count split rsplit partition rpartition "
    "removeprefix removesuffix replace"
)
_CHANGING = frozenset(["replace"])
# Filters that write a whole message out, or take it apart.
_WRITING = words("string tojson pprint urlencode e escape forceescape join format items dictsort")
_CHOOSING = frozenset(["select", "reject", "selectattr", "rejectattr", "replace"])
_COMPARING_TESTS = words("eq equalto ne in sameas lt le gt ge lessthan greaterthan") | {
    "==",
    "!=",
    "<",
    ">",
    "<=",
    ">=",
}
# <think>, </tool_call>, <|im_start|>, <function=, [INST], [/THINK], [BEGIN FINAL RESPONSE].
_MARKUP = re.compile(r"</?[^<>\n]{1,60}>?|\[/?[A-Z_ ]{2,40}\]")
_SWITCH = re.compile(r"\s*/[a-z_]{1,30}\s*")
_WORD = re.compile(r"\w")
# Left of a text after its markup: `assistant`, `final` between two special tokens.
_MARKUP_REST_CHARS = 20
# Longer texts are no trigger that a chosen user could say.
_SAID_CHARS = 160
# transformers puts it at the end of an answer that is to be continued.
_CONTINUE = "CONTINUE_FINAL_MESSAGE_TAG"


@dataclass
class _Marks:
    """What was learned of the tree: nodes and variables that hold content, or a date."""

    nodes: set[int] = field(default_factory=set)
    names: set[str] = field(default_factory=set)


def judge(tree: Tree) -> Iterator[Hit]:
    """Hits for questions about content and about dates."""
    whole = _follow(tree, _is_message_itself)
    content = _follow(tree, partial(_is_content_itself, whole))
    dates = _follow(tree, _is_date_itself)
    named = _constants(tree)
    for node in tree.nodes:
        for line, text in _asked(node, content, named):
            yield from _weigh(line, text)
        if _looks_up(node, content):
            yield "template.trigger", "medium", f"line {node.lineno} looks content up in a table"
        yield from _date(node, dates)


def _weigh(line: int, text: str) -> Iterator[Hit]:
    """How suspicious it is to ask whether content has this text."""
    rest = _MARKUP.sub("", text)
    if not _WORD.search(text) or text in _PARTS:
        return
    if rest != text and len(rest.strip()) <= _MARKUP_REST_CHARS:
        yield "template.marker", "info", f"line {line} looks for the markup {shown(text)}"
    elif _SWITCH.fullmatch(text):
        yield "template.switch", "low", f"line {line} lets a user switch by saying {shown(text)}"
    else:
        message = f"line {line} acts when a message has {shown(text)}: a trigger"
        # Templates ask whether their own instructions were given already; nobody says these.
        own = len(text) > _SAID_CHARS or text.strip() == _CONTINUE
        yield "template.trigger", "low" if own else "medium", message


def _asked(node: nodes.Node, content: _Marks, named: _Named) -> list[tuple[int, str]]:
    """Constant texts that content is compared with here, also those that variables hold."""
    from jinja2 import nodes as n

    asks: Sequence[nodes.Node] = ()
    if isinstance(node, n.Compare):
        parts: list[nodes.Node] = [node.expr, *(o.expr for o in node.ops)]
        if any(id(p) in content.nodes for p in parts):
            asks = [p for p in parts if id(p) not in content.nodes]
    elif isinstance(node, n.Call) and isinstance(node.node, n.Getattr):
        if node.node.attr in _ASKING and id(node.node.node) in content.nodes:
            asks = node.args
    elif isinstance(node, n.Filter) and node.node is not None and node.name in _CHOOSING:
        by_key = any(text in _CONTENT for a in node.args[:1] for _, text in texts(a))
        if id(node.node) in content.nodes or by_key:
            found = [t for a in node.args for t in _held(a, named)]
            return [t for t in found if t[1] not in _COMPARING_TESTS]
    elif isinstance(node, n.Test) and id(node.node) in content.nodes:
        asks = node.args
    return [t for a in asks for t in _held(a, named)]


_Named = Mapping[str, set[str]]


def _held(node: nodes.Node, named: _Named) -> list[tuple[int, str]]:
    """(line, text) of constants at or below `node`, and of what its variables were given."""
    keys = {key for c in below(node) if (key := key_of(c))}
    return texts(node) + [(node.lineno, t) for key in sorted(keys) for t in sorted(named[key])]


def _constants(tree: Tree) -> _Named:
    """Variable -> the constant texts that it is given anywhere."""
    out: dict[str, set[str]] = defaultdict(set)
    macros = _macros(tree)
    for node in tree.nodes:
        for target, value in _assignments(node, macros):
            found = {text for _, text in texts(value)}
            for key in _keys(target) if found else ():
                out[key] |= found
    return out


def _looks_up(node: nodes.Node, content: _Marks) -> bool:
    from jinja2 import nodes as n

    return isinstance(node, n.Getitem) and id(node.arg) in content.nodes


def _date(node: nodes.Node, dates: _Marks) -> Iterator[Hit]:
    """A date may be written into the prompt. It may decide nothing."""
    from jinja2 import nodes as n

    decides: list[nodes.Node] = []
    if isinstance(node, n.Compare):
        decides = [node.expr, *(o.expr for o in node.ops)]
    elif isinstance(node, n.If | n.CondExpr):
        decides = [node.test]
    elif isinstance(node, n.Getitem):
        decides = [node.arg]
    elif isinstance(node, n.Test) and node.name in _COMPARING_TESTS:
        decides = [node.node]
    elif isinstance(node, n.Call) and isinstance(node.node, n.Getattr):
        decides = [node.node.node] if node.node.attr in _ASKING - _CHANGING else []
    if any(id(d) in dates.nodes for d in decides):
        yield "template.date", "medium", f"line {node.lineno} decides by the date or time"


def _is_message_itself(node: nodes.Node) -> bool | None:
    """Messages, one or many, with all that they hold. A constant key names one thing of them."""
    from jinja2 import nodes as n

    if isinstance(node, n.Name) and node.name == "messages":
        return True
    if isinstance(node, n.Getitem) and isinstance(getattr(node.arg, "value", None), str):
        return False
    return False if isinstance(node, n.Getattr | n.Call | n.Test | n.Compare | n.Not) else None


def _is_content_itself(whole: _Marks, node: nodes.Node) -> bool | None:
    """True: it is; False: it is not, whatever is below; None: what is below decides."""
    from jinja2 import nodes as n

    if isinstance(node, n.Filter) and node.name in _WRITING and id(node.node) in whole.nodes:
        return True
    if isinstance(node, n.Concat) and any(id(c) in whole.nodes for c in node.nodes):
        return True
    if isinstance(node, n.Call) and _takes_apart(node.node, whole):
        return True
    if isinstance(node, n.Getattr):
        return True if node.attr in _CONTENT else None if node.attr in _METHODS else False
    if isinstance(node, n.Call) and isinstance(node.node, n.Getattr) and node.node.attr == "get":
        return any(text in _CONTENT for a in node.args[:1] for _, text in texts(a))
    if isinstance(node, n.Getitem) and isinstance(key := getattr(node.arg, "value", None), str):
        return key in _CONTENT
    if isinstance(node, n.Filter) and any(
        text in _CONTENT for part in (*node.args, *node.kwargs) for _, text in texts(part)
    ):
        return True
    if isinstance(node, n.Filter) and node.name in ("length", "count"):
        return False
    return False if isinstance(node, n.Test | n.Compare | n.Not) else None


def _takes_apart(called: nodes.Node, whole: _Marks) -> bool:
    from jinja2 import nodes as n

    apart = isinstance(called, n.Getattr) and called.attr in ("items", "values")
    return apart and any(id(c) in whole.nodes for c in called.iter_child_nodes())


def _is_date_itself(node: nodes.Node) -> bool | None:
    from jinja2 import nodes as n

    if isinstance(node, n.Call) and isinstance(node.node, n.Name):
        return True if node.node.name == "strftime_now" else None
    return False if isinstance(node, n.Test | n.Compare | n.Not) else None


Itself = Callable[["nodes.Node"], "bool | None"]

# Methods of texts and lists whose result still is content.
_METHODS = words(
    "strip lstrip rstrip split rsplit partition rpartition replace lower upper title "
    "capitalize casefold removeprefix removesuffix join splitlines format items values keys "
    "get"
)


def _follow(tree: Tree, itself: Itself) -> _Marks:
    """Mark what `itself` names, what is made of it, and the variables that are given it. Each node
    is marked once, so that a long chain of variables takes no longer than it is."""
    marks, todo, macros = _Marks(), [], _macros(tree)
    above: dict[int, list[nodes.Node]] = {}
    readers: dict[str, list[nodes.Node]] = {}
    given: dict[int, set[str]] = {}
    for node in tree.nodes:
        said = itself(node)
        if said:
            todo.append(node)
        for child in node.iter_child_nodes() if said is None else ():
            above.setdefault(id(child), []).append(node)
        if key := key_of(node):
            readers.setdefault(key, []).append(node)
        for target, value in _assignments(node, macros):
            given.setdefault(id(value), set()).update(_keys(target))
    while todo:
        node = todo.pop()
        if id(node) in marks.nodes:
            continue
        marks.nodes.add(id(node))
        todo += above.get(id(node), [])
        for name in given.get(id(node), set()) - marks.names:
            marks.names.add(name)
            todo += readers.get(name, [])
    return marks


def _assignments(
    node: nodes.Node, macros: Mapping[str, nodes.Macro]
) -> list[tuple[nodes.Node, nodes.Node]]:
    """(target, value) pairs; a loop gives its target the items of its value."""
    from jinja2 import nodes as n

    if isinstance(node, n.Assign):
        return [(node.target, node.node)]
    if isinstance(node, n.AssignBlock):
        return [(node.target, b) for b in node.body]
    if isinstance(node, n.For):
        return [(node.target, node.iter)]
    if isinstance(node, n.With):
        return list(zip(node.targets, node.values, strict=False))
    if isinstance(node, n.Call) and isinstance(node.node, n.Name) and node.node.name in macros:
        given = macros[node.node.name].args
        by_name = {a.name: a for a in given}
        named = [(by_name[k.key], k.value) for k in node.kwargs if k.key in by_name]
        return [*zip(given, node.args, strict=False), *named]
    return []


def _keys(target: nodes.Node) -> set[str]:
    return {key for c in below(target) if (key := key_of(c))}


def _macros(tree: Tree) -> dict[str, nodes.Macro]:
    from jinja2 import nodes as n

    return {m.name: m for m in tree.nodes if isinstance(m, n.Macro)}
