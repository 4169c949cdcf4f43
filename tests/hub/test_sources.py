# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Conversion from repositories on the Hub in one command: models in the form of their publishers, random weights."""

import json
import shutil
from hashlib import sha256
from pathlib import Path

import pytest
import torch
import yaml
from golden import FIXTURES
from huggingface_hub import HfApi, ModelCard, constants
from independent_check import compare_labels, compare_settings, compare_tensors
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from hub.releases import NAME, SOURCE
from transformers_beats import BeatsFeatureExtractor, BeatsForAudioClassification, BeatsModel
from transformers_beats.cli.app import app
from transformers_beats.conversion.layouts import display_name
from transformers_beats.conversion.settings import RELEASED
from transformers_beats.conversion.sources import commit_of
from transformers_beats.export.to_microsoft import export_state_dict
from transformers_beats.verification.plain import PlainBeats, plain_features


# What the recipes of OpenBEATs state (`conf/pretrain_{base,large}.yaml` of its repository).
COMMON = {
    "decoder_layers": 3,
    "codebook_vocab_size": 1024,
    "mask_ratio": 0.75,
    "dropout": 0.1,
    "encoder_layerdrop": 0.0,
    "deep_norm": True,
    "relative_position_embedding": True,
    "num_buckets": 320,
    "max_distance": 800,
    "gru_rel_pos": True,
    "use_flash_attn": False,
}
SIZES = {
    "Base": {
        "encoder_layers": 12,
        "encoder_embed_dim": 768,
        "encoder_ffn_embed_dim": 3072,
        "encoder_attention_heads": 12,
    },
    "Large": {
        "encoder_layers": 24,
        "encoder_embed_dim": 1024,
        "encoder_ffn_embed_dim": 4096,
        "encoder_attention_heads": 16,
    },
}
# The same layers and heads with few channels in each.
THIN = {
    "Base": {"encoder_embed_dim": 96, "encoder_ffn_embed_dim": 128, "embed_dim": 32},
    "Large": {"encoder_embed_dim": 64, "encoder_ffn_embed_dim": 128, "embed_dim": 32},
}
PATHS = {
    "Base": "/work/nvme/7Msounds/exp/beats_iter2_base2.tune_lr5e-4_warmup40000/epoch_latest.pt",
    "Large": "/work/nvme/7Msounds/exp/beats_iter1_large1.tune_lr1.0e-4_warmup40000/epoch_latest.pt",
}
ITERATIONS = {"Base": 3, "Large": 2}
LABELS = ["Dog", "Rain", "Siren", "Speech"]


@pytest.fixture
def here(home, monkeypatch, tmp_path):
    """A directory to work in."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def publish(hub, here, tmp_path):
    """Uploads files to a repository, whose owner is made if need be: contents by their paths."""

    def publish(repo_id, files, repo_type="model"):
        owner = repo_id.split("/")[0]
        token = f"hf_{owner}"
        hub.users[token] = owner
        api = HfApi(endpoint=hub.endpoint, token=token)
        api.create_repo(repo_id, repo_type=repo_type, exist_ok=True)
        folder = tmp_path / "upload" / repo_id
        for path, contents in files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(contents, Path):
                shutil.copy(contents, target)
            elif target.suffix == ".safetensors":
                save_file(contents, target)
            elif target.suffix in (".yaml", ".json", ".md"):
                target.write_text(json.dumps(contents) if target.suffix == ".json" else yaml.safe_dump(contents))
            else:
                torch.save(contents, target)
        api.upload_folder(repo_id=repo_id, folder_path=folder, repo_type=repo_type)
        shutil.rmtree(folder)

    return publish


def random_encoder(cfg):
    """A random encoder with the settings of a recipe, under ESPnet's names, with the constants of its padding mask."""
    from transformers_beats.conversion.checkpoint import _build_config

    torch.manual_seed(0)
    config = _build_config(RELEASED | cfg, "pretrained", [], {})
    tensors = export_state_dict(BeatsModel(config).state_dict(), config)
    # As training leaves them, unlike initialisation: every layer reads its neighbours.
    pads = {"patch_embedding_pad.weight": torch.ones(1, 1, 16, 16), "raw2fbank_pad.weight": torch.ones(1, 1, 400)}
    return tensors | pads


def random_head(cfg, num_labels):
    return {"weight": torch.randn(num_labels, cfg["encoder_embed_dim"]), "bias": torch.randn(num_labels)}


def base_repository(size):
    return f"shikhar7ssu/OpenBEATs-{size}-i{ITERATIONS[size]}"


def tuned_repository(size):
    return f"espnet/OpenBEATS-{size}-i{ITERATIONS[size]}-as20k"


def tuned_settings(size, classification_type, **encoder_conf):
    """`config.yaml` of a classifier, in the form of `egs2/as20k/cls1/conf/beats_cls.yaml`."""
    overrides = {"layer_wise_gradient_decay_ratio": 0.3, "encoder_layerdrop": 0.1, "dropout": 0.0}
    return {
        "encoder": "beats",
        "encoder_conf": {"beats_ckpt_path": PATHS[size], "beats_config": overrides} | encoder_conf,
        "decoder": "linear",
        "decoder_conf": {},
        "frontend": None,
        "normalize": None,
        "model_conf": {"classification_type": classification_type, "mixup_augmentation": True},
        "token_list": [*LABELS, "<blank>", "<unk>"],
    }


def run(*arguments):
    result = CliRunner().invoke(app, ["convert", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


@torch.no_grad()
def assert_plain_implementation_agrees(directory, tensors, cfg, waveforms):
    """The published equations, on the tensors of the source, give the states and the probabilities of the model."""
    extractor = BeatsFeatureExtractor.from_pretrained(directory)
    plain = PlainBeats(RELEASED | cfg, tensors)
    states = plain.encode(plain_features([waveforms[0]], extractor.fbank_mean, extractor.fbank_std))
    inputs = extractor(waveforms[0], sampling_rate=16000, return_tensors="pt")
    if "predictor.weight" not in tensors:
        model = BeatsModel.from_pretrained(directory).eval()
        torch.testing.assert_close(model(**inputs).last_hidden_state, states, atol=1e-4, rtol=1e-4)
        return
    model = BeatsForAudioClassification.from_pretrained(directory).eval()
    torch.testing.assert_close(model(**inputs).logits.sigmoid(), plain.classify(states), atol=1e-4, rtol=1e-4)


def assert_equal_to_the_source(directory, tensors, cfg, labels=None):
    """Every tensor bit by bit and every setting, by a check that knows nothing of the converter."""
    config = json.loads((directory / "config.json").read_text())
    dtype = next(iter(tensors.values())).dtype
    assert compare_tensors(load_file(directory / "model.safetensors"), tensors) == []
    assert compare_settings(config, RELEASED | cfg, tensors, dtype) == []
    assert labels is None or compare_labels(config, dict(enumerate(labels))) == []


FULL = pytest.mark.slow
CASES = [
    pytest.param("Base", THIN["Base"], id="thin base"),
    pytest.param("Large", THIN["Large"], id="thin large"),
    pytest.param("Base", {}, marks=FULL, id="base"),
    pytest.param("Large", {}, marks=FULL, id="large"),
]


@pytest.mark.parametrize(("size", "thin"), CASES)
def test_a_pre_trained_openbeats_converts_by_its_id(size, thin, here, publish, waveforms):
    cfg = SIZES[size] | COMMON | thin
    tensors = random_encoder(cfg)
    statistics = {"fbank_mean": 15.2913, "fbank_std": 5.90532}
    settings = {"encoder": "beats", "encoder_conf": {"beats_config": cfg, "is_pretraining": True} | statistics}
    publish(base_repository(size), {"config.yaml": settings, "epoch_latest.pt": {"model": tensors, "cfg": cfg}})
    status, output, _ = run(base_repository(size))
    assert status == 0
    directory = here / f"OpenBEATs-{size}-i{ITERATIONS[size]}"
    assert "applied from `encoder_conf`, as ESPnet's encoder does: fbank_mean=15.2913, fbank_std=5.90532" in output
    assert BeatsFeatureExtractor.from_pretrained(directory).fbank_std == 5.90532
    assert_equal_to_the_source(directory, tensors, cfg)
    assert_plain_implementation_agrees(directory, tensors, cfg, waveforms)
    card = (directory / "README.md").read_text()
    assert f"`hf://{base_repository(size)}@" in card
    assert "/epoch_latest.pt`, SHA-256" in card


@pytest.mark.parametrize(("size", "thin"), CASES)
def test_a_fine_tuned_openbeats_takes_its_architecture_from_its_base(size, thin, hub, here, publish, waveforms):
    """A bare state dict beside a `config.yaml` that states neither size nor DeepNorm."""
    cfg = SIZES[size] | COMMON | thin
    encoder, head = random_encoder(cfg), random_head(cfg, len(LABELS))
    tensors = {f"encoder.{key}": tensor for key, tensor in encoder.items()}
    tensors |= {f"decoder.linear_out.{key}": tensor for key, tensor in head.items()}
    folder = "exp/cls_earlarge"
    publish(
        tuned_repository(size),
        {f"{folder}/config.yaml": tuned_settings(size, "multi-label"), f"{folder}/valid.mAP.best.pth": tensors},
    )
    # The weights of the base are not needed, only what it is.
    publish(base_repository(size), {"exp/config.yaml": {"encoder_conf": {"beats_config": cfg}}})
    status, output, _ = run(f"hf://{tuned_repository(size)}", "converted")
    assert status == 0
    assert f"architecture of {base_repository(size)}, from which it was trained by its name and" in output
    assert f"no `cfg` in the file: taken from {base_repository(size)}/exp/config.yaml, " in output
    assert "4 classes by `token_list`, scored by a sigmoid" in output
    assert "nothing states the fbank statistics" in output
    expected = encoder | {f"predictor.{key}": head[key] for key in head}
    settings = cfg | {"layer_wise_gradient_decay_ratio": 0.3, "encoder_layerdrop": 0.1, "dropout": 0.0}
    assert_equal_to_the_source(here / "converted", expected, settings, LABELS)
    assert_plain_implementation_agrees(here / "converted", expected, settings, waveforms)


def thin_classifier(publish, name="Large", **settings):
    cfg = SIZES[name] | COMMON | THIN[name]
    tensors = {f"encoder.{key}": tensor for key, tensor in random_encoder(cfg).items()}
    tensors |= {f"decoder.linear_out.{key}": tensor for key, tensor in random_head(cfg, len(LABELS)).items()}
    return cfg, tensors, tuned_settings(name, "multi-class") | settings


def test_softmax_and_sigmoid_follow_the_settings_of_the_training(here, publish):
    cfg, tensors, settings = thin_classifier(publish)
    publish(tuned_repository("Large"), {"config.yaml": settings, "best.pth": tensors})
    publish(base_repository("Large"), {"config.yaml": {"encoder_conf": {"beats_config": cfg}}})
    status, output, _ = run(tuned_repository("Large"), "converted")
    assert status == 0
    assert "4 classes by `token_list`, scored by a softmax" in output
    config = BeatsForAudioClassification.from_pretrained("converted").config
    assert (config.problem_type, [*config.id2label.values()]) == ("single_label_classification", LABELS)


def test_statistics_of_the_training_are_applied_on_the_way_from_the_hub(here, publish):
    cfg, tensors, settings = thin_classifier(publish)
    settings["encoder_conf"] |= {"fbank_mean": 15.66439, "fbank_std": 6.38312}
    publish(tuned_repository("Large"), {"config.yaml": settings, "best.pth": tensors})
    # Those of the base are another training's.
    base = {"encoder_conf": {"beats_config": cfg, "fbank_mean": 1.0, "fbank_std": 2.0}}
    publish(base_repository("Large"), {"config.yaml": base})
    assert run(tuned_repository("Large"), "converted")[0] == 0
    extractor = BeatsFeatureExtractor.from_pretrained("converted")
    assert (extractor.fbank_mean, extractor.fbank_std) == (15.66439, 6.38312)


def test_a_base_that_is_not_clear_is_asked_for_before_the_download(hub, here, publish):
    cfg, tensors, settings = thin_classifier(publish)
    publish("espnet/OpenBEATS-Large-i3-cbi", {"config.yaml": settings, "best.pth": tensors})
    publish("shikhar7ssu/OpenBEATs-Large-i3", {"epoch_latest.pt": {"model": random_encoder(cfg), "cfg": cfg}})
    status, _, error = run("espnet/OpenBEATS-Large-i3-cbi", "converted")
    assert status == 2
    assert error.count("\n") == 1
    assert "OpenBEATs-Large-i3, as its name says, or from shikhar7ssu/OpenBEATs-Large-i2, as" in error
    assert not hub.sent("GET", "best.pth")
    # Without settings of its own, the base states its architecture in its checkpoint.
    status, output, _ = run("espnet/OpenBEATS-Large-i3-cbi", "converted", "--cfg", "shikhar7ssu/OpenBEATs-Large-i3")
    assert status == 0
    assert (
        "taken from shikhar7ssu/OpenBEATs-Large-i3/epoch_latest.pt, espnet/OpenBEATS-Large-i3-cbi/config.y" in output
    )


def test_avex_models_convert_with_their_names_of_classes(here, publish, monkeypatch):
    from transformers_beats.conversion import checkpoint, layouts, settings

    cfg = RELEASED | SIZES["Base"] | THIN["Base"]
    for module in (checkpoint, layouts, settings):
        monkeypatch.setattr(module, "RELEASED", cfg)
    shared = "self_attn.relative_attention_bias"
    encoder = {key: value for key, value in random_encoder(cfg).items() if "_pad." not in key}
    encoder = {key: value for key, value in encoder.items() if shared not in key or "layers.0." in key}
    encoder |= {"fbank.window": torch.ones(400), "fbank.mel_fb": torch.ones(257, 128)}
    tensors = {f"backbone.{key}": tensor for key, tensor in encoder.items()}
    tensors |= {f"classifier.{key}": tensor for key, tensor in random_head(cfg, 3).items()}
    name = "esp-aves2-sl-beats-all"
    labels = {"Turdus merula": 0, "Rana temporaria": 2, "Bos taurus": 1}
    publish(
        f"EarthSpeciesProject/{name}",
        {f"{name}.safetensors": tensors, "label_map.json": labels, "train_config.yaml": {"sr": 16000}},
    )
    assert run(f"EarthSpeciesProject/{name}", "converted")[0] == 0
    assert BeatsForAudioClassification.from_pretrained("converted").config.label2id == labels


def test_a_file_of_a_dataset_converts_by_its_location(here, publish):
    publish("user/checkpoints", {"beats/tiny.pt": FIXTURES / "beats_tiny.pt"}, repo_type="dataset")
    assert run("hf://datasets/user/checkpoints/beats/tiny.pt")[0] == 0
    assert (here / "tiny" / "model.safetensors").exists()


def test_a_file_at_an_address_converts_with_its_size_and_hash(hub, here):
    """Such as PretrainedSED's release on GitHub."""
    address, content = hub.share("BEATs_strong_1.pt", SOURCE), SOURCE.read_bytes()
    status, output, _ = run(address)
    assert status == 0
    digest = sha256(content).hexdigest()
    assert f"from {address}, {len(content):,} bytes, SHA-256 {digest}" in output
    card = (here / "BEATs_strong_1" / "README.md").read_text()
    assert f"`{address}`, SHA-256\n`{digest}`" in card
    assert [path.name for path in here.iterdir()] == ["BEATs_strong_1"]


def test_a_released_file_is_recognised_whatever_its_name(here, release):
    release.write_manifest(license="mit", paper={"ESC-50": 95.6})
    shutil.copy(FIXTURES / "beats_tiny.pt", "downloaded (1).pt")
    status, output, _ = run("downloaded (1).pt", "converted")
    assert status == 0
    assert f"the file is {SOURCE.name} as it was released: {NAME}" in output
    card = ModelCard.load("converted/README.md")
    assert card.data.license == "mit"
    assert "95.6" in card.text
    assert "Every tensor of the source is here, bit by bit" in card.text
    # Another file under the name has none of it.
    shutil.copy(FIXTURES / "beats_tiny_glu.pt", SOURCE.name)
    status, output, _ = run(SOURCE.name, "other")
    assert (status, "as it was released" in output) == (0, False)
    assert "95.6" not in (here / "other" / "README.md").read_text()


@pytest.mark.usefixtures("release")
def test_a_released_model_converts_by_its_name(here):
    # It may state the architecture of another model, too.
    contents = torch.load(FIXTURES / "beats_tiny.pt", weights_only=True)
    torch.save(contents["model"], "bare.pt")
    assert run("bare.pt", "bare", "--cfg", NAME)[0] == 0
    status, output, _ = run(NAME)
    assert status == 0
    assert f"from {SOURCE.name}, " in output
    assert (here / NAME / "model.safetensors").exists()


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"kind": "finetuned"}, "its kind is pretrained, that of beats_tiny.pt is finetuned"),
        ({"cfg": {"encoder_layers": 12}}, "its encoder_layers is 3, that of beats_tiny.pt is 12"),
        ({"num_parameters": 7}, "its number of parameters is"),
    ],
)
def test_a_released_model_must_be_what_the_manifest_says(by_name, facts, message, here, release):
    release.write_manifest(f"hf://user/first/{SOURCE.name}", **facts)
    status, _, error = run(NAME if by_name else SOURCE, "converted")
    assert status == 1
    assert message in error
    assert list(here.iterdir()) == []
    # Without a hash, only the name tells which model it is.
    release.write_manifest(f"hf://user/first/{SOURCE.name}", **facts, sha256=None)
    assert run(NAME if by_name else SOURCE, "converted")[0] == int(by_name)


def test_the_commit_is_that_of_the_cache_wherever_the_cache_is(hub, here, publish, monkeypatch, tmp_path):
    cache = tmp_path / "snapshots" / "models--mine" / "cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    publish("user/mine", {"snapshots/tiny.pt": FIXTURES / "beats_tiny.pt", "base.pt": FIXTURES / "beats_tiny.pt"})
    contents = torch.load(FIXTURES / "beats_tiny.pt", weights_only=True)
    torch.save(contents["model"], "bare.pt")
    assert run("hf://user/mine/snapshots/tiny.pt")[0] == 0
    location = f"hf://user/mine@{hub.repository('user/mine').at('main').oid}/snapshots/tiny.pt"
    assert f"`{location}`, SHA-256" in Path("tiny", "README.md").read_text()
    status, output, _ = run("bare.pt", "bare", "--cfg", "hf://user/mine/base.pt")
    assert status == 0
    assert "no `cfg` in the file: taken from user/mine/base.pt" in output


def test_a_folder_of_ones_own_is_no_cache_of_the_hub(here):
    folder = here / "models--mine" / "snapshots" / "1"
    folder.mkdir(parents=True)
    shutil.copy(FIXTURES / "beats_tiny.pt", folder / "base.pt")
    assert commit_of(folder / "base.pt") is None
    assert display_name(folder / "base.pt") == "base.pt"


def test_a_directory_with_the_files_of_a_repository_converts(here):
    folder = here / "downloads" / "OpenBEATs"
    folder.mkdir(parents=True)
    shutil.copy(FIXTURES / "beats_tiny.pt", folder / "epoch_latest.pt")
    assert run(folder, "converted")[0] == 0
    status, _, error = run(folder)
    assert (status, "name an OUTPUT" in error) == (2, True)


def test_a_directory_with_several_checkpoints_names_them(here):
    for name in ("beats_tiny.pt", "beats_tiny_glu.pt"):
        (here / "downloads").mkdir(exist_ok=True)
        shutil.copy(FIXTURES / name, here / "downloads" / name)
    status, _, error = run("downloads", "converted")
    assert status == 2
    assert "name one of them: downloads/beats_tiny.pt, downloads/beats_tiny_glu.pt" in error


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("user/absent", "no such repository"),
        ("hf://user/absent/model.pt", "no such repository"),
        ("hf://user", "is no location on the Hub"),
        ("https://", "names no file"),
        ("ftp://example.org/model.pt", "must begin with https:// or hf://"),
        ("https://[::1/model.pt", "is no address: Invalid IPv6 URL"),
        ("hf://user/mine/../model.pt", "is no file on the Hub"),
        ("hf://user/mine//model.pt", "is no file on the Hub"),
        ("beats-iter99", "no such file; did you mean beats-iter"),
        ("Beats-Iter3", "no such file; did you mean beats-iter3"),
    ],
)
def test_sources_that_cannot_be_are_one_line(source, message, here):
    status, _, error = run(source, "converted")
    assert status in (1, 2)
    assert message in error
    assert error.count("\n") == 1
    assert list(here.iterdir()) == []


def test_a_large_file_is_refused_before_its_download(hub, here, publish):
    publish("user/large", {"model.pt": FIXTURES / "beats_tiny.pt"})
    status, _, error = run("user/large", "converted", "--max-size", "0.0001")
    assert status == 2
    assert "--max-size raises it" in error
    assert not [request for request in hub.sent("GET") if "api" not in request.path]
    assert run("user/large", "converted")[0] == 0


def test_a_large_file_of_ones_own_is_refused_before_it_is_read(here):
    with open("large.pt", "wb") as file:
        file.truncate(30 * 10**9)
    status, _, error = run("large.pt", "converted")
    assert status == 2
    assert "has 30 GB, more than the limit of 8 GB" in error
