#!/usr/bin/env python3
"""Golden-data oracle for the Gemma 3n TEXT model.

What it does
------------
1. Trains a ~1k-piece BPE tokenizer with the same file layout as the published Gemma tokenizer.
2. Draws a small random Gemma 3n text model ("e4b") and writes it in the published on-disk format:
   config.json (nested `text_config`), bf16 safetensors with the published tensor names, tokenizer files.
3. Slices it the way MatFormer does ("e2b", "mnm", "tail": dropped layers, per-layer FFN widths).  Every
   slice is a complete, independent checkpoint.
4. Runs HF transformers on each checkpoint in float32 and stores what it computed.
5. Checks itself: a second implementation of the forward pass (numpy, float64, written from the design
   document, sharing no code with transformers) must agree; a list of plausible mistakes applied to that
   implementation must NOT agree; perturbing any single checkpoint tensor must move the logits.

The weights are random: the text a model produces is meaningless on purpose.  Nothing here is downloaded.

Commands
--------
    text_oracle.py generate --preset a --seed 20250626 --out golden-text
    text_oracle.py verify   --dir golden-text              # re-run HF and numpy against the stored files
    text_oracle.py mutants  --dir golden-text              # how far each typical mistake moves the logits
    text_oracle.py perturb  --dir golden-text [--variant e4b]
    text_oracle.py slice    --src golden-text/e4b --skip 10,11,12,13,14 --ffn 64 --out some-dir [--shards 2]
    text_oracle.py facts                                   # layer maps / parameter counts of E2B and E4B

Needs: torch, transformers >= 5.23, safetensors, tokenizers, numpy.  CPU only, one thread, a few minutes.
"""
import argparse
import hashlib
import json
import math
import os
import re
import shutil
import sys
import tempfile
import zlib

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np

LM = "model.language_model."

# --------------------------------------------------------------------------------------------------
# Presets.  The small models keep every structural ratio of the real ones: blocks of 4 local + 1 global
# layer, the first half of the blocks owns K/V, the slice drops the first shared block, two FFN widths.
# --------------------------------------------------------------------------------------------------
PRESETS = {
    # the one recorded here
    "a": dict(
        hidden=64, heads=8, kv_heads=2, head_dim=16, layers=20, shared=10, ffn=128, ffn_small=64,
        ple=16, laurel=8, window=16, vocab_text=1024, vocab_extra=64, softcap=30.0,
        theta_global=1e6, theta_local=1e4, eps=1e-6,
        sparsity=[0.95] * 6, skip=[10, 11, 12, 13, 14], e2b_shards=2, e4b_shards=1, corpus="topics",
    ),
    # other dimensions, other constants, sharded
    "b": dict(
        hidden=96, heads=4, kv_heads=1, head_dim=32, layers=15, shared=10, ffn=160, ffn_small=64,
        ple=8, laurel=16, window=9, vocab_text=896, vocab_extra=32, softcap=24.0,
        theta_global=5e5, theta_local=8e3, eps=1e-5,
        sparsity=[0.95, 0.9, 0.95, 0.8, 0.97], skip=[5, 6, 7, 8, 9], e2b_shards=1, e4b_shards=3,
        corpus="licenses",
    ),
    # every matrix dimension a multiple of 64, for block-quantised kernels; about 6 M parameters, not stored
    "q": dict(
        hidden=128, heads=4, kv_heads=2, head_dim=64, layers=20, shared=10, ffn=256, ffn_small=128,
        ple=64, laurel=64, window=16, vocab_text=1024, vocab_extra=64, softcap=30.0,
        theta_global=1e6, theta_local=1e4, eps=1e-6,
        sparsity=[0.95] * 6, skip=[10, 11, 12, 13, 14], e2b_shards=1, e4b_shards=2, corpus="topics",
    ),
}

PROMPTS = {
    "p0": "<bos><start_of_turn>user\nName the rules that apply to an object.<end_of_turn>\n<start_of_turn>model\n",
    "p1": "<bos>The",
    "p2": "<bos>Assignment is defined by the form of the target.\n\n  1. a name is bound;\n\t2. an attribute "
          "is set \u2014 \u00e9t\u00e9, \u4e16\u754c, \U0001f600;\n\n\n    3. every item of the sequence is assigned, "
          "from left to right, to the corresponding target. Ids above the text vocabulary: ",
}
PROMPTS_B = {
    "p0": "<bos><start_of_turn>user\nYou may copy the work under the terms of this License."
          "<end_of_turn>\n<start_of_turn>model\n",
    "p1": "<bos>",
    "p2": "<bos>Each Contributor hereby grants to You a perpetual, worldwide license:\n\n\t(a) to use;\n\t(b) to "
          "sell \u2014 \u00fcber, \u65e5\u672c, \U0001f680;\n\n\n  (c) to modify the Work and such Derivative Works in "
          "Source or Object form. Ids above the text vocabulary: ",
}

SPECIAL_TEXT = {
    "pad": "<pad>", "eos": "<eos>", "bos": "<bos>", "unk": "<unk>", "sot": "<start_of_turn>",
    "eot": "<end_of_turn>", "boi": "<start_of_image>", "image": "<image_soft_token>",
    "eoi": "<end_of_image>", "boa": "<start_of_audio>", "audio": "<audio_soft_token>", "eoa": "<end_of_audio>",
}

# Functionally the published Gemma 3n chat template, re-written.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{%- set ns = namespace(prefix='') -%}"
    "{%- if messages[0]['role'] == 'system' -%}"
    "{%- set c = messages[0]['content'] -%}"
    "{%- set ns.prefix = (c if c is string else c[0]['text']) + '\\n\\n' -%}"
    "{%- set turns = messages[1:] -%}"
    "{%- else -%}{%- set turns = messages -%}{%- endif -%}"
    "{%- for m in turns -%}"
    "{%- if (m['role'] == 'user') != (loop.index0 is even) -%}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{%- endif -%}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\\n' }}"
    "{{ ns.prefix if loop.first else '' }}"
    "{%- if m['content'] is string -%}{{ m['content'] | trim }}"
    "{%- else -%}{%- for part in m['content'] -%}"
    "{%- if part['type'] == 'text' -%}{{ part['text'] | trim }}"
    "{%- elif part['type'] == 'image' -%}{{ '<image_soft_token>' }}"
    "{%- elif part['type'] == 'audio' -%}{{ '<audio_soft_token>' }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{{ '<end_of_turn>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}"
)


# --------------------------------------------------------------------------------------------------
# Tokenizer
# --------------------------------------------------------------------------------------------------
def corpus_text(kind):
    """English text that exists on any machine with Python / Debian."""
    if kind == "licenses":
        text = []
        for name in ("Apache-2.0", "GPL-3", "GPL-2", "MPL-2.0", "Artistic"):
            path = os.path.join("/usr/share/common-licenses", name)
            if os.path.exists(path):
                text.append(open(path, encoding="utf-8", errors="replace").read())
        if text:
            return "\n".join(text)
    import pydoc_data.topics as topics
    return "\n".join(topics.topics[k] for k in sorted(topics.topics))


def build_tokenizer(vocab_text, vocab_extra, kind, train_files=()):
    """Returns (tokenizer.json dict, id map of the special tokens).

    Same id layout as the published vocabulary: 0..5 control, 105/106 turn markers, 107..137 newline runs,
    138..167 space runs, 168..237 HTML tags, 238..493 byte pieces, then the learned pieces, then single
    characters, tab runs and multimodal markers at the end of the text vocabulary, and everything with an
    id >= vocab_text outside the per-layer table.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    if train_files:
        text = "\n".join(open(f, encoding="utf-8", errors="replace").read() for f in train_files)
    else:
        text = corpus_text(kind)
    tabs = 31
    fixed = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "[multimodal]"]
    fixed += ["<unused%d>" % i for i in range(99)]
    fixed += ["<start_of_turn>", "<end_of_turn>"]
    fixed += ["\n" * n for n in range(1, 32)] + ["\u2581" * n for n in range(2, 32)]
    html = "table caption thead tbody tfoot tr th td".split()
    html2 = "h1 h2 h3 h4 h5 h6 blockquote".split()
    html3 = "strong em b i u s sub sup code".split()
    fixed += ["<%s>" % t for t in html] + ["</%s>" % t for t in html]
    fixed += ["<%s>" % t for t in html2] + ["</%s>" % t for t in html2]
    fixed += ["<%s>" % t for t in html3] + ["</%s>" % t for t in html3]
    html4 = "a html body img span bbox ul li div iframe footer".split()
    html5 = "a html body img span bbox ul li div iframe footer".split()
    fixed += ["<%s>" % t for t in html4[:1]] + ["<%s>" % t for t in html4[1:]] + ["</%s>" % t for t in html5]
    assert len(fixed) == 238, len(fixed)
    n_added_low = len(fixed)
    fixed += ["<0x%02X>" % b for b in range(256)]

    tail = ["\t" * n for n in range(1, tabs + 1)] + ["<start_of_image>", "<start_of_audio>"]
    room = vocab_text - len(fixed) - len(tail)
    chars = sorted({c for c in text if 33 <= ord(c) < 127} | {"\u2581", "\u2014", "\u00e9", "\u4e16", "\u201c", "\u201d"})
    n_learn = room - len(chars)
    assert n_learn > 50, "vocabulary too small"

    tk = Tokenizer(models.BPE())
    tk.normalizer = normalizers.Replace(" ", "\u2581")
    tk.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split("\n", "removed"), pre_tokenizers.Split("\u2581", "merged_with_next"),
        pre_tokenizers.Digits(individual_digits=True),
    ])
    trainer = trainers.BpeTrainer(vocab_size=n_learn + 4000, initial_alphabet=chars, limit_alphabet=len(chars),
                                  show_progress=False, max_token_length=12)
    tk.train_from_iterator([text], trainer)
    learned, seen = [], set(fixed) | set(tail) | set(chars)
    model = json.loads(tk.to_str())["model"]
    for pair in model["merges"]:
        piece = "".join(pair) if isinstance(pair, list) else pair.replace(" ", "")
        if piece in seen or any(c not in set(chars) for c in piece):
            continue
        learned.append(piece)
        seen.add(piece)
        if len(learned) == n_learn:
            break
    assert len(learned) == n_learn
    pieces = fixed + learned + chars + tail
    assert len(pieces) == vocab_text == len(set(pieces))
    vocab = {p: i for i, p in enumerate(pieces)}

    # Merge list as in the published file: whitespace runs first, longest result first; then, for every learned
    # piece in rank order, every way to cut it into two pieces of the vocabulary (left part longest first).
    merges = []
    for n in range(31, 1, -1):
        for left in range(n - 1, 0, -1):
            for ch in ("\n", "\u2581", "\t"):
                merges.append([ch * left, ch * (n - left)])
    for piece in learned:
        for cut in range(len(piece) - 1, 0, -1):
            if piece[:cut] in vocab and piece[cut:] in vocab:
                merges.append([piece[:cut], piece[cut:]])

    half = vocab_extra // 2
    extra = ["<end_of_image>", "<image_soft_token>"] + ["<unused%d>" % (200 + i) for i in range(half - 2)]
    extra += ["<end_of_audio>", "<audio_soft_token>"] + ["<unused%d>" % (300 + i) for i in range(vocab_extra - half - 2)]

    control = set(SPECIAL_TEXT.values())
    added = []

    def add(i, s):
        added.append(dict(id=i, content=s, single_word=False, lstrip=False, rstrip=False, normalized=False,
                          special=s in control))

    for i in range(n_added_low):
        add(i, pieces[i])
    for i in range(vocab_text - len(tail), vocab_text):
        add(i, pieces[i])
    for i, s in enumerate(extra):
        add(vocab_text + i, s)
    ids = {s: i for i, s in enumerate(pieces + extra)}
    data = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
                          "invert": False},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                     {"SpecialToken": {"id": "<bos>", "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}},
        },
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": vocab, "merges": merges},
    }
    return data, {k: ids[s] for k, s in SPECIAL_TEXT.items()}


def write_tokenizer(out, data):
    with open(os.path.join(out, "tokenizer.json"), "w", encoding="utf-8") as f:
        json.dump(data, f, ensure_ascii=False, separators=(",", ":"))
    cfg = {
        "add_bos_token": True, "add_eos_token": False, "boa_token": "<start_of_audio>", "boi_token": "<start_of_image>",
        "bos_token": "<bos>", "clean_up_tokenization_spaces": False, "eoa_token": "<end_of_audio>",
        "audio_token": "<audio_soft_token>", "eoi_token": "<end_of_image>", "eos_token": "<eos>",
        "extra_special_tokens": {
            "audio_token": "<audio_soft_token>", "boa_token": "<start_of_audio>", "boi_token": "<start_of_image>",
            "eoa_token": "<end_of_audio>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"},
        "image_token": "<image_soft_token>", "model_max_length": 32768, "pad_token": "<pad>",
        "padding_side": "left", "processor_class": "Gemma3nProcessor", "spaces_between_special_tokens": False,
        "tokenizer_class": "GemmaTokenizer", "unk_token": "<unk>", "use_default_system_prompt": False,
    }
    json.dump(cfg, open(os.path.join(out, "tokenizer_config.json"), "w"), indent=2)
    open(os.path.join(out, "chat_template.jinja"), "w").write(CHAT_TEMPLATE)


# --------------------------------------------------------------------------------------------------
# Checkpoint
# --------------------------------------------------------------------------------------------------
def make_config(P, special, layer_types, ffn, sparsity, shared):
    n = len(ffn)
    half = P["vocab_extra"] // 2
    text = {
        "activation_sparsity_pattern": sparsity, "altup_active_idx": 0, "altup_coef_clip": 120.0,
        "altup_correct_scale": True, "altup_lr_multiplier": 1.0, "altup_num_inputs": 4, "attention_bias": False,
        "attention_dropout": 0.0, "final_logit_softcapping": P["softcap"], "head_dim": P["head_dim"],
        "hidden_activation": "gelu_pytorch_tanh", "hidden_size": P["hidden"],
        "hidden_size_per_layer_input": P["ple"], "initializer_range": 0.02, "intermediate_size": ffn,
        "laurel_rank": P["laurel"], "layer_types": layer_types, "max_position_embeddings": 2048,
        "model_type": "gemma3n_text", "num_attention_heads": P["heads"], "num_hidden_layers": n,
        "num_key_value_heads": P["kv_heads"], "num_kv_shared_layers": shared, "query_pre_attn_scalar": 256,
        "rms_norm_eps": P["eps"], "rope_local_base_freq": P["theta_local"], "rope_scaling": None,
        "rope_theta": P["theta_global"], "sliding_window": P["window"], "torch_dtype": "bfloat16",
        "use_cache": True, "vocab_size": P["vocab_text"] + P["vocab_extra"],
        "vocab_size_per_layer_input": P["vocab_text"],
    }
    return {
        "architectures": ["Gemma3nForConditionalGeneration"],
        "audio_config": {"model_type": "gemma3n_audio", "vocab_offset": P["vocab_text"] + half,
                         "vocab_size": P["vocab_extra"] - half},
        "audio_soft_tokens_per_image": 188, "audio_token_id": special["audio"], "boa_token_id": special["boa"],
        "boi_token_id": special["boi"], "eoa_token_id": special["eoa"], "eoi_token_id": special["eoi"],
        "eos_token_id": [special["eos"], special["eot"]], "image_token_id": special["image"],
        "initializer_range": 0.02, "model_type": "gemma3n", "text_config": text, "torch_dtype": "bfloat16",
        "vision_config": {"architecture": "mobilenetv5_300m_enc", "do_pooling": False,
                          "model_type": "gemma3n_vision", "vocab_offset": P["vocab_text"], "vocab_size": half},
        "vision_soft_tokens_per_image": 256,
    }


def tensor_shapes(t):
    """Published tensor names -> shapes for a text_config dict.  K/V tensors exist for EVERY layer."""
    H, P, L, r = t["hidden_size"], t["hidden_size_per_layer_input"], t["num_hidden_layers"], t["laurel_rank"]
    A, hd = t["altup_num_inputs"], t["head_dim"]
    q, kv = t["num_attention_heads"] * hd, t["num_key_value_heads"] * hd
    s = {
        LM + "embed_tokens.weight": (t["vocab_size"], H),
        LM + "embed_tokens_per_layer.weight": (t["vocab_size_per_layer_input"], L * P),
        LM + "per_layer_model_projection.weight": (L * P, H),
        LM + "per_layer_projection_norm.weight": (P,),
        LM + "norm.weight": (H,),
    }
    for i in range(A - 1):
        s[LM + "altup_projections.%d.weight" % i] = (H, H)
        s[LM + "altup_unembed_projections.%d.weight" % i] = (H, H)
    for i in range(L):
        b = LM + "layers.%d." % i
        F = t["intermediate_size"][i]
        s.update({
            b + "altup.correct_output_scale": (H,), b + "altup.correction_coefs.weight": (A, A),
            b + "altup.modality_router.weight": (A, H), b + "altup.prediction_coefs.weight": (A * A, A),
            b + "altup.router_norm.weight": (H,), b + "input_layernorm.weight": (H,),
            b + "laurel.linear_left.weight": (r, H), b + "laurel.linear_right.weight": (H, r),
            b + "laurel.post_laurel_norm.weight": (H,), b + "mlp.down_proj.weight": (H, F),
            b + "mlp.gate_proj.weight": (F, H), b + "mlp.up_proj.weight": (F, H),
            b + "per_layer_input_gate.weight": (P, H), b + "per_layer_projection.weight": (H, P),
            b + "post_attention_layernorm.weight": (H,), b + "post_feedforward_layernorm.weight": (H,),
            b + "post_per_layer_input_norm.weight": (H,), b + "pre_feedforward_layernorm.weight": (H,),
            b + "self_attn.k_norm.weight": (hd,), b + "self_attn.k_proj.weight": (kv, H),
            b + "self_attn.o_proj.weight": (H, q), b + "self_attn.q_norm.weight": (hd,),
            b + "self_attn.q_proj.weight": (q, H), b + "self_attn.v_proj.weight": (kv, H),
        })
    return s


def init_tensor(name, shape, seed):
    """Random values that keep activations near unit RMS and every mechanism active (see the design document)."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    n = rng.standard_normal(shape)
    fan_in = shape[-1]
    short = name[len(LM):]
    if short == "norm.weight":
        return 9.0 + 2.0 * n                                   # large, so that the final soft cap bites
    if short.endswith("embed_tokens.weight") or short.endswith("embed_tokens_per_layer.weight"):
        width = fan_in if short.endswith("embed_tokens.weight") else None
        return n / math.sqrt(width) if width else n * 0.25     # scaled lookup ends near unit RMS
    if "k_norm" in short or "q_norm" in short:
        return 0.75 + 0.2 * n
    if short.endswith("correct_output_scale"):
        return 0.9 + 0.4 * n
    if re.search(r"post_(attention|feedforward|laurel|per_layer_input)", short):
        return 0.33 * (1.0 + 0.4 * n)                          # what a branch adds; larger values make 20 layers chaotic
    if "norm" in short:
        return 0.75 + 0.3 * n
    if "modality_router" in short:
        return n * math.sqrt(fan_in) * 0.8                     # its input is divided by hidden_size
    if "prediction_coefs" in short:
        return n * 0.1
    if "correction_coefs" in short:
        return n * 0.25
    if "per_layer_input_gate" in short:
        return n * 1.2 / math.sqrt(fan_in)
    return n * 1.1 / math.sqrt(fan_in)


def to_bf16(a):
    import torch
    return torch.from_numpy(np.ascontiguousarray(a, dtype=np.float32)).to(torch.bfloat16)


def save_checkpoint(out, config, weights, tok, shards=1):
    from safetensors.torch import save_file
    os.makedirs(out, exist_ok=True)
    json.dump(config, open(os.path.join(out, "config.json"), "w"), indent=2)
    json.dump({"bos_token_id": 2, "cache_implementation": "hybrid", "do_sample": True,
               "eos_token_id": config["eos_token_id"], "pad_token_id": 0, "top_k": 64, "top_p": 0.95},
              open(os.path.join(out, "generation_config.json"), "w"), indent=2)
    if tok is not None:
        write_tokenizer(out, tok)
    names = sorted(weights)
    if shards == 1:
        save_file(weights, os.path.join(out, "model.safetensors"), metadata={"format": "pt"})
        return
    per = -(-len(names) // shards)
    index = {"metadata": {"total_size": sum(w.numel() * w.element_size() for w in weights.values())},
             "weight_map": {}}
    for s in range(shards):
        part = names[s * per:(s + 1) * per]
        fn = "model-%05d-of-%05d.safetensors" % (s + 1, shards)
        save_file({n: weights[n] for n in part}, os.path.join(out, fn), metadata={"format": "pt"})
        for n in part:
            index["weight_map"][n] = fn
    json.dump(index, open(os.path.join(out, "model.safetensors.index.json"), "w"), indent=1)


def load_weights(d):
    from safetensors.torch import load_file
    idx = os.path.join(d, "model.safetensors.index.json")
    files = sorted(set(json.load(open(idx))["weight_map"].values())) if os.path.exists(idx) else ["model.safetensors"]
    w = {}
    for f in files:
        w.update(load_file(os.path.join(d, f)))
    return w


def matformer_slice(config, weights, skip, ffn):
    """Returns (config, weights) of the sub-model.  `ffn` has one width per KEPT layer."""
    t = config["text_config"]
    L, P = t["num_hidden_layers"], t["hidden_size_per_layer_input"]
    keep = [i for i in range(L) if i not in skip]
    assert len(ffn) == len(keep)
    first_shared = L - t["num_kv_shared_layers"]
    assert all(i >= first_shared for i in skip), "only shared layers are dropped here"
    for i in keep:
        assert ffn[keep.index(i)] <= t["intermediate_size"][i]
    new = {}
    for name, w in weights.items():
        m = re.match(re.escape(LM) + r"layers\.(\d+)\.(.*)", name)
        if m:
            i, rest = int(m.group(1)), m.group(2)
            if i in skip:
                continue
            j = keep.index(i)
            if rest in ("mlp.gate_proj.weight", "mlp.up_proj.weight"):
                w = w[:ffn[j], :]
            elif rest == "mlp.down_proj.weight":
                w = w[:, :ffn[j]]
            name = LM + "layers.%d.%s" % (j, rest)
        elif name == LM + "per_layer_model_projection.weight":
            w = w.reshape(L, P, -1)[keep].reshape(len(keep) * P, -1)
        elif name == LM + "embed_tokens_per_layer.weight":
            w = w.reshape(w.shape[0], L, P)[:, keep].reshape(w.shape[0], -1)
        new[name] = w.contiguous().clone()
    c = json.loads(json.dumps(config))
    ct = c["text_config"]
    ct["num_hidden_layers"] = len(keep)
    ct["num_kv_shared_layers"] = t["num_kv_shared_layers"] - len(skip)
    ct["intermediate_size"] = list(ffn)
    ct["layer_types"] = [t["layer_types"][i] for i in keep]
    ct["activation_sparsity_pattern"] = [t["activation_sparsity_pattern"][i] for i in keep]
    return c, new


def slice_specs(P):
    """Sub-models of the small e4b.  Widths are listed per kept layer."""
    L, skip, big, small = P["layers"], P["skip"], P["ffn"], P["ffn_small"]
    first = L - P["shared"]
    mid = (big + small) // 2 // 16 * 16
    mnm = []
    for i in range(L):
        if (i + 1) % 5 == 0 or i in skip:
            mnm.append(big)                                   # global layers and the skippable block stay wide
        else:
            mnm.append(mid if i < first else small)
    n2 = L - len(skip)
    return {
        "e4b": dict(skip=[], ffn=[big] * L,
                    note="full model"),
        "e2b": dict(skip=skip, ffn=[small] * n2,
                    note="the official small model: first shared block dropped, small FFN everywhere"),
        "mnm": dict(skip=[], ffn=mnm,
                    note="mix-n-match: nothing dropped, wide FFN in global layers and in the skippable block"),
        "tail": dict(skip=skip, ffn=[big] * first + [small] * (n2 - first),
                     note="full-width producer layers, small tail: K/V cache bit-identical to e4b"),
    }


# --------------------------------------------------------------------------------------------------
# transformers side
# --------------------------------------------------------------------------------------------------
def torch_setup():
    import torch
    torch.set_num_threads(1)
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    return torch


def load_hf(d, dtype="float32", attn="eager"):
    import torch
    from transformers import Gemma3nConfig, Gemma3nForCausalLM
    cfg = Gemma3nConfig.from_pretrained(d).text_config
    model, info = Gemma3nForCausalLM.from_pretrained(
        d, config=cfg, dtype=getattr(torch, dtype), attn_implementation=attn, output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"], info
    assert not info["unexpected_keys"], info
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr(), "lm_head not tied"
    return model.eval()


class Capture:
    """Records intermediates of one no-cache forward pass."""

    def __init__(self, model, detail=()):
        self.m, self.detail, self.t, self.undo = model, set(detail), {}, []

    def __enter__(self):
        import transformers.models.gemma3n.modeling_gemma3n as mg
        base, t = self.m.model, self.t

        def keep(name, x):
            t[name] = x.detach().to("cpu").float()[0].contiguous().clone() if x.shape[0] == 1 else \
                x.detach().float()[:, 0].contiguous().clone()

        def hook(mod, fn):
            def f(m, i, o):
                fn(m, i, o)                                     # return None: the output stays as it is
            self.undo.append(mod.register_forward_hook(f).remove)

        def patch(obj, attr, fn):
            old = getattr(obj, attr)
            setattr(obj, attr, fn(old))
            self.undo.append(lambda: setattr(obj, attr, old))

        hook(base.embed_tokens, lambda m, i, o: keep("embeds", o))
        patch(base, "get_per_layer_inputs", lambda old: lambda *a, **k: self._tap(old(*a, **k), "ple_lookup"))
        patch(base, "project_per_layer_inputs", lambda old: lambda *a, **k: self._tap(old(*a, **k), "per_layer_inputs"))
        hook(base.norm, lambda m, i, o: (keep("final.pre_norm", i[0]), keep("final.hidden", o)))
        rope_calls = []
        patch(mg, "apply_rotary_pos_emb", lambda old: lambda *a, **k: self._rope(rope_calls, old(*a, **k)))
        for li, layer in enumerate(base.layers):
            n = "layer.%02d." % li
            hook(layer, lambda m, i, o, n=n: t.__setitem__(n + "streams", o.detach().float()[:, 0].contiguous().clone()))
            att = layer.self_attn

            def after_attn(m, i, o, n=n, li=li):
                if not m.is_kv_shared_layer:
                    q, k = rope_calls[-2], rope_calls[-1]
                    t[n + "k"] = k[0].contiguous().clone()
                else:
                    q = rope_calls[-1]
                if li in self.detail:
                    t[n + "q"] = q[0].contiguous().clone()
                    keep(n + "attn_out", o[0])
                rope_calls.clear()

            hook(att, after_attn)
            if not att.is_kv_shared_layer:
                hook(att.v_norm, lambda m, i, o, n=n: keep(n + "v", o))
            if li == 0:
                patch(layer.altup, "predict", lambda old: lambda x: (
                    t.__setitem__("altup_init", x.detach().float()[:, 0].clone()), old(x))[1])
            if li in self.detail:
                def pred(old, n=n):
                    def f(x):
                        o = old(x)
                        t[n + "predictions"] = o.detach().float()[:, 0].clone()
                        return o
                    return f

                def corr(old, n=n):
                    def f(p, a):
                        keep(n + "activated", a)
                        o = old(p, a)
                        t[n + "corrected"] = o.detach().float()[:, 0].clone()
                        return o
                    return f

                patch(layer.altup, "predict", pred)
                patch(layer.altup, "correct", corr)
                hook(layer.input_layernorm, lambda m, i, o, n=n: keep(n + "normed", o))
                hook(layer.laurel, lambda m, i, o, n=n: keep(n + "laurel", o))
                hook(layer.mlp, lambda m, i, o, n=n: (keep(n + "mlp_in", i[0]), keep(n + "mlp_out", o)))
                hook(layer.mlp.down_proj, lambda m, i, o, n=n: keep(n + "mlp_act", i[0]))
                hook(layer.post_per_layer_input_norm, lambda m, i, o, n=n: keep(n + "pli_out", o))
        return self

    def _tap(self, x, name):
        self.t[name] = x.detach().float()[0].contiguous().clone()
        return x

    @staticmethod
    def _rope(calls, x):
        calls.append(x.detach().float())
        return x

    def __exit__(self, *a):
        for u in reversed(self.undo):
            u()


def hf_logits(model, ids):
    import torch
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()


MIN_MARGIN = 0.01      # a greedy run ends before the first step whose two best logits are closer than this


def cut_greedy(ids, margin, *rest):
    n = next((i for i, m in enumerate(margin) if m < MIN_MARGIN), len(ids))
    return (ids[:n], margin[:n]) + tuple(r[:n] for r in rest)


def hf_greedy(model, ids, n):
    """Greedy continuation with the KV cache, ignoring stop tokens.  Returns ids, logits, top-2 margins."""
    import torch
    from transformers import DynamicCache
    cache = DynamicCache(config=model.config)
    out, rows, margin = [], [], []
    x = torch.tensor([ids])
    with torch.no_grad():
        for _ in range(n):
            lg = model(input_ids=x, past_key_values=cache, use_cache=True).logits[0, -1].float()
            top = torch.topk(lg, 2)
            out.append(int(top.indices[0]))
            rows.append(lg)
            margin.append(float(top.values[0] - top.values[1]))
            x = torch.tensor([[out[-1]]])
    out, margin, rows = cut_greedy(out, margin, torch.stack(rows))
    return out, rows, margin


def hf_switch(src, dst, ids, at, n):
    """Positions < at are processed by `src`, the rest (and n greedy tokens) by `dst`, on one K/V cache."""
    import torch
    from transformers import DynamicCache
    first = src.config.num_hidden_layers - src.config.num_kv_shared_layers
    assert first == dst.config.num_hidden_layers - dst.config.num_kv_shared_layers
    assert src.config.layer_types[:first] == dst.config.layer_types[:first]

    def handed_over():
        a, b = DynamicCache(config=src.config), DynamicCache(config=dst.config)
        src(input_ids=torch.tensor([ids[:at]]), past_key_values=a, use_cache=True)
        for i in range(first):
            b.layers[i] = a.layers[i]
        return b

    with torch.no_grad():
        cache = handed_over()
        lg = dst(input_ids=torch.tensor([ids[at:]]), past_key_values=cache, use_cache=True).logits[0].float()
        one, cache = [], handed_over()
        for tok in ids[at:]:
            one.append(dst(input_ids=torch.tensor([[tok]]), past_key_values=cache, use_cache=True).logits[0, -1].float())
        one = torch.stack(one)
        gap = float((one - lg).abs().max())
        out, margin, row = [], [], one[-1]
        for _ in range(n):
            top = torch.topk(row, 2)
            out.append(int(top.indices[0]))
            margin.append(float(top.values[0] - top.values[1]))
            row = dst(input_ids=torch.tensor([[out[-1]]]), past_key_values=cache, use_cache=True).logits[0, -1].float()
    out, margin = cut_greedy(out, margin)
    return lg, out, margin, gap


# --------------------------------------------------------------------------------------------------
# Independent implementation (numpy).  `mut` names deliberate mistakes.
# --------------------------------------------------------------------------------------------------
MUTANTS = {
    "norm-1-plus-w": "RMSNorm multiplies by (1 + weight) as Gemma 1-3 do",
    "attn-scale": "attention logits scaled by 1/sqrt(head_dim)",
    "attn-scale-qpas": "attention logits scaled by query_pre_attn_scalar ** -0.5",
    "std-unbiased": "gaussian top-k uses the n-1 standard deviation",
    "topk-hard": "gaussian top-k keeps the surviving values instead of subtracting the cutoff",
    "topk-none": "activation sparsity ignored",
    "topk-after-gelu": "gaussian top-k applied after GELU",
    "gelu-erf": "exact erf GELU instead of the tanh form",
    "kv-own": "shared layers project their own K/V from the decoy tensors",
    "kv-first": "shared layers read the first instead of the last producer of their type",
    "kv-wrong-type": "every shared layer reads the very last producer layer",
    "window-plus-1": "local layers see one position too many",
    "window-minus-1": "local layers see one position too few",
    "window-none": "local layers see everything",
    "theta-swap": "local and global RoPE bases exchanged",
    "rope-interleaved": "RoPE pairs (2i, 2i+1) instead of (i, i + d/2)",
    "no-v-norm": "value vectors not normalised",
    "rope-before-norm": "q/k norm applied after RoPE",
    "no-embed-scale": "word embedding not multiplied by sqrt(hidden)",
    "no-ple-scale": "per-layer embedding not multiplied by sqrt(ple dim)",
    "no-ple-half": "per-layer input sum not multiplied by 1/sqrt(2)",
    "ple-clamp-last": "ids outside the per-layer table mapped to its last row instead of row 0",
    "ple-to-all": "gated per-layer input also added to stream 0",
    "no-correct-scale": "correct_output_scale skipped",
    "correct-scale-in-place": "correct_output_scale applied to the stored stream 0",
    "pred-transposed": "prediction coefficient matrix transposed",
    "no-plus-one": "correction coefficients without + 1",
    "router-no-scale": "router input not divided by hidden_size",
    "laurel-no-residual": "LAuReL without its own residual",
    "laurel-from-raw": "LAuReL fed with the un-normalised stream",
    "no-sqrt2": "attention/LAuReL sum not divided by sqrt(2)",
    "no-mag": "AltUp initial streams not rescaled to stream 0's magnitude",
    "no-unembed-mag": "AltUp output streams not rescaled",
    "mean3": "final merge averages without stream 0",
    "no-softcap": "final soft cap skipped",
    "stats-full-width": "sliced FFN keeps the wide model's mean/std (only differs in slices)",
}


def gelu(x, erf=False):
    if erf:
        from math import erf as e
        return 0.5 * x * (1.0 + np.vectorize(e)(x / math.sqrt(2.0)))
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x ** 3)))


def norm_ppf(p):
    """Inverse normal CDF by bisection on erf: slow, dependency free."""
    lo, hi = -10.0, 10.0
    for _ in range(200):
        mid = 0.5 * (lo + hi)
        if 0.5 * (1.0 + math.erf(mid / math.sqrt(2.0))) < p:
            lo = mid
        else:
            hi = mid
    return 0.5 * (lo + hi)


class Spec:
    """The text model as the design document states it."""

    def __init__(self, d=None, config=None, weights=None, mut=(), wide=None, dtype=np.float64):
        self.c = (config or json.load(open(os.path.join(d, "config.json"))))["text_config"]
        w = weights or load_weights(d)
        self.w = {k[len(LM):]: v.float().numpy().astype(dtype) for k, v in w.items() if k.startswith(LM)}
        self.mut, self.wide, self.dt = set(mut), wide, dtype
        assert self.mut <= set(MUTANTS), self.mut - set(MUTANTS)

    def norm(self, x, w=None):
        y = x / np.sqrt((x * x).mean(-1, keepdims=True) + self.c["rms_norm_eps"])
        if w is None:
            return y
        w = self.w[w]
        return y * ((1.0 + w) if "norm-1-plus-w" in self.mut else w)

    def lin(self, x, name):
        return x @ self.w[name].T

    def rope(self, x, pos, theta):                              # x [T, heads, d]
        d = x.shape[-1]
        inv = theta ** (-np.arange(0, d, 2) / d)
        a = pos[:, None] * inv[None]
        cos, sin = np.cos(a)[:, None], np.sin(a)[:, None]
        if "rope-interleaved" in self.mut:
            e, o = x[..., 0::2], x[..., 1::2]
            y = np.empty_like(x)
            y[..., 0::2], y[..., 1::2] = e * cos - o * sin, o * cos + e * sin
            return y
        u, v = x[..., :d // 2], x[..., d // 2:]
        return np.concatenate([u * cos - v * sin, v * cos + u * sin], -1)

    def producers(self):
        L = self.c["num_hidden_layers"]
        first = L - self.c["num_kv_shared_layers"]
        types = self.c["layer_types"][:L]
        src = {}
        for i in range(L):
            if i < first:
                src[i] = i
            else:
                same = [j for j in range(first) if types[j] == types[i]]
                src[i] = same[0] if "kv-first" in self.mut else same[-1]
                if "kv-wrong-type" in self.mut:
                    src[i] = first - 1
        return src, first

    def gate_stats(self, li, x, g):
        if "stats-full-width" in self.mut and self.wide is not None:
            g = x @ self.wide[li].T
        n = g.shape[-1]
        mean = g.mean(-1, keepdims=True)
        var = ((g - mean) ** 2).sum(-1, keepdims=True) / (n - 1 if "std-unbiased" in self.mut else n)
        return mean + np.sqrt(var) * norm_ppf(self.c["activation_sparsity_pattern"][li])

    def mlp(self, li, x):
        b, m = "layers.%d.mlp." % li, self.mut
        g = self.lin(x, b + "gate_proj.weight")
        act = None
        if self.c["activation_sparsity_pattern"][li] > 0 and "topk-none" not in m:
            if "topk-after-gelu" in m:
                a = gelu(g)
                act = np.maximum(a - self.gate_stats(li, x, a), 0)
            else:
                cut = self.gate_stats(li, x, g)
                g = np.where(g > cut, g, 0.0) if "topk-hard" in m else np.maximum(g - cut, 0.0)
        if act is None:
            act = gelu(g, "gelu-erf" in m)
        h = act * self.lin(x, b + "up_proj.weight")
        return self.lin(h, b + "down_proj.weight"), h

    def router(self, li, x):
        b = "layers.%d.altup." % li
        r = self.norm(x, b + "router_norm.weight")
        if "router-no-scale" not in self.mut:
            r = r / self.c["hidden_size"]
        return np.tanh(self.lin(r, b + "modality_router.weight"))

    def forward(self, ids, kv=None, pos0=0, tap=None):
        """Logits for `ids` at positions pos0...  `kv` (dict layer -> [k, v]) is extended in place."""
        c, m, w = self.c, self.mut, self.w
        kv = {} if kv is None else kv
        put = (lambda k, v: tap.__setitem__(k, np.array(v))) if tap is not None else (lambda k, v: None)
        ids = np.asarray(ids)
        H, L, P, A = c["hidden_size"], c["num_hidden_layers"], c["hidden_size_per_layer_input"], c["altup_num_inputs"]
        T, pos = len(ids), np.arange(pos0, pos0 + len(ids)).astype(self.dt)
        nh, nkv, hd = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        src, first = self.producers()

        e = w["embed_tokens.weight"][ids] * (1.0 if "no-embed-scale" in m else math.sqrt(H))
        put("embeds", e)
        vp = c["vocab_size_per_layer_input"]
        row = np.where(ids < vp, ids, vp - 1 if "ple-clamp-last" in m else 0)
        look = w["embed_tokens_per_layer.weight"][row].reshape(T, L, P)
        look = look * (1.0 if "no-ple-scale" in m else math.sqrt(P))
        put("ple_lookup", look)
        proj = self.lin(e, "per_layer_model_projection.weight") * H ** -0.5
        proj = self.norm(proj.reshape(T, L, P), "per_layer_projection_norm.weight")
        ple = (proj + look) * (1.0 if "no-ple-half" in m else 2 ** -0.5)
        put("per_layer_inputs", ple)

        mag = np.sqrt((e * e).mean(-1, keepdims=True))
        streams = [e]
        for j in range(A - 1):
            s = self.lin(e, "altup_projections.%d.weight" % j)
            if "no-mag" not in m:
                s = s * mag / np.sqrt(np.maximum((s * s).mean(-1, keepdims=True), 1e-5))
            streams.append(s)
        S = np.stack(streams)                                   # [A, T, H]
        put("altup_init", S)

        theta = {"full_attention": c["rope_theta"], "sliding_attention": c["rope_local_base_freq"]}
        if "theta-swap" in m:
            theta = {"full_attention": theta["sliding_attention"], "sliding_attention": theta["full_attention"]}
        scale = hd ** -0.5 if "attn-scale" in m else c["query_pre_attn_scalar"] ** -0.5 if "attn-scale-qpas" in m else 1.0

        for li in range(L):
            b = "layers.%d." % li
            local = c["layer_types"][li] == "sliding_attention"
            n = "layer.%02d." % li
            # AltUp predict
            r = self.router(li, S[c["altup_active_idx"]])
            C = self.lin(r, b + "altup.prediction_coefs.weight").reshape(T, A, A)   # C[t, k, j]: from j into k
            if "pred-transposed" in m:
                C = C.transpose(0, 2, 1)
            pred = S + np.einsum("tkj,jth->kth", C, S)
            put(n + "predictions", pred)
            act = pred[c["altup_active_idx"]]
            x = self.norm(act, b + "input_layernorm.weight")
            put(n + "normed", x)
            # LAuReL
            lx = act if "laurel-from-raw" in m else x
            lau = self.lin(self.lin(lx, b + "laurel.linear_left.weight"), b + "laurel.linear_right.weight")
            lau = self.norm(lau, b + "laurel.post_laurel_norm.weight") + (0 if "laurel-no-residual" in m else lx)
            put(n + "laurel", lau)
            # attention
            th = theta[c["layer_types"][li]]

            def qk(kind, heads):
                y = self.lin(x, b + "self_attn.%s_proj.weight" % kind).reshape(T, heads, hd)
                if "rope-before-norm" in m:
                    return self.norm(self.rope(y, pos, th), b + "self_attn.%s_norm.weight" % kind)
                return self.rope(self.norm(y, b + "self_attn.%s_norm.weight" % kind), pos, th)

            q = qk("q", nh)
            put(n + "q", q)
            own = li < first or "kv-own" in m
            if own:
                k = qk("k", nkv)
                v = self.lin(x, b + "self_attn.v_proj.weight").reshape(T, nkv, hd)
                v = v if "no-v-norm" in m else self.norm(v)
                if li in kv:
                    kv[li] = [np.concatenate([kv[li][0], k]), np.concatenate([kv[li][1], v])]
                else:
                    kv[li] = [k, v]
                if li < first:
                    put(n + "k", k)
                    put(n + "v", v)
            K, V = kv[li if own else src[li]]
            g = nh // nkv
            sc = np.einsum("thd,shd->hts", q, np.repeat(K, g, 1)) * scale
            kp = np.arange(K.shape[0])
            ok = kp[None] <= pos[:, None]
            if local and "window-none" not in m:
                win = c["sliding_window"] + ("window-plus-1" in m) - ("window-minus-1" in m)
                ok &= kp[None] > pos[:, None] - win
            sc = np.where(ok[None], sc, -np.inf)
            sc = np.exp(sc - sc.max(-1, keepdims=True))
            sc /= sc.sum(-1, keepdims=True)
            o = np.einsum("hts,shd->thd", sc, np.repeat(V, g, 1)).reshape(T, nh * hd)
            o = self.lin(o, b + "self_attn.o_proj.weight")
            put(n + "attn_out", o)
            o = self.norm(o, b + "post_attention_layernorm.weight")
            y = (act + o + lau) / (1.0 if "no-sqrt2" in m else math.sqrt(2.0))
            # FFN
            fin = self.norm(y, b + "pre_feedforward_layernorm.weight")
            put(n + "mlp_in", fin)
            f, h = self.mlp(li, fin)
            put(n + "mlp_act", h)
            put(n + "mlp_out", f)
            y = y + self.norm(f, b + "post_feedforward_layernorm.weight")
            put(n + "activated", y)
            # AltUp correct
            r = self.router(li, y)
            cc = self.lin(r, b + "altup.correction_coefs.weight") + (0.0 if "no-plus-one" in m else 1.0)   # [T, A]
            S = pred + (y - act)[None] * cc.T[:, :, None]
            put(n + "corrected", S)
            # per-layer input
            u = S[c["altup_active_idx"]]
            if c["altup_correct_scale"] and "no-correct-scale" not in m:
                u = u * w[b + "altup.correct_output_scale"]
                if "correct-scale-in-place" in m:
                    S = np.concatenate([u[None], S[1:]])
            u = gelu(self.lin(u, b + "per_layer_input_gate.weight"), "gelu-erf" in m) * ple[:, li]
            u = self.norm(self.lin(u, b + "per_layer_projection.weight"), b + "post_per_layer_input_norm.weight")
            put(n + "pli_out", u)
            S = S + u[None] if "ple-to-all" in m else np.concatenate([S[:1], S[1:] + u[None]])
            put(n + "streams", S)

        mag = np.sqrt((S[0] ** 2).mean(-1, keepdims=True))
        outs = [S[0]]
        for j in range(A - 1):
            s = self.lin(S[j + 1], "altup_unembed_projections.%d.weight" % j)
            if "no-unembed-mag" not in m:
                s = s * mag / np.sqrt(np.maximum((s * s).mean(-1, keepdims=True), 1e-5))
            outs.append(s)
        x = np.mean(outs[1:] if "mean3" in m else outs, axis=0)
        put("final.pre_norm", x)
        x = self.norm(x, "norm.weight")
        put("final.hidden", x)
        lg = x @ w["embed_tokens.weight"].T
        cap = c["final_logit_softcapping"]
        return lg if "no-softcap" in m else np.tanh(lg / cap) * cap


# --------------------------------------------------------------------------------------------------
# generate
# --------------------------------------------------------------------------------------------------
def sha(path):
    return hashlib.sha256(open(path, "rb").read()).hexdigest()


def prompt_ids(tok, P, preset):
    ids = {}
    for k, s in (PROMPTS_B if preset == "b" else PROMPTS).items():
        ids[k] = tok.encode(s, add_special_tokens=False).ids
    V = P["vocab_text"]
    # ids outside the per-layer table, in the text-only reading (their embed_tokens rows are used)
    ids["p2"] = ids["p2"] + [V, V + 1, V - 1, V + P["vocab_extra"] - 1, 5, V + P["vocab_extra"] // 2]
    return ids


def generate(a):
    torch = torch_setup()
    from safetensors.torch import save_file
    from tokenizers import Tokenizer
    P = dict(PRESETS[a.preset])
    out = a.out
    os.makedirs(out, exist_ok=True)
    tok_data, special = build_tokenizer(P["vocab_text"], P["vocab_extra"], P["corpus"], a.train_text or ())
    tok = Tokenizer.from_str(json.dumps(tok_data))
    types = ["full_attention" if (i + 1) % 5 == 0 else "sliding_attention" for i in range(P["layers"])]
    sparsity = P["sparsity"] + [0.0] * (P["layers"] - len(P["sparsity"]))
    cfg = make_config(P, special, types, [P["ffn"]] * P["layers"], sparsity, P["shared"])
    weights = {n: to_bf16(init_tensor(n, s, a.seed)) for n, s in tensor_shapes(cfg["text_config"]).items()}
    nparam = sum(w.numel() for w in weights.values())
    specs = slice_specs(P)
    ids = prompt_ids(tok, P, a.preset)
    detail = {"e4b": [0, 4, 10, 14]}
    manifest = {"format": 1, "preset": a.preset, "seed": a.seed, "parameters_e4b": nparam,
                "special_ids": special, "slices": specs, "prompts": ids, "switch": {}, "stats": {}, "files": {}}
    import transformers
    manifest["made_with"] = {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0],
                             "numpy": np.__version__}
    gdir = os.path.join(out, "golden")
    shutil.rmtree(gdir, ignore_errors=True)
    os.makedirs(gdir)
    models, tmp = {}, tempfile.mkdtemp()
    for var, sp in specs.items():
        c, w = matformer_slice(cfg, weights, sp["skip"], sp["ffn"])
        stored = var in ("e4b", "e2b") or a.write_slices
        d = os.path.join(out if stored else tmp, var)
        shutil.rmtree(d, ignore_errors=True)
        save_checkpoint(d, c, w, tok_data, P["e4b_shards"] if var == "e4b" else P["e2b_shards"] if var == "e2b" else 1)
        models[var] = load_hf(d)
        st = manifest["stats"][var] = {"parameters": sum(x.numel() for x in w.values()), "prompts": {}}
        spec = Spec(config=c, weights=w)
        for pn, pi in ids.items():
            full = pn == "p0"
            with Capture(models[var], detail.get(var, ()) if full else ()) as cap:
                lg = hf_logits(models[var], pi)
            again = hf_logits(models[var], pi)
            assert torch.equal(lg, again), "not deterministic"
            gi, gl, gm = hf_greedy(models[var], pi, a.greedy)
            t = {"input_ids": torch.tensor(pi, dtype=torch.int32), "greedy_ids": torch.tensor(gi, dtype=torch.int32),
                 "greedy_margin": torch.tensor(gm)}
            whole = hf_logits(models[var], pi + gi[:-1])[len(pi) - 1:]
            stepwise = float((whole - gl).abs().max())
            keep = 12
            t["logits"] = lg if full else lg[-keep:]
            t["logits_from"] = torch.tensor([0 if full else max(0, len(pi) - keep)], dtype=torch.int32)
            if full and var == "e4b":
                t["greedy_logits"] = gl
            first = c["text_config"]["num_hidden_layers"] - c["text_config"]["num_kv_shared_layers"]
            if full:
                for k, v in cap.t.items():
                    if var == "e4b" or k in ("embeds", "per_layer_inputs", "final.pre_norm", "final.hidden") or \
                       (var == "e2b" and re.search(r"layer\.\d[49]\.streams$|\.[kv]$", k)) or \
                       re.match(r"layer\.(%02d|%02d)\.[kv]$" % (first - 2, first - 1), k):
                        t[k] = v
            # independent check
            tap = {}
            ref = spec.forward(pi, tap=tap)
            err = np.abs(ref - lg.numpy()).max()
            worst = max(((np.abs(tap[k] - v.numpy()).max() / (np.sqrt((tap[k] ** 2).mean()) + 1e-30)), k)
                        for k, v in cap.t.items())
            st["prompts"][pn] = {
                "tokens": len(pi), "max_abs_logit": float(lg.abs().max()), "rms_logit": float(lg.pow(2).mean().sqrt()),
                "hf_f32_vs_numpy_f64_logits": float(err), "worst_intermediate_rel": [float(worst[0]), worst[1]],
                "decode_with_cache_vs_full_pass": stepwise, "greedy_min_margin": min(gm), "greedy_tokens": len(gi), "greedy_distinct": len(set(gi)),
                "greedy_text": tok.decode(gi, skip_special_tokens=False),
            }
            assert err < 1.5e-3 and stepwise < 1.5e-3, (var, pn, err, stepwise)
            if full:
                rms = [float(cap.t["layer.%02d.streams" % i].pow(2).mean().sqrt())
                       for i in range(c["text_config"]["num_hidden_layers"])]
                st["stream_rms"] = [round(x, 3) for x in rms]
            fn = os.path.join(gdir, "%s.%s.safetensors" % (var, pn))
            save_file({k: v.contiguous() for k, v in t.items()}, fn)
        bf = load_hf(d, "bfloat16")
        dlt = (hf_logits(bf, ids["p0"]) - hf_logits(models[var], ids["p0"])).abs()
        st["hf_bf16_vs_f32_logits"] = {"max": float(dlt.max()), "mean": float(dlt.mean())}
        sd = load_hf(d, attn="sdpa")
        st["hf_sdpa_vs_eager_logits"] = float((hf_logits(sd, ids["p2"]) - hf_logits(models[var], ids["p2"])).abs().max())
    # mid-sequence switches on one cache
    pi = ids["p2"]
    for s, d_, at in (("e2b", "e4b", 21), ("e4b", "e2b", 21), ("e4b", "tail", 33), ("tail", "e4b", 33), ("mnm", "e2b", 40)):
        lg, gi, gm, gap = hf_switch(models[s], models[d_], pi, at, a.greedy)
        name = "switch.%s-%s" % (s, d_)
        save_file({"input_ids": torch.tensor(pi, dtype=torch.int32), "switch_at": torch.tensor([at], dtype=torch.int32),
                   "logits": lg[-12:].contiguous(),
                   "logits_from": torch.tensor([len(pi) - 12], dtype=torch.int32),
                   "greedy_ids": torch.tensor(gi, dtype=torch.int32),
                   "greedy_margin": torch.tensor(gm)}, os.path.join(gdir, name + ".safetensors"))
        A = Spec(config=matformer_slice(cfg, weights, **{k: specs[s][k] for k in ("skip", "ffn")})[0],
                 weights=matformer_slice(cfg, weights, specs[s]["skip"], specs[s]["ffn"])[1])
        cb, wb = matformer_slice(cfg, weights, specs[d_]["skip"], specs[d_]["ffn"])
        kv = {}
        A.forward(pi[:at], kv=kv)
        ref = Spec(config=cb, weights=wb).forward(pi[at:], kv=kv, pos0=at)
        pure = hf_logits(models[d_], pi)[at:]
        manifest["switch"][name] = {
            "at": at, "chunk_vs_stepwise": gap, "hf_vs_numpy": float(np.abs(ref - lg.numpy()).max()),
            "distance_to_pure_target": float((lg - pure).abs().max()), "greedy_tokens": len(gi),
            "greedy_min_margin": min(gm)}
        assert manifest["switch"][name]["hf_vs_numpy"] < 1.5e-3
    shutil.rmtree(tmp)
    # K/V identity of e4b and tail on disk
    from safetensors.torch import load_file
    e, tl = load_file(os.path.join(gdir, "e4b.p0.safetensors")), load_file(os.path.join(gdir, "tail.p0.safetensors"))
    same = [k for k in tl if re.match(r"layer\.\d+\.[kv]$", k)]
    manifest["tail_kv_bit_identical_to_e4b"] = bool(same) and all(torch.equal(e[k], tl[k]) for k in same)
    assert manifest["tail_kv_bit_identical_to_e4b"]
    manifest["suggested_tolerance_f32"] = {
        "logits_abs": 3e-3, "intermediate": "abs error <= 1e-3 * rms(tensor) (float32, any summation order)",
        "greedy": "ids must match exactly (see greedy_min_margin)"}
    for root, _, fs in sorted(os.walk(out)):
        for f in sorted(fs):
            p = os.path.join(root, f)
            r = os.path.relpath(p, out)
            if r not in ("manifest.json", "README.md"):
                manifest["files"][r] = {"bytes": os.path.getsize(p), "sha256": sha(p)}
    manifest["total_bytes"] = sum(v["bytes"] for v in manifest["files"].values())
    json.dump(manifest, open(os.path.join(out, "manifest.json"), "w"), indent=1, ensure_ascii=False)
    write_readme(out, manifest)
    print(json.dumps({k: manifest[k] for k in ("parameters_e4b", "stats", "switch", "total_bytes")}, indent=1))


def write_readme(out, man):
    n = man["stats"]
    lines = [
        "# Golden data: Gemma 3n text model, random weights",
        "",
        "Made by `text_oracle.py generate --preset %s --seed %d`. Checkpoints are bf16, the recorded run is float32"
        % (man["preset"], man["seed"]),
        "(bf16 weights widened, HF transformers %s, eager attention)." % man["made_with"]["transformers"],
        "",
        "| path | what |", "| --- | --- |",
        "| `e4b/` | full model, %d parameters, published on-disk format |" % n["e4b"]["parameters"],
        "| `e2b/` | the same model after the official slice, %d parameters |" % n["e2b"]["parameters"],
        "| `manifest.json` | prompts (ids), slice specs of `e2b`, `mnm`, `tail`, checks, file hashes |",
        "| `golden/VARIANT.PROMPT.safetensors` | one run |",
        "| `golden/switch.SRC-DST.safetensors` | positions < `switch_at` by SRC, the rest by DST, one K/V cache |",
        "",
        "`mnm` and `tail` have no checkpoint directory: cut them from `e4b/` with the spec in the manifest",
        "(or `text_oracle.py slice`). K/V tensors of shared layers in the checkpoints are random decoys: a correct",
        "engine never reads them.",
        "",
        "Tensors (T positions, no batch dimension): `input_ids`, `embeds` [T,H], `ple_lookup` [T,L,P] (scaled table rows),",
        "`per_layer_inputs` [T,L,P], `altup_init` [4,T,H], `layer.NN.streams` [4,T,H] after layer NN (e2b: every 5th), `layer.NN.k` / `.v`",
        "[T,kv,d] (after norm and RoPE; only layers that own K/V), `final.pre_norm`, `final.hidden` [T,H], `logits` [T',V]",
        "after the soft cap, first row = position `logits_from`, `greedy_ids` (stop tokens ignored; cut before a near-tie), `greedy_margin` (top-1 minus",
        "top-2 logit at each step), `greedy_logits`.",
        "For layers 0, 4, 10, 14 of `e4b.p0` also: `predictions` [4,T,H], `normed`, `laurel`, `q` [T,heads,d], `attn_out`",
        "(after o_proj, before its norm), `mlp_in`, `mlp_act` (gate activation times up), `mlp_out`, `activated`,",
        "`corrected` [4,T,H] (before the per-layer input), `pli_out`.",
        "",
        "Tolerance for a float32 engine: logits within 3e-3 (they span about +-27), intermediates",
        "within 1e-3 of the tensor's RMS, greedy ids equal.",
        "Prompt `p2` holds ids beyond the per-layer table (text-only reading: their `embed_tokens` rows, per-layer row 0).",
        "",
    ]
    open(os.path.join(out, "README.md"), "w").write("\n".join(lines))


def variant_checkpoint(d, var):
    """(config, weights) of a variant of a golden directory, cut from e4b when it is not stored."""
    man = json.load(open(os.path.join(d, "manifest.json")))
    cfg = json.load(open(os.path.join(d, "e4b", "config.json")))
    w = load_weights(os.path.join(d, "e4b"))
    sp = man["slices"][var]
    return man, *matformer_slice(cfg, w, sp["skip"], sp["ffn"])


def verify(a):
    torch = torch_setup()
    from safetensors.torch import load_file
    man = json.load(open(os.path.join(a.dir, "manifest.json")))
    bad = 0
    for r, v in man["files"].items():
        if sha(os.path.join(a.dir, r)) != v["sha256"]:
            print("hash differs:", r)
            bad += 1
    models, specs = {}, {}
    for var in man["slices"]:
        _, c, w = variant_checkpoint(a.dir, var)
        if var == "e2b":
            disk = load_weights(os.path.join(a.dir, "e2b"))
            assert disk.keys() == w.keys() and all(torch.equal(disk[k], w[k]) for k in w), "stored e2b is not the slice"
        with tempfile.TemporaryDirectory() as tmp:
            save_checkpoint(tmp, c, w, None)
            model = models[var] = load_hf(tmp)
        spec = specs[var] = Spec(config=c, weights=w)
        for pn, pi in man["prompts"].items():
            g = load_file(os.path.join(a.dir, "golden", "%s.%s.safetensors" % (var, pn)))
            lg = hf_logits(model, pi)
            lo = int(g["logits_from"][0])
            d1 = float((lg[lo:] - g["logits"]).abs().max())
            d2 = float(np.abs(spec.forward(pi)[lo:] - g["logits"].numpy()).max())
            gi = hf_greedy(model, pi, len(g["greedy_ids"]))[0]
            ok = d1 < 1e-4 and d2 < 1.5e-3 and gi == g["greedy_ids"].tolist()
            bad += not ok
            print("%-5s %s  hf-again %.1e  numpy %.1e  greedy %s" % (var, pn, d1, d2, "ok" if gi == g["greedy_ids"].tolist() else "DIFFERS"))
    for name in man["switch"]:
        src, dst = name.split(".")[1].split("-")
        g = load_file(os.path.join(a.dir, "golden", name + ".safetensors"))
        ids, at, lo = g["input_ids"].tolist(), int(g["switch_at"][0]), int(g["logits_from"][0])
        lg, gi, _, _ = hf_switch(models[src], models[dst], ids, at, len(g["greedy_ids"]))
        kv = {}
        specs[src].forward(ids[:at], kv=kv)
        ref = specs[dst].forward(ids[at:], kv=kv, pos0=at)
        d1 = float((lg[lo - at:] - g["logits"]).abs().max())
        d2 = float(np.abs(ref[lo - at:] - g["logits"].numpy()).max())
        ok = d1 < 1e-4 and d2 < 1.5e-3 and gi == g["greedy_ids"].tolist()
        bad += not ok
        print("%-15s  hf-again %.1e  numpy %.1e  greedy %s" % (name, d1, d2, "ok" if gi == g["greedy_ids"].tolist() else "DIFFERS"))
    print("FAILED" if bad else "all good")
    return bad


def mutants(a):
    torch_setup()
    from safetensors.torch import load_file
    rows, wide = {}, None
    for var in ("e4b", "e2b"):
        man, c, w = variant_checkpoint(a.dir, var)
        g = {p: load_file(os.path.join(a.dir, "golden", "%s.%s.safetensors" % (var, p))) for p in ("p0", "p2")}
        keep = [i for i in range(man["slices"]["e4b"]["ffn"].__len__()) if i not in man["slices"][var]["skip"]]
        w4 = load_weights(os.path.join(a.dir, "e4b"))
        wide = {j: w4[LM + "layers.%d.mlp.gate_proj.weight" % i].float().numpy().astype(np.float64) for j, i in enumerate(keep)}
        for name in [None] + list(MUTANTS):
            s = Spec(config=c, weights=w, mut=[name] if name else [], wide=wide)
            worst = 0.0
            for p, t in g.items():
                lo = int(t["logits_from"][0])
                worst = max(worst, float(np.abs(s.forward(man["prompts"][p])[lo:] - t["logits"].numpy()).max()))
            rows.setdefault(name or "(none)", {})[var] = worst
    for name, r in rows.items():
        print("%-24s e4b %9.2e  e2b %9.2e  %s" % (name, r["e4b"], r["e2b"], MUTANTS.get(name, "")))
    return rows


def perturb(a):
    torch = torch_setup()
    man, c, w = variant_checkpoint(a.dir, a.variant)
    with tempfile.TemporaryDirectory() as tmp:
        save_checkpoint(tmp, c, w, None)
        model = load_hf(tmp)
    prompts = [man["prompts"]["p0"], man["prompts"]["p2"]]
    base = [hf_logits(model, p) for p in prompts]
    params = dict(model.named_parameters())
    res, dead = [], []
    gen = torch.Generator().manual_seed(1)
    for name in sorted(w):
        short = "model." + name[len(LM):]
        if short not in params:
            dead.append(name)                                  # transformers never loads it
            continue
        p = params[short]
        old = p.data.clone()
        p.data += 0.02 * old.std() * torch.randn(old.shape, generator=gen)
        res.append((max(float((hf_logits(model, q) - b).abs().max()) for q, b in zip(prompts, base)), name))
        p.data.copy_(old)
    res.sort()
    print("tensors:", len(w), " perturbed:", len(res), " never read by the model (decoys):", len(dead))
    print("smallest effects of a 2%-of-std perturbation on the logits:")
    for v, n in res[:12]:
        print("   %.3e  %s" % (v, n))
    print("median %.3e   largest %.3e (%s)" % (res[len(res) // 2][0], res[-1][0], res[-1][1]))
    kinds = {}
    for n in dead:
        kinds.setdefault(re.sub(r"layers\.\d+\.", "layers.N.", n[len(LM):]), []).append(int(re.search(r"layers\.(\d+)", n).group(1)))
    for k, v in kinds.items():
        print("decoy %-36s layers %d..%d (%d)" % (k, min(v), max(v), len(v)))
    if a.json:
        json.dump({"effect": {n: v for v, n in res}, "decoys": dead}, open(a.json, "w"), indent=1)
    return 0 if res[0][0] > 1e-3 else 1


def do_slice(a):
    cfg = json.load(open(os.path.join(a.src, "config.json")))
    L = cfg["text_config"]["num_hidden_layers"]
    skip = [int(x) for x in a.skip.split(",") if x]
    ffn = [int(x) for x in a.ffn.split(",")]
    if len(ffn) == 1:
        ffn = ffn * (L - len(skip))
    c, w = matformer_slice(cfg, load_weights(a.src), skip, ffn)
    save_checkpoint(a.out, c, w, None, a.shards)
    for f in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if os.path.exists(os.path.join(a.src, f)):
            shutil.copy(os.path.join(a.src, f), a.out)
    print("wrote", a.out)


def facts(a):
    """Layer maps and parameter counts of the real models, from transformers' own classes on the meta device."""
    import torch
    from transformers import Gemma3nForCausalLM, Gemma3nTextConfig
    cfgs = {
        "E4B": Gemma3nTextConfig(),
        "E2B": Gemma3nTextConfig(num_hidden_layers=30, intermediate_size=8192, num_kv_shared_layers=10,
                                 activation_sparsity_pattern=[0.95] * 10 + [0.0] * 20),
    }
    for n, c in cfgs.items():
        modes = c.kv_sharing_modes
        first = modes.index("reuse")
        print(n, "layers", c.num_hidden_layers, "first shared", first,
              "producers", {c.layer_types[i]: i for i, m in enumerate(modes) if m == "store"},
              "global layers", [i for i, t in enumerate(c.layer_types) if t == "full_attention"])
        t = {k: getattr(c, k) for k in ("hidden_size", "hidden_size_per_layer_input", "num_hidden_layers", "laurel_rank",
                                        "altup_num_inputs", "head_dim", "num_attention_heads", "num_key_value_heads",
                                        "vocab_size", "vocab_size_per_layer_input", "intermediate_size")}
        shapes = tensor_shapes(t)
        with torch.device("meta"):
            m = Gemma3nForCausalLM(c)
        mine = {k.replace(LM, "model."): s for k, s in shapes.items()
                if not (re.search(r"layers\.(\d+)\.self_attn\.(k_proj|v_proj|k_norm)", k)
                        and int(re.search(r"layers\.(\d+)", k).group(1)) >= first)}
        hf = {k: tuple(v.shape) for k, v in m.named_parameters()}
        print("   names and shapes agree with transformers:", mine == hf, len(shapes), "published text tensors,", len(hf), "used")
        tot = sum(math.prod(s) for s in shapes.values())
        print("   text parameters, all published tensors: %d, read by the model: %d" % (tot, sum(math.prod(s) for s in hf.values())))
    keep = [i for i in range(35) if not 20 <= i <= 24]
    print("E4B types after dropping 20-24 == E2B types:",
          [cfgs["E4B"].layer_types[i] for i in keep] == cfgs["E2B"].layer_types)
    print("first 20 layer types equal:", cfgs["E4B"].layer_types[:20] == cfgs["E2B"].layer_types[:20])


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0],
                                 epilog="See the comment at the top of the file for examples.")
    sub = ap.add_subparsers(dest="cmd", required=True)
    p = sub.add_parser("generate", help="make tokenizer, checkpoints and golden files")
    p.add_argument("--preset", choices=sorted(PRESETS), default="a", help="model dimensions")
    p.add_argument("--seed", type=int, default=20250626)
    p.add_argument("--out", required=True)
    p.add_argument("--greedy", type=int, default=24, help="tokens of greedy continuation")
    p.add_argument("--train-text", nargs="*", help="train the tokenizer on these files instead of the built-in choice")
    p.add_argument("--write-slices", action="store_true", help="also store the mnm and tail checkpoints")
    p.set_defaults(fn=generate)
    p = sub.add_parser("verify", help="recompute everything and compare with the stored files")
    p.add_argument("--dir", required=True)
    p.set_defaults(fn=verify)
    p = sub.add_parser("mutants", help="distance of typical implementation mistakes from the stored logits")
    p.add_argument("--dir", required=True)
    p.set_defaults(fn=mutants)
    p = sub.add_parser("perturb", help="effect of perturbing each checkpoint tensor")
    p.add_argument("--dir", required=True)
    p.add_argument("--variant", default="e4b", choices=["e4b", "e2b", "mnm", "tail"])
    p.add_argument("--json", help="also write all effects to this file")
    p.set_defaults(fn=perturb)
    p = sub.add_parser("slice", help="cut a sub-model checkpoint")
    p.add_argument("--src", required=True)
    p.add_argument("--skip", default="", help="comma separated layer indices to drop")
    p.add_argument("--ffn", required=True, help="one width, or one per kept layer, comma separated")
    p.add_argument("--shards", type=int, default=1)
    p.add_argument("--out", required=True)
    p.set_defaults(fn=do_slice)
    p = sub.add_parser("facts", help="layer maps and parameter counts of E2B and E4B")
    p.set_defaults(fn=facts)
    a = ap.parse_args()
    r = a.fn(a)
    sys.exit(1 if isinstance(r, int) and r else 0)


if __name__ == "__main__":
    main()
