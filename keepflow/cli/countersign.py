"""`keepflow countersign`: a key that the master does not hold vouches for how an image was built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from keepflow import errors
from keepflow.cli.client import at, connect
from keepflow.cli.output import say
from keepflow.cli.runs import in_project, the_project
from keepflow.cli.verify import examine, read_evidence
from keepflow.core import receipts as statements
from keepflow.core.plain import loads
from keepflow.core.releases import is_digest
from keepflow.crypto import dsse, keys
from keepflow.crypto.keys import PrivateKey
from keepflow.wire import api


@click.command()
@click.argument("digest")
@click.option("--key", "key_file", type=click.Path(path_type=Path), required=True, help="The private key (PEM).")
@click.option("--new-key", is_flag=True, help="Make the key first; its public half is printed.")
@in_project
def countersign(digest: str, key_file: Path, new_key: bool, project: str | None) -> None:
    """Sign how DIGEST was built with a key of your own, for hosts whose `receipts_from:` names it.

    Look at what it says first: `keepflow verify DIGEST`. The key never leaves this machine; keep it off the master's.
    """
    if not is_digest(digest):
        raise errors.UsageError(f"{digest[:80]!r} is not a digest (sha256:…)")
    key = _key(key_file, new_key)
    client = connect()
    name = the_project(client, project)
    place = at("projects", name, "releases", digest, "receipts")
    evidence = read_evidence(b"".join(client.text(place)))
    wrong = next((record for record in examine(evidence) if record.field), None)
    if wrong is not None:
        raise errors.BadReceipt(f"{wrong.name} does not fit: {wrong.sentence}; nothing was signed", field=wrong.field)
    unsigned = _unsigned(evidence, key.public.key_id)
    for envelope in unsigned:
        client.post(place, {"envelope": dsse.countersign(envelope, key), "key": key.public.text})
    say(f"{len(unsigned)} signed with {key.public.text}" if unsigned else "this key has signed everything already")


def _unsigned(evidence: api.Evidence, key_id: str) -> list[dict[str, Any]]:
    """Return each statement of a build that a key has not signed, in the envelope with the most signatures."""
    newest: dict[str, dict[str, Any]] = {}
    for envelope in evidence.receipts:
        if statements.predicate_type(loads(dsse.decode(envelope["payload"]))) == statements.PROVENANCE:
            newest[envelope["payload"]] = envelope
    return [each for each in newest.values() if key_id not in {entry["keyid"] for entry in each["signatures"]}]


def _key(path: Path, new: bool) -> PrivateKey:
    if new:
        made = keys.generate()
        try:
            made.save(path)
        except FileExistsError:
            raise errors.UsageError(f"{path}: there is a file already; a key is never overwritten") from None
        click.echo(made.public.text)
        return made
    return PrivateKey.load(path)
