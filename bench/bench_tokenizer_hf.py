#!/usr/bin/env python3
"""The outside peer of bench_tokenizer: Hugging Face tokenizers on the same files, one thread.

    bench_tokenizer_hf.py TOKENIZER.json TEXT
"""
import os
import statistics
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
from tokenizers import Tokenizer  # noqa: E402

RUNS = 5


def seconds(call):
    runs = []
    for _ in range(RUNS):
        start = time.perf_counter()
        result = call()
        runs.append(time.perf_counter() - start)
    return statistics.median(runs), result


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    text = open(sys.argv[2], encoding="utf-8", newline="").read()
    megabytes = len(text.encode()) / 1e6
    load_s, tokenizer = seconds(lambda: Tokenizer.from_file(sys.argv[1]))
    encode_s, encoding = seconds(lambda: tokenizer.encode(text, add_special_tokens=False))
    decode_s, _ = seconds(lambda: tokenizer.decode(encoding.ids, skip_special_tokens=False))
    print("what,value,unit")
    print(f"tokens,{len(encoding.ids)},")
    print(f"encode,{megabytes / encode_s:.2f},MB/s")
    print(f"decode,{megabytes / decode_s:.2f},MB/s")
    print(f"load,{load_s * 1e3:.1f},ms")


if __name__ == "__main__":
    main()
