//! Ports of loopback: free ones, and who holds a taken one.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use crate::{Error, proc_fs};

/// Below the usual servers nothing is chosen.
const LOWEST: u16 = 15_000;
const TRIES: usize = 200;

/// A port of 127.0.0.1 that is free now, chosen at random below the range from which the kernel takes the
/// ports of outgoing connections: one of those could otherwise take it before the server does, or between
/// two runs of the server. Another chooser may still be quicker: prefer port 0 where the server can tell
/// which port it got.
///
/// # Errors
/// When no port is free.
pub fn free_port() -> Result<u16, Error> {
    let [port] = free_ports()?;
    Ok(port)
}

/// Several different free ports of 127.0.0.1; see [`free_port`].
///
/// # Errors
/// When no port is free.
pub fn free_ports<const N: usize>() -> Result<[u16; N], Error> {
    let highest = outgoing_from().max(LOWEST + 1000);
    let mut held = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = (0..TRIES)
            .find_map(|_| {
                let port = rand::random_range(LOWEST..highest);
                TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
            })
            .ok_or_else(|| Error::Internal("no free port on 127.0.0.1".to_owned()))?;
        let addr = listener.local_addr();
        *port = addr.map_err(|e| Error::Internal(e.to_string()))?.port();
        held.push(listener);
    }
    Ok(ports)
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
    fn free_ports_differ() {
        let [a, b, c] = free_ports().unwrap();
        assert!(a != b && b != c && a != c);
    }
}
