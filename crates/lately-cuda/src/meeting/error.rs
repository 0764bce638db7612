//! What can go wrong when a group meets.

/// Why the members of a group did not find each other, or lost each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MeetingError {
    /// There can be no such member.
    #[error(
        "no member {rank} of {size}: ranks go from 0 to one less than the size, check RANK and WORLD_SIZE"
    )]
    Member {
        /// Its number.
        rank: usize,
        /// How many there should be.
        size: usize,
    },
    /// The meeting is no place.
    #[error("`{meeting}` is no place to meet: give host:port of member 0, such as node1:29500")]
    Place {
        /// What was given.
        meeting: String,
    },
    /// Member 0 cannot listen.
    #[error(
        "member 0 cannot listen at {meeting}: {reason}: start member 0 on that host, and choose a port that nothing else \
         has"
    )]
    Listen {
        /// Where.
        meeting: String,
        /// What the system said.
        reason: String,
    },
    /// Some members did not come to member 0.
    #[error(
        "within {seconds} s members {missing:?} of {size} did not come to {meeting}{refused}: read their logs, and check \
         that they can reach that host and port"
    )]
    Absent {
        /// Where member 0 waited.
        meeting: String,
        /// How long.
        seconds: u64,
        /// Who did not come.
        missing: Vec<usize>,
        /// How many there should be.
        size: usize,
        /// Who was turned away last, in words; empty: nobody.
        refused: String,
    },
    /// Member 0 was not reached, or did not answer.
    #[error(
        "member 0 was not met at {meeting} within {seconds} s: {reason}: check that it runs on that host with the same \
         meeting, and that no firewall is between"
    )]
    Unreachable {
        /// Where it was sought.
        meeting: String,
        /// How long.
        seconds: u64,
        /// What happened last.
        reason: String,
    },
    /// Something else listens there.
    #[error("what answers at {meeting} is not member 0 of a group: choose a port that nothing else has")]
    Stranger {
        /// Where.
        meeting: String,
    },
    /// Member 0 is another version of this program.
    #[error("this program meets by version {ours}, member 0 by {theirs}: start all members from one build")]
    Version {
        /// This one's.
        ours: u32,
        /// Member 0's.
        theirs: u32,
    },
    /// Members were told different sizes of the group.
    #[error("this member was told of {ours} members, member 0 of {theirs}: give all the same WORLD_SIZE")]
    Size {
        /// This one's.
        ours: usize,
        /// Member 0's.
        theirs: usize,
    },
    /// Two processes have one number.
    #[error(
        "another process came as member {rank}: give each process its own RANK, and end those of an earlier run"
    )]
    Taken {
        /// The number.
        rank: usize,
    },
    /// A member's process ended, or its connection did.
    #[error(
        "member {rank} is gone: read its log for why, and start all members again, from the last saved state"
    )]
    Gone {
        /// The one whose connection ended; member 0 may have left because of another.
        rank: usize,
    },
}
