//! Groups that meet on this machine, and those that disturb them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use lately_model::training::Group;

use crate::meeting::{Links, MeetingError, TICKET_BYTES, Ticket, meet, receive};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(400);
const TICKET: Ticket = [7; TICKET_BYTES];

fn member(rank: usize, size: usize, at: SocketAddr) -> Group {
    Group { rank, size, meeting: at.to_string() }
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    (listener, at)
}

/// Member 0 on a thread of its own.
fn host(
    listener: TcpListener,
    size: usize,
    limit: Duration,
) -> thread::JoinHandle<Result<Links, MeetingError>> {
    let group = member(0, size, listener.local_addr().unwrap());
    thread::spawn(move || receive(&listener, &group, &TICKET, limit))
}

fn come(group: &Group, limit: Duration) -> Result<(Ticket, Links), MeetingError> {
    meet(group, limit, || panic!("member 0 alone makes the ticket"))
}

/// All but member 0 come; what they get.
fn others(size: usize, at: SocketAddr) -> Vec<Links> {
    let threads: Vec<_> =
        (1..size).map(|rank| thread::spawn(move || come(&member(rank, size, at), LONG))).collect();
    let got = threads.into_iter().map(|thread| thread.join().unwrap().unwrap());
    got.map(|(ticket, links)| (ticket == TICKET).then_some(links).unwrap()).collect()
}

/// The first member that is seen to be gone.
fn gone(links: &Links) -> usize {
    let start = Instant::now();
    while start.elapsed() < LONG {
        if let Some(rank) = links.gone() {
            return rank;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("nobody is seen to be gone");
}

/// Magic and numbers of a greeting.
fn greeting(numbers: [u32; 3]) -> Vec<u8> {
    b"latelygr".iter().copied().chain(numbers.into_iter().flat_map(u32::to_le_bytes)).collect()
}

#[test]
fn all_get_one_ticket_and_see_who_goes() {
    for size in [1, 2, 5] {
        let (listener, at) = listener();
        let host = host(listener, size, LONG);
        let mut others = others(size, at);
        let links = host.join().unwrap().unwrap();
        assert!(links.gone().is_none() && others.iter().all(|links| links.gone().is_none()), "{size}");
        if size > 1 {
            // The last one goes, and then member 0, who alone saw it.
            others.pop();
            assert_eq!(gone(&links), size - 1);
            drop(links);
            others.iter().for_each(|links| assert_eq!(gone(links), 0));
        }
    }
}

#[test]
fn a_member_alone_meets_nobody() {
    let group = Group { rank: 0, size: 1, meeting: "localhost:0".into() };
    let (ticket, links) = meet::<MeetingError>(&group, SHORT, || Ok(TICKET)).unwrap();
    assert!(ticket == TICKET && links.gone().is_none());
}

#[test]
fn a_member_calls_until_member_0_is_up() {
    let (listener, at) = listener();
    let thread = thread::spawn(move || come(&member(1, 2, at), LONG));
    // What was there before takes the call and goes.
    drop(listener.accept().unwrap());
    let host = host(listener, 2, LONG);
    assert_eq!(thread.join().unwrap().unwrap().0, TICKET);
    host.join().unwrap().unwrap();
}

#[test]
fn who_does_not_belong_is_refused_and_the_group_meets() {
    let (listener, at) = listener();
    let host = host(listener, 3, LONG);

    let error = come(&member(1, 4, at), LONG).unwrap_err();
    assert_eq!(error, MeetingError::Size { ours: 4, theirs: 3 });
    assert!(error.to_string().contains("WORLD_SIZE"), "{error}");

    // The first of two with one number; the second is refused as long as the first is there.
    let mut first = TcpStream::connect(at).unwrap();
    first.write_all(&greeting([1, 3, 1])).unwrap();
    let error = come(&member(1, 3, at), LONG).unwrap_err();
    assert_eq!(error, MeetingError::Taken { rank: 1 });
    assert!(error.to_string().contains("RANK"), "{error}");

    // Numbers that are none of a guest's: member 0's own, and one beyond.
    for rank in [0, 3, u32::MAX] {
        let mut stream = TcpStream::connect(at).unwrap();
        stream.write_all(&greeting([1, 3, rank])).unwrap();
        let mut said = Vec::new();
        stream.read_to_end(&mut said).unwrap();
        assert_eq!(said[8..12], 3u32.to_le_bytes());
    }
    // Another version, which is told this one's.
    let mut other = TcpStream::connect(at).unwrap();
    other.write_all(&greeting([9, 3, 2])).unwrap();
    let mut said = Vec::new();
    other.read_to_end(&mut said).unwrap();
    assert_eq!(said, [&b"latelygr"[..], &1u32.to_le_bytes(), &1u32.to_le_bytes()].concat());

    // One that says nothing, one that stops midway, one that wants a page, one that is gone at once.
    let _silent = TcpStream::connect(at).unwrap();
    let mut half = TcpStream::connect(at).unwrap();
    half.write_all(&greeting([1, 3, 2])[..13]).unwrap();
    let mut page = TcpStream::connect(at).unwrap();
    page.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    drop(TcpStream::connect(at).unwrap());

    // The first ends: with the other there the group is not complete. It is when the first is started again.
    drop(first);
    let other = thread::spawn(move || come(&member(2, 3, at), LONG));
    thread::sleep(SHORT / 4);
    assert_eq!(come(&member(1, 3, at), LONG).unwrap().0, TICKET);
    assert_eq!(other.join().unwrap().unwrap().0, TICKET);
    host.join().unwrap().unwrap();
}

#[test]
fn who_does_not_come_is_named() {
    let (listener, at) = listener();
    let host = host(listener, 4, 5 * SHORT);
    assert_eq!(come(&member(2, 5, at), LONG).unwrap_err(), MeetingError::Size { ours: 5, theirs: 4 });
    let mut there = TcpStream::connect(at).unwrap();
    there.write_all(&greeting([1, 4, 2])).unwrap();
    let error = host.join().unwrap().unwrap_err();
    let MeetingError::Absent { missing, size: 4, .. } = &error else { panic!("{error}") };
    assert_eq!(*missing, [1, 3]);
    assert!(error.to_string().contains("came as member 2 of 5"), "{error}");
}

#[test]
fn a_member_does_not_wait_for_ever() {
    let (_deaf, at) = listener();
    // The system takes the call, nobody answers it.
    let start = Instant::now();
    let error = come(&member(1, 2, at), SHORT).unwrap_err();
    assert!(start.elapsed() >= SHORT);
    assert!(matches!(error, MeetingError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("waits for other members"), "{error}");

    // Something else answers, by its own rules.
    let (listener, at) = listener();
    let stranger = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        while matches!(stream.read(&mut [0; 64]), Ok(read) if read > 0) {}
    });
    let error = come(&member(1, 2, at), LONG).unwrap_err();
    assert!(matches!(error, MeetingError::Stranger { .. }), "{error}");
    stranger.join().unwrap();
}

#[test]
fn what_can_be_no_group_or_place_is_refused_at_once() {
    let meet = |rank, size, meeting: &str| {
        meet::<MeetingError>(&Group { rank, size, meeting: meeting.into() }, LONG, || Ok(TICKET)).unwrap_err()
    };
    for (rank, size) in [(0, 0), (1, 1), (7, 2), (0, usize::MAX)] {
        assert_eq!(meet(rank, size, "localhost:0"), MeetingError::Member { rank, size });
    }
    for place in ["", "node1", ":29500", "node1:", "node1:many", "node1:65536", "node1:-1"] {
        assert_eq!(meet(1, 2, place), MeetingError::Place { meeting: place.into() });
    }
    let (_taken, at) = listener();
    let error = meet(0, 2, &at.to_string());
    assert!(matches!(error, MeetingError::Listen { .. }), "{error}");
    assert!(error.to_string().contains("a port that nothing else has"), "{error}");
}
