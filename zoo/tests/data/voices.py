"""TitaNet and ECAPA as NeMo defines them (conv_asr.py, tdnn_attention.py, jasper.py), tiny, with random weights: outputs for the test."""
import json, sys, torch, torch.nn as nn, torch.nn.functional as F
from safetensors.torch import save_file
torch.manual_seed(1); torch.set_default_dtype(torch.float64)

def mask_of(n, T): return (torch.arange(T)[None] < n[:, None]).double()

class MaskedConv(nn.Module):
    def __init__(s, i, o, k, st=1, d=1, g=1): super().__init__(); s.conv = nn.Conv1d(i, o, k, st, d*(k-1)//2, d, g, bias=False)
    def forward(s, x, n): return s.conv(x * mask_of(n, x.shape[2])[:, None])
class SE(nn.Module):
    def __init__(s, c): super().__init__(); s.fc = nn.Sequential(nn.Linear(c, c//8, bias=False), nn.ReLU(), nn.Linear(c//8, c, bias=False))
    def forward(s, x, n):
        m = mask_of(n, x.shape[2])[:, None]; x = x*m
        return x * torch.sigmoid(s.fc(x.sum(2) / n[:, None]))[:, :, None]
class Block(nn.Module):
    def __init__(s, i, o, k, R, res):
        super().__init__(); L = []; c = i
        for r in range(R):
            L += [MaskedConv(c, c, k, g=c), MaskedConv(c, o, 1), nn.BatchNorm1d(o, eps=1e-3)]
            if r < R-1: L += [nn.ReLU(), nn.Dropout(0)]
            c = o
        L.append(SE(o)); s.mconv = nn.ModuleList(L)
        if res: s.res = nn.ModuleList([nn.ModuleList([MaskedConv(i, o, 1), nn.BatchNorm1d(o, eps=1e-3)])])
        s.hasres = res
    def forward(s, x, n):
        y = x
        for l in s.mconv: y = l(y, n) if isinstance(l, (MaskedConv, SE)) else l(y)
        if s.hasres: y = y + s.res[0][1](s.res[0][0](x, n))
        return F.relu(y)
class TDNN(nn.Module):
    def __init__(s, i, o, k=1, d=1): super().__init__(); s.conv_layer = nn.Conv1d(i, o, k, dilation=d, padding=d*(k-1)//2); s.bn = nn.BatchNorm1d(o)
    def forward(s, x): return s.bn(F.relu(s.conv_layer(x)))
def stats(x, w):
    m = (w*x).sum(2); return m, (w*(x-m[:, :, None])**2).sum(2).clamp(1e-10).sqrt()
class Pool(nn.Module):
    def __init__(s, c): super().__init__(); s.attention_layer = nn.Sequential(TDNN(3*c, 128), nn.Tanh(), nn.Conv1d(128, c, 1))
    def forward(s, x, n):
        T = x.shape[2]; m = mask_of(n, T)[:, None]
        mu, sd = stats(x, m / n[:, None, None])
        a = s.attention_layer(torch.cat([x, mu[:, :, None].repeat(1, 1, T), sd[:, :, None].repeat(1, 1, T)], 1))
        a = a.masked_fill(m == 0, -float('inf')).softmax(2)
        return torch.cat(stats(x, a), 1)[:, :, None]
class Decoder(nn.Module):
    def __init__(s, c, e, k): super().__init__(); s._pooling = Pool(c); s.emb_layers = nn.ModuleList([nn.Sequential(nn.BatchNorm1d(2*c), nn.Conv1d(2*c, e, 1))]); s.final = nn.Linear(e, k, bias=False)
    def forward(s, x, n):
        e = s.emb_layers[0](s._pooling(x, n))[:, :, 0]
        return e, s.final(F.normalize(e))
class Enc(nn.Module):
    def __init__(s, spec):
        super().__init__(); s.encoder = nn.ModuleList([Block(*b) for b in spec])
    def forward(s, x, n):
        for b in s.encoder: x = b(x, n)
        return x
class SEB(nn.Module):
    def __init__(s, c, k, d, g):
        super().__init__()
        s.group_tdnn_block = nn.Sequential(TDNN(c, c), nn.Conv1d(c, c, k, dilation=d, padding=d*(k-1)//2, groups=g), nn.ReLU(), nn.BatchNorm1d(c), TDNN(c, c))
        s.se_layer = nn.Module(); s.se_layer.se_layer = nn.Sequential(nn.Conv1d(c, 128, 1), nn.ReLU(), nn.BatchNorm1d(128), nn.Conv1d(128, c, 1), nn.Sigmoid())
    def forward(s, x, n):
        m = mask_of(n, x.shape[2])[:, None]
        y = s.group_tdnn_block[0](x) * m   # masked: see ecapa.rs
        for l in list(s.group_tdnn_block)[1:]: y = l(y)
        return s.se_layer.se_layer((y*m).sum(2, keepdim=True) / n[:, None, None]) * y + x
class Ecapa(nn.Module):
    def __init__(s, f, flt, ks, ds, g):
        super().__init__(); s.layers = nn.ModuleList([TDNN(f, flt[0], ks[0], ds[0])] + [SEB(flt[i], ks[i], ds[i], g) for i in range(1, len(flt)-1)])
        s.feature_agg = TDNN(flt[-1], flt[-1], ks[-1], ds[-1])
    def forward(s, x, n):
        m = mask_of(n, x.shape[2])[:, None]
        x = s.layers[0](x*m); out = []
        for l in list(s.layers)[1:]: x = l(x, n); out.append(x)
        return s.feature_agg(torch.cat(out, 1) * m)

def run(name, enc, c, out):
    model = nn.Module(); model.encoder = enc; model.decoder = Decoder(c, 12, 5)
    for p in model.parameters(): nn.init.normal_(p, 0, 0.3)
    for b in model.modules():
        if isinstance(b, nn.BatchNorm1d): b.running_mean.normal_(0, .3); b.running_var.uniform_(.5, 2); b.weight.data.uniform_(.5, 1.5)
    model.eval()
    x = torch.randn(2, 20, 8); n = torch.tensor([20, 13]).double()
    x[1, 13:] = 0
    with torch.no_grad(): e, l = model.decoder(model.encoder(x.transpose(1, 2), n), n)
    out.update({f"{name}.model.{k}": v.float().contiguous() if v.is_floating_point() else v for k, v in model.state_dict().items()})
    out.update({f"{name}.x": x.float(), f"{name}.embedding": e.float().contiguous(), f"{name}.logits": l.float().contiguous()})
out = {}
run("titanet", Enc([(8, 16, 3, 1, False), (16, 16, 7, 3, True), (16, 24, 1, 1, False)]), 24, out)
run("ecapa", Ecapa(8, [16, 16, 16, 32], [5, 3, 3, 1], [1, 2, 3, 1], 4), 32, out)
logits = torch.rand(6, 5) * 1.8 - .9; labels = torch.tensor([0, 1, 2, 3, 4, 2])
t = logits.gather(1, labels[:, None])[:, 0]
num = 30 * torch.cos(torch.acos(t.clamp(-1+1e-7, 1-1e-7)) + .2)
den = num.exp() + torch.stack([torch.cat([r[:y], r[y+1:]]).mul(30).exp().sum() for r, y in zip(logits, labels)])
out.update({"aam.logits": logits.float(), "aam.labels": labels.int(), "aam.loss": -(num - den.log()).mean()[None].float()})
save_file(out, sys.argv[1])
