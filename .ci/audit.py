"""Known vulnerabilities of what the image installs: `python .ci/audit.py LOCK`.

Exit code 1 for a known vulnerability; 0 otherwise. pip-audit asks a service; where that cannot be reached, or knows
nothing of these packages, this is said, and nothing is claimed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

SECONDS = 120


def report_of(lock: str) -> dict[str, Any] | str:
    """What pip-audit found, or why it found nothing out."""
    words = [sys.executable, "-m", "pip_audit", "--requirement", lock, "--require-hashes", "--disable-pip"]
    words += ["--format", "json", "--progress-spinner", "off", "--timeout", "5"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return f"no answer within {SECONDS} s"
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        # Errors of connections name hosts, of mirrors as well: they are nothing for a log.
        return f"pip-audit ended with {done.returncode}" + ("" if "://" in last or "host" in last else f": {last}")
    return found


def verdict(report: dict[str, Any] | str) -> tuple[int, list[str]]:
    """Exit code and lines of a report."""
    if isinstance(report, str):
        return 0, [f"audit skipped: the vulnerability service cannot be asked ({report})"]
    packages = report["dependencies"]
    asked = [package for package in packages if "skip_reason" not in package]
    if not asked:
        return 0, [f"audit skipped: the service that can be reached here knows none of the {len(packages)} packages"]
    lines = [
        f"{package['name']} {package['version']}: {flaw['id']}; fixed in {', '.join(flaw['fix_versions']) or 'none'}"
        for package in asked
        for flaw in package["vulns"]
    ]
    told = f"audit: {len(asked)} of {len(packages)} packages looked up, {len(lines)} known vulnerabilities"
    return int(bool(lines)), [*lines, told]


def main() -> int:
    code, lines = verdict(report_of(sys.argv[1]))
    print("\n".join(lines))
    return code


if __name__ == "__main__":
    sys.exit(main())
