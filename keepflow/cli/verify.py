"""`keepflow verify`: whether everything that is said about an image was signed, and fits, to the last byte."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from keepflow import errors
from keepflow.cli import output
from keepflow.cli.client import at, connect
from keepflow.cli.output import as_json, say
from keepflow.cli.runs import in_project, the_project
from keepflow.core.plain import loads
from keepflow.core.receipts import LATEST, Build, Result, verdict
from keepflow.core.releases import is_digest
from keepflow.core.text import one_line
from keepflow.crypto import dsse, receipts
from keepflow.crypto.keys import PublicKey
from keepflow.wire import api
from keepflow.wire.orders import PAYLOAD_TYPE, DeployOrder

_LARGEST = 64 * 1024 * 1024  #: bytes of a file


@dataclass(frozen=True, slots=True)
class Record:
    """One signed record of the file: what it says, or the field that does not fit and why."""

    name: str  #: "receipt 2", counted from 1
    sentence: str
    field: str = ""
    said: Build | Result | DeployOrder | None = None


@click.command()
@click.argument("what", metavar="FILE|DIGEST")
@click.option(
    "--key", "trusted", multiple=True, metavar="KEY", help="A public key to trust (ed25519:…); else those in the file."
)
@click.option("--save", type=click.Path(path_type=Path), help="Keep the evidence of DIGEST in this file, too.")
@in_project
@as_json
@click.pass_context
def verify(
    ctx: click.Context, what: str, trusted: tuple[str, ...], save: Path | None, project: str | None, form: str
) -> None:
    """Check the evidence of a release: how it was built, who tested it, by which orders it was deployed.

    FILE is one from the run's page or from --save, "-" is standard input; checking it needs no server. Exit code 0:
    everything fits and the release passed. 2: not readable. 4: something was changed, or signed by a key that is not
    trusted; the record and its field are named. 7: everything fits, but it says that the release did not pass.
    """
    content = _content(what, project)
    if save is not None:
        save.write_bytes(content)
    evidence = read_evidence(content)
    records = examine(evidence, trusted)
    wrong = [record for record in records if record.field]
    why = _lacking(records)
    if form == "json":
        found = [{"record": each.name, "field": each.field or None, "sentence": each.sentence} for each in records]
        output.print_json(
            {"digest": evidence.digest, "fits": not wrong, "passed": not (wrong or why), "records": found}
        )
    else:
        _tell(evidence, records, trusted)
    if wrong:
        say(f"keepflow: {wrong[0].name} does not fit: {wrong[0].sentence}  [{wrong[0].field}]")
        ctx.exit(errors.BadReceipt.exit_code)
    if why:
        say(f"keepflow: everything fits, but {why}")
        ctx.exit(errors.Refused.exit_code)


def _content(what: str, project: str | None) -> bytes:
    if is_digest(what):
        client = connect()
        return b"".join(client.text(at("projects", the_project(client, project), "releases", what, "receipts")))
    try:
        content = sys.stdin.buffer.read(_LARGEST + 1) if what == "-" else _read(Path(what))
    except OSError as error:
        raise errors.UsageError(f"cannot read {what}: {error.strerror}", code="unreadable") from None
    if len(content) > _LARGEST:
        raise errors.UsageError(f"{what} is larger than any evidence ({_LARGEST >> 20} MiB)", code="unreadable")
    return content


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_LARGEST + 1)


def examine(evidence: api.Evidence, trusted: tuple[str, ...] = ()) -> list[Record]:
    """Check every record; raises BadReceipt for what is wrong with the keys that came with it."""
    keys = _keys(evidence, trusted)
    records = [*_check(evidence, keys)]
    _spare_keys(evidence, keys, trusted)
    return records


def read_evidence(content: bytes) -> api.Evidence:
    """Read a file, which can be written in one way only; raises UsageError `unreadable` and BadReceipt."""
    content = content.removesuffix(b"\n")
    try:
        evidence = api.Evidence.model_validate_json(content)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        what = one_line(error.errors()[0]["msg"], 120)
        raise errors.UsageError(
            f"this is no evidence of keepflow: {where or 'the file'}: {what}", code="unreadable"
        ) from None
    if evidence.model_dump_json().encode() != content:
        raise errors.BadReceipt(
            "the file was changed: it is not written as a master writes it (spaces, order or number of its fields)",
            field="file",
        )
    return evidence


def _keys(evidence: api.Evidence, trusted: tuple[str, ...]) -> dict[str, PublicKey]:
    """Return the keys that count: those a person gave, else those that came with the file."""
    found = [PublicKey.parse(text) for text in trusted]
    for index, text in enumerate(() if trusted else evidence.keys):
        try:
            found.append(PublicKey.parse(text))
        except errors.UsageError as error:
            raise errors.BadReceipt(f"keys.{index}: {error.message}", field=f"keys.{index}") from None
    return {key.key_id: key for key in found}


def _spare_keys(evidence: api.Evidence, keys: Mapping[str, PublicKey], trusted: tuple[str, ...]) -> None:
    """Refuse a key that came with the file and signed nothing in it: nothing else would notice that it was changed."""
    envelopes = (*evidence.receipts, *evidence.orders)
    used = {entry["keyid"] for each in envelopes for entry in _signatures(each)}
    for index, key_id in enumerate(() if trusted else keys):
        if key_id not in used:
            raise errors.BadReceipt(f"keys.{index} signed nothing in this file", field=f"keys.{index}")


def _signatures(envelope: Mapping[str, Any]) -> list[dict[str, Any]]:
    entries = envelope.get("signatures")
    if not isinstance(entries, list):
        return []
    return [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("keyid"), str)]


def _check(evidence: api.Evidence, keys: Mapping[str, PublicKey]) -> Iterator[Record]:
    for number, envelope in enumerate(evidence.receipts, 1):
        read = partial(receipts.read_to_the_last_byte, envelope, evidence.digest, keys)
        yield _record(f"receipt {number}", read)
    for number, envelope in enumerate(evidence.orders, 1):
        yield _record(f"order {number}", partial(_order, envelope, evidence.digest, keys))


def _record(name: str, read: Callable[[], Build | Result | DeployOrder]) -> Record:
    try:
        said = read()
    except errors.BadReceipt as error:
        return Record(name, error.message, error.field or "envelope")
    return Record(name, _sentence(said), said=said)


def _order(envelope: Mapping[str, Any], digest: str, keys: Mapping[str, PublicKey]) -> DeployOrder:
    payload = dsse.open_to_the_last_byte(envelope, PAYLOAD_TYPE, keys)
    try:
        order = DeployOrder.model_validate(loads(payload))
    except ValueError as error:
        raise errors.BadReceipt(f"payload is no order: {one_line(str(error), 120)}", field="payload") from None
    if not 0 <= order.issued_at <= LATEST:
        raise errors.BadReceipt("issued_at is not a time", field="issued_at")
    if order.image.digest != digest:
        raise errors.BadReceipt(f"image.digest is not {digest}", field="image.digest")
    return order


def _sentence(said: Build | Result | DeployOrder) -> str:
    if isinstance(said, Build):
        return f"built by {said.run} from {said.sha[:12]} ({said.ref}, flow {said.flow})"
    if isinstance(said, Result):
        by = said.person or said.run
        word = "passed" if said.passed else "REJECTED"
        return f"{word} in {said.environment}, says {by}, {_time(said.at)}" + (f": {said.note}" if said.note else "")
    before = f", instead of {said.expect_current[:19]}" if said.expect_current else ""
    return f"{said.action} to {said.environment}, approved by {said.approver}, {_time(said.issued_at)}{before}"


def _time(microseconds: int) -> str:
    return output.when(api.rfc3339(microseconds))


def _lacking(records: list[Record]) -> str:
    """Return what keeps the release from having passed, or ""."""
    if not any(isinstance(record.said, Build) for record in records):
        return "no receipt says how this digest was built"
    counts = verdict(record.said for record in records if isinstance(record.said, Result))
    if counts is None:
        return "no receipt says that this digest passed a test"
    return "" if counts.passed else f"{counts.person or 'a run'} rejected this digest in {counts.environment}"


def _tell(evidence: api.Evidence, records: list[Record], trusted: tuple[str, ...]) -> None:
    click.echo(evidence.digest)
    for record in records:
        mark = "✗" if record.field else "✓"
        click.echo(f"{mark} {record.name}: {one_line(record.sentence, 400)}")
    if not trusted:
        for text in evidence.keys:
            say(f"checked with the key that came with the file, {text}; compare it with the master's, or give --key")
