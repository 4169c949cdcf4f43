# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Command line `transformers-beats`.

Commands import transformers, torch and matplotlib when they run, so that `--help` is fast.
"""

from transformers_beats.utils.errors import end_on_signals

from .anomalies import fit
from .anomaly_scores import score
from .arrays import embed, tokenize
from .commands import add_command, add_group, completion, make_app
from .compare import compare, distance
from .convert import convert, export
from .forwarded import MODELS, TRAINING, add_forwarded
from .models import get, info, models, recipes
from .search import index, search
from .tag import listen, tag


# Heading of what is neither audio nor training.
TOOLS = "Models and tools"
app = make_app()
tags = ["-m beats-finetuned recordings", "-m beats-finetuned - --json < clip.wav"]
tags += ["-m beats-finetuned recordings -o events.csv --events"]
embeddings = ["-m beats-iter3 recordings -o embeddings", "-m beats-iter3 clip.wav --json"]
add_command(app, "tag", tag, tags, "Audio", quiet=True)
listens = ["-m beats-finetuned", "-m beats-finetuned - --rate 16000 < samples.raw"]
add_command(app, "listen", listen, listens, "Audio", quiet=True)
add_command(app, "embed", embed, embeddings, "Audio", quiet=True)
add_command(app, "tokenize", tokenize, ["-m beats-tokenizer recordings -o tokens"], "Audio", quiet=True)
add_command(app, "compare", compare, ["-m beats-finetuned first.wav second.wav"], "Audio", quiet=True)
add_command(
    app,
    "index",
    index,
    [f"-m beats-iter3 recordings -o INDEX{end}" for end in ("", " --segments 2")],
    "Audio",
    quiet=True,
)
searches = ["INDEX clip.wav", "INDEX --duplicates", "INDEX --map map.png"]
add_command(app, "search", search, searches, "Audio", quiet=True)
add_command(app, "distance", distance, ["-m beats-iter3 real generated --segments 1"], "Audio", quiet=True)
fits = ["normal-clips -m beats-iter3 -o fan.safetensors", "dcase/dev_data -m beats-iter3 -o machines.safetensors"]
scores = ["fan.safetensors recordings -o scores.csv", "fan.safetensors recordings --explain pictures"]
examples = [f"fit {fits[0]}", f"score {scores[0]}"]
anomalies = add_group(app, "anomalies", "Find sounds that are not like normal clips of a machine.", examples, "Audio")
add_command(anomalies, "fit", fit, fits, "Commands", quiet=True, group="anomalies")
add_command(anomalies, "score", score, scores, "Commands", quiet=True, group="anomalies")
add_command(app, "models", models, ["", "--json"], TOOLS)
add_command(app, "get", get, ["beats-iter3"], TOOLS, quiet=True)
add_command(app, "info", info, ["beats-finetuned", "beats-finetuned --labels"], TOOLS)
add_command(app, "convert", convert, ["BEATs_iter3.pt beats-iter3"], TOOLS, quiet=True)
add_command(app, "export", export, ["beats-finetuned beats.onnx --int8"], TOOLS, quiet=True)
for name, command in MODELS.items():
    add_forwarded(app, name, command, TOOLS)
for name, command in TRAINING.items():
    add_forwarded(app, name, command, "Training")
add_command(app, "recipes", recipes, [""], "Training")
add_command(app, "completion", completion, ["bash"], TOOLS)


def main() -> None:
    """Command line entry."""
    end_on_signals()
    app()


if __name__ == "__main__":
    main()
