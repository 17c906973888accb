//! A recording as one channel at the rate that is asked for, in blocks.
//!
//! ```text
//! file, bytes or stream ─ media ─▶ interleaved blocks ─ mix ─▶ one channel ─ cut ─▶ resample ─▶ blocks
//! ```
//!
//! Memory does not grow with the length of the recording. A part far from the start is reached by
//! a seek where the container can, half a second early, so that decoders that look back give the
//! samples that they give when all is read.

use super::AudioError;
use super::media::{Block, Media, seconds};
use super::resample::{RATES, Resampler};
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;
use std::time::Duration;

/// The largest value that still counts as sound: 16-bit numbers that were not scaled pass.
const LOUDEST: f32 = 1e6;
/// Nearer to the start than this, reading is as good as a seek.
const NEAR: Duration = Duration::from_secs(2);
/// How far before the place asked for a seek goes.
const EARLY: Duration = Duration::from_millis(500);

/// Which channel of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Channel {
    /// The mean of all.
    #[default]
    Mix,
    /// One, counted from 0.
    One(usize),
}

/// What of a recording is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The rate in hertz; none for the recording's own.
    pub rate: Option<u32>,
    /// The channel.
    pub channel: Channel,
    /// Where to begin.
    pub offset: Duration,
    /// How much; none for all that follows.
    pub duration: Option<Duration>,
}

impl Wanted {
    /// A whole recording, channels mixed, at a rate in hertz.
    pub fn at(rate: u32) -> Self {
        Self { rate: Some(rate), channel: Channel::Mix, offset: Duration::ZERO, duration: None }
    }

    /// Only the part that begins here and lasts so long.
    #[must_use]
    pub fn part(mut self, offset: Duration, duration: Option<Duration>) -> Self {
        (self.offset, self.duration) = (offset, duration);
        self
    }

    /// Only one channel, counted from 0.
    #[must_use]
    pub fn channel(mut self, channel: usize) -> Self {
        self.channel = Channel::One(channel);
        self
    }
}

/// Reads a recording block by block.
///
/// Where the recording is cut off, all that is there comes first, then
/// [`AudioError::Truncated`]. After an error there is nothing more.
pub struct Reader {
    media: Media,
    wanted: Wanted,
    resampler: Option<(u32, Resampler)>,
    /// Frames to be dropped before the part begins; none until the first block tells.
    skip: Option<u64>,
    /// Frames of the part still to come.
    left: Option<u64>,
    sought: bool,
    done: bool,
    last: Option<AudioError>,
    mono: Vec<f32>,
    /// Frames of the part that came.
    seen: u64,
}

impl Reader {
    /// Opens a file.
    ///
    /// # Errors
    /// What [`AudioError`] lists: no such file, no recording, a codec that is not known, ...
    pub fn open(path: impl AsRef<Path>, wanted: &Wanted) -> Result<Self, AudioError> {
        let path = path.as_ref();
        let place = path.display().to_string();
        let file =
            File::open(path).map_err(|source| AudioError::Io { action: "open", place: place.clone(), source })?;
        if file.metadata().is_ok_and(|m| m.is_dir()) {
            let source = std::io::Error::other("it is a folder");
            return Err(AudioError::Io { action: "read", place, source });
        }
        Self::new(Media::file(place, file)?, wanted)
    }

    /// Reads a recording that lies in memory; `place` names it in errors.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn bytes(
        place: &str,
        bytes: impl AsRef<[u8]> + Send + Sync + 'static,
        wanted: &Wanted,
    ) -> Result<Self, AudioError> {
        Self::new(Media::file(place.to_string(), Cursor::new(bytes))?, wanted)
    }

    /// Reads from a stream, such as standard input; `place` names it in errors.
    ///
    /// # Errors
    /// As [`open`](Self::open); and formats that begin with their end (some MP4) cannot be streamed.
    pub fn stream(place: &str, stream: impl Read + Send + 'static, wanted: &Wanted) -> Result<Self, AudioError> {
        Self::new(Media::stream(place.to_string(), stream)?, wanted)
    }

    fn new(media: Media, wanted: &Wanted) -> Result<Self, AudioError> {
        let mut reader = Self {
            media,
            wanted: wanted.clone(),
            resampler: None,
            skip: None,
            left: None,
            sought: false,
            done: false,
            last: None,
            mono: Vec::new(),
            seen: 0,
        };
        let rates = [wanted.rate.unwrap_or(16_000), reader.media.rate];
        // A rate of 0 is not in the header: the first block tells.
        if let Some(&rate) = rates.iter().find(|r| **r != 0 && !RATES.contains(r)) {
            return Err(AudioError::Rate { place: reader.media.place, rate });
        }
        if let (Channel::One(asked), found @ 1..) = (wanted.channel, reader.media.channels)
            && asked >= found
        {
            return Err(AudioError::Channel { place: reader.media.place, asked, found });
        }
        if let Some(frames) = reader.media.frames
            && reader.media.rate != 0
            && reader.media.exact
            && wanted.offset > seconds(frames, reader.media.rate)
        {
            let length = seconds(frames, reader.media.rate);
            return Err(AudioError::Beyond { place: reader.media.place, offset: wanted.offset, length });
        }
        if wanted.offset > NEAR {
            reader.sought = reader.media.seek(wanted.offset - EARLY)?;
        }
        Ok(reader)
    }

    /// The rate of the blocks, in hertz.
    pub fn rate(&self) -> u32 {
        self.wanted.rate.unwrap_or(self.media.rate)
    }

    /// The recording's own rate, in hertz; 0 while its header does not tell.
    pub fn source_rate(&self) -> u32 {
        self.media.rate
    }

    /// How many channels the recording has; 0 while its header does not tell.
    pub fn channels(&self) -> usize {
        self.media.channels
    }

    /// How long the whole recording is, where its header tells.
    pub fn duration(&self) -> Option<Duration> {
        self.media.frames.map(|frames| seconds(frames, self.media.rate))
    }

    /// All that is left, in one piece.
    ///
    /// # Errors
    /// Those of the blocks.
    pub fn collect_samples(self) -> Result<Vec<f32>, AudioError> {
        let mut all = Vec::new();
        for block in self {
            let block = block?;
            if all.is_empty() {
                all = block;
            } else {
                all.extend_from_slice(&block);
            }
        }
        Ok(all)
    }

    /// One more block; an empty one where nothing came of it, None at the end.
    fn step(&mut self) -> Result<Option<Vec<f32>>, AudioError> {
        if self.left == Some(0) {
            return Ok(None);
        }
        let Some(Block { rate, channels, samples, at }) = self.media.next()? else { return Ok(None) };
        if !RATES.contains(&rate) {
            return Err(AudioError::Rate { place: self.media.place.clone(), rate });
        }
        let asked = frames(self.wanted.offset, rate);
        if self.skip.is_none() {
            let at = if self.sought { at.unwrap_or(0) } else { 0 };
            self.skip = Some(asked.saturating_sub(at.max(0) as u64));
            self.left = self.wanted.duration.map(|d| frames(d, rate));
            // A seek that went too far: what it left out is silence.
            let missing = (at.max(0) as u64).saturating_sub(asked).min(u64::from(rate));
            self.mono.clear();
            self.mono.resize(missing as usize, 0.0);
        } else {
            self.mono.clear();
        }
        match self.wanted.channel {
            Channel::Mix if channels == 1 => self.mono.extend_from_slice(samples),
            Channel::Mix => {
                let share = 1.0 / channels as f32;
                self.mono.extend(samples.chunks_exact(channels).map(|f| f.iter().sum::<f32>() * share));
            }
            Channel::One(asked) if asked < channels => {
                self.mono.extend(samples.chunks_exact(channels).map(|f| f[asked]));
            }
            Channel::One(asked) => {
                return Err(AudioError::Channel { place: self.media.place.clone(), asked, found: channels });
            }
        }
        let skip = self.skip.unwrap_or(0);
        let dropped = skip.min(self.mono.len() as u64);
        self.skip = Some(skip - dropped);
        let mut part = &self.mono[dropped as usize..];
        if let Some(left) = &mut self.left {
            part = &part[..part.len().min(usize::try_from(*left).unwrap_or(usize::MAX))];
            *left -= part.len() as u64;
        }
        if let Some(i) = part.iter().position(|v| !v.is_finite() || v.abs() > LOUDEST) {
            let at = self.wanted.offset + seconds(self.seen + i as u64, rate);
            return Err(AudioError::Sample { place: self.media.place.clone(), at, value: part[i] });
        }
        self.seen += part.len() as u64;
        let to = self.wanted.rate.unwrap_or(rate);
        let mut out = Vec::new();
        if self.resampler.as_ref().is_none_or(|(from, _)| *from != rate) {
            if let Some((_, resampler)) = &mut self.resampler {
                resampler.finish(&mut out);
            }
            self.resampler = Some((rate, Resampler::new(rate, to)?));
        }
        if let Some((_, resampler)) = &mut self.resampler {
            resampler.push(part, &mut out);
        }
        Ok(Some(out))
    }

    /// What is left in the filter, and whether all came that should.
    fn finish(&mut self) -> Vec<f32> {
        let mut out = Vec::new();
        if let Some((_, resampler)) = &mut self.resampler {
            resampler.finish(&mut out);
        }
        let rate = self.media.rate;
        if self.left != Some(0)
            && let Some(promised) = self.media.frames
        {
            let found = frames(self.wanted.offset, rate) + self.seen;
            // Headers of compressed recordings are not exact.
            let tolerance = if self.media.exact { 0 } else { u64::from(rate) / 4 };
            if found + tolerance < promised {
                let (promised, found) = (seconds(promised, rate), seconds(found, rate));
                self.last = Some(AudioError::Truncated { place: self.media.place.clone(), promised, found });
            }
        }
        if self.seen == 0 && self.skip.is_some_and(|s| s > 0) {
            let length = self.media.position();
            self.last =
                Some(AudioError::Beyond { place: self.media.place.clone(), offset: self.wanted.offset, length });
        }
        out
    }
}

impl Iterator for Reader {
    type Item = Result<Vec<f32>, AudioError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.done {
            match self.step() {
                Ok(Some(block)) if block.is_empty() => {}
                Ok(Some(block)) => return Some(Ok(block)),
                Ok(None) => {
                    self.done = true;
                    let block = self.finish();
                    if !block.is_empty() {
                        return Some(Ok(block));
                    }
                }
                Err(error) => {
                    self.done = true;
                    return Some(Err(error));
                }
            }
        }
        self.last.take().map(Err)
    }
}

/// A whole recording as one channel at a rate in hertz, channels mixed.
///
/// It holds all samples at once: 3.8 MB a minute at 16 kHz. [`Reader`] gives them block by block.
///
/// # Errors
/// What [`AudioError`] lists; a recording that is cut off among them.
pub fn load(path: impl AsRef<Path>, rate: u32) -> Result<Vec<f32>, AudioError> {
    Reader::open(path, &Wanted::at(rate))?.collect_samples()
}

/// Time as frames, to the nearest.
fn frames(time: Duration, rate: u32) -> u64 {
    ((time.as_nanos() * u128::from(rate) + 500_000_000) / 1_000_000_000).min(u128::from(u64::MAX)) as u64
}
