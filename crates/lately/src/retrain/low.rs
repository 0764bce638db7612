//! Work that gives way to those who serve.

use std::io::Result;

/// Runs `work` on a thread of its own whose niceness, and that of the threads it starts, is `nice`. With 19 against 0
/// the kernel gives it 1.5 % of a core that both want.
pub(super) fn with_nice<T: Send>(nice: u8, work: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("retrain".to_owned()).spawn_scoped(scope, || {
            if let Err(error) = give_way(nice) {
                tracing::warn!(%error, nice, "the retraining keeps its priority: serving may slow down meanwhile");
            }
            work()
        })?;
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Of the calling thread alone: on Linux a thread has a niceness of its own.
#[cfg(target_os = "linux")]
pub(crate) fn give_way(nice: u8) -> Result<()> {
    if nice == 0 {
        return Ok(());
    }
    Ok(rustix::process::setpriority_process(None, i32::from(nice))?)
}

/// Elsewhere the call would hold for the whole process.
#[cfg(not(target_os = "linux"))]
pub(crate) fn give_way(nice: u8) -> Result<()> {
    if nice == 0 {
        return Ok(());
    }
    Err(std::io::Error::from(std::io::ErrorKind::Unsupported))
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    fn niceness() -> i32 {
        rustix::process::getpriority_process(None).unwrap()
    }

    #[test]
    fn the_work_and_the_threads_that_it_starts_give_way_and_nobody_else() {
        let before = niceness();
        let child = || std::thread::spawn(niceness).join().unwrap();
        let (own, child) = with_nice(19, || (niceness(), child())).unwrap();
        assert_eq!((own, child, niceness()), (19, 19, before));
        assert_eq!(with_nice(0, niceness).unwrap(), before);
    }
}
