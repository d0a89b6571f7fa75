//! What messages repeat of what somebody sent.

/// Bytes of input that an error or a log line repeats at most: enough to see
/// which it was, too little to fill a disk or a screen with.
pub const MAX_EXCERPT: usize = 80;

/// The input, or its beginning.
///
/// ```
/// # use vip_core::excerpt;
/// assert_eq!(excerpt("n1"), "n1");
/// assert!(excerpt(&"x".repeat(1 << 20)).len() <= 80);
/// ```
#[must_use]
pub fn excerpt(input: &str) -> String {
    const REST: &str = "...";
    if input.len() <= MAX_EXCERPT {
        return input.to_owned();
    }
    let end = input.floor_char_boundary(MAX_EXCERPT - REST.len());
    format!("{}{REST}", &input[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Name, Placement, Profile, Role, VipAddress, VipSpec};

    #[test]
    fn an_excerpt_is_as_long_as_it_may_be_and_cuts_no_character() {
        assert_eq!(excerpt(&"x".repeat(MAX_EXCERPT)), "x".repeat(MAX_EXCERPT));
        let cut = format!("{}...", "x".repeat(MAX_EXCERPT - 3));
        assert_eq!(excerpt(&"x".repeat(MAX_EXCERPT + 1)), cut);
        assert!(excerpt(&"\u{fc}".repeat(99)).ends_with("\u{fc}..."));
    }

    #[test]
    fn no_error_repeats_more_than_the_beginning_of_what_was_sent() {
        let long = "\u{fc}".repeat(1 << 16);
        let prefixed = format!("{long}/24");
        let interface = VipSpec {
            name: "web".parse().expect("a name"),
            addresses: vec!["192.0.2.1/24".parse().expect("an address")],
            interface: Some(long.clone()),
            placement: Placement::default(),
            no_probe: false,
            via: crate::Via::default(),
            params: Default::default(),
        };
        let errors = [
            long.parse::<Name>().map_err(|e| e.to_string()).err(),
            long.parse::<Role>().err().map(|e| e.to_string()),
            long.parse::<Profile>().err().map(|e| e.to_string()),
            long.parse::<Placement>().err().map(|e| e.to_string()),
            prefixed.parse::<VipAddress>().map_err(|e| e.to_string()).err(),
            interface.check().map_err(|e| e.to_string()).err(),
        ];
        for error in errors {
            let error = error.expect("refused");
            assert!(error.len() < 3 * MAX_EXCERPT, "{} bytes: {error}", error.len());
        }
    }
}
