"""Writes prompts.json: what NeMo (nemo_toolkit 3.0.0) writes with canary2.nemo where its prompts have the older format
`canary`, for the sound of canary2.py in a file, as `transcribe` is asked by its users. NeMo fills in what it is not
told: English to English, to transcribe (however the languages differ), with punctuation.
    python prompts.py      (with the folder benches/peers beside it in the repository)
"""
import json, math, os, sys, tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[3] / "benches/peers"))
os.environ["TQDM_DISABLE"] = "1"
import soundfile
import with_nemo
from omegaconf import open_dict

model = with_nemo.restore(HERE / "canary2.nemo")
# Its own defaults are those of canary2.
with open_dict(model.cfg):
    model.cfg.prompt_defaults = None
model.change_prompt("canary")
told, work = [], model._transcribe_output_processing


def note(outputs, options):
    told.append(outputs["decoder_input_ids"][0].tolist())
    return work(outputs, options)


model._transcribe_output_processing = note
cases = []
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "sound.wav"
    sound = [0.3 * math.sin(t * t / 9e4) * math.sin(t / 1500.0) for t in range(24000)]
    soundfile.write(path, sound, 16000, subtype="FLOAT")
    for prompt in [{}, {"source_lang": "de", "target_lang": "de", "pnc": "no"},
                   {"source_lang": "en", "target_lang": "de", "taskname": "ast"},
                   {"source_lang": "fr", "target_lang": "en", "taskname": "s2t_translation", "pnc": "no"}]:
        found = model.transcribe([str(path)], batch_size=1, num_workers=0, verbose=False, return_hypotheses=True, **prompt)
        cases.append({"prompt": prompt, "asked": told[-1], "ids": found[0].y_sequence.tolist(), "text": found[0].text})
with open(HERE / "prompts.json", "w") as f:
    json.dump(cases, f, indent=1)
    f.write("\n")
