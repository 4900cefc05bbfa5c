"""reduce --update and --against: what deliveries find equals what one run of all finds."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from daskim.api import compare, reduce
from daskim.errors import BlockFailed, SettingsError, SourceError, StaleRun
from daskim.jobs.apply import main as apply
from daskim.jobs.reduce import main
from daskim.results import FinishedRun
from daskim.store import Run
from daskim.synthetic import planted_families

IMAGES = 240
SETTINGS = {
    "method": "similarity",
    "similarities.name": "ssim",
    "clusters.by": "threshold",
    "candidates.sample": 0,
    "candidates.bucket": 6,
    "candidates.neighbours": 4,
    "blocks.rows": 50,
}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, bytes]]:
    """Names and files of images of planted families, in an order that has nothing to do with the names."""
    folder = tmp_path_factory.mktemp("pool")
    scenes = planted_families(IMAGES)
    found = []
    for row, pixels in enumerate(scenes.images):
        file = folder / "image.png"
        Image.fromarray(pixels).save(file)
        found.append((f"class-{scenes.labels[row]}/{row:05d}.png", file.read_bytes()))
    order = np.random.default_rng(0).permutation(IMAGES)
    return [found[at] for at in order]


def put(lake: Path, files: list[tuple[str, bytes]]) -> None:
    for name, data in files:
        (lake / name).parent.mkdir(parents=True, exist_ok=True)
        (lake / name).write_bytes(data)


def pairs_of(found: FinishedRun) -> dict[tuple[str, str], float]:
    name = found.images.set_index("row")["id"]
    pairs = found.pairs[found.pairs["similarity"] >= found.summary["similarities"]["min_similarity"]]
    ends = zip(name.loc[pairs["a"]], name.loc[pairs["b"]], pairs["similarity"])
    return {(min(a, b), max(a, b)): value for a, b, value in ends}


def families_of(found: FinishedRun) -> set[frozenset[str]]:
    table = found.clusters.merge(found.images[["row", "id"]], on="row")
    return {frozenset(group) for _, group in table[table["cluster"] >= 0].groupby("cluster")["id"]}


def decisions_of(found: FinishedRun) -> dict[str, tuple[Any, ...]]:
    plan = found.plan.set_index("id")
    return dict(zip(plan.index, zip(plan["decision"], plan["rule"], plan["kept_id"].fillna(""))))


def deliver(lake: Path, pool: list[tuple[str, bytes]]) -> Iterator[dict[str, int]]:
    """A lake that grows, shrinks and changes; what each delivery is."""
    put(lake, pool[:80])
    yield {}
    put(lake, pool[80:160])
    yield {"new": 80}
    gone, swapped = pool[:20], pool[20:26]
    for name, _ in gone:
        (lake / name).unlink()
    names = [name for name, _ in swapped]
    put(lake, list(zip(names, [data for _, data in swapped[::-1]])))
    put(lake, pool[160:200])
    yield {"new": 40, "changed": 6, "deleted": 20}
    put(lake, gone[:5])
    put(lake, [(f"copies/{at}.png", pool[at * 7][1]) for at in range(10)])
    put(lake, [("copies/broken.png", b"no image"), *pool[200:]])
    yield {"new": 51, "back": 5}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"candidates.method": "lsh"},
        {"candidates.method": "join", "plan.policy": "first"},
        {"candidates.method": "all", "candidates.max_pairs": 100_000},
        {"similarities.name": "aligned"},
    ],
    ids=["union", "lsh", "join", "all", "aligned"],
)
def test_deliveries_find_what_one_run_finds(
    tmp_path: Path, pool: list[tuple[str, bytes]], more: dict[str, Any]
) -> None:
    settings = {**SETTINGS, **more, "plan.stay": False}
    lake = tmp_path / "lake"
    for number, expected in enumerate(deliver(lake, pool)):
        found = reduce(lake, run=tmp_path / "run", settings=settings, update=True, workers=2)
        if expected:
            record = found.summary["delivery"]
            assert record["number"] == number
            told = {name: record[name] for name in ("new", "changed", "deleted", "back", "relabelled")}
            assert told == {"new": 0, "changed": 0, "deleted": 0, "back": 0, "relabelled": 0, **expected}
        if number < 2:
            continue
        fresh = reduce(lake, run=tmp_path / f"fresh-{number}", settings=settings, workers=2)
        assert len(pairs_of(fresh)) > 10
        assert pairs_of(found) == pairs_of(fresh)
        assert families_of(found) == families_of(fresh)
        assert decisions_of(found) == decisions_of(fresh)
        assert found.summary["plan_hash"] == fresh.summary["plan_hash"]
        assert found.summary["n_images"] == fresh.summary["n_images"]
        assert found.summary["status"] == fresh.summary["status"]
        assert found.summary["n_exact"] == fresh.summary["n_exact"]
    if not more:  # tombstones stay tombstones
        for stage in ("similarities", "candidates", "images"):
            again = reduce(lake, run=tmp_path / "run", settings=settings, restart=stage, workers=2)
            assert again.summary["plan_hash"] == fresh.summary["plan_hash"]
            assert again.summary["status"] == fresh.summary["status"]


def test_kept_images_stay_kept(tmp_path: Path, pool: list[tuple[str, bytes]]) -> None:
    lake = tmp_path / "lake"
    put(lake, pool[:160])
    settings = {**SETTINGS, "plan.policy": "first"}
    before = reduce(lake, run=tmp_path / "run", settings=settings, update=True)
    kept = before.plan.loc[before.plan["decision"] == "keep", "id"].tolist()
    # copies of all, whose names come first: a fresh run would keep them instead
    put(lake, [(f"class-0/!{at:04d}.png" if "class-0" in name else f"{name.split('/')[0]}/!{at:04d}.png", data)
               for at, (name, data) in enumerate(pool[:160])])  # fmt: skip
    after = reduce(lake, run=tmp_path / "run", settings=settings, update=True)
    plan = after.plan.set_index("id")["decision"]
    assert (plan[kept] == "keep").all()
    assert (plan[[name for name in plan.index if "!" in name]] == "keep").sum() < 160
    fresh = reduce(lake, run=tmp_path / "fresh", settings=settings)
    assert (fresh.plan.set_index("id")["decision"][kept] == "drop").any()
    assert pairs_of(after) == pairs_of(fresh)


def test_only_new_images_are_read(tmp_path: Path, pool: list[tuple[str, bytes]]) -> None:
    lake = tmp_path / "lake"
    put(lake, pool[:200])
    reduce(lake, run=tmp_path / "run", settings=SETTINGS, update=True)
    for name, _ in pool[:200]:  # they are there, and nobody may open them
        (lake / name).chmod(0)
        data = (lake / name).stat()
        assert data.st_size
    put(lake, pool[200:])
    found = reduce(lake, run=tmp_path / "run", settings=SETTINGS, update=True)
    record = found.summary["delivery"]
    assert record["new"] == 40
    assert record["source_bytes"] == sum(len(data) for _, data in pool[200:])
    assert found.summary["blocks"]["images"]["computed"] <= 2
    assert found.summary["status"] == {"ok": IMAGES}
    history = json.loads((tmp_path / "run" / "deliveries.json").read_text())["deliveries"]
    assert [entry["number"] for entry in history] == [1]
    assert not (tmp_path / "run" / "state" / "delivery").exists()


def test_nothing_new_and_labels(tmp_path: Path, pool: list[tuple[str, bytes]]) -> None:
    lake = tmp_path / "lake"
    put(lake, pool[:60])
    rows = [f"{name},{'a' if at % 2 else 'b'}" for at, (name, _) in enumerate(pool[:60])]
    manifest = lake / "manifest.csv"
    manifest.write_text("file_name,label\n" + "\n".join(rows) + "\n")
    first = reduce(manifest, run=tmp_path / "run", settings=SETTINGS, update=True)
    again = reduce(manifest, run=tmp_path / "run", settings=SETTINGS, update=True)
    assert "delivery" not in again.summary
    assert again.summary["plan_hash"] == first.summary["plan_hash"]
    rows[0] = f"{pool[0][0]},c"
    manifest.write_text("file_name,label\n" + "\n".join(rows) + "\n")
    found = reduce(manifest, run=tmp_path / "run", settings=SETTINGS, update=True)
    assert found.summary["delivery"]["relabelled"] == 1
    assert found.summary["delivery"]["source_bytes"] == 0
    assert found.images.set_index("id")["label"][pool[0][0]] == "c"
    assert found.plan.set_index("id")["label"][pool[0][0]] == "c"


class Stop(Exception):
    pass


@pytest.mark.parametrize("moment", range(1, 24, 4))
def test_an_interrupted_delivery_goes_on(
    tmp_path: Path, pool: list[tuple[str, bytes]], moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended at some write of a marker or a seal, and resumed without --update: as if nothing had happened."""
    lake, run = tmp_path / "lake", tmp_path / "run"
    settings = {**SETTINGS, "plan.stay": False, "similarities.name": "ssim"}
    put(lake, pool[:100])
    reduce(lake, run=run, settings=settings, update=True)
    put(lake, pool[100:160])
    for name, _ in pool[:10]:
        (lake / name).unlink()
    left = moment
    write = Run.write

    def counted(self: Run, data: bytes, *parts: str, **more: Any) -> None:
        nonlocal left
        if parts[0] == "state":
            left -= 1
            if left == 0:
                raise Stop
        write(self, data, *parts, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "write", counted)
        with pytest.raises((Stop, BlockFailed)):
            reduce(lake, run=run, settings=settings, update=True, workers=1)
    assert left <= 0
    put(lake, pool[160:161])  # comes too late for this delivery
    found = reduce(lake, run=run, settings=settings, update=True, workers=1)
    if found.summary.get("delivery", {}).get("number") != 2:
        found = reduce(lake, run=run, settings=settings, update=True, workers=1)
    fresh = reduce(lake, run=tmp_path / "fresh", settings=settings)
    assert found.summary["plan_hash"] == fresh.summary["plan_hash"]
    assert pairs_of(found) == pairs_of(fresh)


def test_cells_are_frozen_and_renewed(tmp_path: Path, pool: list[tuple[str, bytes]]) -> None:
    settings = {**SETTINGS, "candidates.method": "join", "candidates.all_blocks": 20, "candidates.probes": 64}
    lake = tmp_path / "lake"
    put(lake, pool[:50])
    reduce(lake, run=tmp_path / "run", settings=settings, update=True)
    put(lake, pool[50:120])
    found = reduce(lake, run=tmp_path / "run", settings=settings, update=True)
    assert not [note for note in found.summary["notes"] if "made anew" in note]
    # every cell is probed, so that the cells, which are others in a fresh run, do not matter
    fresh = reduce(lake, run=tmp_path / "fresh", settings=settings)
    assert pairs_of(found) == pairs_of(fresh)
    put(lake, pool[120:])
    found = reduce(lake, run=tmp_path / "run", settings=settings, update=True)
    assert [note for note in found.summary["notes"] if "made anew" in note]
    assert pairs_of(found) == pairs_of(reduce(lake, run=tmp_path / "fresh-2", settings=settings))


def test_method_wavelet_keeps_its_columns(tmp_path: Path, pool: list[tuple[str, bytes]]) -> None:
    lake = tmp_path / "lake"
    settings = {"images.size": "8x8", "blocks.rows": 64, "clusters.verify": "none", "plan.stay": False}
    put(lake, pool[:220])
    before = reduce(lake, run=tmp_path / "run", settings=settings, update=True)
    put(lake, pool[220:])
    found = reduce(lake, run=tmp_path / "run", settings=settings, update=True)
    assert found.summary["n_images"] == IMAGES
    assert found.summary["n_clusters"] == round(0.94 * IMAGES)
    assert found.table("columns")["kept"].tolist() == before.table("columns")["kept"].tolist()
    fresh = reduce(lake, run=tmp_path / "fresh", settings={**settings, "columns.tau": 1e300})
    assert len(found.plan) == len(fresh.plan) == IMAGES


def test_columns_are_chosen_anew_when_images_are_others(tmp_path: Path) -> None:
    """Images that vary only along one axis, and then such as vary along the other."""
    rng = np.random.default_rng(0)
    lake = tmp_path / "lake"
    lake.mkdir()
    for at in range(90):
        stripes = np.repeat(rng.integers(0, 255, (1, 8, 3)), 8, axis=0) if at < 60 else None
        if stripes is None:
            stripes = rng.integers(0, 255, (8, 8, 3))
        Image.fromarray(stripes.astype(np.uint8)).save(lake / f"{at:03d}.png")
        if at == 59:
            settings = {"images.size": "8x8", "clusters.verify": "none"}
            before = reduce(lake, run=tmp_path / "run", settings=settings, update=True)
    found = reduce(lake, run=tmp_path / "run", settings=settings, update=True)
    assert [note for note in found.summary["notes"] if "chosen anew" in note]
    assert found.summary["columns"]["m"] > before.summary["columns"]["m"]


def digest_of(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(str(file.relative_to(folder)).encode() + file.read_bytes())
    return digest.hexdigest()


def test_against_another_run(tmp_path: Path, pool: list[tuple[str, bytes]], capsys: pytest.CaptureFixture[str]) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    put(old, pool[:150])
    put(new, [*pool[150:], *((f"{name[:7]}/again-{at}.png", data) for at, (name, data) in enumerate(pool[:8]))])
    put(new, [pool[0]])  # the same name as there
    settings = {"method": "similarity", "similarities.name": "ssim", "candidates.sample": 0}
    known = reduce(old, run=tmp_path / "known", settings=settings)
    before = digest_of(tmp_path / "known")
    found = reduce(new, run=tmp_path / "run", against=tmp_path / "known", report=True)
    assert digest_of(tmp_path / "known") == before
    told = found.summary["against"]
    leaks = compare(old, new, settings={"similarities.name": "ssim", "candidates.method": "all"}).summary["leakage"]
    assert told["known"] == leaks["images"]
    assert told["exact"] == leaks["exact"] == 9
    assert told["conflicts"] == leaks["conflicts"]
    twins = found.table("twins")
    assert set(twins["id"]) <= set(found.plan["id"])
    assert set(twins["other_id"]) <= set(known.images["id"])
    assert len(found.plan) == told["images"] == len(pool[150:]) + 9
    assert (found.plan.set_index("id")["decision"][twins.loc[twins["kind"] == "exact", "id"]] == "drop").all()
    assert (tmp_path / "run" / "report.html").exists()
    # what it proposes can be done: ids are told apart from those of the other run
    assert found.prefix == "new-1/"
    assert apply([found.run, "--to", str(tmp_path / "reduced"), "--execute"]) == 0
    assert len(list((tmp_path / "reduced").rglob("*.png"))) == found.summary["n_keep"]
    # given again, nothing is left to do; from the command line too
    again = reduce(new, run=tmp_path / "run", against=tmp_path / "known")
    assert again.summary["plan_hash"] == found.summary["plan_hash"]
    words = [str(new), "--run", str(tmp_path / "by-words"), "--against", str(tmp_path / "known"), "--no-report"]
    assert main([*words, "--fail-on", "known>1000"]) == 0
    assert main([*words, "--fail-on", "known>0"]) == 6
    assert f"{told['known']:,} of {told['images']:,}" in capsys.readouterr().err.replace("\n", " ")


def test_what_does_not_go(tmp_path: Path, pool: list[tuple[str, bytes]]) -> None:
    lake, run = tmp_path / "lake", tmp_path / "run"
    put(lake, pool[:40])
    reduce(lake, run=run, settings={**SETTINGS, "source.limit": 30}, update=True)
    with pytest.raises(SettingsError, match=r"source\.limit"):
        reduce(lake, run=run, settings={**SETTINGS, "source.limit": 30}, update=True)
    with pytest.raises(SourceError, match="no finished run"):
        reduce(lake, run=tmp_path / "other", against=tmp_path / "nowhere")
    with pytest.raises(SettingsError, match="is a run already"):
        reduce(lake, run=run, against=run)
    shutil.rmtree(run)
    reduce(lake, run=run, settings=SETTINGS)
    put(lake, pool[40:44])
    with pytest.raises(StaleRun, match="neighbours"):
        reduce(lake, run=run, settings={**SETTINGS, "candidates.neighbours": 9}, update=True)
    with pytest.raises(SettingsError, match="not together"):
        reduce(lake, run=tmp_path / "other", against=run, update=True)
    wavelet = reduce(lake, run=tmp_path / "wavelet", settings={"clusters.verify": "none"})
    with pytest.raises(SettingsError, match="no index"):
        reduce(lake, run=tmp_path / "other", against=wavelet.run)
    reduce(lake, run=tmp_path / "splits-run", settings=SETTINGS)
    compared = compare(lake, lake, run=tmp_path / "compared")
    with pytest.raises(SettingsError, match="for reduce"):
        reduce(compared.settings.source.inputs, run=compared.run, settings=compared.settings, update=True)
