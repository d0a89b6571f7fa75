//! Enums whose values are one word each: the same in output, on the command line,
//! in files and in the log.

use crate::excerpt;

/// A word that means nothing where it stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no {noun}: use {}", or(known))]
pub struct UnknownWord {
    noun: &'static str,
    found: String,
    known: &'static [&'static str],
}

impl UnknownWord {
    /// Of a text that somebody wrote.
    pub(crate) fn of(noun: &'static str, text: &str, known: &'static [&'static str]) -> Self {
        Self { noun, found: excerpt(text), known }
    }
}

fn or(words: &[&str]) -> String {
    match words {
        [rest @ .., last] if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        words => words.concat(),
    }
}

/// Gives an enum its words: `as_str`, `Display`, and `FromStr` where they are read.
macro_rules! words {
    ($enum:ident, $noun:literal { $($variant:ident => $word:literal),+ $(,)? }) => {
        words!(@shown $enum { $($variant => $word),+ });

        impl std::str::FromStr for $enum {
            type Err = $crate::UnknownWord;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err($crate::UnknownWord::of($noun, text, &[$($word),+])),
                }
            }
        }
    };
    (@shown $enum:ident { $($variant:ident => $word:literal),+ $(,)? }) => {
        impl $enum {
            /// All there are.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Its word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl std::fmt::Display for $enum {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}
pub(crate) use words;

#[cfg(test)]
mod tests {
    use crate::{
        AdminRole, Cause, Engine, Forward, NodeState, Placement, Profile, Protocol, Role, Scheduler,
    };
    use serde_json::Value;

    #[test]
    fn a_choice_of_words_is_as_long_as_it_is() {
        let or = |words: &[&str]| super::or(words);
        assert_eq!([or(&[]), or(&["a"]), or(&["a", "b"])], ["", "a", "a or b"]);
        assert_eq!(or(&["a", "b", "c"]), "a, b or c");
    }

    /// Whoever reads the log of one with the words of the other finds the same.
    #[test]
    fn a_value_has_one_word_wherever_it_is_written() {
        fn all<T: Copy + serde::Serialize + ToString>(values: &[T], word: fn(T) -> &'static str) {
            for value in values {
                let word = word(*value);
                assert_eq!(serde_json::to_value(value).expect("plain"), Value::from(word));
                assert_eq!(value.to_string(), word);
            }
        }
        all(Role::ALL, Role::as_str);
        all(AdminRole::ALL, AdminRole::as_str);
        all(Placement::ALL, Placement::as_str);
        all(NodeState::ALL, NodeState::as_str);
        all(Cause::ALL, Cause::as_str);
        all(Protocol::ALL, Protocol::as_str);
        all(Scheduler::ALL, Scheduler::as_str);
        all(Forward::ALL, Forward::as_str);
        all(Engine::ALL, Engine::as_str);
        assert!(Role::ALL.iter().all(|role| role.as_str().parse() == Ok(*role)));
        assert!(Profile::ALL.iter().all(|profile| profile.as_str().parse() == Ok(*profile)));
    }

    #[test]
    fn an_unknown_word_is_told_from_those_there_are() {
        let error = "king".parse::<Role>().expect_err("no role");
        assert_eq!(error.to_string(), r#""king" is no role: use voter, learner or witness"#);
        let error = "spread".parse::<Placement>().expect_err("no placement");
        assert_eq!(error.to_string(), r#""spread" is no placement: use leader or sticky"#);
    }
}
