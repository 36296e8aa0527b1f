"""Writes a trained checkpoint as demo.gguf (Q8_0) or as Hugging Face folders, and checks it against transformers.

    python export_gguf.py gguf  --checkpoint run/last.pt --out demo.gguf
    python export_gguf.py media --text demo.gguf --run run --out demo.gguf      adds the towers of train_media.py
    python export_gguf.py hf    --checkpoint run/last.pt --out hf-e4b --path e4b
    python export_gguf.py check --checkpoint run/last.pt --work hf      (needs transformers)
"""
from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import struct
from pathlib import Path as File

import numpy as np
import torch
from gguf import GGUFReader, dequantize

from model import STREAMS, Config, Gemma3n, Path, named_paths
from pictures import SIDE
from sounds import BINS
from tokenizer import BOS, CHAT_TEMPLATE, END, EOS, FIRST_BYTE, FIRST_PIECE, PAD, SPACE, START, UNK
from towers import Media, MediaConfig

ALIGN, BLOCK = 32, 32
F32, F16, Q8_0 = 0, 1, 8
U32, I32, FLOAT, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
_FULL = ("norm", "altup_router", "altup_predict_coef", "altup_correct_coef", "altup_correct_scale")


def load(path: str | File) -> Gemma3n:
    model = Gemma3n(Config())
    model.load_state_dict(torch.load(path, map_location="cpu")["model"])
    return model.eval()


def load_text(path: str | File) -> Gemma3n:
    """The text model of a GGUF file, with the values that an engine reads."""
    tensors = {}
    for t in GGUFReader(path).tensors:
        a = np.ascontiguousarray(dequantize(t.data, t.tensor_type), dtype=np.float32).reshape(t.shape[::-1].tolist())
        tensors[t.name.removesuffix(".weight")] = torch.from_numpy(a.copy())
    model = Gemma3n(Config())
    state = {name: tensors[name][:len(w)] for name, w in model.state_dict().items()}
    model.load_state_dict(state)
    return model.eval()


def stored_as(name: str) -> int:
    """Norms, routers and coefficients stay float32, as in converted files; matrices and tables are Q8_0."""
    return F32 if name.endswith(_FULL) else Q8_0


def quantise(x: np.ndarray) -> np.ndarray:
    """Q8_0: per 32 values an f16 scale and 32 signed bytes."""
    blocks = x.astype(np.float32).reshape(-1, BLOCK)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale > 0)
    q = np.rint(blocks * inverse).astype(np.int8)
    return np.concatenate([scale.astype(np.float16).view(np.int8).reshape(-1, 2), q], axis=1)


def dequantise(q: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    scale = np.ascontiguousarray(q[:, :2]).view(np.float16).astype(np.float32)
    return (scale * q[:, 2:].astype(np.float32)).reshape(shape)


def as_stored(model: Gemma3n) -> Gemma3n:
    """The model with the values that an engine reads back from the file."""
    twin = Gemma3n(model.cfg)
    state = {}
    for name, w in model.state_dict().items():
        a = w.numpy()
        state[name] = torch.from_numpy(dequantise(quantise(a), a.shape)) if stored_as(name) == Q8_0 else w
    twin.load_state_dict(state)
    return twin.eval()


# ---- GGUF ----------------------------------------------------------------------------------------------------------

def _string(s: str) -> bytes:
    b = s.encode("utf-8")
    return struct.pack("<Q", len(b)) + b


def _scalar(kind: int, v) -> bytes:
    if kind == STRING:
        return _string(v)
    return struct.pack({U32: "<I", I32: "<i", FLOAT: "<f", BOOL: "<?"}[kind], v)


def _pair(key: str, kind: int, value) -> bytes:
    if isinstance(value, list):
        return _string(key) + struct.pack("<IIQ", ARRAY, kind, len(value)) + b"".join(_scalar(kind, v) for v in value)
    return _string(key) + struct.pack("<I", kind) + _scalar(kind, value)


def _model_keys(c: Config) -> list[tuple[str, int, object]]:
    def g(key: str) -> str:
        return "gemma3n." + key
    return [
        ("general.architecture", STRING, "gemma3n"), ("general.type", STRING, "model"), ("general.name", STRING, "Pleiad demo"),
        ("general.license", STRING, "apache-2.0"), ("general.size_label", STRING, "8M"), ("general.file_type", U32, 7),
        ("general.quantization_version", U32, 2),
        (g("block_count"), U32, c.layers), (g("context_length"), U32, c.context), (g("embedding_length"), U32, c.hidden),
        (g("feed_forward_length"), I32, [c.ffn] * c.layers),
        (g("attention.head_count"), U32, c.heads), (g("attention.head_count_kv"), U32, c.kv_heads),
        (g("attention.key_length"), U32, c.head_dim), (g("attention.value_length"), U32, c.head_dim),
        (g("attention.layer_norm_rms_epsilon"), FLOAT, c.eps),
        (g("rope.freq_base"), FLOAT, c.theta_global), (g("rope.freq_base_swa"), FLOAT, c.theta_local),
        (g("attention.sliding_window"), U32, c.window),
        (g("attention.sliding_window_pattern"), BOOL, [c.is_local(i) for i in range(c.layers)]),
        (g("final_logit_softcapping"), FLOAT, c.cap),
        (g("altup.active_idx"), U32, 0), (g("altup.num_inputs"), U32, STREAMS),
        (g("embedding_length_per_layer_input"), U32, c.ple),
        (g("attention.shared_kv_layers"), U32, c.layers - c.first_shared),
        (g("activation_sparsity_scale"), FLOAT, [c.gate_z(i) for i in range(c.layers)]),
        *((f"pleiad.path.{n}", STRING, p.text(c)) for n, p in named_paths(c).items() if n != "e4b"),
    ]


def _tokenizer_keys(data: dict) -> list[tuple[str, int, object]]:
    pieces = sorted(data["model"]["vocab"], key=data["model"]["vocab"].get)
    added = {t["id"] for t in data["added_tokens"]}
    kinds, scores, shown = [], [], []
    for i, piece in enumerate(pieces):
        # types: 1 normal, 3 control, 4 user defined, 6 byte
        if i in added:
            control = i in (PAD, EOS, BOS, UNK, 4, START, END) or piece.startswith("<unused") or i >= MediaConfig.text_vocab
            kinds.append(3 if control else 4)
            scores.append(-1000.0)
            shown.append(piece if control else piece.replace(SPACE, " "))
        else:
            kinds.append(6 if FIRST_BYTE <= i < FIRST_PIECE else 1)
            scores.append(0.0 if i < FIRST_PIECE else float(FIRST_PIECE - i))
            shown.append(piece)
    t = "tokenizer.ggml."
    return [
        (t + "model", STRING, "llama"), (t + "pre", STRING, "default"), (t + "tokens", STRING, shown), (t + "scores", FLOAT, scores),
        (t + "token_type", I32, kinds), (t + "bos_token_id", U32, BOS), (t + "eos_token_id", U32, END), (t + "unknown_token_id", U32, UNK),
        (t + "padding_token_id", U32, PAD), (t + "add_bos_token", BOOL, True), (t + "add_eos_token", BOOL, False),
        (t + "add_space_prefix", BOOL, False),
        ("tokenizer.chat_template", STRING, CHAT_TEMPLATE.read_text(encoding="utf-8")),
    ]




def _tensor_file(keys: list, tensors: list[tuple[str, tuple[int, ...], int, bytes]], out: File) -> int:
    """tensors: name, shape, type, data."""
    head = b"".join(_pair(*k) for k in keys)
    infos, chunks, offset = [], [], 0
    for name, shape, kind, raw in tensors:
        ne = shape[::-1]
        infos.append(_string(name) + struct.pack(f"<I{len(ne)}qIQ", len(ne), *ne, kind, offset))
        raw += bytes(-len(raw) % ALIGN)
        chunks.append(raw)
        offset += len(raw)
    top = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(keys)) + head + b"".join(infos)
    tmp = out.with_name(out.name + ".part")
    tmp.write_bytes(top + bytes(-len(top) % ALIGN) + b"".join(chunks))
    os.replace(tmp, out)
    return out.stat().st_size


def write_gguf(model: Gemma3n, tokenizer: File, out: File) -> int:
    keys = _model_keys(model.cfg) + _tokenizer_keys(json.loads(tokenizer.read_text(encoding="utf-8")))
    tensors = []
    for name, w in model.state_dict().items():
        a, kind = w.numpy(), stored_as(name)
        tensors.append((name + ".weight", a.shape, kind, quantise(a).tobytes() if kind == Q8_0 else a.astype("<f4").tobytes()))
    return _tensor_file(keys, tensors, out)


# ---- towers --------------------------------------------------------------------------------------------------------

_AUDIO_TOP = {"subsample_conv_projection.conv_0.conv": "conv1d.0", "subsample_conv_projection.conv_0.norm": "conv1d.0.norm",
              "subsample_conv_projection.conv_1.conv": "conv1d.1", "subsample_conv_projection.conv_1.norm": "conv1d.1.norm",
              "subsample_conv_projection.input_proj_linear": "pre_encode.out"}
_AUDIO_BLOCK = {
    "ffw_layer_start.pre_layer_norm": "ffn_norm", "ffw_layer_start.ffw_layer_1": "ffn_up", "ffw_layer_start.ffw_layer_2": "ffn_down",
    "ffw_layer_start.post_layer_norm": "ffn_post_norm", "ffw_layer_end.pre_layer_norm": "ffn_norm_1", "ffw_layer_end.ffw_layer_1": "ffn_up_1",
    "ffw_layer_end.ffw_layer_2": "ffn_down_1", "ffw_layer_end.post_layer_norm": "ffn_post_norm_1", "attention.pre_attn_norm": "ln1",
    "attention.attn.q_proj": "attn_q", "attention.attn.k_proj": "attn_k", "attention.attn.v_proj": "attn_v",
    "attention.attn.relative_position_embedding.pos_proj": "linear_pos", "attention.attn.per_dim_scale": "per_dim_scale",
    "attention.post": "attn_out", "attention.post_norm": "ln2", "lconv1d.pre_layer_norm": "norm_conv", "lconv1d.linear_start": "conv_pw1",
    "lconv1d.depthwise_conv1d": "conv_dw", "lconv1d.conv_norm": "conv_norm", "lconv1d.linear_end": "conv_pw2", "norm": "layer_pre_norm",
}
_PLAIN = ("conv_stem.conv.weight", "conv1d.0.weight", "conv1d.1.weight", "conv_dw.weight")     # small convolutions in F32, as in mmproj files


def media_name(part: str, name: str) -> str:
    """The name in llama.cpp's mmproj files of a parameter of towers.Media."""
    if part in ("see", "hear"):
        return ("mm." if part == "see" else "mm.a.") + name + ".weight"
    name = name.removeprefix("net.")
    if part == "vision":
        return "v." + name.replace("blocks.", "blk.", 1)
    stem, weight = (name.removesuffix(".weight"), ".weight") if name.endswith(".weight") else (name, "")
    if stem in _AUDIO_TOP:
        return "a." + _AUDIO_TOP[stem] + weight
    layer, rest = stem.removeprefix("conformer.").split(".", 1)
    return f"a.blk.{layer}.{_AUDIO_BLOCK[rest]}{weight}"


def media_tensors(media: Media) -> dict[str, torch.Tensor]:
    """By their names in files; gammas and the stem's bias with the dimensions that llama.cpp wants."""
    out = {}
    for part in ("vision", "audio", "see", "hear"):
        for name, w in getattr(media, part).named_parameters():
            w = w.detach()
            out[media_name(part, name)] = w.reshape(1, -1, 1, 1) if name.endswith((".gamma", ".bias")) else w
    return out


def media_stored_as(name: str, w: torch.Tensor) -> int:
    return F32 if w.ndim == 1 or name.endswith((".gamma", ".bias", *_PLAIN)) else F16


def load_media(path: str | File) -> Media:
    """The towers of a GGUF file, with the values that an engine reads."""
    media, tensors = Media(MediaConfig()), {t.name: t for t in GGUFReader(path).tensors}
    with torch.no_grad():
        for part in ("vision", "audio", "see", "hear"):
            for name, w in getattr(media, part).named_parameters():
                w.copy_(torch.from_numpy(np.array(tensors[media_name(part, name)].data, dtype=np.float32)).reshape(w.shape))
    return media.eval()


def _media_keys(c: MediaConfig) -> list[tuple[str, int, object]]:
    side, patch = SIDE, SIDE // c.grid ** 2        # so that side / patch is the number of rows
    v, a = "clip.vision.", "clip.audio."
    return [
        ("clip.has_vision_encoder", BOOL, True), ("clip.has_audio_encoder", BOOL, True),
        (v + "projector_type", STRING, "gemma3nv"), (v + "image_size", U32, side), (v + "patch_size", U32, patch),
        (v + "embedding_length", U32, c.vision_hidden), (v + "projection_dim", U32, c.text_hidden),
        (v + "attention.layer_norm_epsilon", FLOAT, c.eps), (v + "image_mean", FLOAT, [0.0] * 3), (v + "image_std", FLOAT, [1.0] * 3),
        (a + "projector_type", STRING, "gemma3na"), (a + "embedding_length", U32, c.audio_hidden), (a + "projection_dim", U32, c.text_hidden),
        (a + "feed_forward_length", U32, 4 * c.audio_hidden), (a + "block_count", U32, c.audio_layers),
        (a + "attention.head_count", U32, c.audio_heads), (a + "num_mel_bins", U32, BINS), (a + "attention.layer_norm_epsilon", FLOAT, c.eps),
        ("pleiad.audio.rows", U32, c.audio_rows),
    ]


def _with_media_pieces(data: dict, c: MediaConfig) -> dict:
    """The tokenizer with the pieces behind the text's."""
    pieces = c.pieces()
    ids = dict(data["model"]["vocab"]) | {p: c.text_vocab + i for i, p in enumerate(pieces)}
    added = data["added_tokens"] + [{"id": ids[p], "content": p} for p in pieces]
    return data | {"model": data["model"] | {"vocab": ids}, "added_tokens": added}


def _more_rows(data: np.ndarray, rows: int, text_rows: int) -> bytes:
    """The rows of the text's ids as they are, and copies of <pad>'s behind them, as in converted files."""
    return data[:text_rows].tobytes() + data[PAD].tobytes() * (rows - text_rows)


def write_media(text: File, media: Media, tokenizer: File, out: File) -> int:
    """The text model of a file, byte for byte, with towers."""
    c = media.cfg
    rows = {"token_embd.weight": c.vocab, "per_layer_token_embd.weight": c.first_vision}
    tensors = []
    for t in GGUFReader(text).tensors:
        if t.name.startswith(("v.", "a.", "mm.")):
            continue
        shape = tuple(t.shape[::-1].tolist())
        raw = t.data.tobytes()
        if t.name in rows:
            raw, shape = _more_rows(t.data, rows[t.name], c.text_vocab), (rows[t.name], shape[1])
        tensors.append((t.name, shape, int(t.tensor_type), raw))
    for name, w in media_tensors(media).items():
        kind = media_stored_as(name, w)
        tensors.append((name, tuple(w.shape), kind, w.numpy().astype("<f2" if kind == F16 else "<f4").tobytes()))
    pieces = _with_media_pieces(json.loads(tokenizer.read_text(encoding="utf-8")), c)
    return _tensor_file(_model_keys(Config()) + _tokenizer_keys(pieces) + _media_keys(c), tensors, out)


# ---- Hugging Face --------------------------------------------------------------------------------------------------

_HF_BLOCK = {
    "attn_norm": "input_layernorm.weight", "post_attention_norm": "post_attention_layernorm.weight",
    "ffn_norm": "pre_feedforward_layernorm.weight", "post_ffw_norm": "post_feedforward_layernorm.weight",
    "attn_q": "self_attn.q_proj.weight", "attn_k": "self_attn.k_proj.weight", "attn_v": "self_attn.v_proj.weight",
    "attn_output": "self_attn.o_proj.weight", "attn_q_norm": "self_attn.q_norm.weight", "attn_k_norm": "self_attn.k_norm.weight",
    "ffn_gate": "mlp.gate_proj.weight", "ffn_up": "mlp.up_proj.weight", "ffn_down": "mlp.down_proj.weight",
    "inp_gate": "per_layer_input_gate.weight", "proj": "per_layer_projection.weight", "post_norm": "post_per_layer_input_norm.weight",
    "laurel_l": "laurel.linear_left.weight", "laurel_r": "laurel.linear_right.weight", "laurel_post_norm": "laurel.post_laurel_norm.weight",
    "altup_router": "altup.modality_router.weight", "altup_router_norm": "altup.router_norm.weight",
    "altup_predict_coef": "altup.prediction_coefs.weight", "altup_correct_coef": "altup.correction_coefs.weight",
    "altup_correct_scale": "altup.correct_output_scale",
}
_HF_TOP = {"token_embd": "embed_tokens", "per_layer_proj_norm": "per_layer_projection_norm", "output_norm": "norm"}


def hf_tensors(model: Gemma3n, path: Path) -> dict[str, torch.Tensor]:
    """The tensors of one path as a checkpoint of its own: layers renumbered, FFN units and table columns cut."""
    c, state, out = model.cfg, model.state_dict(), {}
    for name, hf in _HF_TOP.items():
        out[hf + ".weight"] = state[name]
    rows = torch.cat([torch.arange(i * c.ple, (i + 1) * c.ple) for i in path.layers])
    out["embed_tokens_per_layer.weight"] = state["per_layer_token_embd"][:, rows]
    out["per_layer_model_projection.weight"] = state["per_layer_model_proj"][rows]
    for k in range(STREAMS - 1):
        out[f"altup_projections.{k}.weight"] = state["altup_proj"][k]
        out[f"altup_unembed_projections.{k}.weight"] = state["altup_unembd_proj"][k]
    for new, (old, width) in enumerate(zip(path.layers, path.widths)):
        for name, hf in _HF_BLOCK.items():
            w = state.get(f"blk.{old}.{name}")
            if w is None:
                continue
            if name in ("ffn_gate", "ffn_up"):
                w = w[:width]
            elif name == "ffn_down":
                w = w[:, :width]
            out[f"layers.{new}.{hf}"] = w
    return {"model.language_model." + k: v.clone().contiguous() for k, v in out.items()}


def hf_config(c: Config, path: Path) -> dict:
    text = {
        "model_type": "gemma3n_text", "vocab_size": c.vocab, "vocab_size_per_layer_input": c.vocab, "hidden_size": c.hidden,
        "hidden_size_per_layer_input": c.ple, "num_hidden_layers": len(path.layers), "intermediate_size": list(path.widths),
        "num_attention_heads": c.heads, "num_key_value_heads": c.kv_heads, "head_dim": c.head_dim,
        "layer_types": ["sliding_attention" if c.is_local(i) else "full_attention" for i in path.layers],
        "sliding_window": c.window, "num_kv_shared_layers": sum(i >= c.first_shared for i in path.layers),
        "activation_sparsity_pattern": [0.95 if i < c.sparse_layers else 0.0 for i in path.layers],
        "altup_num_inputs": STREAMS, "altup_active_idx": 0, "altup_coef_clip": 120.0, "altup_correct_scale": True, "laurel_rank": c.laurel,
        "final_logit_softcapping": c.cap, "rms_norm_eps": c.eps, "rope_theta": c.theta_global, "rope_local_base_freq": c.theta_local,
        "rope_scaling": None, "hidden_activation": "gelu_pytorch_tanh", "attention_bias": False, "attention_dropout": 0.0,
        "max_position_embeddings": c.context, "query_pre_attn_scalar": c.head_dim, "initializer_range": 0.02, "use_cache": True,
        "torch_dtype": "float32",
    }
    return {"architectures": ["Gemma3nForConditionalGeneration"], "model_type": "gemma3n", "eos_token_id": [EOS, END],
            "text_config": text, "torch_dtype": "float32"}


def write_hf(model: Gemma3n, tokenizer: File, path: Path, out: File) -> None:
    from safetensors.torch import save_file
    out.mkdir(parents=True, exist_ok=True)
    save_file(hf_tensors(model, path), out / "model.safetensors", metadata={"format": "pt"})
    texts = {
        "config.json": hf_config(model.cfg, path),
        "generation_config.json": {"bos_token_id": BOS, "eos_token_id": [EOS, END], "pad_token_id": PAD},
        "tokenizer_config.json": {"add_bos_token": True, "add_eos_token": False, "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>",
                                  "unk_token": "<unk>", "clean_up_tokenization_spaces": False, "model_max_length": model.cfg.context,
                                  "tokenizer_class": "GemmaTokenizer"},
    }
    for name, data in texts.items():
        (out / name).write_text(json.dumps(data, indent=1), encoding="utf-8")
    shutil.copyfile(tokenizer, out / "tokenizer.json")
    shutil.copyfile(CHAT_TEMPLATE, out / "chat_template.jinja")


def check(model: Gemma3n, tokenizer: File, work: File) -> None:
    """Logits of this implementation against transformers in float32, on long generated dialogues."""
    import random

    from safetensors.torch import load_file
    from transformers import Gemma3nForCausalLM, Gemma3nTextConfig

    import world
    from tokenizer import Chat
    chat, r = Chat(tokenizer), random.Random(3)
    texts = [chat.dialogue(world.dialogue(r, long=i % 2 == 0))[0] for i in range(6)]
    for name, path in named_paths(model.cfg).items():
        out = File(f"{work}-{name}")
        write_hf(model, tokenizer, path, out)
        ref = Gemma3nForCausalLM(Gemma3nTextConfig(**json.loads((out / "config.json").read_text())["text_config"])).eval().float()
        weights = {k.replace("model.language_model.", "model."): v for k, v in load_file(out / "model.safetensors").items()}
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
        missing, extra = ref.load_state_dict(weights, strict=False)
        worst = 0.0
        with torch.no_grad():
            for ids in texts:
                t = torch.tensor([ids])
                worst = max(worst, float((ref(t).logits - model(t, path=path)).abs().max()))
        missing = [m for m in missing if "inv_freq" not in m]
        print(f"{name}: largest logit difference {worst:.2e} over {sum(map(len, texts))} positions; missing {missing}, unknown {extra}")
        if worst > 2e-3 or extra or missing:
            raise SystemExit(f"{name} differs from transformers")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("command", choices=("gguf", "media", "hf", "check"))
    p.add_argument("--checkpoint", default="run/last.pt")
    p.add_argument("--text", default="demo.gguf", help="file with the text model (media)")
    p.add_argument("--run", default="run", help="folder of the towers' checkpoints (media)")
    p.add_argument("--tokenizer", default="tokenizer.json")
    p.add_argument("--out", default="demo.gguf", help="file (gguf) or folder (hf)")
    p.add_argument("--path", default="e4b", choices=("e4b", "mix", "e2b"), help="which nested model (hf)")
    p.add_argument("--work", default="hf", help="prefix of the folders that check writes: WORK-e4b, WORK-e2b, WORK-mix")
    a = p.parse_args()
    torch.set_num_threads(2)
    if a.command == "media":
        from train_media import load_parts
        media = Media(MediaConfig())
        load_parts(media, File(a.run))
        size = write_media(File(a.text), media, File(a.tokenizer), File(a.out))
        print(f"{a.out}: {size} bytes, {sum(w.numel() for w in media.parameters())} parameters of towers")
        return
    model = load(a.checkpoint)
    if a.command == "gguf":
        size = write_gguf(model, File(a.tokenizer), File(a.out))
        print(f"{a.out}: {size} bytes, {sum(w.numel() for w in model.parameters())} parameters")
    elif a.command == "hf":
        write_hf(model, File(a.tokenizer), named_paths(model.cfg)[a.path], File(a.out))
    else:
        check(model, File(a.tokenizer), File(a.work))


if __name__ == "__main__":
    main()
