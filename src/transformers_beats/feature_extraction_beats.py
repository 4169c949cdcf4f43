# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Feature extractor for BEATs: 16 kHz mono waveforms to normalised Kaldi filter banks."""

import inspect
import math
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, cast

import numpy as np
import torch
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor
from transformers.feature_extraction_utils import BatchFeature
from transformers.utils import PaddingStrategy, TensorType, logging

from .configuration_beats import SavedWithCode
from .fbank_beats import (
    FRAME_SHIFT_MS,
    LOUDEST,
    LOUDEST_PLAUSIBLE,
    LOUDNESS_IS_REPORTED,
    check_shapes,
    clips_per_block,
    fbank_constants,
    is_finite,
    join_examples,
    kaldi_fbank_block,
    num_fbank_frames,
    num_fbank_samples,
    several_channels,
    silence_value,
    split_pairs,
    to_array,
    to_float_waveform,
    to_number,
    to_rate,
    to_tensors,
)


logger = logging.get_logger(__name__)

# A `max_length` in samples that cuts clips to less than this is likely to be meant as a number of frames.
SHORTEST_CUT_SECONDS = 0.25
# Arguments of other feature extractors, and what they are called here.
OTHER_NAMES = {
    "num_mel_bins": "feature_size",
    "n_mels": "feature_size",
    "mean": "fbank_mean",
    "std": "fbank_std",
    "sample_rate": "sampling_rate",
}
# Written to `preprocessor_config.json` by transformers, or passed by it.
KEYS_OF_TRANSFORMERS = {
    "audio_processor_type",
    "auto_map",
    "feature_extractor_type",
    "padding_side",
    "processor_class",
    "transformers_version",
}


class BeatsFeatureExtractor(SavedWithCode, SequenceFeatureExtractor):
    r"""
    Turns 16 kHz mono waveforms into the normalised filter banks that BEATs reads: `(fbank - fbank_mean) / (2 *
    fbank_std)`, equal to the reference's `preprocess`.

    Args:
        feature_size (`int`, defaults to 128):
            Number of mel filters.
        sampling_rate (`int`, defaults to 16000):
            Sampling rate of the waveforms, in hertz.
        padding_value (`float`, *optional*):
            Value of padded frames. Defaults to the value of digital silence after normalisation (-2.39 with
            the default statistics). The model ignores padded frames given the `attention_mask`.
        fbank_mean (`float`, defaults to 15.41663):
            Mean of the fbank over the training data. The default is AudioSet's, used by Microsoft's checkpoints.
        fbank_std (`float`, defaults to 6.55582):
            Standard deviation of the fbank over the training data.
        patch_size (`int`, defaults to 16):
            Frames in one patch column of the model. A shorter clip is padded with silence to one column.
        legacy_padding_mask (`bool`, defaults to `False`):
            Reproduce the frame mask of Microsoft's code, together with the model option of the same name. The result
            then depends on the padded length; it is exact for batches padded by `__call__`, not by `pad`. Batches
            without a clip of at least one patch column are refused, as Microsoft's code fails with them.
        return_attention_mask (`bool`, defaults to `True`):
            Whether `__call__` and `pad` return the `attention_mask`.

    Raises:
        `ValueError`: for an impossible value, and for an argument that is not one of these, such as the `num_mel_bins`
        and `mean` of other feature extractors.

    Example:

    ```python
    >>> import numpy as np
    >>> from transformers_beats import BeatsFeatureExtractor

    >>> extractor = BeatsFeatureExtractor()
    >>> inputs = extractor([np.zeros(16000), np.zeros(32000)], sampling_rate=16000, return_tensors="pt")
    >>> inputs["input_values"].shape, inputs["attention_mask"].sum(dim=1).tolist()
    (torch.Size([2, 198, 128]), [98, 198])
    ```
    """

    model_input_names = ["input_values", "attention_mask"]
    # Saving copies this file next to the configuration, for use with `trust_remote_code=True`.
    _auto_class = "AutoFeatureExtractor"

    def __init__(
        self,
        feature_size: int = 128,
        sampling_rate: int = 16000,
        padding_value: float | None = None,
        fbank_mean: float = 15.41663,
        fbank_std: float = 6.55582,
        patch_size: int = 16,
        legacy_padding_mask: bool = False,
        return_attention_mask: bool = True,
        **kwargs,
    ):
        for name in kwargs:
            if name not in KEYS_OF_TRANSFORMERS and not name.startswith("_"):
                raise ValueError(_unknown_argument(type(self).__name__, name))
        # A lower rate has less than a sample from one frame to the next.
        for name, value, lowest in (
            ("feature_size", feature_size, 1),
            ("sampling_rate", sampling_rate, 1000 // FRAME_SHIFT_MS),
            ("patch_size", patch_size, 1),
        ):
            if isinstance(value, bool) or not isinstance(value, Integral) or value < lowest:
                raise ValueError(f"`{name}` must be an integer and at least {lowest}, got {value!r}.")
        if not (is_finite(fbank_mean) and is_finite(fbank_std) and fbank_std > 0):
            raise ValueError(f"`fbank_std` must be positive, `fbank_mean` finite, got {fbank_std} and {fbank_mean}.")
        if kwargs.get("padding_side", "right") != "right":
            raise ValueError("Clips begin with their first patch: `padding_side` must be 'right'.")
        self.fbank_mean, self.fbank_std = float(fbank_mean), float(fbank_std)
        super().__init__(feature_size, sampling_rate, padding_value, **kwargs)  # ty: ignore[invalid-argument-type]
        # Not left to the base class, whose successor in transformers may keep them otherwise. Numbers of NumPy, which
        # pass for those of Python, could not be saved.
        self.feature_size, self.sampling_rate = int(feature_size), int(sampling_rate)
        self.padding_value, self.padding_side = padding_value, "right"
        self.return_attention_mask, self.legacy_padding_mask = bool(return_attention_mask), bool(legacy_padding_mask)
        self.patch_size = int(patch_size)

    @property
    def padding_value(self) -> float:
        """Value of padded frames: unless one was set, that of silence by the statistics, whenever these change."""
        is_derived = self._padding_value is None
        return silence_value(self.fbank_mean, self.fbank_std) if is_derived else self._padding_value

    @padding_value.setter
    def padding_value(self, value: float | None) -> None:
        used = silence_value(self.fbank_mean, self.fbank_std) if value is None else value
        if not is_finite(used):
            raise ValueError(f"`padding_value` must be a finite float32, got {used}: see `fbank_std`.")
        self._padding_value = None if value is None else float(value)

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings and their values, as the base class does."""
        output = super().to_dict() | {"padding_value": self.padding_value}
        del output["_padding_value"]
        return output

    def __call__(
        self,
        raw_speech: np.ndarray | torch.Tensor | Sequence,
        sampling_rate: int | None = None,
        padding: bool | str | PaddingStrategy | None = None,
        max_length: int | float | None = None,
        truncation: bool = False,
        return_attention_mask: bool | None = None,
        return_tensors: str | TensorType | None = None,
        device: str | torch.device | None = None,
        is_batch: bool = False,
    ) -> BatchFeature:
        """
        Featurises one or several mono waveforms.

        Args:
            raw_speech (`np.ndarray`, `torch.Tensor`, `list[float]`, or a list of these):
                One clip `(num_samples,)`, or a batch: a list of clips of any lengths or an array `(batch_size,
                num_samples)`. An array of two rows is refused, since it could be stereo as well: pass `is_batch=True`,
                or two clips as a list. A clip may be a pair of a waveform and its rate in hertz, in either order, as
                `soundfile.read` and `torchaudio.load` return it. Floating point with full scale at 1.0, or int16,
                int32 or uint8 PCM, which is scaled.
            sampling_rate (`int`, *optional*):
                Sampling rate of `raw_speech` in hertz. Pass it: a mismatch is an error, its absence only a warning.
            padding (`bool`, `str` or `PaddingStrategy`, *optional*):
                `True` or `"longest"` pads to the longest clip, `"max_length"` to `max_length`, `False` returns clips
                of their own lengths. By default clips are padded if `return_tensors` asks for one array, and otherwise
                left for a collator to pad, which then knows what is padding.
            max_length (`int` or `float`, *optional*):
                For padding and truncation: an integer counts samples, any other number seconds. (In `pad`, which gets
                features, it counts frames.)
            truncation (`bool`, defaults to `False`):
                Whether to cut clips to `max_length`.
            return_attention_mask (`bool`, *optional*):
                Overrides the attribute of the same name.
            return_tensors (`str` or `TensorType`, *optional*):
                `"pt"` or `"np"` for one array of the whole batch; otherwise a list of one NumPy array per clip.
            device (`str` or `torch.device`, *optional*):
                Device of the computation, and of the tensors of `return_tensors="pt"`. Defaults to that of the first
                clip. Gradients flow to waveforms that are tensors.
            is_batch (`bool`, defaults to `False`): Whether each row of an array is a clip, however few there are.

        Returns:
            [`BatchFeature`] with `input_values` `(batch_size, num_frames, feature_size)`, float32, and
            `attention_mask` `(batch_size, num_frames)`, int32: 1 for each frame that lies wholly in the clip, that is
            for the first `1 + (num_samples - 400) // 160` of them. Clips with less than one patch column (2,800
            samples) count as if silence up to one column belonged to them.

        Raises:
            `ValueError`: for empty clips, NaN or infinite samples, several channels, 64-bit integers, another
            sampling rate, `max_length` missing where it is needed, or clips of different lengths without padding
            where one tensor is asked for.
        """
        raw_speech, rates = split_pairs(raw_speech)
        for rate in [rate for rate in (*rates, sampling_rate) if rate is not None] or [None]:
            self._check_sampling_rate(rate)
        waveforms = self._to_waveforms(raw_speech, device, is_batch)
        padding = return_tensors is not None if padding is None else padding
        strategy = _padding_strategy(padding, max_length)
        max_samples = self._to_samples(max_length)
        if truncation:
            if max_samples is None:
                raise ValueError("`truncation=True` needs a `max_length`, in samples (int) or seconds (float).")
            self._check_truncation(max_length, waveforms)
            waveforms = [waveform[:max_samples] for waveform in waveforms]

        # Under the legacy rule, silence up to one column is padding like any other, as in Microsoft's batches.
        minimum = 0 if self.legacy_padding_mask else num_fbank_samples(self.patch_size, self.sampling_rate)
        lengths = [max(waveform.shape[0], minimum) for waveform in waveforms]
        if strategy == PaddingStrategy.DO_NOT_PAD:
            parts = [
                self._extract([waveform], [length], length, first=index)
                for index, (waveform, length) in enumerate(zip(waveforms, lengths))
            ]
            features, masks = ([part[index][0] for part in parts] for index in range(2))
        else:
            padded_length = max(lengths)
            if strategy == PaddingStrategy.MAX_LENGTH:
                padded_length = max(padded_length, max_samples or 0)
            features, masks = self._extract(waveforms, lengths, padded_length)

        if return_attention_mask is None:
            return_attention_mask = self.return_attention_mask
        outputs = BatchFeature({"input_values": to_tensors(features, return_tensors)})
        if return_attention_mask:
            outputs["attention_mask"] = to_tensors(masks, return_tensors)
        return outputs

    @classmethod
    def from_dict(cls, feature_extractor_dict: dict[str, Any], **kwargs):
        """
        Makes a feature extractor from a saved configuration, as the base class does. Unknown settings, which earlier
        versions saved and did not read, are left out with a warning.

        Raises:
            `ValueError`: if `kwargs` have a setting of other feature extractors, such as `num_mel_bins`.
        """
        settings = {name for parent in cls.__mro__ for name in inspect.signature(parent.__init__).parameters}
        accepted = settings | KEYS_OF_TRANSFORMERS
        unknown = [name for name in feature_extractor_dict if name not in accepted and not name.startswith("_")]
        if unknown:
            names = ", ".join(f"`{name}`" for name in sorted(unknown))
            logger.warning(f"The saved configuration has settings that {cls.__name__} lacks, left out: {names}.")
        saved = {name: value for name, value in feature_extractor_dict.items() if name not in unknown}
        for name in OTHER_NAMES:
            if name in kwargs and name not in settings:
                raise ValueError(_unknown_argument(cls.__name__, name))
        mean, std = (cast(float, saved.get(name)) for name in ("fbank_mean", "fbank_std"))
        if is_finite(mean) and is_finite(std) and std and saved.get("padding_value") == silence_value(mean, std):
            # It follows from the statistics, which `kwargs` may replace.
            del saved["padding_value"]
        # The base class replaces only settings that the file has, and a file of an earlier version may lack some.
        saved |= {name: kwargs[name] for name in settings & set(kwargs)}
        return super().from_dict(saved, **kwargs)

    def pad(
        self,
        processed_features: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        padding: bool | str | PaddingStrategy = True,
        max_length: int | None = None,
        truncation: bool = False,
        pad_to_multiple_of: int | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | TensorType | None = None,
    ) -> BatchFeature:
        """
        Joins features of several clips to a batch, as `DataCollatorWithPadding` does.

        Args:
            processed_features (list of dicts, or dict of lists or arrays):
                `input_values` `(num_frames, feature_size)` of each clip, from `__call__`, as arrays, tensors or lists;
                *optional* `attention_mask` `(num_frames,)`. Everything else, such as `labels`, is passed on.
            padding (`bool`, `str` or `PaddingStrategy`, defaults to `True`):
                `True` or `"longest"` pads to the longest clip, `"max_length"` to `max_length`, `False` not at all.
            max_length (`int`, *optional*):
                For padding and truncation, in frames.
            truncation (`bool`, defaults to `False`):
                Whether to cut clips to `max_length`.
            pad_to_multiple_of (`int`, *optional*):
                Rounds the number of frames up to a multiple of this, and `max_length` too.
            return_attention_mask (`bool`, *optional*):
                Overrides the attribute of the same name.
            return_tensors (`str` or `TensorType`, *optional*):
                `"pt"` or `"np"`. Defaults to the kind of the input, and for lists to `"np"`.

        Returns:
            [`BatchFeature`] with `input_values` `(batch_size, num_frames, feature_size)`, float32 (of float16 values,
            float16), `attention_mask` `(batch_size, num_frames)`, int32 unless given, and the rest of the input.

        Raises:
            `ValueError`: if there are no `input_values`, if they are no features of this `feature_size`, if clips
            differ in their keys, if `max_length` is missing where it is needed, or if clips differ in length without
            padding where tensors are asked for.
        """
        features = processed_features
        if not isinstance(features, Mapping):
            features = join_examples(features)
        if "input_values" not in features:
            raise ValueError(f"`pad` needs the `input_values` of `__call__`, got {sorted(features)}.")
        strategy = _padding_strategy(padding, max_length)
        for name, value in (("max_length", max_length), ("pad_to_multiple_of", pad_to_multiple_of)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, Integral) or value < 1):
                raise ValueError(f"`{name}` counts frames: it must be an integer and at least 1, got {value!r}.")
        if truncation and max_length is None:
            raise ValueError("`truncation=True` needs a `max_length`, in frames.")
        multiple = pad_to_multiple_of or 1
        limit = None if max_length is None else -(-max_length // multiple) * multiple
        if return_attention_mask is None:
            return_attention_mask = self.return_attention_mask
        if return_tensors is None:
            is_tensor = len(features["input_values"]) > 0 and isinstance(features["input_values"][0], torch.Tensor)
            return_tensors = TensorType.PYTORCH if is_tensor else TensorType.NUMPY

        batch = {name: [to_array(value) for value in values] for name, values in features.items()}
        clips = batch["input_values"]
        if any(len(values) != len(clips) for values in batch.values()):
            raise ValueError(f"Not all of {sorted(batch)} have {len(clips)} clips, as `input_values` have.")
        for index, clip in enumerate(clips):
            if clip.ndim != 2 or clip.shape[1] != self.feature_size:
                raise ValueError(
                    f"`input_values` of clip {index} must have shape (num_frames, {self.feature_size}), got "
                    f"{clip.shape}. Waveforms go through `__call__`, which pads them itself."
                )
        masks = batch.setdefault("attention_mask", [np.ones(len(clip), dtype=np.int32) for clip in clips])
        for index, (clip, mask) in enumerate(zip(clips, masks)):
            if mask.shape != clip.shape[:1]:
                raise ValueError(
                    f"`attention_mask` of clip {index} must have shape {clip.shape[:1]}, a value for each frame, got "
                    f"{mask.shape}."
                )
        if truncation:
            clips, masks = ([array[:limit] for array in arrays] for arrays in (clips, masks))
        target = 0
        if strategy == PaddingStrategy.LONGEST:
            target = -(-max(map(len, clips), default=0) // multiple) * multiple
        elif strategy == PaddingStrategy.MAX_LENGTH and limit is not None:
            target = limit
        missing = [(0, max(0, target - len(clip))) for clip in clips]
        batch["input_values"] = [
            np.pad(clip, (frames, (0, 0)), constant_values=self.padding_value) for clip, frames in zip(clips, missing)
        ]
        batch["attention_mask"] = [np.pad(mask, frames) for mask, frames in zip(masks, missing)]
        if not return_attention_mask:
            del batch["attention_mask"]
        if TensorType(return_tensors) == TensorType.PYTORCH:
            check_shapes(batch)
        return BatchFeature(batch, tensor_type=return_tensors if clips else None)

    def _extract(
        self, waveforms: list[torch.Tensor], lengths: list[int], padded_length: int, first: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Computes normalised fbank and frame mask of clips, zero-padded to `padded_length` samples; `first` is the
        number of the first of them in the user's batch, for messages.
        """
        device, num_frames = waveforms[0].device, num_fbank_frames(padded_length, self.sampling_rate)
        if num_frames < self.patch_size:
            raise ValueError(
                f"`legacy_padding_mask` is undefined for clips of {padded_length} samples, less than a patch column: "
                "Microsoft's code fails. Pad them by `max_length`, or set `legacy_padding_mask=False`."
            )
        constants = fbank_constants(self.feature_size, self.sampling_rate, device)
        size = clips_per_block(len(waveforms), num_frames, device)
        blocks = []
        for start in range(0, len(waveforms), size):
            block = waveforms[start : start + size]
            batch = torch.stack([torch.nn.functional.pad(w, (0, padded_length - w.shape[0])) for w in block])
            self._check_samples(batch, first + start)
            fbank = kaldi_fbank_block(batch, *constants)
            blocks.append(fbank.sub_(self.fbank_mean).div_(2 * self.fbank_std))
        fbank = blocks[0] if len(blocks) == 1 else torch.cat(blocks)
        if self.legacy_padding_mask:
            # The reference deals `padded_length // num_frames` samples to a frame and keeps a frame with any audio.
            samples_per_frame = padded_length // num_frames
            valid = [min(num_frames, -(-length // samples_per_frame)) for length in lengths]
        else:
            valid = [num_fbank_frames(length, self.sampling_rate) for length in lengths]
        frame_index = torch.arange(num_frames, device=fbank.device)
        mask = frame_index < torch.tensor(valid, device=fbank.device).unsqueeze(1)
        if not self.legacy_padding_mask and min(valid) < num_frames:
            fbank = fbank.masked_fill(~mask.unsqueeze(-1), self.padding_value)
        return fbank, mask.to(torch.int32)

    def _check_sampling_rate(self, sampling_rate: float | None) -> None:
        if sampling_rate is None:
            logger.warning_once(
                f"Pass `sampling_rate` to {type(self).__name__}: audio that is not at {self.sampling_rate} Hz gives "
                "wrong results without any other sign."
            )
        elif to_rate(sampling_rate) != self.sampling_rate:
            raise ValueError(
                f"The audio is at {sampling_rate} Hz, the model needs {self.sampling_rate} Hz. Resample it, for "
                f"example with `transformers.audio_utils.load_audio(path, sampling_rate={self.sampling_rate})` or "
                f"`librosa.resample(audio, orig_sr={sampling_rate}, target_sr={self.sampling_rate})`."
            )

    def _check_truncation(self, max_length: int | float | None, waveforms: list[torch.Tensor]) -> None:
        """Warns of an integer that looks like a number of frames, which other feature extractors count."""
        if not isinstance(max_length, Integral) or max_length >= SHORTEST_CUT_SECONDS * self.sampling_rate:
            return
        if any(waveform.shape[0] > max_length for waveform in waveforms):
            milliseconds = 1000 * max_length / self.sampling_rate
            logger.warning_once(
                f"`max_length={max_length}` counts samples: clips are cut to {milliseconds:g} ms. For seconds pass a "
                "float, such as `max_length=10.0`."
            )

    def _check_samples(self, waveforms: torch.Tensor, first: int) -> None:
        samples = waveforms.detach()
        # Faster than `aminmax` and than `isfinite`; and one transfer from the device.
        peaks = torch.maximum(-samples.amin(dim=1), samples.amax(dim=1)).tolist()
        for index, peak in enumerate(peaks, start=first):
            if not math.isfinite(peak):
                raise ValueError(f"Clip {index} of the batch contains NaN or infinite samples.")
            if peak > LOUDEST:
                raise ValueError(f"Clip {index} of the batch reaches {peak:.0e}, but full scale is 1.0.")
        if max(peaks) > LOUDEST_PLAUSIBLE and not LOUDNESS_IS_REPORTED.get():
            logger.warning_once(
                f"A waveform reaches more than {LOUDEST_PLAUSIBLE:g}, but full scale is 1.0. Divide 16-bit samples by "
                "32768, or pass them as int16."
            )

    def _to_samples(self, max_length: int | float | None) -> int | None:
        if max_length is None:
            return None
        if not is_finite(to_number(max_length)) or max_length <= 0:
            raise ValueError(f"`max_length` must be a positive number, got {max_length!r}.")
        return max(1, round(float(max_length) * (1 if isinstance(max_length, Integral) else self.sampling_rate)))

    def _to_waveforms(self, raw_speech, device: str | torch.device | None, is_batch: bool) -> list[torch.Tensor]:
        """Splits a batch into clips and makes each a one-dimensional float32 tensor on one device."""
        if isinstance(raw_speech, np.ndarray) and raw_speech.dtype == object:
            # Clips of different lengths, from `datasets` in its NumPy format.
            raw_speech = list(raw_speech)
        if isinstance(raw_speech, (np.ndarray, torch.Tensor)):
            has_rows = raw_speech.ndim == 2
            if has_rows and not is_batch and raw_speech.shape[0] == 2:
                raise ValueError(
                    f"An array of shape {tuple(raw_speech.shape)} could be stereo or two clips. Average stereo with "
                    "`audio.mean(axis=0)`, pass two clips as a list or with `is_batch=True`."
                )
            if has_rows and not is_batch and raw_speech.shape[1] <= 8 < raw_speech.shape[0]:
                raise ValueError(several_channels(raw_speech.shape))
            clips = list(raw_speech) if has_rows else [raw_speech]
        elif isinstance(raw_speech, (list, tuple)):
            has_clips = len(raw_speech) > 0 and np.ndim(raw_speech[0]) > 0
            clips = list(raw_speech) if has_clips else [raw_speech]
        else:
            raise ValueError(
                f"Expected a waveform or a list of waveforms, got {type(raw_speech).__name__}. Load files first, for "
                f"example with `transformers.audio_utils.load_audio(path, sampling_rate={self.sampling_rate})`."
            )
        waveforms = [to_float_waveform(clip, index) for index, clip in enumerate(clips)]
        if not waveforms:
            raise ValueError("The batch is empty: pass at least one waveform.")
        device = waveforms[0].device if device is None else device
        return [waveform.to(device) for waveform in waveforms]


def _unknown_argument(class_name: str, name: str) -> str:
    hint = f": use `{OTHER_NAMES[name]}`" if name in OTHER_NAMES else ""
    return f"{class_name} has no argument `{name}`{hint}."


def _padding_strategy(padding: bool | str | PaddingStrategy, max_length: int | float | None) -> PaddingStrategy:
    if isinstance(padding, bool):
        strategy = PaddingStrategy.LONGEST if padding else PaddingStrategy.DO_NOT_PAD
    else:
        strategy = PaddingStrategy(padding)
    if strategy == PaddingStrategy.MAX_LENGTH and max_length is None:
        raise ValueError("`padding='max_length'` needs a `max_length`.")
    return strategy


__all__ = ["BeatsFeatureExtractor"]
