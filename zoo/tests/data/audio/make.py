"""Makes the recordings of this folder: python3 make.py, with numpy, soundfile (libsndfile 1.2.2) and PyAV (FFmpeg).

Each holds three seconds of one channel at 22,050 Hz (Opus: 24,000): a tone of amplitude 0.4 that rises evenly
from 200 to 3000 Hz, 0.4 sin(2 pi (200 t + 2800 t^2 / 6)).
"""
import os
from fractions import Fraction
import av
import numpy as np
import soundfile as sf

os.chdir(os.path.dirname(os.path.abspath(__file__)))

def tone(rate):
    t = np.arange(3 * rate) / rate
    return (0.4 * np.sin(2 * np.pi * (200 * t + 2800 * t * t / 6))).astype(np.float32)

x = tone(22050)
sf.write("tone.flac", x, 22050, subtype="PCM_16")
sf.write("tone.ogg", x, 22050, format="OGG", subtype="VORBIS", compression_level=0.7)
sf.write("tone.mp3", x, 22050, format="MP3", compression_level=0.8)
sf.write("tone.opus", tone(24000), 24000, format="OGG", subtype="OPUS", compression_level=0.8)
sf.write("ulaw.wav", x[:4000], 22050, subtype="ULAW")
sf.write("alaw.wav", x[:4000], 22050, subtype="ALAW")
sf.write("u8.wav", x[:4000], 22050, subtype="PCM_U8")
sf.write("s24.wav", x[:4000], 22050, subtype="PCM_24")
sf.write("f64.wav", x[:4000], 22050, subtype="DOUBLE")
sf.write("s16.aiff", x[:4000], 22050, subtype="PCM_16")

def encode(name, codec, rate, bits, layout="mono"):
    with av.open(name, "w") as out:
        stream = out.add_stream(codec, rate=rate)
        stream.layout = layout
        stream.bit_rate = bits
        frame = av.AudioFrame.from_ndarray(tone(rate)[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        # With times, MP4's edit list leaves out what AAC begins with, as FFmpeg's command has it.
        frame.pts, frame.time_base = 0, Fraction(1, rate)
        sampler = av.AudioResampler(format=stream.codec_context.format, layout=layout, rate=rate, frame_size=stream.codec_context.frame_size or 1024)
        for part in sampler.resample(frame) + sampler.resample(None):
            out.mux(stream.encode(part))
        out.mux(stream.encode(None))

encode("tone.m4a", "aac", 22050, 72000)
encode("tone.aac", "aac", 22050, 72000)
encode("tone.webm", "libopus", 24000, 32000)
