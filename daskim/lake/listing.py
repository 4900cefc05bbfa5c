"""From INPUTs to one listing: the choice of rows, and the rule that ids are unique."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from daskim.errors import SettingsError, SourceError, nearest
from daskim.lake.recognise import list_input
from daskim.lake.records import FORMATS, LISTING_SCHEMA, Listing

__all__ = ["list_images"]


def list_images(
    inputs: Sequence[str],
    *,
    format: str = "auto",
    storage_options: Mapping[str, Any] | None = None,
    limit: int | None = None,
    sample: int | None = None,
    seed: int = 0,
    splits: Sequence[str] = (),
    progress: Callable[[int], None] | None = None,
) -> Listing:
    """List the images of one or more INPUTs as one set. No image is read.

    Parameters
    ----------
    inputs : sequence of str
        Paths or fsspec URLs: a folder of images, a manifest, WebDataset shards, Parquet files with image bytes,
        ``.npy``, ``.npz`` or Zarr arrays, IDX files, or a folder that holds one kind of these.
    format : str
        "auto": recognised by what it holds; or folder, manifest, webdataset, parquet, array, idx for all INPUTs.
    storage_options : mapping, optional
        For fsspec. Never stored.
    limit : int, optional
        The first so many rows.
    sample : int, optional
        So many rows drawn without replacement, in row order (all, if there are fewer). Not with `limit`.
    seed : int
        Of the sample.
    splits : sequence of str
        A split for each INPUT: all its images then belong to it, and their ids start with it and "/", so that two
        INPUTs may hold equal names.
    progress : callable, optional
        Called now and then with the number of files or images seen so far in the INPUT at work.

    Returns
    -------
    Listing
        Rows of the INPUTs in the order given; in a folder sorted by id (code points), in a table or shard in
        its own order, files sorted by name.

    Raises
    ------
    SettingsError
        An unknown format, an ambiguous INPUT, a bad `limit` or `sample`.
    SourceError
        An INPUT that cannot be reached or holds no image; two images of one id.

    Notes
    -----
    ========== =================================== ============================ ==================================
    format     id                                  label                        split
    ========== =================================== ============================ ==================================
    folder     path relative to the INPUT          first folder after the split first folder, if it names one
    manifest   ``file_name`` or ``uri``            column ``label``             column ``split``
    webdataset shard "/" member                    sibling .cls, .txt or .json  start of the shard's name
    parquet    ``image.path``, else file "#" row   column ``label``             column, else start of file's name
    array      file ["/" key] "#" index            array beside it              word in its name or key
    idx        file without .gz "#" index          file of labels beside it     start of the file's name
    ========== =================================== ============================ ==================================

    Where a name is silent, the INPUT's first folder named train, test, val, valid or validation is the split.
    Bytes of a name that are not UTF-8 and control characters are written as ``\\xNN`` (`daskim.lake.names`).
    """
    if isinstance(inputs, str):
        inputs = [inputs]
    _check(inputs, format, limit, sample)
    if splits and len(splits) != len(inputs):
        raise SettingsError(
            f"{len(splits)} splits for {len(inputs)} INPUTs (source.splits)", "Name one split for each INPUT, in order."
        )
    tables, ignored = [], Counter[str]()
    for number, given in enumerate(inputs):
        table, passed = list_input(given, format, storage_options or {}, progress)
        if splits:
            table = _in_split(table, splits[number])
        index = LISTING_SCHEMA.get_field_index("source")
        tables.append(table.set_column(index, "source", pa.repeat(pa.scalar(number, pa.int32()), len(table))))
        ignored.update(passed)
    table = pa.concat_tables(tables)
    _check_ids(table, inputs)
    if limit is not None:
        table = table.slice(0, limit)
    elif sample is not None and sample < table.num_rows:
        drawn = np.random.default_rng(seed).choice(table.num_rows, sample, replace=False, shuffle=False)
        table = table.take(pa.array(np.sort(drawn)))
    return Listing(table, dict(sorted(ignored.items())), tuple(inputs))


def _in_split(table: pa.Table, split: str) -> pa.Table:
    """The same images, all of one split, which stands before their ids."""
    for name, value in (
        ("id", pc.binary_join_element_wise(pa.scalar(split), table["id"], "/")),
        ("split", pa.repeat(pa.scalar(split, pa.string()), len(table))),
    ):
        table = table.set_column(table.schema.get_field_index(name), LISTING_SCHEMA.field(name), value)
    return table


def _check(inputs: Sequence[str], format: str, limit: int | None, sample: int | None) -> None:
    if not inputs:
        raise SettingsError("no INPUT is given", "Name a folder, file or URL that holds images.")
    if format != "auto" and format not in FORMATS:
        raise SettingsError(f"unknown format {format!r}", nearest(format, ("auto", *FORMATS)))
    if limit is not None and sample is not None:
        raise SettingsError("limit and sample are both given", "Choose one: the first rows, or drawn ones.")
    for name, value in (("limit", limit), ("sample", sample)):
        if value is not None and value < 1:
            raise SettingsError(f"{name} = {value} must be at least 1")


def _check_ids(table: pa.Table, inputs: Sequence[str]) -> None:
    ids = table["id"]
    if len(ids) < 2 or pc.all(pc.less(ids.slice(0, len(ids) - 1), ids.slice(1))).as_py():
        return  # ascending, as one folder's are: no table of all names is needed
    if pc.count_distinct(ids).as_py() == table.num_rows:
        return
    first: dict[str, int] = {}
    for row, name in enumerate(table["id"].to_pylist()):
        if name in first:
            break
        first[name] = row
    where = [f"{table['uri'][i].as_py()} (in {inputs[table['source'][i].as_py()]})" for i in (first[name], row)]
    count = table.num_rows - pc.count_distinct(table["id"]).as_py()
    if table["source"][row] != table["source"][first[name]]:
        hint = "Give their common parent folder as one INPUT, or rename one of the folders."
    else:
        hint = "Each image needs a name of its own: make file_name, image.path or the member's name unique."
    raise SourceError(f"two images have the id {name!r}: {where[0]} and {where[1]} ({count} such rows in all)", hint)
