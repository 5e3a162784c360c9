"""YAML with the meanings of version 1.2, read under caps, with the line and column of every key and value.

The file is read event by event, so that a hostile one is refused before anything deep or large is built. What differs
from PyYAML's own loader: `on`, `no`, `22:30`, `0755` stay text; keys are always text; a number remembers how it was
written (`3.10` is 3.1 as a number and "3.10" as text); a key written twice is a problem; merge keys do not exist.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml

from keepflow.core.text import one_line, quoted
from keepflow.errors import ConfigError, Problem

BYTES_LIMIT = 256 * 1024
DEPTH_LIMIT = 20
NODES_LIMIT = 10_000  #: with every alias written out

Path = tuple[str | int, ...]
Mark = tuple[int, int]

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {word: value for value in (True, False) for word in (f"{value}".lower(), f"{value}", f"{value}".upper())}
_WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,63})")
_RADIX = re.compile(r"0o[0-7]{1,64}|0x[0-9a-fA-F]{1,64}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,4})?")
_CORE = "tag:yaml.org,2002:"
_SCALAR_TAGS = {f"{_CORE}{name}": name for name in ("str", "int", "float", "bool", "null")}
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class WrittenInt(int):
    """A whole number whose text is not its plain decimal form (`0x1F`, `+5`); `str()` gives the text."""

    text: str

    def __str__(self) -> str:
        return self.text


class WrittenFloat(float):
    """A number whose text would be lost by conversion (`3.10`, `1e3`); `str()` gives the text."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(slots=True)
class Document:
    """A loaded file: its value, where every key and value stands, and problems that did not stop the loading.

    Positions are (line, column), both from 1, under the path from the top: `("flows", "dev", "steps", 0)`.
    """

    file: str
    value: Any = None
    keys: dict[Path, Mark] = field(default_factory=dict)
    values: dict[Path, Mark] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def mark(self, path: Path, *, key: bool = False) -> Mark:
        """Return the position of the value at a path (of its key, when asked), or of the nearest part above it."""
        if key and path in self.keys:
            return self.keys[path]
        while path and path not in self.values:
            path = path[:-1]
        return self.values.get(path, (1, 1))

    def problem(self, path: Path, code: str, message: str, *, key: bool = False) -> Problem:
        """Return a problem at the position of a path."""
        line, column = self.mark(path, key=key)
        return Problem(line, column, code, one_line(message, 400), self.file)


@dataclass(slots=True)
class _Node:
    mark: Mark
    value: Any = None  #: scalar value, list of nodes, or {key: (mark of the key, node)}
    size: int = 1
    height: int = 1


def load(text: str | bytes, file: str) -> Document:
    """Read one YAML document.

    Raises ConfigError (codes `too-large`, `not-utf8`, `syntax`, `empty`, `too-deep`, `too-many`, `unknown-alias`,
    `two-documents`) when the file cannot be read at all; lesser problems are collected in the document.
    """
    document = Document(file)
    clean = _decoded(text, document)
    reader = _Reader(document, clean)
    try:
        root = reader.read()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        _refuse(document, place, "syntax", _syntax_sentence(error, clean[_index(clean, place) :][:1]))
    except yaml.YAMLError as error:
        _refuse(document, _first_unprintable(clean), "syntax", f"a character that YAML does not allow: {error}")
    document.value = _expand(document, root, (), root.mark)
    return document


def _decoded(text: str | bytes, document: Document) -> str:
    try:
        data = text.encode() if isinstance(text, str) else text
        clean = data.decode()
    except UnicodeError:
        _refuse(document, (1, 1), "not-utf8", "the file is not UTF-8 text")
    if len(data) > BYTES_LIMIT:
        _refuse(document, (1, 1), "too-large", f"the file has {len(data)} bytes, allowed are {BYTES_LIMIT}")
    return clean.removeprefix("\ufeff")


def _refuse(document: Document, mark: Mark, code: str, message: str) -> NoReturn:
    problem = Problem(*mark, code, one_line(message, 400), document.file)
    raise ConfigError([*document.problems, problem]) from None


def _index(text: str, place: Mark) -> int:
    lines = text.split("\n")
    return sum(len(line) + 1 for line in lines[: place[0] - 1]) + place[1] - 1


def _syntax_sentence(error: yaml.MarkedYAMLError, at: str) -> str:
    sentence = ", ".join(part for part in (error.context, error.problem) if part) or "not YAML"
    if at == "\t":
        return f"{sentence}: indent with spaces, not tabs"
    if "mapping values are not allowed" in sentence:
        return f"{sentence}: check the indentation, and put text with ': ' in quotes"
    return sentence


def _first_unprintable(text: str) -> Mark:
    for number, line in enumerate(text.split("\n"), start=1):
        for column, character in enumerate(line, start=1):
            if character not in "\t\r" and (character < " " or character in "\x7f\ufffe\uffff"):
                return (number, column)
    return (1, 1)


class _Reader:
    """Builds the node tree from parser events, counting what aliases would grow into."""

    def __init__(self, document: Document, text: str) -> None:
        self.document = document
        self.events: Iterator[Any] = iter(yaml.parse(text, Loader=_LOADER))
        self.anchors: dict[str, _Node] = {}
        self.nodes = 0

    def read(self) -> _Node:
        """Read the one document of the stream."""
        next(self.events)  # stream start
        if isinstance(next(self.events), yaml.StreamEndEvent):
            _refuse(self.document, (1, 1), "empty", "the file is empty")
        root = self.node(next(self.events), 1)
        next(self.events)  # document end
        following = next(self.events)
        if not isinstance(following, yaml.StreamEndEvent):
            _refuse(self.document, _mark(following), "two-documents", "only one YAML document is allowed ('---')")
        return root

    def node(self, event: Any, depth: int) -> _Node:
        """Read the node that starts with this event; `depth` counts from 1."""
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event, depth)
        self.count(event, 1, depth)
        node = _Node(_mark(event))
        if isinstance(event, yaml.ScalarEvent):
            node.value = self.scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            node.value = self.sequence(node, depth)
        else:
            node.value = self.mapping(node, depth)
        if not isinstance(event, yaml.ScalarEvent):
            self.check_tag(event, "seq" if isinstance(event, yaml.SequenceStartEvent) else "map")
        if event.anchor:
            self.anchors[event.anchor] = node
        return node

    def alias(self, event: Any, depth: int) -> _Node:
        node = self.anchors.get(event.anchor)
        if node is None:
            known = f"alias *{event.anchor} names nothing that is complete above it"
            _refuse(self.document, _mark(event), "unknown-alias", known)
        self.count(event, node.size, depth + node.height - 1)
        return node

    def count(self, event: Any, nodes: int, depth: int) -> None:
        self.nodes += nodes
        if self.nodes > NODES_LIMIT:
            limit = f"more than {NODES_LIMIT} keys and values, with aliases written out"
            _refuse(self.document, _mark(event), "too-many", limit)
        if depth > DEPTH_LIMIT:
            _refuse(self.document, _mark(event), "too-deep", f"nested deeper than {DEPTH_LIMIT} levels")

    def sequence(self, node: _Node, depth: int) -> list[_Node]:
        items: list[_Node] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            item = self.node(event, depth + 1)
            items.append(item)
            _grow(node, item)
        return items

    def mapping(self, node: _Node, depth: int) -> dict[str, tuple[Mark, _Node]]:
        entries: dict[str, tuple[Mark, _Node]] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self.key(event, depth)
            mark = _mark(event)
            value = self.node(next(self.events), depth + 1)
            _grow(node, value)
            if key in entries:
                first = entries[key][0][0]
                message = f"{quoted(key)} is written twice: on line {first} and again on line {mark[0]}"
                self.note(mark, "duplicate-key", message)
            elif key is not None:
                entries[key] = (mark, value)
        return entries

    def key(self, event: Any, depth: int) -> str | None:
        """Read a key as the text it looks like; None, and a problem, for anything that is not plain text."""
        if isinstance(event, yaml.ScalarEvent) and event.value:
            return self.whole(event)
        self.note(_mark(event), "bad-key", "a key must be a word, not empty, not a list, a mapping or an alias")
        self.node(event, depth + 1)
        return None

    def whole(self, event: Any) -> str:
        """Return a scalar's text; half of a surrogate pair, which `"\\ud800"` can make, is text to nobody else."""
        text: str = event.value
        if any("\ud800" <= character <= "\udfff" for character in text):
            _refuse(self.document, _mark(event), "syntax", "an escape that stands for half a character")
        return text

    def scalar(self, event: Any) -> Any:
        text, plain = self.whole(event), event.implicit[0]
        if event.tag is None or event.tag == "!":
            return _core_value(text) if plain and event.tag is None else text
        name = _SCALAR_TAGS.get(event.tag)
        if name == "str":
            return text
        value = _core_value(text)
        wanted = {"int": int, "float": (int, float), "bool": bool, "null": type(None)}
        if name is None:
            self.check_tag(event, "str")
        elif not isinstance(value, wanted[name]) or (name in ("int", "float") and isinstance(value, bool)):  # type: ignore[arg-type]  # a table of classes
            self.note(_mark(event), "bad-tag", f"{quoted(text)} is not a {name}")
        return value

    def check_tag(self, event: Any, name: str) -> None:
        if event.tag not in (None, "!", f"{_CORE}{name}"):
            self.note(_mark(event), "unknown-tag", f"the tag {quoted(event.tag)} is not known here; leave it out")

    def note(self, mark: Mark, code: str, message: str) -> None:
        self.document.problems.append(Problem(*mark, code, one_line(message, 400), self.document.file))


def _mark(event: Any) -> Mark:
    return (event.start_mark.line + 1, event.start_mark.column + 1)


def _grow(node: _Node, child: _Node) -> None:
    node.size += child.size
    node.height = max(node.height, child.height + 1)


def _core_value(text: str) -> Any:
    """Resolve a plain scalar by the YAML 1.2 core schema; a leading zero, `.inf` and `.nan` stay text."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _WHOLE.fullmatch(text):
        return _written(WrittenInt(text), text)
    if _RADIX.fullmatch(text):
        return _written(WrittenInt(text, 0), text)
    if _FLOAT.fullmatch(text):
        number = WrittenFloat(text)
        return text if number in (float("inf"), float("-inf")) else _written(number, text)
    return text


def _written(number: WrittenInt | WrittenFloat, text: str) -> int | float:
    plain = int(number) if isinstance(number, WrittenInt) else float(number)
    number.text = text
    return plain if str(plain) == text else number


def _expand(document: Document, node: _Node, path: Path, key: Mark) -> Any:
    document.values[path] = node.mark
    document.keys[path] = key
    if isinstance(node.value, dict):
        return {name: _expand(document, child, (*path, name), mark) for name, (mark, child) in node.value.items()}
    if isinstance(node.value, list):
        return [_expand(document, child, (*path, index), child.mark) for index, child in enumerate(node.value)]
    return node.value
