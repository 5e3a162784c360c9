"""A flow file in the making: the parts that were carried over, and a line for everything that was not."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from keepflow.config.adopt._source import Node
from keepflow.core.names import is_name, slug
from keepflow.core.text import one_line, quoted

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
NOTHING_LIKE_IT = "keepflow has nothing like it"


@dataclass(frozen=True, slots=True, order=True)
class Loss:
    """One thing that is not in the new file as it was in the old one: where it stood, what it was, and why."""

    line: int
    what: str
    why: str


class Part(dict[str, Any]):
    """A job or a step of the new file, which knows the line it came from."""

    def __init__(self, node: Node, content: Mapping[str, Any]) -> None:
        super().__init__(content)
        self.line = node.line


@dataclass(slots=True)
class Draft:
    """What a format fills; `image` is the name that images get."""

    image: str
    flows: dict[str, Part] = field(default_factory=dict)
    builds: bool = False  #: whether images are built, so that the file must name them
    losses: list[Loss] = field(default_factory=list)

    def lose(self, node: Node | Part, what: str, why: str = NOTHING_LIKE_IT) -> None:
        """Note that something could not be carried over."""
        self.losses.append(Loss(node.line, one_line(what, 120), one_line(why, 300)))

    def rest(self, node: Node, place: str, carried: Collection[str], reasons: Mapping[str, str] | None = None) -> None:
        """Note every key of a mapping that nobody carries over, with its reason when there is a better one."""
        for key, value in node.pairs or ():
            if key not in carried and not value.nothing:
                self.lose(value, f"{place}.{key}" if place else key, (reasons or {}).get(key, NOTHING_LIKE_IT))

    def flow(self, node: Node, name: str, on: Mapping[str, Any]) -> Part:
        """Begin a flow under a name that is free, and return it."""
        flow = Part(node, {"on": dict(on)})
        self.flows[self.free_name(node, "flow", name, self.flows)] = flow
        return flow

    def free_name(self, node: Node, what: str, name: str, taken: Collection[str]) -> str:
        """Make a legal name that is not taken, and note when it had to be another one."""
        wanted = free = name if is_name(name) else slug(name)
        number = 1
        while free in taken:
            number += 1
            free = f"{wanted[:36]}-{number}"
        if free != name:
            self.lose(
                node, f"{what} {quoted(name, 40)}", f"is called {free} here: names have a-z, 0-9 and -, and are unique"
            )
        return free

    # --- parts that formats have in common ----------------------------------------------------------------------------

    def script(self, lines: Iterable[str], variables: Mapping[str, str] | None = None, *, expands: bool = False) -> str:
        """Return one script that sets variables and runs these lines; `expands`: values name other variables."""
        quote = _expanding if expands else shlex.quote
        exports = [f"export {name}={quote(value)}" for name, value in (variables or {}).items()]
        return "\n".join([*exports, *(line.rstrip() for line in lines)]) + "\n"

    def variables(self, node: Node | None, place: str) -> dict[str, str]:
        """Read variables, as a mapping or as a list of NAME=value; what holds no plain value is noted."""
        found: dict[str, str] = {}
        for name, value in self._variable_pairs(node, place):
            text = value.get("value") if value.pairs is not None and value.has("value") else value
            if not _ENV_NAME.fullmatch(name):
                self.lose(value, f"{place}.{name}", "that is no name of a variable")
            elif text is None or text.text is None:
                if not value.nothing:
                    self.lose(
                        value,
                        f"{place}.{name}",
                        "its value is not a plain text; secrets are set with `keepflow secret`",
                    )
            else:
                found[name] = text.text
        return found

    def _variable_pairs(self, node: Node | None, place: str) -> Iterable[tuple[str, Node]]:
        if node is None:
            return
        yield from node.pairs or ()
        for item in node.items or ():
            name, equals, value = (item.text or "").partition("=")
            if equals:
                yield name, Node(item.line, text=value)
            else:
                self.lose(item, place, "a variable is written NAME=value")

    def box(self, node: Node | None, place: str, at: str = "") -> Any:
        """Return the image that commands run in, as the flow file writes it; None for none."""
        if node is None:
            return None
        name = node if node.text is not None else node.get("name")
        if node.pairs is not None:
            self.rest(node, place, {"name"})
        if name is None or name.text is None:
            return None
        return {"name": name.text, "at": at} if at else name.text

    def services(self, named: Iterable[tuple[str, Node]], place: str, reasons: Mapping[str, str]) -> dict[str, Any]:
        """Return containers beside the commands; each is a mapping with image, environment and command."""
        found: dict[str, Any] = {}
        for name, node in named:
            key = self.free_name(node, "service", name, found)
            if node.text is not None:
                found[key] = {"image": node.text}
                continue
            image, command = node.get("image"), node.get("command") or node.get("commands")
            service: dict[str, Any] = {"image": image.text if image and image.text else name}
            if env := self.variables(node.get("environment") or node.get("variables"), f"{place}.{name}.environment"):
                service["env"] = env
            if command is not None:
                service["command"] = self.argv(command)
            self.rest(node, f"{place}.{name}", _OF_SERVICES, reasons)
            found[key] = service
        return found

    def argv(self, node: Node) -> list[str]:
        """Return a command as a list; a text is split as a shell would."""
        if node.text is None:
            return node.texts
        try:
            return shlex.split(node.text)
        except ValueError:
            return ["sh", "-c", node.text]

    def artifacts(self, node: Node | None, place: str) -> list[Part]:
        """Return the step that keeps files, none when there are none; nothing but their paths is carried over."""
        paths = node.get("paths") if node else None
        if node is None or paths is None:
            return []
        self.rest(
            node, place, {"paths"}, {"reports": "nothing reads reports", "expire_in": "write `expire` of the step"}
        )
        return [Part(paths, {"artifacts": [text.removeprefix("./").rstrip("/") for text in paths.texts]})]

    def build(self, node: Node, settings: Mapping[str, Any]) -> Part:
        """Return a step that builds the image."""
        self.builds = True
        return Part(node, {"build": dict(settings) or "."})


def _expanding(value: str) -> str:
    """Quote a value for a shell that is to replace `$NAME` and `${NAME}` in it, and nothing else."""
    return '"' + re.sub(r'(["`\\]|\$(?![A-Za-z_{]))', r"\\\1", value) + '"'


_OF_SERVICES = {"name", "alias", "image", "environment", "variables", "command", "commands"}
