"""Presets: everything that a training needs, one TOML file each, named by data and size.

A file has the sections `data`, `tokenizer`, `tokenizer_training`, `transformer`,
`transformer_training` and `sampling`; what it leaves out has the default of its dataclass. Single
settings are changed with `key=value` texts, `with_settings`.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from maskgit_core.config import (
    SamplingConfig,
    TokenizerConfig,
    TransformerConfig,
    check_settings,
    from_dict,
    setting,
    to_dict,
)
from maskgit_core.training.settings import OLD_NAMES, TokenizerTrainConfig, TransformerTrainConfig

FOLDER = Path(__file__).parent
FROM_DATA = ("codebook_size", "num_classes", "grid_size")


@dataclass(frozen=True)
class DataConfig:
    """The data that a preset is meant for."""

    num_images: int = setting(1, "training photos", low=1)
    num_classes: int = setting(1, "classes", low=1)
    crops: int = setting(
        1, "crops of a photo whose tokens are kept, each with its mirror image", low=1, high=5
    )

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class Preset:
    """Settings of a whole training.

    Attributes:
        name: the file's.
        summary: one line.
        data: what it is meant for.
        tokenizer: shape; of no meaning where `published_tokenizer` is given.
        published_tokenizer: name of published weights whose tokenizer is kept, or "".
        tokenizer_training, transformer, transformer_training, sampling: see their dataclasses;
            codes, classes and grid of `transformer` follow from tokenizer and data.
    """

    name: str
    summary: str = ""
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    published_tokenizer: str = ""
    tokenizer_training: TokenizerTrainConfig = field(default_factory=TokenizerTrainConfig)
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    transformer_training: TransformerTrainConfig = field(default_factory=TransformerTrainConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)


SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "tokenizer": TokenizerConfig,
    "tokenizer_training": TokenizerTrainConfig,
    "transformer": TransformerConfig,
    "transformer_training": TransformerTrainConfig,
    "sampling": SamplingConfig,
}


def preset_names() -> list[str]:
    """Return the names of all presets, in alphabetical order."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_preset(name: str, settings: Sequence[str] = ()) -> Preset:
    """Read a preset and change single settings of it.

    Raises:
        ValueError: an unknown name (the nearest is given), or as `with_settings`.
    """
    names = preset_names()
    if name not in names:
        raise ValueError(
            f"preset must be one of {', '.join(names)}; got {name!r}{_nearest(name, names)}"
        )
    values = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    preset = parse_preset(name, values)
    sections = {section: getattr(preset, section) for section in SECTIONS}
    return replace(preset, **with_settings(sections, settings))


def parse_preset(name: str, values: Mapping[str, Any]) -> Preset:
    """Return the preset that the content of a file describes.

    Raises:
        ValueError: an unknown section or setting (the nearest is given), a value out of range.
    """
    values = dict(values)
    summary = str(values.pop("summary", ""))
    tokenizer = dict(values.get("tokenizer", {}))
    published = str(tokenizer.pop("published", ""))
    if "tokenizer" in values:
        values["tokenizer"] = tokenizer
    parts: dict[str, Any] = {}
    for section, settings in values.items():
        _check_section(section, list(SECTIONS))
        for key in settings:
            _check_settable(section, key)
        parts[section] = from_dict(SECTIONS[section], settings)
    return Preset(name, summary, published_tokenizer=published, **parts)


def with_settings(sections: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Return configurations with single settings changed.

    Args:
        sections: configuration of each section that may be changed.
        settings: texts `key=value` or `section.key=value`. A value is written as in TOML; words
            need no quotes. A key alone must belong to one of the sections only.

    Raises:
        ValueError: another form, an unknown section or key (the nearest is given), a key of
            several sections, or a value out of range.
    """
    changes: dict[str, dict[str, Any]] = {}
    for text in settings:
        path, separator, value = text.partition("=")
        if not separator or not path.strip():
            raise ValueError(f"set must have the form key=value; got {text!r}")
        section, key = _place(path.strip(), sections)
        changes.setdefault(section, {})[key] = _parsed(value.strip())
    return {
        section: from_dict(type(config), to_dict(config) | changes.get(section, {}))
        for section, config in sections.items()
    }


def names_setting(settings: Sequence[str], key: str) -> bool:
    """Whether one of the texts of `with_settings` changes a key, of whatever section."""
    paths = [text.partition("=")[0].strip() for text in settings]
    return any(path.rpartition(".")[2] == key for path in paths)


def _place(path: str, sections: Mapping[str, Any]) -> tuple[str, str]:
    """Return (section, key) of what stands before the equals sign."""
    section, dot, key = path.rpartition(".")
    key = OLD_NAMES.get(key, key)
    if dot:
        _check_section(section, list(sections))
        _check_settable(section, key)
        known = _keys(section, sections[section])
        if key not in known:
            raise ValueError(f"unknown setting {path!r}{_nearest(key, known)}")
        return section, key
    found = [name for name, config in sections.items() if key in _keys(name, config)]
    if len(found) == 1:
        return found[0], key
    if found:
        full = " or ".join(f"{name}.{key}" for name in found)
        raise ValueError(f"set {key!r} is a setting of several sections; write {full}")
    known = [name for section, config in sections.items() for name in _keys(section, config)]
    raise ValueError(f"unknown setting {key!r}{_nearest(key, known)}")


def _keys(section: str, config: Any) -> list[str]:
    hidden = FROM_DATA if section == "transformer" else ()
    return [each.name for each in fields(config) if each.name not in hidden]


def _parsed(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _check_section(section: str, known: list[str]) -> None:
    if section not in known:
        near = _nearest(section, known) or f"; known are {', '.join(known)}"
        raise ValueError(f"unknown section {section!r}{near}")


def _check_settable(section: str, key: str) -> None:
    if section == "transformer" and key in FROM_DATA:
        raise ValueError(f"{key!r} cannot be set in {section}: it follows from tokenizer and data")
    owners = [name for name, kind in SECTIONS.items() if key in _keys(name, kind)]
    if owners and section not in owners:
        raise ValueError(
            f"{key!r} cannot be set in {section}: it is a setting of {' and '.join(owners)}"
        )


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
