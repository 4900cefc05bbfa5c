"""Settings as they are given: in a job file, by `--set`, by flags; with where each value came from.

A setting is `stage.key`. Flags of the command line win over `--set`, `--set` over the job file (TOML), the job file
over the defaults of `daskim.settings`. An unknown key is refused with the nearest known ones.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from daskim.errors import SettingsError, nearest
from daskim.settings import Section, Settings

__all__ = [
    "PLUGINS",
    "foreign_code",
    "from_toml",
    "job_file",
    "known_keys",
    "parse_assignment",
    "refuse_code",
    "resolve",
    "to_toml",
]

# Settings whose value may be a plug-in of somebody else, as module.Class.
PLUGINS = ("wavelets.transform", "clusters.verify", "similarities.name")


def known_keys() -> dict[str, str]:
    """Every `stage.key` and what it means."""
    keys: dict[str, str] = {}
    for name, field in Settings.model_fields.items():
        model = field.annotation
        if isinstance(model, type) and issubclass(model, Section):
            for key, inner in model.model_fields.items():
                keys[f"{name}.{key}"] = inner.description or ""
        else:
            keys[name] = field.description or ""
    return keys


def parse_assignment(text: str) -> tuple[str, Any]:
    """`stage.key=value` with the value as TOML, or as plain text where it is no TOML."""
    key, sign, value = text.partition("=")
    key, value = key.strip(), value.strip()
    if not sign or not key:
        raise SettingsError(f"--set {text!r} is no assignment", "Write --set stage.key=value, such as columns.tau=1e4.")
    try:
        return key, tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        return key, value


def foreign_code(values: Mapping[str, Any]) -> set[str]:
    """The plug-ins that these `stage.key` values name and that do not come with daskim: to load one runs its code."""
    named = (values.get(key) for key in PLUGINS)
    return {name for name in named if isinstance(name, str) and "." in name}


def refuse_code(values: Mapping[str, Any], origin: str, trusted: Collection[str]) -> None:
    """End where values that came from a file name code.

    Parameters
    ----------
    trusted : collection of str
        Plug-ins that the user has named as well, not in a file.

    Raises
    ------
    SettingsError
        A plug-in is named only in the file.
    """
    for key in PLUGINS:
        name = values.get(key)
        if name in foreign_code({key: name}) and name not in trusted:
            raise SettingsError(
                f"{origin}: {key} = {name!r} would run code, and files are data",
                f"If you trust it, name it on the command line too: --set {key}={name}",
            )


def job_file(path: str, trusted: Collection[str] = ()) -> dict[str, Any]:
    """The settings of a job file as `stage.key` values.

    A plain name that is no file here (`demo`, `cifar10.toml`) is looked up among the job files that come with daskim.

    Parameters
    ----------
    trusted : collection of str
        Plug-ins that the file may name: see `refuse_code`.
    """
    file = Path(path)
    if not file.is_file():
        file = _shipped(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"job file {path}: cannot be read ({error})", "Give a TOML file with --job.") from None
    values = _values(text, f"job file {path}")
    refuse_code(values, f"job file {path}", trusted)
    return values


def from_toml(text: str, origin: str) -> Settings:
    """The settings that `to_toml` wrote; `origin` names the text in errors.

    They may name plug-ins, of which nobody has said yet that they may run: see `refuse_code`.
    """
    return resolve([(origin, _values(text, origin))])


def _values(text: str, origin: str) -> dict[str, Any]:
    """`stage.key` values of a TOML text."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{origin}: {error}", "It must be TOML: [stage] headings and key = value.") from None
    flat: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, dict):
            flat.update({f"{name}.{key}": inner for key, inner in value.items()})
        else:
            flat[name] = value
    return flat


def _shipped(name: str) -> Path:
    """A job file that ships with daskim: inside the wheel, or beside the package in a checkout."""
    here = Path(__file__).parent
    folders = [here / "jobs" / "files", here.parent / "jobs"]
    plain = name if name.endswith(".toml") else f"{name}.toml"
    for folder in folders:
        if (folder / plain).is_file() and Path(plain).name == plain:
            return folder / plain
    shipped = sorted({file.stem for folder in folders for file in folder.glob("*.toml")})
    raise SettingsError(f"job file {name}: no such file", f"Job files that come with daskim: {', '.join(shipped)}.")


def resolve(layers: Iterable[tuple[str, Mapping[str, Any]]]) -> Settings:
    """One checked `Settings` from layers of `stage.key` values, later layers winning.

    Parameters
    ----------
    layers : iterable of (origin, values)
        `origin` names the layer in errors: "job file x.toml", "--set", "command line".

    Raises
    ------
    SettingsError
        For an unknown key (with the nearest known ones) or a value that does not fit (with what would).
    """
    known = known_keys()
    nested: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for where, values in layers:
        for key, value in values.items():
            if key not in known:
                raise SettingsError(f"{where}: unknown setting {key}", nearest(key, known))
            origin[key] = where
            stage, _, name = key.partition(".")
            if name:
                nested.setdefault(stage, {})[name] = value
            else:
                nested[stage] = value
    try:
        return Settings.model_validate(nested)
    except ValidationError as error:
        first = error.errors()[0]
        parts = [str(part) for part in first["loc"]]
        key = next((".".join(parts[:k]) for k in (2, 1) if ".".join(parts[:k]) in known), ".".join(parts))
        message = first["msg"].removeprefix("Value error, ")
        raise SettingsError(
            f"{origin.get(key, 'settings')}: {key} = {first['input']!r} does not fit: {message}", f"{key}: {known[key]}"
        ) from None


def to_toml(settings: Settings) -> str:
    """The settings as a job file; keys that are unset are written as comments."""
    lines = [f"method = {_literal(settings.method)}"]
    for name in Settings.model_fields:
        section = getattr(settings, name)
        if not isinstance(section, Section):
            continue
        lines += ["", f"[{name}]"]
        for key in type(section).model_fields:
            value = getattr(section, key)
            lines.append(f"# {key} is not set" if value is None else f"{key} = {_literal(value)}")
    return "\n".join(lines) + "\n"


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    if isinstance(value, str):
        escaped = "".join(
            f"\\u{ord(c):04X}" if ord(c) < 32 or ord(c) == 127 else f"\\{c}" if c in '"\\' else c for c in value
        )
        return f'"{escaped}"'
    return repr(value)
