# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Texts of the front end's notebook, and the small language model that learns from them."""

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from transformers_beats.audio.synthesis import CLASSES
from transformers_beats.demo.language import ANSWERS, END, MAX_WORDS, QUESTION, START, WORDS, make_text, train_on_text


def test_a_text_names_one_class_and_its_answer_is_that_class():
    generator = np.random.default_rng(0)
    seen = set()
    for _ in range(200):
        text, answer = make_text(generator)
        assert text.startswith(f"{START} ")
        assert text.endswith(f" {QUESTION}")
        words = text.removeprefix(START).removesuffix(QUESTION).split()
        assert 1 <= len(words) <= MAX_WORDS
        (name,) = set(words) & set(CLASSES)
        assert answer == f"{ANSWERS[name]} {END}"
        assert set(f"{text} {answer}".split()) <= set(WORDS)
        seen.add(name)
    assert seen == set(CLASSES)


def test_answers_have_their_articles():
    assert [ANSWERS[name] for name in ("alarm", "dog", "rain")] == ["an alarm", "a dog", "rain"]


def test_a_language_model_learns_to_answer():
    vocabulary = {word: number for number, word in enumerate(["<padding>", *WORDS])}
    word_level = Tokenizer(models.WordLevel(vocabulary, unk_token="<padding>"))
    word_level.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=word_level, pad_token="<padding>", eos_token=END)
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(vocabulary), **sizes, pad_token_id=0, bos_token_id=None))
    losses = [train_on_text(model, tokenizer, steps=60, learning_rate=3e-3, seed=seed) for seed in (0, 1)]
    assert losses[1] < losses[0] < 2.0
    assert not model.training
    for number in range(5):
        text, answer = make_text(np.random.default_rng([7, number]))
        inputs = tokenizer(text, return_tensors="pt")
        inputs.pop("token_type_ids", None)
        found = model.generate(**inputs, max_new_tokens=3, do_sample=False, eos_token_id=tokenizer.eos_token_id)
        assert tokenizer.decode(found[0, inputs["input_ids"].shape[1] :]).startswith(answer)
