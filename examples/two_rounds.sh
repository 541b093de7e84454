#!/bin/sh
# Two rounds on the sample data: choose, hand over, train, and choose again, knowing what was replayed.
#
#     pip install accelerate
#     sh examples/two_rounds.sh rounds-out
#
# docs/rounds.md tells what happens. Some fifteen minutes on two cores.
set -eu
out=$1
bin=${BIN:-.venv/bin}
old='sample_data/old/*/*.jsonl.gz'
new1='sample_data/new/*/*.jsonl.gz'
new2="$out/new2/code.jsonl"
# Names of documents are relative to --root: rounds that are to know each other need the same one.
common="--root sample_data --group-by source --max-tokens 256 --pool 20% --workers 2"

echo "Round 1: the documentation of PostgreSQL"
"$bin/cptsel" embed "$old" --model sample_data/tiny-lm --lookahead "$new1" $common --out "$out/run-1"
"$bin/cptsel" select "$out/run-1" --budget '25000 tokens' --out "$out/replay-1"
"$bin/cptsel" verify "$out/replay-1" --sources
"$bin/cptsel" export "$out/replay-1" --to parquet --ids --out "$out/export-1"
"$bin/python" examples/hf_trainer.py "$new1" --model sample_data/tiny-lm --replay "$out/export-1" \
    --fraction 0.1 --steps 60 --out "$out/model-1"

echo "Round 2: the code of this project; what was new is old now"
mkdir -p "$out/new2"
"$bin/python" -c 'import json, pathlib
for path in sorted(pathlib.Path("pipeline").rglob("*.py")):
    print(json.dumps({"text": path.read_text()}))' > "$new2"
"$bin/cptsel" embed "$old" "$new1" --model "$out/model-1" --lookahead "$new2" $common --out "$out/run-2"
"$bin/cptsel" select "$out/run-2" --budget '25000 tokens' --history "$out/replay-1" --out "$out/replay-2"
"$bin/cptsel" select "$out/run-2" --budget '25000 tokens' --out "$out/forgetful-2"
"$bin/cptsel" compare "$out/forgetful-2" "$out/replay-2"
"$bin/cptsel" export "$out/replay-2" --to parquet --ids --out "$out/export-2"
"$bin/python" examples/hf_trainer.py "$new2" --model "$out/model-1" --replay "$out/export-2" \
    --fraction 0.1 --steps 60 --out "$out/model-2"
