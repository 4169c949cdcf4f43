# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Settings of small models and short trainings."""

# A model of two layers that learns within seconds, in float32.
ENCODER = {
    "embed_dim": 16,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "layerdrop": 0.0,
}
TRAINING = {
    "max_steps": 6,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "save_steps": 2,
    "disable_tqdm": True,
}
