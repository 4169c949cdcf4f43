# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
What users do, each in a fresh process: `python sessions.py SESSION ARGUMENT... [--without-package]`; prints JSON.

`--without-package` hides transformers_beats, so that only the code in the repositories can be used.
"""

import hashlib
import json
import sys


class Absent:
    """Finds no transformers_beats."""

    def find_spec(self, fullname, path, target=None):
        if fullname.partition(".")[0] == "transformers_beats":
            raise ModuleNotFoundError("No module named 'transformers_beats'", name=fullname)


WITHOUT_PACKAGE = "--without-package" in sys.argv
if __name__ == "__main__":
    if WITHOUT_PACKAGE:
        sys.meta_path.insert(0, Absent())
    else:
        import transformers_beats  # noqa: F401

import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification, pipeline  # noqa: E402


TRUST = {"trust_remote_code": True} if WITHOUT_PACKAGE else {}
CLIP = np.random.default_rng(0).standard_normal(20000).astype(np.float32) * 0.1


def compute(auto_class: str, repo: str, **kwargs) -> dict:
    """What a model of a repository is and computes, and whose code does it."""
    extractor = AutoFeatureExtractor.from_pretrained(repo, **kwargs)
    model = getattr(transformers, auto_class).from_pretrained(repo, **kwargs).eval()
    with torch.no_grad():
        first = model(**extractor(CLIP, sampling_rate=16000, return_tensors="pt"))[0]
    weights = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        weights.update(name.encode() + tensor.numpy().tobytes())
    module = type(model).__module__
    return {
        "class": type(model).__name__,
        "code": module.partition(".")[0],
        "version": getattr(sys.modules[module], "CODE_VERSION", "newest"),
        "weights": weights.hexdigest(),
        "outputs": first.flatten()[:100].tolist(),
    }


def error_of(function, *args, **kwargs) -> str:
    try:
        function(*args, **kwargs)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def use(old_commit: str) -> dict:
    """Auto classes, a pipeline, pinned revisions, and code of another revision than the weights."""
    classifier = pipeline("audio-classification", model="user/beats-finetuned", **TRUST)
    return {
        "base": compute("AutoModel", "user/beats-iter3", **TRUST),
        "classifier": compute("AutoModelForAudioClassification", "user/beats-finetuned", **TRUST),
        "tokenizer": compute("AutoModel", "user/beats-tokenizer", **TRUST),
        "tag": compute("AutoModel", "user/beats-iter3", revision="v1", **TRUST),
        "commit": compute("AutoModel", "user/beats-iter3", revision=old_commit, **TRUST),
        "old weights": compute("AutoModel", "user/beats-iter3", revision="v1", code_revision="main", **TRUST),
        "old code": compute("AutoModel", "user/beats-iter3", code_revision=old_commit, **TRUST),
        "pipeline": classifier(CLIP, top_k=2),
    }


def refused() -> dict:
    """What is said to users who do not trust the code, lack a token, or name what is not there."""
    load = AutoModel.from_pretrained
    return {
        "no answer about trust": error_of(load, "user/beats-iter3"),
        "no trust": error_of(load, "user/beats-iter3", trust_remote_code=False),
        "no trust, pipeline": error_of(
            pipeline, "audio-classification", model="user/beats-finetuned", trust_remote_code=False
        ),
        "private": error_of(load, "user/private", **TRUST),
        "private extractor": error_of(AutoFeatureExtractor.from_pretrained, "user/private", **TRUST),
        "wrong token": error_of(load, "user/private", token="hf_wrong", **TRUST),
        "absent revision": error_of(load, "user/beats-iter3", revision="v9", **TRUST),
    }


def push() -> dict:
    """Pushes a model (the first time the Hub fails), then a feature extractor, then what Trainer made."""
    model = AutoModelForAudioClassification.from_pretrained("user/beats-finetuned")
    failure = error_of(model.push_to_hub, "user/pushed")
    files = transformers.utils.hub.hf_api().list_repo_files("user/pushed")
    model.push_to_hub("user/pushed", commit_message="second attempt")
    extractor = AutoFeatureExtractor.from_pretrained("user/beats-finetuned")
    extractor.push_to_hub("user/pushed")
    train(extractor)
    return {"failure": failure, "files after it": files}


def train(extractor) -> None:
    """Fine-tunes for two steps and pushes, as the examples of transformers do."""
    labels = ["dog", "rain"]
    data = [{**extractor(CLIP + index * 0.01, sampling_rate=16000), "labels": index % 2} for index in range(4)]
    data = [{key: value[0] if key != "labels" else value for key, value in item.items()} for item in data]
    model = AutoModelForAudioClassification.from_pretrained(
        "user/beats-iter3", num_labels=2, id2label=dict(enumerate(labels)), label2id={"dog": 0, "rain": 1}
    )
    arguments = transformers.TrainingArguments(
        "trained",
        max_steps=2,
        per_device_train_batch_size=2,
        save_strategy="no",
        push_to_hub=True,
        hub_model_id="user/trained",
        remove_unused_columns=False,
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = transformers.Trainer(model, arguments, train_dataset=data, processing_class=extractor)
    trainer.train()
    trainer.push_to_hub(tasks="audio-classification", dataset="Two made-up sounds")


def load_pushed() -> dict:
    """Loads what the session `push` pushed."""
    classifier = pipeline("audio-classification", model="user/trained", **TRUST)
    return {
        "pushed": compute("AutoModelForAudioClassification", "user/pushed", **TRUST),
        "trained": sorted(prediction["label"] for prediction in classifier(CLIP)),
    }


if __name__ == "__main__":
    session, *arguments = (argument for argument in sys.argv[1:] if not argument.startswith("--"))
    # On a line of its own: a question about trust ends without one.
    print("\n" + json.dumps(globals()[session](*arguments)))
