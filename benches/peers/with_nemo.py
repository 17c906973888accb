#!/usr/bin/env python3
"""Holds `.nemo` archives against NeMo itself: a check, no bench, so `run.py` does not know it.

    benches/peers/with_nemo.py RECORDING.wav                  all families
    benches/peers/with_nemo.py RECORDING.wav --only canary    those whose name contains this, or one of several,
                                                              with commas between

NeMo (`pip install "nemo_toolkit[asr]==3.0.0"`, whose Python runs this) builds a small model of each family with
random weights and saves it. Then for the recording (16 kHz, one channel):
  read     what the command `mobilis` hears with NeMo's archive is what NeMo hears: the text, for transducers the times
           of words and segments too, probabilities of speech with their smoothing and segments, vectors of one length;
  written  NeMo restores what `mobilis convert` writes of it, and hears the same, bit for bit.
Archives given after the recording are restored by NeMo too, and must be heard by both alike.
Without NeMo it says so and ends well.
"""

import argparse
import contextlib
import functools
import json
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from unittest import mock

REPO = Path(__file__).resolve().parents[2]
WORDS = (REPO / "README.md").read_text(encoding="utf-8")
LETTERS = list(" abcdefghijklmnopqrstuvwxyz'")


def features(**over):
    return {
        "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor", "sample_rate": 16000,
        "normalize": "per_feature", "window_size": 0.025, "window_stride": 0.01, "window": "hann", "features": 32,
        "n_fft": 512, "frame_splicing": 1, "dither": 0.00001, "pad_to": 0, **over,
    }


def block(filters, kernel, **over):
    return {"filters": filters, "repeat": 1, "kernel": [kernel], "stride": [1], "dilation": [1], "dropout": 0.0,
            "residual": False, "separable": True, **over}


def jasper(*blocks, feat_in=32, **over):
    return {"_target_": "nemo.collections.asr.modules.ConvASREncoder", "feat_in": feat_in, "activation": "relu",
            "conv_mask": True, "jasper": list(blocks), **over}


def conformer(**over):
    return {
        "_target_": "nemo.collections.asr.modules.ConformerEncoder", "feat_in": 32, "feat_out": -1, "n_layers": 2,
        "d_model": 32, "subsampling": "dw_striding", "subsampling_factor": 8, "subsampling_conv_channels": 16,
        "ff_expansion_factor": 2, "self_attention_model": "rel_pos", "n_heads": 4, "att_context_size": [-1, -1],
        "xscaling": False, "conv_kernel_size": 9, "dropout": 0.0, "dropout_pre_encoder": 0.0, "dropout_emb": 0.0,
        "dropout_att": 0.0, **over,
    }


def ctc_head(width, **over):
    return {"_target_": "nemo.collections.asr.modules.ConvASRDecoder", "feat_in": width, "num_classes": -1,
            "vocabulary": [], **over}


def tokenizer(folder, size=96, name="tokens", symbols=()):
    """A SentencePiece tokenizer as NeMo's script makes it, but without the tables that normalise."""
    from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

    place = Path(folder) / name
    place.mkdir(exist_ok=True)
    if not (place / "tokenizer.model").exists():
        text = place / "text.txt"
        text.write_text("\n".join(symbols) or WORDS.lower(), encoding="utf-8")
        SentencePieceTrainer.train(
            input=str(text), model_prefix=str(place / "tokenizer"), vocab_size=size, model_type="unigram", bos_id=-1,
            eos_id=-1, hard_vocab_limit=False, remove_extra_whitespaces=False, normalization_rule_name="identity",
            user_defined_symbols=list(symbols), character_coverage=1.0 if symbols else 0.98, minloglevel=2)
        pieces = SentencePieceProcessor(str(place / "tokenizer.model"))
        (place / "vocab.txt").write_text("\n".join(pieces.IdToPiece(i) for i in range(1, len(pieces))), "utf-8")
    return {"dir": str(place), "type": "bpe"}


def transducer(extra=0):
    tdt = {"durations": [0, 1, 2, 3, 4], "sigma": 0.0, "omega": 0.0, "fastemit_lambda": 0.0}
    config = {
        "model_defaults": {"enc_hidden": 32, "pred_hidden": 24, "joint_hidden": 40,
                           **({"tdt_durations": tdt["durations"], "num_tdt_durations": 5} if extra else {})},
        "decoder": {"_target_": "nemo.collections.asr.modules.RNNTDecoder", "normalization_mode": None,
                    "random_state_sampling": False, "blank_as_pad": True,
                    "prednet": {"pred_hidden": 24, "pred_rnn_layers": 1, "t_max": None, "dropout": 0.0}},
        "joint": {"_target_": "nemo.collections.asr.modules.RNNTJoint", "log_softmax": None, "preserve_memory": False,
                  "fuse_loss_wer": False, "fused_batch_size": -1, **({"num_extra_outputs": extra} if extra else {}),
                  "jointnet": {"joint_hidden": 40, "activation": "relu", "dropout": 0.0, "encoder_hidden": 32,
                               "pred_hidden": 24}},
        "decoding": {"strategy": "greedy_batch", "greedy": {"max_symbols": 5, "use_cuda_graph_decoder": False},
                     **({"model_type": "tdt", "durations": tdt["durations"]} if extra else {})},
        "loss": {"loss_name": "tdt" if extra else "default",
                 **({"tdt_kwargs": tdt} if extra else {"warprnnt_numba_kwargs": {"fastemit_lambda": 0.0}})},
    }
    return config


def canary(form, folder):
    languages = ["en", "de", "es", "fr"]
    common = ["<|startofcontext|>", "<|emo:undefined|>", "<|itn|>", "<|noitn|>", "<|timestamp|>", "<|notimestamp|>",
              "<|diarize|>", "<|nodiarize|>"]
    special = [*(f"<|{one}|>" for one in languages), "<|transcribe|>", "<|translate|>", *common]
    from nemo.collections.common.tokenizers.canary_tokenizer import DEFAULT_TOKENS

    symbols = [*DEFAULT_TOKENS, *special, *(f"<|{i}|>" for i in range(40))]
    langs = {"spl_tokens": tokenizer(folder, len(symbols) + 2, "special", symbols)}
    for i, one in enumerate(languages[:2]):
        langs[one] = tokenizer(folder, 70 + 10 * i, f"tokens-{one}")
    slots = {"source_lang": "en", "target_lang": "de", "pnc": "yes"}
    slots |= {"task": "translate"} if form == "canary" else {
        "decodercontext": "", "emotion": "<|emo:undefined|>", "itn": "no", "timestamp": "no", "diarize": "no"}
    return {
        "prompt_format": form, "restore_timestamps_model": False, "prompt_defaults": [{"role": "user", "slots": slots}],
        "model_defaults": {"asr_enc_hidden": 32, "lm_enc_hidden": 24, "lm_dec_hidden": 24},
        "tokenizer": {"type": "agg", "dir": None, "langs": langs, "custom_tokenizer": {
            "_target_": "nemo.collections.common.tokenizers.canary_tokenizer.CanaryTokenizer"}},
        "preprocessor": features(), "encoder": conformer(),
        "transf_encoder": {"_target_": "nemo.collections.asr.modules.transformer.transformer_encoders.TransformerEncoder",
                           "num_layers": 0, "hidden_size": 24, "inner_size": 48, "num_attention_heads": 2},
        "transf_decoder": {
            "_target_": "nemo.collections.asr.modules.transformer.get_nemo_transformer", "model_name": None,
            "pretrained": False, "encoder": None, "pre_ln_final_layer_norm": True,
            "config_dict": {"max_sequence_length": 128, "num_token_types": 0, "embedding_dropout": 0.0,
                            "learn_positional_encodings": False, "hidden_size": 24, "inner_size": 48, "num_layers": 2,
                            "num_attention_heads": 2, "ffn_dropout": 0.0, "attn_score_dropout": 0.0,
                            "attn_layer_dropout": 0.0, "hidden_act": "relu", "pre_ln": True, "vocab_size": None}},
        "head": {"_target_": "nemo.collections.asr.parts.submodules.token_classifier.TokenClassifier", "num_layers": 1,
                 "activation": "relu", "log_softmax": True, "hidden_size": 24, "dropout": 0.0,
                 "use_transformer_init": True},
        "decoding": {"strategy": "beam", "return_best_hypothesis": True,
                     "beam": {"beam_size": 1, "len_pen": 0.0, "max_generation_delta": 50}},
        "loss": {"_target_": "nemo.collections.common.losses.smoothed_cross_entropy.SmoothedCrossEntropyLoss",
                 "label_smoothing": 0.0, "pad_id": None},
    }


def families(folder):
    """Name: (class, configuration, what is asked of `mobilis`)."""
    ctc = lambda **over: {"tokenizer": tokenizer(folder), "preprocessor": features(), "encoder": conformer(**over),
                          "decoder": ctc_head(32)}
    rnnt = lambda extra=0, **over: {"tokenizer": tokenizer(folder), "preprocessor": features(), **transducer(extra),
                                    "encoder": conformer(**over)}
    both = {"aux_ctc": {"ctc_loss_weight": 0.3, "ctc_reduction": "mean_batch", "decoder": ctc_head(32),
                        "decoding": {"strategy": "greedy"}}}
    se = {"se": True, "se_context_size": -1, "se_reduction_ratio": 8}
    mfcc = {"_target_": "nemo.collections.asr.modules.AudioToMFCCPreprocessor", "sample_rate": 16000,
            "window_size": 0.025, "window_stride": 0.01, "window": "hann", "n_mels": 64, "n_mfcc": 64, "n_fft": 512}
    speaker = {"_target_": "nemo.collections.asr.modules.SpeakerDecoder", "feat_in": 48, "num_classes": 5,
               "emb_sizes": 24, "angular": True}
    loss = {"_target_": "nemo.collections.asr.losses.angularloss.AngularSoftmaxLoss", "scale": 30, "margin": 0.2}
    out = {
        "quartznet": ("EncDecCTCModel", {
            "labels": LETTERS, "preprocessor": features(pad_to=16), "decoder": ctc_head(48, vocabulary=LETTERS),
            "encoder": jasper(block(32, 11, stride=[2]), block(32, 13, repeat=3, residual=True),
                              block(48, 15, dilation=[2]), block(48, 1, separable=False)),
        }, "text"),
        "jasper": ("EncDecCTCModel", {
            "labels": LETTERS, "preprocessor": features(), "decoder": ctc_head(48, vocabulary=LETTERS),
            "encoder": jasper(block(32, 11, stride=[2], separable=False),
                              *[block(32, 9, repeat=2, residual=True, residual_dense=True, separable=False)] * 2,
                              block(48, 1, separable=False)),
        }, "text"),
        "citrinet": ("EncDecCTCModelBPE", {
            "tokenizer": tokenizer(folder), "preprocessor": features(pad_to=16), "decoder": ctc_head(48),
            "encoder": jasper(block(32, 5, **se), block(32, 11, repeat=2, stride=[2], stride_last=True, residual=True,
                              residual_mode="stride_add", kernel_size_factor=0.5, **se),
                              block(32, 13, repeat=2, residual=True, **se), block(48, 21, **se)),
        }, "text"),
        "conformer-ctc": ("EncDecCTCModelBPE", ctc(subsampling="striding", subsampling_factor=4, xscaling=True,
                                                   conv_kernel_size=15), "text"),
        "fastconformer-ctc": ("EncDecCTCModelBPE", ctc(untie_biases=False, use_bias=False), "text"),
        "fastconformer-local": ("EncDecCTCModelBPE", ctc(self_attention_model="rel_pos_local_attn",
                                                         att_context_size=[12, 12]), "text"),
        "fastconformer-global": ("EncDecCTCModelBPE", ctc(self_attention_model="rel_pos_local_attn",
                                 att_context_size=[12, 12], global_tokens=2, global_tokens_spacing=3), "text"),
        "fastconformer-global-separate": ("EncDecCTCModelBPE", ctc(self_attention_model="rel_pos_local_attn",
                                 att_context_size=[12, 12], global_tokens=1, global_attn_separate=True), "text"),
        "conformer-abs": ("EncDecCTCModelBPE", ctc(self_attention_model="abs_pos", xscaling=True), "text"),
        "conformer-reduction": ("EncDecCTCModelBPE", ctc(subsampling_factor=4, reduction="striding",
                                reduction_position=0, reduction_factor=2), "text"),
        "conformer-pooling": ("EncDecCTCModelBPE", ctc(subsampling_factor=4, reduction="pooling",
                              reduction_position=-1, reduction_factor=2), "text"),
        "conformer-reduction-end": ("EncDecCTCModelBPE", ctc(subsampling_factor=4, reduction="striding",
                                    reduction_position=-1, reduction_factor=2), "text"),
        "conformer-stacking": ("EncDecCTCModelBPE", ctc(subsampling="stacking", subsampling_factor=4), "text"),
        "conformer-stacking-norm": ("EncDecCTCModelBPE", ctc(subsampling="stacking_norm", subsampling_factor=6), "text"),
        "conformer-each-frame": ("EncDecCTCModelBPE", ctc(subsampling_factor=1), "text"),
        "conformer-scale": ("EncDecCTCModelBPE", ctc(conv_norm_type="fused_batch_norm"), "text"),
        "conformer-shared": ("EncDecCTCModelBPE", ctc(untie_biases=False, self_attention_model="rel_pos_local_attn",
                             att_context_size=[12, 12]), "text"),
        "conformer-unified": ("EncDecCTCModelBPE", ctc(att_context_style="chunked_limited_with_rc",
                              att_chunk_context_size=[[70], [1, 2], [0, 1]], conv_context_style="dcc"), "text"),
        "fastconformer-rnnt": ("EncDecRNNTBPEModel", rnnt(), "text"),
        "fastconformer-tdt": ("EncDecRNNTBPEModel", rnnt(5), "text"),
        "hybrid-rnnt": ("EncDecHybridRNNTCTCBPEModel", rnnt() | both, "text"),
        "hybrid-tdt": ("EncDecHybridRNNTCTCBPEModel", rnnt(5) | both, "text"),
        "streaming": ("EncDecHybridRNNTCTCBPEModel", rnnt(causal_downsampling=True, att_context_size=[12, 3],
                      att_context_style="chunked_limited", conv_context_size="causal", conv_norm_type="layer_norm")
                      | both | {"preprocessor": features(normalize="NA")}, "text"),
        "canary": ("EncDecMultiTaskModel", canary("canary", folder), "translation"),
        "canary2": ("EncDecMultiTaskModel", canary("canary2", folder), "translation"),
        "matchboxnet": ("EncDecClassificationModel", {
            "labels": ["yes", "no", "up", "down"], "preprocessor": mfcc,
            "decoder": {"_target_": "nemo.collections.asr.modules.ConvASRDecoderClassification", "feat_in": 48,
                        "num_classes": 4, "return_logits": True, "pooling_type": "avg"},
            "encoder": jasper(block(32, 11), block(32, 13, repeat=2, residual=True), block(48, 29, dilation=[2]),
                              block(48, 1, separable=False), feat_in=64),
        }, "label"),
        "marblenet": ("EncDecClassificationModel", {
            "labels": ["background", "speech"], "preprocessor": mfcc,
            "decoder": {"_target_": "nemo.collections.asr.modules.ConvASRDecoderClassification", "feat_in": 48,
                        "num_classes": 2, "return_logits": True, "pooling_type": "avg"},
            "encoder": jasper(block(32, 11), block(32, 13, repeat=2, residual=True), block(48, 29, dilation=[2]),
                              block(48, 1, separable=False), feat_in=64),
        }, "windows"),
        "marblenet-frames": ("EncDecFrameClassificationModel", {
            "labels": ["background", "speech"], "num_classes": 2, "preprocessor": features(normalize="None", pad_to=2),
            "decoder": {"_target_": "nemo.collections.common.parts.MultiLayerPerceptron", "hidden_size": 48,
                        "num_classes": 2, "num_layers": 1, "activation": "relu", "log_softmax": False},
            "encoder": jasper(block(32, 11, stride=[2]), block(32, 13, repeat=2, residual=True),
                              block(48, 29, dilation=[2]), block(48, 1, separable=False)),
        }, "frames"),
        "titanet": ("EncDecSpeakerLabelModel", {
            "labels": None, "preprocessor": features(pad_to=16), "loss": loss,
            "decoder": speaker | {"pool_mode": "attention"},
            "encoder": jasper(block(32, 3, **se), block(32, 7, repeat=3, residual=True, **se),
                              block(48, 1, **se)),
        }, "voice"),
        "ecapa": ("EncDecSpeakerLabelModel", {
            "labels": None, "preprocessor": features(), "loss": loss,
            "decoder": speaker | {"pool_mode": "attention", "feat_in": 96},
            "encoder": {"_target_": "nemo.collections.asr.modules.ECAPAEncoder", "feat_in": 32,
                        "filters": [32, 32, 32, 32, 96], "kernel_sizes": [5, 3, 3, 3, 1], "dilations": [1, 1, 1, 1, 1],
                        "scale": 8},
        }, "voice"),
    }
    for _, config, _ in out.values():
        config.setdefault("sample_rate", 16000)
        if "tokenizer" in config and "prompt_format" not in config:
            config["validation_ds"] = {"manifest_filepath": None, "shuffle": False}
        elif "labels" in config and "num_classes" not in config:
            config["train_ds"] = {"manifest_filepath": None, "labels": config["labels"], "shuffle": False,
                                  "sample_rate": 16000}
        config.setdefault("optim", {"name": "adamw", "lr": 0.001, "sched": {"name": "CosineAnnealing", "min_lr": 0.0}})
    return out


def restore(path):
    from nemo.core import ModelPT

    found = ModelPT.restore_from(str(path), map_location="cpu")
    if hasattr(found, "prompt"):
        # As `ours` is asked: what NeMo is not told it fills in by itself, English to English.
        asked = {"source_lang": "en", "target_lang": "de", "taskname": "ast"}
        found.transcribe = functools.partial(found.transcribe, **asked)
    return found.eval()


def build(name, kind, config, sound):
    """A model of NeMo's with random weights, whose running statistics are those of the recording."""
    import torch
    from nemo.collections.asr import models
    from omegaconf import OmegaConf

    torch.manual_seed(len(name))
    model = getattr(models, kind)(cfg=OmegaConf.create(config))
    with torch.no_grad():
        for key, p in model.named_parameters():
            if p.dim() > 1 and "norm" not in key:
                p.mul_(1.5)
            elif key.endswith("bias"):
                p.add_(torch.randn_like(p) * 0.1)
        model.train()
        for _ in range(30):
            heard(model, sound, 2 if "Speaker" in kind else 1)
    return model.eval()


def heard(model, sound, rows=1):
    import torch

    x, n = torch.tensor(sound).repeat(rows, 1), torch.full([rows], len(sound))
    return model.forward(input_signal=x, input_signal_length=n)


def theirs(model, what, sound, path, folder):
    """What NeMo says."""
    import torch

    with torch.no_grad():
        if what in ("text", "translation"):
            # CTC's tokens begin for NeMo where the one before does: its times are not those of words.
            timed = hasattr(model, "joint")
            more = {"timestamps": True} if timed else {}
            found = model.transcribe([str(path)], batch_size=1, num_workers=0, verbose=False, **more)
            found = found[0] if isinstance(found, tuple) else found
            text = getattr(found[0], "text", found[0])
            if not timed:
                return [text]
            times = found[0].timestamp
            # NeMo counts to the end of its last frame, and takes a space that nothing follows for a word.
            at = lambda seconds: round(min(seconds, len(sound) / 16000), 2)
            return [text, *[(part[key].strip(), at(part["start"]), at(part["end"]))
                            for key in ("word", "segment") for part in times[key] if part[key].strip()]]
        if what == "voice":
            return unit(heard(model, sound)[1][0].tolist())
        if what == "label":
            return model.cfg.labels[int(heard(model, sound)[0].argmax())]
        if what == "frames":
            # Of the silence that NeMo adds it tells too.
            return torch.softmax(heard(model, sound)[0], -1)[: -(-len(sound) // 320), -1].tolist()
        return windows(model, sound, path, folder)


def unit(vector):
    length = sum(x * x for x in vector) ** 0.5
    return [x / length for x in vector]


WINDOW, STEP, OVERLAP = 0.63, 0.01, 0.875


def windows(model, sound, path, folder):
    """What NeMo's VAD says of windows, smoothed, and the segments at a threshold that nothing comes near."""
    import torch
    from nemo.collections.asr.parts.utils import vad_utils

    place = Path(tempfile.mkdtemp(dir=folder))
    manifest = place / "input.json"
    manifest.write_text(json.dumps({"audio_filepath": str(path), "offset": 0, "duration": len(sound) / 16000,
                                    "label": "infer"}) + "\n")
    model.setup_test_data({"vad_stream": True, "sample_rate": 16000, "manifest_filepath": str(manifest),
                           "labels": ["infer"], "num_workers": 0, "shuffle": False, "batch_size": 1,
                           "window_length_in_sec": WINDOW, "shift_length_in_sec": STEP, "trim_silence": False,
                           "normalize_audio": False})
    # On CPUs it would compute in 16 bits.
    with mock.patch.object(torch.amp, "autocast", lambda *_: contextlib.nullcontext()):
        vad_utils.generate_vad_frame_pred(model, WINDOW, STEP, str(manifest), str(place))
    plain = [float(line) for line in (place / f"{Path(path).stem}.frame").read_text().split()]
    smooth = vad_utils.generate_overlap_vad_seq(str(place), "median", OVERLAP, WINDOW, STEP, 1, str(place))
    smooth = [float(line) for line in (Path(smooth) / f"{Path(path).stem}.median").read_text().split()]
    sort = sorted(smooth)
    middle = range(len(sort) // 4, 3 * len(sort) // 4)
    gap, onset = max((sort[i + 1] - sort[i], (sort[i + 1] + sort[i]) / 2) for i in middle)
    rules = {"onset": onset, "offset": onset, "pad_onset": 0.05, "pad_offset": 0.05, "min_duration_on": 0.2,
             "min_duration_off": 0.1, "filter_speech_first": 1.0}
    table = vad_utils.generate_vad_segment_table_per_tensor(torch.tensor(smooth), rules)
    # Here nothing ends behind the recording's end.
    ends = [min(x, len(sound) / 16000) for row in table for x in row[:2].tolist()]
    return {"plain": plain, "smooth": smooth, "onset": onset, "table": ends}


def ours(mobilis, what, path, archive, expected):
    run = lambda *arguments: json.loads(subprocess.run([mobilis, "--json", *arguments], check=True, text=True,
                                                       capture_output=True).stdout)
    if what in ("text", "label", "translation"):
        more = ["--language", "en", "--target", "de"] if what == "translation" else []
        found = run("transcribe", archive, path, "--words", *more)["transcripts"][0]
        if what == "label" or len(expected) == 1:
            return found["text"] if what == "label" else [found["text"]]
        parts = [word for segment in found["segments"] for word in segment["words"]] + found["segments"]
        return [found["text"], *[(part["text"], round(part["start"], 2), round(part["end"], 2)) for part in parts]]
    if what == "voice":
        return unit(run("speaker", "embed", path, "--model", archive)["vectors"][0])
    vad = lambda *more: run("vad", path, "--model", archive, "--probabilities", *more)["files"][0]
    if what == "frames":
        return vad()["probabilities"]
    smoothing = ["--smoothing", "median", "--overlap", str(OVERLAP), "--rules", "nemo"]
    found = vad(*smoothing, "--threshold", str(expected["onset"]), "--padding", "50", "--min-speech", "200",
                "--min-silence", "100")
    return {"plain": vad()["probabilities"], "smooth": found["probabilities"], "onset": expected["onset"],
            "table": [x for part in found["segments"] for x in (part["start"], part["end"])]}


def compare(a, b, least=0.0):
    """Whether they are the same, and in words how far they are apart."""
    if isinstance(a, dict):
        # NeMo writes four digits, and reads them again.
        parts = {key: compare(a[key], b[key], 2e-4) for key in a if isinstance(a[key], list)}
        return all(same for same, _ in parts.values()), "; ".join(f"{key}: {how}" for key, (_, how) in parts.items())
    if isinstance(a, list) and a and isinstance(a[0], str):
        for i, (x, y) in enumerate(zip(a[1:], b[1:])):
            if x != y:
                return False, f"word or segment {i} of {len(a) - 1} {x} is not {y}"
        same, how = compare(a[0], b[0])
        return same and len(a) == len(b), how + (f", {len(a) - 1} words and segments" if len(a) > 1 else "")
    if isinstance(a, str):
        a, b = a.strip(), b.strip()
        at = max(len(os.path.commonprefix([a, b])) - 20, 0)
        return a == b, f"{len(a)} letters" if a == b else f"at {at} of {len(a)} {a[at:at+40]!r} is not {b[at:at+40]!r}"
    if len(a) != len(b):
        return False, f"{len(a)} values are not {len(b)}"
    worst = max((abs(x - y) for x, y in zip(a, b)), default=0.0)
    return worst <= max(1e-4 * max(map(abs, a), default=0.0), least), f"{len(a)} values, {worst:.1e} apart"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", type=Path)
    parser.add_argument("archives", type=Path, nargs="*")
    parser.add_argument("--only", default="")
    parser.add_argument("--mobilis", default=str(REPO / "target/release/mobilis"))
    parser.add_argument("--keep", type=Path, help="where the archives stay")
    options = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"
    warnings.filterwarnings("ignore")
    try:
        import soundfile
        from nemo.utils import logging as noise
    except ImportError as e:
        print(f"skipped: {e} (pip install 'nemo_toolkit[asr]==3.0.0')")
        return 0
    noise.set_verbosity(logging.ERROR)
    sound, rate = soundfile.read(options.recording, dtype="float32")
    assert rate == 16000 and sound.ndim == 1, "a recording of one channel at 16 kHz is expected"
    wrong = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(exist_ok=True)
        cases = [(p.stem, None, None, "text", p) for p in options.archives]
        if not cases:
            asked = lambda name: any(one in name for one in options.only.split(","))
            cases = [(n, *rest, folder / f"{n}.nemo") for n, rest in families(folder).items() if asked(n)]
        for name, kind, config, what, path in cases:
            line = f"{name:32}"
            try:
                if kind:
                    build(name, kind, config, sound).save_to(str(path))
                expected = theirs(restore(path), what, sound, options.recording, folder)
                read, how = compare(expected, ours(options.mobilis, what, str(options.recording), str(path), expected))
                line += f"read {'same' if read else 'DIFFERS'} ({how})"
                again = folder / f"{name}-written.nemo"
                subprocess.run([options.mobilis, "convert", "--force", path, again], check=True, capture_output=True)
                written = theirs(restore(again), what, sound, options.recording, folder) == expected
                line += f", written {'same' if written else 'DIFFERS'}"
                wrong += not (read and written)
            except subprocess.CalledProcessError as e:
                wrong += 1
                line += "FAILS: " + (e.stderr if isinstance(e.stderr, str) else e.stderr.decode())[:300].strip()
            except Exception as e:  # one family does not hinder the others
                wrong += 1
                line += f"FAILS: {type(e).__name__}: {str(e)[:300]}"
            print(line, flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
