"""A story behind a real server on loopback: gateway and pages on one port, as in the master process."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from keepflow.engine import people as rules
from keepflow.gateway.app import create_app as gateway
from keepflow.web.app import create_app
from tests.real.waiting import free_port, wait_until
from tests.web import story as stories
from tests.web.story import Story


@contextmanager
def served(home: Path, began: int) -> Iterator[tuple[str, Story]]:
    """Serve a story that begins at a time; yields its address. `admin.token` and `master.json` are in the home."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with stories.open_master(home, url) as master:
        story = Story(master, began)
        rules.install_admin_token(master)
        (home / "master.json").write_text(json.dumps({"url": url, "pid": 0}))
        app = gateway(master, create_app(master))
        config = uvicorn.Config(app, "127.0.0.1", port, lifespan="off", log_level="error", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, name="served", daemon=True)
        thread.start()
        try:
            wait_until(lambda: server.started, 20, "the server's start")
            yield url, story
        finally:
            server.should_exit = True
            thread.join(10)
