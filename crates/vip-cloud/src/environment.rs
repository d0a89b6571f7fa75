//! What the environment says, as it was when the process began.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Variables of an environment.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// This process's.
    #[must_use]
    pub fn of_process() -> Self {
        let texts = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self(std::env::vars_os().filter_map(texts).collect())
    }

    /// A variable; an empty one says nothing.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Those whose names begin so, by the rest of it in small letters.
    pub(crate) fn beginning_with(&self, prefix: &str) -> BTreeMap<String, String> {
        let rest = |(name, value): (&String, &String)| {
            Some((name.strip_prefix(prefix)?.to_lowercase(), value.clone()))
        };
        self.0.iter().filter_map(rest).collect()
    }

    /// A file that a variable names.
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from)
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(variables: [(&str, &str); N]) -> Self {
        variables.into_iter().collect()
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Environment {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(variables: I) -> Self {
        let owned = variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self(owned.collect())
    }
}

impl std::fmt::Debug for Environment {
    /// Names alone: there are keys among the values.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
