# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
BEATs for Hugging Face transformers.

Importing this package is cheap: classes load on first use, and the Auto classes of transformers learn about them as
soon as they are imported themselves.
"""

import importlib
import sys
from importlib.abc import MetaPathFinder


__version__ = "0.1.0"

_MODULES = {
    "configuration_beats": ["BeatsConfig", "BeatsRandomProjectionTokenizerConfig", "BeatsTokenizerConfig"],
    "feature_extraction_beats": ["BeatsFeatureExtractor"],
    "modeling_beats": ["BeatsForAudioClassification", "BeatsForAudioFrameClassification", "BeatsModel"],
    "modeling_beats_tokenizer": ["BeatsRandomProjectionTokenizer", "BeatsTokenizerModel"],
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__():
    return sorted([*globals(), *__all__])


def _register_configs(auto):
    from . import configuration_beats as configs

    for config in (configs.BeatsConfig, configs.BeatsTokenizerConfig, configs.BeatsRandomProjectionTokenizerConfig):
        auto.AutoConfig.register(config.model_type, config, exist_ok=True)


def _register_feature_extractors(auto):
    from . import configuration_beats as configs
    from .feature_extraction_beats import BeatsFeatureExtractor

    for config in (configs.BeatsConfig, configs.BeatsTokenizerConfig, configs.BeatsRandomProjectionTokenizerConfig):
        auto.AutoFeatureExtractor.register(config, BeatsFeatureExtractor, exist_ok=True)


def _register_models(auto):
    from . import modeling_beats as models
    from . import modeling_beats_tokenizer as tokenizers

    for auto_class, model in (
        (auto.AutoModel, models.BeatsModel),
        (auto.AutoModel, tokenizers.BeatsTokenizerModel),
        (auto.AutoModel, tokenizers.BeatsRandomProjectionTokenizer),
        (auto.AutoModelForAudioClassification, models.BeatsForAudioClassification),
        (auto.AutoModelForAudioFrameClassification, models.BeatsForAudioFrameClassification),
    ):
        auto_class.register(model.config_class, model, exist_ok=True)


_REGISTRATIONS = {
    "transformers.models.auto.configuration_auto": _register_configs,
    "transformers.models.auto.feature_extraction_auto": _register_feature_extractors,
    "transformers.models.auto.modeling_auto": _register_models,
}


def _register_loaded():
    """Registers our classes with every Auto class that is loaded and does not know them yet."""
    while loaded := next((name for name in _REGISTRATIONS if name in sys.modules), None):
        # Removed first: registering imports our modules, which comes back here.
        _REGISTRATIONS.pop(loaded)(sys.modules[loaded])


class _AutoClassFinder(MetaPathFinder):
    """
    Calls `_register_loaded` whenever an import within transformers or this package is complete. Importing the Auto
    classes right here would make `import transformers_beats` take seconds; registering in the middle of an import
    would meet half-initialised modules.
    """

    depth = 0

    def find_spec(self, fullname, path, target=None):
        if not _REGISTRATIONS or fullname.partition(".")[0] not in ("transformers", __name__):
            return None
        others = (finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec"))
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_register(module):
            self.depth += 1
            try:
                execute(module)
            finally:
                self.depth -= 1
            if self.depth == 0:
                _register_loaded()

        spec.loader.exec_module = execute_and_register
        return spec


_register_loaded()
sys.meta_path.insert(0, _AutoClassFinder())
