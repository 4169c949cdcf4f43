# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Fingerprint of a model: what results are kept under, so that those of one model are not taken for another's."""

import hashlib
import json
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from transformers import FeatureExtractionMixin, PreTrainedModel


# Beside a fingerprint that a later version reads, this says by which rule it was made.
FINGERPRINT_VERSION = 1


def model_fingerprint(model: "PreTrainedModel", feature_extractor: "FeatureExtractionMixin | None" = None) -> str:
    """
    Returns 40 hexadecimal digits, as many as a commit has, that change with weights, dtype and settings of a model,
    and with the settings of its feature extractor. Name and directory do not count, nor do the settings of events,
    which are read after the model. Settings at their defaults do not count either: a version that adds one leaves the
    fingerprints of models that do without it.
    """
    import torch

    digest = hashlib.sha256()
    for settings in filter(None, (model.config, feature_extractor)):
        values = json.loads(settings.to_json_string())
        # The installed version, which is no setting: an update of transformers leaves the model what it is.
        values.pop("transformers_version", None)
        # What saving writes: the name of the class and of its file, and the precision, which the weights have.
        for name in ("architectures", "auto_map", "dtype"):
            values.pop(name, None)
        # An index or a cache of embeddings stays what it is when thresholds are tuned.
        values.pop("event_settings", None)
        defaults = json.loads(type(settings)().to_json_string())
        changed = {name: value for name, value in values.items() if name not in defaults or value != defaults[name]}
        digest.update(json.dumps(changed, sort_keys=True).encode())
    # Heads of several kinds may have the same weights. A wrapper of FSDP is the class that it wraps.
    digest.update(type(model).__name__.removeprefix("FSDP").encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().flatten().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()[:40]
