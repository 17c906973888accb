"""Writes a small multilingual Whisper with random weights, and what transformers (5.23.0) hears with it: the language,
tokens of a transcript and of a translation, and the features, whose 128 mels are those of large-v3. The vocabulary is
bytes, then the special tokens in the order of the published ones, with times up to two seconds, a window's length.
    python multilingual.py
"""
import json, math
from pathlib import Path
import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration
from transformers.models.whisper.tokenization_whisper import LANGUAGES

HERE = Path(__file__).resolve().parent
torch.manual_seed(6)
letters = sorted(pre_tokenizers.ByteLevel.alphabet())
tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(letters)}, merges=[]))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
codes = list(LANGUAGES)
names = ["endoftext", "startoftranscript", *codes, "translate", "transcribe", "startoflm", "startofprev", "nospeech",
         "notimestamps"]
tokenizer.add_special_tokens([AddedToken(f"<|{n}|>", special=True) for n in names])
tokenizer.add_tokens([AddedToken(f"<|{i * 0.02:.2f}|>") for i in range(101)])
tokenizer.save(str(HERE / "tokenizer.json"), pretty=False)
id = tokenizer.token_to_id
config = WhisperConfig(
    vocab_size=tokenizer.get_vocab_size(), num_mel_bins=128, d_model=16, encoder_layers=1, decoder_layers=2,
    encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24,
    max_source_positions=100, max_target_positions=32, decoder_start_token_id=id("<|startoftranscript|>"),
    pad_token_id=id("<|endoftext|>"), bos_token_id=id("<|endoftext|>"), eos_token_id=id("<|endoftext|>"),
    suppress_tokens=None, begin_suppress_tokens=None,
)
model = WhisperForConditionalGeneration(config).eval()
with torch.no_grad():
    for name, p in model.named_parameters():
        if "embed_positions" in name and "encoder" in name:
            continue
        norm = "norm" in name and name.endswith("weight")
        p.copy_((torch.randn_like(p) * (0.15 if p.dim() == 1 else 1.2 if "encoder_attn" in name else 0.5) + (1.0 if norm else 0.0)).half().float())
    # No times where none are asked for, as a trained model does.
    model.model.decoder.embed_tokens.weight[id("<|0.00|>"):] *= 0.02
    model.model.encoder.embed_positions.weight.copy_(model.model.encoder.embed_positions.weight.half().float())
languages = {f"<|{c}|>": id(f"<|{c}|>") for c in codes}
model.generation_config.lang_to_id = languages
extractor = WhisperFeatureExtractor(feature_size=128, chunk_length=2)
at = lambda t, k: 0.3 * math.sin(t * t / k) * math.sin(t / 1500.0)
sounds = [np.array([at(t, k) for t in range(n)], np.float32) for n, k in ((24000, 9e4), (32000, 4e4), (9000, 2e5))]
found = []
for sound in sounds:
    features = extractor(sound, sampling_rate=16000, return_tensors="pt").input_features
    with torch.no_grad():
        language = tokenizer.id_to_token(int(model.detect_language(features)[0])).strip("<|>")
        ids = {}
        for task, spoken in (("transcribe", language), ("translate", "de")):
            prompt = ["<|startoftranscript|>", f"<|{spoken}|>", f"<|{task}|>", "<|notimestamps|>"]
            text = torch.tensor([[id(p) for p in prompt]])
            said = []
            while len(said) < 16:
                logits = model(input_features=features, decoder_input_ids=text).logits[0, -1]
                first, second = logits.topk(2).values.tolist()
                if first - second < 1e-3:
                    break  # from here on, rounding says which
                said.append(int(logits.argmax()))
                text = torch.cat([text, torch.tensor([said[-1:]])], 1)
                if said[-1] == config.eos_token_id:
                    break
            ids[task] = said
    found.append({"language": language, "features": [float(v) for v in features[0, ::16, ::25].flatten()], **ids})
model.config.save_pretrained(HERE)
(HERE / "generation_config.json").write_text(json.dumps({
    "is_multilingual": True, "no_timestamps_token_id": id("<|notimestamps|>"), "alignment_heads": [[1, 0]],
    "begin_suppress_tokens": [], "suppress_tokens": []}) + "\n")
extractor.save_pretrained(HERE)
keep = {k: v.half() if v.dtype == torch.float32 else v for k, v in model.state_dict().items() if k != "proj_out.weight"}
save_file({k: v.contiguous() for k, v in keep.items()}, HERE / "model.safetensors", {"format": "pt"})
(HERE / "expected.json").write_text(json.dumps({"languages": codes, "found": found}) + "\n")
print([(f["language"], f["transcribe"], f["translate"]) for f in found])
