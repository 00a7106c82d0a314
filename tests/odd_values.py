"""Values and bodies that nobody sends in earnest."""

from __future__ import annotations

from hypothesis import strategies as st

plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**31, 2**63, 10**400, -1, 0, 1, 16, 17]),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["nan", "inf", "-inf", "1e999", "x" * 9_000, "\0", "sea", "halton", "🌊"]),
    st.binary(max_size=8),
)
keys = st.one_of(
    st.text(max_size=5),
    st.sampled_from(["path", "url", "meta", "mask", "incoming", "run", "cells", "classes", "seed"]),
)
# Anything that a client can send.
junk = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=8,
)

# Bodies that are short to send and dear to parse.
DEAR = {
    "lists": b'{"data":[[' + b"[]," * 4_000_000 + b"0]]}",
    "dicts": b"[" + b"{}," * 3_000_000 + b"0]",
    "texts": b"[" + b'"",' * 3_000_000 + b'""]',
    "digits": b'{"a":' + b"9" * 5_000_000 + b"}",
    "few digits": b"[" + b"9" * 500 + b"]",
    "fraction": b"[0." + b"1" * 5_000_000 + b"]",
    "deep lists": b"[" * 1_000 + b"]" * 1_000,
    "deep dicts": b'{"a":' * 100 + b"1" + b"}" * 100,
    "escaped quotes": b'["' + b'\\"' * 5_000_000 + b'"]',
    "slashes": b'["' + b"\\\\" * 5_000_000 + b'"]',
    "escapes": b'["' + b"\\u0041" * 2_000_000 + b'"]',
    "spaces": b" " * 5_000_000 + b"1",
    "long text": b'["' + b"sea " * 500_000 + b'"]',
    "long key": b'{"' + b"sea " * 500_000 + b'": 1}',
    "long name of a photo": b'["data:image/' + b"x" * 500_000 + b" ;base64," + b'"]',
}
