"""Another system's file as nodes that know their line; a key that is written twice is kept twice.

Read under the caps of `yaml_loader`, event by event, before anything is built from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from keepflow.config.yaml_loader import BYTES_LIMIT, DEPTH_LIMIT, NODES_LIMIT
from keepflow.core.text import one_line
from keepflow.errors import ConfigError, Problem

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NOTHING = frozenset({"", "~", "null", "Null", "NULL"})
_MERGE = "<<"


@dataclass(frozen=True, slots=True)
class Node:
    """A value and the line it stands on: text (None for nothing), a list, or a mapping as pairs in their order."""

    line: int
    text: str | None = None
    items: tuple[Node, ...] | None = None
    pairs: tuple[tuple[str, Node], ...] | None = None
    tag: str = field(default="", compare=False)  #: a tag of another system, such as `!reference`

    def get(self, key: str) -> Node | None:
        """Return the value of a key, the last one when it is written twice; None when it is not there, or nothing."""
        found = [node for name, node in self.pairs or () if name == key]
        return found[-1] if found and not found[-1].nothing else None

    def has(self, *keys: str) -> bool:
        """Say whether it is a mapping with any of these keys."""
        return any(name in keys for name, _ in self.pairs or ())

    @property
    def nothing(self) -> bool:
        """Whether nothing is written there."""
        return self.text is None and self.items is None and self.pairs is None

    @property
    def texts(self) -> list[str]:
        """The text, or the texts of a list, also of lists in lists; anything else is left out."""
        if self.text is not None:
            return [self.text]
        return [text for item in self.items or () for text in item.texts]

    @property
    def each(self) -> tuple[Node, ...]:
        """The items of a list, or the one value there is."""
        return self.items if self.items is not None else () if self.nothing else (self,)

    @property
    def named(self) -> list[tuple[str, Node]]:
        """The entries of a mapping, or of a list whose entries have a `name`."""
        if self.pairs is not None:
            return list(self.pairs)
        return [((one.get("name") or _UNNAMED).text or "", one) for one in self.items or () if one.pairs is not None]

    @property
    def true(self) -> bool:
        """Whether it says yes."""
        return self.text in ("true", "True", "TRUE", "yes", "on")


_UNNAMED = Node(0)


def read(data: bytes, file: str) -> list[Node]:
    """Return the documents of a file; raises ConfigError when it cannot be read at all."""
    if len(data) > BYTES_LIMIT:
        raise _refused(file, 1, 1, "too-large", f"the file has {len(data)} bytes, allowed are {BYTES_LIMIT}")
    try:
        text = data.decode()
        _check(text, file)
        return [_Builder(file).build(root) for root in yaml.compose_all(text, Loader=_LOADER) if root is not None]
    except UnicodeDecodeError:
        raise _refused(file, 1, 1, "not-utf8", "the file is not UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        sentence = ", ".join(part for part in (error.context, error.problem) if part) or "not YAML"
        raise _refused(file, *place, "syntax", sentence) from None
    except yaml.YAMLError as error:
        raise _refused(file, 1, 1, "syntax", f"a character that YAML does not allow: {error}") from None


def _check(text: str, file: str) -> None:
    """Refuse what is too deep before it is built: the builder of the library calls itself for every level."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH_LIMIT:
            line = event.start_mark.line + 1 if event.start_mark else 1
            raise _refused(file, line, 1, "too-deep", f"nested deeper than {DEPTH_LIMIT} levels")


class _Builder:
    """Turns the library's nodes into ours, counting what aliases grow into."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._count = 0

    def build(self, node: Any, depth: int = 1) -> Node:
        self._count += 1
        line = node.start_mark.line + 1
        if self._count > NODES_LIMIT or depth > DEPTH_LIMIT:
            sentence = f"more than {NODES_LIMIT} values or {DEPTH_LIMIT} levels, with aliases written out"
            raise _refused(self._file, line, node.start_mark.column + 1, "too-many", sentence)
        tag = node.tag if node.tag and not node.tag.startswith("tag:") else ""
        if isinstance(node, yaml.SequenceNode):
            return Node(line, items=tuple(self.build(item, depth + 1) for item in node.value), tag=tag)
        if isinstance(node, yaml.MappingNode):
            return Node(line, pairs=tuple(self._pairs(node, depth)), tag=tag)
        plain = getattr(node, "style", None) is None
        return Node(line, text=None if plain and node.value in _NOTHING else node.value, tag=tag)

    def _pairs(self, node: Any, depth: int) -> Iterator[tuple[str, Node]]:
        """Return the entries of a mapping; what is merged into it comes first, so that its own entries count."""
        built = [
            (str(key.value), self.build(value, depth + 1))
            for key, value in node.value
            if isinstance(key, yaml.ScalarNode)
        ]
        own = {name for name, _ in built}
        for name, value in built:
            if name == _MERGE:
                yield from (pair for one in value.each for pair in one.pairs or () if pair[0] not in own)
        yield from ((name, value) for name, value in built if name != _MERGE)


def _refused(file: str, line: int, column: int, code: str, sentence: str) -> ConfigError:
    return ConfigError([Problem(line, column, code, one_line(sentence, 400), file)])
