#!/bin/sh
# Measures a GPU in less than ten minutes:
#
#     benchmarks/gpu.sh [--rehearse] OUTPUT
#
# Each stage has a limit in seconds, and OUTPUT/gpu.md and OUTPUT/gpu.json hold what is known after each. --rehearse
# goes the same way with tiny sizes, without a GPU too. PYTHON is the interpreter, by default that of `./run`.
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
rehearse=
if [ "${1:-}" = --rehearse ]; then
    rehearse=1
    shift
fi
if [ $# -ne 1 ]; then
    echo "usage: benchmarks/gpu.sh [--rehearse] OUTPUT" >&2
    exit 2
fi
mkdir -p "$1" || exit 1
output=$(cd "$1" && pwd)
cd "$root" || exit 1
python=${PYTHON:-$root/.venv/bin/python}
command -v "$python" >/dev/null || python=python3

# stage NAME SECONDS PARTS AND OPTIONS: one process, stopped at its limit; a rehearsal has time for a slow CPU.
stage() {
    name=$1 limit=$2
    shift 2
    # An earlier run's rows are not this one's.
    rm -rf "${output:?}/$name"
    mkdir -p "$output/$name"
    if [ -n "$rehearse" ]; then
        set -- "$@" --layers 1 --repeats 1
        limit=300
    fi
    timeout -k 5 "$limit" "$python" -m benchmarks "$@" --output "$output/$name" >"$output/$name/log" 2>&1
    echo "$?" >"$output/$name/status"
    "$python" -m benchmarks.gpu "$output"
}

# Seconds of a clip, and clips in a batch.
if [ -n "$rehearse" ]; then
    seconds=1 few=1 some=2 many=3 base=2 large=2
else
    # In training, what should fit into 40 GB by the size of the activations: never tried.
    seconds=10 few=1 some=16 many=256 base=64 large=32
fi

stage parity 50 parity --seconds $seconds --batch-size $few --implementation sdpa --implementation eager \
    --precision fp32 --precision bf16 --precision fp16
stage front-end 30 fbank --seconds $seconds --batch-size $some
stage inference 100 inference --seconds $seconds --batch-size $few --batch-size $some --batch-size $many \
    --implementation sdpa --precision fp32 --precision bf16
stage pretraining-base 70 pretraining --seconds $seconds --batch-size $base --precision autocast
stage pretraining-large 80 pretraining --seconds $seconds --batch-size $large --precision autocast \
    --layers 24 --size large
stage attention 80 encoder --seconds $seconds --batch-size $some --implementation sdpa --implementation flex \
    --precision fp32 --precision bf16
stage compile 90 encoder --seconds $seconds --batch-size $some --implementation sdpa --implementation compiled \
    --precision bf16
stage processes 60 processes --seconds $seconds --batch-size $base --precision autocast
cat "$output/gpu.md"
