"""The one bar for all sources of a run."""

from __future__ import annotations

from ocr_finetune_trainer.data.reading_progress import ReadingProgress


def test_every_source_has_its_share_and_the_bar_never_goes_back():
    told: list[tuple[float, str]] = []
    reading = ReadingProgress(lambda share, what: told.append((share, what)), sources=2)
    reading.begin("base")
    reading.expect(200)
    reading.examine(100)
    assert told[-1] == (0.25, "100 pictures examined")
    reading.examine(1100)  # more than were expected
    assert told[-1] == (0.5, "1,200 pictures examined")
    reading.end()
    reading.begin("more")
    reading.copy(0, 0)
    assert told[-1] == (0.5, "copying more: 0 MiB")
    reading.copy(1 << 30, 1 << 31)
    assert told[-1] == (0.625, "copying more: 1,024 of 2,048 MiB")
    reading.copy(1 << 31, 1 << 31)
    reading.expect(100)
    reading.examine(50)
    assert told[-1] == (0.875, "1,250 pictures examined")
    reading.end()
    assert told[-1][0] == 1.0
    assert [share for share, _ in told] == sorted(share for share, _ in told)


def test_drawing_lines_is_half_of_the_work_on_them():
    told: list[tuple[float, str]] = []
    reading = ReadingProgress(lambda share, what: told.append((share, what)), sources=1)
    reading.begin("synthetic")
    reading.draw(1000, 4000)
    assert told[-1] == (0.125, "drawing synthetic: 1,000 of 4,000 lines")
    reading.draw(4000, 4000)
    reading.expect(4000)
    reading.examine(2000)
    assert told[-1][0] == 0.75


def test_a_source_that_can_t_be_opened_is_done_with():
    told: list[tuple[float, str]] = []
    reading = ReadingProgress(lambda share, what: told.append((share, what)), sources=4)
    reading.begin("gone")
    reading.end()
    assert told[-1] == (0.25, "0 pictures examined")
