"""PyTorch, eager: what its users write."""

import os

import torch
import torch.nn.functional as F

from protocol import quartznet_blocks, serve, tokens, uniform, weight

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


def tensor(name, sizes, scale=1.0):
    return torch.from_numpy(uniform(name, sizes, scale))


def gemm(m, k, n):
    a, b, c = tensor("a", (m, k)), tensor("b", (k, n)), torch.empty(m, n)
    return lambda: torch.mm(a, b, out=c), lambda: c.numpy()


class Weights(dict):
    """Parameters by name, made when first asked for."""

    def __init__(self, train=False):
        super().__init__()
        self.train = train

    def get(self, name, *sizes):
        if name not in self:
            w = torch.from_numpy(weight(name, sizes).copy())
            self[name] = torch.nn.Parameter(w) if self.train else w
        return self[name]

    def linear(self, x, name, n_in, n_out, bias=True):
        b = self.get(f"{name}.bias", n_out) if bias else None
        return F.linear(x, self.get(f"{name}.weight", n_out, n_in), b)

    def layer_norm(self, x, name, d):
        return F.layer_norm(x, (d,), self.get(f"{name}.weight", d), self.get(f"{name}.bias", d))


def gpt(p, x, d, heads, layers, vocab, positions):
    b, t = x.shape
    h = F.embedding(x, p.get("embed.weight", vocab, d)) + p.get("positions.weight", positions, d)[:t]
    for i in range(layers):
        n = f"blocks.{i}"
        a = p.layer_norm(h, f"{n}.norm1", d)
        q, k, v = (
            p.linear(a, f"{n}.attn.{part}_proj", d, d).view(b, t, heads, d // heads).transpose(1, 2) for part in "qkv"
        )
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, d)
        h = h + p.linear(o, f"{n}.attn.o_proj", d, d)
        m = p.layer_norm(h, f"{n}.norm2", d)
        m = F.gelu(p.linear(m, f"{n}.mlp.up_proj", d, 4 * d))
        h = h + p.linear(m, f"{n}.mlp.down_proj", 4 * d, d)
    return p.layer_norm(h, "norm", d)


def step():
    x, y = (torch.from_numpy(tokens(n, (8, 256), 1000)).long() for n in "xy")
    p = Weights(train=True)

    def loss():
        h = gpt(p, x, 256, 4, 4, 1000, 256)
        return F.cross_entropy(p.linear(h, "head", 256, 1000, bias=False).view(-1, 1000), y.view(-1))

    loss()
    optimizer = torch.optim.AdamW(p.values(), lr=1e-3, weight_decay=0.01, fused=True)
    losses = []

    def run():
        optimizer.zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        optimizer.step()
        if len(losses) < 3:
            losses.append(value.item())

    for _ in range(3):
        run()
    return run, lambda: losses


def prompt(shape, count):
    if shape != "gpt2":
        raise ValueError(f"no shape `{shape}`")
    x = torch.from_numpy(tokens("prompt", (1, 1024), 50257)[:, :count].copy()).long()
    p = Weights()
    result = []

    @torch.inference_mode()
    def run():
        h = gpt(p, x, 768, 12, 12, 50257, 1024)
        result[:] = [p.linear(h[:, -1:], "head", 768, 50257, bias=False)]

    run()
    return run, lambda: result[0].numpy()


def quartznet():
    p, result = Weights(), []
    x = tensor("features", (1, 64, 1000))

    def norm(x, name, n):
        mean, var = p.get(f"{name}.running_mean", n), p.get(f"{name}.running_var", n)
        return F.batch_norm(x, mean, var, p.get(f"{name}.weight", n), p.get(f"{name}.bias", n))

    def sub(x, name, i, o, k, stride=1, dilation=1):
        w = p.get(f"{name}.depthwise.weight", i, 1, k)
        x = F.conv1d(x, w, stride=stride, padding=dilation * (k - 1) // 2, dilation=dilation, groups=i)
        return norm(F.conv1d(x, p.get(f"{name}.pointwise.weight", o, i, 1)), f"{name}.norm", o)

    @torch.inference_mode()
    def run():
        h = sub(x, "first", 64, 256, 33, stride=2).relu()
        for name, i, o, k in quartznet_blocks():
            y = sub(h, f"{name}.first", i, o, k)
            for r in range(4):
                y = sub(y.relu(), f"{name}.rest.{r}", o, o, k)
            side = norm(F.conv1d(h, p.get(f"{name}.residual.weight", o, i, 1)), f"{name}.residual_norm", o)
            h = (y + side).relu()
        h = sub(h, "wide", 512, 512, 87, dilation=2).relu()
        result[:] = [norm(F.conv1d(h, p.get("out.weight", 1024, 512, 1)), "out_norm", 1024).relu()]

    run()
    return run, lambda: result[0].numpy()


def rows(what, n):
    count = (64 << 20) // 4 // n
    x, result = tensor("x", (count, n), 4.0), []
    y = torch.from_numpy(tokens("y", (count,), n)).long()
    f = {
        "softmax": lambda: x.softmax(-1),
        "layer_norm": lambda: F.layer_norm(x, (n,)),
        "rms_norm": lambda: F.rms_norm(x, (n,), eps=1e-5),
        "gelu": lambda: F.gelu(x),
        "cross_entropy": lambda: F.cross_entropy(x, y).reshape(1),
    }[what]

    @torch.inference_mode()
    def run():
        result[:] = [f()]

    return run, lambda: result[0].numpy()


def load(words):
    numbers = [int(w) for w in words[1:] if w.isdigit()]
    match words[0]:
        case "prompt":
            return prompt(words[1], int(words[2]))
        case "quartznet":
            return quartznet()
        case "rows":
            return rows(words[1], int(words[2]))
        case "gemm" | "packed":
            return gemm(*numbers)
        case "step":
            return step()
    raise ValueError(f"no case `{words[0]}`")


serve(load)
