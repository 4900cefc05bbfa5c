"""The lease in a bucket: S3 decides by a conditional write who was first."""

from __future__ import annotations

import threading
import time

import pytest
from loopback import S3

from daskim.errors import SourceError
from daskim.lease import held
from daskim.store import Run


def test_of_many_at_once_one_has_the_run(s3: S3) -> None:
    s3.fs().mkdir("leases")
    run, barrier, ends = Run("s3://leases/run", s3.options), threading.Barrier(4), []
    assert run.create(b"one", "x")
    assert not run.create(b"two", "x")
    assert run.read("x") == b"one"

    def take() -> None:
        barrier.wait()
        try:
            with held(run) as mine:
                mine.check()
                ends.append("holds")
                while len(ends) < 4:
                    time.sleep(0.01)
                mine.renew()
                mine.check()
        except SourceError as error:
            ends.append("refused" if "in use by process" in error.what else error.what)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert sorted(ends) == ["holds", "refused", "refused", "refused"]
    (name,) = run.names("lock")
    assert (run.read_json("lock", name) or {})["released"] is True
    with held(run), pytest.raises(SourceError), held(run):
        pass
