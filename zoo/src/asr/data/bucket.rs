//! Batches of utterances of like length, as many as fill so many seconds.
//!
//! What a step costs is the padded batch: the longest utterance times their number. So utterances are
//! sorted into buckets at quantiles of their durations, and a bucket gives a batch when one more would
//! pass the bound on `longest × count` (or on `count`). The order of utterances within buckets and that of
//! batches are shuffled by a seed and the number of the epoch, and by nothing else: the plan of an
//! epoch is a function. A run goes on where it stopped by the number of batches that it has used, and
//! threads that read ahead change nothing.
//!
//! **Ranks.** All ranks compute the plan of the whole corpus and each takes its share of every group of
//! `ranks` batches, which come from one bucket where they can, so that ranks work alike long. An
//! epoch's last group is filled up with batches of its beginning. Every rank so gets the same number of
//! batches, whatever the shards hold, and none ever waits for another that is through.

use super::Utterance;
use mobilis_runtime::philox::philox4x32;

/// How utterances become batches.
#[derive(Clone, Debug, PartialEq)]
pub struct Bucketing {
    /// The most seconds in a batch, padding included; no bound where `None`.
    pub seconds: Option<f64>,
    /// The most utterances in a batch.
    pub most: usize,
    /// How many buckets.
    pub buckets: usize,
    /// What the order is drawn from; `None` keeps that of the list in every epoch, within buckets.
    pub seed: Option<u64>,
    /// How many processes share the corpus.
    pub ranks: usize,
    /// Which of them this is, from 0.
    pub rank: usize,
}

impl Default for Bucketing {
    /// Batches of 32 from one bucket, shuffled, for one process.
    fn default() -> Bucketing {
        Bucketing { seconds: None, most: 32, buckets: 1, seed: Some(0), ranks: 1, rank: 0 }
    }
}

/// The batches of a corpus.
#[derive(Clone, Debug)]
pub struct Plan {
    durations: Vec<f64>,
    /// The indices of utterances, bucket by bucket.
    buckets: Vec<Vec<usize>>,
    rules: Bucketing,
    /// The last epoch that was asked for, and where its first batch stands in the run.
    epoch: Epoch,
}

/// The batches of one epoch.
#[derive(Clone, Debug, Default, PartialEq)]
struct Epoch {
    number: u64,
    first: u64,
    batches: Vec<Vec<usize>>,
}

/// Random numbers by key and place (Philox 4x32-10), and a shuffle that uses them.
#[derive(Clone, Copy, Debug)]
pub struct Dice {
    key: [u32; 2],
    stream: [u32; 2],
    drawn: u64,
}

impl Dice {
    /// Numbers that `seed` and the two words of `stream` fix.
    pub fn new(seed: u64, stream: [u32; 2]) -> Dice {
        Dice { key: [seed as u32, (seed >> 32) as u32], stream, drawn: 0 }
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        let at = self.drawn;
        self.drawn += 1;
        let [a, b, ..] = philox4x32([at as u32, (at >> 32) as u32, self.stream[0], self.stream[1]], self.key);
        u64::from(a) | u64::from(b) << 32
    }

    /// A whole number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// Any order, each as likely (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

/// Streams of [`Dice`]: utterances within buckets, groups of batches.
const WITHIN: u32 = 1;
const GROUPS: u32 = 2;

impl Plan {
    /// The plan of a corpus. `None` where a duration is not known, or nothing is left: a batch must
    /// have at least one utterance, one process, one bucket.
    pub fn new(utterances: &[Utterance], rules: Bucketing) -> Option<Plan> {
        let durations = utterances.iter().map(|u| u.duration).collect::<Option<Vec<f64>>>()?;
        Plan::of(durations, rules)
    }

    /// The plan of a corpus with these durations, in seconds.
    pub fn of(durations: Vec<f64>, rules: Bucketing) -> Option<Plan> {
        let sound = rules.most > 0 && rules.buckets > 0 && rules.rank < rules.ranks;
        if durations.is_empty() || !sound || durations.iter().any(|d| !d.is_finite()) {
            return None;
        }
        let mut sorted: Vec<usize> = (0..durations.len()).collect();
        sorted.sort_by(|a, b| durations[*a].total_cmp(&durations[*b]).then(a.cmp(b)));
        let each = sorted.len().div_ceil(rules.buckets);
        let mut buckets: Vec<Vec<usize>> = sorted.chunks(each).map(<[usize]>::to_vec).collect();
        buckets.iter_mut().for_each(|bucket| bucket.sort_unstable());
        let mut plan = Plan { durations, buckets, rules, epoch: Epoch::default() };
        plan.epoch.batches = plan.epoch(0);
        Some(plan)
    }

    /// The utterances of this rank's batches in an epoch. All ranks have as many.
    pub fn epoch(&self, number: u64) -> Vec<Vec<usize>> {
        let stream = |kind: u32| [kind ^ ((number >> 32) as u32) << 8, number as u32];
        let mut groups: Vec<Vec<Vec<usize>>> = vec![];
        let mut rest = vec![];
        let mut within = self.rules.seed.map(|seed| Dice::new(seed, stream(WITHIN)));
        for bucket in &self.buckets {
            let mut order = bucket.clone();
            if let Some(dice) = &mut within {
                dice.shuffle(&mut order);
            }
            let batches = self.batches(&order);
            let whole = batches.len() / self.rules.ranks * self.rules.ranks;
            groups.extend(batches[..whole].chunks(self.rules.ranks).map(<[_]>::to_vec));
            rest.extend_from_slice(&batches[whole..]);
        }
        groups.extend(rest.chunks(self.rules.ranks).map(<[_]>::to_vec));
        // Short groups stay last.
        let whole = groups.iter().take_while(|g| g.len() == self.rules.ranks).count();
        if let Some(seed) = self.rules.seed {
            Dice::new(seed, stream(GROUPS)).shuffle(&mut groups[..whole]);
        }
        let all: Vec<Vec<usize>> = groups.into_iter().flatten().collect();
        let (ranks, rank) = (self.rules.ranks, self.rules.rank);
        let steps = all.len().div_ceil(ranks);
        (0..steps).map(|i| all[(i * ranks + rank) % all.len()].clone()).collect()
    }

    /// Cuts an order into batches within the bounds. An utterance that alone is too long is alone.
    fn batches(&self, order: &[usize]) -> Vec<Vec<usize>> {
        let (mut batches, mut batch, mut longest) = (vec![], vec![], 0f64);
        for index in order {
            let longer = longest.max(self.durations[*index]);
            let full = self.rules.seconds.is_some_and(|most| longer * (batch.len() + 1) as f64 > most);
            if batch.len() == self.rules.most || (full && !batch.is_empty()) {
                batches.push(std::mem::take(&mut batch));
                longest = 0.0;
            }
            longest = longest.max(self.durations[*index]);
            batch.push(*index);
        }
        batches.extend(Some(batch).filter(|b| !b.is_empty()));
        batches
    }

    /// The epoch and the utterances of batch `index`, counted from 0 over the whole run.
    pub fn batch(&mut self, index: u64) -> (u64, &[usize]) {
        if index < self.epoch.first {
            self.epoch = Epoch { number: 0, first: 0, batches: self.epoch(0) };
        }
        while index - self.epoch.first >= self.epoch.batches.len() as u64 {
            let (number, first) = (self.epoch.number + 1, self.epoch.first + self.epoch.batches.len() as u64);
            self.epoch = Epoch { number, first, batches: self.epoch(number) };
        }
        (self.epoch.number, &self.epoch.batches[(index - self.epoch.first) as usize])
    }

    /// How many batches the first epoch has.
    pub fn batches_per_epoch(&self) -> u64 {
        match self.epoch.number {
            0 => self.epoch.batches.len() as u64,
            _ => self.epoch(0).len() as u64,
        }
    }

    /// The share of a first epoch's batches that is padding.
    pub fn padding(&self) -> f64 {
        let (mut heard, mut all) = (0.0, 0.0);
        for batch in self.epoch(0) {
            let durations = || batch.iter().map(|i| self.durations[*i]);
            heard += durations().sum::<f64>();
            all += durations().fold(0.0, f64::max) * batch.len() as f64;
        }
        // Durations may be so long that their sum is no number.
        if all > 0.0 && all.is_finite() { 1.0 - heard / all } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn durations(n: usize) -> Vec<f64> {
        let mut dice = Dice::new(7, [0, 0]);
        (0..n).map(|_| 0.5 + dice.below(20_000) as f64 / 1000.0).collect()
    }

    fn rules() -> Bucketing {
        Bucketing { seconds: Some(60.0), most: 16, buckets: 5, seed: Some(3), ranks: 1, rank: 0 }
    }

    #[test]
    fn an_epoch_has_every_utterance_once_within_the_bounds() {
        let all = durations(1003);
        let plan = Plan::of(all.clone(), rules()).unwrap();
        for epoch in [0, 1, 1 << 40] {
            let batches = plan.epoch(epoch);
            let mut seen: Vec<usize> = batches.iter().flatten().copied().collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..1003).collect::<Vec<_>>());
            for batch in &batches {
                let longest = batch.iter().map(|i| all[*i]).fold(0.0, f64::max);
                assert!(batch.len() <= 16 && longest * batch.len() as f64 <= 60.0, "{batch:?}");
            }
        }
        assert_ne!(plan.epoch(0), plan.epoch(1));
        assert_eq!(plan.epoch(1), Plan::of(all.clone(), rules()).unwrap().epoch(1));
        // Buckets save padding.
        let one = Plan::of(all, Bucketing { buckets: 1, ..rules() }).unwrap();
        assert!(plan.padding() < 0.5 * one.padding(), "{} {}", plan.padding(), one.padding());
    }

    #[test]
    fn without_a_seed_the_list_s_order_stays() {
        let plan = Plan::of(vec![1.0; 5], Bucketing { most: 2, seed: None, ..Bucketing::default() }).unwrap();
        assert_eq!(plan.epoch(0), [vec![0, 1], vec![2, 3], vec![4]]);
        assert_eq!(plan.epoch(9), plan.epoch(0));
    }

    #[test]
    fn too_long_for_a_batch_is_alone() {
        let plan =
            Plan::of(vec![99.0, 1.0, 99.0], Bucketing { seconds: Some(10.0), seed: None, ..Bucketing::default() });
        assert_eq!(plan.unwrap().epoch(0), [[0], [1], [2]]);
    }

    /// Uneven shares cannot hang: all ranks take the same number of steps in every epoch, and between
    /// them hear everything.
    #[test]
    fn ranks_take_as_many_steps() {
        for (n, ranks) in [(1, 4), (7, 2), (100, 3), (1003, 8), (64, 64), (5, 64)] {
            let all = durations(n);
            for epoch in 0..3 {
                let of = |rank| Plan::of(all.clone(), Bucketing { ranks, rank, ..rules() }).unwrap().epoch(epoch);
                let shares: Vec<_> = (0..ranks).map(of).collect();
                assert!(shares.iter().all(|s| s.len() == shares[0].len() && !s.is_empty()), "{n} {ranks}");
                let heard: BTreeSet<usize> = shares.iter().flatten().flatten().copied().collect();
                assert_eq!(heard.len(), n);
                // What is heard twice is less than a group.
                let batches: usize = shares.iter().map(Vec::len).sum();
                let distinct: BTreeSet<&Vec<usize>> = shares.iter().flatten().collect();
                assert!(batches - distinct.len() < ranks);
            }
        }
    }

    #[test]
    fn a_position_is_a_number() {
        let mut plan = Plan::of(durations(200), rules()).unwrap();
        let mut walked: Vec<(u64, Vec<usize>)> = vec![];
        for i in 0..200 {
            let (epoch, batch) = plan.batch(i);
            walked.push((epoch, batch.to_vec()));
        }
        assert!(walked.iter().any(|(epoch, _)| *epoch > 1));
        let mut fresh = Plan::of(durations(200), rules()).unwrap();
        for index in [150, 3, 199, 0] {
            let (epoch, batch) = fresh.batch(index);
            assert_eq!((epoch, batch.to_vec()), walked[index as usize]);
        }
    }

    #[test]
    fn nothing_has_no_plan() {
        assert!(Plan::of(vec![], rules()).is_none());
        assert!(Plan::of(vec![1.0], Bucketing { most: 0, ..rules() }).is_none());
        assert!(Plan::of(vec![1.0], Bucketing { rank: 1, ..rules() }).is_none());
        assert!(Plan::of(vec![f64::NAN], rules()).is_none());
    }
}
