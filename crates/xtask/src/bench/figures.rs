//! Figures go from a bench into the README by themselves.
//!
//! ```text
//! <!-- bench NAME -->
//! whatever the bench found last
//! <!-- /bench NAME -->
//! ```

use crate::shell::root;
use anyhow::{Context, Result};

/// Puts what was found where the README shows it, if it does. A trial `is_less` than
/// what is there, and leaves it.
///
/// # Errors
/// The README cannot be read, or not be written.
pub(super) fn show(name: &str, is_less: bool, found: &str) -> Result<()> {
    if is_less {
        println!("the README keeps its {name}: it is of a longer run");
        return Ok(());
    }
    let path = root().join("README.md");
    let text = std::fs::read_to_string(&path)?;
    match put(&text, name, found) {
        Some(new) => std::fs::write(path, new).context("the README"),
        None => {
            println!("the README shows no {name}");
            Ok(())
        }
    }
}

fn put(text: &str, name: &str, found: &str) -> Option<String> {
    let (before, rest) = text.split_once(&format!("<!-- bench {name} -->\n"))?;
    let end = format!("<!-- /bench {name} -->");
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}<!-- bench {name} -->\n{}\n{end}{after}", found.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_has_a_place_for_what_it_tells() -> Result<()> {
        let text = std::fs::read_to_string(root().join("README.md"))?;
        let places = ["failover", "kills-lan", "kills-fast", "idle-lan", "log-lan"];
        for name in
            places.into_iter().chain(["forward", "servers", "health", "probes", "balancers"])
        {
            assert!(put(&text, name, "").is_some(), "{name}");
        }
        Ok(())
    }

    #[test]
    fn what_was_found_takes_its_place_and_no_other() {
        let text = "a\n<!-- bench x -->\nold\n<!-- /bench x -->\nb <!-- /bench x -->\n";
        let new = "a\n<!-- bench x -->\nnew\n<!-- /bench x -->\nb <!-- /bench x -->\n";
        assert_eq!(put(text, "x", "new\n").as_deref(), Some(new));
        assert_eq!(put(new, "x", "new").as_deref(), Some(new));
        assert_eq!(put(text, "y", "new"), None);
    }
}
