# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
# The training objectives are those of Chen et al., 2022 (arXiv:2212.09058).
"""PyTorch BEATs, the two objectives of iterative pre-training: masked acoustic modelling, tokenizer training."""

from dataclasses import dataclass

import torch
from torch import distributed, nn
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, auto_docstring
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs, maybe_install_capturing_hooks

from .configuration_beats import BeatsConfig, BeatsTokenizerConfig
from .modeling_beats import (
    BeatsAttention,
    BeatsEncoder,
    BeatsLayer,
    BeatsModel,
    BeatsPreTrainedModel,
    at_least_float32,
    check_codes,
    check_fbank,
    check_keywords,
    check_noise,
    check_tensors,
    first_positions,
    gather_patches,
    patch_mask_from_frame_mask,
)
from .modeling_beats_tokenizer import BeatsQuantizer, BeatsTokenizerModel, code_usage, keep_finite, nearest_code


# k-means sees at most so many patches: 64 for each of 1,024 codes.
MAX_KMEANS_PATCHES = 65536
KMEANS_ITERATIONS = 10


@auto_docstring(custom_intro="Output of [`BeatsForPreTraining`].")
@dataclass
class BeatsForPreTrainingOutput(ModelOutput):
    r"""
    loss (`torch.FloatTensor` of shape `()`, *optional*, returned when `labels` is provided):
        Mean cross-entropy over codebooks and the masked patches that hold no padding, in nats; 0 if there is none.
    logits (`torch.FloatTensor` of shape `(batch_size, num_masked, config.codebook_size)`):
        Scores of the codes at `masked_positions`; of several codebooks, `(batch_size, num_masked,
        config.num_codebooks, config.codebook_size)`.
    masked_positions (`torch.LongTensor` of shape `(batch_size, num_masked)`):
        Index of the patch that each row of `logits` predicts, ascending; -100 where a shorter clip has fewer.
    accuracy (`torch.FloatTensor` of shape `()`, *optional*, returned when `labels` is provided):
        Share of masked patches whose best code is the right one, over all codebooks.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    masked_positions: torch.Tensor | None = None
    accuracy: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@auto_docstring(custom_intro="Output of [`BeatsTokenizerForPreTraining`].")
@dataclass
class BeatsTokenizerForPreTrainingOutput(ModelOutput):
    r"""
    loss (`torch.FloatTensor` of shape `()`, *optional*, returned when `teacher_outputs` is provided):
        `distillation_loss + config.commitment_weight * commitment_loss`.
    distillation_loss (`torch.FloatTensor` of shape `()`, *optional*, returned when `teacher_outputs` is provided):
        One minus the cosine between the estimator's and the teacher's outputs, averaged over the valid patches.
    commitment_loss (`torch.FloatTensor` of shape `()`):
        Mean squared difference between the normalised encoder output and its code, over valid patches and dimensions.
    estimates (`torch.FloatTensor` of shape `(batch_size, num_patches, config.teacher_output_size)`):
        Teacher's outputs as the estimator predicts them.
    audio_codes (`torch.LongTensor` of shape `(batch_size, num_columns, num_freq_patches)`):
        Index of the code of every patch, by time and frequency; -100 on padding.
    code_counts (`torch.LongTensor` of shape `(codebook_size,)`):
        Number of valid patches of the batch with each code.
    codevector_perplexity (`torch.FloatTensor` of shape `()`):
        Exponential of the entropy of the codes in the batch.
    """

    loss: torch.Tensor | None = None
    distillation_loss: torch.Tensor | None = None
    commitment_loss: torch.Tensor | None = None
    estimates: torch.Tensor | None = None
    audio_codes: torch.Tensor | None = None
    code_counts: torch.Tensor | None = None
    codevector_perplexity: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


def num_kept_patches(num_patches: int, mask_ratio: float) -> int:
    """Number of a clip's patches that the encoder sees: at least one, and at least one less than there are."""
    if num_patches < 2:
        return num_patches
    # Functions of `torch`, so that one graph serves all lengths.
    num_masked = torch.sym_int(num_patches * mask_ratio + 0.5)
    return num_patches - torch.sym_max(1, torch.sym_min(num_masked, num_patches - 1))


def select_kept_patches(valid: torch.Tensor, noise: torch.Tensor, mask_ratio: float) -> torch.Tensor:
    """
    Mask of the patches that are kept: of each clip's patches that are `valid` `(batch_size, num_patches)`, the
    [`num_kept_patches`] with the least `noise`, which is finite and of the same shape.
    """
    num_valid = valid.sum(dim=1)
    # As `num_kept_patches`, which is for a number that is no tensor.
    num_masked = (num_valid.double() * mask_ratio + 0.5).long().clamp(min=1)
    num_kept = torch.where(num_valid < 2, num_valid, num_valid - torch.minimum(num_masked, num_valid - 1))
    ranks = noise.masked_fill(~valid, torch.inf).argsort(dim=1).argsort(dim=1)
    return valid & (ranks < num_kept.unsqueeze(1))


def block_noise(noise: torch.Tensor, valid: torch.Tensor, num_freq_patches: int, block_size: int) -> torch.Tensor:
    """
    Noise `(batch_size, num_patches)` whose least values lie in blocks of `block_size` columns by `block_size`
    frequencies, cut off at the edges of a clip: each patch gets the least noise of the `valid` patches that it lies
    in the block of. So [`select_kept_patches`] keeps whole blocks around random centres, but for the last one: the
    inverse block masks of data2vec 2.0 (Baevski et al., 2022) and EAT (Chen et al., 2024).
    """
    grid = noise.masked_fill(~valid, torch.inf).unflatten(1, (-1, num_freq_patches)).unsqueeze(1)
    least = -nn.functional.max_pool2d(-grid, block_size, stride=1, padding=block_size // 2)
    # Blocks of an even side give one row and one column too many.
    least = least[:, 0, : grid.shape[2], : grid.shape[3]].flatten(1)
    # All patches of a block are equal, and the number of those that are kept is fixed: their own noise decides.
    return least + 1e-6 * noise


class BeatsLabelPredictor(nn.Module):
    """Transformer that predicts the codes of masked patches from the representations of the kept ones."""

    def __init__(self, config: BeatsConfig):
        super().__init__()
        is_learned = config.mask_embedding == "learned"
        self.mask_embedding = nn.Parameter(torch.zeros(config.hidden_size)) if is_learned else None
        self.encoder = BeatsEncoder(config, config.label_predictor_num_hidden_layers)
        self.codebooks_shape = (config.num_codebooks, config.codebook_size)
        self.classifier = nn.Linear(config.hidden_size, config.num_codebooks * config.codebook_size)

    def forward(
        self,
        kept_states: torch.Tensor,
        is_kept: torch.Tensor,
        masked_positions: torch.Tensor,
        patch_attention_mask: torch.Tensor | None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        """
        Logits `(batch_size, num_masked, num_codebooks, codebook_size)` at `masked_positions` `(batch_size,
        num_masked)`, from the encoder's output for the kept patches in their order `(batch_size, num_kept,
        hidden_size)`, which stand in the clip where `is_kept` `(batch_size, num_patches)` is true.
        """
        index = (is_kept.cumsum(dim=1) - 1).clamp(min=0)
        empty = kept_states.new_zeros(()) if self.mask_embedding is None else self.mask_embedding.to(kept_states.dtype)
        hidden_states = torch.where(is_kept.unsqueeze(-1), gather_patches(kept_states, index), empty)
        hidden_states = self.encoder(hidden_states, patch_attention_mask, **kwargs)
        logits = self.classifier(gather_patches(hidden_states, masked_positions))
        return logits.unflatten(-1, self.codebooks_shape)


@auto_docstring(
    custom_intro="""
    BEATs for masked acoustic modelling (section 3.3 of the paper): most patches of a clip are hidden, only the others
    go through the encoder, and a label predictor predicts the acoustic tokenizer's codes of the hidden ones.
    """
)
class BeatsForPreTraining(BeatsPreTrainedModel):
    _auto_class = "AutoModelForPreTraining"
    # States of the encoder's layers, not of the label predictor's.
    _can_record_outputs = {
        "hidden_states": OutputRecorder(BeatsLayer, layer_name="beats"),
        "attentions": OutputRecorder(BeatsAttention, index=1, layer_name="beats"),
    }

    def __init__(self, config: BeatsConfig):
        super().__init__(config)
        self.beats = BeatsModel(config)
        self.label_predictor = BeatsLabelPredictor(config)
        # Else the first forward pass would, and again on an encoder that was called before.
        maybe_install_capturing_hooks(self)
        # Initialize weights and apply final processing
        self.post_init()
        # Without the encoder's pattern of the keys that are this model's own.
        self._keys_to_ignore_on_load_unexpected = {r"^estimator\."}

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, BeatsLabelPredictor) and module.mask_embedding is not None:
            init.normal_(module.mask_embedding, mean=0.0, std=self.config.initializer_range)

    def labels_at(self, labels: torch.Tensor, positions: torch.Tensor, is_prediction: torch.Tensor) -> torch.Tensor:
        """Codes `(batch_size, num_masked, num_codebooks)` at `positions`, -100 where nothing is predicted."""
        labels = labels.to(positions.device).long().flatten(1).unflatten(1, (-1, self.config.num_codebooks))
        return gather_patches(labels, positions).masked_fill(~is_prediction.unsqueeze(-1), -100)

    def compute_loss(
        self, logits: torch.Tensor, labels: torch.Tensor, mixed_codes: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Cross-entropy and accuracy where `labels` `(batch_size, num_masked, num_codebooks)` are not -100, in float32,
        from logits with one dimension more. Where `mixed_codes` are not -100 either, the cross-entropy is the mean of
        both.
        """
        counts = labels != -100
        losses, num_targets = self._cross_entropies(logits, labels), counts.long()
        if mixed_codes is not None:
            mixed_codes = mixed_codes.masked_fill(~counts, -100)
            losses = losses + self._cross_entropies(logits, mixed_codes)
            num_targets = num_targets + (mixed_codes != -100)
        num_labels = counts.sum().clamp(min=1)
        loss = (losses / num_targets.clamp(min=1)).sum() / num_labels
        return loss, (logits.argmax(dim=-1) == labels).sum() / num_labels

    def _cross_entropies(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of each label, 0 where it is -100, in float32."""
        losses = nn.functional.cross_entropy(
            at_least_float32(logits.flatten(0, -2)),
            labels.flatten(),
            ignore_index=-100,
            label_smoothing=float(self.config.label_smoothing),
            reduction="none",
        )
        return losses.view(labels.shape)

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    @auto_docstring
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
        mixed_codes: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BeatsForPreTrainingOutput:
        r"""
        input_values (`torch.FloatTensor` of shape `(batch_size, num_frames, num_mel_bins)`):
            Normalised filter banks from [`BeatsFeatureExtractor`].
        attention_mask (`torch.Tensor` of shape `(batch_size, num_frames)`, *optional*):
            1 for frames of audio, 0 for padding.
        labels (`torch.LongTensor` of shape `(batch_size, num_columns, num_freq_patches)`, *optional*):
            The `audio_codes` of an acoustic tokenizer; -100 where a patch does not count. With several codebooks they
            have one dimension more, `num_codebooks`.
        noise (`torch.FloatTensor` of shape `(batch_size, num_patches)`, *optional*):
            The patches of a clip with the least noise are kept; with `config.mask_block_size` those around them, too.
            Drawn uniformly if not given.
        mixed_codes (`torch.LongTensor` of the shape of `labels`, *optional*):
            Codes of a second sound that each clip was mixed with; -100 where there is none. The loss of a patch is the
            mean over both.
        """
        check_keywords(self, kwargs)
        if mixed_codes is not None and labels is None:
            raise ValueError("`mixed_codes` are those of a second sound: pass the `labels` of the first, too.")
        targets = {"labels": labels, "mixed_codes": mixed_codes}
        input_values = check_fbank(input_values, attention_mask, self.config, noise=noise, **targets)
        hidden_states = self.beats.embeddings(input_values)
        batch_size, num_patches = hidden_states.shape[:2]
        check_codes(self.config, batch_size, num_patches, **targets)
        check_noise(noise, batch_size, num_patches)
        all_labels = [given for given in targets.values() if given is not None]
        valid = torch.ones((batch_size, num_patches), dtype=torch.bool, device=hidden_states.device)
        if attention_mask is not None:
            valid = patch_mask_from_frame_mask(attention_mask, self.config).to(hidden_states.device)
        patch_attention_mask = None if attention_mask is None else valid
        if noise is None:
            noise = torch.rand(valid.shape, device=valid.device)
        noise = noise.to(valid.device)
        if self.config.mask_block_size > 1:
            noise = block_noise(noise, valid, self.config.num_freq_patches, self.config.mask_block_size)
        is_kept = select_kept_patches(valid, noise, self.config.mask_ratio)
        num_kept = num_kept_patches(num_patches, self.config.mask_ratio)
        kept_positions = first_positions(is_kept, num_kept)
        if self.config.kept_positions == "original":
            kept_states = self.beats.encoder(hidden_states, is_kept, kept_positions=kept_positions, **kwargs)
        else:
            hidden_states = gather_patches(hidden_states, kept_positions)
            kept_states = self.beats.encoder(hidden_states, is_kept.gather(1, kept_positions), **kwargs)

        is_masked = valid & ~is_kept
        masked_positions = first_positions(is_masked, num_patches - num_kept)
        logits = self.label_predictor(kept_states, is_kept, masked_positions, patch_attention_mask, **kwargs)

        is_prediction = is_masked.gather(1, masked_positions)
        loss = accuracy = None
        if labels is not None:
            at_masked = [self.labels_at(given, masked_positions, is_prediction) for given in all_labels]
            loss, accuracy = self.compute_loss(logits, *at_masked)
        return BeatsForPreTrainingOutput(
            loss=loss,
            logits=logits.squeeze(2) if self.config.num_codebooks == 1 else logits,
            masked_positions=masked_positions.masked_fill(~is_prediction, -100),
            accuracy=accuracy,
        )


def _is_distributed() -> bool:
    # Asked at every step: the process group may come into being after the model.
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


class BeatsTrainableQuantizer(BeatsQuantizer):
    """
    [`BeatsQuantizer`] with a codebook that follows the patches assigned to it: k-means on the first batch, then an
    exponential moving average, as in Microsoft's code. All processes of a process group keep the same codebook.
    """

    def __init__(self, config: BeatsTokenizerConfig):
        super().__init__(config)
        self.decay = config.codebook_decay
        self.dead_code_threshold = config.dead_code_threshold

    def _sums(self, states: torch.Tensor, codes: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Sum of the states of each code, and in the last column their number: `(codebook_size, codebook_dim + 1)`."""
        values = torch.cat([states * weights.unsqueeze(1), weights.unsqueeze(1)], dim=1)
        return values.new_zeros(len(self.codebook), values.shape[1]).index_add(0, codes, values)

    @torch.no_grad()
    def initialize(self, states: torch.Tensor, mask: torch.Tensor) -> None:
        """
        Learns the codebook by k-means (cosine) from the patches of all processes, unless it was learned or loaded:
        from the `states` `(num_patches, codebook_dim)`, float32 of unit length, where `mask` `(num_patches,)` is true
        and they are finite. Raises a `ValueError` if there is none.
        """
        if self.is_initialized:
            return
        states, mask = keep_finite(states, mask)
        vectors = states[mask]
        if _is_distributed():
            # As objects, since each process may hold another number of patches; this happens once.
            parts: list = [None] * distributed.get_world_size()
            distributed.all_gather_object(parts, vectors.cpu())
            vectors = torch.cat(parts).to(states.device)
        if len(vectors) == 0:
            raise ValueError(
                "The first batch holds no patch to learn a codebook from: one must be valid, and its state finite. "
                "If states overflow, train in bfloat16 or float32."
            )
        # The same on every process, so that all learn the same codebook; broadcast in case their devices round apart.
        generator = torch.Generator().manual_seed(0)
        vectors = vectors[torch.randperm(len(vectors), generator=generator)[:MAX_KMEANS_PATCHES].to(vectors.device)]
        # With fewer vectors than codes, some codes begin as equals.
        self.codebook.copy_(vectors[torch.arange(len(self.codebook), device=vectors.device) % len(vectors)])
        weights = vectors.new_ones(len(vectors))
        for _ in range(KMEANS_ITERATIONS):
            sums = self._sums(vectors, nearest_code(vectors, self.codebook), weights)
            self._follow(sums, decay=0.0)
        share = mask.sum().clamp(min=1) / len(vectors)
        if _is_distributed():
            distributed.all_reduce(share)
        self.cluster_size.copy_(sums[:, -1] * share)
        self.is_initialized.fill_(1.0)
        if _is_distributed():
            distributed.broadcast(self.codebook, src=0)
            distributed.broadcast(self.cluster_size, src=0)

    def _follow(self, sums: torch.Tensor, decay: float) -> None:
        """Moves every code that has patches towards their normalised mean, and back onto the unit sphere."""
        means = nn.functional.normalize(sums[:, :-1], dim=-1)
        moved = nn.functional.normalize(self.codebook * decay + means * (1 - decay), dim=-1)
        self.codebook.copy_(torch.where(sums[:, -1:] > 0, moved, self.codebook))

    @torch.no_grad()
    def update(self, states: torch.Tensor, codes: torch.Tensor, mask: torch.Tensor) -> None:
        """
        Does one step of the moving average, with the patches of all processes: `states` and `mask` as in
        [`initialize`], and the `codes` `(num_patches,)` of the states.
        """
        states, mask = keep_finite(states, mask)
        sums = self._sums(states, codes, mask.to(states.dtype))
        if _is_distributed():
            distributed.all_reduce(sums)
        self._follow(sums, self.decay)
        counts = sums[:, -1]
        self.cluster_size.mul_(self.decay).add_(counts, alpha=1 - self.decay)
        if self.dead_code_threshold > 0:
            # Drawn by one process for all. The addition matters only where a batch holds nothing valid.
            chosen = torch.multinomial(mask.to(states.dtype) + 1e-12, len(self.codebook), replacement=True)
            candidates = states[chosen]
            if _is_distributed():
                distributed.broadcast(candidates, src=0)
            # A state that was left out is 0.
            is_dead = (self.cluster_size < self.dead_code_threshold) & candidates.any(dim=1)
            self.codebook.copy_(torch.where(is_dead.unsqueeze(1), candidates, self.codebook))
            # As many patches as an average code, so that a new code has time to find its own.
            self.cluster_size.copy_(torch.where(is_dead, counts.mean(), self.cluster_size))


class BeatsEstimator(nn.Module):
    """Transformer, or without layers a linear map, that predicts the teacher's outputs from the codes' vectors."""

    def __init__(self, config: BeatsTokenizerConfig):
        super().__init__()
        self.projection = nn.Linear(config.codebook_dim, config.hidden_size)
        depth = config.estimator_num_hidden_layers
        self.encoder = BeatsEncoder(config, depth) if depth else None
        self.head = nn.Linear(config.hidden_size, config.teacher_output_size or config.hidden_size)

    def forward(self, quantized_states: torch.Tensor, patch_attention_mask: torch.Tensor | None, **kwargs):
        hidden_states = self.projection(quantized_states.to(self.projection.weight.dtype))
        if self.encoder is not None:
            hidden_states = self.encoder(hidden_states, patch_attention_mask, **kwargs)
        return self.head(hidden_states)


@auto_docstring(
    custom_intro="""
    Training of a self-distilled acoustic tokenizer (section 3.2.2 of the paper): from the vectors of the codes, an
    estimator predicts the output of a teacher, the model of the last iteration, for every patch.
    """
)
class BeatsTokenizerForPreTraining(BeatsTokenizerModel):
    _auto_class = "AutoModelForPreTraining"

    quantizer: BeatsTrainableQuantizer

    def __init__(self, config: BeatsTokenizerConfig):
        super().__init__(config)
        self.quantizer = BeatsTrainableQuantizer(config)
        self.estimator = BeatsEstimator(config)

        # Initialize weights and apply final processing
        self.post_init()
        self._keys_to_ignore_on_load_unexpected = {r"^label_predictor\."}

    @can_return_tuple
    @auto_docstring
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        teacher_outputs: torch.Tensor | None = None,
        return_loss: bool = True,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BeatsTokenizerForPreTrainingOutput:
        r"""
        input_values (`torch.FloatTensor` of shape `(batch_size, num_frames, num_mel_bins)`):
            Normalised filter banks from [`BeatsFeatureExtractor`].
        attention_mask (`torch.Tensor` of shape `(batch_size, num_frames)`, *optional*):
            1 for frames of audio, 0 for padding.
        teacher_outputs (`torch.FloatTensor` of shape `(batch_size, num_patches, teacher_output_size)`, *optional*):
            Last hidden state of the teacher for every patch or, for a fine-tuned teacher, its logits before they are
            averaged over the patches.
        return_loss (`bool`, *optional*, defaults to `True`):
            Whether to compare with `teacher_outputs`. By its name and default, `Trainer` knows of an `eval_loss`; a
            batch without them, for its `predict`, has `return_loss: False`.
        """
        check_keywords(self, kwargs)
        check_tensors(teacher_outputs=teacher_outputs)
        outputs = self.beats(input_values, attention_mask=attention_mask, return_dict=True, **kwargs)
        mask = outputs.patch_attention_mask
        # Padding, which is in no loss, may hold what is not finite: times 0, it would be NaN.
        is_padding = ~mask.unsqueeze(-1)
        projected_states = self.projection(outputs.last_hidden_state.masked_fill(is_padding, 0.0))
        states = nn.functional.normalize(at_least_float32(projected_states), dim=-1)
        # The codebook is float32 in every model.
        flat_states, flat_mask = states.detach().float().flatten(0, 1), mask.flatten()
        if self.training:
            self.quantizer.initialize(flat_states, flat_mask)
        codes, quantized_states = self.quantizer(projected_states)
        if self.training:
            self.quantizer.update(flat_states, codes.flatten(), flat_mask)

        num_valid = mask.sum().clamp(min=1)
        commitment_loss = ((states - quantized_states).pow(2).mean(dim=-1) * mask).sum() / num_valid
        # Straight-through: the estimator reads the code, the gradient goes to the encoder.
        straight_through = states + (quantized_states - states).detach()
        patch_attention_mask = mask if attention_mask is not None else None
        estimates = self.estimator(straight_through, patch_attention_mask, **kwargs)

        loss = distillation_loss = None
        if teacher_outputs is not None and return_loss:
            if teacher_outputs.shape != estimates.shape:
                raise ValueError(
                    f"`teacher_outputs` must have shape {tuple(estimates.shape)}, got {tuple(teacher_outputs.shape)}: "
                    "`config.teacher_output_size` is the teacher's `hidden_size` or `num_labels`."
                )
            both = (at_least_float32(each).masked_fill(is_padding, 0.0) for each in (estimates, teacher_outputs))
            cosine = nn.functional.cosine_similarity(*both, dim=-1)
            distillation_loss = ((1 - cosine) * mask).sum() / num_valid
            loss = distillation_loss + self.config.commitment_weight * commitment_loss
        code_counts, perplexity = code_usage(codes, mask, len(self.quantizer.codebook))
        return BeatsTokenizerForPreTrainingOutput(
            loss=loss,
            distillation_loss=distillation_loss,
            commitment_loss=commitment_loss,
            estimates=estimates,
            audio_codes=codes.masked_fill(~mask, -100).unflatten(1, (-1, self.config.num_freq_patches)),
            code_counts=code_counts,
            codevector_perplexity=perplexity,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


__all__ = ["BeatsForPreTraining", "BeatsTokenizerForPreTraining"]
