//! Work that gives way to those who serve.

use std::io::Result;

/// Niceness from which a thread takes only what nobody else wants.
const IDLE: u8 = 19;

/// Runs `work` on a thread of its own whose niceness, and that of the threads it starts, is `nice`. With 10 against 0 the
/// kernel gives it a tenth of a core that both want.
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
///
/// With 19 its policy is SCHED_IDLE too, not for its share but because it is then preempted at once: a thread of the usual
/// policy, however nice, may use up its slice of some ms before one that was woken to score gets the core.
#[cfg(target_os = "linux")]
pub(crate) fn give_way(nice: u8) -> Result<()> {
    use thread_priority::{
        NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
        thread_native_id,
    };
    if nice == 0 {
        return Ok(());
    }
    if nice >= IDLE {
        let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle)
            .map_err(|e| std::io::Error::other(e.to_string()))?;
    }
    // After it: a change of the policy puts the niceness back to 0.
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
    use thread_priority::{NormalThreadSchedulePolicy, ThreadSchedulePolicy};

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
        let policy = || thread_priority::thread_schedule_policy().unwrap();
        let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        let child = || std::thread::spawn(policy).join().unwrap();
        assert_eq!(with_nice(19, || (policy(), child())).unwrap(), (idle, idle));
        assert_ne!(with_nice(18, policy).unwrap(), idle);
        assert_ne!(policy(), idle);
        assert_eq!(with_nice(0, niceness).unwrap(), before);
    }
}
