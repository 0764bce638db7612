//! Which of several processes this one is, by the variables that torchrun sets for each it starts: `RANK`, `WORLD_SIZE`,
//! `LOCAL_RANK`, `MASTER_ADDR` and `MASTER_PORT`. Read for `lately train` alone.
//!
//! Where torchrun itself listens at `MASTER_PORT`, which it says by `TORCHELASTIC_USE_AGENT_STORE`, the processes meet at the
//! port after it.

use std::env::{VarError, var};

use lately_model::training::Group;

/// A process among those that were started together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seat {
    /// Its place among them; `None`: it is the only one.
    pub(crate) group: Option<Group>,
    /// Its card among those of its machine.
    pub(crate) ordinal: usize,
}

impl Seat {
    /// Of a process that was started alone.
    pub(crate) const ALONE: Self = Self { group: None, ordinal: 0 };
}

/// Why the variables do not say which process this is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GroupError {
    /// One says that there is a group, and another is missing.
    #[error(
        "{set} is set and {missing} is not: start all processes by torchrun, which sets RANK, WORLD_SIZE, LOCAL_RANK, \
         MASTER_ADDR and MASTER_PORT, or unset {set} to train in one process"
    )]
    Missing {
        /// The one that is there.
        set: &'static str,
        /// The one that is not.
        missing: &'static str,
    },
    /// A value makes no sense.
    #[error("{name} is `{value}`: it must be {want}")]
    Value {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        want: String,
    },
}

/// This process's.
///
/// # Errors
/// Where the variables are set in part, or to what makes no sense.
pub(crate) fn seat() -> Result<Seat, GroupError> {
    read(&|name| match var(name) {
        Ok(value) => Some(value),
        Err(VarError::NotPresent) => None,
        // Refused by what it must be.
        Err(VarError::NotUnicode(value)) => Some(value.to_string_lossy().into_owned()),
    })
}

/// Clusters may set `MASTER_ADDR` and `MASTER_PORT` for every process: these two alone make no group.
fn read(get: &dyn Fn(&'static str) -> Option<String>) -> Result<Seat, GroupError> {
    let Some(set) = ["RANK", "WORLD_SIZE", "LOCAL_RANK"].into_iter().find(|name| get(name).is_some()) else {
        return Ok(Seat::ALONE);
    };
    let need = |name| get(name).ok_or(GroupError::Missing { set, missing: name });
    let number = |name, value: String, from: usize, below: usize, want: String| match value.parse() {
        Ok(number) if (from..below).contains(&number) => Ok(number),
        _ => Err(GroupError::Value { name, value, want }),
    };
    let (size, rank, ordinal) = (need("WORLD_SIZE")?, need("RANK")?, need("LOCAL_RANK")?);
    let size = number("WORLD_SIZE", size, 1, usize::MAX, "the number of processes, 1 or more".to_owned())?;
    let rank = number("RANK", rank, 0, size, format!("from 0 and below WORLD_SIZE, {size}"))?;
    // A machine has at most all of the processes.
    let ordinal = number("LOCAL_RANK", ordinal, 0, size, format!("from 0 and below WORLD_SIZE, {size}"))?;
    if size == 1 {
        return Ok(Seat { group: None, ordinal });
    }
    let (host, port) = (need("MASTER_ADDR")?, need("MASTER_PORT")?);
    let taken = usize::from(get("TORCHELASTIC_USE_AGENT_STORE").as_deref() == Some("True"));
    let last = (1 << 16) - 1 - taken;
    let port = taken + number("MASTER_PORT", port, 1, last + 1, format!("a port, 1 to {last}"))?;
    if host.is_empty() || host.contains(char::is_whitespace) {
        let want = "the name or address of the machine of RANK 0".to_owned();
        return Err(GroupError::Value { name: "MASTER_ADDR", value: host, want });
    }
    // Of an address of IPv6 the port must be told apart.
    let v6 = host.contains(':') && !host.starts_with('[');
    let meeting = if v6 { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    Ok(Seat { group: Some(Group { rank, size, meeting }), ordinal })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `NAME=value`, separated by spaces.
    fn of(text: &str) -> Result<Seat, GroupError> {
        let all: Vec<(&str, &str)> = text.split(' ').filter_map(|pair| pair.split_once('=')).collect();
        read(&|name| all.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
    }

    const WHOLE: &str = "RANK=5 WORLD_SIZE=8 LOCAL_RANK=1 MASTER_ADDR=a.example MASTER_PORT=29500";

    #[test]
    fn torchruns_variables_say_which_process_it_is() {
        let meeting = "a.example:29500".to_owned();
        assert_eq!(of(WHOLE), Ok(Seat { group: Some(Group { rank: 5, size: 8, meeting }), ordinal: 1 }));
        for alone in ["", "MASTER_ADDR=a MASTER_PORT=1"] {
            assert_eq!(of(alone), Ok(Seat::ALONE));
        }
        assert_eq!(of("RANK=0 WORLD_SIZE=1 LOCAL_RANK=0"), Ok(Seat::ALONE), "one that torchrun started");
        let beside = of(&format!("{WHOLE} TORCHELASTIC_USE_AGENT_STORE=True")).unwrap().group.unwrap();
        assert_eq!(beside.meeting, "a.example:29501", "torchrun holds the other one");
        let v6 = of(&WHOLE.replace("a.example", "fe80::1")).unwrap().group.unwrap();
        assert_eq!(v6.meeting, "[fe80::1]:29500");
    }

    #[test]
    fn what_is_set_in_part_is_refused_with_what_is_missing() {
        for missing in ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"] {
            let left: Vec<&str> = WHOLE.split(' ').filter(|p| p.split('=').next() != Some(missing)).collect();
            let error = of(&left.join(" ")).unwrap_err();
            assert!(matches!(error, GroupError::Missing { missing: m, .. } if m == missing), "{error}");
            assert!(error.to_string().contains("torchrun"), "{error}");
        }
    }

    #[test]
    fn values_that_make_no_sense_are_refused_by_name() {
        for (good, bad) in [
            ("RANK=5", "RANK=8"),
            ("RANK=5", "RANK=-1"),
            ("WORLD_SIZE=8", "WORLD_SIZE=0"),
            ("WORLD_SIZE=8", "WORLD_SIZE=eight"),
            ("LOCAL_RANK=1", "LOCAL_RANK=8"),
            ("LOCAL_RANK=1", "LOCAL_RANK="),
            ("MASTER_PORT=29500", "MASTER_PORT=0"),
            ("MASTER_PORT=29500", "MASTER_PORT=65536"),
            ("MASTER_ADDR=a.example", "MASTER_ADDR="),
        ] {
            let at = WHOLE.find(good).unwrap();
            let text = format!("{}{bad}{}", &WHOLE[..at], &WHOLE[at + good.len()..]);
            let error = of(&text).unwrap_err();
            let (name, value) = bad.split_once('=').unwrap();
            assert!(
                matches!(&error, GroupError::Value { name: n, value: v, .. } if *n == name && v == value),
                "{error}"
            );
        }
    }
}
