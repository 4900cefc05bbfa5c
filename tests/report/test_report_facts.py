"""Facts and sentences of finished runs whose findings are planted."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted_runs import LABELS, folder_name

import daskim
from daskim.report.facts import facts_of
from daskim.report.words import command, share, shell_word, shortened, visible

Runs = dict[str, daskim.FinishedRun]


def test_facts_count_what_was_planted(report_runs: Runs) -> None:
    wavelet, similarity = (facts_of(report_runs[name]) for name in ("wavelet", "similarity"))
    for facts in (wavelet, similarity):
        assert (facts.images, facts.broken, facts.flat, facts.exact) == (49, 1, 1, 5)
        assert facts.kept + facts.redundant + facts.broken == facts.images
        assert facts.leaked is None
        assert facts.cross is None
        assert sum(images for _, images, _ in facts.by_class) == 49
        assert sum(gone for _, _, gone in facts.by_class) == facts.redundant
        assert {label for label, _, _ in facts.by_class} == set(map(folder_name, LABELS))
    assert (similarity.redundant, similarity.influential, similarity.influential_groups) == (7, 4, 2)
    assert wavelet.anomalous is None
    # every pair was compared: the only picture that nothing is alike to is the flat one's opposite, or none
    best = report_runs["similarity"].anomalies["similarity"]
    assert similarity.anomalous == int((best < 0.2).sum())


def test_worst_class_comes_first(report_runs: Runs) -> None:
    shares = [gone / images for _, images, gone in facts_of(report_runs["similarity"]).by_class]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0


def test_sentences_hold_the_numbers_and_no_hidden_character(report_runs: Runs) -> None:
    facts = facts_of(report_runs["similarity"])
    assert facts.verdict.startswith("7 of 49 images (14 %) are redundant")
    assert "4 images in 2 groups look alike but carry different labels" in facts.verdict
    assert facts.loses.startswith("A training set would lose 7 images of 49 (14 %), most in ")
    for text in (facts.title, facts.verdict, facts.loses):
        assert visible(text) == text


def test_a_comparison_tells_of_leaks(report_runs: Runs) -> None:
    facts = facts_of(report_runs["compare"])
    assert facts.method == "compare"
    assert facts.leaked == 2
    assert facts.verdict.startswith("2 of 3 test images (67 %) have a twin in train: 1 exact, 1 near.")
    assert "1 of them carries another label there" in facts.verdict
    assert facts.loses.startswith("Nothing")
    assert facts.cross is not None
    assert sum(entry["images"] for entry in facts.cross) == 2
    assert "--fail-on 'leakage>0'" in facts.next[0][1]


def test_settings_are_those_that_differ(report_runs: Runs) -> None:
    keys = dict(facts_of(report_runs["similarity"]).settings)
    assert keys["method"] == "similarity"
    assert keys["images.size"] == "16x16"
    assert "images.mode" not in keys
    assert "columns.tau" not in keys


def test_next_commands_name_the_run_and_read_back(report_runs: Runs) -> None:
    for run in report_runs.values():
        for purpose, text in facts_of(run).next:
            words = shlex.split(text)
            assert words[:2] == ["python", "-m"]
            assert words[2].startswith("daskim.jobs.")
            assert purpose.endswith(".")
            assert run.run in words or words[2] == "daskim.jobs.compare"


def test_images_of_a_test_split_that_would_go_are_named(report_runs: Runs) -> None:
    facts = facts_of(report_runs["similarity"])
    plan = report_runs["similarity"].plan
    gone = int(((plan["split"] == "test") & (plan["decision"] == "drop")).sum())
    assert (f"{gone:,} of split test" in facts.loses) == bool(gone)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_a_shell_reads_quoted_words_back(text: str) -> None:
    quoted = shell_word(text)
    assert visible(quoted) == quoted
    if not quoted.startswith("$'"):
        assert shlex.split(quoted) == [("./" if text.startswith("-") else "") + text]


@pytest.mark.parametrize(
    "text", ["plain", "a b", "it's", "line\nbreak", "\u202egpj", "-x", "$HOME `id`", "\x1b[31m\\'", "猫\t"]
)
def test_bash_reads_quoted_words_back(text: str) -> None:
    done = subprocess.run(["bash", "-c", f"printf %s {shell_word(text)}"], capture_output=True, check=True, timeout=20)
    assert done.stdout.decode() == ("./" if text.startswith("-") else "") + text


def test_command_leaves_options_bare() -> None:
    assert command("apply", "my run", "--to", "out") == "python -m daskim.jobs.apply 'my run' --to out"


@given(st.text(max_size=80), st.integers(3, 40))
def test_short_texts_keep_their_ends(text: str, most: int) -> None:
    short = shortened(text, most)
    assert len(short) <= max(most, 3)
    if len(text) <= most:
        assert short == text
    else:
        assert short[0] == text[0]
        assert short[-1] == text[-1]


@pytest.mark.parametrize(
    ("part", "whole", "told"),
    [
        (0, 10, "0 %"),
        (10, 10, "100 %"),
        (1, 3, "33 %"),
        (1, 200, "0.5 %"),
        (1, 10**6, "0.0001 %"),
        (999, 1000, "99.9 %"),
    ],
)
def test_shares_never_round_to_all_or_nothing(part: int, whole: int, told: str) -> None:
    assert share(part, whole) == told


def test_real_fish(fish_run: daskim.FinishedRun) -> None:
    facts = facts_of(fish_run)
    assert (facts.images, facts.exact, facts.redundant, facts.influential) == (500, 5, 20, 0)
    assert facts.by_class == []
    assert facts.verdict == "20 of 500 images (4.0 %) are redundant: a close image stays for each."


def test_a_folder_name_that_drives_a_terminal_is_not_passed_on(tmp_path: Path, report_runs: Runs) -> None:
    run = daskim.FinishedRun(str(tmp_path / "a\x1b[2Jb c"), report_runs["wavelet"].summary)
    from daskim.report.next import next_commands

    object.__setattr__(run, "settings", report_runs["wavelet"].settings)
    counts = {"redundant": 1, "kept": 2, "influential": 0}
    (_, text), *_ = next_commands(run, counts, {"images": 0}, [])
    assert "\x1b" not in text
    assert "\\x1b[2Jb c'" in text
