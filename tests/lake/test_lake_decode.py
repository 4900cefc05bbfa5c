"""Decoding: conversions, orientation, fits, digests, statuses."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import encode, picture
from PIL import Image, ImageFile, ImageOps

from daskim.errors import SettingsError
from daskim.lake import STATUSES, Failure, ImageSpec, decoder_versions, full_digest, standardise
from daskim.lake.fit import draft_scale, inner_size
from daskim.lake.jpeg import jpeg_orientation

NATIVE = ImageSpec(40, 48)
RGB = picture(3)
GREY = np.minimum(RGB[..., 0], 254)  # leaves room for the lower bits of 16


def ok(raw, spec=NATIVE):
    standard = standardise(raw, spec)
    assert standard.status == "ok", standard
    assert standard.pixels is not None
    assert standard.pixels.shape == spec.shape
    assert standard.pixels.dtype == np.uint8
    return standard


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "TGA", "WEBP", "QOI", "JPEG2000", "ICO"])
def test_lossless_formats_of_the_same_pixels_are_one_image(kind):
    pixels = picture(1, 64, 64) if kind == "ICO" else RGB
    options = {"lossless": True} if kind == "WEBP" else {"sizes": [(64, 64)]} if kind == "ICO" else {}
    spec = ImageSpec(*pixels.shape[:2])
    reference = ok(encode(pixels), spec)
    standard = ok(encode(pixels, kind, **options), spec)
    np.testing.assert_array_equal(standard.pixels, pixels)
    assert standard.digest == reference.digest == full_digest(encode(pixels, kind, **options))
    assert standard.full
    assert (standard.file_digest == reference.file_digest) == (kind == "PNG")
    assert ok(pixels, spec).digest == reference.digest


def test_jpeg_equals_pillow_and_its_copy_in_png():
    data = encode(RGB, "JPEG", quality=75)
    expected = np.asarray(Image.open(io.BytesIO(data)))
    standard = ok(data)
    np.testing.assert_array_equal(standard.pixels, expected)
    assert standard.full
    assert standard.digest == full_digest(data) == full_digest(encode(expected))
    for mode in ("RGB", "L"):
        spec = ImageSpec(16, 16, mode=mode, draft=False)
        assert ok(data, spec).digest == ok(encode(expected), spec).digest
        assert not ok(data, spec).full


def test_grey_in_any_form_is_the_same_grey():
    forms = [encode(GREY), encode(np.dstack([GREY] * 3)), GREY, GREY[..., None], np.dstack([GREY] * 3)]
    for mode in ("RGB", "L"):
        found = [ok(raw, ImageSpec(40, 48, mode=mode)) for raw in forms]
        assert len({standard.digest for standard in found}) == 1
        for raw, standard in zip(forms, found):
            assert not standard.full or standard.digest == full_digest(raw)


def test_alike_at_standard_size_but_not_the_same():
    base = picture(5, 64, 64)
    other = base.reshape(32, 2, 64, 3)[:, ::-1].reshape(64, 64, 3)  # each pair of rows changes places
    one, two = ok(encode(base), ImageSpec(32, 32)), ok(encode(other), ImageSpec(32, 32))
    assert one.digest == two.digest
    assert not one.full
    assert full_digest(encode(base)) != full_digest(encode(other))


def test_depth_is_not_forgotten_by_the_full_digest():
    deep = GREY.astype(np.uint16) * 257
    near = deep + 1
    spec = ImageSpec(40, 48, mode="L")
    for one, two in ((deep, near), (encode(deep), encode(near))):
        assert ok(one, spec).digest == ok(two, spec).digest == ok(GREY, spec).digest
        assert not ok(one, spec).full
        assert full_digest(one) != full_digest(two)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([[0, 128, 129, 65535]], np.uint16), [0, 0, 1, 255]),
        (np.array([[-5, 0, 77, 300]], np.int64), [0, 0, 77, 255]),
        (np.array([[True, False]]), [255, 0]),
        (np.array([[0.0, 0.5, 1.0]]), [0, 128, 255]),
        (np.array([[0.0, 0.5, 2.0, 300.0]], np.float32), [0, 0, 2, 255]),
        (np.array([[np.nan, np.inf, -np.inf, 1.0]], np.float16), [0, 255, 0, 255]),
        (np.array([[np.nan, np.nan]]), [0, 0]),
    ],
)
def test_array_dtypes(array, expected):
    spec = ImageSpec(1, array.shape[1], mode="L", flat_std=0.0)
    for values in (array, array.astype(array.dtype.newbyteorder(">"))):
        assert ok(values, spec).pixels[0, :, 0].tolist() == expected


def modes() -> list[tuple[str, bytes, np.ndarray]]:
    """(name, file, expected RGB) by the documented rules, computed apart from the code under test."""
    alpha = np.linspace(0, 255, 48, dtype=np.uint8)[None].repeat(40, 0)
    weight = alpha[..., None].astype(float)
    white = np.rint((RGB * weight + 255 * (255 - weight)) / 255)
    grey_white = np.rint((GREY[..., None] * weight + 255 * (255 - weight)) / 255).repeat(3, 2)
    rgba = np.dstack([RGB, alpha])
    palette = Image.fromarray(RGB).quantize(17)
    keyed = palette.copy()
    keyed_rgb = np.asarray(palette.convert("RGB")).copy()
    keyed_rgb[np.asarray(palette) == 3] = 255
    bits = Image.fromarray(GREY).convert("1")
    deep = GREY.astype(np.uint16) * 257 + 100
    grey3 = GREY[..., None].repeat(3, 2)
    cmyk = Image.fromarray(RGB).convert("CMYK")
    return [
        ("RGBA", encode(rgba), white),
        ("RGBA webp", encode(rgba, "WEBP", lossless=True, exact=True), white),
        ("LA", encode(np.dstack([GREY, alpha])), grey_white),
        ("P", encode(palette), np.asarray(palette.convert("RGB"))),
        ("P gif", encode(palette, "GIF"), np.asarray(palette.convert("RGB"))),
        ("P + transparency", encode(keyed, transparency=3), keyed_rgb),
        ("L + colour key", encode(GREY, transparency=int(GREY[0, 0])), np.where(grey3 == GREY[0, 0], 255, grey3)),
        ("1", encode(bits), np.asarray(bits.convert("RGB"))),
        ("I;16", encode(deep), grey3),
        ("I;16 big-endian", encode(Image.fromarray(deep.astype(">u2")), "TIFF"), grey3),
        ("I", encode(Image.fromarray(deep.astype(np.int32)), "TIFF"), grey3),
        ("F", encode(Image.fromarray(GREY / np.float32(255)), "TIFF"), grey3),
        ("CMYK", encode(cmyk, "TIFF"), np.asarray(cmyk.convert("RGB"))),
        ("YCbCr", encode(Image.fromarray(RGB).convert("YCbCr"), "TIFF"), RGB),
    ]


@pytest.mark.parametrize(("name", "data", "expected"), modes(), ids=[case[0] for case in modes()])
def test_modes_by_the_documented_rules(name, data, expected):
    tolerance = {"YCbCr": 3, "P + transparency": 0}.get(name, 1)
    got = ok(data).pixels.astype(int)
    assert np.abs(got - expected).max() <= tolerance
    luma = np.asarray(Image.fromarray(got.astype(np.uint8)).convert("L"))
    grey = ok(data, ImageSpec(40, 48, mode="L")).pixels[..., 0]
    np.testing.assert_array_equal(grey, luma)


def test_cmyk_jpeg_goes_through_pillow():
    data = encode(Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=95)
    np.testing.assert_array_equal(ok(data).pixels, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_lab():
    data = encode(Image.frombytes("LAB", (48, 40), np.dstack([GREY, GREY * 0, GREY * 0]).tobytes()), "TIFF")
    assert np.ptp(ok(data).pixels.astype(int), axis=2).max() <= 2


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame(kind):
    frames = [Image.fromarray(picture(seed)) for seed in range(3)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    still = encode(frames[0], kind, **options)
    assert np.abs(ok(data).pixels.astype(int) - ok(still).pixels).max() <= 1


def exif(orientation: int, order: str = "<", kind: int = 3) -> bytes:
    mark = b"II*\x00" if order == "<" else b"MM\x00*"
    value = struct.pack(order + ("HxxH"[0] + "xx" if kind == 3 else "I"), orientation)
    entries = struct.pack(order + "HHI", 0x0100, 4, 1) + struct.pack(order + "I", 7)
    entries += struct.pack(order + "HHI", 0x0112, kind, 1) + value
    return b"Exif\x00\x00" + mark + struct.pack(order + "IH", 8, 2) + entries + b"\x00" * 4


@settings(max_examples=60, deadline=None)
@given(
    orientation=st.integers(0, 9),
    kind=st.sampled_from(["JPEG", "PNG", "TIFF", "WEBP"]),
    order=st.sampled_from("<>"),
    long=st.booleans(),
    size=st.tuples(st.integers(2, 40), st.integers(2, 40)),
)
def test_orientation_is_that_of_pillow(orientation, kind, order, long, size):
    image = Image.fromarray(picture(2, *size))
    options = {"lossless": True} if kind == "WEBP" else {}
    if kind == "TIFF":
        options["tiffinfo"] = {274: orientation}
    else:
        options["exif"] = exif(orientation, order, 4 if long else 3)
    data = encode(image, kind, **options)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    standard = ok(data, ImageSpec(*upright.size[::-1], flat_std=0.0))
    assert (standard.width, standard.height) == upright.size
    np.testing.assert_array_equal(standard.pixels, np.asarray(upright))
    assert standard.full
    assert standard.digest == full_digest(encode(upright))


@pytest.mark.parametrize(
    "block",
    [
        b"Exif\x00\x00",
        b"Exif\x00\x00II*\x00\xff\xff\xff\x7f",
        b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff",
        exif(6)[:30],
    ],
)
def test_broken_exif_is_no_exif(block):
    plain = encode(RGB, "JPEG")
    broken = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + plain[2:]
    assert ok(broken).digest == ok(plain).digest


def test_orientation_in_xmp_counts_where_there_is_no_exif():
    plain = encode(RGB, "JPEG")
    block = b'http://ns.adobe.com/xap/1.0/\x00<x:xmpmeta tiff:Orientation="6"/>'
    data = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + plain[2:]
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(ok(data, ImageSpec(48, 40)).pixels, upright)


def test_the_orientation_of_a_large_file_stands_before_its_pixels():
    """What looks like it among the pixels, or after them, says nothing; what stands behind 5 kB of others counts."""
    noise = np.random.default_rng(0).integers(0, 256, (90, 90, 3)).astype(np.uint8)
    plain = encode(noise, "JPEG", quality=95)
    assert len(plain) > 4096
    comment = b"\xff\xfe" + struct.pack(">H", 5002) + b"x" * 5000
    block = b'http://ns.adobe.com/xap/1.0/\x00<x:xmpmeta tiff:Orientation="6"/>'
    segment = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
    assert jpeg_orientation(plain) == 1
    assert jpeg_orientation(plain[:2] + comment + segment + plain[2:]) == 6
    assert jpeg_orientation(plain[:2] + comment + plain[2:] + block) == 1
    found = exif(8)
    told = b"\xff\xe1" + struct.pack(">H", len(found) + 2) + found
    assert jpeg_orientation(plain[:2] + comment + told + plain[2:]) == 8
    assert jpeg_orientation(b"\xff\xd8\xff" + bytes(5000) + block) == 6, "no segments to walk: all of it is searched"


SIZES = st.tuples(st.integers(1, 90), st.integers(1, 90))


@settings(max_examples=80, deadline=None)
@given(
    source=SIZES,
    target=SIZES,
    fit=st.sampled_from(["stretch", "crop", "pad"]),
    method=st.sampled_from(["area", "bilinear", "bicubic", "lanczos"]),
    mode=st.sampled_from(["RGB", "L"]),
    kind=st.sampled_from(["PNG", "JPEG"]),
)
def test_any_size_to_any_size(source, target, fit, method, mode, kind):
    spec = ImageSpec(*target, mode=mode, fit=fit, filter=method, flat_std=0.0)
    standard = ok(encode(picture(1, *source), kind), spec)
    assert (standard.height, standard.width) == source
    assert not standard.full or (source == target and mode == "RGB")


@settings(max_examples=60, deadline=None)
@given(source=SIZES, target=SIZES, fit=st.sampled_from(["stretch", "crop", "pad"]))
def test_a_constant_stays_constant_in_every_fit(source, target, fit):
    image = np.full((*source, 3), 200, np.uint8)
    spec = ImageSpec(*target, fit=fit, flat_std=0.0)
    pixels = ok(image, spec).pixels
    inner = inner_size(source[1], source[0], spec) if fit == "pad" and source != target else target[::-1]
    assert (pixels == 200).sum() == 3 * inner[0] * inner[1]
    assert set(np.unique(pixels)) <= {128, 200}
    assert inner[0] == target[1] or inner[1] == target[0]


def test_crop_takes_the_middle():
    image = np.zeros((20, 60, 3), np.uint8)
    image[:, 20:40] = 255
    assert (ok(image, ImageSpec(10, 10, fit="crop", flat_std=0.0)).pixels == 255).all()


@settings(max_examples=200, deadline=None)
@given(
    source=st.tuples(st.integers(1, 4000), st.integers(1, 4000)),
    target=SIZES,
    fit=st.sampled_from(["stretch", "crop", "pad"]),
)
def test_draft_leaves_twice_the_target(source, target, fit):
    spec = ImageSpec(*target, fit=fit)
    scale = draft_scale(source[1], source[0], spec)
    assert scale in (1, 2, 4, 8)
    if scale > 1 and fit == "stretch":
        assert source[0] >= 2 * target[0] * scale
        assert source[1] >= 2 * target[1] * scale
    assert draft_scale(source[1], source[0], ImageSpec(*target, fit=fit, draft=False)) == 1


def test_draft_stays_close_to_the_full_decode():
    data = encode(picture(4, 512, 640) // 2 + 64, "JPEG", quality=90)
    fast, slow = ok(data, ImageSpec()), ok(data, ImageSpec(draft=False))
    assert np.abs(fast.pixels.astype(int) - slow.pixels).mean() < 1.0
    assert not fast.full
    assert not slow.full
    assert (fast.width, fast.height) == (640, 512)


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_draft_keeps_the_picture_in_its_place(orientation, fit):
    # 203 and 251 are no multiples of 4: the last row and column of the reduced decode cover a part of a pixel.
    data = encode(picture(4, 203, 251) // 2 + 64, "JPEG", quality=95, subsampling=0, exif=exif(orientation))
    spec = ImageSpec(24, 20, fit=fit, filter="bilinear")
    slow = ok(data, ImageSpec(24, 20, fit=fit, filter="bilinear", draft=False)).pixels
    gap = np.abs(ok(data, spec).pixels.astype(int) - slow)
    assert draft_scale(203, 251, spec) == 4
    assert gap.mean() < 0.6
    assert gap.max() <= 4


def test_native_fit_refuses_other_sizes():
    standard = standardise(encode(RGB), ImageSpec(48, 40, fit="native"))
    assert standard.status == "size-mismatch"
    assert (standard.height, standard.width) == (40, 48)
    assert standard.pixels is None
    assert len(standard.file_digest) == 16


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body)) + b"\x00" * 40


def jpeg_claiming(width: int, height: int) -> bytes:
    data = bytearray(encode(RGB, "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


JPEG = encode(picture(7, 200, 200), "JPEG", quality=90)
PROGRESSIVE = encode(picture(7, 200, 200), "JPEG", progressive=True)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"", "empty"),
        (b"<html>404</html>", "not-an-image"),
        (b"\x00" * 5000, "not-an-image"),
        (JPEG[:4], "truncated"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (JPEG[:-20], "truncated"),
        (PROGRESSIVE[: len(PROGRESSIVE) // 2], "truncated"),
        (PROGRESSIVE[:-2], "truncated"),
        (JPEG[:-2], "ok"),
        (JPEG + b"garbage" * 50, "ok"),
        (encode(RGB)[: len(encode(RGB)) // 2], "truncated"),
        (encode(RGB, "BMP")[:500], "truncated"),
        (png_header(60000, 60000), "too-large"),
        (png_header(0, 60), "zero-area"),
        (jpeg_claiming(65500, 65500), "too-large"),
        (jpeg_claiming(0, 48), "zero-area"),
        (b"\x00\x00\x00\x18ftypheic" + b"\x00" * 90, "unsupported"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "unsupported"),
        (np.zeros((4, 4, 7), np.uint8), "unsupported"),
        (np.zeros((4, 4), complex), "unsupported"),
        (np.zeros((0, 4), np.uint8), "zero-area"),
        (np.array(5, np.uint8), "unsupported"),
        (np.full((9, 9), 7, np.uint8), "flat"),
        (encode(np.full((9, 9, 3), 7, np.uint8)), "flat"),
        (Failure("timeout", "slow"), "timeout"),
    ],
)
def test_statuses(raw, status):
    standard = standardise(raw, ImageSpec())
    assert standard.status == status, standard.reason
    assert standard.status in STATUSES
    assert (standard.pixels is not None) == (status in ("ok", "flat"))
    assert (standard.digest != b"") == (standard.pixels is not None)
    assert bool(standard.reason) == (status != "ok")
    assert (full_digest(raw) is None) == (standard.pixels is None)


def test_damage_inside_a_jpeg_is_seen():
    at = JPEG.index(b"\xff\xda") + 400
    damaged = JPEG[:at] + b"\xff\xd9" + JPEG[at:]
    assert standardise(damaged, ImageSpec()).status in ("corrupt", "truncated")


def test_too_many_bytes_and_pixels():
    data = encode(RGB)
    assert standardise(data, ImageSpec(max_bytes=len(data) - 1)).status == "too-large"
    assert standardise(data, ImageSpec(max_pixels=40 * 48 - 1, height=8, width=8)).status == "too-large"
    assert standardise(RGB, ImageSpec(max_pixels=40 * 48 - 1, height=8, width=8)).status == "too-large"
    assert standardise(data, ImageSpec(max_pixels=40 * 48)).status == "ok"


def test_pillow_is_left_as_it_was():
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        assert standardise(encode(RGB)[:900], ImageSpec()).status == "truncated"
        assert ImageFile.LOAD_TRUNCATED_IMAGES is True
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before[1]
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"]),
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8),
    keep=st.floats(0, 1),
)
def test_no_damage_raises(kind, edits, keep):
    data = bytearray(encode(RGB, kind))
    for where, value in edits:
        data[int(where * (len(data) - 1))] = value
    standard = standardise(bytes(data[: int(keep * len(data))]), ImageSpec(max_pixels=10_000_000))
    assert standard.status in STATUSES


@pytest.mark.parametrize("error", [MemoryError(), RecursionError("deep"), SyntaxError("x"), struct.error("y")])
def test_any_exception_of_a_decoder_is_a_status(monkeypatch, error):
    def fail(*args):
        raise error

    monkeypatch.setattr("daskim.lake.decode.open_image", fail)
    assert standardise(encode(RGB), ImageSpec()).status in ("corrupt", "too-large")


@settings(max_examples=60, deadline=None)
@given(spread=st.floats(0, 6), seed=st.integers(0, 999), channels=st.sampled_from([1, 3]), side=st.integers(1, 40))
def test_flatness_is_the_standard_deviation(spread, seed, channels, side):
    rng = np.random.default_rng(seed)
    pixels = np.clip(np.rint(rng.normal(100, spread, (side, side, channels))), 0, 255).astype(np.uint8)
    expected = pixels.reshape(-1, channels).std(axis=0).max() < 1.0
    spec = ImageSpec(side, side, mode="L" if channels == 1 else "RGB")
    assert (standardise(pixels, spec).status == "flat") == expected


@pytest.mark.parametrize(
    "bad",
    [{"mode": "CMYK"}, {"filter": "box"}, {"fit": "stretched"}, {"width": 0}, {"flat_std": -1.0}, {"max_pixels": 9}],
)
def test_bad_specs(bad):
    with pytest.raises(SettingsError):
        ImageSpec(**bad)


def test_versions_name_the_decoders():
    versions = decoder_versions()
    assert {"pillow", "simplejpeg"} <= set(versions)
    assert all(isinstance(value, str) and value for value in versions.values())
