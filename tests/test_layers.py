"""Imports run down, never up and never sideways between stages; each heavy library has one door."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import daskim

ROOT = Path(daskim.__file__).parent
MODULES = sorted(path for path in ROOT.rglob("*.py") if "files" not in path.parts)

# What each part of daskim may import of daskim; a part is the first word after `daskim.`.
GROUND = {"errors", "statuses", "release"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "statuses": set(),
    "release": set(),
    "kernels": GROUND,
    "transforms": GROUND | {"kernels"},
    "similarities": GROUND | {"kernels"},
    "synthetic": GROUND,
    "retry": set(),
    "remote": GROUND,
    "zarrstore": GROUND | {"retry", "remote"},
    "npy": set(),
    "equals": set(),
    "lake": GROUND | {"npy", "retry", "remote"},
    "settings": GROUND,
    "resolve": GROUND | {"settings"},
    "plugins": GROUND | {"settings", "similarities", "transforms"},
    "reading": GROUND | {"lake", "settings"},
    "files": GROUND | {"retry", "remote"},
    "store": GROUND | {"files", "npy", "remote", "zarrstore"},
    "gates": GROUND,
    "blocks": GROUND | {"store"},
    "kept": GROUND | {"blocks", "store"},
    "compute": GROUND,
    "engine": GROUND | {"compute", "store"},
    "lloyd": GROUND | {"compute"},
    "stages": GROUND | {"kernels", "similarities", "transforms", "lake", "settings", "plugins", "store", "kept"},
}
ALLOWED["stages"] |= {"lloyd", "compute", "engine", "reading", "renewal"}
ALLOWED["renewal"] = GROUND | {"engine", "kept", "store"}
ALLOWED["against"] = GROUND | {"kept", "plugins", "resolve", "settings", "store"}
ALLOWED["delivery"] = GROUND | {"kept", "reading", "stages", "store"}
ALLOWED["summary"] = GROUND | {"stages", ""}
ALLOWED["seals"] = GROUND | {"stages"}
ALLOWED["pipeline"] = ALLOWED["stages"] | {"stages", "resolve", "seals", "summary", "against", "delivery", ""}
ALLOWED["cost"] = GROUND | {"kernels", "scatter", "settings", "stages"}
ALLOWED["scatter"] = GROUND | {"engine", "kept", "store"}
ALLOWED["stages"] |= {"scatter", "equals"}
ALLOWED["lease"] = GROUND | {"store"}
ALLOWED["probe"] = GROUND | {"compute", "lake", "remote", "store"}
ALLOWED["results"] = GROUND | {"kernels", "lake", "resolve", "settings", "store", "kept"}
ALLOWED["api"] = ALLOWED["pipeline"] | {"lease"} | {"pipeline", "probe", "results"}
ALLOWED[""] = {"api", "results"}  # daskim/__init__.py, on first use
ALLOWED["jobs"] = ALLOWED["api"] | {"api", "synthetic"}
ALLOWED["jobs"] |= {"gates", "outcome"}
ALLOWED["outcome"] = GROUND
ALLOWED["models"] = GROUND
ALLOWED["boundaries"] = ALLOWED["results"] | {"models", "plugins", "results", "similarities", "reading"}
ALLOWED["difference"] = GROUND | {"kernels", "results"}
ALLOWED["apply"] = GROUND | {"lake", "reading", "results", "store"}
ALLOWED["report"] = ALLOWED["results"] | {"results", ""}
ALLOWED["jobs"] |= {"apply", "cost"}
ALLOWED["jobs"] |= {"report"}
ALLOWED["api"] |= {"report", "remote"}
ALLOWED["jobs"] |= {"remote"}
ALLOWED["jobs"] |= {"models", "boundaries", "difference"}

# Library: the parts of daskim that may import it (a path from the package; a folder stands for all below).
DOORS: dict[str, tuple[str, ...]] = {
    "zarr": ("store.py", "zarrstore.py", "lake"),
    "pyarrow.parquet": ("store.py", "lake", "apply/shards.py", "synthetic/lake.py"),
    "fsspec": ("files.py", "zarrstore.py", "lake"),
    "dask.array": ("engine.py", "lloyd.py", "stages", "compute"),
    "dask": ("engine.py", "lloyd.py", "stages", "compute"),
    "distributed": ("compute",),
    "kr8s": ("compute/k8s",),
    "httpx": ("compute/k8s",),
    "yaml": ("compute/k8s",),
    "dask_kubernetes": ("compute/k8s",),
    "dask_jobqueue": ("compute/slurm.py",),
    "cryptography": ("compute/tls.py",),
    "PIL": ("lake", "synthetic"),
    "simplejpeg": ("lake", "synthetic"),
    "dask_ml": ("lloyd.py",),
    "numba": ("kernels/compiled",),
    "datasketch": ("kernels/lsh",),
    "onnxruntime": ("models/onnx.py",),
    "pywt": ("transforms",),
    "cyclopts": ("jobs",),
    "rich": ("jobs",),
    "pydantic": ("settings.py", "resolve.py"),
    "matplotlib": ("report/figures",),
    "networkx": ("report/figures",),
    "jinja2": ("report/page.py",),
    "markupsafe": ("report/page.py",),
}


def imports(path: Path) -> set[str]:
    """Full names of all modules and names that a file imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the layers"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def part(path: Path) -> str:
    """The part of daskim that a file belongs to; "" for the package itself."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py").removeprefix("__init__")


def inside(name: str, library: str) -> bool:
    return name == library or name.startswith(library + ".")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_run_down(path: Path) -> None:
    own = part(path)
    assert own in ALLOWED, f"{path}: a part of daskim that the layers do not name"
    for name in imports(path):
        if not inside(name, "daskim"):
            continue
        words = name.split(".")
        # `from daskim import api` and `from daskim.api import x` both name the part second
        other = words[1] if (ROOT / words[1]).exists() or (ROOT / f"{words[1]}.py").exists() else ""
        assert other == own or other in ALLOWED[own], f"{name_of(path)} imports {name}"


@pytest.mark.parametrize("path", [p for p in MODULES if part(p) == "stages"], ids=name_of)
def test_stages_do_not_know_one_another(path: Path) -> None:
    own = path.relative_to(ROOT / "stages").parts[0].removesuffix(".py")
    others = {entry.stem for entry in (ROOT / "stages").iterdir() if entry.stem not in ("__init__", "__pycache__", own)}
    for name in imports(path):
        if inside(name, "daskim.stages"):
            assert [*name.split("."), ""][2] not in others, f"{name_of(path)} imports {name}"


@pytest.mark.parametrize("library", DOORS)
def test_each_library_has_its_doors(library: str) -> None:
    doors = [ROOT / door for door in DOORS[library]]
    users = [path for path in MODULES if any(inside(name, library) for name in imports(path))]
    assert users, f"nothing imports {library}: is the door still there?"
    for path in users:
        assert any(path == door or door in path.parents for door in doors), f"{name_of(path)} imports {library}"


QUICK = [
    ["-c", "import daskim"],
    *(
        ["-m", f"daskim.jobs.{job}", "--help"]
        for job in ("reduce", "compare", "report", "boundaries", "diff", "apply", "lake")
    ),
]


@pytest.mark.parametrize("words", QUICK, ids=" ".join)
def test_nothing_heavy_is_imported_before_it_is_needed(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-X", "importtime", *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "daskim" in modules
    heavy = ("dask", "distributed", "zarr", "pandas", "numpy", "scipy", "pyarrow", "sklearn", "PIL", "fsspec")
    heavy += ("pydantic", "numba") if "daskim.jobs.reduce" in words or "daskim.jobs.compare" in words else ("numba",)
    assert not [name for name in modules if name.split(".")[0] in heavy]


def test_a_run_starts_without_what_its_first_stages_do_without() -> None:
    """Half of the time to the first block would go into these imports."""
    late = ("dask.array", "distributed", "dask_ml", "sklearn", "sparse", "numba", "scipy.stats", "scipy.special")
    late += ("datasketch", "skimage", "pywt", "matplotlib", "networkx")
    code = f"import sys, daskim.api, daskim.compute.threads; print([name for name in {late} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr or done.stdout
