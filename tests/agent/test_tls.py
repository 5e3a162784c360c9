"""The link over TLS: the one authority given at joining is trusted, nobody else."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from keepflow import errors
from keepflow.agent import enrol
from keepflow.agent.channel import Wake, dial
from keepflow.agent.enrol import JoinToken
from keepflow.agent.state import State
from tests.agent.test_link import End
from tests.fakes import FakeMaster, serve_master
from tests.real.waiting import wait_until


@dataclass(frozen=True)
class Certificate:
    """A self-signed certificate for 127.0.0.1 and its key, as files, and the certificate as text."""

    certificate: Path
    key: Path
    pem: str


def make_certificate(place: Path) -> Certificate:
    place.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "keepflow test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    (place / "certificate.pem").write_bytes(pem)
    (place / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return Certificate(place / "certificate.pem", place / "key.pem", pem.decode())


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return make_certificate(tmp_path / "tls")


@pytest.fixture
def master(certificate: Certificate) -> Iterator[FakeMaster]:
    with serve_master(tls=(certificate.certificate, certificate.key)) as found:
        yield found


def test_joining_and_talking_work_with_the_given_authority(
    master: FakeMaster, certificate: Certificate, tmp_path: Path
) -> None:
    state = State(tmp_path / "agent")
    state.claim()
    identity = enrol.join(state, master.url, JoinToken.parse(master.token("build-1")), certificate.pem)
    end = End(master, tmp_path / "end", key=state.key(), ca_pem=identity.ca_pem)
    attempt = end.attempt(1)
    written = bytes(range(256)) * 20_000
    attempt.log.append(written)
    end.start()
    wait_until(lambda: len(master.logs.get(1, b"")) == len(written), 30, "five megabytes of log")
    assert master.logs[1] == written
    end.stop()


def test_an_authority_that_was_not_given_is_not_trusted(master: FakeMaster, tmp_path: Path) -> None:
    other = make_certificate(tmp_path / "other")
    for pem in ("", other.pem):
        with pytest.raises(errors.Unavailable, match="certificate verify failed"):
            dial(master.url, pem, Wake())
        state = State(tmp_path / f"agent-{len(pem)}")
        state.claim()
        with pytest.raises(errors.Unavailable, match=r"(?i)certificate"):
            enrol.join(state, master.url, JoinToken.parse(master.token("build-1")), pem)
        assert not state.joined


def test_a_certificate_for_another_host_is_not_trusted(master: FakeMaster, certificate: Certificate) -> None:
    with pytest.raises(errors.Unavailable, match="certificate verify failed"):
        dial(master.url.replace("127.0.0.1", "localhost"), certificate.pem, Wake())
