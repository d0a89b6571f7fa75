//! Enums in what people are shown: one word each, as in `vip_core`.

use serde::{Serialize, Serializer};

/// An enum of the .proto files.
pub trait Word {
    /// The word of a number; `None`: it says nothing, or comes of a later version.
    fn word(number: i32) -> Option<&'static str>;
}

#[derive(Serialize)]
#[serde(untagged)]
enum Said {
    Word(&'static str),
    /// Of a later version: better than nothing.
    Number(i32),
    Nothing,
}

fn said<E: Word>(number: i32) -> Said {
    match E::word(number) {
        Some(word) => Said::Word(word),
        None if number == 0 => Said::Nothing,
        None => Said::Number(number),
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives references")]
pub(crate) fn word<E: Word, S: Serializer>(number: &i32, out: S) -> Result<S::Ok, S::Error> {
    said::<E>(*number).serialize(out)
}

#[allow(clippy::ref_option, reason = "serde gives references")]
pub(crate) fn word_or_nothing<E: Word, S: Serializer>(
    number: &Option<i32>,
    out: S,
) -> Result<S::Ok, S::Error> {
    number.map_or(Said::Nothing, said::<E>).serialize(out)
}
