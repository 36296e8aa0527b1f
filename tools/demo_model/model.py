"""A Gemma 3n text model in PyTorch, written for training small nested models on a CPU.

The layer is cut into four functions with plain tensor arguments (`_pre`, `_mid`, `_ffn`, `_post`). Every layer calls the
same four, so `torch.compile` compiles each of them once instead of once per layer and per MatFormer path.
"""
from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STREAMS = 4
GAUSS_95 = 1.6448536269514722  # normal quantile of 0.95: about 5 % of the gate values stay above mean + z * std


@dataclass(frozen=True)
class Config:
    vocab: int = 2048
    hidden: int = 192
    layers: int = 12
    heads: int = 8
    kv_heads: int = 2
    head_dim: int = 32
    ffn: int = 640
    ffn_e2b: int = 320
    ple: int = 32
    laurel: int = 32
    window: int = 64
    context: int = 2048
    period: int = 3            # the last layer of every period is global, the others are local
    first_shared: int = 6      # layers from here on read the K/V of the last local / last global layer below
    sparse_layers: int = 3
    skip_e2b: tuple[int, ...] = (6, 7, 8)
    eps: float = 1e-6
    cap: float = 30.0
    theta_global: float = 1e6
    theta_local: float = 1e4

    def is_local(self, layer: int) -> bool:
        return (layer + 1) % self.period != 0

    def donor(self, layer: int) -> int:
        """The layer whose K/V `layer` reads: itself, or the last producer of its type."""
        if layer < self.first_shared:
            return layer
        return max(i for i in range(self.first_shared) if self.is_local(i) == self.is_local(layer))

    def gate_z(self, layer: int) -> float:
        return GAUSS_95 if layer < self.sparse_layers else -math.inf


@dataclass(frozen=True)
class Path:
    """One nested sub-model: the layers that run and the FFN width of each of them."""
    layers: tuple[int, ...]
    widths: tuple[int, ...]

    def text(self, cfg: Config) -> str:
        """The engine's notation: `e4b`, or `mix:widths=W[,W...][;skip=A-B,C]`."""
        if len(self.layers) == cfg.layers and set(self.widths) == {cfg.ffn}:
            return "e4b"
        widths = self.widths[:1] if len(set(self.widths)) == 1 else self.widths
        skipped = [i for i in range(cfg.layers) if i not in self.layers]
        runs: list[list[int]] = []
        for i in skipped:
            if runs and runs[-1][1] == i - 1:
                runs[-1][1] = i
            else:
                runs.append([i, i])
        skip = ",".join(f"{a}-{b}" if b > a else str(a) for a, b in runs)
        return "mix:widths=" + ",".join(map(str, widths)) + (";skip=" + skip if skip else "")


def named_paths(cfg: Config) -> dict[str, Path]:
    every = tuple(range(cfg.layers))
    kept = tuple(i for i in every if i not in cfg.skip_e2b)
    # The mix is the layers of e2b at the width of e4b: the same K/V as e4b, bit for bit.
    return {
        "e4b": Path(every, (cfg.ffn,) * cfg.layers),
        "mix": Path(kept, (cfg.ffn,) * len(kept)),
        "e2b": Path(kept, (cfg.ffn_e2b,) * len(kept)),
    }


def _norm(x: Tensor, w: Tensor | None, eps: float = 1e-6) -> Tensor:
    y = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
    return y if w is None else y * w


def _lin(x: Tensor, w: Tensor, low: bool) -> Tensor:
    """x . w^T; in training the product runs in bf16 (AMX / AVX-512), the streams stay float32."""
    if low:
        return F.linear(x.bfloat16(), w.bfloat16()).float()
    return F.linear(x, w)


def _rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def _router(v: Tensor, norm_w: Tensor, router: Tensor) -> Tensor:
    return torch.tanh(F.linear(_norm(v, norm_w) * (1.0 / v.shape[-1]), router))


def _heads(x: Tensor, dim: int) -> Tensor:
    return x.unflatten(-1, (-1, dim))


def _pre(s, cos, sin, router_norm, router, predict, attn_norm, laurel_l, laurel_r, laurel_norm, wq, q_norm, low: bool):
    """AltUp prediction, input norm, LAuReL and queries. s: four streams [B, T, H]."""
    m = _router(s[0], router_norm, router)
    r = F.linear(m, predict)
    pred = []
    for k in range(STREAMS):
        p = s[k]
        for j in range(STREAMS):
            p = p + r[..., STREAMS * k + j, None] * s[j]
        pred.append(p)
    x = _norm(pred[0], attn_norm)
    lau = x + _norm(_lin(_lin(x, laurel_l, low), laurel_r, low), laurel_norm)
    q = _rope(_norm(_heads(_lin(x, wq, low), cos.shape[-1] * 2), q_norm), cos, sin)
    return pred, x, lau, q


def _kv(x, cos, sin, wk, wv, k_norm, low: bool):
    dim = cos.shape[-1] * 2
    k = _rope(_norm(_heads(_lin(x, wk, low), dim), k_norm), cos, sin)
    v = _norm(_heads(_lin(x, wv, low), dim), None)
    return k, v


def _attend(q, k, v, hidden, low: bool):
    """Softmax attention at scale 1. hidden: True where a key may not be seen, [B, 1, 1, T, T].

    Written out because the backward of PyTorch's CPU flash attention took a third of a training step.
    """
    groups = k.shape[2]
    if low:
        q, k, v = q.bfloat16(), k.bfloat16(), v.bfloat16()
    q = q.unflatten(2, (groups, -1)).permute(0, 2, 3, 1, 4)              # [B, G, R, T, D]
    b, g, r, t, d = q.shape
    k, v = k.transpose(1, 2), v.transpose(1, 2)                          # [B, G, T, D]
    score = (q.reshape(b * g, r * t, d) @ k.reshape(b * g, t, d).transpose(1, 2)).view(b, g, r, t, t)
    p = torch.softmax(score.float().masked_fill(hidden, -1e30), dim=-1).to(v.dtype)
    o = p.view(b * g, r * t, t) @ v.reshape(b * g, t, d)
    return o.view(b, g, r, t, d).permute(0, 3, 1, 2, 4).reshape(b, t, g * r * d).float()


def _mid(a, lau, o, wo, post_attn, ffn_norm, low: bool):
    att = _norm(_lin(o, wo, low), post_attn)
    y = (a + att + lau) * (1.0 / math.sqrt(2.0))
    return y, _norm(y, ffn_norm)


def _ffn(x, gate, up, down, sparse: bool, low: bool):
    g, u = _lin(x, gate, low), _lin(x, up, low)
    if sparse:
        mean = g.mean(-1, keepdim=True)
        std = (g - mean).pow(2).mean(-1, keepdim=True).sqrt()
        g = torch.relu(g - (mean + GAUSS_95 * std))
    return _lin(F.gelu(g, approximate="tanh") * u, down, low)


def _post(y, f, pred, ple, post_ffw, router_norm, router, correct, scale, inp_gate, proj, post_norm, low: bool):
    """FFN residual, AltUp correction and the per-layer input."""
    y = y + _norm(f, post_ffw)
    c = 1.0 + F.linear(_router(y, router_norm, router), correct)
    delta = y - pred[0]
    s = [pred[k] + c[..., k, None] * delta for k in range(STREAMS)]
    w = F.gelu(_lin(s[0] * scale, inp_gate, low), approximate="tanh") * ple
    w = _norm(_lin(w, proj, low), post_norm)
    return [s[0], s[1] + w, s[2] + w, s[3] + w]


def _match(u: Tensor, mag: Tensor) -> Tensor:
    """Scale u to the root mean square of stream 0."""
    return u * mag / u.pow(2).mean(-1, keepdim=True).clamp_min(1e-5).sqrt()


def _begin(e, altup, low: bool):
    mag = e.pow(2).mean(-1, keepdim=True).sqrt()
    return [e] + [_match(_lin(e, altup[k], low), mag) for k in range(STREAMS - 1)]


def _end(s, unembed, out_norm, low: bool):
    mag = s[0].pow(2).mean(-1, keepdim=True).sqrt()
    o = s[0]
    for k in range(STREAMS - 1):
        o = o + _match(_lin(s[k + 1], unembed[k], low), mag)
    return _norm(o * (1.0 / STREAMS), out_norm)


def _functions(compile: bool) -> SimpleNamespace:
    parts = dict(pre=_pre, kv=_kv, attend=_attend, mid=_mid, ffn=_ffn, post=_post, begin=_begin, end=_end)
    if compile:
        torch._dynamo.config.recompile_limit = 64  # one variant per batch shape, FFN width and kind of layer
        parts = {name: torch.compile(fn, dynamic=False) for name, fn in parts.items()}
    return SimpleNamespace(**parts)


class Block(nn.Module):
    """Parameters of one layer, named after the GGUF tensors."""

    def __init__(self, c: Config, layer: int):
        super().__init__()
        h, d, p = c.hidden, c.head_dim, c.ple

        def mat(rows: int, cols: int, gain: float = 1.0) -> nn.Parameter:
            return nn.Parameter(torch.randn(rows, cols) * gain / math.sqrt(cols))

        def vec(n: int, value: float = 1.0) -> nn.Parameter:
            return nn.Parameter(torch.full((n,), value))

        self.attn_norm, self.ffn_norm, self.altup_router_norm = vec(h), vec(h), vec(h)
        # Post norms start small: the residual streams then begin close to the embedding.
        self.post_attention_norm, self.post_ffw_norm = vec(h, 0.4), vec(h, 0.4)
        self.post_norm, self.laurel_post_norm = vec(h, 0.2), vec(h, 0.1)
        self.attn_q, self.attn_output = mat(c.heads * d, h), mat(h, c.heads * d)
        # Scale 1 with normed heads: d^-1/4 on both sides makes the usual 1/sqrt(d) to start from.
        self.attn_q_norm = vec(d, d ** -0.25)
        if layer < c.first_shared:
            self.attn_k, self.attn_v = mat(c.kv_heads * d, h), mat(c.kv_heads * d, h)
            self.attn_k_norm = vec(d, d ** -0.25)
        self.ffn_gate, self.ffn_up, self.ffn_down = mat(c.ffn, h), mat(c.ffn, h), mat(h, c.ffn)
        self.inp_gate, self.proj = mat(p, h), mat(h, p)
        self.laurel_l, self.laurel_r = mat(c.laurel, h), mat(h, c.laurel)
        # The router sees norm(x) / H; rows of length about sqrt(H) bring tanh into a useful range.
        self.altup_router = nn.Parameter(torch.randn(STREAMS, h) * math.sqrt(h) * 0.3)
        self.altup_predict_coef = nn.Parameter(torch.randn(STREAMS * STREAMS, STREAMS) * 0.02)
        self.altup_correct_coef = nn.Parameter(torch.randn(STREAMS, STREAMS) * 0.02)
        self.altup_correct_scale = vec(h)


class Gemma3n(nn.Module):
    def __init__(self, cfg: Config, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        self.cfg = cfg
        h, lp = cfg.hidden, cfg.layers * cfg.ple
        self.token_embd = nn.Parameter(torch.randn(cfg.vocab, h) / math.sqrt(h))
        self.per_layer_token_embd = nn.Parameter(torch.randn(cfg.vocab, lp) / math.sqrt(cfg.ple))
        self.per_layer_model_proj = nn.Parameter(torch.randn(lp, h) / math.sqrt(h))
        self.per_layer_proj_norm = nn.Parameter(torch.ones(cfg.ple))
        eye = torch.eye(h).repeat(STREAMS - 1, 1, 1)
        self.altup_proj = nn.Parameter(0.7 * eye + 0.5 * torch.randn_like(eye) / math.sqrt(h))
        self.altup_unembd_proj = nn.Parameter(0.7 * eye + 0.5 * torch.randn_like(eye) / math.sqrt(h))
        self.output_norm = nn.Parameter(torch.ones(h))
        self.blk = nn.ModuleList(Block(cfg, i) for i in range(cfg.layers))
        self.fns = _functions(False)
        self.low = False

    def speed_up(self, compile: bool, low: bool) -> None:
        self.fns = _functions(compile)
        self.low = low

    def _rope_tables(self, pos: Tensor, theta: float) -> tuple[Tensor, Tensor]:
        d = self.cfg.head_dim
        inv = theta ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)
        angle = (pos.double()[..., None] * inv).float()[..., None, :]
        return angle.cos(), angle.sin()

    def _masks(self, pos: Tensor, doc: Tensor) -> dict[bool, Tensor]:
        gap = pos[:, :, None] - pos[:, None, :]
        seen = (doc[:, :, None] == doc[:, None, :]) & (gap >= 0)
        return {False: ~seen[:, None, None], True: ~(seen & (gap < self.cfg.window))[:, None, None]}

    def _per_layer_inputs(self, ids: Tensor, e: Tensor) -> Tensor:
        c = self.cfg
        look = F.embedding(ids, self.per_layer_token_embd).unflatten(-1, (c.layers, c.ple)) * math.sqrt(c.ple)
        proj = (_lin(e, self.per_layer_model_proj, self.low) * c.hidden ** -0.5).unflatten(-1, (c.layers, c.ple))
        return (_norm(proj, self.per_layer_proj_norm) + look) * 2 ** -0.5

    def embed(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.token_embd) * math.sqrt(self.cfg.hidden)

    def hidden(self, ids: Tensor, doc: Tensor, path: Path, e: Tensor | None = None) -> Tensor:
        """ids, doc: [B, T]; tokens see only earlier tokens of the same doc. Returns the normed output [B, T, H].

        e: what stands for the ids, [B, T, H], where that is not their embedding: rows of media, whose ids are PAD.
        """
        c, fn, low = self.cfg, self.fns, self.low
        pos = torch.arange(ids.shape[1]).expand_as(ids)
        masks = self._masks(pos, doc)
        ropes = {False: self._rope_tables(pos[:1], c.theta_global), True: self._rope_tables(pos[:1], c.theta_local)}
        e = self.embed(ids) if e is None else e
        ple = self._per_layer_inputs(ids, e)
        s = fn.begin(e, self.altup_proj, low)
        kv: dict[int, tuple[Tensor, Tensor]] = {}
        for layer, width in zip(path.layers, path.widths):
            b: Block = self.blk[layer]
            local = c.is_local(layer)
            cos, sin = ropes[local]
            pred, x, lau, q = fn.pre(s, cos, sin, b.altup_router_norm, b.altup_router, b.altup_predict_coef, b.attn_norm,
                                     b.laurel_l, b.laurel_r, b.laurel_post_norm, b.attn_q, b.attn_q_norm, low)
            if layer < c.first_shared:
                kv[layer] = fn.kv(x, cos, sin, b.attn_k, b.attn_v, b.attn_k_norm, low)
            o = fn.attend(q, *kv[c.donor(layer)], masks[local], low)
            y, x = fn.mid(pred[0], lau, o, b.attn_output, b.post_attention_norm, b.ffn_norm, low)
            f = fn.ffn(x, b.ffn_gate[:width], b.ffn_up[:width], b.ffn_down[:, :width], layer < c.sparse_layers, low)
            s = fn.post(y, f, pred, ple[:, :, layer], b.post_ffw_norm, b.altup_router_norm, b.altup_router,
                        b.altup_correct_coef, b.altup_correct_scale, b.inp_gate, b.proj, b.post_norm, low)
        return fn.end(s, self.altup_unembd_proj, self.output_norm, low)

    def logits(self, h: Tensor) -> Tensor:
        return self.cfg.cap * torch.tanh(_lin(h, self.token_embd, self.low) / self.cfg.cap)

    def forward(self, ids: Tensor, doc: Tensor | None = None, path: Path | None = None) -> Tensor:
        doc = torch.zeros_like(ids) if doc is None else doc
        return self.logits(self.hidden(ids, doc, path or named_paths(self.cfg)["e4b"]))


def greedy(model: Gemma3n, ids: list[int], path: Path, stop: set[int], limit: int = 80) -> list[int]:
    """Plain greedy decoding without a cache; fine for short answers."""
    out: list[int] = []
    with torch.no_grad():
        while len(out) < limit:
            nxt = int(model(torch.tensor([ids + out]), path=path)[0, -1].argmax())
            if nxt in stop:
                break
            out.append(nxt)
    return out
