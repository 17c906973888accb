//! A transducer for tests: its logits are a hash of the frame and of all that was said.

use super::Transducer;

pub struct Fake {
    pub classes: usize,
    pub blank: usize,
    pub durations: Vec<usize>,
    pub seed: u64,
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Fake {
    /// So many different frames.
    pub fn frames(&self, n: usize) -> Vec<Vec<f32>> {
        (0..n).map(|t| vec![t as f32, (mix(self.seed + t as u64) % 1000) as f32]).collect()
    }
}

impl Transducer for Fake {
    type State = Vec<u32>;
    type Error = std::io::Error;

    fn classes(&self) -> usize {
        self.classes
    }
    fn blank(&self) -> usize {
        self.blank
    }
    fn durations(&self) -> &[usize] {
        &self.durations
    }
    fn start(&self) -> Result<Vec<u32>, Self::Error> {
        Ok(vec![])
    }
    fn predict(&self, steps: &[(&Vec<u32>, u32)]) -> Result<Vec<Vec<u32>>, Self::Error> {
        Ok(steps.iter().map(|(said, token)| said.iter().copied().chain([*token]).collect()).collect())
    }
    fn joint(&self, pairs: &[(&[f32], &Vec<u32>)]) -> Result<Vec<f32>, Self::Error> {
        let row = |(frame, said): &(&[f32], &Vec<u32>)| {
            if frame[0].is_nan() {
                return vec![f32::NAN; self.classes + self.durations.len()];
            }
            let seed =
                said.iter().fold(mix(frame[0] as u64 ^ (frame[1] as u64) << 32), |h, t| mix(h ^ (*t as u64 + 7)));
            let logit = move |k| (mix(seed.wrapping_add(k as u64 * 0x9e37)) % 4096) as f32 / 1024.0 - 2.0;
            (0..self.classes + self.durations.len()).map(logit).collect::<Vec<f32>>()
        };
        Ok(pairs.iter().flat_map(row).collect())
    }
}
