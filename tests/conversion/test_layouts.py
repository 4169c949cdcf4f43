# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Files that hold a BEATs model in another layout than Microsoft's, made from the golden checkpoints."""

import argparse
import json
from pathlib import Path

import pytest
import torch
import yaml
from golden import FIXTURES
from safetensors.torch import save_file

from transformers_beats import (
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsForAudioFrameClassification,
)
from transformers_beats.conversion import checkpoint, layouts, settings
from transformers_beats.conversion.checkpoint import CheckpointError, read_checkpoint
from transformers_beats.conversion.convert import convert
from transformers_beats.export.to_microsoft import export
from transformers_beats.utils.errors import BeatsError
from transformers_beats.verification.plain import PlainBeats, plain_features


MAPPINGS = Path("/proc/self/maps")


def golden(name: str) -> dict:
    return torch.load(FIXTURES / f"{name}.pt", weights_only=True)


def under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}{key}": tensor for key, tensor in tensors.items()}


def without_copies(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Without the layers' copies of the relative bias, which safetensors' `save_model` writes once."""
    shared = "self_attn.relative_attention_bias"
    return {key: tensor for key, tensor in tensors.items() if shared not in key or "layers.0." in key}


@pytest.fixture
def encoder() -> dict[str, torch.Tensor]:
    """The encoder of the golden checkpoint with a head, without that head."""
    tensors = golden("beats_tiny_finetuned")["model"]
    return {key: tensor for key, tensor in tensors.items() if not key.startswith("predictor.")}


@pytest.fixture
def head() -> dict[str, torch.Tensor]:
    """The head of that checkpoint: `weight` and `bias`."""
    tensors = golden("beats_tiny_finetuned")["model"]
    return {kind: tensors[f"predictor.{kind}"] for kind in ("weight", "bias")}


@pytest.fixture
def released_is_tiny(monkeypatch):
    """As if Microsoft had released models of the golden checkpoints' size."""
    sizes = golden("beats_tiny_finetuned")["cfg"] | {"quant_n": 64, "quant_dim": 16}
    released = {key: sizes[key] for key in settings.RELEASED}
    for module in (checkpoint, layouts, settings):
        monkeypatch.setattr(module, "RELEASED", released)


@pytest.fixture
def write(tmp_path):
    """Writes a file and returns its path."""

    def write(contents, name="model.pt"):
        path = tmp_path / name
        if path.suffix == ".safetensors":
            save_file(without_copies(contents), path)
        elif path.suffix == ".json":
            path.write_text(json.dumps(contents))
        elif path.suffix in (".yaml", ".yml"):
            path.write_text(yaml.safe_dump(contents))
        else:
            torch.save(contents, path)
        return path

    return write


@pytest.fixture
def assert_golden(golden_model, extract):
    """That a checkpoint computes what the golden one does."""

    @torch.no_grad()
    def check(checkpoint, name="beats_tiny_finetuned"):
        expected = golden_model(name)
        model = checkpoint.build_model()
        if checkpoint.kind == "pretrained":
            expected = getattr(expected, "beats", expected)
        for actual, wanted in zip(model(**extract(0)).to_tuple(), expected(**extract(0)).to_tuple()):
            assert torch.equal(actual, wanted)

    return check


def notes_about(checkpoint, *words: str) -> list[str]:
    return [note for note in checkpoint.notes if all(word in note for word in words)]


FBANK_OF_AVEX = {"fbank.window": torch.ones(400), "fbank.mel_fb": torch.ones(257, 128)}


@pytest.mark.usefixtures("released_is_tiny")
def test_avex_files_convert_with_their_classifier(encoder, head, write, assert_golden):
    stale = {"predictor.weight": torch.ones(527, 64), "predictor.bias": torch.ones(527)}
    tensors = under("backbone.", encoder | FBANK_OF_AVEX | stale) | under("classifier.", head)
    checkpoint = read_checkpoint(write(tensors, "model.safetensors"))
    assert (checkpoint.origin, checkpoint.kind) == ("avex", "finetuned")
    assert_golden(checkpoint)
    assert notes_about(checkpoint, "deep_norm=True", "max_distance=80", "released models was assumed")
    assert notes_about(checkpoint, "left out 2 tensors", "`backbone.predictor` (2)")


@pytest.mark.usefixtures("released_is_tiny")
def test_avex_encoders_convert_without_the_head_that_they_began_from(encoder, head, write, assert_golden):
    tensors = under("backbone.", encoder | FBANK_OF_AVEX | under("predictor.", head))
    checkpoint = read_checkpoint(write(tensors, "model.safetensors"))
    assert checkpoint.kind == "pretrained"
    assert_golden(checkpoint)


@pytest.mark.usefixtures("released_is_tiny")
def test_avex_files_with_another_filter_bank_are_refused(encoder, write):
    tensors = under("backbone.", encoder | FBANK_OF_AVEX | {"fbank.window": torch.ones(800)})
    with pytest.raises(CheckpointError, match=r"`fbank\.window` has shape \(800,\)"):
        read_checkpoint(write(tensors))


def test_settings_come_from_the_description_of_an_avex_model(encoder, head, write, assert_golden):
    front_end = {"sample_frequency": 16000.0, "num_mel_bins": 128, "fbank_mean": 15.41663, "fbank_std": 6.55582}
    settings = {"model_spec": {"name": "beats", "init_config": golden("beats_tiny_finetuned")["cfg"] | front_end}}
    path = write(under("backbone.", encoder) | under("classifier.", head), "model.safetensors")
    checkpoint = read_checkpoint(path, "avex", [write(settings, "model.yml")])
    assert checkpoint.kind == "finetuned"
    assert_golden(checkpoint)
    assert notes_about(checkpoint, "taken from model.yml")
    assert not notes_about(checkpoint, "assumed")
    assert not notes_about(checkpoint, "without a meaning here")


@pytest.mark.usefixtures("released_is_tiny")
@torch.no_grad()
def test_a_head_on_the_patches_of_a_column_makes_an_event_classifier(encoder, write, extract, tmp_path):
    """As avex trained one: the eight patches of 160 ms side by side, low frequencies first."""
    weight, bias = torch.randn(7, 8 * 64), torch.randn(7)
    tensors = under("encoder._model.backbone.", encoder | FBANK_OF_AVEX)
    names = write({f"species {index}": index for index in range(7)}, "label_map.json")
    checkpoint = convert(
        write(tensors | under("head.", {"weight": weight, "bias": bias})), tmp_path / "out", labels=names
    )
    assert notes_about(checkpoint, "classification head is `head.`")
    assert notes_about(checkpoint, "low to high frequencies", "is assumed")
    model = BeatsForAudioFrameClassification.from_pretrained(tmp_path / "out").eval()
    assert model.config.id2label[6] == "species 6"
    outputs = model(**extract(0))
    patches = model.beats(**extract(0)).last_hidden_state[0]
    expected = torch.stack([weight @ column.flatten() + bias for column in patches.split(8)])
    torch.testing.assert_close(outputs.logits[0], expected, atol=5e-5, rtol=1e-5)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "AutoModelForAudioFrameClassification.from_pretrained" in card
    with pytest.raises(CheckpointError, match="FrameClassification, which Microsoft's layout has no place"):
        export(str(tmp_path / "out"), tmp_path / "back.pt")


@pytest.mark.parametrize(
    "others",
    [
        {"head.weight": torch.ones(7, 500), "head.bias": torch.ones(7)},
        {"head.weight": torch.ones(7, 512)},
        {"head.weight": torch.ones(7, 512), "head.bias": torch.ones(7), "rnn.weight": torch.ones(3, 3)},
    ],
    ids=["width", "no bias", "another layer"],
)
@pytest.mark.usefixtures("released_is_tiny")
def test_layers_that_may_be_something_else_make_no_event_classifier(others, encoder, write):
    checkpoint = read_checkpoint(write(under("backbone.", encoder | FBANK_OF_AVEX) | others))
    assert checkpoint.kind == "pretrained"
    assert notes_about(checkpoint, "left out", "`head`")


@pytest.mark.usefixtures("released_is_tiny")
def test_avex_labels_come_from_its_label_map(encoder, head, write):
    tensors = under("backbone.", encoder | FBANK_OF_AVEX) | under("classifier.", head)
    names = {"Turdus merula": 1, "Parus major": 0, "Rana": 2, "Bos taurus": 3, "Apis": 5, "Canis lupus": 4}
    checkpoint = read_checkpoint(write(tensors, "model.safetensors"), labels=write(names, "label_map.json"))
    assert checkpoint.config.id2label[1] == "Turdus merula"
    assert checkpoint.config.label2id == names


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"a": 0, "b": 0}, "several classes the same index"),
        ({"a": "first"}, "names of classes with their indices"),
        ({"a": 0, "b": 1}, "must name the classes 0 to 5"),
    ],
)
@pytest.mark.usefixtures("released_is_tiny")
def test_label_maps_that_are_none_are_refused(names, message, encoder, head, write):
    tensors = under("backbone.", encoder | FBANK_OF_AVEX) | under("classifier.", head)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(write(tensors), labels=write(names, "label_map.json"))


def sed_heads(
    num_labels: int = 447, num_weak: int | None = None, width: int = 64, rnn: torch.nn.Module | None = None
) -> dict[str, torch.Tensor]:
    """Heads of PretrainedSED, of so many classes, also behind a recurrent layer."""
    generator = torch.Generator().manual_seed(0)
    counts = {"strong_head": num_labels, "weak_head": num_labels if num_weak is None else num_weak}
    size = width**-0.5
    weights = {
        f"{name}.weight": size * torch.randn(count, width, generator=generator) for name, count in counts.items()
    }
    weights |= {f"{name}.bias": torch.randn(count, generator=generator) for name, count in counts.items()}
    return weights if rnn is None else weights | under("seq_model.rnn.", rnn.state_dict())


def sed_steps(contents: dict, waveform: torch.Tensor, rnn: torch.nn.Module | None = None) -> torch.Tensor:
    """
    States `(250, width)` that the heads of PretrainedSED's `PredictionsWrapper` read, for up to 10 s: padded with
    zeros, without a mask; the sequence of patches pooled to 250 steps; a recurrent layer. On the plain encoder.
    """
    waveform = torch.nn.functional.pad(waveform, (0, 160_000 - len(waveform)))
    states = PlainBeats(contents["cfg"], contents["model"]).encode(plain_features([waveform]))
    assert states.shape[1] == 496
    steps = torch.nn.functional.adaptive_avg_pool1d(states.transpose(1, 2), 250).transpose(1, 2)
    return steps[0] if rnn is None else rnn(steps)[0][0]


def sed_forward(contents: dict, heads: dict[str, torch.Tensor], waveform: torch.Tensor) -> torch.Tensor:
    """Scores `(250, num_labels)` of `strong_head`: a linear layer and a sigmoid."""
    steps = sed_steps(contents, waveform)
    return (steps @ heads["strong_head.weight"].T + heads["strong_head.bias"]).sigmoid()


@pytest.mark.usefixtures("released_is_tiny")
@pytest.mark.parametrize("root", ["", "model."])
@pytest.mark.parametrize("name", ["model", "beats"])
@torch.no_grad()
def test_pretrained_sed_files_convert_with_their_head_for_events(root, name, encoder, write, tmp_path):
    heads = sed_heads()
    checkpoint = convert(write(under(f"{root}model.{name}.", encoder) | under(root, heads)), tmp_path / "out")
    assert (checkpoint.origin, checkpoint.kind) == ("pretrained-sed", "event-classifier")
    assert notes_about(checkpoint, f"the classification head is `{root}strong_head.`")
    assert notes_about(checkpoint, "left out 2 tensors", f"`{root}weak_head` (2)")
    assert notes_about(checkpoint, "activation_fn=gelu", "deep_norm=True", "layer_norm_first=False")
    assert not notes_about(checkpoint, "AudioSet does not have")
    model = BeatsForAudioFrameClassification.from_pretrained(tmp_path / "out").eval()
    config = model.config
    assert (config.frame_pooling, config.frames_per_second, config.num_labels) == ("sequence", 25, 447)
    assert (config.problem_type, config.id2label[446]) == ("multi_label_classification", "Zipper (clothing)")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "classifies every 40 ms" in card
    assert "# (1, steps of 40 ms, 447)" in card
    assert "160 ms" not in card

    extractor = BeatsFeatureExtractor.from_pretrained(tmp_path / "out")
    clip = 0.1 * torch.randn(160_000, generator=torch.Generator().manual_seed(1))
    contents = golden("beats_tiny_finetuned")

    def scores(waveform):
        return model(**extractor(waveform, sampling_rate=16000, return_tensors="pt")).logits[0].sigmoid()

    torch.testing.assert_close(scores(clip), sed_forward(contents, heads, clip), atol=1e-5, rtol=0)
    # Shorter clips are as there if they are padded as there. Alone, they have the steps of their own length.
    short = clip[:70_000]
    padded = torch.nn.functional.pad(short, (0, 90_000))
    theirs = sed_forward(contents, heads, short)
    torch.testing.assert_close(scores(padded), theirs, atol=1e-5, rtol=0)
    assert scores(short).shape == (109, 447)
    assert (scores(short) - theirs[:109]).abs().max() > 1e-3


@pytest.mark.usefixtures("released_is_tiny")
def test_heads_of_other_classes_have_no_names_unless_they_are_given(encoder, write):
    path = write(under("model.beats.", encoder) | sed_heads(3))
    checkpoint = read_checkpoint(path)
    assert checkpoint.kind == "event-classifier"
    assert notes_about(checkpoint, "the classes have no names")
    assert notes_about(checkpoint, "nothing in the file says whether `strong_head` was trained")
    labels = write({"speech": 1, "dog": 0, "cat": 2}, "labels.json")
    assert read_checkpoint(path, labels=labels).config.id2label == {0: "dog", 1: "speech", 2: "cat"}


@pytest.mark.usefixtures("released_is_tiny")
@pytest.mark.parametrize(
    ("heads", "reason"),
    [
        (sed_heads(rnn=torch.nn.LSTM(64, 32, bidirectional=True)), "`seq_model`, which is no bidirectional GRU"),
        (sed_heads(rnn=torch.nn.GRU(64, 64)), "`seq_model`, which is no bidirectional GRU"),
        (sed_heads() | {"seq_model.rnn.weight_ih_l999999999": torch.ones(3, 64)}, "`seq_model`, which is no"),
        (sed_heads(447, 527), "`strong_head` has 447 classes and `weak_head` 527"),
        (sed_heads(527), "`strong_head` has the 527 classes of AudioSet's clips"),
        (
            {"weak_head.weight": torch.ones(527, 64), "weak_head.bias": torch.ones(527)},
            "`weak_head`, the only one, was",
        ),
        ({"strong_head.weight": torch.ones(447, 64)}, "`strong_head` has no bias"),
    ],
    ids=["LSTM", "one direction", "a damaged GRU", "weak", "of clips", "weak alone", "no bias"],
)
def test_other_heads_of_pretrained_sed_are_left_out_with_the_reason(heads, reason, encoder, write, assert_golden):
    checkpoint = read_checkpoint(write(under("model.model.", encoder) | heads))
    assert (checkpoint.origin, checkpoint.kind) == ("pretrained-sed", "pretrained")
    assert_golden(checkpoint)
    assert notes_about(checkpoint, f"left out {len(heads)} tensors", "no head, because", reason)


@pytest.mark.usefixtures("released_is_tiny")
@pytest.mark.parametrize(
    ("choice", "depth", "root"),
    [
        *(("auto", 2, ""), ("strong", 2, "model."), ("weak", 0, "")),
        *(("weak", 2, ""), ("attention", 0, "model."), ("attention", 2, "model.")),
    ],
)
@torch.no_grad()
def test_every_head_of_pretrained_sed_is_that_of_the_published_forward_pass(
    choice, depth, root, encoder, write, tmp_path
):
    torch.manual_seed(0)
    rnn = torch.nn.GRU(64, 20, depth, batch_first=True, bidirectional=True) if depth else None
    heads = sed_heads(447, width=40 if depth else 64, rnn=rnn)
    source = write(under(f"{root}model.beats.", encoder) | under(root, heads))
    checkpoint = convert(source, tmp_path / "out", head=choice)
    assert bool(notes_about(checkpoint, "`seq_model` became the recurrent layers")) == bool(depth)
    assert checkpoint.config.id2label[446] == "Zipper (clothing)"
    extractor = BeatsFeatureExtractor.from_pretrained(tmp_path / "out")
    clip = 0.1 * torch.randn(160_000, generator=torch.Generator().manual_seed(1))
    inputs = extractor(clip, sampling_rate=16000, return_tensors="pt")
    steps = sed_steps(golden("beats_tiny_finetuned"), clip, rnn)
    strong = (steps @ heads["strong_head.weight"].T + heads["strong_head.bias"]).sigmoid()
    if choice == "weak":
        assert checkpoint.kind == "finetuned"
        assert notes_about(checkpoint, "nothing in the file says whether `weak_head` was trained")
        assert notes_about(checkpoint, "training on AudioSet-Strong does not train `weak_head`")
        scores = BeatsForAudioClassification.from_pretrained(tmp_path / "out").eval()(**inputs).logits.sigmoid()
        weak = steps.mean(dim=0) @ heads["weak_head.weight"].T + heads["weak_head.bias"]
        torch.testing.assert_close(scores[0], weak.sigmoid(), atol=1e-5, rtol=0)
        return
    assert checkpoint.kind == "event-classifier"
    model = BeatsForAudioFrameClassification.from_pretrained(tmp_path / "out").eval()
    torch.testing.assert_close(model(**inputs).logits[0].sigmoid(), strong, atol=1e-5, rtol=0)
    if choice == "attention":
        # The clip's scores of `head_type="attention"`.
        weights = (steps @ heads["weak_head.weight"].T + heads["weak_head.bias"]).softmax(dim=-1).clamp(1e-7, 1)
        weak = (strong * weights).sum(dim=0) / weights.sum(dim=0)
        clips = BeatsForAudioClassification.from_pretrained(tmp_path / "out").eval()
        torch.testing.assert_close(clips(**inputs).logits[0].sigmoid(), weak, atol=1e-5, rtol=0)


@pytest.mark.usefixtures("released_is_tiny")
def test_a_head_for_clips_has_the_classes_of_audioset(encoder, write):
    checkpoint = read_checkpoint(write(under("model.model.", encoder) | sed_heads(447, 527)), head="weak")
    assert (checkpoint.kind, checkpoint.config.frame_pooling) == ("finetuned", "sequence")
    assert (checkpoint.config.num_labels, checkpoint.config.id2label[0]) == (527, "Speech")
    assert notes_about(checkpoint, "the order of AudioSet's class_labels_indices.csv is assumed")
    assert len(notes_about(checkpoint, "nothing in the file says whether `weak_head` was trained")) == 1
    assert not notes_about(checkpoint, "AudioSet-Strong")
    assert notes_about(checkpoint, "left out 2 tensors", "`strong_head` (2)")


@pytest.mark.usefixtures("released_is_tiny")
@pytest.mark.parametrize(
    ("heads", "choice", "message"),
    [
        ({"strong_head.weight": torch.ones(447, 64)}, "strong", "--head strong: `strong_head` has no bias"),
        ({"strong_head.weight": torch.ones(447, 64)}, "weak", "--head weak: `weak_head` has no weight"),
        (sed_heads(3, 4), "attention", "--head attention: `strong_head` has 3 classes and `weak_head` 4"),
        (sed_heads(1), "attention", "--head attention: a softmax over the classes"),
        (sed_heads(rnn=torch.nn.GRU(64, 64)), "strong", "--head strong: it reads the states of `seq_model`"),
        ({"strong_head.weight": torch.tensor(1.0), "strong_head.bias": torch.ones(1)}, "strong", "is no matrix"),
    ],
)
def test_a_head_that_is_not_there_is_refused(heads, choice, message, encoder, write):
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(write(under("model.model.", encoder) | heads), head=choice)


def test_a_head_of_another_project_is_refused(write):
    with pytest.raises(
        CheckpointError, match="--head weak is for files of PretrainedSED, and this one is of microsoft"
    ):
        read_checkpoint(write(golden("beats_tiny_finetuned")), head="weak")


@pytest.mark.usefixtures("released_is_tiny")
def test_a_head_of_another_width_is_refused(encoder, write):
    with pytest.raises(CheckpointError, match=r"`classifier.weight` has shape \(447, 128\) in the file, \(447, 64\)"):
        read_checkpoint(write(under("model.model.", encoder) | sed_heads(width=128)))


@pytest.mark.usefixtures("released_is_tiny")
def test_the_architecture_is_assumed_only_on_request(encoder, write, assert_golden):
    path = write(under("model.model.", encoder))
    message = r"nothing states its activation_fn, deep_norm.*--cfg released.*--origin pretrained-sed"
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)
    assert_golden(read_checkpoint(path, "pretrained-sed"))
    checkpoint = read_checkpoint(path, cfg=["released"])
    assert checkpoint.origin == "other"
    assert_golden(checkpoint)
    assert notes_about(checkpoint, "was assumed (as asked for)", "deep_norm=True")


def test_the_assumed_architecture_must_fit_every_shape(encoder, write):
    with pytest.raises(CheckpointError, match=r"released models does not fit: .*3 layers, `cfg` 12"):
        read_checkpoint(write(encoder, "model.safetensors"), cfg=["released"])


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model._orig_mod.module."])
def test_a_wrapper_alone_changes_nothing(prefix, write):
    contents = golden("beats_tiny_finetuned")
    contents["model"] = under(prefix, contents["model"])
    checkpoint, expected = read_checkpoint(write(contents)), read_checkpoint(FIXTURES / "beats_tiny_finetuned.pt")
    assert (checkpoint.origin, checkpoint.notes) == ("microsoft", [])
    assert checkpoint.config.to_dict() == expected.config.to_dict()
    assert all(torch.equal(tensor, expected.state_dict[name]) for name, tensor in checkpoint.state_dict.items())


def test_lightning_files_convert_with_the_settings_of_another_file(encoder, head, write, assert_golden):
    state_dict = under("model.beats.", encoder) | under("model.head.", head) | {"loss.pos_weight": torch.ones(6)}
    state_dict["model.norm.num_batches_tracked"] = torch.tensor(3)
    path = write({"state_dict": state_dict, "hyper_parameters": {"lr": 0.1}, "epoch": 3}, "last.ckpt")
    checkpoint = read_checkpoint(path, cfg=[FIXTURES / "beats_tiny_finetuned.pt"])
    assert (checkpoint.origin, checkpoint.kind) == ("other", "pretrained")
    assert_golden(checkpoint)
    assert notes_about(checkpoint, "left out 4 tensors", "`model.head` (2)", "`loss` (1)", "`model.norm` (1)")
    assert notes_about(checkpoint, "taken from beats_tiny_finetuned.pt")


def test_nothing_is_guessed_where_settings_are_silent(encoder, write):
    settings = golden("beats_tiny_finetuned")["cfg"]
    del settings["deep_norm"]
    with pytest.raises(CheckpointError, match="`cfg` lacks deep_norm"):
        read_checkpoint(write(under("beats.", encoder)), cfg=[write(settings, "settings.yaml")])


@pytest.mark.parametrize(
    ("other", "kind"), [(torch.ones(6), "finetuned"), (torch.ones(10, 64), "pretrained")], ids=["weights", "layer"]
)
def test_a_predictor_counts_unless_another_layer_follows(other, kind, write, assert_golden):
    contents = golden("beats_tiny_finetuned")
    contents["model"] = under("beats.", contents["model"]) | {"other": other}
    checkpoint = read_checkpoint(write(contents))
    assert checkpoint.kind == kind
    assert_golden(checkpoint)
    assert notes_about(checkpoint, "left out", "`other` (1)")


def test_python_objects_in_a_file_are_named(encoder, write):
    path = write({"state_dict": encoder, "hyper_parameters": argparse.Namespace(lr=0.1)})
    with pytest.raises(CheckpointError, match=r"argparse\.Namespace\); loading it could run code.*tensors alone"):
        read_checkpoint(path)


def espnet(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """An encoder as ESPnet names and completes it."""
    pads = {"patch_embedding_pad.weight": torch.ones(1, 1, 16, 16), "raw2fbank_pad.weight": torch.ones(1, 1, 400)}
    tensors = {key.replace("weight_g", "parametrizations.weight.original0"): tensor for key, tensor in tensors.items()}
    return {
        key.replace("weight_v", "parametrizations.weight.original1"): tensor
        for key, tensor in (tensors | pads).items()
    }


def espnet_settings(**changes) -> dict:
    """What `config.yaml` of a classifier says."""
    return {
        "encoder": "beats",
        "encoder_conf": {"beats_config": golden("beats_tiny_finetuned")["cfg"]},
        "decoder": "linear",
        "decoder_conf": {},
        "frontend": None,
        "normalize": None,
        "model_conf": {"classification_type": "multi-class"},
        "token_list": ["dog", "cat", "rain", "wind", "bell", "car", "<blank>", "<unk>"],
    } | changes


@pytest.fixture
def espnet_classifier(encoder, head, write):
    return write(under("encoder.", espnet(encoder)) | under("decoder.linear_out.", head), "valid.acc.best.pth")


def test_espnet_classifiers_convert_with_head_and_labels(espnet_classifier, write, assert_golden):
    checkpoint = read_checkpoint(espnet_classifier, cfg=[write(espnet_settings(), "config.yaml")])
    assert (checkpoint.origin, checkpoint.kind) == ("espnet", "finetuned")
    assert_golden(checkpoint)
    assert checkpoint.config.problem_type == "single_label_classification"
    assert list(checkpoint.config.id2label.values()) == ["dog", "cat", "rain", "wind", "bell", "car"]


def test_settings_of_espnet_tell_its_older_files(encoder, head, write, assert_golden):
    """Those without the constants of its padding mask."""
    path = write(under("encoder.", encoder) | under("decoder.linear_out.", head), "valid.acc.best.pth")
    checkpoint = read_checkpoint(path, cfg=[write(espnet_settings(), "config.yaml")])
    assert (checkpoint.origin, checkpoint.kind) == ("espnet", "finetuned")
    assert_golden(checkpoint)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"decoder_conf": {"pooling": "max"}}, "no linear layer on the mean"),
        ({"normalize": "utterance_mvn"}, "the audio goes through normalize first"),
    ],
)
def test_heads_of_espnet_that_compute_something_else_are_left_out(
    changes, reason, espnet_classifier, write, assert_golden
):
    checkpoint = read_checkpoint(espnet_classifier, cfg=[write(espnet_settings(**changes), "config.yaml")])
    assert checkpoint.kind == "pretrained"
    assert_golden(checkpoint)
    assert notes_about(checkpoint, "`decoder` (2)", reason)


def test_the_base_of_an_espnet_model_states_the_architecture(espnet_classifier, write, assert_golden):
    tuned = write(espnet_settings(encoder_conf={"beats_ckpt_path": "/data/base.pt", "fbank_std": 5.9}), "config.yaml")
    with pytest.raises(CheckpointError, match=r"was built from /data/base\.pt.*--cfg BASE --cfg config\.yaml"):
        read_checkpoint(espnet_classifier, cfg=[tuned])
    base = write({"encoder_conf": {"beats_config": golden("beats_tiny_finetuned")["cfg"]}}, "base.yaml")
    checkpoint = read_checkpoint(espnet_classifier, cfg=[base, tuned])
    assert_golden(checkpoint)
    assert checkpoint.statistics == {"fbank_std": 5.9}
    assert notes_about(checkpoint, "applied from `encoder_conf`", "fbank_std=5.9")
    assert notes_about(checkpoint, "AudioSet's were written, fbank_mean=15.41663.", "with --fbank-mean")


def base_settings(**changes) -> dict:
    """What `config.yaml` of a pre-training says, which also has a `token_list`: of codes."""
    encoder = {"beats_config": golden("beats_tiny_finetuned")["cfg"], "is_pretraining": True, "fbank_mean": 11.0}
    model = {"model": "beats", "model_conf": {"ignore_id": -2, "label_smoothing": 0.1}}
    return {
        "encoder": "beats",
        "encoder_conf": encoder,
        **model,
        "token_list": [*map(str, range(6)), "<unk>"],
    } | changes


@pytest.mark.parametrize("changes", [{}, {"token_list": None}, {"model_conf": None}, {"model_conf": {}}])
def test_the_settings_of_a_base_say_nothing_about_a_head(changes, espnet_classifier, write, assert_golden):
    checkpoint = read_checkpoint(espnet_classifier, cfg=[write(base_settings(**changes), "config.yaml")])
    assert (checkpoint.origin, checkpoint.kind, checkpoint.statistics) == ("espnet", "pretrained", {})
    assert_golden(checkpoint)
    assert notes_about(checkpoint, "`decoder` (2)", "no head, because only the config.yaml of its training")
    assert notes_about(checkpoint, "of a model without a classifier", "fbank_mean=11.0 were not applied")
    # As with the file of the base, which states no statistics.
    checkpoint = read_checkpoint(espnet_classifier, cfg=[FIXTURES / "beats_tiny_finetuned.pt"])
    assert (checkpoint.kind, checkpoint.statistics) == ("pretrained", {})


@pytest.mark.parametrize("change", [torch.sum, torch.flatten, lambda weight: weight[None]])
def test_a_head_of_espnet_that_is_no_matrix_is_refused(change, encoder, head, write):
    tensors = under("encoder.", espnet(encoder))
    tensors |= under("decoder.linear_out.", head | {"weight": change(head["weight"])})
    with pytest.raises(CheckpointError, match=r"`predictor\.weight` is not a matrix, but has shape"):
        read_checkpoint(write(tensors, "best.pth"), cfg=[write(espnet_settings(), "config.yaml")])


@pytest.mark.parametrize("is_base_last", [True, False])
def test_the_settings_of_a_classifier_count_beside_those_of_its_base(is_base_last, espnet_classifier, write):
    training = espnet_settings()
    training["encoder_conf"]["fbank_std"] = 5.9
    files = [write(base_settings(), "base.yaml"), write(training, "config.yaml")]
    checkpoint = read_checkpoint(espnet_classifier, cfg=files[::-1] if is_base_last else files)
    assert (checkpoint.kind, checkpoint.statistics) == ("finetuned", {"fbank_std": 5.9})


@pytest.mark.parametrize("tokens", [espnet_settings()["token_list"], None, ["another", "list"]])
@pytest.mark.parametrize(
    ("stated", "problem_type", "words"),
    [
        ("multi-class", "single_label_classification", "a softmax as `classification_type` says"),
        ("multi-label", "multi_label_classification", "a sigmoid as `classification_type` says"),
        (None, "single_label_classification", "a softmax by ESPnet's default: no `classification_type` is stated"),
    ],
)
def test_the_loss_of_an_espnet_classifier_is_always_printed(
    stated, problem_type, words, tokens, espnet_classifier, write
):
    model = {} if stated is None else {"classification_type": stated}
    settings = espnet_settings(model_conf=model, token_list=tokens)
    checkpoint = read_checkpoint(espnet_classifier, cfg=[write(settings, "config.yaml")])
    assert checkpoint.config.problem_type == problem_type
    assert notes_about(checkpoint, "6 classes", f"scored by {words}")


@pytest.mark.parametrize("stated", ["multi_label", "regression", ["multi-label"], 3])
def test_another_type_of_classification_is_refused(stated, espnet_classifier, write):
    settings = write(espnet_settings(model_conf={"classification_type": stated}), "config.yaml")
    with pytest.raises(
        CheckpointError, match="expected `classification_type` to be multi-class or multi-label, found"
    ):
        read_checkpoint(espnet_classifier, cfg=[settings])


def test_espnet_encoders_that_stop_early_are_refused(espnet_classifier, write):
    settings = espnet_settings()
    settings["encoder_conf"]["max_layer"] = 1
    with pytest.raises(CheckpointError, match="stops early"):
        read_checkpoint(espnet_classifier, cfg=[write(settings, "config.yaml")])


def test_the_tokenizer_in_an_espnet_training_checkpoint_converts(encoder, write, assert_golden):
    tokenizer = golden("tokenizer_tiny")
    state_dict = under("encoder.", espnet(tokenizer["model"])) | under("teacher.", espnet(encoder))
    state_dict["decoder.decoder_norm.weight"] = torch.ones(64)
    settings = {"encoder_conf": {"tokenizer_config": tokenizer["cfg"]}}
    checkpoint = read_checkpoint(write({"module": state_dict}), cfg=[write(settings, "config.yaml")])
    assert checkpoint.kind == "tokenizer"
    assert_golden(checkpoint, "tokenizer_tiny")
    assert notes_about(checkpoint, "`teacher` (", "`decoder` (1)")


def test_the_export_of_an_espnet_tokenizer_converts(write, assert_golden):
    """`beats_tokenizer_iterN.pt`: what its recipe states, and its tensors."""
    contents = golden("tokenizer_tiny")
    usual = ("input_patch_size", "conv_bias", "activation_fn", "layer_norm_first")
    cfg = {key: value for key, value in contents["cfg"].items() if key not in usual}
    cfg |= {"embed_loss_beta": 10.0, "codebook_vocab_size": 64, "fbank_mean": 15.66439, "fbank_std": 6.38312}
    checkpoint = read_checkpoint(write({"model": espnet(contents["model"]), "cfg": cfg}, "beats_tokenizer_iter1.pt"))
    assert (checkpoint.origin, checkpoint.kind) == ("espnet", "tokenizer")
    assert_golden(checkpoint, "tokenizer_tiny")
    assert notes_about(checkpoint, "not applied", "add --fbank-mean 15.66439 --fbank-std 6.38312")


def test_a_deepspeed_checkpoint_of_pre_training_converts(encoder, write, assert_golden):
    """`mp_rank_00_model_states.pt`: the model under `module`, with the label predictor and other state."""
    state_dict = under("encoder.", espnet(encoder)) | {"decoder.mask_token": torch.zeros(1, 1, 64)}
    contents = {"module": state_dict, "optimizer": None, "global_steps": 400_000, "ds_version": "0.16.4"}
    settings = {"encoder_conf": {"beats_config": golden("beats_tiny_finetuned")["cfg"], "is_pretraining": True}}
    checkpoint = read_checkpoint(
        write(contents, "mp_rank_00_model_states.pt"), cfg=[write(settings, "config.yaml")], **OPENBEATS
    )
    assert (checkpoint.kind, checkpoint.statistics) == ("pretrained", OPENBEATS)
    assert_golden(checkpoint)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("layer_weights", "all layers but the last"),
        ("downsample_conv.weight", "shortens their sequence"),
        ("conformer_adapter.layers.0.weight", "a Conformer"),
        ("cross_embed_positions.weight", "cross-attention"),
    ],
)
def test_parts_of_espnets_encoder_without_a_counterpart_are_refused(key, reason, write):
    contents = golden("beats_tiny")
    contents["model"] = espnet(contents["model"]) | {key: torch.ones(3, 1)}
    with pytest.raises(CheckpointError, match=rf"`{key.split('.')[0]}` has no counterpart here: .*{reason}"):
        read_checkpoint(write(contents))


def test_the_large_size_of_openbeats_is_read(write):
    hidden, ffn, heads, layers = 1024, 4096, 16, 24
    shapes = {
        "patch_embedding.weight": (512, 1, 16, 16),
        **{f"layer_norm.{kind}": (512,) for kind in ("weight", "bias")},
        "post_extract_proj.weight": (hidden, 512),
        "post_extract_proj.bias": (hidden,),
        "encoder.pos_conv.0.weight_g": (1, 1, 128),
        "encoder.pos_conv.0.weight_v": (hidden, hidden // 16, 128),
        "encoder.pos_conv.0.bias": (hidden,),
        **{f"encoder.layer_norm.{kind}": (hidden,) for kind in ("weight", "bias")},
    }
    for layer in range(layers):
        name = f"encoder.layers.{layer}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= {f"{name}.self_attn.{part}.weight": (hidden, hidden), f"{name}.self_attn.{part}.bias": (hidden,)}
        for part in ("self_attn_layer_norm", "final_layer_norm"):
            shapes |= {f"{name}.{part}.{kind}": (hidden,) for kind in ("weight", "bias")}
        shapes |= {f"{name}.fc1.weight": (ffn, hidden), f"{name}.fc1.bias": (ffn,)}
        shapes |= {f"{name}.fc2.weight": (hidden, ffn), f"{name}.fc2.bias": (hidden,)}
        shapes |= {f"{name}.self_attn.grep_linear.weight": (8, hidden // heads)}
        shapes |= {f"{name}.self_attn.grep_linear.bias": (8,), f"{name}.self_attn.grep_a": (1, heads, 1, 1)}
        shapes |= {f"{name}.self_attn.relative_attention_bias.weight": (320, heads)}
    # Of tensors that repeat one value, a file holds that value alone.
    value = torch.ones(())
    cfg = {"encoder_layers": layers, "encoder_embed_dim": hidden, "encoder_ffn_embed_dim": ffn, "max_distance": 800}
    cfg |= {"encoder_attention_heads": heads, "deep_norm": True, "relative_position_embedding": True}
    cfg |= {"gru_rel_pos": True}
    tensors = espnet({key: value.expand(shape) for key, shape in shapes.items()})
    checkpoint = read_checkpoint(write({"cfg": cfg, "model": tensors}))
    assert checkpoint.origin == "espnet"
    assert (checkpoint.config.num_hidden_layers, checkpoint.config.hidden_size) == (layers, hidden)
    assert sum(tensor.numel() for tensor in checkpoint.state_dict.values()) == 311_376_576


def test_several_encoders_are_refused(encoder, write):
    path = write({"state_dict": under("student.", encoder) | under("ema.", encoder)})
    with pytest.raises(CheckpointError, match=r"encoders under `ema\.`, `student\.`; save the one"):
        read_checkpoint(path, cfg=["released"])
    with pytest.raises(CheckpointError, match="models in `net`, `ema`"):
        read_checkpoint(write({"net": encoder, "ema": encoder}), cfg=["released"])


def test_files_without_an_encoder_are_refused(head, write):
    with pytest.raises(CheckpointError, match=r"no encoder .*among 2 tensors"):
        read_checkpoint(write({"model": head}), cfg=["released"])
    with pytest.raises(CheckpointError, match="expected `cfg` and `model`, found"):
        read_checkpoint(write(head, "model.safetensors"), cfg=["released"])


def test_damaged_safetensors_are_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="not a safetensors file, or damaged"):
        read_checkpoint(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimizer: adam", r"no settings of a BEATs model, found \['optimizer'\]"),
        ("a: [", "not a YAML"),
        ("a: 2026-13-01", "not a YAML"),
        ("- " * 5000, "not a YAML"),
        ("3", "expected keys and values, found int"),
    ],
)
def test_settings_that_are_none_are_refused(text, message, encoder, write, tmp_path):
    (tmp_path / "settings.yaml").write_text(text)
    with pytest.raises(BeatsError, match=message):
        read_checkpoint(write(encoder), cfg=[tmp_path / "settings.yaml"])


AUDIOSET = {"fbank_mean": 15.41663, "fbank_std": 6.55582}
OPENBEATS = {"fbank_mean": 15.2913, "fbank_std": 5.90532}


@pytest.mark.parametrize(
    ("encoder_conf", "given", "expected"),
    [
        (OPENBEATS, {}, OPENBEATS),
        (OPENBEATS, {"fbank_mean": 11.7}, {"fbank_mean": 11.7, "fbank_std": 5.90532}),
        ({"fbank_std": 5.9}, {}, AUDIOSET | {"fbank_std": 5.9}),
        ({"fbank_mean": None}, {}, AUDIOSET),
    ],
    ids=["stated", "overridden", "half stated", "null"],
)
def test_statistics_of_encoder_conf_are_applied(encoder_conf, given, expected, espnet_classifier, write, tmp_path):
    """ESPnet's encoder takes them as arguments of its constructor, and normalises with them."""
    settings = espnet_settings()
    settings["encoder_conf"] |= encoder_conf
    convert(espnet_classifier, tmp_path / "out", cfg=[write(settings, "config.yaml")], **given)
    extractor = BeatsFeatureExtractor.from_pretrained(tmp_path / "out")
    assert {key: getattr(extractor, key) for key in expected} == expected


def test_statistics_change_what_a_classifier_says(espnet_classifier, write, tmp_path, waveforms):
    """Until they were applied, the probabilities were those of another input."""
    settings = espnet_settings()
    settings["encoder_conf"] |= {"fbank_mean": 12.0, "fbank_std": 3.0}
    convert(espnet_classifier, tmp_path / "out", cfg=[write(settings, "config.yaml")])
    extractor = BeatsFeatureExtractor.from_pretrained(tmp_path / "out")
    values, default = (
        each(waveforms[0], sampling_rate=16000, return_tensors="pt")["input_values"]
        for each in (extractor, BeatsFeatureExtractor())
    )
    torch.testing.assert_close(values, (default * 2 * 6.55582 + 15.41663 - 12.0) / (2 * 3.0))


def test_statistics_that_are_no_numbers_are_refused(espnet_classifier, write):
    settings = espnet_settings()
    settings["encoder_conf"]["fbank_mean"] = "loud"
    with pytest.raises(CheckpointError, match="must be numbers"):
        read_checkpoint(espnet_classifier, cfg=[write(settings, "config.yaml")])


def test_statistics_of_the_base_are_not_those_of_the_training(espnet_classifier, write):
    """ESPnet's encoder takes its own arguments, not those that the base was trained with."""
    cfg = golden("beats_tiny_finetuned")["cfg"] | {"fbank_mean": 14.0}
    base = write({"encoder_conf": {"beats_config": cfg, **OPENBEATS}}, "base.yaml")
    tuned = write(espnet_settings(encoder_conf={"beats_ckpt_path": "/data/base.pt"}), "config.yaml")
    checkpoint = read_checkpoint(espnet_classifier, cfg=[base, tuned])
    assert checkpoint.statistics == {}
    assert notes_about(checkpoint, "nothing states the fbank statistics", "--fbank-mean and --fbank-std")
    assert notes_about(checkpoint, "not applied", "add --fbank-mean 14.0")


def test_a_file_of_espnet_without_statistics_says_so(write):
    contents = golden("beats_tiny")
    contents["model"] = espnet(contents["model"])
    path = write(contents)
    assert notes_about(read_checkpoint(path), "AudioSet's were written, fbank_mean=15.41663, fbank_std=6.55582")
    assert not notes_about(read_checkpoint(path, **OPENBEATS), "statistics")
    assert notes_about(read_checkpoint(path, fbank_mean=15.3), "AudioSet's were written, fbank_std=6.55582.")


def test_statistics_in_cfg_are_said_and_not_applied(write):
    """ESPnet's encoder stores and never reads them; the package openbeats does."""
    contents = golden("beats_tiny")
    contents["cfg"] |= {"fbank_mean": 15.2913, "fbank_std": 6.55582}
    checkpoint = read_checkpoint(write(contents))
    assert checkpoint.statistics == {}
    assert len(checkpoint.notes) == 1
    assert notes_about(checkpoint, "not applied", "openbeats", "add --fbank-mean 15.2913")
    assert not read_checkpoint(write(contents), fbank_mean=15.2913).notes


@pytest.mark.skipif(not MAPPINGS.exists(), reason="needs Linux's list of mapped files")
@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
@pytest.mark.usefixtures("released_is_tiny")
def test_tensors_are_mapped_and_not_copied(name, encoder, write):
    path = write(under("beats.", encoder), name)
    checkpoint = read_checkpoint(path, cfg=["released"])
    lines = [line.split() for line in MAPPINGS.read_text().splitlines() if line.endswith(str(path))]
    ranges = [[int(bound, 16) for bound in line[0].split("-")] for line in lines]
    for tensor in checkpoint.state_dict.values():
        assert any(start <= tensor.data_ptr() < end for start, end in ranges)


@pytest.mark.parametrize("name", ["decoder_conf", "model_conf"])
def test_sections_of_espnets_settings_must_be_mappings(name, espnet_classifier, write):
    settings = write(espnet_settings(**{name: 3}), "config.yaml")
    with pytest.raises(CheckpointError, match=f"expected `{name}` to be a mapping, found int"):
        read_checkpoint(espnet_classifier, cfg=[settings])


@pytest.mark.parametrize("key", ["encoder_layers", "dropout", "activation_fn"])
def test_a_setting_that_is_no_single_value_is_named_and_not_shown(key, tmp_path):
    """Few bytes of YAML can stand for lists that fill the memory."""
    text = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for new, old in zip("bcdefghi", "abcdefgh"):
        text += f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    (tmp_path / "bomb.yaml").write_text(f"{text}cfg: {{{key}: *i}}\n")
    with pytest.raises(CheckpointError, match=f"expected a single value for `{key}`, found list"):
        read_checkpoint(FIXTURES / "beats_tiny.pt", cfg=[tmp_path / "bomb.yaml"])
