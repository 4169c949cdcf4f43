# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""The benchmark command: its peers compute what our models compute, and its reports say what was measured."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import typer
from benchmarks import (
    an_hour_of_audio,
    anomalies,
    archives,
    codes_ablation,
    distillation_esc10,
    event_windows,
    events_esc10,
    iterations_esc10,
    listening,
    measuring,
)
from benchmarks.__main__ import choose_sizes, main
from benchmarks.measuring import count_operations, in_fresh_process, peak_memory, time_alternately
from benchmarks.options import Options, build_tokenizer
from benchmarks.parts import PARTS, attention_peak
from benchmarks.peers import (
    PUBLISHED_MAP,
    SHAPES,
    AudioSpectrogramTransformer,
    AvexStyleBeats,
    reference_style,
    reference_style_classifier,
    reference_style_tokenizer,
)
from benchmarks.report import FORMATS, Row, draw, draw_published, write
from PIL import Image
from rich.table import Table
from typer.testing import CliRunner

from transformers_beats import (
    BeatsConfig,
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsModel,
    BeatsTokenizerConfig,
    BeatsTokenizerModel,
)
from transformers_beats.anomalies.choices import DetectorSettings
from transformers_beats.cli.app import app as transformers_beats_app
from transformers_beats.search.index import Index
from transformers_beats.utils.errors import UsageError
from transformers_beats.verification.plain import PlainBeats, plain_features


TINY = {
    "embed_dim": 16,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "num_labels": 7,
}
MACHINE = {
    "device": "CPU",
    "cpu": "a CPU",
    "cores": 2,
    "threads": 1,
    "instruction_sets": [],
    "torch": "2",
    "transformers": "5",
    "python": "3",
}

reads_proc = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")


def randomize(model):
    """Weights that are large enough for every part of the model to matter."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter + 0.1 * torch.randn_like(parameter))
        model.get_parameter(
            next(name for name, _ in model.named_parameters() if "relative_attention_bias" in name)
        ).normal_()
    return model.eval()


@pytest.fixture
def waveforms():
    generator = torch.Generator().manual_seed(0)
    return [0.1 * torch.randn(16000, generator=generator) for _ in range(2)]


@pytest.fixture
def features(waveforms):
    return BeatsFeatureExtractor()(waveforms, sampling_rate=16000, return_tensors="pt")["input_values"]


@pytest.fixture
def tiny_options():
    return Options(((1, 1.0),), ((1, 1.0),), ("fp32",), ("sdpa",), repeats=1, layers=1, device="cpu")


def test_the_reference_style_front_end_computes_our_fbank(waveforms, features):
    torch.testing.assert_close(plain_features(waveforms), features, atol=1e-4, rtol=0)


@torch.no_grad()
def test_the_reference_style_encoder_computes_what_our_model_computes(features):
    model = randomize(BeatsModel(BeatsConfig(**TINY)))
    torch.testing.assert_close(
        reference_style(model).encode(features), model(features).last_hidden_state, atol=1e-4, rtol=0
    )


@torch.no_grad()
def test_the_reference_style_encoder_ignores_padding_as_our_model_does(features):
    model = randomize(BeatsModel(BeatsConfig(**TINY)))
    attention_mask = torch.ones(features.shape[:2], dtype=torch.int32)
    attention_mask[1, 50:] = 0
    expected = model(features, attention_mask=attention_mask)
    is_valid = expected.patch_attention_mask
    assert 0 < is_valid[1].sum() < is_valid.shape[1]
    for style in (PlainBeats, AvexStyleBeats):
        states = reference_style(model, style).encode(features, padding_mask=~is_valid)
        torch.testing.assert_close(states[is_valid], expected.last_hidden_state[is_valid], atol=1e-4, rtol=0)


def test_the_reference_style_encoder_refuses_other_architectures():
    model = BeatsModel(BeatsConfig(**TINY, layer_norm_first=True, deep_norm=False))
    with pytest.raises(ValueError, match="released architecture only"):
        reference_style(model)


@torch.no_grad()
def test_the_reference_style_tokenizer_finds_our_codes(features):
    model = randomize(BeatsTokenizerModel(BeatsTokenizerConfig(**TINY, codebook_size=32, codebook_dim=8)))
    model.quantizer.codebook.copy_(torch.nn.functional.normalize(torch.randn(32, 8), dim=-1))
    model.quantizer.is_initialized.fill_(1)
    codes = reference_style_tokenizer(model)(features)
    assert len(codes.unique()) > 1
    # Of a tie, two ways of computing may choose differently.
    assert (codes == model(features).audio_codes.flatten(1)).float().mean() > 0.95


@torch.no_grad()
def test_the_reference_style_classifier_gives_our_probabilities(waveforms, features):
    model = randomize(BeatsForAudioClassification(BeatsConfig(**TINY)))
    expected = model(features).logits.sigmoid()
    torch.testing.assert_close(reference_style_classifier(model)(waveforms), expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_ast_reads_clips_of_other_lengths_than_its_own(waveforms):
    peer = AudioSpectrogramTransformer(1.0, num_labels=5, num_layers=1, device="cpu", dtype=torch.bfloat16)
    assert peer([waveform.numpy() for waveform in waveforms]).shape == (2, 5)


@pytest.mark.parametrize(("name", "millions"), [("CED-tiny", 5.5), ("CED-mini", 9.6), ("CED-small", 22)])
def test_the_shapes_of_ced_have_its_published_parameters(name, millions):
    with torch.device("meta"):
        peer = AudioSpectrogramTransformer(
            10.0, 527, num_layers=12, device="meta", dtype=torch.float32, shape=SHAPES[name]
        )
    assert peer.model.num_parameters() / 1e6 == pytest.approx(millions, rel=0.03)


@torch.no_grad()
def test_the_shapes_of_ced_read_clips(waveforms):
    peer = AudioSpectrogramTransformer(
        1.0, 5, num_layers=1, device="cpu", dtype=torch.float32, shape=SHAPES["CED-tiny"]
    )
    assert peer([waveform.numpy() for waveform in waveforms]).shape == (2, 5)


def test_a_random_tokenizer_for_measuring_has_codes(tiny_options, features):
    with torch.no_grad():
        codes = build_tokenizer(tiny_options)(features).audio_codes
    assert codes.min() >= 0
    assert len(codes.unique()) > 1


def test_calls_take_turns():
    order = []
    calls = {name: (lambda name=name: order.append(name)) for name in ("ours", "peer")}
    times = time_alternately(calls, repeats=2, device="cpu")
    turns = [name for name, previous in zip(order, [None, *order]) if name != previous]
    assert turns == ["ours", "peer"] * 3
    assert all(seconds > 0 for seconds in times.values())


def test_operations_of_the_gradients_of_grouped_convolutions_are_counted():
    conv, inputs = torch.nn.Conv1d(8, 8, 3, groups=4), torch.randn(1, 8, 10, requires_grad=True)
    forward = 2 * 8 * 8 * (8 // 4) * 3
    assert count_operations(lambda: conv(inputs)) == forward
    assert count_operations(lambda: conv(inputs).sum().backward()) == 3 * forward


@reads_proc
def test_peak_memory_counts_what_a_call_gives_back():
    size = 64 * 2**20
    peak = peak_memory(lambda: torch.ones(size // 4).sum(), "cpu")
    assert 0.9 * size < peak < 1.5 * size


@pytest.mark.slow
@reads_proc
def test_attention_without_materialised_scores_takes_less_memory():
    # In a process that has freed as much before, as one of many tests may, the peak would not show.
    styles = ("reference-style fp32", "sdpa")
    peaks = {style: in_fresh_process(attention_peak, style, "fp32", 1, 30.0, "cpu") for style in styles}
    assert 0 < peaks["sdpa"] < peaks["reference-style fp32"]


def test_explicit_sizes_are_all_combined():
    sizes, training_sizes = choose_sizes([1, 8], [1.0, 5.0], full=True, device="cpu")
    assert sizes == training_sizes == ((1, 1.0), (1, 5.0), (8, 1.0), (8, 5.0))


def test_a_gpu_measures_all_sizes():
    sizes, _ = choose_sizes([], [], full=True, device="cuda")
    assert len(sizes) == 12


def test_the_plot_has_minutes_for_an_hour_of_audio():
    rows = [
        Row("fbank", "16 x 10 s", 2.0, {"one by one": 3.0, "AST": 12.0}),
        Row("encoder", "4 x 10 s, fp32, eager", 3000.0, {"AST": 9000.0}, audio_seconds=40),
        Row("encoder", "4 x 10 s, fp32, sdpa", 2000.0, {"AST": 9000.0}, audio_seconds=40),
        Row("encoder", "4 x 10 s, bf16, sdpa", 1000.0, {"AST": 9000.0}, audio_seconds=40),
        Row("attention_memory", "1 x 30 s", 100.0, {"reference-style": 450.0}, unit="MiB"),
        Row("tokenizer", "2 x 5 s, fp32", 1000.0, {"one by one": 1500.0, "AST": 500.0}, audio_seconds=10),
    ]
    (panel,) = draw(rows, MACHINE).axes
    assert [bar.get_width() for bar in panel.patches] == pytest.approx([3.0, 13.5, 6.0, 9.0, 3.0])
    labels = [label.get_text() for label in panel.get_yticklabels()]
    assert labels == ["encoder: this package", "AST", "tokenizer: this package", "one by one", "AST"]
    assert "4.50 times as long" in [text.get_text() for text in panel.texts][1]


def test_what_was_measured_before_memory_ran_out_is_kept(tmp_path, monkeypatch):
    def part(options):
        yield Row("tokenizer", "1 x 1 s", 2.0, {"peer": 3.0})
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setitem(PARTS, "tokenizer", part)
    app = typer.Typer()
    app.command()(main)
    result = CliRunner().invoke(app, ["tokenizer", "--output", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "tokenizer: CUDA out of memory." in result.output
    (row,) = json.loads((tmp_path / "benchmark.json").read_text())["rows"]
    assert row["ratios"] == {"peer": 1.5}


def test_the_command_writes_what_it_prints(tmp_path, monkeypatch):
    # Which of the large matrices the machine multiplies best is of no interest here.
    monkeypatch.setitem(measuring.MATRIX_SIZES, "cpu", (256,))
    app = typer.Typer()
    app.command()(main)
    arguments = ["tokenizer", "--layers", "1", "--seconds", "1", "--batch-size", "1", "--repeats", "1"]
    arguments += ["--precision", "fp32", "--implementation", "sdpa", "--output", str(tmp_path)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "benchmark.json").read_text())
    (row,) = report["rows"]
    (peer, value), (ratio,) = *row["peers"].items(), row["ratios"].values()
    assert row["setting"] == "1 x 1 s, fp32, sdpa"
    assert row["details"]["same codes"] > 0.95
    assert ratio == pytest.approx(value / row["ours"])
    line = next(line for line in result.output.splitlines() if row["setting"] in line)
    cells = [cell.strip() for cell in line.strip("│").split("│")]
    expected = [row["setting"], FORMATS["ms"].format(row["ours"]), peer, FORMATS["ms"].format(value), f"{ratio:.2f}"]
    assert cells == [*expected, f"{row['roofline']:.0%}"]
    assert report["machine"]["cpu"] in result.output
    assert report["options"]["layers"] == 1
    assert Image.open(tmp_path / "benchmark.png").size[0] > 500


def run_benchmarks(*arguments):
    app = typer.Typer()
    app.command()(main)
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


def test_an_earlier_run_is_compared_if_it_is_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setitem(PARTS, "tokenizer", lambda options: iter([Row("tokenizer", "1 x 1 s", 2.0, {"peer": 3.0})]))
    assert run_benchmarks("tokenizer", "--output", str(tmp_path)).exit_code == 0
    path = tmp_path / "benchmark.json"
    report = json.loads(path.read_text())
    report["rows"][0] |= {"ours": 5.0, "peers": {"peer": 4.5}}
    path.write_text(json.dumps(report))
    result = run_benchmarks("tokenizer", "--against", str(path))
    assert result.exit_code == 0, result.output
    assert re.search(r"1 x 1 s.*2\.0 ms.*5\.0 ms.*2\.50.*peer 1\.50", result.output)

    report["machine"]["instruction_sets"] = ["amx_int8"]
    path.write_text(json.dumps(report))
    result = run_benchmarks("tokenizer", "--against", str(path))
    assert result.exit_code == 2
    assert "of another machine (instruction_sets ['amx_int8'], here" in " ".join(
        re.sub("[│╭╰─]", "", result.output).split()
    )


def test_precisions_that_the_cpu_emulates_are_measured_only_if_asked_for(monkeypatch):
    asked = []
    monkeypatch.setitem(PARTS, "tokenizer", lambda options: asked.append(options.precisions) or iter(()))
    monkeypatch.setattr("benchmarks.__main__.is_emulated", lambda dtype, device: dtype != torch.float32)
    for words in ([], ["--full"], ["--precision", "bf16"]):
        assert run_benchmarks("tokenizer", *words).exit_code == 0
    assert asked == [("fp32",), ("fp32",), ("bf16",)]


def test_published_accuracy_is_drawn_against_time(tmp_path):
    names = {"ours": 400.0, "AST": 900.0, "CED-tiny": 60.0}
    details = {f"mAP, {name}": PUBLISHED_MAP[name] for name in names}
    row = Row(
        "published", "1 x 10 s, fp32", 400.0, {name: names[name] for name in ("AST", "CED-tiny")}, details=details
    )
    (panel,) = draw_published(row, MACHINE).axes
    points = [tuple(points.get_offsets()[0]) for points in panel.collections]
    assert points == [(milliseconds, PUBLISHED_MAP[name]) for name, milliseconds in names.items()]
    write(tmp_path, [row], MACHINE, {})
    assert Image.open(tmp_path / "published.png").size[0] > 500


@pytest.mark.slow
def test_one_layer_is_compared_in_all_precisions_and_trained_in_two_processes():
    words = ["--layers", "1", "--seconds", "1", "--batch-size", "1", "--repeats", "1", "--precision", "fp32"]
    others = ["--precision", "bf16", "--precision", "fp16", "--implementation", "sdpa"]
    result = run_benchmarks("parity", *words, *others)
    assert result.exit_code == 0, result.output
    ratios = re.findall(r"1 x 1 s, (\w+).*allowed.*│ +([\d.]+) │", result.output)
    assert [name for name, _ in ratios] == ["fbank", "fp32", "bf16", "fp16"]
    assert all(float(ratio) > 1 for _, ratio in ratios)
    result = run_benchmarks("processes", *words)
    assert result.exit_code == 0, result.output
    assert "2 x 1 x 1 s, fp32" in result.output


# Stages: each finds a row, or is stopped, or fails before it finds one, or finds one and fails.
STAND_IN = """#!/bin/sh
[ "$2" = benchmarks ] || exec {python} "$@"
while [ "$1" != --output ]; do part=$part-$1; shift; done
row='{{"part": "x", "setting": "'$part'", "ours": 2.0, "peers": {{"peer": 3.0}}, "unit": "ms", "roofline": 0.5'
row=$row', "details": {{"loss": 7.1}}, "ratios": {{"peer": 1.5}}}}'
case $part in *-fbank-*) exit 1 ;; *-inference-*) exit 124 ;; esac
printf '{{"machine": %s, "rows": [%s]}}' '{machine}' "$row" >"$2/benchmark.json"
case $part in *-processes-*) exit 1 ;; esac
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
def test_the_gpu_script_goes_to_its_end_whatever_a_stage_does(tmp_path):
    python = tmp_path / "python"
    python.write_text(STAND_IN.format(python=sys.executable, machine=json.dumps(MACHINE)))
    python.chmod(0o755)
    output = tmp_path / "a folder"
    script = Path(measuring.__file__).parent / "gpu.sh"
    result = subprocess.run(
        [script, "--rehearse", output], env=os.environ | {"PYTHON": str(python)}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    report = json.loads((output / "gpu.json").read_text())
    ended = {stage["stage"]: (stage["ended"], len(stage["rows"])) for stage in report["stages"]}
    assert ended == {
        "parity": ("finished", 1),
        "front-end": ("failed (1)", 0),
        "inference": ("stopped at its limit", 0),
        "pretraining-base": ("finished", 1),
        "pretraining-large": ("finished", 1),
        "attention": ("finished", 1),
        "compile": ("finished", 1),
        "processes": ("failed (1)", 1),
    }
    assert "--layers-1" in report["stages"][0]["rows"][0]["setting"]
    assert report["machine"] == MACHINE
    table = (output / "gpu.md").read_text()
    assert table == result.stdout
    assert "| inference |  | stopped at its limit |" in table
    assert "| 2.0 ms | peer | 3.0 ms | 1.50 | 50% | loss 7.1 |" in table


def test_an_hour_of_audio_is_made_once(tmp_path):
    folder = tmp_path / "recordings"
    an_hour_of_audio.write_recordings(folder, 65)
    infos = [soundfile.info(path) for path in sorted(folder.iterdir())]
    assert [(info.duration, info.samplerate) for info in infos] == [(60.0, 16000), (5.0, 16000)]
    state = [path.stat().st_mtime_ns for path in sorted(folder.iterdir())]
    an_hour_of_audio.write_recordings(folder, 65)
    assert [path.stat().st_mtime_ns for path in sorted(folder.iterdir())] == state


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "wait4"), reason="the system does not tell what a process has used")
def test_an_hour_of_audio_measures_whole_commands(tmp_path):
    app = typer.Typer()
    app.command()(an_hour_of_audio.main)
    arguments = [str(tmp_path), "--seconds", "4", "--layers", "1", "--command", "index-segments"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "index --segments 1" in result.output
    assert len(Index(tmp_path / "output-index-segments-0" / "out")) == 4
    # PyTorch alone takes more than 100 MB.
    assert int(re.search(r"(\d+) MB", result.output)[1]) > 100
    with pytest.raises(typer.Exit):
        an_hour_of_audio.run(["tag", "-m", str(tmp_path / "nowhere"), str(tmp_path)])


def test_rows_of_other_settings_are_not_reused(tmp_path, monkeypatch):
    class StoppedError(Exception):
        pass

    def stop(*args):
        raise StoppedError

    monkeypatch.setattr(codes_ablation, "make_teacher", stop)
    for _ in range(2):
        with pytest.raises(StoppedError):
            codes_ablation.main("esc10", tmp_path / "out", 200, 100, 0, 0)
    with pytest.raises(UsageError, match=r"begun with another `seed` \(0, now 1\)"):
        codes_ablation.main("esc10", tmp_path / "out", 200, 100, 1, 0)


# Anomalous sounds


def make_clips(groups: list[str], num_train: int) -> list[anomalies.Clip]:
    """Clips without audio: training clips of each group and domain, and tests that are normal or have a defect."""
    clips = []
    for group in groups:
        for domain in ("source", "target"):
            clips += [anomalies.Clip(None, group, domain, "train", None)] * num_train
            for db in (None, *anomalies.DEFECTS_DB):
                clips += [anomalies.Clip(None, group, domain, "test", db)] * 5
    return clips


def test_defects_that_move_vectors_are_found_and_normal_clips_are_not():
    generator, clips = np.random.default_rng(0), make_clips(["fan 0", "fan 1"], 20)
    vectors = generator.normal(size=(len(clips), 1, 2, 6)).astype(np.float32)
    vectors[[clip.defect_db == -6 for clip in clips]] += 9
    for by_domain in (True, False):
        settings = DetectorSettings((0,), backend="mahalanobis")
        found = anomalies.measure_machines(clips, vectors, settings, by_domain)
        assert found["-6"] == [1.0, 1.0]
        assert max(found["-18"]) < 0.8
        assert np.mean(found["false alarms, source"]) <= 0.3


def test_a_class_is_told_from_the_others():
    generator = np.random.default_rng(0)
    clips = [
        anomalies.Clip(None, group, "", split, None)
        for group in ("dog", "rain", "clock")
        for split in ["train"] * 6 + ["test"] * 4
    ]
    vectors = generator.normal(size=(len(clips), 1, 1, 5)).astype(np.float32)
    for number, group in enumerate(("dog", "rain", "clock")):
        vectors[[clip.group == group for clip in clips], ..., number] += 20
    assert anomalies.measure_esc10(clips, vectors, DetectorSettings((0,))) == {"auc": [1.0, 1.0, 1.0]}


def test_rows_change_one_thing_at_a_time():
    rows = list(anomalies.rows_of("model", 4))
    assert len({name for name, *_ in rows}) == len(rows) == 2 * (16 + 12)
    assert {place for _, place, *_ in rows} == {0, 1}
    assert [settings.pooling for _, _, settings, _ in anomalies.rows_of("log-mel statistics", 0)] == ["mean"] * 16


def test_intervals_hold_their_means():
    assert anomalies.interval([0.5, 0.5]) == "50.0"
    mean, low, high = map(float, re.findall(r"[\d.]+", anomalies.interval([0.5, 0.6, 0.7, 0.9])))
    assert low < mean == 67.5 < high


def test_differences_of_iterations_are_those_of_the_units_that_have_both_models(capsys):
    def unit(**shares: float) -> dict:
        names = {"random": "random weights", "first": "iteration 1", "k_means": "k-means"}
        return {names[name]: {"right": {"way": [share] * 40 + [0.0] * 40}} for name, share in shares.items()}

    rows = {(fold, seed): unit(random=0.5, first=0.8) for fold in range(1, 6) for seed in (0, 1)}
    rows |= {(fold, 1): unit(random=0.5, first=1.0, k_means=0.6) for fold in range(1, 6)}
    # The first fold of a seed that is not complete.
    rows[1, 2] = unit(random=0.0, first=0.0, k_means=1.0)
    iterations_esc10.print_tables(rows, {"way": "a way"}, "Accuracy")
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    lines = {line[0]: line[2:] for line in cells if len(line) == 4}
    assert lines["random weights"] == ["[0, 1]", "25.0%"]
    assert lines["iteration 1"] == ["[0, 1]", "45.0%"]
    assert lines["k-means"] == ["[1]", "30.0%"]
    seeds, difference = lines["k-means - iteration 1"]
    assert seeds == "[1]"
    assert re.fullmatch(r"-20\.0 \(-2\d\.\d to -1\d\.\d\)", difference)
    assert "k-means, again" not in lines


def test_the_share_of_a_gain_is_that_of_distillation(tmp_path, capsys):
    clips = [f"{number}.wav" for number in range(100)]

    def row(num_right: int) -> dict[int, dict]:
        right = dict(zip(clips, [1] * num_right + [0] * (100 - num_right)))
        return {fold: {"parameters": 1000, "right": right} for fold in (1, 2)}

    rows = {"teacher": row(90), "fast alone": row(50), "fast distilled": {1: row(80)[1]}}
    means = distillation_esc10.print_table(rows, {"teacher": 12.0, "fast": 3.0})
    # On the fold that all have.
    assert means == pytest.approx({"teacher": 0.9, "fast alone": 0.5, "fast distilled": 0.8})
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if "fast distilled" in line)
    assert "│ 80.0 (" in line
    assert line.split("│")[-2].strip() == "80.0"
    assert "+30.0 (+" in line
    assert "75.0 (" in line
    assert "differ in more than the teacher: a quarter of its clips are synthesised" in " ".join(printed.split())
    distillation_esc10.draw(means, {"teacher": 12.0, "fast": 3.0}, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 0


@pytest.mark.parametrize("times", [{"teacher": 12.0, "fast": 3.0}, {"teacher": 12.0}, {}])
def test_models_that_were_not_timed_are_not_drawn(tmp_path, monkeypatch, times):
    drawn = []
    monkeypatch.setattr(distillation_esc10, "save_figure", lambda figure, path: drawn.append(figure))
    means = {"teacher": 0.9, "fast alone": 0.5, "third alone": 0.6, "third distilled": 0.8}
    distillation_esc10.draw(means, times, tmp_path / "curve.png")
    points = [point for line in drawn[0].axes[0].lines for point in zip(*line.get_data())]
    expected = {"teacher": (12.0, 90.0), "fast": (3.0, 50.0)}
    assert sorted(points) == sorted(expected[name] for name in times)


def test_times_are_those_of_all_models_on_this_machine(tmp_path, monkeypatch):
    machine = {"cpu": "a CPU", "threads": 1, "load": 0.0}
    measured = []

    def time_models(calls, repeats, device):
        measured.append(sorted(calls))
        return dict.fromkeys(calls, 0.002)

    monkeypatch.setattr(distillation_esc10, "describe_machine", lambda device: dict(machine))
    monkeypatch.setattr(distillation_esc10, "classify", lambda place, clip: place)
    monkeypatch.setattr(distillation_esc10, "time_alternately", time_models)

    def read_times() -> list[list[str]]:
        """Returns which models are timed now, in turns."""
        measured.clear()
        row = distillation_esc10.read_times(tmp_path / "times.json", tmp_path, distillation_esc10.STEPS)
        assert row["machine"]["threads"] == machine["threads"]
        return list(measured)

    with pytest.raises(typer.BadParameter, match="there are no models of fold 1"):
        read_times()
    for place in ("teacher/fold-1", "fast-distilled/fold-1", "third-distilled/fold-2"):
        (tmp_path / place).mkdir(parents=True)
    assert read_times() == [["fast", "teacher"]]
    machine["load"] = 1.0
    assert read_times() == []
    (tmp_path / "third-distilled" / "fold-1").mkdir()
    assert read_times() == [["fast", "teacher", "third"]]
    for name, value in (("threads", 2), ("cpu", "another CPU")):
        machine[name] = value
        assert read_times() == [["fast", "teacher", "third"]]
        assert read_times() == []
    # The same times, while a model is not there.
    (tmp_path / "third-distilled" / "fold-1").rmdir()
    assert read_times() == []


def test_a_picture_needs_times(tmp_path):
    with pytest.raises(typer.BadParameter, match="--picture needs the times of models"):
        distillation_esc10.main(rows=tmp_path / "rows", folds="", picture=tmp_path / "curve.png")
    assert not (tmp_path / "rows").exists()


def test_synthesised_clips_of_a_distillation_have_a_fold_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(distillation_esc10, "NUM_SYNTHESISED", 2)
    folder = distillation_esc10.make_sounds(tmp_path / "sounds")
    assert (folder / "metadata.csv").read_text() == "file_name,fold\n000.wav,0\n001.wav,0\n"
    assert soundfile.info(folder / "001.wav").duration == 5


def test_events_are_compared_on_the_same_draws(capsys):
    rows, generator = {}, np.random.default_rng(0)
    common = generator.normal(0, 0.1, 1000)
    for head, level in (("mean", 0.3), ("sequence", 0.4)):
        for seed in events_esc10.SEEDS:
            metrics = {"collar_f1": level + 0.01 * seed, "segment_f1": level, "psds1": level}
            draws = dict.fromkeys(events_esc10.F1, level + common)
            rows[head, seed] = {name: {"metrics": metrics, "draws": draws} for name in events_esc10.FILTERS}
    # One seed of a head is no row.
    rows["concat", 0] = rows["mean", 0]
    lines = events_esc10.summarise(rows)
    assert [(line["head"], line["filters"]) for line in lines[:2]] == [("mean", "none"), ("sequence", "none")]
    assert lines[0]["collar_f1"]["mean"] == pytest.approx(0.31)
    assert lines[0]["collar_f1"]["interval_of_difference"] is None
    # The draws have the same clips: their spread is no part of the difference.
    assert lines[1]["collar_f1"]["interval_of_difference"] == pytest.approx((0.1, 0.1))
    low, high = lines[1]["segment_f1"]["interval"]
    assert high - low > 0.3
    events_esc10.print_summary(lines)
    assert "+10.0 to +10.0" in capsys.readouterr().out


def test_windows_of_events_are_compared_on_the_same_draws(capsys):
    common, rows = np.random.default_rng(0).normal(0, 0.1, 1000), {}
    for window, level in ((5.0, 0.4), (0.64, 0.3)):
        metrics = dict.fromkeys(("collar_f1", "segment_f1", "psds1"), level)
        kind = {
            "metrics": metrics,
            "intervals": dict.fromkeys(events_esc10.F1, (level - 0.2, level + 0.2)),
            "draws": dict.fromkeys(events_esc10.F1, level + common),
        }
        rows[window] = {"own": kind, "fixed": kind}
    event_windows.print_rows(rows)
    lines = [" ".join(line.replace("│", " ").split()) for line in capsys.readouterr().out.splitlines()]
    assert any(line.startswith("0.64 s 5 s 30.0 10.0 to 50.0 -10.0 to -10.0") for line in lines)
    assert any(line.startswith("5 s this length 40.0 20.0 to 60.0 40.0 20.0 to 60.0") for line in lines)


@reads_proc
def test_archives_lists_names_in_a_fresh_process(tmp_path):
    for index in range(30):
        (tmp_path / f"{index}.wav").touch()
    table = Table("files", "time of listing", "memory a file", "peak a file")
    archives.list_names(tmp_path, table)
    assert list(table.columns[0].cells) == ["30"]


def test_archives_writes_long_recordings_once(tmp_path):
    path = tmp_path / "long.flac"
    archives.write_long(path, 1.1)
    state = path.stat().st_mtime_ns
    assert soundfile.info(path).duration == pytest.approx(66)
    archives.write_long(path, 1.1)
    assert path.stat().st_mtime_ns == state
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture(scope="module")
def small_archive(tmp_path_factory):
    """Small models and a recording of three seconds."""
    work = tmp_path_factory.mktemp("work")
    archives.write_long(work / "long.flac", 0.05)
    with pytest.MonkeyPatch.context() as patch:
        # In this process, which has imported all that takes seconds.
        patch.setattr(sys, "argv", ["-c", str(work / "tiny")])
        exec(archives.MAKE_TINY, {})
    result = CliRunner().invoke(transformers_beats_app, [*archives.words_of_fit(work / "tiny"), "--quiet"])
    assert result.exit_code == 0, result.output
    return work / "tiny", work / "long.flac"


@pytest.mark.parametrize("choice", archives.LONG)
def test_archives_names_commands_that_run(small_archive, tmp_path, choice):
    words = archives.words_of_long(choice, *small_archive, tmp_path, 0)
    result = CliRunner().invoke(transformers_beats_app, [*words, "--quiet"])
    assert result.exit_code == 0, (result.output, result.exception)
    assert len(list(tmp_path.iterdir())) > 0 or choice == "listen"


@reads_proc
def test_archives_waits_for_the_first_result(tmp_path, monkeypatch):
    program = "import sys, time; open(sys.argv[1], 'w').write('x'); time.sleep(60)"
    make = subprocess.Popen
    monkeypatch.setattr(
        archives.subprocess, "Popen", lambda words: make([sys.executable, "-c", program, str(tmp_path / words[-2])])
    )
    first, peak, last = archives.start_command(["out.txt"], tmp_path, "*.txt", 0.2)
    assert 0 < first < 60
    assert 10**6 < peak <= last
    program = "import sys; sys.exit(3)"
    with pytest.raises(SystemExit, match="ended with status 3"):
        archives.start_command(["other.txt"], tmp_path, "other.txt", 0.2)


@pytest.mark.slow
def test_listening_finds_the_events_of_the_whole(models, tmp_path):
    app = typer.Typer()
    app.command()(listening.main)
    words = [tmp_path, "--model", models / "beats_tiny_finetuned", "--seconds", 20, "--speed", 5, "--threshold", 0.19]
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 0, result.output
    assert "lost 0, doubled or other 0" in " ".join(result.output.split())
