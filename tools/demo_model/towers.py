"""The towers of the demo model: timm's MobileNet-V5 and transformers' conformer in small, and what leads into the text model.

The embedders are written out here because they are trained before the towers: see train_media.py.
"""
from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from timm.layers import RmsNorm2d
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.mobilenetv5 import MobileNetV5Encoder, MobileNetV5MultiScaleFusionAdapter
from torch import Tensor, nn
from transformers.models.gemma3n.configuration_gemma3n import Gemma3nAudioConfig
from transformers.models.gemma3n.modeling_gemma3n import Gemma3nAudioEncoder

# One block of each kind and stage of the published tower.
BLOCKS = [
    ["er_r1_k3_s2_e4_c16", "er_r1_k3_s1_e3_c16"],
    ["uir_r1_a3_k5_s2_e3_c24", "uir_r1_a5_k0_s1_e3_c24"],
    ["uir_r1_a5_k5_s2_e4_c48", "uir_r1_a3_k0_s1_e2_c48", "mqa_r1_k3_h3_v2_s1_d16_c48", "uir_r1_a0_k0_s1_e2_c48"],
    ["uir_r1_a5_k5_s2_e4_c64", "mqa_r1_k3_h4_s1_d16_c64", "uir_r1_a0_k0_s1_e2_c64"],
]


@dataclass(frozen=True)
class MediaConfig:
    """Sizes, and the ids behind the text's: two that stand before media, then what the embedders' tables hold."""
    text_vocab: int = 2048
    text_hidden: int = 192
    ids: int = 16                # of each embedder
    vision_hidden: int = 128
    stem: int = 8
    grid: int = 4
    audio_hidden: int = 96
    audio_heads: int = 4
    audio_layers: int = 3
    audio_channels: tuple[int, int] = (16, 8)
    audio_rows: int = 48         # of a prompt that a clip takes
    eps: float = 1e-6

    @property
    def first_vision(self) -> int:
        return self.text_vocab + 2

    @property
    def first_audio(self) -> int:
        return self.first_vision + self.ids

    @property
    def vocab(self) -> int:
        return self.first_audio + self.ids

    def pieces(self) -> list[str]:
        """The pieces of all ids from text_vocab on."""
        def own(end: str, soft: str, name: str) -> list[str]:
            return [end, soft] + [f"<{name}_{i}>" for i in range(2, self.ids)]
        return (["<start_of_image>", "<start_of_audio>"] + own("<end_of_image>", "<image_soft_token>", "image")
                + own("<end_of_audio>", "<audio_soft_token>", "audio"))


def _norm(x: Tensor, w: Tensor | None, eps: float) -> Tensor:
    y = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
    return y if w is None else y * w


class Embedder(nn.Module):
    """Rows of a tower, or ids of its own, to rows of the text model. Parameters are named after the GGUF tensors."""

    def __init__(self, hidden: int, c: MediaConfig):
        super().__init__()
        self.eps = c.eps
        self.embedding = nn.Parameter(torch.randn(c.ids, hidden))
        self.hard_emb_norm, self.soft_emb_norm = nn.Parameter(torch.ones(hidden)), nn.Parameter(torch.ones(hidden))
        self.input_projection = nn.Parameter(torch.randn(c.text_hidden, hidden) / math.sqrt(hidden))

    def soft(self, x: Tensor) -> Tensor:
        return _norm(_norm(x, self.soft_emb_norm, self.eps) @ self.input_projection.T, None, self.eps)

    def hard(self, index: int) -> Tensor:
        return _norm(_norm(self.embedding[index], self.hard_emb_norm, self.eps) @ self.input_projection.T, None, self.eps)


class Vision(nn.Module):
    def __init__(self, c: MediaConfig):
        super().__init__()
        self.net = MobileNetV5Encoder(decode_arch_def(BLOCKS), stem_size=c.stem, pad_type="same", norm_layer=RmsNorm2d,
                                      layer_scale_init_value=0.3)
        # timm fixes the width of the last part at 2048.
        self.net.msfa = MobileNetV5MultiScaleFusionAdapter(self.net.msfa_in_chs, c.vision_hidden, c.grid)
        # Black is all zeros: without a bias the norms behind it would make of its gradients thousands of thousands.
        nn.init.normal_(self.net.conv_stem.conv.bias, std=0.5)
        self.scale = math.sqrt(c.vision_hidden)

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels: [B, 3, side, side] in 0..1 -> [B, grid * grid, hidden]"""
        return self.net(pixels).flatten(2).transpose(1, 2) * self.scale


class Audio(nn.Module):
    def __init__(self, c: MediaConfig):
        super().__init__()
        self.net = Gemma3nAudioEncoder(Gemma3nAudioConfig(
            hidden_size=c.audio_hidden, conf_num_attention_heads=c.audio_heads, conf_num_hidden_layers=c.audio_layers,
            sscp_conv_channel_size=c.audio_channels, vocab_size=c.ids, vocab_offset=c.first_audio))

    def forward(self, mel: Tensor) -> Tensor:
        """mel: [B, frames, 128], all of them real -> [B, ceil(frames / 16), hidden]"""
        nothing = torch.zeros(mel.shape[:2], dtype=torch.bool)
        return self.net(mel, nothing, return_dict=True).last_hidden_state


class Media(nn.Module):
    """Both towers with their embedders."""

    def __init__(self, c: MediaConfig, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        self.cfg = c
        self.vision, self.audio = Vision(c), Audio(c)
        self.see, self.hear = Embedder(c.vision_hidden, c), Embedder(c.audio_hidden, c)
