# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""The parts of the benchmark. Each yields rows."""

import copy
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.measuring import (
    Call,
    ModuleClock,
    clock,
    count_operations,
    in_fresh_process,
    peak_memory,
    profile_shares,
    time_alternately,
)
from benchmarks.options import (
    ATTENTION,
    DTYPES,
    NUM_LABELS,
    SAMPLING_RATE,
    Options,
    build_classifier,
    build_tokenizer,
    build_variants,
    computing,
    make_clips,
    make_features,
    measure,
)
from benchmarks.peers import (
    AST,
    PUBLISHED_MAP,
    SHAPES,
    AudioSpectrogramTransformer,
    AvexStyleBeats,
    denormalize,
    openbeats_encoder,
    reference_style,
    reference_style_classifier,
    reference_style_tokenizer,
)
from benchmarks.recordings import any_length, crops, ragged, recording_memory
from benchmarks.report import OURS, Row, describe_size, milliseconds
from benchmarks.training import finetuning, finetuning_memory, pretraining, pretraining_memory, processes
from transformers_beats import BeatsConfig, BeatsFeatureExtractor, BeatsModel
from transformers_beats.fbank_beats import num_fbank_frames
from transformers_beats.verification.plain import plain_features


REFERENCE, AVEX = "reference-style fp32", "avex-style fp32"
# How far hidden states may be from those of the plain implementation in float32, relative to their norm: the rounding
# of 24 bits, of 8 and of 11, over the layers.
MAX_PARITY_CLIPS = 4
TOLERANCES = {"fp32": 1e-4, "bf16": 3e-2, "fp16": 5e-3, "autocast": 3e-2}
ATTENTION_MEMORY_SIZES = ((1, 30.0), (4, 30.0))
IMPORT_TURNS = 3
IMPORTS = {"transformers": "import transformers", "both": "import transformers, transformers_beats"}


def fbank(options: Options) -> Iterator[Row]:
    """Waveforms to fbanks: all clips at once, one by one, and by AST's feature extractor."""
    extractor = BeatsFeatureExtractor()
    for batch_size, seconds in dict.fromkeys([(16, 10.0), *options.sizes]):
        clips = make_clips(batch_size, seconds)
        waveforms = [torch.from_numpy(clip) for clip in clips]
        on_device = [waveform.to(options.device) for waveform in waveforms]
        ours = partial(extractor, on_device, sampling_rate=SAMPLING_RATE, return_tensors="pt", device=options.device)
        ast = AudioSpectrogramTransformer(seconds, 2, 1, "cpu", torch.float32)
        peers: dict[str, Call] = {"one by one": partial(plain_features, on_device)}
        if options.device != "cpu":
            peers["one by one, CPU"] = partial(plain_features, waveforms)
        peers["AST's extractor"] = partial(ast.features, clips)
        times = time_alternately({"ours": ours} | peers, options.repeats, options.device)
        difference = (ours()["input_values"] - plain_features(on_device)).abs().max().item()
        yield Row(
            "fbank",
            describe_size(batch_size, seconds),
            1000 * times["ours"],
            milliseconds(times, list(peers)),
            details={"largest difference": difference, "ms a clip": round(1000 * times["ours"] / batch_size, 2)},
        )


def encoder(options: Options) -> Iterator[Row]:
    """Fbanks to the states of all patches, in every precision and implementation."""
    classifier = build_classifier(options.layers, options.device)
    variants = build_variants(classifier.beats, options, options.implementations)
    reference = computing(reference_style(classifier.beats).encode, "fp32", options.device)
    avex = computing(reference_style(classifier.beats, AvexStyleBeats).encode, "fp32", options.device)
    openbeats = build_openbeats(classifier.config, options)
    for batch_size, seconds in options.sizes:
        features = make_features(batch_size, seconds, options.device)
        peers: dict[str, Call] = {REFERENCE: partial(reference, features), AVEX: partial(avex, features)}
        peers |= {name: partial(model, features) for name, model in openbeats.items()}
        ours = {", ".join(key): partial(model, features) for key, model in variants.items()}
        times, rates = measure(ours | peers, options)
        operations = batch_size * count_operations(partial(reference, features[:1]))
        expected = reference(features).mean(dim=1)
        for (precision, implementation), name in zip(variants, ours):
            pooled = ours[name]().pooler_output.float()
            details = compare_embeddings(pooled, expected, classifier.classifier)
            # Of what a compiler makes, the names of the operations do not tell.
            if implementation not in ("compiled", "flex"):
                shares = profile_shares(ours[name], options.device)
                details |= {f"{kind}, %": round(share, 1) for kind, share in shares.items()}
            yield Row(
                "encoder",
                f"{describe_size(batch_size, seconds)}, {name}",
                1000 * times[name],
                milliseconds(times, list(peers)),
                roofline=operations / times[name] / rates[precision],
                details=details,
                audio_seconds=batch_size * seconds,
            )


def parity(options: Options) -> Iterator[Row]:
    """How far fbank and states of all patches are from the plain implementation's in float32 on the CPU."""
    classifier = build_classifier(options.layers, "cpu")
    reference = computing(reference_style(classifier.beats).encode, "fp32", "cpu")
    variants = build_variants(classifier.beats.to(options.device), options, options.implementations)
    for batch_size, seconds in options.sizes:
        batch_size = min(batch_size, MAX_PARITY_CLIPS)
        features = make_features(batch_size, seconds, options.device)
        plain = plain_features([torch.from_numpy(clip) for clip in make_clips(batch_size, seconds)])
        expected = reference(plain)
        yield Row(
            "parity",
            f"{describe_size(batch_size, seconds)}, fbank",
            relative_difference(features, plain),
            {"allowed": TOLERANCES["fp32"]},
            unit="relative",
        )
        for (precision, implementation), model in variants.items():
            states = model(features).last_hidden_state
            yield Row(
                "parity",
                f"{describe_size(batch_size, seconds)}, {precision}, {implementation}",
                relative_difference(states, expected),
                {"allowed": TOLERANCES[precision]},
                unit="relative",
            )


def relative_difference(values: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference, by the norm of what is expected."""
    return (torch.dist(values.float().cpu(), expected) / expected.norm()).item()


def published(options: Options) -> Iterator[Row]:
    """A clip of 10 s, one at a time, from waveform to probabilities, and the accuracy that is published of each."""
    ours, extractor = build_classifier(options.layers, options.device), BeatsFeatureExtractor()
    (clip,) = clips = make_clips(1, 10.0)
    shapes = {"AST": {}} | SHAPES
    peers: dict[str, Call] = {
        name: partial(
            computing(
                AudioSpectrogramTransformer(10.0, NUM_LABELS, options.layers, options.device, torch.float32, shape),
                "fp32",
                options.device,
            ),
            clips,
        )
        for name, shape in shapes.items()
    }

    def classify() -> torch.Tensor:
        inputs = extractor(clip, sampling_rate=SAMPLING_RATE, return_tensors="pt", device=options.device)
        return ours(inputs["input_values"]).logits.sigmoid()

    times = time_alternately(
        {OURS: computing(classify, "fp32", options.device)} | peers, options.repeats, options.device
    )
    yield Row(
        "published",
        f"{describe_size(1, 10.0)}, fp32",
        1000 * times[OURS],
        milliseconds(times, list(peers)),
        details={f"mAP, {name}": PUBLISHED_MAP[name] for name in times},
    )


def build_openbeats(config: BeatsConfig, options: Options) -> dict[str, Callable]:
    """`openbeats` as functions of our features, in its default and with its faster attention; none if not there."""
    functions = {}
    for name, use_flash_attn in {"openbeats fp32": False, "openbeats fp32, SDPA": True}.items():
        model = openbeats_encoder(config, use_flash_attn)
        if model is not None:
            function = partial(compute_openbeats, model.to(options.device))
            functions[name] = computing(function, "fp32", options.device)
    return functions


def compute_openbeats(model: nn.Module, features: torch.Tensor) -> torch.Tensor:
    lengths = torch.full((len(features),), features.shape[1], device=features.device)
    return model(denormalize(features, BeatsFeatureExtractor()), lengths, waveform_input=False)[0]


def compare_embeddings(pooled: torch.Tensor, expected: torch.Tensor, classifier: nn.Linear) -> dict[str, float]:
    """Smallest cosine of the clips' embeddings, and the share of the clips whose best label is the same."""
    with torch.inference_mode():
        same = classifier(pooled).argmax(dim=-1) == classifier(expected).argmax(dim=-1)
        cosine = F.cosine_similarity(pooled, expected).min()
    return {"cosine": round(cosine.item(), 6), "same top-1": same.float().mean().item()}


def inference(options: Options) -> Iterator[Row]:
    """Waveforms to probabilities, with AST in the same precision."""
    classifier, extractor = build_classifier(options.layers, options.device), BeatsFeatureExtractor()
    variants = build_variants(classifier, options, options.fast_implementations)
    reference = computing(reference_style_classifier(classifier), "fp32", options.device)

    def classify(model: Callable, waveforms: list[torch.Tensor]) -> torch.Tensor:
        inputs = extractor(
            waveforms,
            sampling_rate=SAMPLING_RATE,
            return_attention_mask=False,
            return_tensors="pt",
            device=options.device,
        )
        return model(inputs["input_values"]).logits.sigmoid()

    for batch_size, seconds in options.sizes:
        clips = make_clips(batch_size, seconds)
        waveforms = [torch.from_numpy(clip).to(options.device) for clip in clips]
        ours = {", ".join(key): partial(classify, model, waveforms) for key, model in variants.items()}
        ast = {f"AST {name}": partial(build_ast(seconds, name, options), clips) for name in options.precisions}
        times, rates = measure(ours | ast | {REFERENCE: partial(reference, waveforms)}, options)
        operations = batch_size * count_operations(partial(reference, waveforms[:1]))
        for (precision, _), name in zip(variants, ours):
            yield Row(
                "inference",
                f"{describe_size(batch_size, seconds)}, {name}",
                1000 * times[name],
                {AST: 1000 * times[f"AST {precision}"], REFERENCE: 1000 * times[REFERENCE]},
                roofline=operations / times[name] / rates[precision],
                details={"clips per second": batch_size / times[name]},
                audio_seconds=batch_size * seconds,
            )


def build_ast(seconds: float, precision: str, options: Options) -> Callable:
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    peer = AudioSpectrogramTransformer(seconds, NUM_LABELS, options.layers, options.device, dtype)
    return computing(peer, precision, options.device)


def tokenizer(options: Options) -> Iterator[Row]:
    """Fbanks to the codes of all patches."""
    model = build_tokenizer(options)
    variants = build_variants(model, options, options.fast_implementations)
    reference = computing(reference_style_tokenizer(model), "fp32", options.device)
    for batch_size, seconds in options.sizes:
        features = make_features(batch_size, seconds, options.device)
        ours = {", ".join(key): partial(variant, features) for key, variant in variants.items()}
        times, rates = measure(ours | {REFERENCE: partial(reference, features)}, options)
        operations = batch_size * count_operations(partial(reference, features[:1]))
        expected = reference(features)
        for (precision, _), name in zip(variants, ours):
            same = (ours[name]().audio_codes.flatten(1) == expected).float().mean().item()
            yield Row(
                "tokenizer",
                f"{describe_size(batch_size, seconds)}, {name}",
                1000 * times[name],
                milliseconds(times, [REFERENCE]),
                roofline=operations / times[name] / rates[precision],
                details={"same codes": same, "codes per second": expected.numel() / times[name]},
                audio_seconds=batch_size * seconds,
            )


def position_convolution(options: Options) -> Iterator[Row]:
    """Which share of the encoder's time the position convolution takes, and which share of its operations."""
    model = build_classifier(options.layers, options.device).beats
    reference = reference_style(model)
    for batch_size, seconds in options.sizes:
        features = make_features(batch_size, seconds, options.device)
        with torch.inference_mode():
            operations = count_operations(partial(reference.encode, features[:1]))
            states = torch.randn_like(reference.encode(features[:1]))
            of_convolution = count_operations(partial(reference.position_convolution, states))
        for precision in options.precisions:
            variant = copy.deepcopy(model).to(torch.bfloat16 if precision == "bf16" else torch.float32)
            call = partial(computing(variant, precision, options.device), features)
            call()
            shares, durations = [], []
            for _ in range(options.repeats):
                with ModuleClock(variant.encoder.pos_conv_embed, options.device) as module:
                    total = clock(call, options.device)
                shares.append(100 * module.seconds / total)
                durations.append(1000 * module.seconds)
            yield Row(
                "position_convolution",
                f"{describe_size(batch_size, seconds)}, {precision}",
                statistics.median(shares),
                {"its share of the operations": 100 * of_convolution / operations},
                unit="%",
                details={"ms": statistics.median(durations)},
            )


def attention_peak(style: str, precision: str, batch_size: int, seconds: float, device: str) -> int:
    """In a fresh process: bytes at the peak of an attention layer above what model and input take."""
    torch.manual_seed(0)
    model = BeatsModel(BeatsConfig(num_hidden_layers=1)).to(device, DTYPES[precision]).eval()
    layer = model.encoder.layers[0].self_attn
    if style == REFERENCE:
        reference = reference_style(model)

        def attend(states: torch.Tensor) -> torch.Tensor:
            states = states.transpose(0, 1)
            bias = reference.position_bias(len(states), batch_size)
            return reference.attention("encoder.layers.0.self_attn", states, bias, None)
    else:
        model.set_attn_implementation(ATTENTION[style])

        def attend(states: torch.Tensor) -> torch.Tensor:
            return layer(states, None, model.encoder.position_bias(states, states.shape[1]))

    num_patches = num_fbank_frames(int(seconds * SAMPLING_RATE)) // model.config.patch_size
    num_patches *= model.config.num_freq_patches
    states = torch.randn(batch_size, num_patches, model.config.hidden_size, device=device).to(DTYPES[precision])
    call = computing(attend, precision, device)
    # What libraries keep for good is not of this call. On a GPU a kernel may be compiled for the length; on a CPU, a
    # long call would leave memory behind that the next one finds.
    call(states if device == "cuda" else states[:, :16])
    return peak_memory(partial(call, states), device)


def attention_memory(options: Options) -> Iterator[Row]:
    """Peak memory of an attention layer. A compiler's own memory would hide it, so nothing is compiled."""
    for batch_size, seconds in ATTENTION_MEMORY_SIZES:
        measure_peak = partial(in_fresh_process, attention_peak)
        reference = measure_peak(REFERENCE, "fp32", batch_size, seconds, options.device) / 2**20
        for precision in options.precisions:
            if precision == "autocast":
                continue
            for implementation in options.implementations:
                # On a CPU, flex attention is compiled for each length, which would hide its own memory.
                if implementation == "compiled" or (implementation == "flex" and options.device == "cpu"):
                    continue
                peak = measure_peak(implementation, precision, batch_size, seconds, options.device) / 2**20
                setting = f"{describe_size(batch_size, seconds)}, {precision}, {implementation}"
                yield Row("attention_memory", setting, peak, {REFERENCE: reference}, unit="MiB")


def imports(options: Options) -> Iterator[Row]:
    """Importing transformers, with and without this package, in fresh processes that take turns."""

    def seconds(statement: str) -> float:
        code = f"import time; start = time.perf_counter(); {statement}; print(time.perf_counter() - start)"
        return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)

    # The difference is small against what comes between on a busy machine. The first may have to read from disk.
    num_turns = 1 + IMPORT_TURNS * options.repeats
    turns = [{name: seconds(code) for name, code in IMPORTS.items()} for _ in range(num_turns)][1:]
    times = {name: 1000 * statistics.median(turn[name] for turn in turns) for name in IMPORTS}
    difference = 1000 * statistics.median(turn["both"] - turn["transformers"] for turn in turns)
    yield Row(
        "imports",
        "transformers and transformers_beats",
        times["both"],
        {"transformers": times["transformers"]},
        details={"difference, ms": difference},
    )


PARTS: dict[str, Callable[[Options], Iterator[Row]]] = {
    part.__name__: part
    for part in (
        parity,
        fbank,
        encoder,
        inference,
        published,
        tokenizer,
        finetuning,
        pretraining,
        processes,
        position_convolution,
        attention_memory,
        finetuning_memory,
        pretraining_memory,
        any_length,
        recording_memory,
        ragged,
        crops,
        imports,
    )
}
