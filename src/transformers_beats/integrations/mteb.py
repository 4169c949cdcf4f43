# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Model for the audio tasks of MTEB (https://github.com/embeddings-benchmark/mteb):

```python
import mteb
from transformers_beats.integrations.mteb import BeatsMtebModel

mteb.evaluate(BeatsMtebModel("beats-iter3"), tasks=mteb.get_tasks(tasks=["ESC50"]))
```

Padding does not change the embeddings, and audio is resampled by soxr: torchaudio is not needed. MTEB keeps results
under name and revision of a model. The revision of a directory is a hash of its weights and settings, so that a
checkpoint that was trained further, or another of the same name, is computed anew.

`mteb.mock_run(model)` tries it on small tasks that MTEB makes up, in some seconds, and `model.mteb_model_meta` is what
MTEB asks for when a model is submitted. Both were tried with mteb 2.26.
"""

from collections.abc import Iterable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from huggingface_hub import ModelCard, try_to_load_from_cache
from torch.nn.functional import cosine_similarity, normalize
from tqdm.auto import tqdm
from yaml import YAMLError

from transformers_beats.audio.decoding import open_audio
from transformers_beats.conversion.model_card import AUDIOSET
from transformers_beats.conversion.released import find, is_released
from transformers_beats.inference.loading import choose_device
from transformers_beats.utils.errors import BeatsError, UsageError, did_you_mean
from transformers_beats.utils.hub import hub_errors

from .columns import ColumnEmbedder


if TYPE_CHECKING:
    from mteb.models import ModelMeta  # ty: ignore[import-not-found]

# Tasks of MTEB whose clips are AudioSet's, under the names that it knows.
AUDIOSET_TASKS = {"AudioSet", "AudioSetMini", "AudioSetStrongA2TRetrieval", "AudioSetStrongT2ARetrieval"}
AUDIOSET_TASKS |= {"AudioSetStrongA2TRetrieval.v2", "AudioSetStrongT2ARetrieval.v2"}
AUDIOSET_PAGE = "https://research.google.com/audioset/"
# Microsoft's addresses of the files were made on that day, which is that of the preprint as well.
MICROSOFT_RELEASE = "2022-12-18"
CITATION = """
@inproceedings{chen2023beats,
  title     = {{BEATs}: Audio Pre-Training with Acoustic Tokenizers},
  author    = {Chen, Sanyuan and Wu, Yu and Wang, Chengyi and Liu, Shujie and Tompkins, Daniel and Chen, Zhuo and Che, Wanxiang and Yu, Xiangzhan and Wei, Furu},
  booktitle = {International Conference on Machine Learning},
  year      = {2023}
}"""  # noqa: E501


class BeatsMtebModel:
    """
    MTEB's encoder protocol: one embedding for each clip, the mean over its patches, compared by their cosine.

    Args:
        model_name (`str`):
            Name, directory or Hub id of any model of this package with an encoder.
        revision (`str`, *optional*):
            Branch, tag or commit on the Hub.
        device (`str`, *optional*):
            Device to compute on. Defaults to the GPU if there is one.
        meta (`dict[str, Any]`, *optional*):
            Fields of MTEB's `ModelMeta` that the model does not tell, such as `release_date` and `training_datasets`,
            or that are to be others.
        **kwargs:
            Further arguments of [`ColumnEmbedder`] but for `pooling`: a `layer` and `window_seconds` that are not the
            defaults are in the revision of the results.

    Raises:
        [`UsageError`]: for a `pooling`.
    """

    def __init__(
        self,
        model_name: str,
        revision: str | None = None,
        device: str | None = None,
        meta: dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        self.model_name = model_name
        self.revision = revision
        self.meta = meta or {}
        if "pooling" in kwargs:
            raise UsageError("Embeddings of clips are means over the patches: leave out `pooling`.")
        self.embedder = ColumnEmbedder(model_name, revision=revision or "main", **kwargs)
        self.embedder.to(choose_device(device or "auto"))

    def encode(self, inputs: Iterable[dict[str, Any]], *, show_progress_bar: bool = True, **kwargs: Any) -> np.ndarray:
        """
        Embeds the clips of MTEB's batches.

        Args:
            inputs (`Iterable[dict]`):
                MTEB's data loader. `"audio"` of a batch is a list with `"array"` `(num_samples,)` or `(num_channels,
                num_samples)` and `"sampling_rate"` of each clip.
            show_progress_bar (`bool`, defaults to `True`):
                Whether to show one.
            **kwargs:
                Further arguments of MTEB about the task, which are ignored.

        Returns:
            `np.ndarray` of shape `(num_clips, hidden_size)`, float32.

        Raises:
            [`UsageError`]: if a batch has no audio.
        """
        # Without any batch, the result has the shape of embeddings as well.
        embeddings = [self.embedder.means([]).numpy()]
        for batch in tqdm(inputs, disable=not show_progress_bar):
            if "audio" not in batch:
                raise UsageError(f"BEATs embeds audio, but the batch has only {', '.join(batch)}.")
            embeddings.append(self.embedder.means([self._load(item) for item in batch["audio"]]).numpy())
        return np.concatenate(embeddings)

    def _load(self, item: Any) -> np.ndarray:
        """Returns a clip as a mono waveform at the model's rate, from MTEB's dict or torchcodec's decoder."""
        return np.concatenate(list(open_audio(item, self.embedder.sampling_rate).blocks))

    def similarity(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Cosines between all of `(n, dim)` and all of `(m, dim)`, arrays or tensors: `(n, m)`."""
        first, second = (torch.atleast_2d(torch.as_tensor(values).float()) for values in (embeddings1, embeddings2))
        return normalize(first, dim=-1) @ normalize(second, dim=-1).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Cosines between the rows of `(n, dim)` and those of `(n, dim)`: `(n,)`."""
        first, second = (torch.atleast_2d(torch.as_tensor(values).float()) for values in (embeddings1, embeddings2))
        return cosine_similarity(first, second, dim=-1)

    @cached_property
    def mteb_model_meta(self) -> "ModelMeta":
        """
        Metadata that MTEB writes beside results, and asks for when a model is submitted. MTEB takes results of the
        same name and revision for those of this model: the revision is the commit on the Hub or, for a directory and
        a released model, which MTEB names `local/...`, a [`model_fingerprint`].

        Sizes are computed. Licence, training data, base model and date are those of the list of released models, or of
        the model card and the Hub; what neither tells is `None`, unless the argument `meta` has it.

        Raises:
            [`UsageError`]: if `meta` has a field that MTEB does not know, or a value that it refuses.
        """
        from mteb.models import ModelMeta  # ty: ignore[import-not-found]
        from pydantic import ValidationError

        fields = ModelMeta.model_fields
        for name in self.meta:
            if name not in fields:
                hint = did_you_mean(name, fields) or "."
                raise UsageError(f"`meta` has {name!r}, which is no field of ModelMeta{hint}")
        found = {**self._sizes(), **self._origin(), **self.meta}
        # Versions of MTEB differ in their fields.
        known = {name: value for name, value in found.items() if name in fields}
        values = ModelMeta.create_empty().model_dump() | known
        while True:
            try:
                return ModelMeta(**values)
            except ValidationError as error:
                problems = error.errors()
            if "license" not in self.meta and any(problem["loc"][:1] == ("license",) for problem in problems):
                # A card may state one that MTEB has no name for.
                values["license"] = None
                continue
            first = problems[0]
            # A rule about several fields names none.
            field = first["loc"][0] if first["loc"] else "the values"
            value = str(first["input"])[:100]
            raise UsageError(f"`meta`: {field} of a ModelMeta cannot be {value!r}: {first['msg']}.")

    def _sizes(self) -> dict[str, Any]:
        """Returns the fields that follow from the architecture and from the weights."""
        model = self.embedder.model
        num_bytes = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
        return {
            "n_parameters": model.num_parameters(),
            # Of words, which it does not read.
            "n_embedding_parameters": 0,
            "languages": [],
            "memory_usage_mb": round(num_bytes / 2**20, 1),
            # Long clips go through it in windows.
            "max_tokens": float("inf"),
            "embed_dim": model.config.hidden_size,
            "framework": ["PyTorch", "Transformers", "safetensors"],
            "similarity_fn_name": "cosine",
            "modalities": ["audio"],
            "use_instructions": False,
            "citation": CITATION,
        }

    def _origin(self) -> dict[str, Any]:
        """Returns the fields about name, place, licence and training data."""
        from mteb.models import ModelMeta  # ty: ignore[import-not-found]

        path, fingerprint = Path(self.model_name), self.embedder.fingerprint()
        origin: dict[str, Any]
        if is_released(self.model_name):
            entry = find(self.model_name)
            is_microsofts = entry.publisher == "Microsoft"
            # Names must have an organisation.
            origin = {"name": f"local/{entry.name}", "revision": fingerprint, "open_weights": True}
            origin |= {"release_date": MICROSOFT_RELEASE if is_microsofts else None, "reference": entry.page}
            return origin | _of_training(entry.license, entry.datasets, entry.base_model)
        if path.is_dir():
            card = path / "README.md"
            origin = {"name": f"local/{path.resolve().name}", "revision": fingerprint}
            return origin | (_of_card(str(card)) if card.exists() else {})
        # Configurations do not hold the commit: the path in the cache does.
        cached = try_to_load_from_cache(self.model_name, "config.json", revision=self.revision)
        commit = Path(cached).parent.name if isinstance(cached, str) else None
        origin = {"name": self.model_name, "revision": self.embedder.with_settings(commit) if commit else fingerprint}
        origin |= {"open_weights": True, "reference": f"https://huggingface.co/{self.model_name}"}
        if commit and origin["revision"] == commit:
            # Called with name and revision, which then has no settings.
            origin["loader"] = BeatsMtebModel
        with suppress(BeatsError), hub_errors(self.model_name):
            # Of the first commit.
            origin["release_date"] = ModelMeta.fetch_release_date(self.model_name)
        return origin | _of_card(self.model_name)


def _of_card(place: str) -> dict[str, Any]:
    """Returns the fields that follow from the metadata of a model card, a file or one on the Hub; none without one."""
    try:
        with hub_errors(place):
            data = ModelCard.load(place).data
    except (BeatsError, OSError, YAMLError):
        return {}
    # YAML lets each of them be a string or a list.
    datasets, bases = (
        [value] if isinstance(value, str) else list(value or []) for value in (data.datasets, data.base_model)
    )
    return _of_training(data.license, datasets, bases[0] if bases else None)


def _of_training(license: str | None, datasets: list[str], base_model: str | None) -> dict[str, Any]:
    """Returns the fields about licence and training; of datasets other than AudioSet's MTEB's names are unknown."""
    is_audioset = bool(datasets) and all(name == AUDIOSET for name in datasets)
    return {
        "license": license,
        "training_datasets": AUDIOSET_TASKS if is_audioset else None,
        "public_training_data": AUDIOSET_PAGE if is_audioset else None,
        "adapted_from": base_model if base_model and "/" in base_model else None,
    }


__all__ = ["BeatsMtebModel"]
