"""The private authority and the server certificate it signs."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from keepflow import errors
from keepflow.crypto.certificates import ServerCertificate, ensure

NOW = datetime.now(UTC)
HOSTS = ("registry.example.org", "localhost", "127.0.0.1", "::1")


def make(directory: Path, hosts: tuple[str, ...] = HOSTS, now: datetime = NOW) -> ServerCertificate:
    return ensure(directory, "registry", hosts, now)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


@contextlib.contextmanager
def tls_server(made: ServerCertificate) -> Iterator[int]:
    """Serve one TLS handshake after another with these files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection, contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True):
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def handshake(port: int, host: str, authority: Path | None) -> None:
    context = ssl.create_default_context(cafile=str(authority) if authority else None)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    with socket.create_connection(("127.0.0.1", port)) as plain, context.wrap_socket(plain, server_hostname=host):
        pass


def test_a_client_that_trusts_the_authority_accepts_every_name_and_no_other(tmp_path: Path) -> None:
    made = make(tmp_path)
    with tls_server(made) as port:
        for host in HOSTS:
            handshake(port, host, made.authority)
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(port, "other.example.org", made.authority)
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(port, "localhost", None)


def test_keys_are_private_and_certificates_are_not(tmp_path: Path) -> None:
    make(tmp_path)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {
        "registry-ca.crt": 0o644,
        "registry-ca.key": 0o600,
        "registry.crt": 0o644,
        "registry.key": 0o600,
    }


def test_what_is_good_is_kept(tmp_path: Path) -> None:
    made = make(tmp_path)
    before = contents(tmp_path)
    assert make(tmp_path, now=NOW + timedelta(days=300)) == made
    assert contents(tmp_path) == before


def test_near_its_end_the_server_gets_a_new_certificate_of_the_same_authority(tmp_path: Path) -> None:
    made = make(tmp_path)
    authority = made.authority.read_bytes()
    later = made.valid_until - timedelta(days=59)
    renewed = make(tmp_path, now=later)
    assert renewed.valid_until > made.valid_until
    assert made.authority.read_bytes() == authority


def test_other_names_make_a_new_certificate_of_the_same_authority(tmp_path: Path) -> None:
    made = make(tmp_path)
    authority = made.authority.read_bytes()
    make(tmp_path, hosts=(*HOSTS, "10.0.0.7"))
    names = certificate(made.certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "10.0.0.7" in map(str, names.get_values_for_type(x509.IPAddress))
    assert made.authority.read_bytes() == authority


@pytest.mark.parametrize("damage", ["registry.crt", "registry.key"])
def test_a_missing_half_of_the_pair_is_made_new(tmp_path: Path, damage: str) -> None:
    made = make(tmp_path)
    (tmp_path / damage).unlink()
    with tls_server(make(tmp_path)) as port:
        handshake(port, "localhost", made.authority)


def test_a_key_of_another_certificate_is_not_served(tmp_path: Path) -> None:
    """A crash between the two writes leaves a pair that does not fit."""
    made = make(tmp_path)
    old = made.certificate.read_bytes()
    made.certificate.unlink()
    make(tmp_path)
    made.certificate.write_bytes(old)
    with tls_server(make(tmp_path)) as port:
        handshake(port, "localhost", made.authority)


def test_a_crash_before_the_first_authority_was_written_goes_on_with_its_key(tmp_path: Path) -> None:
    made = make(tmp_path)
    key = (tmp_path / "registry-ca.key").read_bytes()
    made.authority.unlink()
    made.certificate.unlink()
    with tls_server(make(tmp_path)) as port:
        handshake(port, "localhost", made.authority)
    assert (tmp_path / "registry-ca.key").read_bytes() == key


def test_a_lost_key_of_the_authority_is_told_and_nothing_is_replaced(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "registry-ca.key").unlink()
    before = contents(tmp_path)
    with pytest.raises(errors.Unavailable, match=r"registry-ca\.key"):
        make(tmp_path, hosts=("new.example.org",))
    assert contents(tmp_path) == before


def test_a_foreign_authority_is_told(tmp_path: Path) -> None:
    make(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    make(other)
    (tmp_path / "registry-ca.crt").write_bytes((other / "registry-ca.crt").read_bytes())
    with pytest.raises(errors.UsageError, match="does not belong"):
        make(tmp_path)


def test_an_authority_near_its_end_is_told(tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(errors.Refused, match="valid only until"):
        make(tmp_path, now=NOW + timedelta(days=3600))


@pytest.mark.parametrize(
    "host", ["", "-x", "a b", "a/b", "*.example.org", "a..b", "a" * 300, "x\n", "1.2.3", "999.1.1.1", "u@h", "h:1", "é"]
)
def test_a_name_that_is_none_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(errors.UsageError, match="not a host name"):
        make(tmp_path, hosts=(host,))
    assert list(tmp_path.iterdir()) == []
