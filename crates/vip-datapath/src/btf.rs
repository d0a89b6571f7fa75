//! Ids of kernel functions, from the kernel's own type information (BTF).
//! aya reads all of it into memory; one id needs one pass.

use std::io;

const KERNEL: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u16 = 0xeb9f;
const KIND_FUNC: u32 = 12;

/// The id of the kernel's function `name`.
pub(crate) fn kernel_function(name: &str) -> io::Result<u32> {
    find_function(&std::fs::read(KERNEL)?, name)
        .ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, format!("no {name} in {KERNEL}")))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// What follows a type's twelve bytes, by its kind and number of members.
fn extra(kind: u32, members: usize) -> Option<usize> {
    Some(match kind {
        // Pointer, forward, typedef, qualifiers, function, float, type tag.
        2 | 7..=12 | 16 | 18 => 0,
        // Integer, variable, declaration tag.
        1 | 14 | 17 => 4,
        // Array.
        3 => 12,
        // Structure, union, section, 64-bit enumeration.
        4 | 5 | 15 | 19 => 12 * members,
        // Enumeration, parameters.
        6 | 13 => 8 * members,
        _ => return None,
    })
}

fn find_function(btf: &[u8], name: &str) -> Option<u32> {
    if u16::from_le_bytes(btf.get(..2)?.try_into().ok()?) != MAGIC {
        return None;
    }
    let header = word(btf, 4)? as usize;
    let field = |at| Some(word(btf, at)? as usize);
    let (types, types_len) = (header + field(8)?, field(12)?);
    let strings = header + field(16)?;
    let is_named = |at: u32| {
        let begin = strings + at as usize;
        let bytes = btf.get(begin..begin + name.len() + 1);
        bytes.is_some_and(|b| b[..name.len()] == *name.as_bytes() && b[name.len()] == 0)
    };
    let (mut at, mut id) = (types, 1);
    while at < types + types_len {
        let (name_at, info) = (word(btf, at)?, word(btf, at + 4)?);
        let (kind, members) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
        if kind == KIND_FUNC && is_named(name_at) {
            return Some(id);
        }
        at += 12 + extra(kind, members)?;
        id += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn btf(types: &[[u32; 3]], strings: &[u8]) -> Vec<u8> {
        let types: Vec<u8> = types.iter().flatten().flat_map(|w| w.to_le_bytes()).collect();
        let len = u32::try_from(types.len()).expect("short");
        let mut bytes = MAGIC.to_le_bytes().to_vec();
        bytes.extend([1, 0]);
        for word in [24, 0, len, len, u32::try_from(strings.len()).expect("short")] {
            bytes.extend(u32::to_le_bytes(word));
        }
        [bytes, types, strings.to_vec()].concat()
    }

    #[test]
    fn a_function_is_found_by_its_whole_name() {
        let (pointer, function) = (2 << 24, KIND_FUNC << 24);
        let bytes = btf(&[[0, pointer, 0], [1, function, 0], [8, function, 0]], b"\0abcdef\0abc\0");
        assert_eq!(find_function(&bytes, "abc"), Some(3));
        assert_eq!(find_function(&bytes, "abcdef"), Some(2));
        assert_eq!(find_function(&bytes, "ab"), None);
    }

    #[test]
    fn damage_is_not_found_in() {
        let whole = btf(&[[1, KIND_FUNC << 24, 0]], b"\0abc\0");
        for cut in 0..whole.len() {
            let _ = find_function(&whole[..cut], "abc");
        }
        assert_eq!(find_function(&btf(&[[1, 31 << 24, 0]], b"\0abc\0"), "abc"), None);
    }
}
