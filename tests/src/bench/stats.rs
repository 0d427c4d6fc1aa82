//! The statistics of a comparison, on plain numbers.

use serde::Serialize;

use crate::random::Random;

/// How often the pairs are resampled for a confidence interval: its ends then vary by less than a tenth of its width.
const RESAMPLES: usize = 2000;

/// A confidence interval that straddles the target and is wider than this, relative to the target, decides nothing.
const WIDE: f64 = 0.05;

/// If the middle half of the ratios of the pairs spreads wider than this, relative to their median, the machine was noisy.
const NOISY: f64 = 0.25;

/// What the ratio of A to B has to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// For times: A may take at most this many times what B takes.
    AtMost(f64),
    /// For throughput: A must reach at least this part of B.
    AtLeast(f64),
}

impl Target {
    /// The bound itself.
    pub fn bound(self) -> f64 {
        match self {
            Self::AtMost(bound) | Self::AtLeast(bound) => bound,
        }
    }

    /// Whether a ratio is on the right side.
    pub fn allows(self, ratio: f64) -> bool {
        match self {
            Self::AtMost(bound) => ratio <= bound,
            Self::AtLeast(bound) => ratio >= bound,
        }
    }
}

/// What became of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The ratio is on the right side of the target.
    Met,
    /// The ratio is on the wrong side of the target.
    Missed,
    /// The measurements don't tell. Measure again on a quieter machine, or with more pairs.
    Inconclusive,
}

/// A range, both ends included. Serialised as `[low, high]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl Interval {
    /// The distance between the ends.
    pub fn width(self) -> f64 {
        self.high - self.low
    }
}

impl Serialize for Interval {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.low, self.high).serialize(serializer)
    }
}

/// The ratio of A to B, as far as the pairs of blocks tell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ratio {
    /// The median of the ratios of the pairs.
    pub(crate) median: f64,
    /// Where the median lies with a probability of 95 %.
    pub(crate) confidence: Interval,
    /// The middle half of the ratios of the pairs.
    pub(crate) quartiles: Interval,
}

impl Ratio {
    /// From one ratio a pair; `None` if there is none, or one that isn't a number.
    pub(crate) fn of_pairs(ratios: &[f64]) -> Option<Self> {
        if ratios.iter().any(|ratio| !ratio.is_finite()) {
            return None;
        }
        let quartiles = Interval { low: quantile(ratios, 0.25)?, high: quantile(ratios, 0.75)? };
        Some(Self { median: quantile(ratios, 0.5)?, confidence: bootstrap_median(ratios)?, quartiles })
    }

    /// Holds the ratio against a target.
    ///
    /// It is inconclusive if the confidence interval straddles the target and is wide, or if the pairs disagree a lot about the
    /// ratio and their middle half straddles it.
    pub(crate) fn verdict(&self, target: Target) -> Verdict {
        let straddles = |range: Interval| target.allows(range.low) != target.allows(range.high);
        let is_wide = self.confidence.width() > WIDE * target.bound();
        let is_noisy = self.quartiles.width() > NOISY * self.median;
        if (straddles(self.confidence) && is_wide) || (straddles(self.quartiles) && is_noisy) {
            Verdict::Inconclusive
        } else if target.allows(self.median) {
            Verdict::Met
        } else {
            Verdict::Missed
        }
    }
}

/// The value below which the part `q` of all values lies, interpolated between neighbours; `None` of nothing.
pub(crate) fn quantile(values: &[f64], q: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    quantile_sorted(&sorted, q)
}

/// [`quantile`] of values in ascending order.
pub(crate) fn quantile_sorted(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let position = q.clamp(0.0, 1.0) * last as f64;
    let below = position.floor();
    // A position within a slice is a small number without sign.
    let low = *sorted.get(below as usize)?;
    let high = *sorted.get(position.ceil() as usize)?;
    Some(low + (high - low) * (position - below))
}

/// The 95 % confidence interval of the median, by the percentile bootstrap. Repeatable: always resampled in the same way.
fn bootstrap_median(values: &[f64]) -> Option<Interval> {
    let mut random = Random::new(0x6d65_6d63_656c_6c00);
    let mut medians = Vec::with_capacity(RESAMPLES);
    let mut sample = Vec::with_capacity(values.len());
    for _ in 0..RESAMPLES {
        sample.clear();
        sample.extend((0..values.len()).filter_map(|_| random.pick(values)));
        sample.sort_by(f64::total_cmp);
        medians.push(quantile_sorted(&sample, 0.5)?);
    }
    Some(Interval { low: quantile(&medians, 0.025)?, high: quantile(&medians, 0.975)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Roughly normal around `centre`.
    fn scattered(centre: f64, spread: f64, count: usize, seed: u64) -> Vec<f64> {
        let mut random = Random::new(seed);
        let mut uniform = || random.below(1 << 30) as f64 / f64::from(1 << 30) - 0.5;
        (0..count).map(|_| centre + spread * (uniform() + uniform() + uniform() + uniform())).collect()
    }

    fn ratio(values: &[f64]) -> Ratio {
        Ratio::of_pairs(values).unwrap()
    }

    #[test]
    fn quantiles_are_exact_and_interpolated() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(quantile(&values, 0.5), Some(2.5));
        assert_eq!(quantile(&values, 0.0), Some(1.0));
        assert_eq!(quantile(&values, 1.0), Some(4.0));
        assert_eq!(quantile(&[7.0], 0.99), Some(7.0));
        assert_eq!(quantile(&[], 0.5), None);
        let hundred: Vec<f64> = (0..=100).map(f64::from).collect();
        assert_eq!(quantile(&hundred, 0.99), Some(99.0));
    }

    #[test]
    fn the_interval_covers_the_truth_about_as_often_as_it_says() {
        let covered = (0..60)
            .filter(|seed| {
                let confidence = ratio(&scattered(1.0, 0.2, 21, *seed)).confidence;
                (confidence.low..=confidence.high).contains(&1.0)
            })
            .count();
        assert!((52..=60).contains(&covered), "{covered} of 60");
    }

    #[test]
    fn more_pairs_narrow_the_interval() {
        let few = ratio(&scattered(1.0, 0.2, 10, 1)).confidence.width();
        let many = ratio(&scattered(1.0, 0.2, 400, 1)).confidence.width();
        assert!(many < few / 3.0, "{many} {few}");
    }

    #[test]
    fn a_clear_ratio_is_judged_both_ways() {
        let clear = ratio(&scattered(1.5, 0.05, 20, 2));
        assert_eq!(clear.verdict(Target::AtMost(2.0)), Verdict::Met);
        assert_eq!(clear.verdict(Target::AtMost(1.2)), Verdict::Missed);
        assert_eq!(clear.verdict(Target::AtLeast(1.2)), Verdict::Met);
        assert_eq!(clear.verdict(Target::AtLeast(2.0)), Verdict::Missed);
    }

    #[test]
    fn a_wide_interval_across_the_target_decides_nothing() {
        let scattered = ratio(&scattered(1.05, 0.3, 10, 3));
        assert!(scattered.confidence.width() > WIDE * 1.05, "{scattered:?}");
        assert_eq!(scattered.verdict(Target::AtMost(1.05)), Verdict::Inconclusive);
        assert_eq!(scattered.verdict(Target::AtMost(2.0)), Verdict::Met);
    }

    #[test]
    fn a_narrow_interval_across_the_target_is_decided_by_the_median() {
        let narrow = Ratio {
            median: 1.049,
            confidence: Interval { low: 1.04, high: 1.06 },
            quartiles: Interval { low: 1.03, high: 1.07 },
        };
        assert_eq!(narrow.verdict(Target::AtMost(1.05)), Verdict::Met);
        assert_eq!(narrow.verdict(Target::AtLeast(1.05)), Verdict::Missed);
    }

    #[test]
    fn pairs_that_disagree_decide_nothing_however_many_there_are() {
        let many = ratio(&scattered(1.0, 1.5, 1000, 4));
        assert!(!(many.confidence.low..=many.confidence.high).contains(&1.2), "{many:?}");
        assert_eq!(many.verdict(Target::AtMost(1.2)), Verdict::Inconclusive);
        assert_eq!(many.verdict(Target::AtMost(3.0)), Verdict::Met);
    }

    #[test]
    fn nothing_and_nonsense_have_no_ratio() {
        assert!(Ratio::of_pairs(&[]).is_none());
        assert!(Ratio::of_pairs(&[1.0, f64::NAN]).is_none());
    }
}
