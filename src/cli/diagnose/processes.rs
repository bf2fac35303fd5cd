//! Who holds what, from what the kernel shows of processes (proc(5)): read, and nothing
//! tried out. A process of another user shows less, and one in another namespace of
//! processes nothing.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) id: u32,
}

impl Process {
    /// The name of its program.
    pub(super) fn name(&self) -> String {
        let name = fs::read_to_string(format!("/proc/{}/comm", self.id));
        name.map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
    }

    /// The user that it runs as.
    pub(super) fn user(&self) -> Option<u32> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
        // Real, effective, saved, of the file system.
        line.split_whitespace().nth(1)?.parse().ok()
    }

    /// How many files it may have open.
    pub(super) fn open_files_limit(&self) -> OpenFiles {
        fs::read_to_string(format!("/proc/{}/limits", self.id))
            .map_or(OpenFiles::Unseen, |limits| OpenFiles::parse(&limits))
    }

    /// Whether one of its descriptors leads to something of which this is true.
    fn has_open(&self, is_it: impl Fn(&Path) -> bool) -> bool {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{}/fd", self.id)) else {
            return false;
        };
        descriptors.flatten().any(|entry| is_it(&entry.path()))
    }
}

/// How many files a process may have open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenFiles {
    AtMost(u64),
    Unlimited,
    /// This user is not told.
    Unseen,
}

impl OpenFiles {
    /// From the soft limit of `/proc/PID/limits`.
    fn parse(limits: &str) -> Self {
        let line = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max open files"));
        match line.and_then(|line| line.split_whitespace().next()) {
            Some("unlimited") => Self::Unlimited,
            Some(limit) => limit.parse().map_or(Self::Unseen, Self::AtMost),
            None => Self::Unseen,
        }
    }
}

/// The number of the capability `CAP_NET_BIND_SERVICE` (capabilities(7)).
const NET_BIND_SERVICE: u32 = 10;

/// Ports from this one on are anybody's where the kernel does not say (ip(7)).
const FIRST_UNPRIVILEGED: u16 = 1_024;

/// Whether this process may listen on this port, if it is free.
pub(super) fn may_listen_on(port: u16) -> bool {
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let first = first.ok().and_then(|text| text.trim().parse().ok());
    port >= first.unwrap_or(FIRST_UNPRIVILEGED) || may_take_any_port()
}

fn may_take_any_port() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    effective.is_some_and(|set| set & (1 << NET_BIND_SERVICE) != 0)
}

/// The process that holds the lock (flock(2)) of a file for itself alone.
pub(super) fn holder(file: &Path) -> Option<Process> {
    let metadata = fs::metadata(file).ok()?;
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let is_it = |path: &Path| {
        let found = fs::metadata(path);
        found.is_ok_and(|found| (found.dev(), found.ino()) == (metadata.dev(), metadata.ino()))
    };
    locks.lines().find_map(|line| {
        let lock = Lock::parse(line)?;
        let process = Process { id: lock.process };
        let is_here = lock.device == device(metadata.dev());
        // Layered file systems show another device there than here.
        (lock.inode == metadata.ino() && (is_here || process.has_open(is_it))).then_some(process)
    })
}

/// One held lock of `/proc/locks`.
struct Lock {
    process: u32,
    device: String,
    inode: u64,
}

impl Lock {
    /// From `1: FLOCK  ADVISORY  WRITE 708 08:01:13393 0 EOF`. Those that wait have an
    /// arrow behind their number.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace().skip(1);
        (words.next()? == "FLOCK").then_some(())?;
        (words.nth(1)? == "WRITE").then_some(())?;
        let process = words.next()?.parse().ok()?;
        let (device, inode) = words.next()?.rsplit_once(':')?;
        Some(Self {
            process,
            device: device.to_owned(),
            inode: inode.parse().ok()?,
        })
    }
}

/// A device as `/proc/locks` writes it.
fn device(number: u64) -> String {
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    format!("{major:02x}:{minor:02x}")
}

/// Who listens at an address.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listener {
    /// The user.
    pub(super) user: u32,
    /// The process, where it can be seen.
    pub(super) process: Option<Process>,
}

/// Whoever listens where this address is asked for, or keeps it from being taken.
pub(super) fn listener(wanted: SocketAddr) -> Option<Listener> {
    let found = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .find_map(|table| {
            let table = fs::read_to_string(table).ok()?;
            table.lines().skip(1).find_map(|line| {
                let socket = Socket::parse(line)?;
                socket.stands_in_the_way_of(wanted).then_some(socket)
            })
        })?;
    let name = format!("socket:[{}]", found.inode);
    let is_it = |path: &Path| fs::read_link(path).is_ok_and(|link| link == Path::new(&name));
    let processes = fs::read_dir("/proc").ok()?.flatten();
    Some(Listener {
        user: found.user,
        process: processes
            .filter_map(|entry| {
                Some(Process {
                    id: entry.file_name().to_str()?.parse().ok()?,
                })
            })
            .find(|process| process.has_open(is_it)),
    })
}

/// A listening socket.
#[derive(Debug, PartialEq, Eq)]
struct Socket {
    address: SocketAddr,
    user: u32,
    inode: u64,
}

/// The state of a socket that listens (`TCP_LISTEN` of the kernel).
const LISTENS: &str = "0A";

impl Socket {
    /// From a line of `/proc/net/tcp` or `tcp6`, if it listens.
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, local, _, state, _, _, _, user, _, inode, ..] = words.as_slice() else {
            return None;
        };
        (*state == LISTENS).then_some(Self {
            address: address(local)?,
            user: user.parse().ok()?,
            inode: inode.parse().ok()?,
        })
    }

    fn stands_in_the_way_of(&self, wanted: SocketAddr) -> bool {
        let (has, wants) = (self.address.ip().to_canonical(), wanted.ip().to_canonical());
        self.address.port() == wanted.port()
            && (has == wants || takes_all(has, wants) || takes_all(wants, has))
    }
}

/// Whether who has the one address has the other too: `0.0.0.0` has all of IPv4, and
/// `::` has all.
fn takes_all(one: IpAddr, other: IpAddr) -> bool {
    match one {
        IpAddr::V4(one) => one.is_unspecified() && other.is_ipv4(),
        IpAddr::V6(one) => one.is_unspecified(),
    }
}

/// `0100007F:1F42`: words of 32 bits in the machine's order, and the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.split_once(':')?;
    let words: Option<Vec<u8>> = (0..host.len() / 8)
        .map(|word| u32::from_str_radix(host.get(8 * word..8 * word + 8)?, 16).ok())
        .collect::<Option<Vec<u32>>>()
        .map(|words| words.into_iter().flat_map(u32::to_ne_bytes).collect());
    let bytes = words?;
    let host = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(bytes) => IpAddr::V4(Ipv4Addr::from(bytes)),
        Err(_) => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?)),
    };
    Some(SocketAddr::new(host, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::TcpListener;

    use super::*;

    fn me() -> Process {
        Process {
            id: std::process::id(),
        }
    }

    #[test]
    fn whoever_holds_a_lock_is_found_and_nobody_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let (held, free) = (folder.path().join("held"), folder.path().join("free"));
        let file = File::create(&held).expect("made");
        File::create(&free).expect("made");
        assert_eq!(holder(&held), None);
        file.lock().expect("locked");
        assert_eq!(holder(&held), Some(me()));
        assert_eq!(holder(&free), None);
        assert_eq!(holder(&folder.path().join("none")), None);
        file.unlock().expect("unlocked");
        file.lock_shared().expect("locked");
        assert_eq!(holder(&held), None, "shared");
    }

    #[test]
    fn whoever_listens_is_found_by_every_address_that_it_keeps_others_from() {
        for (has, wants) in [
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1", "0.0.0.0"),
            ("0.0.0.0", "127.0.0.1"),
            ("[::1]", "[::]"),
            ("[::]", "127.0.0.1"),
        ] {
            let listener_there = TcpListener::bind(format!("{has}:0")).expect("a port");
            let port = listener_there.local_addr().expect("an address").port();
            let wanted = format!("{wants}:{port}").parse().expect("an address");
            let found = listener(wanted).unwrap_or_else(|| panic!("{has} {wants}"));
            assert_eq!(found.process, Some(me()), "{has} {wants}");
            let other = format!("127.0.0.77:{port}").parse().expect("an address");
            let is_found = listener(other).is_some();
            assert_eq!(is_found, has == "0.0.0.0" || has == "[::]", "{has}");
            drop(listener_there);
            assert_eq!(listener(wanted), None, "{has} {wants}");
        }
    }

    #[test]
    fn lines_of_other_kinds_are_passed_over() {
        for line in [
            "1: POSIX  ADVISORY  WRITE 708 08:01:13393 0 EOF",
            "1: -> FLOCK  ADVISORY  WRITE 708 08:01:13393 0 EOF",
            "1: FLOCK  ADVISORY  READ 708 08:01:13393 0 EOF",
            "",
            "1: FLOCK",
        ] {
            assert!(Lock::parse(line).is_none(), "{line}");
        }
        assert!(Lock::parse("1: FLOCK  ADVISORY  WRITE 708 08:01:13393 0 EOF").is_some());
        let established = "0: 0100007F:8DB3 0100007F:E6C8 01 0:0 0:0 0 0 0 3 1";
        assert_eq!(Socket::parse(established), None);
    }

    #[test]
    fn a_process_is_its_effective_users() {
        let user = rustix::process::geteuid().as_raw();
        assert_eq!(me().user(), Some(user));
        assert_eq!(Process { id: u32::MAX }.user(), None);
    }

    #[test]
    fn a_limit_is_the_soft_one() {
        let soft = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let soft = soft.map_or(OpenFiles::Unlimited, OpenFiles::AtMost);
        assert_eq!(me().open_files_limit(), soft);
        assert_eq!(
            Process { id: u32::MAX }.open_files_limit(),
            OpenFiles::Unseen
        );
        let line = "Max open files            unlimited            1048576              files";
        assert_eq!(OpenFiles::parse(line), OpenFiles::Unlimited);
        assert_eq!(OpenFiles::parse("Max open files "), OpenFiles::Unseen);
    }
}
