//! So many at once, and so many a second after that.

use std::time::Instant;

/// How much of something may still come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    left: f64,
    counted: Instant,
}

/// How many there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    /// At once.
    pub(crate) at_once: f64,
    /// In each second after that.
    pub(crate) per_second: f64,
}

impl Rate {
    /// Nothing has come yet.
    pub(crate) const fn full(self, now: Instant) -> Allowance {
        Allowance { left: self.at_once, counted: now }
    }

    /// Whether nothing has come for so long that it might as well never have.
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
