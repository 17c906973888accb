"""librosa: spectrograms, as recipes for speech call it."""

import librosa
import numpy as np

from protocol import serve, uniform


def load(words):
    if words != ["mel"]:
        raise ValueError("only spectrograms")
    sound, window = uniform("sound", (960_000,), 0.5), np.hanning(512).astype(np.float32)
    last = [None]

    def run():
        power = librosa.feature.melspectrogram(
            y=sound, sr=16000, n_fft=512, hop_length=160, window=window, pad_mode="constant", n_mels=80
        )
        last[0] = np.log(power + np.float32(2.0**-23))

    return run, lambda: last[0]


serve(load)
