//! Containers and codecs: bytes in, blocks of interleaved samples out, at the recording's own rate.
//!
//! [symphonia](https://docs.rs/symphonia) reads containers and decodes all codecs but Opus. What
//! it is given comes from outside, so each call into it is fenced: a panic becomes an error, reads
//! that bring nothing are counted ([`super::source`]), and a packet that cannot be decoded becomes
//! as much silence as it would have lasted, so that what follows keeps its time. A recording of
//! which more than half is such silence is refused. What codecs put before and behind the recording is
//! left out: by Opus's header and MP3's LAME tag here and in symphonia, in MP4 by [`super::edits`].

use super::AudioError;
use super::edits::{self, Edit};
use super::opus::Opus;
use super::resample::RATES;
use super::source::{Guarded, Once};
use std::io::Read;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::Duration;
use symphonia::core::codecs::audio::well_known::CODEC_ID_OPUS;
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::{Error, Result as Answer, SeekErrorKind};
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatReader, SeekMode, SeekTo, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream};
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::Packet;
use symphonia::core::units::{Time, TimeBase};

/// Channels of a recording: more are a damaged header, or meant to fill memory.
const MOST_CHANNELS: usize = 255;
/// Packets of other tracks or without sound that may follow each other.
const PATIENCE: u32 = 1_000_000;
/// No recording goes beyond this, in frames: sums of such numbers do not overflow.
const FARTHEST: RangeInclusive<i64> = -(1 << 60)..=1 << 60;
/// What is said of a panic.
const ASTRAY: &str = "its contents lead the decoder astray";
/// Silence for one packet that cannot be decoded, in seconds.
const LONGEST_GAP: u64 = 1;

enum Decoder {
    Symphonia(Box<dyn AudioDecoder>),
    Opus(Opus),
}

/// An opened recording.
pub(super) struct Media {
    pub(super) place: String,
    format: Box<dyn FormatReader>,
    decoder: Decoder,
    track: u32,
    time_base: Option<TimeBase>,
    /// Its rate in hertz, as its header has it.
    pub(super) rate: u32,
    /// How many channels, as its header has it.
    pub(super) channels: usize,
    /// How many samples a channel, as its header has it.
    pub(super) frames: Option<u64>,
    /// Whether that number is exact.
    pub(super) exact: bool,
    seekable: bool,
    /// Which parts of tracks are the recording.
    edits: Vec<Edit>,
    /// Where it ends by such an edit, in frames.
    end: Option<i64>,
    /// Frames before the recording begins, in the packets' counting.
    lead: i64,
    /// Opus in containers that count milliseconds: its packets begin at multiples of 2.5 ms, so many
    /// frames before the recording.
    snap: Option<i64>,
    /// To be dropped of what comes next.
    drop: u64,
    given: u64,
    silenced: u64,
    interleaved: Vec<f32>,
}

/// Samples as they were decoded.
pub(super) struct Block<'a> {
    pub(super) rate: u32,
    pub(super) channels: usize,
    /// `channels` values a frame.
    pub(super) samples: &'a [f32],
    /// Which frame of the recording the first is, where a seek came before.
    pub(super) at: Option<i64>,
}

impl Media {
    /// A recording that can be read from any place.
    pub(super) fn file(place: String, mut source: impl MediaSource + 'static) -> Result<Self, AudioError> {
        let edits = if source.is_seekable() { edits::of_file(&mut source) } else { vec![] };
        Self::open(place, source, edits)
    }

    /// One that can be read once, from beginning to end.
    pub(super) fn stream(place: String, stream: impl Read + Send + 'static) -> Result<Self, AudioError> {
        let (edits, stream) = edits::of_stream(stream);
        Self::open(place, Once(Mutex::new(stream)), edits)
    }

    fn open(place: String, source: impl MediaSource + 'static, edits: Vec<Edit>) -> Result<Self, AudioError> {
        let seekable = source.is_seekable();
        if source.byte_len() == Some(0) {
            return Err(AudioError::Empty { place });
        }
        let stream = MediaSourceStream::new(Box::new(Guarded::new(source)), Default::default());
        let options = MetadataOptions::default().limit_visual_bytes(symphonia::core::common::Limit::Maximum(0));
        let probe = symphonia::default::get_probe();
        // The name's ending is no hint: names can be wrong.
        let format =
            fenced(|| probe.probe(&Hint::new(), stream, Default::default(), options)).map_err(|e| match e {
                Error::IoError(e) if e.kind() != std::io::ErrorKind::UnexpectedEof => {
                    AudioError::Io { action: "read", place: place.clone(), source: e }
                }
                e => AudioError::Format { place: place.clone(), fault: said(&e, seekable) },
            })?;
        let mut media = Self {
            place,
            format,
            decoder: Decoder::Opus(
                Opus::new(None, 1).map_err(|fault| AudioError::Codec { place: String::new(), fault })?,
            ),
            track: 0,
            time_base: None,
            rate: 0,
            channels: 0,
            frames: None,
            exact: false,
            seekable,
            edits,
            end: None,
            lead: 0,
            snap: None,
            drop: 0,
            given: 0,
            silenced: 0,
            interleaved: Vec::new(),
        };
        media.choose()?;
        Ok(media)
    }

    /// Finds the track and makes its decoder: at the start, and where a recording follows another.
    fn choose(&mut self) -> Result<(), AudioError> {
        let codec = |fault: String| AudioError::Codec { place: self.place.clone(), fault };
        let Some(track) = self.format.default_track(TrackType::Audio) else {
            return Err(codec("it has no track of sound whose codec is known".into()));
        };
        let none = AudioCodecParameters::new();
        let parameters = track.codec_params.as_ref().and_then(|p| p.audio()).unwrap_or(&none);
        let channels = parameters.channels.as_ref().map(|c| c.count());
        if let Some(many) = channels.filter(|c| *c > MOST_CHANNELS) {
            return Err(codec(format!("it has {many} channels; at most {MOST_CHANNELS} are read")));
        }
        let (decoder, rate) = if parameters.codec == CODEC_ID_OPUS {
            let opus = fenced(|| Ok(Opus::new(parameters.extra_data.as_deref(), channels.unwrap_or(2))));
            (Decoder::Opus(opus.map_err(|e| codec(e.to_string()))?.map_err(codec)?), super::opus::RATE)
        } else {
            let codecs = symphonia::default::get_codecs();
            let decoder = fenced(|| codecs.make_audio_decoder(parameters, &AudioDecoderOptions::default()));
            (Decoder::Symphonia(decoder.map_err(|e| codec(e.to_string()))?), parameters.sample_rate.unwrap_or(0))
        };
        let base = track.start_ts.get().max(0);
        self.track = track.id;
        self.time_base = track.time_base;
        self.frames = track.num_frames;
        self.exact = parameters.bits_per_sample.is_some();
        // Headers of streams whose length was not known when they were written: the largest
        // number that fits, or nearly.
        let bytes = u64::from(parameters.bits_per_sample.unwrap_or(16)) / 8 * channels.unwrap_or(1) as u64;
        if self.frames.is_some_and(|f| f.saturating_mul(bytes.max(1)) >= 0x7FFF_0000) && !self.seekable {
            self.frames = None;
        }
        (self.rate, self.channels) = (rate, channels.unwrap_or(0));
        if let Decoder::Opus(opus) = &decoder {
            self.channels = opus.channels;
            self.drop = opus.skip;
        }
        let exact = self.time_base.is_some_and(|b| b.numer.get() == 1 && b.denom.get() == rate);
        self.snap = (matches!(decoder, Decoder::Opus(_)) && !exact).then_some(self.drop as i64);
        self.decoder = decoder;
        let edit = self.edits.iter().find(|e| e.track == self.track).copied();
        self.end = edit.and_then(|edit| self.edited(edit));
        self.lead = self.frames_of(base) + if self.snap.is_some() { 0 } else { self.drop as i64 };
        Ok(())
    }

    /// Takes an edit for the recording; gives its length in frames, where that is known.
    fn edited(&mut self, edit: Edit) -> Option<i64> {
        let start = self.frames_of(i64::try_from(edit.start).ok()?) as u64;
        // An edit beyond the end is a mistake.
        if self.frames.is_some_and(|frames| start >= frames) {
            return None;
        }
        if start > 0 {
            self.drop = start;
        }
        let whole = self.frames.map(|frames| frames - self.drop.min(frames));
        let listed = edit.length.map(|(ticks, second)| {
            let frames = |ticks: u64| u128::from(ticks) * u128::from(self.rate) / u128::from(second);
            // Lengths in milliseconds are rounded: the track's own is exact.
            (u64::try_from(frames(ticks)).unwrap_or(u64::MAX), frames(1) as u64 + 1)
        });
        self.frames = match (whole, listed) {
            (Some(whole), Some((length, tick))) if length.saturating_add(tick) < whole => Some(length),
            (None, Some((length, _))) => Some(length),
            (whole, _) => whole,
        };
        self.frames.and_then(|f| i64::try_from(f).ok())
    }

    /// Ticks of the track as frames.
    fn frames_of(&self, ticks: i64) -> i64 {
        let Some(base) = self.time_base else { return ticks.clamp(*FARTHEST.start(), *FARTHEST.end()) };
        let (numer, denom) = (i128::from(base.numer.get()), i128::from(base.denom.get()));
        let frames = (i128::from(ticks) * numer * i128::from(self.rate) + denom / 2).div_euclid(denom);
        frames.clamp((*FARTHEST.start()).into(), (*FARTHEST.end()).into()) as i64
    }

    /// Where reading has come to.
    pub(super) fn position(&self) -> Duration {
        seconds(self.given, self.rate)
    }

    /// Goes near to a place, at or before it; says whether it did. The next block tells where it is.
    pub(super) fn seek(&mut self, to: Duration) -> Result<bool, AudioError> {
        let to_packets = to + seconds(self.lead.max(0) as u64, self.rate);
        let Some(time) = Time::try_from_secs_f64(to_packets.as_secs_f64()).filter(|_| self.seekable) else {
            return Ok(false);
        };
        let (format, track) = (&mut self.format, self.track);
        match fenced(|| format.seek(SeekMode::Accurate, SeekTo::Time { time, track_id: Some(track) })) {
            Ok(_) => {}
            Err(Error::SeekError(SeekErrorKind::Unseekable | SeekErrorKind::ForwardOnly)) => return Ok(false),
            Err(Error::SeekError(SeekErrorKind::OutOfRange)) => {
                let length = self.frames.map_or(to, |f| seconds(f, self.rate));
                return Err(AudioError::Beyond { place: self.place.clone(), offset: to, length });
            }
            Err(e) => return Err(self.damaged(said(&e, true))),
        }
        self.reset();
        self.drop = 0;
        Ok(true)
    }

    /// Forgets what was decoded before.
    fn reset(&mut self) {
        match &mut self.decoder {
            Decoder::Symphonia(decoder) => decoder.reset(),
            Decoder::Opus(opus) => opus.reset(),
        }
    }

    fn damaged(&self, fault: String) -> AudioError {
        AudioError::Damaged { place: self.place.clone(), at: self.position(), fault }
    }

    /// The next samples; None at the end.
    pub(super) fn next(&mut self) -> Result<Option<Block<'_>>, AudioError> {
        for _ in 0..PATIENCE {
            let format = &mut self.format;
            let packet = match fenced(|| format.next_packet()) {
                Ok(Some(packet)) => packet,
                Ok(None) => return self.end(),
                Err(Error::IoError(e)) if e.kind() == std::io::ErrorKind::UnexpectedEof => return self.end(),
                Err(Error::ResetRequired) => {
                    self.choose()?;
                    continue;
                }
                Err(Error::IoError(source)) => {
                    return Err(AudioError::Io { action: "read", place: self.place.clone(), source });
                }
                Err(e) => return Err(self.damaged(said(&e, self.seekable))),
            };
            if packet.track_id != self.track {
                continue;
            }
            let at = self.frames_of(packet.pts.get().saturating_add(packet.trim_start.get() as i64)) - self.lead;
            let at = self.snap.map_or(at, |skip| (at + skip + 60).div_euclid(120) * 120 - skip);
            let (rate, channels) = self.decode(&packet)?;
            if channels == 0 || self.interleaved.len() < channels {
                continue;
            }
            let frames = self.interleaved.len() / channels;
            let dropped = (self.drop as usize).min(frames);
            self.drop -= dropped as u64;
            if dropped == frames {
                continue;
            }
            let at = at + dropped as i64;
            let left = self.end.map_or(u64::MAX, |end| (end - at).max(0) as u64);
            let kept = left.min((frames - dropped) as u64) as usize;
            if kept == 0 {
                continue;
            }
            self.given += kept as u64;
            (self.rate, self.channels) = (rate, channels);
            let samples = &self.interleaved[dropped * channels..(dropped + kept) * channels];
            return Ok(Some(Block { rate, channels, samples, at: Some(at) }));
        }
        Err(self.damaged("no sound follows any more".into()))
    }

    /// Fills `interleaved`; gives its rate and channels.
    fn decode(&mut self, packet: &Packet) -> Result<(u32, usize), AudioError> {
        self.interleaved.clear();
        let (decoder, interleaved) = (&mut self.decoder, &mut self.interleaved);
        let answer = fenced(|| match decoder {
            Decoder::Symphonia(decoder) => {
                let buffer = decoder.decode(packet)?;
                buffer.copy_to_vec_interleaved(interleaved);
                Ok(Ok((buffer.spec().rate(), buffer.spec().channels().count())))
            }
            Decoder::Opus(opus) => Ok(opus
                .decode(&packet.data, [packet.trim_start.get(), packet.trim_end.get()])
                .map(|samples| interleaved.extend_from_slice(samples))
                .map(|()| (super::opus::RATE, opus.channels))),
        });
        match answer {
            Ok(Ok(spec)) => return Ok(spec),
            Err(Error::DecodeError(ASTRAY)) => self.reset(),
            Ok(Err(_)) | Err(Error::DecodeError(_) | Error::IoError(_) | Error::ResetRequired) => {}
            Err(e) => return Err(self.damaged(said(&e, self.seekable))),
        }
        let most = u64::from(self.rate.min(*RATES.end())) * LONGEST_GAP;
        let gap = self.frames_of(packet.dur.get() as i64).clamp(0, most as i64) as u64;
        self.silenced += gap;
        self.interleaved.clear();
        self.interleaved.resize(gap as usize * self.channels, 0.0);
        Ok((self.rate, self.channels))
    }

    fn end(&self) -> Result<Option<Block<'_>>, AudioError> {
        if self.silenced * 2 > self.given {
            return Err(self.damaged("most of it cannot be decoded".into()));
        }
        Ok(None)
    }
}

/// Runs code that reads bytes from outside; a panic in it is an error.
fn fenced<T>(run: impl FnOnce() -> Answer<T>) -> Answer<T> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(Err(Error::DecodeError(ASTRAY)))
}

/// An error of symphonia in words.
fn said(error: &Error, seekable: bool) -> String {
    match error {
        Error::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => "no known format was found".into(),
        Error::IoError(e) => e.to_string(),
        e if seekable => e.to_string(),
        e => format!("{e} (from a stream; some files can only be read from a disk)"),
    }
}

/// Frames as time.
pub(super) fn seconds(frames: u64, rate: u32) -> Duration {
    Duration::from_nanos((u128::from(frames) * 1_000_000_000 / u128::from(rate.max(1))).min(u128::from(u64::MAX)) as u64)
}
