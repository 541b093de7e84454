"""Go on training a model on new text and a replay, with the Hugging Face Trainer: killed, it resumes where it was.

    cptsel export ordered --to parquet --ids --out export
    pip install accelerate
    python examples/hf_trainer.py --model sample_data/tiny-lm --replay export --out out 'sample_data/new/*/*.jsonl.gz'

Every batch has the replay's plays in their order, at the places that ``MixedDataset`` gives them, and losses are
weighted where the manifest asks for it. ``OUT/plays.jsonl`` says what was played at every step; after a kill, what was
played since the last checkpoint is there twice, with equal steps.
"""

import argparse
import glob
import gzip
import json
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from cptsel.replay_dataset import MixedDataset, ReplayDataset, weighted_loss

IGNORED = -100  # label of a position that is not predicted


class NewText(Dataset):
    """Windows of new text, cut from its documents."""

    def __init__(self, pattern: str, tokenizer: Any, length: int):
        self.windows = []
        for path in sorted(glob.glob(pattern)):
            with gzip.open(path, "rt") if path.endswith(".gz") else open(path) as lines:
                for line in lines:
                    ids = tokenizer(json.loads(line)["text"], add_special_tokens=False)["input_ids"]
                    self.windows += [ids[start : start + length] for start in range(0, len(ids), length)]

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self.windows[index], "loss_weight": 1.0, "sample_id": None}


class Collator:
    """Plays as a batch: BOS before each window, as where it was embedded; padding is no label."""

    def __init__(self, tokenizer: Any):
        self.bos, self.pad = tokenizer.bos_token_id, tokenizer.eos_token_id

    def __call__(self, plays: list[dict[str, Any]]) -> dict[str, Any]:
        rows = [torch.tensor([self.bos, *play["input_ids"]]) for play in plays]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.pad)
        there = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        return {
            "input_ids": ids,
            "attention_mask": there,
            "labels": ids.masked_fill(there == 0, IGNORED),
            "loss_weight": torch.tensor([play["loss_weight"] for play in plays]),
            "sample_id": [play["sample_id"] for play in plays],
        }


class ReplayTrainer(Trainer):
    """Weighs losses, and writes down what is played."""

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **_: Any) -> Any:
        names, weight, labels = (inputs.pop(key) for key in ("sample_id", "loss_weight", "labels"))
        with open(Path(self.args.output_dir) / "plays.jsonl", "a") as file:
            file.write(json.dumps({"step": self.state.global_step, "sample_ids": names}) + "\n")
        output = model(**inputs)
        loss = weighted_loss(output.logits[:, :-1], labels[:, 1:], weight)
        return (loss, output) if return_outputs else loss


def main() -> None:
    """Train, from the last checkpoint where there is one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("new", help="glob of JSON lines with new text")
    parser.add_argument("--model", required=True)
    parser.add_argument("--replay", required=True, help="folder of cptsel export --to parquet --ids")
    parser.add_argument("--fraction", type=float, default=0.05, help="of the windows that come from the replay")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--save-steps", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    data = MixedDataset(NewText(args.new, tokenizer, args.length), ReplayDataset(args.replay), args.fraction)
    settings = TrainingArguments(
        output_dir=args.out,
        max_steps=args.steps,
        save_steps=args.save_steps,
        per_device_train_batch_size=args.batch_size,
        learning_rate=args.lr,
        train_sampling_strategy="sequential",  # else the Trainer shuffles
        remove_unused_columns=False,  # keeps loss_weight and sample_id
        report_to="none",
        seed=0,
    )
    trainer = ReplayTrainer(
        model, settings, data_collator=Collator(tokenizer), train_dataset=data, processing_class=tokenizer
    )
    last = get_last_checkpoint(args.out) if Path(args.out).is_dir() else None
    trainer.train(resume_from_checkpoint=last)
    trainer.save_model(args.out)


if __name__ == "__main__":
    main()
