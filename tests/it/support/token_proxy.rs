//! SoftHSM in a process of its own, behind p11-kit's server: a token that can be
//! killed, stopped and started again without the service.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::DEADLINE;
use super::token::{LABEL, SOFTHSM, TokenFolder};

/// A server, in a process group with all that it starts. Killed when dropped.
pub(crate) struct TokenProxy {
    socket: PathBuf,
    settings: PathBuf,
    server: Option<Child>,
}

impl TokenProxy {
    /// A server for this token.
    pub(crate) fn start(token: &TokenFolder) -> Self {
        let mut proxy = Self {
            socket: token.path().join("p11-kit.socket"),
            settings: token.softhsm_conf(),
            server: None,
        };
        proxy.start_again();
        proxy
    }

    /// What `P11_KIT_SERVER_ADDRESS` names.
    pub(crate) fn address(&self) -> String {
        format!("unix:path={}", self.socket.display())
    }

    /// Starts one where none is, at the same address, and waits until it listens.
    pub(crate) fn start_again(&mut self) {
        assert!(self.server.is_none(), "it runs");
        let _ = fs::remove_file(&self.socket);
        let server = Command::new("p11-kit")
            .args(["server", "-f", "--provider", SOFTHSM, "-n"])
            .arg(&self.socket)
            .arg(format!("pkcs11:token={LABEL}"))
            .env("SOFTHSM2_CONF", &self.settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("p11-kit, which `make tools` installs, runs");
        self.server = Some(server);
        wait_for(&self.socket);
    }

    /// Kills it and whatever it has started.
    pub(crate) fn kill(&mut self) {
        self.signal("KILL");
        if let Some(mut server) = self.server.take() {
            let _ = server.wait();
        }
    }

    /// Stops all of it where it is.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
    }

    /// Lets it go on.
    pub(crate) fn go_on(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        if let Some(server) = &self.server {
            let group = format!("-{}", server.id());
            let sent = Command::new("kill")
                .args([&format!("-{name}"), "--", &group])
                .status();
            assert!(sent.is_ok_and(|sent| sent.success()), "it is gone");
        }
    }
}

impl Drop for TokenProxy {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            // Not through `signal`: a panic while panicking tells nothing.
            let group = format!("-{}", server.id());
            let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
            let _ = server.wait();
        }
    }
}

fn wait_for(socket: &Path) {
    let start = Instant::now();
    while std::os::unix::net::UnixStream::connect(socket).is_err() {
        assert!(start.elapsed() < DEADLINE, "it does not listen");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
