"""Draws docs/demo.png from a finished demo run: python docs/picture.py RUN [PNG]"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
from PIL import Image, ImageDraw, ImageFont

import daskim

SIDE, GAP, LEFT, PAIRS = 56, 6, 110, 7
KINDS = ("recoded", "jpeg", "noise", "brightness", "contrast", "shift", "relabelled")


def found_pairs(run: Path) -> dict[str, list[tuple[str, str]]]:
    """Ids of (planted, its partner) that the run found, by kind."""
    reduction = daskim.open_run(run)
    truth = pd.read_csv(run / "demo-truth.csv", keep_default_na=False)
    kept = dict(zip(reduction.plan["id"], reduction.plan["kept_id"].fillna("")))
    cluster = dict(zip(reduction.influential["id"], reduction.influential["cluster"]))
    pairs: dict[str, list[tuple[str, str]]] = {kind: [] for kind in KINDS}
    for planted, original, kind in truth.itertuples(index=False):
        if kind == "relabelled":
            together = planted in cluster and cluster[planted] == cluster.get(original)
        else:
            together = bool(original) and (kept[planted] == original or kept[original] == planted)
        if together and kind in pairs:
            pairs[kind].append((planted, original))
    return pairs


def main(run: Path, target: Path) -> None:
    pairs = found_pairs(run)
    width = LEFT + PAIRS * (2 * SIDE + 3 * GAP)
    sheet = Image.new("RGB", (width, GAP + len(KINDS) * (SIDE + GAP)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for line, kind in enumerate(KINDS):
        top = GAP + line * (SIDE + GAP)
        draw.text((8, top + SIDE / 2 - 8), kind, "black", font)
        step = max(1, len(pairs[kind]) // PAIRS)
        for column, pair in enumerate(pairs[kind][::step][:PAIRS]):
            for side, name in enumerate(pair):
                with Image.open(run / "demo" / name) as picture:
                    tile = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.NEAREST)
                sheet.paste(tile, (LEFT + column * (2 * SIDE + 3 * GAP) + side * (SIDE + 2), top))
    sheet.quantize(128).save(target, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "docs/demo.png"))
