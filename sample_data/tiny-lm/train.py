"""Train a tiny Llama and its byte-level BPE tokenizer from JSONL files, on a CPU.

    python sample_data/tiny-lm/train.py 'sample_data/old/*/*.jsonl.gz' --steps 500 --out my-lm

The defaults are those of the model in this folder (README.md), but for ``--steps``: it took 2,681, on a larger corpus.
Documents are shuffled once, joined by ``<|endoftext|>`` and cut into rows; rows are drawn in that order, again from the
start when they run out.
"""

import argparse
import glob
import gzip
import json
import math
import random
import sys
from collections.abc import Iterator, Sequence

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

END = "<|endoftext|>"  # id 0: begins, ends and pads
BETAS, WEIGHT_DECAY, CLIP, WARM_UP = (0.9, 0.95), 0.1, 1.0, 0.05


def read_texts(patterns: Sequence[str], field: str) -> list[str]:
    """The text of every line of the files that match, in order of path and line."""
    paths = sorted({path for pattern in patterns for path in glob.glob(pattern)})
    if not paths:
        raise SystemExit(f"no file matches {' '.join(patterns)}")
    texts = []
    for path in paths:
        open_text = gzip.open if path.endswith(".gz") else open
        with open_text(path, "rt", encoding="utf-8") as lines:
            texts += [json.loads(line)[field] for line in lines if line.strip()]
    return texts


def train_tokenizer(texts: Sequence[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE with ``END`` as id 0; every byte is a token, so nothing is ever unknown."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END, eos_token=END, pad_token=END)


def make_rows(texts: Sequence[str], tokenizer: PreTrainedTokenizerFast, length: int) -> torch.Tensor:
    """Documents joined by ``END`` and cut: (rows, length) int64; the incomplete last row is dropped."""
    end = tokenizer.convert_tokens_to_ids(END)
    stream = [token for ids in tokenizer(list(texts))["input_ids"] for token in [*ids, end]]
    count = len(stream) // length
    if count == 0:
        raise SystemExit(f"the texts make only {len(stream)} tokens; a row has {length}")
    return torch.tensor(stream[: count * length]).view(count, length)


def make_model(args: argparse.Namespace) -> LlamaForCausalLM:
    """A Llama with tied embeddings and heads of 64 dimensions where the width allows it."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=args.vocab_size,
            hidden_size=args.hidden,
            intermediate_size=args.hidden * 11 // 4,
            num_hidden_layers=args.layers,
            num_attention_heads=max(1, args.hidden // 64),
            max_position_embeddings=4 * args.row_length,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
        )
    )


def batches(rows: torch.Tensor, size: int) -> Iterator[torch.Tensor]:
    """Rows in order, ``size`` at a time, round and round: (size, length)."""
    start = 0
    while True:
        yield rows[(torch.arange(size) + start) % len(rows)]
        start += size


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over the first 5 % of the steps, then cosine to zero."""
    warm_up = max(1, round(WARM_UP * steps))
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def train(model: LlamaForCausalLM, rows: torch.Tensor, args: argparse.Namespace) -> float:
    """Train in place and return the last step's loss, in nats a token."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=args.peak_rate, betas=BETAS, weight_decay=WEIGHT_DECAY)
    model.train()
    loss = torch.tensor(math.nan)
    for step, batch in zip(range(args.steps), batches(rows, args.batch_rows), strict=False):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, args.steps, args.peak_rate)
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimiser.step()
        optimiser.zero_grad()
        if step % 50 == 0 or step + 1 == args.steps:
            print(f"step {step + 1} of {args.steps}: loss {loss.item():.3f} nats a token", file=sys.stderr)
    return loss.item()


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; see ``--help``."""
    parser = argparse.ArgumentParser(
        description="Train a tiny Llama and its tokenizer from JSONL files.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("files", nargs="+", help="globs of .jsonl or .jsonl.gz files")
    parser.add_argument("--out", required=True, help="directory to write")
    parser.add_argument("--text-field", default="text", help="field that holds the text")
    parser.add_argument("--steps", type=int, default=1000, help="optimiser steps")
    parser.add_argument("--batch-rows", type=int, default=16, help="rows a step")
    parser.add_argument("--row-length", type=int, default=256, help="tokens a row")
    parser.add_argument("--vocab-size", type=int, default=4096, help="tokens of the vocabulary, 257 at least")
    parser.add_argument("--hidden", type=int, default=256, help="width of the model")
    parser.add_argument("--layers", type=int, default=4, help="layers of the model")
    parser.add_argument("--peak-rate", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0, help="seed of the initial weights and of the shuffle")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> float:
    """Train, save model (bfloat16, safetensors) and tokenizer, and return the last loss."""
    args = parse(argv)
    torch.manual_seed(args.seed)
    texts = read_texts(args.files, args.text_field)
    random.Random(args.seed).shuffle(texts)
    tokenizer = train_tokenizer(texts, args.vocab_size)
    rows = make_rows(texts, tokenizer, args.row_length)
    model = make_model(args)
    print(f"{model.num_parameters():,} parameters, {rows.numel():,} tokens of text", file=sys.stderr)
    loss = train(model, rows, args)
    model.to(torch.bfloat16).save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    return loss


if __name__ == "__main__":
    main()
