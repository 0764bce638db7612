//! The server under load, as a process of its own, so that memory and processor time are its alone.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

/// How long a server may take to end after SIGTERM: it drains for 10 s at most.
const STOP: Duration = Duration::from_secs(20);
const STOP_POLL: Duration = Duration::from_millis(20);

/// A running `lately serve` on free ports.
pub(crate) struct Server {
    child: Child,
    /// Kept open: a server whose output nobody can take must not be what fails.
    _stdout: BufReader<ChildStdout>,
    /// `http://host:port` of the data door.
    pub(crate) data: String,
    /// Of the admin door.
    pub(crate) admin: String,
}

impl Server {
    /// Starts `program serve` on a data directory and waits until it listens.
    pub(crate) fn start(program: &Path, dir: &Path) -> Result<Self> {
        let mut child = Command::new(program)
            .args(["serve", "--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0", "--data"])
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let mut stdout = BufReader::new(child.stdout.take().context("the server has no output")?);
        let found = doors(&mut stdout);
        let Ok(Some((data, admin))) = found else {
            child.kill().ok(); // it may have ended by itself
            let status = child.wait()?;
            found?;
            bail!("the server ended with {status} before it listened");
        };
        Ok(Self { child, _stdout: stdout, data, admin })
    }

    /// What it has used since its start.
    pub(crate) fn usage(&self) -> Result<Option<Usage>> {
        Usage::of(&self.child.id().to_string())
    }

    /// Its process.
    pub(crate) fn id(&self) -> Result<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("the server has no process id")
    }

    /// Asks it to stop and waits for its end.
    pub(crate) fn stop(mut self) -> Result<()> {
        kill_process(self.id()?, Signal::TERM).context("cannot stop the server")?;
        let asked = Instant::now();
        while asked.elapsed() < STOP {
            if let Some(status) = self.child.try_wait()? {
                anyhow::ensure!(status.success(), "the server ended with {status}");
                return Ok(());
            }
            std::thread::sleep(STOP_POLL);
        }
        bail!("the server did not end within {STOP:?} of being asked to");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Ended before by `stop`: both fail, and there is nothing left to do.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The addresses that `lately serve` prints.
fn doors(stdout: &mut impl BufRead) -> Result<Option<(String, String)>> {
    let (mut line, mut data) = (String::new(), None);
    while stdout.read_line(&mut line)? > 0 {
        if let Some((what, address)) = line.trim_end().rsplit_once(" on http://") {
            let address = format!("http://{address}");
            match data {
                None if what.starts_with("serving ") => data = Some(address),
                Some(data) if what.starts_with("admin ") => return Ok(Some((data, address))),
                _ => {}
            }
        }
        line.clear();
    }
    Ok(None)
}

/// What a process has used.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Usage {
    /// Processor time, s.
    pub(crate) cpu_seconds: f64,
    /// Memory now, and the most that it ever held, bytes.
    pub(crate) rss: u64,
    pub(crate) peak: u64,
}

impl Usage {
    /// Of a process by its number, or of `self`; `None` where the system does not say (not Linux).
    pub(crate) fn of(process: &str) -> Result<Option<Self>> {
        let folder = Path::new("/proc").join(process);
        if !cfg!(target_os = "linux") {
            return Ok(None);
        }
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let (stat, status) = (read("stat")?, read("status")?);
        Ok(Some(Self::parse(&stat, &status).context("what the system says of a process is unreadable")?))
    }

    fn parse(stat: &str, status: &str) -> Option<Self> {
        // The name of the program stands in parentheses and may hold anything.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11).map(str::parse::<u64>);
        let ticks = fields.next()?.ok()? + fields.next()?.ok()?;
        let kib = |key: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(key))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let cpu_seconds = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
        Some(Self { cpu_seconds, rss: kib("VmRSS:")? << 10, peak: kib("VmHWM:")? << 10 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_addresses_are_read_from_what_the_server_prints() {
        let text =
            "warming\nserving 5f2c on http://127.0.0.1:7000\nadmin and metrics on http://127.0.0.1:7001\n";
        let found = doors(&mut text.as_bytes()).unwrap().unwrap();
        assert_eq!(found, ("http://127.0.0.1:7000".to_owned(), "http://127.0.0.1:7001".to_owned()));
        assert_eq!(doors(&mut "serving 5f2c on http://127.0.0.1:7000\n".as_bytes()).unwrap(), None);
    }

    #[test]
    fn a_program_that_does_not_serve_is_named_with_its_end() {
        let error = Server::start(Path::new("false"), Path::new("x")).err().unwrap().to_string();
        assert!(error.contains("before it listened"), "{error}");
        assert!(Server::start(Path::new("./no-such-program"), Path::new("x")).is_err());
    }

    #[test]
    fn usage_is_read_past_any_name_of_a_program() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 5 1000 200";
        let status = "Name:\ta\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        let usage = Usage::parse(stat, status).unwrap();
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        assert_eq!((usage.cpu_seconds, usage.rss, usage.peak), (300.0 / ticks, 1 << 20, 2 << 20));
        assert_eq!(Usage::parse("7 (a", status), None);
        if cfg!(target_os = "linux") {
            let own = Usage::of("self").unwrap().unwrap();
            assert!(own.rss > 1 << 20 && own.peak >= own.rss / 2, "{own:?}");
        }
    }
}
