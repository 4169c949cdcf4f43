# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Top classes of audio files, by an exported classifier: python onnx_inference.py MODEL.onnx CLIP.wav ..."""

import json
import sys

import numpy as np
import onnxruntime
import soundfile


if len(sys.argv) < 3:
    sys.exit(__doc__)
try:
    session = onnxruntime.InferenceSession(sys.argv[1])
except Exception as error:  # the only class that errors of onnxruntime share
    sys.exit(f"{sys.argv[1]}: {error}")
metadata = session.get_modelmeta().custom_metadata_map
kind, task = metadata.get("architecture", "model of unknown kind"), metadata.get("problem_type", "")
if kind != "BeatsForAudioClassification" or task == "regression":
    sys.exit(f"{sys.argv[1]}: a {kind} {task}: this example is for the classes of a BeatsForAudioClassification.")
rate, labels = int(metadata["sampling_rate"]), json.loads(metadata["labels"])
for path in sys.argv[2:]:
    try:
        audio, audio_rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        sys.exit(str(error))
    if len(audio) == 0:
        sys.exit(f"{path}: holds no audio.")
    if audio_rate != rate:
        sys.exit(f"{path}: its rate is {audio_rate} Hz, but the model needs audio at {rate} Hz: resample it before.")
    probabilities, lengths = [], []
    for start in range(0, len(audio), 10 * rate):
        part = audio[start : start + 10 * rate].mean(axis=1)
        lengths.append(len(part))
        # A row needs `min_samples`; what stands after the clip's own samples is not looked at.
        part = np.pad(part, (0, max(0, int(metadata["min_samples"]) - len(part))))
        inputs = {"waveforms": part[None], "lengths": np.array(lengths[-1:])}
        probabilities.append(session.run(["probabilities"], inputs)[0][0])
    scores = np.average(probabilities, axis=0, weights=lengths)
    for index in scores.argsort()[::-1][:5]:
        print(f"{path}  {scores[index]:.3f}  {labels[index]}")
