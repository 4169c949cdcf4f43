# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Registration of the models with transformers' Auto classes, and of the pipeline with its tasks."""

import importlib
import sys
import threading
from importlib.abc import Loader, MetaPathFinder


def _configs():
    from . import configuration_beats as configs

    return configs.BeatsConfig, configs.BeatsTokenizerConfig, configs.BeatsRandomProjectionTokenizerConfig


def _register_configs(auto):
    for config in _configs():
        auto.AutoConfig.register(config.model_type, config, exist_ok=True)


def _register_feature_extractors(auto):
    from .feature_extraction_beats import BeatsFeatureExtractor

    for config in _configs():
        auto.AutoFeatureExtractor.register(config, BeatsFeatureExtractor, exist_ok=True)


def _register_processors(auto):
    from .feature_extraction_beats import BeatsFeatureExtractor

    # A model of sounds alone has no processor: without an entry, `AutoProcessor` would ask whether it may run the code
    # that is saved with the feature extractor.
    for config in _configs():
        auto.AutoProcessor.register(config, BeatsFeatureExtractor, exist_ok=True)


def _register_models(auto):
    from . import modeling_beats as models
    from . import modeling_beats_pretraining as pretraining
    from . import modeling_beats_tokenizer as tokenizers

    for auto_class, model in (
        (auto.AutoModel, models.BeatsModel),
        (auto.AutoModel, tokenizers.BeatsTokenizerModel),
        (auto.AutoModel, tokenizers.BeatsRandomProjectionTokenizer),
        (auto.AutoModelForPreTraining, pretraining.BeatsForPreTraining),
        (auto.AutoModelForPreTraining, pretraining.BeatsTokenizerForPreTraining),
        (auto.AutoModelForAudioClassification, models.BeatsForAudioClassification),
        (auto.AutoModelForAudioFrameClassification, models.BeatsForAudioFrameClassification),
    ):
        auto_class.register(model.config_class, model, exist_ok=True)


def _register_pipelines(pipelines):
    from transformers_beats.inference import pipeline as tagging

    registry = pipelines.PIPELINE_REGISTRY
    # Registering again would be a warning.
    if tagging.TASK not in registry.get_supported_tasks():
        registry.register_pipeline(
            tagging.TASK, tagging.BeatsAudioTaggingPipeline, pt_model=(tagging.BeatsModelForTask,), type="audio"
        )


_REGISTRATIONS = {
    "transformers.models.auto.configuration_auto": _register_configs,
    "transformers.models.auto.feature_extraction_auto": _register_feature_extractors,
    "transformers.models.auto.modeling_auto": _register_models,
    "transformers.models.auto.processing_auto": _register_processors,
    "transformers.pipelines": _register_pipelines,
}


def _register_loaded(just_executed=None, within_import=False):
    """
    Registers our classes with every Auto class, and our pipeline with the registry of tasks, that is loaded and does
    not know them yet. Within another import our modules may meet half-initialised ones; what fails then is tried again
    when that import is complete.
    """
    for name in list(_REGISTRATIONS):
        module = sys.modules.get(name)
        is_incomplete = getattr(getattr(module, "__spec__", None), "_initializing", False)
        if module is None or (is_incomplete and module is not just_executed):
            continue
        # Removed first: registering imports our modules, which comes back here.
        register = _REGISTRATIONS.pop(name, None)
        try:
            if register is not None:
                register(module)
        except BaseException as error:
            _REGISTRATIONS[name] = register
            if not (within_import and isinstance(error, (ImportError, AttributeError))):
                raise


class _ThenRegister(Loader):
    """Loads a module as its own loader does, then registers our classes."""

    imports = threading.local()

    def __init__(self, loader):
        self.loader = loader

    def __getattr__(self, name):
        # `python -m` asks for the code and executes it itself.
        return getattr(self.__dict__["loader"], name)

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
        # The module keeps its own loader: other tools inspect it.
        module.__spec__.loader = module.__loader__ = self.loader
        depth = getattr(self.imports, "depth", 0)
        self.imports.depth = depth + 1
        try:
            self.loader.exec_module(module)
        finally:
            self.imports.depth = depth
        _register_loaded(module, within_import=depth > 0)


class _AutoClassFinder(MetaPathFinder):
    """
    Notices imports of transformers and of this package, until the Auto classes and the pipelines are loaded. Importing
    those right here would make `import transformers_beats` take seconds.
    """

    def find_spec(self, fullname, path, target=None):
        if not _REGISTRATIONS or fullname.partition(".")[0] not in ("transformers", __package__):
            return None
        others = (finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec"))
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _ThenRegister(spec.loader)
        return spec


def register() -> None:
    """
    Registers the classes with transformers' Auto classes and the pipeline with its tasks, now. Imports what of
    transformers is not loaded yet, which takes seconds.

    `import transformers_beats` does the same as soon as the program imports the Auto classes, so that calling this is
    only needed where import hooks do not work, as in a frozen application. Calling it again changes nothing.

    Raises:
        `ImportError`: if a part of transformers cannot be imported.
    """
    for name in list(_REGISTRATIONS):
        importlib.import_module(name)
    _register_loaded()


def register_on_import() -> None:
    """Registers with all parts of transformers that are loaded, and with the others when they are."""
    _register_loaded()
    # A module that is reloaded, or imported again, replaces its finder.
    sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != _AutoClassFinder.__name__]
    sys.meta_path.insert(0, _AutoClassFinder())
