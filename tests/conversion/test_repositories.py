# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Which files of a repository make a checkpoint, by listings in the form of their publishers."""

import json

import pytest
import yaml
from huggingface_hub import constants

from transformers_beats.conversion.locations import HubRepository, parse_location
from transformers_beats.conversion.repositories import choose_files, choose_settings, derive_base
from transformers_beats.utils.errors import BeatsError, UsageError


# Paths of the machine that the OpenBEATs models were trained on, as their authors' scripts name them.
RUN = "beats_iter{}_{}.tune_lr5e-4_warmup40000_bins1600000_totalsteps400000"
LARGE_1 = f"/work/nvme/model_checkpoints/ear_large/{RUN.format(0, 'large')}/epoch59.pt"
LARGE_2 = f"/work/nvme/7Msounds/exp/{RUN.format(1, 'large1')}/epoch_latest.pt"
BASE_3 = f"/work/nvme/7Msounds/exp/{RUN.format(2, 'base2')}/epoch_latest.pt"
MICROSOFT = "/compute/models/BEATs/BEATs_iter3_plus_AS20K.pt"


@pytest.fixture
def repository(tmp_path):
    """A listing of paths, some with contents, and the function that fetches one; other files must not be fetched."""

    def make(files):
        files = files if isinstance(files, dict) else dict.fromkeys(files)

        def fetch(path):
            assert files[path] is not None, f"{path} was fetched"
            target = tmp_path / path
            target.parent.mkdir(parents=True, exist_ok=True)
            is_json = path.endswith(".json")
            target.write_text(json.dumps(files[path]) if is_json else yaml.safe_dump(files[path]))
            return target

        return dict.fromkeys(files, 1000), fetch

    return make


def tuned(path):
    """Settings of a classifier that ESPnet trained from the checkpoint at `path`."""
    return {"encoder": "beats", "encoder_conf": {"beats_ckpt_path": path, "beats_config": {"dropout": 0.0}}}


def pretrained(**cfg):
    return {"encoder": "beats", "encoder_conf": {"fbank_mean": 15.4, "beats_config": {"deep_norm": True} | cfg}}


@pytest.mark.parametrize(
    ("files", "checkpoint", "settings"),
    [
        ([".gitattributes", "README.md", "epoch_latest.pt"], "epoch_latest.pt", []),
        (
            {"README.md": None, "exp/run/config.yaml": pretrained(), "exp/run/epoch_latest.pt": None},
            "exp/run/epoch_latest.pt",
            ["exp/run/config.yaml"],
        ),
        (
            {"config.yaml": pretrained(), "exp/run/beats_encoder_iter1.pt": None},
            "exp/run/beats_encoder_iter1.pt",
            None,
        ),
        (["exp/beats_tokenizer_iter1.pt", "images/loss.png"], "exp/beats_tokenizer_iter1.pt", []),
        (
            ["checkpoint_5/mp_rank_00_model_states.pt", "checkpoint_5/zero_pp_rank_0_mp_rank_00_optim_states.pt"],
            "checkpoint_5/mp_rank_00_model_states.pt",
            [],
        ),
        (["beats.pt", "model.pt", "audio_llama_proj.pt", "llama/config.json"], "beats.pt", []),
        (["last.ckpt", "optimizer.pt", "scheduler.pt", "rng_state_0.pth", "training_args.bin"], "last.ckpt", []),
        (["BEATs_iter3.pt", "README.md", "settings.yaml"], "BEATs_iter3.pt", []),
        (
            {"meta.yaml": {"files": {"cls_model_file": "exp/b.pth"}}, "exp/a.pth": None, "exp/b.pth": None},
            "exp/b.pth",
            [],
        ),
    ],
    ids=["openbeats", "run", "above", "tokenizer", "deepspeed", "naturelm", "training", "microsoft", "packed"],
)
def test_the_checkpoint_of_a_layout_is_found(files, checkpoint, settings, repository):
    found = choose_files("hf://owner/name", *repository(files))
    assert found.checkpoint == checkpoint
    assert found.settings == (["config.yaml"] if settings is None else settings)
    assert found.base is None


def test_avex_safetensors_bring_their_label_map(repository):
    """Their training configuration states no architecture, and the file that they were made from may lie beside."""
    name = "esp-aves2-sl-beats-all"
    train_config = {"model_spec": {"name": "beats", "pretrained": False, "audio_config": {"sample_rate": 16000}}}
    files = {f"{name}.safetensors": None, f"{name}.pt": None, f"{name}.safetensors.sha256": None}
    found = choose_files(
        f"hf://EarthSpeciesProject/{name}",
        *repository(files | {"label_map.json": None, "train_config.yaml": train_config}),
    )
    assert (found.checkpoint, found.labels, found.settings) == (f"{name}.safetensors", "label_map.json", [])


def test_several_checkpoints_are_named(repository):
    with pytest.raises(UsageError, match=r"2 checkpoints.*: hf://a/b@v1/BEATs_iter1.pt, hf://a/b@v1/x/last.ckpt"):
        choose_files("hf://a/b@v1", *repository(["BEATs_iter1.pt", "x/last.ckpt"]))


def test_the_names_of_several_checkpoints_are_locations(repository):
    """Also where they have characters that a location has to quote."""
    here = HubRepository("a/b", "feature/x")
    paths = ["a b.pt", "a%20b.pt", "x/last.ckpt", "é#?.pt"]
    with pytest.raises(UsageError) as error:
        choose_files(str(here), *repository(paths))
    named = str(error.value).partition("name one of them: ")[2].split(", ")
    assert [parse_location(name) for name in named] == [here.file(path) for path in sorted(paths)]
    with pytest.raises(UsageError, match=r": downloads/b/a b\.pt, downloads/b/a%20b\.pt"):
        choose_files("downloads/b", *repository(paths[:2]))


def test_a_repository_without_a_checkpoint_says_what_it_has(repository):
    with pytest.raises(UsageError, match=r"has no checkpoint .*only 'README.md', 'clip.wav'"):
        choose_files("hf://a/b", *repository(["clip.wav", "README.md"]))


def test_a_model_of_this_package_needs_no_conversion(repository):
    files = {"config.json": {"model_type": "beats_tokenizer"}, "model.safetensors": None}
    with pytest.raises(UsageError, match=r"already \(beats_tokenizer\).*-m a/b load it as it is"):
        choose_files("hf://a/b", *repository(files))
    assert choose_files("hf://a/b", *repository(files | {"config.json": {"model_type": "eat"}})).checkpoint


@pytest.mark.parametrize(
    ("name", "path", "base"),
    [
        ("espnet/OpenBEATS-Large-i1-as20k", LARGE_1, "shikhar7ssu/OpenBEATs-Large-i1"),
        ("espnet/OpenBEATS-Large-i2-cbi", LARGE_2, "shikhar7ssu/OpenBEATs-Large-i2"),
        ("espnet/OpenBEATS-Base-i3-rfcx", BASE_3, "shikhar7ssu/OpenBEATs-Base-i3"),
        ("me/my-birds", LARGE_2, "shikhar7ssu/OpenBEATs-Large-i2"),
        ("me/my-birds", "/data/large/beats_iter0.tune/epoch59.pt", "shikhar7ssu/OpenBEATs-Large-i1"),
        ("espnet/openbeats-base-i2-as2m", "/data/epoch59.pt", "shikhar7ssu/OpenBEATs-Base-i2"),
        ("espnet/BEATs-AS20K", MICROSOFT, "released"),
        ("me/my-birds", "/large/BEATs_iter3_plus_AS2M.pt", "released"),
        ("me/my-birds", "/large_disk/exp/base/beats_iter0/x.pt", "shikhar7ssu/OpenBEATs-Base-i1"),
        ("me/my-birds", "/base/ear_large/runs/beats_iter0.tune/x.pt", "shikhar7ssu/OpenBEATs-Large-i1"),
        ("me/my-birds", "/base/from_base_large_beats_iter2/x.pt", "shikhar7ssu/OpenBEATs-Large-i3"),
        ("me/my-birds", "/exp/beats_iter0_base/next/beats_iter1_large0.tune/x.pt", "shikhar7ssu/OpenBEATs-Large-i2"),
        ("openbeats-base-i1/my-birds", LARGE_2, "shikhar7ssu/OpenBEATs-Large-i2"),
        ("me/my-birds@openbeats-base-i1", LARGE_2, "shikhar7ssu/OpenBEATs-Large-i2"),
    ],
)
def test_the_base_of_a_fine_tuned_model_is_derived(name, path, base, repository):
    listing = repository({"config.yaml": tuned(path), "valid.mAP.best.pth": None})
    found = choose_files(f"hf://{name}", *listing)
    assert (found.base, found.settings) == (base, ["config.yaml"])
    assert found.notes[0].startswith("architecture of ")
    assert choose_files(f"hf://{name}", *listing, has_base=True).base is None


@pytest.mark.parametrize(
    ("name", "path", "other"),
    [
        ("espnet/OpenBEATS-Large-i2-as20k", LARGE_1, "shikhar7ssu/OpenBEATs-Large-i1"),
        ("espnet/OpenBEATS-Base-i2-as20k", LARGE_2, "shikhar7ssu/OpenBEATs-Large-i2"),
        ("espnet/OpenBEATS-Base-i2-as20k", MICROSOFT, "released"),
    ],
    ids=["iteration", "size", "microsoft"],
)
def test_a_name_and_a_path_that_disagree_are_a_question(name, path, other):
    with pytest.raises(UsageError) as error:
        derive_base(f"hf://{name}", path)
    message = str(error.value)
    assert "as its name says" in message
    assert message.endswith(f" or --cfg {other}.")
    assert path in message


@pytest.mark.parametrize(
    ("directory", "base"),
    [
        ("/data/OpenBEATs-Base-i1/OpenBEATS-Large-i2-as20k", "Large-i2"),
        ("/data/OpenBEATs-Base-i1/OpenBEATS-Large-i2-as20k/.", "Large-i2"),
        ("/home/me/openbeats-base-i1/runs/birds", None),
        ("{here}", "Base-i3"),
        (".", "Base-i3"),
        ("../openbeats-base-i3", "Base-i3"),
        ("{cache}/models--espnet--OpenBEATS-Large-i1-cbi/snapshots/0123abcd", "Large-i1"),
    ],
)
def test_the_last_folder_of_a_path_is_its_name(directory, base, tmp_path, monkeypatch):
    here = tmp_path / "openbeats-large-i1" / "openbeats-base-i3"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    directory = directory.format(here=here, cache=constants.HF_HUB_CACHE)
    if base is None:
        with pytest.raises(UsageError, match="which states its architecture: name that model"):
            derive_base(directory, "/data/epoch59.pt")
        return
    assert derive_base(directory, "/data/epoch59.pt")[0] == f"shikhar7ssu/OpenBEATs-{base}"


def test_a_base_that_nothing_tells_is_asked_for():
    with pytest.raises(UsageError, match=r"was trained from /data/baseline/epoch_latest.pt.*with --cfg"):
        derive_base("hf://me/my-birds", "/data/baseline/epoch_latest.pt")


def test_the_settings_of_a_base_are_fetched_and_not_its_weights(repository):
    files = {"exp/run/config.yaml": pretrained(), "exp/run/epoch_latest.pt": None, "other.yaml": None}
    assert choose_settings("hf://a/b", *repository(files)) == "exp/run/config.yaml"


def test_a_base_without_settings_states_them_in_its_checkpoint(repository):
    assert choose_settings("hf://a/b", *repository({"config.yaml": {"optim": "adam"}, "a.pt": None})) == "a.pt"


def test_settings_that_are_no_settings_are_not_fetched(repository):
    sizes, fetch = repository(["config.yaml", "epoch_latest.pt"])
    with pytest.raises(BeatsError, match=r"config.yaml: has 90 MB, which are no settings"):
        choose_files("hf://a/b", sizes | {"config.yaml": 90_000_000}, fetch)
