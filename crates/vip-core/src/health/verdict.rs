//! What comes of several observers' opinions of one real server.

use serde::{Deserialize, Serialize};

/// What an observer says of a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Opinion {
    /// It answers as it should.
    Up,
    /// It does not.
    Down,
    /// It finished no round for long, and says so: it is none at the moment.
    Blind,
}

/// Whether a server is up: what most of those say that see anything. A tie, or nobody who
/// sees, leaves it as it `was`: then nobody knows better.
#[must_use]
pub fn judge(was: Option<bool>, opinions: impl IntoIterator<Item = Opinion>) -> Option<bool> {
    let (mut up, mut down) = (0_usize, 0_usize);
    for opinion in opinions {
        match opinion {
            Opinion::Up => up += 1,
            Opinion::Down => down += 1,
            Opinion::Blind => {}
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
    use super::Opinion::{Blind, Down, Up};
    use super::*;

    #[test]
    fn most_of_those_that_see_decide() {
        for was in [None, Some(true), Some(false)] {
            assert_eq!(judge(was, [Up, Up, Down]), Some(true));
            assert_eq!(judge(was, [Up, Down, Down]), Some(false));
            assert_eq!(judge(was, [Up, Blind, Blind]), Some(true));
            assert_eq!(judge(was, [Up, Down, Blind]), was, "a tie");
            assert_eq!(judge(was, [Blind, Blind]), was, "nobody sees");
            assert_eq!(judge(was, []), was);
        }
    }
}
