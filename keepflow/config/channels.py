"""The section `notify:` of the server file: who is told of what, and how; the key of a kind is the name of its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as FsPath
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from keepflow.config.fields import Model, Names, OneOrMany, bad
from keepflow.config.validation import check, kind_of, shown
from keepflow.config.yaml_loader import Document, Path
from keepflow.core.notices import CHOICES, USUAL
from keepflow.core.text import did_you_mean, quoted
from keepflow.errors import Problem
from keepflow.ports import discover

SECTION = "notify"
Kinds = Mapping[str, Any]  #: notifiers by their YAML key; each a module that fits `ports.Notifier`


def _choice(text: str) -> str:
    if text not in CHOICES:
        known = ", ".join(sorted(CHOICES))
        raise bad("bad-value", f"{quoted(text, 40)} is nothing to be told of{did_you_mean(text, CHOICES)}: {known}")
    return text


class Rules(Model):
    """What is the same for every kind of channel: what it is told of, and of which projects (none named: of all)."""

    on: Annotated[tuple[Annotated[str, AfterValidator(_choice)], ...], Field(min_length=1), OneOrMany()] = tuple(
        sorted(USUAL)
    )
    projects: Names = ()


@dataclass(frozen=True, slots=True)
class Channel:
    """Somebody to tell; `settings` is an object of the kind's own model."""

    kind: str
    settings: Model
    on: tuple[str, ...]
    projects: tuple[str, ...]


def installed() -> Kinds:
    """Return the notifiers that are installed."""
    return discover("keepflow.notifiers")


def read(section: Mapping[str, Any], document: Document, base: FsPath) -> tuple[dict[str, Channel], list[Problem]]:
    """Read the channels of a server file, each with every mistake at its line."""
    kinds = installed() if section else {}
    channels: dict[str, Channel] = {}
    problems: list[Problem] = []
    for name, entry in section.items():
        channel, found = _channel(entry, kinds, document, (SECTION, name), base)
        problems += found
        if channel is not None:
            channels[name] = channel
    return channels, problems


def _channel(
    entry: Any, kinds: Kinds, document: Document, path: Path, base: FsPath
) -> tuple[Channel | None, list[Problem]]:
    if not isinstance(entry, dict):
        return None, [document.problem(path, "wrong-type", f"{shown(path)} must be a mapping, not {kind_of(entry)}")]
    named = [key for key in entry if key in kinds]
    if len(named) != 1:
        return None, [_which(entry, named, kinds, document, path)]
    kind = named[0]
    settings, problems = check(kinds[kind].Settings, entry[kind], document, (*path, kind), context={"base": base})
    rest = {key: value for key, value in entry.items() if key != kind}
    rules, more = check(Rules, rest, document, path)
    if settings is None or rules is None:
        return None, problems + more
    return Channel(kind, settings, rules.on, rules.projects), []


def _which(entry: dict[str, Any], named: list[str], kinds: Kinds, document: Document, path: Path) -> Problem:
    """Return the problem of an entry that says no kind, or two."""
    if named:
        sentence = f"{shown(path)}: {' and '.join(named)} are two channels; give each its own name"
        return document.problem((*path, named[1]), "conflict", sentence, key=True)
    strange = next((key for key in entry if key not in Rules.model_fields), "")
    choice = ", ".join(sorted(kinds))
    sentence = f"{shown(path)}: says no way to tell anybody; write one of {choice}{did_you_mean(strange, kinds)}"
    return document.problem((*path, strange) if strange else path, "missing", sentence, key=True)
