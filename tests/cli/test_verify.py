"""`keepflow verify`: what fits is told, and one changed byte anywhere is named, without a server."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepflow.cli.main import run
from keepflow.core.receipts import Build, Subject
from keepflow.crypto import keys, receipts
from keepflow.crypto.receipts import Trust
from keepflow.wire import api
from tests.agent.orders import NOW, Court
from tests.agent.proofs import DIGEST, built, judged, promote
from tests.cli.conftest import Keepflow
from tests.web.story import pushed

COURT = Court()
THEIRS = keys.generate()
PROOFS = [built(COURT), judged(COURT), judged(COURT, person="ann")]
ORDER = COURT.sign(promote(COURT, *PROOFS))


def file(proofs: list[dict[str, Any]] = PROOFS, orders: list[dict[str, Any]] | None = None, **more: Any) -> bytes:
    """Return an evidence file as a master writes it."""
    facts: dict[str, Any] = {
        "digest": DIGEST,
        "keys": [COURT.order_key.public.text],
        "receipts": proofs,
        "orders": [ORDER] if orders is None else orders,
    }
    return api.Evidence(**{**facts, **more}).model_dump_json().encode()


GOOD = file()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the file is."""
    return tmp_path_factory.mktemp("evidence") / "release.evidence.json"


def verify(place: Path, content: bytes, *argv: str) -> tuple[int, str, str]:
    """Check a file; returns exit code, stdout and stderr."""
    place.write_bytes(content)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(["verify", str(place), *argv])
    return code, out.getvalue(), err.getvalue()


def test_what_fits_is_told_record_by_record(place: Path) -> None:
    code, out, err = verify(place, GOOD)
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == DIGEST
    assert lines[1].startswith("✓ receipt 1: built by https://ci.example.org/projects/shop/runs/12 from 111111111111")
    assert "✓ receipt 3: passed in shop/test, says ann" in lines[3]
    assert "✓ order 1: deploy to shop/production, approved by ann" in lines[4]
    assert COURT.order_key.public.text in err
    assert verify(place, GOOD + b"\n")[0] == 0


def test_a_script_reads_it_as_json(place: Path) -> None:
    found = json.loads(verify(place, GOOD, "-o", "json")[1])
    assert (found["digest"], found["fits"], found["passed"]) == (DIGEST, True, True)
    assert [record["record"] for record in found["records"]] == ["receipt 1", "receipt 2", "receipt 3", "order 1"]


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
@settings(max_examples=400, deadline=None)
def test_one_changed_byte_anywhere_is_found(place: Path, where: int, change: int) -> None:
    content = bytearray(GOOD)
    content[where] ^= change
    code, out, err = verify(place, bytes(content))
    assert code in (2, 4), (where, change, out, err)
    assert "keepflow: " in err
    assert "bug in keepflow" not in err


def test_the_record_and_its_field_are_named(place: Path) -> None:
    def changed(change: Any) -> str:
        data = json.loads(GOOD)
        change(data)
        code, _out, err = verify(place, api.Evidence(**data).model_dump_json().encode())
        assert code == 4, err
        found = re.search(r"keepflow: (?P<record>\w+ \d+) does not fit: .*\[(?P<field>[\w.]+)\]", err)
        return f"{found['record']}: {found['field']}" if found else err

    def flip(text: str) -> str:
        return ("B" if text[40] == "A" else "A").join((text[:40], text[41:]))

    def set_in(*way: Any) -> Any:
        def change(data: Any) -> None:
            *path, last, value = way
            for name in path:
                data = data[name]
            data[last] = value(data[last]) if callable(value) else value

        return change

    assert changed(set_in("receipts", 1, "payload", flip)) == "receipt 2: signatures.0.sig"
    assert changed(set_in("receipts", 2, "signatures", 0, "sig", flip)) == "receipt 3: signatures.0.sig"
    keyid = set_in("receipts", 0, "signatures", 0, "keyid", THEIRS.public.key_id)
    assert changed(keyid) == "receipt 1: signatures.0.keyid"
    assert changed(set_in("receipts", 0, "payloadType", "text/plain")) == "receipt 1: payloadType"
    assert changed(set_in("receipts", 0, "signatures", [])) == "receipt 1: signatures"
    assert changed(set_in("receipts", 0, "note", "unsigned")) == "receipt 1: envelope"
    assert changed(set_in("receipts", 0, "signatures", 0, "note", "unsigned")) == "receipt 1: signatures.0"
    assert changed(set_in("orders", 0, "payload", flip)) == "order 1: signatures.0.sig"
    assert changed(set_in("digest", "sha256:" + "e" * 64)) == "receipt 1: subject"
    assert "keys.0" in changed(set_in("keys", [THEIRS.public.text]))
    assert "keys.1 signed nothing" in changed(set_in("keys", lambda found: [*found, THEIRS.public.text]))


def test_an_unused_spelling_of_the_same_bytes_is_a_change(place: Path) -> None:
    data = json.loads(GOOD)
    assert verify(place, json.dumps(data).encode())[0] == 4
    signature = data["receipts"][0]["signatures"][0]
    assert signature["sig"].endswith("==")
    last = signature["sig"][-3]
    other = chr(ord(last) + 1)  # the bits of the last letter that base64 does not use
    signature["sig"] = signature["sig"][:-3] + other + "=="
    code, _out, err = verify(place, api.Evidence(**data).model_dump_json().encode())
    assert (code, "signatures.0.sig" in err) == (4, True)


def test_only_the_keys_that_were_given_count(place: Path) -> None:
    assert verify(place, GOOD, "--key", COURT.order_key.public.text)[0] == 0
    code, _out, err = verify(place, GOOD, "--key", THEIRS.public.text)
    assert (code, "receipt 1 does not fit" in err) == (4, True)
    assert verify(place, GOOD, "--key", "rsa:1234")[0] == 2


@pytest.mark.parametrize(
    ("proofs", "says"),
    [
        ([], "no receipt says how"),
        ([PROOFS[0]], "no receipt says that this digest passed"),
        ([*PROOFS, judged(COURT, passed=False, person="bo", at=NOW + 1)], "bo rejected this digest in shop/test"),
    ],
)
def test_what_fits_but_did_not_pass_has_an_exit_code_of_its_own(
    place: Path, proofs: list[dict[str, Any]], says: str
) -> None:
    code, _out, err = verify(place, file(proofs))
    assert (code, says in err) == (7, True)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version":2}', b"\xff", GOOD[:-1]])
def test_what_is_no_evidence_is_refused_in_words(place: Path, content: bytes) -> None:
    code, _out, err = verify(place, content)
    assert (code, "no evidence of keepflow" in err) == (2, True)


def test_a_file_that_is_not_there_is_said(place: Path) -> None:
    assert run(["verify", str(place / "nowhere")]) == 2


def test_the_evidence_of_a_release_comes_from_the_master_and_is_checked_without_it(
    keepflow: Keepflow, tmp_path: Path
) -> None:
    saved = tmp_path / "saved.json"
    said = keepflow("verify", str(pushed("b").digest), "-P", "keepwork", "--save", str(saved))
    assert (said.code, "✓ receipt 2: passed in keepwork/test" in said.out) == (0, True)
    assert keepflow("verify", str(saved)).code == 0
    assert keepflow("verify", "sha256:" + "9" * 64, "-P", "keepwork").code == 1


def test_a_key_of_ones_own_vouches_for_a_build_and_a_host_that_asks_for_it_takes_it(
    keepflow: Keepflow, tmp_path: Path
) -> None:
    digest, key = str(pushed("a").digest), tmp_path / "witness.pem"
    made = keepflow("countersign", digest, "-P", "keepwork", "--key", str(key), "--new-key")
    assert made.code == 0, made.err
    witness = keys.PublicKey.parse(made.out.strip())
    assert key.stat().st_mode & 0o777 == 0o600
    saved = tmp_path / "saved.json"
    checked = keepflow("verify", digest, "-P", "keepwork", "--save", str(saved))
    assert checked.code == 0, checked.err
    evidence = api.Evidence.model_validate_json(saved.read_bytes())
    assert witness.text in evidence.keys
    master = keys.PublicKey.parse(evidence.keys[0])
    subject = Subject(pushed("a").repository, digest)
    trust = Trust((master,), (witness,))
    witnessed = [each for each in evidence.receipts if len(each["signatures"]) == 2]
    assert isinstance(receipts.read(witnessed[0], subject, trust), Build)
    again = keepflow("countersign", digest, "-P", "keepwork", "--key", str(key))
    assert (again.code, "signed everything already" in again.err) == (0, True)
    second = keepflow("countersign", digest, "-P", "keepwork", "--key", str(tmp_path / "two.pem"), "--new-key")
    assert second.code == 0, second.err
    assert keepflow("verify", digest, "-P", "keepwork").code == 0
    taken = keepflow("countersign", digest, "-P", "keepwork", "--key", str(key), "--new-key")
    assert (taken.code, "never overwritten" in taken.err) == (2, True)
