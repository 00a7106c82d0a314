"""The model menu in words: what for, how quick here, what is in the way; and its table."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest

import model_folders
from demo.serving import catalogue
from demo.serving.catalogue import Lookout, ModelEntry, Outlook, headline, menu_entries
from demo.tabs.model_choice import FETCHES, choice_value, chosen_name
from maskgit_core.weights import hub
from maskgit_core.weights.imagenet import imagenet_classes
from maskgit_core.weights.known import KNOWN_WEIGHTS
from maskgit_core.weights.published import NOT_VERIFIED, size_words

PUBLISHED = Path(__file__).parents[1] / "README.md"
ONLINE, OFFLINE = Outlook(reachable=True, speed=1e11), Outlook(reachable=False, speed=1e11)
TINY = KNOWN_WEIGHTS["imagenet-256-tiny"]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    """Nothing is on this machine, which has room for all of it."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 10**12))
    monkeypatch.setattr(catalogue, "_memory", lambda: 64 * 10**9)


def entry_of(name: str) -> ModelEntry:
    return ModelEntry(name, name, KNOWN_WEIGHTS[name])


def test_the_built_in_model_comes_first_then_the_known_ones(tiny_checkpoint, tmp_path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    entries = menu_entries(str(tiny_checkpoint), ("own", str(own)))
    assert [entry.name for entry in entries] == [tiny_checkpoint.name, "own", *KNOWN_WEIGHTS]
    assert entries[0].title == f"{tiny_checkpoint.name} (built in)"
    assert entries[0].facts() == "3 classes. 16 pixels. On this machine"
    assert entries[1].facts() == ""
    again = menu_entries(str(tiny_checkpoint), ("google-256", "google-256"))
    assert len(again) == len(entries) - 1


def test_an_entry_says_what_it_is_good_for_and_what_it_costs_here() -> None:
    assert entry_of("imagenet-256-small").facts(ONLINE) == (
        "Better pictures than tiny, at three times the work. 256 pixels. "
        "About 30 s a picture here. 1.1 GB to download"
    )
    assert entry_of("imagenet-256-tiny").facts().endswith("564 MB to download (not verified)")
    converted = hub.converted_folder(TINY)
    converted.mkdir(parents=True)
    (converted / "config.json").write_text("{}")
    entry = entry_of("imagenet-256-tiny")
    assert entry.facts().endswith("On this machine") and not entry.download
    assert not entry.obstacle(OFFLINE)


@pytest.mark.parametrize("name", list(KNOWN_WEIGHTS))
def test_no_entry_shows_a_visitor_what_only_owners_read(name) -> None:
    known = KNOWN_WEIGHTS[name]
    for outlook in (Outlook(), ONLINE, OFFLINE):
        entry = entry_of(name)
        said = f"{entry.title} {entry.facts(outlook)} {entry.obstacle(outlook)}"
        assert not re.search(r"\.(pth|pt|ckpt|bin)|[0-9a-f]{12}|_|/", said)
        assert known.good_for in said.lower() or known.good_for.lower() in said.lower()
    assert len(known.title) <= 30 and known.good_for[0].islower()


def test_what_is_in_the_way_is_said(monkeypatch) -> None:
    entry = entry_of("imagenet-384-large")
    assert entry.obstacle(ONLINE) == ""
    assert entry.obstacle(OFFLINE) == "No internet here."
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 10**9))
    assert entry.obstacle(ONLINE) == "It needs 4.4 GB on the disk, 1.0 GB are free."
    monkeypatch.setattr(catalogue, "_memory", lambda: 10**9)
    assert entry.obstacle(ONLINE) == "It needs 4.4 GB of memory."


def test_files_brought_by_hand_need_no_internet() -> None:
    entry = entry_of("google-256")
    assert entry.obstacle(OFFLINE)
    folder = Path(huggingface_hub.constants.HF_HOME) / "maskgit" / "google-256"
    folder.mkdir(parents=True)
    for file in KNOWN_WEIGHTS["google-256"].files:
        (folder / file.name).write_bytes(b"")
    assert not entry.obstacle(OFFLINE)


def test_the_headline_without_internet(tiny_checkpoint) -> None:
    entries = menu_entries(str(tiny_checkpoint), (tiny_checkpoint.name, str(tiny_checkpoint)))
    assert headline(entries, OFFLINE) == "No internet here, so only the built-in model works."
    assert headline(entries, ONLINE) == headline(entries, Outlook()) == ""
    mine = menu_entries(str(tiny_checkpoint), ("own", "own"))
    assert headline(mine, OFFLINE).endswith("only the models that are on this machine work.")


def test_the_network_is_asked_once_a_minute_and_the_processor_once(monkeypatch) -> None:
    asked: list[str] = []
    lookout = Lookout(reach=lambda: asked.append("network") is None)
    for _ in range(3):
        lookout.reach()
        lookout.measure(lambda: 5.0, lambda work: asked.append("turn") or work())
    assert asked == ["network", "turn"]
    assert lookout.outlook == Outlook(reachable=True, speed=5.0)
    monkeypatch.setattr(catalogue, "LOOK_SECONDS", -1.0)
    lookout.reach()
    assert asked == ["network", "turn", "network"]


def test_the_measured_speed_is_that_of_a_product() -> None:
    assert 1e8 < catalogue.measured_speed("cpu") < 1e15


def test_a_picture_takes_as_long_as_its_work() -> None:
    base, tiny = KNOWN_WEIGHTS["imagenet-256-base"], TINY
    slow, quick = (catalogue.picture_seconds(known, 1e11) for known in (base, tiny))
    assert 4 < slow / quick < 6  # 142 and 23 million parameters, and the same decoder
    assert catalogue.picture_seconds(tiny, 2e11) == quick / 2
    words = [catalogue.time_words(seconds) for seconds in (0.2, 1.4, 17, 61, 100, 3000)]
    assert words == [
        "less than a second",
        "about 1 s",
        "about 20 s",
        "about 60 s",
        "about 2 min",
        "about 50 min",
    ]


def test_the_menu_greys_what_cannot_work_but_never_the_model_in_use(tmp_path) -> None:
    holder = model_folders.holder(tmp_path)
    holder.entries = (*holder.entries, entry_of("imagenet-256-tiny"))
    holder.lookout.outlook = OFFLINE
    value = choice_value(holder, "animals")
    obstacles = {entry["name"]: entry["obstacle"] for entry in value["entries"]}
    assert obstacles == {
        **dict.fromkeys(obstacles, ""),
        "imagenet-256-tiny": "No internet here.",
    }
    assert chosen_name(value) == "animals"
    for odd in (None, 3, [], {}, {"chosen": 3}, {"chosen": ["x"]}):
        assert chosen_name(odd) == ""


def test_only_who_knows_the_number_of_a_fetch_cancels_it() -> None:
    number, progress = FETCHES.begin()
    for odd in (None, "x", 0, number + 1, [number]):
        FETCHES.cancel(odd)
    assert not progress.cancelled
    FETCHES.cancel(number)
    assert progress.cancelled
    FETCHES.end(number)
    FETCHES.cancel(number)


# The table itself.


@pytest.mark.parametrize("name", list(KNOWN_WEIGHTS))
def test_an_entry_has_a_hash_or_says_that_it_has_none(name) -> None:
    known = KNOWN_WEIGHTS[name]
    assert known.name == name and str(known.image_size) in f"{name} 256"
    for file in known.files:
        assert file.sha256 == NOT_VERIFIED or re.fullmatch(r"[0-9a-f]{64}", file.sha256 or "")
        assert file.size > 10_000_000
        assert bool(file.repo) != bool(file.url)
        assert re.fullmatch(r"([0-9a-f]{7,40})?", file.commit)
    assert bool(known.source) == (not known.repo)
    assert known.download_bytes > 0.9 * known.disk_bytes


def test_every_entry_is_kept_under_a_name_of_its_own() -> None:
    assert len({known.key for known in KNOWN_WEIGHTS.values()}) == len(KNOWN_WEIGHTS)
    assert len({known.title for known in KNOWN_WEIGHTS.values()}) == len(KNOWN_WEIGHTS)
    assert hub.unknown_name("google").startswith("there are no weights named 'google'")


def test_sizes_are_those_of_what_travels() -> None:
    sizes = {name: size_words(known.download_bytes) for name, known in KNOWN_WEIGHTS.items()}
    assert sizes["imagenet-256-tiny"] == "564 MB"
    assert sizes["imagenet-256-small"] == "1.1 GB"
    assert sizes["imagenet-256-base"] == "2.0 GB"
    assert sizes["imagenet-384-large"] == "2.2 GB"
    assert sizes["maskgit-v1-512"] == "3.1 GB"


def test_the_published_table_is_the_one_in_the_code() -> None:
    table = PUBLISHED.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| (.+) \|$", table, flags=re.MULTILINE)
    assert dict(rows) == {
        name: " | ".join(
            (
                size_words(known.download_bytes) + ("" if known.verified else ", not verified"),
                size_words(known.disk_bytes),
                f"{known.fid:g}",
                known.licence,
            )
        )
        for name, known in KNOWN_WEIGHTS.items()
    }


def test_class_840_is_a_mop() -> None:
    assert imagenet_classes()[840] == "mop"
