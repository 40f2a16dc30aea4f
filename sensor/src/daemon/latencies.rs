//! How long something took, over and over: quantiles of a high dynamic range histogram.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

/// The times that something took. Cheap to clone; all clones are one. It holds the same memory, some tens of
/// kilobytes, whatever it is told.
#[derive(Debug, Clone)]
pub(super) struct Latencies {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    /// Microseconds.
    histogram: Histogram<u64>,
    /// Exact, where the histogram rounds.
    sum: Duration,
    max: Duration,
}

impl Latencies {
    /// None so far.
    pub(super) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, MICROS_MAX, DIGITS).expect("the bounds are sound");
        let shared = Shared { histogram, sum: Duration::ZERO, max: Duration::ZERO };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    /// Takes note of one more. In the quantiles more than [`MICROS_MAX`] counts as that.
    pub(super) fn record(&self, took: Duration) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.histogram.saturating_record(u64::try_from(took.as_micros()).unwrap_or(MICROS_MAX));
        shared.sum = shared.sum.saturating_add(took);
        shared.max = shared.max.max(took);
    }

    /// What they come to so far.
    pub(super) fn quantiles(&self) -> Quantiles {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let at = |quantile| Duration::from_micros(shared.histogram.value_at_quantile(quantile));
        Quantiles {
            count: shared.histogram.len(),
            sum: shared.sum,
            max: shared.max,
            quantiles: QUANTILES.map(|quantile| (quantile, at(quantile).min(shared.max))),
        }
    }
}

/// What the times that something took come to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Quantiles {
    /// How often it was.
    pub(super) count: u64,
    /// All together.
    pub(super) sum: Duration,
    /// The longest.
    pub(super) max: Duration,
    /// Which share of them took at most how long, rounded up by at most a hundredth.
    pub(super) quantiles: [(f64, Duration); QUANTILES.len()],
}

/// Seconds, to the microsecond.
pub(super) fn secs(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e6
}

/// The shares that are told.
const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

/// An hour: what takes longer is late beyond measure.
const MICROS_MAX: u64 = 3_600_000_000;

/// Of the quantiles: one in a hundred.
const DIGITS: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_a_hundredth() {
        let latencies = Latencies::new();
        (1..=1000).for_each(|millis| latencies.clone().record(Duration::from_millis(millis)));
        let Quantiles { count, sum, max, quantiles } = latencies.quantiles();
        assert_eq!(count, 1000);
        // 1 + 2 + ... + 1000 milliseconds.
        assert_eq!(sum, Duration::from_micros(500_500_000));
        assert_eq!(max, Duration::from_secs(1));
        for ((quantile, found), (expected, millis)) in quantiles.into_iter().zip([(0.5, 500), (0.9, 900), (0.99, 990)])
        {
            assert_eq!(quantile, expected);
            let exact = Duration::from_millis(millis);
            assert!(found >= exact && found <= exact.mul_f64(1.01), "{quantile}: {found:?}");
        }
    }

    #[test]
    fn seconds_are_told_to_the_microsecond() {
        assert_eq!(secs(Duration::from_nanos(2_217_757_172)).to_string(), "2.217757");
    }

    #[test]
    fn nothing_and_everything_have_a_place() {
        let latencies = Latencies::new();
        assert_eq!(latencies.quantiles().count, 0);
        latencies.record(Duration::ZERO);
        latencies.record(Duration::MAX);
        latencies.record(Duration::MAX);
        let Quantiles { count, sum, max, quantiles } = latencies.quantiles();
        assert_eq!((count, sum, max), (3, Duration::MAX, Duration::MAX));
        let [_, _, (_, most)] = quantiles;
        assert!(most >= Duration::from_secs(3600) && most <= Duration::from_secs(3636), "{most:?}");
    }
}
