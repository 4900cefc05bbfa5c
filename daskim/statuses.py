"""What may become of an image when it is read: the words of the column `status`."""

from __future__ import annotations

__all__ = ["DELETED", "READABLE", "STATUSES"]

STATUSES: dict[str, str] = {
    "ok": "decoded, and it has texture",
    "flat": "decoded, but nearly constant: kept apart from the search for duplicates",
    "missing": "named by a manifest or listing, but not there",
    "empty": "a file of zero bytes",
    "truncated": "the data ends before the image does",
    "not-an-image": "the bytes have no image signature",
    "unsupported": "an image, of a format or variant that no decoder here reads",
    "too-large": "more pixels or bytes than the bounds allow (a bomb, or raise the bound)",
    "zero-area": "its header gives a width or height of zero",
    "no-permission": "the store refuses to let it be read",
    "timeout": "the store did not answer in time, or decoding took longer than images.max_seconds",
    "killed-worker": "reading or decoding it ends the process that does so (a crash, or no memory): never tried again",
    "size-mismatch": "not of the set's native size (only with fit = native)",
    "corrupt": "the data contradicts itself: damaged, or made to be",
    "read-error": "the store failed while reading",
    "changed": "no longer what was listed: the file was written to since, or while it was read",
    "outside-source": "a link or path that leads out of its INPUT: not followed",
    "not-a-file": "a FIFO, socket, device or archive link: never opened",
}

# Of a row whose image has left the source (reduce --update): no image of the set any more, and so not broken either.
DELETED = "deleted"

# Those of images that were decoded; all others are broken.
READABLE = ("ok", "flat")
