"""Cuts a shell script into the commands a person reads, so that each can be shown before it runs.

The cut is made only where it is certain that one command has ended and the next has not begun: outside quotes,
brackets, loops and here-documents, and never where the next command asks for `$?`. Whatever is not certain stays
together with what follows, so a strange script is shown in larger pieces and runs exactly as written.
"""

from __future__ import annotations

import re

_WORD = re.compile(r"[a-z{}]+(?=[\s;&|()<>`]|\Z)")
_OPENS = {
    "if": "fi",
    "case": "esac",
    "for": "done",
    "while": "done",
    "until": "done",
    "{": "}",
}
_CLOSES = frozenset(_OPENS.values())
#: Words that begin what this reader does not follow, and settings under which a shown line would be noise.
_STRANGE = re.compile(r"\b(?:function|select|coproc|alias)\b|\bset\s+-\w*[nvx]")
#: The same as signs: here-documents, bash's tests, bash's quotes.
_STRANGE_SIGNS = ("<<", "[[", "$'")
_ASKS_STATUS = re.compile(r"\$(?:\?|\{\?|_\b|\{_\W|\{?PIPESTATUS)")
_COMMAND_POSITION = re.compile(r"(?:^|[;&|(){}!`]|\b(?:if|then|elif|else|while|until|do|done|fi|esac))\s*\Z")
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_UNFINISHED = re.compile(r"(?:\||&&|\(\s*\)|!)\s*\Z")


def commands(script: str) -> list[str]:
    """Return the script in pieces whose concatenation is the script; each piece is one or more whole commands."""
    pieces: list[str] = []
    reader, current, rest = _Reader(), "", _LINE.findall(script)
    while rest:
        line = rest.pop(0)
        if reader.lost or _STRANGE.search(line):
            line, rest = line + "".join(rest), []
        else:
            reader.feed(line, continued=current.endswith("\\\n"))
        current += line
        if not rest or reader.between_commands(current):
            if pieces and _ASKS_STATUS.search(current):
                current = pieces.pop() + current
            pieces.append(current)
            current = ""
    return pieces


def shown(piece: str) -> str:
    """Return a piece as the log shows it: without blank lines and comments before it; empty when nothing is left."""
    lines = [line.rstrip() for line in piece.split("\n")]
    while lines and (not lines[0].strip() or lines[0].lstrip().startswith("#")):
        lines.pop(0)
    return prompted(lines)


def prompted(lines: list[str]) -> str:
    """Return lines with `$ ` before the first and `> ` before the others, without empty ones at the end."""
    while lines and not lines[-1].strip():
        lines.pop()
    return "\n".join(("> " if number else "$ ") + line for number, line in enumerate(lines))


class _Reader:
    """Follows quotes, brackets and compound commands over the lines of a script."""

    def __init__(self) -> None:
        self.open: list[str] = []  #: what must still be closed, innermost last
        self.lost = False  #: this reader no longer knows where it is
        self.continued = False
        self.code = ""  #: the last line without comments, for `between_commands`

    def between_commands(self, piece: str) -> bool:
        """Say whether a new command may begin after what was fed; `piece` is everything since the last cut."""
        if self.open or self.lost or piece.endswith("\\\n") or not piece.endswith("\n"):
            return False
        return bool(self.code.strip()) and not _UNFINISHED.search(self.code)

    def feed(self, line: str, *, continued: bool) -> None:
        """Read one whole line; `continued` says that the line before ended in a backslash."""
        position, self.code, self.continued = 0, "", continued
        while position < len(line):
            start, position = position, self._next(line, position)
            if position < 0:
                return
            self.code += line[start:position]

    def _next(self, line: str, at: int) -> int:
        """Take in what stands at a position and return where to go on; -1 when the rest is a comment."""
        inside = self.open[-1] if self.open else ""
        character = line[at]
        if inside == "'":
            return self._until(line, at, "'")
        if character == "\\":
            return at + 2
        if inside == "`":
            return self._until(line, at, "`") if character == "`" else at + 1
        if inside == '"':
            return self._in_double_quotes(line, at)
        if character in "'\"`":
            self.open.append(character)
            return at + 1
        if line.startswith(("$(", "${"), at):
            self.open.append(")" if line[at + 1] == "(" else "}}")
            return at + 2
        if inside == "}}":
            return self._until(line, at, "}}") if character == "}" else at + 1
        return self._in_code(line, at, inside)

    def _until(self, line: str, at: int, closer: str) -> int:
        if line[at] == closer[0]:
            self.open.pop()
        return at + 1

    def _in_double_quotes(self, line: str, at: int) -> int:
        if line[at] == "`":
            self.open.append("`")
            return at + 1
        if line.startswith(("$(", "${"), at):
            self.open.append(")" if line[at + 1] == "(" else "}}")
            return at + 2
        return self._until(line, at, '"')

    def _in_code(self, line: str, at: int, inside: str) -> int:
        character = line[at]
        self.lost = self.lost or line.startswith(_STRANGE_SIGNS, at)
        at_word_start = at == 0 or line[at - 1] in " \t;&|()"
        if character == "#" and at_word_start:
            return -1
        if character == "(":
            self.open.append(")")
            return at + 1
        if character == ")":
            self._close(")", inside)
            return at + 1
        word = _WORD.match(line, at) if at_word_start else None
        if word is None:
            return at + 1
        self._word(word[0], inside, line[:at])
        return word.end()

    def _word(self, word: str, inside: str, before: str) -> None:
        if (self.continued and not before.strip()) or not _COMMAND_POSITION.search(before):
            return
        if word in _OPENS:
            if ")" in self.open and word == "case":
                self.lost = True  # its patterns hold closing brackets that are none
            self.open.append(_OPENS[word])
        elif word in _CLOSES:
            self._close(word, inside)

    def _close(self, closer: str, inside: str) -> None:
        if inside == closer:
            self.open.pop()
        elif inside != "esac":  # there, it is a pattern or the end of one
            self.lost = True
