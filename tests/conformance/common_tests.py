# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""transformers' common tests. Without a network their users are skipped, except on CI, where they fail."""

import os

import pytest
from transformers_tests_sdist import DownloadError, import_package


try:
    import_package()
except DownloadError as error:
    if os.environ.get("CI"):
        raise
    pytest.skip(str(error), allow_module_level=True)

from transformers_tests.test_configuration_common import ConfigTester
from transformers_tests.test_modeling_common import ModelTesterMixin, floats_tensor
from transformers_tests.test_sequence_feature_extraction_common import (
    SequenceFeatureExtractionTestMixin,
)


__all__ = ["ConfigTester", "ModelTesterMixin", "SequenceFeatureExtractionTestMixin", "floats_tensor"]
