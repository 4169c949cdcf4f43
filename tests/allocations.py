# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Which tensors a computation makes: a measure of memory that is the same on every machine."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Allocations(TorchDispatchMode):
    """While this is used as a context, remembers the shape of every tensor whose memory is new, and its operation."""

    def __init__(self):
        super().__init__()
        self.found: list[tuple[str, torch.Size]] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if torch.is_tensor(leaf)}
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if torch.is_tensor(leaf) and leaf.untyped_storage()._cdata not in given:
                self.found.append((str(function), leaf.shape))
        return result

    def larger_than(self, size: int) -> list[tuple[str, torch.Size]]:
        """Those with more than `size` elements."""
        return [(name, shape) for name, shape in self.found if shape.numel() > size]
