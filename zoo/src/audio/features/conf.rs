//! Kaldi's settings files (`conf/fbank.conf`, `conf/mfcc.conf`): an option a line, `--num-mel-bins=80`, and `#` before
//! what is no option.
//!
//! Options are those of `compute-fbank-feats` and `compute-mfcc-feats` (`feat/feature-fbank.h`, `feature-mfcc.h`,
//! `feature-window.h`, `mel-computations.h`) with the values that Kaldi gives them where a file says nothing. Kaldi's
//! samples are 16-bit numbers, so samples are multiplied by 32768 first. As in Kaldi `_` is as good as `-`, and an option
//! without a value is true. Unknown options are errors; so are those that would change features in ways that are not
//! computed here (warped frequencies, HTK's order).

use super::{Fbank, FeatureError, Features, Shape};
use crate::llm::config::ConfigError;
use mobilis_runtime::suggest::did_you_mean;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// A settings file is shorter than this.
const LONGEST: u64 = 1 << 20;

/// Options that change no value: of reading and writing, and of what other options turn off.
const WITHOUT_EFFECT: [&str; 16] = [
    "allow-downsample",
    "allow-upsample",
    "blackman-coeff",
    "channel",
    "compress",
    "debug-mel",
    "max-feature-vectors",
    "min-duration",
    "output-format",
    "utt2spk",
    "verbose",
    "vtln-high",
    "vtln-low",
    "write-num-frames",
    "write-utt2dur",
    "print-args",
];

impl Features {
    /// The features that a settings file of Kaldi's describes: filter banks, or cepstra where its name has `mfcc` in it.
    ///
    /// # Errors
    /// A file that cannot be read, or of other features (`pitch.conf`); unknown options; values that are none, or that
    /// contradict themselves.
    pub fn kaldi_conf(path: &Path) -> Result<Self, FeatureError> {
        let place = path.display().to_string();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let read = || -> std::io::Result<String> {
            let mut text = String::new();
            // Pipes and devices tell no length.
            std::fs::File::open(path)?.take(LONGEST + 1).read_to_string(&mut text)?;
            if text.len() as u64 > LONGEST {
                return Err(std::io::Error::other(format!("it has more than {LONGEST} bytes")));
            }
            Ok(text)
        };
        let text = read().map_err(|source| FeatureError::Io { path: path.into(), source })?;
        match (name.contains("mfcc"), name.contains("fbank")) {
            (true, _) => Self::kaldi(Fbank::mfcc_conf(&place, &text)?),
            (false, true) => Self::kaldi(Fbank::fbank_conf(&place, &text)?),
            _ => Err(FeatureError::Class { place, class: name, known: "files with fbank or mfcc in their name" }),
        }
    }
}

impl Fbank {
    /// Filter banks, by the text of a settings file; `place` is its name in messages.
    ///
    /// # Errors
    /// Unknown options, values that are none.
    pub fn fbank_conf(place: &str, text: &str) -> Result<Fbank, ConfigError> {
        let mut options = Options::read(place, text)?;
        let mut settings = options.common(Fbank::default())?;
        settings.use_energy = options.flag("use-energy", false)?;
        settings.use_log_fbank = options.flag("use-log-fbank", true)?;
        settings.use_power = options.flag("use-power", true)?;
        options.finish().map(|()| settings)
    }

    /// Cepstra, by the text of a settings file; `place` is its name in messages.
    ///
    /// # Errors
    /// Unknown options, values that are none.
    pub fn mfcc_conf(place: &str, text: &str) -> Result<Fbank, ConfigError> {
        let mut options = Options::read(place, text)?;
        let mut settings = options.common(Fbank::default())?;
        settings.use_energy = options.flag("use-energy", true)?;
        settings.num_ceps = Some(options.count("num-ceps", 13)?);
        settings.cepstral_lifter = options.number("cepstral-lifter", 22.0)?;
        options.finish().map(|()| settings)
    }
}

/// What a file says, option by option.
struct Options<'a> {
    place: &'a str,
    given: BTreeMap<String, String>,
    known: Vec<&'static str>,
}

impl<'a> Options<'a> {
    fn read(place: &'a str, text: &str) -> Result<Self, ConfigError> {
        let mut given = BTreeMap::new();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or("").trim();
            if line.is_empty() {
                continue;
            }
            let Some(option) = line.strip_prefix("--") else {
                let expected = "an option a line: --num-mel-bins=80".into();
                let (place, found) = (place.to_string(), "no option".into());
                return Err(ConfigError::Wrong { place, key: line.into(), found, expected });
            };
            let (name, value) = option.split_once('=').unwrap_or((option, "true"));
            // Of an option that is there twice the last counts.
            given.insert(name.trim().replace('_', "-").to_lowercase(), value.trim().trim_matches('"').into());
        }
        Ok(Options { place, given, known: vec![] })
    }

    fn wrong(&self, name: &str, found: &str, expected: impl Into<String>) -> ConfigError {
        let (place, key) = (self.place.to_string(), format!("--{name}"));
        ConfigError::Wrong { place, key, found: format!("\"{found}\""), expected: expected.into() }
    }

    fn take(&mut self, name: &'static str) -> Option<String> {
        self.known.push(name);
        self.given.remove(name)
    }

    fn number(&mut self, name: &'static str, default: f64) -> Result<f64, ConfigError> {
        let Some(text) = self.take(name) else { return Ok(default) };
        text.parse().ok().filter(|n: &f64| n.is_finite()).ok_or_else(|| self.wrong(name, &text, "a number"))
    }

    fn count(&mut self, name: &'static str, default: usize) -> Result<usize, ConfigError> {
        let Some(text) = self.take(name) else { return Ok(default) };
        text.parse().map_err(|_| self.wrong(name, &text, "a whole number"))
    }

    fn flag(&mut self, name: &'static str, default: bool) -> Result<bool, ConfigError> {
        match self.take(name).as_deref() {
            None => Ok(default),
            Some("true" | "t" | "1" | "") => Ok(true),
            Some("false" | "f" | "0") => Ok(false),
            Some(other) => Err(self.wrong(name, other, "true or false")),
        }
    }

    /// What both kinds of features have.
    fn common(&mut self, base: Fbank) -> Result<Fbank, ConfigError> {
        for name in WITHOUT_EFFECT {
            self.take(name);
        }
        for (name, only) in [("htk-compat", "false"), ("vtln-map", ""), ("vtln-warp", "1.0")] {
            let found = self.take(name).filter(|found| {
                let number = |text: &str| text.parse::<f64>().ok();
                found != only && (number(found).is_none() || number(found) != number(only))
            });
            if let Some(found) = found {
                return Err(self.wrong(
                    name,
                    &found,
                    "what Kaldi has where nothing is said: no other is computed here",
                ));
            }
        }
        let window = match self.take("window-type").as_deref() {
            None | Some("povey") => Shape::Povey,
            Some("hamming") => Shape::Hamming,
            Some("hanning") => Shape::Hann,
            Some("blackman") => Shape::Blackman,
            Some("rectangular") => Shape::Rectangular,
            Some(other) => {
                return Err(self.wrong("window-type", other, "povey, hamming, hanning, blackman or rectangular"));
            }
        };
        let rate = self.number("sample-frequency", 16_000.0)?;
        if !(1.0..=768_000.0).contains(&rate) || rate.fract() != 0.0 {
            return Err(self.wrong("sample-frequency", &rate.to_string(), "1 to 768000, a whole number"));
        }
        Ok(Fbank {
            sample_frequency: rate as u32,
            frame_length: self.number("frame-length", 25.0)?,
            frame_shift: self.number("frame-shift", 10.0)?,
            num_mel_bins: self.count("num-mel-bins", 23)?,
            low_freq: self.number("low-freq", 20.0)?,
            high_freq: self.number("high-freq", 0.0)?,
            dither: self.number("dither", 1.0)?,
            preemphasis_coefficient: self.number("preemphasis-coefficient", 0.97)?,
            remove_dc_offset: self.flag("remove-dc-offset", true)?,
            window_type: window,
            round_to_power_of_two: self.flag("round-to-power-of-two", true)?,
            snip_edges: self.flag("snip-edges", true)?,
            raw_energy: self.flag("raw-energy", true)?,
            energy_floor: self.number("energy-floor", 0.0)?,
            subtract_mean: self.flag("subtract-mean", false)?,
            scale: 32_768.0,
            ..base
        })
    }

    fn finish(self) -> Result<(), ConfigError> {
        let Some((name, value)) = self.given.iter().next() else { return Ok(()) };
        let hint = match did_you_mean(name, &self.known) {
            hint if hint.is_empty() => format!("one of {}", self.known.join(", ")),
            hint => format!("a known option{hint}"),
        };
        let (place, key) = (self.place.to_string(), format!("--{name}"));
        Err(ConfigError::Wrong { place, key, found: format!("not known (\"{value}\")"), expected: hint })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_kaldi_s_recipes() {
        // egs/wsj/s5/conf/fbank.conf, mfcc_hires.conf.
        let fbank = Fbank::fbank_conf("fbank.conf", "# No non-default options for now.\n\n").unwrap();
        assert_eq!((fbank.num_mel_bins, fbank.use_energy, fbank.dither, fbank.scale), (23, false, 1.0, 32_768.0));
        let hires = "--use-energy=false   # use average of log energy\n--num-mel-bins=40\n--num_ceps=40\n--low-freq=20\n--high-freq=-400\n";
        let found = Fbank::mfcc_conf("mfcc_hires.conf", hires).unwrap();
        assert_eq!(
            (found.num_mel_bins, found.num_ceps, found.high_freq, found.use_energy),
            (40, Some(40), -400.0, false)
        );
        assert!(Fbank::mfcc_conf("mfcc.conf", "--use-energy").unwrap().use_energy);
    }

    #[test]
    fn slips_are_named() {
        for (line, says) in [
            ("--num-mel-bin=80", "did you mean `num-mel-bins`"),
            ("--num-ceps=13", "`--num-ceps` is not known"),
            ("--low-freq=twenty", "`--low-freq` is \"twenty\", expected a number"),
            ("--high-freq=nan", "expected a number"),
            ("--num-mel-bins=-3", "a whole number"),
            ("--use-power=maybe", "true or false"),
            ("--htk-compat=true", "no other is computed here"),
            ("--vtln-warp=0.9", "no other is computed here"),
            ("--window-type=sine", "povey"),
            ("num-mel-bins=80", "an option a line"),
            ("--sample-frequency=0", "768000"),
        ] {
            let error = Fbank::fbank_conf("conf/fbank.conf", line).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("conf/fbank.conf"), "{line}: {error}");
        }
        assert!(Fbank::fbank_conf("f", "--vtln-warp=1\n--htk-compat=false").is_ok());
        let pitch = std::env::temp_dir().join(format!("pitch-{}.conf", std::process::id()));
        std::fs::write(&pitch, "--sample-frequency=8000\n").unwrap();
        let error = Features::kaldi_conf(&pitch).unwrap_err().to_string();
        std::fs::remove_file(&pitch).unwrap();
        assert!(error.contains("pitch") && error.contains("mfcc"), "{error}");
    }
}
