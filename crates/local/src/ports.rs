//! Ports of loopback: free ones, and who holds a taken one.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{self as unix, UnixDatagram};
use std::sync::{Mutex, PoisonError};

use crate::{Error, proc_fs};

/// Below the usual servers nothing is chosen.
const LOWEST: u16 = 15_000;
const TRIES: usize = 200;

/// What no other process of ours may choose as long as this one lives.
static CLAIMS: Mutex<Vec<UnixDatagram>> = Mutex::new(Vec::new());

/// A port of 127.0.0.1 that is free, and that nobody else gets from here as long as this process lives: its
/// server may start later and be down between two starts. Chosen at random below the range from which the kernel
/// takes the ports of outgoing connections, which could otherwise take it too.
///
/// # Errors
/// When no port is free.
pub fn free_port() -> Result<u16, Error> {
    let highest = outgoing_from().max(LOWEST + 1000);
    (0..TRIES)
        .map(|_| rand::random_range(LOWEST..highest))
        .find(|port| claim(*port) && TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .ok_or_else(|| Error::Internal("no free port on 127.0.0.1".to_owned()))
}

/// Several different free ports of 127.0.0.1; see [`free_port`].
///
/// # Errors
/// When no port is free.
pub fn free_ports<const N: usize>() -> Result<[u16; N], Error> {
    let mut ports = [0; N];
    for port in &mut ports {
        *port = free_port()?;
    }
    Ok(ports)
}

/// Takes a port's name in the kernel's abstract socket namespace, which frees it when this process ends.
fn claim(port: u16) -> bool {
    let name = unix::SocketAddr::from_abstract_name(format!("windlass-port-{port}"));
    let Ok(socket) = name.and_then(|name| UnixDatagram::bind_addr(&name)) else {
        return false;
    };
    let mut claims = CLAIMS.lock().unwrap_or_else(PoisonError::into_inner);
    claims.push(socket);
    true
}

/// The lowest port of outgoing connections.
fn outgoing_from() -> u16 {
    const DEFAULT: u16 = 32_768;
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first = range.split_whitespace().next();
    first.and_then(|port| port.parse().ok()).unwrap_or(DEFAULT)
}

/// Whether `addr` can be listened on.
///
/// # Errors
/// [`Error::PortTaken`] with the owner where it can be found out (ours, or any when root).
pub fn check_free(addr: SocketAddr) -> Result<(), Error> {
    match TcpListener::bind(addr) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => Err(Error::PortTaken {
            addr,
            owner: owner(addr.port()),
        }),
        Err(e) => Err(Error::Internal(format!("cannot listen on {addr}: {e}"))),
    }
}

/// `process 123 (redis-server)`.
fn owner(port: u16) -> Option<String> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .find_map(|table| listening_inode(&table, port))?;
    let socket = format!("socket:[{inode}]");
    proc_fs::pids().into_iter().find_map(|pid| {
        let mut fds = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
        fds.any(|fd| {
            fd.and_then(|fd| fs::read_link(fd.path()))
                .is_ok_and(|target| target.as_os_str() == socket.as_str())
        })
        .then(|| {
            let program = proc_fs::program(pid).unwrap_or_else(|| "unknown".to_owned());
            format!("process {pid} ({program})")
        })
    })
}

/// The socket listening on `port` in a table of /proc/net/tcp's form.
fn listening_inode(table: &str, port: u16) -> Option<u64> {
    const LISTEN: &str = "0A";
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let local = fields.get(1)?.rsplit(':').next()?;
        let listens = fields.get(3)? == &LISTEN;
        (listens && u16::from_str_radix(local, 16) == Ok(port))
            .then(|| fields.get(9)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_names_its_owner() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let error = check_free(addr).unwrap_err().to_string();
        let me = format!("by process {} (", std::process::id());
        assert!(error.contains(&me), "{error}");
        drop(listener);
        check_free(addr).unwrap();
    }

    #[test]
    fn a_free_port_is_chosen_once() {
        let [a, b, c] = free_ports().unwrap();
        assert!(a != b && b != c && a != c);
        for port in [a, b, c] {
            assert!(!claim(port), "{port}");
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        }
    }
}
