# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Layout and metrics of DCASE's task 2, and what paths tell of clips."""

from pathlib import PurePath

import numpy as np
import pytest
from scipy.stats import hmean
from sklearn.metrics import roc_auc_score, roc_curve

from transformers_beats.anomalies.dcase import (
    DcaseClip,
    SectionMetrics,
    measure_section,
    official_score,
    read_name,
    read_names,
)
from transformers_beats.anomalies.roles import assign_normal, assign_tests
from transformers_beats.audio.files import AudioFile
from transformers_beats.utils.errors import UsageError


@pytest.mark.parametrize(
    ("path", "clip"),
    [
        (
            "/d/fan/train/section_00_source_train_normal_0000_m-n_X.wav",
            DcaseClip("fan/section_00", "train", "source", False),
        ),
        (
            "/d/ToyCar/test/section_02_target_test_anomaly_0013.wav",
            DcaseClip("ToyCar/section_02", "test", "target", True),
        ),
        (
            "/d/fan/source_test/section_00_source_test_normal_0001.wav",
            DcaseClip("fan/section_00", "test", "source", False),
        ),
        ("/d/fan/test/anomaly_id_06_00000012.wav", DcaseClip("fan/section_06", "test", "", True)),
        ("/d/fan/test/section_00_0007.wav", DcaseClip("fan/section_00", "test", "", None)),
        (
            "/d/fan/source_test/section_03_source_test_0012.wav",
            DcaseClip("fan/section_03", "test", "source", None),
        ),
        (
            "/d/fan/target_test/section_05_target_test_0199.wav",
            DcaseClip("fan/section_05", "test", "target", None),
        ),
        ("/d/ToyCar/test/id_05_00000399.wav", DcaseClip("ToyCar/section_05", "test", "", None)),
        ("/d/fan/train/section_00_0007.wav", None),
        ("/d/fan/train/id_05_00000399.wav", None),
        ("/d/fan/supplemental/section_00_source_supplement_clean_0001.wav", None),
        ("/d/fan/train/hum.wav", None),
        ("/d/fan/section_00_source_train_normal_0000.wav", None),
    ],
)
def test_names_tell_machine_split_domain_and_label(path, clip):
    assert read_name(PurePath(path)) == clip


def test_a_folder_with_another_kind_of_name_has_no_layout():
    known = PurePath("/d/fan/test/section_00_0007.wav")
    clean = PurePath("/d/fan/supplemental/section_00_supplement_clean_0001.wav")
    assert read_names([PurePath("/d/fan/test/hum.wav"), clean]) is None
    assert read_names([known, clean]) == [read_name(known), None]
    assert read_names([clean]) is None


@pytest.mark.parametrize("assign", [assign_normal, assign_tests])
def test_a_foreign_file_among_clips_of_the_layout_is_refused(assign):
    named = files(
        "fan/readme.wav",
        "fan/train/section_00_source_train_normal_0000.wav",
        "fan/test/section_00_source_test_anomaly_0000.wav",
    )
    with pytest.raises(UsageError) as caught:
        assign(named)
    assert str(caught.value) == (
        "/d/fan/readme.wav: is no name of DCASE's task 2, and 2 others are: move it out, or name the folder of one "
        "machine."
    )


def test_one_section_in_two_places_is_refused_with_both():
    names = [f"{year}/fan/train/section_00_source_train_normal_0000.wav" for year in ("2022", "2023")]
    with pytest.raises(UsageError, match=r"^/d/2022/fan and /d/2023/fan both have clips of fan/section_00"):
        assign_normal(files(*names))
    # Training clips in one place and test clips in another are of one machine.
    apart = files(names[0], "eval/fan/test/section_00_0000.wav", "eval/fan/train/section_03_source_train_normal_0.wav")
    assert [role.machine for role in assign_normal(apart)] == ["fan/section_00", "fan/section_03"]
    assert [role.file for role in assign_tests(apart)] == [apart[1]]


def test_files_that_were_named_themselves_are_always_scored():
    named = files(
        "fan/train/section_00_source_train_normal_0000.wav",
        "fan/train/section_00_source_train_normal_0001.wav",
        "fan/test/section_00_source_test_anomaly_0000.wav",
        "fan/supplemental/section_00_supplement_noise_0000.wav",
    )
    roles = assign_tests(named, [named[1].path, named[3].path])
    assert [role.file for role in roles] == named[1:]
    assert [role.is_anomalous for role in roles] == [False, True, None]


@pytest.fixture
def section():
    """Labels, scores and domains of 80 clips."""
    generator = np.random.default_rng(0)
    labels = generator.random(80) < 0.5
    return labels, generator.normal(size=80) + labels, generator.choice(["source", "target"], 80)


def test_the_auc_of_a_domain_has_its_normal_clips_and_the_anomalous_ones_of_both(section):
    labels, scores, domains = section
    found = measure_section(*section)
    for domain, auc in (("source", found.auc_source), ("target", found.auc_target)):
        normal, anomalous = scores[~labels & (domains == domain)], scores[labels]
        assert auc == pytest.approx(np.mean([[a > n for n in normal] for a in anomalous]))
    assert found.auc_source != pytest.approx(
        roc_auc_score(labels[domains == "source"], scores[domains == "source"]), abs=1e-6
    )


def test_the_partial_auc_is_that_up_to_a_tenth_of_false_alarms_after_mcclish(section):
    labels, scores, _ = section
    false_rates, true_rates, _ = roc_curve(labels, scores, drop_intermediate=False)
    at = np.linspace(0, 0.1, 100_001)
    # Of points with one rate of false alarms the last counts, from there on.
    heights = true_rates[np.searchsorted(false_rates, at, side="right") - 1]
    area = np.mean((heights[1:] + heights[:-1]) / 2) * 0.1
    least = 0.1**2 / 2
    expected = 0.5 * (1 + (area - least) / (0.1 - least))
    # scikit-learn interpolates at 0.1.
    assert measure_section(*section).partial_auc == pytest.approx(expected, abs=2e-3)
    assert measure_section(*section).partial_auc == pytest.approx(roc_auc_score(labels, scores, max_fpr=0.1))


def test_the_official_score_is_a_harmonic_mean_over_sections_and_domains():
    sections = [SectionMetrics(0.8, 0.6, 0.5), SectionMetrics(0.9, None, 0.7)]
    assert official_score(sections) == pytest.approx(hmean([0.8, 0.6, 0.5, 0.9, 0.7]))
    assert official_score([SectionMetrics(None, None, None)]) is None
    # As the evaluator has it.
    assert official_score([SectionMetrics(0.0, 0.5, 0.5)]) == pytest.approx(0, abs=1e-12)


def test_metrics_without_clips_of_both_kinds_are_unknown():
    found = measure_section(np.array([True, True, False]), np.arange(3), ["target", "source", "target"])
    assert found.auc_source is None
    assert found.auc_target == 0
    assert measure_section(np.array([True]), np.zeros(1), [""]) == SectionMetrics(None, None, None)
    with pytest.raises(UsageError, match="1 labels, 2 scores and 1 domains"):
        measure_section(np.array([True]), np.zeros(2), [""])


def files(*names: str) -> list[AudioFile]:
    return [AudioFile(f"/d/{name}", name) for name in names]


def test_a_detector_is_fitted_on_training_clips_of_the_layout():
    named = files(
        "fan/train/section_00_source_train_normal_0000.wav",
        "fan/train/section_00_target_train_normal_0000.wav",
        "fan/test/section_00_source_test_normal_0000.wav",
        "fan/test/section_00_source_test_anomaly_0000.wav",
        "fan/supplemental/section_00_supplement_noise_0000.wav",
    )
    roles = assign_normal(named)
    assert [(role.file, role.machine, role.domain) for role in roles] == [
        (named[0], "fan/section_00", "source"),
        (named[1], "fan/section_00", "target"),
    ]
    assert [(role.file, role.is_anomalous) for role in assign_tests(named)] == [(named[2], False), (named[3], True)]
    # Without test clips, those that there are.
    assert [role.file for role in assign_tests(named[:2])] == named[:2]
    with pytest.raises(UsageError, match="holds no normal clips to fit on"):
        assign_normal(named[2:4])
    with pytest.raises(UsageError, match="leave out --target"):
        assign_normal(named, files("other.wav"))


@pytest.mark.parametrize(
    "names",
    [
        ["fan/train/section_00_target_train_normal_0000.wav", "fan/test/section_00_source_test_anomaly_0000.wav"],
        # Of 2020, and of an evaluation set, whose labels are not public.
        ["fan/test/anomaly_id_00_00000000.wav"],
        ["fan/test/section_00_0007.wav", "fan/supplemental/section_00_supplement_noise_0000.wav"],
    ],
)
def test_clips_of_the_layout_are_no_target_domain_of_other_files(names):
    with pytest.raises(UsageError, match=r"^--target holds clips of DCASE's task 2, .* name its folder as the input"):
        assign_normal(files("hum.wav"), files(*names))


def test_a_target_of_which_some_names_are_of_the_layout_is_refused_as_inputs_are():
    target = files("fan/test/section_00_source_test_anomaly_0000.wav", "fan/test/hum.wav")
    with pytest.raises(UsageError, match=r"hum\.wav: is no name of DCASE's task 2, and 1 others are"):
        assign_normal(files("hum.wav"), target)


def test_folders_tell_labels_if_all_files_lie_in_them():
    named = files("id_00/normal/a.wav", "id_00/abnormal/b.wav", "id_00/Anomaly/c.wav")
    assert [role.is_anomalous for role in assign_tests(named)] == [False, True, True]
    assert [role.is_anomalous for role in assign_tests([*named, *files("d.wav")])] == [None] * 4
    assert [role.file for role in assign_normal(named)] == named[:1]


def test_a_folder_above_the_one_that_was_named_tells_nothing():
    path = "/d/abnormal/site/normal-clips/a.wav"
    for name in ("a.wav", "normal-clips/a.wav"):
        (role,) = assign_tests([AudioFile(path, name)])
        assert role.is_anomalous is None
        assert len(assign_normal([AudioFile(path, name)])) == 1
    (role,) = assign_tests([AudioFile("/d/abnormal/a.wav", "a.wav")])
    assert role.is_anomalous


def test_a_target_folder_that_leaves_no_source_or_has_no_normal_clips_is_refused():
    with pytest.raises(UsageError, match=r"^--target holds all normal clips: name those of the other domain"):
        assign_normal(files("t/a.wav"), files("t/a.wav", "t/b.wav"))
    with pytest.raises(UsageError, match=r"^--target holds no normal clips"):
        assign_normal(files("a.wav"), files("t/abnormal/b.wav"))


def test_files_of_a_target_folder_are_its_domain():
    named, target = files("a.wav", "t/b.wav"), files("t/b.wav", "t/c.wav")
    roles = assign_normal(named, target)
    assert [(role.file.short_name, role.domain) for role in roles] == [
        ("a.wav", "source"),
        ("t/b.wav", "target"),
        ("t/c.wav", "target"),
    ]
