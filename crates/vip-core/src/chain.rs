//! Errors as text.

use std::error::Error;

/// An error with its causes, in one line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    causes(error).join(": ")
}

/// What libraries of transports say of every error, and nobody needs to know.
const SAYS_NOTHING: [&str; 7] = [
    "transport error",
    "connection error",
    "error trying to connect",
    "client error (Connect)",
    "http2 error",
    "stream error",
    "operation was canceled",
];

/// What a TLS alert means here.
const REFUSED: &str = "it refused the certificate of this node";

/// The same for people, without what says nothing.
#[must_use]
pub fn plain(error: &dyn Error) -> String {
    let all = causes(error);
    let last = all.last().cloned().unwrap_or_default();
    let mut kept: Vec<String> = vec![];
    for cause in all {
        let refused = cause.starts_with("received fatal alert");
        let cause = if refused { REFUSED.to_owned() } else { cause };
        let repeats = kept.last().is_some_and(|before| before.ends_with(&cause));
        if !cause.is_empty() && !repeats && !SAYS_NOTHING.contains(&cause.as_str()) {
            kept.push(cause);
        }
    }
    if kept.is_empty() { last } else { kept.join(": ") }
}

fn causes(error: &dyn Error) -> Vec<String> {
    let mut all = vec![error.to_string()];
    let mut source = error.source();
    while let Some(cause) = source {
        all.push(cause.to_string());
        source = cause.source();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Layer(&'static str, #[source] Option<Box<Layer>>);

    fn layers(texts: &[&'static str]) -> Layer {
        let (first, rest) = texts.split_first().expect("one at least");
        let below = (!rest.is_empty()).then(|| Box::new(layers(rest)));
        Layer(first, below)
    }

    #[test]
    fn people_read_what_says_something() {
        let error =
            layers(&["transport error", "connection error", "cannot connect to n2", "refused"]);
        assert_eq!(plain(&error), "cannot connect to n2: refused");
        assert!(chain(&error).starts_with("transport error: connection error: "));
        assert_eq!(plain(&layers(&["stream error"])), "stream error", "if nothing else is known");
        assert_eq!(plain(&layers(&["a: refused", "refused"])), "a: refused", "once");
    }
}
