"""How a master is started: flag before environment before default, and wrong values named."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepflow.config.home import Home, default_home
from keepflow.config.master_settings import load_settings
from keepflow.errors import UsageError


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "LISTEN", "URL", "DATABASE", "DATABASE_FILE", "TRUSTED_PROXIES", "AGENT_STATE"):
        monkeypatch.delenv(f"KEEPFLOW_{name}", raising=False)


def test_a_flag_wins_over_the_environment_and_that_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().listen == "127.0.0.1:7070"
    monkeypatch.setenv("KEEPFLOW_LISTEN", "127.0.0.1:1")
    assert load_settings().listen == "127.0.0.1:1"
    assert load_settings(listen="127.0.0.1:2", url=None).listen == "127.0.0.1:2"


def test_an_empty_variable_is_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPFLOW_URL", "")
    assert load_settings().url is None


def test_a_password_can_come_from_a_file_and_is_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("postgresql+psycopg://kf:s3cret@db/kf\n")
    monkeypatch.setenv("KEEPFLOW_DATABASE_FILE", str(secret))
    settings = load_settings()
    assert settings.database_url() == "postgresql+psycopg://kf:s3cret@db/kf"
    assert "s3cret" not in repr(settings)
    assert load_settings(database="sqlite:////x/y.db").database_url() == "sqlite:////x/y.db"


def test_the_database_is_in_the_home_by_default(tmp_path: Path) -> None:
    assert load_settings(home=tmp_path / "home").database_url() == f"sqlite:///{tmp_path}/home/keepflow.db"


@pytest.mark.parametrize(("listen", "host", "port"), [("[::1]:80", "::1", 80), ("0.0.0.0:0", "0.0.0.0", 0)])  # noqa: S104 - parsed, not bound
def test_an_address_is_taken_apart(listen: str, host: str, port: int) -> None:
    settings = load_settings(listen=listen)
    assert (settings.host, settings.port) == (host, port)


@pytest.mark.parametrize(
    "wrong",
    [
        {"listen": "7070"},
        {"listen": "host:port"},
        {"listen": "h:70000"},
        {"url": "ftp://x"},
        {"url": "https://"},
        {"url": "https://x/?a=1"},
        {"trusted_proxies": "everybody"},
    ],
)
def test_a_wrong_value_is_named(wrong: dict[str, str]) -> None:
    with pytest.raises(UsageError) as caught:
        load_settings(**wrong)
    assert next(iter(wrong)) in caught.value.message


def test_proxies_are_addresses_or_networks() -> None:
    assert load_settings(trusted_proxies="127.0.0.1, 10.0.0.0/8").trusted_proxies == ("127.0.0.1/32", "10.0.0.0/8")
    assert load_settings().trusted_proxies == ()


def test_a_home_is_made_closed_and_closed_again(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "a" / "home")
    home.make()
    assert home.root.stat().st_mode & 0o777 == 0o700
    home.root.chmod(0o755)
    home.make()
    assert home.root.stat().st_mode & 0o777 == 0o700


def test_a_home_that_cannot_be_is_said_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--home"):
        Home.at(tmp_path / "file" / "home").make()


def test_the_local_agents_state_is_outside_of_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = Home.at(tmp_path / "home")
    assert not home.local_agent_state().is_relative_to(home.root)
    monkeypatch.setenv("KEEPFLOW_AGENT_STATE", str(tmp_path / "elsewhere"))
    assert home.local_agent_state() == tmp_path / "elsewhere"


def test_everybody_finds_the_same_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KEEPFLOW_HOME", str(tmp_path))
    assert default_home() == load_settings().home == tmp_path
