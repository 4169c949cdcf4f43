# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
BEATs for Hugging Face transformers.

Importing this package is cheap: classes load on first use, and the Auto classes of transformers learn about them as
soon as they are imported themselves (see [`register`]).
"""

import importlib
from typing import TYPE_CHECKING

from ._auto import register as register
from ._auto import register_on_import


if TYPE_CHECKING:
    from .audio.decoding import open_audio as open_audio
    from .configuration_beats import BeatsConfig as BeatsConfig
    from .configuration_beats import BeatsRandomProjectionTokenizerConfig as BeatsRandomProjectionTokenizerConfig
    from .configuration_beats import BeatsTokenizerConfig as BeatsTokenizerConfig
    from .conversion import released as released
    from .feature_extraction_beats import BeatsFeatureExtractor as BeatsFeatureExtractor
    from .inference.events import EventSettings as EventSettings
    from .inference.events import find_events as find_events
    from .inference.pipeline import BeatsAudioTaggingPipeline as BeatsAudioTaggingPipeline
    from .inference.windowed import WindowedInference as WindowedInference
    from .modeling_beats import BeatsForAudioClassification as BeatsForAudioClassification
    from .modeling_beats import BeatsForAudioFrameClassification as BeatsForAudioFrameClassification
    from .modeling_beats import BeatsModel as BeatsModel
    from .modeling_beats import BeatsPreTrainedModel as BeatsPreTrainedModel
    from .modeling_beats_pretraining import BeatsForPreTraining as BeatsForPreTraining
    from .modeling_beats_pretraining import BeatsTokenizerForPreTraining as BeatsTokenizerForPreTraining
    from .modeling_beats_tokenizer import BeatsRandomProjectionTokenizer as BeatsRandomProjectionTokenizer
    from .modeling_beats_tokenizer import BeatsTokenizerModel as BeatsTokenizerModel


__version__ = "0.1.0"

# The imports above again, for first use. A test compares the two.
_MODULES = {
    "audio.decoding": ["open_audio"],
    "configuration_beats": ["BeatsConfig", "BeatsRandomProjectionTokenizerConfig", "BeatsTokenizerConfig"],
    "feature_extraction_beats": ["BeatsFeatureExtractor"],
    "inference.events": ["EventSettings", "find_events"],
    "inference.pipeline": ["BeatsAudioTaggingPipeline"],
    "inference.windowed": ["WindowedInference"],
    "modeling_beats": [
        "BeatsForAudioClassification",
        "BeatsForAudioFrameClassification",
        "BeatsModel",
        "BeatsPreTrainedModel",
    ],
    "modeling_beats_pretraining": ["BeatsForPreTraining", "BeatsTokenizerForPreTraining"],
    "modeling_beats_tokenizer": ["BeatsRandomProjectionTokenizer", "BeatsTokenizerModel"],
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}
__all__ = sorted([*_HOME, "register", "released"])


def __getattr__(name):
    if name == "released":
        return importlib.import_module(".conversion.released", __name__)
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__():
    return sorted([*globals(), *__all__])


register_on_import()
