//! Mixing numbers: the same in every version, and quick enough for every packet.

/// The golden ratio's fraction, in 64 bits.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014): each bit of the input
/// changes half of those that come out.
pub(crate) const fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(GOLDEN);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// All of them in turn, from `seed` on.
pub(crate) fn mix_all(seed: u64, words: impl IntoIterator<Item = u64>) -> u64 {
    words.into_iter().fold(seed, |mixed, word| mix(mixed ^ word))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers of SplitMix64 from 0 on, as its authors publish them.
    #[test]
    fn a_number_is_mixed_as_by_its_authors() {
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mix(GOLDEN), 0x6e78_9e6a_a1b9_65f4);
        assert_eq!(mix_all(7, [1, 2]), mix(mix(7 ^ 1) ^ 2));
        assert_eq!(mix_all(7, []), 7);
    }
}
