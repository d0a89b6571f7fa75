//! How real servers are checked, in `servers.proto`.

use super::{FieldError, invalid, port};
use crate::v1;
use std::time::Duration;
use vip_core::{CheckKind, CheckSpec, CheckTiming, CheckWords};

/// Instead of observers' names.
const ALL: &str = "all";

/// What is wanted of checks, where so much was wanted before.
pub(super) fn check(
    message: Option<v1::HealthCheck>,
    old: Option<CheckSpec>,
) -> Result<Option<CheckSpec>, FieldError> {
    let Some(message) = message else { return Ok(old) };
    if message.kind.as_deref() == Some("none") {
        let none = v1::HealthCheck { kind: message.kind.clone(), ..Default::default() };
        let text = "nothing is checked then: --check none goes with no other --check";
        return if message == none { Ok(None) } else { Err(invalid("check", text)) };
    }
    let kind = CheckKind::try_from(words(&message, old.as_ref())?);
    let kind = kind.map_err(|e| invalid("check", e))?;
    let mut spec = CheckSpec::from(kind);
    if let Some(old) = old {
        spec = CheckSpec { kind: spec.kind, ..old };
    }
    let v1::HealthCheck { interval_ms, timeout_ms, rise, fall, port: wanted, observe, .. } =
        message;
    let small = |field, number: u32| {
        u8::try_from(number).map_err(|_| invalid(field, format!("{number} is too large")))
    };
    let timing = &mut spec.timing;
    timing.interval = interval_ms.map_or(timing.interval, Duration::from_millis);
    timing.timeout = timeout_ms.map_or(timing.timeout, Duration::from_millis);
    timing.rise = rise.map_or(Ok(timing.rise), |number| small("check rise", number))?;
    timing.fall = fall.map_or(Ok(timing.fall), |number| small("check fall", number))?;
    match wanted {
        Some(0) => spec.port = None,
        Some(number) => spec.port = Some(port("check port", number)?),
        None => {}
    }
    if observe == [ALL] {
        spec.observers = vec![];
    } else if !observe.is_empty() {
        let name = |name: &String| name.parse().map_err(|e| invalid("observe", e));
        spec.observers = observe.iter().map(name).collect::<Result<_, _>>()?;
    }
    Ok(Some(spec))
}

/// What is said of the kind. Of one with another word nothing stays of what was said before.
fn words(message: &v1::HealthCheck, old: Option<&CheckSpec>) -> Result<CheckWords, FieldError> {
    let old = old.map(|old| CheckWords::from(&*old.kind));
    let mut words = match (&message.kind, old) {
        (Some(kind), old) => {
            let new = CheckWords::of(kind);
            match old.filter(|old| old.word() == new.word()) {
                Some(old) => CheckWords { kind: new.kind, ..old },
                None => new,
            }
        }
        (None, Some(old)) => old,
        (None, None) => {
            let text = "nothing is checked here yet: say how, with --check tcp";
            return Err(invalid("check", text));
        }
    };
    let v1::HealthCheck { expect, method, host, headers, body, digest, tls, sni, .. } = message;
    for (word, said) in [
        (&mut words.expect, expect),
        (&mut words.method, method),
        (&mut words.host, host),
        (&mut words.body, body),
        (&mut words.digest, digest),
        (&mut words.tls, tls),
        (&mut words.sni, sni),
    ] {
        if let Some(said) = said {
            *word = Some(said.clone()).filter(|said| !said.is_empty());
        }
    }
    if !headers.is_empty() {
        words.headers = headers.iter().filter(|said| !said.is_empty()).cloned().collect();
    }
    Ok(words)
}

impl From<&CheckSpec> for v1::HealthCheck {
    fn from(check: &CheckSpec) -> Self {
        let ms = |span: Duration| u64::try_from(span.as_millis()).ok();
        let CheckTiming { interval, timeout, rise, fall } = check.timing;
        let words = CheckWords::from(&*check.kind);
        let CheckWords { kind, expect, method, host, headers, body, digest, tls, sni } = words;
        Self {
            kind: Some(kind),
            interval_ms: ms(interval),
            timeout_ms: ms(timeout),
            rise: Some(rise.into()),
            fall: Some(fall.into()),
            port: check.port.map(u32::from),
            observe: check.observers.iter().map(ToString::to_string).collect(),
            expect,
            method,
            host,
            headers,
            body,
            digest,
            tls,
            sni,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::servers::tests::{message, server};
    use vip_core::{Server, ServerSpec};

    #[test]
    fn a_check_is_what_was_said_and_otherwise_as_usual_or_as_before() {
        let said = |check| v1::ServerSpec { check: Some(check), ..message() };
        let tcp = v1::HealthCheck { kind: Some("tcp".to_owned()), ..Default::default() };
        let spec = ServerSpec::try_from(said(tcp.clone())).expect("a spec");
        let usual = CheckSpec::from(CheckKind::Tcp);
        assert_eq!(spec.check, Some(usual.clone()));
        let own = v1::HealthCheck {
            interval_ms: Some(5000),
            fall: Some(2),
            port: Some(8080),
            observe: vec!["n1".to_owned()],
            ..tcp.clone()
        };
        let check = ServerSpec::try_from(said(own)).expect("a spec").check.expect("a check");
        assert_eq!((check.timing.fall, check.timing.rise, check.port), (2, 1, Some(8080)));
        assert_eq!(check.timing.interval, Duration::from_secs(5));
        let back = v1::HealthCheck::from(&check);
        let again = ServerSpec::try_from(said(back)).expect("a spec").check;
        assert_eq!(again, Some(check.clone()));

        let checked =
            Server { spec: ServerSpec { check: Some(check.clone()), ..server().spec }, ..server() };
        let changed = |check| {
            let set =
                v1::SetServerRequest { check, name: "front".to_owned(), ..Default::default() };
            set.changes(&checked).map(|spec| spec.check)
        };
        assert_eq!(changed(None), Ok(Some(check.clone())));
        let rise = v1::HealthCheck { rise: Some(4), ..Default::default() };
        let timing = CheckTiming { rise: 4, ..check.timing };
        assert_eq!(changed(Some(rise.clone())), Ok(Some(CheckSpec { timing, ..check })));
        let as_at_first =
            v1::HealthCheck { port: Some(0), observe: vec![ALL.to_owned()], ..Default::default() };
        let back = changed(Some(as_at_first)).expect("a spec").expect("a check");
        assert_eq!((back.port, back.observers), (None, vec![]));
        let none = v1::HealthCheck { kind: Some("none".to_owned()), ..Default::default() };
        assert_eq!(changed(Some(none)), Ok(None));
        for (bad, why) in [
            (rise, "say how"),
            (
                v1::HealthCheck { kind: Some("exec:../a".to_owned()), ..Default::default() },
                "exec_dir",
            ),
            (v1::HealthCheck { host: Some("a".to_owned()), ..tcp.clone() }, "no host"),
            (v1::HealthCheck { fall: Some(0), ..tcp.clone() }, "in a row"),
            (v1::HealthCheck { fall: Some(300), ..tcp.clone() }, "too large"),
            (v1::HealthCheck { interval_ms: Some(u64::MAX), ..tcp.clone() }, "interval"),
            (v1::HealthCheck { timeout_ms: Some(3000), ..tcp.clone() }, "timeout"),
            (v1::HealthCheck { port: Some(65_536), ..tcp.clone() }, "no port"),
            (
                v1::HealthCheck {
                    kind: Some("none".to_owned()),
                    fall: Some(2),
                    ..Default::default()
                },
                "goes with no other",
            ),
            (v1::HealthCheck { observe: vec!["a b".to_owned()], ..tcp }, "observe"),
        ] {
            let error = ServerSpec::try_from(said(bad.clone())).expect_err(why).to_string();
            assert!(error.contains(why), "{bad:?}: {error}");
        }
    }

    #[test]
    fn what_was_said_of_a_kind_stays_with_it_alone() {
        let text = |text: &str| Some(text.to_owned());
        let first = v1::HealthCheck {
            kind: text("https:/ready"),
            host: text("shop.example"),
            expect: text("200"),
            headers: vec!["x-from: a check".to_owned()],
            tls: text("skip"),
            ..Default::default()
        };
        let first = check(Some(first), None).expect("good").expect("a check");
        let changed = |said| check(Some(said), Some(first.clone()));
        let kind = |said| changed(said).expect("good").map(|check| CheckWords::from(&*check.kind));
        let was = CheckWords::from(&*first.kind);
        let other = v1::HealthCheck { kind: text("https:/"), ..Default::default() };
        assert_eq!(kind(other), Some(CheckWords { kind: "https:/".to_owned(), ..was.clone() }));
        let usual = v1::HealthCheck {
            expect: text(""),
            headers: vec![String::new()],
            ..Default::default()
        };
        let wanted = CheckWords { expect: None, headers: vec![], ..was };
        assert_eq!(kind(usual), Some(wanted));
        let tcp = v1::HealthCheck { kind: text("tcp"), ..Default::default() };
        assert_eq!(kind(tcp), Some(CheckWords::of("tcp")));
    }
}
