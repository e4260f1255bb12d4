//! Servers as child processes, and what they cost.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// How long a server may take until it listens.
const START_WITHIN: Duration = Duration::from_secs(15);
/// How long a server may take to end by itself.
const END_WITHIN: Duration = Duration::from_secs(10);
/// How long a server may take to finish what it does after the last answer.
const QUIET_WITHIN: Duration = Duration::from_secs(40);

/// A server that ends with this value.
pub(crate) struct Server {
    child: Child,
    name: &'static str,
}

/// An address of this machine that nobody listens on.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

impl Server {
    /// Starts a server, whose output goes to a file, and waits until it listens.
    pub(crate) fn start(
        name: &'static str,
        command: &mut Command,
        log: &Path,
        listens: SocketAddr,
    ) -> anyhow::Result<Self> {
        let output = fs::File::create(log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| format!("could not start {name}"))?;
        let mut server = Self { child, name };
        let deadline = Instant::now() + START_WITHIN;
        while TcpStream::connect(listens).is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("{name} ended with {status}: {}", fs::read_to_string(log).unwrap_or_default());
            }
            if Instant::now() > deadline {
                bail!("{name} does not listen on {listens}: {}", fs::read_to_string(log).unwrap_or_default());
            }
            sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    /// User and system time of the process and its children so far.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let tree = tree(self.child.id())?;
        let ticks: u64 = tree.iter().map(|process| process.ticks).sum();
        Ok(Duration::from_secs(ticks) / TICKS_PER_SECOND)
    }

    /// The same, once it has finished what is left to do after the last answer.
    pub(crate) fn cpu_when_quiet(&self) -> anyhow::Result<Duration> {
        let deadline = Instant::now() + QUIET_WITHIN;
        let mut last = self.cpu()?;
        loop {
            sleep(Duration::from_millis(150));
            let now = self.cpu()?;
            if now - last <= Duration::from_millis(10) || Instant::now() > deadline {
                return Ok(now);
            }
            last = now;
        }
    }

    /// Resident memory of the process, in KiB.
    pub(crate) fn resident_kib(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next()).and_then(|word| word.parse().ok());
        number.with_context(|| format!("could not read the memory of {}", self.name))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Asked first: nginx takes its workers along, and Serin writes what waits.
        let asked = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let deadline = Instant::now() + END_WITHIN;
        while asked.is_ok() && Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What Linux shows to every program, whatever the kernel's own tick is.
const TICKS_PER_SECOND: u32 = 100;

#[derive(Debug, Clone, Copy)]
struct Process {
    id: u32,
    parent: u32,
    ticks: u64,
}

/// A process and everything below it.
fn tree(root: u32) -> anyhow::Result<Vec<Process>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may have ended since.
        let Ok(stat) = fs::read_to_string(format!("/proc/{id}/stat")) else { continue };
        all.extend(parse_stat(id, &stat));
    }
    let mut tree: Vec<Process> = all.iter().filter(|process| process.id == root).copied().collect();
    if tree.is_empty() {
        bail!("process {root} is gone");
    }
    let mut next = 0;
    while next < tree.len() {
        let parent = tree[next].id;
        tree.extend(all.iter().filter(|process| process.parent == parent));
        next += 1;
    }
    Ok(tree)
}

/// Reads `/proc/ID/stat`: the second field is in brackets and may hold anything, the third is the state.
fn parse_stat(id: u32, stat: &str) -> Option<Process> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let parent = u32::try_from(number(4)?).ok()?;
    Some(Process { id, parent, ticks: number(14)? + number(15)? })
}
