# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""transformers' common feature extractor tests, on `BeatsFeatureExtractor`."""

import unittest

import pytest
from common_tests import SequenceFeatureExtractionTestMixin, floats_tensor

from transformers_beats import BeatsFeatureExtractor


pytestmark = pytest.mark.conformance


class BeatsFeatureExtractionTester:
    batch_size = 7
    min_seq_length = 40
    max_seq_length = 200
    # The clips have lengths of `min_seq_length`, one `seq_length_diff` more, two more, ... below `max_seq_length`.
    seq_length_diff = (max_seq_length - min_seq_length) // (batch_size - 1)
    feature_size = 24

    def prepare_feat_extract_dict(self):
        return {
            "feature_size": self.feature_size,
            "sampling_rate": 16000,
            # The mixin computes sums that are right only for zeros.
            "padding_value": 0.0,
            "fbank_mean": 15.0,
            "fbank_std": 6.5,
            "patch_size": 8,
            "legacy_padding_mask": True,
            "return_attention_mask": True,
        }

    def prepare_inputs_for_common(self, equal_length=False, numpify=False):
        lengths = range(self.min_seq_length, self.max_seq_length, self.seq_length_diff)
        if equal_length:
            lengths = [self.max_seq_length] * self.batch_size
        clips = [floats_tensor((length, self.feature_size)).numpy() for length in lengths]
        return clips if numpify else [clip.tolist() for clip in clips]


class BeatsFeatureExtractionTest(SequenceFeatureExtractionTestMixin, unittest.TestCase):
    feature_extraction_class = BeatsFeatureExtractor

    def setUp(self):
        self.feat_extract_tester = BeatsFeatureExtractionTester()
