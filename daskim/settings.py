"""The settings, one model a stage, each checked when it is made. How they are given: `daskim.resolve`."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

__all__ = ["Section", "Settings"]

Share = Annotated[float, Field(ge=0.0, le=1.0)]
NumberOrShare = Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0.0, lt=1.0)]


def number_or_share(value: Any) -> Any:
    """A whole number, or a share of a whole: True would count as 1, and 1.0 may mean one or all."""
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if isinstance(value, float) and value > 1 and value.is_integer():
        return int(value)
    if not whole and not (isinstance(value, float) and 0 < value < 1):
        raise ValueError("give a whole number (1 or more), a share between 0 and 1, or auto")
    return value


def _sides(value: str) -> str:
    text = value.lower().strip()
    if text == "native":
        return text
    sides = text.split("x")
    if len(sides) == 1:
        sides = sides * 2
    if len(sides) != 2 or not all(s.isdecimal() and 1 <= int(s) <= 16384 for s in sides):
        raise ValueError("give HxW in pixels (such as 32x32, each side 1 to 16384) or native")
    return f"{int(sides[0])}x{int(sides[1])}"


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Source(Section):
    """What is read."""

    inputs: tuple[str, ...] = Field((), description="paths or fsspec URLs; several make one set")
    splits: tuple[str, ...] = Field(
        (), description="a split for each input, which then stands before its ids; [] for the splits of the source"
    )
    format: str = Field("auto", description="auto, folder, manifest, webdataset, parquet, array or idx")
    limit: int | None = Field(None, ge=1, description="only the first N images")
    sample: int | None = Field(None, ge=1, description="N images drawn at random")
    seed: int = Field(0, ge=0, description="seed of `sample`")

    @field_validator("splits")
    @classmethod
    def _splits(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(name.strip() == name != "" and "/" not in name and name.isprintable() for name in value):
            raise ValueError("a split is a name without / and without spaces around it")
        return value


class Images(Section):
    """How an image becomes one standard uint8 array."""

    size: str = Field("32x32", description="HxW in pixels, or native for sets of one size")
    mode: Literal["RGB", "L"] = Field("RGB", description="colour or luma")
    filter: Literal["area", "bilinear", "bicubic", "lanczos"] = Field("bilinear", description="resize filter")
    fit: Literal["stretch", "crop", "pad"] = Field("stretch", description="what happens to another aspect ratio")
    draft: bool = Field(True, description="decode JPEG at a reduced scale where the target is small")
    max_pixels: int = Field(100_000_000, ge=1, description="larger images are refused unread, in pixels")
    max_bytes: int = Field(500_000_000, ge=1, description="larger files are refused unread, in bytes")
    max_seconds: float = Field(60.0, gt=0.0, description="an image that decodes longer is given up, in seconds")
    flat_std: float = Field(1.0, ge=0.0, description="standard deviation below which an image is flat, in grey levels")
    max_bad: Share = Field(1.0, description="share of broken images above which the run ends")

    @field_validator("size")
    @classmethod
    def _size(cls, value: str) -> str:
        return _sides(value)


class Blocks(Section):
    """The unit of work, of failure and of resume."""

    rows: int | None = Field(None, ge=1, description="images in a block; by default from their size and number")


class Wavelets(Section):
    """Image transform."""

    transform: str = Field("wavelet", description="a transform of daskim, or your own as module.Class")
    name: str = Field("db1", description="any discrete wavelet of PyWavelets; db1/haar in whole numbers")
    level: int = Field(1, ge=0, le=9, description="levels of the transform")
    bands: Literal["auto", "all", "coarse"] = Field(
        "auto", description="auto: as many bands as max_columns holds, coarsest first; all; coarse: the approximation"
    )
    max_columns: int = Field(4096, ge=1, description="bound of bands=auto on the number of coefficients")


class Columns(Section):
    """Choice of coefficients by rank-revealing QR, or by Laplacian score."""

    method: Literal["auto", "cholesky-qr", "tsqr", "laplacian-score"] = Field(
        "auto", description="how R is made; laplacian-score: the columns that respect neighbourhoods best, without tau"
    )
    tau: float = Field(1e5, gt=1.0, description="bound on the condition number of the chosen columns")
    stop: float = Field(0.0, ge=0.0, lt=1.0, description="early stop at |r_kk| / |r_11| below this; 0 = never")
    points: int = Field(64, ge=64, description="values of the condition number that are stored")
    count: NumberOrShare = Field(0.5, description="laplacian-score: columns that are kept, or their share")
    neighbours: int = Field(5, ge=1, description="laplacian-score: nearest neighbours of an image in the graph")
    sample: int = Field(2000, ge=2, description="laplacian-score: images in the graph at most")
    seed: int = Field(0, ge=0, description="laplacian-score: seed of the sample")

    @field_validator("count", mode="before")
    @classmethod
    def _count(cls, value: Any) -> Any:
        return number_or_share(value)


class Clusters(Section):
    """k-means of the chosen columns."""

    n_clusters: NumberOrShare | Literal["auto"] | None = Field(
        None,
        description="number of clusters, their share of the images, or auto (eigen-gaps up to 5,000 images, components "
        "of the similarity graph above); by default 0.94 (method wavelet) or auto (method similarity)",
    )
    by: Literal["spectral", "threshold", "medoids"] = Field(
        "spectral", description="method similarity: spectral clustering, links above min_similarity, or k-medoids"
    )
    verify: str = Field(
        "ssim",
        description="nothing is dropped unless this similarity with the kept image confirms it (min_similarity); none "
        "for the paper's pure form",
    )
    regime: Literal["auto", "join", "cells", "kmeans"] = Field("auto", description="how the clusters are found")
    per_class: bool = Field(False, description="cluster each class by itself (blind to influential images)")
    near_rms: float = Field(8.0, ge=0.0, description="nearly identical: RMS difference in grey levels")
    max_pairs: int | None = Field(
        None, ge=1, description="pairs that the neighbour join may keep [20,000,000, or 64 an image where that is more]"
    )
    largest: int = Field(
        50_000, ge=2, description="points that are merged in one task; a longer chain is cut in its widest gaps"
    )
    directions: int = Field(256, ge=1, description="principal directions of the join's lower bound")
    cells: int | None = Field(None, ge=1, description="k-means cells of regime cells; by default about sqrt(n)")
    probes: int = Field(3, ge=1, description="cells that each image is looked up in (regime cells)")
    neighbours: int = Field(16, ge=1, description="nearest neighbours kept of each image and cell (regime cells)")
    lloyd_limit: float = Field(2e10, ge=0.0, description="Lloyd steps check the merges up to n * n_clusters * m")
    max_iter: int = Field(30, ge=1, description="Lloyd steps at most")
    seed: int = Field(0, ge=0, description="seed of the k-means centres")

    @field_validator("n_clusters", mode="before")
    @classmethod
    def _n_clusters(cls, value: Any) -> Any:
        return value if value in (None, "auto") else number_or_share(value)

    def most_pairs(self, p: int) -> int:
        """Pairs at most of the join of p points."""
        return max(20_000_000, 64 * p) if self.max_pairs is None else self.max_pairs


# Candidate pairs of one task: more than a second of one core for `aligned`. Of few images less, so that there are some
# dozens of tasks.
PART, LEAST_PART = 65_536, 1024


class Candidates(Section):
    """Which pairs get a similarity (method similarity)."""

    method: Literal["auto", "all", "lsh", "join", "union"] = Field(
        "union",
        description="every pair (small sets), MinHash bands, nearest neighbours in coarse coefficients, or both "
        "(union); auto: all up to 500,000 pairs, union above",
    )
    across: Literal["any", "splits"] = Field("any", description="splits: only pairs of images of different splits")
    max_pairs: int | None = Field(
        None, ge=1, description="candidate pairs at most [50,000,000, or 64 an image where that is more]"
    )
    mirror: bool = Field(True, description="mirrored copies are looked up too")
    crops: tuple[Annotated[float, Field(gt=0.3, lt=1.0)], ...] = Field(
        (0.875, 0.75), description="centre crops that are looked up too, as shares of the side; [] for none"
    )
    neighbours: int = Field(32, ge=1, description="join: nearest images kept of each image")
    correlation: float = Field(
        0.72, ge=-1.0, lt=1.0, description="join: least correlation of the coarse coefficients, mean and contrast apart"
    )
    directions: int = Field(48, ge=1, le=192, description="join: principal directions of the coarse coefficients")
    all_blocks: int = Field(
        250_000, ge=1, description="join: up to so many images all block pairs are looked at, above in k-means cells"
    )
    cells: int | None = Field(None, ge=1, description="join: k-means cells above all_blocks; by default about sqrt(n)")
    probes: int = Field(4, ge=1, description="join: cells that each form of an image is looked up in")
    coefficients: int = Field(40, ge=1, le=1023, description="lsh: signs of so many largest wavelet coefficients")
    permutations: int | None = Field(None, ge=1, description="lsh: 128, or 256 above 1,000,000 images")
    jaccard: float = Field(
        0.75, gt=0.0, lt=1.0, description="lsh: pairs whose sets are as alike as this are to be found"
    )
    recall: float = Field(0.9, gt=0.0, lt=1.0, description="lsh: with this probability")
    least_jaccard: float = Field(
        0.5,
        ge=0.0,
        lt=1.0,
        description="lsh: of the pairs that share a band those are left out whose sets are estimated less alike",
    )
    crop_signatures: bool = Field(False, description="lsh: the centre crops have signatures too, and are looked up")
    bucket: int = Field(64, ge=2, description="lsh: images of one bucket above which it becomes a star")
    sample: int = Field(
        500_000, ge=0, description="pairs of a random sample of images with all others that estimate the recall"
    )
    seed: int = Field(0, ge=0, description="seed of permutations, cells and sample")

    def most_pairs(self, n: int) -> int:
        """Candidate pairs at most of a set of n images."""
        return max(50_000_000, 64 * n) if self.max_pairs is None else self.max_pairs

    def part_pairs(self, n: int) -> int:
        """Candidate pairs in one part of their table, the unit of work of the similarities.

        With a second or two of work a task, one scheduler keeps hundreds of workers busy (4 ms a task); and the more
        pairs are together, the more of them share an image.
        """
        return min(PART, max(LEAST_PART, n // 2))


class Similarities(Section):
    """The similarity F of two images."""

    name: str = Field("aligned", description="a similarity of daskim, or your own as module.Class")
    size: str = Field("standard", description="what F sees: standard (images.size), HxW in pixels, or native")
    min_similarity: float | None = Field(
        None, ge=-1.0, le=1.0, description="from where on images are near-duplicates; by default the similarity's own"
    )
    negative: Literal["clip", "signed", "absolute"] = Field("clip", description="negative similarities in the graph")

    _size = field_validator("size")(lambda value: value if value == "standard" else _sides(value))


class Spectrum(Section):
    """Eigenvalues of the graph Laplacian, and the number of clusters they suggest."""

    method: Literal["auto", "exact", "lanczos"] = Field(
        "auto", description="auto: exact for components up to `exact`, stochastic Lanczos quadrature above"
    )
    gamma: float = Field(0.4, gt=0.0, description="gaps between eigenvalues above this count")
    gap_rule: Literal["auto", "complement", "literal", "components"] = Field(
        "auto",
        description="n_clusters = auto: complement (n minus the gaps above gamma: the paper's figures), literal (their "
        "number: its text), components (of the graph at min_similarity); auto: complement where every pair of at most "
        "5,000 images is compared, else components",
    )
    exact: int = Field(4000, ge=1, le=20_000, description="images of a component whose eigenvalues are all computed")
    steps: int = Field(100, ge=2, description="Lanczos steps")
    probes: int = Field(16, ge=1, description="Lanczos probes")
    seed: int = Field(0, ge=0, description="seed of probes and of the k-means in spectral clustering")


class Plan(Section):
    """What becomes of each image."""

    policy: str = Field("centre", description="which image is kept: centre, first, largest, newest, prefer-split NAME")
    max_rms: float | None = Field(
        None, ge=0.0, description="nothing is dropped farther than this from its kept image, RMS in grey levels"
    )
    protect: tuple[str, ...] = Field((), description="splits of which nothing is dropped")
    min_per_class: int = Field(0, ge=0, description="images of a class that stay at least")
    max_drop: Share = Field(1.0, description="share of dropped images above which no plan is made")
    flat: Literal["keep", "exact"] = Field("keep", description="flat images: keep all, or drop exact copies")
    stay: bool = Field(True, description="after a delivery (--update), images that were kept stay kept")
    reviewed: str | None = Field(
        None, description="CSV a,b,verdict of pairs that a person called same, different, keep-a or keep-b"
    )

    @field_validator("reviewed")
    @classmethod
    def _reviewed(cls, value: str | None) -> str | None:
        if value == "":
            raise ValueError("give a file")
        return value if value is None or "://" in value else os.path.abspath(value)

    @field_validator("policy")
    @classmethod
    def _policy(cls, value: str) -> str:
        known = ("centre", "first", "largest", "newest", "prefer-split NAME")
        words = value.split()
        if value in known[:-1] or (len(words) == 2 and words[0] == "prefer-split"):
            return value
        raise ValueError("choose " + ", ".join(known))


class Compare(Section):
    """Leaks between splits (method compare)."""

    evaluate: tuple[str, ...] = Field(
        (), description="splits whose images are looked up in the others; by default all but the training split"
    )
    against: tuple[str, ...] = Field((), description="splits they are looked up in; by default all that come before")
    per_image: int = Field(5, ge=1, description="twins that are listed of an image")
    yields: Literal["none", "train", "test"] = Field(
        "none",
        description="who leaves for a twin in another split: nobody; train: the image of the split that comes earlier "
        "(train before val before test); test: of the later",
    )


class Settings(Section):
    """Everything that decides what a run computes (not where: that is the command line's --cluster)."""

    method: Literal["wavelet", "similarity", "compare"] = Field(
        "wavelet",
        description="wavelet: Algorithm 1, wavelets and clustering; similarity: Algorithm 2, pairs of images; compare: "
        "leaks between splits",
    )
    source: Source = Source()
    images: Images = Images()
    blocks: Blocks = Blocks()
    wavelets: Wavelets = Wavelets()
    columns: Columns = Columns()
    clusters: Clusters = Clusters()
    candidates: Candidates = Candidates()
    similarities: Similarities = Similarities()
    spectrum: Spectrum = Spectrum()
    plan: Plan = Plan()
    compare: Compare = Compare()

    @property
    def sees_standard(self) -> bool:
        """The similarity is shown images at the standard size."""
        return self.similarities.size in ("standard", self.images.size)

    def get(self, key: str) -> Any:
        """The value of `stage.key`."""
        value: Any = self
        for part in key.split("."):
            value = getattr(value, part)
        return value
