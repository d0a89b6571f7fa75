//! `cargo xtask lab`: a command under another kernel, in a guest of qemu's. Debian's 6.12
//! for clouds has what the machine at hand may lack: IPVS, VLANs, bonds, netem; and it is
//! another kernel. It is unpacked below `target/`, nothing is installed but qemu.
//!
//! The guest has the host's files, below an overlay that is thrown away, and no network.
//! Without KVM, which is there on few machines and works on fewer, it is some ten times as
//! slow: no figure of it means anything.

use crate::packages::{KMOD, QEMU, install, install_packages};
use crate::shell::{become_root, root, run as call};
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PACKAGE: &str = "linux-image-6.12-cloud-amd64";
const INIT: &str = include_str!("lab/init.sh");
const MEMORY: &str = "2048M";
const PROCESSORS: &str = "2";
/// A guest that is not done by then is stopped.
const LIMIT: &str = "1800";
const SOCKET_APPEARS: Duration = Duration::from_secs(10);
/// Of Debian 12, with qemu; later ones have it in a package of its own.
const VIRTIOFS: [&str; 2] = ["/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd"];
/// What is tried without a command: the kernel's program and its engine, and what other
/// kernels lack.
const TESTS: [(&str, &str); 6] = [
    ("engine", ""),
    ("forward", ""),
    ("map", ""),
    ("serving", ""),
    ("vip_datapath", ""),
    ("vlans", "--ignored"),
];

/// A process that ends with the value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Unpacks the kernel and its modules, once. Returns where.
fn kernel() -> Result<PathBuf> {
    let place = root().join("target/lab/kernel");
    if place.join("boot").is_dir() {
        return Ok(place);
    }
    let new = root().join("target/lab/new");
    let _ = std::fs::remove_dir_all(&new);
    std::fs::create_dir_all(&new)?;
    call("apt-get", &["update", "-q"])?;
    let depends = Command::new("apt-cache").args(["depends", PACKAGE]).output()?;
    let depends = String::from_utf8_lossy(&depends.stdout).into_owned();
    let image = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
    let image = format!("linux-image-{}", image.with_context(|| format!("no {PACKAGE}"))?);
    let mut download = Command::new("apt-get");
    let status = download.args(["download", "-q", &image]).current_dir(&new).status()?;
    ensure!(status.success(), "{image} cannot be had");
    for file in std::fs::read_dir(&new)? {
        let file = file?.path();
        if file.extension().is_some_and(|extension| extension == "deb") {
            let [file, new] = [&file, &new].map(|path| path.display().to_string());
            call("dpkg-deb", &["-x", &file, &new])?;
        }
    }
    let modules = std::fs::read_dir(new.join("lib/modules"))?.next().context("no modules")??;
    let version = modules.file_name().display().to_string();
    call("depmod", &["-b", &new.display().to_string(), &version])?;
    std::fs::rename(&new, &place)?;
    Ok(place)
}

fn vmlinuz(kernel: &Path) -> Result<PathBuf> {
    let files = std::fs::read_dir(kernel.join("boot"))?;
    let is_it = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"))
    };
    let mut files = files.filter_map(|file| Some(file.ok()?.path()));
    files.find(is_it).context("no kernel in the package")
}

/// A folder that the guest sees.
fn serve(socket: &Path, folder: &Path, cache: &str) -> Result<Running> {
    let program = VIRTIOFS.iter().find(|path| Path::new(path).exists()).context("no virtiofsd")?;
    let mut command = Command::new(program);
    command.arg(format!("--socket-path={}", socket.display()));
    command.args(["-o", &format!("source={}", folder.display()), "-o"]);
    command.arg(format!("cache={cache}"));
    command.args(["-o", "sandbox=chroot", "-o", "no_posix_lock", "-o", "xattr"]);
    let serving = Running(command.stderr(Stdio::null()).spawn()?);
    let until = Instant::now() + SOCKET_APPEARS;
    while !socket.exists() {
        ensure!(Instant::now() < until, "virtiofsd does not serve {}", folder.display());
        std::thread::yield_now();
    }
    Ok(serving)
}

/// The newest test programs of these names, with what they are told.
fn tests() -> Result<Vec<String>> {
    call("cargo", &["build", "--workspace", "--locked", "--all-targets"])?;
    let deps = root().join("target/debug/deps");
    let mut found = vec![];
    for (name, told) in TESTS {
        let mut newest = None;
        for file in std::fs::read_dir(&deps)? {
            let path = file?.path();
            let text = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let is_it = text.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'));
            if is_it && path.extension().is_none() {
                let changed = std::fs::metadata(&path)?.modified()?;
                newest = newest.max(Some((changed, path)));
            }
        }
        let line = |path: PathBuf| format!("{} {told}", quoted(&path.display().to_string()));
        found.extend(newest.map(|(_, path)| line(path)));
    }
    ensure!(!found.is_empty(), "no tests were built");
    Ok(found)
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Where a command in the guest leaves what it found: nothing else of it is kept.
pub(crate) const FOUND: &str = "LAB_FOUND";

/// Runs a command, or the tests of what is in the kernel. Returns what it left at [`FOUND`].
pub(crate) fn run(command: &[String]) -> Result<String> {
    become_root()?;
    install(&[QEMU, KMOD])?;
    if !VIRTIOFS.iter().any(|path| Path::new(path).exists()) {
        install_packages(&["virtiofsd"])?;
    }
    let kernel = kernel()?;
    let line = if command.is_empty() {
        let tests = tests()?;
        tests.iter().map(|test| format!("{test} || exit 1\n")).collect()
    } else {
        command.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
    };
    let shared = root().join(format!("target/lab/shared-{}", std::process::id()));
    std::fs::create_dir_all(&shared)?;
    let done = guest(&kernel, &shared, &line);
    let found = std::fs::read_to_string(shared.join("found")).unwrap_or_default();
    let _ = std::fs::remove_dir_all(&shared);
    done.map(|()| found)
}

fn guest(kernel: &Path, shared: &Path, line: &str) -> Result<()> {
    let path = std::env::var("PATH").unwrap_or_default();
    let dir = std::env::current_dir()?.display().to_string();
    let found = shared.join("found").display().to_string();
    let script = format!(
        "export PATH={} {FOUND}={}\ncd {}\n{line}\n",
        quoted(&path),
        quoted(&found),
        quoted(&dir)
    );
    std::fs::write(shared.join("command"), script)?;
    let init = shared.join("init");
    std::fs::write(&init, INIT)?;
    call("chmod", &["755", &init.display().to_string()])?;
    let [root_socket, shared_socket] = ["root.sock", "shared.sock"].map(|name| shared.join(name));
    let _root = serve(&root_socket, Path::new("/"), "always")?;
    let _shared = serve(&shared_socket, shared, "auto")?;
    let append = format!(
        "console=ttyS0 panic=-1 quiet ro mitigations=off rootfstype=virtiofs root=rootfs init={} \
         LAB_KERNEL={} LAB_SHARED={}",
        init.display(),
        kernel.display(),
        shared.display()
    );
    let mut qemu = Command::new("timeout");
    qemu.args([LIMIT, QEMU.program, "-accel", "tcg,thread=multi"]);
    qemu.args(["-cpu", "max", "-smp", PROCESSORS, "-m", MEMORY]);
    qemu.args(["-object", &format!("memory-backend-memfd,id=m,size={MEMORY},share=on")]);
    qemu.args(["-numa", "node,memdev=m"]);
    for (tag, socket) in [("rootfs", &root_socket), ("shared", &shared_socket)] {
        qemu.args(["-chardev", &format!("socket,id={tag},path={}", socket.display())]);
        qemu.args(["-device", &format!("vhost-user-fs-pci,chardev={tag},tag={tag}")]);
    }
    qemu.args(["-device", "virtio-serial-pci", "-chardev", "stdio,id=o,signal=on"]);
    qemu.args(["-device", "virtconsole,chardev=o", "-nodefaults", "-display", "none"]);
    let log = shared.join("console");
    qemu.args(["-no-reboot", "-serial", &format!("file:{}", log.display())]);
    qemu.arg("-kernel").arg(vmlinuz(kernel)?).args(["-append", &append]);
    qemu.stdin(Stdio::null()).status().context("qemu")?;
    match std::fs::read_to_string(shared.join("status")) {
        Ok(status) if status.trim() == "0" => Ok(()),
        Ok(status) => bail!("the command failed in the guest: {}", status.trim()),
        Err(_) => bail!(
            "the guest died, or was not done within {LIMIT} s:\n{}",
            std::fs::read_to_string(&log).unwrap_or_default()
        ),
    }
}
