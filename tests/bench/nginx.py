"""A bare nginx as floor: answers hooks with 202, or stands before two slots and chooses by a flag file."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from tests.real.waiting import free_port, wait_until

_MAIN = """
worker_processes auto; daemon on; pid {root}/pid; error_log {root}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_max_body_size 30m; keepalive_requests 1000000;
  client_body_temp_path {root}/body; proxy_temp_path {root}/proxy; fastcgi_temp_path {root}/fastcgi;
  uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;
  {http}
}}
"""
_ACCEPTING = "server {{ listen 127.0.0.1:{port}; location / {{ return 202; }} }}"
_SWITCHING = """
  upstream blue {{ server {blue}; }}
  upstream green {{ server {green}; }}
  server {{
    listen 127.0.0.1:{port};
    set $slot blue;
    if (-f {root}/green) {{ set $slot green; }}
    location / {{ proxy_pass http://$slot; }}
  }}
"""


class BareNginx:
    """An nginx of its own directory; `port` is where it listens on loopback."""

    def __init__(self, root: Path, http: str, **values: str) -> None:
        root.mkdir(parents=True)
        root.chmod(0o755)
        self.root, self.port = root, free_port()
        conf = root / "nginx.conf"
        conf.write_text(_MAIN.format(root=root, http=http.format(port=self.port, root=root, **values)))
        subprocess.run(["nginx", "-p", str(root), "-c", str(conf)], check=True, capture_output=True, timeout=20)
        wait_until((root / "pid").exists, 5, "nginx writing its pid")

    @classmethod
    def accepting(cls, root: Path) -> BareNginx:
        """Start one that answers 202 to everything."""
        return cls(root, _ACCEPTING)

    @classmethod
    def switching(cls, root: Path, blue: str, green: str) -> BareNginx:
        """Start one that sends visitors to blue, or to green while the file `green` is there."""
        return cls(root, _SWITCHING, blue=blue, green=green)

    def stop(self) -> None:
        """End it."""
        os.kill(int((self.root / "pid").read_text()), signal.SIGTERM)
