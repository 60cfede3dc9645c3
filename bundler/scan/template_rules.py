"""What a chat template may name: no internals of Python, no unknown functions, no addresses.

vLLM and transformers run templates in Jinja's sandbox. These rules refuse what only an escape from
it, or a defect in it, would want, and what no template of a published model needs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from bundler.scan.report import shown, words
from bundler.scan.template_tree import Tree, below, texts

if TYPE_CHECKING:
    from jinja2 import nodes

# (finding id, severity, message)
Hit = tuple[str, str, str]

_DUNDER = re.compile(
    r"__(class|base|bases|mro|subclasses|globals|builtins|init|new|import|dict|getattribute|getattr"
    r"|setattr|code|closure|func|self|module|reduce|reduce_ex|loader|spec|call|doc|qualname)__"
)
# Names that lead from an object to the interpreter (jinja2.sandbox lists the same for functions,
# generators, coroutines and frames).
_INTERNAL = words(
    "mro func_globals func_code func_closure im_class im_func im_self gi_frame gi_code "
    "gi_yieldfrom cr_frame cr_code ag_frame ag_code f_globals f_locals f_builtins f_back "
    "tb_frame tb_next format_map"
)
_URL = re.compile(r"(?i)\b(https?|ftps?|wss?|file)://|\bdata:[a-z]+/[a-z]")
# What transformers and vLLM give a template to call.
_FUNCTIONS = frozenset(["range", "dict", "namespace", "raise_exception", "strftime_now"])
# Jinja's own globals that a chat template has no use for, and ways to a template's own object.
_GADGETS = frozenset(["lipsum", "cycler", "joiner", "self", "super"])
_GIVEN = words(
    "messages tools documents add_generation_prompt continue_final_message enable_thinking "
    "thinking thinking_budget reasoning_effort reasoning tools_in_user_message "
    "builtin_tools custom_tools date_string today xml_tools python_tools tool_choice "
    "controls model_identity available_tools add_vision_id do_pan_and_scan "
    "add_system_prompt system_message default_system_message preserve_thinking "
    "clear_thinking keep_all_reasoning citations safety_mode citation_options grounding "
    "json_schema response_format functions true false none True False None loop caller "
    "varargs kwargs"
)
_GIVEN_TOKEN = re.compile(r"(bos|eos|pad|unk|sep|cls|mask|image|video|audio|boi|eoi)_token(_id)?")
_MORE_FILTERS = frozenset(["tojson", "fromjson", "from_json"])
# They take an attribute's name from a value, past what can be read here.
_BLIND_FILTERS = frozenset(["attr"])
_BY_NAME = words("attr map selectattr rejectattr groupby sort unique sum min max")
_BUILDING_FILTERS = words(
    "join replace lower upper format reverse string attr title capitalize trim"
)


def judge(tree: Tree) -> Iterator[Hit]:
    """Hits for names, functions, filters and texts of the template."""
    assigned = _assigned(tree)
    for node in tree.nodes:
        yield from _internals(node)
        yield from _code(node)
        yield from _filters(node)
        yield from _calls(node, assigned)
    yield from _variables(tree, assigned)


def _internals(node: nodes.Node) -> Iterator[Hit]:
    from jinja2 import nodes as n

    if isinstance(node, n.Getattr) and (node.attr.startswith("_") or node.attr in _INTERNAL):
        message = f"line {node.lineno} reaches for Python's internals: {shown(node.attr)}"
        yield "template.internals", "high", message
    elif isinstance(node, n.Const) and _DUNDER.search(str(node.value)):
        message = f"line {node.lineno} names Python's internals: {shown(node.value)}"
        yield "template.internals", "high", message
    for line, name in _names_by_text(node):
        if name.startswith("_") or any(part in _INTERNAL for part in name.split(".")):
            message = f"line {line} reaches for Python's internals: {shown(name)}"
            yield "template.internals", "high", message
    if isinstance(node, n.Getitem) and _is_built(node.arg):
        message = f"line {node.lineno} puts the name of what it reads together from pieces"
        yield "template.computed-name", "medium", message
    if isinstance(node, n.Const | n.TemplateData):
        text = node.value if isinstance(node, n.Const) else node.data
        if isinstance(text, str) and (match := _URL.search(text)):
            around = text[max(0, match.start() - 10) : match.end() + 60]
            yield "template.url", "medium", f"line {node.lineno} holds an address: {shown(around)}"


def _names_by_text(node: nodes.Node) -> list[tuple[int, str]]:
    """Names of attributes that stand there as texts: `x['name']`, `x|map(attribute='name')`."""
    from jinja2 import nodes as n

    if isinstance(node, n.Getitem):
        return texts(node.arg)
    if isinstance(node, n.Filter) and node.name in _BY_NAME:
        return [t for part in (*node.args, *node.kwargs) for t in texts(part)]
    return []


def _is_built(arg: nodes.Node) -> bool:
    from jinja2 import nodes as n

    for node in below(arg):
        if isinstance(node, n.Concat) or (
            isinstance(node, n.Filter) and node.name in _BUILDING_FILTERS
        ):
            return True
        if isinstance(node, n.Add | n.Mul | n.Mod) and any(
            isinstance(c, n.Const) and isinstance(c.value, str) for c in below(node)
        ):
            return True
        if isinstance(node, n.Call) and isinstance(node.node, n.Getattr):
            return True
    return False


def _code(node: nodes.Node) -> Iterator[Hit]:
    """Nothing is beside the template that it could load."""
    from jinja2 import nodes as n

    if isinstance(node, n.Include | n.Import | n.FromImport | n.Extends):
        yield "template.import", "high", f"line {node.lineno} loads another template"


def _filters(node: nodes.Node) -> Iterator[Hit]:
    from jinja2 import nodes as n
    from jinja2.filters import FILTERS
    from jinja2.tests import TESTS

    if isinstance(node, n.Filter) and node.name not in FILTERS.keys() | _MORE_FILTERS:
        message = f"line {node.lineno} uses the filter {shown(node.name)}, which engines lack"
        yield "template.unknown-filter", "medium", message
    elif isinstance(node, n.Filter) and node.name in _BLIND_FILTERS:
        message = f"line {node.lineno} reads an attribute by a computed name"
        yield "template.computed-name", "medium", message
    elif isinstance(node, n.Test) and node.name not in TESTS:
        message = f"line {node.lineno} uses the test {shown(node.name)}, which engines lack"
        yield "template.unknown-test", "medium", message


def _calls(node: nodes.Node, assigned: set[str]) -> Iterator[Hit]:
    """A name that is called, or whose method is, must be known."""
    from jinja2 import nodes as n

    if not isinstance(node, n.Call):
        return
    target: nodes.Node = node.node
    while isinstance(target, n.Getattr | n.Getitem):
        target = target.node
    if not isinstance(target, n.Name):
        return
    known = assigned | (_FUNCTIONS | {"loop", "caller"} if target is node.node else _GIVEN)
    given = target is not node.node and _GIVEN_TOKEN.fullmatch(target.name)
    if target.name not in known and not given and target.name not in _GADGETS:
        message = f"line {node.lineno} calls {shown(target.name)}, which engines do not give it"
        yield "template.unknown-function", "medium", message


def _variables(tree: Tree, assigned: set[str]) -> Iterator[Hit]:
    from jinja2 import nodes as n

    read = {
        node.name: node.lineno
        for node in tree.nodes
        if isinstance(node, n.Name) and node.ctx == "load" and node.name not in assigned
    }
    for name in sorted(read.keys() & _GADGETS):
        message = f"line {read[name]} uses Jinja's {shown(name)}, a way to its internals"
        yield "template.gadget", "high", message
    more = sorted(
        name
        for name in read.keys() - _GIVEN - _FUNCTIONS - _GADGETS
        if not _GIVEN_TOKEN.fullmatch(name)
    )
    if more:
        message = "it reads what a request may set: " + ", ".join(map(shown, more[:20]))
        yield "template.variable", "info", message


def _assigned(tree: Tree) -> set[str]:
    """Every name that the template gives a value somewhere."""
    from jinja2 import nodes as n

    out: set[str] = set()
    for node in tree.nodes:
        if (isinstance(node, n.Name) and node.ctx in ("store", "param")) or isinstance(
            node, n.Macro
        ):
            out.add(node.name)
    return out
