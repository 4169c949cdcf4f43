# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""The model card of a converted checkpoint: what the file itself tells, and what a manifest knows of it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import EvalResult, ModelCard, ModelCardData

import transformers_beats
from transformers_beats import BeatsFeatureExtractor
from transformers_beats.audio.audioset import AUDIOSET_LABELS
from transformers_beats.feature_extraction_beats import num_fbank_samples

from .checkpoint import BeatsCheckpoint


TEMPLATE = Path(__file__).with_name("model_card_template.md")
# The copy of AudioSet on the Hub that cards refer to; Microsoft had one of its own.
AUDIOSET = "agkphysics/AudioSet"


class Task(NamedTuple):
    """A task of the paper, for the `model-index` of a card."""

    dataset_name: str
    dataset_type: str
    # Without it, `model-index` takes two tasks on one data set for one.
    dataset_config: str | None
    metric: str
    metric_type: str


# The columns of the paper's table of results, under the names that a manifest gives them.
TASKS = {
    "AS-2M": Task("AudioSet-2M", AUDIOSET, "full", "mAP", "mean_average_precision"),
    "AS-20K": Task("AudioSet-20K", AUDIOSET, "balanced", "mAP", "mean_average_precision"),
    "ESC-50": Task("ESC-50", "ashraq/esc50", None, "accuracy, 5 folds", "accuracy"),
    "KS1": Task("Speech Commands V1", "google/speech_commands", "v0.01", "accuracy", "accuracy"),
    "KS2": Task("Speech Commands V2", "google/speech_commands", "v0.02", "accuracy", "accuracy"),
    "ER": Task("IEMOCAP", "iemocap", None, "accuracy, 5 folds", "accuracy"),
}
KINDS = {
    "pretrained": ("BEATs encoder", "The pre-trained encoder: a representation of every patch and of the clip."),
    "finetuned": ("BEATs audio classifier", "An encoder with a classification head."),
    "tokenizer": ("BEATs acoustic tokenizer", "A tokenizer: turns every patch into one of {codebook_size} tokens."),
}


@dataclass
class CardDetails:
    """
    What a card says beyond what the checkpoint itself tells.

    Attributes:
        title: Heading.
        summary: What this model is, in a sentence or two.
        training_data: What it was trained on.
        datasets: Ids of Hub data sets for the metadata.
        license: Of the weights, by its identifier on the Hub. A file in Microsoft's layout need not be Microsoft's.
        base_model: Hub id of the model that it was fine-tuned from.
        results: The paper's figures in per cent, by the names in `TASKS`.
        results_note: What to know of them, or why there are none.
    """

    title: str | None = None
    summary: str | None = None
    training_data: str = "Unknown to the converter: the source file does not tell."
    datasets: list[str] = field(default_factory=list)
    license: str | None = None
    base_model: str | None = None
    results: dict[str, float] = field(default_factory=dict)
    results_note: str = ""


def render_model_card(
    checkpoint: BeatsCheckpoint,
    extractor: BeatsFeatureExtractor,
    source_name: str,
    path: str = ".",
    revision: str | None = None,
    details: CardDetails | None = None,
) -> ModelCard:
    """
    Model card of a converted checkpoint: metadata, usage that runs as written, limits, provenance.

    Args:
        checkpoint ([`BeatsCheckpoint`]):
            What was converted.
        extractor ([`BeatsFeatureExtractor`]):
            Its feature extractor.
        source_name (`str`):
            Name of the source file.
        path (`str`, defaults to `"."`):
            Where readers of the card find the model: an id on the Hub, or this directory.
        revision (`str`, *optional*):
            Branch of the Hub, if not `main`.
        details ([`CardDetails`], *optional*):
            What else is known of the checkpoint.
    """
    details = details or CardDetails()
    config = checkpoint.config
    title, summary = KINDS[checkpoint.kind]
    return ModelCard.from_template(
        card_metadata(checkpoint, details),
        template_path=str(TEMPLATE),
        title=details.title or title,
        summary=details.summary or summary.format(codebook_size=getattr(config, "codebook_size", None)),
        kind=checkpoint.kind,
        path=path,
        revision=f', revision="{revision}"' if revision else "",
        patch_size=config.patch_size,
        num_mel_bins=config.num_mel_bins,
        num_freq_patches=config.num_freq_patches,
        num_layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        num_parameters=f"{checkpoint.build_model().num_parameters() / 1e6:.1f} M",
        dtype=str(config.dtype).removeprefix("torch."),
        sampling_rate=extractor.sampling_rate,
        min_samples=num_fbank_samples(extractor.patch_size, extractor.sampling_rate),
        fbank_mean=extractor.fbank_mean,
        fbank_std=extractor.fbank_std,
        num_labels=config.num_labels,
        is_multi_label=config.problem_type == "multi_label_classification",
        has_labels=config.id2label.get(0) != "LABEL_0",
        is_of_audioset=AUDIOSET in details.datasets or set(config.id2label.values()) <= set(AUDIOSET_LABELS.values()),
        training_data=details.training_data,
        results=[{**TASKS[name]._asdict(), "value": value} for name, value in details.results.items()],
        results_note=details.results_note,
        version=transformers_beats.__version__,
        source_name=source_name,
        sha256=checkpoint.sha256,
        notes=checkpoint.notes,
        license=details.license,
    )


def card_metadata(checkpoint: BeatsCheckpoint, details: CardDetails) -> ModelCardData:
    """The metadata of the card; figures say that they are the paper's."""
    tags = ["beats", "audio", "transformers-beats"]
    after = "" if checkpoint.kind == "finetuned" else " after fine-tuning"
    results = [
        EvalResult(
            task_type="audio-classification",
            dataset_type=task.dataset_type,
            dataset_name=task.dataset_name,
            dataset_config=task.dataset_config,
            metric_type=task.metric_type,
            metric_value=value,
            metric_name=f"{task.metric}{after}, in per cent, as the paper states it",
            source_name="the BEATs paper",
            source_url="https://arxiv.org/abs/2212.09058",
        )
        for task, value in ((TASKS[name], value) for name, value in details.results.items())
    ]
    return ModelCardData(
        license=details.license,
        library_name="transformers",
        pipeline_tag="audio-classification" if checkpoint.kind == "finetuned" else "feature-extraction",
        tags=[*tags, "audio-tokenizer"] if checkpoint.kind == "tokenizer" else tags,
        datasets=details.datasets or None,
        base_model=details.base_model,
        base_model_relation="finetune" if details.base_model else None,
        model_name=(details.title or KINDS[checkpoint.kind][0]) if results else None,
        eval_results=results or None,
    )
