"""The one place where the parts of a master are put together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import structlog

from keepflow import ports
from keepflow.config.home import Home
from keepflow.config.master_settings import MasterSettings
from keepflow.crypto import keys
from keepflow.crypto.vault import Vault
from keepflow.engine import people
from keepflow.engine.apply import URL
from keepflow.engine.context import Master
from keepflow.engine.keyring import KeyRing
from keepflow.engine.logs import Logs
from keepflow.engine.mirrors import Mirrors
from keepflow.engine.running import Engine
from keepflow.engine.wakes import Wakes
from keepflow.gateway.app import Gateway, create_app
from keepflow.store import settings as stored
from keepflow.store.database import Database
from keepflow.store.writer import Writer

log = structlog.get_logger(__name__)

#: Settings key: keys were made for this database, so they are never made again.
_KEYS_MADE = "keys-made"


@dataclass(frozen=True, slots=True)
class Built:
    """A master that works, and the application that serves it."""

    master: Master
    engine: Engine
    gateway: Gateway


def claim(settings: MasterSettings) -> Database:
    """Make the home and take the place of its one master; raises Refused `second-master`."""
    settings.place().make()
    database = Database(settings.database_url())
    database.lock()
    return database


def build(settings: MasterSettings, database: Database, address: str) -> Built:
    """Build and start everything but the server; `address` is where the server listens, as a URL.

    Raises Unavailable (damaged, newer-schema, key-missing) and UsageError; the database is released then.
    """
    home = settings.place()
    try:
        for warning in database.check():
            log.warning(warning)
        database.migrate()
        vault, keyring = _keys(home, database)
        wakes = Wakes()
        master = Master(
            home=home.root,
            database=database,
            writer=Writer(database),
            vault=vault,
            keys=keyring,
            wakes=wakes,
            mirrors=Mirrors(home.root, vault),
            logs=Logs(home.root, database, vault, wakes),
            kinds=ports.discover("keepflow.steps"),
            forges=ports.discover("keepflow.forges"),
            notifiers=ports.discover("keepflow.notifiers"),
            url=_PublicUrl(settings.url, database, wakes, address),
        )
        engine = Engine(master)
        engine.start()
        people.install_admin_token(master)
        return Built(master, engine, create_app(master, _web(master)))
    except BaseException:
        database.dispose()
        raise


def _web(master: Master) -> Any:
    from keepflow.web.app import create_app as create_web_app

    return create_web_app(master)


def _keys(home: Home, database: Database) -> tuple[Vault, KeyRing]:
    """Open the keys, or make them for a database that never had any: a lost key is never replaced by a new one."""
    with database.read() as conn:
        made = stored.get(conn, _KEYS_MADE)
    vault = Vault.open(home.master_key, create=made is None)
    if made is None and not home.order_key.exists():
        keys.generate().save(home.order_key)
    keyring = KeyRing.open(home.root, database)
    if made is None:
        with database.writing() as conn, conn.begin():
            stored.put(conn, _KEYS_MADE, {"order_key": keyring.current.public.key_id})
    return vault, keyring


class _PublicUrl:
    """The address people use: the one given at the start, else the one that was applied, else the one listened on."""

    def __init__(self, given: str | None, database: Database, wakes: Wakes, local: str) -> None:
        self._database, self._given, self._local = database, given, local
        self._applied: str | None = None
        self._known = False
        wakes.subscribe("projects", self._forget)

    def __call__(self) -> str:
        """Return the address, without a slash at its end."""
        if self._given is not None:
            return self._given
        if not self._known:
            self._known = True
            with self._database.read() as conn:
                self._applied = stored.get(conn, URL)
        return (self._applied or self._local).rstrip("/")

    def _forget(self) -> None:
        self._known = False
