# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Checkpoints in Microsoft's layout, with random weights and a classifier that is fitted to the package's clips."""

from pathlib import Path

import pytest
import torch

from transformers_beats import BeatsConfig, BeatsForAudioClassification
from transformers_beats.audio.audioset import AUDIOSET_LABELS
from transformers_beats.export.to_microsoft import export_cfg, export_state_dict
from transformers_beats.verification.checks import read_clips
from transformers_beats.verification.plain import PlainBeats, plain_features


TINY = {
    "embed_dim": 16,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}


@torch.no_grad()
def write_classifier(path: Path, **sizes) -> Path:
    """Writes a classifier of AudioSet's classes that gives each clip the first of its expected labels."""
    torch.manual_seed(0)
    config = BeatsConfig(**sizes, num_labels=len(AUDIOSET_LABELS), problem_type="multi_label_classification")
    model = BeatsForAudioClassification(config)
    for name, parameter in model.named_parameters():
        # Large enough for every part of the model to matter.
        parameter.add_(torch.randn_like(parameter) * (1.0 if "relative_attention_bias" in name else 0.05))
    cfg, tensors = export_cfg(config, "finetuned"), export_state_dict(model.state_dict(), config)
    clips, plain = read_clips(), PlainBeats(cfg, tensors)
    features = [plain_features([torch.from_numpy(clip["waveform"])]) for clip in clips]
    embeddings = torch.cat([plain.encode(values).mean(dim=1) for values in features]).double()
    wanted = torch.full((len(clips), len(AUDIOSET_LABELS)), -4.0, dtype=torch.float64)
    names = list(AUDIOSET_LABELS.values())
    for row, clip in zip(wanted, clips):
        row[names.index(clip["labels"][0])] = 2.0
    mean = embeddings.mean(dim=0)
    weight = torch.linalg.pinv(embeddings - mean, rtol=1e-3) @ (wanted - wanted.mean(dim=0))
    tensors["predictor.weight"] = weight.T.float().contiguous()
    tensors["predictor.bias"] = (wanted.mean(dim=0) - mean @ weight).float()
    torch.save({"cfg": cfg, "model": tensors, "label_dict": dict(enumerate(AUDIOSET_LABELS))}, path)
    return path


@pytest.fixture(scope="session")
def make_classifier():
    return write_classifier


@pytest.fixture(scope="session")
def classifier_file(tmp_path_factory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("source") / "BEATs_tiny_finetuned.pt", **TINY)
