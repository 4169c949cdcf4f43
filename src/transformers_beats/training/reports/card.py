# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Model cards: of a fine-tuned classifier, from its report, and of a distilled model."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined

import transformers_beats
from transformers_beats import BeatsConfig, BeatsFeatureExtractor
from transformers_beats.configuration_beats import problem_type_of
from transformers_beats.utils.files import replace_file
from transformers_beats.utils.hub import is_id
from transformers_beats.utils.numbers import format_interval, format_number

from .intervals import LEVEL
from .report import CONFUSION_PICTURE, CURVE_PICTURE, METRIC_NAMES, Metrics, describe_size, eval_results, hub_name


TEMPLATE, CARD = "card_template.md", "README.md"
PICTURES = {"Learning curves": CURVE_PICTURE, "Confusion matrix": CONFUSION_PICTURE}
# Of the description of a training: not of interest to others, or said elsewhere.
PRIVATE = ("model", "select", "base_model", "training_dataset", "dataset")


def write_card(
    directory: Path,
    description: Mapping[str, Any],
    report: Mapping[str, Any] | None = None,
    report_dir: Path | None = None,
    spread: Metrics | None = None,
    repo_id: str | None = None,
    remark: str = "",
    method: str = "fine-tuned",
) -> None:
    """
    Writes `README.md` to the directory of a classifier or an encoder, with copies of the pictures of the report beside
    it.

    Args:
        directory (`Path`):
            Directory of the model.
        description (`Mapping[str, Any]`):
            Description of the training; `base_model` and `training_dataset` are named without their place.
        report (`Mapping[str, Any]`, *optional*), report_dir (`Path`, *optional*), spread (`Metrics`, *optional*):
            `metrics.json` of the report and its directory; for a cross-validation, the deviations between folds.
        repo_id (`str`, *optional*):
            Repository on the Hub that the example loads; the directory by default.
        remark (`str`):
            Sentence before the metrics, such as which clips they are of.
        method (`str`, defaults to `"fine-tuned"`):
            Past participle of how the model came from `base_model`.
    """
    config: Any = BeatsConfig.from_pretrained(directory)
    extractor = BeatsFeatureExtractor.from_pretrained(directory)
    architecture = str((config.architectures or [""])[0])
    is_frames, is_encoder = architecture.endswith("AudioFrameClassification"), architecture.endswith("Model")
    dataset, base = description["training_dataset"], str(description["base_model"])
    ids = [name for name in ([dataset] if isinstance(dataset, str) else dataset) if is_id(name)]
    known = {name: value for name, value in description.items() if value is not None and name not in PRIVATE}
    title = hub_name(repo_id or str(directory)).split("/")[-1]
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="feature-extraction" if is_encoder else "audio-classification",
        tags=["audio", "beats", "transformers-beats"],
        base_model=base if is_id(base) else None,
        datasets=ids or None,
        model_name=title if report else None,
        eval_results=eval_results(report["metrics"], description) if report else None,
    )
    pictures = []
    for caption, name in PICTURES.items():
        if report_dir is not None and (report_dir / name).exists():
            shutil.copyfile(report_dir / name, directory / name)
            pictures.append((caption, name))
    kind = f"of every {1000 * config.frame_seconds:g} ms of audio" if is_frames else "of audio clips"
    kind = f"Classifier {kind} into {format_number(config.num_labels)} classes"
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined)
    environment.filters |= {"number": format_number, "interval": format_interval}
    text = environment.get_template(TEMPLATE).render(
        card_data=data.to_yaml(),
        title=title,
        summary=f"{'Encoder of audio' if is_encoder else kind}, {method} from {hub_name(base)} "
        f"([BEATs](https://arxiv.org/abs/2212.09058)) on {hub_name(dataset)}.",
        method=method,
        path=repo_id or str(directory),
        sampling_rate=extractor.sampling_rate,
        classes=[] if is_encoder else [config.id2label[index] for index in sorted(config.id2label)],
        report=report,
        results_note=remark or "On clips that the model has not learned from:",
        size=describe_size(report) if report else "",
        spread=spread,
        level=f"{LEVEL:.0%}",
        metric_names=METRIC_NAMES,
        pictures=pictures,
        description=known,
        single_label=problem_type_of(config) == "single_label_classification",
        version=transformers_beats.__version__,
    )
    with replace_file(directory / CARD) as temporary:
        temporary.write_text(text, encoding="utf-8")
