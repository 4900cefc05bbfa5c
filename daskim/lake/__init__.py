"""The lake: the only door to fsspec and to the image decoders.

`list_images` says what is there, `standardise_block` turns a run of its rows into one array and one table.
"""

from daskim.lake.block import BLOCK_SCHEMA, native_size, standardise_block
from daskim.lake.decode import decoder_versions, full_digest, standardise
from daskim.lake.digests import FILE_DIGEST, Digest, digest_of, digest_of_file
from daskim.lake.encode import Unsupported, encode_png, extension_of
from daskim.lake.failures import failure_of_store
from daskim.lake.folder import label_of
from daskim.lake.guard import Job, each_image
from daskim.lake.listing import list_images
from daskim.lake.names import RUN_MARK, escape, extension, unescape
from daskim.lake.place import Place, is_local, locate
from daskim.lake.read import read_images
from daskim.lake.records import LISTING_SCHEMA, STATUSES, Failure, ImageSpec, Listing, Raw, Standard
from daskim.lake.reviewed import VERDICTS, Reviewed, called_different, read_reviewed
from daskim.lake.signature import IMAGE_EXTENSIONS
from daskim.lake.stderr import quiet_native_stderr
from daskim.lake.thumbnails import LOSSLESS, Thumbnail, thumbnail
from daskim.lake.upload import upload
from daskim.lake.write import PARTIAL, Folder, State, open_folder

__all__ = [
    "BLOCK_SCHEMA",
    "FILE_DIGEST",
    "IMAGE_EXTENSIONS",
    "LISTING_SCHEMA",
    "LOSSLESS",
    "PARTIAL",
    "RUN_MARK",
    "STATUSES",
    "VERDICTS",
    "Digest",
    "Failure",
    "Folder",
    "ImageSpec",
    "Job",
    "Listing",
    "Place",
    "Raw",
    "Reviewed",
    "Standard",
    "State",
    "Thumbnail",
    "Unsupported",
    "called_different",
    "decoder_versions",
    "digest_of",
    "digest_of_file",
    "each_image",
    "encode_png",
    "escape",
    "extension",
    "extension_of",
    "failure_of_store",
    "full_digest",
    "is_local",
    "label_of",
    "list_images",
    "locate",
    "native_size",
    "open_folder",
    "quiet_native_stderr",
    "read_images",
    "read_reviewed",
    "standardise",
    "standardise_block",
    "thumbnail",
    "unescape",
    "upload",
]
