# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""transformers' common model and configuration tests, on every model class and both configurations."""

import copy
import unittest
from unittest import mock

import pytest
import torch
from common_tests import ConfigTester, ModelTesterMixin, floats_tensor
from torch import nn
from transformers import initialization as init
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
from transformers.testing_utils import torch_device
from transformers.utils import ModelOutput

from transformers_beats import (
    BeatsConfig,
    BeatsForAudioClassification,
    BeatsForAudioFrameClassification,
    BeatsForPreTraining,
    BeatsModel,
    BeatsTokenizerConfig,
    BeatsTokenizerModel,
)
from transformers_beats.modeling_beats import BeatsPatchEmbeddings
from transformers_beats.modeling_beats_pretraining import num_kept_patches
from transformers_beats.modeling_beats_tokenizer import BeatsQuantizer


pytestmark = pytest.mark.conformance


class BeatsModelTester:
    """Tiny configurations and inputs, under the names by which the common tests look them up."""

    config_class = BeatsConfig
    architecture = {
        "num_mel_bins": 64,
        "patch_size": 16,
        "embed_dim": 16,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 37,
        "hidden_dropout": 0.1,
        "attention_dropout": 0.1,
        "layerdrop": 0.0,
        "num_conv_pos_embeddings": 8,
        "num_conv_pos_embedding_groups": 2,
        "num_buckets": 32,
        "max_bucket_distance": 20,
    }

    def __init__(self, parent, batch_size=13, num_frames=64, is_training=True):
        self.parent = parent
        self.batch_size = batch_size
        self.num_frames = num_frames
        self.is_training = is_training
        config = self.get_config()
        self.hidden_size = config.hidden_size
        self.num_hidden_layers = config.num_hidden_layers
        self.num_attention_heads = config.num_attention_heads
        self.num_columns = num_frames // config.patch_size
        self.seq_length = self.encoder_seq_length = self.num_columns * config.num_freq_patches

    def get_config(self):
        return self.config_class(**self.architecture)

    def prepare_config_and_inputs_for_common(self):
        config = self.get_config()
        input_values = floats_tensor((self.batch_size, self.num_frames, config.num_mel_bins))
        # Every other clip, the first one included, ends within the third of the four patch columns.
        lengths = torch.full((self.batch_size, 1), self.num_frames, device=torch_device)
        lengths[::2] = self.num_frames * 5 // 8
        attention_mask = (torch.arange(self.num_frames, device=torch_device) < lengths).long()
        return config, {"input_values": input_values, "attention_mask": attention_mask}


class BeatsCommonTests(ModelTesterMixin):
    """Base class of the tests of all configurations."""

    model_tester_class = BeatsModelTester
    # There is no vocabulary.
    test_resize_embeddings = False

    def setUp(self):
        self.model_tester = self.model_tester_class(self)
        self.config_tester = ConfigTester(
            self,
            config_class=self.model_tester.config_class,
            has_text_modality=False,
            **self.model_tester.architecture,
        )

    def test_config(self):
        self.config_tester.run_common_tests()

    def test_model_outputs_equivalence(self):
        # The original subtracts outputs, which PyTorch does not do to boolean masks.
        to_tuple = ModelOutput.to_tuple

        def to_tuple_without_booleans(outputs):
            return tuple(
                value.int() if isinstance(value, torch.Tensor) and value.dtype == torch.bool else value
                for value in to_tuple(outputs)
            )

        with mock.patch.object(ModelOutput, "to_tuple", to_tuple_without_booleans):
            super().test_model_outputs_equivalence()

    def test_model_get_set_embeddings(self):
        # The original expects an `nn.Embedding`: patch embeddings take the place of token embeddings.
        config, _ = self.model_tester.prepare_config_and_inputs_for_common()
        for model_class in self.all_model_classes:
            model = model_class(copy.deepcopy(config))
            self.assertIsInstance(model.get_input_embeddings(), nn.Module)
            new_embeddings = nn.Identity()
            model.set_input_embeddings(new_embeddings)
            self.assertIs(model.get_input_embeddings(), new_embeddings)
            self.assertIsNone(model.get_output_embeddings())


class BeatsModelTest(BeatsCommonTests, unittest.TestCase):
    all_model_classes = (BeatsModel, BeatsForAudioClassification, BeatsForAudioFrameClassification)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels=return_labels)
        if return_labels and model_class is BeatsForAudioFrameClassification:
            # The common tests know no model with one label per time column.
            shape = (self.model_tester.batch_size, self.model_tester.num_columns)
            inputs["labels"] = torch.zeros(shape, dtype=torch.long, device=torch_device)
        return inputs

    def test_problem_types(self):
        # The original looks at classifiers of text and images only.
        names = {"beats": "BeatsForAudioClassification"}
        with mock.patch.dict(MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES, names):
            super().test_problem_types()

    def test_enable_input_require_grads_with_gradient_checkpointing(self):
        # The original looks for `weight` in the input embeddings themselves; that of the patches is one level down.
        weight = property(lambda embeddings: embeddings.projection.weight)
        with mock.patch.object(BeatsPatchEmbeddings, "weight", weight, create=True):
            super().test_enable_input_require_grads_with_gradient_checkpointing()


class BeatsForPreTrainingTester(BeatsModelTester):
    architecture = {**BeatsModelTester.architecture, "codebook_size": 20, "label_predictor_num_hidden_layers": 1}

    def __init__(self, parent, **kwargs):
        super().__init__(parent, **kwargs)
        # From these the common tests compute the number of patches, for their own noise.
        self.image_size, self.patch_size = self.num_frames, self.get_config().patch_size
        self.seq_length = self.encoder_seq_length = num_kept_patches(self.seq_length, self.get_config().mask_ratio)

    def prepare_config_and_inputs_for_common(self):
        config, inputs = super().prepare_config_and_inputs_for_common()
        # The same patches are hidden in every call.
        inputs["noise"] = floats_tensor((self.batch_size, self.num_columns * config.num_freq_patches))
        return config, inputs


class BeatsForPreTrainingTest(BeatsCommonTests, unittest.TestCase):
    all_model_classes = (BeatsForPreTraining,)
    model_tester_class = BeatsForPreTrainingTester

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels=return_labels)
        if return_labels:
            inputs["labels"] = torch.zeros(inputs["noise"].shape, dtype=torch.long, device=torch_device)
        return inputs


class BeatsTokenizerModelTester(BeatsModelTester):
    config_class = BeatsTokenizerConfig
    architecture = {**BeatsModelTester.architecture, "codebook_size": 20, "codebook_dim": 8}


def init_weights_with_codebook(self, module, init_weights=BeatsTokenizerModel._init_weights):
    """`_init_weights` of a tokenizer, and a codebook as if trained: without one its forward raises by design."""
    init_weights(self, module)
    if isinstance(module, BeatsQuantizer):
        with torch.no_grad():
            codebook = torch.randn(module.codebook.shape, generator=torch.Generator().manual_seed(0), device="cpu")
            init.copy_(module.codebook, nn.functional.normalize(codebook, dim=-1))
            init.ones_(module.is_initialized)


class BeatsTokenizerModelTest(BeatsCommonTests, unittest.TestCase):
    all_model_classes = (BeatsTokenizerModel,)
    model_tester_class = BeatsTokenizerModelTester

    def setUp(self):
        super().setUp()
        # Patched, not subclassed: saving a subclass would copy this file as the model's remote code.
        self.codebook_patch = mock.patch.object(BeatsTokenizerModel, "_init_weights", init_weights_with_codebook)
        self.codebook_patch.start()
        self.addCleanup(self.codebook_patch.stop)

    def test_init_weights_can_init_buffers(self):
        # Compares with the buffers as `__init__` leaves them, so the codebook must not be filled.
        self.codebook_patch.stop()
        super().test_init_weights_can_init_buffers()

    def test_retain_grad_hidden_states_attentions(self):
        # The original differentiates the first output: these are the codes, which have no gradient.
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        config.output_hidden_states = True
        config.output_attentions = True
        model = BeatsTokenizerModel._from_config(config, attn_implementation="eager").to(torch_device)
        outputs = model(**inputs)
        outputs.hidden_states[0].retain_grad()
        outputs.attentions[0].retain_grad()
        outputs.projected_states.flatten()[0].backward()
        self.assertIsNotNone(outputs.hidden_states[0].grad)
        self.assertIsNotNone(outputs.attentions[0].grad)
