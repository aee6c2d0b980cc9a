"""Labels are changed only as allowed and counted; what no picture can show is refused."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_finetune_api.spec import TextSpec
from ocr_finetune_trainer.data.labels import Cleaner, LabelProblem, frames_needed


def cleaner(known=(), **values) -> Cleaner:
    return Cleaner(TextSpec.model_validate(values), known=known)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("plain", "plain"), ("  two   words\t", "two words"), ("a\u00a0b\u3000c", "a b c"), ("京A12345", "京A12345")],
)
def test_white_space_becomes_one_space(text, expected):
    assert cleaner().clean(text) == expected


def test_spaces_stay_where_they_may_not_be_touched():
    assert cleaner(collapseSpaces=False).clean(" a  b ") == " a  b "


def test_the_ideographic_space_stays_where_the_dictionary_has_it():
    assert cleaner(known={"\u3000", "a"}).clean("a\u3000a  a ") == "a\u3000a a"


@pytest.mark.parametrize("bad", ["\u200b", "\u202e", "\ufeff", "\x07", "\u00ad", "\ue000\U000e0001", "\u3164", "\x00"])
def test_what_no_picture_shows_is_refused_with_its_code_point(bad):
    found = cleaner(collapseSpaces=False).clean(f"a{bad}b")
    assert isinstance(found, LabelProblem)
    assert found.kind == "invisible-character"
    assert f"U+{ord(bad[-1]):04X}" in found.what


def test_private_characters_stay_because_dictionaries_hold_them():
    assert cleaner().clean("\ue000") == "\ue000"


@pytest.mark.parametrize("text", ["", " ", "\t\u3000"])
def test_an_empty_label_is_refused(text):
    found = cleaner().clean(text)
    assert isinstance(found, LabelProblem)
    assert found.kind == "empty-label"


@pytest.mark.parametrize("form", ["NFC", "NFKC"])
@given(text=st.text(st.characters(categories=["L", "M", "N", "P"]), min_size=1))
def test_normal_forms_are_those_of_unicode(form, text):
    assert cleaner(normalize=form, collapseSpaces=False).clean(text) == unicodedata.normalize(form, text)


@pytest.mark.parametrize(
    ("known", "text", "expected"),
    [
        ("abc-", "ａｂｃ－", "abc-"),
        ("ａｂｃ", "ａｂｃ", "ａｂｃ"),
        ("（）", "(x)", "（x）"),
        ("a'", "a’", "a'"),
        ("·", "・", "·"),
        ("é", "e\u0301", "é"),
        ("", "’", "’"),
    ],
)
def test_fold_goes_towards_the_dictionary(known, text, expected):
    assert cleaner(set(known), normalize="fold").clean(text) == expected


def test_changes_are_counted_and_shown():
    made = cleaner(normalize="NFKC")
    for text in ("ａ", "b", "ｃ  d"):
        made.clean(text)
    assert dict(made.changed) == {"NFKC": 2, "spaces": 1}
    assert made.examples == {"NFKC": [("ａ", "a"), ("ｃ  d", "c  d")], "spaces": [("c  d", "c d")]}


@pytest.mark.parametrize(("label", "frames"), [("", 0), ("abc", 3), ("aab", 4), ("aaa", 5), ("abab", 4)])
def test_frames_that_ctc_needs(label, frames):
    assert frames_needed(label) == frames
