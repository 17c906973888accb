"""Writes streaming.json and streaming.safetensors: a small cache-aware streaming FastConformer with a transducer,
random weights, as transformers' NemotronAsrStreamingForRNNT computes it (5.23.0, torch 2.11.0, on a CPU).

The configuration is NeMo's, and so are the names of the weights. For each look-ahead `out.N.encoder` is the stream of
a whole recording with the masks of chunks of N + 1 frames, and of two recordings padded to one length.
    python streaming.py
Its eager attention takes the mask, there of real numbers, the wrong way round; with sdpa it is of truth values.
"""
import json
import torch
from safetensors.torch import save_file
from transformers import NemotronAsrStreamingConfig, NemotronAsrStreamingEncoderConfig, NemotronAsrStreamingForRNNT

torch.manual_seed(3)
LEFT, AHEAD = 6, [2, 1, 0]
encoder = NemotronAsrStreamingEncoderConfig(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, intermediate_size=32,
    conv_kernel_size=5, subsampling_factor=8, subsampling_conv_channels=4, num_mel_bins=16, sliding_window=LEFT + 1,
    default_num_lookahead_tokens=2, scale_input=False, max_position_embeddings=200, hidden_act="silu",
    attention_bias=True, convolution_bias=True,
)
config = NemotronAsrStreamingConfig(
    encoder_config=encoder, vocab_size=12, blank_token_id=11, decoder_hidden_size=12, num_decoder_layers=2,
)
model = NemotronAsrStreamingForRNNT._from_config(config, attn_implementation="sdpa").eval()
for name, p in model.named_parameters():
    with torch.no_grad():
        p.copy_(torch.randn_like(p) * (0.3 if p.dim() > 1 else 0.2) + (1.0 if "norm" in name and name.endswith("weight") else 0.0))

x = torch.randn(2, 150, 16)
lengths = torch.tensor([150, 83])
mask = torch.arange(150)[None] < lengths[:, None]
x = x * mask[..., None]
out = {"in.features": x, "in.lengths": lengths}
with torch.no_grad():
    for ahead in AHEAD:
        got = model.encoder(x, attention_mask=mask, num_lookahead_tokens=ahead)
        out[f"out.{ahead}.encoder"] = got.last_hidden_state
        out[f"out.{ahead}.lengths"] = got.attention_mask.sum(-1).to(torch.int64)


def nemo(name):
    for a, b in [
        ("encoder.subsampling.conv_in.", "encoder.pre_encode.conv.0."),
        ("encoder.subsampling.layers.0.depthwise_conv.", "encoder.pre_encode.conv.2."),
        ("encoder.subsampling.layers.0.pointwise_conv.", "encoder.pre_encode.conv.3."),
        ("encoder.subsampling.layers.1.depthwise_conv.", "encoder.pre_encode.conv.5."),
        ("encoder.subsampling.layers.1.pointwise_conv.", "encoder.pre_encode.conv.6."),
        ("encoder.subsampling.linear.", "encoder.pre_encode.out."),
        (".self_attn.q_proj.", ".self_attn.linear_q."), (".self_attn.k_proj.", ".self_attn.linear_k."),
        (".self_attn.v_proj.", ".self_attn.linear_v."), (".self_attn.o_proj.", ".self_attn.linear_out."),
        (".self_attn.relative_k_proj.", ".self_attn.linear_pos."), (".self_attn.bias_", ".self_attn.pos_bias_"),
        (".conv.norm.", ".conv.batch_norm."), ("decoder.embedding.", "decoder.prediction.embed."),
        ("decoder.lstm.", "decoder.prediction.dec_rnn.lstm."), ("decoder.decoder_projector.", "joint.pred."),
        ("encoder_projector.", "joint.enc."), ("joint.head.", "joint.joint_net.2."),
    ]:
        name = name.replace(a, b)
    return name


out.update({nemo(k): v.contiguous() for k, v in model.state_dict().items()})
save_file(out, "streaming.safetensors")
settings = {
    "target": "nemo.collections.asr.models.rnnt_bpe_models.EncDecRNNTBPEModel",
    "encoder": {
        "_target_": "nemo.collections.asr.modules.ConformerEncoder", "feat_in": 16, "n_layers": 2, "d_model": 16,
        "n_heads": 2, "ff_expansion_factor": 2, "subsampling": "dw_striding", "subsampling_factor": 8,
        "subsampling_conv_channels": 4, "causal_downsampling": True, "conv_kernel_size": 5,
        "conv_norm_type": "layer_norm", "conv_context_size": "causal", "xscaling": False,
        "att_context_size": [[LEFT, n] for n in AHEAD], "att_context_style": "chunked_limited",
    },
    "decoder": {"prednet": {"pred_hidden": 12, "pred_rnn_layers": 2, "dropout": 0.2}, "vocab_size": 11},
    "joint": {"jointnet": {"joint_hidden": 12, "activation": "relu", "dropout": 0.2}, "num_classes": 11},
}
with open("streaming.json", "w") as f:
    json.dump(settings, f, indent=1)
    f.write("\n")
