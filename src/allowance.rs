//! A token bucket.

use std::time::Instant;

/// The tokens that are left in a token bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    left: f64,
    counted: Instant,
}

/// The size and the refill rate of a token bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    /// The burst.
    pub(crate) at_once: f64,
    /// In each second after that.
    pub(crate) per_second: f64,
}

impl Rate {
    /// A full bucket.
    pub(crate) const fn full(self, now: Instant) -> Allowance {
        Allowance { left: self.at_once, counted: now }
    }

    /// Returns true if the bucket is full again, so that it need not be kept.
    pub(crate) fn is_full(self, allowance: Allowance, now: Instant) -> bool {
        self.left(allowance, now) >= self.at_once
    }

    /// Takes one, if there is one left.
    pub(crate) fn take(self, allowance: &mut Allowance, now: Instant) -> bool {
        let left = self.left(*allowance, now);
        let has_one = left >= 1.;
        *allowance = Allowance { left: if has_one { left - 1. } else { left }, counted: now };
        has_one
    }

    fn left(self, Allowance { left, counted }: Allowance, now: Instant) -> f64 {
        (left + now.saturating_duration_since(counted).as_secs_f64() * self.per_second).min(self.at_once)
    }
}
