# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Importing the package, the Auto classes, and remote code: each in a fresh process, as users meet them."""

import inspect
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch


TY = Path(sys.executable).with_name("ty")


def run_python(code: str, *arguments, **environment) -> subprocess.CompletedProcess:
    command = [sys.executable, "-W", "error::UserWarning", "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


@pytest.fixture
def run_forked(fresh_python):
    """As `run_python`, for programs that need not import PyTorch themselves."""

    def run(code: str, *arguments, **environment) -> subprocess.CompletedProcess:
        return fresh_python(textwrap.dedent(code), *arguments, env={**os.environ, **environment})

    return run


def check(result: subprocess.CompletedProcess) -> str:
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_import_is_light_and_silent():
    result = run_python(
        """
        import sys
        import transformers_beats
        print([name for name in ("torch", "datasets", "librosa", "evaluate", "soundfile") if name in sys.modules])
        """
    )
    assert check(result).strip() == "[]"
    assert result.stderr == ""


def test_importing_every_module_is_silent():
    result = run_python(
        """
        import transformers_beats
        for name in transformers_beats.__all__:
            getattr(transformers_beats, name)
        """
    )
    check(result)
    assert result.stderr == ""


def test_importing_again_changes_nothing(run_forked):
    code = """
        import importlib, sys
        import transformers_beats
        importlib.reload(transformers_beats)
        del sys.modules["transformers_beats"]
        import transformers_beats
        print(sum(type(finder).__name__ == "_AutoClassFinder" for finder in sys.meta_path))
        import transformers.configuration_utils
        print(type(transformers.configuration_utils.__spec__.loader).__name__)
        from transformers import AutoConfig
        print(type(AutoConfig.for_model("beats")).__name__)
        """
    assert check(run_forked(code)).split() == ["1", "SourceFileLoader", "BeatsConfig"]


def test_register_registers_at_once(run_forked):
    code = """
        import sys
        import transformers_beats
        sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != "_AutoClassFinder"]
        assert "transformers.models.auto.modeling_auto" not in sys.modules
        for _ in range(2):
            transformers_beats.register()
        from transformers import AutoConfig, AutoFeatureExtractor, AutoModel
        from transformers.pipelines import PIPELINE_REGISTRY
        from transformers_beats import BeatsConfig
        print(type(AutoConfig.for_model("beats")).__name__, BeatsConfig in AutoModel._model_mapping)
        print("audio-tagging" in PIPELINE_REGISTRY.get_supported_tasks())
        """
    assert check(run_forked(code)).split() == ["BeatsConfig", "True", "True"]


def test_a_processor_is_the_feature_extractor_without_a_question(run_forked, models):
    code = """
        import sys
        import transformers_beats
        from transformers import AutoProcessor
        for name in ("beats_tiny", "beats_tiny_finetuned", "tokenizer_tiny"):
            print(type(AutoProcessor.from_pretrained(f"{sys.argv[1]}/{name}")).__module__)
        """
    # Without a terminal, a question would be an error.
    assert set(check(run_forked(code, models)).split()) == {"transformers_beats.feature_extraction_beats"}


@pytest.mark.skipif(not TY.exists(), reason="the type checker is not installed")
def test_type_checkers_see_every_public_name(tmp_path):
    import transformers_beats

    names = transformers_beats.__all__
    path = tmp_path / "use.py"
    lines = ["from transformers_beats import " + ", ".join(names), *(f"reveal_type({name})" for name in names)]
    path.write_text("\n".join(lines) + "\n")
    command = [TY, "check", "--output-format", "concise", "--python", sys.prefix]
    command += ["--extra-search-path", Path(transformers_beats.__file__).parents[1], path]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    revealed = re.findall(r"Revealed type: `(.*)`", result.stdout)
    assert len(revealed) == len(names), result.stdout + result.stderr
    expected = [
        f"<class '{name}'>" if inspect.isclass(value) else "<module " if inspect.ismodule(value) else "def "
        for name, value in ((name, getattr(transformers_beats, name)) for name in names)
    ]
    assert [kind[: len(start)] for kind, start in zip(revealed, expected)] == expected
    # Only `reveal_type` has something to say.
    assert "error" not in result.stdout


def test_another_threads_import_does_not_keep_configurations_from_being_known(run_forked):
    code = """
        import sys, threading
        import transformers_beats

        held, released = threading.Event(), threading.Event()

        class HoldThread:
            def find_spec(self, name, path=None, target=None):
                # `trainer` imports it right after the Auto classes.
                if name == "transformers.optimization" and threading.current_thread() is thread:
                    held.set()
                    # Not for ever: elsewhere the main thread may need a module that this thread is importing.
                    released.wait(20)

        sys.meta_path.insert(0, HoldThread())
        thread = threading.Thread(target=lambda: __import__("transformers.trainer"), daemon=True)
        thread.start()
        held.wait(60)
        from transformers import AutoConfig
        print(type(AutoConfig.for_model("beats")).__name__, "transformers.models.auto.modeling_auto" in sys.modules)
        released.set()
        thread.join()
        from transformers import AutoModel
        from transformers_beats import BeatsConfig
        print(BeatsConfig in AutoModel._model_mapping)
        """
    assert check(run_forked(code)).split() == ["BeatsConfig", "True", "True"]


def test_modules_run_as_programs():
    command = [sys.executable, "-m", "transformers_beats.demo", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "--model" in result.stdout


def test_unknown_names_are_attribute_errors():
    import transformers_beats

    with pytest.raises(AttributeError, match="no attribute 'BeatsNothing'"):
        transformers_beats.BeatsNothing  # noqa: B018
    assert "BeatsModel" in dir(transformers_beats)


@pytest.mark.parametrize(
    "imports",
    [
        "import transformers_beats",
        "import transformers_beats; import transformers.modeling_layers",
        "import transformers_beats; from transformers import pipeline, Trainer",
        "from transformers import AutoModel, pipeline; import transformers_beats",
        "import transformers_beats.modeling_beats",
        pytest.param("import transformers_beats.modeling_beats_tokenizer", marks=pytest.mark.slow),
        pytest.param("from transformers_beats import BeatsFeatureExtractor", marks=pytest.mark.slow),
    ],
)
def test_auto_classes_know_the_models_whatever_is_imported_first(run_forked, imports, models):
    code = f"""
        import sys
        {imports}
        from transformers import AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification
        from transformers import AutoModelForAudioFrameClassification
        root = sys.argv[1]
        print(type(AutoFeatureExtractor.from_pretrained(root + "/beats_tiny")).__module__)
        print(type(AutoModel.from_pretrained(root + "/beats_tiny")).__name__)
        print(type(AutoModel.from_pretrained(root + "/tokenizer_tiny")).__name__)
        print(type(AutoModelForAudioClassification.from_pretrained(root + "/beats_tiny_finetuned")).__name__)
        print(type(AutoModelForAudioFrameClassification.from_pretrained(root + "/beats_tiny")).__name__)
        """
    assert check(run_forked(code, models)).split() == [
        "transformers_beats.feature_extraction_beats",
        "BeatsModel",
        "BeatsTokenizerModel",
        "BeatsForAudioClassification",
        "BeatsForAudioFrameClassification",
    ]


REMOTE_CODE = """
import sys

class Absent:
    def find_spec(self, fullname, path, target=None):
        if fullname.partition(".")[0] == "transformers_beats":
            raise ModuleNotFoundError("No module named 'transformers_beats'", name=fullname)

sys.meta_path.insert(0, Absent())
import numpy as np
import torch
import transformers
from transformers import AutoConfig, AutoFeatureExtractor

source, target = sys.argv[1:3]
clip = np.random.default_rng(0).standard_normal(20000).astype(np.float32) * 0.1
for case in sys.argv[3:]:
    auto_class, name = case.split(":")
    path = f"{source}/{name}"
    config = AutoConfig.from_pretrained(path, trust_remote_code=True)
    extractor = AutoFeatureExtractor.from_pretrained(path, trust_remote_code=True)
    torch.manual_seed(0)
    model = getattr(transformers, auto_class).from_pretrained(path, trust_remote_code=True).eval()
    with torch.no_grad():
        outputs = model(**extractor(clip, sampling_rate=16000, return_tensors="pt"))
    print(type(model).__module__.partition(".")[0], type(model).__name__, float(outputs[0].double().sum()))
    if target:
        model.save_pretrained(f"{target}/{name}")
        extractor.save_pretrained(f"{target}/{name}")
"""

CASES = {
    "AutoModelForAudioClassification:beats_tiny_finetuned": "BeatsForAudioClassification",
    "AutoModelForAudioFrameClassification:beats_tiny_finetuned": "BeatsForAudioFrameClassification",
    "AutoModel:beats_tiny_finetuned": "BeatsModel",
    "AutoModel:beats_tiny": "BeatsModel",
    "AutoModel:tokenizer_tiny": "BeatsTokenizerModel",
}


def test_directories_work_without_the_package(run_forked, models, tmp_path):
    modules = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    output = check(run_forked(REMOTE_CODE, models, "", *CASES, **modules))
    classes = [line.split()[:2] for line in output.splitlines()]
    assert classes == [["transformers_modules", name] for name in CASES.values()]


def test_heads_of_probes_work_without_the_package(run_forked, models, tmp_path):
    from transformers_beats import BeatsFeatureExtractor, BeatsForAudioClassification

    modules = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    for pooling in ("class_attention", "prototypes"):
        head = {"classifier_pooling": pooling, "use_weighted_layer_sum": True, "layer_weights": "attention"}
        model = BeatsForAudioClassification.from_pretrained(models / "beats_tiny", num_labels=3, **head)
        model.save_pretrained(tmp_path / pooling)
        BeatsFeatureExtractor().save_pretrained(tmp_path / pooling)
    cases = [f"AutoModelForAudioClassification:{pooling}" for pooling in ("class_attention", "prototypes")]
    lines = check(run_forked(REMOTE_CODE, tmp_path, "", *cases, **modules)).splitlines()
    assert [line.split()[:2] for line in lines] == [["transformers_modules", "BeatsForAudioClassification"]] * 2
    clip = np.random.default_rng(0).standard_normal(20000).astype(np.float32) * 0.1
    inputs = BeatsFeatureExtractor()(clip, sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        assert float(lines[1].split()[2]) == pytest.approx(float(model.eval()(**inputs).logits.sum()), abs=1e-4)


def test_directories_saved_without_the_package_work_without_it(run_forked, models, tmp_path):
    modules = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    cases = ["AutoModelForAudioClassification:beats_tiny_finetuned", "AutoModel:tokenizer_tiny"]
    output = check(run_forked(REMOTE_CODE, models, tmp_path, *cases, **modules))
    assert check(run_forked(REMOTE_CODE, tmp_path, "", *cases, **modules)) == output


def test_remote_code_needs_consent(run_forked, models, tmp_path):
    code = REMOTE_CODE.replace("trust_remote_code=True", "trust_remote_code=False")
    result = run_forked(code, models, "", "AutoModel:beats_tiny", HF_HOME=str(tmp_path))
    assert result.returncode != 0
    assert "trust_remote_code" in result.stderr


def test_old_transformers_is_refused_with_a_reason(tmp_path):
    package = tmp_path / "transformers-5.13.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: transformers\nVersion: 5.13.0\n")
    # The version is read from the metadata that comes first on the path.
    result = run_python("import transformers_beats.modeling_beats", PYTHONPATH=str(tmp_path))
    assert result.returncode != 0
    assert "transformers>=5.14 is required" in result.stderr
    assert "position_bias" in result.stderr
