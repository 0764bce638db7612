//! How the members of a group find each other (a rendezvous), and learn that one of them is gone.
//!
//! Member 0 listens, the others come and say who they are; when all are there, member 0 hands out the ticket by which NCCL
//! connects their cards. The connections stay open: whatever ends a process closes them, and so the others learn of it,
//! which NCCL does not tell them where cards reach into each other's memory.
//!
//! On the wire, numbers u32 and little-endian: a member says [`MAGIC`], version, size and rank; member 0 answers
//! [`MAGIC`], a verdict and what it is about, and, with a welcome, the ticket. Later versions keep these lengths.

mod error;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, ToSocketAddrs};
use std::thread::sleep;
use std::time::{Duration, Instant};

use lately_model::training::Group;

pub use error::MeetingError;

/// Bytes of a ticket: those of NCCL's unique id.
pub(crate) const TICKET_BYTES: usize = 128;
/// What member 0 makes and all others get.
pub(crate) type Ticket = [u8; TICKET_BYTES];

const MAGIC: [u8; 8] = *b"latelygr";
const VERSION: u32 = 1;
const GREETING_BYTES: usize = 20;
const ANSWER_BYTES: usize = 16;

/// How long a caller may take to say who it is, and a call to be taken.
const COURTESY: Duration = Duration::from_secs(5);
/// Between two calls of a member that did not reach member 0.
const RETRY: Duration = Duration::from_millis(200);
/// Between two looks of member 0 at who came.
const TICK: Duration = Duration::from_millis(5);
/// Callers that have not said who they are, at once; more are turned away and call again.
const GUESTS: usize = 256;

/// Brings a group together, within `limit`: member 0 makes the ticket and hands it out, the others get it.
///
/// # Errors
/// Where the group cannot be, member 0 cannot make the ticket or listen, or some do not come in time.
pub(crate) fn meet<E: From<MeetingError>>(
    group: &Group,
    limit: Duration,
    ticket: impl FnOnce() -> Result<Ticket, E>,
) -> Result<(Ticket, Links), E> {
    check(group)?;
    let place = place(&group.meeting)?;
    if group.rank > 0 {
        return Ok(visit(group, place, limit)?);
    }
    let listener = listen(group, place)?;
    let ticket = ticket()?;
    let links = receive(&listener, group, &ticket, limit)?;
    Ok((ticket, links))
}

/// Refuses a member that cannot be.
pub(crate) fn check(group: &Group) -> Result<(), MeetingError> {
    let Group { rank, size, .. } = *group;
    // NCCL's numbers are i32.
    match rank < size && i32::try_from(size).is_ok() {
        true => Ok(()),
        false => Err(MeetingError::Member { rank, size }),
    }
}

/// Host, without the brackets of an IPv6 address, and port.
fn place(meeting: &str) -> Result<(&str, u16), MeetingError> {
    let parts = meeting.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let Some((host, port)) = parts.filter(|(host, _)| !host.is_empty()) else {
        return Err(MeetingError::Place { meeting: meeting.to_owned() });
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    Ok((bare.unwrap_or(host), port))
}

/// At an address that was given as such, or else at all of this host's: what a name means here may be loopback, and something
/// else to the others.
fn listen(group: &Group, (host, port): (&str, u16)) -> Result<TcpListener, MeetingError> {
    let address = match host {
        "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        _ => host.parse().ok(),
    };
    let listener = match address {
        Some(address) => TcpListener::bind((address, port)),
        None => TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
            .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))),
    };
    listener.map_err(|e| MeetingError::Listen { meeting: group.meeting.clone(), reason: e.to_string() })
}

/// What a caller says.
struct Greeting {
    version: u32,
    size: u32,
    rank: u32,
}

/// What member 0 makes of it.
#[derive(Clone, Copy)]
enum Verdict {
    Welcome = 0,
    Version = 1,
    Size = 2,
    Taken = 3,
}

fn number(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn answer(verdict: Verdict, about: u32) -> [u8; ANSWER_BYTES] {
    let mut bytes = [0; ANSWER_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&(verdict as u32).to_le_bytes());
    bytes[12..].copy_from_slice(&about.to_le_bytes());
    bytes
}

/// A caller that has not yet said who it is.
struct Guest {
    stream: TcpStream,
    since: Instant,
    bytes: [u8; GREETING_BYTES],
    got: usize,
}

/// What came of listening to one.
enum Heard {
    NothingYet,
    /// It left, said something else, or took too long.
    Nobody,
    Greeting(Greeting),
}

impl Guest {
    fn hear(&mut self) -> Heard {
        match self.stream.read(&mut self.bytes[self.got..]) {
            Ok(0) => return Heard::Nobody,
            Ok(more) => self.got += more,
            Err(e) if waits(&e) => {}
            Err(_) => return Heard::Nobody,
        }
        let magic = self.got.min(MAGIC.len());
        if self.bytes[..magic] != MAGIC[..magic] || self.since.elapsed() > COURTESY {
            return Heard::Nobody;
        }
        if self.got < GREETING_BYTES {
            return Heard::NothingYet;
        }
        let [version, size, rank] = [8, 12, 16].map(|at| number(&self.bytes, at));
        Heard::Greeting(Greeting { version, size, rank })
    }
}

/// Whether a socket that does not block has nothing to say for now.
fn waits(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::TimedOut)
}

/// Whether the other side of a connection that does not block is gone. Nobody writes to one after the meeting.
fn ended(stream: &TcpStream) -> bool {
    match stream.peek(&mut [0]) {
        Ok(read) => read == 0,
        Err(e) => !waits(&e),
    }
}

/// Member 0's side. Who does not belong to the group is turned away, and does not disturb the others.
pub(crate) fn receive(
    listener: &TcpListener,
    group: &Group,
    ticket: &Ticket,
    limit: Duration,
) -> Result<Links, MeetingError> {
    let Group { size, ref meeting, .. } = *group;
    let cannot = |e: io::Error| MeetingError::Listen { meeting: meeting.clone(), reason: e.to_string() };
    listener.set_nonblocking(true).map_err(cannot)?;
    let start = Instant::now();
    let mut guests: Vec<Guest> = Vec::new();
    let mut members: Vec<Option<TcpStream>> = (1..size).map(|_| None).collect();
    let mut refused = String::new();
    loop {
        // The place of one that is gone is free: it may be started again.
        for place in &mut members {
            place.take_if(|stream| ended(stream));
        }
        if members.iter().all(Option::is_some) {
            return welcome(members, ticket);
        }
        if start.elapsed() >= limit {
            let missing = (1..size).filter(|rank| members[rank - 1].is_none()).collect();
            let (meeting, seconds) = (meeting.clone(), limit.as_secs());
            return Err(MeetingError::Absent { meeting, seconds, missing, size, refused });
        }
        match listener.accept() {
            // Too many, or not to be waited for: dropped, and it calls again.
            Ok((stream, _)) if guests.len() < GUESTS && stream.set_nonblocking(true).is_ok() => {
                guests.push(Guest { stream, since: Instant::now(), bytes: [0; GREETING_BYTES], got: 0 });
            }
            Ok(_) => {}
            // Nobody is there, or one call broke off, or this process has no descriptor left for now.
            Err(_) => sleep(TICK),
        }
        let mut staying = Vec::with_capacity(guests.len());
        for mut guest in guests {
            match guest.hear() {
                Heard::NothingYet => staying.push(guest),
                Heard::Nobody => {}
                Heard::Greeting(greeting) => {
                    if let Err(words) = admit(guest.stream, &greeting, &mut members) {
                        refused = words;
                    }
                }
            }
        }
        guests = staying;
    }
}

/// Takes a caller as a member, or says to it and in words why not.
fn admit(
    mut stream: TcpStream,
    greeting: &Greeting,
    members: &mut [Option<TcpStream>],
) -> Result<(), String> {
    let size = members.len() + 1;
    let Greeting { version, size: told, rank } = *greeting;
    let place = usize::try_from(rank).ok().and_then(|rank| members.get_mut(rank.checked_sub(1)?));
    let free = place.filter(|place| place.as_ref().is_none_or(ended));
    let (verdict, about) = match free {
        _ if version != VERSION => (Verdict::Version, VERSION),
        _ if told as usize != size => (Verdict::Size, u32::try_from(size).unwrap_or(u32::MAX)),
        Some(place) => {
            *place = Some(stream);
            return Ok(());
        }
        None => (Verdict::Taken, rank),
    };
    // One that left meanwhile needs no answer.
    let _ = stream.write_all(&answer(verdict, about));
    Err(format!(" (a process that came as member {rank} of {told}, by version {version}, was turned away)"))
}

/// Hands out the ticket, when all are there.
fn welcome(members: Vec<Option<TcpStream>>, ticket: &Ticket) -> Result<Links, MeetingError> {
    let mut to = Vec::with_capacity(members.len());
    for (rank, stream) in (1..).zip(members.into_iter().flatten()) {
        let gone = |_: io::Error| MeetingError::Gone { rank };
        let mut stream = stream;
        let mut bytes = [0; ANSWER_BYTES + TICKET_BYTES];
        bytes[..ANSWER_BYTES].copy_from_slice(&answer(Verdict::Welcome, VERSION));
        bytes[ANSWER_BYTES..].copy_from_slice(ticket);
        if ended(&stream) {
            return Err(MeetingError::Gone { rank });
        }
        // A new connection has room for so little.
        stream.write_all(&bytes).map_err(gone)?;
        to.push((rank, stream));
    }
    Ok(Links { to })
}

/// Why one call did not bring a member to member 0.
enum Call {
    /// It may yet come up.
    Again(String),
    Refused(MeetingError),
}

/// The others' side: calls until member 0 answers.
fn visit(group: &Group, place: (&str, u16), limit: Duration) -> Result<(Ticket, Links), MeetingError> {
    let until = Instant::now() + limit;
    let mut reason = "there was no time to call".to_owned();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let (meeting, seconds) = (group.meeting.clone(), limit.as_secs());
            return Err(MeetingError::Unreachable { meeting, seconds, reason });
        }
        match call(group, place, left) {
            Ok((ticket, stream)) => return Ok((ticket, Links { to: vec![(0, stream)] })),
            Err(Call::Refused(error)) => return Err(error),
            Err(Call::Again(why)) => reason = why,
        }
        sleep(RETRY.min(until.saturating_duration_since(Instant::now())));
    }
}

fn call(group: &Group, place: (&str, u16), left: Duration) -> Result<(Ticket, TcpStream), Call> {
    let again = |e: io::Error| Call::Again(e.to_string());
    let mut reason = "its host has no address".to_owned();
    let connected = place.to_socket_addrs().map_err(again)?.find_map(|address| {
        let stream = TcpStream::connect_timeout(&address, COURTESY.min(left));
        stream.map_err(|e| reason = format!("{address}: {e}")).ok()
    });
    let mut stream = connected.ok_or(Call::Again(reason))?;
    stream.set_write_timeout(Some(COURTESY)).map_err(again)?;
    // It answers when all are there.
    stream.set_read_timeout(Some(left)).map_err(again)?;
    let mut greeting = [0; GREETING_BYTES];
    greeting[..8].copy_from_slice(&MAGIC);
    let words = [VERSION, group.size as u32, group.rank as u32]; // `check` saw that they fit
    for (to, word) in greeting[8..].chunks_exact_mut(4).zip(words) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    stream.write_all(&greeting).map_err(again)?;

    let silent = |e: io::Error| match e.kind() {
        ErrorKind::UnexpectedEof => Call::Again("it closed the connection without an answer".into()),
        _ if waits(&e) => Call::Again("it took the call, and waits for other members".into()),
        _ => again(e),
    };
    let mut said = [0; ANSWER_BYTES];
    stream.read_exact(&mut said).map_err(silent)?;
    let (verdict, about) = (number(&said, 8), number(&said, 12));
    let refused = match verdict {
        _ if said[..8] != MAGIC => MeetingError::Stranger { meeting: group.meeting.clone() },
        v if v == Verdict::Welcome as u32 => {
            let mut ticket = [0; TICKET_BYTES];
            stream.read_exact(&mut ticket).map_err(silent)?;
            stream.set_nonblocking(true).map_err(again)?;
            return Ok((ticket, stream));
        }
        v if v == Verdict::Size as u32 => MeetingError::Size { ours: group.size, theirs: about as usize },
        v if v == Verdict::Taken as u32 => MeetingError::Taken { rank: group.rank },
        _ => MeetingError::Version { ours: VERSION, theirs: about },
    };
    Err(Call::Refused(refused))
}

/// Open connections: member 0's to all others, theirs to it. Closed when dropped, by which the others learn that this one is
/// gone.
#[derive(Debug)]
pub(crate) struct Links {
    to: Vec<(usize, TcpStream)>,
}

impl Links {
    /// A member that is gone; none: all others' processes run, as far as is known.
    pub(crate) fn gone(&self) -> Option<usize> {
        self.to.iter().find(|(_, stream)| ended(stream)).map(|(rank, _)| *rank)
    }
}
