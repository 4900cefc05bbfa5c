"""Whether a container of this image is well: exit code 0, or 1 with the reason. For HEALTHCHECK; Kubernetes has probes.

A Dask scheduler or worker must answer on one of the ports that it listens on. Anything else is a job, which needs no
check while it is there: it ends with an exit code.
"""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from pathlib import Path

LISTENS = "0A"
SECONDS = 2.0


def listening_ports(tables: list[Path]) -> list[int]:
    """TCP ports that are listened on, from the kernel's tables."""
    ports = set()
    for table in tables:
        if table.is_file():
            for line in table.read_text().splitlines()[1:]:
                _, local, _, state, *_ = line.split()
                if state == LISTENS:
                    ports.add(int(local.rpartition(":")[2], 16))
    return sorted(ports)


def answers(port: int) -> bool:
    """Whether Dask's page /health says ok on this port."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=SECONDS) as page:
            return page.read(16).strip() == b"ok"
    except (OSError, ValueError, urllib.error.URLError):
        return False
    except Exception:  # the port of Dask's own protocol answers, but not in HTTP
        return False


def verdict(words: list[str], ports: list[int]) -> str:
    """Why the container is not well; empty when it is."""
    served = [word for word in ("scheduler", "worker") if word in words and any(w.endswith("dask") for w in words)]
    if not served or any(answers(port) for port in ports):
        return ""
    return f"dask {served[0]}: no answer from /health on any of the ports {ports}"


def main() -> int:
    words = Path("/proc/1/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    reason = verdict(words, listening_ports([Path("/proc/net/tcp"), Path("/proc/net/tcp6")]))
    if reason:
        print(reason, file=sys.stderr)
    return 1 if reason else 0


if __name__ == "__main__":
    sys.exit(main())
