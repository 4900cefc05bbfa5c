"""Images that end or stop the process that decodes them: what a bug of a decoder does, on demand.

A process that starts with this folder on PYTHONPATH has it. A PNG is made one by `poison(data, how)` of
`tests/poison/poisons.py`, which adds a few bytes after its end; without this folder it is an ordinary image.
"""

import os
import signal
import time

import PIL.Image

_open = PIL.Image.open


def _poisoned(file, *words, **options):
    how = file.getvalue().rpartition(b"daskim-poison:")[2] if hasattr(file, "getvalue") else b""
    if how == b"crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif how == b"kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == b"hang":
        time.sleep(3600)
    elif how == b"eat":
        held = []
        while True:
            held.append(bytearray(16_000_000))
            held[-1][::4096] = b"x" * len(held[-1][::4096])
            time.sleep(0.002)
    return _open(file, *words, **options)


PIL.Image.open = _poisoned
