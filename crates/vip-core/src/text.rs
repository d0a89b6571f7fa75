//! Types that are written as one text wherever they stand: in output, on the command
//! line, in files and in the log.

/// From and to a `String` by `FromStr` and `Display`, as serde's `try_from` and `into`
/// want it.
macro_rules! as_text {
    ($type:ty, $error:ty) => {
        impl TryFrom<String> for $type {
            type Error = $error;
            fn try_from(text: String) -> Result<Self, $error> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    };
}
pub(crate) use as_text;
