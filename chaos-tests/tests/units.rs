//! The systemd units: valid, and as hard as they claim to be.

use anyhow::{Context, Result};
use chaos_tests::{binaries, run};
use std::path::Path;

/// Exposure by `systemd-analyze security`, where 10 is a process without any
/// restriction. Measured 1.8, 2.0 and 1.3.
const EXPOSURE_MAX: f64 = 2.0;
const UNITS: [&str; 4] =
    ["vipd-guard.service", "vipd.service", "vipd-exec.service", "vipd-exec.socket"];

#[test]
fn the_units_are_valid_and_hardened() -> Result<()> {
    let dir = std::env::temp_dir().join(format!("vipd-units-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd");
    let vipd = binaries()?.join("vipd").display().to_string();
    let mut paths = vec![];
    for unit in UNITS {
        // The program is where the package would put it; here it is elsewhere.
        let text = std::fs::read_to_string(units.join(unit))?.replace("/usr/bin/vipd", &vipd);
        std::fs::write(dir.join(unit), text)?;
        paths.push(dir.join(unit).display().to_string());
    }
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let verified = run("systemd-analyze", &[&["verify"], paths.as_slice()].concat())?;
    let complaints: Vec<_> =
        verified.stderr.lines().filter(|l| l.contains("vipd")).map(str::to_owned).collect();
    assert_eq!(verified.code, Some(0), "{}", verified.stderr);
    assert_eq!(complaints, Vec::<String>::new());

    for path in paths.into_iter().filter(|path| path.ends_with(".service")) {
        let security = run("systemd-analyze", &["security", "--offline=true", path])?;
        let line = security.stdout.lines().find(|l| l.contains("Overall exposure"));
        let line = line.with_context(|| security.stdout.clone())?;
        let exposure =
            line.split(": ").nth(1).and_then(|t| t.split(' ').next()).context("a number")?;
        assert!(exposure.parse::<f64>()? <= EXPOSURE_MAX, "{line}");
    }
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

/// As Debian's gobgpd has it, and as what is shipped beside it changes that.
#[test]
fn the_speakers_life_is_tied_to_the_agents() -> Result<()> {
    let dir = std::env::temp_dir().join(format!("vipd-speaker-{}", std::process::id()));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (from, unit, to) in [
        ("gobgpd-vipd.conf", "gobgpd.service", "vipd.conf"),
        ("vipd-gobgpd.conf", "vipd.service", "gobgpd.conf"),
    ] {
        let place = dir.join(format!("{unit}.d"));
        std::fs::create_dir_all(&place)?;
        std::fs::copy(root.join("deploy/cloud/bgp").join(from), place.join(to))?;
    }
    let vipd = std::fs::read_to_string(root.join("deploy/systemd/vipd.service"))?;
    std::fs::write(dir.join("vipd.service"), vipd.replace("/usr/bin/vipd", "/bin/true"))?;
    let of_package = "[Service]\nExecStart=/bin/true $GOBGPD_OPTIONS\n";
    std::fs::write(dir.join("gobgpd.service"), of_package)?;
    let units = ["gobgpd.service", "vipd.service"].map(|unit| dir.join(unit));
    let units = units.map(|unit| unit.display().to_string());
    let verified = run("systemd-analyze", &["verify", &units[0], &units[1]])?;
    std::fs::remove_dir_all(&dir)?;
    let ours = |line: &&str| line.contains("vipd.conf") || line.contains("gobgpd.conf");
    let complaints: Vec<_> = verified.stderr.lines().filter(ours).collect();
    assert!(verified.code == Some(0) && complaints.is_empty(), "{}", verified.stderr);
    Ok(())
}

/// What hardening would take away: the guard raises settings of the kernel's
/// network, and the agent asks how the clock is steered.
#[test]
fn the_units_leave_what_guard_and_agent_need() -> Result<()> {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd");
    for (unit, line) in [
        ("vipd-guard.service", "ProtectKernelTunables=no"),
        ("vipd-guard.service", "ExecReload=/bin/kill -HUP $MAINPID"),
        ("vipd.service", "ProtectClock=no"),
        ("vipd-exec.service", "StandardInput=socket"),
        ("vipd-exec.socket", "SocketUser=vipd"),
    ] {
        let text = std::fs::read_to_string(units.join(unit))?;
        assert!(text.lines().any(|l| l.trim() == line), "{unit} lacks {line}");
    }
    Ok(())
}
