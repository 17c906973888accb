"""Writes windows.nemo and windows.json: a small MarbleNet for windows of NeMo's with random weights, and what NeMo makes
of a sound with it: probabilities, their smoothings, segments (nemo_toolkit 3.0.0, torch, on a CPU).

    python windows.py
"""
import json
import math
from pathlib import Path
from types import SimpleNamespace

import torch
from nemo.collections.asr.data.audio_to_label import _vad_frame_seq_collate_fn
from nemo.collections.asr.models import EncDecClassificationModel
from nemo.collections.asr.parts.utils import vad_utils
from omegaconf import OmegaConf

WINDOW, STEP, OVERLAP = 0.63, 0.01, 0.875
LABELS = ["background", "speech"]


def block(filters, kernel, **over):
    return {"filters": filters, "repeat": 1, "kernel": [kernel], "stride": [1], "dilation": [1], "dropout": 0.0,
            "residual": False, "separable": True, **over}


torch.manual_seed(4)
model = EncDecClassificationModel(cfg=OmegaConf.create({
    "sample_rate": 16000, "labels": LABELS,
    "train_ds": {"manifest_filepath": None, "labels": LABELS, "shuffle": False, "sample_rate": 16000},
    "preprocessor": {"_target_": "nemo.collections.asr.modules.AudioToMFCCPreprocessor", "sample_rate": 16000,
                     "window_size": 0.025, "window_stride": 0.01, "window": "hann", "n_mels": 12, "n_mfcc": 12,
                     "n_fft": 512},
    "encoder": {"_target_": "nemo.collections.asr.modules.ConvASREncoder", "feat_in": 12, "activation": "relu",
                "conv_mask": True, "jasper": [block(8, 11), block(8, 13, repeat=2, residual=True),
                                              block(8, 29, dilation=[2]), block(8, 1, separable=False)]},
    "decoder": {"_target_": "nemo.collections.asr.modules.ConvASRDecoderClassification", "feat_in": 8, "num_classes": 2,
                "return_logits": True, "pooling_type": "avg"},
    "optim": {"name": "adamw", "lr": 0.001},
}))
# 2.1 s that grow louder and softer, and a rest that is no whole step.
sound = torch.tensor([0.4 * math.sin(0.03 * i + 1e-6 * i * i) * math.sin(0.0004 * i) ** 3 for i in range(33_650)])
how = SimpleNamespace(featurizer=SimpleNamespace(sample_rate=16000), window_length_in_sec=WINDOW,
                      shift_length_in_sec=STEP, normalize_audio=False)
zero = torch.zeros(1, dtype=torch.long)
windows, lengths, _, _ = _vad_frame_seq_collate_fn(how, [(sound, torch.tensor(len(sound)), zero, zero + 1)])
with torch.no_grad():
    model.train()
    for _ in range(20):
        model.forward(input_signal=windows, input_signal_length=lengths)
    model.eval()
    said = model.forward(input_signal=windows, input_signal_length=lengths)
    plain = torch.softmax(said, -1)[:, 1]
arguments = {"overlap": OVERLAP, "window_length_in_sec": WINDOW, "shift_length_in_sec": STEP}
smooth = {how: vad_utils.generate_overlap_vad_seq_per_tensor(plain, arguments, how) for how in ["mean", "median"]}
sort = smooth["median"].sort().values
gap, at = (sort[1:] - sort[:-1])[60:150].max(0)
onset = float((sort[60 + at] + sort[61 + at]) / 2)
rules = {"onset": onset, "offset": onset - 0.01, "pad_onset": 0.05, "pad_offset": 0.1, "min_duration_on": 0.2,
         "min_duration_off": 0.1, "filter_speech_first": 1.0}
tables = [vad_utils.generate_vad_segment_table_per_tensor(plain, rules | {"filter_speech_first": first})
          for first in (1.0, 0.0)]
folder = Path(__file__).parent
model.save_to(str(folder / "windows.nemo"))
values = lambda x: [round(float(v), 7) for v in x]
(folder / "windows.json").write_text(json.dumps({
    "plain": values(plain), "mean": values(smooth["mean"]), "median": values(smooth["median"]), "rules": rules,
    "segments": [[values(row[:2]) for row in table] for table in tables],
}) + "\n")
print(gap, plain.min(), plain.max(), tables)
