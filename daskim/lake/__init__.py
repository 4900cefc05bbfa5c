"""The lake: the only door to fsspec and to the image decoders.

`list_images` says what is there, `standardise_block` turns a run of its rows into one array and one table.
"""

from daskim.lake.block import BLOCK_SCHEMA, native_size, standardise_block
from daskim.lake.decode import decoder_versions, full_digest, standardise
from daskim.lake.listing import list_images
from daskim.lake.names import RUN_MARK, escape, unescape
from daskim.lake.read import read_images
from daskim.lake.records import LISTING_SCHEMA, STATUSES, Failure, ImageSpec, Listing, Raw, Standard
from daskim.lake.stderr import quiet_native_stderr

__all__ = [
    "BLOCK_SCHEMA",
    "LISTING_SCHEMA",
    "RUN_MARK",
    "STATUSES",
    "Failure",
    "ImageSpec",
    "Listing",
    "Raw",
    "Standard",
    "decoder_versions",
    "escape",
    "full_digest",
    "list_images",
    "native_size",
    "quiet_native_stderr",
    "read_images",
    "standardise",
    "standardise_block",
    "unescape",
]
