//! Ports of loopback: free ones, and who holds a taken one.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use crate::{Error, proc_fs};

/// A port of 127.0.0.1 that is free now. It may be taken by the time it is used: prefer port 0 where the
/// server can tell which port it got.
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
    let failed = |e: io::Error| Error::Internal(format!("no free port: {e}"));
    let mut held = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
        *port = listener.local_addr().map_err(failed)?.port();
        held.push(listener);
    }
    Ok(ports)
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
