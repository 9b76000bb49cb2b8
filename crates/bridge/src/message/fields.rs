//! Numbers and flags as Perl writes them: as numbers, or as text.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Unsigned(u64),
    Text(String),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Flag {
    Bool(bool),
    Number(u64),
    Text(String),
}

impl Number {
    fn get<E: serde::de::Error>(self) -> Result<u64, E> {
        match self {
            Self::Unsigned(number) => Ok(number),
            Self::Text(text) => {
                let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                let number = digits.then(|| text.parse().ok()).flatten();
                number.ok_or_else(|| E::custom(format!("{text:?} is no number of 64 bits")))
            }
        }
    }
}

/// A number, at least zero.
pub(crate) fn number<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    let number = Number::deserialize(from)
        .map_err(|_| D::Error::custom("a number is expected"))?
        .get()?;
    T::try_from(number).map_err(|_| D::Error::custom(format!("{number} is too large")))
}

/// A number, at least zero, or null.
pub(crate) fn optional_number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let number = Option::<Number>::deserialize(from)
        .map_err(|_| D::Error::custom("a number or null is expected"))?;
    number.map(Number::get).transpose()
}

/// 1 or 0; what is false in Perl may be an empty text.
pub(crate) fn flag<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    let broken = || D::Error::custom("0 or 1 is expected");
    match Flag::deserialize(from).map_err(|_| broken())? {
        Flag::Bool(value) => Ok(value),
        Flag::Number(0) => Ok(false),
        Flag::Number(1) => Ok(true),
        Flag::Text(text) if text.is_empty() || text == "0" => Ok(false),
        Flag::Text(text) if text == "1" => Ok(true),
        Flag::Number(_) | Flag::Text(_) => Err(broken()),
    }
}
