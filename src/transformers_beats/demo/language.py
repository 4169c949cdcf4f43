# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Text from which a small language model learns to say which of the synthesised sounds is named in it."""

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from transformers_beats.audio.synthesis import CLASSES


# Around a sound and its answer. A language model reads them as it reads words.
START, QUESTION, END = "<sound>", "</sound> which sound is heard ?", "<end>"
UNCOUNTED = ("footsteps", "rain", "thunder")
ANSWERS = {name: name if name in UNCOUNTED else f"{'an' if name[0] in 'aeiou' else 'a'} {name}" for name in CLASSES}
OTHER_WORDS = ("the", "and", "then", "near", "far", "in", "of", "with", "some", "loud", "soft", "from", "behind")
WORDS = list(dict.fromkeys(f"{START} {QUESTION} {END} {' '.join([*ANSWERS.values(), *OTHER_WORDS])}".split()))
# Of the words in place of a sound, which later has an embedding for every half column: so many in a clip of 3 s.
MAX_WORDS = 36


def make_text(generator: np.random.Generator) -> tuple[str, str]:
    """Makes words, among which the name of one class stands up to three times, and its answer."""
    name = str(generator.choice(CLASSES))
    words = generator.choice(OTHER_WORDS, size=generator.integers(1, MAX_WORDS + 1)).tolist()
    for position in generator.integers(len(words), size=generator.integers(1, 4)):
        words[position] = name
    return " ".join([START, *words, QUESTION]), f"{ANSWERS[name]} {END}"


def train_on_text(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    steps: int = 150,
    batch_size: int = 16,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> float:
    """
    Trains a causal language model to answer which class is named in a text: what language models can do that have read
    enough, and one with random weights cannot.

    Args:
        model (`PreTrainedModel`):
            Causal language model, which is trained in place and left in evaluation mode.
        tokenizer (`PreTrainedTokenizerBase`):
            Tokenizer that knows `WORDS` and pads.
        steps (`int`, defaults to 150):
            Steps of training.
        batch_size (`int`, defaults to 16):
            Texts in a step.
        learning_rate (`float`, defaults to 1e-3):
            Learning rate of AdamW.
        seed (`int`, defaults to 0):
            Seed of the texts.

    Returns:
        `float`: the cross-entropy of the answers in the last step, in nats.
    """
    generator = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    model.train()
    loss = torch.tensor(float("nan"))
    for _ in range(steps):
        questions, answers = zip(*(make_text(generator) for _ in range(batch_size)))
        texts = [" ".join(pair) for pair in zip(questions, answers)]
        inputs = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left")
        labels = inputs["input_ids"].clone()
        for row, answer in zip(labels, answers):
            # Only the answer is to be predicted, not what was said before it.
            row[: -len(answer.split())] = -100
        loss = model(**inputs, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    return loss.item()
