# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformers_beats.inference.events import (
    Event,
    EventSettings,
    find_boxes,
    find_events,
    process_scores,
    settings_of_labels,
)
from transformers_beats.inference.results import Columns
from transformers_beats.utils.errors import UsageError


COLUMN = 0.16


def spans(scores, first: int = 0, **settings) -> list[tuple[float, float]]:
    """Starts and ends of the events of one label with these scores of columns."""
    columns = Columns(np.asarray(scores, dtype=np.float32)[:, None], first, COLUMN)
    return [(event.start, event.end) for event in find_events(columns, {0: "dog"}, EventSettings(**settings))]


def test_an_event_is_a_run_of_columns_that_reach_the_threshold():
    columns = Columns(np.array([[0.1], [0.5], [0.9], [0.4999], [0.2]], dtype=np.float32), 0, COLUMN)
    (event,) = find_events(columns, {0: "dog"}, EventSettings())
    assert event == Event("dog", pytest.approx(0.9), 0.16, 0.48)


def test_events_reach_to_both_ends_of_the_recording():
    assert spans([0.9, 0.1, 0.1, 0.9]) == [(0.0, 0.16), (0.48, 0.64)]


def test_times_count_from_the_beginning_of_the_recording():
    assert spans([0.9, 0.9], first=100) == [(16.0, 16.32)]


def test_silence_has_no_events():
    assert spans([0.1] * 5) == []


def test_hysteresis_keeps_an_event_going():
    scores = [0.1, 0.4, 0.6, 0.35, 0.9, 0.4, 0.2, 0.4, 0.1]
    assert spans(scores) == [(0.32, 0.48), (0.64, 0.8)]
    # The run of 0.4 at the end never reaches the threshold.
    assert spans(scores, low_threshold=0.3) == [(0.16, 0.96)]


def test_the_median_filter_drops_spikes_and_fills_dips():
    scores = [0.1, 0.9, 0.1, 0.1, 0.9, 0.9, 0.2, 0.9, 0.9, 0.1]
    assert spans(scores, median_seconds=0.48) == [(0.64, 1.44)]


def test_the_score_is_the_highest_after_the_filter():
    columns = Columns(np.array([[0.6], [0.7], [1.0], [0.8], [0.6]], dtype=np.float32), 0, COLUMN)
    (event,) = find_events(columns, {0: "dog"}, EventSettings(median_seconds=0.48))
    assert event.score == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("seconds", "size"),
    [(0.0, 1), (0.16, 1), (0.3, 1), (0.32, 3), (0.48, 3), (0.6, 3), (0.64, 5), (0.96, 7), (1.0, 7)],
)
def test_the_median_filter_has_an_odd_number_of_columns(seconds, size):
    # A pulse passes when it fills more than half of the filter.
    for length in range(1, 6):
        pulse = np.zeros(30)
        pulse[10 : 10 + length] = 1
        assert bool(spans(pulse, median_seconds=seconds)) == (length > size // 2)


@pytest.mark.parametrize(("gap_seconds", "num_events"), [(0.0, 2), (1.11, 2), (1.12, 1), (1.2, 1)])
def test_gaps_up_to_a_length_are_filled(gap_seconds, num_events):
    # Seven columns: 7 * 0.16 is not 1.12 in floating point.
    assert len(spans([0.9] + [0.1] * 7 + [0.9], gap_seconds=gap_seconds)) == num_events


@pytest.mark.parametrize(("min_seconds", "num_events"), [(0.0, 1), (1.12, 1), (1.13, 0)])
def test_events_under_a_length_are_left_out(min_seconds, num_events):
    assert len(spans([0.1] + [0.9] * 7 + [0.1], min_seconds=min_seconds)) == num_events


def test_gaps_are_filled_before_lengths_are_compared():
    assert spans([0.9, 0.1, 0.9], gap_seconds=0.16, min_seconds=0.48) == [(0.0, 0.48)]


def test_events_of_several_labels_are_in_order_of_time():
    values = np.array([[0.1, 0.9], [0.9, 0.9], [0.9, 0.1], [0.1, 0.8]], dtype=np.float32)
    events = find_events(Columns(values, 0, COLUMN), {0: "dog", 1: "rain"}, EventSettings())
    assert [(event.label, event.start, event.end) for event in events] == [
        ("rain", 0.0, 0.32),
        ("dog", 0.16, 0.48),
        ("rain", 0.48, 0.64),
    ]


@pytest.mark.parametrize(
    "settings",
    [
        {"threshold": 0.3, "low_threshold": 0.4},
        {"threshold": float("nan")},
        {"threshold": 50},
        {"threshold": -0.1},
        {"threshold": "0.5"},
        {"low_threshold": -0.1},
        {"median_seconds": "1"},
        {"min_seconds": -1.0},
        {"gap_seconds": float("nan")},
        {"median_seconds": float("inf")},
    ],
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match="must"):
        EventSettings(**settings)


@given(
    scores=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=60),
    thresholds=st.tuples(st.floats(0, 1, width=32), st.floats(0, 1, width=32)).map(sorted),
    median=st.integers(0, 7),
    gap=st.integers(0, 5),
    shortest=st.integers(0, 5),
)
def test_events_are_what_the_settings_say(scores, thresholds, median, gap, shortest):
    low, high = thresholds
    settings = EventSettings(high, low, median * COLUMN, gap * COLUMN, shortest * COLUMN)
    columns = Columns(np.array(scores, dtype=np.float32)[:, None], 0, COLUMN)
    events = find_events(columns, {0: "dog"}, settings)
    bounds = [(round(event.start / COLUMN), round(event.end / COLUMN)) for event in events]
    assert all(0 <= start < end <= len(scores) and end - start >= shortest for start, end in bounds)
    assert all(after[0] - before[1] > gap for before, after in pairwise(bounds))
    assert all(high <= event.score <= max(scores) for event in events)
    if median <= 1:
        found = {column for start, end in bounds for column in range(start, end)}
        assert all(columns.values[start, 0] >= low and columns.values[end - 1, 0] >= low for start, end in bounds)
        if shortest <= 1:
            assert found >= {column for column, score in enumerate(scores) if score >= high}


def test_lengths_far_beyond_the_recording_are_lengths_too():
    assert spans([0.9, 0.1, 0.9], gap_seconds=1e308) == [(0.0, 0.48)]
    assert spans([0.9, 0.1, 0.9], min_seconds=1e308) == []
    assert spans([0.9, 0.1, 0.9, 0.9], median_seconds=1e308) == [(0.0, 0.64)]


# Boxes of change points, and settings of labels


def boxes(scores, half=2, **merge):
    return find_boxes(np.asarray(scores, dtype=np.float32), half, **merge)


def test_a_box_is_where_the_scores_rise_and_fall():
    # Whatever the height: no threshold finds both.
    assert boxes([0, 0, 0.2, 0.2, 0.2, 0, 0, 0, 0.9, 0.9, 0.9, 0.9, 0, 0]) == [
        (2, 5, pytest.approx(0.2)),
        (8, 12, pytest.approx(0.9)),
    ]


def test_a_box_reaches_to_both_ends():
    assert boxes([0.8] * 5) == [(0, 5, pytest.approx(0.8))]
    assert boxes([0.0] * 5) == boxes([]) == []
    assert boxes([0.7]) == [(0, 1, pytest.approx(0.7))]


def test_boxes_are_merged_over_a_small_fall():
    scores = [0, 0, 0.8, 0.8, 0.8, 0.6, 0.6, 0.8, 0.8, 0.8, 0, 0]
    two = [(2, 5, pytest.approx(0.8)), (7, 10, pytest.approx(0.8))]
    one = [(2, 10, pytest.approx(0.75))]
    assert boxes(scores) == boxes(scores, merge_drop=0.15) == boxes(scores, merge_ratio=1.3) == two
    assert boxes(scores, merge_drop=0.25) == boxes(scores, merge_ratio=1.5) == one
    assert boxes(scores, merge_drop=0.25, merge_ratio=1.3) == two


@given(st.lists(st.floats(0, 1, width=32), max_size=60), st.integers(1, 8), st.none() | st.floats(0, 1))
def test_boxes_are_in_order_and_do_not_touch(scores, half, drop):
    found = boxes(scores, half, merge_drop=drop)
    assert all(0 <= start < end <= len(scores) for start, end, _ in found)
    assert all(before[1] < after[0] for before, after in pairwise(found))
    for start, end, score in found:
        assert score == pytest.approx(np.mean(np.float64(scores[start:end])), abs=1e-6)


def test_events_of_boxes_have_the_mean_score():
    scores = [0.0, 0.0, 0.3, 0.9, 0.3, 0.9, 0.0, 0.0]
    columns = Columns(np.array(scores, dtype=np.float32)[:, None], 0, COLUMN)
    settings = EventSettings(threshold=0.55, box_seconds=4 * COLUMN)
    (event,) = find_events(columns, {0: "dog"}, settings)
    assert event == Event("dog", pytest.approx(0.6), 0.32, 0.96)
    assert find_events(columns, {0: "dog"}, EventSettings(threshold=0.65, box_seconds=4 * COLUMN)) == []


def test_no_box_is_in_silence():
    columns = Columns(np.full((6, 1), 0.9, dtype=np.float32), 0, COLUMN, np.array([0, 0, 0, 1, 1, 1], dtype=bool))
    (event,) = find_events(columns, {0: "dog"}, EventSettings(box_seconds=0.32))
    assert (event.start, event.end) == (0.0, 0.48)


def test_a_temperature_changes_scores_before_the_threshold():
    columns = Columns(np.array([[0.1], [0.8], [0.1]], dtype=np.float32), 0, COLUMN)
    # logit(0.8) / 2 is the logit of 2 / 3.
    (event,) = find_events(columns, {0: "dog"}, EventSettings(threshold=0.66, temperature=2.0))
    assert event.score == pytest.approx(2 / 3)
    assert find_events(columns, {0: "dog"}, EventSettings(threshold=0.67, temperature=2.0)) == []
    # A score of 0.8 is one of 0.94 where the model is too modest, and reaches what it would not.
    assert find_events(columns, {0: "dog"}, EventSettings(threshold=0.9, temperature=0.5))


def test_scores_that_a_temperature_makes_one_are_found():
    columns = Columns(np.array([[0.1], [0.9], [0.1]], dtype=np.float32), 0, COLUMN)
    (event,) = find_events(columns, {0: "dog"}, EventSettings(threshold=1.0, temperature=0.1))
    assert (event.score, event.start, event.end) == (1.0, 0.16, 0.32)


@given(
    scores=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=40),
    threshold=st.floats(0, 1, width=32),
    temperature=st.sampled_from([0.1, 0.5, 1.0, 2.0, 10.0]),
    median=st.integers(0, 5),
    box=st.integers(0, 5),
)
def test_no_event_is_left_out_before_scores_are_processed(scores, threshold, temperature, median, box):
    settings = EventSettings(
        threshold, median_seconds=median * COLUMN, box_seconds=box * COLUMN, temperature=temperature
    )
    values = np.array(scores, dtype=np.float32)
    processed = process_scores(values, settings, COLUMN, np.zeros(len(values), dtype=bool))
    found = np.zeros(len(values), dtype=bool)
    for event in find_events(Columns(values[:, None], 0, COLUMN), {0: "dog"}, settings):
        found[round(event.start / COLUMN) : round(event.end / COLUMN)] = True
    np.testing.assert_array_equal(found, processed >= np.float32(threshold))


def test_silence_lowers_no_box_beside_it():
    silent = np.array([1, 1, 0, 1, 0, 0, 0, 0], dtype=bool)
    columns = Columns(np.full((8, 1), 0.8, dtype=np.float32), 0, COLUMN, silent)
    settings = EventSettings(median_seconds=3 * COLUMN, box_seconds=2 * COLUMN)
    # The column between both parts is lost by the median; it has no part in the mean of the next.
    assert find_events(columns, {0: "dog"}, settings) == [Event("dog", pytest.approx(0.8), 0.64, 1.28)]


def test_labels_have_settings_of_their_own():
    values = np.array([[0.4, 0.4], [0.4, 0.4]], dtype=np.float32)
    config = SimpleNamespace(event_settings={"dog": {"threshold": 0.3, "median_seconds": 0.16}})
    of_labels = settings_of_labels(config)
    events = find_events(Columns(values, 0, COLUMN), {0: "dog", 1: "rain"}, EventSettings(), of_labels)
    assert [event.label for event in events] == ["dog"]
    assert settings_of_labels(SimpleNamespace()) == settings_of_labels(SimpleNamespace(event_settings=None)) == {}


def test_what_is_given_precedes_what_is_kept():
    config = SimpleNamespace(event_settings={"dog": {"threshold": 0.6, "low_threshold": 0.5, "gap_seconds": 1.0}})
    (settings,) = settings_of_labels(config, {"threshold": 0.3}).values()
    assert (settings.threshold, settings.low_threshold, settings.gap_seconds) == (0.3, 0.3, 1.0)
    (settings,) = settings_of_labels(config, {"gap_seconds": 0.0}).values()
    assert (settings.threshold, settings.low_threshold, settings.gap_seconds) == (0.6, 0.5, 0.0)


@pytest.mark.parametrize("values", [{"threshold": 3}, {"no_such_setting": 1}, {"temperature": 0}, {"merge_ratio": -1}])
def test_kept_settings_that_are_impossible_are_named(values):
    with pytest.raises(UsageError, match="`event_settings` of 'dog'"):
        settings_of_labels(SimpleNamespace(event_settings={"dog": values}))
