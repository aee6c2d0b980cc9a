"""The dictionary: classes, labels, reading, files with every kind of mistake, and what happens when it changes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_finetune_api.exit_codes import DataError, ExitCode, InputMissingError
from ocr_finetune_trainer.dictionary import Dictionary, Mode, describe, merge, targets

FIGURES = Path(__file__).parent / "figures"


def test_classes_are_blank_dictionary_space() -> None:
    assert Dictionary(("a", "b")).classes == ("", "a", "b", " ")
    assert Dictionary(("a", "b"), use_space=False).classes == ("", "a", "b")
    assert Dictionary(("a", "b")).size == 3
    assert " " in Dictionary(("a",))
    assert "" not in Dictionary(("a",))


def test_labels_equal_paddleocrs() -> None:
    labels = json.loads((FIGURES / "labels.json").read_text())
    for case, use_space in (("nospace", False), ("space", True)):
        dictionary = Dictionary(tuple(labels["characters"]), use_space=use_space)
        compared = 0
        for row in labels["cases"][case]:
            if row["ctc"] is None or row["nrtr"] is None or dictionary.missing(row["text"]):
                continue  # PaddleOCR drops characters and samples in silence; here they are errors, tested below
            made = targets([dictionary.encode(row["text"])], guide="nrtr", size=dictionary.size)
            count = made["label_ctc"].shape[1]
            assert [*made["label_ctc"][0], *[0] * (25 - count)] == row["ctc"]
            assert [*made["label_gtc"][0], *[0] * (23 - count)] == row["nrtr"]
            assert made["length"].tolist() == [row["length"]]
            compared += 1
        assert compared >= 2


def test_reading_equals_paddleocrs() -> None:
    characters = tuple(json.loads((FIGURES / "labels.json").read_text())["characters"])
    with np.load(FIGURES / "ctc_decode.npz") as arrays:
        probabilities, expected, scores = arrays["probabilities"], arrays["texts"], arrays["scores"]
    read = Dictionary(characters).decode(probabilities)
    assert [text for text, _ in read] == expected.tolist()
    assert [score for _, score in read] == pytest.approx(scores.tolist(), rel=1e-5)


def test_an_empty_reading_has_score_0() -> None:
    assert Dictionary(("a",)).decode(np.array([[[0.9, 0.1, 0.0]] * 3], dtype=np.float32)) == [("", 0.0)]


def test_entries_of_two_code_points_are_matched_first() -> None:
    dictionary = Dictionary(("か", "か\u309a", "x"))
    assert dictionary.encode("かか\u309ax") == [1, 2, 3]
    with pytest.raises(DataError, match=r"lacks '\u309a' \(U\+309A\)"):
        dictionary.encode("x\u309a")


@given(st.lists(st.sampled_from(["a", "b", "か", "か\u309a", " "]), max_size=20))
def test_what_is_encoded_reads_as_the_same_text(parts: list[str]) -> None:
    dictionary = Dictionary(("a", "b", "か", "か\u309a"))
    text = "".join(parts)
    assert "".join(dictionary.classes[c] for c in dictionary.encode(text)) == text


def test_an_unknown_character_is_named_and_never_dropped() -> None:
    with pytest.raises(DataError, match="lacks '!', '\\?', used in the text 'a!\\?!'"):
        Dictionary(("a",)).encode("a!?!")


@pytest.mark.parametrize("guide", ["nrtr", "sar"])
def test_guided_targets(guide: str) -> None:
    made = targets([[1, 2, 3], [4]], guide=guide, size=10)
    assert made["label_ctc"].tolist() == [[1, 2, 3], [4, 0, 0]]
    assert made["length"].tolist() == [3, 1]
    expected = {
        "nrtr": [[2, 4, 5, 6, 3], [2, 7, 3, 0, 0]],
        "sar": [[11, 0, 1, 2, 11], [11, 3, 11, 12, 12]],
    }[guide]
    assert made["label_gtc"].tolist() == expected


def test_files_keep_everything(tmp_path: Path) -> None:
    odd = ("a", "\u3000", "か\u309a", "🇯🇵", "\u2028", "\ue000", "#")
    for use_space in (True, False):
        dictionary = Dictionary(odd, use_space=use_space)
        dictionary.save(tmp_path / "dictionary.txt")
        assert Dictionary.load(tmp_path / "dictionary.txt") == dictionary


def test_windows_line_ends_are_fine() -> None:
    assert Dictionary.parse(b"a\r\nb\r\n", source="d.txt").characters == ("a", "b")


def test_every_problem_of_a_file_is_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "d.txt"
    path.write_bytes("\ufeffa\n\nb\nab\na\n\x07\n \n".encode())
    with pytest.raises(DataError) as caught:
        Dictionary.load(path)
    assert [problem.removeprefix(f"{path}:") for problem in caught.value.problems] == [
        "1: the file begins with a byte-order mark; save it as UTF-8 without one",
        "2: empty line",
        "4: 'ab' is more than one character",
        "5: 'a' is in line 1 already",
        "6: '\\x07' (U+0007) is a control character, which no picture shows",
    ]
    assert caught.value.exit_code == ExitCode.BAD_DATA


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "d.txt: the dictionary is empty"),
        (b"a\n\xff\n", "d.txt:2: not UTF-8: invalid start byte at byte 2"),
        (b"a\n \nb\n \n", "d.txt:2: the space is added as the last class by itself; remove this line"),
    ],
)
def test_other_problems(content: bytes, message: str) -> None:
    with pytest.raises(DataError) as caught:
        Dictionary.parse(content, source="d.txt")
    assert caught.value.problems == (message,)


def test_a_missing_file_is_a_missing_input(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="No such file"):
        Dictionary.load(tmp_path / "none.txt")


def test_auto_keeps_a_dictionary_that_lacks_nothing_and_extends_one_that_does() -> None:
    base = Dictionary(("b", "a"))
    kept = merge(base, used="ab ")
    assert (kept.dictionary, kept.mode, kept.new, kept.dropped) == (base, Mode.KEEP, (), ())
    extended = merge(base, used="zab1")
    assert extended.dictionary == Dictionary(("b", "a", "1", "z"))
    assert (extended.mode, extended.new, extended.kept) == (Mode.EXTEND, ("1", "z"), ("b", "a", " "))
    assert extended.missing == ()


def test_keep_tells_what_is_missing() -> None:
    assert merge(Dictionary(("a",)), used="axy", mode=Mode.KEEP).missing == ("x", "y")


def test_replace_takes_the_data_or_a_file() -> None:
    base = Dictionary(("a", "b"))
    from_data = merge(base, used="cb", mode=Mode.REPLACE)
    assert from_data.dictionary == Dictionary(("b", "c"), use_space=False)
    assert (from_data.kept, from_data.new, from_data.dropped) == (("b",), ("c",), ("a", " "))
    from_file = merge(base, used="cb", wanted=Dictionary(("z", "c")), mode=Mode.REPLACE)
    assert from_file.dictionary == Dictionary(("z", "c"))
    assert from_file.missing == ("b",)


def test_from_scratch_the_data_decides_about_the_space() -> None:
    assert merge(None, used="ba").dictionary == Dictionary(("a", "b"), use_space=False)
    assert merge(None, used="b a").dictionary == Dictionary(("a", "b"))
    assert merge(None, used="ba", use_space=True).dictionary == Dictionary(("a", "b"))


def test_a_space_that_the_data_needs_extends_a_dictionary_without_one() -> None:
    merged = merge(Dictionary(("a",), use_space=False), used="a ")
    assert (merged.dictionary, merged.mode, merged.new) == (Dictionary(("a",)), Mode.EXTEND, (" ",))


def test_characters_are_described_so_that_they_can_be_seen() -> None:
    assert describe(["a", "\u200b"]) == "'a', '\\u200b' (U+200B)"
    assert describe(["a"] * 25).endswith("and 5 more")
