# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""A frozen encoder in a model that DeepSpeed trains in ZeRO-3, where each process holds a part of each weight."""

import os
import socket

import pytest
import torch
from torch import nn

from transformers_beats import BeatsConfig, BeatsFeatureExtractor, BeatsModel


TINY = {"embed_dim": 16, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
TINY |= {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
NUM_PROCESSES, STEPS, LEARNING_RATE = 2, 3, 1e-2


class FrontEnd(nn.Module):
    """A frozen encoder, a layer norm and a projector, as docs/front-end.md advises."""

    def __init__(self, encoder):
        super().__init__()
        torch.manual_seed(1)
        self.encoder, self.norm, self.linear = encoder, nn.LayerNorm(32), nn.Linear(32, 8)

    def train(self, mode=True):
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, **inputs):
        with torch.no_grad():
            outputs = self.encoder(**inputs)
        return self.linear(self.norm(outputs.last_hidden_state)) * outputs.patch_attention_mask.unsqueeze(-1)


def make_inputs():
    generator = torch.Generator().manual_seed(0)
    clips = [torch.rand(length, generator=generator) - 0.5 for length in (16000, 40000)]
    return BeatsFeatureExtractor()(clips, sampling_rate=16000, return_tensors="pt")


def train_under_zero3(rank, port, model, is_split_when_loaded, found):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE=str(NUM_PROCESSES), RANK=str(rank))
    os.environ.update(LOCAL_RANK=str(rank), LOCAL_SIZE=str(NUM_PROCESSES), DS_ACCELERATOR="cpu")
    import deepspeed
    from transformers.integrations import HfDeepSpeedConfig

    torch.set_num_threads(1)
    deepspeed.init_distributed(dist_backend="gloo")
    optimizer = {"type": "AdamW", "params": {"lr": LEARNING_RATE, "torch_adam": True}}
    config = {"train_micro_batch_size_per_gpu": 2, "optimizer": optimizer, "gradient_clipping": 1.0}
    config |= {"zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0}}
    # While this exists, as with the arguments of `Trainer`, `from_pretrained` makes models that are split.
    loading = HfDeepSpeedConfig(config) if is_split_when_loaded else None
    encoder = BeatsModel.from_pretrained(model).requires_grad_(False)
    del loading
    front_end = FrontEnd(encoder)
    parameters = [parameter for parameter in front_end.parameters() if parameter.requires_grad]
    engine, *_ = deepspeed.initialize(model=front_end, model_parameters=parameters, config=config)
    losses = []
    for _ in range(STEPS):
        loss = (engine(**make_inputs()) - 1).square().mean()
        engine.backward(loss)
        engine.step()
        losses.append(loss.item())
    if rank == 0:
        # Whole weights would be a ZeRO-2.
        torch.save((losses, sum(parameter.numel() for parameter in encoder.parameters())), found)


@pytest.mark.slow
@pytest.mark.parametrize("is_split_when_loaded", [False, True])
def test_a_frozen_encoder_is_a_part_of_a_model_under_zero3(tmp_path, is_split_when_loaded):
    pytest.importorskip("deepspeed")
    torch.manual_seed(0)
    BeatsModel(BeatsConfig(**TINY)).save_pretrained(tmp_path / "model")
    front_end = FrontEnd(BeatsModel.from_pretrained(tmp_path / "model").requires_grad_(False)).train()
    parameters = [parameter for parameter in front_end.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE)
    expected = []
    for _ in range(STEPS):
        loss = (front_end(**make_inputs()) - 1).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        expected.append(loss.item())

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = (port, tmp_path / "model", is_split_when_loaded, tmp_path / "found.pt")
    torch.multiprocessing.spawn(train_under_zero3, arguments, nprocs=NUM_PROCESSES)
    losses, num_held = torch.load(tmp_path / "found.pt")
    assert losses == pytest.approx(expected, rel=1e-3)
    assert num_held == 0
