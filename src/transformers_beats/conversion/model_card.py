# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Model card of a converted checkpoint, from the file itself and the text of a manifest."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.dataclasses import strict

import transformers_beats

from .names import Kind


# Imported by the command line, which imports torch and transformers only where they are used.
if TYPE_CHECKING:
    from transformers_beats import BeatsFeatureExtractor

    from .checkpoint import BeatsCheckpoint


TEMPLATE = Path(__file__).with_name("model_card_template.md")
# The copy of AudioSet on the Hub that cards refer to; Microsoft had one of its own.
AUDIOSET = "agkphysics/AudioSet"


class Task(NamedTuple):
    """Task of the paper: its metric, and the dataset as `model-index` names it."""

    metric: str
    metric_type: str
    dataset_name: str
    dataset_type: str
    # Without it, `model-index` takes two tasks on one dataset for one.
    dataset_config: str | None = None


# The columns of the paper's table of results, under the names that a manifest gives them.
TASKS = {
    "AS-2M": Task("mAP", "mean_average_precision", "AudioSet-2M", AUDIOSET, "full"),
    "AS-20K": Task("mAP", "mean_average_precision", "AudioSet-20K", AUDIOSET, "balanced"),
    "ESC-50": Task("accuracy, 5 folds", "accuracy", "ESC-50", "ashraq/esc50"),
    "KS1": Task("accuracy", "accuracy", "Speech Commands V1", "google/speech_commands", "v0.01"),
    "KS2": Task("accuracy", "accuracy", "Speech Commands V2", "google/speech_commands", "v0.02"),
    "ER": Task("accuracy, 5 folds", "accuracy", "IEMOCAP", "iemocap"),
}
KINDS: dict[Kind, tuple[str, str]] = {
    "pretrained": ("BEATs encoder", "The pre-trained encoder: a representation of every patch and of the clip."),
    "finetuned": ("BEATs audio classifier", "An encoder with a classification head."),
    "event-classifier": ("BEATs event classifier", "An encoder with a head that classifies every {step:g} ms."),
    "tokenizer": ("BEATs acoustic tokenizer", "A tokenizer: turns every patch into one of {codebook_size} tokens."),
}


@strict
@dataclass
class CardDetails:
    """
    Text of a card that the checkpoint itself does not state. `datasets` and `base_model` are ids on the Hub; `paper`
    has the paper's figures in per cent, by the names in `TASKS`, and `results_note` a remark on them, or the reason
    why there are none. `license` is an identifier of the Hub, without a default: a file in Microsoft's layout need not
    be Microsoft's.
    """

    title: str | None = None
    summary: str | None = None
    training_data: str = "Unknown to the converter: the source file does not tell."
    datasets: list[str] = field(default_factory=list)
    license: str | None = None
    base_model: str | None = None
    paper: dict[str, float | int] = field(default_factory=dict)
    results_note: str = ""

    def validate_paper(self) -> None:
        """Checks the names of tasks and that figures are per cents; called by `strict`."""
        if unknown := self.paper.keys() - TASKS.keys():
            raise ValueError(f"`paper` has unknown tasks {', '.join(sorted(unknown))}.")
        for task, value in self.paper.items():
            # NaN is not.
            if not 0 <= value <= 100:
                raise ValueError(f"`paper`: {task} is {value}, which are no per cent.")


def render_model_card(
    checkpoint: "BeatsCheckpoint",
    extractor: "BeatsFeatureExtractor",
    source_name: str,
    path: str = ".",
    revision: str | None = None,
    details: CardDetails | None = None,
) -> ModelCard:
    """
    Renders the model card of a converted checkpoint: metadata, usage that runs as written, limits, provenance.

    The card names `source_name` as the source file, and loads the model from `path`, an id on the Hub or the directory
    of the card, and from a branch of the Hub that is not `main`.
    """
    from transformers_beats.audio.audioset import AUDIOSET_LABELS, AUDIOSET_STRONG_LABELS
    from transformers_beats.fbank_beats import num_fbank_samples

    details = details or CardDetails()
    config = checkpoint.config
    labels = set((config.id2label or {}).values())
    title, summary = KINDS[checkpoint.kind]
    return ModelCard.from_template(
        card_metadata(checkpoint.kind, details),
        template_path=str(TEMPLATE),
        checkpoint=checkpoint,
        config=config,
        extractor=extractor,
        details=details,
        is_classifier="classifier.weight" in checkpoint.state_dict,
        auto_class=("AutoModelForAudioFrameClassification" if checkpoint.kind == "event-classifier" else "AutoModel"),
        title=details.title or title,
        summary=details.summary
        or summary.format(codebook_size=config.codebook_size, step=1000 * config.frame_seconds),
        path=path,
        revision=f', revision="{revision}"' if revision else "",
        num_parameters=f"{checkpoint.build_model().num_parameters() / 1e6:.1f} M",
        min_samples=num_fbank_samples(extractor.patch_size, extractor.sampling_rate),
        is_of_audioset=AUDIOSET in details.datasets
        or labels <= {*AUDIOSET_LABELS.values(), *AUDIOSET_STRONG_LABELS.values()},
        results=[(TASKS[name], value) for name, value in details.paper.items()],
        version=transformers_beats.__version__,
        source_name=source_name,
    )


def card_metadata(kind: Kind, details: CardDetails) -> ModelCardData:
    """Returns the metadata of the card. Figures are marked as the paper's."""
    tags = ["beats", "audio", "transformers-beats"]
    is_classifier = kind in ("finetuned", "event-classifier")
    after = "" if is_classifier else " after fine-tuning"
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
        for task, value in ((TASKS[name], value) for name, value in details.paper.items())
    ]
    return ModelCardData(
        license=details.license,
        library_name="transformers",
        pipeline_tag="audio-classification" if is_classifier else "feature-extraction",
        tags=[*tags, "audio-tokenizer"] if kind == "tokenizer" else tags,
        datasets=details.datasets or None,
        base_model=details.base_model,
        base_model_relation="finetune" if details.base_model else None,
        model_name=(details.title or KINDS[kind][0]) if results else None,
        eval_results=results or None,
    )
