//! `--check-of`: one real server that is checked otherwise than the others.

use vip_proto::v1;

/// `ADDR[:PORT]=WORD=VALUE`; without a word: as the others again.
pub(crate) fn parse(text: &str) -> Result<v1::RealCheck, String> {
    const HOW: &str = "say ADDR[:PORT]=WORD=VALUE, where WORD is check, port, expect, method, host, \
                       header, body, digest, tls or sni; ADDR[:PORT]= checks it as the others";
    let (real, said) = text.split_once('=').ok_or(HOW)?;
    let real = real.to_owned();
    if said.is_empty() {
        return Ok(v1::RealCheck { real, check: None });
    }
    let (word, value) = said.split_once('=').ok_or(HOW)?;
    let mut check = v1::HealthCheck::default();
    let text = Some(value.to_owned());
    match word {
        "check" => check.kind = text,
        "port" => {
            let port = value.parse().map_err(|_| format!("{value:?} is no port"))?;
            check.port = Some(port);
        }
        "expect" => check.expect = text,
        "method" => check.method = text,
        "host" => check.host = text,
        "header" => check.headers = vec![value.to_owned()],
        "body" => check.body = text,
        "digest" => check.digest = text,
        "tls" => check.tls = text,
        "sni" => check.sni = text,
        _ => return Err(format!("{word:?} is no word of a check: {HOW}")),
    }
    Ok(v1::RealCheck { real, check: Some(check) })
}

/// As it is written.
pub(crate) fn spoken(v1::RealCheck { real, check }: &v1::RealCheck) -> String {
    let check = check.clone().unwrap_or_default();
    let port = check.port.map(|port| format!("port {port}"));
    let words = [
        ("by", check.kind),
        ("expects", check.expect),
        ("method", check.method),
        ("host", check.host),
        ("body", check.body),
        ("digest", check.digest),
        ("tls", check.tls),
        ("sni", check.sni),
    ];
    let words = words.into_iter().filter_map(|(word, said)| Some(format!("{word} {}", said?)));
    let headers = check.headers.into_iter().map(|header| format!("header {header}"));
    let all: Vec<_> = words.chain(port).chain(headers).collect();
    format!("{real}: {}", all.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_said_of_one_real_server() {
        let said = parse("10.0.0.1:80=check=http:/a=b?c=d").expect("said");
        assert_eq!(said.real, "10.0.0.1:80");
        assert_eq!(said.check.expect("a check").kind.as_deref(), Some("http:/a=b?c=d"));
        let said = parse("[fd00::1]:80=port=8081").expect("said");
        assert_eq!(
            (said.real.as_str(), said.check.as_ref().and_then(|c| c.port)),
            ("[fd00::1]:80", Some(8081))
        );
        assert_eq!(spoken(&said), "[fd00::1]:80: port 8081");
        assert_eq!(parse("10.0.0.1=").expect("said").check, None);
        for bad in ["10.0.0.1", "10.0.0.1=port", "10.0.0.1=port=x", "10.0.0.1=weight=1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
