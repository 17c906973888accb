"""Writes canary2.nemo and canary2.json: a small Canary with random weights and NeMo's aggregate tokenizer, and what
NeMo (nemo_toolkit 3.0.0) writes with several prompts for a sound that the test makes too.
    python canary2.py      (with the folder benches/peers beside it in the repository)
"""
import gzip, json, math, os, shutil, sys, tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[3] / "benches/peers"))
os.environ["TQDM_DISABLE"] = "1"
import torch
import with_nemo
from omegaconf import OmegaConf
from nemo.collections.asr.models import EncDecMultiTaskModel

BIAS, SCALE = 0.3, 2.0
sound = [0.3 * math.sin(t * t / 9e4) * math.sin(t / 1500.0) for t in range(24000)]
with tempfile.TemporaryDirectory() as folder:
    config = with_nemo.canary("canary2", folder)
    config["sample_rate"] = 16000
    config["preprocessor"]["features"] = config["encoder"]["feat_in"] = 16
    config["encoder"] |= {"n_layers": 1, "d_model": 16, "n_heads": 2, "subsampling_conv_channels": 8}
    config["model_defaults"] |= {"asr_enc_hidden": 16}
    config["transf_decoder"]["config_dict"]["num_layers"] = 1
    model = with_nemo.build("canary2 of tests", "EncDecMultiTaskModel", config, sound)
    times = [i for i, piece in enumerate(model.tokenizer.vocabulary) if piece.strip("<|>").isdigit() and "<|" in piece]
    with torch.no_grad():
        # So that texts vary, and times come now and then.
        model.log_softmax.mlp.layer0.bias[times] += BIAS
        for p in model.transf_decoder.decoder.parameters():
            p.mul_(SCALE)
    path = Path(folder) / "canary2.nemo"
    model.save_to(str(path))
    model = with_nemo.restore(path)
    cases = []
    for prompt in [{}, {"source_lang": "de", "target_lang": "en", "pnc": "no"},
                   {"source_lang": "en", "target_lang": "en", "timestamp": "yes"},
                   {"source_lang": "fr", "target_lang": "de", "timestamp": "yes", "decodercontext": "the names"}]:
        # Prompt and text as ids, and what NeMo makes of them.
        slots = dict(config["prompt_defaults"][0]["slots"]) | prompt
        asked = model.prompt.encode_dialog([{"role": "user", "slots": slots}])["context_ids"]
        with torch.no_grad():
            _, lengths, states, mask = model.forward(
                input_signal=torch.tensor(sound)[None], input_signal_length=torch.tensor([len(sound)]))
            found = model.decoding.decode_predictions_tensor(states, mask, asked[None], return_hypotheses=True)[0]
        from nemo.collections.asr.parts.utils.timestamp_utils import process_aed_timestamp_outputs
        ids = found.y_sequence.tolist()
        case = {"prompt": prompt, "asked": asked.tolist(), "ids": ids, "text": found.text}
        if "timestamp" in prompt:
            timed = process_aed_timestamp_outputs(found, 8, 0.01)[0]
            case |= {"words": [[w["word"], w["start"], w["end"]] for w in timed.timestamp["word"]], "spoken": timed.text,
                     "segments": [s["segment"] for s in timed.timestamp["segment"]]}
        cases.append(case)
    tokens = [[text, lang, model.tokenizer.text_to_ids(text, lang)] for text, lang in
              [("the quick brown", "en"), ("the quick brown", "de"), ("model", "de")]]
    with open(path, "rb") as plain, gzip.GzipFile(HERE / "canary2.nemo", "wb", 9, mtime=0) as out:
        shutil.copyfileobj(plain, out)
with open(HERE / "canary2.json", "w") as f:
    json.dump({"languages": model.tokenizer.langs, "size": model.tokenizer.vocab_size, "tokens": tokens,
               "cases": cases}, f, indent=1)
    f.write("\n")
