"""Makes features.safetensors: features of one recording by the reference implementations.

python3 features.py, with numpy, torch and torchaudio 2.11.0, librosa 0.11.0, safetensors. The recording is 5,999
samples at 16 kHz: a rising tone, noise, and a quiet part.
"""
import os
import librosa
import numpy as np
import torch
import torchaudio
from safetensors.numpy import save_file
from torchaudio.compliance.kaldi import fbank

os.chdir(os.path.dirname(os.path.abspath(__file__)))
n = 5999
t = np.arange(n) / 16000
rng = np.random.default_rng(7)
x = 0.3 * np.sin(2 * np.pi * (150 * t + 4000 * t * t)) + 0.05 * rng.standard_normal(n) + 0.01
x[4000:5000] *= 0.01
x = x.astype(np.float32)
wave = torch.from_numpy(x)[None]
out = {"audio": x}

# As NeMo's AudioToMFCCPreprocessor calls it.
mfcc = torchaudio.transforms.MFCC(sample_rate=16000, n_mfcc=40, dct_type=2, norm="ortho", log_mels=True, melkwargs=dict(
    f_min=0.0, f_max=None, n_mels=64, n_fft=512, win_length=400, hop_length=160, window_fn=torch.hann_window))
out["mfcc"] = mfcc(wave)[0].T.numpy()
decibels = torchaudio.transforms.MFCC(sample_rate=16000, n_mfcc=13, melkwargs=dict(n_mels=64, n_fft=512, win_length=400, hop_length=160))
out["mfcc_decibels"] = decibels(wave)[0].T.numpy()

out["fbank"] = fbank(wave, sample_frequency=16000.0).numpy()
out["fbank_80"] = fbank(wave * 32768, num_mel_bins=80, use_energy=True, window_type="hamming", sample_frequency=16000.0).numpy()
out["fbank_whole"] = fbank(wave, num_mel_bins=40, snip_edges=False, high_freq=-400.0, raw_energy=False, use_energy=True,
                           energy_floor=0.0, subtract_mean=True, use_power=False, sample_frequency=16000.0).numpy()

power = librosa.feature.melspectrogram(y=x, sr=16000, n_fft=400, hop_length=160, n_mels=40)
out["librosa"] = power.T.astype(np.float32)

# NeMo 1.x: FilterbankFeatures with reflected edges and L // hop + 1 frames.
y = torch.cat((wave[:, :1], wave[:, 1:] - 0.97 * wave[:, :-1]), dim=1)
s = torch.stft(y, 512, 160, 400, torch.hann_window(400, periodic=False), center=True, pad_mode="reflect", return_complex=True)
s = torch.view_as_real(s).pow(2).sum(-1)
filters = torch.from_numpy(librosa.filters.mel(sr=16000, n_fft=512, n_mels=80, fmin=0, fmax=8000)).float()
m = torch.log(filters @ s + 2**-24)
m = (m - m.mean(dim=2, keepdim=True)) / (m.std(dim=2, keepdim=True) + 1e-5)
out["nemo_1"] = m[0].T.numpy()

# transformers' Wav2Vec2FeatureExtractor.
out["wav2vec2"] = ((x - x.mean()) / np.sqrt(x.var() + 1e-7)).astype(np.float32)

save_file({k: np.ascontiguousarray(v) for k, v in out.items()}, "features.safetensors")
for k, v in out.items():
    print(k, v.shape)
