//! What comes of several observers' opinions of one real server.

use serde::{Deserialize, Serialize};

/// What an observer says of a real server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Opinion {
    /// It answers as it should.
    Up,
    /// It does not, and how it failed last: the rest of a sentence.
    Down(String),
    /// Nobody has heard of the observer for long: it is none at the moment.
    Blind,
    /// It cannot look, and why: the rest of a sentence.
    Unable(String),
}

/// Whether a server is up: what most of those say that see anything. A tie, or nobody who
/// sees, leaves it as it `was`: then nobody knows better.
#[must_use]
pub fn judge<'a>(
    was: Option<bool>,
    opinions: impl IntoIterator<Item = &'a Opinion>,
) -> Option<bool> {
    let (mut up, mut down) = (0_usize, 0_usize);
    for opinion in opinions {
        match opinion {
            Opinion::Up => up += 1,
            Opinion::Down(_) => down += 1,
            Opinion::Blind | Opinion::Unable(_) => {}
        }
    }
    match up.cmp(&down) {
        std::cmp::Ordering::Greater => Some(true),
        std::cmp::Ordering::Less => Some(false),
        std::cmp::Ordering::Equal => was,
    }
}

#[cfg(test)]
mod tests {
    use super::Opinion::{Blind, Unable, Up};
    use super::*;

    #[test]
    fn most_of_those_that_see_decide() {
        let down = || Opinion::Down("connection refused".into());
        for was in [None, Some(true), Some(false)] {
            let judged = |opinions: &[Opinion]| judge(was, opinions);
            assert_eq!(judged(&[Up, Up, down()]), Some(true));
            assert_eq!(judged(&[Up, down(), down()]), Some(false));
            assert_eq!(judged(&[Up, Blind, Blind]), Some(true));
            assert_eq!(judged(&[Up, down(), Blind]), was, "a tie");
            assert_eq!(judged(&[down(), Unable("it may not".into())]), Some(false));
            assert_eq!(judged(&[Blind, Blind]), was, "nobody sees");
            assert_eq!(judged(&[]), was);
        }
    }
}
