"""The one decoding loop: a grid with masked cells is filled step by step; every step is yielded.

The loop takes any callable `logits_fn(tokens, labels) -> logits`; it never sees a model or a
tokenizer. Imports `config`, `schedules`, `orders`, `devices` and `networks`. One more order or
schedule is one entry in the table of `orders` or `schedules`.
"""
