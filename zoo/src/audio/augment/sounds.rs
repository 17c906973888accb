//! Recordings to be mixed in: noise, and the answers of rooms.

use super::AugmentError;
use super::draw::Draw;
use crate::asr::data::{Sound, Utterance, manifest, shards};
use crate::audio::{AudioError, Reader, Wanted};
use std::path::Path;
use std::time::Duration;

/// The largest member of an archive that is read, in bytes, and the longest part of a recording.
const LARGEST: u64 = 1 << 30;
const LONGEST: Duration = Duration::from_secs(600);

/// A list of recordings, read when they are drawn.
#[derive(Clone, Debug)]
pub struct Sounds(Vec<Utterance>);

impl Sounds {
    /// From a NeMo manifest: JSON lines with `audio_filepath`, and `offset` and `duration` if need be.
    ///
    /// # Errors
    /// A list that cannot be read, or is empty.
    pub fn open(path: &Path) -> Result<Self, AugmentError> {
        Self::of(manifest::read(path)?).ok_or_else(|| AugmentError::Empty { path: path.into() })
    }

    /// From a manifest whose recordings are in tar archives; names and patterns of both as in
    /// [`shards::tarred`].
    ///
    /// # Errors
    /// Lists and archives that cannot be read, or are empty; a recording that is not in them.
    pub fn tarred(folder: &Path, manifest: &str, archives: &[&str]) -> Result<Self, AugmentError> {
        let list = shards::tarred(folder, &[manifest], archives)?;
        Self::of(list).ok_or_else(|| AugmentError::Empty { path: folder.join(manifest) })
    }

    /// Of recordings that are known; none of no recordings.
    pub fn of(list: Vec<Utterance>) -> Option<Self> {
        (!list.is_empty()).then_some(Self(list))
    }

    /// One of them at a rate in hertz; of one longer than `most` samples a part, anywhere.
    pub(super) fn pick(&self, draw: &mut Draw, rate: u32, most: Option<usize>) -> Result<Vec<f32>, AudioError> {
        let chosen = &self.0[draw.below(self.0.len())];
        let seconds = |s: f64| Duration::try_from_secs_f64(s.max(0.0)).unwrap_or(Duration::MAX);
        let most = most.map_or(LONGEST, |n| seconds(n as f64 / f64::from(rate)).min(LONGEST));
        let mut wanted = Wanted::at(rate);
        wanted.offset = seconds(chosen.offset);
        let open = |wanted: &Wanted| match &chosen.sound {
            Sound::File(path) => Reader::open(path, wanted),
            part => {
                let place = part.to_string();
                let fault =
                    |e: crate::asr::data::DataError| AudioError::Format { place: place.clone(), fault: e.to_string() };
                let bytes = part.bytes(LARGEST).map_err(fault)?;
                Reader::bytes(&place, bytes, wanted)
            }
        };
        let length = match chosen.duration {
            Some(s) => Some(seconds(s)),
            None => open(&wanted)?.duration().map(|all| all.saturating_sub(wanted.offset)),
        };
        // Drawn always, so that what follows does not depend on the header.
        let share = draw.unit();
        if let Some(spare) = length.and_then(|l| l.checked_sub(most)) {
            wanted.offset += spare.mul_f64(share);
        }
        if let Some(channel) = chosen.channel {
            wanted = wanted.channel(channel);
        }
        wanted.duration = Some(length.map_or(most, |l| l.min(most)));
        open(&wanted)?.collect_samples()
    }
}
