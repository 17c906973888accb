//! WAV files, written (Microsoft and IBM 1991, "Multimedia Programming Interface and Data
//! Specifications 1.0").

use super::AudioError;
use mobilis_runtime::checkpoint::atomic;
use std::io::Write;
use std::path::Path;

/// How samples are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Stored {
    /// Whole numbers of 16 bits; beyond -1 to 1 is cut off.
    #[default]
    Int16,
    /// 32-bit floating point, as they are.
    Float32,
}

/// The bytes of a WAV file of interleaved samples at a rate in hertz.
///
/// # Errors
/// More than the 4 GB that the format can tell, no channel or too many, or values that do not
/// make whole frames.
pub fn encode(samples: &[f32], rate: u32, channels: u16, stored: Stored) -> Result<Vec<u8>, AudioError> {
    let wrong = |fault: String| AudioError::Format { place: "the WAV file to be written".into(), fault };
    let width: u16 = match stored {
        Stored::Int16 => 2,
        Stored::Float32 => 4,
    };
    if channels == 0 || !samples.len().is_multiple_of(usize::from(channels)) {
        return Err(wrong(format!("{} values are no frames of {channels} channels", samples.len())));
    }
    let (frame, long) = match (channels.checked_mul(width), u32::try_from(samples.len() * usize::from(width))) {
        (Some(frame), Ok(long)) if long < u32::MAX - 100 => (frame, long),
        _ => return Err(wrong(format!("{} values are more than it can hold", samples.len()))),
    };
    let mut out = Vec::with_capacity(44 + long as usize);
    out.extend_from_slice(b"RIFF");
    out.extend_from_slice(&(36 + long).to_le_bytes());
    out.extend_from_slice(b"WAVEfmt \x10\0\0\0");
    out.extend_from_slice(&(if stored == Stored::Int16 { 1u16 } else { 3 }).to_le_bytes());
    out.extend_from_slice(&channels.to_le_bytes());
    out.extend_from_slice(&rate.to_le_bytes());
    out.extend_from_slice(&rate.saturating_mul(u32::from(frame)).to_le_bytes());
    out.extend_from_slice(&frame.to_le_bytes());
    out.extend_from_slice(&(width * 8).to_le_bytes());
    out.extend_from_slice(b"data");
    out.extend_from_slice(&long.to_le_bytes());
    match stored {
        Stored::Int16 => samples.iter().for_each(|v| {
            let scaled = (v * 32_768.0).round().clamp(-32_768.0, 32_767.0) as i16;
            out.extend_from_slice(&scaled.to_le_bytes());
        }),
        Stored::Float32 => samples.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes())),
    }
    Ok(out)
}

/// Writes one channel as a WAV file of 16 bits, whole or not at all.
///
/// # Errors
/// Those of [`encode`] and of the system.
pub fn write(path: impl AsRef<Path>, samples: &[f32], rate: u32) -> Result<(), AudioError> {
    let path = path.as_ref();
    let bytes = encode(samples, rate, 1, Stored::Int16)?;
    atomic::replace(path, |out| out.write_all(&bytes)).map_err(|source| AudioError::Io {
        action: "write",
        place: path.display().to_string(),
        source,
    })
}
