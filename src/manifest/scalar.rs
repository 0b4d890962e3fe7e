//! The value of a scalar, resolved as `go.yaml.in/yaml/v2` does (`resolve.go`, `decode.go`), through which kubectl
//! reads. That is YAML 1.1 with exceptions of its own, so `0755` is 493, `yes` is true and `1e3` is 1000.

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Number, Value};

const TAGS: &str = "tag:yaml.org,2002:";

/// A scalar as it stands in the text.
pub(super) struct Scalar<'a> {
    /// With the prefix of the YAML tags where it was `!!`.
    pub(super) tag: Option<&'a str>,
    /// Neither quoted nor a block, and without a tag.
    pub(super) is_plain: bool,
    pub(super) text: &'a str,
}

impl Scalar<'_> {
    /// Its JSON value.
    ///
    /// # Errors
    /// A tag that the text does not fit; a number that JSON does not have.
    pub(super) fn value(&self) -> Result<Value, String> {
        let text = self.text;
        let Some(tag) = self.tag else {
            return if self.is_plain { resolve(text).value(text) } else { Ok(Value::from(text)) };
        };
        let resolved = resolve(text);
        let unfit = || format!("{text:?} is not of the type that its tag says, {tag}");
        match (tag.strip_prefix(TAGS), &resolved) {
            (Some("int" | "float"), Plain::Integer(_))
            | (Some("float"), Plain::Float(_))
            | (Some("bool"), Plain::Boolean(_))
            | (Some("null"), Plain::Null) => {}
            (Some("int" | "bool" | "null" | "float"), _) => return Err(unfit()),
            (Some("binary"), _) => {
                let packed: String = text.split_ascii_whitespace().collect();
                let bytes = BASE64_STANDARD.decode(packed).map_err(|_| unfit())?;
                return Ok(Value::from(String::from_utf8_lossy(&bytes)));
            }
            _ => return Ok(Value::from(text)),
        }
        resolved.value(text)
    }

    /// The key that JSON has for it: always a string.
    ///
    /// # Errors
    /// As [`Self::value`]; what can be no key.
    pub(super) fn key(&self) -> Result<String, String> {
        match self.value()? {
            Value::String(key) => Ok(key),
            Value::Bool(key) => Ok(key.to_string()),
            Value::Number(key) if key.is_i64() => Ok(key.to_string()),
            #[allow(clippy::cast_possible_truncation, reason = "kubectl shortens it so")]
            Value::Number(key) => match key.as_f64().map(|key| key as f32) {
                Some(key) if key.abs() < 1e6 && key.abs() >= 1e-4 => Ok(key.to_string()),
                _ => Err(format!("the key {} must be quoted", self.text)),
            },
            _ => Err(format!("the key {:?} is no string", self.text)),
        }
    }

    /// Returns true if this key merges the fields of another mapping.
    pub(super) fn is_merge(&self) -> bool {
        self.text == "<<" && (self.is_plain || self.tag.and_then(|tag| tag.strip_prefix(TAGS)) == Some("merge"))
    }
}

/// The type and value of a plain scalar.
#[derive(Debug)]
enum Plain {
    Null,
    Boolean(bool),
    Integer(Number),
    Float(f64),
    Text,
}

impl Plain {
    fn value(self, text: &str) -> Result<Value, String> {
        Ok(match self {
            Self::Null => Value::Null,
            Self::Boolean(value) => Value::from(value),
            Self::Integer(number) => Value::from(number),
            Self::Float(number) => {
                // Written as JSON a float without a fraction is an integer.
                #[allow(clippy::cast_possible_truncation, reason = "compared with what it was")]
                let whole = number as i64;
                #[allow(clippy::cast_precision_loss, clippy::float_cmp, reason = "no other float will do")]
                if whole as f64 == number && whole != i64::MAX {
                    Value::from(whole)
                } else {
                    let number = Number::from_f64(number);
                    Value::from(number.ok_or_else(|| format!("{text} is a number that JSON does not have"))?)
                }
            }
            Self::Text => Value::from(text),
        })
    }
}

fn resolve(text: &str) -> Plain {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Plain::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Plain::Boolean(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Plain::Boolean(false);
        }
        ".nan" | ".NaN" | ".NAN" => return Plain::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf" | "-.INF" => {
            return Plain::Float(f64::INFINITY);
        }
        _ => {}
    }
    let first = text.as_bytes()[0];
    let digits = if first.is_ascii_digit() || matches!(first, b'+' | b'-') {
        text.replace('_', "")
    } else if first == b'.' {
        text.to_owned()
    } else {
        return Plain::Text;
    };
    if let Some(number) = integer(&digits) {
        return Plain::Integer(number);
    }
    match digits.parse::<f64>() {
        // A number beyond `f64` is text.
        Ok(number) if is_float(&digits) && number.is_finite() => Plain::Float(number),
        _ => Plain::Text,
    }
}

/// Parses as Go's `strconv.ParseInt` and `ParseUint` with base 0: a leading zero means octal.
fn integer(digits: &str) -> Option<Number> {
    let (is_negative, rest) = match digits.as_bytes().first()? {
        b'-' => (true, &digits[1..]),
        b'+' => (false, &digits[1..]),
        _ => (false, digits),
    };
    let (radix, rest) = match rest.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &rest[2..]),
        [b'0', b'o' | b'O', ..] => (8, &rest[2..]),
        [b'0', b'b' | b'B', ..] => (2, &rest[2..]),
        [b'0', _, ..] => (8, &rest[1..]),
        _ => (10, rest),
    };
    // `from_str_radix` accepts a second sign.
    if !rest.as_bytes().first()?.is_ascii_alphanumeric() {
        return None;
    }
    if is_negative {
        return i64::from_str_radix(&format!("-{rest}"), radix).ok().map(Number::from);
    }
    let number = u64::from_str_radix(rest, radix).ok()?;
    // Only one without a sign may be beyond what has one.
    (i64::try_from(number).is_ok() || !digits.starts_with('+')).then(|| Number::from(number))
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = |text: &str| text.strip_prefix(['-', '+']).unwrap_or(text).to_owned();
    let text = unsigned(text);
    let (number, exponent) = text.split_once(['e', 'E']).map_or((text.as_str(), None), |(n, e)| (n, Some(unsigned(e))));
    let is_number = match number.split_once('.') {
        Some(("", fraction)) => is_digits(fraction),
        Some((whole, fraction)) => is_digits(whole) && (fraction.is_empty() || is_digits(fraction)),
        None => is_digits(number),
    };
    is_number && exponent.is_none_or(|exponent| is_digits(&exponent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_plain_scalar_means_what_kubectl_takes_it_for() {
        for (text, value) in [
            ("0755", json!(493)),
            ("0o755", json!(493)),
            ("08", json!(8)),
            ("-0x1F", json!(-31)),
            ("0b11", json!(3)),
            ("1_000", json!(1000)),
            ("1e3", json!(1000)),
            ("1.5", json!(1.5)),
            (".5", json!(0.5)),
            ("1.", json!(1)),
            ("18446744073709551615", json!(u64::MAX)),
            ("1:30", json!("1:30")),
            ("12e4567890", json!("12e4567890")),
            ("yes", json!(true)),
            ("yEs", json!("yEs")),
            ("~", Value::Null),
            ("2001-12-14", json!("2001-12-14")),
            ("--1", json!("--1")),
            ("+", json!("+")),
            ("0x", json!("0x")),
        ] {
            assert_eq!(Scalar { tag: None, is_plain: true, text }.value(), Ok(value), "{text}");
        }
        assert!(Scalar { tag: None, is_plain: true, text: ".inf" }.value().is_err());
        assert_eq!(Scalar { tag: None, is_plain: false, text: "yes" }.value(), Ok(json!("yes")));
        assert!(Scalar { tag: Some("tag:yaml.org,2002:int"), is_plain: false, text: "1.5" }.value().is_err());
    }
}
