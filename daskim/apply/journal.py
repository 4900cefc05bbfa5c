"""What an apply is about to write, noted in the run before it is written: RUN/apply/KEY/.

    request.json       what was asked for
    part-NNNNNN.jsonl  {"path", "bytes", "digest"} of files that come next
    finished.json      counts, when all is done

Files come whole under their names, so a noted file that is there is done, and one that is not is still to do. A file
that is there and was never noted belongs to somebody else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

from daskim.errors import SettingsError
from daskim.lake import Folder, digest_of_file
from daskim.store import Run

__all__ = ["Journal", "Note", "in_the_way", "key_of"]

Note = tuple[str, int, str]  # path, bytes, digest (hexadecimal)


def key_of(facts: Mapping[str, Any]) -> str:
    """Name of the apply that these facts describe."""
    return blake2b(json.dumps(dict(facts), sort_keys=True).encode(), digest_size=8).hexdigest()


def in_the_way(names: Sequence[str], target: str) -> SettingsError:
    """The error for files of somebody else in the target."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return SettingsError(
        f"{target} holds what this apply did not write: {', '.join(names[:3])}{more}",
        "Nothing there is overwritten or mixed with. Choose an empty or new target.",
    )


class Journal:
    """The notes of one apply."""

    def __init__(self, store: Run, key: str) -> None:
        self.store, self.key = store, key
        self.parts = [name for name in store.names("apply", key) if name.startswith("part-")]
        self.begun = store.exists("apply", key, "request.json")

    @property
    def finished(self) -> dict[str, Any] | None:
        """Counts of the finished apply."""
        return self.store.read_json("apply", self.key, "finished.json")

    def begin(self, request: Mapping[str, Any]) -> None:
        """Note what was asked for."""
        self.store.remove("apply", self.key, "finished.json")
        self.store.write_json(request, "apply", self.key, "request.json")
        self.begun = True

    def expect(self, notes: Sequence[Note]) -> None:
        """Note files that are written next."""
        lines = "".join(json.dumps({"path": p, "bytes": size, "digest": d}) + "\n" for p, size, d in notes)
        name = f"part-{len(self.parts):06d}.jsonl"
        self.store.write(lines.encode(), "apply", self.key, name)
        self.parts.append(name)

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Note that all is done."""
        self.store.write_json(facts, "apply", self.key, "finished.json")

    def noted(self) -> dict[str, tuple[int, str, bool]]:
        """Of each noted path its bytes, its digest, and whether it was noted last: those may have been under way."""
        found = {}
        for name in self.parts:
            for line in self.store.read("apply", self.key, name).decode().splitlines():
                note = json.loads(line)
                found[note["path"]] = (int(note["bytes"]), str(note["digest"]), name == self.parts[-1])
        return found

    def done(self, folder: Folder) -> set[str]:
        """The noted paths that are there, with the size (and those noted last with the digest) that they must have.

        Raises
        ------
        SettingsError
            Something else lies there.
        """
        found, wrong = set(), []
        for path, (size, digest, last) in self.noted().items():
            state = folder.state(path)
            if state is None:
                continue
            good = state.kind == "file" and state.bytes in (-1, size)
            if good and last:
                good = digest_of_file(folder.place(path)).hex() == digest
            if good or (state.kind == "link" and f"link:{state.text}" == digest):
                found.add(path)
            else:
                wrong.append(path)
        if wrong:
            raise in_the_way(wrong, folder.root.url)
        return found
