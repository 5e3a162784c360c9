"""Flow files of other systems turned into ours: which format one is in, what it becomes, and what is lost on the way.

Whatever the old file holds, the new one is one that `lint` takes: a part that it would refuse is left out, and said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from keepflow.config.adopt._draft import Draft, Loss, Part
from keepflow.config.adopt._source import Node, read
from keepflow.config.flow_file import load_flow
from keepflow.config.flow_steps import Kinds
from keepflow.config.validation import shown
from keepflow.config.yaml_loader import Path, load
from keepflow.core.text import one_line
from keepflow.errors import ConfigError, Problem, UsageError
from keepflow.ports import discover

_FOREIGN = re.compile(r"\$\{?((?:CI|DRONE|GITLAB|CYCLONE)_[A-Z0-9_]+)")
_NAMES = {
    **dict.fromkeys(("CI_PROJECT_DIR", "CI_WORKSPACE", "DRONE_WORKSPACE"), "WORKSPACE"),
    **dict.fromkeys(("CI_COMMIT_SHA", "DRONE_COMMIT_SHA", "DRONE_COMMIT"), "KEEPFLOW_SHA"),
    **dict.fromkeys(("CI_COMMIT_BRANCH", "CI_COMMIT_REF_NAME", "DRONE_BRANCH"), "KEEPFLOW_BRANCH"),
    **dict.fromkeys(("CI_COMMIT_TAG", "DRONE_TAG"), "KEEPFLOW_TAG"),
    **dict.fromkeys(("CI_COMMIT_MESSAGE", "DRONE_COMMIT_MESSAGE"), "KEEPFLOW_MESSAGE"),
    **dict.fromkeys(("CI_PIPELINE_IID", "CI_PIPELINE_NUMBER", "DRONE_BUILD_NUMBER"), "BUILD_NUMBER"),
}
#: Losses that are named when nothing is left.
_FEW = 5


@dataclass(frozen=True, slots=True)
class Adopted:
    """What became of a file: the format it was in, the text of the flow file, and the losses by their lines."""

    title: str
    text: str
    losses: tuple[Loss, ...]


def formats() -> dict[str, Any]:
    """Return the formats that are known, by name; each is a module with TITLE, `fits` and `adopt`."""
    return discover("keepflow.config.adopt")


def adopted(data: bytes, file: str, kinds: Kinds, image: str, source: str | None = None) -> Adopted:
    """Turn a file into a flow file. `image` is the name its images get, `source` a format (default: what fits).

    Raises ConfigError when the file cannot be read, UsageError when it is of no known format, or nothing is left of it.
    """
    roots = [root for root in read(data, file) if root.pairs is not None]
    if not roots:
        raise UsageError(
            f"{file}: it holds no mapping, so it is no file of any system known here", code="unknown-format"
        )
    known = formats()
    chosen = source or next((name for name, one in known.items() if one.fits(file, roots)), None)
    if chosen is None:
        titles = ", ".join(one.TITLE for one in known.values())
        raise UsageError(
            f"{file}: none of the formats known here: {titles}; name one with --from", code="unknown-format"
        )
    draft = Draft(image)
    known[chosen].adopt(roots, draft)
    _foreign_names(data.decode(), draft)
    content = _checked(draft, kinds, file)
    losses = tuple(sorted(dict.fromkeys(draft.losses)))
    return Adopted(known[chosen].TITLE, _head(file, losses) + _dump(content), losses)


def _foreign_names(text: str, draft: Draft) -> None:
    """Note the variables of the other system that scripts use, each once: what they are called here, if anything."""
    seen = set[str]()
    for number, line in enumerate(text.splitlines(), start=1):
        for name in _FOREIGN.findall(line):
            if name not in seen:
                seen.add(name)
                ours = _NAMES.get(name)
                draft.lose(Node(number), name, f"is called {ours} here" if ours else "no such variable is set here")


def _checked(draft: Draft, kinds: Kinds, file: str) -> dict[str, Any]:
    """Return a content that has no problems, without the parts that have some."""
    while True:
        top: dict[str, Any] = {"version": 1, **({"image": draft.image} if draft.builds else {})}
        content = {**top, "flows": draft.flows}
        text = _dump(content)
        try:
            load_flow(text, kinds)
        except ConfigError as error:
            if not _drop(draft, error.problems[0], load(text, "").values):
                why = "; ".join(f"line {loss.line}: {loss.what}: {loss.why}" for loss in sorted(draft.losses)[:_FEW])
                sentence = f"{file}: nothing of it could be carried over: {why or error.problems[0].message}"
                raise UsageError(sentence, code="nothing-left") from None
        else:
            return content


def _drop(draft: Draft, problem: Problem, marks: Mapping[Path, tuple[int, int]]) -> bool:
    """Take the part away that a problem is in, a step, a job or a flow; False when there is nothing left."""
    above = [path for path, mark in marks.items() if mark <= (problem.line, problem.column)]
    path = max(above, key=lambda found: (marks[found], len(found)))
    if len(path) < 2 or path[1] not in draft.flows:
        return False
    name, lost = str(path[1]), draft.flows[str(path[1])]
    place: Path = (name,)
    holders = [at for at in (5, 3) if len(path) > at and path[at - 1] in ("jobs", "steps")]
    at = next((at for at in holders if len(_below(lost, path[2:at])) > 1), 0)
    if at:
        place = (name, *path[2 : at + 1])
        part = _below(lost, path[2:at]).pop(path[at])
        lost = part if isinstance(part, Part) else lost
    else:
        del draft.flows[name]
    draft.lose(lost, f"what became {shown(place)}", problem.message)
    return bool(draft.flows)


def _below(part: Any, path: Path) -> Any:
    for key in path:
        part = part[key]
    return part


def _head(file: str, losses: tuple[Loss, ...]) -> str:
    lines = [f"# Made by `keepflow adopt` from {one_line(file, 200)}."]
    if losses:
        lines.append("# What is not as it was there:")
        lines += [f"#   line {loss.line}: {loss.what}: {loss.why}" for loss in losses]
    return "\n".join(lines) + "\n"


class _Dumper(yaml.SafeDumper):
    """Writes YAML 1.2: `on` and `no` are words, and scripts are blocks."""


_Dumper.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:bool" or first in "tTfF"]
    for first, found in yaml.SafeDumper.yaml_implicit_resolvers.items()
}


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text and text.strip() else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(Part, yaml.SafeDumper.represent_dict)
_Dumper.ignore_aliases = lambda *_: True  # type: ignore[method-assign]  # what stands in two flows is written twice


def _dump(content: dict[str, Any]) -> str:
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)
