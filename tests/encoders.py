# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""A small encoder that all tests of backends share, since an export takes seconds."""

import torch

from transformers_beats import BeatsConfig, BeatsFeatureExtractor, BeatsModel


TINY = {"embed_dim": 16, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
TINY |= {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
# Settings of the heads are in the encoder's configuration, which its fingerprint has: the tests choose few.
CONFIG = TINY | {"num_labels": 4, "problem_type": "multi_label_classification"}
EXTRACTOR = BeatsFeatureExtractor()


def with_one_encoder(model):
    """Gives a model the encoder that all models of the tests have."""
    torch.manual_seed(0)
    encoder = BeatsModel(BeatsConfig(**TINY))
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            # Layers of random weights add next to nothing to their inputs. Those of trained models do.
            if ".layers." in name and name.endswith("weight") and "norm" not in name:
                parameter *= 10
    model.base_model.load_state_dict(encoder.state_dict())
    return model.eval()
