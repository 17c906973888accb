//! Opus packets to samples (RFC 6716, RFC 7845).
//!
//! Containers hand over packets and the identification header `OpusHead`; `opus_decoder` turns
//! packets into 48 kHz sound. The header's gain is applied here, and its pre-skip told.

use opus_decoder::{OpusDecoder, OpusMultistreamDecoder};

/// The rate of all Opus sound, in hertz.
pub(super) const RATE: u32 = 48_000;
/// The longest packet: 120 ms.
const LONGEST: usize = 5_760;

enum Streams {
    One(Box<OpusDecoder>),
    Many(Box<OpusMultistreamDecoder>),
}

/// A decoder of one track.
pub(super) struct Opus {
    streams: Streams,
    pub(super) channels: usize,
    /// Samples before the recording begins.
    pub(super) skip: u64,
    gain: f32,
    samples: Vec<f32>,
}

impl Opus {
    /// From `OpusHead` and, where there is none, the number of channels.
    pub(super) fn new(head: Option<&[u8]>, channels: usize) -> Result<Self, String> {
        let mut opus = Self {
            streams: Streams::One(Box::new(OpusDecoder::new(RATE, channels.clamp(1, 2)).map_err(|e| e.to_string())?)),
            channels: channels.clamp(1, 2),
            skip: 0,
            gain: 1.0,
            samples: Vec::new(),
        };
        let Some(head) = head else { return Ok(opus) };
        if head.len() < 19 || !head.starts_with(b"OpusHead") {
            return Err("its Opus header is faulty: `OpusHead` and 11 bytes more are expected".into());
        }
        opus.channels = usize::from(head[9]);
        opus.skip = u64::from(u16::from_le_bytes([head[10], head[11]]));
        opus.gain = 10f32.powf(f32::from(i16::from_le_bytes([head[16], head[17]])) / (20.0 * 256.0));
        opus.streams = match head[18] {
            0 if (1..=2).contains(&opus.channels) => {
                Streams::One(Box::new(OpusDecoder::new(RATE, opus.channels).map_err(|e| e.to_string())?))
            }
            0 => return Err(format!("its Opus header has {} channels, where mapping 0 takes 1 or 2", opus.channels)),
            _ => {
                let mapping =
                    head.get(21..21 + opus.channels).ok_or("its Opus header ends within the mapping of channels")?;
                let (streams, coupled) = (usize::from(head[19]), usize::from(head[20]));
                let decoder = OpusMultistreamDecoder::new(RATE, opus.channels, streams, coupled, mapping);
                Streams::Many(Box::new(decoder.map_err(|e| e.to_string())?))
            }
        };
        opus.samples = vec![0.0; LONGEST * opus.channels];
        Ok(opus)
    }

    /// The samples of a packet, channels interleaved, without those to be trimmed (in frames).
    pub(super) fn decode(&mut self, packet: &[u8], trim: [u64; 2]) -> Result<&[f32], String> {
        self.samples.resize(LONGEST * self.channels, 0.0);
        // An empty packet would be made up for, as if it were lost.
        if packet.is_empty() {
            return Ok(&[]);
        }
        let frames = match &mut self.streams {
            Streams::One(decoder) => decoder.decode_float(packet, &mut self.samples, false),
            Streams::Many(decoder) => decoder.decode_float(packet, &mut self.samples, false),
        };
        let frames = frames.map_err(|e| e.to_string())?;
        if self.gain != 1.0 {
            self.samples[..frames * self.channels].iter_mut().for_each(|v| *v *= self.gain);
        }
        let [start, end] = trim.map(|t| t.min(frames as u64) as usize);
        Ok(&self.samples[(start * self.channels).min((frames - end) * self.channels)..(frames - end) * self.channels])
    }

    /// After a jump.
    pub(super) fn reset(&mut self) {
        match &mut self.streams {
            Streams::One(decoder) => decoder.reset(),
            Streams::Many(decoder) => decoder.reset(),
        }
    }
}
