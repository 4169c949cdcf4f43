# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""What `forward` is given: keywords, labels, dtypes, filter banks of others; and how models are transformed."""

import copy
import inspect
import pickle

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from transformers import ASTFeatureExtractor, AttentionInterface, pipeline

from transformers_beats import (
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsForAudioFrameClassification,
    BeatsForPreTraining,
    BeatsModel,
    BeatsRandomProjectionTokenizer,
    BeatsRandomProjectionTokenizerConfig,
    BeatsTokenizerConfig,
    BeatsTokenizerForPreTraining,
    BeatsTokenizerModel,
)


pytestmark = pytest.mark.usefixtures("compiler")
CLASSIFIERS = (BeatsForAudioClassification, BeatsForAudioFrameClassification)
FROM_CONFIG = (BeatsModel, *CLASSIFIERS, BeatsForPreTraining)
TOKENIZERS = (BeatsTokenizerModel, BeatsTokenizerForPreTraining)
# PyTorch 2.6 traces no model of transformers as one graph.
traces_transformers = pytest.mark.skipif(torch.__version__.startswith("2.6."), reason="needs PyTorch 2.7")


@pytest.fixture
def fbank():
    return torch.randn(2, 203, 128, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def attention_mask():
    """Of two clips, the second padded from frame 120 on."""
    return (torch.arange(203) < torch.tensor([[203], [120]])).int()


def build(model_class, tiny_config):
    config = tiny_config
    if model_class in TOKENIZERS:
        config = BeatsTokenizerConfig(**{**tiny_config.to_dict(), "codebook_size": 8, "codebook_dim": 4})
    elif model_class is BeatsRandomProjectionTokenizer:
        config = BeatsRandomProjectionTokenizerConfig()
    return model_class(config).eval()


# Keywords


@pytest.mark.parametrize("model_class", [*FROM_CONFIG, *TOKENIZERS, BeatsRandomProjectionTokenizer])
@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("padding_mask", "use `attention_mask`, which is 1 for frames of audio and 0 for padding"),
        ("atention_mask", "use `attention_mask`"),
        ("output_hidden_state", "use `output_hidden_states`"),
        ("input_features", "use `input_values`"),
        ("source", "use `input_values`, the filter bank that `BeatsFeatureExtractor` computes"),
        ("something", r"has no argument `something`\.$"),
    ],
)
def test_a_keyword_that_nothing_reads_is_refused_with_the_right_name(name, hint, model_class, tiny_config, fbank):
    with pytest.raises(TypeError, match=hint):
        build(model_class, tiny_config)(fbank, **{name: torch.ones(2, 203)})


@pytest.mark.parametrize("model_class", CLASSIFIERS)
@pytest.mark.parametrize("name", ["label", "targets"])
def test_classifiers_name_their_labels(name, model_class, tiny_config, fbank):
    with pytest.raises(TypeError, match="use `labels`"):
        model_class(tiny_config)(fbank, **{name: torch.zeros(2)})


@pytest.mark.parametrize("name", ["dropout", "scaling", "position_bias", "kept_positions", "attention_interface"])
def test_arguments_of_inner_functions_are_none_of_forward(name, tiny_config, fbank):
    with pytest.raises(TypeError, match=f"no argument `{name}`"):
        BeatsModel(tiny_config)(fbank, **{name: torch.zeros(1)})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("is_causal", True),
        ("position_ids", torch.arange(96)),
        ("seq_idx", torch.zeros(2, 96)),
        ("cu_seq_lens_q", torch.tensor([0, 96])),
        ("cu_seq_lens_k", torch.tensor([0, 96])),
        ("max_length_q", 96),
        ("max_length_k", 96),
    ],
)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("model_class", [*FROM_CONFIG, *TOKENIZERS, BeatsRandomProjectionTokenizer])
def test_arguments_of_models_of_texts_are_refused(model_class, attention, name, value, tiny_config, fbank):
    model = build(model_class, tiny_config)
    if model_class is not BeatsRandomProjectionTokenizer:
        model.set_attn_implementation(attention)
    with pytest.raises(TypeError, match=f"has no argument `{name}`"):
        model(fbank, **{name: value})


def test_a_compiled_model_refuses_them_too(tiny_config, fbank):
    with pytest.raises(TypeError, match="use `attention_mask`"):
        torch.compile(BeatsModel(tiny_config).eval(), backend="eager")(fbank, padding_mask=torch.zeros(2, 203))


def test_what_transformers_and_peft_pass_is_accepted(tiny_config, fbank, attention_mask):
    model = BeatsForAudioClassification(tiny_config).eval()
    model.config.use_cache = False
    expected = model(fbank, attention_mask=attention_mask).logits
    passed = {"input_ids": None, "inputs_embeds": None, "task_ids": None, "return_dict": None}
    passed |= {"num_items_in_batch": 2, "output_attentions": False, "output_router_logits": False, "use_cache": False}
    for is_causal in (None, False):
        passed |= {"position_ids": None, "is_causal": is_causal}
        assert torch.equal(model(input_values=fbank, attention_mask=attention_mask, **passed).logits, expected)


def test_an_attention_function_gets_its_own_arguments(tiny_config, fbank):
    given = []

    def attention(module, query, key, value, attention_mask, sharpness=1.0, **kwargs):
        given.append(sharpness)
        return value.transpose(1, 2), None

    AttentionInterface.register("sharp", attention)
    model = BeatsModel(tiny_config).eval()
    model.config._attn_implementation = "sharp"
    model(fbank, sharpness=2.0)
    assert given == [2.0] * tiny_config.num_hidden_layers
    with pytest.raises(TypeError, match="no argument `sharpnes`"):
        model(fbank, sharpnes=2.0)


@pytest.mark.parametrize("kind", [list, np.array, lambda value: value.tolist()], ids=["list", "array", "nested"])
@pytest.mark.parametrize("model_class", [*FROM_CONFIG, *TOKENIZERS, BeatsRandomProjectionTokenizer])
def test_what_is_no_tensor_is_named(model_class, kind, tiny_config, fbank, attention_mask):
    model = build(model_class, tiny_config)
    tensors = {"input_values": fbank, "attention_mask": attention_mask}
    others = ("labels", "mixed_codes", "noise", "teacher_outputs")
    tensors |= {name: torch.zeros(2) for name in others if name in inspect.signature(model.forward).parameters}
    for name, value in tensors.items():
        with pytest.raises(ValueError, match=rf"`{name}` must be a tensor .*`return_tensors=\"pt\"`"):
            model(**tensors | {name: kind(value)})


@pytest.mark.parametrize("return_tensors", [None, "np"])
def test_features_that_are_no_tensors_are_refused(return_tensors, tiny_config):
    features = BeatsFeatureExtractor()(np.zeros(16000), sampling_rate=16000, return_tensors=return_tensors)
    with pytest.raises(ValueError, match="call the feature extractor with"):
        BeatsModel(tiny_config)(**features)


@pytest.mark.parametrize(
    "to_mask",
    [
        lambda mask: (1 - mask.float()) * -1e9,
        lambda mask: (1 - mask.float()) * torch.finfo(torch.float32).min,
        lambda mask: mask.float().log(),
        lambda mask: (1 - mask) * -10000,
        lambda mask: mask * 2 - 1,
        lambda mask: mask.float() * 0.5,
        lambda mask: torch.where(mask == 1, 1.0, torch.nan),
    ],
    ids=["-1e9", "least", "-inf", "integers", "signs", "weights", "NaN"],
)
@pytest.mark.parametrize("model_class", [*FROM_CONFIG, BeatsTokenizerForPreTraining, BeatsRandomProjectionTokenizer])
def test_a_mask_of_other_values_than_0_and_1_is_refused(model_class, to_mask, tiny_config, fbank, attention_mask):
    model = build(model_class, tiny_config)
    with pytest.raises(ValueError, match=r"`attention_mask` must be 1 for frames of audio and 0 for padding, got "):
        model(fbank, attention_mask=to_mask(attention_mask))


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.uint8, torch.float32, torch.bfloat16])
def test_a_mask_may_have_any_type(dtype, tiny_config, fbank, attention_mask):
    model = build(BeatsForAudioClassification, tiny_config)
    expected = model(fbank, attention_mask=attention_mask).logits
    assert torch.equal(model(fbank, attention_mask=attention_mask.to(dtype)).logits, expected)


# Filter banks of others


@pytest.mark.parametrize("clip", [np.zeros(16000), np.random.default_rng(0).standard_normal(16000)])
def test_the_padding_of_another_extractor_is_refused(clip, tiny_config):
    tagger = pipeline(
        "audio-classification",
        model=BeatsForAudioClassification(tiny_config).eval(),
        feature_extractor=ASTFeatureExtractor(),
    )
    with pytest.raises(ValueError, match=r"0\.467 in all filters.*Use the model's own feature extractor"):
        tagger(clip.astype(np.float32))


@pytest.mark.parametrize("values", [{}, {"mean": -6.845978, "std": 5.5654526}, {"do_normalize": False}])
@pytest.mark.parametrize("level", [0.3, 1e-5])
def test_the_normalisation_of_another_extractor_is_refused(values, level, tiny_config):
    tagger = pipeline(
        "audio-classification",
        model=BeatsForAudioClassification(tiny_config).eval(),
        feature_extractor=ASTFeatureExtractor(**values),
    )
    # The clip fills all 1,024 frames.
    clip = level * np.random.default_rng(0).standard_normal(165_000).astype(np.float32)
    with pytest.raises(ValueError, match=r"`input_values` are (not )?normalised.*the least value of every frame is -"):
        tagger(clip)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_another_normalisation_is_known_in_any_precision(dtype, tiny_config):
    clip = np.random.default_rng(0).standard_normal(165_000).astype(np.float32)
    model, inputs = BeatsModel(tiny_config).eval(), {"sampling_rate": 16000, "return_tensors": "pt"}
    with pytest.raises(ValueError, match=r"normalised as those of AST: the least value of every frame is -1\.2"):
        model(ASTFeatureExtractor()(clip, **inputs)["input_values"].to(dtype))
    model(BeatsFeatureExtractor()(clip, **inputs)["input_values"].to(dtype))


def test_values_of_another_normalisation_are_accepted_with_a_mask_and_in_training(tiny_config):
    extractor = BeatsFeatureExtractor(fbank_mean=0.0, fbank_std=0.5)
    inputs = extractor(np.zeros(16000, dtype=np.float32), sampling_rate=16000, return_tensors="pt")
    model = BeatsModel(tiny_config).eval()
    model(**inputs)
    model.train()(inputs["input_values"])


def test_zeros_without_a_mask_are_no_silence(tiny_config, fbank, attention_mask):
    model = BeatsModel(tiny_config).eval()
    padded = fbank.masked_fill(attention_mask.unsqueeze(-1) == 0, 0.0)
    with pytest.raises(ValueError, match="end in frames that are 0 in all filters"):
        model(padded)
    model(padded, attention_mask=attention_mask)
    # Hidden frames at the end, by augmentation.
    model.train()(padded)


def test_inputs_of_one_value_and_silence_are_accepted(tiny_config, fbank):
    model = BeatsModel(tiny_config).eval()
    for constant in (0.0, 0.5):
        model(torch.full((1, 32, 128), constant))
    fbank[:, 100:] = BeatsFeatureExtractor().padding_value
    model(fbank)


# Labels


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.bool, torch.float32])
@pytest.mark.parametrize("problem_type", [None, "multi_label_classification"])
def test_a_value_for_each_class_means_several_labels(problem_type, dtype, tiny_config, fbank):
    tiny_config.problem_type = problem_type
    labels = torch.tensor([[1, 0, 0, 1, 0], [0, 0, 0, 0, 0]]).to(dtype)
    model = BeatsForAudioClassification(tiny_config).eval()
    outputs = model(fbank, labels=labels)
    torch.testing.assert_close(outputs.loss, binary_cross_entropy_with_logits(outputs.logits, labels.float()))
    # As pipelines read it.
    assert model.config.problem_type == "multi_label_classification"


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_class_indices_mean_a_single_one(dtype, tiny_config, fbank):
    model = BeatsForAudioClassification(tiny_config).eval()
    outputs = model(fbank, labels=torch.tensor([0, 2], dtype=dtype))
    torch.testing.assert_close(outputs.loss, cross_entropy(outputs.logits, torch.tensor([0, 2])))
    assert model.config.problem_type == "single_label_classification"


@pytest.mark.parametrize(
    ("problem_type", "labels", "message"),
    [
        ("multi_label_classification", torch.tensor([0, 2]), r"\(2,\) and torch.int64 do not fit the `problem_type`"),
        ("multi_label_classification", torch.zeros(2, 4), r"a value for each class, shape \(2, 5\)"),
        ("single_label_classification", torch.zeros(2, 5), "'multi_label_classification' for zeros and ones"),
        ("single_label_classification", torch.tensor([0.0, 2.0]), "class indices, integers of shape"),
        (None, torch.tensor([0.0, 2.0]), "class indices, integers of shape"),
        (None, torch.tensor([0, 2, 1]), r"integers of shape \(2,\)"),
        ("regression", torch.zeros(2), r"a value for each class, shape \(2, 5\)"),
    ],
)
def test_labels_that_do_not_fit_name_the_problem_type(problem_type, labels, message, tiny_config, fbank):
    tiny_config.problem_type = problem_type
    with pytest.raises(ValueError, match=message):
        BeatsForAudioClassification(tiny_config)(fbank, labels=labels)


def test_a_new_head_on_a_model_for_several_labels_names_the_problem_type(tiny_config, fbank, tmp_path):
    tiny_config.problem_type = "multi_label_classification"
    BeatsForAudioClassification(tiny_config).save_pretrained(tmp_path)
    new_head = {"num_labels": 3, "ignore_mismatched_sizes": True}
    model = BeatsForAudioClassification.from_pretrained(tmp_path, **new_head)
    with pytest.raises(ValueError, match="'single_label_classification' for class indices"):
        model(fbank, labels=torch.tensor([0, 2]))
    new_head["problem_type"] = "single_label_classification"
    model = BeatsForAudioClassification.from_pretrained(tmp_path, **new_head)
    assert model(fbank, labels=torch.tensor([0, 2])).loss.isfinite()


@pytest.mark.parametrize("model_class", [BeatsForAudioClassification, BeatsForAudioFrameClassification])
def test_a_new_head_does_not_take_over_thresholds(model_class, tiny_config, tmp_path):
    tiny_config.event_settings = {"LABEL_0": {"threshold": 0.01}}
    model_class(tiny_config).save_pretrained(tmp_path)
    assert model_class.from_pretrained(tmp_path).config.event_settings == tiny_config.event_settings
    # Another number of classes, and an encoder below a new head.
    new_head = model_class.from_pretrained(tmp_path, num_labels=3, ignore_mismatched_sizes=True)
    assert new_head.config.event_settings is None
    BeatsModel.from_pretrained(tmp_path).save_pretrained(tmp_path / "encoder")
    assert model_class.from_pretrained(tmp_path / "encoder").config.event_settings is None


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_frames_have_a_value_for_each_class_or_class_indices(dtype, tiny_config, fbank):
    labels = torch.randint(2, (2, 12, 5)).to(dtype)
    outputs = BeatsForAudioFrameClassification(tiny_config).eval()(fbank, labels=labels)
    torch.testing.assert_close(outputs.loss, binary_cross_entropy_with_logits(outputs.logits, labels.float()))
    tiny_config.problem_type = "multi_label_classification"
    with pytest.raises(ValueError, match=r"'multi_label_classification', which needs .* \(2, 12, 5\)"):
        BeatsForAudioFrameClassification(tiny_config)(fbank, labels=torch.randint(5, (2, 12)))


def test_labels_of_minus_100_do_not_count(tiny_config, fbank):
    clips = BeatsForAudioClassification(tiny_config).eval()
    indices = torch.tensor([-100, 2])
    outputs = clips(fbank, labels=indices)
    torch.testing.assert_close(outputs.loss, cross_entropy(outputs.logits[1:], indices[1:]))
    clips.config.problem_type = "multi_label_classification"
    labels = torch.tensor([[1, 0, -100, 1, 0], [-100, 0, 0, 0, 1]])
    known = labels != -100
    outputs = clips(fbank, labels=labels)
    expected = binary_cross_entropy_with_logits(outputs.logits[known], labels[known].float())
    torch.testing.assert_close(outputs.loss, expected)
    for nothing in (torch.full((2, 5), -100), torch.full((2, 5), -100.0)):
        loss = clips(fbank, labels=nothing).loss
        loss.backward()
        assert loss == 0
        assert clips.classifier.weight.grad.eq(0).all()


@traces_transformers
@pytest.mark.parametrize("labels", [torch.randint(5, (2, 12)), torch.randint(2, (2, 12, 5)).float()])
def test_the_loss_of_frames_compiles_to_one_graph(labels, tiny_config, fbank, attention_mask):
    model = BeatsForAudioFrameClassification(tiny_config).eval()
    tiny_config.problem_type = "multi_label_classification" if labels.ndim == 3 else "single_label_classification"
    expected = model(fbank, attention_mask=attention_mask, labels=labels).loss
    model.compile(backend="eager", fullgraph=True)
    torch.testing.assert_close(model(fbank, attention_mask=attention_mask, labels=labels).loss, expected)


# Dtypes and copies


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("model_class", CLASSIFIERS)
def test_a_model_in_float64_computes_in_float64(model_class, attention, tiny_config, fbank, attention_mask):
    # Few channels a group, which half precision computes in float32.
    tiny_config.num_conv_pos_embedding_groups = 16
    model = model_class(tiny_config).eval()
    model.set_attn_implementation(attention)
    model = model.double()
    labels = (
        torch.tensor([1, 2]) if model_class is BeatsForAudioClassification else torch.ones(2, 12, dtype=torch.long)
    )

    def loss(values):
        return model(values, attention_mask=attention_mask, labels=labels).loss

    # Finite differences of 1e-6 need more digits than float32 has.
    values = fbank.double()
    values.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(values), values)
    direction = torch.randn(values.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    difference = (loss(values + 1e-6 * direction) - loss(values - 1e-6 * direction)) / 2e-6
    torch.testing.assert_close(difference, (gradient * direction).sum(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("save", [pickle.dumps, lambda model: torch.save(model, "unwritten.pt")])
def test_pickling_says_how_models_are_saved(save, tiny_config, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    model = BeatsForAudioClassification(tiny_config)
    with pytest.raises(RuntimeError, match=r"save_pretrained.*state_dict"):
        save(model)
    # Unlike a pickle, a copy is possible.
    with pytest.raises(RuntimeError, match="save_pretrained"):
        save(copy.deepcopy(model))


# Export and transforms


@traces_transformers
@pytest.mark.parametrize(
    ("frames", "options"),
    [
        (torch.export.Dim.DYNAMIC, {}),
        (16 * torch.export.Dim("columns", min=2, max=250), {}),
        (torch.export.Dim("frames", min=32, max=4000), {"prefer_deferred_runtime_asserts_over_guards": True}),
    ],
)
@pytest.mark.parametrize("with_mask", [False, True])
@torch.no_grad()
def test_torch_export_for_any_length(with_mask, frames, options, tiny_config):
    if not options.keys() <= inspect.signature(torch.export.export).parameters.keys():
        pytest.skip("needs a newer PyTorch")
    model = BeatsForAudioClassification(tiny_config).eval()

    def inputs(num_frames):
        values = {"input_values": torch.randn(2, num_frames, 128)}
        mask = torch.arange(num_frames) < torch.tensor([[num_frames], [num_frames // 2 + 8]])
        return {**values, "attention_mask": mask.int()} if with_mask else values

    example = inputs(304)
    shapes = {name: {1: frames} for name in example}
    program = torch.export.export(model, (), example, dynamic_shapes=shapes, **options)
    for num_frames in (32, 160, 1008):
        values = inputs(num_frames)
        torch.testing.assert_close(program.module()(**values).logits, model(**values).logits, rtol=0, atol=1e-5)


@traces_transformers
@torch.no_grad()
def test_onnx_export_of_the_bare_model_for_any_length(tiny_config, fbank, attention_mask, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = BeatsForAudioClassification(tiny_config).eval()
    inputs = {"input_values": fbank, "attention_mask": attention_mask}
    shape = {0: torch.export.Dim("batch"), 1: torch.export.Dim("frames", min=32, max=4000)}
    path = tmp_path / "model.onnx"
    torch.onnx.export(
        model, (), path, kwargs=inputs, dynamo=True, dynamic_shapes=dict.fromkeys(inputs, shape), verbose=False
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for num_frames in (203, 48):
        values = {name: value[:, :num_frames] for name, value in inputs.items()}
        found = session.run(None, {name: value.numpy() for name, value in values.items()})[0]
        torch.testing.assert_close(torch.from_numpy(found), model(**values).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("with_mask", [True, False])
@pytest.mark.parametrize("with_gradients", [True, False])
def test_tensors_without_values_have_shapes(with_gradients, with_mask, tiny_config):
    with FakeTensorMode(), torch.set_grad_enabled(with_gradients):
        mask = torch.ones(2, 203, dtype=torch.long) if with_mask else None
        outputs = BeatsModel(tiny_config).eval()(torch.empty(2, 203, 128), attention_mask=mask)
    assert outputs.last_hidden_state.shape == (2, 96, tiny_config.hidden_size)


@pytest.mark.parametrize("dtype", [torch.long, torch.float32, torch.bool])
@pytest.mark.parametrize("with_gradients", [True, False])
def test_a_mode_of_fake_tensors_takes_a_real_model_and_real_inputs(with_gradients, dtype, tiny_config, fbank):
    model = BeatsForAudioClassification(tiny_config).eval()
    mask = torch.ones(fbank.shape[:2], dtype=dtype)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.set_grad_enabled(with_gradients):
        for given in (mask, None):
            assert model(fbank, attention_mask=given).logits.shape == (len(fbank), tiny_config.num_labels)
    # It is looked at again outside.
    with pytest.raises(ValueError, match="must be 1 for frames of audio"):
        model(fbank, attention_mask=mask.long() * -1)


@pytest.mark.parametrize("with_gradients", [True, False])
def test_tangents_pass_through_the_model(with_gradients, tiny_config, fbank, attention_mask):
    # SDPA on a CPU has no derivative of this kind but in plain operations.
    model = BeatsModel(tiny_config).eval().double()
    values = fbank.double()
    direction = torch.randn(values.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.set_grad_enabled(with_gradients), sdpa_kernel(SDPBackend.MATH):
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(values, direction)
            tangent = forward_ad.unpack_dual(model(dual, attention_mask=attention_mask).pooler_output).tangent
        ends = [
            model(values + step * direction, attention_mask=attention_mask).pooler_output for step in (1e-6, -1e-6)
        ]
    torch.testing.assert_close(tangent, (ends[0] - ends[1]) / 2e-6, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["q_proj.weight", "relative_attention_bias", "gru_rel_pos_const", "fc1.weight"])
@pytest.mark.parametrize("with_gradients", [True, False])
def test_tangents_of_weights_pass_through_the_model(with_gradients, name, tiny_config, fbank, attention_mask):
    model = BeatsModel(tiny_config).eval().double()
    weights = dict(model.named_parameters())
    key = min(key for key in weights if name in key)
    direction = torch.randn(weights[key].shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def pool(weight):
        inputs = (fbank.double(), attention_mask)
        return torch.func.functional_call(model, {key: weight}, inputs).pooler_output

    with torch.set_grad_enabled(with_gradients), sdpa_kernel(SDPBackend.MATH):
        with forward_ad.dual_level():
            tangent = forward_ad.unpack_dual(pool(forward_ad.make_dual(weights[key].detach(), direction))).tangent
        ends = [pool(weights[key].detach() + step * direction) for step in (1e-6, -1e-6)]
    torch.testing.assert_close(tangent, (ends[0] - ends[1]).detach() / 2e-6, rtol=1e-5, atol=1e-7)


@torch.no_grad()
def test_vmap_over_clips_and_over_weights(tiny_config, fbank, attention_mask):
    model = BeatsForAudioClassification(tiny_config).eval()

    def one_clip(values, mask):
        return model(values.unsqueeze(0), attention_mask=mask.unsqueeze(0)).logits[0]

    expected = model(fbank, attention_mask=attention_mask).logits
    torch.testing.assert_close(torch.func.vmap(one_clip)(fbank, attention_mask), expected)
    weights = {name: torch.stack([value, 2 * value]) for name, value in model.state_dict().items()}
    logits = torch.func.vmap(lambda state: torch.func.functional_call(model, state, (fbank,)).logits)(weights)
    torch.testing.assert_close(logits[0], model(fbank).logits)
