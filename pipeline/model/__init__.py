"""The frozen model: loading, its tokenizer, its logit map."""
