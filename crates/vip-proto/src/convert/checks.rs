//! How real servers are checked, in `servers.proto`.

use super::{FieldError, invalid, port};
use crate::v1;
use std::sync::Arc;
use std::time::Duration;
use vip_core::{CheckKind, CheckSpec, CheckTiming, CheckWords, RealCheck, RealSpec, RealSpecError};

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
    let kind = CheckKind::try_from(words(&message, old.as_ref().map(|old| &*old.kind))?);
    let kind = kind.map_err(|e| invalid("check", e))?;
    let mut spec = CheckSpec::from(kind);
    if let Some(old) = old {
        spec = CheckSpec { kind: spec.kind, ..old };
    }
    let v1::HealthCheck {
        interval_ms,
        timeout_ms,
        rise,
        fall,
        port: wanted,
        observe,
        otherwise,
        grace_ms,
        slow_start_ms,
        ..
    } = message;
    let small = |field, number: u32| {
        u8::try_from(number).map_err(|_| invalid(field, format!("{number} is too large")))
    };
    let timing = &mut spec.timing;
    timing.interval = interval_ms.map_or(timing.interval, Duration::from_millis);
    timing.timeout = timeout_ms.map_or(timing.timeout, Duration::from_millis);
    timing.rise = rise.map_or(Ok(timing.rise), |number| small("check rise", number))?;
    timing.fall = fall.map_or(Ok(timing.fall), |number| small("check fall", number))?;
    timing.grace = grace_ms.map_or(timing.grace, Duration::from_millis);
    spec.slow_start = slow_start_ms.map_or(spec.slow_start, Duration::from_millis);
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
    for one in otherwise {
        set_otherwise(&mut spec, one)?;
    }
    Ok(Some(spec))
}

/// Changes how one real server is checked otherwise.
fn set_otherwise(spec: &mut CheckSpec, message: v1::RealCheck) -> Result<(), FieldError> {
    const FIELD: &str = "check of";
    let v1::RealCheck { real, check: message } = message;
    let bad = |text: &str| invalid(FIELD, format!("{real}: {text}"));
    let place: RealSpec = real.parse().map_err(|e: RealSpecError| invalid(FIELD, e))?;
    if place.weight != 1 {
        return Err(bad("a check has no weight"));
    }
    let is_it = |own: &RealCheck| (own.ip, own.port) == (place.ip, place.port);
    let old = spec.otherwise.iter().position(is_it).map(|at| spec.otherwise.remove(at));
    let Some(message) = message else { return Ok(()) };
    let v1::HealthCheck { interval_ms, timeout_ms, grace_ms, slow_start_ms, .. } = &message;
    let v1::HealthCheck { rise, fall, observe, otherwise, .. } = &message;
    let spans = [interval_ms, timeout_ms, grace_ms, slow_start_ms];
    if spans.into_iter().any(Option::is_some)
        || [rise, fall].into_iter().any(Option::is_some)
        || !observe.is_empty()
        || !otherwise.is_empty()
    {
        return Err(bad("timing and observers are the same for all"));
    }
    let mut own = old.unwrap_or(RealCheck::as_others(place.ip, place.port));
    match message.port {
        Some(0) => own.check_port = None,
        Some(number) => own.check_port = Some(port(FIELD, number)?),
        None => {}
    }
    let of_kind = v1::HealthCheck { port: None, ..message };
    if of_kind != v1::HealthCheck::default() {
        let as_before = own.check.as_ref().unwrap_or(&spec.kind);
        let words = words(&of_kind, Some(as_before))?;
        let kind = CheckKind::try_from(words).map_err(|error| bad(&error.to_string()))?;
        own.check = Some(Arc::new(kind));
    }
    if !own.is_as_others() {
        spec.otherwise.push(own);
        spec.otherwise.sort_by_key(|own| (own.ip, own.port.is_none(), own.port));
    }
    Ok(())
}

/// What is said of the kind. Of one with another word nothing stays of what was said before.
fn words(message: &v1::HealthCheck, old: Option<&CheckKind>) -> Result<CheckWords, FieldError> {
    let old = old.map(CheckWords::from);
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
        let CheckSpec { kind, timing, port, observers, slow_start, otherwise } = check;
        let CheckTiming { interval, timeout, rise, fall, grace } = *timing;
        let some = |span: Duration| Some(span).filter(|span| !span.is_zero()).and_then(ms);
        Self {
            interval_ms: ms(interval),
            timeout_ms: ms(timeout),
            rise: Some(rise.into()),
            fall: Some(fall.into()),
            port: port.map(u32::from),
            observe: observers.iter().map(ToString::to_string).collect(),
            otherwise: otherwise.iter().map(Into::into).collect(),
            grace_ms: some(grace),
            slow_start_ms: some(*slow_start),
            ..Self::from(&**kind)
        }
    }
}

/// Its words alone.
impl From<&CheckKind> for v1::HealthCheck {
    fn from(kind: &CheckKind) -> Self {
        let words = CheckWords::from(kind);
        let CheckWords { kind, expect, method, host, headers, body, digest, tls, sni } = words;
        Self {
            kind: Some(kind),
            expect,
            method,
            host,
            headers,
            body,
            digest,
            tls,
            sni,
            ..Self::default()
        }
    }
}

impl From<&RealCheck> for v1::RealCheck {
    fn from(RealCheck { ip, port, check, check_port }: &RealCheck) -> Self {
        let kind = check.as_ref().map(|kind| v1::HealthCheck::from(&**kind));
        let check = v1::HealthCheck { port: check_port.map(u32::from), ..kind.unwrap_or_default() };
        let real = RealSpec { ip: *ip, port: *port, weight: 1 }.to_string();
        Self { real, check: Some(check) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::servers::tests::{message, server};
    use vip_core::{Server, ServerSpec};

    #[test]
    fn one_real_server_is_checked_otherwise_word_by_word() {
        let said = |kind: &str, of: &[(&str, Option<v1::HealthCheck>)]| v1::HealthCheck {
            kind: Some(kind.to_owned()).filter(|kind| !kind.is_empty()),
            otherwise: (of.iter().cloned())
                .map(|(real, check)| v1::RealCheck { real: real.to_owned(), check })
                .collect(),
            ..Default::default()
        };
        let port = |port| Some(v1::HealthCheck { port: Some(port), ..Default::default() });
        let host = Some(v1::HealthCheck { host: Some("b".to_owned()), ..Default::default() });
        let by = |kind: &str| Some(said(kind, &[]));
        let spec = check(
            Some(said(
                "http:/ready",
                &[("10.0.0.1:80", port(81)), ("10.0.0.1:80", host), ("10.0.0.2", by("tcp"))],
            )),
            None,
        );
        let spec = spec.expect("a check").expect("there");
        let of = |spec: &CheckSpec, last, port| {
            let (kind, port) = spec.of([10, 0, 0, last].into(), Some(port));
            (CheckWords::from(&**kind), port)
        };
        let (words, port_of_one) = of(&spec, 1, 80);
        assert_eq!((words.kind.as_str(), words.host.as_deref()), ("http:/ready", Some("b")));
        assert_eq!(port_of_one, Some(81));
        assert_eq!(of(&spec, 1, 90), (CheckWords::of("http:/ready"), None), "another port");
        assert_eq!(of(&spec, 2, 90), (CheckWords::of("tcp"), None));
        // As it is told, and back.
        let told = v1::HealthCheck::from(&spec);
        assert_eq!(check(Some(told), None).expect("a check"), Some(spec.clone()));
        let less = said("", &[("10.0.0.1:80", port(0)), ("10.0.0.2", None)]);
        let less = check(Some(less), Some(spec)).expect("a check").expect("there");
        assert_eq!(less.otherwise.len(), 1, "{less:?}");
        assert_eq!(of(&less, 1, 80).1, None);
        for bad in [
            ("10.0.0.1", Some(v1::HealthCheck { fall: Some(2), ..Default::default() })),
            ("10.0.0.1", by("tcp:80")),
            ("nobody", port(81)),
            ("10.0.0.1@2", port(81)),
            ("10.0.0.1", port(65_536)),
        ] {
            check(Some(said("tcp", std::slice::from_ref(&bad))), None)
                .expect_err(&format!("{bad:?}"));
        }
    }

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
