"""Writes options.json and options.safetensors: small encoders of NeMo's with random weights, one for each option that
published models seldom have, and what they make of a recording (nemo_toolkit 3.0.0, torch, on a CPU).

    python options.py

`CASE.encoder.*` are weights under NeMo's names, `CASE.in` features `[frames, features]`, `CASE.out` the stream of all
of them, alone.
"""
import json
from pathlib import Path

import torch
from nemo.collections.asr.modules import ConformerEncoder
from safetensors.torch import save_file

LOCAL = {"self_attention_model": "rel_pos_local_attn", "att_context_size": [3, 3]}
TWO = {"n_layers": 2, "reduction_factor": 2, "reduction_position": 0}
CASES = {
    "global": LOCAL | {"global_tokens": 1},
    "global-several": LOCAL | {"global_tokens": 3, "global_tokens_spacing": 4},
    "global-separate": LOCAL | {"global_tokens": 2, "global_attn_separate": True, "use_bias": False},
    "absolute": {"self_attention_model": "abs_pos"},
    "absolute-near": {"self_attention_model": "abs_pos", "att_context_size": [4, 2]},
    "striding": TWO | {"reduction": "striding"},
    "striding-end": TWO | {"reduction": "striding", "reduction_position": -1, "n_layers": 1},
    "pooling": TWO | {"reduction": "pooling"},
    "stacking": {"subsampling": "stacking", "subsampling_factor": 3},
    "stacking-norm": {"subsampling": "stacking_norm"},
    "each-frame": {"subsampling_factor": 1},
    "scale": {"conv_norm_type": "fused_batch_norm"},
    "shared": {"n_layers": 2, "untie_biases": False},
}

out, configs = {}, {}
for number, (name, options) in enumerate(CASES.items()):
    torch.manual_seed(number)
    config = {
        "feat_in": 8, "n_layers": 1, "d_model": 8, "n_heads": 2, "ff_expansion_factor": 2, "subsampling": "striding",
        "subsampling_factor": 2, "subsampling_conv_channels": 2, "conv_kernel_size": 3, "dropout": 0.0,
        "dropout_pre_encoder": 0.0, "dropout_emb": 0.0, "dropout_att": 0.0, **options,
    }
    encoder = ConformerEncoder(**config).eval()
    with torch.no_grad():
        for key, p in encoder.named_parameters():
            shift = 1.0 if "norm" in key and key.endswith("weight") else 0.0
            p.copy_(torch.randn_like(p) * (0.5 if p.dim() > 1 else 0.2) + shift)
        for key, b in encoder.named_buffers():
            if key.endswith(("running_mean", "running_var")):
                b.copy_(torch.rand_like(b) + 0.5)
        x = torch.randn(1, 8, 84)
        y, lengths = encoder(audio_signal=x, length=torch.tensor([84]))
        assert lengths[0] == y.shape[2], (name, lengths, y.shape)
    configs[name] = {"_target_": "nemo.collections.asr.modules.ConformerEncoder", **config}
    out |= {f"{name}.encoder.{key}": value.clone() for key, value in encoder.state_dict().items()}
    out |= {f"{name}.in": x[0].T.contiguous(), f"{name}.out": y[0].T.contiguous()}

folder = Path(__file__).parent
(folder / "options.json").write_text(json.dumps(configs, indent=1) + "\n")
save_file(out, folder / "options.safetensors")
