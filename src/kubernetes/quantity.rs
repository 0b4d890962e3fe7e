//! Kubernetes quantities (`500m`, `128Mi`, `1e3`), as numbers that can be compared and added.
//! <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, Sub};
use std::str::FromStr;

/// An amount of a resource that is not negative, in thousandths of its unit: millicores of CPU, thousandths of a byte.
/// What is finer is rounded up, as Kubernetes does with CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(u128);

impl Quantity {
    /// An amount in thousandths of the unit.
    #[must_use]
    pub const fn from_thousandths(thousandths: u128) -> Self {
        Self(thousandths)
    }

    /// Reads an amount without rounding it.
    ///
    /// # Errors
    /// As [`str::parse`], and [`QuantityError::TooFine`].
    pub fn parse_exact(text: &str) -> Result<Self, QuantityError> {
        let Fraction { numerator, denominator } = text.parse()?;
        if numerator.is_multiple_of(denominator) {
            Ok(Self(numerator / denominator))
        } else {
            Err(QuantityError::TooFine)
        }
    }

    /// Whole units, rounded down: cores, or bytes.
    #[must_use]
    pub const fn units(self) -> u128 {
        self.0 / 1000
    }

    /// The smallest amount of which `factor` times is at least this one. A factor of zero changes nothing.
    #[must_use]
    pub fn divided_by(self, factor: Self) -> Self {
        self.0.checked_mul(1000).filter(|_| factor.0 > 0).map_or(self, |scaled| Self(scaled.div_ceil(factor.0)))
    }

    /// The difference, or zero.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// Why a text is not a quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Such as `Mi`.
    #[error("has no number")]
    NoNumber,
    /// Such as `-1`.
    #[error("is negative")]
    Negative,
    /// Such as `1.2.3`.
    #[error("is not a number")]
    NotANumber,
    /// Such as `1mb`.
    #[error("has an unknown suffix")]
    UnknownSuffix,
    /// Such as `1e3m`.
    #[error("has both an exponent and a suffix")]
    ExponentAndSuffix,
    /// More than 2^128 thousandths.
    #[error("is too large")]
    TooLarge,
    /// Of [`Quantity::parse_exact`].
    #[error("is finer than a thousandth, the finest amount that Kubernetes allows")]
    TooFine,
}

/// An amount in thousandths, as a fraction.
struct Fraction {
    numerator: u128,
    denominator: u128,
}

impl FromStr for Fraction {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        use QuantityError::{NoNumber, NotANumber, TooLarge, UnknownSuffix};
        if text.starts_with('-') {
            return Err(QuantityError::Negative);
        }
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return Err(NoNumber);
        }
        if fraction.contains('.') {
            return Err(NotANumber);
        }
        let digits: u128 = format!("{whole}{fraction}").parse().map_err(|_| TooLarge)?;
        let binary = |power: u32| (1_u128 << (10 * power), 0);
        let (factor, exponent): (u128, i32) = match suffix {
            "n" => (1, -9),
            "u" => (1, -6),
            "m" => (1, -3),
            "" => (1, 0),
            "k" => (1, 3),
            "M" => (1, 6),
            "G" => (1, 9),
            "T" => (1, 12),
            "P" => (1, 15),
            "E" => (1, 18),
            "Ki" => binary(1),
            "Mi" => binary(2),
            "Gi" => binary(3),
            "Ti" => binary(4),
            "Pi" => binary(5),
            "Ei" => binary(6),
            _ => (1, exponent(suffix)?.ok_or(UnknownSuffix)?),
        };
        let exponent = exponent + 3 - i32::try_from(fraction.len()).map_err(|_| TooLarge)?;
        let amount = digits.checked_mul(factor).ok_or(TooLarge)?;
        match (10_u128.checked_pow(exponent.unsigned_abs()), exponent < 0) {
            (Some(power), false) => Ok(Self { numerator: amount.checked_mul(power).ok_or(TooLarge)?, denominator: 1 }),
            (Some(power), true) => Ok(Self { numerator: amount, denominator: power }),
            (None, true) => Ok(Self { numerator: amount.min(1), denominator: u128::MAX }),
            (None, false) if amount == 0 => Ok(Self { numerator: 0, denominator: 1 }),
            (None, false) => Err(TooLarge),
        }
    }
}

/// The exponent of a suffix such as `e3`; `None` where it is no exponent.
fn exponent(suffix: &str) -> Result<Option<i32>, QuantityError> {
    let Some(digits) = suffix.strip_prefix(['e', 'E']) else { return Ok(None) };
    let end = digits.find(|c: char| !c.is_ascii_digit() && !"+-".contains(c)).unwrap_or(digits.len());
    let (exponent, rest) = digits.split_at(end);
    match exponent.parse::<i64>() {
        Ok(_) if !rest.is_empty() => Err(QuantityError::ExponentAndSuffix),
        Ok(exponent) => {
            i8::try_from(exponent).map(|exponent| Some(exponent.into())).map_err(|_| QuantityError::TooLarge)
        }
        Err(_) => Ok(None),
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let Fraction { numerator, denominator } = text.parse()?;
        Ok(Self(numerator.div_ceil(denominator)))
    }
}

impl fmt::Display for Quantity {
    /// Formats as people write it: `500m`, `2`, `128Mi`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = self.units();
        if !self.0.is_multiple_of(1000) {
            return write!(f, "{}m", self.0);
        }
        match [("Gi", 30), ("Mi", 20), ("Ki", 10)]
            .into_iter()
            .find(|(_, bits)| units > 0 && units.trailing_zeros() >= *bits)
        {
            Some((suffix, bits)) => write!(f, "{}{suffix}", units >> bits),
            None => write!(f, "{units}"),
        }
    }
}

impl Add for Quantity {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for Quantity {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self.saturating_sub(other)
    }
}

impl Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantity(text: &str) -> Quantity {
        text.parse().unwrap_or_else(|error| panic!("{text} {error}"))
    }

    #[test]
    fn quantities_compare_across_suffixes() {
        for (smaller, larger) in
            [("20m", "0.2"), ("1", "1001m"), ("1M", "1Mi"), ("1000Ki", "1Mi"), ("999m", "1"), ("0", "1n")]
        {
            assert!(quantity(smaller) < quantity(larger), "{smaller} < {larger}");
        }
        for (one, other) in
            [("1e3", "1k"), ("1E3", "1000"), ("0.5", "500m"), (".5", "500m"), ("1.", "1"), ("1500m", "1.5")]
        {
            assert_eq!(quantity(one), quantity(other), "{one} = {other}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        use QuantityError::{ExponentAndSuffix, Negative, NoNumber, NotANumber, TooLarge, UnknownSuffix};
        for (broken, error) in [
            ("", NoNumber),
            ("m", NoNumber),
            (".", NoNumber),
            ("e3", NoNumber),
            ("-1", Negative),
            ("1..2", NotANumber),
            ("1.2.3", NotANumber),
            ("1 Gi", UnknownSuffix),
            ("1mb", UnknownSuffix),
            ("1e3x", ExponentAndSuffix),
            ("1e3m", ExponentAndSuffix),
            ("999999999999999999999999999999Ei", TooLarge),
            ("1e99", TooLarge),
            ("1e200", TooLarge),
        ] {
            assert_eq!(broken.parse::<Quantity>(), Err(error), "{broken}");
        }
        assert_eq!(Quantity::parse_exact("0.0001"), Err(QuantityError::TooFine));
        assert_eq!(quantity("0.0001"), quantity("1m"));
        assert_eq!(quantity("1e-99"), quantity("1m"));
        assert_eq!(Quantity::parse_exact("0.001"), Ok(quantity("1m")));
    }

    #[test]
    fn a_quantity_is_shown_as_people_write_it() {
        for text in ["500m", "2", "128Mi", "1Gi", "24Ki", "0"] {
            assert_eq!(quantity(text).to_string(), text);
        }
        assert_eq!(quantity("1000M").to_string(), "1000000000");
        assert_eq!(quantity("1000M").units(), 1_000_000_000);
    }

    #[test]
    fn a_part_times_its_ratio_is_enough() {
        assert_eq!(quantity("500m").divided_by(quantity("2")), quantity("250m"));
        assert_eq!(quantity("500m").divided_by(quantity("3")), quantity("167m"));
        assert_eq!(quantity("500m").divided_by(quantity("1.5")), quantity("334m"));
        assert_eq!(quantity("500m").divided_by(Quantity::default()), quantity("500m"));
    }
}
