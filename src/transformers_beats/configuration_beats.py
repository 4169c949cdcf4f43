# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""BEATs model configurations."""

import math
from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers.activations import ACT2FN
from transformers.configuration_utils import PreTrainedConfig


# Frames of the filter bank in a second, which begin 10 ms apart.
FBANK_FRAMES_PER_SECOND = 100
# Models that `AutoModelForPreTraining` loads, beside those that the maps of the configurations name.
TRAINED_CLASSES = {"BeatsForPreTraining", "BeatsTokenizerForPreTraining"}
TRAINED_MODULE = "modeling_beats_pretraining."
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")


class SavedWithCode:
    """Base class of what is saved with the file of its class, for use with `trust_remote_code=True`."""

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        # A subclass elsewhere is its author's: saving it must not copy her file as remote code without being asked.
        if cls.__module__.rpartition(".")[0] != __name__.rpartition(".")[0]:
            cls._auto_class = None


@strict
class BeatsBaseConfig(SavedWithCode, PreTrainedConfig):
    """
    Base class of the configurations: patch geometry, whose arguments [`BeatsConfig`] explains, and the remote code for
    people who do not have this package.
    """

    # Saving copies this file, and `auto_map` names the classes. `_auto_class` is set by hand because
    # `register_for_auto_class` imports the auto classes, which import this package.
    _auto_class: ClassVar[str | None] = "AutoConfig"
    _remote_code: ClassVar[dict[str, str]] = {}

    num_mel_bins: int = 128
    patch_size: int = 16
    legacy_padding_mask: bool = False

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        # `validate` of `@strict` leaves out the functions of a subclass without it. One that an author wrote is kept.
        if cls.validate.__module__ == strict.__module__ and hasattr(cls, "__class_validators__"):
            cls.validate = cls._validate_by_name

    def _validate_by_name(self) -> None:
        for name in [validator.__name__ for validator in self.__class_validators__]:
            try:
                getattr(self, name)()
            except (TypeError, ValueError) as error:
                raise StrictDataclassClassValidationError(validator=name, cause=error) from error

    _validate_by_name.__is_defined_by_strict_decorator__ = True  # ty: ignore[missing-attribute]

    @property
    def num_freq_patches(self) -> int:
        """Number of patches along frequency in one time column: 8 in the released models."""
        return self.num_mel_bins // self.patch_size

    def validate_architecture(self):
        """Part of `@strict`-powered validation. Validates the architecture of the config."""
        self._check_least("num_mel_bins", "patch_size")
        self._check_divides("patch_size", "num_mel_bins")
        if self.legacy_padding_mask:
            self.check_legacy_padding_mask()

    def check_legacy_padding_mask(self) -> None:
        """
        Raises `ValueError` where Microsoft's padding mask is undefined: it deals the frames of a clip to its patches,
        which leaves none for a patch if there are more patches than frames. Microsoft's code fails there.
        """
        if self.num_mel_bins > self.patch_size**2:
            raise ValueError(
                f"`legacy_padding_mask` is undefined for {self.num_mel_bins} mel bins and patches of "
                f"{self.patch_size}: a clip has more patches than frames. Set `legacy_padding_mask=False`."
            )

    def _check_least(self, *names: str, least: int = 1) -> None:
        for name in names:
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` must be at least {least}, got {getattr(self, name)}.")

    def _check_finite(self, *names: str) -> None:
        for name in names:
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` must be finite and not negative, got {getattr(self, name)}.")

    def _check_divides(self, divisor: str, dividend: str) -> None:
        part, whole = getattr(self, divisor), getattr(self, dividend)
        if whole % part != 0:
            raise ValueError(f"`{divisor}` ({part}) must divide `{dividend}` ({whole}).")

    def to_dict(self) -> dict[str, Any]:
        """
        Serialises the configuration, with the whole `auto_map` of the remote code.

        Saving a model adds only its own class to `auto_map`, as a (slow, fast) pair if its name contains
        "Tokenizer", which `AutoModel` then cannot read. A model loaded from the Hub and saved again would also keep
        references to the repository it came from (`user/repo--modeling_beats.BeatsModel`).
        """
        output = super().to_dict()
        # Without its file, no class could be found.
        own = {} if self._auto_class is None else self._remote_code
        classes = {reference.rpartition(".")[2] for reference in own.values()} | TRAINED_CLASSES
        # Where the class of a model is somebody else's, no file of a model is saved.
        has_file = not self.architectures or not classes.isdisjoint(self.architectures)
        auto_map = {name: reference for name, reference in own.items() if has_file or name == "AutoConfig"}
        for auto_class, reference in (output.get("auto_map") or {}).items():
            if isinstance(reference, (list, tuple)):
                reference = next(name for name in reference if name is not None)
            place = reference.split("--")[-1]
            # Of the model that this one was loaded from.
            is_left_over = place.startswith(TRAINED_MODULE) and TRAINED_CLASSES.isdisjoint(self.architectures or ())
            if not is_left_over and place != own.get(auto_class):
                auto_map[auto_class] = reference
        return output | ({"auto_map": auto_map} if auto_map else {})


@strict
class BeatsConfig(BeatsBaseConfig):
    r"""
    Configuration of a BEATs encoder and its classification heads. The defaults are the architecture of the released
    base models (90 M parameters; Chen et al., 2022, section 4.1, and the `cfg` of Microsoft's checkpoints). They are
    *not* the class defaults of Microsoft's code, which describe a different network (no DeepNorm, maximum distance
    1280).

    Args:
        num_mel_bins (`int`, defaults to 128):
            Number of mel filters of the fbank that the model reads.
        patch_size (`int`, defaults to 16):
            Side of a square patch: frames in time and mel bins in frequency. Must divide `num_mel_bins`.
        embed_dim (`int`, defaults to 512):
            Width of a patch embedding. When it differs from `hidden_size`, a linear layer projects to `hidden_size`.
        conv_bias (`bool`, defaults to `False`):
            Whether the patch convolution has a bias.
        hidden_size (`int`, defaults to 768):
            Width of the encoder.
        num_hidden_layers (`int`, defaults to 12):
            Number of encoder layers.
        num_attention_heads (`int`, defaults to 12):
            Attention heads per layer. Must divide `hidden_size`.
        intermediate_size (`int`, defaults to 3072):
            Width of the feed-forward network.
        hidden_act (`str`, defaults to `"gelu"`):
            Activation of the feed-forward network: a name known to transformers' `ACT2FN`, or `"glu"` for the
            reference's gated unit `x * silu(gate)`.
        hidden_dropout (`float`, defaults to 0.1):
            Dropout on the output of every sublayer and on the input of the first layer.
        attention_dropout (`float`, defaults to 0.1):
            Dropout on attention probabilities.
        activation_dropout (`float`, defaults to 0.0):
            Dropout after the feed-forward activation.
        feat_proj_dropout (`float`, defaults to 0.1):
            Dropout on the projected patch embeddings (`dropout_input` of the reference).
        layerdrop (`float`, defaults to 0.05):
            Probability that a layer is skipped in training.
        deep_norm (`bool`, defaults to `True`):
            DeepNorm: residuals scaled by (2N)^(1/4), initialisation gains of (8N)^(-1/4). Excludes
            `layer_norm_first`.
        layer_norm_first (`bool`, defaults to `False`):
            Pre-norm layers, with one more layer norm after the last layer.
        num_conv_pos_embeddings (`int`, defaults to 128):
            Kernel of the convolutional position embedding, in patches.
        num_conv_pos_embedding_groups (`int`, defaults to 16):
            Groups of that convolution. Must divide `hidden_size`.
        relative_position_embedding (`bool`, defaults to `True`):
            Whether attention has a learned bias by bucketed relative position, shared by all layers.
        gru_rel_pos (`bool`, defaults to `True`):
            Whether each layer gates that bias by head and query.
        num_buckets (`int`, defaults to 320):
            Buckets of relative positions, half of them for each direction.
        max_bucket_distance (`int`, defaults to 800):
            Distance, in patches, from which on all positions share the last bucket.
        initializer_range (`float`, defaults to 0.02):
            Standard deviation of the normal initialisation.
        layer_norm_eps (`float`, defaults to 1e-5):
            Epsilon of every layer norm.
        classifier_dropout (`float`, defaults to 0.0):
            Dropout before a classification head (`predictor_dropout` of the reference).
        use_weighted_layer_sum (`bool`, defaults to `False`):
            Whether classification heads read a learned average of all hidden states instead of the last one.
        layer_weights (`"learned"` or `"attention"`, defaults to `"learned"`):
            Weights of that average: the same numbers for all clips, or for each clip attention of a learned query to
            the means of the layers over its patches.
        classifier_pooling (`str`, defaults to `"mean"`):
            Patches of a clip in `BeatsForAudioClassification`: their mean (`"mean"`); attention of one learned query
            (`"attention"`), or of one for each class (`"class_attention"`); or their largest similarities to binarised
            prototypes (`"prototypes"`). With `"frame_mean"` and `"frame_attention"`, it has the same weights as
            `BeatsForAudioFrameClassification`, and a clip has the mean of the logits of its frames, or the mean of
            their scores with weights of a second linear layer: PretrainedSED's heads for weak labels.
        num_prototypes (`int`, defaults to 40):
            Number of prototypes, which belong to no class, of `classifier_pooling="prototypes"`.
        frame_pooling (`"mean"`, `"concat"` or `"sequence"`, defaults to `"mean"`):
            Inputs of `BeatsForAudioFrameClassification`: the frequency patches of each time column, averaged or
            concatenated; or evenly spaced steps of the sequence of all patches, as in PretrainedSED (Schmid et al.,
            2025, arXiv:2409.09546), which are shorter than a column.
        frames_per_second (`int`, defaults to 25):
            Number of these steps in a second, with `frame_pooling="sequence"`. A step is a whole number of frames of
            10 ms that divides `patch_size`: 25, 50 or 100 with patches of 16.
        frame_recurrent_layers (`int`, defaults to 0):
            Layers of a bidirectional GRU between the frames of `frame_pooling` and the classifier, as PretrainedSED's
            teachers have. Also in `BeatsForAudioClassification`, with a `classifier_pooling` of frames. They break the
            graph of `torch.compile`, so that `fullgraph=True` fails.
        frame_recurrent_size (`int`, defaults to 2048):
            Width of each direction of that GRU. The default is that of PretrainedSED's code.
        event_settings (`dict[str, dict[str, float]]`, *optional*):
            Thresholds and filters of the events of labels, by their names, as `evaluate --tune_events` writes them:
            fields of `EventSettings`. The network does not depend on them.
        codebook_size (`int`, defaults to 1024):
            Number of codes of the acoustic tokenizer whose codes `BeatsForPreTraining` predicts.
        num_codebooks (`int`, defaults to 1):
            Number of codes of each patch, from as many codebooks of that tokenizer; the loss is the mean over them.
        mask_ratio (`float`, defaults to 0.75):
            Share of a clip's patches that `BeatsForPreTraining` hides.
        mask_block_size (`int`, defaults to 1):
            Side of the blocks of patches, in time and frequency, that `BeatsForPreTraining` keeps: the inverse block
            masks of data2vec 2.0 and EAT, which has 5. With 1, the paper, patches are kept one by one.
        mask_embedding (`"zeros"` or `"learned"`, defaults to `"zeros"`):
            Input of the label predictor in the place of a hidden patch; the paper has zeros.
        kept_positions (`"original"` or `"compacted"`, defaults to `"original"`):
            Positions of the kept patches in the encoder of `BeatsForPreTraining`: those in the clip, or 0, 1, 2, ...
            as in ESPnet. The paper does not say.
        label_predictor_num_hidden_layers (`int`, defaults to 3):
            Layers of the label predictor. The paper does not give their number; 3 is ESPnet's.
        label_smoothing (`float`, defaults to 0.0):
            Label smoothing of masked acoustic modelling.
        legacy_padding_mask (`bool`, defaults to `False`):
            Reproduce the padding mask of Microsoft's code, which lets the model see some padding and hides some
            audio. Only for matching numbers computed with that code; the feature extractor has the same option.
            Needs at least as many frames as patches: `num_mel_bins <= patch_size**2`.

    Raises:
        `ValueError` (as `StrictDataclassClassValidationError` of huggingface_hub): an impossible architecture.

    Example:

    ```python
    >>> from transformers_beats import BeatsConfig, BeatsModel

    >>> model = BeatsModel(BeatsConfig())
    ```
    """

    model_type = "beats"

    _remote_code: ClassVar[dict[str, str]] = {
        "AutoConfig": "configuration_beats.BeatsConfig",
        "AutoModel": "modeling_beats.BeatsModel",
        "AutoModelForAudioClassification": "modeling_beats.BeatsForAudioClassification",
        "AutoModelForAudioFrameClassification": "modeling_beats.BeatsForAudioFrameClassification",
    }

    embed_dim: int = 512
    conv_bias: bool = False
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout: float | int = 0.1
    attention_dropout: float | int = 0.1
    activation_dropout: float | int = 0.0
    feat_proj_dropout: float | int = 0.1
    layerdrop: float | int = 0.05
    deep_norm: bool = True
    layer_norm_first: bool = False
    num_conv_pos_embeddings: int = 128
    num_conv_pos_embedding_groups: int = 16
    relative_position_embedding: bool = True
    gru_rel_pos: bool = True
    num_buckets: int = 320
    max_bucket_distance: int = 800
    initializer_range: float | int = 0.02
    layer_norm_eps: float | int = 1e-5
    classifier_dropout: float | int = 0.0
    use_weighted_layer_sum: bool = False
    layer_weights: Literal["learned", "attention"] = "learned"
    classifier_pooling: Literal[
        "mean", "attention", "class_attention", "prototypes", "frame_mean", "frame_attention"
    ] = "mean"
    num_prototypes: int = 40
    frame_pooling: Literal["mean", "concat", "sequence"] = "mean"
    frames_per_second: int = 25
    frame_recurrent_layers: int = 0
    frame_recurrent_size: int = 2048
    event_settings: dict | None = None
    codebook_size: int = 1024
    num_codebooks: int = 1
    mask_ratio: float = 0.75
    mask_block_size: int = 1
    mask_embedding: Literal["zeros", "learned"] = "zeros"
    kept_positions: Literal["original", "compacted"] = "original"
    label_predictor_num_hidden_layers: int = 3
    label_smoothing: float | int = 0.0

    @property
    def scores_patches(self) -> bool:
        """Returns whether the classifier of clips reads hidden states, so that it has logits of each patch, too."""
        return not self.pools_frames and self.classifier_pooling != "prototypes"

    @property
    def pools_frames(self) -> bool:
        """Returns whether `classifier_pooling` makes the scores of a clip from those of its frames."""
        return self.classifier_pooling.startswith("frame_")

    @property
    def frames_per_step(self) -> int:
        """Frames of 10 ms from one score of frames to the next: a column, or a step of `frame_pooling="sequence"`."""
        is_step = self.frame_pooling == "sequence"
        return FBANK_FRAMES_PER_SECOND // self.frames_per_second if is_step else self.patch_size

    @property
    def frame_seconds(self) -> float:
        """Time from one score of `BeatsForAudioFrameClassification` to the next, in seconds: 0.16, or 0.04."""
        return self.frames_per_step / FBANK_FRAMES_PER_SECOND

    def count_steps(self, num_frames: Any) -> Any:
        """
        Number of scores of `BeatsForAudioFrameClassification` for a clip of so many frames, a number or an integer
        tensor: its whole columns or, with `frame_pooling="sequence"`, its steps, the last of which may have less than
        `frames_per_step` frames. So 998 frames, 10 s, have 62 columns or 250 steps of 40 ms.
        """
        missing = self.frames_per_step - 1 if self.frame_pooling == "sequence" else 0
        return (num_frames + missing) // self.frames_per_step

    def validate_architecture(self):
        super().validate_architecture()
        self._check_least("embed_dim", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_prototypes")
        self._check_least("intermediate_size", "num_conv_pos_embeddings", "num_conv_pos_embedding_groups")
        self._check_least("codebook_size", "num_codebooks", "label_predictor_num_hidden_layers", "mask_block_size")
        self._check_least("frame_recurrent_size")
        self._check_least("frame_recurrent_layers", least=0)
        if self.problem_type not in (None, *PROBLEM_TYPES):
            raise ValueError(f"`problem_type` must be one of {', '.join(PROBLEM_TYPES)}, got {self.problem_type!r}.")
        dropouts = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout")
        for name in (*dropouts, "classifier_dropout", "layerdrop", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"`{name}` is a probability in [0, 1), got {getattr(self, name)}.")
        self._check_finite("initializer_range")
        if not 0 < self.layer_norm_eps < math.inf:
            raise ValueError(f"`layer_norm_eps` must be positive and finite, got {self.layer_norm_eps}.")
        if not 0 < self.mask_ratio < 1:
            raise ValueError(f"`mask_ratio` must lie between 0 and 1, got {self.mask_ratio}.")
        self._check_divides("num_attention_heads", "hidden_size")
        self._check_divides("num_conv_pos_embedding_groups", "hidden_size")
        if self.hidden_act != "glu" and self.hidden_act not in ACT2FN:
            raise ValueError(f"`hidden_act` {self.hidden_act!r} is neither 'glu' nor an activation of transformers.")
        if self.deep_norm and self.layer_norm_first:
            raise ValueError("`deep_norm` scales the residuals of post-norm layers: set `layer_norm_first=False`.")
        if self.gru_rel_pos and not self.relative_position_embedding:
            raise ValueError("`gru_rel_pos` gates the relative bias: it needs `relative_position_embedding=True`.")
        if self.layer_weights != "learned" and not self.use_weighted_layer_sum:
            raise ValueError("`layer_weights` weigh all layers: set `use_weighted_layer_sum=True`.")
        if self.frame_pooling == "sequence":
            self._check_steps()
        self._check_event_settings()
        if self.num_buckets < 4 or self.num_buckets % 2 != 0:
            raise ValueError(f"`num_buckets` must be even and at least 4, got {self.num_buckets}.")
        if self.max_bucket_distance <= self.num_buckets // 4:
            raise ValueError(
                f"`max_bucket_distance` ({self.max_bucket_distance}) must exceed `num_buckets // 4` "
                f"({self.num_buckets // 4}), up to which every distance has a bucket of its own."
            )

    def _check_event_settings(self) -> None:
        for label, values in (self.event_settings or {}).items():
            # Numbers, which JSON can hold. Their names are left to `EventSettings`: later versions may have others.
            is_named = isinstance(values, dict) and all(isinstance(key, str) for key in (label, *values))
            given = [value for value in values.values() if value is not None] if is_named else []
            are_finite = all(isinstance(value, (int, float)) and abs(value) < math.inf for value in given)
            if not is_named or not are_finite or any(isinstance(value, bool) for value in given):
                raise ValueError(
                    "`event_settings` must be {label: {name: value}}, strings and finite numbers of Python, got "
                    f"{values!r} for {label!r}."
                )

    def _check_steps(self) -> None:
        self._check_least("frames_per_second")
        if self.legacy_padding_mask:
            raise ValueError(
                '`frame_pooling="sequence"` counts the frames of a clip, which `legacy_padding_mask` does not tell: '
                "set `legacy_padding_mask=False`."
            )
        steps = [step for step in range(1, self.patch_size + 1) if self.patch_size % step == 0]
        rates = sorted(FBANK_FRAMES_PER_SECOND // step for step in steps if FBANK_FRAMES_PER_SECOND % step == 0)
        if self.frames_per_second not in rates:
            raise ValueError(
                f"`frames_per_second` must divide the {self.patch_size} frames of a patch into steps: choose one of "
                f"{', '.join(map(str, rates))}, got {self.frames_per_second}."
            )


@strict
class BeatsTokenizerConfig(BeatsConfig):
    r"""
    Configuration of a self-distilled BEATs acoustic tokenizer: a BEATs encoder and a codebook. All arguments of
    [`BeatsConfig`] apply, with the same defaults (the released tokenizers have the encoder of the released models).

    Args:
        codebook_size (`int`, defaults to 1024):
            Number of codes.
        codebook_dim (`int`, defaults to 256):
            Dimension of a code.
        codebook_decay (`float`, defaults to 0.99):
            Decay of the moving average that the codebook is in training.
        commitment_weight (`float`, defaults to 1.0):
            Weight of the commitment loss, which is a mean over patches and dimensions, as in Microsoft's code.
        dead_code_threshold (`float`, defaults to 0.0):
            In training, a code whose moving average of patches per batch falls below this is replaced by a patch of
            the batch. 0 replaces none.
        estimator_num_hidden_layers (`int`, defaults to 3):
            Layers of the estimator that predicts the teacher from the codes' vectors (section 3.2.2 of the paper).
            With 0, every patch is estimated from its own code alone.
        teacher_output_size (`int`, *optional*):
            Dimension of what the estimator predicts: the teacher's `hidden_size`, or its `num_labels` if the teacher
            is a fine-tuned classifier. Defaults to `hidden_size`.
    """

    model_type = "beats_tokenizer"

    _remote_code: ClassVar[dict[str, str]] = {
        "AutoConfig": "configuration_beats.BeatsTokenizerConfig",
        "AutoModel": "modeling_beats_tokenizer.BeatsTokenizerModel",
    }

    codebook_dim: int = 256
    codebook_decay: float | int = 0.99
    commitment_weight: float | int = 1.0
    dead_code_threshold: float | int = 0.0
    estimator_num_hidden_layers: int = 3
    teacher_output_size: int | None = None

    def validate_architecture(self):
        super().validate_architecture()
        self._check_least("codebook_dim")
        self._check_least("estimator_num_hidden_layers", least=0)
        if self.num_codebooks != 1:
            raise ValueError(f"`num_codebooks` of a self-distilled tokenizer must be 1, got {self.num_codebooks}.")
        if self.teacher_output_size is not None:
            self._check_least("teacher_output_size")
        if not 0 <= self.codebook_decay < 1:
            raise ValueError(f"`codebook_decay` must lie in [0, 1), got {self.codebook_decay}.")
        self._check_finite("commitment_weight", "dead_code_threshold")


@strict
class BeatsRandomProjectionTokenizerConfig(BeatsBaseConfig):
    r"""
    Configuration of the tokenizer of the first iteration of pre-training: a frozen random projection and a frozen
    random codebook. `num_mel_bins`, `patch_size` and `legacy_padding_mask` are those of [`BeatsConfig`].

    Args:
        codebook_size (`int`, defaults to 1024):
            Number of codes.
        codebook_dim (`int`, defaults to 256):
            Dimension of a code.
        num_codebooks (`int`, defaults to 1):
            Number of codebooks, each with a projection of its own, which give every patch as many codes (as in the
            multi-codebook BEST-RQ of USM, Zhang et al., 2023).
        normalize (`bool`, defaults to `True`):
            Whether each patch is brought to zero mean and unit variance, and projections and codes to unit length, as
            in BEST-RQ (Chiu et al., 2022). `False` is the plain distance of the BEATs paper's equation, which on real
            audio hardly measures more than loudness.
        seed (`int`, defaults to 0):
            Seed of projections and codebooks.
    """

    model_type = "beats_random_projection_tokenizer"

    _remote_code: ClassVar[dict[str, str]] = {
        "AutoConfig": "configuration_beats.BeatsRandomProjectionTokenizerConfig",
        "AutoModel": "modeling_beats_tokenizer.BeatsRandomProjectionTokenizer",
    }

    codebook_size: int = 1024
    num_codebooks: int = 1
    codebook_dim: int = 256
    normalize: bool = True
    seed: int = 0

    def validate_architecture(self):
        super().validate_architecture()
        self._check_least("codebook_size", "codebook_dim", "num_codebooks")
        if not -(2**63) <= self.seed < 2**64:
            raise ValueError(f"`seed` must fit 64 bits, as PyTorch reads it, got {self.seed}.")


def problem_type_of(config: PreTrainedConfig) -> str:
    """Returns the `problem_type` of a classifier; unset, the one that its loss infers from the number of labels."""
    return config.problem_type or ("regression" if config.num_labels == 1 else "single_label_classification")


__all__ = ["BeatsConfig", "BeatsRandomProjectionTokenizerConfig", "BeatsTokenizerConfig", "problem_type_of"]
