"""Writes canary.json and canary.safetensors: a small Canary with random weights. The encoder is computed by
transformers' ParakeetEncoder (5.23.0), the decoder by the plain torch below, which follows NeMo's
TransformerDecoderNM (pre-LN) and TokenClassifier; greedy tokens by running it anew for each.
    python canary.py
"""
import json, math
import torch
from torch.nn.functional import layer_norm, linear, relu
from safetensors.torch import save_file
from transformers import ParakeetEncoder, ParakeetEncoderConfig

torch.manual_seed(5)
D, H, FFN, V, P, LAYERS, HEARD = 16, 2, 24, 18, 40, 2, 12
config = ParakeetEncoderConfig(
    hidden_size=HEARD, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, intermediate_size=24,
    conv_kernel_size=5, subsampling_factor=8, subsampling_conv_channels=4, num_mel_bins=16, scale_input=False,
)
encoder = ParakeetEncoder._from_config(config, attn_implementation="sdpa").eval()
w = {}
def new(name, *shape):
    norm = "norm" in name and name.endswith("weight")
    w[name] = torch.randn(*shape) * (0.1 if len(shape) == 1 else 0.7) + (1.0 if norm else 0.0)
with torch.no_grad():
    for name, p in encoder.named_parameters():
        p.copy_(torch.randn_like(p) * 0.3 + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
    for name, b in encoder.named_buffers():
        if name.endswith("running_var"):
            b.copy_(torch.rand_like(b) + 0.5)
        if name.endswith("running_mean"):
            b.copy_(torch.randn_like(b) * 0.1)
def both(name, o, i):
    new(name + ".weight", o, i), new(name + ".bias", o)
both("encoder_decoder_proj", D, HEARD)
E = "transf_decoder._embedding."
new(E + "token_embedding.weight", V, D), new(E + "layer_norm.weight", D), new(E + "layer_norm.bias", D)
pos = torch.arange(P)[:, None].float()
div = torch.exp(-math.log(10000.0) / D * torch.arange(0.0, D, 2))
table = torch.zeros(P, D)
table[:, 0::2], table[:, 1::2] = torch.sin(pos * div), torch.cos(pos * div)
w[E + "position_embedding.pos_enc"] = table / math.sqrt(D)
for i in range(LAYERS):
    L = f"transf_decoder._decoder.layers.{i}."
    for n in (1, 2, 3):
        new(L + f"layer_norm_{n}.weight", D), new(L + f"layer_norm_{n}.bias", D)
    for part in ("first", "second"):
        for net in ("query_net", "key_net", "value_net", "out_projection"):
            both(L + f"{part}_sub_layer.{net}", D, D)
    both(L + "third_sub_layer.dense_in", FFN, D), both(L + "third_sub_layer.dense_out", D, FFN)
F = "transf_decoder._decoder.final_layer_norm."
new(F + "weight", D), new(F + "bias", D)
w["log_softmax.mlp.layer0.weight"] = w[E + "token_embedding.weight"].clone()
new("log_softmax.mlp.layer0.bias", V)


def lin(x, name):
    return linear(x, w[name + ".weight"], w[name + ".bias"])


def norm(x, name):
    return layer_norm(x, (D,), w[name + ".weight"], w[name + ".bias"])


def attend(x, memory, name, mask):
    split = lambda y: y.view(*y.shape[:2], H, D // H).transpose(1, 2)
    q, k, v = split(lin(x, name + ".query_net")), split(lin(memory, name + ".key_net")), split(lin(memory, name + ".value_net"))
    scores = (q @ k.transpose(2, 3)) / math.sqrt(D // H)
    y = torch.softmax(scores.masked_fill(~mask, float("-inf")), -1) @ v
    return lin(y.transpose(1, 2).reshape(*x.shape), name + ".out_projection")


def decode(ids, memory, counted):
    n = ids.shape[1]
    x = w[E + "token_embedding.weight"][ids] + w[E + "position_embedding.pos_enc"][:n]
    x = norm(x, E + "layer_norm")
    causal = torch.ones(n, n, dtype=torch.bool).tril()[None, None]
    for i in range(LAYERS):
        L = f"transf_decoder._decoder.layers.{i}."
        y = norm(x, L + "layer_norm_1")
        x = x + attend(y, y, L + "first_sub_layer", causal)
        x = x + attend(norm(x, L + "layer_norm_2"), memory, L + "second_sub_layer", counted[:, None, None, :])
        y = norm(x, L + "layer_norm_3")
        x = x + lin(relu(lin(y, L + "third_sub_layer.dense_in")), L + "third_sub_layer.dense_out")
    x = norm(x, F[:-1])
    return lin(x, "log_softmax.mlp.layer0")


x = torch.randn(2, 120, 16)
lengths = torch.tensor([120, 75])
mask = torch.arange(120)[None] < lengths[:, None]
x = x * mask[..., None]
ids = torch.randint(0, V, (2, 9))
prompt = torch.tensor([[4, 5, 6, 7, 8]])
out = {"in.features": x, "in.lengths": lengths, "in.ids": ids, "in.prompt": prompt}
with torch.no_grad():
    got = encoder(x, attention_mask=mask)
    counted = got.attention_mask.bool()
    memory = lin(got.last_hidden_state, "encoder_decoder_proj")
    out["out.logits"] = decode(ids, memory, counted)
    for row in range(2):
        text = prompt.clone()
        for _ in range(12):
            text = torch.cat([text, decode(text, memory[row : row + 1], counted[row : row + 1])[:, -1:].argmax(-1)], 1)
        out[f"gen.{row}"] = text[0, 5:]

names = [
    ("subsampling.layers.", "pre_encode.conv."), ("subsampling.linear.", "pre_encode.out."),
    (".self_attn.q_proj.", ".self_attn.linear_q."), (".self_attn.k_proj.", ".self_attn.linear_k."),
    (".self_attn.v_proj.", ".self_attn.linear_v."), (".self_attn.o_proj.", ".self_attn.linear_out."),
    (".self_attn.relative_k_proj.", ".self_attn.linear_pos."), (".self_attn.bias_", ".self_attn.pos_bias_"),
    (".conv.norm.", ".conv.batch_norm."),
]
for k, v in encoder.state_dict().items():
    for a, b in names:
        k = k.replace(a, b)
    w["encoder." + k] = v
out.update({k: v.contiguous() for k, v in w.items()})
save_file(out, "canary.safetensors")
settings = {
    "target": "nemo.collections.asr.models.aed_multitask_models.EncDecMultiTaskModel", "prompt_format": "canary",
    "encoder": {
        "_target_": "nemo.collections.asr.modules.ConformerEncoder", "feat_in": 16, "n_layers": 1, "d_model": HEARD,
        "n_heads": 2, "ff_expansion_factor": 2, "subsampling": "dw_striding", "subsampling_factor": 8,
        "subsampling_conv_channels": 4, "conv_kernel_size": 5, "xscaling": False,
    },
    "transf_decoder": {"config_dict": {
        "vocab_size": None, "hidden_size": D, "num_layers": LAYERS, "num_attention_heads": H, "inner_size": FFN,
        "hidden_act": "relu", "pre_ln": True, "max_sequence_length": P, "learn_positional_encodings": False,
    }},
    "head": {"num_layers": 1, "num_classes": V},
}
with open("canary.json", "w") as f:
    json.dump(settings, f, indent=1)
    f.write("\n")
print([out[f"gen.{i}"].tolist() for i in range(2)])
